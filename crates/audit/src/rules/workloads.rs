//! Workloads of the manifests: each selects something, alone, calls what exists, and has a form in Kuma's version.

use std::collections::{BTreeMap, BTreeSet};

use super::membership::kuma_bindings;
use crate::facts::{AuditFacts, InexpressibleWorkload, IngressListener, KumaFacts, KumaUpgrade};
use crate::report::{AuditFinding, FindingLocation, Severity};
use crate::rules_catalog::{
    KUMA_INGRESS_ADDRESS, KUMA_NOT_EXPRESSIBLE, KUMA_OUTBOUND_NOWHERE, KUMA_UPGRADE_BLOCKED,
    WORKLOAD_AMBIGUOUS, WORKLOAD_UNUSED,
};
use ecs_mesh_api::manifests::{Binding, ManifestSet, nearest};
use ecs_mesh_api::{BackendKind, ReachableBackend, WorkloadSpec};
use ecs_mesh_core::intent::{CalledWorkloads, MeshBackend, MeshServices, workloads_in};
use ecs_mesh_core::plan::report::UpgradeBlocker;
use ecs_mesh_model::{Glob, MeshName, ServiceName, Tags};

/// The location of a Workload.
pub(super) fn at(name: &str) -> FindingLocation {
    FindingLocation::resource(format!("Workload/{name}"))
}

pub(super) fn check(facts: &AuditFacts) -> Vec<AuditFinding> {
    let mut findings = ambiguous(facts);
    let Some(manifests) = &facts.manifests else { return findings };
    findings.extend(unused(facts, &manifests.set));
    for (name, plane) in &facts.kuma {
        let Some(Ok(kuma)) = &plane.response else { continue };
        if manifests.errors.is_empty() {
            findings.extend(outbounds(&manifests.set, name, kuma));
        }
        findings.extend(kuma.not_expressible.iter().map(not_expressible));
        findings.extend(kuma.ingresses.iter().filter_map(ingress_address));
        if let Some(Ok(upgrade)) = &kuma.upgrade {
            findings.extend(upgrade_blockers(name, upgrade));
        }
    }
    findings
}

/// Tasks that several bindings or workloads select.
fn ambiguous(facts: &AuditFacts) -> Vec<AuditFinding> {
    let mut findings = Vec::new();
    for definition in &facts.definitions {
        for one in &definition.uses {
            let service = one.service.as_ref().map(|name| format!(" of service {name}")).unwrap_or_default();
            let at = || definition.place("").field(format!("tasks in {}{service}", one.cluster.name()));
            if one.kuma.len() > 1 {
                let names: Vec<&str> = one.kuma.keys().map(AsRef::as_ref).collect();
                let found = format!("several MeshBindings select the tasks: {}", names.join(", "));
                findings.push(WORKLOAD_AMBIGUOUS.violation(at(), found));
            }
            for workloads in one.kuma.values().filter(|workloads| workloads.len() > 1) {
                let found = format!("several Workloads select the tasks: {}", workloads.join(", "));
                findings.push(WORKLOAD_AMBIGUOUS.violation(at(), found));
            }
        }
    }
    findings
}

/// Whether all tasks and services are known that workloads may select; an error is the reason why not.
pub(super) fn selection_is_known(facts: &AuditFacts) -> Result<(), &'static str> {
    let is_read = |cluster| {
        matches!((facts.clusters.get(cluster), facts.services.get(cluster)), (Some(Ok(_)), Some(Ok(_))))
    };
    if facts.manifests.as_ref().is_none_or(|status| !status.errors.is_empty()) {
        Err("a manifest has an error, so a MeshBinding may be missing")
    } else if facts.bound_clusters().next().is_none() {
        Err("no bound cluster is known")
    } else if facts.clusters.is_empty() {
        Err("running tasks were not requested (--manifests without --task-definition and --offline)")
    } else if facts.bound_clusters().all(is_read) {
        Ok(())
    } else {
        Err("not every bound cluster was read (clusters of other Regions need --region)")
    }
}

