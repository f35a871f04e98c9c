//! Guarantees that the first SIGTERM or SIGINT asks for an orderly stop and that a second one, which a person sends, can
//! be told apart.
//!
//! ECS sends SIGTERM and, after the task's stop timeout, SIGKILL; a person at a terminal sends SIGINT, and again
//! when it takes too long. Supervisors may pass on one stop twice (an init that signals the group as well as its child):
//! what comes right behind the first is the same stop, and cuts no drain short.

use std::future::Future;
use std::io;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::saturating_add;

/// Nobody loses patience sooner.
const REPEAT_SIGNAL_WINDOW: Duration = Duration::from_secs(1);

/// What the process was asked to do by signals.
#[derive(Clone, Debug)]
pub struct Signals {
    /// Cancelled by the first signal: take no more work, finish what is in flight, leave.
    pub stop: CancellationToken,
    /// Cancelled by a second signal, at least a second after the first: leave now. Acting on it is the caller's.
    pub immediate: CancellationToken,
}

impl Signals {
    /// Listens from now on, for the life of the runtime. The signals' default action, ending the process, no
    /// longer happens.
    ///
    /// # Errors
    /// When the system refuses to install a handler.
    pub fn listen() -> io::Result<Self> {
        let terminate = signal(SignalKind::terminate())?;
        let interrupt = signal(SignalKind::interrupt())?;
        let signals = Self { stop: CancellationToken::new(), immediate: CancellationToken::new() };
        tokio::spawn(signals.clone().follow(terminate, interrupt));
        Ok(signals)
    }

    async fn follow(self, mut terminate: Signal, mut interrupt: Signal) {
        let mut asked = StopRequest::default();
        while !self.immediate.is_cancelled() {
            let name = tokio::select! {
                biased;
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            };
            match asked.on_signal() {
                SignalMeaning::Stop => {
                    tracing::info!(signal = name, "stopping");
                    self.stop.cancel();
                }
                SignalMeaning::SameStop => {
                    tracing::info!(
                        signal = name,
                        "already stopping; send it again after a second to stop at once"
                    );
                }
                SignalMeaning::AtOnce => {
                    tracing::info!(signal = name, "stopping at once");
                    self.immediate.cancel();
                }
            }
        }
    }
}

/// When the stop was first asked for.
#[derive(Debug, Default)]
struct StopRequest(Option<Instant>);

/// What a signal means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SignalMeaning {
    Stop,
    /// The one that was heard, once more.
    SameStop,
    AtOnce,
}

impl StopRequest {
    fn on_signal(&mut self) -> SignalMeaning {
        match self.0 {
            None => {
                self.0 = Some(Instant::now());
                SignalMeaning::Stop
            }
            Some(first) if first.elapsed() < REPEAT_SIGNAL_WINDOW => SignalMeaning::SameStop,
            Some(_) => SignalMeaning::AtOnce,
        }
    }
}

/// A point in time by which something must be over.
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

    /// What is left; zero once it has passed.
    pub fn remaining(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    /// Whether nothing is left.
    pub fn has_passed(self) -> bool {
        self.remaining().is_zero()
    }

    /// Waits until it has passed.
    pub async fn passed(self) {
        tokio::time::sleep_until(self.0).await;
    }

    /// What `work` gives, or `None` when the deadline comes first; `work` is dropped then.
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
        let mut asked = StopRequest::default();
        assert_eq!(asked.on_signal(), SignalMeaning::Stop);
        assert_eq!(asked.on_signal(), SignalMeaning::SameStop);
        tokio::time::advance(REPEAT_SIGNAL_WINDOW.saturating_sub(Duration::from_millis(1))).await;
        assert_eq!(asked.on_signal(), SignalMeaning::SameStop);
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(asked.on_signal(), SignalMeaning::AtOnce, "somebody has lost patience");
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
    async fn a_deadline_counts_down_and_cuts() {
        let deadline = Deadline::after(Duration::from_secs(5));
        assert_eq!(deadline.limit(async { 1 }).await, Some(1));
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(deadline.remaining(), Duration::from_secs(3));
        assert_eq!(deadline.limit(std::future::pending::<()>()).await, None);
        assert!(deadline.has_passed());
        deadline.passed().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_without_end_does_not_overflow() {
        assert!(!Deadline::after(Duration::MAX).has_passed());
    }
}
