//! The consumer over a fake queue with a paused clock.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::super::aws::{AwsError, AwsErrorKind};
use super::super::fakes::{clock, error};
use super::*;

const SECOND: Duration = Duration::from_secs(1);

type Received = Result<Vec<QueueMessage>, AwsErrorKind>;

/// Returns one entry per receive, then waits for more like long polling.
#[derive(Default)]
struct FakeQueue {
    incoming: Mutex<VecDeque<Received>>,
    arrived: tokio::sync::Notify,
    receives: Mutex<Vec<Instant>>,
    deletes: Mutex<Vec<Vec<String>>>,
    released: Mutex<Vec<String>>,
    /// Whether deletions never end.
    deletes_hang: bool,
}

impl FakeQueue {
    fn put(&self, received: Received) {
        self.incoming.lock().unwrap().push_back(received);
        self.arrived.notify_one();
    }

    fn deleted(&self) -> Vec<String> {
        let mut deleted = self.deletes.lock().unwrap().concat();
        deleted.sort();
        deleted
    }
}

#[async_trait]
impl EventQueue for FakeQueue {
    async fn receive(&self) -> Result<Vec<QueueMessage>, AwsError> {
        self.receives.lock().unwrap().push(Instant::now());
        loop {
            let next = self.incoming.lock().unwrap().pop_front();
            match next {
                Some(received) => return received.map_err(error),
                None => self.arrived.notified().await,
            }
        }
    }

    async fn delete(&self, receipts: &[String]) -> Result<Vec<String>, AwsError> {
        if self.deletes_hang {
            std::future::pending::<()>().await;
        }
        self.deletes.lock().unwrap().push(receipts.to_vec());
        Ok(Vec::new())
    }

    async fn release(&self, receipts: &[String]) -> Result<(), AwsError> {
        self.released.lock().unwrap().extend_from_slice(receipts);
        Ok(())
    }
}

/// Records handled events.
#[derive(Default)]
struct RecordingHandler(Mutex<Vec<String>>, AtomicBool);

impl EventHandler for RecordingHandler {
    fn is_active(&self) -> bool {
        !self.1.load(Ordering::Relaxed)
    }

    fn on_task_change(&self, hint: &TaskHint, _received: Instant) -> EventResult {
        self.0.lock().unwrap().push(format!("task {:?}", hint.state));
        EventResult::Accepted
    }

    fn on_deployment_change(&self, hint: &DeploymentHint) -> EventResult {
        self.0.lock().unwrap().push(format!("deployment {}", hint.deployment));
        EventResult::Accepted
    }

    fn on_role_change(&self, account: &str, role_name: &str, event: RoleEvent) -> EventResult {
        self.0.lock().unwrap().push(format!("role {account} {role_name} {event:?}"));
        EventResult::Accepted
    }
}

/// Message counts by kind and result.
#[derive(Default)]
struct Counts(Mutex<BTreeMap<(&'static str, &'static str), usize>>);

impl Counts {
    fn of(&self, kind: &'static str, result: &'static str) -> usize {
        self.0.lock().unwrap().get(&(kind, result)).copied().unwrap_or_default()
    }

    fn of_kind(&self, kind: &str) -> usize {
        self.0.lock().unwrap().iter().filter(|((of, _), _)| *of == kind).map(|(_, count)| count).sum()
    }
}

impl QueueObserver for Counts {
    fn record_message(&self, kind: &'static str, result: &'static str) {
        *self.0.lock().unwrap().entry((kind, result)).or_default() += 1;
    }

    fn record_received(&self, _age: Option<Duration>, _receives: u32) {}

    fn set_queue_state(&self, _queue: &str, _state: QueueState) {}
}

fn message(receipt: &str, body: &str) -> QueueMessage {
    QueueMessage { receipt: receipt.to_owned(), body: body.to_owned(), sent_at: None, receives: 1 }
}

fn fixture(name: &str) -> String {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/events");
    std::fs::read_to_string(format!("{folder}/{name}.json")).unwrap()
}

fn running(receipt: &str) -> QueueMessage {
    message(receipt, &fixture("task_fargate_running"))
}

struct ConsumerFixture {
    queue: Arc<FakeQueue>,
    handler: Arc<RecordingHandler>,
    counts: Arc<Counts>,
    stop: CancellationToken,
    running: JoinHandle<()>,
}

