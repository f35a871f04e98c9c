//! Metrics of one control plane: its calls, and the runs of its controller.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::registry::Registry;

use super::labels::{
    CONTROL_PLANE_ERRORS, CONTROL_PLANE_OPERATIONS, ControlPlaneCallLabels, ControlPlaneOperationLabels,
    ControllerLabels, ReconcileLabels, SUCCESS, UNATTRIBUTED_REASONS, UnattributedTokenLabels,
    WorkqueueLabels,
};
use super::{ControlPlaneFamilies, init_series};
use ecs_mesh_control_plane::MeshCallObserver;
use ecs_mesh_controller::controller::RUN_RESULTS;
use ecs_mesh_controller::{ControllerObserver, Priority};

impl ControlPlaneFamilies {
    pub(super) fn register(&self, r: &mut Registry) {
        r.register("controller_runtime_reconcile", "Reconciles of a task by result", self.reconciles.clone());
        let help = "Duration of reconciles";
        r.register("controller_runtime_reconcile_time_seconds", help, self.reconcile_time.clone());
        let help = "Time that a due task waits in the queue";
        r.register("workqueue_queue_duration_seconds", help, self.queue_time.clone());
        let help = "Duration of a reconcile, as seen by the queue";
        r.register("workqueue_work_duration_seconds", help, self.work_time.clone());
        let help = "Calls to control planes by operation and result";
        r.register("ecs_mesh_control_plane_calls", help, self.calls.clone());
        let help = "Duration of calls to control planes";
        r.register("ecs_mesh_control_plane_call_duration_seconds", help, self.call_time.clone());
        let help = "Unreadable items of lists";
        r.register("ecs_mesh_control_plane_skipped_items", help, self.skipped.clone());
        let help = "Login tokens that name no task";
        r.register("ecs_mesh_unattributed_tokens", help, self.unattributed_tokens.clone());
    }
}

/// The metrics of one control plane.
#[derive(Debug)]
pub struct ControlPlaneMetrics {
    name: Arc<str>,
    families: ControlPlaneFamilies,
}

impl ControlPlaneMetrics {
    pub(super) fn new(name: Arc<str>, families: ControlPlaneFamilies) -> Self {
        let metrics = Self { name, families };
        for result in RUN_RESULTS {
            init_series(&metrics.families.reconciles, &metrics.reconcile_labels(result));
        }
        init_series(&metrics.families.reconcile_time, &metrics.controller_labels());
        init_series(&metrics.families.queue_time, &metrics.workqueue_labels());
        init_series(&metrics.families.work_time, &metrics.workqueue_labels());
        for operation in CONTROL_PLANE_OPERATIONS {
            init_series(&metrics.families.call_time, &metrics.operation_labels(operation));
            init_series(&metrics.families.skipped, &metrics.operation_labels(operation));
            for result in CONTROL_PLANE_ERRORS.into_iter().chain([SUCCESS]) {
                init_series(&metrics.families.calls, &metrics.call_labels(operation, result));
            }
        }
        for reason in UNATTRIBUTED_REASONS {
            init_series(&metrics.families.unattributed_tokens, &metrics.token_labels(reason));
        }
        metrics
    }

    fn token_labels(&self, reason: &'static str) -> UnattributedTokenLabels {
        UnattributedTokenLabels { control_plane: Arc::clone(&self.name), reason }
    }

    fn reconcile_labels(&self, result: &'static str) -> ReconcileLabels {
        ReconcileLabels { controller: Arc::clone(&self.name), result }
    }

    fn controller_labels(&self) -> ControllerLabels {
        ControllerLabels { controller: Arc::clone(&self.name) }
    }

    fn workqueue_labels(&self) -> WorkqueueLabels {
        WorkqueueLabels { name: Arc::clone(&self.name) }
    }

    fn operation_labels(&self, operation: &'static str) -> ControlPlaneOperationLabels {
        ControlPlaneOperationLabels { control_plane: Arc::clone(&self.name), operation }
    }

    fn call_labels(&self, operation: &'static str, result: &'static str) -> ControlPlaneCallLabels {
        ControlPlaneCallLabels { control_plane: Arc::clone(&self.name), operation, result }
    }
}

impl ControllerObserver for ControlPlaneMetrics {
    fn on_start(&self, _cause: Priority, waited: Duration) {
        self.families.queue_time.get_or_create(&self.workqueue_labels()).observe(waited.as_secs_f64());
    }

    fn on_result(&self, duration: Duration, result: &'static str) {
        let seconds = duration.as_secs_f64();
        self.families.reconciles.get_or_create(&self.reconcile_labels(result)).inc();
        self.families.reconcile_time.get_or_create(&self.controller_labels()).observe(seconds);
        self.families.work_time.get_or_create(&self.workqueue_labels()).observe(seconds);
    }
}

impl MeshCallObserver for ControlPlaneMetrics {
    fn call(&self, operation: &'static str, result: &'static str, duration: Duration) {
        self.families.calls.get_or_create(&self.call_labels(operation, result)).inc();
        self.families
            .call_time
            .get_or_create(&self.operation_labels(operation))
            .observe(duration.as_secs_f64());
    }

    fn skipped(&self, operation: &'static str) {
        self.families.skipped.get_or_create(&self.operation_labels(operation)).inc();
    }

    fn unattributed_tokens(&self, reason: &'static str, count: usize) {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        self.families.unattributed_tokens.get_or_create(&self.token_labels(reason)).set(count);
    }
}
