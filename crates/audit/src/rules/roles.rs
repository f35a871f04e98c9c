//! The task role: that it exists, what its tags say, whether Consul trusts it, and whether it may read itself.

use std::collections::{BTreeMap, BTreeSet};

use super::auth_methods::has_dead_wildcards;
use super::{is_of_consul, planes};
use crate::rules_catalog::{
    ROLE_ACCOUNT, ROLE_GATEWAY, ROLE_GET_ROLE, ROLE_MISSING, ROLE_NAMESPACE, ROLE_PATH, ROLE_SERVICE,
    ROLE_SHARED, ROLE_UNREADABLE,
};
use crate::facts::{AuditedAuthMethod, AuditedDefinition, AuditFacts, AuditedRole};
use crate::parse::config::TaskConfig;
use crate::report::{AuditFinding, FindingLocation, Severity};
use ecs_mesh_api::GatewayKind;
use ecs_mesh_aws::aws::AwsErrorKind;
use ecs_mesh_core::intent::BoundPrincipals;
use ecs_mesh_core::intent::{GATEWAY_TAG, NAMESPACE_TAG, SERVICE_TAG};
use ecs_mesh_model::{CONSUL_SERVICE_RULE, RoleArn, Tags, is_consul_service};

pub(super) fn check(facts: &AuditFacts, definition: &AuditedDefinition, config: Option<&TaskConfig>) -> Vec<AuditFinding> {
    let mut findings = Vec::new();
    let bare = definition.definition.task_role.as_deref().filter(|role| !role.is_empty());
    if let Some(role) = bare.filter(|role| RoleArn::parse(role).is_err()) {
        let found =
            format!("taskRoleArn is {role:?} and no ARN: its account, path and tags cannot be judged");
        let finding = ROLE_UNREADABLE.unknown(definition.place("taskRoleArn"), found);
        let is_asked_for = facts.aws.is_some() || !definition.control_planes.is_empty();
        let finding = if is_asked_for { finding } else { finding.with_severity(Severity::Info) };
        findings.push(finding.with_fix("write the role's whole ARN"));
    }
    for role in definition.roles() {
        let at = FindingLocation { resource: Some(role.to_string()), ..definition.place("taskRoleArn") };
        let of_another_account = account(facts, definition, &role, &at);
        // Such a role is outside the bound principals as well, and ECS does not even take it.
        let is_of_this_account = of_another_account.is_none();
        findings.extend(of_another_account);
        if let Some(config) = config.filter(|config| config.logs_in() && is_of_this_account) {
            for (name, plane) in planes(facts, definition) {
                if let Ok(Some(method)) = plane.method(config.method()) {
                    findings.extend(path(name, method, &role, &at));
                }
            }
        }
        if let Some(seen) = facts.roles.get(&role) {
            findings.extend(of_iam(definition, config, &role, seen, &at));
        }
    }
    findings
}

fn account(facts: &AuditFacts, definition: &AuditedDefinition, role: &RoleArn, location: &FindingLocation) -> Option<AuditFinding> {
    let mut accounts = definition.accounts();
    if accounts.is_empty() {
        let clusters = planes(facts, definition).flat_map(|(_, plane)| &plane.clusters);
        accounts =
            clusters.chain(facts.clusters.keys()).map(|cluster| cluster.account().to_owned()).collect();
    }
    if accounts.is_empty() || accounts.contains(role.account()) {
        return None;
    }
    let accounts: Vec<String> = accounts.into_iter().collect();
    let found = format!("it is of account {}, and the tasks are of {}", role.account(), accounts.join(", "));
    Some(ROLE_ACCOUNT.violation(location.clone(), found))
}

fn path(plane: &str, method: &AuditedAuthMethod, role: &RoleArn, location: &FindingLocation) -> Option<AuditFinding> {
    let bound = |entity_details| BoundPrincipals { arns: &method.principals, entity_details };
    // That wildcards do not count for want of details is told of with the auth method.
    let is_for_want_of_details = || has_dead_wildcards(method) && bound(true).allows(role);
    if bound(method.entity_details).allows(role) || is_for_want_of_details() {
        return None;
    }
    let found = format!("{} at {plane} trusts {}", method.name, method.principals.join(", "));
    Some(ROLE_PATH.violation(location.clone(), found))
}

