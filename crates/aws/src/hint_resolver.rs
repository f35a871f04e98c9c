//! Guarantees that an event decides nothing: each starts a describe, and only what the describe shows is passed on.
//!
//! - **A describe older than the event** decides nothing. It is repeated after 1, 2, 4 and 8 s; the last answer then counts.
//! - **MISSING** is repeated in the same way: a new task is not visible at once. For a known task whose stop an event
//!   reported, MISSING twice, at least 10 s apart, is recorded in the [`TaskStore`].
//! - **Failed describes** are repeated until one succeeds. After 5 s an event of a stop is passed on as unconfirmed.
//! - **An event that can hardly be news** waits a second for others: of a running task, only the stop would be, and of a
//!   leaving one the end.
//! - **Known tasks go first.** Events of tasks that no describe, list or registration has shown wait in a queue of their own,
//!   which is bounded, and get a bounded share of each call. A sweep finds what that queue could not take, and is asked for
//!   once there is room again.
//! - **A backlog is received first.** While it is, for a second at most, unknown tasks are not described: see
//!   [`QueueBacklog`].

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::consumer::EventResult;
use super::events::{HintedState, TaskHint};
use super::queue_backlog::QueueBacklog;
use super::store::{KnownTask, TaskStore};
use super::task_describer::{DescribeOutcome, TaskDescriber};
use ecs_mesh_clock::Clock;
use ecs_mesh_controller::{Backoff, Controller, Priority, Reconciler, Requeue, Urgency, WorkQueue};
use ecs_mesh_model::TaskArn;

/// Most unknown tasks whose events wait for a describe: some 10 MB. At the default rate, 20 s of full calls answer them.
pub const MAX_UNKNOWN_TASKS: usize = 20_000;

/// How long an event that can hardly be news waits for others, so that one describe answers all of them. A running task
/// whose address is known has no other news than its stop, and a leaving one, unless its drain is held, than its end.
const NO_NEWS_DELAY: Duration = Duration::from_secs(1);

/// How far apart requests for a sweep are at least: a flood of forged events must not sweep all the time.
const SWEEP_INTERVAL: Duration = Duration::from_mins(1);

/// Answers older than the event, or MISSING, after which the last one counts. They are 1, 2, 4 and 8 s apart.
const MAX_ANSWERS: u32 = 5;

/// How long describes must fail before an event of a stop is passed on as unconfirmed.
const FAILING_FOR: Duration = Duration::from_secs(5);

/// Pause between describes within [`FAILING_FOR`].
const FAILED_RETRY: Duration = Duration::from_secs(1);

/// Time of one describe, after which it counts as failed.
const DESCRIBE_TIMEOUT: Duration = Duration::from_secs(5);

/// Describes of known tasks that may wait for their calls at once.
const KNOWN_CONCURRENCY: usize = 1_000;

/// Describes of unknown tasks that may wait for their calls at once.
const UNKNOWN_CONCURRENCY: usize = 200;

/// The registrations that the resolver asks for, and the receiver of its answers.
pub trait HintSink: Send + Sync {
    /// Whether a registration of the task is known.
    fn is_registered(&self, task: &TaskArn) -> bool;

    /// Whether a drain of the task is held, which any change of its containers may end.
    fn holds_drain(&self, task: &TaskArn) -> bool;

    /// The [`TaskStore`] has an answer to events of the task. `received`: when the oldest of them was received; `None` if
    /// it was passed on before.
    fn on_resolved(&self, task: &TaskArn, received: Option<Instant>);

    /// Events of unknown tasks were dropped, and there is room for others again: a sweep is to find the tasks.
    fn on_overflow(&self);
}

/// Starts a describe for each event. Shared by its clones.
#[derive(Clone)]
pub struct HintResolver {
    inner: Arc<Inner>,
}

struct Inner {
    describer: TaskDescriber,
    store: Arc<TaskStore>,
    clock: Clock,
    sink: Arc<dyn HintSink>,
    hints: Mutex<Hints>,
    known: WorkQueue<TaskArn>,
    unknown: WorkQueue<TaskArn>,
    backlog: QueueBacklog,
}

#[derive(Default)]
struct Hints {
    by_task: BTreeMap<TaskArn, PendingHint>,
    unknown: usize,
    /// Events were dropped since the last request for a sweep.
    overflowed: bool,
    /// When a sweep was or will be asked for last.
    sweep_at: Option<Instant>,
}

impl Hints {
    /// Adds an event. Returns whether its task counts as known, or `None` if there is no room for another unknown one.
    fn add(&mut self, hint: &TaskHint, known: bool, received: Instant) -> Option<bool> {
        match self.by_task.entry(hint.task.clone()) {
            Entry::Occupied(mut pending) => {
                let pending = pending.get_mut();
                pending.lowest = pending.lowest.min(hint.version);
                pending.highest = pending.highest.max(hint.version);
                pending.stop |= hint.state.is_stop();
                pending.received = pending.received.or(Some(received));
                Some(pending.known)
            }
            Entry::Vacant(_) if !known && self.unknown >= MAX_UNKNOWN_TASKS => {
                self.overflowed = true;
                None
            }
            Entry::Vacant(free) => {
                self.unknown += usize::from(!known);
                free.insert(PendingHint::new(hint, known, received));
                Some(known)
            }
        }
    }

