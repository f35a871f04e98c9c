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
/// Readers that hold a stream of events as well, as open pages do: as many as the operator accepts.
const STREAMS: usize = 32;
/// The longest wait of a stream for an event, after which it looks whether it is to end.
const STREAM_WAIT: Duration = Duration::from_millis(200);

/// The requests of a reader, in turn: those of the page's overviews, which are equal for all, and those of a team, which
/// ask for its own service.
fn request(turn: usize, service: usize) -> String {
    match turn % 6 {
        0 => "status".to_owned(),
        1 => "services?limit=100".to_owned(),
        2 => "topology".to_owned(),
        3 => "tasks?limit=100&state=pending,held,rejected".to_owned(),
        4 => format!("tasks?limit=100&ecsService=svc-{service:02}"),
        _ => format!("changes?limit=100&service=svc-{service:02}"),
    }
}

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
    /// Streams that were open, and the events that they received.
    pub streams: usize,
    pub stream_events: u64,
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
    streams: Vec<JoinHandle<u64>>,
}

/// The counts of readers that have stopped.
#[derive(Clone, Copy, Default)]
struct ReaderCounts {
    answered: u64,
    failed: u64,
    stream_events: u64,
}

impl Readers {
    fn start(count: usize, services: u16, address: SocketAddr) -> Self {
        let (stop, answered, failed) =
            (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let stream = |_| {
            let (stop, failed) = (Arc::clone(&stop), Arc::clone(&failed));
            thread::spawn(move || {
                lower_priority();
                let events = follow_stream(address, &stop);
                failed.fetch_add(u64::from(events.is_err()), Ordering::Relaxed);
                events.unwrap_or_default()
            })
        };
        let streams = (0..count.min(STREAMS)).map(stream).collect();
        let read = |index: usize| {
            let (stop, answered, failed) = (Arc::clone(&stop), Arc::clone(&answered), Arc::clone(&failed));
            thread::spawn(move || {
                lower_priority();
                // Readers do not ask at the same moment.
                thread::sleep(PAUSE.mul_f64(fastrand::f64()));
                for turn in index.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let path = request(turn, index % usize::from(services));
                    let counter = if is_answered(address, &path) { &answered } else { &failed };
                    counter.fetch_add(1, Ordering::Relaxed);
                    thread::sleep(PAUSE);
                }
            })
        };
        let threads = (0..count).map(read).collect();
        Self { stop, answered, failed, threads, streams }
    }

    fn stop(self) -> ReaderCounts {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            // A reader that panicked has counted what it did.
            let _ = thread.join();
        }
        let stream_events = self.streams.into_iter().filter_map(|stream| stream.join().ok()).sum();
        ReaderCounts {
            answered: self.answered.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
            stream_events,
        }
    }
}

/// Holds a stream of events open until it is stopped. A stream that the operator closes at its age is opened again.
fn follow_stream(address: SocketAddr, stop: &AtomicBool) -> std::io::Result<u64> {
    let mut events = 0;
    while !stop.load(Ordering::Relaxed) {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(STREAM_WAIT))?;
        stream.write_all(b"GET /api/v1/stream HTTP/1.1\r\nhost: localhost\r\n\r\n")?;
        let (mut buffer, mut is_first) = (vec![0; 64 * 1024], true);
        while !stop.load(Ordering::Relaxed) {
            match stream.read(&mut buffer) {
                Ok(0) => break,
                Ok(bytes) => {
                    if std::mem::take(&mut is_first) && !buffer.starts_with(b"HTTP/1.1 200") {
                        return Err(std::io::Error::other("the stream was refused"));
                    }
                    events += buffer[..bytes].windows(7).filter(|part| part == b"\nevent:").count() as u64;
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(events)
}

/// Real readers run on other machines: here, what they do themselves must not take a core that the operator wants.
fn lower_priority() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::setpriority_process(None, 19) {
        crate::progress(&format!("readers have the priority of all others: {error}"));
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
        let (mut all, mut seconds, mut creates) = (ReaderCounts::default(), 0.0, 0);
        for _ in 0..ROUNDS {
            without.push(self.round(&mut setup)?);
            let (began, running) = (Instant::now(), Readers::start(readers, roles, address));
            let round = self.round(&mut setup)?;
            let counts = running.stop();
            all.answered += counts.answered;
            all.failed += counts.failed;
            all.stream_events += counts.stream_events;
            seconds += began.elapsed().as_secs_f64();
            creates += round.0.count;
            with.push(round);
        }
        if all.answered == 0 || all.stream_events == 0 {
            let ReaderCounts { answered, failed, stream_events } = all;
            return Err(format!(
                "{answered} requests were answered, {failed} failed, {stream_events} events arrived"
            ));
        }
        #[allow(clippy::cast_precision_loss)] // counts of a run
        Ok(ReadersResult {
            tasks,
            readers,
            p99_without_ms: median(without.iter().map(|(latency, _)| latency.p99_ms)),
            p99_with_ms: median(with.iter().map(|(latency, _)| latency.p99_ms)),
            creates,
            requests_per_second: all.answered as f64 / seconds,
            failed: all.failed,
            streams: readers.min(STREAMS),
            stream_events: all.stream_events,
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
