//! The operator's counters and histograms. Every label has a bounded set of values; none is a task, role or address.
//!
//! What counts is counted here, and is there at 0 from the start. What *is* (queues, registrations, guards) is taken from
//! the operator at each scrape ([`collect`]).

mod collect;
mod exposition;
mod labels;
mod order;
mod control_plane;
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

pub use exposition::ExpositionFormat;
pub use control_plane::ControlPlaneMetrics;

use super::state::{OperatorState, StateSource};
use ecs_mesh_aws::consumer::{QueueObserver, QueueState};
use ecs_mesh_controller::health::Health;
use ecs_mesh_core::plan::report::ObjectKind;
use labels::{
    RuleLabels, AwsCallLabels, ChangeLabels, ControllerLabels, MessageLabels, AclChangeLabels, AwsOperationLabels, ControlPlaneCallLabels, ControlPlaneOperationLabels, PlannedChangeLabels,
    ReasonLabels, ReconcileLabels, ResultLabels, UnattributedTokenLabels, WorkqueueLabels,
};

type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;

/// From sent to received, seconds: SQS is quick, and keeps messages for days.
const MESSAGE_AGE_BUCKETS: [f64; 13] = [0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 600.0, 3600.0];
/// From received to written, seconds.
const EVENT_TO_WRITE_BUCKETS: [f64; 12] = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0, 300.0];
/// A sweep, seconds.
const SWEEP_BUCKETS: [f64; 10] = [0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];
/// A wait or a run, seconds; a run is cut off after 120.
const RECONCILE_BUCKETS: [f64; 10] = [0.001, 0.005, 0.025, 0.1, 0.25, 1.0, 5.0, 15.0, 60.0, 120.0];
/// A call, seconds; each ends within 25.
const CALL_BUCKETS: [f64; 9] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 25.0];

fn runs() -> Histogram {
    Histogram::new(RECONCILE_BUCKETS)
}

fn calls() -> Histogram {
    Histogram::new(CALL_BUCKETS)
}

/// Everything that is counted.
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
    removals: Family<ReasonLabels, Counter>,
    violations: Family<RuleLabels, Counter>,
    warnings: Family<ReasonLabels, Counter>,
    ignored: Family<ReasonLabels, Counter>,
    aws_calls: Family<AwsCallLabels, Counter>,
    aws_call_time: Histograms<AwsOperationLabels>,
    sweeps: Family<ResultLabels, Counter>,
    sweep_time: Histogram,
    planned: Family<PlannedChangeLabels, Gauge>,
    planes: ControlPlaneFamilies,
}

/// What is counted by control plane.
#[derive(Clone, Debug)]
struct ControlPlaneFamilies {
    reconciles: Family<ReconcileLabels, Counter>,
    reconcile_time: Histograms<ControllerLabels>,
    queue_time: Histograms<WorkqueueLabels>,
    work_time: Histograms<WorkqueueLabels>,
    calls: Family<ControlPlaneCallLabels, Counter>,
    call_time: Histograms<ControlPlaneOperationLabels>,
    skipped: Family<ControlPlaneOperationLabels, Counter>,
    unplaced: Family<UnattributedTokenLabels, Gauge>,
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
            unplaced: Family::default(),
        }
    }
}

/// What a scrape asks for. The operator comes after its metrics, and goes before them.
#[derive(Default)]
struct ScrapeSource {
    state_source: Mutex<Option<Weak<dyn StateSource>>>,
    health: Health,
    queue: Mutex<QueueState>,
}

impl std::fmt::Debug for ScrapeSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scrape").field("health", &self.health).finish_non_exhaustive()
    }
}

impl ScrapeSource {
    fn state(&self) -> Option<OperatorState> {
        let state_source = self.state_source.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Some(state_source?.upgrade()?.state())
    }

    fn queue_state(&self) -> QueueState {
        *self.queue.lock().unwrap_or_else(PoisonError::into_inner)
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
            planes: ControlPlaneFamilies::default(),
        };
        metrics.register();
        metrics.init_to_zero();
        metrics
    }
}

