//! Whether every loop makes progress.
//!
//! A loop says, each time round, within what time it will be round again ([`Heartbeat::beat`]), or that it waits for work
//! ([`Heartbeat::rest`]). One that stays silent for longer is stuck, and so is one that ended without being asked to: then
//! only a restart helps. A control plane that is down or a queue that cannot be read stops no loop, so it does not show
//! here; a restart would not mend it.

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

/// What is known of one loop.
#[derive(Clone, Copy, Debug)]
enum LoopState {
    /// It came round at `at` and said that it would be back by `within`.
    Due { at: Instant, within: Duration },
    /// It waits for work.
    Idle,
    /// It ended at this time.
    Ended { at: Instant },
}

/// A loop that makes no progress.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StuckLoop {
    /// Which loop.
    pub name: String,
    /// How long ago it last made progress.
    pub last_progress: Duration,
    /// Within what time it should have; `None` where it ended.
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

    /// A loop begins. A loop that begins again takes the place of the one of its name.
    pub fn register(&self, name: impl Into<String>) -> Heartbeat {
        let pulse = Heartbeat(Some((self.clone(), name.into())));
        pulse.idle();
        pulse
    }

    /// From when this is cancelled on, loops end because they are told to.
    pub fn set_stop_token(&self, stop: CancellationToken) {
        self.lock().stop = Some(stop);
    }

    /// Whether the process was asked to stop.
    pub fn is_stopping(&self) -> bool {
        self.lock().stop.as_ref().is_some_and(CancellationToken::is_cancelled)
    }

    /// The loops that make no progress, by name. A process that is stopping has none: it ends by its own deadline.
    pub fn stuck(&self) -> Vec<StuckLoop> {
        if self.is_stopping() {
            return Vec::new();
        }
        let now = Instant::now();
        let stuck = |(name, life): (&String, &LoopState)| match *life {
            LoopState::Idle => None,
            LoopState::Due { at, within } => {
                let last_progress = now.saturating_duration_since(at);
                (last_progress > within).then(|| StuckLoop { name: name.clone(), last_progress, within: Some(within) })
            }
            LoopState::Ended { at } => {
                let last_progress = now.saturating_duration_since(at);
                Some(StuckLoop { name: name.clone(), last_progress, within: None })
            }
        };
        self.lock().by_name.iter().filter_map(stuck).collect()
    }

    fn set(&self, name: &str, life: LoopState) {
        let mut loops = self.lock();
        match loops.by_name.get_mut(name) {
            Some(known) => *known = life,
            None => {
                loops.by_name.insert(name.to_owned(), life);
            }
        }
    }
}

/// One loop's pulse. The loop keeps it: when it is dropped, the loop has ended. The default one is heard by nobody.
#[derive(Debug, Default)]
pub struct Heartbeat(Option<(Health, String)>);

impl Heartbeat {
    /// Progress was made, and will be again within this time.
    pub fn expect_within(&self, within: Duration) {
        if let Some((health, name)) = &self.0 {
            health.set(name, LoopState::Due { at: Instant::now(), within });
        }
    }

    /// The loop ends because there is nothing left for it to do.
    pub fn unregister(mut self) {
        if let Some((health, name)) = self.0.take() {
            health.lock().by_name.remove(&name);
        }
    }

    /// There is nothing to do for now, for as long as that may last.
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

    fn words(health: &Health) -> Vec<String> {
        health.stuck().iter().map(ToString::to_string).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn late_loop_is_reported_with_its_delay() {
        let health = Health::default();
        let (sweep, _roles) = (health.register("sweep"), health.register("roles"));
        sweep.expect_within(60 * SECOND);
        advance(60 * SECOND).await;
        assert_eq!(words(&health), [""; 0]);
        advance(10 * SECOND).await;
        assert_eq!(words(&health), ["sweep: no progress for 70 s (limit 60 s)"]);
        sweep.expect_within(SECOND);
        assert_eq!(words(&health), [""; 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn idle_loop_is_never_stuck() {
        let health = Health::default();
        let deleter = health.register("deleter");
        deleter.expect_within(SECOND);
        deleter.idle();
        advance(100_000 * SECOND).await;
        assert_eq!(words(&health), [""; 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn exited_loop_is_stuck_until_restarted() {
        let health = Health::default();
        drop(health.register("sweep"));
        advance(3 * SECOND).await;
        assert_eq!(words(&health), ["sweep: exited unexpectedly 3 s ago"]);
        let _again = health.register("sweep");
        assert_eq!(words(&health), [""; 0]);
    }

    #[test]
    fn unregistered_loop_is_not_reported() {
        let health = Health::default();
        health.register("identity consul").unregister();
        assert_eq!(words(&health), [""; 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_stuck_in_a_process_that_is_stopping() {
        let (health, stop) = (Health::default(), CancellationToken::new());
        health.set_stop_token(stop.clone());
        let pulse = health.register("sweep");
        drop(health.register("roles"));
        pulse.expect_within(SECOND);
        advance(2 * SECOND).await;
        assert_eq!((health.stuck().len(), health.is_stopping()), (2, false));
        stop.cancel();
        assert_eq!((health.stuck().len(), health.is_stopping()), (0, true));
    }
}
