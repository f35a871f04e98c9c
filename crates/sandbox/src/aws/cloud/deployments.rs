//! Deployments of services: their tasks by what they count for, their rollout, and the circuit breaker.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value, json};

use super::services::EcsService;
use super::{DefinitionRecord, EcsServiceKey, HealthStatus, TaskKey};
use crate::aws::{Cloud, CloudTask};
use ecs_mesh_model::{DesiredStatus, LastStatus, Timestamp};

/// The tasks of one definition within a service, in disjoint sets. Stopping tasks are in none.
#[derive(Clone, Debug)]
pub(super) struct Deployment {
    /// `ecs-svc/` and digits, the tasks' `startedBy`.
    pub(super) id: String,
    pub(super) definition: Arc<DefinitionRecord>,
    pub(super) created_at: Timestamp,
    pub(super) updated_at: Timestamp,
    /// Tasks before RUNNING.
    pub(super) pending: BTreeSet<TaskKey>,
    /// Running tasks that do not count towards `minimumHealthyPercent` yet.
    pub(super) settling: BTreeSet<TaskKey>,
    /// Running tasks that count.
    pub(super) healthy: BTreeSet<TaskKey>,
    /// Running tasks whose health checks have failed.
    pub(super) unhealthy: BTreeSet<TaskKey>,
    /// Failed tasks; evaluated until a task is healthy.
    pub(super) failed: usize,
    is_proven: bool,
    pub(super) rollout: RolloutState,
}

/// `rolloutState` of a deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RolloutState {
    InProgress,
    Completed,
    Failed,
}

impl RolloutState {
    fn as_str(self) -> &'static str {
        match self {
            Self::InProgress => "IN_PROGRESS",
            Self::Completed => "COMPLETED",
            Self::Failed => "FAILED",
        }
    }
}

impl Deployment {
    /// Tasks whose desired status is RUNNING.
    pub(super) fn live(&self) -> usize {
        self.pending.len() + self.running()
    }

    pub(super) fn running(&self) -> usize {
        self.settling.len() + self.healthy.len() + self.unhealthy.len()
    }

    /// Running tasks, last those that do not count as healthy.
    pub(super) fn running_tasks(&self) -> impl DoubleEndedIterator<Item = &TaskKey> {
        self.healthy.iter().chain(&self.settling).chain(&self.unhealthy)
    }

    pub(super) fn remove(&mut self, task: &TaskKey) {
        for set in [&mut self.pending, &mut self.settling, &mut self.healthy, &mut self.unhealthy] {
            set.remove(task);
        }
    }

    /// Moves a changed task to its set.
    pub(super) fn update(&mut self, task: &CloudTask) {
        self.remove(&task.arn);
        if task.last_status == LastStatus::Stopped && task.started_at.is_none() {
            self.record_failure();
        }
        if task.desired_status == DesiredStatus::Stopped {
            return;
        }
        let set = match task.last_status {
            LastStatus::Running if task.counts_as_healthy => {
                (self.is_proven, self.failed) = (true, 0);
                &mut self.healthy
            }
            LastStatus::Running if task.health() == HealthStatus::Unhealthy => &mut self.unhealthy,
            LastStatus::Running => &mut self.settling,
            _ => &mut self.pending,
        };
        set.insert(task.arn.clone());
    }

    /// Counts a task that did not reach RUNNING, or was stopped since it is unhealthy.
    pub(super) fn record_failure(&mut self) {
        if !self.is_proven {
            self.failed += 1;
        }
    }

    /// The deployment in the responses of the API.
    pub(super) fn to_api_json(&self, service: &EcsService, is_primary: bool) -> Value {
        let reason = match self.rollout {
            RolloutState::InProgress => format!("ECS deployment {} in progress.", self.id),
            RolloutState::Completed => format!("ECS deployment {} completed.", self.id),
            RolloutState::Failed => FAILED.to_owned(),
        };
        json!({
            "id": self.id,
            "status": if is_primary { "PRIMARY" } else { "ACTIVE" },
            "taskDefinition": self.definition.arn,
            "desiredCount": if is_primary { service.desired_count } else { self.live() },
            "pendingCount": self.pending.len(),
            "runningCount": self.running(),
            "failedTasks": self.failed,
            "createdAt": self.created_at.as_secs_f64(),
            "updatedAt": self.updated_at.as_secs_f64(),
            "launchType": service.launch_type,
            "rolloutState": self.rollout.as_str(),
            "rolloutStateReason": reason,
        })
    }
}

