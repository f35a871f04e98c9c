//! Guarantees bounded concurrency, at most one reconcile per key, and that no reconcile affects another.
//!
//! - **A panic costs one key one retry.** The panic is caught and counted, and the key backs off; other keys continue.
//! - **A shutdown ends by its deadline.** After the token is cancelled no key is taken. Runs in flight may finish until
//!   the deadline and are then cancelled at their next await. Their keys return to the queue, so that a controller
//!   started later on the same queue runs them.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::queue::{Priority, Requeue, WorkItem, WorkQueue};
use super::shutdown::Deadline;

/// Brings the object of one key to its desired state.
#[async_trait]
pub trait Reconciler<K>: Send + Sync {
    /// Runs once for `key`, never concurrently for the same key. The run may be cancelled at any await, as by a crash:
    /// a partial run must be safe to leave and to repeat.
    async fn reconcile(&self, key: &K, cause: Priority) -> Requeue;
}

/// Observes the controller's runs, for metrics. Called on the controller's own task, so implementations must be fast.
pub trait ControllerObserver: Send + Sync {
    /// A run starts, for a key that has `waited` since it was due.
    fn on_start(&self, cause: Priority, waited: Duration) {
        let _ = (cause, waited);
    }

    /// A run took `duration` and ended with `result`, one of [`RUN_RESULTS`].
    fn on_result(&self, duration: Duration, result: &'static str);
}

/// Every result that a [`ControllerObserver`] receives: `success`, `requeue_after`, `error` (backs off), `deferred`,
/// `panic` (backs off), `timeout` (backs off), `cancelled` (by the deadline of a shutdown).
pub const RUN_RESULTS: [&str; 7] =
    ["success", "requeue_after", "error", "deferred", "panic", "timeout", "cancelled"];

/// The result of a shutdown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShutdownSummary {
    /// Runs that were in flight when the shutdown started and completed.
    pub completed: usize,
    /// Runs that were in flight at the deadline and were cancelled.
    pub cancelled: usize,
}

/// Runs a [`Reconciler`] on the keys of a [`WorkQueue`].
pub struct Controller<K, R: ?Sized> {
    queue: WorkQueue<K>,
    reconciler: Arc<R>,
    concurrency: usize,
    shutdown_timeout: Duration,
    timeout: Option<Duration>,
    observer: Arc<dyn ControllerObserver>,
}

impl<K, R> Controller<K, R>
where
    K: Clone + Ord + Debug + Send + Sync + 'static,
    R: Reconciler<K> + ?Sized + 'static,
{
    /// Creates a controller with at most `concurrency` (at least one) concurrent runs. By default a shutdown waits 10 s
    /// for runs in flight, and runs have no time limit.
    pub fn new(queue: WorkQueue<K>, reconciler: Arc<R>, concurrency: usize) -> Self {
        Self {
            queue,
            reconciler,
            concurrency: concurrency.max(1),
            shutdown_timeout: Duration::from_secs(10),
            timeout: None,
            observer: Arc::new(NoopObserver),
        }
    }

    /// Sets how long a shutdown waits for runs in flight.
    #[must_use]
    pub fn graceful_shutdown_timeout(mut self, timeout: Duration) -> Self {
        self.shutdown_timeout = timeout;
        self
    }

    /// Limits each run's time. A run that takes longer is cancelled and its key backs off: otherwise one hung remote
    /// could occupy every run.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Sets the observer of all runs.
    #[must_use]
    pub fn observer(mut self, observer: Arc<dyn ControllerObserver>) -> Self {
        self.observer = observer;
        self
    }

    /// Runs until `stop` is cancelled and the runs in flight have completed or were cancelled. End the controller with
    /// the token only: dropping the future leaves the keys in flight marked as processing.
    pub async fn run(self, stop: CancellationToken) -> ShutdownSummary {
        let mut in_flight = InFlight { controller: &self, runs: JoinSet::new(), keys: HashMap::new() };
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                ended = in_flight.next_end(), if !in_flight.runs.is_empty() => in_flight.settle(ended),
                item = self.queue.next(), if in_flight.runs.len() < self.concurrency => in_flight.start(item),
            }
        }
        in_flight.shut_down(Deadline::after(self.shutdown_timeout)).await
    }
}

