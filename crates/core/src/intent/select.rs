//! Selects the binding and the workload of a task.

use std::collections::BTreeMap;
use std::sync::Arc;

use ecs_mesh_api::manifests::{Binding, ManifestSet};
use ecs_mesh_api::{BindingSelector, ControlPlaneType, LifecyclePolicy, WorkloadSelector, WorkloadSpec};
use ecs_mesh_model::{ClusterArn, Glob, MeshName, Tags, Task};

/// Whether a selector matches; it may depend on tags that are unknown yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Match {
    Yes,
    No,
    NeedsTags,
}

/// The conditions of a selector.
struct SelectorConditions<'a> {
    clusters: &'a [Glob],
    services: &'a [Glob],
    families: &'a [Glob],
    tags: &'a Tags,
}

impl SelectorConditions<'_> {
    fn on(&self, task: &Task) -> Match {
        let any = |globs: &[Glob], text: Option<&str>| {
            globs.is_empty() || text.is_some_and(|text| globs.iter().any(|glob| glob.matches(text)))
        };
        if !any(self.clusters, Some(task.arn.cluster().as_str()))
            || !any(self.services, task.group.service())
            || !any(self.families, Some(task.definition.family()))
        {
            return Match::No;
        }
        match &task.tags {
            _ if self.tags.is_empty() => Match::Yes,
            None => Match::NeedsTags,
            Some(tags) if self.tags.iter().all(|(key, value)| tags.get(key) == Some(value)) => Match::Yes,
            Some(_) => Match::No,
        }
    }
}

pub(super) fn binding_matches(binding: &Binding, task: &Task) -> Match {
    let BindingSelector { clusters, services, families, tags } = &binding.spec.selector;
    SelectorConditions { clusters, services, families, tags }.on(task)
}

pub(super) fn workload_matches(workload: &WorkloadSpec, task: &Task) -> Match {
    let WorkloadSelector { clusters, services, families, tags } = &workload.selector;
    SelectorConditions { clusters, services, families, tags }.on(task)
}

/// The result of a selection among candidates.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Selection<T> {
    None,
    One(Arc<str>, Arc<T>),
    Several(Vec<Arc<str>>),
    NeedsTags,
}

fn select_one<'a, T: 'a>(
    candidates: impl Iterator<Item = (&'a Arc<str>, &'a Arc<T>)>,
    matches: impl Fn(&T) -> Match,
) -> Selection<T> {
    let mut selected: Vec<(&Arc<str>, &Arc<T>)> = Vec::new();
    for (name, candidate) in candidates {
        match matches(candidate) {
            Match::Yes => selected.push((name, candidate)),
            Match::No => {}
            Match::NeedsTags => return Selection::NeedsTags,
        }
    }
    match selected.as_slice() {
        [] => Selection::None,
        [(name, one)] => Selection::One(Arc::clone(name), Arc::clone(one)),
        several => Selection::Several(several.iter().map(|(name, _)| Arc::clone(name)).collect()),
    }
}

/// The binding of this control-plane type that selects the task. Several are a conflict, at any control plane.
pub(super) fn binding(set: &ManifestSet, kind: ControlPlaneType, task: &Task) -> Selection<Binding> {
    select_one(set.bindings.iter().filter(|(_, b)| b.control_plane_type == kind), |b| {
        binding_matches(b, task)
    })
}

/// All bindings of this control-plane type that certainly select the task. A binding that depends on unknown tags is not
/// among them.
pub fn bindings<'a>(
    set: &'a ManifestSet,
    kind: ControlPlaneType,
    task: &'a Task,
) -> impl Iterator<Item = &'a Arc<Binding>> {
    set.bindings
        .values()
        .filter(move |one| one.control_plane_type == kind && binding_matches(one, task) == Match::Yes)
}

/// The workload that describes the task in that binding.
pub(super) fn workload(set: &ManifestSet, binding: &str, task: &Task) -> Selection<WorkloadSpec> {
    select_one(workloads_for(set, binding), |workload| workload_matches(workload, task))
}

/// The workloads that name the binding, or none.
pub(super) fn workloads_for<'a>(
    set: &'a ManifestSet,
    binding: &'a str,
) -> impl Iterator<Item = (&'a Arc<str>, &'a Arc<WorkloadSpec>)> {
    let workloads: &BTreeMap<_, _> = &set.workloads;
    workloads.iter().filter(move |(_, workload)| is_for(workload, binding))
}

fn is_for(workload: &WorkloadSpec, binding: &str) -> bool {
    workload.bindings.is_empty() || workload.bindings.iter().any(|name| name == binding)
}

/// All workloads that may describe tasks of that binding.
pub fn workloads_in<'a>(
    set: &'a ManifestSet,
    binding: &'a Binding,
) -> impl Iterator<Item = (&'a Arc<str>, &'a Arc<WorkloadSpec>)> {
    set.workloads.iter().filter(move |(_, workload)| may_describe(workload, binding))
}