fn of_iam(
    definition: &AuditedDefinition,
    config: Option<&TaskConfig>,
    role: &RoleArn,
    seen: &AuditedRole,
    location: &FindingLocation,
) -> Vec<AuditFinding> {
    let mut findings = Vec::new();
    match &seen.tags {
        Ok(tags) => {
            findings
                .extend(config.into_iter().flat_map(|config| of_tags(definition, config, role, tags, location)));
        }
        Err(error) if error.kind == AwsErrorKind::NotFound => {
            findings.push(ROLE_MISSING.violation(location.clone(), format!("{}: {}", error.code, error.message)));
            return findings;
        }
        Err(error) => {
            let found = format!("{} failed: {}: {}", error.operation, error.code, error.message);
            findings.push(ROLE_UNREADABLE.unknown(location.clone(), found));
        }
    }
    if let Ok(simulated) = &seen.get_role
        && !simulated.allowed
    {
        let needs_context = !simulated.missing_context.is_empty();
        let found = format!("IAM's policy simulator says {} for iam:GetRole on itself", simulated.decision);
        findings.push(if needs_context {
            let keys = simulated.missing_context.join(", ");
            ROLE_GET_ROLE.unknown(location.clone(), format!("{found}, without knowing {keys}"))
        } else {
            ROLE_GET_ROLE.violation(location.clone(), found).with_fix(format!(
                "aws iam put-role-policy --role-name {} --policy-name consul-login --policy-document \
                 '{{\"Version\":\"2012-10-17\",\"Statement\":{{\"Effect\":\"Allow\",\"Action\":\"iam:GetRole\",\
                 \"Resource\":\"{role}\"}}}}'",
                role.name()
            ))
        });
    }
    findings
}

fn of_tags(
    definition: &AuditedDefinition,
    config: &TaskConfig,
    role: &RoleArn,
    tags: &Tags,
    location: &FindingLocation,
) -> Vec<AuditFinding> {
    let set = |tag: &str, value: &str| {
        format!("aws iam tag-role --role-name {} --tags Key={tag},Value={value}", role.name())
    };
    let at = |tag: &str| location.clone().field(format!("tags[{tag:?}]"));
    let mut findings = Vec::new();
    let service = config.service(definition.family());
    match tags.get(SERVICE_TAG) {
        // Consul lowers the tag's letters, so case is no matter.
        Some(found) if found.to_lowercase() == service => {}
        // The task's name comes first, and is told of by itself.
        Some(_) if !is_consul_service(&service) => {}
        found => {
            let found = found.map_or_else(|| "it is missing".to_owned(), |found| format!("it is {found:?}"));
            let found = format!("{found}; the task registers {service:?}");
            let fix = if is_consul_service(&service) {
                set(SERVICE_TAG, &service)
            } else {
                format!("first give the task a name that Consul takes: {CONSUL_SERVICE_RULE}")
            };
            findings.push(ROLE_SERVICE.violation(at(SERVICE_TAG), found).with_fix(fix));
        }
    }
    let namespace = config.of_subject("namespace");
    let found = tags.get(NAMESPACE_TAG).map(String::as_str).filter(|tag| !tag.is_empty());
    if found.unwrap_or("default") != namespace.unwrap_or("default") {
        let say = |text: Option<&str>| text.map_or_else(|| "missing".to_owned(), |text| format!("{text:?}"));
        let words = format!("it is {}, and {}.namespace {}", say(found), config.subject(), say(namespace));
        let finding = ROLE_NAMESPACE.violation(at(NAMESPACE_TAG), words);
        findings.push(finding.with_fix(set(NAMESPACE_TAG, namespace.unwrap_or("default"))));
    }
    findings.extend(gateway(config, tags).map(|(found, severity)| {
        let finding = ROLE_GATEWAY.violation(at(GATEWAY_TAG), found).with_severity(severity);
        let untag = format!("aws iam untag-role --role-name {} --tag-keys {GATEWAY_TAG}", role.name());
        finding.with_fix(gateway_fix(config, tags, &|kind| set(GATEWAY_TAG, kind), untag))
    }));
    findings
}

