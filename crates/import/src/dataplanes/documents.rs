//! Finds Kuma's proxies in documents: resources and templates of their own, lists of them, and those within ECS task
//! definitions and CloudFormation templates.

use std::collections::BTreeMap;

use ecs_mesh_model::{ContainerStart, SidecarOutbounds, SidecarSetting};

use super::templates::{embedded_documents, substituted};
use crate::cloudformation::{PART_OF_TEMPLATE, StackTemplate, is_of_stack, references};
use crate::cursor::TrackedResource;
use crate::place::{DocumentPlace, ImportError};
use crate::report::ImportEntry;
use crate::source::SourceDocument;
use crate::tree::{SourceEntry, SourceNode, SourceValue, child};

/// The reason for what belongs to a task definition and not to the proxy.
const STAYS: &str = "it stays in the task definition";

/// The types of resource that are imported.
pub(super) const TYPES: [&str; 3] = ["Dataplane", "ZoneIngress", "ZoneEgress"];

/// The tasks of a proxy, as far as the definition shows them that has its template.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct TaskContext {
    /// ECS services.
    pub(super) services: Vec<String>,
    /// The task definition's family.
    pub(super) family: Option<String>,
    /// Whether the sidecar binds its outbounds, where its definition shows it.
    pub(super) binds_outbounds: bool,
}

/// A proxy that was found.
pub(super) struct FoundProxy {
    pub(super) kind: &'static str,
    pub(super) resource: TrackedResource,
    pub(super) task: TaskContext,
}

impl FoundProxy {
    /// Notes at its type what the proxy as a whole does not say. A person has to act on it.
    pub(super) fn note(&self, target: &str, reason: &str) {
        self.resource.cursor().get("type").iter().for_each(|cursor| cursor.changed(target, reason, true));
    }
}

/// All that was found in the input.
#[derive(Default)]
pub(super) struct FoundProxies {
    pub(super) proxies: Vec<FoundProxy>,
    /// Cluster ARNs.
    pub(super) clusters: Vec<String>,
    pub(super) entries: Vec<ImportEntry>,
    pub(super) errors: Vec<ImportError>,
    /// Templates and task definitions without a proxy.
    others: Vec<OtherDocument>,
}

/// A document of a known kind without a proxy.
struct OtherDocument {
    place: DocumentPlace,
    path: String,
    line: u32,
    message: &'static str,
}

impl FoundProxies {
    pub(super) fn add_document(&mut self, SourceDocument { place, root }: &SourceDocument) {
        self.add_root(place, "", root);
    }

    /// A document without a proxy is a line of the report, and an error where the input has nothing but such.
    pub(super) fn note_others(&mut self) {
        for OtherDocument { place, path, line, message } in std::mem::take(&mut self.others) {
            if self.proxies.is_empty() {
                self.errors.push(ImportError { path, ..ImportError::about(&place, line, message) });
            } else {
                let entry = ImportEntry::new(&place, line, &"Document".into(), path);
                self.entries.push(ImportEntry { reason: message.to_owned(), ..entry });
            }
        }
    }

    fn add_other(&mut self, place: &DocumentPlace, path: &str, line: u32, message: &'static str) {
        self.others.push(OtherDocument { place: place.clone(), path: path.to_owned(), line, message });
    }

    fn add_root(&mut self, place: &DocumentPlace, prefix: &str, root: &SourceNode) {
        if let SourceValue::List(items) = &root.value {
            for (index, item) in items.iter().enumerate() {
                self.add_root(place, &format!("{prefix}[{index}]"), item);
            }
        } else if root.get("Resources").is_some() {
            self.add_stack(place, prefix, root);
        } else if root.get("items").is_some() && root.get("type").is_none() {
            self.add_list(place, prefix, root);
        } else if let Some(definition) =
            root.get("taskDefinition").filter(|one| one.get("containerDefinitions").is_some())
        {
            for entry in root.entries().iter().filter(|entry| entry.key != "taskDefinition") {
                self.add_entry(place, &entry.node, child(prefix, &entry.key), "TaskDefinition", STAYS, false);
            }
            self.add_definition(place, &child(prefix, "taskDefinition"), definition, &TaskContext::default());
        } else if root.get("containerDefinitions").is_some() {
            self.add_definition(place, prefix, root, &TaskContext::default());
        } else {
            self.add_resource(place, prefix, root.clone(), TaskContext::default());
        }
    }

