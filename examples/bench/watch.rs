//! Observes the servers: the delivery of each event and the arrival of its write. The measurement does not rely on the
//! operator's own metrics.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ecs_mesh_sandbox::aws::{AwsFault, AwsFaults};
use ecs_mesh_sandbox::kuma::http::{KumaFault, KumaFaults};
use serde::Deserialize;
use serde_json::Value;

use crate::control::{LatencySummary, SandboxSnapshot, WriteKind};

/// Latency of a DescribeTasks, about that of AWS within a Region. The sandbox's other calls are answered at once.
pub(crate) const DESCRIBE_LATENCY: Duration = Duration::from_millis(30);

/// Observes deliveries and writes.
#[derive(Debug)]
pub(crate) struct Watcher(Mutex<WatchedState>);

#[derive(Debug)]
struct WatchedState {
    mark: Instant,
    delivered: u64,
    deleted: u64,
    last_deleted: Option<Instant>,
    described: u64,
    last_read: Option<Instant>,
    readiness_reads: u64,
    last_written: Option<Instant>,
    tasks: HashMap<String, TaskTimeline>,
    dataplanes: usize,
    /// The task of each Consul token, by accessor.
    tokens: HashMap<String, String>,
    services: usize,
    last_identity_removed: Option<Instant>,
    samples: BTreeMap<WriteKind, Vec<Duration>>,
}

/// First deliveries of a task's events, and its writes.
#[derive(Debug, Default)]
struct TaskTimeline {
    events: BTreeMap<WriteKind, Instant>,
    written: bool,
    drained: bool,
}

/// The fields of an event that decide its write.
#[derive(Deserialize)]
struct BenchEvent<'a> {
    #[serde(borrow)]
    detail: BenchEventDetail<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BenchEventDetail<'a> {
    task_arn: &'a str,
    last_status: &'a str,
    desired_status: &'a str,
}

/// An attachment with the task's address.
const ADDRESS: &str = "privateIPv4Address";

impl Default for Watcher {
    fn default() -> Self {
        Self(Mutex::new(WatchedState {
            mark: Instant::now(),
            delivered: 0,
            deleted: 0,
            last_deleted: None,
            described: 0,
            last_read: None,
            readiness_reads: 0,
            last_written: None,
            tasks: HashMap::new(),
            dataplanes: 0,
            tokens: HashMap::new(),
            services: 0,
            last_identity_removed: None,
            samples: BTreeMap::new(),
        }))
    }
}

impl Watcher {
    fn lock(&self) -> MutexGuard<'_, WatchedState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Resets the counts and keeps the tasks.
    pub(crate) fn mark(&self) {
        let mut seen = self.lock();
        seen.mark = Instant::now();
        seen.delivered = 0;
        seen.deleted = 0;
        seen.last_deleted = None;
        seen.described = 0;
        seen.last_read = None;
        seen.readiness_reads = 0;
        seen.last_written = None;
        seen.last_identity_removed = None;
        seen.samples.clear();
    }

    /// The snapshot since the start of the measurement.
    pub(crate) fn snapshot(&self) -> SandboxSnapshot {
        let seen = self.lock();
        SandboxSnapshot {
            elapsed: seen.mark.elapsed(),
            delivered: seen.delivered,
            deleted: seen.deleted,
            last_deleted: seen.last_deleted.map_or(Duration::ZERO, |at| at.duration_since(seen.mark)),
            described: seen.described,
            last_read: seen.last_read.map_or(Duration::ZERO, |at| at.duration_since(seen.mark)),
            readiness_reads: seen.readiness_reads,
            last_written: seen.last_written.map_or(Duration::ZERO, |at| at.duration_since(seen.mark)),
            dataplanes: seen.dataplanes,
            identities: seen.tokens.len() + seen.services,
            last_identity_removed: seen
                .last_identity_removed
                .map_or(Duration::ZERO, |at| at.duration_since(seen.mark)),
            latency: seen
                .samples
                .iter()
                .map(|(change, all)| (*change, LatencySummary::of(all.clone())))
                .collect(),
            ..SandboxSnapshot::default()
        }
    }
}

/// Records writes at Consul.
impl Watcher {
    pub(crate) fn logged_in(&self, accessor: &str, task: &str) {
        self.lock().tokens.insert(accessor.to_owned(), task.to_owned());
    }

    pub(crate) fn registered(&self) {
        self.lock().services += 1;
    }