fn scene(queue: FakeQueue, poison: PoisonPolicy, receivers: usize) -> ConsumerFixture {
    let (queue, handler, counts) =
        (Arc::new(queue), Arc::<RecordingHandler>::default(), Arc::<Counts>::default());
    let consumer = QueueConsumer {
        queue: queue.clone(),
        handler: handler.clone(),
        poison,
        observer: counts.clone(),
        backlog: QueueBacklog::default(),
        health: Health::default(),
        clock: clock(),
        seed: 1,
    };
    let stop = CancellationToken::new();
    let running = tokio::spawn(consumer.run(receivers, stop.clone()));
    ConsumerFixture { queue, handler, counts, stop, running }
}

impl ConsumerFixture {
    fn handled(&self) -> Vec<String> {
        self.handler.0.lock().unwrap().clone()
    }

    /// Stops the consumer and returns how long that took.
    async fn stopped(self) -> (Duration, Arc<FakeQueue>) {
        let began = Instant::now();
        self.stop.cancel();
        self.running.await.unwrap();
        (began.elapsed(), self.queue)
    }
}

#[tokio::test(start_paused = true)]
async fn handled_messages_are_deleted() {
    let scene = scene(FakeQueue::default(), PoisonPolicy::Delete, 1);
    scene.queue.put(Ok(vec![running("1"), message("2", &fixture("cloudtrail_untag_role"))]));
    sleep(SECOND).await;
    assert_eq!(scene.handled().len(), 2, "{:?}", scene.handled());
    assert_eq!(scene.queue.deleted(), ["1", "2"]);
    assert_eq!(scene.counts.of("task", "accepted"), 1);
    assert_eq!(scene.counts.of("role_change", "accepted"), 1);
}

