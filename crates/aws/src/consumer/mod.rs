//! Takes messages from the queue: several receivers that do not wait for one another's work. A message is deleted once
//! its effect is in memory; what a crash loses the start-up sweep finds. Poison never stalls anything (invariant I8).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::aws::{QueueMessage, EventQueue};
use super::events::{Decoded, RoleEvent, decode};
use ecs_mesh_clock::Clock;
use ecs_mesh_controller::Backoff;
use ecs_mesh_controller::health::{Health, Heartbeat};
use ecs_mesh_model::Task;

/// Most receipts that one `DeleteMessageBatch` takes.
const BATCH: usize = 10;

/// How long a receipt waits for others to share its call.
const BATCH_LINGER: Duration = Duration::from_millis(20);

/// Receipts that may wait for deletion; receivers wait when there are more.
const DELETE_QUEUE_LEN: usize = 1_000;

/// How long deletions may go on after the stop.
const DELETE_DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// A receive ends within 25 s, and a receipt finds its place soon; a receiver that takes longer is stuck.
const STEP_TIMEOUT: Duration = Duration::from_mins(2);

/// How long a receive that was under way at the stop may still bring messages, which then go back to the queue.
const RECEIVE_DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

/// What becomes of a message that can never be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoisonPolicy {
    /// Deleted, after it was counted and logged.
    Delete,
    /// Left for the queue's redrive policy, which moves it to the dead-letter queue.
    Redrive,
}

/// Effect of one decoded event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventResult {
    /// New information: the affected tasks are queued.
    Accepted,
    /// A repeated or older version of a known task.
    Stale,
    /// No binding selects the task's cluster.
    UnboundCluster,
    /// No known task runs as the role.
    UnknownRole,
}

impl EventResult {
    /// The value of the metric label `result`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Stale => "stale",
            Self::UnboundCluster => "unbound_cluster",
            Self::UnknownRole => "unknown_role",
        }
    }
}

/// Handles decoded events. Calls are synchronous: the effect is in memory when they return, so that the message can
/// be deleted.
pub trait EventHandler: Send + Sync {
    /// A task changed.
    fn on_task_change(&self, task: Task, received: Instant) -> EventResult;

    /// A role's tags changed, or the role was deleted.
    fn on_role_change(&self, account: &str, role_name: &str, event: RoleEvent) -> EventResult;
}

/// What the queue of events was last found to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum QueueState {
    /// None is given, or it was not read yet.
    #[default]
    Unknown,
    /// The last receive went well.
    Ok,
    /// The last receive failed, by this kind of error.
    Failing(&'static str),
}

/// Told of what becomes of messages, for metrics. All labels have bounded sets of values.
pub trait QueueObserver: Send + Sync {
    /// A message of this kind was taken in, or could not be received, and came to this.
    fn record_message(&self, kind: &'static str, result: &'static str);

    /// A message came this long after it was sent, for the so manieth time.
    fn record_received(&self, age: Option<Duration>, receives: u32);

    /// The queue was read, or could not be.
    fn set_queue_state(&self, state: QueueState);
}

/// Reads one queue.
#[derive(Clone)]
pub struct QueueConsumer {
    /// The queue.
    pub queue: Arc<dyn EventQueue>,
    /// Who hears.
    pub handler: Arc<dyn EventHandler>,
    /// What becomes of poison.
    pub poison: PoisonPolicy,
    /// Who counts.
    pub observer: Arc<dyn QueueObserver>,
    /// The register of loops.
    pub health: Health,
    /// For the age of messages.
    pub clock: Clock,
    /// Feeds the jitter of retries.
    pub seed: u64,
}

impl QueueConsumer {
    /// Receives with so many receivers until `stop`, then deletes what is still to be deleted.
    pub async fn run(self, receivers: usize, stop: CancellationToken) {
        let (done, deletions) = mpsc::channel(DELETE_QUEUE_LEN);
        let mut tasks = tokio::task::JoinSet::new();
        // All of them see the same trouble: one of them tells.
        let told = Arc::new(AtomicBool::new(false));
        for index in 0..receivers.max(1) {
            let receiver = self.clone();
            let (done, told, stop) = (done.clone(), Arc::clone(&told), stop.clone());
            tasks.spawn(async move { receiver.receive(index as u64, done, &told, stop).await });
        }
        drop(done);
        let mut deleter = tokio::task::JoinSet::new();
        let pulse = self.health.register("deleter");
        deleter.spawn(delete(Arc::clone(&self.queue), deletions, pulse));
        while tasks.join_next().await.is_some() {}
        if timeout(DELETE_DRAIN_TIMEOUT, deleter.join_next()).await.is_err() {
            warn!(
                "some messages were not deleted before the stop; they will be delivered again, which does no harm"
            );
        }
    }

