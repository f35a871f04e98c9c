//! Receives and handles messages of the event queue, with several independent receivers. A message is deleted once its
//! effect is in memory; the start-up sweep finds what a crash loses. A poison message delays no other (invariant I8).

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::aws::{EventQueue, QueueMessage};
use super::events::{Decoded, DeploymentHint, RoleEvent, TaskHint, decode};
use super::queue_backlog::QueueBacklog;
use ecs_mesh_clock::Clock;
use ecs_mesh_controller::health::{Health, Heartbeat};
use ecs_mesh_controller::{ActiveWarnings, Backoff};

/// Most messages of one receive, and most receipts of one `DeleteMessageBatch`.
const BATCH: usize = 10;

/// How long a receipt waits for others to share its call.
const BATCH_LINGER: Duration = Duration::from_millis(20);

/// Receives whose receipts may wait for deletion; beyond that, receivers wait.
const DELETE_QUEUE_LEN: usize = 100;

/// Most `DeleteMessageBatch` calls in flight.
const MAX_INFLIGHT_DELETES: usize = 8;

/// Time for deletions after the stop.
const DELETE_DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// A receiver without progress for this long is stuck: a receive ends within 25 s, and handing over a receipt is quick.
const STEP_TIMEOUT: Duration = Duration::from_mins(2);

/// Pause of a receiver whose process does not act on events; it is about to be stopped.
const INACTIVE_PAUSE: Duration = Duration::from_secs(1);

/// Time for a receive in flight at the stop; its messages are released.
const RECEIVE_DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

/// How to handle a message that can never be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoisonPolicy {
    /// Count, log and delete.
    Delete,
    /// Leave to the queue's redrive policy, which moves it to the dead-letter queue.
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
    /// No binding of the service's tasks holds deployments.
    NotHeld,
    /// No known task runs as the role.
    UnknownRole,
    /// Too many events of unknown tasks wait already. A sweep finds the task, if there is one.
    Overflow,
}

impl EventResult {
    /// The value of the metric label `result`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Stale => "stale",
            Self::UnboundCluster => "unbound_cluster",
            Self::NotHeld => "not_held",
            Self::UnknownRole => "unknown_role",
            Self::Overflow => "overflow",
        }
    }
}

/// Handles decoded events. Calls are synchronous: the effect is in memory when they return, so that the message can
/// be deleted.
pub trait EventHandler: Send + Sync {
    /// Whether this process acts on events. Otherwise their messages are released, for another process to receive.
    fn is_active(&self) -> bool {
        true
    }

    /// An event says that a task changed.
    fn on_task_change(&self, hint: &TaskHint, received: Instant) -> EventResult;

    /// An event says that a deployment of a service has started or ended.
    fn on_deployment_change(&self, hint: &DeploymentHint) -> EventResult;

    /// A role's tags changed, or the role was deleted.
    fn on_role_change(&self, account: &str, role_name: &str, event: RoleEvent) -> EventResult;
}

/// State of the event queue by its last receive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum QueueState {
    /// No queue, or not read yet.
    #[default]
    Unknown,
    /// The last receive succeeded.
    Ok,
    /// The last receive failed with this kind of error.
    Failing(&'static str),
}

/// Records message metrics. All labels have bounded sets of values.
pub trait QueueObserver: Send + Sync {
    /// Counts a message, or a failed receive, by kind and result.
    fn record_message(&self, kind: &'static str, result: &'static str);

    /// Records the age of a received message and its receive count.
    fn record_received(&self, age: Option<Duration>, receives: u32);

    /// Sets the state of the queue of this name.
    fn set_queue_state(&self, queue: &str, state: QueueState);
}