/// `reason` of a failed deployment.
const FAILED: &str = "ECS deployment circuit breaker: tasks failed to start.";

impl Cloud {
    pub(super) fn new_deployment(&mut self, definition: Arc<DefinitionRecord>, now: Timestamp) -> Deployment {
        let number = self.rng.u64(1_000_000_000_000_000_000..9_999_999_999_999_999_999);
        Deployment {
            id: format!("ecs-svc/{number}"),
            definition,
            created_at: now,
            updated_at: now,
            pending: BTreeSet::new(),
            settling: BTreeSet::new(),
            healthy: BTreeSet::new(),
            unhealthy: BTreeSet::new(),
            failed: 0,
            is_proven: false,
            rollout: RolloutState::InProgress,
        }
    }

    /// Announces the primary deployment; `why` is the reason, if there is a special one.
    pub(super) fn emit_new_deployment(&mut self, key: &EcsServiceKey, why: Option<String>, now: Timestamp) {
        let Some(service) = self.services.get(key) else { return };
        let (arn, id) = (service.arn.clone(), service.deployments[0].id.clone());
        let reason = why.unwrap_or_else(|| format!("ECS deployment {id} in progress."));
        self.emit_deployment(&arn, &id, "SERVICE_DEPLOYMENT_IN_PROGRESS", &reason, now);
    }

    /// Drops replaced deployments, and completes or fails the primary.
    pub(super) fn finish_deployments(&mut self, key: &EcsServiceKey, now: Timestamp) {
        let Some(service) = self.services.get_mut(key) else { return };
        let mut index = 0;
        service.deployments.retain(|deployment| {
            index += 1;
            index == 1 || deployment.live() > 0
        });
        let (desired, threshold) = (service.desired_count, service.failure_threshold());
        let is_alone = service.deployments.len() == 1;
        let primary = &mut service.deployments[0];
        if primary.rollout != RolloutState::InProgress {
            return;
        }
        let id = primary.id.clone();
        if threshold.is_some_and(|threshold| primary.failed >= threshold) {
            primary.rollout = RolloutState::Failed;
            primary.updated_at = now;
            let arn = service.arn.clone();
            self.emit_deployment(&arn, &id, "SERVICE_DEPLOYMENT_FAILED", FAILED, now);
            self.roll_back(key, now);
        } else if is_alone && primary.healthy.len() == desired && primary.live() == desired {
            primary.rollout = RolloutState::Completed;
            primary.updated_at = now;
            service.last_completed = Some((id.clone(), primary.definition.clone()));
            let (arn, reason) = (service.arn.clone(), format!("ECS deployment {id} completed."));
            self.emit_deployment(&arn, &id, "SERVICE_DEPLOYMENT_COMPLETED", &reason, now);
            self.emit_service_action(key, &arn, "SERVICE_STEADY_STATE", now);
        }
    }

    /// Deploys the definition of the last completed deployment again, if the circuit breaker is set to.
    fn roll_back(&mut self, key: &EcsServiceKey, now: Timestamp) {
        let Some(service) = self.services.get(key).filter(|service| service.rolls_back()) else { return };
        let Some((id, definition)) = service.last_completed.clone() else { return };
        if definition.arn == service.deployments[0].definition.arn {
            // The definition that failed is the one to roll back to.
            return;
        }
        let deployment = self.new_deployment(definition, now);
        if let Some(service) = self.services.get_mut(key) {
            service.deployments.insert(0, deployment);
        }
        let reason = format!("ECS deployment circuit breaker: rolling back to deploymentId {id}.");
        self.emit_new_deployment(key, Some(reason), now);
        self.schedule_check(key, now);
    }
}
