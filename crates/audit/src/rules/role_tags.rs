//! Tags of roles at Kuma: those that tasks need, and those that nothing in the manifests allows.

use std::collections::{BTreeMap, BTreeSet};

use super::membership::{Membership, kuma_bindings};
use super::task;
use crate::facts::{AuditFacts, AuditedDefinition};
use crate::parse::config::is_of_consul;
use crate::report::{AuditFinding, FindingLocation, Severity};
use crate::rules_catalog::{KUMA_ROLE_ACCOUNT, KUMA_ROLE_TAG, KUMA_ROLE_TAG_UNUSED, ROLE_ACCOUNT};
use ecs_mesh_api::manifests::ManifestSet;
use ecs_mesh_api::{Discovery, RoleTagMode};
use ecs_mesh_core::intent::{
    RoleRule, RoleViolation, dataplane_role_violations, workload_label, workloads_in,
};
use ecs_mesh_model::{RoleArn, Tags};
use strsim::damerau_levenshtein;

/// The kinds of proxies that a role's tag `kuma.io/type` may name.
const TYPES: [&str; 3] = ["dataplane", "ingress", "egress"];
/// The tags that Kuma reads from a role.
pub(super) const KEYS: [RoleRule; 4] =
    [RoleRule::Type, RoleRule::Mesh, RoleRule::Service, RoleRule::Workload];
const PREFIX: &str = "kuma.io/";

/// The role of the definition's tasks, and the network mode, which Kuma's workloads need.
pub(super) fn check(
    facts: &AuditFacts,
    definition: &AuditedDefinition,
    memberships: &[Membership<'_>],
) -> Vec<AuditFinding> {
    let mut findings = Vec::new();
    if !is_of_consul(definition) && !memberships.is_empty() {
        if memberships.iter().any(Membership::checks_roles) {
            findings.extend(task::role(definition, None));
        }
        // A task in host mode may have the address of its container instance.
        if definition.definition.network_mode.as_deref() != Some("host") {
            findings.extend(task::network(definition));
        }
    }
    for membership in memberships.iter().filter(|one| one.checks_roles()) {
        let Some(role) = &membership.role else { continue };
        let at = FindingLocation { resource: Some(role.to_string()), ..definition.place("taskRoleArn") };
        let Some(Ok(tags)) = facts.roles.get(role).map(|seen| &seen.tags) else { continue };
        let account = membership.account.unwrap_or_else(|| role.account());
        let severity = match membership.binding.spec.role_tags.mode {
            RoleTagMode::Enforce => Severity::Error,
            RoleTagMode::Warn | RoleTagMode::Off => Severity::Warning,
        };
        let broken = dataplane_role_violations(membership.binding, &membership.workload, account, role, tags);
        findings.extend(
            broken.iter().filter_map(|one| violation(one, role, &at)).map(|one| one.with_severity(severity)),
        );
    }
    findings
}

/// A finding that the role's account differs from the tasks' comes first: ECS refuses such a role.
pub(super) fn without_consequences(findings: &mut Vec<AuditFinding>) {
    let foreign: BTreeSet<Option<String>> = findings
        .iter()
        .filter(|finding| finding.rule == ROLE_ACCOUNT.id)
        .map(|finding| finding.location.resource.clone())
        .collect();
    findings.retain(|finding| {
        finding.rule != KUMA_ROLE_ACCOUNT.id || !foreign.contains(&finding.location.resource)
    });
}

fn violation(broken: &RoleViolation, role: &RoleArn, location: &FindingLocation) -> Option<AuditFinding> {
    let RoleViolation { rule, found, needed, .. } = broken;
    if *rule == RoleRule::Account {
        let found = format!(
            "the role is in account {}, the binding authorises {needed}",
            found.as_deref().unwrap_or("")
        );
        return Some(KUMA_ROLE_ACCOUNT.violation(location.clone(), found));
    }
    if !KEYS.contains(rule) {
        return None;
    }
    let (tag, name) = (rule.label(), role.name());
    let has = found.as_ref().map_or_else(|| "is missing".to_owned(), |found| format!("is {found:?}"));
    let at = location.clone().field(format!("tags[{tag:?}]"));
    Some(if needed.is_empty() {
        let found = format!("{tag} {has}, and the workload has no label {tag}");
        let fix = format!(
            "set spec.workload in the Workload, or aws iam untag-role --role-name {name} --tag-keys {tag}"
        );
        KUMA_ROLE_TAG.violation(at, found).with_fix(fix)
    } else {
        let fix = format!("aws iam tag-role --role-name {name} --tags Key={tag},Value={needed}");
        KUMA_ROLE_TAG.violation(at, format!("{tag} {has}, needed is {needed:?}")).with_fix(fix)
    })
}

/// Tags of any known role that no binding and no workload allows. Such a tag that a task's finding names already is left out.
pub(super) fn unused(facts: &AuditFacts, findings: &[AuditFinding]) -> Vec<AuditFinding> {
    let Some(manifests) = facts.manifests.as_ref().filter(|status| status.errors.is_empty()) else {
        return Vec::new();
    };
    let Some(allowed) = AllowedTags::of(&manifests.set) else { return Vec::new() };
    let mut roles: BTreeMap<&str, &Tags> = BTreeMap::new();
    for principal in facts.authorization.iter().flatten().flat_map(|details| &details.principals) {
        roles.insert(&principal.arn, &principal.tags);
    }
    for (role, seen) in &facts.roles {
        roles.extend(seen.tags.as_ref().ok().map(|tags| (role.as_str(), tags)));
    }
    let reported: BTreeSet<(&str, &str)> = findings
        .iter()
        .filter(|finding| finding.rule == KUMA_ROLE_TAG.id)
        .filter_map(|one| Some((one.location.resource.as_deref()?, one.location.field.as_deref()?)))
        .collect();
    let mut found = Vec::new();
    for (role, tags) in roles {
        for (key, value) in tags {
            let field = format!("tags[{key:?}]");
            if let Some(message) = allowed.refusal(key, value)
                && !reported.contains(&(role, field.as_str()))
            {
                found.push(
                    KUMA_ROLE_TAG_UNUSED.violation(FindingLocation::resource(role).field(field), message),
                );
            }
        }
    }
    found
}

/// The values of role tags that the manifests have a use for.
struct AllowedTags<'a> {
    meshes: BTreeSet<&'a str>,
    /// `None` where tasks may describe themselves.
    services: Option<BTreeSet<&'a str>>,
    /// `None` where tasks may describe themselves.
    workloads: Option<BTreeSet<&'a str>>,
}