    /// The list of `kumactl get … -o yaml` and of the API.
    fn add_list(&mut self, place: &DocumentPlace, prefix: &str, root: &SourceNode) {
        for entry in root.entries() {
            let path = child(prefix, &entry.key);
            match entry.key.as_str() {
                "items" => self.add_root(place, &path, &entry.node),
                "total" => {}
                "next" if entry.node.value == SourceValue::Null => {}
                "next" => self.add_entry(
                    place,
                    &entry.node,
                    path,
                    "list",
                    "the list is incomplete: fetch its other pages",
                    true,
                ),
                _ => self.add_entry(
                    place,
                    &entry.node,
                    path,
                    "list",
                    "this importer does not know the field",
                    true,
                ),
            }
        }
    }

    fn add_resource(&mut self, place: &DocumentPlace, prefix: &str, root: SourceNode, task: TaskContext) {
        let text = |key: &str| root.get(key).and_then(SourceNode::as_text);
        let kind = text("type");
        let name = text("name").unwrap_or_default();
        if let Some(kind) = TYPES.into_iter().find(|known| kind.as_deref() == Some(*known)) {
            let mesh = text("mesh").map(|mesh| mesh + "/").unwrap_or_default();
            let resource = TrackedResource::new(place, prefix, &format!("{kind} {mesh}{name}"), root);
            self.proxies.push(FoundProxy { kind, resource, task });
            return;
        }
        match kind {
            Some(kind) if root.get("kind").is_none() => {
                let reason = "a resource of Kuma that is not a proxy: it stays as it is";
                let subject = format!("{kind} {name}");
                self.add_entry(place, &root, prefix.to_owned(), &subject, reason, false);
            }
            _ => {
                let keys: Vec<&str> = root.entries().iter().take(8).map(|entry| entry.key.as_str()).collect();
                let message = format!(
                    "not a proxy of Kuma: the document has {}; expected `type: Dataplane`, ZoneIngress or ZoneEgress in \
                     Universal form, an ECS task definition, or a CloudFormation template",
                    if keys.is_empty() { "no fields".to_owned() } else { keys.join(", ") }
                );
                let path = prefix.to_owned();
                self.errors.push(ImportError { path, ..ImportError::about(place, root.line, message) });
            }
        }
    }

    fn add_entry(
        &mut self,
        place: &DocumentPlace,
        node: &SourceNode,
        path: String,
        subject: &str,
        reason: &str,
        action: bool,
    ) {
        let entry = ImportEntry::new(place, node.line, &subject.into(), path);
        let reason = reason.to_owned();
        self.entries.push(ImportEntry { field: String::new(), reason, action, ..entry });
    }

