//! Guarantees that a key waits at most once, runs at its earliest time, never twice at once, and never starves.
//!
//! - **Never twice at once.** From [`take`](Queue::take) to [`done`](Queue::done) a key is processing. What is added
//!   meanwhile runs once afterwards, however often it was added.
//! - **The earliest run wins, and so does the most urgent priority.** Adds of a waiting key fold into its one run.
//! - **Backoff holds.** A key that failed, or is held, waits out its time; an add meanwhile is remembered by that
//!   run and does not bring it forward. A plain requeue ([`Requeue::After`]) is brought forward.
//! - **Nothing starves.** Every 8th take goes to the key that has waited longest, whatever its priority.
//! - **An idle key costs nothing.** Success without a requeue forgets the key wholly, its backoff included.
//!
//! Every operation is O(log n) in the number of keys that wait or run.

mod schedule;

#[cfg(test)]
mod model_test;
#[cfg(test)]
mod tests;

use std::fmt::Debug;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use self::schedule::{ScheduledRun, Schedule};
use super::backoff::Backoff;
use super::lock;

/// Why a key runs, the most urgent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// Something must be taken away: a task that is gone, a role that no longer allows it.
    Removal,
    /// Something was heard of the key itself.
    Event,
    /// What users declared changed.
    Manifest,
    /// The periodic look at everything.
    Sweep,
}

impl Priority {
    /// Every priority, the most urgent first.
    pub const ALL: [Self; 4] = [Self::Removal, Self::Event, Self::Manifest, Self::Sweep];

    /// The name as a metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Removal => "removal",
            Self::Event => "event",
            Self::Manifest => "manifest",
            Self::Sweep => "sweep",
        }
    }
}

/// What becomes of a key after a run. An add that came during the run is honoured in each case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requeue {
    /// Success: nothing more to do until the key is added again. Forgets the backoff.
    Forget,
    /// Success: run again after this long, or earlier when added. Keeps the priority. Forgets the backoff.
    After(Duration),
    /// Failure: run again when the key's backoff is over, and not earlier.
    Backoff,
    /// Not the key's fault (its remote is down, say): run again at this instant, and not earlier. The backoff
    /// neither grows nor is forgotten.
    DeferUntil(Instant),
}

/// A key handed out to be worked on; give it back with [`WorkQueue::done`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkItem<K> {
    /// What to work on.
    pub key: K,
    /// The most urgent reason for this run.
    pub cause: Priority,
    /// How long the key has waited since it was due.
    pub waited: Duration,
}

/// The queue in numbers, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueStats {
    /// Keys that could run now.
    pub ready: usize,
    /// Keys whose time has not come: requeued, backing off or held.
    pub delayed: usize,
    /// Keys handed out and not yet given back.
    pub processing: usize,
    /// How long the key has waited that has been ready longest; zero when none is ready.
    pub oldest_waiting: Duration,
    /// How long the longest run under way has taken; zero when none is.
    pub longest_running: Duration,
    /// Runs asked for since the start, requeues included. An add that folds into a run still to come counts as
    /// none, as in the workqueues of Kubernetes controllers.
    pub adds: u64,
    /// Runs that ended in [`Requeue::Backoff`] since the start.
    pub retries: u64,
}

/// A queue of keys to work on, shared by its clones. Tasks may add, take and give back at the same time.
#[derive(Debug)]
pub struct WorkQueue<K> {
    inner: Arc<Inner<K>>,
}

#[derive(Debug)]
struct Inner<K> {
    schedule: Mutex<Schedule<K>>,
    changed: Notify,
}

impl<K> Clone for WorkQueue<K> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<K: Clone + Ord + Debug + Send> WorkQueue<K> {
    /// An empty queue whose failing keys wait by `backoff`, with jitter from `seed`.
    pub fn new(backoff: Backoff, seed: u64) -> Self {
        let schedule = Mutex::new(Schedule::new(backoff, seed));
        Self { inner: Arc::new(Inner { schedule, changed: Notify::new() }) }
    }

    /// Asks for a run of `key` now.
    pub fn add(&self, key: K, priority: Priority) {
        self.add_at(key, priority, Instant::now());
    }

    /// Asks for a run of `key` after `delay`.
    pub fn add_after(&self, key: K, priority: Priority, delay: Duration) {
        self.add_at(key, priority, super::saturating_add(Instant::now(), delay));
    }

    /// Asks for a run of `key` at the instant `at`. If it has a run ahead of it already, the earlier time and the
    /// more urgent priority win: an early run stands for the later one too, and whoever still needs the later one
    /// asks for it again from that run ([`Requeue::After`]).
    pub fn add_at(&self, key: K, priority: Priority, at: Instant) {
        lock(&self.inner.schedule).add(Instant::now(), key, ScheduledRun { at, priority });
        self.inner.changed.notify_waiters();
    }

    /// The next key to work on, if one is ready.
    pub fn take(&self) -> Option<WorkItem<K>> {
        lock(&self.inner.schedule).take(Instant::now())
    }

    /// Waits for the next key to work on. Dropping the future loses nothing.
    pub async fn next(&self) -> WorkItem<K> {
        loop {
            // Made before looking, so that an add in between is heard.
            let changed = self.inner.changed.notified();
            let due = {
                let mut schedule = lock(&self.inner.schedule);
                if let Some(taken) = schedule.take(Instant::now()) {
                    return taken;
                }
                schedule.next_due()
            };
            tokio::select! {
                biased;
                () = changed => {}
                () = sleep_until(due) => {}
            }
        }
    }

    /// Gives back a key that was taken and says what becomes of it. Without effect on a key that isn't out.
    pub fn done(&self, key: &K, next: Requeue) {
        lock(&self.inner.schedule).done(Instant::now(), key, next);
        self.inner.changed.notify_waiters();
    }

    /// The queue in numbers.
    pub fn stats(&self) -> QueueStats {
        lock(&self.inner.schedule).stats(Instant::now())
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
