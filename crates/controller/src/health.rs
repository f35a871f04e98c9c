//! Whether every loop makes progress.
//!
//! A loop says, each time round, within what time it will be round again ([`Pulse::beat`]), or that it waits for work
//! ([`Pulse::rest`]). One that stays silent for longer is stuck, and so is one that ended without being asked to: then
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
    by_name: BTreeMap<String, Life>,
    stop: Option<CancellationToken>,
}

/// What is known of one loop.
#[derive(Clone, Copy, Debug)]
enum Life {
    /// It came round at `at` and said that it would be back by `within`.
    Beats { at: Instant, within: Duration },
    /// It waits for work.
    Rests,
    /// It ended at this time.
    Ended { at: Instant },
}

/// A loop that makes no progress.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stuck {
    /// Which loop.
    pub name: String,
    /// How long ago it last made progress.
    pub silent: Duration,
    /// Within what time it should have; `None` where it ended.
    pub within: Option<Duration>,
}

impl fmt::Display for Stuck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, silent, within } = self;
        match within {
            Some(within) => write!(
                f,
                "{name} has made no progress for {} s, and should within {} s",
                silent.as_secs(),
                within.as_secs()
            ),
            None => write!(f, "{name} ended by itself {} s ago", silent.as_secs()),
        }
    }
}

impl Health {
    fn lock(&self) -> MutexGuard<'_, Loops> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A loop begins. A loop that begins again takes the place of the one of its name.
    pub fn pulse(&self, name: impl Into<String>) -> Pulse {
        let pulse = Pulse(Some((self.clone(), name.into())));
        pulse.rest();
        pulse
    }

    /// From when this is cancelled on, loops end because they are told to.
    pub fn ends_with(&self, stop: CancellationToken) {
        self.lock().stop = Some(stop);
    }

    /// Whether the process was asked to stop.
    pub fn is_stopping(&self) -> bool {
        self.lock().stop.as_ref().is_some_and(CancellationToken::is_cancelled)
    }

    /// The loops that make no progress, by name. A process that is stopping has none: it ends by its own deadline.
    pub fn stuck(&self) -> Vec<Stuck> {
        if self.is_stopping() {
            return Vec::new();
        }
        let now = Instant::now();
        let stuck = |(name, life): (&String, &Life)| match *life {
            Life::Rests => None,
            Life::Beats { at, within } => {
                let silent = now.saturating_duration_since(at);
                (silent > within).then(|| Stuck { name: name.clone(), silent, within: Some(within) })
            }
            Life::Ended { at } => {
                let silent = now.saturating_duration_since(at);
                Some(Stuck { name: name.clone(), silent, within: None })
            }
        };
        self.lock().by_name.iter().filter_map(stuck).collect()
    }

    fn set(&self, name: &str, life: Life) {
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
pub struct Pulse(Option<(Health, String)>);

impl Pulse {
    /// Progress was made, and will be again within this time.
    pub fn beat(&self, within: Duration) {
        if let Some((health, name)) = &self.0 {
            health.set(name, Life::Beats { at: Instant::now(), within });
        }
    }

    /// The loop ends because there is nothing left for it to do.
    pub fn retire(mut self) {
        if let Some((health, name)) = self.0.take() {
            health.lock().by_name.remove(&name);
        }
    }

    /// There is nothing to do for now, for as long as that may last.
    pub fn rest(&self) {
        if let Some((health, name)) = &self.0 {
            health.set(name, Life::Rests);
        }
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        if let Some((health, name)) = &self.0 {
            health.set(name, Life::Ended { at: Instant::now() });
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
    async fn a_loop_that_does_not_come_round_in_time_is_named_with_since_when() {
        let health = Health::default();
        let (sweep, _roles) = (health.pulse("sweep"), health.pulse("roles"));
        sweep.beat(60 * SECOND);
        advance(60 * SECOND).await;
        assert_eq!(words(&health), [""; 0]);
        advance(10 * SECOND).await;
        assert_eq!(words(&health), ["sweep has made no progress for 70 s, and should within 60 s"]);
        sweep.beat(SECOND);
        assert_eq!(words(&health), [""; 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_waits_for_work_may_wait_for_ever() {
        let health = Health::default();
        let deleter = health.pulse("deleter");
        deleter.beat(SECOND);
        deleter.rest();
        advance(100_000 * SECOND).await;
        assert_eq!(words(&health), [""; 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_ends_by_itself_is_stuck_and_one_that_begins_again_is_not() {
        let health = Health::default();
        drop(health.pulse("sweep"));
        advance(3 * SECOND).await;
        assert_eq!(words(&health), ["sweep ended by itself 3 s ago"]);
        let _again = health.pulse("sweep");
        assert_eq!(words(&health), [""; 0]);
    }

    #[test]
    fn a_loop_that_is_not_needed_any_more_is_forgotten() {
        let health = Health::default();
        health.pulse("identities of consul").retire();
        assert_eq!(words(&health), [""; 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_stuck_in_a_process_that_is_stopping() {
        let (health, stop) = (Health::default(), CancellationToken::new());
        health.ends_with(stop.clone());
        let pulse = health.pulse("sweep");
        drop(health.pulse("roles"));
        pulse.beat(SECOND);
        advance(2 * SECOND).await;
        assert_eq!((health.stuck().len(), health.is_stopping()), (2, false));
        stop.cancel();
        assert_eq!((health.stuck().len(), health.is_stopping()), (0, true));
    }
}
