//! The task definition: role, network mode, tags, and the containers whose health is synced.

use crate::facts::{AuditedDefinition, DefinitionOrigin};
use crate::parse::config::TaskConfig;
use crate::report::{AuditFinding, FindingLocation, Severity};
use crate::rules_catalog::{HEALTH_SYNC, NETWORK_MODE, TAG_MESH, TAG_PARTITION, TASK_ROLE_MISSING};
use ecs_mesh_core::intent::{
    TASK_MESH_TAG as MESH_TAG, TASK_NAMESPACE_TAG as NAMESPACE_TAG, TASK_PARTITION_TAG as PARTITION_TAG,
};
use ecs_mesh_model::Tags;

pub(super) fn check(definition: &AuditedDefinition, config: Option<&TaskConfig>) -> Vec<AuditFinding> {
    let mut findings = Vec::new();
    findings.extend(role(definition, config));
    findings.extend(network(definition));
    findings.extend(config.into_iter().flat_map(|config| health(definition, config)));
    for (tags, location, is_running) in tagged(definition) {
        findings.extend(mesh_tag(&tags, &location, is_running));
        findings.extend(partition_tags(&tags, &location, config));
    }
    findings
}

pub(super) fn role(definition: &AuditedDefinition, config: Option<&TaskConfig>) -> Option<AuditFinding> {
    let is_missing = definition.definition.task_role.as_deref().is_none_or(str::is_empty);
    let all_override = !definition.uses.is_empty() && definition.uses.iter().all(|one| one.role.is_some());
    let finding = TASK_ROLE_MISSING.violation(definition.place("taskRoleArn"), "taskRoleArn is absent");
    let needed = config.is_none_or(TaskConfig::logs_in);
    (is_missing && !all_override)
        .then(|| if needed { finding } else { finding.with_severity(Severity::Warning) })
}

pub(super) fn network(definition: &AuditedDefinition) -> Option<AuditFinding> {
    let found = match definition.definition.network_mode.as_deref() {
        Some("awsvpc") => return None,
        Some(mode) => format!("the network mode is {mode:?}"),
        None => "networkMode is absent, which is bridge on EC2 and refused on Fargate".to_owned(),
    };
    Some(NETWORK_MODE.violation(definition.place("networkMode"), found))
}

fn health(definition: &AuditedDefinition, config: &TaskConfig) -> Vec<AuditFinding> {
    let mut findings = Vec::new();
    for (index, name) in config.texts("/healthSyncContainers").iter().enumerate() {
        let at = config.location(&format!("healthSyncContainers[{index}]"));
        match definition.containers().find(|(_, container)| container.name == *name) {
            None => {
                let names: Vec<&str> = definition.containers().map(|(_, one)| one.name.as_str()).collect();
                let found = format!("container {name:?} does not exist; containers are {}", names.join(", "));
                findings.push(HEALTH_SYNC.violation(at, found));
            }
            Some((_, container)) if container.health_check.is_none() => {
                findings.push(HEALTH_SYNC.violation(at, format!("container {name:?} has no healthCheck")));
            }
            Some(_) => {}
        }
    }
    findings
}

/// The tags of running tasks, or those of a file.
fn tagged(definition: &AuditedDefinition) -> Vec<(Tags, FindingLocation, bool)> {
    match definition.origin {
        DefinitionOrigin::File { .. } => {
            vec![(definition.definition.tags.clone().unwrap_or_default(), definition.place("tags"), false)]
        }
        DefinitionOrigin::Ecs => definition
            .uses
            .iter()
            .map(|one| {
                let service = one.service.as_ref().map(|name| format!(" of service {name}"));
                let field =
                    format!("tags of its tasks in {}{}", one.cluster.name(), service.unwrap_or_default());
                (one.tags.clone(), definition.place("").field(field), true)
            })
            .collect(),
    }
}

fn mesh_tag(tags: &Tags, location: &FindingLocation, is_running: bool) -> Option<AuditFinding> {
    match tags.get(MESH_TAG).map(String::as_str) {
        Some("true") => None,
        Some(other) => Some(TAG_MESH.violation(location.clone(), format!("the tag is {other:?}"))),
        None if is_running => Some(TAG_MESH.violation(location.clone(), "the tasks do not have the tag")),
        None => {
            let found = "the file does not have the tag; the service may add it";
            Some(TAG_MESH.violation(location.clone(), found).with_severity(Severity::Info))
        }
    }
}

fn partition_tags(tags: &Tags, location: &FindingLocation, config: Option<&TaskConfig>) -> Vec<AuditFinding> {
    let (partition, namespace) = (tags.get(PARTITION_TAG), tags.get(NAMESPACE_TAG));
    let finding = |message: String| TAG_PARTITION.violation(location.clone(), message);
    let mut findings = Vec::new();
    match (partition, namespace) {
        (Some(_), None) => findings.push(finding(format!("{PARTITION_TAG} is set without {NAMESPACE_TAG}"))),
        (None, Some(_)) => findings.push(finding(format!("{NAMESPACE_TAG} is set without {PARTITION_TAG}"))),
        _ => {}
    }
    let Some(config) = config else { return findings };
    for (tag, found, field) in
        [(PARTITION_TAG, partition, "partition"), (NAMESPACE_TAG, namespace, "namespace")]
    {
        let wanted = config.of_subject(field).unwrap_or("default");
        // A file without tags does not show the tasks' tags.
        let found = found.map_or("default", String::as_str);
        if found != wanted && !tags.is_empty() {
            findings
                .push(finding(format!("{tag} is {found:?}, and {}.{field} {wanted:?}", config.subject())));
        }
    }
    findings
}
