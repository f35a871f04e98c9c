//! Sends events in batches within EventBridge's limits, with retries of each event that failed, at a bounded rate.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{NOT_LEADER, REFUSED, UNAVAILABLE};
use crate::telemetry::metrics::Metrics;
use ecs_mesh_aws::aws::{AwsErrorKind, BusEvent, EventBus};
use ecs_mesh_controller::{ActiveWarnings, Backoff, Delays, Lease, TokenBucket};

/// Most events of a call.
///
/// Source: <https://docs.aws.amazon.com/eventbridge/latest/APIReference/API_PutEvents.html>.
pub(super) const MAX_BATCH: usize = 10;
/// Most bytes of a call. EventBridge takes 1 MB, and 256 KB before 2026 and where it is emulated; no event comes near.
pub(super) const MAX_BATCH_BYTES: usize = 256 * 1024;
/// Calls a second, and the burst. The smallest quota of a Region is 400 events a second, shared by the account.
const CALLS_PER_SECOND: f64 = 5.0;
const CALL_BURST: u32 = 10;
/// How long the first event of a batch waits for others.
const LINGER: Duration = Duration::from_millis(250);
/// Attempts for an event.
pub(super) const MAX_ATTEMPTS: u32 = 8;
/// Pauses between them.
const RETRY: Backoff = Backoff { min: Duration::from_secs(1), max: Duration::from_secs(30) };

/// An event that is not taken yet.
struct WaitingEvent {
    event: BusEvent,
    failures: u32,
}

/// Sends the events of the outbox.
pub(super) struct TeamEventDelivery {
    bus: Arc<dyn EventBus>,
    lease: Arc<dyn Lease>,
    metrics: Arc<Metrics>,
    limiter: TokenBucket,
    seed: u64,
    waiting: VecDeque<WaitingEvent>,
    /// The pauses since the last call in which no event failed.
    delays: Option<Delays>,
    /// That calls fail, by code.
    warnings: ActiveWarnings<(), String>,
}

impl TeamEventDelivery {
    pub(super) fn new(
        bus: Arc<dyn EventBus>,
        lease: Arc<dyn Lease>,
        metrics: Arc<Metrics>,
        seed: u64,
    ) -> Self {
        let limiter = TokenBucket::new(CALLS_PER_SECOND, CALL_BURST);
        let (waiting, delays, warnings) = (VecDeque::new(), None, ActiveWarnings::default());
        Self { bus, lease, metrics, limiter, seed, waiting, delays, warnings }
    }

    /// Sends until the outbox is closed and empty.
    pub(super) async fn run(mut self, mut outbox: mpsc::Receiver<BusEvent>, stop: CancellationToken) {
        loop {
            if self.waiting.is_empty() {
                let Some(event) = outbox.recv().await else { return };
                self.waiting.push_back(WaitingEvent { event, failures: 0 });
                self.fill_batch(&mut outbox);
                // A full batch waits for the rate alone.
                if self.waiting.len() < MAX_BATCH {
                    tokio::select! {
                        biased;
                        () = stop.cancelled() => {}
                        () = tokio::time::sleep(LINGER) => {}
                    }
                }
            }
            self.fill_batch(&mut outbox);
            self.limiter.acquire(1).await;
            let failed = self.send_batch().await;
            if !failed {
                self.delays = None;
                continue;
            }
            let seed = self.seed;
            let pause = self.delays.get_or_insert_with(|| RETRY.start(seed)).after_failure();
            tokio::time::sleep(pause).await;
        }
    }

    /// Takes what is ready, up to a batch.
    fn fill_batch(&mut self, outbox: &mut mpsc::Receiver<BusEvent>) {
        while self.waiting.len() < MAX_BATCH
            && let Ok(event) = outbox.try_recv()
        {
            self.waiting.push_back(WaitingEvent { event, failures: 0 });
        }
    }

    /// Sends one batch. Whether an event of it is to be sent again.
    async fn send_batch(&mut self) -> bool {
        let batch: Vec<WaitingEvent> = self.waiting.drain(..batch_len(&self.waiting)).collect();
        if !self.lease.holds() {
            self.drop_events(NOT_LEADER, batch.len());
            return false;
        }
        let events: Vec<BusEvent> = batch.iter().map(|waiting| waiting.event.clone()).collect();
        let results = match self.bus.put(&events).await {
            Ok(results) => results
                .into_iter()
                .map(|result| result.map_err(|refused| (refused.kind, refused.code, refused.message)))
                .collect(),
            Err(error) => {
                let failure = (error.kind, error.code.clone(), error.to_string());
                vec![Err(failure); batch.len()]
            }
        };
        let mut again = Vec::new();
        let mut last_failure = None;
        for (mut waiting, result) in batch.into_iter().zip(results) {
            let Err((kind, code, message)) = result else {
                self.metrics.team_events.record_sent(waiting.event.detail_type);
                continue;
            };
            waiting.failures += 1;
            match is_temporary(kind) {
                true if waiting.failures < MAX_ATTEMPTS => again.push(waiting),
                true => self.drop_events(UNAVAILABLE, 1),
                false => self.drop_events(REFUSED, 1),
            }
            last_failure = Some((code, message));
        }
        self.report(last_failure);
        let failed = !again.is_empty();
        again.into_iter().rev().for_each(|waiting| self.waiting.push_front(waiting));
        failed
    }

    fn drop_events(&self, reason: &'static str, count: usize) {
        self.metrics.team_events.record_dropped(reason, count as u64);
    }

    /// Logs, once, that calls fail, and that they no longer do.
    fn report(&self, failure: Option<(String, String)>) {
        match failure {
            Some((code, error)) if self.warnings.raise((), code.clone()) => {
                warn!(error, "sending events to teams failed");
            }
            Some((_, error)) => debug!(error, "sending events to teams failed again"),
            None if self.warnings.clear(&()) => info!("events to teams are sent again"),
            None => {}
        }
    }
}

/// Whether a later attempt may succeed.
fn is_temporary(kind: AwsErrorKind) -> bool {
    match kind {
        AwsErrorKind::Throttled | AwsErrorKind::Unavailable | AwsErrorKind::Credentials => true,
        AwsErrorKind::Denied | AwsErrorKind::NotFound | AwsErrorKind::Invalid => false,
    }
}

/// How many of the first events fit into a call, at least one.
fn batch_len(waiting: &VecDeque<WaitingEvent>) -> usize {
    let mut size = 0;
    let fits = |waiting: &&WaitingEvent| {
        size += waiting.event.size();
        size <= MAX_BATCH_BYTES
    };
    waiting.iter().take(MAX_BATCH).take_while(fits).count().max(1)
}
