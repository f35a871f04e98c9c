//! The newest version wins; evidence that a task is gone.

use super::*;
use ecs_mesh_model::DesiredStatus;
use ecs_mesh_model::{InterfaceAddresses, LastStatus, TaskGroup, TaskHost};

const NOW: Timestamp = Timestamp(1_000_000);
const GRACE: Duration = Duration::from_mins(5);

fn arn() -> TaskArn {
    TaskArn::parse("arn:aws:ecs:eu-west-1:111122223333:task/c/3f2a9c0d5e6b4a718293a4b5c6d7e8f9").unwrap()
}

fn task(version: u64, last_status: LastStatus) -> Task {
    let desired_status =
        if last_status > LastStatus::Running { DesiredStatus::Stopped } else { DesiredStatus::Running };
    Task {
        arn: arn(),
        version,
        last_status,
        desired_status,
        group: TaskGroup::parse("service:kv"),
        definition: ecs_mesh_model::TaskDefinitionArn::parse(
            "arn:aws:ecs:eu-west-1:111122223333:task-definition/kv:1",
        )
        .unwrap(),
        role_override: None,
        addresses: InterfaceAddresses::NONE,
        host: TaskHost::None,
        deployment: None,
        created_at: None,
        tags: None,
        stopped_containers: Box::default(),
    }
}

fn liveness(store: &TaskStore, now: Timestamp) -> TaskLiveness {
    store.snapshot(&arn(), GRACE, now).liveness
}

#[test]
fn older_describe_changes_nothing() {
    let store = TaskStore::default();
    store.observe(task(5, LastStatus::Deactivating), NOW);
    store.observe(task(4, LastStatus::Running), NOW);
    assert_eq!(liveness(&store, NOW), TaskLiveness::Leaving);
    assert_eq!(store.version(&arn()), Some(5));
}

#[test]
fn a_stop_that_a_describe_showed_is_final() {
    let store = TaskStore::default();
    store.observe(task(5, LastStatus::Deactivating), NOW);
    store.observe(task(6, LastStatus::Running), NOW);
    assert_eq!(liveness(&store, NOW), TaskLiveness::Leaving);
    store.observe(task(7, LastStatus::Stopped), NOW);
    store.observe(task(8, LastStatus::Deactivating), NOW);
    assert_eq!(liveness(&store, NOW), TaskLiveness::Stopped);
}

#[test]
fn first_leaving_and_first_stop_are_reported_once() {
    let store = TaskStore::default();
    store.observe(task(5, LastStatus::Running), NOW);
    let leaving = store.observe(task(6, LastStatus::Deactivating), NOW);
    assert!(leaving.first_leaving && !leaving.first_stop, "{leaving:?}");
    let stopped = store.observe(task(7, LastStatus::Stopped), NOW);
    assert!(stopped.first_stop && !stopped.first_leaving, "{stopped:?}");
    assert_eq!(store.observe(task(7, LastStatus::Stopped), NOW), Observation::default());
}

#[test]
fn stop_event_alone_changes_nothing() {
    let store = TaskStore::default();
    store.observe(task(3, LastStatus::Running), NOW);
    store.record_stop_event(&arn(), false, NOW);
    assert_eq!(liveness(&store, NOW), TaskLiveness::Live);
}

#[test]
fn stop_event_is_unconfirmed_while_describes_fail() {
    let store = TaskStore::default();
    store.observe(task(3, LastStatus::Running), NOW);
    store.record_stop_event(&arn(), true, NOW);
    assert_eq!(liveness(&store, NOW), TaskLiveness::StopUnconfirmed);
    store.observe(task(3, LastStatus::Running), NOW);
    assert_eq!(liveness(&store, NOW), TaskLiveness::Live, "the first describe that succeeds decides");
}

#[test]
fn missing_after_a_stop_event_needs_two_answers() {
    let store = TaskStore::default();
    let (soon, later) = (NOW.plus(Duration::from_secs(9)), NOW.plus(Duration::from_secs(10)));
    store.observe(task(3, LastStatus::Running), NOW);
    store.record_stop_event(&arn(), false, NOW);
    store.record_missing(&arn(), GRACE, NOW);
    store.record_missing(&arn(), GRACE, soon);
    assert_eq!(liveness(&store, soon), TaskLiveness::Live);
    store.record_missing(&arn(), GRACE, later);
    assert_eq!(liveness(&store, later), TaskLiveness::StoppedMissing { since: NOW });
}

