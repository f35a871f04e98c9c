//! Tasks that their ECS tags and docker labels describe (`discovery: tags`).

use super::membership::kuma_bindings;
use crate::facts::{AuditFacts, AuditedDefinition, DefinitionUse};
use crate::report::AuditFinding;
use crate::rules_catalog::{WORKLOAD_CLAIM, WORKLOAD_TAGS};
use ecs_mesh_api::Discovery;
use ecs_mesh_api::manifests::{Binding, ManifestSet};
use ecs_mesh_core::intent::{ClaimingTask, SERVICE_KEY, discovered_workload, service_claim_violation};
use ecs_mesh_model::{RoleArn, TaskContainer};

pub(super) fn check(facts: &AuditFacts, definition: &AuditedDefinition) -> Vec<AuditFinding> {
    let Some(manifests) = &facts.manifests else { return Vec::new() };
    let containers = definition.definition.to_containers();
    if definition.uses.is_empty() {
        return of_file(&manifests.set, definition, &containers).into_iter().collect();
    }
    let of_use = |one| of_use(&manifests.set, definition, &containers, one);
    definition.uses.iter().filter_map(of_use).collect()
}

/// A file has the labels, and the tags where tasks get those of the definition. Its tasks may have other tags: a description
/// without a service may be completed by them.
fn of_file(
    set: &ManifestSet,
    definition: &AuditedDefinition,
    containers: &[TaskContainer],
) -> Option<AuditFinding> {
    kuma_bindings(set).find(|binding| binding.spec.discovery == Discovery::Tags)?;
    let tags = definition.definition.tags.clone().unwrap_or_default();
    let has_service = tags.contains_key(SERVICE_KEY)
        || containers.iter().any(|container| container.docker_labels.contains_key(SERVICE_KEY));
    let problem = discovered_workload(containers, &tags).err().filter(|_| has_service)?;
    Some(WORKLOAD_TAGS.violation(definition.place(""), problem.message.clone()))
}

fn of_use(
    set: &ManifestSet,
    definition: &AuditedDefinition,
    containers: &[TaskContainer],
    one: &DefinitionUse,
) -> Option<AuditFinding> {
    let binding = describing_binding(set, one)?;
    let service = one.service.as_ref().map(|name| format!(" of service {name}")).unwrap_or_default();
    let place = || definition.place("").field(format!("tasks in {}{service}", one.cluster.name()));
    let workload = match discovered_workload(containers, &one.tags) {
        Ok(workload) => workload?,
        Err(problem) => return Some(WORKLOAD_TAGS.violation(place(), problem.message.clone())),
    };
    let own_role = definition.definition.task_role.as_deref().and_then(|role| RoleArn::parse(role).ok());
    let role = one.role.as_ref().or(own_role.as_ref());
    let task = ClaimingTask { account: one.cluster.account(), service: one.service.as_deref(), role };
    let refused = service_claim_violation(&binding.spec.claims, &workload, task)?;
    Some(WORKLOAD_CLAIM.violation(place(), format!("MeshBinding {}: {refused}", binding.name)))
}

/// The binding whose tasks are described by their tags, since no workload selects them.
fn describing_binding<'a>(set: &'a ManifestSet, one: &DefinitionUse) -> Option<&'a Binding> {
    let (name, workloads) = one.kuma.first_key_value().filter(|_| one.kuma.len() == 1)?;
    let binding = set.bindings.get(name).filter(|_| workloads.is_empty())?;
    (binding.spec.discovery == Discovery::Tags).then_some(&**binding)
}
