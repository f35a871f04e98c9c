//! `CONSUL_ECS_CONFIG_JSON` as a whole: there, one object, the same everywhere, and such as its schema allows.

use std::collections::BTreeSet;

use crate::rules_catalog::{
    CONFIG_DIFFERS, CONFIG_FIELD, CONFIG_MISSING, CONFIG_NOT_JSON, SERVICE_META, SERVICE_NAME,
};
use crate::facts::AuditedDefinition;
use crate::parse::config::{self, TaskConfig, VARIABLE};
use crate::parse::schema;
use crate::report::{AuditFinding, Severity};
use ecs_mesh_model::is_consul_service;

/// What clean-up goes by.
const OWN_META: [&str; 3] = ["task-id", "task-arn", "source"];
const MOST_META: usize = 64;

pub(super) fn check(definition: &AuditedDefinition) -> Vec<AuditFinding> {
    let all = config::all(definition);
    if all.is_empty() {
        return missing(definition);
    }
    let mut findings = Vec::new();
    // Most task definitions have the same text in several containers.
    let mut seen = BTreeSet::new();
    for (place, why) in all.iter().filter_map(|one| one.as_ref().err()).filter(|(_, why)| seen.insert(why)) {
        findings.push(CONFIG_NOT_JSON.violation(place.clone(), why));
    }
    let objects: Vec<&TaskConfig> = all.iter().filter_map(|one| one.as_ref().ok()).collect();
    findings.extend(differing(definition, &objects));
    // All should be like the first.
    let Some(first) = objects.first() else { return findings };
    let mut schema_violations = fields(first);
    if !first.is_controller() {
        let name = service_name(definition, first);
        schema_violations.retain(|misfit| name.as_ref().is_none_or(|name| name.location != misfit.location));
        findings.extend(name);
        findings.extend(service_meta(first));
    }
    findings.extend(schema_violations);
    findings
}

/// In none of the containers, in plain text; whether a secret or a file holds it cannot be seen.
fn missing(definition: &AuditedDefinition) -> Vec<AuditFinding> {
    for (index, container) in definition.containers() {
        let at = |field: &str| definition.container_place(index, field);
        if container.secrets.iter().any(|secret| secret.name == VARIABLE) {
            let found =
                "its value is a secret, which is not looked at; it needs none, since it holds no token";
            return vec![CONFIG_MISSING.unknown(at("secrets"), found)];
        }
        if !container.environment_files.is_empty() {
            return vec![
                CONFIG_MISSING.unknown(at("environmentFiles"), "it may be in a file, which is not looked at"),
            ];
        }
    }
    let found = "no container has CONSUL_ECS_CONFIG_JSON, or it is empty";
    vec![CONFIG_MISSING.violation(definition.place("containerDefinitions"), found)]
}

fn fields(config: &TaskConfig) -> Vec<AuditFinding> {
    let schema_violations = schema::schema_violations(&config.value, config.is_older);
    let finding = |misfit: schema::SchemaViolation| {
        let at = config.location(&misfit.field);
        if misfit.is_refused {
            CONFIG_FIELD.violation(at, misfit.message)
        } else {
            CONFIG_FIELD
                .violation(at, format!("{}; consul-ecs passes it over", misfit.message))
                .with_severity(Severity::Warning)
        }
    };
    let mut findings: Vec<AuditFinding> = schema_violations.into_iter().map(finding).collect();
    if !config.is_controller() && config.value.get("service").is_none() && config.gateway().is_none() {
        findings.push(CONFIG_FIELD.violation(config.location("service"), "there is neither service nor gateway"));
    }
    findings
}

fn differing(definition: &AuditedDefinition, objects: &[&TaskConfig]) -> Vec<AuditFinding> {
    let Some((first, others)) = objects.split_first() else { return Vec::new() };
    let mut findings = Vec::new();
    let mut seen = BTreeSet::from([first.container]);
    for other in others {
        let name = |index: usize| definition.definition.containers.get(index).map_or("", |one| one.name.as_str());
        if other.value != first.value {
            let found = format!("it differs from that of container {}", name(first.container));
            findings.push(CONFIG_DIFFERS.violation(other.location(""), found));
        } else if !seen.insert(other.container) {
            let found = "the container has it twice";
            findings.push(CONFIG_DIFFERS.violation(other.location(""), found).with_severity(Severity::Warning));
        }
    }
    findings
}

/// Written or taken from the family; of one that is written the schema would say the same.
fn service_name(definition: &AuditedDefinition, config: &TaskConfig) -> Option<AuditFinding> {
    let name = config.service(definition.family());
    if is_consul_service(&name) {
        return None;
    }
    let subject = config.subject();
    let found = match config.of_subject("name") {
        Some(name) => format!("{subject}.name is {name:?}"),
        None if name.is_empty() => format!("{subject}.name is left out, and the family is not known"),
        None => format!("{subject}.name is left out, and the family gives {name:?}"),
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
            format!("it sets {key}, which consul-ecs sets itself")
        } else if key.is_empty() || key.len() > 128 || !key.bytes().all(is_plain) {
            format!("the key {key:?} is refused by Consul")
        } else if key.starts_with("consul-") {
            format!("the key {key:?} begins with consul-, which Consul keeps for itself")
        } else if value.len() > 512 {
            format!("the value of {key} has {} bytes", value.len())
        } else {
            continue;
        };
        findings.push(SERVICE_META.violation(config.location(&format!("{subject}.meta.{key}")), found));
    }
    // consul-ecs adds three of its own.
    if meta.len() + OWN_META.len() > MOST_META {
        let found = format!("{} keys, and three of consul-ecs: Consul takes {MOST_META}", meta.len());
        findings.push(SERVICE_META.violation(config.location(&format!("{subject}.meta")), found));
    }
    findings
}
