//! Principals that may give roles the tags of the mesh, although nothing restricts them.

use std::collections::{BTreeMap, BTreeSet};

use super::membership::kuma_bindings;
use super::role_tags::KEYS;
use crate::facts::AuditFacts;
use crate::parse::iam_policy::{GrantingPolicy, TagWriter, tag_writers};
use crate::report::{AuditFinding, FindingLocation, Severity};
use crate::rules_catalog::MESH_TAGS_UNRESTRICTED;
use ecs_mesh_api::RoleTagMode;
use ecs_mesh_core::intent::{GATEWAY_TAG, NAMESPACE_TAG, SERVICE_TAG};

/// The tags of roles that decide what a task may be at Consul.
const CONSUL_KEYS: [&str; 3] = [SERVICE_TAG, NAMESPACE_TAG, GATEWAY_TAG];
/// The principals that a finding names.
const MAX_NAMES: usize = 5;

pub(super) fn check(facts: &AuditFacts) -> Vec<AuditFinding> {
    match &facts.authorization {
        None => Vec::new(),
        Some(Err(error)) => {
            let found = format!("not checked: {}: {}", error.code, error.message);
            let finding = MESH_TAGS_UNRESTRICTED.unknown(FindingLocation::resource(error.operation), found);
            let hint = error.hint.trim_start_matches("; ");
            vec![if hint.is_empty() { finding } else { finding.with_fix(hint) }]
        }
        Some(Ok(details)) => {
            let finding = |finding: AuditFinding| match facts.in_organization {
                Some(false) => finding,
                // A service control policy may deny it, and only the organisation's management account can read those.
                Some(true) | None => {
                    let message = format!(
                        "{}; whether a service control policy denies it is not known",
                        finding.message
                    );
                    AuditFinding { message, ..finding }.with_severity(Severity::Info)
                }
            };
            of_writers(tag_writers(details, &keys(facts))).into_iter().map(finding).collect()
        }
    }
}

/// The tags that decide what a task may be at the control planes of the manifests.
fn keys(facts: &AuditFacts) -> Vec<&'static str> {
    let set = facts.manifests.iter().map(|status| &status.set);
    let mut bindings = set.flat_map(|set| kuma_bindings(set));
    let kuma = bindings.any(|binding| binding.spec.role_tags.mode != RoleTagMode::Off);
    let kuma = KEYS.iter().map(|rule| rule.label()).filter(|_| kuma);
    kuma.chain(CONSUL_KEYS.into_iter().filter(|_| !facts.control_planes.is_empty())).collect()
}

/// One finding for each managed policy, and for each principal with an inline policy.
fn of_writers(writers: Vec<TagWriter>) -> Vec<AuditFinding> {
    let mut findings = Vec::new();
    let mut by_policy: BTreeMap<(String, BTreeSet<&str>), Vec<String>> = BTreeMap::new();
    for TagWriter { principal, policy, keys } in writers {
        match policy {
            GrantingPolicy::Managed(arn) => {
                by_policy.entry((arn, keys)).or_default().push(short_name(&principal).to_owned());
            }
            GrantingPolicy::Inline(name) => {
                let found = format!("the inline policy {name} allows any value of {}", list(&keys));
                let at = FindingLocation::resource(principal).field(format!("policies[{name:?}]"));
                findings.push(MESH_TAGS_UNRESTRICTED.violation(at, found));
            }
        }
    }
    for ((policy, keys), principals) in by_policy {
        let more = if principals.len() > MAX_NAMES { ", …" } else { "" };
        let names: Vec<&str> = principals.iter().take(MAX_NAMES).map(String::as_str).collect();
        let found = format!(
            "the policy allows any value of {} to {} principals: {}{more}",
            list(&keys),
            principals.len(),
            names.join(", ")
        );
        findings.push(MESH_TAGS_UNRESTRICTED.violation(FindingLocation::resource(policy), found));
    }
    findings
}

fn list(keys: &BTreeSet<&str>) -> String {
    keys.iter().copied().collect::<Vec<_>>().join(", ")
}

/// `role/team/name` of an ARN.
fn short_name(arn: &str) -> &str {
    arn.splitn(6, ':').nth(5).unwrap_or(arn)
}
