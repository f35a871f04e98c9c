//! Evaluates the rules: pure, one file for each group of rules.

mod agent;
mod anonymous;
mod auth_methods;
mod binding_rules;
mod config;
mod coverage;
mod login;
mod membership;
mod nodes;
mod outbounds;
mod plain_text;
mod ports;
mod role_tags;
mod roles;
mod servers;
mod sidecar_settings;
mod sidecars;
mod tag_writers;
mod task;
mod task_tags;
mod upstreams;
mod workloads;

use std::collections::BTreeMap;
use std::sync::Arc;

use super::facts::{AuditFacts, AuditedControlPlane, AuditedDefinition, DefinitionOrigin};
use super::parse::config::{self as task_config, TaskConfig, is_of_consul};
use super::report::{AuditFinding, AuditReport, FindingLocation};
use super::rules_catalog::{METHOD_TYPE, NOT_IN_MESH};
use membership::{Membership, is_of_kuma, memberships};

/// Whether a task of the control plane logs in.
fn logs_in(facts: &AuditFacts, name: &str) -> bool {
    let mut here =
        facts.definitions.iter().filter(|one| one.control_planes.iter().any(|plane| **plane == *name));
    here.any(|one| task_config::first(one).is_some_and(|config| config.logs_in()))
}

/// Applies all rules to the facts.
pub fn examine(facts: &AuditFacts) -> AuditReport {
    let mut findings = coverage::check(facts);
    let (inside, outside): (Vec<_>, Vec<_>) = facts
        .definitions
        .iter()
        .partition(|definition| is_of_consul(definition) || is_of_kuma(facts, definition));
    findings.extend(not_in_mesh(&outside));
    for definition in &inside {
        findings.extend(of_definition(facts, definition));
    }
    findings.extend(roles::not_read(facts, &inside));
    role_tags::without_consequences(&mut findings);
    findings.extend(role_tags::unused(facts, &findings));
    findings.extend(tag_writers::check(facts));
    findings.extend(ports::of_manifests(facts));
    findings.extend(workloads::check(facts));
    roles::shared(facts, &mut findings);
    findings.extend(roles::not_simulated(facts));
    for (name, plane) in &facts.control_planes {
        let consul = plane.response.as_ref().and_then(|response| response.as_ref().ok());
        let type_reported = findings.iter().any(|finding| is_of_type_elsewhere(finding, name));
        findings.extend(auth_methods::check(name, plane, type_reported, logs_in(facts, name)));
        findings.extend(consul.into_iter().flat_map(|consul| binding_rules::check(facts, name, consul)));
        findings.extend(consul.into_iter().flat_map(|consul| anonymous::check(name, consul)));
        findings.extend(consul.into_iter().flat_map(|consul| nodes::check(name, consul)));
    }
    AuditReport::new(findings, facts.definitions.len()).with_not_checked(coverage::not_checked(facts))
}

/// Whether the finding reports that an auth method of this control plane, which tasks log in to, has another type.
fn is_of_type_elsewhere(finding: &AuditFinding, plane: &str) -> bool {
    let of_plane = format!("consul/{plane}/");
    finding.rule == METHOD_TYPE.id
        && finding.location.resource.as_deref().is_some_and(|resource| resource.starts_with(&of_plane))
}

fn of_definition(facts: &AuditFacts, definition: &AuditedDefinition) -> Vec<AuditFinding> {
    let mut findings = plain_text::check(definition);
    let configured = task_config::first(definition);
    if is_of_consul(definition) {
        findings.extend(at_consul(facts, definition, configured.as_ref()));
        if configured.as_ref().is_some_and(TaskConfig::is_controller) {
            return findings;
        }
    }
    let memberships = memberships(facts, definition);
    findings.extend(role_tags::check(facts, definition, &memberships));
    findings.extend(task_tags::check(facts, definition));
    findings.extend(of_sidecars(facts, definition, &memberships, configured.as_ref()));
    findings.extend(roles::check(facts, definition, configured.as_ref()));
    findings
}

