//! What is newest wins, and what proves that a task is gone.

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

fn life(store: &Store, now: Timestamp) -> Life {
    store.snapshot(&arn(), GRACE, now).life
}

#[test]
fn an_older_event_changes_nothing() {
    let store = Store::default();
    store.observe(task(5, LastStatus::Deactivating), Source::Event, NOW);
    assert_eq!(store.observe(task(4, LastStatus::Running), Source::Event, NOW), Observed::default());
    assert_eq!(life(&store, NOW), Life::Leaving);
}

#[test]
fn first_stop_is_reported_once_whichever_source_shows_it() {
    for (first, second) in [(Source::Event, Source::Describe), (Source::Describe, Source::Event)] {
        let store = Store::default();
        store.observe(task(5, LastStatus::Running), Source::Describe, NOW);
        let leaving = store.observe(task(6, LastStatus::Deactivating), Source::Event, NOW);
        assert!(leaving.first_leaving && !leaving.first_stop, "{leaving:?}");
        let stopped = store.observe(task(7, LastStatus::Stopped), first, NOW);
        assert!(stopped.first_stop && !stopped.first_leaving, "{stopped:?}");
        assert!(!store.observe(task(7, LastStatus::Stopped), second, NOW).first_stop);
    }
}

#[test]
fn an_event_that_says_stopped_needs_a_describe() {
    let store = Store::default();
    store.observe(task(9, LastStatus::Stopped), Source::Event, NOW);
    assert_eq!(life(&store, NOW), Life::SaidStopped);
    store.observe(task(9, LastStatus::Stopped), Source::Describe, NOW);
    assert_eq!(life(&store, NOW), Life::Stopped);
}

#[test]
fn missing_after_an_event_that_said_stopped_is_proof() {
    let store = Store::default();
    store.observe(task(9, LastStatus::Stopped), Source::Event, NOW);
    store.described_missing(&arn(), GRACE, NOW);
    assert_eq!(life(&store, NOW), Life::Stopped);
}

#[test]
fn missing_alone_proves_nothing() {
    let store = Store::default();
    store.observe(task(3, LastStatus::Running), Source::Event, NOW);
    store.described_missing(&arn(), GRACE, NOW);
    assert_eq!(life(&store, NOW), Life::Live);
}

#[test]
fn absence_needs_two_sweeps_the_grace_age_and_a_describe() {
    let store = Store::default();
    store.missed_by_sweep(&arn(), NOW, NOW);
    assert_eq!(life(&store, NOW.plus(GRACE)), Life::Missing { due: false });
    let later = NOW.plus(GRACE);
    store.missed_by_sweep(&arn(), later, later);
    assert_eq!(life(&store, later), Life::Missing { due: true });
    store.described_missing(&arn(), GRACE, later);
    assert_eq!(life(&store, later), Life::Absent { sweeps: 2, since: NOW });
}

#[test]
fn absence_ages_from_the_first_missing_sweep_to_the_last() {
    let store = Store::default();
    let (short, later) = (NOW.plus(GRACE.saturating_sub(Duration::from_secs(1))), NOW.plus(GRACE * 2));
    store.missed_by_sweep(&arn(), NOW.plus(Duration::ZERO), NOW);
    store.missed_by_sweep(&arn(), short, later);
    assert_eq!(life(&store, later), Life::Missing { due: false }, "time without a sweep is no evidence");
    store.missed_by_sweep(&arn(), later, later);
    assert_eq!(life(&store, later), Life::Missing { due: true });
}

#[test]
fn absence_needs_a_describe_right_before_the_decision() {
    let store = Store::default();
    let later = NOW.plus(GRACE);
    store.missed_by_sweep(&arn(), NOW, NOW);
    store.missed_by_sweep(&arn(), later, later);
    store.described_missing(&arn(), GRACE, later);
    assert!(matches!(life(&store, later.plus(Duration::from_secs(2))), Life::Absent { .. }));
    let delayed = later.plus(Duration::from_secs(5));
    assert_eq!(life(&store, delayed), Life::Missing { due: true }, "an open circuit held the removal");
    store.described_missing(&arn(), GRACE, delayed);
    assert!(matches!(life(&store, delayed), Life::Absent { .. }));
}

#[test]
fn a_describe_from_before_the_second_sweep_does_not_count() {
    let store = Store::default();
    store.missed_by_sweep(&arn(), NOW, NOW);
    store.described_missing(&arn(), GRACE, NOW.plus(GRACE));
    store.missed_by_sweep(&arn(), NOW.plus(GRACE), NOW.plus(GRACE));
    assert_eq!(life(&store, NOW.plus(GRACE)), Life::Missing { due: true });
}

