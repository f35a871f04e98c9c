//! Compares the outbounds of the manifests with the upstreams of the task.
//!
//! A file has no cluster and no ECS service, so a workload describes it if the family or the service's name matches.

use std::collections::BTreeMap;

use crate::facts::{AuditFacts, AuditedDefinition, DefinitionUse};
use crate::parse::config::TaskConfig;
use crate::report::AuditFinding;
use crate::rules_catalog::{OUTBOUND_UNREACHED, UPSTREAM_UNLISTED};
use ecs_mesh_api::manifests::{DeclaredReach, ManifestSet};
use ecs_mesh_api::{ControlPlaneType, WorkloadSpec};
use ecs_mesh_model::Glob;

pub(super) fn check(
    facts: &AuditFacts,
    definition: &AuditedDefinition,
    config: &TaskConfig,
) -> Vec<AuditFinding> {
    let Some(manifests) = &facts.manifests else { return Vec::new() };
    let workloads = manifests.set.workloads.iter();
    let mine = workloads.filter(|(_, workload)| {
        is_of_consul(&manifests.set, workload) && describes(workload, definition, config)
    });
    mine.flat_map(|(name, workload)| compare(&manifests.set, name, workload, config)).collect()
}

/// A workload that names only bindings of other control planes describes the task in another mesh.
fn is_of_consul(set: &ManifestSet, workload: &WorkloadSpec) -> bool {
    let of_consul = |name: &String| {
        let binding = set.bindings.get(name.as_str());
        binding.is_none_or(|binding| binding.control_plane_type == ControlPlaneType::Consul)
    };
    workload.bindings.is_empty() || workload.bindings.iter().any(of_consul)
}

fn describes(workload: &WorkloadSpec, definition: &AuditedDefinition, config: &TaskConfig) -> bool {
    let selector = &workload.selector;
    let any = |globs: &[Glob], text: Option<&str>| {
        globs.is_empty() || text.is_some_and(|text| globs.iter().any(|glob| glob.matches(text)))
    };
    let family = Some(definition.family());
    if definition.uses.is_empty() {
        return if selector.families.is_empty() {
            workload.service.as_str() == config.service(definition.family())
        } else {
            any(&selector.families, family)
        };
    }
    let selects = |one: &DefinitionUse| {
        any(&selector.clusters, Some(one.cluster.as_str()))
            && any(&selector.services, one.service.as_deref())
            && any(&selector.families, family)
            && selector.tags.iter().all(|(key, value)| one.tags.get(key) == Some(value))
    };
    definition.uses.iter().any(selects)
}

fn compare(set: &ManifestSet, name: &str, workload: &WorkloadSpec, config: &TaskConfig) -> Vec<AuditFinding> {
    // Consul's sidecars have a listener for each upstream.
    let DeclaredReach::Listeners(merged) = set.declared_reach(name, workload) else { return Vec::new() };
    let listeners = merged.resolved.iter();
    let outbounds: Vec<(&str, i64)> = listeners
        .filter_map(|outbound| {
            Some((outbound.backend.service()?.as_str(), outbound.listen.port.get().into()))
        })
        .collect();
    let upstreams: BTreeMap<&str, Option<i64>> = config
        .upstreams()
        .into_iter()
        .filter(|upstream| !upstream.is_query())
        .map(|upstream| (upstream.name(), upstream.port()))
        .collect();
    let at = || config.location("proxy.upstreams");
    let mut findings = Vec::new();
    for &(service, port) in &outbounds {
        match upstreams.get(service) {
            None if config.finds_services_by_dns() => {}
            None => {
                let found =
                    format!("Workload {name} may call {service} on port {port}; no such upstream exists");
                findings.push(OUTBOUND_UNREACHED.violation(at(), found));
            }
            Some(found) if *found != Some(port) => {
                let has = found.map_or_else(|| "none".to_owned(), |port| port.to_string());
                let found =
                    format!("Workload {name} calls {service} on port {port}; the upstream's port is {has}");
                findings.push(OUTBOUND_UNREACHED.violation(at(), found));
            }
            Some(_) => {}
        }
    }
    for upstream in upstreams.keys().filter(|name| !name.is_empty()) {
        if !outbounds.iter().any(|(service, _)| service == upstream) {
            let found = format!("the task calls {upstream}, which no outbound of Workload {name} names");
            findings.push(UPSTREAM_UNLISTED.violation(at(), found));
        }
    }
    findings
}