#[test]
fn sign_of_life_ends_what_a_stop_event_began() {
    let later = NOW.plus(Duration::from_secs(10));
    let shows: [fn(&TaskStore); 2] = [
        |store| store.record_listed_running(&arn(), NOW),
        |store| _ = store.observe(task(3, LastStatus::Running), NOW),
    ];
    for show in shows {
        let store = TaskStore::default();
        store.observe(task(3, LastStatus::Running), NOW);
        store.record_stop_event(&arn(), false, NOW);
        store.record_missing(&arn(), GRACE, NOW);
        show(&store);
        store.record_missing(&arn(), GRACE, later);
        assert_eq!(liveness(&store, later), TaskLiveness::Live);
        store.record_stop_event(&arn(), false, NOW);
        store.record_missing(&arn(), GRACE, NOW);
        store.record_missing(&arn(), GRACE, later);
        assert_eq!(liveness(&store, later), TaskLiveness::StoppedMissing { since: NOW });
        show(&store);
        assert_eq!(liveness(&store, later), TaskLiveness::Live, "it was a wrong answer, twice");
    }
}

#[test]
fn missing_alone_is_no_evidence() {
    let store = TaskStore::default();
    store.observe(task(3, LastStatus::Running), NOW);
    store.record_missing(&arn(), GRACE, NOW);
    store.record_missing(&arn(), GRACE, NOW.plus(Duration::from_mins(1)));
    assert_eq!(liveness(&store, NOW), TaskLiveness::Live);
}

#[test]
fn running_is_confirmed_by_two_describes_in_a_row() {
    let store = TaskStore::default();
    let at = |seconds| NOW.plus(Duration::from_secs(seconds));
    let confirmed = |now| store.snapshot(&arn(), GRACE, now).sighting(now) == Sighting::Confirmed;
    let describe = |now| store.observe(task(3, LastStatus::Running), now);
    describe(at(0));
    describe(at(9));
    assert!(!confirmed(at(9)));
    assert_eq!(store.snapshot(&arn(), GRACE, at(9)).confirms_running_in(at(9)), Duration::from_secs(1));
    store.record_missing(&arn(), GRACE, at(10));
    describe(at(11));
    assert!(!confirmed(at(11)), "another answer came in between");
    describe(at(21));
    assert!(confirmed(at(21)));
}

#[test]
fn absence_needs_two_sweeps_grace_age_and_describe() {
    let store = TaskStore::default();
    store.record_absence(&arn(), NOW, NOW);
    assert_eq!(liveness(&store, NOW.plus(GRACE)), TaskLiveness::Missing { due: false });
    let later = NOW.plus(GRACE);
    store.record_absence(&arn(), later, later);
    assert_eq!(liveness(&store, later), TaskLiveness::Missing { due: true });
    store.record_missing(&arn(), GRACE, later);
    assert_eq!(liveness(&store, later), TaskLiveness::Absent { sweeps: 2, since: NOW });
}

#[test]
fn absence_ages_from_the_first_missing_sweep_to_the_last() {
    let store = TaskStore::default();
    let (short, later) = (NOW.plus(GRACE.saturating_sub(Duration::from_secs(1))), NOW.plus(GRACE * 2));
    store.record_absence(&arn(), NOW.plus(Duration::ZERO), NOW);
    store.record_absence(&arn(), short, later);
    assert_eq!(
        liveness(&store, later),
        TaskLiveness::Missing { due: false },
        "time without a sweep is no evidence"
    );
    store.record_absence(&arn(), later, later);
    assert_eq!(liveness(&store, later), TaskLiveness::Missing { due: true });
}

#[test]
fn absence_needs_a_describe_right_before_the_decision() {
    let store = TaskStore::default();
    let later = NOW.plus(GRACE);
    store.record_absence(&arn(), NOW, NOW);
    store.record_absence(&arn(), later, later);
    store.record_missing(&arn(), GRACE, later);
    assert!(matches!(liveness(&store, later.plus(Duration::from_secs(2))), TaskLiveness::Absent { .. }));
    let delayed = later.plus(Duration::from_secs(5));
    assert_eq!(
        liveness(&store, delayed),
        TaskLiveness::Missing { due: true },
        "an open circuit held the removal"
    );
    store.record_missing(&arn(), GRACE, delayed);
    assert!(matches!(liveness(&store, delayed), TaskLiveness::Absent { .. }));
}

#[test]
fn tasks_beyond_the_limit_are_dropped_and_counted() {
    let store = TaskStore::default();
    let numbered = |n: usize| {
        let arn = format!("arn:aws:ecs:eu-west-1:111122223333:task/c/{n:032x}");
        Task { arn: TaskArn::parse(&arn).unwrap(), ..task(1, LastStatus::Running) }
    };
    for n in 0..MAX_TASKS + 2 {
        store.observe(numbered(n), NOW);
    }
    assert_eq!((store.len(), store.dropped()), (MAX_TASKS, 2));
    // Known ones are still kept up to date.
    store.observe(Task { version: 2, ..numbered(0) }, NOW);
    assert_eq!((store.version(&numbered(0).arn), store.dropped()), (Some(2), 2));
}

