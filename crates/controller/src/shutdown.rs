//! Guarantees that the first SIGTERM or SIGINT starts a graceful shutdown and that a second request ends it immediately.
//!
//! ECS sends SIGTERM and, after the task's stop timeout, SIGKILL. A person at a terminal sends SIGINT, and repeats it if
//! the shutdown takes too long. A supervisor may deliver one stop twice (an init that signals the process group as well
//! as its child): a signal within a second of the first is the same request and does not shorten the shutdown.

use std::future::Future;
use std::io;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::saturating_add;

/// A second signal within this window is treated as the same request.
const REPEAT_SIGNAL_WINDOW: Duration = Duration::from_secs(1);

/// The stop requests that signals have made.
#[derive(Clone, Debug)]
pub struct Signals {
    /// Cancelled by the first signal: start no more work, finish the runs in flight, exit.
    pub stop: CancellationToken,
    /// Cancelled by a second signal, at least a second after the first: exit now. The caller acts on it.
    pub immediate: CancellationToken,
}

impl Signals {
    /// Installs the signal handlers for the life of the runtime. They replace the default action, which ends the
    /// process.
    ///
    /// # Errors
    /// If the system rejects a handler.
    pub fn listen() -> io::Result<Self> {
        let terminate = signal(SignalKind::terminate())?;
        let interrupt = signal(SignalKind::interrupt())?;
        let signals = Self { stop: CancellationToken::new(), immediate: CancellationToken::new() };
        tokio::spawn(signals.clone().follow(terminate, interrupt));
        Ok(signals)
    }

    async fn follow(self, mut terminate: Signal, mut interrupt: Signal) {
        let mut request = StopRequest::default();
        while !self.immediate.is_cancelled() {
            let name = tokio::select! {
                biased;
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            };
            match request.on_signal() {
                SignalMeaning::Stop => {
                    tracing::info!(signal = name, "stopping");
                    self.stop.cancel();
                }
                SignalMeaning::SameStop => {
                    tracing::info!(signal = name, "already stopping; repeat the signal to stop immediately");
                }
                SignalMeaning::Immediate => {
                    tracing::info!(signal = name, "stopping immediately");
                    self.immediate.cancel();
                }
            }
        }
    }
}

/// The time of the first stop request.
#[derive(Debug, Default)]
struct StopRequest(Option<Instant>);

/// The meaning of a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SignalMeaning {
    Stop,
    /// A repetition of the first request.
    SameStop,
    Immediate,
}

impl StopRequest {
    fn on_signal(&mut self) -> SignalMeaning {
        match self.0 {
            None => {
                self.0 = Some(Instant::now());
                SignalMeaning::Stop
            }
            Some(first) if first.elapsed() < REPEAT_SIGNAL_WINDOW => SignalMeaning::SameStop,
            Some(_) => SignalMeaning::Immediate,
        }
    }
}

/// The instant by which an operation must end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(Instant);

impl Deadline {
    /// The deadline `by` from now.
    pub fn after(by: Duration) -> Self {
        Self(saturating_add(Instant::now(), by))
    }

    /// The instant itself.
    pub fn instant(self) -> Instant {
        self.0
    }

    /// The time left; zero once the deadline has passed.
    pub fn remaining(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    /// Whether the deadline has passed.
    pub fn has_passed(self) -> bool {
        self.remaining().is_zero()
    }

    /// Waits until the deadline has passed.
    pub async fn passed(self) {
        tokio::time::sleep_until(self.0).await;
    }

    /// Returns the output of `work`, or drops `work` and returns `None` at the deadline.
    pub async fn limit<F: Future>(self, work: F) -> Option<F::Output> {
        tokio::time::timeout_at(self.0, work).await.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn send_to_ourselves(signal: &str) {
        let kill = format!("kill {signal} {}", std::process::id());
        assert!(std::process::Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    }

    #[tokio::test(start_paused = true)]
    async fn repeated_signal_within_window_is_one_stop() {
        let mut request = StopRequest::default();
        assert_eq!(request.on_signal(), SignalMeaning::Stop);
        assert_eq!(request.on_signal(), SignalMeaning::SameStop);
        tokio::time::advance(REPEAT_SIGNAL_WINDOW.saturating_sub(Duration::from_millis(1))).await;
        assert_eq!(request.on_signal(), SignalMeaning::SameStop);
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(request.on_signal(), SignalMeaning::Immediate);
    }

    #[tokio::test(start_paused = true)]
    async fn second_signal_stops_immediately() {
        let signals = Signals::listen().unwrap();
        send_to_ourselves("-TERM");
        signals.stop.cancelled().await;
        assert!(!signals.immediate.is_cancelled());
        tokio::time::advance(REPEAT_SIGNAL_WINDOW).await;
        send_to_ourselves("-INT");
        signals.immediate.cancelled().await;
    }

    #[tokio::test(start_paused = true)]
    async fn deadline_limits_work_to_the_time_left() {
        let deadline = Deadline::after(Duration::from_secs(5));
        assert_eq!(deadline.limit(async { 1 }).await, Some(1));
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(deadline.remaining(), Duration::from_secs(3));
        assert_eq!(deadline.limit(std::future::pending::<()>()).await, None);
        assert!(deadline.has_passed());
        deadline.passed().await;
    }

    #[tokio::test(start_paused = true)]
    async fn deadline_saturates_at_the_longest_duration() {
        assert!(!Deadline::after(Duration::MAX).has_passed());
    }
}