    /// Removes the answered events of a task. Returns when a sweep is to be asked for, if events were dropped before.
    fn remove(&mut self, task: &TaskArn, now: Instant) -> Option<Instant> {
        let pending = self.by_task.remove(task);
        self.unknown -= usize::from(pending.is_some_and(|pending| !pending.known));
        if !self.overflowed || self.unknown > MAX_UNKNOWN_TASKS / 2 {
            return None;
        }
        self.overflowed = false;
        self.sweep_at = Some(self.sweep_at.map_or(now, |last| now.max(last + SWEEP_INTERVAL)));
        self.sweep_at
    }
}

/// The unanswered events of one task.
#[derive(Clone, Debug)]
struct PendingHint {
    /// The lowest version that no describe has reached.
    lowest: u64,
    highest: u64,
    /// Whether one of them reports a stop.
    stop: bool,
    /// Whether the task was known when its first event came.
    known: bool,
    received: Option<Instant>,
    /// Answers that decided nothing.
    answers: u32,
    /// When the next answer counts.
    next: Instant,
    failing_since: Option<Instant>,
    /// Whether the stop was passed on as unconfirmed.
    passed_on: bool,
}

impl HintResolver {
    /// A resolver that has not started. `seed` feeds the jitter of retries.
    pub fn new(
        describer: TaskDescriber,
        store: Arc<TaskStore>,
        clock: Clock,
        sink: Arc<dyn HintSink>,
        seed: u64,
    ) -> Self {
        let queue = |seed| {
            let slow = Backoff { min: Duration::from_secs(1), max: Duration::from_secs(30) };
            WorkQueue::new(slow, seed)
        };
        let (known, unknown) = (queue(seed), queue(seed.wrapping_add(1)));
        let (hints, backlog) = (Mutex::default(), QueueBacklog::default());
        let inner = Inner { describer, store, clock, sink, hints, known, unknown, backlog };
        Self { inner: Arc::new(inner) }
    }

    /// Where receives from the event queue are recorded.
    pub fn backlog(&self) -> QueueBacklog {
        self.inner.backlog.clone()
    }

    /// Takes an event: it is in memory when this returns.
    pub fn add(&self, hint: &TaskHint, received: Instant) -> EventResult {
        let inner = &self.inner;
        let task = &hint.task;
        let shown = inner.store.known(task);
        if shown.and_then(|task| task.version).is_some_and(|version| version >= hint.version) {
            return EventResult::Stale;
        }
        let known = shown.is_some() || inner.sink.is_registered(task);
        if known && hint.state.is_stop() {
            inner.store.record_stop_event(task, false, inner.clock.now());
        }
        let Some(known) = inner.lock().add(hint, known, received) else { return EventResult::Overflow };
        let queue = inner.queue(known);
        let priority = if hint.state.is_stop() { Priority::Removal } else { Priority::Event };
        let is_no_news = shown.is_some_and(|KnownTask { is_running, is_leaving, .. }| match hint.state {
            HintedState::Running => is_running,
            HintedState::Stopping => is_leaving && !inner.sink.holds_drain(task),
            HintedState::Stopped => false,
        });
        queue.add_after(task.clone(), priority, if is_no_news { NO_NEWS_DELAY } else { Duration::ZERO });
        EventResult::Accepted
    }

    /// The number of tasks whose events wait for an answer.
    pub fn pending(&self) -> usize {
        self.inner.lock().by_task.len()
    }

    /// Runs until `stop`. Unanswered events are dropped then; the next start's sweep finds what they were about.
    pub async fn run(self, stop: CancellationToken) {
        let controller = |known, concurrency| {
            let class = HintClass { inner: Arc::clone(&self.inner), known };
            Controller::new(self.inner.queue(known).clone(), Arc::new(class), concurrency)
                .graceful_shutdown_timeout(Duration::ZERO)
        };
        let (known, unknown) = (controller(true, KNOWN_CONCURRENCY), controller(false, UNKNOWN_CONCURRENCY));
        tokio::join!(known.run(stop.clone()), unknown.run(stop));
    }
}

/// The known or the unknown tasks.
struct HintClass {
    inner: Arc<Inner>,
    known: bool,
}

#[async_trait]
impl Reconciler<TaskArn> for HintClass {
    async fn reconcile(&self, task: &TaskArn, _cause: Priority) -> Requeue {
        let urgency = if self.known { Urgency::Normal } else { Urgency::Low };
        if !self.known {
            self.inner.backlog.wait_until_drained().await;
        }
        self.inner.resolve(task, urgency).await
    }
}

