use serde_json::Value;
use tracing::info;
use tracing_subscriber::filter::FilterExt as _;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};

use super::super::limiter::MAX_LINES;
use super::super::testing::LogBuffer;
use super::super::{LogFormat, env_filter, lines, max_level};
use super::*;
use crate::operator::AuditedLease;
use ecs_mesh_controller::{AlwaysHeld, Lease as _, WriteObstacle};

/// Longer than any line waits in these tests.
const LONG: Duration = Duration::from_mins(2);

fn queue(lines: usize) -> LogQueue {
    LogQueue::new(QueueLimits { lines, bytes: 1024 * 1024, retry: Duration::ZERO })
}

/// Runs `log` with the queue as the log, with the filters of a run.
fn logged<T>(queue: &LogQueue, log: impl FnOnce() -> T) -> T {
    let filter = env_filter("").unwrap().and(max_level());
    let lines = lines(LogFormat::Json, false, queue.clone(), Some(queue.clone())).with_filter(filter);
    tracing::subscriber::with_default(tracing_subscriber::registry().with(lines), log)
}

/// Writes what waits, as the writer's thread does, and returns all lines.
fn written(queue: &LogQueue) -> Vec<Value> {
    let out = LogBuffer::default();
    queue.close();
    logged(queue, || queue.write_lines(out.clone()));
    lines_of(&out)
}

fn lines_of(out: &LogBuffer) -> Vec<Value> {
    let text = String::from_utf8(out.0.lock().unwrap().clone()).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Standard error whose reader takes nothing until the gate opens.
#[derive(Clone, Default)]
struct GatedOut {
    gate: Arc<(Mutex<bool>, Condvar)>,
    out: LogBuffer,
}

impl GatedOut {
    fn open(&self) {
        *self.gate.0.lock().unwrap() = true;
        self.gate.1.notify_all();
    }
}

impl Write for GatedOut {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let open = self.gate.0.lock().unwrap();
        drop(self.gate.1.wait_while(open, |open| !*open).unwrap());
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Standard error that refuses its first writes, and then takes one byte at a time.
struct FailingOut {
    failures: Vec<io::ErrorKind>,
    out: LogBuffer,
}

impl Write for FailingOut {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.failures.pop() {
            Some(kind) => Err(kind.into()),
            None => self.out.write(&bytes[..1]),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn logging_never_waits_and_keeps_audit_lines() {
    let (queue, out) = (queue(8), GatedOut::default());
    queue.start_writer(out.clone()).unwrap();
    logged(&queue, || {
        for n in 0..100 {
            info!(n, "general");
            info!(target: "audit", n, "registration created");
        }
    });
    let stats = Arc::clone(queue.stats());
    assert_eq!((stats.dropped(), stats.audit_waiting()), (92, 100));
    let lease = AuditedLease::new(Arc::new(AlwaysHeld), Arc::clone(&stats));
    assert_eq!((lease.obstacle(), lease.holds()), (Some(WriteObstacle::AuditBacklog), true));
    assert!(!queue.flush(Duration::ZERO), "nothing is written yet");
    out.open();
    assert!(queue.flush(LONG));
    let of = |message: &str| {
        let lines = lines_of(&out.out).into_iter().filter(move |line| line["message"] == message);
        lines.map(|line| line["n"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(of("registration created"), (0..100).collect::<Vec<_>>());
    assert_eq!(of("general"), (0..8).collect::<Vec<_>>());
    assert_eq!((lease.obstacle(), stats.audit_waiting()), (None, 0));
    queue.close();
}

#[test]
fn audit_stays_blocked_until_half_is_written() {
    let queue = queue(8);
    for _ in 0..8 {
        assert!(!queue.stats().audit_is_blocked());
        queue.push(LineKind::Audit, b"line\n");
    }
    let mut blocked = Vec::new();
    while let Some(Work::Write(line)) =
        (queue.stats().audit_waiting() > 0).then(|| queue.next_work(0)).flatten()
    {
        blocked.push(queue.stats().audit_is_blocked());
        queue.write_line(&line, &mut io::sink());
    }
    assert_eq!(blocked, [true, true, true, true, false, false, false, false]);
}

#[test]
fn refused_audit_line_is_tried_until_it_is_written() {
    let queue = queue(8);
    queue.push(LineKind::General, b"general\n");
    queue.push(LineKind::Audit, b"audit\n");
    let out = LogBuffer::default();
    // The last comes first.
    let failures = [
        io::ErrorKind::WouldBlock,
        io::ErrorKind::Interrupted,
        io::ErrorKind::StorageFull,
        io::ErrorKind::BrokenPipe,
        io::ErrorKind::BrokenPipe,
    ];
    let mut failing = FailingOut { failures: failures.to_vec(), out: out.clone() };
    for _ in 0..2 {
        let Some(Work::Write(line)) = queue.next_work(0) else { panic!("no line") };
        queue.write_line(&line, &mut failing);
    }
    assert_eq!(String::from_utf8(out.0.lock().unwrap().clone()).unwrap(), "audit\n");
    assert_eq!((queue.stats().write_failed(), queue.stats().audit_waiting()), (1, 0));
}

#[test]
fn dropped_lines_are_reported_once_there_is_room() {
    let queue = queue(4);
    logged(&queue, || (0..9).for_each(|n| info!(n, "general")));
    queue.push(LineKind::Last, b"{\"last\": true}\n");
    let lines = written(&queue);
    assert_eq!(lines.len(), 6, "{lines:?}");
    assert_eq!(lines[4]["last"], true, "it is kept at the bound");
    assert_eq!((&lines[5]["level"], &lines[5]["lines"]), (&"WARN".into(), &5.into()), "{}", lines[5]);
}

#[test]
fn repeated_warning_is_suppressed_and_audit_is_not() {
    let queue = queue(10_000);
    let most = u64::from(MAX_LINES);
    logged(&queue, || {
        for n in 0..most + 40 {
            tracing::warn!(n, "odd message");
            tracing::warn!(target: "audit", n, "removal failed");
            info!(n, "registration updated");
        }
        assert!(!queue.flush(Duration::ZERO));
    });
    assert_eq!(queue.stats().suppressed(), 40);
    let lines = written(&queue);
    let count = |message: &str| lines.iter().filter(|line| line["message"] == message).count() as u64;
    assert_eq!(count("odd message"), most);
    assert_eq!((count("removal failed"), count("registration updated")), (most + 40, most + 40));
    let report = lines.last().unwrap();
    assert_eq!((&report["lines"], &report["repeated"]), (&40.into(), &"odd message".into()), "{report}");
}
