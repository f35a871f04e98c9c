//! The service scheduler: keeps the desired count, rolls out new definitions within the deployment's limits, replaces
//! stopped and unhealthy tasks, and leaves protected tasks running. The cost of a change does not depend on the size of
//! the service.
//!
//! Sources: <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_DeploymentConfiguration.html> and
//! <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-scale-in-protection.html>.

use std::collections::BTreeSet;

use super::deployments::{Deployment, RolloutState};
use super::services::{EcsService, ServiceStatus};
use super::tasks::NewTask;
use super::{EcsServiceKey, StopCode, TaskKey, TaskOverrides, Timer};
use crate::aws::{Cloud, CloudTask};
use ecs_mesh_model::{DesiredStatus, LastStatus, Tags, Timestamp};

/// Tasks to start and stop now.
#[derive(Debug, Default, PartialEq, Eq)]
struct ScalingStep {
    start: usize,
    stop: Vec<TaskKey>,
    /// Unhealthy tasks among those to stop.
    failed: usize,
}

impl Cloud {
    /// Schedules a check of the service.
    pub(super) fn schedule_check(&mut self, key: &EcsServiceKey, now: Timestamp) {
        let Some(service) = self.services.get_mut(key) else { return };
        if !std::mem::replace(&mut service.check_scheduled, true) {
            self.at(now.plus(self.config.life.scheduling), Timer::Service(key.clone()));
        }
    }

    /// Updates the service's sets with a changed task.
    pub(super) fn update_service_tasks(&mut self, task: &CloudTask, now: Timestamp) {
        let Some(key) = service_key(task) else { return };
        let Some(service) = self.services.get_mut(&key) else { return };
        let deployment = service.deployments.iter_mut().find(|d| task.started_by.as_deref() == Some(&d.id));
        if let Some(deployment) = deployment {
            deployment.update(task);
        }
        set(&mut service.protected, &task.arn, task.protected_until.is_some());
        let leaving =
            task.desired_status == DesiredStatus::Stopped && task.last_status != LastStatus::Stopped;
        set(&mut service.leaving, &task.arn, leaving);
        self.schedule_check(&key, now);
    }

    /// Removes a forgotten task from the service's sets.
    pub(super) fn remove_service_task(&mut self, task: &CloudTask, now: Timestamp) {
        let Some(key) = service_key(task) else { return };
        let Some(service) = self.services.get_mut(&key) else { return };
        service.leaving.remove(&task.arn);
        service.protected.remove(&task.arn);
        for deployment in &mut service.deployments {
            deployment.remove(&task.arn);
        }
        self.schedule_check(&key, now);
    }

    pub(super) fn schedule_service(&mut self, key: &EcsServiceKey, now: Timestamp) {
        let Some(service) = self.services.get_mut(key) else { return };
        service.check_scheduled = false;
        match service.status {
            ServiceStatus::Active => {}
            ServiceStatus::Draining => return self.finish_deletion(key),
            ServiceStatus::Inactive => return,
        }
        let step = next_scaling_step(service);
        for _ in 0..step.failed {
            service.deployments[0].record_failure();
        }
        if service.is_daemon {
            let free = self.free_instances(key);
            free.into_iter()
                .take(step.start)
                .for_each(|instance| self.start_service_task(key, instance, now));
        } else {
            (0..step.start).for_each(|_| self.start_service_task(key, 1, now));
        }
        for task in &step.stop {
            let reason = format!("service {} scaled in or replaced the task", key.1);
            self.begin_stop(task, StopCode::ServiceSchedulerInitiated, &reason, now);
        }
        self.finish_deployments(key, now);
    }

    /// Ends a deletion once each task is STOPPING.
    fn finish_deletion(&mut self, key: &EcsServiceKey) {
        let Some(service) = self.services.get(key) else { return };
        let is_stopping = |task: &TaskKey| {
            self.known_task(task).is_none_or(|task| task.last_status >= LastStatus::Stopping)
        };
        if service.leaving.iter().all(is_stopping)
            && let Some(service) = self.services.get_mut(key)
        {
            service.status = ServiceStatus::Inactive;
        }
    }

    /// The container instances without a task of this service, which a stopping task still is.
    fn free_instances(&self, key: &EcsServiceKey) -> Vec<usize> {
        let Some(service) = self.services.get(key) else { return Vec::new() };
        let live = service.deployments.iter().flat_map(|d| d.pending.iter().chain(d.running_tasks()));
        let used: BTreeSet<usize> = live
            .chain(&service.leaving)
            .filter_map(|task| Some(self.known_task(task)?.container_instance))
            .collect();
        (1..=service.desired_count).filter(|instance| !used.contains(instance)).collect()
    }

    fn start_service_task(&mut self, key: &EcsServiceKey, container_instance: usize, now: Timestamp) {
        let Some(service) = self.services.get(key) else { return };
        let deployment = &service.deployments[0];
        let task = NewTask {
            cluster: service.cluster.clone(),
            definition: deployment.definition.clone(),
            group: format!("service:{}", service.name),
            started_by: Some(deployment.id.clone()),
            launch_type: service.launch_type.clone(),
            overrides: TaskOverrides::default(),
            network_configuration: service.network_configuration.clone(),
            tags: task_tags(service, deployment),
            container_instance,
        };
        self.create_task(task, now);
    }
}

