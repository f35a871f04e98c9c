//! Events to teams: forwards what concerns the owners of tasks to a bus of EventBridge.
//!
//! Guarantees that no reconcile waits: the journal's entries go into a bounded queue by `try_send`, and what does not fit is
//! dropped and counted. Only the leader sends.
//!
//! | file | part |
//! |---|---|
//! | `event` | the form of an event, which `docs/reference/team-events.schema.json` describes |
//! | `groups` | one event for many tasks with one cause; pure |
//! | `render` | a group as an event; pure |
//! | `delivery` | batches, retries, the rate |

mod delivery;
mod event;
mod groups;
mod render;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::operator::{Journal, JournalEntry, JournalSubscriber};
use crate::telemetry::metrics::Metrics;
use ecs_mesh_aws::aws::{BusEvent, EventBus};
use ecs_mesh_clock::Clock;
use ecs_mesh_controller::{ActiveWarnings, Lease};

pub use event::{
    TEAM_EVENT_SCHEMA_VERSION, TeamEvent, TeamEventCause, TeamEventDetail, TeamEventKind, TeamEventOrigin,
    TeamEventSource, TeamEventSubject, TeamEventTasks,
};
pub use render::TeamEventSender;

use delivery::TeamEventDelivery;
use groups::TeamEventGroups;
use render::bus_event;

/// Entries of the journal that wait for grouping.
const QUEUED_ENTRIES: usize = 10_000;
/// Events that wait for a call.
const QUEUED_EVENTS: usize = 1_000;
/// How often grown groups are looked at.
const FLUSH_INTERVAL: Duration = Duration::from_secs(1);

// Why an event, or an entry that might have become one, was dropped: labels.
const QUEUE_FULL: &str = "queue_full";
const TOO_MANY_GROUPS: &str = "too_many_groups";
const REFUSED: &str = "refused";
const UNAVAILABLE: &str = "unavailable";
const NOT_LEADER: &str = "not_leader";

/// The dependencies of events to teams.
pub struct TeamEventDeps {
    /// The bus.
    pub bus: Arc<dyn EventBus>,
    /// The sender that events name.
    pub sender: TeamEventSender,
    /// Whether this process may send.
    pub lease: Arc<dyn Lease>,
    /// The time.
    pub clock: Clock,
    /// Counts sent and dropped events.
    pub metrics: Arc<Metrics>,
    /// Seed of all jitter.
    pub seed: u64,
}

/// Takes entries from the journal without waiting.
struct JournalQueue {
    entries: mpsc::Sender<Arc<JournalEntry>>,
    dropped: AtomicU64,
}

impl JournalSubscriber for JournalQueue {
    fn receive(&self, entry: &Arc<JournalEntry>) {
        if groups::concerns_teams(entry) && self.entries.try_send(Arc::clone(entry)).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Events to teams in progress.
pub struct TeamEvents {
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl TeamEvents {
    /// Subscribes to the journal and sends until [`Self::finish`].
    pub fn start(journal: &Journal, deps: TeamEventDeps) -> Self {
        let stop = CancellationToken::new();
        let (entries, received) = mpsc::channel(QUEUED_ENTRIES);
        let (ready, outbox) = mpsc::channel(QUEUED_EVENTS);
        let queue = Arc::new(JournalQueue { entries, dropped: AtomicU64::new(0) });
        journal.subscribe(Arc::clone(&queue) as _);
        let collector = Collector {
            queue,
            groups: TeamEventGroups::default(),
            ready,
            sender: deps.sender,
            lease: Arc::clone(&deps.lease),
            clock: deps.clock,
            metrics: Arc::clone(&deps.metrics),
            warnings: ActiveWarnings::default(),
        };
        let delivery = TeamEventDelivery::new(deps.bus, deps.lease, deps.metrics, deps.seed);
        let mut tasks = JoinSet::new();
        tasks.spawn(collector.run(received, stop.clone()));
        tasks.spawn(delivery.run(outbox, stop.clone()));
        Self { stop, tasks }
    }

    /// Stops after what has been recorded so far is sent, or after `limit`.
    pub async fn finish(mut self, limit: Duration) {
        self.stop.cancel();
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(limit, ended).await.is_err() {
            warn!("events to teams not sent before the stop");
        }
    }
}

/// Groups entries, and hands events that are due to the delivery.
struct Collector {
    queue: Arc<JournalQueue>,
    groups: TeamEventGroups,
    ready: mpsc::Sender<BusEvent>,
    sender: TeamEventSender,
    lease: Arc<dyn Lease>,
    clock: Clock,
    metrics: Arc<Metrics>,
    /// By the reason of drops.
    warnings: ActiveWarnings<&'static str>,
}

impl Collector {
    async fn run(mut self, mut entries: mpsc::Receiver<Arc<JournalEntry>>, stop: CancellationToken) {
        let mut flush = tokio::time::interval_at(Instant::now() + FLUSH_INTERVAL, FLUSH_INTERVAL);
        flush.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                entry = entries.recv() => match entry {
                    Some(entry) => self.record(&entry),
                    None => break,
                },
                _ = flush.tick() => self.report_drops(),
            }
            self.hand_over();
        }
        entries.close();
        while let Some(entry) = entries.recv().await {
            self.record(&entry);
        }
        self.hand_over();
        self.report_drops();
    }

    fn record(&mut self, entry: &Arc<JournalEntry>) {
        if !self.groups.record(entry, self.clock.now()) {
            self.drop_events(TOO_MANY_GROUPS, 1);
        }
    }

    /// Hands the groups that are due to the delivery. A standby hands over none, and keeps the states of control planes for
    /// its own term.
    fn hand_over(&mut self) {
        if !self.lease.holds() {
            return;
        }
        for due in self.groups.take_due(self.clock.now()) {
            match bus_event(&self.sender.render(&due), due.latest.at) {
                Ok(event) => {
                    if self.ready.try_send(event).is_err() {
                        self.drop_events(QUEUE_FULL, 1);
                    }
                }
                // None of its types fails.
                Err(_) => self.drop_events(REFUSED, 1),
            }
        }
    }

    fn drop_events(&self, reason: &'static str, count: u64) {
        self.metrics.team_events.record_dropped(reason, count);
        if self.warnings.raise(reason, ()) {
            warn!(reason, "events to teams are dropped");
        }
    }

    /// Counts the drops of the last interval, and logs the end of drops.
    fn report_drops(&self) {
        let dropped = self.queue.dropped.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            return self.drop_events(QUEUE_FULL, dropped);
        }
        let is_idle = self.ready.capacity() == QUEUED_EVENTS;
        if is_idle && self.warnings.clear(&QUEUE_FULL) {
            info!("events to teams are no longer dropped");
        }
    }
}