type JoinedRun = Option<Result<(Id, RunEnd), JoinError>>;

enum RunEnd {
    Returned(Requeue),
    TimedOut,
}

struct InFlight<'a, K, R: ?Sized> {
    controller: &'a Controller<K, R>,
    runs: JoinSet<RunEnd>,
    /// Keys and start times by task. Never iterated, so the map's order has no effect.
    keys: HashMap<Id, (K, Instant)>,
}

impl<K, R> InFlight<'_, K, R>
where
    K: Clone + Ord + Debug + Send + Sync + 'static,
    R: Reconciler<K> + ?Sized + 'static,
{
    fn start(&mut self, WorkItem { key, cause, waited }: WorkItem<K>) {
        self.controller.observer.on_start(cause, waited);
        let started = (key.clone(), Instant::now());
        let reconciler = Arc::clone(&self.controller.reconciler);
        let timeout = self.controller.timeout;
        let task = self.runs.spawn(async move {
            let run = reconciler.reconcile(&key, cause);
            match timeout {
                None => RunEnd::Returned(run.await),
                Some(limit) => {
                    tokio::time::timeout(limit, run).await.map_or(RunEnd::TimedOut, RunEnd::Returned)
                }
            }
        });
        self.keys.insert(task.id(), started);
    }

    async fn next_end(&mut self) -> JoinedRun {
        self.runs.join_next_with_id().await
    }

    /// Returns the key to the queue according to the end of its run.
    fn settle(&mut self, ended: JoinedRun) {
        let (id, result, next) = match ended {
            None => return,
            Some(Ok((id, RunEnd::Returned(next)))) => (id, result_of(next), next),
            Some(Ok((id, RunEnd::TimedOut))) => (id, "timeout", Requeue::Backoff),
            Some(Err(error)) if error.is_panic() => (error.id(), "panic", Requeue::Backoff),
            // Only a shutdown aborts runs; the key still needs its run.
            Some(Err(error)) => (error.id(), "cancelled", Requeue::After(Duration::ZERO)),
        };
        let Some((key, since)) = self.keys.remove(&id) else { return };
        match result {
            "panic" => tracing::error!(?key, "reconcile panicked (bug); retrying with backoff"),
            "timeout" => tracing::warn!(?key, "reconcile timed out; retrying with backoff"),
            _ => {}
        }
        self.controller.observer.on_result(since.elapsed(), result);
        self.controller.queue.done(&key, next);
    }

    async fn shut_down(mut self, deadline: Deadline) -> ShutdownSummary {
        let mut summary = ShutdownSummary::default();
        while let Some(ended) = deadline.limit(self.next_end()).await {
            if ended.is_none() {
                return summary;
            }
            summary.completed += 1;
            self.settle(ended);
        }

        self.runs.abort_all();
        while let Some(ended) = self.next_end().await {
            // A run may still complete between the deadline and its next await.
            match &ended {
                Err(error) if error.is_cancelled() => summary.cancelled += 1,
                _ => summary.completed += 1,
            }
            self.settle(Some(ended));
        }
        tracing::warn!(cancelled = summary.cancelled, "shutdown deadline reached; reconciles cancelled");
        summary
    }
}

fn result_of(next: Requeue) -> &'static str {
    match next {
        Requeue::Forget => "success",
        Requeue::After(_) => "requeue_after",
        Requeue::Backoff => "error",
        Requeue::DeferUntil(_) => "deferred",
    }
}

struct NoopObserver;

impl ControllerObserver for NoopObserver {
    fn on_result(&self, _: Duration, _: &'static str) {}
}
