//! The phases: bursts, a steady stream, and idle.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

use crate::control::{LatencySummary, Order, SandboxSnapshot, WriteKind};
use crate::process::Memory;
use crate::setup::{BenchManifestOptions, BenchSetup, INTERVAL};

/// Events of a complete task lifecycle in the sandbox, one for each version.
const EVENTS_PER_LIFECYCLE: u32 = 10;
/// Longer than a task lifecycle, so that the stream is steady when measured.
const WARM_UP: Duration = Duration::from_secs(5);
/// Time limit of a phase on a slow machine.
const TIMEOUT: Duration = Duration::from_mins(5);

/// Sizes and lengths of the phases.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub operator: PathBuf,
    pub directory: PathBuf,
    /// The Consul program.
    pub consul: Option<PathBuf>,
    pub bursts: Vec<usize>,
    pub tagged_burst: usize,
    pub steady_per_second: u32,
    pub steady: Duration,
    pub idle_tasks: Vec<usize>,
    pub idle: Duration,
    pub settle: Duration,
}

/// Result of a burst: events queued at once, each of another unregistered task.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct BurstResult {
    pub events: usize,
    /// Whether the binding selects by a tag, which requires a describe of each task.
    pub by_tag: bool,
    /// Time until the queue was empty.
    pub events_per_second: f64,
    /// The same time of the bare loop.
    pub bare_per_second: f64,
    /// Time until the last Dataplane was written.
    pub written_after_s: f64,
    #[serde(flatten)]
    pub seen: PhaseMetrics,
    pub bare_cpu_s: f64,
}

/// Result of a steady stream of starting and stopping tasks.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct SteadyResult {
    pub by_tag: bool,
    pub events_per_second: f64,
    pub seconds: f64,
    #[serde(flatten)]
    pub seen: PhaseMetrics,
}

/// Result of an idle phase.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct IdleResult {
    pub tasks: usize,
    pub seconds: f64,
    /// Interval of sweeps and of role reads.
    pub interval_s: u64,
    pub memory: Memory,
    pub cpu_percent_of_a_core: f64,
    pub ecs_reads_per_minute: f64,
    pub calls: BTreeMap<String, u64>,
}

/// Figures common to all busy phases.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct PhaseMetrics {
    pub latency: BTreeMap<WriteKind, LatencySummary>,
    pub reads_per_1000_events: f64,
    pub calls: BTreeMap<String, u64>,
    pub memory: Memory,
    pub operator_cpu_s: f64,
    pub sandbox_cpu_s: f64,
}

#[allow(clippy::cast_precision_loss)] // counts of a run
fn per(count: u64, of: f64) -> f64 {
    if of > 0.0 { count as f64 / of } else { 0.0 }
}

impl PhaseMetrics {
    #[allow(clippy::cast_precision_loss)] // counts of a run
    fn of(
        setup: &BenchSetup,
        snapshot: SandboxSnapshot,
        cpu_before: (Duration, Duration),
    ) -> Result<Self, String> {
        Ok(Self {
            reads_per_1000_events: per(snapshot.reads(), snapshot.delivered as f64 / 1_000.0),
            latency: snapshot.latency,
            calls: snapshot.calls,
            memory: setup.client()?.memory(),
            operator_cpu_s: (setup.client()?.cpu().saturating_sub(cpu_before.0)).as_secs_f64(),
            sandbox_cpu_s: (setup.sandbox.process.cpu().saturating_sub(cpu_before.1)).as_secs_f64(),
        })
    }
}

impl Plan {
    /// The interval for an idle phase of this length, so that a short one includes a sweep.
    pub(crate) fn idle_interval(&self) -> Duration {
        self.idle.clamp(Duration::from_secs(30), INTERVAL)
    }

    fn options(by_tag: bool) -> BenchManifestOptions {
        BenchManifestOptions { by_tag, ..BenchManifestOptions::default() }
    }

