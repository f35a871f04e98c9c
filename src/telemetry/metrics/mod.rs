//! The operator's metrics. Every label has a bounded set of values; none is a task, role or address.
//!
//! Counters and histograms are kept here and start at 0. Gauges (queues, registrations, guards) are read from the operator
//! at each scrape (`collect`).

mod collect;
mod control_plane;
mod exposition;
mod labels;
mod order;
mod process;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use tokio::sync::mpsc;

pub use control_plane::ControlPlaneMetrics;
pub use exposition::ExpositionFormat;

use super::state::{OperatorState, StateSource};
use ecs_mesh_aws::consumer::{QueueObserver, QueueState};
use ecs_mesh_controller::health::Health;
use ecs_mesh_core::intent::RoleRule;
use ecs_mesh_core::plan::report::ObjectKind;
use labels::{
    AclChangeLabels, AwsCallLabels, AwsOperationLabels, ChangeLabels, ControlPlaneCallLabels,
    ControlPlaneOperationLabels, ControllerLabels, EvidenceLabels, MessageLabels, PlannedChangeLabels,
    ReasonLabels, ReconcileLabels, ResultLabels, RuleLabels, SUCCESS, UnattributedTokenLabels,
    WorkqueueLabels,
};

type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;

/// Seconds from sent to received. SQS usually delivers within a second, and keeps messages for days.
const MESSAGE_AGE_BUCKETS: [f64; 13] =
    [0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 600.0, 3600.0];
/// Seconds from received to written.
const EVENT_TO_WRITE_BUCKETS: [f64; 12] =
    [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0, 300.0];
/// Seconds of a sweep.
const SWEEP_BUCKETS: [f64; 10] = [0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];
/// Seconds of a wait or a reconcile, which is cancelled after 120.
const RECONCILE_BUCKETS: [f64; 10] = [0.001, 0.005, 0.025, 0.1, 0.25, 1.0, 5.0, 15.0, 60.0, 120.0];
/// Seconds of a call, which ends within 25.
const CALL_BUCKETS: [f64; 9] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 25.0];

fn runs() -> Histogram {
    Histogram::new(RECONCILE_BUCKETS)
}

fn calls() -> Histogram {
    Histogram::new(CALL_BUCKETS)
}

/// All metrics of one process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    scrape: Arc<ScrapeSource>,
    messages: Family<MessageLabels, Counter>,
    redelivered: Counter,
    message_age: Histogram,
    event_to_write: Histogram,
    latency_tap: OnceLock<mpsc::UnboundedSender<Duration>>,
    rejected: Counter,
    changes: Family<ChangeLabels, Counter>,
    acl_changes: Family<AclChangeLabels, Counter>,
    removals: Family<EvidenceLabels, Counter>,
    violations: Family<RuleLabels, Counter>,
    warnings: Family<ReasonLabels, Counter>,
    ignored: Family<ReasonLabels, Counter>,
    aws_calls: Family<AwsCallLabels, Counter>,
    aws_call_time: Histograms<AwsOperationLabels>,
    sweeps: Family<ResultLabels, Counter>,
    sweep_time: Histogram,
    planned: Family<PlannedChangeLabels, Gauge>,
    control_planes: ControlPlaneFamilies,
}

/// The families with one series or more for each control plane.
#[derive(Clone, Debug)]
struct ControlPlaneFamilies {
    reconciles: Family<ReconcileLabels, Counter>,
    reconcile_time: Histograms<ControllerLabels>,
    queue_time: Histograms<WorkqueueLabels>,
    work_time: Histograms<WorkqueueLabels>,
    calls: Family<ControlPlaneCallLabels, Counter>,
    call_time: Histograms<ControlPlaneOperationLabels>,
    skipped: Family<ControlPlaneOperationLabels, Counter>,
    unattributed_tokens: Family<UnattributedTokenLabels, Gauge>,
}

impl Default for ControlPlaneFamilies {
    fn default() -> Self {
        Self {
            reconciles: Family::default(),
            reconcile_time: Family::new_with_constructor(runs),
            queue_time: Family::new_with_constructor(runs),
            work_time: Family::new_with_constructor(runs),
            calls: Family::default(),
            call_time: Family::new_with_constructor(calls),
            skipped: Family::default(),
            unattributed_tokens: Family::default(),
        }
    }
}

