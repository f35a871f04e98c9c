//! `CONSUL_ECS_CONFIG_JSON`: set, an object, the same in all containers, and valid by its schema.

use std::collections::BTreeSet;

use crate::facts::AuditedDefinition;
use crate::parse::config::{self, TaskConfig, VARIABLE};
use crate::parse::schema;
use crate::report::{AuditFinding, Severity};
use crate::rules_catalog::{
    CONFIG_DIFFERS, CONFIG_FIELD, CONFIG_MISSING, CONFIG_NOT_JSON, SERVICE_META, SERVICE_NAME,
};
use ecs_mesh_model::is_consul_service;

/// Keys by which clean-up identifies the task.
const OWN_META: [&str; 3] = ["task-id", "task-arn", "source"];
const MAX_META: usize = 64;

pub(super) fn check(definition: &AuditedDefinition) -> Vec<AuditFinding> {
    let all = config::all(definition);
    if all.is_empty() {
        return missing(definition);
    }
    let mut findings = Vec::new();
    // Most task definitions repeat the same text in several containers.
    let mut seen = BTreeSet::new();
    for (place, reason) in
        all.iter().filter_map(|one| one.as_ref().err()).filter(|(_, reason)| seen.insert(reason))
    {
        findings.push(CONFIG_NOT_JSON.violation(place.clone(), reason));
    }
    let objects: Vec<&TaskConfig> = all.iter().filter_map(|one| one.as_ref().ok()).collect();
    findings.extend(differing(definition, &objects));
    // The others are compared with the first.
    let Some(first) = objects.first() else { return findings };
    let mut schema_violations = fields(first);
    if !first.is_controller() {
        let name = service_name(definition, first);
        schema_violations
            .retain(|violation| name.as_ref().is_none_or(|name| name.location != violation.location));
        findings.extend(name);
        findings.extend(service_meta(first));
    }
    findings.extend(schema_violations);
    findings
}

/// The value is in no container in plain text. A secret or a file may contain it.
fn missing(definition: &AuditedDefinition) -> Vec<AuditFinding> {
    for (index, container) in definition.containers() {
        let at = |field: &str| definition.container_place(index, field);
        if container.secrets.iter().any(|secret| secret.name == VARIABLE) {
            let found =
                "the value is a secret, which is not read; no secret is needed, since it contains no token";
            return vec![CONFIG_MISSING.unknown(at("secrets"), found)];
        }
        if !container.environment_files.is_empty() {
            return vec![CONFIG_MISSING.unknown(
                at("environmentFiles"),
                "the value may be in an environment file, which is not read",
            )];
        }
    }
    let found = "no container has CONSUL_ECS_CONFIG_JSON, or it is empty";
    vec![CONFIG_MISSING.violation(definition.place("containerDefinitions"), found)]
}

fn fields(config: &TaskConfig) -> Vec<AuditFinding> {
    let schema_violations = schema::schema_violations(&config.value, config.is_older);
    let finding = |violation: schema::SchemaViolation| {
        let at = config.location(&violation.field);
        if violation.is_refused {
            CONFIG_FIELD.violation(at, violation.message)
        } else {
            CONFIG_FIELD
                .violation(at, format!("{}; consul-ecs ignores it", violation.message))
                .with_severity(Severity::Warning)
        }
    };
    let mut findings: Vec<AuditFinding> = schema_violations.into_iter().map(finding).collect();
    if !config.is_controller() && config.value.get("service").is_none() && config.gateway().is_none() {
        findings
            .push(CONFIG_FIELD.violation(config.location("service"), "neither service nor gateway is set"));
    }
    findings
}

fn differing(definition: &AuditedDefinition, objects: &[&TaskConfig]) -> Vec<AuditFinding> {
    let Some((first, others)) = objects.split_first() else { return Vec::new() };
    let mut findings = Vec::new();
    let mut seen = BTreeSet::from([first.container]);
    for other in others {
        let name =
            |index: usize| definition.definition.containers.get(index).map_or("", |one| one.name.as_str());
        if other.value != first.value {
            let found = format!("the value differs from that of container {}", name(first.container));
            findings.push(CONFIG_DIFFERS.violation(other.location(""), found));
        } else if !seen.insert(other.container) {
            let found = "the container has it twice";
            findings
                .push(CONFIG_DIFFERS.violation(other.location(""), found).with_severity(Severity::Warning));
        }
    }
    findings
}

/// The name, explicit or from the family. Replaces the schema's violation for an explicit name.
fn service_name(definition: &AuditedDefinition, config: &TaskConfig) -> Option<AuditFinding> {
    let name = config.service(definition.family());
    if is_consul_service(&name) {
        return None;
    }
    let subject = config.subject();
    let found = match config.of_subject("name") {
        Some(name) => format!("{subject}.name is {name:?}"),
        None if name.is_empty() => format!("{subject}.name is absent, and the family is not known"),
        None => format!("{subject}.name is absent, and the family gives {name:?}"),
    };
    Some(SERVICE_NAME.violation(config.location(&format!("{subject}.name")), found))
}

fn service_meta(config: &TaskConfig) -> Vec<AuditFinding> {
    let subject = config.subject();
    let meta = config.map(&format!("/{subject}/meta"));
    let mut findings = Vec::new();
    for (key, value) in &meta {
        let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
        let found = if OWN_META.contains(key) {
            format!("{key} is set, which consul-ecs sets itself")
        } else if key.is_empty() || key.len() > 128 || !key.bytes().all(is_plain) {
            format!("Consul refuses the key {key:?}")
        } else if key.starts_with("consul-") {
            format!("the key {key:?} begins with consul-, which Consul reserves")
        } else if value.len() > 512 {
            format!("the value of {key} has {} bytes", value.len())
        } else {
            continue;
        };
        findings.push(SERVICE_META.violation(config.location(&format!("{subject}.meta.{key}")), found));
    }
    // consul-ecs adds three of its own.
    if meta.len() + OWN_META.len() > MAX_META {
        let found = format!("{} keys, and three of consul-ecs: Consul allows {MAX_META}", meta.len());
        findings.push(SERVICE_META.violation(config.location(&format!("{subject}.meta")), found));
    }
    findings
}
