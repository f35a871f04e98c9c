//! Guarantees that at most so many reconciles run at once, one a key, and that none of them harms another.
//!
//! - **A panic costs one key one retry.** It is caught, counted, and the key backs off; everything else goes on.
//! - **A stop ends by its deadline.** When the token is cancelled nothing more is taken; what is in flight may
//!   finish until the deadline, and is then cut off at its next await. Keys that were cut off are put back in the
//!   queue, so that a controller started later on the same queue runs them.

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

use super::queue::{Requeue, Priority, WorkQueue, WorkItem};
use super::shutdown::Deadline;

/// Brings what one key stands for to what it should be.
#[async_trait]
pub trait Reconciler<K>: Send + Sync {
    /// One run for `key`. Never called for a key that another run has not finished with. It may be cut off at any
    /// await, as by a crash: what it did up to there must be safe to leave and to repeat.
    async fn reconcile(&self, key: &K, cause: Priority) -> Requeue;
}

/// Hears what the controller does, for metrics. Called on the controller's own task: be quick.
pub trait ControllerObserver: Send + Sync {
    /// A run begins, for a key that has `waited` since it was due.
    fn on_start(&self, cause: Priority, waited: Duration) {
        let _ = (cause, waited);
    }

    /// A run took `duration` and had `outcome`, one of [`RUN_RESULTS`].
    fn on_result(&self, duration: Duration, outcome: &'static str);
}

/// Every outcome an [`ControllerObserver`] hears of: `success`, `requeue_after`, `error` (backs off), `deferred`, `panic` (backs
/// off), `timeout` (backs off), `cancelled` (by the deadline of a stop).
pub const RUN_RESULTS: [&str; 7] = ["success", "requeue_after", "error", "deferred", "panic", "timeout", "cancelled"];

/// How a stop went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShutdownSummary {
    /// Runs that were in flight when the stop was asked for and ended by themselves.
    pub completed: usize,
    /// Runs that were in flight at the deadline and were cut off.
    pub cancelled: usize,
}

/// Runs a [`Reconciler`] on the keys of a [`WorkQueue`].
pub struct Controller<K, R: ?Sized> {
    queue: WorkQueue<K>,
    reconciler: Arc<R>,
    concurrency: usize,
    drain: Duration,
    timeout: Option<Duration>,
    observer: Arc<dyn ControllerObserver>,
}

impl<K, R> Controller<K, R>
where
    K: Clone + Ord + Debug + Send + Sync + 'static,
    R: Reconciler<K> + ?Sized + 'static,
{
    /// At most `concurrency` runs at once (at least one). A stop waits 10 s for what is in flight, and a run may
    /// take as long as it likes, unless said otherwise below.
    pub fn new(queue: WorkQueue<K>, reconciler: Arc<R>, concurrency: usize) -> Self {
        Self {
            queue,
            reconciler,
            concurrency: concurrency.max(1),
            drain: Duration::from_secs(10),
            timeout: None,
            observer: Arc::new(NoopObserver),
        }
    }

    /// How long a stop waits for what is in flight.
    #[must_use]
    pub fn graceful_shutdown_timeout(mut self, drain: Duration) -> Self {
        self.drain = drain;
        self
    }

    /// Cuts off a run that takes longer, and lets its key back off: a remote that hangs would otherwise end up
    /// with every run in its hands.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Who hears of each run.
    #[must_use]
    pub fn observer(mut self, observer: Arc<dyn ControllerObserver>) -> Self {
        self.observer = observer;
        self
    }

    /// Runs until `stop` is cancelled and what is in flight has finished or was cut off. End it by the token only:
    /// dropping the future leaves the keys in flight marked as processing.
    pub async fn run(self, stop: CancellationToken) -> ShutdownSummary {
        let mut in_flight = InFlight { controller: &self, runs: JoinSet::new(), keys: HashMap::new() };
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                ended = in_flight.next_end(), if !in_flight.runs.is_empty() => in_flight.settle(ended),
                taken = self.queue.next(), if in_flight.runs.len() < self.concurrency => in_flight.start(taken),
            }
        }
        in_flight.graceful_shutdown_timeout(Deadline::after(self.drain)).await
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
    /// By task. Never iterated, so its order can't be seen.
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

    /// Gives the key back by how its run ended.
    fn settle(&mut self, ended: JoinedRun) {
        let (id, outcome, next) = match ended {
            None => return,
            Some(Ok((id, RunEnd::Returned(next)))) => (id, outcome_of(next), next),
            Some(Ok((id, RunEnd::TimedOut))) => (id, "timeout", Requeue::Backoff),
            Some(Err(error)) if error.is_panic() => (error.id(), "panic", Requeue::Backoff),
            // Nothing but a stop aborts runs; what it cut off is still to be done.
            Some(Err(error)) => (error.id(), "cancelled", Requeue::After(Duration::ZERO)),
        };
        let Some((key, since)) = self.keys.remove(&id) else { return };
        match outcome {
            "panic" => tracing::error!(?key, "a reconcile panicked; its key backs off"),
            "timeout" => tracing::warn!(?key, "a reconcile took too long and was cut off; its key backs off"),
            _ => {}
        }
        self.controller.observer.on_result(since.elapsed(), outcome);
        self.controller.queue.done(&key, next);
    }

    async fn graceful_shutdown_timeout(mut self, deadline: Deadline) -> ShutdownSummary {
        let mut drained = ShutdownSummary::default();
        while let Some(ended) = deadline.limit(self.next_end()).await {
            if ended.is_none() {
                return drained;
            }
            drained.completed += 1;
            self.settle(ended);
        }

        self.runs.abort_all();
        while let Some(ended) = self.next_end().await {
            // A run may still end by itself between the deadline and its next await.
            match &ended {
                Err(error) if error.is_cancelled() => drained.cancelled += 1,
                _ => drained.completed += 1,
            }
            self.settle(Some(ended));
        }
        tracing::warn!(cancelled = drained.cancelled, "reconciles were cut off by the deadline of the stop");
        drained
    }
}

fn outcome_of(next: Requeue) -> &'static str {
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