/// Whether the workload may describe tasks of that binding: one that names no binding does so only where a task exists
/// that both selectors can select.
pub fn may_describe(workload: &WorkloadSpec, binding: &Binding) -> bool {
    let overlap = |a: &[Glob], b: &[Glob], both: fn(&Glob, &Glob) -> bool| {
        a.is_empty() || b.is_empty() || a.iter().any(|a| b.iter().any(|b| both(a, b)))
    };
    let BindingSelector { clusters, services, families, tags } = &binding.spec.selector;
    let own = &workload.selector;
    is_for(workload, &binding.name)
        && overlap(&own.clusters, clusters, clusters_overlap)
        && overlap(&own.services, services, Glob::overlaps)
        && overlap(&own.families, families, Glob::overlaps)
        && tags.iter().all(|(key, value)| own.tags.get(key).is_none_or(|own| own == value))
}

/// Whether a cluster's ARN may match both. The name of a cluster has neither `:` nor `/`, so `*:cluster/a` and `*:cluster/b`
/// have none in common.
fn clusters_overlap(a: &Glob, b: &Glob) -> bool {
    let parts = |glob: &Glob| {
        let (scope, name) = glob.as_str().rsplit_once(":cluster/")?;
        Some((Glob::new(scope), Glob::new(name)))
    };
    match (parts(a), parts(b)) {
        (Some((scope, name)), Some((other_scope, other_name))) => {
            scope.overlaps(&other_scope) && name.overlaps(&other_name)
        }
        _ => a.overlaps(b),
    }
}

/// The names of the workloads that certainly describe the task in that binding: more than one are a conflict.
pub fn workloads<'a>(
    set: &'a ManifestSet,
    binding: &'a str,
    task: &'a Task,
) -> impl Iterator<Item = &'a Arc<str>> {
    workloads_for(set, binding)
        .filter(move |(_, workload)| workload_matches(workload, task) == Match::Yes)
        .map(|(name, _)| name)
}