/// The rules of container definitions of sidecars.
fn of_sidecars(
    facts: &AuditFacts,
    definition: &AuditedDefinition,
    memberships: &[Membership<'_>],
    configured: Option<&TaskConfig>,
) -> Vec<AuditFinding> {
    let mut findings = sidecars::check(definition, memberships, configured);
    findings.extend(sidecar_settings::check(definition, memberships));
    findings.extend(ports::of_definition(definition, memberships, facts));
    findings
}

/// Applies the rules of sidecars to a definition of running tasks at Kuma, for each workload that describes the tasks.
pub(crate) fn sidecars_by_workload(
    facts: &AuditFacts,
    definition: &AuditedDefinition,
) -> BTreeMap<Arc<str>, Vec<AuditFinding>> {
    let mut found: BTreeMap<Arc<str>, Vec<AuditFinding>> = BTreeMap::new();
    for membership in &memberships(facts, definition) {
        let of_workload = found.entry(Arc::clone(&membership.name)).or_default();
        // Tasks of one workload may be in several bindings.
        for finding in of_sidecars(facts, definition, std::slice::from_ref(membership), None) {
            if !of_workload.contains(&finding) {
                of_workload.push(finding);
            }
        }
    }
    found
}

/// The rules of a task that is in a Consul mesh.
fn at_consul(
    facts: &AuditFacts,
    definition: &AuditedDefinition,
    configured: Option<&TaskConfig>,
) -> Vec<AuditFinding> {
    let mut findings = config::check(definition);
    findings.extend(agent::check(facts, definition, configured));
    if configured.is_some_and(TaskConfig::is_controller) {
        findings.extend(configured.iter().flat_map(|config| servers::check(definition, config)));
        return findings;
    }
    findings.extend(task::check(definition, configured));
    if let Some(config) = configured {
        findings.extend(login::check(facts, definition, config));
        findings.extend(servers::check(definition, config));
        findings.extend(upstreams::check(definition, config));
        findings.extend(outbounds::check(facts, definition, config));
    }
    findings
}

/// The control planes of the definition's tasks.
fn planes<'a>(
    facts: &'a AuditFacts,
    definition: &'a AuditedDefinition,
) -> impl Iterator<Item = (&'a str, &'a AuditedControlPlane)> {
    definition.control_planes.iter().filter_map(|name| Some((&**name, facts.control_planes.get(name)?)))
}

/// One finding for each file, since files are given on purpose; one in all for running tasks.
fn not_in_mesh(definitions: &[&AuditedDefinition]) -> Vec<AuditFinding> {
    let (files, running): (Vec<&AuditedDefinition>, Vec<&AuditedDefinition>) = definitions
        .iter()
        .copied()
        .partition(|definition| matches!(definition.origin, DefinitionOrigin::File { .. }));
    let message = "no container of kuma-dp or consul-ecs, no CONSUL_ECS_CONFIG_JSON, no tag consul.hashicorp.com/mesh, and no \
                   MeshBinding of Kuma";
    let mut findings: Vec<_> =
        files.iter().map(|definition| NOT_IN_MESH.violation(definition.place(""), message)).collect();
    if let Some(first) = running.first() {
        let names: Vec<&str> = running.iter().take(5).map(|definition| definition.family()).collect();
        let more = if running.len() > names.len() { ", …" } else { "" };
        let found = format!("{} running task definitions: {}{more}", running.len(), names.join(", "));
        let cluster = first.uses.first().map_or("ECS", |one| one.cluster.as_str());
        findings.push(NOT_IN_MESH.violation(FindingLocation::resource(cluster), found));
    }
    findings
}

/// The name of an object in Consul, for [`FindingLocation::resource`].
fn consul_path(plane: &str, kind: &str, name: &str) -> String {
    format!("consul/{plane}/{kind}/{name}")
}