fn service_key(task: &CloudTask) -> Option<EcsServiceKey> {
    Some((task.cluster.clone(), task.service()?.to_owned()))
}

fn set(set: &mut BTreeSet<TaskKey>, key: &TaskKey, present: bool) {
    if present {
        set.insert(key.clone());
    } else {
        set.remove(key);
    }
}

/// | tasks | started or stopped |
/// |---|---|
/// | of the primary deployment, fewer than desired | started, as the maximum allows |
/// | of the primary deployment, more than desired | stopped, those first that do not count as healthy |
/// | of the primary deployment, unhealthy | stopped when their replacements are healthy; without room for these, one by one |
/// | of old deployments, pending or not counted as healthy | stopped |
/// | of old deployments, healthy | stopped, as the minimum allows |
///
/// Protected tasks are stopped only if they are unhealthy, but count. A failed deployment starts no tasks, and keeps those
/// of old deployments.
fn next_scaling_step(service: &EcsService) -> ScalingStep {
    let desired = service.desired_count;
    let most = (desired * service.percent("maximumPercent")) / 100;
    let least = (desired * service.percent("minimumHealthyPercent")).div_ceil(100).min(desired);
    let (primary, old) = (&service.deployments[0], &service.deployments[1..]);
    let has_failed = primary.rollout == RolloutState::Failed;
    let live: usize = service.deployments.iter().map(Deployment::live).sum();
    let may_stop = |task: &&TaskKey| !service.protected.contains(*task);

    let unhealthy = primary.unhealthy.len();
    let missing = if has_failed { 0 } else { desired.saturating_sub(primary.live() - unhealthy) };
    let mut step = ScalingStep { start: missing.min(most.saturating_sub(live)), ..ScalingStep::default() };

    let surplus = (primary.live() - unhealthy).saturating_sub(desired);
    let order =
        primary.pending.iter().rev().chain(primary.settling.iter().rev()).chain(primary.healthy.iter().rev());
    step.stop.extend(order.filter(may_stop).take(surplus).cloned());
    let is_blocked = missing > 0 && step.start == 0;
    let replaced = (primary.healthy.len() + unhealthy).saturating_sub(desired).max(usize::from(is_blocked));
    let unhealthy = primary.unhealthy.iter().take(replaced);
    step.failed = unhealthy.len();
    step.stop.extend(unhealthy.cloned());
    if has_failed {
        return step;
    }

    let stopped_healthy = step.stop.iter().filter(|task| primary.healthy.contains(*task)).count();
    let mut spare = (service.healthy_count() - stopped_healthy).saturating_sub(least);
    for deployment in old {
        let uncounted = deployment.pending.iter().chain(&deployment.settling).chain(&deployment.unhealthy);
        step.stop.extend(uncounted.filter(may_stop).cloned());
        let before = step.stop.len();
        step.stop.extend(deployment.healthy.iter().filter(may_stop).take(spare).cloned());
        spare -= step.stop.len() - before;
    }
    step
}

fn task_tags(service: &EcsService, deployment: &Deployment) -> Tags {
    let mut tags = match service.propagate_tags.as_deref() {
        Some("SERVICE") => service.tags.clone(),
        Some("TASK_DEFINITION") => deployment.definition.tags.clone(),
        _ => Tags::new(),
    };
    if service.managed_tags {
        tags.insert("aws:ecs:clusterName".into(), service.cluster.clone());
        tags.insert("aws:ecs:serviceName".into(), service.name.clone());
    }
    tags
}

#[cfg(test)]
mod tests {
    use super::super::testing::cloud;
    use super::*;
    use crate::aws::UpdateService;

    #[test]
    fn service_keeps_its_desired_count_when_tasks_stop() {
        let mut world = cloud();
        world.service("kv", 3);
        world.run_for_secs(5);
        let task = world.running("kv")[0].clone();
        world.cloud.kill_hard(&task, world.now);
        world.run_for_secs(5);
        let running = world.running("kv");
        assert_eq!(running.len(), 3);
        assert!(!running.contains(&task));
        assert!(world.is_stable("kv"));
    }

    #[test]
    fn rolling_deployment_keeps_desired_count_running() {
        let mut world = cloud();
        world.service("kv", 4);
        world.run_for_secs(5);
        world.definition("kv");
        world.deploy(2);
        for _ in 0..100 {
            world.run_for_millis(50);
            let service = world.ecs_service("kv");
            assert!(service.running_count() >= 4, "at {}", world.now);
            assert!(service.running_count() + service.pending_count() <= 8);
        }
        for task in world.running("kv") {
            assert_eq!(world.cloud.task(&task).unwrap().definition.revision, 2);
        }
        assert!(world.is_stable("kv"));
    }

    #[test]
    fn scale_in_stops_surplus_tasks() {
        let mut world = cloud();
        world.service("kv", 4);
        world.run_for_secs(5);
        world.update(UpdateService { desired_count: Some(1), ..UpdateService::default() });
        world.run_for_secs(5);
        assert_eq!(world.running("kv").len(), 1);
        let stopped: Vec<_> =
            world.cloud.all_tasks().filter(|task| task.last_status == LastStatus::Stopped).collect();
        assert!(stopped.iter().all(|task| task.stop_code == Some(StopCode::ServiceSchedulerInitiated)));
        assert_eq!(stopped.len(), 3);
    }
}
