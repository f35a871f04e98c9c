//! Handles decoded events: a task change goes into the store, and the task into the queue of each control plane that may
//! hold a registration of it. An event decides nothing; a reconcile does.

use std::sync::Arc;

use tokio::time::Instant;

use super::context::Context;
use ecs_mesh_aws::consumer::{EventHandler, EventResult};
use ecs_mesh_aws::events::RoleEvent;
use ecs_mesh_aws::store::ObservationSource;
use ecs_mesh_controller::Priority;
use ecs_mesh_model::Task;

/// The operator's handler of events.
pub(super) struct TaskEventHandler {
    pub(super) context: Arc<Context>,
}

impl EventHandler for TaskEventHandler {
    fn on_task_change(&self, task: Task, received: Instant) -> EventResult {
        let context = &self.context;
        if !context.manifests.select(task.arn.cluster()) {
            return EventResult::UnboundCluster;
        }
        let arn = task.arn.clone();
        let priority = if task.is_leaving() { Priority::Removal } else { Priority::Event };
        let observed = context.aws.store.observe(task, ObservationSource::Event, context.now());
        if !observed.changed {
            return EventResult::Stale;
        }
        let manifests = context.manifests.load();
        for worker in context.workers.load().values().filter(|worker| worker.may_hold(&manifests, &arn)) {
            worker.record_event(&arn, received);
            if observed.first_stop {
                worker.record_stop(&arn);
            }
            worker.queue.add(arn.clone(), priority);
        }
        EventResult::Accepted
    }

    fn on_role_change(&self, account: &str, role_name: &str, _event: RoleEvent) -> EventResult {
        let roles = self.context.aws.roles.roles_by_name(account, role_name);
        roles.iter().for_each(|role| self.context.schedule_role_recheck(role));
        if roles.is_empty() { EventResult::UnknownRole } else { EventResult::Accepted }
    }
}
