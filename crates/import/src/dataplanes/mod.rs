//! Kuma's proxies: templates and resources become `Workload`s, and what several of them call an `OutboundList`.

mod documents;
mod fields;
mod outbounds;
mod proxy;
mod templates;

use std::collections::BTreeMap;

use ecs_mesh_api::manifests::ManifestScope;
use ecs_mesh_api::{BindingSelector, WorkloadSelector, WorkloadSpec};
use ecs_mesh_model::{DataplaneOwner, Glob, MeshName};

pub(crate) use fields::RULES;

use crate::import::{ImportFailure, ImportOptions, Imported, PLACEHOLDER_ADDRESS};
use crate::names::{NameRule, assign};
use crate::output::{self, ImportedManifest, binding};
use crate::place::ImportError;
use crate::report::{FieldFate, ImportEntry, ImportReport};
use crate::source::SourceFile;
use documents::{FoundProxies, FoundProxy, TaskContext};

/// The mesh of templates that do not say it.
const DEFAULT_MESH: &str = "default";

/// A workload that one or more proxies describe.
struct Described<'a> {
    mesh: String,
    spec: WorkloadSpec,
    task: TaskContext,
    first: &'a FoundProxy,
}

/// Imports Kuma's Dataplanes, zone ingresses and zone egresses: resources, templates of `kuma-dp`, and ECS task definitions
/// and CloudFormation templates with such templates in them.
///
/// # Errors
/// Input that cannot be read, or that has no proxy of Kuma.
pub fn import_dataplanes(files: &[SourceFile], options: &ImportOptions) -> Result<Imported, ImportFailure> {
    let (mut found, mut errors) = (FoundProxies::default(), Vec::new());
    for file in files {
        let (documents, failed) = file.documents();
        errors.extend(failed);
        documents.iter().for_each(|document| found.add_document(document));
    }
    if errors.is_empty() && found.errors.is_empty() {
        found.note_others();
        if found.proxies.is_empty()
            && found.errors.is_empty()
            && let Some(file) = files.first()
        {
            let message = "the input has no Dataplane, ZoneIngress or ZoneEgress";
            errors.push(ImportError::about_file(&file.name, message));
        }
    }
    errors.append(&mut found.errors);
    if !errors.is_empty() {
        return Err(ImportFailure::Input(errors));
    }
    found.proxies.sort_by(|a, b| {
        (&a.resource.place, &a.resource.prefix).cmp(&(&b.resource.place, &b.resource.prefix))
    });
    let described = describe(&found.proxies);
    let manifests = manifests(&described, &found, options);
    let mut entries = std::mem::take(&mut found.entries);
    entries.extend(placeholders(&found, options));
    for proxy in &found.proxies {
        entries.extend(proxy.resource.entries(fields::rules_of(proxy.kind)));
    }
    Imported::validated(manifests, ImportReport::of(entries), ManifestScope::Complete)
}

/// One workload for all proxies that are the same but for their task.
fn describe(proxies: &[FoundProxy]) -> Vec<Described<'_>> {
    let ports = proxy::service_ports(proxies);
    let default = default_mesh(proxies);
    let mut described: Vec<Described<'_>> = Vec::new();
    for found in proxies {
        let Some(read) = proxy::read(found, &ports) else { continue };
        let mesh = read.mesh.unwrap_or_else(|| default.clone());
        let same = described
            .iter_mut()
            .find(|one| one.mesh == mesh && one.spec == read.spec && one.task.family == found.task.family);
        match same {
            Some(one) => {
                one.task.services.extend(found.task.services.clone());
                one.task.services.sort();
                one.task.services.dedup();
            }
            None => {
                described.push(Described { mesh, spec: read.spec, task: found.task.clone(), first: found });
            }
        }
    }
    described
}

/// A zone proxy is of no mesh. Its binding is that of the only mesh, or else of `default`.
fn default_mesh(proxies: &[FoundProxy]) -> String {
    let named = proxies.iter().filter_map(|proxy| proxy.resource.root.get("mesh")?.as_text());
    let meshes: std::collections::BTreeSet<String> =
        named.filter(|mesh| MeshName::parse(mesh).is_ok()).collect();
    match (meshes.first(), meshes.len()) {
        (Some(only), 1) => only.clone(),
        _ => DEFAULT_MESH.to_owned(),
    }
}

