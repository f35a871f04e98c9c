//! The phases: bursts, a steady stream, and idle.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

use crate::control::{AccountSize, LatencySummary, Order, SandboxSnapshot, WriteKind};
use crate::process::Memory;
use crate::setup::{BenchManifestOptions, BenchSetup, INTERVAL};

/// Events of a complete task lifecycle in the sandbox, one for each version.
const EVENTS_PER_LIFECYCLE: u32 = 10;
/// Longer than a task lifecycle, so that the stream is steady when measured.
const WARM_UP: Duration = Duration::from_secs(5);
/// Time limit of a phase on a slow machine.
pub(crate) const TIMEOUT: Duration = Duration::from_mins(10);
/// Interval of sweeps during a steady stream.
const SWEEPS: Duration = Duration::from_secs(30);
/// Tasks of a page of ListTasks, and of a DescribeTasks.
const PAGE: usize = 100;

/// Sizes and lengths of the phases.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub operator: PathBuf,
    pub directory: PathBuf,
    /// The Consul program.
    pub consul: Option<PathBuf>,
    pub bursts: Vec<usize>,
    pub tagged_burst: usize,
    pub streams: Vec<Stream>,
    pub steady: Duration,
    /// Tasks and roles of a start.
    pub start: (usize, u16),
    pub idle_tasks: Vec<usize>,
    pub idle: Duration,
    pub settle: Duration,
    /// Whether a standby has its default share of the read rates.
    pub default_shares: bool,
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

/// A steady stream.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Stream {
    /// Whether the binding selects by a tag.
    pub by_tag: bool,
    /// Clusters, over which the tasks are spread.
    pub clusters: usize,
    /// Events a second that are sent.
    pub per_second: u32,
}

/// Result of a steady stream of starting and stopping tasks.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct SteadyResult {
    #[serde(flatten)]
    pub stream: Stream,
    pub events_per_second: f64,
    pub seconds: f64,
    /// DescribeTasks calls per 1,000 events.
    pub describes_per_1000_events: f64,
    /// Tasks per DescribeTasks call.
    pub tasks_per_describe: f64,
    /// Calls to the control plane per drain: a read of the service's readiness and the write, with the read before it.
    pub reads_of_readiness_per_drain: f64,
    /// Time after the end of the stream until every registration was gone; `None` if some were left.
    pub gone_after_s: Option<f64>,
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