/// The effect of an answer of ECS on the events of a task.
enum Answer {
    /// Nothing more is to be asked.
    Final,
    /// It answers the events up to a version; newer ones wait.
    Partial,
    /// It decides nothing.
    Inconclusive,
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Hints> {
        // Every change leaves the map consistent, so the lock may be used after a panic.
        self.hints.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn queue(&self, known: bool) -> &WorkQueue<TaskArn> {
        if known { &self.known } else { &self.unknown }
    }

    async fn resolve(&self, task: &TaskArn, urgency: Urgency) -> Requeue {
        if !self.lock().by_task.contains_key(task) {
            return Requeue::Forget;
        }
        // A sweep or a reconcile may have described the task since.
        let shown = |pending: &PendingHint| {
            self.store.version(task).is_some_and(|version| version >= pending.highest)
        };
        if self.lock().by_task.get(task).is_some_and(shown) {
            return self.settle(task, |pending| if shown(pending) { Answer::Final } else { Answer::Partial });
        }
        let described = self.describer.describe_with(task, Duration::MAX, urgency);
        match timeout(DESCRIBE_TIMEOUT, described).await {
            Ok(Ok(DescribeOutcome::Found)) => {
                let version = self.store.version(task).unwrap_or_default();
                self.settle(task, |pending| {
                    if version >= pending.highest || self.store.is_over(task) {
                        return Answer::Final;
                    }
                    // A stop counts at any version; that the task has stopped, a later answer shows.
                    let answers = version >= pending.lowest || self.store.is_leaving(task);
                    pending.lowest = pending.lowest.max(version.saturating_add(1));
                    if answers { Answer::Partial } else { Answer::Inconclusive }
                })
            }
            Ok(Ok(DescribeOutcome::Missing)) => {
                self.settle(
                    task,
                    |_| {
                        if self.store.is_over(task) { Answer::Final } else { Answer::Inconclusive }
                    },
                )
            }
            Ok(Ok(DescribeOutcome::Failed(_)) | Err(_)) | Err(_) => self.record_failure(task),
        }
    }

    /// Applies an answer. `judge` runs under the lock, so that an event that comes meanwhile is not dropped with the others.
    fn settle(&self, task: &TaskArn, judge: impl FnOnce(&mut PendingHint) -> Answer) -> Requeue {
        let now = Instant::now();
        let (next, resolved, sweep_at) = {
            let mut hints = self.lock();
            let Some(pending) = hints.by_task.get_mut(task) else { return Requeue::Forget };
            let answer = judge(pending);
            pending.failing_since = None;
            // An event that comes in between asks at once, and its answer is not one of the five.
            if now >= pending.next {
                pending.next = now + Duration::from_secs(1 << pending.answers);
                pending.answers += 1;
            }
            let ends = matches!(answer, Answer::Final) || pending.answers >= MAX_ANSWERS;
            let received = pending.received;
            if ends {
                (Requeue::Forget, Some(received), hints.remove(task, now))
            } else {
                let wait = pending.next.saturating_duration_since(now);
                let resolved = matches!(answer, Answer::Partial).then(|| pending.received.take());
                (Requeue::After(wait), resolved, None)
            }
        };
        if let Some(at) = sweep_at {
            let sink = Arc::clone(&self.sink);
            tokio::spawn(async move {
                sleep_until(at).await;
                sink.on_overflow();
            });
        }
        // Of a task that ECS has never shown there is nothing to reconcile.
        if let Some(received) = resolved
            && (self.store.contains(task) || self.sink.is_registered(task))
        {
            self.sink.on_resolved(task, received);
        }
        next
    }

    fn record_failure(&self, task: &TaskArn) -> Requeue {
        let now = Instant::now();
        let (failing_for, received) = {
            let mut hints = self.lock();
            let Some(pending) = hints.by_task.get_mut(task) else { return Requeue::Forget };
            let failing_for = now - *pending.failing_since.get_or_insert(now);
            let passes = pending.known && pending.stop && !pending.passed_on && failing_for >= FAILING_FOR;
            pending.passed_on |= passes;
            (failing_for, passes.then(|| pending.received.take()))
        };
        if let Some(received) = received {
            self.store.record_stop_event(task, true, self.clock.now());
            self.sink.on_resolved(task, received);
        }
        if failing_for < FAILING_FOR { Requeue::After(FAILED_RETRY) } else { Requeue::Backoff }
    }
}

impl PendingHint {
    fn new(hint: &TaskHint, known: bool, received: Instant) -> Self {
        Self {
            lowest: hint.version,
            highest: hint.version,
            stop: hint.state.is_stop(),
            known,
            received: Some(received),
            answers: 0,
            next: received,
            failing_since: None,
            passed_on: false,
        }
    }
}

#[cfg(test)]
mod tests;
