//! Detects loops that no longer make progress.
//!
//! In each iteration a loop announces when its next heartbeat is due ([`Heartbeat::expect_within`]), or that it waits for
//! work ([`Heartbeat::idle`]). A loop is stuck if its heartbeat is overdue or if it exited unexpectedly; only a restart
//! helps then. A control plane that is down or a queue that cannot be read stops no loop and is not reported here: a
//! restart would not help.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The loops of one process. Shared by its clones.
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<Mutex<Loops>>);

#[derive(Debug, Default)]
struct Loops {
    by_name: BTreeMap<String, LoopState>,
    stop: Option<CancellationToken>,
}

/// The last state that a loop reported.
#[derive(Clone, Copy, Debug)]
enum LoopState {
    /// The loop made progress at `at`; its next heartbeat is due `within` that time.
    Due { at: Instant, within: Duration },
    /// The loop waits for work.
    Idle,
    /// The loop exited.
    Ended { at: Instant },
}

/// A loop that makes no progress.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StuckLoop {
    /// The loop's name.
    pub name: String,
    /// The time since the last progress.
    pub last_progress: Duration,
    /// The time within which progress was due; `None` if the loop exited.
    pub within: Option<Duration>,
}

impl fmt::Display for StuckLoop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, last_progress, within } = self;
        match within {
            Some(within) => write!(
                f,
                "{name}: no progress for {} s (limit {} s)",
                last_progress.as_secs(),
                within.as_secs()
            ),
            None => write!(f, "{name}: exited unexpectedly {} s ago", last_progress.as_secs()),
        }
    }
}

impl Health {
    fn lock(&self) -> MutexGuard<'_, Loops> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers a loop. A restarted loop replaces the previous loop of that name.
    pub fn register(&self, name: impl Into<String>) -> Heartbeat {
        let heartbeat = Heartbeat(Some((self.clone(), name.into())));
        heartbeat.idle();
        heartbeat
    }

    /// After `stop` is cancelled, exiting loops are not reported as stuck.
    pub fn set_stop_token(&self, stop: CancellationToken) {
        self.lock().stop = Some(stop);
    }

    /// Whether the process is shutting down.
    pub fn is_stopping(&self) -> bool {
        self.lock().stop.as_ref().is_some_and(CancellationToken::is_cancelled)
    }

    /// The loops that make no progress, by name. Empty during shutdown, which has its own deadline.
    pub fn stuck(&self) -> Vec<StuckLoop> {
        if self.is_stopping() {
            return Vec::new();
        }
        let now = Instant::now();
        let stuck = |(name, state): (&String, &LoopState)| match *state {
            LoopState::Idle => None,
            LoopState::Due { at, within } => {
                let last_progress = now.saturating_duration_since(at);
                (last_progress > within).then(|| StuckLoop {
                    name: name.clone(),
                    last_progress,
                    within: Some(within),
                })
            }
            LoopState::Ended { at } => {
                let last_progress = now.saturating_duration_since(at);
                Some(StuckLoop { name: name.clone(), last_progress, within: None })
            }
        };
        self.lock().by_name.iter().filter_map(stuck).collect()
    }

    fn set(&self, name: &str, state: LoopState) {
        let mut loops = self.lock();
        match loops.by_name.get_mut(name) {
            Some(known) => *known = state,
            None => {
                loops.by_name.insert(name.to_owned(), state);
            }
        }
    }
}

/// The heartbeat of one loop. The loop owns it: dropping it reports that the loop exited. The default heartbeat reports
/// nothing.
#[derive(Debug, Default)]
pub struct Heartbeat(Option<(Health, String)>);

impl Heartbeat {
    /// Reports progress and that the next heartbeat is due within this time.
    pub fn expect_within(&self, within: Duration) {
        if let Some((health, name)) = &self.0 {
            health.set(name, LoopState::Due { at: Instant::now(), within });
        }
    }

    /// Ends the loop without reporting it as stuck: its work is complete.
    pub fn unregister(mut self) {
        if let Some((health, name)) = self.0.take() {
            health.lock().by_name.remove(&name);
        }
    }

    /// Reports that the loop waits for work, without a time limit.
    pub fn idle(&self) {
        if let Some((health, name)) = &self.0 {
            health.set(name, LoopState::Idle);
        }
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        if let Some((health, name)) = &self.0 {
            health.set(name, LoopState::Ended { at: Instant::now() });
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn messages(health: &Health) -> Vec<String> {
        health.stuck().iter().map(ToString::to_string).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn late_loop_is_reported_with_its_delay() {
        let health = Health::default();
        let (sweep, _roles) = (health.register("sweep"), health.register("roles"));
        sweep.expect_within(60 * SECOND);
        advance(60 * SECOND).await;
        assert_eq!(messages(&health), [""; 0]);
        advance(10 * SECOND).await;
        assert_eq!(messages(&health), ["sweep: no progress for 70 s (limit 60 s)"]);
        sweep.expect_within(SECOND);
        assert_eq!(messages(&health), [""; 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn idle_loop_is_never_stuck() {
        let health = Health::default();
        let deleter = health.register("deleter");
        deleter.expect_within(SECOND);
        deleter.idle();
        advance(100_000 * SECOND).await;
        assert_eq!(messages(&health), [""; 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn exited_loop_is_stuck_until_restarted() {
        let health = Health::default();
        drop(health.register("sweep"));
        advance(3 * SECOND).await;
        assert_eq!(messages(&health), ["sweep: exited unexpectedly 3 s ago"]);
        let _restarted = health.register("sweep");
        assert_eq!(messages(&health), [""; 0]);
    }

    #[test]
    fn unregistered_loop_is_not_reported() {
        let health = Health::default();
        health.register("identity consul").unregister();
        assert_eq!(messages(&health), [""; 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn no_loop_is_stuck_during_shutdown() {
        let (health, stop) = (Health::default(), CancellationToken::new());
        health.set_stop_token(stop.clone());
        let heartbeat = health.register("sweep");
        drop(health.register("roles"));
        heartbeat.expect_within(SECOND);
        advance(2 * SECOND).await;
        assert_eq!((health.stuck().len(), health.is_stopping()), (2, false));
        stop.cancel();
        assert_eq!((health.stuck().len(), health.is_stopping()), (0, true));
    }
}
