//! Describes decide, never events.

use super::*;
use crate::aws::AwsErrorKind;
use crate::aws::Ecs;
use crate::cluster_checker::ClusterChecker;
use crate::events::HintedState;
use crate::fakes::{CALL, FakeEcs, clock, task, task_arn};
use crate::task_describer::OnLeaving;
use ecs_mesh_controller::TokenBucket;
use ecs_mesh_core::plan::TaskLiveness;
use ecs_mesh_model::{DesiredStatus, InterfaceAddresses, LastStatus, Task};

const GRACE: Duration = Duration::from_mins(5);

/// Records resolved tasks, with the time since the start.
#[derive(Default)]
struct RecordingSink {
    registered: Mutex<Vec<TaskArn>>,
    resolved: Mutex<Vec<(TaskArn, u64, bool)>>,
    started: Mutex<Option<Instant>>,
    overflows: Mutex<usize>,
    held: Mutex<Vec<TaskArn>>,
}

impl HintSink for RecordingSink {
    fn is_registered(&self, task: &TaskArn) -> bool {
        self.registered.lock().unwrap().contains(task)
    }

    fn on_resolved(&self, task: &TaskArn, received: Option<Instant>) {
        let elapsed = self.started.lock().unwrap().unwrap().elapsed().as_secs();
        self.resolved.lock().unwrap().push((task.clone(), elapsed, received.is_some()));
    }

    fn holds_drain(&self, task: &TaskArn) -> bool {
        self.held.lock().unwrap().contains(task)
    }

    fn on_overflow(&self) {
        *self.overflows.lock().unwrap() += 1;
    }
}

struct ResolverFixture {
    resolver: HintResolver,
    ecs: Arc<FakeEcs>,
    store: Arc<TaskStore>,
    sink: Arc<RecordingSink>,
    clock: Clock,
    stop: CancellationToken,
}

/// A running resolver. Each call to ECS takes a second.
fn resolver() -> ResolverFixture {
    let (ecs, store, sink) =
        (Arc::new(FakeEcs::default()), Arc::new(TaskStore::default()), Arc::new(RecordingSink::default()));
    *sink.started.lock().unwrap() = Some(Instant::now());
    let clock = clock();
    let nothing: OnLeaving = Arc::new(|_, _| {});
    let bucket = TokenBucket::new(10.0, 50);
    let (source, clusters): (Arc<dyn Ecs>, _) =
        (ecs.clone(), ClusterChecker::new(ecs.clone(), bucket.clone()));
    let describer =
        TaskDescriber::new(source, store.clone(), clock.clone(), bucket, Arc::new(clusters), nothing);
    let resolver = HintResolver::new(describer, Arc::clone(&store), clock.clone(), Arc::clone(&sink) as _, 1);
    let stop = CancellationToken::new();
    tokio::spawn(resolver.clone().run(stop.clone()));
    ResolverFixture { resolver, ecs, store, sink, clock, stop }
}

impl Drop for ResolverFixture {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl ResolverFixture {
    fn event(&self, n: usize, version: u64, state: HintedState) -> EventResult {
        self.resolver.add(&TaskHint { task: task_arn(n), version, state }, Instant::now())
    }

    /// The answer of ECS from now on; `None` is MISSING.
    fn ecs_shows(&self, n: usize, shown: Option<(u64, LastStatus)>) {
        let mut tasks = self.ecs.tasks.lock().unwrap();
        match shown {
            Some((version, status)) => {
                tasks.insert(task_arn(n).id().clone(), Task { version, ..task(n, status) });
            }
            None => _ = tasks.remove(task_arn(n).id()),
        }
    }

    /// A task that a describe has shown before.
    fn known(&self, n: usize, version: u64) {
        self.ecs_shows(n, Some((version, LastStatus::Running)));
        self.store.observe(Task { version, ..task(n, LastStatus::Running) }, self.clock.now());
    }

    fn liveness(&self, n: usize) -> TaskLiveness {
        self.store.snapshot(&task_arn(n), GRACE, self.clock.now()).liveness
    }

