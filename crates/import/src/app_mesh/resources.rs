//! Finds App Mesh's resources in documents: answers of the AWS CLI, its input, and CloudFormation templates.

use std::collections::{BTreeMap, BTreeSet};

use crate::cloudformation::{PART_OF_TEMPLATE, StackTemplate};
use crate::cursor::TrackedResource;
use crate::place::{DocumentPlace, ImportError};
use crate::report::{FieldFate, ImportEntry};
use crate::source::SourceDocument;
use crate::tree::{SourceEntry, SourceNode, SourceValue, child};

/// The kinds of resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum AppMeshKind {
    Mesh,
    VirtualNode,
    VirtualService,
    VirtualRouter,
    Route,
    VirtualGateway,
    GatewayRoute,
}

/// A kind, the key of its describe's answer, that of its list's, and the fields that name a resource.
struct KindNames {
    kind: AppMeshKind,
    name: &'static str,
    described: &'static str,
    listed: &'static str,
    keys: &'static [&'static str],
}

/// Kinds whose names are more are before those whose names are fewer: a route also names its router.
const KINDS: [KindNames; 7] = [
    KindNames {
        kind: AppMeshKind::GatewayRoute,
        name: "GatewayRoute",
        described: "gatewayRoute",
        listed: "gatewayRoutes",
        keys: &["virtualGatewayName", "gatewayRouteName"],
    },
    KindNames {
        kind: AppMeshKind::Route,
        name: "Route",
        described: "route",
        listed: "routes",
        keys: &["virtualRouterName", "routeName"],
    },
    KindNames {
        kind: AppMeshKind::VirtualGateway,
        name: "VirtualGateway",
        described: "virtualGateway",
        listed: "virtualGateways",
        keys: &["virtualGatewayName"],
    },
    KindNames {
        kind: AppMeshKind::VirtualRouter,
        name: "VirtualRouter",
        described: "virtualRouter",
        listed: "virtualRouters",
        keys: &["virtualRouterName"],
    },
    KindNames {
        kind: AppMeshKind::VirtualService,
        name: "VirtualService",
        described: "virtualService",
        listed: "virtualServices",
        keys: &["virtualServiceName"],
    },
    KindNames {
        kind: AppMeshKind::VirtualNode,
        name: "VirtualNode",
        described: "virtualNode",
        listed: "virtualNodes",
        keys: &["virtualNodeName"],
    },
    KindNames { kind: AppMeshKind::Mesh, name: "Mesh", described: "mesh", listed: "meshes", keys: &[] },
];

/// The start of the types of resource in CloudFormation.
const TYPE_PREFIX: &str = "AWS::AppMesh::";

/// Whether the document has the fields that name a resource of this kind in its mesh.
fn has_names(names: &KindNames, root: &SourceNode) -> bool {
    let keys: &[&str] = if names.keys.is_empty() { &["meshName"] } else { names.keys };
    keys.iter().all(|key| root.get(key).is_some())
}

/// A resource's kind, mesh and name; the name of a route begins with that of its router.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ResourceId {
    pub(crate) kind: AppMeshKind,
    pub(crate) mesh: String,
    pub(crate) names: Vec<String>,
}

/// A resource of the CLI's input whose mesh is an option of the command.
struct WithoutMesh {
    names: &'static KindNames,
    place: DocumentPlace,
    path: String,
    node: SourceNode,
}

/// All resources of the input.
#[derive(Default)]
pub(crate) struct Resources {
    pub(crate) found: BTreeMap<ResourceId, TrackedResource>,
    without_mesh: Vec<WithoutMesh>,
    /// Templates without a resource of App Mesh.
    others: Vec<(DocumentPlace, String, u32)>,
    /// Listed, and described nowhere so far.
    listed: Vec<(ResourceId, ImportEntry)>,
    pub(crate) entries: Vec<ImportEntry>,
    pub(crate) errors: Vec<ImportError>,
}

impl Resources {
    /// The resources of the documents.
    pub(crate) fn of(documents: Vec<SourceDocument>) -> Self {
        let mut resources = Self::default();
        let first = documents.first().map(|document| document.place.clone());
        for document in documents {
            resources.add_document(document);
        }
        resources.add_without_mesh();
        resources.note_others(first.as_ref());
        for (id, entry) in std::mem::take(&mut resources.listed) {
            if !resources.found.contains_key(&id) {
                resources.entries.push(entry);
            }
        }
        resources
    }