    /// # Errors
    /// Describes the failure.
    pub(crate) fn burst(&self, events: usize, by_tag: bool) -> Result<BurstResult, String> {
        let (bare_per_second, bare_cpu_s) = self.bare(events)?;
        let mut setup = BenchSetup::new(&self.directory)?;
        setup.start_operator(&self.operator, Self::options(by_tag))?;
        let cpu = (setup.client()?.cpu(), setup.sandbox.process.cpu());
        setup.sandbox.order(&Order::Burst(events))?;
        let drained = setup.wait(TIMEOUT, "draining the queue", |seen| seen.queued == 0)?;
        let done = setup.wait(TIMEOUT, "the last write", |seen| seen.dataplanes >= events)?;
        Ok(BurstResult {
            events,
            by_tag,
            events_per_second: per(drained.deleted, drained.last_deleted.as_secs_f64()),
            bare_per_second,
            written_after_s: done.elapsed.as_secs_f64(),
            seen: PhaseMetrics::of(&setup, done, cpu)?,
            bare_cpu_s,
        })
    }

    /// Events a second, and CPU time.
    fn bare(&self, events: usize) -> Result<(f64, f64), String> {
        let mut setup = BenchSetup::new(&self.directory)?;
        setup.start_bare()?;
        let before = setup.client()?.cpu();
        setup.sandbox.order(&Order::Burst(events))?;
        let drained = setup.wait(TIMEOUT, "draining the queue by the bare loop", |seen| seen.queued == 0)?;
        let cpu = setup.client()?.cpu().saturating_sub(before).as_secs_f64();
        Ok((per(drained.deleted, drained.last_deleted.as_secs_f64()), cpu))
    }

    /// # Errors
    /// Describes the failure.
    pub(crate) fn steady(&self, by_tag: bool) -> Result<SteadyResult, String> {
        let mut setup = BenchSetup::new(&self.directory)?;
        setup.start_operator(&self.operator, Self::options(by_tag))?;
        setup.sandbox.order(&Order::Churn((self.steady_per_second / EVENTS_PER_LIFECYCLE).max(1)))?;
        setup.pass(WARM_UP)?;
        let cpu = (setup.client()?.cpu(), setup.sandbox.process.cpu());
        setup.sandbox.order(&Order::Mark)?;
        setup.pass(self.steady)?;
        let snapshot = setup.sandbox.order(&Order::Snapshot)?;
        if snapshot.latency.len() < 3 {
            return Err(format!("creations, drains or removals are missing: {snapshot:?}"));
        }
        let seconds = snapshot.elapsed.as_secs_f64();
        let events_per_second = per(snapshot.delivered, seconds);
        Ok(SteadyResult {
            by_tag,
            events_per_second,
            seconds,
            seen: PhaseMetrics::of(&setup, snapshot, cpu)?,
        })
    }

    /// # Errors
    /// Describes the failure.
    pub(crate) fn idle(&self, tasks: usize) -> Result<IdleResult, String> {
        let interval = self.idle_interval();
        let mut setup = BenchSetup::new(&self.directory)?;
        setup.sandbox.order(&Order::CreateTasks(tasks))?;
        setup.start_operator(
            &self.operator,
            BenchManifestOptions { interval, ..BenchManifestOptions::default() },
        )?;
        setup.wait(TIMEOUT, "registering all tasks", |seen| seen.dataplanes >= tasks)?;
        setup.pass(self.settle)?;
        self.measure_idle(&mut setup, tasks, interval)
    }

    /// # Errors
    /// Describes the failure.
    pub(crate) fn measure_idle(
        &self,
        setup: &mut BenchSetup,
        tasks: usize,
        interval: Duration,
    ) -> Result<IdleResult, String> {
        let before = setup.client()?.cpu();
        setup.sandbox.order(&Order::Mark)?;
        setup.pass(self.idle)?;
        let snapshot = setup.sandbox.order(&Order::Snapshot)?;
        let cpu = setup.client()?.cpu().saturating_sub(before);
        let seconds = snapshot.elapsed.as_secs_f64();
        Ok(IdleResult {
            tasks,
            seconds,
            interval_s: interval.as_secs(),
            memory: setup.client()?.memory(),
            cpu_percent_of_a_core: cpu.as_secs_f64() / seconds * 100.0,
            ecs_reads_per_minute: per(snapshot.calls_of("ecs."), seconds / 60.0),
            calls: snapshot.calls.into_iter().filter(|(_, count)| *count > 0).collect(),
        })
    }
}

/// A temporary directory, removed at the end.
pub(crate) struct BenchDirectory(tempfile::TempDir);

impl BenchDirectory {
    /// # Errors
    /// Describes the failure.
    pub(crate) fn new() -> Result<Self, String> {
        tempfile::tempdir().map(Self).map_err(|error| format!("creating a temporary directory: {error}"))
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }
}