/// Workloads that select neither a running task nor a service.
fn unused(facts: &AuditFacts, set: &ManifestSet) -> Vec<AuditFinding> {
    if selection_is_known(facts).is_err() {
        return Vec::new();
    }
    let services: Vec<(&str, &str)> = facts
        .services
        .iter()
        .filter_map(|(cluster, names)| Some((cluster, names.as_ref().ok()?)))
        .flat_map(|(cluster, names)| names.iter().map(|name| (cluster.as_str(), name.as_str())))
        .collect();
    let idle = set.workloads.iter().filter(|(name, _)| !facts.workloads_in_use.contains(*name));
    idle.filter_map(|(name, workload)| Some((name, unused_reason(workload, &services)?)))
        .map(|(name, (message, severity))| {
            WORKLOAD_UNUSED.violation(at(name).field("spec.selector"), message).with_severity(severity)
        })
        .collect()
}

/// Why a workload without running tasks selects no service either.
fn unused_reason(workload: &WorkloadSpec, services: &[(&str, &str)]) -> Option<(String, Severity)> {
    let selector = &workload.selector;
    let any = |globs: &[Glob], text: &str| globs.is_empty() || globs.iter().any(|glob| glob.matches(text));
    let in_clusters: Vec<&str> = services
        .iter()
        .filter(|(cluster, _)| any(&selector.clusters, cluster))
        .map(|(_, service)| *service)
        .collect();
    if selector.services.is_empty() {
        // A service without tasks may have the family or the tags.
        let severity = if in_clusters.is_empty() { Severity::Warning } else { Severity::Info };
        return Some(("no running task has its families and tags".to_owned(), severity));
    }
    if in_clusters.iter().any(|service| any(&selector.services, service)) {
        return None;
    }
    let mut literal = selector.services.iter().filter(|glob| glob.is_literal());
    let meant = literal.find_map(|glob| nearest(glob.as_str(), in_clusters.iter().copied()));
    let found = "no task and no service of the bound clusters has one of its services";
    Some((with_suggestion(found.to_owned(), meant), Severity::Warning))
}

/// The inbound ports of each service that Workloads of a mesh declare.
type DeclaredPorts<'a> = BTreeMap<&'a ServiceName, BTreeSet<u16>>;

/// Outbounds to what no workload and no service of the mesh provides.
fn outbounds(set: &ManifestSet, plane: &str, kuma: &KumaFacts) -> Vec<AuditFinding> {
    let mut findings = Vec::new();
    for (mesh, known) in &kuma.services {
        let Ok(known) = known else { continue };
        let workloads = workloads_of_mesh(set, plane, mesh);
        let mut declared = DeclaredPorts::new();
        for workload in workloads.values() {
            let inbounds = workload.inbounds.iter().map(|inbound| inbound.port.get());
            declared.entry(&workload.service).or_default().extend(inbounds);
        }
        let labels = CalledWorkloads::of(set, plane, mesh, declared.keys().copied());
        let known = with_declared(known.clone(), &declared, &labels);
        for (name, workload) in &workloads {
            let called = set.declared_reach(name, workload).backends();
            let wrong_ports = called.iter().filter_map(|called| wrong_port(called, &declared));
            let others = called.iter().filter(|called| ports_of(called, &declared).is_none());
            let missing = known.missing(&others.cloned().collect(), &labels).into_iter();
            let missing =
                missing.map(|(called, reason)| format!("outbound to {called} in mesh {mesh}: {reason}"));
            let found = wrong_ports.chain(missing);
            let at = || at(name).field("spec.outbounds");
            findings.extend(found.map(|found| KUMA_OUTBOUND_NOWHERE.violation(at(), found)));
        }
    }
    findings
}

/// The ports of the called service, if Workloads declare it.
fn ports_of<'a>(called: &ReachableBackend, declared: &'a DeclaredPorts<'_>) -> Option<&'a BTreeSet<u16>> {
    declared.get(called.one()?.service()?)
}