/// The sources of a scrape. The operator is created after its metrics and dropped before them, so the reference is weak.
#[derive(Default)]
struct ScrapeSource {
    state_source: Mutex<Option<Weak<dyn StateSource>>>,
    health: Health,
    event_queue: Mutex<QueueState>,
}

impl std::fmt::Debug for ScrapeSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ScrapeSource").field("health", &self.health).finish_non_exhaustive()
    }
}

impl ScrapeSource {
    fn state(&self) -> Option<OperatorState> {
        let state_source = self.state_source.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Some(state_source?.upgrade()?.state())
    }

    fn queue_state(&self) -> QueueState {
        *self.event_queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::default(),
            scrape: Arc::default(),
            messages: Family::default(),
            redelivered: Counter::default(),
            message_age: Histogram::new(MESSAGE_AGE_BUCKETS),
            event_to_write: Histogram::new(EVENT_TO_WRITE_BUCKETS),
            latency_tap: OnceLock::new(),
            rejected: Counter::default(),
            changes: Family::default(),
            acl_changes: Family::default(),
            removals: Family::default(),
            violations: Family::default(),
            warnings: Family::default(),
            ignored: Family::default(),
            aws_calls: Family::default(),
            aws_call_time: Family::new_with_constructor(calls),
            sweeps: Family::default(),
            sweep_time: Histogram::new(SWEEP_BUCKETS),
            planned: Family::default(),
            control_planes: ControlPlaneFamilies::default(),
        };
        metrics.register();
        metrics.init_to_zero();
        metrics
    }
}

/// Creates a series with the value 0.
fn init_series<L, M, C>(family: &Family<L, M, C>, labels: &L)
where
    L: Clone + std::hash::Hash + Eq,
    C: MetricConstructor<M>,
{
    drop(family.get_or_create(labels));
}

impl Metrics {
    fn register(&mut self) {
        let r = &mut self.registry;
        r.register("ecs_mesh_messages", "Queue messages by kind and result", self.messages.clone());
        let help = "Messages received a second time or more";
        r.register("ecs_mesh_redelivered_messages", help, self.redelivered.clone());
        let help = "Time from SQS's SentTimestamp to receipt";
        r.register("ecs_mesh_message_age_seconds", help, self.message_age.clone());
        let help = "Time from receipt of an event to the write that it caused";
        r.register("ecs_mesh_event_to_write_seconds", help, self.event_to_write.clone());
        let help = "Times that a task became rejected because of its role";
        r.register("ecs_mesh_rejected_tasks", help, self.rejected.clone());
        r.register("ecs_mesh_changes", "Changes written to control planes", self.changes.clone());
        let help = "Changes of ACL objects";
        r.register("ecs_mesh_acl_changes", help, self.acl_changes.clone());
        r.register("ecs_mesh_removals", "Removed registrations by evidence", self.removals.clone());
        let help = "Violations of rules for role tags, at each evaluation";
        r.register("ecs_mesh_role_violations", help, self.violations.clone());
        let help = "Warnings by reason";
        r.register("ecs_mesh_warnings", help, self.warnings.clone());
        r.register(
            "ecs_mesh_ignored_tasks",
            "Evaluated tasks that are not in this mesh",
            self.ignored.clone(),
        );
        r.register("ecs_mesh_aws_calls", "AWS calls by operation and result", self.aws_calls.clone());
        r.register("ecs_mesh_aws_call_duration_seconds", "Duration of AWS calls", self.aws_call_time.clone());
        r.register("ecs_mesh_sweeps", "Sweeps of a cluster by result", self.sweeps.clone());
        let help = "Duration of a sweep of all clusters";
        r.register("ecs_mesh_sweep_duration_seconds", help, self.sweep_time.clone());
        let help = "Changes that a dry run would write";
        r.register("ecs_mesh_planned_changes", help, self.planned.clone());
        self.control_planes.register(r);
        r.register_collector(Box::new(collect::StateCollector(Arc::clone(&self.scrape))));
        r.register_collector(Box::new(process::ProcessCollector));
    }