    /// The resources of a CloudFormation template: task definitions, each with the services that run it, and templates in the
    /// texts of other resources, such as parameters, secrets and user data.
    fn add_stack(&mut self, place: &DocumentPlace, prefix: &str, root: &SourceNode) {
        let (proxies, entries) = (self.proxies.len(), self.entries.len());
        for entry in root.entries().iter().filter(|entry| entry.key != "Resources") {
            self.add_entry(
                place,
                &entry.node,
                child(prefix, &entry.key),
                "Template",
                PART_OF_TEMPLATE,
                false,
            );
        }
        let template = StackTemplate::of(root);
        let resources = root.get("Resources").map(SourceNode::entries).unwrap_or_default();
        let mut contexts: BTreeMap<String, TaskContext> = BTreeMap::new();
        for entry in resources.iter().filter(|entry| kind_of(&entry.node) == "AWS::ECS::Service") {
            self.add_service(&template, &entry.node, &mut contexts);
        }
        let readers = SecretReader::of_all(&template, resources, &contexts);
        let path = child(prefix, "Resources");
        for entry in resources {
            let path = child(&path, &entry.key);
            let resolved = template.resolve(&entry.node);
            let before = self.proxies.len();
            if kind_of(&entry.node) == TASK_DEFINITION
                && let Some(properties) = resolved.get("Properties")
            {
                let context = contexts.get(&entry.key).cloned().unwrap_or_default();
                self.add_definition(place, &child(&path, "Properties"), properties, &context);
            }
            if self.proxies.len() == before {
                self.add_texts(place, &path, &resolved, &readers, &entry.key);
            }
        }
        if self.proxies.len() == proxies {
            self.entries.truncate(entries);
            let message =
                "the template has no resource with the template of a Dataplane, ZoneIngress or ZoneEgress";
            self.add_other(place, prefix, root.line, message);
        }
    }

    /// The templates in the texts of a resource that is no task definition.
    fn add_texts(
        &mut self,
        place: &DocumentPlace,
        path: &str,
        resource: &SourceNode,
        readers: &[SecretReader],
        id: &str,
    ) {
        let before = self.proxies.len();
        let name = resource.at(&["Properties", "Name"]).and_then(SourceNode::as_text).unwrap_or_default();
        let reader = readers.iter().find(|reader| reader.reads(id, &name));
        for (at, line, text) in texts(resource, path) {
            let context =
                reader.map_or_else(|| SidecarContext::of_script(&text), |reader| reader.context.clone());
            self.add_text(place, &at, line, &text, &context);
        }
        let reason = if self.proxies.len() > before {
            "all else of the resource stays; take the template out of it when the service moves"
        } else {
            "a resource of the template without a proxy's template: it stays as it is"
        };
        self.add_entry(
            place,
            resource,
            path.to_owned(),
            &format!("{} {id}", kind_of(resource)),
            reason,
            false,
        );
    }

    /// Adds a service to the context of the task definition that it runs.
    fn add_service(
        &mut self,
        template: &StackTemplate<'_>,
        service: &SourceNode,
        contexts: &mut BTreeMap<String, TaskContext>,
    ) {
        let Some(properties) = service.get("Properties") else { return };
        let definition =
            properties.get("TaskDefinition").and_then(|node| references(node).into_iter().next());
        let Some(definition) = definition else { return };
        let properties = template.resolve(properties);
        let known =
            |key: &str| properties.get(key).and_then(SourceNode::as_text).filter(|text| !is_of_stack(text));
        contexts.entry(definition).or_default().services.extend(known("ServiceName"));
        self.clusters.extend(known("Cluster").filter(|cluster| cluster.starts_with("arn:")));
    }

    /// The templates in the containers of a task definition.
    fn add_definition(
        &mut self,
        place: &DocumentPlace,
        prefix: &str,
        definition: &SourceNode,
        task: &TaskContext,
    ) {
        let family = family_of(definition);
        let containers_key = if definition.get("ContainerDefinitions").is_some() {
            "ContainerDefinitions"
        } else {
            "containerDefinitions"
        };
        let containers = definition.get(containers_key).map(SourceNode::items).unwrap_or_default();
        let before = self.proxies.len();
        for (index, container) in containers.iter().enumerate() {
            let path = format!("{}[{index}]", child(prefix, containers_key));
            let task = TaskContext { family: family.clone(), ..task.clone() };
            self.add_container(place, &path, container, task);
        }
        if self.proxies.len() == before && !prefix.ends_with("Properties") {
            let message = "the task definition has no template of a Dataplane, ZoneIngress or ZoneEgress";
            self.add_other(place, prefix, definition.line, message);
        } else if self.proxies.len() > before {
            let subject = format!("TaskDefinition {}", family.as_deref().unwrap_or_default());
            let reason =
                "all else of the task definition stays; take the template out of it when the service moves";
            self.add_entry(place, definition, prefix.to_owned(), &subject, reason, false);
        }
    }

