//! The newest version wins; evidence that a task is gone.

use super::*;
use ecs_mesh_model::DesiredStatus;
use ecs_mesh_model::{LastStatus, TaskGroup};

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
        address: None,
        created_at: None,
        updated_at: Some(NOW),
        tags: None,
    }
}

fn liveness(store: &TaskStore, now: Timestamp) -> TaskLiveness {
    store.snapshot(&arn(), GRACE, now).liveness
}

#[test]
fn older_event_changes_nothing() {
    let store = TaskStore::default();
    store.observe(task(5, LastStatus::Deactivating), ObservationSource::Event, NOW);
    assert_eq!(
        store.observe(task(4, LastStatus::Running), ObservationSource::Event, NOW),
        Observation::default()
    );
    assert_eq!(liveness(&store, NOW), TaskLiveness::Leaving);
}

#[test]
fn first_stop_is_reported_once_from_any_source() {
    for (first, second) in [
        (ObservationSource::Event, ObservationSource::Describe),
        (ObservationSource::Describe, ObservationSource::Event),
    ] {
        let store = TaskStore::default();
        store.observe(task(5, LastStatus::Running), ObservationSource::Describe, NOW);
        let leaving = store.observe(task(6, LastStatus::Deactivating), ObservationSource::Event, NOW);
        assert!(leaving.first_leaving && !leaving.first_stop, "{leaving:?}");
        let stopped = store.observe(task(7, LastStatus::Stopped), first, NOW);
        assert!(stopped.first_stop && !stopped.first_leaving, "{stopped:?}");
        assert!(!store.observe(task(7, LastStatus::Stopped), second, NOW).first_stop);
    }
}

#[test]
fn stopped_event_needs_a_describe() {
    let store = TaskStore::default();
    store.observe(task(9, LastStatus::Stopped), ObservationSource::Event, NOW);
    assert_eq!(liveness(&store, NOW), TaskLiveness::StoppedUnconfirmed);
    store.observe(task(9, LastStatus::Stopped), ObservationSource::Describe, NOW);
    assert_eq!(liveness(&store, NOW), TaskLiveness::Stopped);
}

#[test]
fn missing_after_stopped_event_is_evidence() {
    let store = TaskStore::default();
    store.observe(task(9, LastStatus::Stopped), ObservationSource::Event, NOW);
    store.record_missing(&arn(), GRACE, NOW);
    assert_eq!(liveness(&store, NOW), TaskLiveness::Stopped);
}

#[test]
fn missing_alone_is_no_evidence() {
    let store = TaskStore::default();
    store.observe(task(3, LastStatus::Running), ObservationSource::Event, NOW);
    store.record_missing(&arn(), GRACE, NOW);
    assert_eq!(liveness(&store, NOW), TaskLiveness::Live);
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
    store.observe(task(1, LastStatus::Running), ObservationSource::Describe, NOW.plus(GRACE));
    assert_eq!(liveness(&store, NOW.plus(GRACE)), TaskLiveness::Live);
}

#[test]
fn event_is_fresh_by_its_own_time() {
    let store = TaskStore::default();
    let day = Duration::from_hours(24);
    store.observe(task(1, LastStatus::Running), ObservationSource::Event, NOW.plus(day));
    assert!(!store.snapshot(&arn(), GRACE, NOW.plus(day)).is_fresh(Some(NOW), NOW.plus(day)));
    store.observe(task(1, LastStatus::Running), ObservationSource::Describe, NOW.plus(day));
    assert!(store.snapshot(&arn(), GRACE, NOW.plus(day)).is_fresh(Some(NOW), NOW.plus(day)));
}

#[test]
fn task_is_fresh_only_by_describe_before_full_sweep() {
    let store = TaskStore::default();
    let young = Task { updated_at: Some(NOW), ..task(1, LastStatus::Running) };
    store.observe(young.clone(), ObservationSource::Event, NOW);
    store.record_listed_running(&arn(), NOW);
    assert!(!store.snapshot(&arn(), GRACE, NOW).is_fresh(None, NOW));
    store.observe(young, ObservationSource::Describe, NOW);
    assert!(store.snapshot(&arn(), GRACE, NOW).is_fresh(None, NOW));
    let later = NOW.plus(FRESH_WINDOW);
    assert!(!store.snapshot(&arn(), GRACE, later).is_fresh(None, later));
}

#[test]
fn event_from_future_clock_is_clamped_to_now() {
    let store = TaskStore::default();
    let ahead = Task { updated_at: Some(NOW.plus(Duration::from_hours(1))), ..task(1, LastStatus::Running) };
    store.observe(ahead, ObservationSource::Event, NOW);
    let later = NOW.plus(FRESH_WINDOW);
    assert!(store.snapshot(&arn(), GRACE, NOW).is_fresh(Some(NOW), NOW));
    assert!(!store.snapshot(&arn(), GRACE, later).is_fresh(Some(NOW), later));
}

#[test]
fn stopped_task_outlives_its_late_events() {
    let store = TaskStore::default();
    store.observe(task(9, LastStatus::Stopped), ObservationSource::Describe, NOW);
    store.expire(|_| false, NOW.plus(FRESH_WINDOW));
    assert_eq!(
        store.observe(task(5, LastStatus::Running), ObservationSource::Event, NOW.plus(FRESH_WINDOW)),
        Observation::default()
    );
    store.expire(|_| false, NOW.plus(STOPPED_TASK_TTL));
    assert!(store.is_empty());
}

#[test]
fn tags_survive_events_without_tags() {
    let store = TaskStore::default();
    let tags = ecs_mesh_model::intern_tags([("team".to_owned(), "a".to_owned())].into());
    store.observe(
        Task { tags: Some(tags), ..task(1, LastStatus::Pending) },
        ObservationSource::Describe,
        NOW,
    );
    store.observe(task(2, LastStatus::Running), ObservationSource::Event, NOW);
    assert!(store.snapshot(&arn(), GRACE, NOW).task.unwrap().tags.is_some());
}

#[test]
fn task_is_lost_when_a_late_describe_misses_it() {
    let store = TaskStore::default();
    let lost = || store.snapshot(&arn(), GRACE, NOW).is_lost();
    store.observe(task(1, LastStatus::Running), ObservationSource::Event, NOW);
    store.record_missing(&arn(), GRACE, NOW.plus(FRESH_WINDOW.saturating_sub(Duration::from_secs(1))));
    assert!(!lost(), "it may not be known everywhere yet");
    store.record_missing(&arn(), GRACE, NOW.plus(FRESH_WINDOW));
    assert!(lost());
    let shows: [&dyn Fn(); 4] = [
        &|| store.record_listed_running(&arn(), NOW),
        &|| store.record_listed_stopped(&arn()),
        &|| _ = store.observe(task(2, LastStatus::Running), ObservationSource::Event, NOW),
        &|| _ = store.observe(task(2, LastStatus::Running), ObservationSource::Describe, NOW),
    ];
    for show in shows {
        show();
        assert!(!lost());
        store.record_missing(&arn(), GRACE, NOW.plus(FRESH_WINDOW));
        assert!(lost());
    }
}