    /// Seconds after the start, and whether the event's time was passed on.
    fn resolved(&self, n: usize) -> Vec<(u64, bool)> {
        let resolved = self.sink.resolved.lock().unwrap();
        resolved
            .iter()
            .filter(|(task, ..)| *task == task_arn(n))
            .map(|(_, at, first)| (*at, *first))
            .collect()
    }

    fn describes(&self) -> usize {
        self.ecs.described.lock().unwrap().len()
    }

    async fn seconds(&self, seconds: u64) {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn event_is_resolved_by_a_describe() {
    let fixture = resolver();
    fixture.ecs_shows(1, Some((4, LastStatus::Running)));
    assert_eq!(fixture.event(1, 4, HintedState::Running), EventResult::Accepted);
    assert_eq!(fixture.store.version(&task_arn(1)), None, "the event adds no state");
    fixture.seconds(2).await;
    assert_eq!((fixture.resolved(1), fixture.liveness(1)), (vec![(1, true)], TaskLiveness::Live));
    assert_eq!(fixture.event(1, 4, HintedState::Running), EventResult::Stale);
    assert_eq!(fixture.event(1, 3, HintedState::Stopped), EventResult::Stale);
    fixture.seconds(60).await;
    assert_eq!((fixture.describes(), fixture.resolver.pending()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn forged_stop_changes_nothing() {
    let fixture = resolver();
    fixture.known(1, 4);
    fixture.event(1, u64::MAX, HintedState::Stopped);
    fixture.seconds(120).await;
    assert_eq!(fixture.liveness(1), TaskLiveness::Live);
    // 0, 1, 2, 4 and 8 s after one another; each call takes a second.
    assert_eq!((fixture.describes(), fixture.resolver.pending()), (5, 0));
    assert_eq!(fixture.event(1, 5, HintedState::Stopping), EventResult::Accepted, "later events still count");
}

#[tokio::test(start_paused = true)]
async fn real_event_is_not_delayed_by_a_forged_version() {
    let fixture = resolver();
    fixture.known(1, 4);
    fixture.event(1, u64::MAX, HintedState::Running);
    fixture.ecs_shows(1, Some((6, LastStatus::Running)));
    fixture.event(1, 6, HintedState::Running);
    fixture.seconds(2).await;
    assert_eq!(fixture.resolved(1), [(1, true)]);
}

#[tokio::test(start_paused = true)]
async fn older_describe_decides_nothing_until_the_last() {
    let fixture = resolver();
    fixture.known(1, 4);
    fixture.event(1, 6, HintedState::Stopping);
    fixture.seconds(5).await;
    assert_eq!((fixture.resolved(1), fixture.liveness(1)), (vec![], TaskLiveness::Live));
    fixture.ecs_shows(1, Some((6, LastStatus::Deactivating)));
    fixture.seconds(10).await;
    assert_eq!(fixture.liveness(1), TaskLiveness::Leaving);
    assert_eq!(fixture.resolved(1).len(), 1);
    let lagging = resolver();
    lagging.known(2, 4);
    lagging.event(2, 6, HintedState::Running);
    lagging.seconds(60).await;
    assert_eq!(lagging.resolved(2).len(), 1, "the last answer counts");
}

#[tokio::test(start_paused = true)]
async fn stop_in_a_describe_is_final_at_any_version() {
    let fixture = resolver();
    fixture.known(1, 4);
    fixture.ecs_shows(1, Some((5, LastStatus::Deactivating)));
    fixture.event(1, 6, HintedState::Running);
    fixture.seconds(2).await;
    assert_eq!((fixture.resolved(1), fixture.liveness(1)), (vec![(1, true)], TaskLiveness::Leaving));
}

#[tokio::test(start_paused = true)]
async fn stop_is_followed_up_until_the_task_has_stopped() {
    let fixture = resolver();
    fixture.known(1, 4);
    fixture.ecs_shows(1, Some((6, LastStatus::Deprovisioning)));
    fixture.event(1, 7, HintedState::Stopped);
    fixture.seconds(2).await;
    assert_eq!((fixture.resolved(1).len(), fixture.liveness(1)), (1, TaskLiveness::Leaving));
    fixture.ecs_shows(1, Some((7, LastStatus::Stopped)));
    fixture.seconds(3).await;
    assert_eq!((fixture.resolved(1).len(), fixture.liveness(1)), (2, TaskLiveness::Stopped));
}

#[tokio::test(start_paused = true)]
async fn new_task_is_found_once_it_is_visible() {
    let fixture = resolver();
    fixture.event(1, 1, HintedState::Running);
    fixture.seconds(4).await;
    assert_eq!(fixture.resolved(1), []);
    fixture.ecs_shows(1, Some((1, LastStatus::Running)));
    fixture.seconds(5).await;
    assert_eq!((fixture.resolved(1).len(), fixture.liveness(1)), (1, TaskLiveness::Live));
}

#[tokio::test(start_paused = true)]
async fn task_that_ecs_does_not_know_leaves_nothing_behind() {
    let fixture = resolver();
    for state in [HintedState::Running, HintedState::Stopping, HintedState::Stopped] {
        fixture.event(1, 1, state);
    }
    fixture.seconds(120).await;
    assert!(fixture.store.is_empty());
    assert_eq!((fixture.resolved(1), fixture.resolver.pending(), fixture.describes()), (vec![], 0, 5));
}

#[tokio::test(start_paused = true)]
async fn missing_twice_after_a_stop_event_is_recorded() {
    let fixture = resolver();
    fixture.known(1, 4);
    fixture.ecs_shows(1, None);
    fixture.event(1, 9, HintedState::Stopped);
    fixture.seconds(10).await;
    assert_eq!(fixture.liveness(1), TaskLiveness::Live);
    fixture.seconds(20).await;
    assert!(matches!(fixture.liveness(1), TaskLiveness::StoppedMissing { .. }));
    assert_eq!(fixture.resolved(1).len(), 1);
    fixture.ecs_shows(2, None);
    fixture.known(2, 4);
    fixture.ecs_shows(2, None);
    fixture.event(2, 9, HintedState::Running);
    fixture.seconds(60).await;
    assert_eq!(fixture.liveness(2), TaskLiveness::Live, "no event reported a stop");
}

#[tokio::test(start_paused = true)]
async fn registered_task_without_a_describe_is_known() {
    let fixture = resolver();
    fixture.sink.registered.lock().unwrap().push(task_arn(1));
    fixture.event(1, 9, HintedState::Stopped);
    fixture.seconds(30).await;
    assert!(matches!(fixture.liveness(1), TaskLiveness::StoppedMissing { .. }));
}

#[tokio::test(start_paused = true)]
async fn stop_is_unconfirmed_after_five_seconds_of_failures() {
    let fixture = resolver();
    fixture.known(1, 4);
    *fixture.ecs.fails.lock().unwrap() = Some(AwsErrorKind::Unavailable);
    fixture.event(1, 5, HintedState::Stopping);
    fixture.event(2, 5, HintedState::Stopping);
    fixture.seconds(4).await;
    assert_eq!((fixture.resolved(1), fixture.liveness(1)), (vec![], TaskLiveness::Live));
    fixture.seconds(6).await;
    assert_eq!(fixture.liveness(1), TaskLiveness::StopUnconfirmed);
    assert_eq!(fixture.resolved(1).len(), 1);
    assert!(fixture.resolved(2).is_empty(), "nothing is known of the task");
    fixture.seconds(120).await;
    assert_eq!(fixture.resolved(1).len(), 1, "passed on once");
    *fixture.ecs.fails.lock().unwrap() = None;
    fixture.ecs_shows(1, Some((5, LastStatus::Running)));
    fixture.seconds(40).await;
    assert_eq!(fixture.liveness(1), TaskLiveness::Live, "the first describe that succeeds undoes it");
    assert_eq!((fixture.resolved(1).len(), fixture.resolver.pending()), (2, 0));
}

/// A start has several events, and its last ones change nothing.
#[tokio::test(start_paused = true)]
async fn events_of_a_running_task_share_a_describe() {
    let fixture = resolver();
    let addresses = InterfaceAddresses::new(Some("10.0.0.1".parse().unwrap()), None).unwrap();
    let running = Task { addresses, version: 3, ..task(1, LastStatus::Running) };
    fixture.store.observe(running, fixture.clock.now());
    fixture.ecs_shows(1, Some((5, LastStatus::Running)));
    fixture.event(1, 4, HintedState::Running);
    tokio::time::sleep(Duration::from_millis(900)).await;
    fixture.event(1, 5, HintedState::Running);
    assert_eq!(fixture.describes(), 0);
    fixture.seconds(5).await;
    assert_eq!((fixture.describes(), fixture.resolved(1).len(), fixture.resolver.pending()), (1, 1, 0));
    // A stop waits for nothing.
    fixture.event(1, 6, HintedState::Running);
    fixture.event(1, 7, HintedState::Stopping);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(fixture.describes(), 2);
}

#[tokio::test(start_paused = true)]
async fn events_of_a_leaving_task_share_a_describe_unless_its_drain_is_held() {
    for held in [false, true] {
        let fixture = resolver();
        let leaving =
            Task { desired_status: DesiredStatus::Stopped, version: 6, ..task(1, LastStatus::Running) };
        fixture.store.observe(leaving, fixture.clock.now());
        fixture.ecs_shows(1, Some((8, LastStatus::Stopped)));
        if held {
            fixture.sink.held.lock().unwrap().push(task_arn(1));
        }
        fixture.event(1, 7, HintedState::Stopping);
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(fixture.describes(), usize::from(held));
        // The end waits for nothing.
        fixture.event(1, 8, HintedState::Stopped);
        fixture.seconds(2).await;
        assert_eq!((fixture.describes(), fixture.resolver.pending()), (1, 0));
    }
}

/// The messages of a backlog may name a task twice, and newer ones may be behind.
#[tokio::test(start_paused = true)]
async fn backlog_is_received_before_unknown_tasks_are_described() {
    let fixture = resolver();
    let backlog = fixture.resolver.backlog();
    (0..100).for_each(|_| backlog.record_receive(true));
    fixture.known(1, 4);
    fixture.ecs_shows(1, Some((5, LastStatus::Deactivating)));
    (2..202).for_each(|n| fixture.ecs_shows(n, Some((2, LastStatus::Running))));
    (2..202).for_each(|n| _ = fixture.event(n, 1, HintedState::Running));
    fixture.event(1, 5, HintedState::Stopping);
    tokio::time::sleep(Duration::from_millis(500)).await;
    let described = || fixture.ecs.described.lock().unwrap().iter().map(Vec::len).collect::<Vec<_>>();
    assert_eq!(described(), [1], "a known task does not wait");
    (2..202).for_each(|n| _ = fixture.event(n, 2, HintedState::Running));
    backlog.record_receive(false);
    fixture.seconds(4).await;
    assert_eq!(described(), [1, 100, 100], "one describe answers both events");
    assert_eq!((fixture.resolved(2).len(), fixture.resolved(201).len()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn unknown_tasks_are_bounded_and_known_ones_go_first() {
    let fixture = resolver();
    fixture.known(1, 4);
    fixture.ecs_shows(1, Some((5, LastStatus::Running)));
    let flood = (2..).take(MAX_UNKNOWN_TASKS);
    assert!(flood.into_iter().all(|n| fixture.event(n, 1, HintedState::Running) == EventResult::Accepted));
    assert_eq!(fixture.event(90_000, 1, HintedState::Running), EventResult::Overflow);
    fixture.seconds(1).await;
    assert_eq!(fixture.event(1, 5, HintedState::Running), EventResult::Accepted);
    fixture.seconds(3).await;
    let (at, _) = fixture.resolved(1)[0];
    assert!(at <= 3, "in the call after the one in flight, not behind the flood: {at} s");
    let overflows = || *fixture.sink.overflows.lock().unwrap();
    assert_eq!(overflows(), 0, "a sweep now would find tasks whose events wait");
    fixture.seconds(3_600).await;
    assert_eq!(fixture.resolver.pending(), 0);
    assert_eq!(overflows(), 1);
    // Another burst that has been answered before the next sweep may be asked for.
    for n in 30_000..=(30_000 + MAX_UNKNOWN_TASKS) {
        fixture.event(n, 1, HintedState::Running);
    }
    fixture.seconds(3_600).await;
    assert_eq!(overflows(), 2);
    assert_eq!(fixture.event(90_000, 1, HintedState::Running), EventResult::Accepted);
    assert!(CALL >= Duration::from_secs(1));
}
