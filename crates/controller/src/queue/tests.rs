//! Each of the queue's guarantees, with a paused clock.

use tokio::time::{advance, timeout};

use super::Priority::{Event, Manifest, Removal, Sweep};
use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn queue() -> WorkQueue<&'static str> {
    WorkQueue::new(Backoff { min: SECOND, max: 8 * SECOND }, 1)
}

fn fail(queue: &WorkQueue<&'static str>, key: &'static str) {
    assert_eq!(queue.take().unwrap().key, key);
    queue.done(&key, Requeue::Backoff);
}

/// Takes the next key. Returns the waiting time, the key and the cause.
async fn wait(queue: &WorkQueue<&'static str>) -> (Duration, &'static str, Priority) {
    let before = Instant::now();
    let item = queue.next().await;
    (before.elapsed(), item.key, item.cause)
}

#[tokio::test(start_paused = true)]
async fn queue_runs_key_once_when_added_twice() {
    let queue = queue();
    queue.add("a", Event);
    queue.add("a", Event);
    assert_eq!(queue.take().unwrap().key, "a");
    queue.done(&"a", Requeue::Forget);
    assert_eq!(queue.take(), None);
}

#[tokio::test(start_paused = true)]
async fn queue_never_hands_out_a_key_twice() {
    let queue = queue();
    queue.add("a", Event);
    queue.take().unwrap();
    queue.add("a", Removal);
    advance(100 * SECOND).await;
    assert_eq!(queue.take(), None);
}

#[tokio::test(start_paused = true)]
async fn queue_runs_key_again_when_added_during_its_run() {
    let queue = queue();
    queue.add("a", Sweep);
    queue.take().unwrap();
    queue.add("a", Event);
    queue.add("a", Manifest);
    queue.done(&"a", Requeue::Forget);
    assert_eq!(wait(&queue).await, (Duration::ZERO, "a", Event));
    queue.done(&"a", Requeue::Forget);
    assert_eq!(queue.take(), None);
}

#[tokio::test(start_paused = true)]
async fn queue_delays_key_when_added_for_later_during_its_run() {
    let queue = queue();
    queue.add("a", Event);
    queue.take().unwrap();
    queue.add_after("a", Event, 5 * SECOND);
    queue.done(&"a", Requeue::Forget);
    assert_eq!(wait(&queue).await, (5 * SECOND, "a", Event));
}

#[tokio::test(start_paused = true)]
async fn queue_keeps_the_earliest_requested_run() {
    let queue = queue();
    queue.add_after("a", Event, 5 * SECOND);
    queue.add_after("a", Event, 2 * SECOND);
    queue.add_after("b", Event, 3 * SECOND);
    queue.add_after("b", Event, 9 * SECOND);
    assert_eq!(wait(&queue).await, (2 * SECOND, "a", Event));
    assert_eq!(wait(&queue).await, (SECOND, "b", Event));
    queue.done(&"a", Requeue::Forget);
    queue.done(&"b", Requeue::Forget);
    assert_eq!(timeout(60 * SECOND, queue.next()).await.ok(), None);
}

#[tokio::test(start_paused = true)]
async fn queue_takes_the_most_urgent_priority_first() {
    let queue = queue();
    for (key, priority) in [("swept", Sweep), ("changed", Manifest), ("event", Event), ("gone", Sweep)] {
        queue.add(key, priority);
    }
    queue.add("gone", Removal);
    queue.add("gone", Sweep);
    let order: Vec<_> = std::iter::from_fn(|| queue.take()).map(|taken| (taken.key, taken.cause)).collect();
    assert_eq!(order, [("gone", Removal), ("event", Event), ("changed", Manifest), ("swept", Sweep)]);
}

#[tokio::test(start_paused = true)]
async fn queue_takes_keys_of_one_priority_in_due_order() {
    let queue = queue();
    queue.add_after("third", Event, 2 * SECOND);
    queue.add_after("second", Event, SECOND);
    queue.add("first", Event);
    advance(3 * SECOND).await;
    queue.add("fourth", Event);
    let order: Vec<_> = std::iter::from_fn(|| queue.take()).map(|taken| taken.key).collect();
    assert_eq!(order, ["first", "second", "third", "fourth"]);
}

