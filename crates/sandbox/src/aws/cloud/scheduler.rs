//! The service scheduler: keeps the desired count, rolls out new definitions within the deployment's limits, and
//! replaces stopped tasks. The cost of a change does not depend on the size of the service.

use super::services::{Deployment, EcsService};
use super::tasks::NewTask;
use super::{EcsServiceKey, StopCode, TaskKey, TaskOverrides, Timer};
use crate::aws::{Cloud, CloudTask};
use ecs_mesh_model::{DesiredStatus, LastStatus, Tags, Timestamp};

/// Tasks to start and stop now.
#[derive(Debug, Default, PartialEq, Eq)]
struct ScalingStep {
    start: usize,
    stop: Vec<TaskKey>,
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
            let live = task.desired_status == DesiredStatus::Running;
            set(&mut deployment.running, &task.arn, live && task.last_status == LastStatus::Running);
            set(&mut deployment.pending, &task.arn, live && task.last_status != LastStatus::Running);
            if task.last_status == LastStatus::Stopped && task.started_at.is_none() {
                deployment.failed += 1;
            }
        }
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
        for deployment in &mut service.deployments {
            deployment.pending.remove(&task.arn);
            deployment.running.remove(&task.arn);
        }
        self.schedule_check(&key, now);
    }

    pub(super) fn schedule_service(&mut self, key: &EcsServiceKey, now: Timestamp) {
        let Some(service) = self.services.get_mut(key) else { return };
        service.check_scheduled = false;
        let step = next_scaling_step(service);
        for _ in 0..step.start {
            self.start_service_task(key, now);
        }
        for task in &step.stop {
            let reason = format!("service {} scaled in or replaced the task", key.1);
            self.begin_stop(task, StopCode::ServiceSchedulerInitiated, &reason, now);
        }
        self.finish_deployments(key, now);
    }

    fn start_service_task(&mut self, key: &EcsServiceKey, now: Timestamp) {
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
        };
        self.create_task(task, now);
    }

    /// Completes deployments.
    fn finish_deployments(&mut self, key: &EcsServiceKey, now: Timestamp) {
        let Some(service) = self.services.get_mut(key) else { return };
        let desired = service.desired_count;
        service.deployments = std::mem::take(&mut service.deployments)
            .into_iter()
            .enumerate()
            .filter(|(index, deployment)| *index == 0 || deployment.live() > 0)
            .map(|(_, deployment)| deployment)
            .collect();
        let mut completed = None;
        let alone = service.deployments.len() == 1;
        let primary = &mut service.deployments[0];
        if alone && !primary.completed && primary.running.len() == desired && primary.pending.is_empty() {
            primary.completed = true;
            primary.updated_at = now;
            let id = primary.id.clone();
            completed = Some((service.arn.clone(), id));
        }
        if let Some((service, deployment)) = completed {
            self.emit_deployment(&service, &deployment, "SERVICE_DEPLOYMENT_COMPLETED", now);
            self.emit_service_action(key, &service, "SERVICE_STEADY_STATE", now);
        }
    }
}

fn service_key(task: &CloudTask) -> Option<EcsServiceKey> {
    Some((task.cluster.clone(), task.service()?.to_owned()))
}

fn set(set: &mut std::collections::BTreeSet<TaskKey>, key: &TaskKey, present: bool) {
    if present {
        set.insert(key.clone());
    } else {
        set.remove(key);
    }
}

/// Starts as many tasks as the maximum allows. Of old deployments, stops pending tasks, then running tasks as long as
/// the minimum is kept.
fn next_scaling_step(service: &EcsService) -> ScalingStep {
    let desired = service.desired_count;
    let most = (desired * service.percent("maximumPercent")) / 100;
    let least = (desired * service.percent("minimumHealthyPercent")).div_ceil(100).min(desired);
    let (primary, old) = (&service.deployments[0], &service.deployments[1..]);
    let live: usize = service.deployments.iter().map(Deployment::live).sum();
    let mut step = ScalingStep {
        start: desired.saturating_sub(primary.live()).min(most.saturating_sub(live)),
        stop: Vec::new(),
    };

    let surplus = primary.live().saturating_sub(desired);
    step.stop.extend(primary.pending.iter().rev().chain(primary.running.iter().rev()).take(surplus).cloned());

    let stopped_running = step.stop.iter().filter(|task| primary.running.contains(*task)).count();
    let mut spare = (service.running_count() - stopped_running).saturating_sub(least);
    for deployment in old {
        step.stop.extend(deployment.pending.iter().cloned());
        let stopping = spare.min(deployment.running.len());
        step.stop.extend(deployment.running.iter().take(stopping).cloned());
        spare -= stopping;
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
    use super::super::testing::{CloudFixture, cloud};
    use super::*;
    use crate::aws::UpdateService;

    fn update(world: &mut CloudFixture, change: UpdateService) {
        let request = UpdateService { cluster: "prod".into(), service: "kv".into(), ..change };
        world.cloud.update_service(&request, world.now).unwrap();
    }

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
        update(
            &mut world,
            UpdateService { task_definition: Some("kv:2".into()), ..UpdateService::default() },
        );
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
        update(&mut world, UpdateService { desired_count: Some(1), ..UpdateService::default() });
        world.run_for_secs(5);
        assert_eq!(world.running("kv").len(), 1);
        let stopped: Vec<_> =
            world.cloud.all_tasks().filter(|task| task.last_status == LastStatus::Stopped).collect();
        assert!(stopped.iter().all(|task| task.stop_code == Some(StopCode::ServiceSchedulerInitiated)));
        assert_eq!(stopped.len(), 3);
    }
}