    /// Resources that do not name their mesh belong to the only one that others name.
    fn add_without_mesh(&mut self) {
        let meshes: BTreeSet<String> = self.found.keys().map(|id| id.mesh.clone()).collect();
        for WithoutMesh { names, place, path, mut node } in std::mem::take(&mut self.without_mesh) {
            let line = node.line;
            let (Some(mesh), 1) = (meshes.first(), meshes.len()) else {
                let message = "is missing, and the rest of the input does not name exactly one mesh: add it to the document";
                let path = child(&path, "meshName");
                self.errors.push(ImportError { path, ..ImportError::about(&place, line, message) });
                continue;
            };
            if let SourceValue::Map(entries) = &mut node.value {
                let node = SourceNode { line, value: SourceValue::Text(mesh.clone()) };
                entries.push(SourceEntry { key: "meshName".to_owned(), node });
            }
            self.add_resource(names, &place, &path, node, |resource| {
                let reason =
                    "the document does not name its mesh: it is taken to be the only one of the input";
                resource.cursor().get("meshName").iter().for_each(|mesh| {
                    mesh.changed("Workload.spec.bindings", reason, true);
                });
                resource
            });
        }
    }

    /// A template of something else is a line of the report, and an error where the input has nothing but such.
    fn note_others(&mut self, first: Option<&DocumentPlace>) {
        let others = std::mem::take(&mut self.others);
        let is_empty = self.found.is_empty() && self.listed.is_empty();
        for (place, path, line) in &others {
            if is_empty {
                self.errors.push(unknown(
                    place,
                    *line,
                    "the template has no resource of type AWS::AppMesh::…",
                ));
            } else {
                let entry = ImportEntry::new(place, *line, &"Template".into(), path.clone());
                let reason = "the template has no resource of App Mesh";
                self.entries.push(ImportEntry { reason: reason.to_owned(), ..entry });
            }
        }
        if let Some(place) = first
            && is_empty
            && self.errors.is_empty()
        {
            self.errors.push(unknown(place, 1, "the input names no resource"));
        }
    }

    fn add_document(&mut self, SourceDocument { place, root }: SourceDocument) {
        if let SourceValue::List(items) = root.value {
            // Some tools collect the answers in a list.
            for (index, item) in items.into_iter().enumerate() {
                self.add_root(&place, &format!("[{index}]"), item);
            }
            return;
        }
        self.add_root(&place, "", root);
    }

    fn add_root(&mut self, place: &DocumentPlace, prefix: &str, root: SourceNode) {
        if root.get("Resources").is_some() {
            return self.add_template(place, prefix, &root);
        }
        let line = root.line;
        let SourceValue::Map(entries) = root.value else {
            return self.errors.push(unknown(place, line, "the document is no object"));
        };
        let root = SourceNode { line, value: SourceValue::Map(entries) };
        if root.get("spec").is_some()
            && root.get("kind").is_none()
            && let Some(names) = KINDS.iter().find(|names| has_names(names, &root))
        {
            if root.get("meshName").is_none() {
                let (place, path) = (place.clone(), prefix.to_owned());
                return self.without_mesh.push(WithoutMesh { names, place, path, node: root });
            }
            return self.add(place, prefix, names, root);
        }
        self.add_answers(place, prefix, root);
    }

