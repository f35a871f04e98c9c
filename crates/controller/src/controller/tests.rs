//! The controller's guarantees, seen with a stopped clock.

use std::collections::BTreeMap;
use std::sync::Mutex;

use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::*;
use crate::{Backoff, lock};

const SECOND: Duration = Duration::from_secs(1);

/// One run as a spectator sees it: when it began, its key, and what it ends with after how long.
type RunScript = Box<dyn Fn(u32, usize) -> (Duration, Requeue) + Send + Sync>;

/// Runs by a script and writes down what happens.
struct RecordingReconciler {
    begun: Instant,
    script: RunScript,
    runs: Mutex<Vec<(Duration, u32)>>,
    present: Mutex<BTreeMap<u32, usize>>,
    most_of_one_key: Mutex<usize>,
    most_at_once: Mutex<usize>,
    results: Mutex<Vec<&'static str>>,
}

impl RecordingReconciler {
    fn new(script: impl Fn(u32, usize) -> (Duration, Requeue) + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            begun: Instant::now(),
            script: Box::new(script),
            runs: Mutex::default(),
            present: Mutex::default(),
            most_of_one_key: Mutex::default(),
            most_at_once: Mutex::default(),
            results: Mutex::default(),
        })
    }

    fn runs_of(&self, key: u32) -> Vec<Duration> {
        lock(&self.runs).iter().filter(|(_, k)| *k == key).map(|(at, _)| *at).collect()
    }

    fn enter(&self, key: u32) {
        lock(&self.runs).push((self.begun.elapsed(), key));
        let mut present = lock(&self.present);
        *present.entry(key).or_default() += 1;
        let (of_key, immediate): (usize, usize) = (present[&key], present.values().sum());
        let (mut most_of_one_key, mut most_at_once) = (lock(&self.most_of_one_key), lock(&self.most_at_once));
        *most_of_one_key = of_key.max(*most_of_one_key);
        *most_at_once = immediate.max(*most_at_once);
    }
}

#[async_trait]
impl Reconciler<u32> for RecordingReconciler {
    async fn reconcile(&self, key: &u32, _: Priority) -> Requeue {
        self.enter(*key);
        let nth = self.runs_of(*key).len();
        let (takes, next) = (self.script)(*key, nth);
        sleep(takes).await;
        *lock(&self.present).get_mut(key).unwrap() -= 1;
        next
    }
}

impl ControllerObserver for RecordingReconciler {
    fn on_result(&self, _: Duration, outcome: &'static str) {
        assert!(RUN_RESULTS.contains(&outcome));
        lock(&self.results).push(outcome);
    }
}

struct RunningController {
    queue: WorkQueue<u32>,
    stage: Arc<RecordingReconciler>,
    stop: CancellationToken,
    controller: JoinHandle<ShutdownSummary>,
}

fn run(stage: Arc<RecordingReconciler>, concurrency: usize) -> RunningController {
    run_with(stage, concurrency, |controller| controller)
}

fn run_with(
    stage: Arc<RecordingReconciler>,
    concurrency: usize,
    options: impl FnOnce(Controller<u32, RecordingReconciler>) -> Controller<u32, RecordingReconciler>,
) -> RunningController {
    let queue = WorkQueue::new(Backoff { min: SECOND, max: 8 * SECOND }, 1);
    let stop = CancellationToken::new();
    let controller = Controller::new(queue.clone(), Arc::clone(&stage), concurrency)
        .observer(Arc::clone(&stage) as Arc<dyn ControllerObserver>);
    let controller = tokio::spawn(options(controller).run(stop.clone()));
    RunningController { queue, stage, stop, controller }
}

#[tokio::test(start_paused = true)]
async fn two_reconciles_of_a_key_never_run_at_once() {
    let running = run(RecordingReconciler::new(|_, _| (SECOND, Requeue::Forget)), 8);
    for _ in 0..100 {
        running.queue.add(1, Priority::Event);
        sleep(SECOND / 10).await;
    }
    sleep(5 * SECOND).await;
    assert_eq!(*lock(&running.stage.most_of_one_key), 1);
    assert_eq!(running.stage.runs_of(1).len(), 11, "each added-to run is followed by one more");
}

#[tokio::test(start_paused = true)]
async fn key_added_during_reconcile_runs_again() {
    let running = run(RecordingReconciler::new(|_, _| (SECOND, Requeue::Forget)), 8);
    running.queue.add(1, Priority::Event);
    sleep(SECOND / 2).await;
    running.queue.add(1, Priority::Event);
    running.queue.add(1, Priority::Sweep);
    sleep(60 * SECOND).await;
    assert_eq!(running.stage.runs_of(1).len(), 2);
}

