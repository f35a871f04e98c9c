//! Ports of one task: no two listeners have the same one. Upstreams of consul-ecs are in `upstreams`.

use std::collections::BTreeMap;

use super::membership::{Membership, kuma_bindings};
use super::workloads::at;
use crate::facts::{AuditFacts, AuditedDefinition};
use crate::parse::sidecar::{self, MovedPort, SidecarKind};
use crate::report::AuditFinding;
use crate::rules_catalog::PORT_CLASH;
use ecs_mesh_api::manifests::{DeclaredReach, ManifestSet, MergedOutbounds, OutboundConflict, reserved};
use ecs_mesh_api::{Inbound, WorkloadSpec};
use ecs_mesh_aws::inspect::FullContainer;
use ecs_mesh_core::intent::workloads_in;

/// Outbounds of the manifests that contradict each other or the workload's own listeners.
pub(super) fn of_manifests(facts: &AuditFacts) -> Vec<AuditFinding> {
    let Some(manifests) = &facts.manifests else { return Vec::new() };
    let set = &manifests.set;
    let workloads: BTreeMap<_, _> =
        kuma_bindings(set).flat_map(|binding| workloads_in(set, binding)).collect();
    let mut findings = Vec::new();
    for (name, workload) in workloads {
        for conflict in listeners(set, name, workload).conflicts {
            // An outbound that cannot be a listener clashes with nothing: validate reports it.
            if matches!(conflict, OutboundConflict::NoListener { .. }) {
                continue;
            }
            let text = conflict.to_string();
            // The conflict ends with what to do, which is the rule's fix.
            let found = text.rsplit_once(": ").map_or(text.as_str(), |(found, _)| found);
            findings.push(PORT_CLASH.violation(at(name).field("spec.outbounds"), found));
        }
    }
    findings
}

/// Ports of the definition's containers that the sidecar listens on, too.
pub(super) fn of_definition(
    definition: &AuditedDefinition,
    memberships: &[Membership<'_>],
    facts: &AuditFacts,
) -> Vec<AuditFinding> {
    let sidecars = sidecar::of(definition);
    let moved: Vec<MovedPort> = sidecars
        .iter()
        .filter(|one| one.kind == SidecarKind::KumaDataplane)
        .flat_map(sidecar::SidecarContainer::moved_ports)
        .collect();
    let mut findings = Vec::new();
    for membership in memberships {
        let listeners = Listeners::of(membership, facts, &moved);
        for (index, container) in definition.containers() {
            // The sidecar's own mappings name the ports that it listens on.
            if sidecars.iter().any(|one| one.index == index) {
                continue;
            }
            findings.extend(of_container(definition, (index, container), &listeners));
        }
        findings.extend(of_sidecar(definition, membership, &listeners, &moved));
    }
    findings
}

fn of_container(
    definition: &AuditedDefinition,
    (index, container): (usize, &FullContainer),
    listeners: &Listeners,
) -> Vec<AuditFinding> {
    let clash = |port: u16| {
        let used = listeners.by_port.get(&port)?;
        let at = definition.container_place(index, "portMappings");
        Some(PORT_CLASH.violation(at, format!("the container listens on port {port}, which is {used}")))
    };
    container.ports().filter_map(clash).collect()
}

/// Moved ports of the sidecar that the workload uses.
fn of_sidecar(
    definition: &AuditedDefinition,
    membership: &Membership<'_>,
    listeners: &Listeners,
    moved: &[MovedPort],
) -> Vec<AuditFinding> {
    let ports = |inbound: &Inbound| [inbound.port.get(), inbound.container_port.get()];
    let inbounds: Vec<u16> = membership.workload.inbounds.iter().flat_map(ports).collect();
    let is_used = |port: u16| inbounds.contains(&port) || listeners.outbounds.contains(&port);
    let clashes = moved.iter().filter(|one| is_used(one.port));
    let finding = |one: &MovedPort| {
        let found = format!("{} is {}, which Workload {} uses, too", one.user, one.port, membership.name);
        PORT_CLASH.violation(definition.place("containerDefinitions"), found)
    };
    clashes.map(finding).collect()
}

/// The ports on which a task's sidecar listens, with their use.
struct Listeners {
    by_port: BTreeMap<u16, String>,
    outbounds: Vec<u16>,
}

impl Listeners {
    fn of(membership: &Membership<'_>, facts: &AuditFacts, moved: &[MovedPort]) -> Self {
        let (name, workload) = (&membership.name, &*membership.workload);
        let mut by_port = BTreeMap::new();
        for (port, user) in [9_901, 9_902, 15_053].into_iter().filter_map(own_use) {
            if !moved.iter().any(|one| one.default == port) {
                by_port.insert(port, user.to_owned());
            }
        }
        by_port.extend(moved.iter().map(|one| (one.port, one.user.to_owned())));
        let set = facts.manifests.as_ref().map(|status| &status.set);
        let resolved = set.map(|set| listeners(set, name, workload).resolved).unwrap_or_default();
        let outbounds: Vec<u16> = resolved.iter().map(|outbound| outbound.listen.port.get()).collect();
        for outbound in &resolved {
            // A port that the app itself declares was compared with its own address.
            let port = outbound.listen.port.get();
            if !workload.inbounds.iter().any(|inbound| inbound.container_port.get() == port) {
                by_port.insert(port, format!("Workload {name}'s outbound to {}", outbound.backend));
            }
        }
        for inbound in workload.inbounds.iter().filter(|inbound| !shares_its_port(workload, inbound)) {
            by_port.insert(inbound.port.get(), format!("Workload {name}'s inbound port"));
        }
        Self { by_port, outbounds }
    }
}

/// The outbounds for which the sidecar listens within the task. One that binds its outbounds listens on their addresses.
fn listeners(set: &ManifestSet, name: &str, workload: &WorkloadSpec) -> MergedOutbounds {
    match set.declared_reach(name, workload) {
        DeclaredReach::Listeners(merged) => merged,
        DeclaredReach::Backends(_) | DeclaredReach::EveryBackend => MergedOutbounds::default(),
    }
}

fn own_use(port: u16) -> Option<(u16, &'static str)> {
    Some((port, reserved(std::num::NonZeroU16::new(port)?)?))
}

/// Whether an app that listens on loopback alone has the port as well.
fn shares_its_port(workload: &WorkloadSpec, inbound: &Inbound) -> bool {
    workload.inbounds.iter().any(|app| {
        app.container_port == inbound.port && app.service_address.is_some_and(|address| address.is_loopback())
    })
}
