//! Limits how often one warning or error is logged, whatever caused it: a flood of odd messages must not become a flood
//! of lines. Metrics count each occurrence of what a line means.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing::callsite::Identifier;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, error, warn};

use super::queue::LogStats;

/// Most lines of one place in the code within [`WINDOW`].
pub(super) const MAX_LINES: u32 = 60;

/// From the first line of a place on.
pub(super) const WINDOW: Duration = Duration::from_mins(1);

/// Whether a line is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    Admitted,
    /// The first of this place and window that is not.
    FirstSuppressed,
    Suppressed,
}

/// Counts the lines of each place in the code.
#[derive(Debug)]
pub(super) struct LineLimiter {
    /// One entry for each warning in the code at most.
    callsites: Mutex<HashMap<Identifier, LineWindow>>,
    /// Some lines are suppressed and not reported.
    has_suppressed: AtomicBool,
    stats: Arc<LogStats>,
}

#[derive(Debug)]
struct LineWindow {
    end: Instant,
    lines: u32,
    suppressed: u64,
    line: RepeatedLine,
}

/// The identity of a suppressed line, for a reader.
#[derive(Clone, Debug)]
struct RepeatedLine {
    level: Level,
    source: &'static str,
    message: String,
}

impl LineLimiter {
    pub(super) fn new(stats: Arc<LogStats>) -> Self {
        Self { callsites: Mutex::default(), has_suppressed: AtomicBool::new(false), stats }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Identifier, LineWindow>> {
        self.callsites.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a line, and decides whether it is logged.
    pub(super) fn admit(&self, event: &Event<'_>, now: Instant) -> Admission {
        let mut callsites = self.lock();
        let window =
            callsites.entry(event.metadata().callsite()).or_insert_with(|| LineWindow::of(event, now));
        // A window with suppressed lines ends when they are reported.
        if window.end <= now && window.suppressed == 0 {
            *window = LineWindow::of(event, now);
        }
        if window.lines < MAX_LINES {
            window.lines += 1;
            return Admission::Admitted;
        }
        window.suppressed += 1;
        self.stats.record_suppressed();
        self.has_suppressed.store(true, Ordering::Relaxed);
        if window.suppressed == 1 { Admission::FirstSuppressed } else { Admission::Suppressed }
    }

    /// When the next report is due; `None` while nothing is suppressed.
    pub(super) fn next_report(&self) -> Option<Instant> {
        if !self.has_suppressed.load(Ordering::Relaxed) {
            return None;
        }
        self.lock().values().filter(|window| window.suppressed > 0).map(|window| window.end).min()
    }

    /// Logs how many lines were suppressed in the windows that have ended.
    pub(super) fn report_due(&self, now: Instant) {
        self.report(|window| window.end <= now);
    }

    /// Logs how many lines were suppressed, ended windows or not.
    pub(super) fn report_all(&self) {
        self.report(|_| true);
    }

    fn report(&self, is_due: impl Fn(&LineWindow) -> bool) {
        for (line, lines) in self.take(is_due) {
            let RepeatedLine { level, source, message } = line;
            if level == Level::ERROR {
                error!(lines, source, repeated = message, "repeated log lines suppressed");
            } else {
                warn!(lines, source, repeated = message, "repeated log lines suppressed");
            }
        }
    }

    /// Ends windows with suppressed lines. A report is logged after this, since it is a line itself.
    fn take(&self, is_due: impl Fn(&LineWindow) -> bool) -> Vec<(RepeatedLine, u64)> {
        let mut callsites = self.lock();
        let mut taken = Vec::new();
        callsites.retain(|_, window| {
            let ends = window.suppressed > 0 && is_due(window);
            if ends {
                taken.push((window.line.clone(), window.suppressed));
            }
            !ends
        });
        let is_left = callsites.values().any(|window| window.suppressed > 0);
        self.has_suppressed.store(is_left, Ordering::Relaxed);
        taken
    }
}

impl LineWindow {
    fn of(event: &Event<'_>, now: Instant) -> Self {
        let mut message = MessageVisitor::default();
        event.record(&mut message);
        let metadata = event.metadata();
        let line = RepeatedLine { level: *metadata.level(), source: metadata.target(), message: message.0 };
        Self { end: now + WINDOW, lines: 0, suppressed: 0, line }
    }
}

/// Reads an event's message.
#[derive(Default)]
struct MessageVisitor(String);

impl Visit for MessageVisitor {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};

    use super::*;

    /// Asks the limiter for each event, at a time that the test sets.
    #[derive(Clone)]
    struct AskingLayer {
        limiter: Arc<LineLimiter>,
        now: Arc<Mutex<Instant>>,
        admissions: Arc<Mutex<Vec<Admission>>>,
    }

    impl<S: tracing::Subscriber> Layer<S> for AskingLayer {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            let now = *self.now.lock().unwrap();
            self.admissions.lock().unwrap().push(self.limiter.admit(event, now));
        }
    }

