//! Which binding and which workload take a task.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::api::{BindingSelector, ControlPlaneType, LifecyclePolicy, WorkloadSelector, WorkloadSpec};
use crate::manifests::{Binding, ManifestSet};
use crate::model::{ClusterArn, Glob, MeshName, Tags, Task};

/// An answer that may hang on tags that are not known yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Match {
    Yes,
    No,
    NeedsTags,
}

/// Everything that a selector may look at.
struct Conditions<'a> {
    clusters: &'a [Glob],
    services: &'a [Glob],
    families: &'a [Glob],
    tags: &'a Tags,
}

impl Conditions<'_> {
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

pub(super) fn binding_takes(binding: &Binding, task: &Task) -> Match {
    let BindingSelector { clusters, services, families, tags } = &binding.spec.selector;
    Conditions { clusters, services, families, tags }.on(task)
}

pub(super) fn workload_takes(workload: &WorkloadSpec, task: &Task) -> Match {
    let WorkloadSelector { clusters, services, families, tags } = &workload.selector;
    Conditions { clusters, services, families, tags }.on(task)
}

/// What was chosen among several candidates.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Choice<T> {
    None,
    One(Arc<str>, Arc<T>),
    Several(Vec<Arc<str>>),
    NeedsTags,
}

fn choose<'a, T: 'a>(
    candidates: impl Iterator<Item = (&'a Arc<str>, &'a Arc<T>)>,
    takes: impl Fn(&T) -> Match,
) -> Choice<T> {
    let mut taken: Vec<(&Arc<str>, &Arc<T>)> = Vec::new();
    for (name, candidate) in candidates {
        match takes(candidate) {
            Match::Yes => taken.push((name, candidate)),
            Match::No => {}
            Match::NeedsTags => return Choice::NeedsTags,
        }
    }
    match taken.as_slice() {
        [] => Choice::None,
        [(name, one)] => Choice::One(Arc::clone(name), Arc::clone(one)),
        several => Choice::Several(several.iter().map(|(name, _)| Arc::clone(name)).collect()),
    }
}

/// The binding of this control-plane type that takes the task. Several are a conflict, wherever they point.
pub(super) fn binding(set: &ManifestSet, kind: ControlPlaneType, task: &Task) -> Choice<Binding> {
    choose(set.bindings.iter().filter(|(_, b)| b.control_plane_type == kind), |b| binding_takes(b, task))
}

/// The workload that describes the task in that binding.
pub(super) fn workload(set: &ManifestSet, binding: &str, task: &Task) -> Choice<WorkloadSpec> {
    let workloads: &BTreeMap<_, _> = &set.workloads;
    choose(
        workloads.iter().filter(|(_, w)| w.bindings.is_empty() || w.bindings.iter().any(|b| b == binding)),
        |w| workload_takes(w, task),
    )
}

/// The binding whose policy and guard apply to a registration in `mesh` of `control_plane`, whatever the task's
/// verdict is: one that takes the task, or else one that looks at its cluster. Of several the most careful counts: one
/// that is paused, then by policy. `None`: nobody has given us a mandate for this registration any more.
pub fn caretaker(
    set: &ManifestSet,
    control_plane: &str,
    mesh: &MeshName,
    cluster: &ClusterArn,
    task: Option<&Task>,
) -> Option<Arc<Binding>> {
    let boldness = |binding: &&Arc<Binding>| match binding.spec.policy {
        _ if binding.spec.paused => 0,
        LifecyclePolicy::CreateOnly => 1,
        LifecyclePolicy::UpsertOnly => 2,
        LifecyclePolicy::Sync => 3,
    };
    let here = || {
        set.bindings.values().filter(|b| {
            b.spec.control_plane == control_plane && b.spec.mesh == *mesh && b.selects_cluster(cluster)
        })
    };
    let takes = |b: &&Arc<Binding>| task.is_some_and(|task| binding_takes(b, task) != Match::No);
    here().filter(takes).min_by_key(boldness).or_else(|| here().min_by_key(boldness)).cloned()
}
