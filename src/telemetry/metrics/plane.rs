//! What is counted of one control plane: its calls, and the runs of its controller.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::registry::Registry;

use super::labels::{
    Controller, PLANE_FAILURES, PLANE_OPERATIONS, PlaneCall, PlaneOperation, Reconcile, UNPLACED, Unplaced,
    Workqueue,
};
use super::{PlaneFamilies, begin};
use ecs_mesh_control_plane::MeshCallObserver;
use ecs_mesh_controller::controller::OUTCOMES;
use ecs_mesh_controller::{Observer, Priority};

impl PlaneFamilies {
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
pub struct PlaneMetrics {
    name: Arc<str>,
    to: PlaneFamilies,
}

impl PlaneMetrics {
    pub(super) fn new(name: Arc<str>, to: PlaneFamilies) -> Self {
        let plane = Self { name, to };
        for result in OUTCOMES {
            begin(&plane.to.reconciles, &plane.reconcile(result));
        }
        begin(&plane.to.reconcile_time, &Controller { controller: Arc::clone(&plane.name) });
        begin(&plane.to.queue_time, &plane.queue());
        begin(&plane.to.work_time, &plane.queue());
        for operation in PLANE_OPERATIONS {
            begin(&plane.to.call_time, &plane.operation(operation));
            begin(&plane.to.skipped, &plane.operation(operation));
            for outcome in PLANE_FAILURES.into_iter().chain(["ok"]) {
                begin(&plane.to.calls, &plane.outcome(operation, outcome));
            }
        }
        for reason in UNPLACED {
            begin(&plane.to.unplaced, &plane.unplaced_for(reason));
        }
        plane
    }

    fn unplaced_for(&self, reason: &'static str) -> Unplaced {
        Unplaced { control_plane: Arc::clone(&self.name), reason }
    }

    fn reconcile(&self, result: &'static str) -> Reconcile {
        Reconcile { controller: Arc::clone(&self.name), result }
    }

    fn queue(&self) -> Workqueue {
        Workqueue { name: Arc::clone(&self.name) }
    }

    fn operation(&self, operation: &'static str) -> PlaneOperation {
        PlaneOperation { control_plane: Arc::clone(&self.name), operation }
    }

    fn outcome(&self, operation: &'static str, outcome: &'static str) -> PlaneCall {
        PlaneCall { control_plane: Arc::clone(&self.name), operation, outcome }
    }
}

impl Observer for PlaneMetrics {
    fn on_start(&self, _cause: Priority, waited: Duration) {
        self.to.queue_time.get_or_create(&self.queue()).observe(waited.as_secs_f64());
    }

    fn on_result(&self, duration: Duration, outcome: &'static str) {
        let seconds = duration.as_secs_f64();
        self.to.reconciles.get_or_create(&self.reconcile(outcome)).inc();
        self.to
            .reconcile_time
            .get_or_create(&Controller { controller: Arc::clone(&self.name) })
            .observe(seconds);
        self.to.work_time.get_or_create(&self.queue()).observe(seconds);
    }
}

impl MeshCallObserver for PlaneMetrics {
    fn call(&self, operation: &'static str, outcome: &'static str, took: Duration) {
        self.to.calls.get_or_create(&self.outcome(operation, outcome)).inc();
        self.to.call_time.get_or_create(&self.operation(operation)).observe(took.as_secs_f64());
    }

    fn skipped(&self, operation: &'static str) {
        self.to.skipped.get_or_create(&self.operation(operation)).inc();
    }

    fn unplaced(&self, reason: &'static str, count: usize) {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        self.to.unplaced.get_or_create(&self.unplaced_for(reason)).set(count);
    }
}
