//! The queue between those who log and standard error. Logging never waits: a thread writes the lines, and where standard
//! error takes nothing (a full pipe, a log driver in blocking mode), lines queue up to a bound.
//!
//! | lines | at the bound |
//! |---|---|
//! | of target `audit` | are kept. [`LogStats::audit_is_blocked`] is true until half of them are written: nothing may be changed that adds one |
//! | all others | are dropped and counted |

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing::{Event, Level, Metadata, warn};
use tracing_subscriber::fmt::MakeWriter;

use super::limiter::{Admission, LineLimiter};

/// The target of the audit trail.
pub(super) const AUDIT: &str = "audit";

/// Bounds of the queue.
#[derive(Clone, Copy, Debug)]
pub(super) struct QueueLimits {
    /// Most lines and bytes of each kind.
    pub(super) lines: usize,
    pub(super) bytes: usize,
    /// Pause before an audit line is tried again that could not be written.
    pub(super) retry: Duration,
}

impl Default for QueueLimits {
    fn default() -> Self {
        Self { lines: 4_096, bytes: 4 * 1024 * 1024, retry: Duration::from_secs(1) }
    }
}

/// Pause where standard error is in non-blocking mode and takes nothing.
const WOULD_BLOCK_PAUSE: Duration = Duration::from_millis(20);

/// Counts of the log's lines.
#[derive(Debug, Default)]
pub struct LogStats {
    dropped: AtomicU64,
    write_failed: AtomicU64,
    suppressed: AtomicU64,
    audit_waiting: AtomicU64,
    audit_blocked: AtomicBool,
}

impl LogStats {
    /// Lines that were dropped because the queue was full.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Lines that were dropped because standard error refused them.
    pub fn write_failed(&self) -> u64 {
        self.write_failed.load(Ordering::Relaxed)
    }

    /// Lines that were suppressed because the same line was repeated too often.
    pub fn suppressed(&self) -> u64 {
        self.suppressed.load(Ordering::Relaxed)
    }

    /// Audit lines that are not written yet.
    pub fn audit_waiting(&self) -> u64 {
        self.audit_waiting.load(Ordering::Relaxed)
    }

    /// Whether so many audit lines wait that nothing may be changed.
    pub fn audit_is_blocked(&self) -> bool {
        self.audit_blocked.load(Ordering::Relaxed)
    }

    pub(super) fn record_suppressed(&self) {
        self.suppressed.fetch_add(1, Ordering::Relaxed);
    }
}

/// The treatment of a line at the queue's bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LineKind {
    /// Dropped.
    General,
    /// Kept, and tried until it is written.
    Audit,
    /// Kept: the error that ends the process.
    Last,
}

struct Line {
    kind: LineKind,
    text: Box<[u8]>,
}

/// Lines that are not written yet.
#[derive(Clone, Copy, Debug, Default)]
struct Backlog {
    lines: usize,
    bytes: usize,
}

impl Backlog {
    fn add(&mut self, bytes: usize) {
        self.lines += 1;
        self.bytes += bytes;
    }

    fn remove(&mut self, bytes: usize) {
        self.lines -= 1;
        self.bytes -= bytes;
    }
}

#[derive(Default)]
struct QueueState {
    waiting: VecDeque<Line>,
    general: Backlog,
    audit: Backlog,
    /// No more lines follow.
    closed: bool,
}

struct Shared {
    limits: QueueLimits,
    state: Mutex<QueueState>,
    /// A line was added, or the queue was closed.
    added: Condvar,
    /// The last line was written.
    emptied: Condvar,
    stats: Arc<LogStats>,
    limiter: LineLimiter,
}

/// The queue of log lines. Clones share it.
#[derive(Clone)]
pub(super) struct LogQueue(Arc<Shared>);

impl LogQueue {
    /// A queue whose lines nothing writes yet: see [`Self::start_writer`].
    pub(super) fn new(limits: QueueLimits) -> Self {
        let stats = Arc::<LogStats>::default();
        Self(Arc::new(Shared {
            limits,
            state: Mutex::default(),
            added: Condvar::new(),
            emptied: Condvar::new(),
            limiter: LineLimiter::new(Arc::clone(&stats)),
            stats,
        }))
    }

    /// Starts the thread that writes the lines. It ends with the queue, or with the process where a write hangs.
    pub(super) fn start_writer(&self, out: impl Write + Send + 'static) -> io::Result<()> {
        let queue = self.clone();
        std::thread::Builder::new().name("log-writer".to_owned()).spawn(move || queue.write_lines(out))?;
        Ok(())
    }

    pub(super) fn stats(&self) -> &Arc<LogStats> {
        &self.0.stats
    }

    fn lock(&self) -> MutexGuard<'_, QueueState> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a line with its line feed. Never waits.
    pub(super) fn push(&self, kind: LineKind, text: &[u8]) {
        let QueueLimits { lines, bytes, .. } = self.0.limits;
        let mut state = self.lock();
        let is_full = |backlog: &Backlog| backlog.lines >= lines || backlog.bytes >= bytes;
        match kind {
            LineKind::General if is_full(&state.general) => {
                self.0.stats.dropped.fetch_add(1, Ordering::Relaxed);
                return;
            }
            LineKind::General | LineKind::Last => state.general.add(text.len()),
            LineKind::Audit => {
                state.audit.add(text.len());
                if is_full(&state.audit) {
                    self.0.stats.audit_blocked.store(true, Ordering::Relaxed);
                }
                self.0.stats.audit_waiting.fetch_add(1, Ordering::Relaxed);
            }
        }
        state.waiting.push_back(Line { kind, text: text.into() });
        self.0.added.notify_one();
    }