    fn init_to_zero(&self) {
        for (kind, results) in labels::MESSAGE_RESULTS {
            for result in results {
                init_series(&self.messages, &MessageLabels { kind, result });
            }
        }
        for change in labels::CHANGE_VALUES {
            init_series(&self.changes, &ChangeLabels { change });
        }
        for kind in ObjectKind::ALL.map(ObjectKind::label) {
            for change in labels::ACL_CHANGES {
                for result in labels::ACL_RESULTS {
                    init_series(&self.acl_changes, &AclChangeLabels { kind, change, result });
                }
            }
        }
        for evidence in labels::EVIDENCE_VALUES {
            init_series(&self.removals, &EvidenceLabels { evidence });
        }
        for rule in RoleRule::ALL.map(RoleRule::label) {
            init_series(&self.violations, &RuleLabels { rule });
        }
        for reason in labels::warning_reasons() {
            init_series(&self.warnings, &ReasonLabels { reason });
        }
        for reason in labels::IGNORE_REASONS {
            init_series(&self.ignored, &ReasonLabels { reason });
        }
        for result in labels::SWEEP_RESULTS {
            init_series(&self.sweeps, &ResultLabels { result });
        }
        for operation in labels::AWS_OPERATIONS {
            init_series(&self.aws_call_time, &AwsOperationLabels { operation });
            for result in labels::AWS_ERRORS.iter().chain(&[SUCCESS]) {
                init_series(&self.aws_calls, &AwsCallLabels { operation, result });
            }
        }
    }

    /// All metrics in the Prometheus text format.
    pub fn render(&self) -> String {
        self.render_as(ExpositionFormat::Prometheus)
    }

    /// All metrics in this format.
    pub fn render_as(&self, format: ExpositionFormat) -> String {
        let mut text = String::with_capacity(64 * 1024);
        // Writing to a String cannot fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.registry);
        let text = order::sorted(&text);
        match format {
            ExpositionFormat::OpenMetrics => text,
            ExpositionFormat::Prometheus => exposition::prometheus(&text),
        }
    }

    /// Whether the loops make progress.
    pub fn health(&self) -> &Health {
        &self.scrape.health
    }

    /// Sets the operator whose state each scrape and probe reads.
    pub fn set_state_source(&self, state_source: Weak<dyn StateSource>) {
        *self.scrape.state_source.lock().unwrap_or_else(PoisonError::into_inner) = Some(state_source);
    }

    /// The operator's state; `None` before the operator is created and after it is dropped.
    pub fn state(&self) -> Option<OperatorState> {
        self.scrape.state()
    }

    /// The metrics of one control plane, at 0 where it is new.
    pub fn control_plane(&self, name: &str) -> Arc<ControlPlaneMetrics> {
        Arc::new(ControlPlaneMetrics::new(name.into(), self.control_planes.clone()))
    }

    /// Messages of this kind with this result.
    pub fn message_count(&self, kind: &'static str, result: &'static str) -> u64 {
        self.messages.get_or_create(&MessageLabels { kind, result }).get()
    }

    /// The state of the event queue at the last receive.
    pub fn queue_state(&self) -> QueueState {
        self.scrape.queue_state()
    }

    /// Records the time from receipt of an event to the write that it caused.
    pub fn record_event_to_write(&self, after: Duration) {
        self.event_to_write.observe(after.as_secs_f64());
        if let Some(tap) = self.latency_tap.get() {
            // The receiver may be dropped.
            let _ = tap.send(after);
        }
    }

    /// Also sends each time from event to write to `tap`, for exact percentiles. Only the first tap is used.
    pub fn tap_latency(&self, tap: mpsc::UnboundedSender<Duration>) {
        // An error means that a tap is set already.
        let _ = self.latency_tap.set(tap);
    }

    /// Records that a task became rejected because of its role.
    pub fn record_rejected(&self) {
        self.rejected.inc();
    }

    /// Times that a task became rejected because of its role.
    pub fn rejected_tasks(&self) -> u64 {
        self.rejected.get()
    }

    /// Records a written change.
    pub fn record_change(&self, change: &'static str) {
        debug_assert!(labels::CHANGE_VALUES.contains(&change), "{change} is not in labels::CHANGE_VALUES");
        self.changes.get_or_create(&ChangeLabels { change }).inc();
    }