/// Consumes one queue.
#[derive(Clone)]
pub struct QueueConsumer {
    /// The queue.
    pub queue: Arc<dyn EventQueue>,
    /// Handles decoded events.
    pub handler: Arc<dyn EventHandler>,
    /// How to handle poison messages.
    pub poison: PoisonPolicy,
    /// Records metrics.
    pub observer: Arc<dyn QueueObserver>,
    /// Holds back what can wait while more messages are queued.
    pub backlog: QueueBacklog,
    /// Where the loops report progress.
    pub health: Health,
    /// Clock for the age of messages.
    pub clock: Clock,
    /// Seed of the retries' jitter.
    pub seed: u64,
}

impl QueueConsumer {
    /// Runs `receivers` receivers until `stop`, then completes pending deletions.
    pub async fn run(self, receivers: usize, stop: CancellationToken) {
        let (done, deletions) = mpsc::channel(DELETE_QUEUE_LEN);
        let mut tasks = tokio::task::JoinSet::new();
        // All receivers see the same failure: one of them warns.
        let warnings = Arc::new(ActiveWarnings::default());
        for index in 0..receivers.max(1) {
            let receiver = self.clone();
            let (done, warnings, stop) = (done.clone(), Arc::clone(&warnings), stop.clone());
            tasks.spawn(async move { receiver.receive(index as u64, done, &warnings, stop).await });
        }
        drop(done);
        let mut deleter = tokio::task::JoinSet::new();
        let heartbeat = self.health.register(format!("deleter of {}", self.queue.name()));
        deleter.spawn(delete(Arc::clone(&self.queue), deletions, heartbeat));
        while tasks.join_next().await.is_some() {}
        if timeout(DELETE_DRAIN_TIMEOUT, deleter.join_next()).await.is_err() {
            warn!("messages not deleted before shutdown; the queue redelivers them");
        }
    }

    async fn receive(
        self,
        index: u64,
        done: mpsc::Sender<Vec<String>>,
        warnings: &ActiveWarnings<&'static str>,
        stop: CancellationToken,
    ) {
        let heartbeat = self.health.register(format!("receiver {} of {}", index + 1, self.queue.name()));
        self.receive_until(index, &done, warnings, &stop, &heartbeat).await;
        heartbeat.unregister();
    }

