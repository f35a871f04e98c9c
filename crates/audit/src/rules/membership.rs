//! The place of a definition's tasks in Kuma's meshes: the binding that selects them, and the workload that describes them.
//!
//! A file has no cluster and no ECS service, so a workload describes it if it names the family, or is named like it.

use std::borrow::Cow;
use std::sync::Arc;

use crate::facts::{AuditFacts, AuditedDefinition, DefinitionUse};
use crate::parse::sidecar;
use ecs_mesh_api::manifests::{Binding, ManifestSet};
use ecs_mesh_api::{ControlPlaneType, Discovery, RoleTagMode, WorkloadSpec};
use ecs_mesh_core::intent::{discovered_workload, workloads_in};
use ecs_mesh_model::{ClusterArn, Glob, RoleArn};

/// Tasks of a definition in one of Kuma's meshes.
#[derive(Clone, Debug)]
pub(super) struct Membership<'a> {
    /// The binding.
    pub(super) binding: &'a Binding,
    /// The workload's name; the service's for a workload that tags describe.
    pub(super) name: Arc<str>,
    /// The workload.
    pub(super) workload: Cow<'a, WorkloadSpec>,
    /// The role that the tasks run as, where it is an ARN.
    pub(super) role: Option<RoleArn>,
    /// The account of the tasks, where it is known.
    pub(super) account: Option<&'a str>,
}

impl Membership<'_> {
    /// Whether the binding checks role tags.
    pub(super) fn checks_roles(&self) -> bool {
        self.binding.spec.role_tags.mode != RoleTagMode::Off
    }
}

/// Whether tasks of the definition should be in one of Kuma's meshes.
pub(super) fn is_of_kuma(facts: &AuditFacts, definition: &AuditedDefinition) -> bool {
    sidecar::has_kuma(definition)
        || definition.uses.iter().any(|one| !one.kuma.is_empty())
        || !memberships(facts, definition).is_empty()
}

/// The Kuma bindings of the manifests.
pub(super) fn kuma_bindings(set: &ManifestSet) -> impl Iterator<Item = &Binding> {
    set.bindings
        .values()
        .map(|binding| &**binding)
        .filter(|binding| binding.control_plane_type == ControlPlaneType::Kuma)
}

/// The memberships of the definition's tasks. Tasks that several bindings or workloads select have none.
pub(super) fn memberships<'a>(
    facts: &'a AuditFacts,
    definition: &'a AuditedDefinition,
) -> Vec<Membership<'a>> {
    let Some(manifests) = &facts.manifests else { return Vec::new() };
    let own_role = definition.definition.task_role.as_deref().and_then(|role| RoleArn::parse(role).ok());
    if definition.uses.is_empty() {
        return of_file(&manifests.set, definition, own_role.as_ref()).into_iter().collect();
    }
    let of_use = |one: &'a DefinitionUse| {
        let (name, workloads) = one.kuma.first_key_value().filter(|_| one.kuma.len() == 1)?;
        let binding = manifests.set.bindings.get(name)?;
        let (name, workload) = match workloads.as_slice() {
            [name] => (Arc::clone(name), Cow::Borrowed(&**manifests.set.workloads.get(name)?)),
            [] if binding.spec.discovery == Discovery::Tags => discovered(definition, one)?,
            _ => return None,
        };
        let role = one.role.clone().or_else(|| own_role.clone());
        Some(Membership { binding, name, workload, role, account: Some(one.cluster.account()) })
    };
    definition.uses.iter().filter_map(of_use).collect()
}

fn discovered<'a>(
    definition: &AuditedDefinition,
    one: &DefinitionUse,
) -> Option<(Arc<str>, Cow<'a, WorkloadSpec>)> {
    let workload = discovered_workload(&definition.definition.to_containers(), &one.tags).ok().flatten()?;
    Some((workload.service.as_str().into(), Cow::Owned(workload)))
}

/// The membership of a file's tasks, if exactly one binding and one workload fit.
fn of_file<'a>(
    set: &'a ManifestSet,
    definition: &AuditedDefinition,
    role: Option<&RoleArn>,
) -> Option<Membership<'a>> {
    let family = definition.family();
    let names = |globs: &[Glob]| globs.iter().any(|glob| glob.matches(family));
    let fits = |workload: &WorkloadSpec| {
        if workload.selector.families.is_empty() {
            names(&workload.selector.services) || workload.service.as_str() == family
        } else {
            names(&workload.selector.families)
        }
    };
    let mut found = kuma_bindings(set)
        .filter(|binding| {
            let families = &binding.spec.selector.families;
            families.is_empty() || names(families)
        })
        .flat_map(|binding| workloads_in(set, binding).map(move |found| (binding, found)))
        .filter(|(_, (_, workload))| fits(workload));
    let (binding, (name, workload)) = found.next()?;
    if found.next().is_some() {
        return None;
    }
    Some(Membership {
        binding,
        name: Arc::clone(name),
        workload: Cow::Borrowed(&**workload),
        role: role.cloned(),
        account: account_of(binding),
    })
}

/// The account of the clusters that the binding names, if it is one.
fn account_of(binding: &Binding) -> Option<&str> {
    let accounts = binding.spec.selector.clusters.iter().map(|glob| {
        // The patterns allow wildcards in any part of the ARN.
        let account = glob.as_str().split(':').nth(4)?;
        ClusterArn::parse(glob.as_str()).is_ok().then_some(account)
    });
    let mut accounts: Vec<Option<&str>> = accounts.collect();
    accounts.dedup();
    match accounts.as_slice() {
        [one] => *one,
        _ => None,
    }
}
