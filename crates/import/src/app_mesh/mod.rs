//! AWS App Mesh: virtual nodes and gateways become `Workload`s, backends become outbounds.

mod calls;
mod fields;
mod model;
mod resources;
mod services;
mod workloads;

use std::collections::{BTreeMap, BTreeSet};

use ecs_mesh_api::BindingSelector;
use ecs_mesh_api::manifests::ManifestScope;
use ecs_mesh_model::{Glob, MeshName};

pub(crate) use fields::RULES;

use crate::cloudformation::is_of_stack;
use crate::import::{ImportFailure, ImportOptions, Imported, PLACEHOLDER_ADDRESS};
use crate::names::{NameRule, assign};
use crate::output::{self, ImportedManifest, binding};
use crate::report::{FieldFate, ImportEntry, ImportReport};
use crate::source::SourceFile;
use model::AppMeshModel;
use resources::{ResourceId, Resources};
use workloads::{Named, WorkloadNames};

/// Imports resources of App Mesh: answers of `aws appmesh describe-…` and `list-…`, the input of `create-…`, and
/// CloudFormation templates.
///
/// # Errors
/// Input that cannot be read, that is no resource of App Mesh, or that contradicts itself.
pub fn import_app_mesh(files: &[SourceFile], options: &ImportOptions) -> Result<Imported, ImportFailure> {
    let (mut documents, mut errors) = (Vec::new(), Vec::new());
    for file in files {
        let (found, failed) = file.documents();
        documents.extend(found);
        errors.extend(failed);
    }
    let mut resources = Resources::of(documents);
    errors.append(&mut resources.errors);
    if !errors.is_empty() {
        return Err(ImportFailure::Input(errors));
    }
    let model = AppMeshModel::of(&resources);
    let names = WorkloadNames::of(&model);
    let mut manifests = vec![options.control_plane()];
    let (bindings, mut unclear) = bindings(&model, &resources, &names, options);
    manifests.extend(bindings);
    manifests.extend(workloads::manifests(&model, &names, options));
    unclear.extend(placeholders(&resources, options));
    let mut entries = std::mem::take(&mut resources.entries);
    for (id, resource) in &resources.found {
        entries.extend(resource.entries(fields::rules_of(id.kind)));
    }
    entries.extend(unclear);
    Imported::validated(manifests, ImportReport::of(entries), ManifestScope::Complete)
}

/// A binding for each mesh, paused until a person has read it, and the lines for those whose selector is to be corrected.
fn bindings(
    model: &AppMeshModel<'_>,
    resources: &Resources,
    names: &WorkloadNames,
    options: &ImportOptions,
) -> (Vec<ImportedManifest>, Vec<ImportEntry>) {
    let mesh_names =
        assign(NameRule::Manifest, &model.meshes.keys().map(|m| (m.clone(), m.clone())).collect());
    let first = first_of_each_mesh(resources);
    let (mut manifests, mut unclear) = (Vec::new(), Vec::new());
    for (mesh, family) in &model.meshes {
        let at_kuma = options.mesh.clone().or_else(|| MeshName::parse(&mesh_names[mesh]).ok());
        let mut selector =
            BindingSelector { clusters: clusters(mesh, resources, options), ..BindingSelector::default() };
        if model.meshes.len() > 1
            && !output::narrow(&mut selector, names.selectors(mesh))
            && let Some(id) = first.get(mesh.as_str())
        {
            let target = "MeshBinding.spec.selector";
            unclear.push(to_decide(resources, id, target, output::NOT_NARROWED.to_owned()));
        }
        if let (Some(reason), Some(id)) =
            (unclear_name(mesh, &mesh_names[mesh], options), first.get(mesh.as_str()))
        {
            unclear.push(to_decide(resources, id, "MeshBinding.spec.mesh", reason));
        }
        let mut spec = binding(&options.control_plane, selector);
        spec.mesh = at_kuma.unwrap_or_default();
        spec.address_family = family.unwrap_or_default();
        spec.paused = true;
        let comment = format!("App Mesh {mesh}. Set paused: false once `plan` shows what you expect.");
        manifests.push(ImportedManifest::mesh_binding(&names.bindings[mesh], &comment, &spec));
    }
    (manifests, unclear)
}