/// The binding whose policy and guard apply to a registration in `mesh` of `control_plane`, or of no mesh, independent of the
/// task's verdict: one that selects the task, or else one that selects its cluster. Of several the strictest applies: a paused one,
/// then by policy. `None` where no binding covers the registration, which is then never changed.
pub fn owning_binding(
    set: &ManifestSet,
    control_plane: &str,
    mesh: Option<&MeshName>,
    cluster: &ClusterArn,
    task: Option<&Task>,
) -> Option<Arc<Binding>> {
    let policy_rank = |binding: &&Arc<Binding>| match binding.spec.policy {
        _ if binding.spec.paused => 0,
        LifecyclePolicy::CreateOnly => 1,
        LifecyclePolicy::UpsertOnly => 2,
        LifecyclePolicy::Sync => 3,
    };
    let at_control_plane = || {
        set.bindings.values().filter(|b| b.spec.control_plane == control_plane && b.selects_cluster(cluster))
    };
    let in_mesh = || at_control_plane().filter(|b| mesh.is_none_or(|mesh| b.spec.mesh == *mesh));
    let may_select = |b: &&Arc<Binding>| task.is_some_and(|task| binding_matches(b, task) != Match::No);
    in_mesh()
        .filter(may_select)
        .min_by_key(policy_rank)
        .or_else(|| in_mesh().min_by_key(policy_rank))
        // A binding that moved to another mesh still owns its registrations in the old one.
        .or_else(|| at_control_plane().filter(may_select).min_by_key(policy_rank))
        .or_else(|| at_control_plane().min_by_key(policy_rank))
        .cloned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ecs_mesh_model::{InterfaceAddresses, TaskHost};
    use serde_json::{Value, json};

    fn set(bindings: &[(&str, Value)]) -> ManifestSet {
        let mut set = ManifestSet::default();
        for (name, changes) in bindings {
            let cluster = "arn:aws:ecs:eu-west-1:111122223333:cluster/c";
            let mut spec =
                json!({"controlPlane": "kuma", "mesh": "default", "selector": {"clusters": [cluster]}});
            spec.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
            let binding = Binding {
                name: (*name).into(),
                spec: serde_json::from_value(spec).unwrap(),
                control_plane_type: ControlPlaneType::Kuma,
                guard_released_until: None,
            };
            set.bindings.insert((*name).into(), Arc::new(binding));
        }
        set
    }

    fn task(service: &str) -> Task {
        let arn = |kind: &str| format!("arn:aws:ecs:eu-west-1:111122223333:{kind}");
        Task {
            arn: arn("task/c/1").try_into().unwrap(),
            version: 1,
            last_status: ecs_mesh_model::LastStatus::Running,
            desired_status: ecs_mesh_model::DesiredStatus::Running,
            group: ecs_mesh_model::TaskGroup::Service(service.into()),
            definition: arn("task-definition/kv:1").try_into().unwrap(),
            role_override: None,
            addresses: InterfaceAddresses::NONE,
            host: TaskHost::None,
            deployment: None,
            created_at: None,
            tags: None,
            stopped_containers: Box::default(),
        }
    }

    fn selecting(service: &str) -> Value {
        json!({"clusters": ["*:cluster/c"], "services": [service]})
    }

    /// The owning binding of a registration of service `kv` in the mesh `default` of `kuma`.
    fn owner_of(bindings: &[(&str, Value)]) -> Option<String> {
        let (task, mesh) = (task("kv"), MeshName::parse("default").unwrap());
        let found = owning_binding(&set(bindings), "kuma", Some(&mesh), task.arn.cluster(), Some(&task));
        found.map(|binding| binding.name.to_string())
    }

    #[test]
    fn matching_binding_owns_despite_stricter_other() {
        let bindings = [
            ("a", json!({"policy": "create-only", "selector": selecting("web")})),
            ("b", json!({"selector": selecting("kv")})),
        ];
        assert_eq!(owner_of(&bindings).as_deref(), Some("b"));
    }

    #[test]
    fn strictest_binding_owns_when_several_match() {
        let [sync, upsert, create] =
            ["sync", "upsert-only", "create-only"].map(|policy| json!({"policy": policy}));
        let paused = json!({"paused": true});
        for (bindings, expected) in [
            (vec![("a", sync.clone()), ("b", upsert.clone())], "b"),
            (vec![("a", upsert.clone()), ("b", create.clone()), ("c", sync.clone())], "b"),
            (vec![("a", create), ("b", paused)], "b"),
            (vec![("a", sync.clone()), ("b", sync)], "a"),
        ] {
            assert_eq!(owner_of(&bindings).as_deref(), Some(expected), "{bindings:?}");
        }
    }

    #[test]
    fn cluster_binding_owns_when_none_matches_task() {
        let bindings = [
            ("a", json!({"selector": selecting("web")})),
            ("b", json!({"policy": "upsert-only", "selector": selecting("queue")})),
        ];
        assert_eq!(owner_of(&bindings).as_deref(), Some("b"));
    }

    #[test]
    fn possibly_matching_binding_counts_as_match() {
        let tagged = json!({"clusters": ["*:cluster/c"], "tags": {"team": "a"}});
        let bindings = [("a", json!({})), ("b", json!({"policy": "create-only", "selector": tagged}))];
        assert_eq!(owner_of(&bindings).as_deref(), Some("b"));
    }

    #[test]
    fn binding_owns_registrations_in_its_previous_mesh() {
        assert!(owner_of(&[("a", json!({"mesh": "other"}))]).is_some());
    }

    #[test]
    fn matching_moved_binding_owns_old_registration() {
        let bindings = [
            ("a", json!({"mesh": "other", "policy": "create-only", "selector": selecting("web")})),
            ("b", json!({"mesh": "other", "selector": selecting("kv")})),
        ];
        assert_eq!(owner_of(&bindings).as_deref(), Some("b"));
    }

    #[test]
    fn binding_elsewhere_owns_no_registration() {
        for other in
            [json!({"controlPlane": "other"}), json!({"selector": {"clusters": ["*:cluster/other"]}})]
        {
            assert_eq!(owner_of(&[("a", other.clone())]), None, "{other}");
        }
    }

    #[test]
    fn workload_describes_no_task_of_a_binding_with_another_selector() {
        let selector =
            json!({"clusters": ["*:cluster/sandbox*"], "services": ["web-*"], "tags": {"team": "a"}});
        let workload: WorkloadSpec =
            serde_json::from_value(json!({"service": "web", "selector": selector})).unwrap();
        for (selector, expected) in [
            (json!({"clusters": ["arn:aws:ecs:eu-west-1:1:cluster/sandbox"]}), true),
            (json!({"clusters": ["*:cluster/*"], "services": ["*-shop"], "families": ["x"]}), true),
            (json!({"clusters": ["*:cluster/stage"]}), false),
            (json!({"clusters": ["*"], "services": ["db"]}), false),
            (json!({"clusters": ["*"], "tags": {"team": "b"}}), false),
        ] {
            let set = set(&[("a", json!({"selector": selector}))]);
            assert_eq!(may_describe(&workload, &set.bindings["a"]), expected, "{selector}");
        }
    }

    #[test]
    fn unknown_gone_task_is_owned_by_cluster_binding() {
        let bindings = set(&[("a", json!({"selector": selecting("web")}))]);
        let (cluster, mesh) = (task("kv").arn.cluster().clone(), MeshName::parse("default").unwrap());
        assert!(owning_binding(&bindings, "kuma", Some(&mesh), &cluster, None).is_some());
    }
}