#[tokio::test(start_paused = true)]
async fn no_more_than_the_limit_run_at_once_and_all_run() {
    let running = run(RecordingReconciler::new(|_, _| (SECOND, Requeue::Forget)), 3);
    for key in 0..30 {
        running.queue.add(key, Priority::Event);
    }
    sleep(60 * SECOND).await;
    assert_eq!(*lock(&running.stage.most_at_once), 3);
    assert_eq!(lock(&running.stage.results).as_slice(), ["success"; 30]);
    assert!(lock(&running.stage.runs).last().unwrap().0 < 10 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_key_that_hangs_does_not_hold_others() {
    let hang = |key, _| (if key == 0 { 3_600 * SECOND } else { SECOND }, Requeue::Forget);
    let running = run(RecordingReconciler::new(hang), 2);
    for key in 0..10 {
        running.queue.add(key, Priority::Event);
    }
    sleep(60 * SECOND).await;
    assert_eq!(lock(&running.stage.results).len(), 9);
}

#[tokio::test(start_paused = true)]
async fn a_run_past_its_time_limit_is_cut_off_and_backs_off() {
    let hang_once = |_, nth| (if nth == 1 { 3_600 * SECOND } else { SECOND }, Requeue::Forget);
    let running = run_with(RecordingReconciler::new(hang_once), 1, |controller| controller.timeout(5 * SECOND));
    running.queue.add(1, Priority::Event);
    sleep(60 * SECOND).await;
    assert_eq!(lock(&running.stage.results).as_slice(), ["timeout", "success"]);
    assert!(running.stage.runs_of(1)[1] >= 6 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_panic_only_backs_off_its_own_key() {
    let running = run(
        RecordingReconciler::new(|key, nth| {
            assert!(key != 1 || nth > 1, "a bug, on purpose");
            (Duration::ZERO, Requeue::After(SECOND / 2))
        }),
        2,
    );
    running.queue.add(1, Priority::Event);
    running.queue.add(2, Priority::Event);
    sleep(3 * SECOND).await;

    let after_panic = running.stage.runs_of(1);
    assert!(
        (SECOND..=2 * SECOND + SECOND / 10).contains(&after_panic[1]),
        "retried after {:?}",
        after_panic[1]
    );
    assert!(running.stage.runs_of(2).len() >= 5, "the other key went on");
    let results = lock(&running.stage.results);
    assert_eq!(results.iter().filter(|outcome| **outcome == "panic").count(), 1);
    assert_eq!(running.queue.stats().retries, 1);
}

#[tokio::test(start_paused = true)]
async fn each_way_a_run_may_end_has_its_outcome() {
    let until = Instant::now() + 3_600 * SECOND;
    let ends = [Requeue::Forget, Requeue::After(3_600 * SECOND), Requeue::Backoff, Requeue::DeferUntil(until)];
    let running = run(RecordingReconciler::new(move |key, _| (Duration::ZERO, ends[key as usize])), 1);
    for key in 0..4 {
        running.queue.add(key, Priority::Event);
    }
    sleep(SECOND / 2).await;
    assert_eq!(lock(&running.stage.results).as_slice(), ["success", "requeue_after", "error", "deferred"]);
}

#[tokio::test(start_paused = true)]
async fn a_stop_takes_nothing_more_and_finishes_what_is_in_flight() {
    let running = run(RecordingReconciler::new(|_, _| (5 * SECOND, Requeue::Forget)), 2);
    for key in 0..4 {
        running.queue.add(key, Priority::Event);
    }
    sleep(SECOND).await;
    running.stop.cancel();
    assert_eq!(running.controller.await.unwrap(), ShutdownSummary { completed: 2, cancelled: 0 });
    assert_eq!(running.stage.begun.elapsed(), 5 * SECOND);
    assert_eq!(lock(&running.stage.runs).len(), 2);
    assert_eq!(running.queue.stats().ready, 2);
}

#[tokio::test(start_paused = true)]
async fn a_stop_cuts_at_its_deadline_and_puts_the_keys_back() {
    let running = run_with(
        RecordingReconciler::new(|key, _| (if key == 0 { SECOND } else { 3_600 * SECOND }, Requeue::Forget)),
        3,
        |controller| controller.graceful_shutdown_timeout(10 * SECOND),
    );
    for key in 0..3 {
        running.queue.add(key, Priority::Event);
    }
    tokio::task::yield_now().await;
    running.stop.cancel();
    assert_eq!(running.controller.await.unwrap(), ShutdownSummary { completed: 1, cancelled: 2 });
    assert_eq!(running.stage.begun.elapsed(), 10 * SECOND);
    assert_eq!(lock(&running.stage.results).as_slice(), ["success", "cancelled", "cancelled"]);
    let stats = running.queue.stats();
    assert_eq!((stats.ready, stats.processing), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn an_idle_controller_stops_at_once() {
    let running = run(RecordingReconciler::new(|_, _| (SECOND, Requeue::Forget)), 3);
    sleep(SECOND).await;
    running.stop.cancel();
    assert_eq!(running.controller.await.unwrap(), ShutdownSummary::default());
    assert_eq!(running.stage.begun.elapsed(), SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_seed_replays_the_whole_history() {
    async fn history(seed: u64) -> Vec<(Duration, u32)> {
        let mut rng = fastrand::Rng::with_seed(seed);
        let dice = Mutex::new(rng.fork());
        let running = run(
            RecordingReconciler::new(move |_, _| {
                let mut dice = lock(&dice);
                let next = [Requeue::Forget, Requeue::After(SECOND), Requeue::Backoff][dice.usize(..3)];
                (Duration::from_millis(dice.u64(..2_000)), next)
            }),
            5,
        );
        for _ in 0..300 {
            running.queue.add(rng.u32(..50), Priority::ALL[rng.usize(..4)]);
            sleep(Duration::from_millis(rng.u64(..200))).await;
        }
        running.stop.cancel();
        running.controller.await.unwrap();
        lock(&running.stage.runs).clone()
    }
    for seed in 0..3 {
        let first = history(seed).await;
        assert!(first.len() > 100);
        assert_eq!(first, history(seed).await, "seed {seed}");
    }
    assert_ne!(history(1).await, history(2).await);
}