/// Makes a series, at 0.
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
        let help = "Messages that came for the second time or more";
        r.register("ecs_mesh_redelivered_messages", help, self.redelivered.clone());
        let help = "From SQS's SentTimestamp to received";
        r.register("ecs_mesh_message_age_seconds", help, self.message_age.clone());
        let help = "From receiving an event to the write that it led to";
        r.register("ecs_mesh_event_to_write_seconds", help, self.event_to_write.clone());
        let help = "Times that a task's role began to keep it out of the mesh";
        r.register("ecs_mesh_rejected_tasks", help, self.rejected.clone());
        r.register("ecs_mesh_changes", "Changes written to control planes", self.changes.clone());
        let help = "Changes of objects of Consul's identity set-up";
        r.register("ecs_mesh_identity_changes", help, self.acl_changes.clone());
        r.register("ecs_mesh_removals", "Removed registrations by the evidence", self.removals.clone());
        let help = "Broken rules of role tags, at each look at a task";
        r.register("ecs_mesh_role_violations", help, self.violations.clone());
        let help = "Times that something was held, warned of or left undone";
        r.register("ecs_mesh_held", help, self.warnings.clone());
        r.register("ecs_mesh_ignored", "Tasks looked at and not ours", self.ignored.clone());
        r.register("ecs_mesh_aws_calls", "AWS calls by operation and outcome", self.aws_calls.clone());
        r.register("ecs_mesh_aws_call_duration_seconds", "Time of AWS calls", self.aws_call_time.clone());
        r.register("ecs_mesh_sweeps", "Sweeps of a cluster by result", self.sweeps.clone());
        r.register(
            "ecs_mesh_sweep_duration_seconds",
            "Time of a sweep of everything",
            self.sweep_time.clone(),
        );
        let help = "What a dry run would do, by control plane and change";
        r.register("ecs_mesh_planned_changes", help, self.planned.clone());
        self.planes.register(r);
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
        for kind in ObjectKind::ALL.map(ObjectKind::as_str) {
            for change in labels::ACL_CHANGES {
                for result in labels::ACL_RESULTS {
                    init_series(&self.acl_changes, &AclChangeLabels { kind, change, result });
                }
            }
        }
        for reason in labels::EVIDENCE_VALUES {
            init_series(&self.removals, &ReasonLabels { reason });
        }
        for rule in labels::ROLE_RULES {
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
            for outcome in labels::AWS_ERRORS.iter().chain(&["ok"]) {
                init_series(&self.aws_calls, &AwsCallLabels { operation, outcome });
            }
        }
    }

    /// All values as Prometheus reads them.
    pub fn render(&self) -> String {
        self.render_as(ExpositionFormat::Prometheus)
    }

    /// All values in this format.
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

    /// From now on, this is who is asked for the state.
    pub fn set_state_source(&self, state_source: Weak<dyn StateSource>) {
        *self.scrape.state_source.lock().unwrap_or_else(PoisonError::into_inner) = Some(state_source);
    }

    /// The operator's state; `None` before there is an operator, and after.
    pub fn state(&self) -> Option<OperatorState> {
        self.scrape.state()
    }

    /// What is counted of one control plane, at 0 where it is new.
    pub fn plane(&self, name: &str) -> Arc<ControlPlaneMetrics> {
        Arc::new(ControlPlaneMetrics::new(name.into(), self.planes.clone()))
    }

    /// How many messages of this kind came to this.
    pub fn message_count(&self, kind: &'static str, result: &'static str) -> u64 {
        self.messages.get_or_create(&MessageLabels { kind, result }).get()
    }

    /// What the queue was last found to be.
    pub fn queue_state(&self) -> QueueState {
        self.scrape.queue_state()
    }

    /// An event led to a write, so long after it was received.
    pub fn record_event_to_write(&self, after: Duration) {
        self.event_to_write.observe(after.as_secs_f64());
        if let Some(tap) = self.latency_tap.get() {
            // Whoever listened may have gone.
            let _ = tap.send(after);
        }
    }

    /// Sends every time from event to write to `tap`, too, for those who want exact percentiles. Once.
    pub fn tap_latency(&self, tap: mpsc::UnboundedSender<Duration>) {
        // A second tap is not wanted by anybody.
        let _ = self.latency_tap.set(tap);
    }

    /// A task's role begins to keep it out.
    pub fn record_rejected(&self) {
        self.rejected.inc();
    }

    /// How often a task's role began to keep it out.
    pub fn rejected_tasks(&self) -> u64 {
        self.rejected.get()
    }

    /// A change was written.
    pub fn record_change(&self, change: &'static str) {
        debug_assert!(labels::CHANGE_VALUES.contains(&change), "{change} is not in labels::CHANGES");
        self.changes.get_or_create(&ChangeLabels { change }).inc();
    }

    /// A change of an object of the identity set-up was written, or failed.
    pub fn record_acl_change(&self, kind: ObjectKind, change: &'static str, ok: bool) {
        debug_assert!(labels::ACL_CHANGES.contains(&change), "{change} is not in labels::OBJECT_CHANGES");
        let result = if ok { "ok" } else { "failed" };
        self.acl_changes.get_or_create(&AclChangeLabels { kind: kind.as_str(), change, result }).inc();
    }

    /// How many changes of this kind were written.
    pub fn change_count(&self, change: &'static str) -> u64 {
        self.changes.get_or_create(&ChangeLabels { change }).get()
    }

    /// A dry run would do so many changes of this kind at a control plane.
    pub fn set_planned(&self, control_plane: &str, change: &'static str, count: i64) {
        let labels = PlannedChangeLabels { control_plane: control_plane.into(), change };
        self.planned.get_or_create(&labels).set(count);
    }

    /// A registration was removed.
    pub fn record_removal(&self, reason: &'static str) {
        debug_assert!(labels::EVIDENCE_VALUES.contains(&reason), "{reason} is not in labels::EVIDENCE");
        self.removals.get_or_create(&ReasonLabels { reason }).inc();
    }

    /// A role broke a rule.
    pub fn record_violation(&self, rule: &'static str) {
        debug_assert!(labels::ROLE_RULES.contains(&rule), "{rule} is not in labels::RULES");
        self.violations.get_or_create(&RuleLabels { rule }).inc();
    }

    /// Something was held, warned of or left undone.
    pub fn record_warning(&self, reason: &'static str) {
        debug_assert!(labels::warning_reasons().any(|known| known == reason), "{reason} is not in labels::held");
        self.warnings.get_or_create(&ReasonLabels { reason }).inc();
    }

    /// How often something was held for this reason.
    pub fn warning_count(&self, reason: &'static str) -> u64 {
        self.warnings.get_or_create(&ReasonLabels { reason }).get()
    }

    /// A task that is not ours was looked at.
    pub fn record_ignored(&self, reason: &'static str) {
        debug_assert!(labels::IGNORE_REASONS.contains(&reason), "{reason} is not in labels::IGNORED");
        self.ignored.get_or_create(&ReasonLabels { reason }).inc();
    }

    /// A cluster was swept, or not.
    pub fn record_sweep(&self, result: &'static str) {
        debug_assert!(labels::SWEEP_RESULTS.contains(&result), "{result} is not in labels::SWEEP_RESULTS");
        self.sweeps.get_or_create(&ResultLabels { result }).inc();
    }

    /// A sweep of everything ended.
    pub fn record_sweep_duration(&self, took: Duration) {
        self.sweep_time.observe(took.as_secs_f64());
    }
}

impl QueueObserver for Metrics {
    fn record_message(&self, kind: &'static str, result: &'static str) {
        debug_assert!(
            labels::MESSAGE_RESULTS.iter().any(|(known, results)| *known == kind && results.contains(&result)),
            "{kind}/{result} is not in labels::MESSAGES, and so not at 0 from the start"
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
        *self.scrape.queue.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }
}

impl ecs_mesh_aws::sdk::AwsCallObserver for Metrics {
    fn call(&self, operation: &'static str, outcome: &'static str, took: Duration) {
        self.aws_calls.get_or_create(&AwsCallLabels { operation, outcome }).inc();
        self.aws_call_time.get_or_create(&AwsOperationLabels { operation }).observe(took.as_secs_f64());
    }
}