/// With another grace age, the task is neither absent nor alive until ECS shows it.
#[test]
fn confirmed_absence_lasts_until_ecs_shows_the_task() {
    let store = TaskStore::default();
    store.observe(task(1, LastStatus::Running), NOW);
    let later = NOW.plus(GRACE);
    store.record_absence(&arn(), NOW, NOW);
    store.record_absence(&arn(), later, later);
    store.record_missing(&arn(), GRACE, later);
    let with_grace = |grace| store.snapshot(&arn(), grace, later.plus(Duration::from_mins(1))).liveness;
    assert_eq!(with_grace(GRACE), TaskLiveness::Missing { due: true });
    assert_eq!(with_grace(GRACE * 2), TaskLiveness::Missing { due: false });
    store.observe(task(1, LastStatus::Running), later);
    assert_eq!(with_grace(GRACE * 2), TaskLiveness::Live);
}

#[test]
fn describe_before_the_second_sweep_does_not_count() {
    let store = TaskStore::default();
    store.record_absence(&arn(), NOW, NOW);
    store.record_missing(&arn(), GRACE, NOW.plus(GRACE));
    store.record_absence(&arn(), NOW.plus(GRACE), NOW.plus(GRACE));
    assert_eq!(liveness(&store, NOW.plus(GRACE)), TaskLiveness::Missing { due: true });
}

#[test]
fn one_observation_ends_an_absence() {
    let store = TaskStore::default();
    store.record_absence(&arn(), NOW, NOW);
    store.record_absence(&arn(), NOW, NOW);
    store.observe(task(1, LastStatus::Running), NOW.plus(GRACE));
    assert_eq!(liveness(&store, NOW.plus(GRACE)), TaskLiveness::Live);
}

#[test]
fn task_is_fresh_for_a_minute_after_a_describe() {
    let store = TaskStore::default();
    store.observe(task(1, LastStatus::Running), NOW);
    assert_eq!(store.snapshot(&arn(), GRACE, NOW).sighting(NOW), Sighting::Recent);
    let later = NOW.plus(FRESH_WINDOW);
    store.record_listed_running(&arn(), later);
    assert_eq!(
        store.snapshot(&arn(), GRACE, later).sighting(later),
        Sighting::Old,
        "a list shows no address"
    );
}

#[test]
fn stopped_task_outlives_its_late_events() {
    let store = TaskStore::default();
    store.observe(task(9, LastStatus::Stopped), NOW);
    store.expire(|_| false, NOW.plus(FRESH_WINDOW));
    assert_eq!(store.version(&arn()), Some(9));
    store.expire(|_| false, NOW.plus(STOPPED_TASK_TTL));
    assert!(store.is_empty());
}

#[test]
fn task_without_a_describe_or_a_registration_expires() {
    let store = TaskStore::default();
    store.record_stop_event(&arn(), false, NOW);
    store.expire(|_| true, NOW.plus(STOPPED_TASK_TTL));
    assert!(store.contains(&arn()));
    store.expire(|_| false, NOW.plus(STOPPED_TASK_TTL));
    assert!(store.is_empty());
}

#[test]
fn tags_survive_a_describe_without_tags() {
    let store = TaskStore::default();
    let tags = ecs_mesh_model::intern_tags([("team".to_owned(), "a".to_owned())].into());
    store.observe(Task { tags: Some(tags), ..task(1, LastStatus::Pending) }, NOW);
    store.observe(task(2, LastStatus::Running), NOW);
    assert!(store.snapshot(&arn(), GRACE, NOW).task.unwrap().tags.is_some());
}

#[test]
fn task_is_lost_when_a_late_describe_misses_it() {
    let store = TaskStore::default();
    let lost = || store.snapshot(&arn(), GRACE, NOW).is_lost();
    store.observe(task(1, LastStatus::Running), NOW);
    store.record_missing(&arn(), GRACE, NOW.plus(FRESH_WINDOW.saturating_sub(Duration::from_secs(1))));
    assert!(!lost(), "it may not be known everywhere yet");
    store.record_missing(&arn(), GRACE, NOW.plus(FRESH_WINDOW));
    assert!(lost());
    let shows: [&dyn Fn(); 3] =
        [&|| store.record_listed_running(&arn(), NOW), &|| store.record_listed_stopped(&arn()), &|| {
            _ = store.observe(task(2, LastStatus::Running), NOW);
        }];
    for show in shows {
        show();
        assert!(!lost());
        store.record_missing(&arn(), GRACE, NOW.plus(FRESH_WINDOW));
        assert!(lost());
    }
}