    /// Records a change of an ACL object that was written, or failed.
    pub fn record_acl_change(&self, kind: ObjectKind, change: &'static str, ok: bool) {
        debug_assert!(labels::ACL_CHANGES.contains(&change), "{change} is not in labels::ACL_CHANGES");
        let result = if ok { SUCCESS } else { "error" };
        self.acl_changes.get_or_create(&AclChangeLabels { kind: kind.label(), change, result }).inc();
    }

    /// Written changes of this kind.
    pub fn change_count(&self, change: &'static str) -> u64 {
        self.changes.get_or_create(&ChangeLabels { change }).get()
    }

    /// Sets the number of changes of this kind that a dry run would write to a control plane.
    pub fn set_planned(&self, control_plane: &str, change: &'static str, count: i64) {
        let labels = PlannedChangeLabels { control_plane: control_plane.into(), change };
        self.planned.get_or_create(&labels).set(count);
    }

    /// Records the removal of a registration.
    pub fn record_removal(&self, evidence: &'static str) {
        debug_assert!(
            labels::EVIDENCE_VALUES.contains(&evidence),
            "{evidence} is not in labels::EVIDENCE_VALUES"
        );
        self.removals.get_or_create(&EvidenceLabels { evidence }).inc();
    }

    /// Records a violation of a rule for role tags.
    pub fn record_violation(&self, rule: &'static str) {
        debug_assert!(
            RoleRule::ALL.iter().any(|known| known.label() == rule),
            "{rule} is not in RoleRule::ALL"
        );
        self.violations.get_or_create(&RuleLabels { rule }).inc();
    }

    /// Records a warning.
    pub fn record_warning(&self, reason: &'static str) {
        debug_assert!(
            labels::warning_reasons().any(|known| known == reason),
            "{reason} is not in labels::warning_reasons"
        );
        self.warnings.get_or_create(&ReasonLabels { reason }).inc();
    }

    /// Warnings with this reason.
    pub fn warning_count(&self, reason: &'static str) -> u64 {
        self.warnings.get_or_create(&ReasonLabels { reason }).get()
    }

    /// Records the evaluation of a task that is not in this mesh.
    pub fn record_ignored(&self, reason: &'static str) {
        debug_assert!(labels::IGNORE_REASONS.contains(&reason), "{reason} is not in labels::IGNORE_REASONS");
        self.ignored.get_or_create(&ReasonLabels { reason }).inc();
    }

    /// Records the sweep of a cluster.
    pub fn record_sweep(&self, result: &'static str) {
        debug_assert!(labels::SWEEP_RESULTS.contains(&result), "{result} is not in labels::SWEEP_RESULTS");
        self.sweeps.get_or_create(&ResultLabels { result }).inc();
    }

    /// Records the duration of a sweep of all clusters.
    pub fn record_sweep_duration(&self, duration: Duration) {
        self.sweep_time.observe(duration.as_secs_f64());
    }
}

impl QueueObserver for Metrics {
    fn record_message(&self, kind: &'static str, result: &'static str) {
        debug_assert!(
            labels::MESSAGE_RESULTS
                .iter()
                .any(|(known, results)| *known == kind && results.contains(&result)),
            "{kind}/{result} is not in labels::MESSAGE_RESULTS"
        );
        self.messages.get_or_create(&MessageLabels { kind, result }).inc();
    }

    fn record_received(&self, age: Option<Duration>, receives: u32) {
        if let Some(age) = age {
            self.message_age.observe(age.as_secs_f64());
        }
        if receives > 1 {
            self.redelivered.inc();
        }
    }

    fn set_queue_state(&self, state: QueueState) {
        *self.scrape.event_queue.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }
}

impl ecs_mesh_aws::sdk::AwsCallObserver for Metrics {
    fn call(&self, operation: &'static str, result: &'static str, duration: Duration) {
        self.aws_calls.get_or_create(&AwsCallLabels { operation, result }).inc();
        self.aws_call_time.get_or_create(&AwsOperationLabels { operation }).observe(duration.as_secs_f64());
    }
}