    fn add_container(
        &mut self,
        place: &DocumentPlace,
        path: &str,
        container: &SourceNode,
        task: TaskContext,
    ) {
        let parts = ContainerParts::of(container);
        let context = SidecarContext::of(&parts.start(), task);
        for (text, place_in, line) in &parts.texts {
            self.add_text(place, &format!("{path}.{place_in}"), *line, text, &context);
        }
    }

    /// The templates in a text.
    fn add_text(&mut self, place: &DocumentPlace, at: &str, line: u32, text: &str, context: &SidecarContext) {
        for document in embedded_documents(text) {
            match document {
                Ok(root) => {
                    let root = substituted(&root, &context.variables, context.mesh.as_deref(), line);
                    self.add_resource(place, at, root, context.task.clone());
                }
                Err(error) => {
                    let path = at.to_owned();
                    let error = crate::place::SourceError { line: Some(line), column: None, path, ..error };
                    self.errors.push(error.at(place));
                }
            }
        }
    }
}

const TASK_DEFINITION: &str = "AWS::ECS::TaskDefinition";

fn kind_of(resource: &SourceNode) -> String {
    resource.get("Type").and_then(SourceNode::as_text).unwrap_or_default()
}

/// The texts in a value, with their paths and lines.
fn texts(node: &SourceNode, path: &str) -> Vec<(String, u32, String)> {
    let mut found = Vec::new();
    collect_texts(node, path.to_owned(), &mut found);
    found
}

fn collect_texts(node: &SourceNode, path: String, found: &mut Vec<(String, u32, String)>) {
    if let SourceValue::Text(text) = &node.value {
        found.push((path, node.line, text.clone()));
        return;
    }
    for entry in node.entries() {
        collect_texts(&entry.node, child(&path, &entry.key), found);
    }
    for (index, item) in node.items().iter().enumerate() {
        collect_texts(item, format!("{path}[{index}]"), found);
    }
}

/// The facts about a template that its sidecar's start has.
#[derive(Clone, Default)]
struct SidecarContext {
    task: TaskContext,
    variables: BTreeMap<String, String>,
    mesh: Option<String>,
}

impl SidecarContext {
    fn of(start: &ContainerStart<'_>, mut task: TaskContext) -> Self {
        let Some(sidecar) = start.kuma_sidecar() else { return Self { task, ..Self::default() } };
        let pairs = sidecar.values("dataplane-var").into_iter().filter_map(|pair| pair.split_once('='));
        task.binds_outbounds = sidecar.outbounds() == SidecarOutbounds::Bound;
        let mesh = match sidecar.setting("mesh", "KUMA_DATAPLANE_MESH") {
            SidecarSetting::Given(mesh) if !mesh.contains('$') => Some(mesh.to_owned()),
            _ => None,
        };
        Self { task, variables: pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect(), mesh }
    }

    /// Of a script, such as user data, that starts a sidecar.
    fn of_script(text: &str) -> Self {
        let start = ContainerStart { arguments: vec!["sh", "-c", text], ..ContainerStart::default() };
        Self::of(&start, TaskContext::default())
    }
}

/// A container that reads a parameter or a secret of the template.
struct SecretReader {
    /// The logical ids that the value's function refers to.
    ids: Vec<String>,
    /// The name or ARN, as far as the template says it.
    value_from: String,
    context: SidecarContext,
}

