//! The controller's guarantees, with a paused clock.

use std::collections::BTreeMap;
use std::sync::Mutex;

use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::*;
use crate::{Backoff, lock};

const SECOND: Duration = Duration::from_secs(1);

/// Returns duration and result of a run, by key and number of the run.
type RunScript = Box<dyn Fn(u32, usize) -> (Duration, Requeue) + Send + Sync>;

/// Runs by a script and records the runs.
struct RecordingReconciler {
    begun: Instant,
    script: RunScript,
    runs: Mutex<Vec<(Duration, u32)>>,
    active: Mutex<BTreeMap<u32, usize>>,
    max_per_key: Mutex<usize>,
    max_concurrent: Mutex<usize>,
    results: Mutex<Vec<&'static str>>,
}

impl RecordingReconciler {
    fn new(script: impl Fn(u32, usize) -> (Duration, Requeue) + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            begun: Instant::now(),
            script: Box::new(script),
            runs: Mutex::default(),
            active: Mutex::default(),
            max_per_key: Mutex::default(),
            max_concurrent: Mutex::default(),
            results: Mutex::default(),
        })
    }

    fn runs_of(&self, key: u32) -> Vec<Duration> {
        lock(&self.runs).iter().filter(|(_, k)| *k == key).map(|(at, _)| *at).collect()
    }

    fn enter(&self, key: u32) {
        lock(&self.runs).push((self.begun.elapsed(), key));
        let mut active = lock(&self.active);
        *active.entry(key).or_default() += 1;
        let (of_key, total): (usize, usize) = (active[&key], active.values().sum());
        let (mut max_per_key, mut max_concurrent) = (lock(&self.max_per_key), lock(&self.max_concurrent));
        *max_per_key = of_key.max(*max_per_key);
        *max_concurrent = total.max(*max_concurrent);
    }
}

#[async_trait]
impl Reconciler<u32> for RecordingReconciler {
    async fn reconcile(&self, key: &u32, _: Priority) -> Requeue {
        self.enter(*key);
        let nth = self.runs_of(*key).len();
        let (takes, next) = (self.script)(*key, nth);
        sleep(takes).await;
        *lock(&self.active).get_mut(key).unwrap() -= 1;
        next
    }
}

impl ControllerObserver for RecordingReconciler {
    fn on_result(&self, _: Duration, result: &'static str) {
        assert!(RUN_RESULTS.contains(&result));
        lock(&self.results).push(result);
    }
}

struct RunningController {
    queue: WorkQueue<u32>,
    reconciler: Arc<RecordingReconciler>,
    stop: CancellationToken,
    controller: JoinHandle<ShutdownSummary>,
}

fn run(reconciler: Arc<RecordingReconciler>, concurrency: usize) -> RunningController {
    run_with(reconciler, concurrency, |controller| controller)
}

fn run_with(
    reconciler: Arc<RecordingReconciler>,
    concurrency: usize,
    options: impl FnOnce(Controller<u32, RecordingReconciler>) -> Controller<u32, RecordingReconciler>,
) -> RunningController {
    let queue = WorkQueue::new(Backoff { min: SECOND, max: 8 * SECOND }, 1);
    let stop = CancellationToken::new();
    let controller = Controller::new(queue.clone(), Arc::clone(&reconciler), concurrency)
        .observer(Arc::clone(&reconciler) as Arc<dyn ControllerObserver>);
    let controller = tokio::spawn(options(controller).run(stop.clone()));
    RunningController { queue, reconciler, stop, controller }
}

#[tokio::test(start_paused = true)]
async fn controller_never_runs_a_key_concurrently() {
    let running = run(RecordingReconciler::new(|_, _| (SECOND, Requeue::Forget)), 8);
    for _ in 0..100 {
        running.queue.add(1, Priority::Event);
        sleep(SECOND / 10).await;
    }
    sleep(5 * SECOND).await;
    assert_eq!(*lock(&running.reconciler.max_per_key), 1);
    assert_eq!(running.reconciler.runs_of(1).len(), 11, "each added-to run is followed by one more");
}

#[tokio::test(start_paused = true)]
async fn key_added_during_reconcile_runs_again() {
    let running = run(RecordingReconciler::new(|_, _| (SECOND, Requeue::Forget)), 8);
    running.queue.add(1, Priority::Event);
    sleep(SECOND / 2).await;
    running.queue.add(1, Priority::Event);
    running.queue.add(1, Priority::Sweep);
    sleep(60 * SECOND).await;
    assert_eq!(running.reconciler.runs_of(1).len(), 2);
}

