//! The task itself: its role, network, tags, and the containers whose health counts.

use crate::catalogue::{HEALTH_SYNC, NETWORK_MODE, TAG_MESH, TAG_PARTITION, TASK_ROLE_MISSING};
use crate::facts::{Definition, Origin};
use crate::parse::config::Configured;
use crate::report::{Finding, Place, Severity};
use ecs_mesh_core::intent::{
    TASK_MESH_TAG as MESH_TAG, TASK_NAMESPACE_TAG as NAMESPACE_TAG, TASK_PARTITION_TAG as PARTITION_TAG,
};
use ecs_mesh_model::Tags;

pub(super) fn check(definition: &Definition, config: Option<&Configured>) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(role(definition, config));
    findings.extend(network(definition));
    findings.extend(config.into_iter().flat_map(|config| health(definition, config)));
    for (tags, at, is_running) in tagged(definition) {
        findings.extend(mesh_tag(&tags, &at, is_running));
        findings.extend(partition_tags(&tags, &at, config));
    }
    findings
}

fn role(definition: &Definition, config: Option<&Configured>) -> Option<Finding> {
    let is_missing = definition.whole.task_role.as_deref().is_none_or(str::is_empty);
    let all_override = !definition.uses.is_empty() && definition.uses.iter().all(|one| one.role.is_some());
    let finding = TASK_ROLE_MISSING.broken(definition.place("taskRoleArn"), "taskRoleArn is left out");
    let needed = config.is_none_or(Configured::logs_in);
    (is_missing && !all_override).then(|| if needed { finding } else { finding.but(Severity::Warning) })
}

fn network(definition: &Definition) -> Option<Finding> {
    let found = match definition.whole.network_mode.as_deref() {
        Some("awsvpc") => return None,
        Some(mode) => format!("it is {mode:?}"),
        None => "it is left out, which is bridge on EC2 and refused on Fargate".to_owned(),
    };
    Some(NETWORK_MODE.broken(definition.place("networkMode"), found))
}

fn health(definition: &Definition, config: &Configured) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, name) in config.texts("/healthSyncContainers").iter().enumerate() {
        let at = config.at(&format!("healthSyncContainers[{index}]"));
        match definition.containers().find(|(_, container)| container.name == *name) {
            None => {
                let names: Vec<&str> = definition.containers().map(|(_, one)| one.name.as_str()).collect();
                let found = format!("there is no container {name:?}; there are {}", names.join(", "));
                findings.push(HEALTH_SYNC.broken(at, found));
            }
            Some((_, container)) if !container.health_check => {
                findings.push(HEALTH_SYNC.broken(at, format!("container {name:?} has no healthCheck")));
            }
            Some(_) => {}
        }
    }
    findings
}

/// The tags of what runs; of a file, what it says of itself.
fn tagged(definition: &Definition) -> Vec<(Tags, Place, bool)> {
    match definition.origin {
        Origin::File { .. } => {
            vec![(definition.whole.tags.clone().unwrap_or_default(), definition.place("tags"), false)]
        }
        Origin::Ecs => definition
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

fn mesh_tag(tags: &Tags, at: &Place, is_running: bool) -> Option<Finding> {
    match tags.get(MESH_TAG).map(String::as_str) {
        Some("true") => None,
        Some(other) => Some(TAG_MESH.broken(at.clone(), format!("it is {other:?}"))),
        None if is_running => Some(TAG_MESH.broken(at.clone(), "the tasks do not have it")),
        None => {
            let found = "the file does not have it; the service may give it to the tasks";
            Some(TAG_MESH.broken(at.clone(), found).but(Severity::Note))
        }
    }
}

fn partition_tags(tags: &Tags, at: &Place, config: Option<&Configured>) -> Vec<Finding> {
    let (partition, namespace) = (tags.get(PARTITION_TAG), tags.get(NAMESPACE_TAG));
    let broken = |found: String| TAG_PARTITION.broken(at.clone(), found);
    let mut findings = Vec::new();
    match (partition, namespace) {
        (Some(_), None) => findings.push(broken(format!("{PARTITION_TAG} is there without {NAMESPACE_TAG}"))),
        (None, Some(_)) => findings.push(broken(format!("{NAMESPACE_TAG} is there without {PARTITION_TAG}"))),
        _ => {}
    }
    let Some(config) = config else { return findings };
    for (tag, found, field) in
        [(PARTITION_TAG, partition, "partition"), (NAMESPACE_TAG, namespace, "namespace")]
    {
        let wanted = config.of_subject(field).unwrap_or("default");
        // A file without any tags says nothing about the tasks'.
        let found = found.map_or("default", String::as_str);
        if found != wanted && !tags.is_empty() {
            findings.push(broken(format!("{tag} is {found:?}, and {}.{field} {wanted:?}", config.subject())));
        }
    }
    findings
}