    impl AskingLayer {
        fn new() -> Self {
            let limiter = Arc::new(LineLimiter::new(Arc::default()));
            Self { limiter, now: Arc::new(Mutex::new(Instant::now())), admissions: Arc::default() }
        }

        /// The admissions of the events in `log`.
        fn admissions(&self, log: impl FnOnce()) -> Vec<Admission> {
            let subscriber = tracing_subscriber::registry().with(self.clone());
            tracing::subscriber::with_default(subscriber, log);
            std::mem::take(&mut self.admissions.lock().unwrap())
        }

        fn advance(&self, by: Duration) {
            *self.now.lock().unwrap() += by;
        }

        fn now(&self) -> Instant {
            *self.now.lock().unwrap()
        }
    }

    fn warn_of(task: usize) {
        warn!(task, "odd message");
    }

    #[test]
    fn repeated_line_is_suppressed_and_counted_by_callsite() {
        let layer = AskingLayer::new();
        let admissions = layer.admissions(|| (0..MAX_LINES as usize + 40).for_each(warn_of));
        let admitted = admissions.iter().take_while(|admission| **admission == Admission::Admitted).count();
        assert_eq!(admitted, MAX_LINES as usize);
        assert_eq!(admissions[admitted], Admission::FirstSuppressed);
        assert!(admissions[admitted + 1..].iter().all(|admission| *admission == Admission::Suppressed));
        assert_eq!(layer.limiter.stats.suppressed(), 40);
        assert_eq!(layer.admissions(|| warn!("another message")), [Admission::Admitted]);
    }

    #[test]
    fn suppressed_lines_are_reported_when_their_window_ends() {
        let layer = AskingLayer::new();
        assert_eq!(layer.limiter.next_report(), None);
        layer.admissions(|| (0..MAX_LINES as usize + 7).for_each(warn_of));
        let end = layer.now() + WINDOW;
        assert_eq!(layer.limiter.next_report(), Some(end));
        layer.advance(WINDOW);
        let taken = layer.limiter.take(|window| window.end <= end);
        let [(line, 7)] = taken.as_slice() else { panic!("{taken:?}") };
        assert_eq!((line.message.as_str(), line.level), ("odd message", Level::WARN));
        assert_eq!(layer.limiter.next_report(), None);
        assert_eq!(layer.admissions(|| warn_of(1)), [Admission::Admitted]);
    }

    #[test]
    fn line_below_the_limit_is_never_suppressed() {
        let layer = AskingLayer::new();
        for _ in 0..3 {
            let admissions = layer.admissions(|| (0..MAX_LINES as usize).for_each(warn_of));
            assert!(admissions.iter().all(|admission| *admission == Admission::Admitted));
            layer.advance(WINDOW);
        }
        assert_eq!(layer.limiter.next_report(), None);
    }
}