    /// The answers of describe and list calls.
    fn add_answers(&mut self, place: &DocumentPlace, prefix: &str, root: SourceNode) {
        let line = root.line;
        let SourceValue::Map(entries) = root.value else { return };
        let keys: Vec<String> = entries.iter().map(|entry| entry.key.clone()).collect();
        let is_known = |key: &String| KINDS.iter().any(|names| names.described == key || names.listed == key);
        if !keys.iter().any(is_known) {
            let shown: Vec<&str> = keys.iter().take(8).map(String::as_str).collect();
            let found = if shown.is_empty() { "nothing".to_owned() } else { shown.join(", ") };
            return self.errors.push(unknown(place, line, &format!("the document has {found}")));
        }
        for SourceEntry { key, node } in entries {
            let path = child(prefix, &key);
            if let Some(names) = KINDS.iter().find(|names| names.described == key) {
                self.add(place, &path, names, node);
            } else if let Some(names) = KINDS.iter().find(|names| names.listed == key) {
                self.add_list(place, &path, names, &node);
            } else {
                let (reason, action) = match (key.as_str(), &node.value) {
                    (_, SourceValue::Null) => continue,
                    ("nextToken", _) => ("the list is incomplete: call again for the rest", true),
                    ("ResponseMetadata", _) => ("a record of the call, which boto3 adds", false),
                    _ => ("this importer does not know the field", true),
                };
                let subject = "answer of a call".into();
                let entry = ImportEntry::new(place, node.line, &subject, path);
                self.entries.push(ImportEntry { reason: reason.to_owned(), action, ..entry });
            }
        }
    }

    /// An answer of a list call names resources and says nothing else about them.
    fn add_list(&mut self, place: &DocumentPlace, path: &str, names: &'static KindNames, list: &SourceNode) {
        for (index, item) in list.items().iter().enumerate() {
            let path = format!("{path}[{index}]");
            match id_of(names, item) {
                Ok(id) => {
                    let entry = ImportEntry::new(place, item.line, &subject(names, &id).into(), path);
                    let reason =
                        "listed, and not described in the input: add the answer of its describe call";
                    self.listed.push((id, ImportEntry { reason: reason.to_owned(), action: true, ..entry }));
                }
                Err(field) => self.errors.push(missing(place, item.line, &child(&path, field))),
            }
        }
    }

    fn add(&mut self, place: &DocumentPlace, path: &str, names: &'static KindNames, node: SourceNode) {
        self.add_resource(names, place, path, node, |resource| resource);
    }

    fn add_resource(
        &mut self,
        names: &'static KindNames,
        place: &DocumentPlace,
        path: &str,
        node: SourceNode,
        finish: impl FnOnce(TrackedResource) -> TrackedResource,
    ) {
        let id = match id_of(names, &node) {
            Ok(id) => id,
            Err(field) => return self.errors.push(missing(place, node.line, &child(path, field))),
        };
        let resource = finish(TrackedResource::new(place, path, &subject(names, &id), node));
        let Some(earlier) = self.found.get(&id) else {
            self.found.insert(id, resource);
            return;
        };
        let spec = |resource: &TrackedResource| resource.root.get("spec").cloned();
        let is_same = match (spec(earlier), spec(&resource)) {
            (Some(one), Some(other)) => one.says_the_same(&other),
            (one, other) => one.is_none() && other.is_none(),
        };
        if is_same {
            let entry =
                ImportEntry::new(place, resource.root.line, &resource.subject, resource.prefix.clone());
            self.entries.push(ImportEntry {
                fate: FieldFate::CarriedOver,
                target: format!("the same as at {}", earlier.location()),
                ..entry
            });
        } else {
            let message = format!(
                "{} is also at {}, with another spec: delete the one that is out of date",
                resource.subject,
                earlier.location()
            );
            let path = resource.prefix.clone();
            self.errors.push(ImportError { path, ..ImportError::about(place, resource.root.line, message) });
        }
    }

    /// The App Mesh resources of a CloudFormation template, whose fields begin with capitals.
    fn add_template(&mut self, place: &DocumentPlace, prefix: &str, root: &SourceNode) {
        let path = child(prefix, "Resources");
        let kind = |node: &SourceNode| node.get("Type").and_then(SourceNode::as_text).unwrap_or_default();
        let resources = root.get("Resources").map(SourceNode::entries).unwrap_or_default();
        if !resources.iter().any(|entry| kind(&entry.node).starts_with(TYPE_PREFIX)) {
            return self.others.push((place.clone(), path, root.line));
        }
        for entry in root.entries().iter().filter(|entry| entry.key != "Resources") {
            let entry =
                ImportEntry::new(place, entry.node.line, &"Template".into(), child(prefix, &entry.key));
            self.entries.push(ImportEntry { reason: PART_OF_TEMPLATE.to_owned(), ..entry });
        }
        let template = StackTemplate::of(root);
        for entry in resources {
            let kind = kind(&entry.node);
            let path = child(&path, &entry.key);
            let names = kind.strip_prefix(TYPE_PREFIX);
            let Some(names) = names.and_then(|name| KINDS.iter().find(|names| names.name == name)) else {
                let subject = format!("{kind} {}", entry.key).into();
                let reason = "a resource of the template that is not App Mesh's: it stays as it is";
                let entry = ImportEntry::new(place, entry.node.line, &subject, path);
                self.entries.push(ImportEntry { reason: reason.to_owned(), ..entry });
                continue;
            };
            let Some(properties) = entry.node.get("Properties") else {
                self.errors.push(missing(place, entry.node.line, &child(&path, "Properties")));
                continue;
            };
            let node = with_default_names(camel_case(&template.resolve(properties)), names, &entry.key);
            let path = child(&path, "Properties");
            self.add_resource(names, place, &path, node, |resource| {
                resource.with_written(properties.clone(), camel_key)
            });
        }
    }
}