#[tokio::test(start_paused = true)]
async fn queue_keeps_order_when_requested_time_is_past() {
    let queue = queue();
    let past = Instant::now();
    advance(SECOND).await;
    queue.add("first", Event);
    queue.add_at("second", Event, past);
    assert_eq!(wait(&queue).await, (Duration::ZERO, "first", Event));
    assert_eq!(queue.take().unwrap().waited, Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn low_priority_is_not_starved() {
    let queue = WorkQueue::new(Backoff::default(), 1);
    queue.add(0, Sweep);
    for removal in 1..=1_000 {
        queue.add(removal, Removal);
    }
    let before_the_sweep =
        std::iter::from_fn(|| queue.take()).take_while(|taken| taken.cause != Sweep).count();
    assert!(before_the_sweep < 8, "{before_the_sweep} removals went first");
}

#[tokio::test(start_paused = true)]
async fn queue_runs_requeued_key_early_when_added() {
    let queue = queue();
    queue.add("a", Sweep);
    queue.take().unwrap();
    queue.done(&"a", Requeue::After(60 * SECOND));
    advance(SECOND).await;
    queue.add("a", Event);
    assert_eq!(wait(&queue).await, (Duration::ZERO, "a", Event));
}

#[tokio::test(start_paused = true)]
async fn requeue_keeps_the_priority_of_its_run() {
    let queue = queue();
    queue.add("a", Removal);
    queue.take().unwrap();
    queue.done(&"a", Requeue::After(5 * SECOND));
    assert_eq!(wait(&queue).await, (5 * SECOND, "a", Removal));
}

#[tokio::test(start_paused = true)]
async fn queue_keeps_backoff_when_event_arrives() {
    let queue = queue();
    queue.add("a", Sweep);
    fail(&queue, "a");
    queue.add("a", Event);
    let (waited, _, cause) = wait(&queue).await;
    assert!(waited >= SECOND, "ran after {waited:?}");
    assert_eq!(cause, Event);
    queue.done(&"a", Requeue::Forget);
    assert_eq!(queue.take(), None, "the event was done by the run after the backoff");
}

#[tokio::test(start_paused = true)]
async fn queue_keeps_backoff_when_event_arrives_during_failing_run() {
    let queue = queue();
    queue.add("a", Sweep);
    queue.take().unwrap();
    queue.add("a", Removal);
    queue.done(&"a", Requeue::Backoff);
    let (waited, _, cause) = wait(&queue).await;
    assert!(waited >= SECOND, "ran after {waited:?}");
    assert_eq!(cause, Removal);
}

#[tokio::test(start_paused = true)]
async fn backoff_grows_with_each_failure_up_to_its_bound() {
    let queue = queue();
    queue.add("a", Event);
    fail(&queue, "a");
    for base in [SECOND, 2 * SECOND, 4 * SECOND, 4 * SECOND, 4 * SECOND] {
        let (waited, ..) = wait(&queue).await;
        // The timer of the runtime counts whole milliseconds.
        assert!((base..=2 * base + Duration::from_millis(1)).contains(&waited), "{waited:?} for {base:?}");
        queue.done(&"a", Requeue::Backoff);
    }
}

#[tokio::test(start_paused = true)]
async fn backoff_resets_on_success() {
    for success in [Requeue::Forget, Requeue::After(Duration::ZERO)] {
        let queue = queue();
        queue.add("a", Event);
        fail(&queue, "a");
        for _ in 0..5 {
            queue.next().await;
            queue.done(&"a", Requeue::Backoff);
        }
        queue.next().await;
        queue.done(&"a", success);
        queue.add("a", Event);
        fail(&queue, "a");
        let (waited, ..) = wait(&queue).await;
        assert!(waited <= 2 * SECOND, "after {success:?} the backoff was {waited:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn deferral_neither_grows_nor_resets_the_backoff() {
    let queue = queue();
    queue.add("a", Event);
    fail(&queue, "a");
    for _ in 0..5 {
        queue.next().await;
        queue.done(&"a", Requeue::DeferUntil(Instant::now() + SECOND));
    }
    queue.next().await;
    queue.done(&"a", Requeue::Backoff);
    let (waited, ..) = wait(&queue).await;
    assert!((2 * SECOND..=4 * SECOND).contains(&waited), "the second backoff was {waited:?}");
}

#[tokio::test(start_paused = true)]
async fn deferred_key_waits_alone_and_ignores_events() {
    let queue = queue();
    queue.add("held", Removal);
    queue.take().unwrap();
    queue.done(&"held", Requeue::DeferUntil(Instant::now() + 10 * SECOND));
    queue.add("held", Removal);
    queue.add("other", Sweep);
    assert_eq!(wait(&queue).await, (Duration::ZERO, "other", Sweep));
    assert_eq!(wait(&queue).await, (10 * SECOND, "held", Removal));
}

#[tokio::test(start_paused = true)]
async fn waiting_worker_wakes_when_earlier_key_is_added() {
    let queue = queue();
    queue.add_after("later", Event, 60 * SECOND);
    let taker = tokio::spawn({
        let queue = queue.clone();
        async move { wait(&queue).await }
    });
    tokio::task::yield_now().await;
    queue.add_after("sooner", Event, 5 * SECOND);
    assert_eq!(taker.await.unwrap(), (5 * SECOND, "sooner", Event));
}

#[tokio::test(start_paused = true)]
async fn waiting_worker_wakes_when_key_is_done() {
    let queue = queue();
    queue.add("a", Event);
    queue.take().unwrap();
    queue.add("a", Event);
    let taker = tokio::spawn({
        let queue = queue.clone();
        async move { wait(&queue).await }
    });
    tokio::time::sleep(SECOND).await;
    queue.done(&"a", Requeue::Forget);
    assert_eq!(timeout(SECOND, taker).await.unwrap().unwrap(), (SECOND, "a", Event));
}

#[tokio::test(start_paused = true)]
async fn all_idle_workers_wake_when_one_leaves() {
    let queue = queue();
    queue.add_after("last", Event, 60 * SECOND);
    let takers: Vec<_> = (0..3)
        .map(|_| {
            let queue = queue.clone();
            tokio::spawn(async move { wait(&queue).await })
        })
        .collect();
    tokio::task::yield_now().await;
    queue.add_after("a", Event, SECOND);
    queue.add_after("b", Event, 2 * SECOND);
    tokio::task::yield_now().await;
    takers[0].abort();
    let mut came = Vec::new();
    for taker in takers.into_iter().skip(1) {
        came.push(taker.await.unwrap());
    }
    came.sort_unstable();
    assert_eq!(came, [(SECOND, "a", Event), (2 * SECOND, "b", Event)]);
}

#[tokio::test(start_paused = true)]
async fn done_has_no_effect_when_key_is_not_processing() {
    let queue = queue();
    queue.done(&"a", Requeue::Backoff);
    queue.add("a", Event);
    queue.done(&"a", Requeue::Forget);
    assert_eq!(queue.stats().ready, 1);
    assert_eq!(queue.stats().retries, 0);
}

#[tokio::test(start_paused = true)]
async fn stats_count_waiting_and_running_keys() {
    let queue = queue();
    for key in ["a", "b", "c"] {
        queue.add(key, Event);
    }
    queue.add("a", Removal);
    queue.add_after("d", Sweep, 60 * SECOND);
    advance(2 * SECOND).await;
    fail(&queue, "a");
    queue.take().unwrap();
    advance(SECOND / 2).await;
    let expected = QueueStats {
        ready: 1,
        delayed: 2,
        processing: 1,
        oldest_waiting: 5 * SECOND / 2,
        longest_running: SECOND / 2,
        adds: 5,
        retries: 1,
    };
    assert_eq!(queue.stats(), expected);
}

#[tokio::test(start_paused = true)]
async fn queue_drops_key_when_it_succeeds() {
    let queue = queue();
    queue.add("a", Event);
    fail(&queue, "a");
    queue.next().await;
    queue.done(&"a", Requeue::Forget);
    assert!(lock(&queue.inner.schedule).is_empty());
}