    async fn receive(
        self,
        index: u64,
        done: mpsc::Sender<String>,
        told: &AtomicBool,
        stop: CancellationToken,
    ) {
        let mut trouble = None;
        let pulse = self.health.register(format!("receiver {}", index + 1));
        while !stop.is_cancelled() {
            pulse.expect_within(STEP_TIMEOUT);
            let receiving = self.queue.receive();
            tokio::pin!(receiving);
            let received = tokio::select! {
                biased;
                () = stop.cancelled() => {
                    // Messages on their way to us would stay hidden from the next process.
                    if let Ok(Ok(messages)) = timeout(RECEIVE_DRAIN_TIMEOUT, receiving).await {
                        self.release(messages).await;
                    }
                    return;
                }
                received = &mut receiving => received,
            };
            match received {
                Ok(messages) => {
                    trouble = None;
                    told.store(false, Ordering::Relaxed);
                    self.observer.set_queue_state(QueueState::Ok);
                    for message in messages {
                        let Some(receipt) = self.handle(message) else { continue };
                        // Where deletions hang, a stop need not wait: what is not deleted comes again.
                        tokio::select! {
                            biased;
                            // The deleter ends only after all receivers.
                            _ = done.send(receipt) => {}
                            () = stop.cancelled() => return,
                        }
                    }
                }
                Err(error) => {
                    self.observer.record_message("receive_error", error.kind.label());
                    self.observer.set_queue_state(QueueState::Failing(error.kind.label()));
                    if told.swap(true, Ordering::Relaxed) {
                        debug!(%error, "the queue cannot be read");
                    } else {
                        warn!(%error, "the queue cannot be read; sweeps go on without it");
                    }
                    let delays = trouble.get_or_insert_with(|| {
                        let slow = Backoff { min: Duration::from_millis(500), max: Duration::from_secs(30) };
                        slow.start(self.seed.wrapping_add(index))
                    });
                    let pause = delays.after_failure();
                    pulse.expect_within(pause + STEP_TIMEOUT);
                    tokio::select! {
                        biased;
                        () = stop.cancelled() => return,
                        () = tokio::time::sleep(pause) => {}
                    }
                }
            }
        }
    }

    async fn release(&self, messages: Vec<QueueMessage>) {
        let receipts: Vec<String> = messages.into_iter().map(|message| message.receipt).collect();
        if !receipts.is_empty()
            && let Err(error) = self.queue.release(&receipts).await
        {
            debug!(%error, "received messages could not be given back; they come back by themselves");
        }
    }

    /// Gives back the receipt if the message is to be deleted.
    fn handle(&self, message: QueueMessage) -> Option<String> {
        let received = Instant::now();
        let age = message.sent_at.map(|sent| sent.age_at(self.clock.now()));
        self.observer.record_received(age, message.receives);
        match decode(&message.body) {
            Decoded::Task(task) => {
                let result = self.handler.on_task_change(*task, received);
                self.observer.record_message("task", result.as_str());
            }
            Decoded::RoleChange { role_name, account, event, .. } => {
                let result = self.handler.on_role_change(&account, &role_name, event);
                self.observer.record_message("role_change", result.as_str());
            }
            Decoded::Ignored { detail_type } => self.observer.record_message("ignored", detail_type),
            Decoded::Poison { reason, where_ } => {
                self.observer.record_message("poison", reason.label());
                let fate = match self.poison {
                    PoisonPolicy::Delete => "deleted",
                    PoisonPolicy::Redrive => "left to the queue's redrive policy",
                };
                warn!(reason = reason.label(), at = %where_, fate, "a message cannot be read");
                if self.poison == PoisonPolicy::Redrive {
                    return None;
                }
            }
        }
        Some(message.receipt)
    }
}

/// Deletes in batches. What fails comes again after the visibility time-out, which does no harm.
async fn delete(queue: Arc<dyn EventQueue>, mut receipts: mpsc::Receiver<String>, pulse: Heartbeat) {
    let mut calls = tokio::task::JoinSet::new();
    while let Some(first) = receipts.recv().await {
        pulse.expect_within(STEP_TIMEOUT);
        let mut batch = vec![first];
        let full = Instant::now() + BATCH_LINGER;
        while batch.len() < BATCH {
            match tokio::time::timeout_at(full, receipts.recv()).await {
                Ok(Some(receipt)) => batch.push(receipt),
                Ok(None) | Err(_) => break,
            }
        }
        while calls.len() >= 8 {
            calls.join_next().await;
        }
        while calls.try_join_next().is_some() {}
        let queue = Arc::clone(&queue);
        calls.spawn(async move {
            match queue.delete(&batch).await {
                Ok(failed) if failed.is_empty() => {}
                Ok(failed) => debug!(count = failed.len(), "messages could not be deleted; they come again"),
                Err(error) => debug!(%error, "messages could not be deleted; they come again"),
            }
        });
        pulse.idle();
    }
    while calls.join_next().await.is_some() {}
}

#[cfg(test)]
mod tests;
