//! The operator's metrics. Every label has a bounded set of values; none is a task, role or address.
//!
//! Counters and histograms are kept here and start at 0. Gauges (queues, registrations, guards) are read from the operator
//! at each scrape (`collect`).

mod api;
mod aws;
mod changes;
mod collect;
mod control_plane;
mod deployments;
mod evaluations;
mod event_queue;
mod exposition;
mod labels;
mod log;
mod manifest_sources;
mod order;
mod process;
mod sweeps;
mod team_events;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use tokio::time::Instant;

pub use api::ApiMetrics;
pub use changes::ChangeMetrics;
pub use control_plane::ControlPlaneMetrics;
pub use deployments::DeploymentMetrics;
pub use evaluations::EvaluationMetrics;
pub use exposition::ExpositionFormat;
pub use sweeps::SweepMetrics;
pub use team_events::TeamEventMetrics;

use super::log::LogStats;
use super::state::{OperatorState, StateSource};
use aws::AwsMetrics;
use control_plane::ControlPlaneFamilies;
use ecs_mesh_aws::consumer::{QueueObserver, QueueState};
use ecs_mesh_controller::health::Health;
use event_queue::EventQueueMetrics;
use labels::ReasonLabels;
use manifest_sources::ManifestSourceMetrics;

type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;

/// Seconds of a call, which ends within 25.
const CALL_BUCKETS: [f64; 9] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 25.0];

fn calls() -> Histogram {
    Histogram::new(CALL_BUCKETS)
}

/// All metrics of one process.
#[derive(Debug)]
pub struct Metrics {
    started: Instant,
    registry: Registry,
    log: Arc<LogStats>,
    scrape: Arc<ScrapeSource>,
    warnings: Family<ReasonLabels, Counter>,
    event_queue: EventQueueMetrics,
    /// Evaluations of tasks.
    pub evaluations: EvaluationMetrics,
    /// Changes at control planes.
    pub changes: ChangeMetrics,
    /// Held deployments.
    pub deployments: DeploymentMetrics,
    aws: AwsMetrics,
    manifest_sources: ManifestSourceMetrics,
    /// Sweeps.
    pub sweeps: SweepMetrics,
    control_planes: ControlPlaneFamilies,
    /// Events to teams.
    pub team_events: TeamEventMetrics,
    /// Requests to the read API.
    pub api: ApiMetrics,
}

/// The sources of a scrape. The operator is created after its metrics and dropped before them, so the reference is weak.
#[derive(Default)]
struct ScrapeSource {
    state_source: Mutex<Option<Weak<dyn StateSource>>>,
    health: Health,
    /// By the queue's name.
    event_queues: Mutex<BTreeMap<String, QueueState>>,
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

    fn queue_states(&self) -> BTreeMap<String, QueueState> {
        self.event_queues.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The worst state of all queues.
    fn queue_state(&self) -> QueueState {
        let states = self.queue_states();
        let failing = states.values().find(|state| matches!(state, QueueState::Failing(_)));
        let known = states.values().find(|state| **state == QueueState::Ok);
        failing.or(known).copied().unwrap_or_default()
    }
}

impl Default for Metrics {
    /// Metrics without a log.
    fn default() -> Self {
        Self::new(Arc::default())
    }
}

impl Metrics {
    /// Metrics of a process with this log.
    pub fn new(log: Arc<LogStats>) -> Self {
        let mut registry = Registry::default();
        let r = &mut registry;
        let scrape = Arc::default();
        let warnings = Family::default();
        r.register("ecs_mesh_warnings", "Warnings by reason", Family::clone(&warnings));
        for reason in labels::warning_reasons() {
            init_series(&warnings, &ReasonLabels { reason });
        }
        r.register_collector(Box::new(collect::StateCollector(Arc::clone(&scrape))));
        r.register_collector(Box::new(log::LogCollector(Arc::clone(&log))));
        r.register_collector(Box::new(process::ProcessCollector));
        Self {
            started: Instant::now(),
            log,
            scrape,
            warnings,
            event_queue: EventQueueMetrics::register(r),
            evaluations: EvaluationMetrics::register(r),
            changes: ChangeMetrics::register(r),
            deployments: DeploymentMetrics::register(r),
            aws: AwsMetrics::register(r),
            manifest_sources: ManifestSourceMetrics::register(r),
            sweeps: SweepMetrics::register(r),
            control_planes: ControlPlaneFamilies::register(r),
            team_events: TeamEventMetrics::register(r),
            api: ApiMetrics::register(r),
            registry,
        }
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

    /// The counts of the log's lines.
    pub fn log(&self) -> &Arc<LogStats> {
        &self.log
    }

    /// Time since the process created its metrics, which it does first.
    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
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

    /// Adds a remote source of manifests, not read yet.
    pub fn add_manifest_source(&self, source: &str) {
        self.manifest_sources.add(source);
    }

    /// The worst state of the event queues at the last receive of each.
    pub fn queue_state(&self) -> QueueState {
        self.scrape.queue_state()
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
}

impl QueueObserver for Metrics {
    fn record_message(&self, kind: &'static str, result: &'static str) {
        self.event_queue.record_message(kind, result);
    }

    fn record_received(&self, age: Option<Duration>, receives: u32) {
        self.event_queue.record_received(age, receives);
    }

    fn set_queue_state(&self, queue: &str, state: QueueState) {
        let mut states = self.scrape.event_queues.lock().unwrap_or_else(PoisonError::into_inner);
        states.insert(queue.to_owned(), state);
    }
}

impl ecs_mesh_manifests::SourceObserver for Metrics {
    fn source_read(&self, source: &str, result: &'static str) {
        self.manifest_sources.record_read(source, result);
    }
}

impl ecs_mesh_aws::sdk::AwsCallObserver for Metrics {
    fn call(&self, operation: &'static str, result: &'static str, duration: Duration) {
        self.aws.record_call(operation, result, duration);
    }
}