/// Why a person has to look at the name of the mesh at Kuma.
fn unclear_name(mesh: &str, name: &str, options: &ImportOptions) -> Option<String> {
    if options.mesh.is_some() || mesh == name {
        return None;
    }
    Some(if is_of_stack(mesh) {
        "only a stack knows the name of the mesh: give --mesh".to_owned()
    } else {
        format!(
            "{mesh} is no name of a mesh at Kuma, so {name} is expected: give --mesh where it has another"
        )
    })
}

/// A line at a mesh's first resource that asks for a decision.
fn to_decide(resources: &Resources, id: &ResourceId, target: &str, reason: String) -> ImportEntry {
    let resource = &resources.found[id];
    let entry = resource.entry("meshName", resource.root.line);
    ImportEntry { fate: FieldFate::Changed, target: target.to_owned(), reason, action: true, ..entry }
}

fn first_of_each_mesh(resources: &Resources) -> BTreeMap<&str, &ResourceId> {
    let mut first: BTreeMap<&str, &ResourceId> = BTreeMap::new();
    for id in resources.found.keys() {
        first.entry(&id.mesh).or_insert(id);
    }
    first
}

/// The clusters of the options, or else all of the accounts and Regions that the resources' ARNs name.
fn clusters(mesh: &str, resources: &Resources, options: &ImportOptions) -> Vec<Glob> {
    if !options.clusters.is_empty() {
        return options.clusters.clone();
    }
    let of_mesh = resources.found.iter().filter(|(id, _)| id.mesh == mesh);
    let patterns: BTreeSet<String> = of_mesh
        .filter_map(|(_, resource)| {
            let arn = resource.root.at(&["metadata", "arn"])?.as_text()?;
            let parts: Vec<&str> = arn.splitn(6, ':').collect();
            let ["arn", partition, "appmesh", region, account, _] = parts.as_slice() else { return None };
            // A shared mesh's resources have the tasks of the account that created them.
            let owner = model::other_owner(&resource.root);
            let account = owner.as_deref().unwrap_or(account);
            Some(format!("arn:{partition}:ecs:{region}:{account}:cluster/*"))
        })
        .collect();
    if patterns.is_empty() {
        return vec![Glob::new("arn:aws:ecs:*:*:cluster/*")];
    }
    patterns.iter().map(Glob::new).collect()
}

/// Lines for what the input does not say, at the first resource of each mesh.
fn placeholders(resources: &Resources, options: &ImportOptions) -> Vec<ImportEntry> {
    let first = first_of_each_mesh(resources);
    let mut entries = Vec::new();
    let mut add =
        |id: &ResourceId, target: &str, reason| entries.push(to_decide(resources, id, target, reason));
    if let (None, Some(id)) = (&options.address, first.values().next()) {
        let reason = format!("App Mesh does not say it: replace {PLACEHOLDER_ADDRESS}, or give --address");
        add(id, "ControlPlane.spec.kuma.address", reason);
    }
    if options.clusters.is_empty() {
        let reason = "App Mesh does not name ECS clusters: write those of the mesh, or give --cluster";
        first.values().for_each(|id| add(id, "MeshBinding.spec.selector.clusters", reason.to_owned()));
    }
    entries
}

/// Whether a name had to be changed is a line of the report.
fn note_name(named: &Named, cursor: Option<&crate::cursor::Cursor<'_>>, target: &str, source: &str) {
    if named.name != source
        && let Some(cursor) = cursor
    {
        cursor.changed(target, "the name is not valid here, or several resources would have it", false);
    }
}