/// Most names are optional in CloudFormation; the logical id then is the start of the name.
fn with_default_names(node: SourceNode, names: &KindNames, logical_id: &str) -> SourceNode {
    let SourceNode { line, value: SourceValue::Map(mut entries) } = node else { return node };
    let own = names.keys.last().copied().unwrap_or("meshName");
    if !entries.iter().any(|entry| entry.key == own) {
        let node = SourceNode { line, value: SourceValue::Text(logical_id.to_owned()) };
        entries.push(SourceEntry { key: own.to_owned(), node });
    }
    SourceNode { line, value: SourceValue::Map(entries) }
}

/// The keys as in App Mesh's API: `AWSCloudMap` is `awsCloudMap`, and `TLS` is `tls`.
fn camel_case(node: &SourceNode) -> SourceNode {
    let value = match &node.value {
        SourceValue::Map(entries) => SourceValue::Map(
            entries
                .iter()
                .map(|entry| SourceEntry { key: camel_key(&entry.key), node: camel_case(&entry.node) })
                .collect(),
        ),
        SourceValue::List(items) => SourceValue::List(items.iter().map(camel_case).collect()),
        other => other.clone(),
    };
    SourceNode { line: node.line, value }
}

fn camel_key(key: &str) -> String {
    let is_capital = |byte: &u8| byte.is_ascii_uppercase() || byte.is_ascii_digit();
    let run = key.bytes().take_while(is_capital).count();
    let small = if run == key.len() { run } else { run.saturating_sub(1).max(usize::from(run > 0)) };
    key[..small].to_ascii_lowercase() + &key[small..]
}

/// The id, or the field that is missing.
fn id_of(names: &KindNames, node: &SourceNode) -> Result<ResourceId, &'static str> {
    let text = |key: &'static str| node.get(key).and_then(SourceNode::as_text).ok_or(key);
    let of_names: Result<Vec<String>, _> = names.keys.iter().map(|key| text(key)).collect();
    Ok(ResourceId { kind: names.kind, mesh: text("meshName")?, names: of_names? })
}

fn subject(names: &KindNames, id: &ResourceId) -> String {
    let mut text = format!("{} {}", names.name, id.mesh);
    for name in &id.names {
        text = text + "/" + name;
    }
    text
}

fn missing(place: &DocumentPlace, line: u32, path: &str) -> ImportError {
    let message = "is missing, or is not a text that the input says";
    ImportError { path: path.to_owned(), ..ImportError::about(place, line, message) }
}

fn unknown(place: &DocumentPlace, line: u32, found: &str) -> ImportError {
    let message = format!(
        "not a resource of App Mesh: {found}; expected the answer of a describe or list call (mesh, virtualNode, \
         virtualService, virtualRouter, route, virtualGateway, gatewayRoute), or a CloudFormation template"
    );
    ImportError::about(place, line, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_cloudformation_become_those_of_the_api() {
        for (key, name) in [
            ("PortMapping", "portMapping"),
            ("TLS", "tls"),
            ("HTTP2", "http2"),
            ("AWSCloudMap", "awsCloudMap"),
            ("Http2Route", "http2Route"),
            ("meshName", "meshName"),
            ("GRPC", "grpc"),
        ] {
            assert_eq!(camel_key(key), name);
        }
    }
}
