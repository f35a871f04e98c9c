//! The tasks that a plan is about.

use std::sync::Arc;

use ecs_mesh_api::WorkloadSpec;
use ecs_mesh_api::manifests::ManifestSet;
use ecs_mesh_model::{Glob, Task, TaskArn};

/// Narrows a plan. Each list applies unless it is empty.
#[derive(Clone, Debug, Default)]
pub struct PlanSelection {
    /// Patterns over names and ARNs of clusters.
    pub clusters: Vec<Glob>,
    /// Patterns over ECS services, and over services in the mesh.
    pub services: Vec<Glob>,
    /// Patterns over ids and ARNs of tasks.
    pub tasks: Vec<Glob>,
}

impl PlanSelection {
    /// Whether the plan is about all tasks, and the control planes' objects.
    pub fn is_all(&self) -> bool {
        self.clusters.is_empty() && self.services.is_empty() && self.tasks.is_empty()
    }

    /// Whether the plan is about this task, with what is known of it and the services that it is registered as.
    pub(super) fn matches(
        &self,
        arn: &TaskArn,
        task: Option<&Task>,
        registered: &[Arc<str>],
        manifests: &ManifestSet,
    ) -> bool {
        let any = |globs: &[Glob], text: &str| globs.iter().any(|glob| glob.matches(text));
        let cluster = arn.cluster();
        let of_cluster = self.clusters.is_empty()
            || any(&self.clusters, cluster.name())
            || any(&self.clusters, cluster.as_str());
        let is_task = self.tasks.is_empty()
            || any(&self.tasks, arn.id().as_str())
            || any(&self.tasks, &arn.to_string());
        let declared = |task: &Task| {
            let workloads = manifests.workloads.values();
            workloads
                .filter(|workload| any(&self.services, workload.service.as_str()))
                .any(|workload| may_describe(workload, task))
        };
        let of_service = self.services.is_empty()
            || registered.iter().any(|service| any(&self.services, service))
            || task.is_some_and(|task| {
                task.group.service().is_some_and(|service| any(&self.services, service)) || declared(task)
            });
        of_cluster && is_task && of_service
    }
}

/// Whether the workload's selector fits, as far as tags do not decide.
pub(super) fn may_describe(workload: &WorkloadSpec, task: &Task) -> bool {
    let selector = &workload.selector;
    let any = |globs: &[Glob], text: Option<&str>| {
        globs.is_empty() || text.is_some_and(|text| globs.iter().any(|glob| glob.matches(text)))
    };
    any(&selector.clusters, Some(task.arn.cluster().as_str()))
        && any(&selector.services, task.group.service())
        && any(&selector.families, Some(task.definition.family()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selection(clusters: &[&str], services: &[&str], tasks: &[&str]) -> PlanSelection {
        let globs = |texts: &[&str]| texts.iter().map(|text| Glob::new(*text)).collect();
        PlanSelection { clusters: globs(clusters), services: globs(services), tasks: globs(tasks) }
    }

    #[test]
    fn every_given_list_must_match() {
        let arn = TaskArn::parse("arn:aws:ecs:eu-west-1:111122223333:task/demo/3f2a9c0d").unwrap();
        let registered: [Arc<str>; 1] = [Arc::from("kv")];
        for (selection, matches) in [
            (selection(&[], &[], &[]), true),
            (selection(&["demo"], &[], &[]), true),
            (selection(&["arn:aws:ecs:*:cluster/demo"], &["kv"], &["3f2a*"]), true),
            (selection(&["demo"], &["k?"], &["arn:aws:ecs:eu-west-1:111122223333:task/demo/3f2a9c0d"]), true),
            (selection(&["prod"], &["kv"], &[]), false),
            (selection(&["demo"], &["redis"], &[]), false),
            (selection(&["demo"], &["kv"], &["4*"]), false),
        ] {
            let found = selection.matches(&arn, None, &registered, &ManifestSet::default());
            assert_eq!(found, matches, "{selection:?}");
        }
    }
}