/// A called port that no Workload of the service has.
fn wrong_port(called: &ReachableBackend, declared: &DeclaredPorts<'_>) -> Option<String> {
    let ReachableBackend::One { backend, port: Some(port) } = called else { return None };
    let ports = ports_of(called, declared).filter(|ports| !ports.contains(&port.get()))?;
    let ports: Vec<String> = ports.iter().map(ToString::to_string).collect();
    let ports = if ports.is_empty() { "none".to_owned() } else { ports.join(", ") };
    Some(format!("{backend} has no inbound on port {port}; its Workloads have {ports}"))
}

/// The backends that Dataplanes can call once all Workloads have tasks.
fn with_declared(
    mut known: MeshServices,
    declared: &DeclaredPorts<'_>,
    labels: &CalledWorkloads,
) -> MeshServices {
    if let Some(names) = &mut known.names {
        names.extend(declared.keys().map(ToString::to_string));
    }
    for (service, ports) in declared {
        // Kuma 3.x names a service by its workload label.
        let labels = labels.labels(service).into_iter().flatten().map(ToString::to_string);
        for name in labels.chain([service.to_string()]) {
            add_service(&mut known.resources, name, ports);
        }
    }
    known
}

fn add_service(known: &mut Vec<MeshBackend>, name: String, ports: &BTreeSet<u16>) {
    let kind = BackendKind::MeshService;
    match known.iter_mut().find(|one| one.kind == kind && one.name == name) {
        Some(known) => known.ports.extend(ports),
        None => known.push(MeshBackend {
            kind,
            name,
            labels: Tags::new(),
            ports: ports.iter().copied().collect(),
            addresses: Vec::new(),
        }),
    }
}

/// The workloads that may describe tasks of the mesh.
fn workloads_of_mesh<'a>(
    set: &'a ManifestSet,
    plane: &str,
    mesh: &MeshName,
) -> BTreeMap<&'a str, &'a WorkloadSpec> {
    let is_here = |binding: &&Binding| binding.spec.control_plane == plane && binding.spec.mesh == *mesh;
    let bindings = kuma_bindings(set).filter(is_here);
    let workloads = bindings.flat_map(|binding| workloads_in(set, binding));
    workloads.map(|(name, workload)| (&**name, &**workload)).collect()
}

fn with_suggestion(message: String, meant: Option<&str>) -> String {
    match meant {
        Some(meant) => format!("{message}; did you mean {meant}?"),
        None => message,
    }
}

fn not_expressible(found: &InexpressibleWorkload) -> AuditFinding {
    KUMA_NOT_EXPRESSIBLE.violation(at(&found.workload), &found.message).with_fix(&found.fix)
}

fn ingress_address(ingress: &IngressListener) -> Option<AuditFinding> {
    let IngressListener { workload, mesh, has_address } = ingress;
    let found = format!("no MeshZoneAddress of this zone in mesh {mesh}");
    (*has_address == Ok(false))
        .then(|| KUMA_INGRESS_ADDRESS.violation(at(workload).field("spec.proxy"), found))
}

fn upgrade_blockers(plane: &str, upgrade: &KumaUpgrade) -> Vec<AuditFinding> {
    let resources = upgrade.check.blockers.iter().map(|blocker| {
        let UpgradeBlocker { mesh, resource, count, examples, reason, fix, .. } = blocker;
        let mesh = mesh.as_ref().map(|mesh| format!("/{mesh}")).unwrap_or_default();
        let more = if *count > examples.len() { ", …" } else { "" };
        let found = format!("{count} {resource} ({}{more}): {reason}", examples.join(", "));
        let at = FindingLocation::resource(format!("kuma/{plane}{mesh}/{resource}"));
        KUMA_UPGRADE_BLOCKED.violation(at, found).with_fix(fix)
    });
    let workloads = upgrade
        .not_expressible
        .iter()
        .map(|one| KUMA_UPGRADE_BLOCKED.violation(at(&one.workload), &one.message).with_fix(&one.fix));
    resources.chain(workloads).collect()
}