#[tokio::test(start_paused = true)]
async fn poison_is_deleted_or_redriven_without_blocking() {
    for (policy, deleted) in
        [(PoisonPolicy::Delete, &["good", "poison"][..]), (PoisonPolicy::Redrive, &["good"][..])]
    {
        let scene = scene(FakeQueue::default(), policy, 1);
        scene.queue.put(Ok(vec![message("poison", "{not json"), running("good")]));
        sleep(SECOND).await;
        assert_eq!(scene.handled(), ["task Running"], "{policy:?}");
        assert_eq!(scene.queue.deleted(), deleted, "{policy:?}");
        assert_eq!(scene.counts.of_kind("poison"), 1);
        assert_eq!(
            scene.queue.released.lock().unwrap().len(),
            0,
            "the visibility time-out decides on redelivery"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn receipts_share_calls_of_ten() {
    let scene = scene(FakeQueue::default(), PoisonPolicy::Delete, 1);
    for page in 0..3 {
        scene.queue.put(Ok((0..10).map(|n| running(&format!("{page}-{n}"))).collect()));
    }
    scene.queue.put(Ok(vec![running("last")]));
    sleep(SECOND).await;
    let sizes: Vec<usize> = scene.queue.deletes.lock().unwrap().iter().map(Vec::len).collect();
    assert_eq!(sizes, [10, 10, 10, 1]);
}

/// Receipts beyond a full call are the first of the next one.
#[tokio::test(start_paused = true)]
async fn receipts_of_small_receives_share_calls() {
    let scene = scene(FakeQueue::default(), PoisonPolicy::Delete, 1);
    for (page, size) in [7, 8, 4, 10].into_iter().enumerate() {
        scene.queue.put(Ok((0..size).map(|n| running(&format!("{page}-{n}"))).collect()));
    }
    sleep(SECOND).await;
    let sizes: Vec<usize> = scene.queue.deletes.lock().unwrap().iter().map(Vec::len).collect();
    assert_eq!(sizes, [10, 10, 9]);
    assert_eq!(scene.queue.deleted().len(), 29);
}

#[tokio::test(start_paused = true)]
async fn single_receipt_is_deleted_after_the_linger() {
    let scene = scene(FakeQueue::default(), PoisonPolicy::Delete, 1);
    scene.queue.put(Ok(vec![running("1")]));
    sleep(2 * BATCH_LINGER).await;
    assert_eq!(scene.queue.deleted(), ["1"]);
}

#[tokio::test(start_paused = true)]
async fn unreadable_queue_backs_off_and_recovers() {
    let scene = scene(FakeQueue::default(), PoisonPolicy::Delete, 1);
    for _ in 0..12 {
        scene.queue.put(Err(AwsErrorKind::Unavailable));
    }
    scene.queue.put(Ok(vec![running("1")]));
    scene.queue.put(Err(AwsErrorKind::Unavailable));
    scene.queue.put(Ok(vec![running("2")]));
    sleep(10 * 60 * SECOND).await;
    assert_eq!(scene.handled().len(), 2);
    assert_eq!(scene.counts.of("receive_error", "unavailable"), 13);
    let receives = scene.queue.receives.lock().unwrap().clone();
    let pauses: Vec<Duration> = receives.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(pauses[..12].iter().all(|pause| *pause >= SECOND / 2 && *pause <= 31 * SECOND), "{pauses:?}");
    assert!(pauses[11] > 10 * SECOND && pauses[0] <= SECOND, "{pauses:?}");
    assert!(pauses[13] <= SECOND, "a success resets the backoff: {pauses:?}");
}

#[tokio::test(start_paused = true)]
async fn failing_receiver_does_not_delay_others() {
    let scene = scene(FakeQueue::default(), PoisonPolicy::Delete, 2);
    scene.queue.put(Err(AwsErrorKind::Unavailable));
    scene.queue.put(Ok(vec![running("1")]));
    sleep(BATCH_LINGER * 2).await;
    assert_eq!(scene.handled(), ["task Running"]);
}

#[tokio::test(start_paused = true)]
async fn handled_messages_are_deleted_after_the_stop() {
    let scene = scene(FakeQueue::default(), PoisonPolicy::Delete, 1);
    scene.queue.put(Ok(vec![running("1")]));
    tokio::task::yield_now().await;
    tokio::task::yield_now().await;
    let handled = scene.handled();
    let (_, queue) = scene.stopped().await;
    assert_eq!((handled.len(), queue.deleted()), (1, vec!["1".to_owned()]));
}

#[tokio::test(start_paused = true)]
async fn messages_received_after_the_stop_are_released() {
    let scene = scene(FakeQueue::default(), PoisonPolicy::Delete, 1);
    sleep(SECOND).await;
    scene.stop.cancel();
    sleep(RECEIVE_DRAIN_TIMEOUT / 2).await;
    scene.queue.put(Ok(vec![running("1"), running("2")]));
    let handler = Arc::clone(&scene.handler);
    let (took, queue) = scene.stopped().await;
    assert!(took <= RECEIVE_DRAIN_TIMEOUT, "{took:?}");
    assert_eq!(handler.0.lock().unwrap().len(), 0);
    assert_eq!(*queue.released.lock().unwrap(), ["1", "2"]);
    assert_eq!(queue.deleted().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn inactive_consumer_releases_what_it_receives() {
    let scene = scene(FakeQueue::default(), PoisonPolicy::Delete, 1);
    scene.handler.1.store(true, Ordering::Relaxed);
    scene.queue.put(Ok(vec![running("1"), message("2", "{not json")]));
    sleep(SECOND / 2).await;
    assert_eq!(*scene.queue.released.lock().unwrap(), ["1", "2"]);
    scene.handler.1.store(false, Ordering::Relaxed);
    scene.queue.put(Ok(vec![running("3")]));
    sleep(2 * SECOND).await;
    assert_eq!(scene.handled(), ["task Running"]);
    assert_eq!(scene.queue.deleted(), ["3"]);
}

#[tokio::test(start_paused = true)]
async fn idle_and_failing_consumers_stop_within_a_second() {
    let quiet = scene(FakeQueue::default(), PoisonPolicy::Delete, 4);
    sleep(SECOND).await;
    assert!(quiet.stopped().await.0 <= RECEIVE_DRAIN_TIMEOUT);
    let troubled = scene(FakeQueue::default(), PoisonPolicy::Delete, 1);
    for _ in 0..20 {
        troubled.queue.put(Err(AwsErrorKind::Denied));
    }
    sleep(60 * SECOND).await;
    assert!(troubled.stopped().await.0 <= RECEIVE_DRAIN_TIMEOUT);
}

#[tokio::test(start_paused = true)]
async fn hanging_deletions_do_not_delay_the_stop() {
    let queue = FakeQueue { deletes_hang: true, ..FakeQueue::default() };
    let scene = scene(queue, PoisonPolicy::Delete, 1);
    for page in 0..200 {
        scene.queue.put(Ok((0..10).map(|n| running(&format!("{page}-{n}"))).collect()));
    }
    sleep(SECOND).await;
    assert!(
        scene.handled().len() >= BATCH * DELETE_QUEUE_LEN,
        "receivers wait only when many deletions are pending"
    );
    assert!(scene.stopped().await.0 <= DELETE_DRAIN_TIMEOUT + RECEIVE_DRAIN_TIMEOUT);
}