impl SecretReader {
    fn of_all(
        template: &StackTemplate<'_>,
        resources: &[SourceEntry],
        contexts: &BTreeMap<String, TaskContext>,
    ) -> Vec<Self> {
        let mut readers = Vec::new();
        for entry in resources.iter().filter(|entry| kind_of(&entry.node) == TASK_DEFINITION) {
            let Some(properties) = entry.node.get("Properties") else { continue };
            let resolved = template.resolve(properties);
            let family = family_of(&resolved);
            let task = TaskContext { family, ..contexts.get(&entry.key).cloned().unwrap_or_default() };
            let containers = resolved.get("ContainerDefinitions").map(SourceNode::items).unwrap_or_default();
            let written = properties.get("ContainerDefinitions").map(SourceNode::items).unwrap_or_default();
            for (container, written) in containers.iter().zip(written) {
                let context = SidecarContext::of(&ContainerParts::of(container).start(), task.clone());
                let secrets = |node: &SourceNode| node.get("Secrets").map(|list| list.items().to_vec());
                let (resolved, written) = (secrets(container), secrets(written));
                for (resolved, written) in resolved.into_iter().flatten().zip(written.into_iter().flatten()) {
                    let value = resolved.get("ValueFrom").and_then(SourceNode::as_text);
                    readers.push(Self {
                        ids: written.get("ValueFrom").map(references).unwrap_or_default(),
                        value_from: value.unwrap_or_default(),
                        context: context.clone(),
                    });
                }
            }
        }
        readers
    }

    fn reads(&self, id: &str, name: &str) -> bool {
        let is_named = !name.is_empty() && !is_of_stack(name) && self.value_from.ends_with(name);
        is_named || self.ids.iter().any(|known| known == id)
    }
}

fn family_of(definition: &SourceNode) -> Option<String> {
    either(definition, "family").and_then(SourceNode::as_text).filter(|text| !is_of_stack(text))
}

/// The value of a key, which CloudFormation begins with a capital.
fn either<'a>(node: &'a SourceNode, key: &str) -> Option<&'a SourceNode> {
    let capital = key[..1].to_ascii_uppercase() + &key[1..];
    node.get(key).or_else(|| node.get(&capital))
}

/// The texts of a container definition, owned for [`ContainerStart`].
struct ContainerParts {
    image: String,
    arguments: Vec<String>,
    environment: Vec<(String, Option<String>)>,
    has_environment_files: bool,
    /// Each text that may hold a template, its path and its line.
    texts: Vec<(String, String, u32)>,
}

impl ContainerParts {
    fn of(container: &SourceNode) -> Self {
        let text = |key: &str| either(container, key).and_then(SourceNode::as_text).unwrap_or_default();
        let items = |key: &str| either(container, key).map(SourceNode::items).unwrap_or_default();
        let mut parts = Self {
            image: text("image"),
            arguments: Vec::new(),
            environment: Vec::new(),
            has_environment_files: !items("environmentFiles").is_empty(),
            texts: Vec::new(),
        };
        for key in ["entryPoint", "command"] {
            for (index, item) in items(key).iter().enumerate() {
                let Some(argument) = item.as_text() else { continue };
                parts.texts.push((argument.clone(), format!("{key}[{index}]"), item.line));
                parts.arguments.push(argument);
            }
        }
        for item in items("environment") {
            let part = |key: &str| either(item, key).and_then(SourceNode::as_text);
            let (Some(name), Some(value)) = (part("name"), part("value")) else { continue };
            parts.texts.push((value.clone(), format!("environment.{name}"), item.line));
            parts.environment.push((name, Some(value)));
        }
        for item in items("secrets") {
            parts
                .environment
                .extend(either(item, "name").and_then(SourceNode::as_text).map(|name| (name, None)));
        }
        parts
    }

    fn start(&self) -> ContainerStart<'_> {
        ContainerStart {
            image: &self.image,
            arguments: self.arguments.iter().map(String::as_str).collect(),
            environment: self
                .environment
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_deref()))
                .collect(),
            has_environment_files: self.has_environment_files,
        }
    }
}