    pub(crate) fn token_removed(&self, accessor: &str, at: Instant) {
        let mut seen = self.lock();
        let Some(task) = seen.tokens.remove(accessor) else { return };
        seen.last_identity_removed = Some(at);
        let delivered = seen.tasks.get(&task).and_then(|life| life.events.get(&WriteKind::Remove)).copied();
        if let Some(delivered) = delivered.filter(|delivered| *delivered >= seen.mark) {
            seen.samples.entry(WriteKind::Token).or_default().push(at.duration_since(delivered));
        }
    }

    pub(crate) fn services_removed(&self, count: usize) {
        let mut seen = self.lock();
        seen.services = seen.services.saturating_sub(count);
        seen.last_identity_removed = Some(Instant::now());
    }
}

impl WatchedState {
    fn delivered(&mut self, body: &str, at: Instant) {
        self.delivered += 1;
        // Events of other kinds cause no write.
        let Ok(BenchEvent { detail }) = serde_json::from_str(body) else { return };
        let kind = match (detail.last_status, detail.desired_status) {
            ("STOPPED", _) => WriteKind::Remove,
            (_, "STOPPED") => WriteKind::Drain,
            _ if body.contains(ADDRESS) => WriteKind::Create,
            _ => return,
        };
        let id = detail.task_arn.rsplit('/').next().unwrap_or_default();
        self.tasks.entry(id.to_owned()).or_default().events.entry(kind).or_insert(at);
    }

    fn wrote(&mut self, method: &str, name: &str, at: Instant) {
        self.last_written = Some(at);
        let task = self.tasks.entry(name.to_owned()).or_default();
        let change = match method {
            "DELETE" => WriteKind::Remove,
            _ if task.written => WriteKind::Drain,
            _ => WriteKind::Create,
        };
        match change {
            WriteKind::Create => self.dataplanes += 1,
            WriteKind::Remove => self.dataplanes = self.dataplanes.saturating_sub(1),
            WriteKind::Drain if task.drained => return,
            WriteKind::Drain => task.drained = true,
            WriteKind::Token => {}
        }
        task.written = true;
        // A sweep writes without an event. A write for an event before the start of the measurement does not count.
        if let Some(delivered) = task.events.get(&change).filter(|delivered| **delivered >= self.mark) {
            self.samples.entry(change).or_default().push(at.duration_since(*delivered));
        }
    }
}

impl AwsFaults for Watcher {
    fn decide(&self, _service: &str, operation: &str) -> AwsFault {
        match operation {
            "DescribeTasks" => AwsFault::Delay(DESCRIBE_LATENCY),
            _ => AwsFault::None,
        }
    }

    fn on_response(&self, service: &str, operation: &str, answer: &Value) {
        let now = Instant::now();
        if matches!(service, "ecs" | "iam") {
            self.lock().last_read = Some(now);
        }
        match operation {
            "DescribeTasks" => {
                let count = |field: &str| answer[field].as_array().map_or(0, Vec::len) as u64;
                self.lock().described += count("tasks") + count("failures");
            }
            "ReceiveMessage" => {
                let mut seen = self.lock();
                for message in answer["Messages"].as_array().into_iter().flatten() {
                    seen.delivered(message["Body"].as_str().unwrap_or_default(), now);
                }
            }
            "DeleteMessageBatch" => {
                let mut seen = self.lock();
                seen.deleted += answer["Successful"].as_array().map_or(0, Vec::len) as u64;
                seen.last_deleted = Some(now);
            }
            _ => {}
        }
    }
}

impl KumaFaults for Watcher {
    fn decide(&self, method: &str, path: &str) -> KumaFault {
        if matches!(method, "PUT" | "DELETE")
            && let Some((_, name)) = path.split_once("/dataplanes/")
        {
            self.lock().wrote(method, name, Instant::now());
        } else if path.contains("/dataplanes+insights") {
            self.lock().readiness_reads += 1;
        }
        KumaFault::None
    }
}

impl LatencySummary {
    fn of(mut samples: Vec<Duration>) -> Self {
        samples.sort_unstable();
        let at = |percent: usize| {
            let index = samples.len().saturating_sub(1) * percent / 100;
            samples.get(index).map_or(0.0, |time| time.as_secs_f64() * 1_000.0)
        };
        Self { count: samples.len(), p50_ms: at(50), p99_ms: at(99), max_ms: at(100) }
    }
}