/// Result of a start with many tasks and roles.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct StartResult {
    pub tasks: usize,
    pub roles: u16,
    /// Whether all tasks were registered already.
    pub warm: bool,
    /// Time until all tasks were registered, or, in a warm mesh, until all of ECS and IAM had been read.
    pub seconds: f64,
    /// The shortest time that the configured rates permit.
    pub floor_s: f64,
    /// The reads or writes that take the longest at these rates.
    pub floor_by: &'static str,
    pub memory: Memory,
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
        let mut setup = BenchSetup::new(&self.directory, AccountSize::default())?;
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
        let mut setup = BenchSetup::new(&self.directory, AccountSize::default())?;
        setup.start_bare()?;
        let before = setup.client()?.cpu();
        setup.sandbox.order(&Order::Burst(events))?;
        let drained = setup.wait(TIMEOUT, "draining the queue by the bare loop", |seen| seen.queued == 0)?;
        let cpu = setup.client()?.cpu().saturating_sub(before).as_secs_f64();
        Ok((per(drained.deleted, drained.last_deleted.as_secs_f64()), cpu))
    }

    /// # Errors
    /// Describes the failure.
    pub(crate) fn steady(&self, stream: Stream) -> Result<SteadyResult, String> {
        let Stream { by_tag, clusters, per_second } = stream;
        let size = AccountSize { clusters, ..AccountSize::default() };
        let mut setup = BenchSetup::new(&self.directory, size)?;
        let options = BenchManifestOptions { interval: SWEEPS, ..Self::options(by_tag) };
        setup.start_operator(&self.operator, options)?;
        setup.sandbox.order(&Order::Churn((per_second / EVENTS_PER_LIFECYCLE).max(1)))?;
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
        let describes = snapshot.calls_to("ecs.DescribeTasks");
        let (described, drains) = (snapshot.described, snapshot.latency[&WriteKind::Drain].count as u64);
        let readiness = snapshot.readiness_reads;
        let thousands = per(snapshot.delivered, 1_000.0);
        let seen = PhaseMetrics::of(&setup, snapshot, cpu)?;
        setup.sandbox.order(&Order::Churn(0))?;
        setup.sandbox.order(&Order::Mark)?;
        let gone = setup.wait(TIMEOUT, "removing all tasks", |seen| seen.dataplanes == 0 && seen.queued == 0);
        Ok(SteadyResult {
            stream,
            events_per_second,
            seconds,
            describes_per_1000_events: per(describes, thousands),
            tasks_per_describe: per(described, per(describes, 1.0)),
            reads_of_readiness_per_drain: per(readiness, per(drains, 1.0)),
            gone_after_s: gone.ok().map(|gone| gone.elapsed.as_secs_f64()),
            seen,
        })
    }

    /// Starts the operator with an empty mesh, and again once all tasks are registered.
    ///
    /// # Errors
    /// Describes the failure.
    pub(crate) fn starts(&self) -> Result<[StartResult; 2], String> {
        let (tasks, services) = self.start;
        let mut setup = BenchSetup::new(&self.directory, AccountSize { services, clusters: 1 })?;
        setup.sandbox.order(&Order::CreateTasks(tasks))?;
        let empty = self.start_with(&mut setup, false)?;
        setup.kill_client();
        let warm = self.start_with(&mut setup, true)?;
        Ok([empty, warm])
    }

    fn start_with(&self, setup: &mut BenchSetup, warm: bool) -> Result<StartResult, String> {
        let (tasks, roles) = self.start;
        setup.sandbox.order(&Order::Mark)?;
        setup.launch_operator(&self.operator, BenchManifestOptions::default())?;
        let all_read = |seen: &SandboxSnapshot| {
            seen.described >= tasks as u64
                && seen.calls_to("iam.GetRole") >= u64::from(roles)
                && seen.calls_to("ecs.DescribeTaskDefinition") >= u64::from(roles)
        };
        let done = setup.wait(TIMEOUT, "the start", |seen| all_read(seen) && seen.dataplanes >= tasks)?;
        let (floor_s, floor_by) = start_floor(tasks, roles, warm);
        Ok(StartResult {
            tasks,
            roles,
            warm,
            seconds: if warm { done.last_read } else { done.last_written }.as_secs_f64(),
            floor_s,
            floor_by,
            memory: setup.client()?.memory(),
            calls: done.calls.into_iter().filter(|(_, count)| *count > 0).collect(),
        })
    }

    /// # Errors
    /// Describes the failure.
    pub(crate) fn idle(&self, tasks: usize) -> Result<IdleResult, String> {
        let interval = self.idle_interval();
        let mut setup = BenchSetup::new(&self.directory, AccountSize::default())?;
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

/// The shortest start that the operator's default rates permit, and what takes it: calls beyond a bucket's burst.
fn start_floor(tasks: usize, roles: u16, warm: bool) -> (f64, &'static str) {
    let time = |calls: usize, per_second: f64, burst: f64| {
        #[allow(clippy::cast_precision_loss)] // far below 2^52
        let calls = calls as f64;
        ((calls - burst) / per_second).max(0.0)
    };
    let pages = tasks.div_ceil(PAGE);
    // Running tasks by pages, stopped ones, and describes.
    let reads = time(2 * pages + 1, 10.0, 50.0);
    let (roles, definitions) = (time(roles.into(), 10.0, 40.0), time(roles.into(), 10.0, 40.0));
    let writes = if warm { 0.0 } else { time(tasks, 500.0, 500.0) };
    let all = [
        (reads, "ListTasks and DescribeTasks"),
        (roles, "GetRole"),
        (definitions, "DescribeTaskDefinition"),
        (writes, "writes"),
    ];
    all.into_iter().max_by(|a, b| a.0.total_cmp(&b.0)).unwrap_or_default()
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
