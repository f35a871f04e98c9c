//! The readers phase: what readers of the API cost the path from an event to a write.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::control::{AccountSize, LatencySummary, Order, WriteKind};
use crate::phases::{Plan, TIMEOUT};
use crate::setup::{BenchManifestOptions, BenchSetup};

/// Rounds without readers and with them, in turn. The median of each counts, since p99 varies.
const ROUNDS: usize = 5;
/// Tasks that start and stop in a second.
const TASKS_PER_SECOND: u32 = 20;
/// Longer than a task lifecycle.
const WARM_UP: Duration = Duration::from_secs(5);
/// The pause of a reader between two requests, as that of a page.
const PAUSE: Duration = Duration::from_secs(1);
/// The requests of a reader, in turn.
const PATHS: [&str; 4] =
    ["status", "services?limit=100", "topology", "tasks?limit=100&state=pending,held,rejected"];

/// Result of the phase.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ReadersResult {
    pub tasks: usize,
    pub readers: usize,
    /// Medians over the rounds, from the event to the create.
    pub p99_without_ms: f64,
    pub p99_with_ms: f64,
    /// Creates in all rounds with readers.
    pub creates: usize,
    pub requests_per_second: f64,
    /// Requests without the status 200.
    pub failed: u64,
    /// CPU time of the operator in a second.
    pub cpu_without: f64,
    pub cpu_with: f64,
}

impl ReadersResult {
    /// The p99 with readers as a share of that without.
    pub(crate) fn percent(&self) -> f64 {
        if self.p99_without_ms > 0.0 { self.p99_with_ms / self.p99_without_ms * 100.0 } else { 0.0 }
    }
}

/// Readers that run until they are stopped.
struct Readers {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    failed: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Readers {
    fn start(count: usize, address: SocketAddr) -> Self {
        let (stop, answered, failed) =
            (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let read = |index: usize| {
            let (stop, answered, failed) = (Arc::clone(&stop), Arc::clone(&answered), Arc::clone(&failed));
            thread::spawn(move || {
                // Readers do not ask at the same moment.
                thread::sleep(PAUSE.mul_f64(fastrand::f64()));
                let mut paths = PATHS.iter().cycle().skip(index);
                while !stop.load(Ordering::Relaxed) {
                    let path = paths.next().copied().unwrap_or_default();
                    let counter = if is_answered(address, path) { &answered } else { &failed };
                    counter.fetch_add(1, Ordering::Relaxed);
                    thread::sleep(PAUSE);
                }
            })
        };
        let threads = (0..count).map(read).collect();
        Self { stop, answered, failed, threads }
    }

    /// Stops the readers. Returns the answered and the failed requests.
    fn stop(self) -> (u64, u64) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            // A reader that panicked has counted what it did.
            let _ = thread.join();
        }
        (self.answered.load(Ordering::Relaxed), self.failed.load(Ordering::Relaxed))
    }
}

fn is_answered(address: SocketAddr, path: &str) -> bool {
    let request = || {
        let mut stream = TcpStream::connect(address)?;
        stream.write_all(format!("GET /api/v1/{path} HTTP/1.1\r\nhost: localhost\r\n\r\n").as_bytes())?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        std::io::Result::Ok(answer)
    };
    request().is_ok_and(|answer| answer.starts_with(b"HTTP/1.1 200"))
}

/// A free port of loopback, for a listener that starts soon.
fn free_address() -> Result<SocketAddr, String> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(|error| error.to_string())?;
    listener.local_addr().map_err(|error| error.to_string())
}

impl Plan {
    /// Measures the same stream of events without readers and with them.
    ///
    /// # Errors
    /// Describes the failure.
    pub(crate) fn readers(&self, readers: usize) -> Result<ReadersResult, String> {
        let (tasks, roles) = self.start;
        let address = free_address()?;
        let mut setup = BenchSetup::new(&self.directory, AccountSize { services: roles, clusters: 1 })?;
        setup.sandbox.order(&Order::CreateTasks(tasks))?;
        let options = BenchManifestOptions { api_address: Some(address), ..BenchManifestOptions::default() };
        setup.launch_operator(&self.operator, options)?;
        setup.wait(TIMEOUT, "registering all tasks", |seen| seen.dataplanes >= tasks)?;
        setup.sandbox.order(&Order::Churn(TASKS_PER_SECOND))?;
        let (mut without, mut with) = (Vec::new(), Vec::new());
        let (mut answered, mut failed, mut seconds, mut creates) = (0, 0, 0.0, 0);
        for _ in 0..ROUNDS {
            without.push(self.round(&mut setup)?);
            let (began, running) = (Instant::now(), Readers::start(readers, address));
            let round = self.round(&mut setup)?;
            let counts = running.stop();
            answered += counts.0;
            failed += counts.1;
            seconds += began.elapsed().as_secs_f64();
            creates += round.0.count;
            with.push(round);
        }
        if answered == 0 {
            return Err(format!("no reader got an answer; {failed} requests failed"));
        }
        #[allow(clippy::cast_precision_loss)] // counts of a run
        Ok(ReadersResult {
            tasks,
            readers,
            p99_without_ms: median(without.iter().map(|(latency, _)| latency.p99_ms)),
            p99_with_ms: median(with.iter().map(|(latency, _)| latency.p99_ms)),
            creates,
            requests_per_second: answered as f64 / seconds,
            failed,
            cpu_without: median(without.iter().map(|(_, cpu)| *cpu)),
            cpu_with: median(with.iter().map(|(_, cpu)| *cpu)),
        })
    }

    /// The latency of creates, and the operator's CPU time in a second.
    fn round(&self, setup: &mut BenchSetup) -> Result<(LatencySummary, f64), String> {
        setup.pass(WARM_UP.min(self.steady))?;
        let before = setup.client()?.cpu();
        setup.sandbox.order(&Order::Mark)?;
        setup.pass(self.steady)?;
        let snapshot = setup.sandbox.order(&Order::Snapshot)?;
        let cpu = setup.client()?.cpu().saturating_sub(before);
        let latency = snapshot.latency.get(&WriteKind::Create).copied();
        let latency = latency.ok_or_else(|| format!("no task was created in a round: {snapshot:?}"))?;
        Ok((latency, cpu.as_secs_f64() / snapshot.elapsed.as_secs_f64()))
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}
