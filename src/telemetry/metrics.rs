//! The operator's counters and histograms. Every label has a bounded set of values; none is a task, role or address.

use std::sync::OnceLock;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use tokio::sync::mpsc;

macro_rules! labels {
    ($(#[$doc:meta])* $name:ident { $($field:ident),* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
        struct $name { $($field: &'static str),* }
    };
}
labels!(
    /// One label.
    Reason { reason }
);
labels!(
    /// A queue's messages.
    MessageLabels { kind, result }
);
labels!(
    /// A call.
    CallLabels { operation, outcome }
);
labels!(
    /// A reconcile.
    ResultLabels { result }
);
labels!(
    /// A written change.
    ChangeLabels { change }
);
labels!(
    /// A broken rule.
    RuleLabels { rule }
);

/// A planned change at a control plane.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PlannedLabels {
    control_plane: String,
    change: &'static str,
}

/// Everything that is counted.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    messages: Family<MessageLabels, Counter>,
    /// SQS's `SentTimestamp` to received, seconds.
    pub message_age: Histogram,
    event_to_write: Histogram,
    latency_tap: OnceLock<mpsc::UnboundedSender<Duration>>,
    rejected: Counter,
    reconciles: Family<ResultLabels, Counter>,
    reconcile_time: Histogram,
    changes: Family<ChangeLabels, Counter>,
    removals: Family<Reason, Counter>,
    violations: Family<RuleLabels, Counter>,
    held: Family<Reason, Counter>,
    ignored: Family<Reason, Counter>,
    aws_calls: Family<CallLabels, Counter>,
    mesh_calls: Family<CallLabels, Counter>,
    sweeps: Family<ResultLabels, Counter>,
    sweep_time: Histogram,
    planned: Family<PlannedLabels, Gauge>,
    /// The generation of the manifests in force.
    pub manifests_generation: Gauge<u64, AtomicU64>,
    /// Errors in the manifests' sources.
    pub manifest_errors: Gauge<u64, AtomicU64>,
    /// Removals that guards hold back.
    pub guard_held: Gauge<u64, AtomicU64>,
    /// Services that outbounds go to and the mesh does not know.
    pub unknown_targets: Gauge<u64, AtomicU64>,
    /// Registrations that carry our mark and name a cluster that no binding knows.
    pub unplaced: Gauge<u64, AtomicU64>,
}

impl Default for Metrics {
    fn default() -> Self {
        let seconds = || Histogram::new(exponential_buckets(0.001, 2.0, 18));
        let mut metrics = Self {
            registry: Registry::default(),
            messages: Family::default(),
            message_age: seconds(),
            event_to_write: seconds(),
            latency_tap: OnceLock::new(),
            rejected: Counter::default(),
            reconciles: Family::default(),
            reconcile_time: seconds(),
            changes: Family::default(),
            removals: Family::default(),
            violations: Family::default(),
            held: Family::default(),
            ignored: Family::default(),
            aws_calls: Family::default(),
            mesh_calls: Family::default(),
            sweeps: Family::default(),
            sweep_time: seconds(),
            planned: Family::default(),
            manifests_generation: Gauge::default(),
            manifest_errors: Gauge::default(),
            guard_held: Gauge::default(),
            unknown_targets: Gauge::default(),
            unplaced: Gauge::default(),
        };
        metrics.register();
        metrics
    }
}

impl Metrics {
    fn register(&mut self) {
        let r = &mut self.registry;
        r.register("ecs_mesh_messages", "Queue messages by kind and result", self.messages.clone());
        r.register("ecs_mesh_message_age_seconds", "Age of messages when received", self.message_age.clone());
        let help = "Time from receiving an event to the write that it led to";
        r.register("ecs_mesh_event_to_write_seconds", help, self.event_to_write.clone());
        let help = "Times that a task's role began to keep it out of the mesh";
        r.register("ecs_mesh_rejected_tasks", help, self.rejected.clone());
        let help = "Reconciles by result";
        r.register("controller_runtime_reconcile", help, self.reconciles.clone());
        let help = "Time a reconcile takes";
        r.register("controller_runtime_reconcile_time_seconds", help, self.reconcile_time.clone());
        r.register("ecs_mesh_changes", "Changes written to control planes", self.changes.clone());
        r.register("ecs_mesh_removals", "Removed registrations by reason", self.removals.clone());
        r.register("ecs_mesh_role_violations", "Role tag violations by rule", self.violations.clone());
        r.register("ecs_mesh_held", "Times that something was held, by reason", self.held.clone());
        r.register("ecs_mesh_ignored", "Tasks looked at and not ours, by reason", self.ignored.clone());
        r.register("ecs_mesh_aws_calls", "AWS calls by operation and outcome", self.aws_calls.clone());
        let help = "Control plane calls by operation and outcome";
        r.register("ecs_mesh_control_plane_calls", help, self.mesh_calls.clone());
        r.register("ecs_mesh_sweeps", "Sweeps of a cluster by result", self.sweeps.clone());
        r.register("ecs_mesh_sweep_seconds", "Time a sweep of everything takes", self.sweep_time.clone());
        let help = "What a dry run would do, by control plane and change";
        r.register("ecs_mesh_planned_changes", help, self.planned.clone());
        let help = "Generation of the manifests in force";
        r.register("ecs_mesh_manifests_generation", help, self.manifests_generation.clone());
        r.register("ecs_mesh_manifest_errors", "Errors in manifest sources", self.manifest_errors.clone());
        r.register("ecs_mesh_guard_held", "Removals held back by guards", self.guard_held.clone());
        let help = "Services that outbounds go to and the mesh does not know";
        r.register("ecs_mesh_unknown_targets", help, self.unknown_targets.clone());
        let help = "Owned registrations of clusters that no binding names";
        r.register("ecs_mesh_unplaced", help, self.unplaced.clone());
    }

    /// All values in the Prometheus text format.
    pub fn render(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.registry);
        text
    }

    /// A message was taken in.
    pub fn message(&self, kind: &'static str, result: &'static str) {
        self.messages.get_or_create(&MessageLabels { kind, result }).inc();
    }

    /// How many messages of this kind came to this.
    pub fn messages_of(&self, kind: &'static str, result: &'static str) -> u64 {
        self.messages.get_or_create(&MessageLabels { kind, result }).get()
    }

    /// An event led to a write, so long after it was received.
    pub fn answered(&self, after: Duration) {
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
    pub fn rejected(&self) {
        self.rejected.inc();
    }

    /// How often a task's role began to keep it out.
    pub fn rejected_tasks(&self) -> u64 {
        self.rejected.get()
    }

    /// A change was written.
    pub fn wrote(&self, change: &'static str) {
        self.changes.get_or_create(&ChangeLabels { change }).inc();
    }

    /// How many changes of this kind were written.
    pub fn written(&self, change: &'static str) -> u64 {
        self.changes.get_or_create(&ChangeLabels { change }).get()
    }

    /// A registration was removed.
    pub fn removed(&self, reason: &'static str) {
        self.removals.get_or_create(&Reason { reason }).inc();
    }

    /// A role broke a rule.
    pub fn violation(&self, rule: &'static str) {
        self.violations.get_or_create(&RuleLabels { rule }).inc();
    }

    /// Something was held, warned of or left undone.
    pub fn held(&self, reason: &'static str) {
        self.held.get_or_create(&Reason { reason }).inc();
    }

    /// How often something was held for this reason.
    pub fn held_for(&self, reason: &'static str) -> u64 {
        self.held.get_or_create(&Reason { reason }).get()
    }

    /// A task that is not ours was looked at.
    pub fn ignored(&self, reason: &'static str) {
        self.ignored.get_or_create(&Reason { reason }).inc();
    }

    /// An AWS call ended.
    pub fn aws_call(&self, operation: &'static str, outcome: &'static str) {
        self.aws_calls.get_or_create(&CallLabels { operation, outcome }).inc();
    }

    /// A control plane call ended.
    pub fn mesh_call(&self, operation: &'static str, outcome: &'static str) {
        self.mesh_calls.get_or_create(&CallLabels { operation, outcome }).inc();
    }

    /// A dry run would do so many changes of a kind at a control plane.
    pub fn planned(&self, control_plane: &str, change: &'static str, count: i64) {
        let labels = PlannedLabels { control_plane: control_plane.to_owned(), change };
        self.planned.get_or_create(&labels).set(count);
    }

    /// A cluster was swept, or not.
    pub fn swept(&self, result: &'static str) {
        self.sweeps.get_or_create(&ResultLabels { result }).inc();
    }

    /// A sweep of everything ended.
    pub fn sweep_took(&self, took: Duration) {
        self.sweep_time.observe(took.as_secs_f64());
    }
}

impl crate::runtime::Observer for Metrics {
    fn on_result(&self, duration: Duration, outcome: &'static str) {
        self.reconciles.get_or_create(&ResultLabels { result: outcome }).inc();
        self.reconcile_time.observe(duration.as_secs_f64());
    }
}

impl crate::observe::sdk::AwsCallObserver for Metrics {
    fn call(&self, operation: &'static str, outcome: &'static str, _took: Duration) {
        self.aws_call(operation, outcome);
    }
}

impl crate::mesh::kuma::MeshCallObserver for Metrics {
    fn call(&self, operation: &'static str, outcome: &'static str, _took: Duration) {
        self.mesh_call(operation, outcome);
    }

    fn skipped(&self, operation: &'static str) {
        self.mesh_call(operation, "skipped_item");
    }
}
