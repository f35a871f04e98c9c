//! What is counted of one control plane: its calls, and the runs of its controller.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::registry::Registry;

use super::labels::{
    ControllerLabels, CONTROL_PLANE_ERRORS, CONTROL_PLANE_OPERATIONS, ControlPlaneCallLabels, ControlPlaneOperationLabels, ReconcileLabels, UNATTRIBUTED_REASONS, UnattributedTokenLabels,
    WorkqueueLabels,
};
use super::{ControlPlaneFamilies, init_series};
use ecs_mesh_control_plane::MeshCallObserver;
use ecs_mesh_controller::controller::RUN_RESULTS;
use ecs_mesh_controller::{ControllerObserver, Priority};

impl ControlPlaneFamilies {
    pub(super) fn register(&self, r: &mut Registry) {
        r.register("controller_runtime_reconcile", "Runs for a task by result", self.reconciles.clone());
        let help = "Time of runs for a task";
        r.register("controller_runtime_reconcile_time_seconds", help, self.reconcile_time.clone());
        let help = "How long a task waits in the queue from when it is due";
        r.register("workqueue_queue_duration_seconds", help, self.queue_time.clone());
        let help = "How long a task taken from the queue is worked on";
        r.register("workqueue_work_duration_seconds", help, self.work_time.clone());
        let help = "Calls to control planes by operation and outcome";
        r.register("ecs_mesh_control_plane_calls", help, self.calls.clone());
        let help = "Time of calls to control planes";
        r.register("ecs_mesh_control_plane_call_duration_seconds", help, self.call_time.clone());
        let help = "Items of a control plane's lists that cannot be read";
        r.register("ecs_mesh_control_plane_skipped_items", help, self.skipped.clone());
        let help = "Login tokens that name no task";
        r.register("ecs_mesh_unplaced_tokens", help, self.unplaced.clone());
    }
}

/// Counts for one control plane.
#[derive(Debug)]
pub struct ControlPlaneMetrics {
    name: Arc<str>,
    families: ControlPlaneFamilies,
}

impl ControlPlaneMetrics {
    pub(super) fn new(name: Arc<str>, families: ControlPlaneFamilies) -> Self {
        let plane = Self { name, families };
        for result in RUN_RESULTS {
            init_series(&plane.families.reconciles, &plane.reconcile(result));
        }
        init_series(&plane.families.reconcile_time, &ControllerLabels { controller: Arc::clone(&plane.name) });
        init_series(&plane.families.queue_time, &plane.queue());
        init_series(&plane.families.work_time, &plane.queue());
        for operation in CONTROL_PLANE_OPERATIONS {
            init_series(&plane.families.call_time, &plane.operation(operation));
            init_series(&plane.families.skipped, &plane.operation(operation));
            for outcome in CONTROL_PLANE_ERRORS.into_iter().chain(["ok"]) {
                init_series(&plane.families.calls, &plane.outcome(operation, outcome));
            }
        }
        for reason in UNATTRIBUTED_REASONS {
            init_series(&plane.families.unplaced, &plane.unattributed_labels(reason));
        }
        plane
    }

    fn unattributed_labels(&self, reason: &'static str) -> UnattributedTokenLabels {
        UnattributedTokenLabels { control_plane: Arc::clone(&self.name), reason }
    }

    fn reconcile(&self, result: &'static str) -> ReconcileLabels {
        ReconcileLabels { controller: Arc::clone(&self.name), result }
    }

    fn queue(&self) -> WorkqueueLabels {
        WorkqueueLabels { name: Arc::clone(&self.name) }
    }

    fn operation(&self, operation: &'static str) -> ControlPlaneOperationLabels {
        ControlPlaneOperationLabels { control_plane: Arc::clone(&self.name), operation }
    }

    fn outcome(&self, operation: &'static str, outcome: &'static str) -> ControlPlaneCallLabels {
        ControlPlaneCallLabels { control_plane: Arc::clone(&self.name), operation, outcome }
    }
}

impl ControllerObserver for ControlPlaneMetrics {
    fn on_start(&self, _cause: Priority, waited: Duration) {
        self.families.queue_time.get_or_create(&self.queue()).observe(waited.as_secs_f64());
    }

    fn on_result(&self, duration: Duration, outcome: &'static str) {
        let seconds = duration.as_secs_f64();
        self.families.reconciles.get_or_create(&self.reconcile(outcome)).inc();
        self.families
            .reconcile_time
            .get_or_create(&ControllerLabels { controller: Arc::clone(&self.name) })
            .observe(seconds);
        self.families.work_time.get_or_create(&self.queue()).observe(seconds);
    }
}

impl MeshCallObserver for ControlPlaneMetrics {
    fn call(&self, operation: &'static str, outcome: &'static str, took: Duration) {
        self.families.calls.get_or_create(&self.outcome(operation, outcome)).inc();
        self.families.call_time.get_or_create(&self.operation(operation)).observe(took.as_secs_f64());
    }

    fn skipped(&self, operation: &'static str) {
        self.families.skipped.get_or_create(&self.operation(operation)).inc();
    }

    fn unplaced(&self, reason: &'static str, count: usize) {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        self.families.unplaced.get_or_create(&self.unattributed_labels(reason)).set(count);
    }
}