/// Never a value that is no kind of gateway.
fn gateway_fix(config: &TaskConfig, tags: &Tags, set: &dyn Fn(&str) -> String, untag: String) -> String {
    let kinds = GatewayKind::ALL.map(GatewayKind::as_str);
    let meant = |word: &str| GatewayKind::suggest(word).map(GatewayKind::as_str);
    let tag = tags.get(GATEWAY_TAG).map(String::as_str).filter(|tag| !kinds.contains(tag));
    match (config.gateway(), tag.and_then(meant)) {
        (Some(kind), _) if kinds.contains(&kind) => set(kind),
        (Some(kind), _) => {
            let likely = set(meant(kind).unwrap_or("KIND"));
            format!("first set gateway.kind to one of {}, then {likely}", kinds.join(", "))
        }
        (None, Some(kind)) => format!("{untag}, or, where the task is to be a gateway, {}", set(kind)),
        (None, None) => untag,
    }
}

fn gateway(config: &TaskConfig, tags: &Tags) -> Option<(String, Severity)> {
    let tag = tags.get(GATEWAY_TAG).map(String::as_str).filter(|tag| !tag.is_empty());
    let kinds = GatewayKind::ALL.map(GatewayKind::as_str);
    match (tag, config.gateway()) {
        (None, None) => None,
        (Some(tag), Some(kind)) if tag == kind => None,
        (Some(tag), _) if !kinds.contains(&tag) => {
            Some((format!("it is {tag:?}; known are {}", kinds.join(", ")), Severity::Error))
        }
        // That the configuration names no kind that there is comes first, and is told of by itself.
        (Some(_), Some(kind)) if !kinds.contains(&kind) => None,
        (Some(tag), Some(kind)) => {
            Some((format!("it is {tag:?}, and gateway.kind {kind:?}"), Severity::Error))
        }
        (None, Some(kind)) => Some((format!("it is missing, and gateway.kind is {kind:?}"), Severity::Error)),
        (Some(tag), None) => Some((
            format!("it is {tag:?}, and the task is no gateway: it gets a gateway's rights"),
            Severity::Warning,
        )),
    }
}

/// Roles that tasks of more than one service run as. Where their tag has been found to name none or another already, that
/// is one thing with it, and its mending is this one's.
pub(super) fn shared(facts: &AuditFacts, findings: &mut Vec<AuditFinding>) {
    let mut services: BTreeMap<RoleArn, (BTreeSet<String>, FindingLocation)> = BTreeMap::new();
    for definition in facts.definitions.iter().filter(|definition| is_of_consul(definition)) {
        let Some(config) = definition.configured().filter(|config| !config.is_controller()) else { continue };
        for role in definition.roles() {
            let place = FindingLocation { resource: Some(role.to_string()), ..definition.place("taskRoleArn") };
            let (names, _) = services.entry(role).or_insert_with(|| (BTreeSet::new(), place));
            names.insert(config.service(definition.family()));
        }
    }
    for (role, (names, place)) in services.into_iter().filter(|(_, (names, _))| names.len() > 1) {
        let words = format!("tasks of {} run as it", names.into_iter().collect::<Vec<_>>().join(", "));
        let mut is_told = false;
        for finding in findings.iter_mut().filter(|finding| {
            finding.rule == ROLE_SERVICE.id && finding.location.resource.as_deref() == Some(role.as_str())
        }) {
            finding.fix = format!("{}: {words}, and its tag names one service", ROLE_SHARED.fix);
            is_told = true;
        }
        if !is_told {
            findings.push(ROLE_SHARED.violation(place, words));
        }
    }
}

/// The simulator most often fails for one reason for all roles: each reason is told once.
pub(super) fn not_simulated(facts: &AuditFacts) -> Vec<AuditFinding> {
    let mut reasons: BTreeMap<(&str, &str), (Vec<&str>, &str)> = BTreeMap::new();
    for (role, seen) in &facts.roles {
        if let (Ok(_), Err(error)) = (&seen.tags, &seen.get_role) {
            let (roles, message) = reasons.entry((&error.code, error.hint)).or_default();
            roles.push(role.name());
            *message = &error.message;
        }
    }
    let finding = |((code, hint), (roles, message)): ((&str, &str), (Vec<&str>, &str))| {
        let more = if roles.len() > 5 { ", …" } else { "" };
        let names: Vec<&str> = roles.iter().take(5).copied().collect();
        let found = format!("not judged for {}{more}: {code}: {message}", names.join(", "));
        let hint = hint.trim_start_matches("; ");
        let finding = ROLE_GET_ROLE.unknown(FindingLocation::resource("iam:SimulatePrincipalPolicy"), found);
        if hint.is_empty() { finding } else { finding.with_fix(hint) }
    };
    reasons.into_iter().map(finding).collect()
}