impl<'a> AllowedTags<'a> {
    /// `None` where no binding of Kuma checks role tags.
    fn of(set: &'a ManifestSet) -> Option<Self> {
        let checking = || kuma_bindings(set).filter(|one| one.spec.role_tags.mode != RoleTagMode::Off);
        checking().next()?;
        let workloads = || kuma_bindings(set).flat_map(|binding| workloads_in(set, binding));
        let are_declared = kuma_bindings(set).all(|binding| binding.spec.discovery == Discovery::Manifests);
        Some(Self {
            meshes: kuma_bindings(set).map(|binding| binding.spec.mesh.as_str()).collect(),
            services: are_declared.then(|| workloads().map(|(_, one)| one.service.as_str()).collect()),
            workloads: are_declared.then(|| workloads().filter_map(|(_, one)| workload_label(one)).collect()),
        })
    }

    /// Why nothing in the manifests has a use for the tag.
    fn refusal(&self, key: &str, value: &str) -> Option<String> {
        let Some(rule) = KEYS.iter().find(|rule| rule.label() == key) else { return misspelt(key) };
        let is_in = |values: Option<&BTreeSet<&str>>| values.is_none_or(|values| values.contains(value));
        let (is_allowed, reason) = match rule {
            RoleRule::Mesh => (self.meshes.contains(value), "no MeshBinding has this mesh"),
            RoleRule::Service => (is_in(self.services.as_ref()), "no Workload has this service"),
            RoleRule::Workload => (is_in(self.workloads.as_ref()), "no Workload has this label"),
            _ => (TYPES.contains(&value), "it is none of dataplane, ingress and egress"),
        };
        (!is_allowed).then(|| format!("{key} is {value:?}: {reason}"))
    }
}

/// A key that is probably meant to be one that Kuma reads.
fn misspelt(key: &str) -> Option<String> {
    let lower = key.to_lowercase();
    let close = |rule: &&RoleRule| {
        let label = rule.label();
        lower.starts_with(PREFIX) && damerau_levenshtein(&lower, label) <= 2
    };
    let meant = KEYS.iter().find(close)?.label();
    Some(format!("Kuma does not read the key {key}: did you mean {meant}?"))
}
