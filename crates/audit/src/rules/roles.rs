//! The task role: it exists, its tags fit, Consul trusts it, and it may read itself.

use std::collections::{BTreeMap, BTreeSet};

use super::auth_methods::has_dead_wildcards;
use super::coverage::{FailedReads, by_cause};
use super::planes;
use crate::facts::{AuditFacts, AuditedAuthMethod, AuditedDefinition, AuditedRole};
use crate::parse::config::{self, TaskConfig, is_of_consul};
use crate::report::{AuditFinding, FindingLocation, Severity};
use crate::rules_catalog::{
    ROLE_ACCOUNT, ROLE_GATEWAY, ROLE_GET_ROLE, ROLE_MISSING, ROLE_NAMESPACE, ROLE_PATH, ROLE_SERVICE,
    ROLE_SHARED, ROLE_UNREADABLE,
};
use ecs_mesh_api::GatewayKind;
use ecs_mesh_aws::aws::AwsErrorKind;
use ecs_mesh_core::intent::BoundPrincipals;
use ecs_mesh_core::intent::{GATEWAY_TAG, NAMESPACE_TAG, SERVICE_TAG};
use ecs_mesh_model::{CONSUL_SERVICE_RULE, RoleArn, Tags, is_consul_service};

pub(super) fn check(
    facts: &AuditFacts,
    definition: &AuditedDefinition,
    config: Option<&TaskConfig>,
) -> Vec<AuditFinding> {
    let mut findings = Vec::new();
    let bare = definition.definition.task_role.as_deref().filter(|role| !role.is_empty());
    if let Some(role) = bare.filter(|role| RoleArn::parse(role).is_err()) {
        let found = format!("taskRoleArn is {role:?}, not an ARN: account, path and tags are not checked");
        let finding = ROLE_UNREADABLE.unknown(definition.place("taskRoleArn"), found);
        let is_requested = facts.aws.is_some() || !definition.control_planes.is_empty();
        let finding = if is_requested { finding } else { finding.with_severity(Severity::Info) };
        findings.push(finding.with_fix("set the role's full ARN"));
    }
    for role in definition.roles() {
        let at = FindingLocation { resource: Some(role.to_string()), ..definition.place("taskRoleArn") };
        let of_another_account = account(facts, definition, &role, &at);
        // Such a role is outside the bound principals too, but ECS already refuses it.
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

fn account(
    facts: &AuditFacts,
    definition: &AuditedDefinition,
    role: &RoleArn,
    location: &FindingLocation,
) -> Option<AuditFinding> {
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
    let found =
        format!("the role is in account {}, the tasks are in {}", role.account(), accounts.join(", "));
    Some(ROLE_ACCOUNT.violation(location.clone(), found))
}

fn path(
    plane: &str,
    method: &AuditedAuthMethod,
    role: &RoleArn,
    location: &FindingLocation,
) -> Option<AuditFinding> {
    let bound = |entity_details| BoundPrincipals { arns: &method.principals, entity_details };
    // The auth method's finding reports wildcards that do not match for lack of role details.
    let lacks_only_details = || has_dead_wildcards(method) && bound(true).allows(role);
    if bound(method.entity_details).allows(role) || lacks_only_details() {
        return None;
    }
    let found = format!("{} at {plane} trusts {}", method.name, method.principals.join(", "));
    Some(ROLE_PATH.violation(location.clone(), found))
}

fn of_iam(
    definition: &AuditedDefinition,
    config: Option<&TaskConfig>,
    role: &RoleArn,
    found_role: &AuditedRole,
    location: &FindingLocation,
) -> Vec<AuditFinding> {
    let mut findings = Vec::new();
    match &found_role.tags {
        Ok(tags) => {
            findings.extend(
                config.into_iter().flat_map(|config| of_tags(definition, config, role, tags, location)),
            );
        }
        Err(error) if error.kind == AwsErrorKind::NotFound => {
            findings
                .push(ROLE_MISSING.violation(location.clone(), format!("{}: {}", error.code, error.message)));
            return findings;
        }
        // `not_read` reports it, with the other roles of that cause.
        Err(_) => {}
    }
    if let Some(Ok(simulated)) = &found_role.get_role
        && !simulated.allowed
    {
        let needs_context = !simulated.missing_context.is_empty();
        let found =
            format!("IAM's policy simulator returns {} for iam:GetRole on itself", simulated.decision);
        findings.push(if needs_context {
            let keys = simulated.missing_context.join(", ");
            ROLE_GET_ROLE.unknown(location.clone(), format!("{found}, without the context keys {keys}"))
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
        // Consul converts the tag to lower case.
        Some(found) if found.to_lowercase() == service => {}
        // The finding about the task's name comes first.
        Some(_) if !is_consul_service(&service) => {}
        found => {
            let found = found
                .map_or_else(|| "the tag is missing".to_owned(), |found| format!("the tag is {found:?}"));
            let found = format!("{found}; the task registers {service:?}");
            let fix = if is_consul_service(&service) {
                set(SERVICE_TAG, &service)
            } else {
                format!("first give the task a valid name: {CONSUL_SERVICE_RULE}")
            };
            findings.push(ROLE_SERVICE.violation(at(SERVICE_TAG), found).with_fix(fix));
        }
    }
    let namespace = config.of_subject("namespace");
    let found = tags.get(NAMESPACE_TAG).map(String::as_str).filter(|tag| !tag.is_empty());
    if found.unwrap_or("default") != namespace.unwrap_or("default") {
        let say = |text: Option<&str>| text.map_or_else(|| "missing".to_owned(), |text| format!("{text:?}"));
        let message =
            format!("the tag is {}, and {}.namespace {}", say(found), config.subject(), say(namespace));
        let finding = ROLE_NAMESPACE.violation(at(NAMESPACE_TAG), message);
        findings.push(finding.with_fix(set(NAMESPACE_TAG, namespace.unwrap_or("default"))));
    }
    findings.extend(gateway(config, tags).map(|(found, severity)| {
        let finding = ROLE_GATEWAY.violation(at(GATEWAY_TAG), found).with_severity(severity);
        let untag = format!("aws iam untag-role --role-name {} --tag-keys {GATEWAY_TAG}", role.name());
        finding.with_fix(gateway_fix(config, tags, &|kind| set(GATEWAY_TAG, kind), untag))
    }));
    findings
}

/// Never sets an unknown kind.
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
        (None, Some(kind)) => format!("{untag}, or, if the task should be a gateway, {}", set(kind)),
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
            Some((format!("the tag is {tag:?}; known are {}", kinds.join(", ")), Severity::Error))
        }
        // The finding about an unknown kind in the configuration comes first.
        (Some(_), Some(kind)) if !kinds.contains(&kind) => None,
        (Some(tag), Some(kind)) => {
            Some((format!("the tag is {tag:?}, and gateway.kind {kind:?}"), Severity::Error))
        }
        (None, Some(kind)) => {
            Some((format!("the tag is missing, and gateway.kind is {kind:?}"), Severity::Error))
        }
        (Some(tag), None) => Some((
            format!("the tag is {tag:?}, and the task is no gateway: it gets a gateway's permissions"),
            Severity::Warning,
        )),
    }
}

/// Roles that tasks of several services run as. If a finding already reports the role's service tag, that finding gets this
/// rule's fix instead of a second finding.
pub(super) fn shared(facts: &AuditFacts, findings: &mut Vec<AuditFinding>) {
    let mut services: BTreeMap<RoleArn, (BTreeSet<String>, FindingLocation)> = BTreeMap::new();
    for definition in facts.definitions.iter().filter(|definition| is_of_consul(definition)) {
        let Some(config) = config::first(definition).filter(|config| !config.is_controller()) else {
            continue;
        };
        for role in definition.roles() {
            let place =
                FindingLocation { resource: Some(role.to_string()), ..definition.place("taskRoleArn") };
            let (names, _) = services.entry(role).or_insert_with(|| (BTreeSet::new(), place));
            names.insert(config.service(definition.family()));
        }
    }
    for (role, (names, place)) in services.into_iter().filter(|(_, (names, _))| names.len() > 1) {
        let message =
            format!("tasks of {} run as this role", names.into_iter().collect::<Vec<_>>().join(", "));
        let mut is_reported = false;
        for finding in findings.iter_mut().filter(|finding| {
            finding.rule == ROLE_SERVICE.id && finding.location.resource.as_deref() == Some(role.as_str())
        }) {
            finding.fix = format!("{}: {message}, and its tag names one service", ROLE_SHARED.fix);
            is_reported = true;
        }
        if !is_reported {
            findings.push(ROLE_SHARED.violation(place, message));
        }
    }
}

/// Roles that could not be read: one finding for each cause.
pub(super) fn not_read(facts: &AuditFacts, definitions: &[&AuditedDefinition]) -> Vec<AuditFinding> {
    let mut roles = BTreeMap::new();
    for definition in definitions {
        for role in definition.roles() {
            roles.entry(role).or_insert_with(|| definition.place("taskRoleArn"));
        }
    }
    let failed = roles.iter().filter_map(|(role, place)| {
        let error = facts.roles.get(role)?.tags.as_ref().err()?;
        let is_missing = error.kind == AwsErrorKind::NotFound;
        let at = FindingLocation { resource: Some(role.to_string()), ..place.clone() };
        (!is_missing).then_some((at, role.as_str(), error))
    });
    let finding = |one: FailedReads<'_>| {
        let finding = ROLE_UNREADABLE.unknown(one.location, one.message);
        let hint = one.hint.trim_start_matches("; ");
        if hint.is_empty() { finding } else { finding.with_fix(hint) }
    };
    by_cause(failed).into_iter().map(finding).collect()
}

/// The simulator mostly fails for the same reason for all roles: one finding for each reason.
pub(super) fn not_simulated(facts: &AuditFacts) -> Vec<AuditFinding> {
    let mut reasons: BTreeMap<(&str, &str), (Vec<&str>, &str)> = BTreeMap::new();
    for (role, found_role) in &facts.roles {
        if let (Ok(_), Some(Err(error))) = (&found_role.tags, &found_role.get_role) {
            let (roles, message) = reasons.entry((&error.code, error.hint)).or_default();
            roles.push(role.name());
            *message = &error.message;
        }
    }
    let finding = |((code, hint), (roles, message)): ((&str, &str), (Vec<&str>, &str))| {
        let more = if roles.len() > 5 { ", …" } else { "" };
        let names: Vec<&str> = roles.iter().take(5).copied().collect();
        let found = format!("not checked for {}{more}: {code}: {message}", names.join(", "));
        let hint = hint.trim_start_matches("; ");
        let finding = ROLE_GET_ROLE.unknown(FindingLocation::resource("iam:SimulatePrincipalPolicy"), found);
        if hint.is_empty() { finding } else { finding.with_fix(hint) }
    };
    reasons.into_iter().map(finding).collect()
}