#[tokio::test(start_paused = true)]
async fn controller_limits_concurrency_and_runs_all_keys() {
    let running = run(RecordingReconciler::new(|_, _| (SECOND, Requeue::Forget)), 3);
    for key in 0..30 {
        running.queue.add(key, Priority::Event);
    }
    sleep(60 * SECOND).await;
    assert_eq!(*lock(&running.reconciler.max_concurrent), 3);
    assert_eq!(lock(&running.reconciler.results).as_slice(), ["success"; 30]);
    assert!(lock(&running.reconciler.runs).last().unwrap().0 < 10 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn hung_key_does_not_block_other_keys() {
    let hang = |key, _| (if key == 0 { 3_600 * SECOND } else { SECOND }, Requeue::Forget);
    let running = run(RecordingReconciler::new(hang), 2);
    for key in 0..10 {
        running.queue.add(key, Priority::Event);
    }
    sleep(60 * SECOND).await;
    assert_eq!(lock(&running.reconciler.results).len(), 9);
}

#[tokio::test(start_paused = true)]
async fn run_is_cancelled_and_backs_off_when_it_times_out() {
    let hang_once = |_, nth| (if nth == 1 { 3_600 * SECOND } else { SECOND }, Requeue::Forget);
    let running =
        run_with(RecordingReconciler::new(hang_once), 1, |controller| controller.timeout(5 * SECOND));
    running.queue.add(1, Priority::Event);
    sleep(60 * SECOND).await;
    assert_eq!(lock(&running.reconciler.results).as_slice(), ["timeout", "success"]);
    assert!(running.reconciler.runs_of(1)[1] >= 6 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn panic_backs_off_its_own_key_only() {
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

    let after_panic = running.reconciler.runs_of(1);
    assert!(
        (SECOND..=2 * SECOND + SECOND / 10).contains(&after_panic[1]),
        "retried after {:?}",
        after_panic[1]
    );
    assert!(running.reconciler.runs_of(2).len() >= 5, "the other key went on");
    let results = lock(&running.reconciler.results);
    assert_eq!(results.iter().filter(|outcome| **outcome == "panic").count(), 1);
    assert_eq!(running.queue.stats().retries, 1);
}

#[tokio::test(start_paused = true)]
async fn controller_reports_a_result_for_each_requeue() {
    let until = Instant::now() + 3_600 * SECOND;
    let ends =
        [Requeue::Forget, Requeue::After(3_600 * SECOND), Requeue::Backoff, Requeue::DeferUntil(until)];
    let running = run(RecordingReconciler::new(move |key, _| (Duration::ZERO, ends[key as usize])), 1);
    for key in 0..4 {
        running.queue.add(key, Priority::Event);
    }
    sleep(SECOND / 2).await;
    assert_eq!(
        lock(&running.reconciler.results).as_slice(),
        ["success", "requeue_after", "error", "deferred"]
    );
}

#[tokio::test(start_paused = true)]
async fn shutdown_completes_runs_in_flight_only() {
    let running = run(RecordingReconciler::new(|_, _| (5 * SECOND, Requeue::Forget)), 2);
    for key in 0..4 {
        running.queue.add(key, Priority::Event);
    }
    sleep(SECOND).await;
    running.stop.cancel();
    assert_eq!(running.controller.await.unwrap(), ShutdownSummary { completed: 2, cancelled: 0 });
    assert_eq!(running.reconciler.begun.elapsed(), 5 * SECOND);
    assert_eq!(lock(&running.reconciler.runs).len(), 2);
    assert_eq!(running.queue.stats().ready, 2);
}

#[tokio::test(start_paused = true)]
async fn shutdown_cancels_runs_at_deadline_and_requeues_keys() {
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
    assert_eq!(running.reconciler.begun.elapsed(), 10 * SECOND);
    assert_eq!(lock(&running.reconciler.results).as_slice(), ["success", "cancelled", "cancelled"]);
    let stats = running.queue.stats();
    assert_eq!((stats.ready, stats.processing), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn idle_controller_stops_immediately() {
    let running = run(RecordingReconciler::new(|_, _| (SECOND, Requeue::Forget)), 3);
    sleep(SECOND).await;
    running.stop.cancel();
    assert_eq!(running.controller.await.unwrap(), ShutdownSummary::default());
    assert_eq!(running.reconciler.begun.elapsed(), SECOND);
}

#[tokio::test(start_paused = true)]
async fn controller_history_depends_on_the_seed_only() {
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
        lock(&running.reconciler.runs).clone()
    }
    for seed in 0..3 {
        let first = history(seed).await;
        assert!(first.len() > 100);
        assert_eq!(first, history(seed).await, "seed {seed}");
    }
    assert_ne!(history(1).await, history(2).await);
}