    /// Whether a line is to be written: warnings and errors that are repeated too often are not.
    pub(super) fn admits(&self, event: &Event<'_>) -> bool {
        let metadata = event.metadata();
        if *metadata.level() > Level::WARN || metadata.target() == AUDIT {
            return true;
        }
        let admission = self.0.limiter.admit(event, Instant::now());
        if admission == Admission::FirstSuppressed {
            self.wake_writer();
        }
        admission == Admission::Admitted
    }

    /// Lets the writer's thread look at the limiter again.
    fn wake_writer(&self) {
        // The lock orders this after a look that is in progress.
        drop(self.lock());
        self.0.added.notify_one();
    }

    /// Waits until all lines are written, at most this long. Whether they are.
    pub(super) fn flush(&self, limit: Duration) -> bool {
        self.0.limiter.report_all();
        let is_busy = |state: &mut QueueState| state.general.lines + state.audit.lines > 0;
        let waited = self.0.emptied.wait_timeout_while(self.lock(), limit, is_busy);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// Ends the writer's thread once it has written the lines.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.0.added.notify_one();
    }

    fn write_lines(&self, mut out: impl Write) {
        let mut reported = 0;
        while let Some(work) = self.next_work(reported) {
            match work {
                Work::Write(line) => self.write_line(&line, &mut out),
                Work::ReportSuppressed => self.0.limiter.report_due(Instant::now()),
                Work::ReportDropped(dropped) => {
                    let lines = dropped - reported;
                    warn!(lines, "log lines dropped; standard error was not read in time");
                    reported = dropped;
                }
            }
        }
    }

    /// The next work of the writer's thread; `None` at its end. `reported`: the dropped lines that were reported.
    fn next_work(&self, reported: u64) -> Option<Work> {
        let mut state = self.lock();
        loop {
            let due = self.0.limiter.next_report();
            let now = Instant::now();
            if due.is_some_and(|due| due <= now) {
                return Some(Work::ReportSuppressed);
            }
            if let Some(line) = state.waiting.pop_front() {
                return Some(Work::Write(line));
            }
            let dropped = self.0.stats.dropped();
            if dropped > reported {
                return Some(Work::ReportDropped(dropped));
            }
            if state.closed {
                return None;
            }
            state = match due {
                None => self.0.added.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(due) => {
                    let waited = self.0.added.wait_timeout(state, due.saturating_duration_since(now));
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    /// Writes a line. An audit line is tried until it is written; another one that is refused is dropped.
    fn write_line(&self, line: &Line, out: &mut impl Write) {
        let mut rest = &*line.text;
        while !rest.is_empty() {
            match out.write(rest) {
                Ok(written) if written > 0 => rest = &rest[written..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    std::thread::sleep(WOULD_BLOCK_PAUSE);
                }
                Ok(_) | Err(_) if line.kind == LineKind::Audit && !self.lock().closed => {
                    std::thread::sleep(self.0.limits.retry);
                }
                Ok(_) | Err(_) => {
                    self.0.stats.write_failed.fetch_add(1, Ordering::Relaxed);
                    break;
                }
            }
        }
        self.record_done(line);
    }

    fn record_done(&self, line: &Line) {
        let QueueLimits { lines, bytes, .. } = self.0.limits;
        let mut state = self.lock();
        match line.kind {
            LineKind::General | LineKind::Last => state.general.remove(line.text.len()),
            LineKind::Audit => {
                state.audit.remove(line.text.len());
                self.0.stats.audit_waiting.fetch_sub(1, Ordering::Relaxed);
                // Not at the first line, or the operator would stop and go on with each.
                if state.audit.lines <= lines / 2 && state.audit.bytes <= bytes / 2 {
                    self.0.stats.audit_blocked.store(false, Ordering::Relaxed);
                }
            }
        }
        if state.general.lines + state.audit.lines == 0 {
            self.0.emptied.notify_all();
        }
    }
}

/// Work of the writer's thread.
enum Work {
    Write(Line),
    /// Report lines that the limiter suppressed.
    ReportSuppressed,
    /// Report the number of lines dropped since the start.
    ReportDropped(u64),
}

/// Takes the lines of one event. The formatter writes each event at once.
pub(super) struct LineWriter {
    queue: LogQueue,
    kind: LineKind,
}

impl Write for LineWriter {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.queue.push(self.kind, text);
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for LogQueue {
    type Writer = LineWriter;

    fn make_writer(&self) -> LineWriter {
        LineWriter { queue: self.clone(), kind: LineKind::General }
    }

    fn make_writer_for(&self, event: &Metadata<'_>) -> LineWriter {
        let kind = if event.target() == AUDIT { LineKind::Audit } else { LineKind::General };
        LineWriter { queue: self.clone(), kind }
    }
}

#[cfg(test)]
mod tests;