#[test]
fn one_sighting_ends_an_absence() {
    let store = Store::default();
    store.missed_by_sweep(&arn(), NOW, NOW);
    store.missed_by_sweep(&arn(), NOW, NOW);
    store.observe(task(1, LastStatus::Running), Source::Describe, NOW.plus(GRACE));
    assert_eq!(life(&store, NOW.plus(GRACE)), Life::Live);
}

#[test]
fn an_event_is_fresh_by_its_own_time_not_by_its_arrival() {
    let store = Store::default();
    let day = Duration::from_hours(24);
    store.observe(task(1, LastStatus::Running), Source::Event, NOW.plus(day));
    assert!(!store.snapshot(&arn(), GRACE, NOW.plus(day)).is_fresh(Some(NOW), NOW.plus(day)));
    store.observe(task(1, LastStatus::Running), Source::Describe, NOW.plus(day));
    assert!(store.snapshot(&arn(), GRACE, NOW.plus(day)).is_fresh(Some(NOW), NOW.plus(day)));
}

#[test]
fn before_its_cluster_was_seen_whole_a_task_is_fresh_by_a_describe_alone() {
    let store = Store::default();
    let young = Task { updated_at: Some(NOW), ..task(1, LastStatus::Running) };
    store.observe(young.clone(), Source::Event, NOW);
    store.listed_alive(&arn(), NOW);
    assert!(!store.snapshot(&arn(), GRACE, NOW).is_fresh(None, NOW));
    store.observe(young, Source::Describe, NOW);
    assert!(store.snapshot(&arn(), GRACE, NOW).is_fresh(None, NOW));
    let later = NOW.plus(FRESH);
    assert!(!store.snapshot(&arn(), GRACE, later).is_fresh(None, later));
}

#[test]
fn an_event_from_a_clock_that_is_ahead_is_no_fresher_than_its_arrival() {
    let store = Store::default();
    let ahead = Task { updated_at: Some(NOW.plus(Duration::from_hours(1))), ..task(1, LastStatus::Running) };
    store.observe(ahead, Source::Event, NOW);
    let later = NOW.plus(FRESH);
    assert!(store.snapshot(&arn(), GRACE, NOW).is_fresh(Some(NOW), NOW));
    assert!(!store.snapshot(&arn(), GRACE, later).is_fresh(Some(NOW), later));
}

#[test]
fn a_stopped_task_is_remembered_long_enough_for_its_late_events() {
    let store = Store::default();
    store.observe(task(9, LastStatus::Stopped), Source::Describe, NOW);
    store.forget_old(|_| false, NOW.plus(FRESH));
    assert_eq!(
        store.observe(task(5, LastStatus::Running), Source::Event, NOW.plus(FRESH)),
        Observed::default()
    );
    store.forget_old(|_| false, NOW.plus(TOMBSTONE));
    assert!(store.is_empty());
}

#[test]
fn tags_are_kept_over_events_that_carry_none() {
    let store = Store::default();
    let tags = ecs_mesh_model::shared_tags([("team".to_owned(), "a".to_owned())].into());
    store.observe(Task { tags: Some(tags), ..task(1, LastStatus::Pending) }, Source::Describe, NOW);
    store.observe(task(2, LastStatus::Running), Source::Event, NOW);
    assert!(store.snapshot(&arn(), GRACE, NOW).task.unwrap().tags.is_some());
}

#[test]
fn task_is_lost_if_a_describe_misses_it_long_after_it_was_seen() {
    let store = Store::default();
    let lost = || store.snapshot(&arn(), GRACE, NOW).is_lost();
    store.observe(task(1, LastStatus::Running), Source::Event, NOW);
    store.described_missing(&arn(), GRACE, NOW.plus(FRESH.saturating_sub(Duration::from_secs(1))));
    assert!(!lost(), "it may not be known everywhere yet");
    store.described_missing(&arn(), GRACE, NOW.plus(FRESH));
    assert!(lost());
    let shows: [&dyn Fn(); 4] = [
        &|| store.listed_alive(&arn(), NOW),
        &|| store.listed_leaving(&arn()),
        &|| _ = store.observe(task(2, LastStatus::Running), Source::Event, NOW),
        &|| _ = store.observe(task(2, LastStatus::Running), Source::Describe, NOW),
    ];
    for show in shows {
        show();
        assert!(!lost());
        store.described_missing(&arn(), GRACE, NOW.plus(FRESH));
        assert!(lost());
    }
}
