//! Manifests as text, and their validation.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use ecs_mesh_api::manifests::{ManifestFinding, ManifestScope, assemble, read_file};
use ecs_mesh_api::yaml::scalar;
use ecs_mesh_api::{
    API_VERSION, BindingSelector, ConsulAuthSpec, ControlPlaneSpec, MeshBindingSpec, OutboundListSpec,
    WorkloadSelector, WorkloadSpec,
};
use serde::Serialize;

use crate::json;
use crate::tree::{SourceNode, SourceValue};

/// A manifest that was made of the input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportedManifest {
    /// The kind of manifest.
    pub kind: &'static str,
    /// `metadata.name`.
    pub name: String,
    /// The document, with a final newline and without a line `---`.
    pub text: String,
}

impl ImportedManifest {
    pub(crate) fn control_plane(name: &str, comment: &str, spec: &ControlPlaneSpec) -> Self {
        let base = ControlPlaneSpec { kuma: None, consul: None, writes_per_second: 500, ..spec.clone() };
        let mut tree = pruned(spec, &base, &["type"]);
        // The connection's own default.
        for block in ["kuma", "consul"] {
            drop_key(&mut tree, block, "timeout");
        }
        Self::of("ControlPlane", name, comment, &tree)
    }

    pub(crate) fn mesh_binding(name: &str, comment: &str, spec: &MeshBindingSpec) -> Self {
        let base = binding(&spec.control_plane, spec.selector.clone());
        Self::of("MeshBinding", name, comment, &pruned(spec, &base, &["controlPlane", "mesh", "selector"]))
    }

    pub(crate) fn workload(name: &str, comment: &str, spec: &WorkloadSpec) -> Self {
        let base = workload(spec);
        Self::of("Workload", name, comment, &pruned(spec, &base, &["selector", "service"]))
    }

    pub(crate) fn outbound_list(name: &str, comment: &str, spec: &OutboundListSpec) -> Self {
        Self::of("OutboundList", name, comment, &tree(spec))
    }

    /// A `ConsulAuth` with this spec.
    pub(crate) fn consul_auth(name: &str, comment: &str, spec: &ConsulAuthSpec) -> Self {
        Self::of("ConsulAuth", name, comment, &tree(spec))
    }

    fn of(kind: &'static str, name: &str, comment: &str, spec: &SourceNode) -> Self {
        let mut text = String::new();
        for line in comment.lines() {
            // Writing to a String cannot fail, here and below.
            let _ = writeln!(text, "# {line}");
        }
        let _ = write!(
            text,
            "apiVersion: {API_VERSION}\nkind: {kind}\nmetadata:\n  name: {}\nspec:",
            scalar(name)
        );
        write_block(&mut text, spec, 2);
        Self { kind, name: name.to_owned(), text }
    }

    /// The file for the manifest: its kind and name, so that each run writes the same files.
    pub fn file_name(&self) -> String {
        let mut kind = String::new();
        for (index, c) in self.kind.char_indices() {
            if c.is_ascii_uppercase() && index > 0 {
                kind.push('-');
            }
            kind.push(c.to_ascii_lowercase());
        }
        format!("{kind}-{}.yaml", self.name)
    }
}

/// A binding with defaults.
pub(crate) fn binding(control_plane: &str, selector: BindingSelector) -> MeshBindingSpec {
    MeshBindingSpec {
        control_plane: control_plane.to_owned(),
        mesh: ecs_mesh_model::MeshName::default(),
        selector,
        role_tags: ecs_mesh_api::RoleTagPolicy::default(),
        discovery: ecs_mesh_api::Discovery::default(),
        claims: Vec::new(),
        dataplanes: ecs_mesh_model::DataplaneOwner::default(),
        policy: ecs_mesh_api::LifecyclePolicy::default(),
        cleanup: ecs_mesh_api::CleanupPolicy::default(),
        drain: ecs_mesh_api::DrainPolicy::default(),
        deployments: ecs_mesh_api::DeploymentPolicy::default(),
        tokens: ecs_mesh_api::TokenPolicy::default(),
        address_family: ecs_mesh_api::AddressFamily::default(),
        dataplane_name: MeshBindingSpec::DATAPLANE_NAME.to_owned(),
        paused: false,
    }
}

/// Narrows a binding to the tasks of its workloads where there are several bindings, which must not select the same task.
/// Whether that is possible: services and families narrow each other, so only one of them helps.
#[must_use]
pub(crate) fn narrow(selector: &mut BindingSelector, workloads: Vec<WorkloadSelector>) -> bool {
    if workloads.iter().all(|one| one.families.is_empty()) {
        selector.services = workloads.into_iter().flat_map(|one| one.services).collect();
    } else if workloads.iter().all(|one| one.services.is_empty()) {
        selector.families = workloads.into_iter().flat_map(|one| one.families).collect();
    } else {
        return false;
    }
    true
}

/// The reason where [`narrow`] is not possible.
pub(crate) const NOT_NARROWED: &str = "there are several meshes: narrow the selectors of their bindings, so that none selects a task of another";

/// A workload with the same required fields, and defaults.
fn workload(spec: &WorkloadSpec) -> WorkloadSpec {
    WorkloadSpec { selector: spec.selector.clone(), ..new_workload(spec.service.clone()) }
}