fn manifests(
    described: &[Described<'_>],
    found: &FoundProxies,
    options: &ImportOptions,
) -> Vec<ImportedManifest> {
    let meshes: BTreeMap<String, String> =
        described.iter().map(|one| (one.mesh.clone(), one.mesh.clone())).collect();
    let bindings = assign(NameRule::Manifest, &meshes);
    let names = workload_names(described);
    let mut manifests = vec![options.control_plane()];
    for (mesh, name) in &bindings {
        let clusters = clusters(found, options);
        let mut selector = BindingSelector { clusters, ..BindingSelector::default() };
        if bindings.len() > 1 {
            let of_mesh = || described.iter().filter(|one| one.mesh == *mesh);
            if !output::narrow(&mut selector, of_mesh().map(selected).collect())
                && let Some(one) = of_mesh().next()
            {
                one.first.note("MeshBinding.spec.selector", output::NOT_NARROWED);
            }
        }
        let mut spec = binding(&options.control_plane, selector);
        spec.mesh = options.mesh.clone().or_else(|| MeshName::parse(mesh).ok()).unwrap_or_default();
        spec.paused = true;
        let comment = "Set paused: false once `plan` shows what you expect.";
        manifests.push(ImportedManifest::mesh_binding(name, comment, &spec));
    }
    let (own, lists) =
        outbounds::share(described.iter().zip(&names).map(|(one, name)| (name.as_str(), &one.spec)));
    for ((one, name), outbounds) in described.iter().zip(&names).zip(own) {
        let mut spec = one.spec.clone();
        spec.outbounds = outbounds;
        spec.bindings = vec![bindings[&one.mesh].clone()];
        spec.selector = WorkloadSelector { tags: options.task_tags.clone(), ..selected(one) };
        spec.dataplanes = Some(DataplaneOwner::Sidecar);
        let place = &one.first.resource.place;
        let comment = format!(
            "{}, {}. Remove `dataplanes: sidecar` once `plan` shows no difference.",
            one.first.resource.subject, place.file
        );
        manifests.push(ImportedManifest::workload(name, &comment, &spec));
    }
    manifests.extend(lists);
    manifests
}

/// The ECS services that run the task definition, its family, or else the service's own name.
fn selected(one: &Described<'_>) -> WorkloadSelector {
    let mut selector = WorkloadSelector::default();
    if !one.task.services.is_empty() {
        selector.services = one.task.services.iter().map(Glob::new).collect();
    } else if let Some(family) = &one.task.family {
        selector.families = vec![Glob::new(family)];
    } else {
        selector.services = vec![Glob::new(one.spec.service.as_str())];
        let reason = "the ECS service is expected to have the name of the mesh's service: correct the selector where it \
                      has another";
        one.first.note("Workload.spec.selector.services", reason);
    }
    selector
}

/// `metadata.name`: the service's name, with a number for further descriptions of it.
fn workload_names(described: &[Described<'_>]) -> Vec<String> {
    let mut numbers: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    let mut meshes: BTreeMap<&str, std::collections::BTreeSet<&str>> = BTreeMap::new();
    for one in described {
        meshes.entry(one.spec.service.as_str()).or_default().insert(&one.mesh);
    }
    let keys: Vec<(String, String)> = described
        .iter()
        .map(|one| {
            let service = one.spec.service.as_str();
            let number = numbers.entry((&one.mesh, service)).or_default();
            *number += 1;
            let base = if meshes[service].len() > 1 { format!("{}-{service}", one.mesh) } else { service.to_owned() };
            let name = if *number > 1 { format!("{base}-{number}") } else { base };
            if *number > 1 {
                let reason = "the service has another description as well: make sure that their selectors select \
                              different tasks";
                one.first.note("Workload.metadata.name", reason);
            }
            (format!("{}/{service}/{number:06}", one.mesh), name)
        })
        .collect();
    let names = assign(NameRule::Manifest, &keys.iter().cloned().collect());
    keys.iter().map(|(key, _)| names[key].clone()).collect()
}

fn clusters(found: &FoundProxies, options: &ImportOptions) -> Vec<Glob> {
    if !options.clusters.is_empty() {
        return options.clusters.clone();
    }
    let known: std::collections::BTreeSet<&String> = found.clusters.iter().collect();
    if known.is_empty() {
        return vec![Glob::new("arn:aws:ecs:*:*:cluster/*")];
    }
    known.into_iter().map(Glob::new).collect()
}

/// Lines for what the input does not say.
fn placeholders(found: &FoundProxies, options: &ImportOptions) -> Vec<ImportEntry> {
    let Some(first) = found.proxies.first() else { return Vec::new() };
    let mut entries = Vec::new();
    let mut add = |target: &str, reason: String| {
        let entry = first.resource.entry("type", first.resource.root.line);
        let (target, fate) = (target.to_owned(), FieldFate::Changed);
        entries.push(ImportEntry { fate, target, reason, action: true, ..entry });
    };
    if options.address.is_none() {
        let reason =
            format!("a proxy's template does not say it: replace {PLACEHOLDER_ADDRESS}, or give --address");
        add("ControlPlane.spec.kuma.address", reason);
    }
    if options.clusters.is_empty() && found.clusters.is_empty() {
        let reason =
            "a proxy's template does not name ECS clusters: write those of the mesh, or give --cluster";
        add("MeshBinding.spec.selector.clusters", reason.to_owned());
    }
    entries
}