    async fn receive_until(
        &self,
        index: u64,
        done: &mpsc::Sender<Vec<String>>,
        warnings: &ActiveWarnings<&'static str>,
        stop: &CancellationToken,
        heartbeat: &Heartbeat,
    ) {
        let mut retry_delays = None;
        while !stop.is_cancelled() {
            heartbeat.expect_within(STEP_TIMEOUT);
            let receiving = self.queue.receive();
            tokio::pin!(receiving);
            let received = tokio::select! {
                biased;
                () = stop.cancelled() => {
                    // Messages of this receive would stay hidden from the next process.
                    if let Ok(Ok(messages)) = timeout(RECEIVE_DRAIN_TIMEOUT, receiving).await {
                        self.release(messages).await;
                    }
                    return;
                }
                received = &mut receiving => received,
            };
            match received {
                Ok(messages) => {
                    retry_delays = None;
                    warnings.retain(|_| false);
                    self.observer.set_queue_state(self.queue.name(), QueueState::Ok);
                    // A process that was frozen may have got messages that another one is responsible for by now.
                    if !self.handler.is_active() {
                        self.release(messages).await;
                        tokio::select! {
                            biased;
                            () = stop.cancelled() => return,
                            () = tokio::time::sleep(INACTIVE_PAUSE) => continue,
                        }
                    }
                    self.backlog.record_receive(messages.len() >= BATCH);
                    let receipts: Vec<String> =
                        messages.into_iter().filter_map(|message| self.handle(message)).collect();
                    if receipts.is_empty() {
                        continue;
                    }
                    // A stop does not wait for hanging deletions: the queue redelivers those messages.
                    tokio::select! {
                        biased;
                        // The deleter ends only after all receivers.
                        _ = done.send(receipts) => {}
                        () = stop.cancelled() => return,
                    }
                }
                Err(error) => {
                    self.observer.record_message("receive_error", error.kind.label());
                    self.observer.set_queue_state(self.queue.name(), QueueState::Failing(error.kind.label()));
                    if warnings.raise(error.kind.label(), ()) {
                        warn!(queue = self.queue.name(), %error, "receiving from the event queue failed; relying on sweeps");
                    } else {
                        debug!(queue = self.queue.name(), %error, "receiving from the event queue failed");
                    }
                    let delays = retry_delays.get_or_insert_with(|| {
                        let slow = Backoff { min: Duration::from_millis(500), max: Duration::from_secs(30) };
                        slow.start(self.seed.wrapping_add(index))
                    });
                    let pause = delays.after_failure();
                    heartbeat.expect_within(pause + STEP_TIMEOUT);
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
            debug!(%error, "releasing messages failed; the queue redelivers them later");
        }
    }

    /// Handles a message and returns its receipt if the message must be deleted.
    fn handle(&self, message: QueueMessage) -> Option<String> {
        let received = Instant::now();
        let age = message.sent_at.map(|sent| sent.age_at(self.clock.wall()));
        self.observer.record_received(age, message.receives);
        match decode(&message.body) {
            Decoded::Task(hint) => {
                let result = self.handler.on_task_change(&hint, received);
                self.observer.record_message("task", result.as_str());
            }
            Decoded::Deployment(hint) => {
                let result = self.handler.on_deployment_change(&hint);
                self.observer.record_message("deployment", result.as_str());
            }
            Decoded::RoleChange { role_name, account, event, .. } => {
                let result = self.handler.on_role_change(&account, &role_name, event);
                self.observer.record_message("role_change", result.as_str());
            }
            Decoded::SubscriptionConfirmation => {
                self.observer.record_message("subscription_confirmation", "kept");
                warn!("SNS asks to confirm the queue's subscription; message kept");
                // Only a person may confirm, by the URL in the message.
                return None;
            }
            Decoded::Ignored { detail_type } => self.observer.record_message("ignored", detail_type),
            Decoded::Poison { reason, path } => {
                self.observer.record_message("poison", reason.label());
                let action = match self.poison {
                    PoisonPolicy::Delete => "delete",
                    PoisonPolicy::Redrive => "redrive",
                };
                warn!(reason = reason.label(), %path, action, "unparseable message");
                if self.poison == PoisonPolicy::Redrive {
                    return None;
                }
            }
        }
        Some(message.receipt)
    }
}

/// Deletes in batches. The receipts of a full receive are a batch and wait for no others. The queue redelivers messages whose
/// deletion fails, which is harmless.
async fn delete(queue: Arc<dyn EventQueue>, mut receipts: mpsc::Receiver<Vec<String>>, heartbeat: Heartbeat) {
    let mut calls = tokio::task::JoinSet::new();
    let mut waiting = Vec::new();
    loop {
        if waiting.is_empty() {
            heartbeat.idle();
            let Some(first) = receipts.recv().await else { break };
            waiting = first;
        }
        heartbeat.expect_within(STEP_TIMEOUT);
        let full = Instant::now() + BATCH_LINGER;
        while waiting.len() < BATCH
            && let Ok(Some(more)) = tokio::time::timeout_at(full, receipts.recv()).await
        {
            waiting.extend(more);
        }
        let rest = waiting.split_off(waiting.len().min(BATCH));
        let batch = std::mem::replace(&mut waiting, rest);
        while calls.len() >= MAX_INFLIGHT_DELETES {
            calls.join_next().await;
        }
        while calls.try_join_next().is_some() {}
        let queue = Arc::clone(&queue);
        calls.spawn(async move {
            match queue.delete(&batch).await {
                Ok(failed) if failed.is_empty() => {}
                Ok(failed) => {
                    debug!(count = failed.len(), "deleting messages failed; the queue redelivers them");
                }
                Err(error) => debug!(%error, "deleting messages failed; the queue redelivers them"),
            }
        });
    }
    while calls.join_next().await.is_some() {}
    heartbeat.unregister();
}

#[cfg(test)]
mod tests;