/// A workload of the service that selects nothing yet.
pub(crate) fn new_workload(service: ecs_mesh_model::ServiceName) -> WorkloadSpec {
    WorkloadSpec {
        bindings: Vec::new(),
        selector: WorkloadSelector::default(),
        service,
        workload: None,
        proxy: ecs_mesh_api::ProxyKind::default(),
        gateway: None,
        zone_ingress: None,
        zone_egress: None,
        inbounds: Vec::new(),
        reach: ecs_mesh_api::Reach::default(),
        outbounds: None,
        probe: ecs_mesh_api::Probe::default(),
        dataplanes: None,
    }
}

/// The value as a tree whose keys have the order of the type's fields.
fn tree(spec: &impl Serialize) -> SourceNode {
    let text = serde_json::to_string(spec).unwrap_or_default();
    let mut root = json::documents(&text).0.pop().unwrap_or(SourceNode { line: 1, value: SourceValue::Null });
    drop_loopback(&mut root);
    root
}

/// The spec without what is a default anyway.
fn pruned<T: Serialize>(spec: &T, base: &T, required: &[&str]) -> SourceNode {
    let (mut spec, base) = (tree(spec), tree(base));
    if let SourceValue::Map(entries) = &mut spec.value {
        entries.retain(|entry| {
            let is_default = base.get(&entry.key).is_some_and(|node| node.says_the_same(&entry.node));
            required.contains(&entry.key.as_str()) || !is_default
        });
    }
    spec
}

fn drop_key(tree: &mut SourceNode, block: &str, key: &str) {
    let SourceValue::Map(entries) = &mut tree.value else { return };
    for entry in entries.iter_mut().filter(|entry| entry.key == block) {
        if let SourceValue::Map(entries) = &mut entry.node.value {
            entries.retain(|entry| entry.key != key);
        }
    }
}

/// Loopback is the default of `listen.address`.
fn drop_loopback(node: &mut SourceNode) {
    match &mut node.value {
        SourceValue::List(items) => items.iter_mut().for_each(drop_loopback),
        SourceValue::Map(entries) => {
            for entry in entries {
                if entry.key == "listen"
                    && let SourceValue::Map(fields) = &mut entry.node.value
                {
                    fields.retain(|field| {
                        field.key != "address" || field.node.as_text().as_deref() != Some("127.0.0.1")
                    });
                }
                drop_loopback(&mut entry.node);
            }
        }
        _ => {}
    }
}

/// Writes the value after its key, with a newline at the end.
fn write_block(text: &mut String, node: &SourceNode, indent: usize) {
    match &node.value {
        SourceValue::Map(entries) if !entries.is_empty() => {
            text.push('\n');
            for entry in entries {
                let _ = write!(text, "{:indent$}{}:", "", scalar(&entry.key));
                write_block(text, &entry.node, indent + 2);
            }
        }
        SourceValue::List(items) if !items.is_empty() => {
            text.push('\n');
            for item in items {
                write_item(text, item, indent);
            }
        }
        SourceValue::Map(_) => text.push_str(" {}\n"),
        SourceValue::List(_) => text.push_str(" []\n"),
        SourceValue::Text(value) => {
            let _ = writeln!(text, " {}", scalar(value));
        }
        SourceValue::Number(value) => {
            let _ = writeln!(text, " {value}");
        }
        SourceValue::Bool(value) => {
            let _ = writeln!(text, " {value}");
        }
        SourceValue::Null => text.push_str(" null\n"),
    }
}

fn write_item(text: &mut String, item: &SourceNode, indent: usize) {
    let _ = write!(text, "{:indent$}-", "");
    let SourceValue::Map(entries) = &item.value else { return write_block(text, item, indent + 2) };
    if entries.is_empty() {
        return text.push_str(" {}\n");
    }
    for (index, entry) in entries.iter().enumerate() {
        if index == 0 {
            text.push(' ');
        } else {
            let _ = write!(text, "{:1$}", "", indent + 2);
        }
        let _ = write!(text, "{}:", scalar(&entry.key));
        write_block(text, &entry.node, indent + 4);
    }
}

/// Validates the manifests as `validate` does. Warnings, or the errors.
pub(crate) fn validate(
    manifests: &[ImportedManifest],
    scope: ManifestScope,
) -> Result<Vec<ManifestFinding>, Vec<ManifestFinding>> {
    let (mut read, mut errors) = (Vec::new(), Vec::new());
    for manifest in manifests {
        let file: Arc<Path> = Path::new(&manifest.file_name()).into();
        let (found, findings) = read_file(&file, &manifest.text);
        read.extend(found);
        errors.extend(findings);
    }
    let assembled = assemble(read, scope);
    errors.extend(assembled.errors);
    if errors.is_empty() { Ok(assembled.warnings) } else { Err(errors) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_reads_as_the_same_tree() {
        let value = serde_json::json!({"a": [{"b": 1, "c": {"d": ["x", "1.10"]}}, [1, 2], {}], "e": {}, "f": [], "g": true});
        let root = tree(&value);
        let mut text = String::new();
        write_block(&mut text, &root, 0);
        let read = crate::yaml::documents(&text).remove(0).unwrap();
        assert!(read.says_the_same(&root), "{text}");
    }
}
