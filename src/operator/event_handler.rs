//! Handles decoded events: an event of a task starts a describe, and what the describe shows puts the task into the queue of
//! each control plane that may hold a registration of it. An event decides nothing.

use std::sync::{Arc, Weak};

use tokio::time::Instant;
use tracing::info;

use super::context::Context;
use super::control_plane_worker::ControlPlaneWorker;
use ecs_mesh_aws::consumer::{EventHandler, EventResult};
use ecs_mesh_aws::events::{DeploymentHint, RoleEvent, TaskHint};
use ecs_mesh_aws::hint_resolver::HintSink;
use ecs_mesh_controller::Priority;
use ecs_mesh_model::TaskArn;

/// The operator's handler of events.
pub(super) struct TaskEventHandler {
    pub(super) context: Arc<Context>,
}

impl EventHandler for TaskEventHandler {
    fn is_active(&self) -> bool {
        self.context.process.lease.holds()
    }

    fn on_task_change(&self, hint: &TaskHint, received: Instant) -> EventResult {
        if !self.context.manifests.select(hint.task.cluster()) {
            return EventResult::UnboundCluster;
        }
        self.context.aws.hints.add(hint, received)
    }

    fn on_deployment_change(&self, hint: &DeploymentHint) -> EventResult {
        if self.context.deployments.record_event(hint) { EventResult::Accepted } else { EventResult::NotHeld }
    }

    fn on_role_change(&self, account: &str, role_name: &str, _event: RoleEvent) -> EventResult {
        let roles = self.context.aws.roles.roles_by_name(account, role_name);
        roles.iter().for_each(|role| self.context.schedule_role_recheck(role));
        if roles.is_empty() { EventResult::UnknownRole } else { EventResult::Accepted }
    }
}

/// Puts tasks whose events a describe has answered into the queues. The context holds the resolver, so this holds the context
/// weakly.
pub(super) struct HintedTasks {
    pub(super) context: Weak<Context>,
}

impl HintSink for HintedTasks {
    fn is_registered(&self, task: &TaskArn) -> bool {
        let Some(context) = self.context.upgrade() else { return false };
        context.workers.load().values().any(|worker| worker.registry.contains(task))
    }

    fn holds_drain(&self, task: &TaskArn) -> bool {
        let Some(context) = self.context.upgrade() else { return false };
        let workers = context.workers.load();
        let holds = |worker: &ControlPlaneWorker| {
            let mut entries = worker.registry.entries(task).into_iter();
            entries.any(|entry| worker.drains.is_held(&entry.id))
        };
        workers.values().any(|worker| holds(worker))
    }

    fn on_overflow(&self) {
        let Some(context) = self.context.upgrade() else { return };
        info!("events of unknown tasks were dropped; sweeping for their tasks");
        context.sweeps.request();
    }

    fn on_resolved(&self, task: &TaskArn, received: Option<Instant>) {
        let Some(context) = self.context.upgrade() else { return };
        let manifests = context.manifests.load();
        let stopped = context.aws.store.is_over(task);
        let leaving = stopped || context.aws.store.is_leaving(task);
        let priority = if leaving { Priority::Removal } else { Priority::Event };
        for worker in context.workers.load().values().filter(|worker| worker.may_hold(&manifests, task)) {
            received.into_iter().for_each(|at| worker.record_event(task, at));
            // A describe that shows STOPPED records it by itself; that ECS no longer finds the task is known here.
            if stopped && !context.aws.store.is_leaving(task) {
                worker.record_stop(task);
            }
            worker.queue.add(task.clone(), priority);
        }
    }
}
