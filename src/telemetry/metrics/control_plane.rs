//! Metrics of one control plane: its calls, and the runs of its controller.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::labels::{
    CONTROL_PLANE_ERRORS, CONTROL_PLANE_OPERATIONS, ControlPlaneCallLabels, ControlPlaneOperationLabels,
    ControllerLabels, ReconcileLabels, SUCCESS, UNATTRIBUTED_REASONS, UnattributedTokenLabels,
    WorkqueueLabels,
};
use super::{Histograms, calls, init_series};
use ecs_mesh_control_plane::MeshCallObserver;
use ecs_mesh_controller::controller::RUN_RESULTS;
use ecs_mesh_controller::{ControllerObserver, Priority};

/// Seconds of a wait or a reconcile, which is cancelled after 120.
const RECONCILE_BUCKETS: [f64; 10] = [0.001, 0.005, 0.025, 0.1, 0.25, 1.0, 5.0, 15.0, 60.0, 120.0];

fn runs() -> Histogram {
    Histogram::new(RECONCILE_BUCKETS)
}

/// The families with one series or more for each control plane.
#[derive(Clone, Debug)]
pub(super) struct ControlPlaneFamilies {
    reconciles: Family<ReconcileLabels, Counter>,
    reconcile_time: Histograms<ControllerLabels>,
    queue_time: Histograms<WorkqueueLabels>,
    work_time: Histograms<WorkqueueLabels>,
    calls: Family<ControlPlaneCallLabels, Counter>,
    call_time: Histograms<ControlPlaneOperationLabels>,
    skipped: Family<ControlPlaneOperationLabels, Counter>,
    unattributed_tokens: Family<UnattributedTokenLabels, Gauge>,
}

impl ControlPlaneFamilies {
    /// Creates the families and registers them.
    pub(super) fn register(r: &mut Registry) -> Self {
        let families = Self {
            reconciles: Family::default(),
            reconcile_time: Family::new_with_constructor(runs),
            queue_time: Family::new_with_constructor(runs),
            work_time: Family::new_with_constructor(runs),
            calls: Family::default(),
            call_time: Family::new_with_constructor(calls),
            skipped: Family::default(),
            unattributed_tokens: Family::default(),
        };
        r.register(
            "controller_runtime_reconcile",
            "Reconciles of a task by result",
            families.reconciles.clone(),
        );
        let help = "Duration of reconciles";
        r.register("controller_runtime_reconcile_time_seconds", help, families.reconcile_time.clone());
        let help = "Time that a due task waits in the queue";
        r.register("workqueue_queue_duration_seconds", help, families.queue_time.clone());
        let help = "Duration of a reconcile, as seen by the queue";
        r.register("workqueue_work_duration_seconds", help, families.work_time.clone());
        let help = "Calls to control planes by operation and result";
        r.register("ecs_mesh_control_plane_calls", help, families.calls.clone());
        let help = "Duration of calls to control planes";
        r.register("ecs_mesh_control_plane_call_duration_seconds", help, families.call_time.clone());
        let help = "Unreadable items of lists";
        r.register("ecs_mesh_control_plane_skipped_items", help, families.skipped.clone());
        let help = "Login tokens that name no task";
        r.register("ecs_mesh_unattributed_tokens", help, families.unattributed_tokens.clone());
        families
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
