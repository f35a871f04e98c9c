//! Guarantees that a key waits at most once, runs at its earliest time, never runs concurrently and never starves.
//!
//! - **One run per key.** From [`take`](WorkQueue::take) to [`done`](WorkQueue::done) a key is processing. A key added
//!   meanwhile runs once afterwards, regardless of the number of adds.
//! - **The earliest run wins, and so does the most urgent priority.** Adds of a waiting key fold into its one run.
//! - **Backoff holds.** A key that failed or is deferred waits for its full delay; an add meanwhile folds into that run
//!   and does not bring it forward. An add brings a plain requeue ([`Requeue::After`]) forward.
//! - **Nothing starves.** Every 8th take goes to the key that has waited longest, whatever its priority.
//! - **An idle key costs nothing.** Success without a requeue drops the key, including its backoff.
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

use self::schedule::{Schedule, ScheduledRun};
use super::backoff::Backoff;
use super::lock;

/// The reason for a run, the most urgent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// A registration must be removed: its task is gone, or its role no longer allows it.
    Removal,
    /// An event about the key itself.
    Event,
    /// A change of the manifests.
    Manifest,
    /// The periodic sweep.
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

/// The next step for a key after a run. An add that arrived during the run is honoured in each case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requeue {
    /// Success: no further run until the key is added again. Resets the backoff.
    Forget,
    /// Success: run again after this delay, or earlier if added. Keeps the priority and resets the backoff.
    After(Duration),
    /// Failure: run again after the key's backoff, and not earlier.
    Backoff,
    /// A failure not caused by the key (its remote is down, for example): run again at this instant, and not earlier.
    /// The backoff neither grows nor resets.
    DeferUntil(Instant),
}

/// A key that was taken from the queue; return it with [`WorkQueue::done`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkItem<K> {
    /// The key to reconcile.
    pub key: K,
    /// The most urgent reason for this run.
    pub cause: Priority,
    /// The time since the key was due.
    pub waited: Duration,
}

/// Statistics of the queue, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueStats {
    /// Keys that are due.
    pub ready: usize,
    /// Keys that are not due yet: requeued, backing off or deferred.
    pub delayed: usize,
    /// Keys that are taken and not done.
    pub processing: usize,
    /// The waiting time of the key that has been ready longest; zero if no key is ready.
    pub oldest_waiting: Duration,
    /// The duration of the longest run in progress; zero if no key is processing.
    pub longest_running: Duration,
    /// Runs requested since the start, including requeues. An add that folds into a pending run does not count, as in
    /// the work queues of Kubernetes controllers.
    pub adds: u64,
    /// Runs that ended in [`Requeue::Backoff`] since the start.
    pub retries: u64,
}

/// A queue of keys to reconcile, shared by its clones. Operations may run concurrently.
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
    /// Creates an empty queue whose failing keys wait by `backoff`, with jitter from `seed`.
    pub fn new(backoff: Backoff, seed: u64) -> Self {
        let schedule = Mutex::new(Schedule::new(backoff, seed));
        Self { inner: Arc::new(Inner { schedule, changed: Notify::new() }) }
    }

    /// Requests a run of `key` now.
    pub fn add(&self, key: K, priority: Priority) {
        self.add_at(key, priority, Instant::now());
    }

    /// Requests a run of `key` after `delay`.
    pub fn add_after(&self, key: K, priority: Priority, delay: Duration) {
        self.add_at(key, priority, super::saturating_add(Instant::now(), delay));
    }

    /// Requests a run of `key` at the instant `at`. If the key has a pending run, the earlier time and the more urgent
    /// priority win. The early run replaces the later one; if the later run is still needed, the early run requests it
    /// again ([`Requeue::After`]).
    pub fn add_at(&self, key: K, priority: Priority, at: Instant) {
        lock(&self.inner.schedule).add(Instant::now(), key, ScheduledRun { at, priority });
        self.inner.changed.notify_waiters();
    }

    /// Takes the next key, if one is ready.
    pub fn take(&self) -> Option<WorkItem<K>> {
        lock(&self.inner.schedule).take(Instant::now())
    }

    /// Waits for the next key and takes it. Dropping the future loses no key.
    pub async fn next(&self) -> WorkItem<K> {
        loop {
            // Created before the check, so that an add in between wakes this waiter.
            let changed = self.inner.changed.notified();
            let due = {
                let mut schedule = lock(&self.inner.schedule);
                if let Some(item) = schedule.take(Instant::now()) {
                    return item;
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

    /// Returns a taken key with its next step. Has no effect on a key that is not processing.
    pub fn done(&self, key: &K, next: Requeue) {
        lock(&self.inner.schedule).done(Instant::now(), key, next);
        self.inner.changed.notify_waiters();
    }

    /// The keys that are not due yet: requeued, backing off or deferred.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use ecs_mesh_controller::{Backoff, Priority, WorkQueue};
    ///
    /// let queue = WorkQueue::new(Backoff { min: Duration::from_secs(1), max: Duration::from_secs(8) }, 1);
    /// queue.add("now", Priority::Event);
    /// queue.add_after("later", Priority::Event, Duration::from_secs(60));
    /// assert_eq!(queue.delayed(), ["later"]);
    /// ```
    pub fn delayed(&self) -> Vec<K> {
        lock(&self.inner.schedule).delayed(Instant::now())
    }

    /// The current statistics.
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
