//! Each of the queue's guarantees, seen with a stopped clock.

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

/// How long from now until a key comes, which one, and why.
async fn wait(queue: &WorkQueue<&'static str>) -> (Duration, &'static str, Priority) {
    let before = Instant::now();
    let taken = queue.next().await;
    (before.elapsed(), taken.key, taken.cause)
}

#[tokio::test(start_paused = true)]
async fn a_key_added_twice_runs_once() {
    let queue = queue();
    queue.add("a", Event);
    queue.add("a", Event);
    assert_eq!(queue.take().unwrap().key, "a");
    queue.done(&"a", Requeue::Forget);
    assert_eq!(queue.take(), None);
}

#[tokio::test(start_paused = true)]
async fn a_key_is_never_out_twice_at_once() {
    let queue = queue();
    queue.add("a", Event);
    queue.take().unwrap();
    queue.add("a", Removal);
    advance(100 * SECOND).await;
    assert_eq!(queue.take(), None);
}

#[tokio::test(start_paused = true)]
async fn a_key_added_while_it_runs_runs_once_more() {
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
async fn a_key_added_for_later_while_it_runs_runs_later() {
    let queue = queue();
    queue.add("a", Event);
    queue.take().unwrap();
    queue.add_after("a", Event, 5 * SECOND);
    queue.done(&"a", Requeue::Forget);
    assert_eq!(wait(&queue).await, (5 * SECOND, "a", Event));
}

#[tokio::test(start_paused = true)]
async fn the_earliest_run_wins_whichever_was_asked_for_first() {
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
async fn the_most_urgent_priority_wins_and_goes_first() {
    let queue = queue();
    for (key, priority) in [("swept", Sweep), ("changed", Manifest), ("heard", Event), ("gone", Sweep)] {
        queue.add(key, priority);
    }
    queue.add("gone", Removal);
    queue.add("gone", Sweep);
    let order: Vec<_> = std::iter::from_fn(|| queue.take()).map(|taken| (taken.key, taken.cause)).collect();
    assert_eq!(order, [("gone", Removal), ("heard", Event), ("changed", Manifest), ("swept", Sweep)]);
}

#[tokio::test(start_paused = true)]
async fn keys_of_one_priority_go_in_the_order_they_became_due() {
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
async fn asking_for_a_time_that_has_passed_does_not_jump_the_line() {
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
async fn a_plain_requeue_is_brought_forward_by_an_add() {
    let queue = queue();
    queue.add("a", Sweep);
    queue.take().unwrap();
    queue.done(&"a", Requeue::After(60 * SECOND));
    advance(SECOND).await;
    queue.add("a", Event);
    assert_eq!(wait(&queue).await, (Duration::ZERO, "a", Event));
}

#[tokio::test(start_paused = true)]
async fn a_requeue_keeps_the_priority_of_its_run() {
    let queue = queue();
    queue.add("a", Removal);
    queue.take().unwrap();
    queue.done(&"a", Requeue::After(5 * SECOND));
    assert_eq!(wait(&queue).await, (5 * SECOND, "a", Removal));
}

#[tokio::test(start_paused = true)]
async fn an_event_does_not_shorten_a_backoff_and_is_not_forgotten() {
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
async fn event_during_failing_run_keeps_the_backoff() {
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
async fn backoff_is_forgotten_on_success() {
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
async fn a_hold_neither_grows_nor_forgets_the_backoff() {
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
async fn a_held_key_does_not_hold_others_and_no_event_frees_it() {
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
async fn a_waiting_taker_hears_an_add_and_an_earlier_time() {
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
async fn a_waiting_taker_hears_of_a_key_given_back() {
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
async fn giving_back_what_is_not_out_changes_nothing() {
    let queue = queue();
    queue.done(&"a", Requeue::Backoff);
    queue.add("a", Event);
    queue.done(&"a", Requeue::Forget);
    assert_eq!(queue.stats().ready, 1);
    assert_eq!(queue.stats().retries, 0);
}

#[tokio::test(start_paused = true)]
async fn the_numbers_tell_what_waits_and_what_runs() {
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
async fn an_idle_key_costs_nothing() {
    let queue = queue();
    queue.add("a", Event);
    fail(&queue, "a");
    queue.next().await;
    queue.done(&"a", Requeue::Forget);
    assert!(lock(&queue.inner.schedule).is_empty());
}
