//! `run --once`: what it waits for, what it leaves to a person, and how it ends.

use std::time::Duration;

use tokio::time::Instant;

use super::OnceReport;
use super::test_fixture::{OperatorFixture, workloads};
use ecs_mesh_aws::aws::AwsErrorKind;
use ecs_mesh_model::{DesiredStatus, LastStatus, TaskId};

const TIMEOUT: Duration = Duration::from_mins(10);

/// Created, updated, drained and removed registrations.
fn changes(report: &OnceReport) -> [u64; 4] {
    ["create", "update", "drain", "remove"].map(|change| report.changes[change])
}

fn id(n: usize) -> TaskId {
    TaskId::parse(&n.to_string()).unwrap()
}

fn attention(report: &OnceReport) -> Vec<(&str, usize)> {
    report.attention.iter().map(|((_, what), count)| (what.as_str(), *count)).collect()
}

/// A first run has registered the tasks.
async fn registered(services: &[(&str, usize)]) -> OperatorFixture {
    let mut fixture = OperatorFixture::new(services);
    let names: Vec<&str> = services.iter().map(|(name, _)| *name).collect();
    fixture.edit(&workloads(&names));
    let began = Instant::now();
    let report = fixture.run_once(TIMEOUT).await;
    let tasks: usize = services.iter().map(|(_, tasks)| tasks).sum();
    assert_eq!((changes(&report), &report.unfinished[..]), ([tasks as u64, 0, 0, 0], &[][..]));
    assert!(began.elapsed() < Duration::from_secs(20), "took {:?}", began.elapsed());
    fixture
}

#[tokio::test(start_paused = true)]
async fn once_registers_tasks_and_ends() {
    let mut fixture = registered(&[("a", 2), ("b", 1)]).await;
    let again = fixture.run_once(TIMEOUT).await;
    assert_eq!((changes(&again), attention(&again)), ([0; 4], vec![]));
    assert_eq!(again.owned["kuma"].ready, 3);
}

#[tokio::test(start_paused = true)]
async fn once_drains_and_removes_a_stopped_task() {
    let mut fixture = registered(&[("a", 2)]).await;
    {
        let mut tasks = fixture.ecs.tasks.lock().unwrap();
        let task = tasks.get_mut(&id(0)).unwrap();
        (task.last_status, task.desired_status) = (LastStatus::Stopped, DesiredStatus::Stopped);
    }
    let report = fixture.run_once(TIMEOUT).await;
    assert_eq!((changes(&report)[3], &report.unfinished[..]), (1, &[][..]));
    assert_eq!(fixture.kuma.lock().unwrap().dataplanes().count(), 1);
}

#[tokio::test(start_paused = true)]
async fn once_waits_for_the_settle_time_of_a_withdrawal() {
    let mut fixture = registered(&[("a", 2), ("b", 1)]).await;
    fixture.edit(&workloads(&["a"]));
    let began = Instant::now();
    let report = fixture.run_once(TIMEOUT).await;
    assert!(began.elapsed() >= Duration::from_mins(1), "took {:?}", began.elapsed());
    assert_eq!((changes(&report), &report.unfinished[..]), ([0, 0, 1, 1], &[][..]));
    assert_eq!(fixture.kuma.lock().unwrap().dataplanes().count(), 2);
}

#[tokio::test(start_paused = true)]
async fn once_ends_where_the_guard_holds_removals() {
    let mut fixture = registered(&[("a", 3), ("b", 3)]).await;
    fixture.edit(&workloads(&["a"]));
    let report = fixture.run_once(TIMEOUT).await;
    // Of fewer than ten, one an hour.
    assert_eq!((changes(&report)[3], attention(&report)), (1, vec![("held_by_guard", 2)]));
    assert_eq!(report.unfinished, Vec::<String>::new());
    assert_eq!(fixture.kuma.lock().unwrap().dataplanes().count(), 5);
}

#[tokio::test(start_paused = true)]
async fn once_proves_an_absence_by_two_sweeps() {
    let mut fixture = registered(&[("a", 2)]).await;
    fixture.ecs.tasks.lock().unwrap().remove(&id(0));
    let early = fixture.run_once(Duration::from_mins(2)).await;
    assert!(early.unfinished[0].contains("ECS does not list"), "{:?}", early.unfinished);
    assert_eq!(changes(&early), [0; 4]);
    let report = fixture.run_once(TIMEOUT).await;
    assert_eq!((changes(&report)[3], &report.unfinished[..]), (1, &[][..]));
}

#[tokio::test(start_paused = true)]
async fn once_fails_early_where_ecs_is_unreadable() {
    let mut fixture = registered(&[("a", 2)]).await;
    *fixture.ecs.fails.lock().unwrap() = Some(AwsErrorKind::Denied);
    let began = Instant::now();
    let report = fixture.run_once(TIMEOUT).await;
    assert!(began.elapsed() < Duration::from_mins(4), "took {:?}", began.elapsed());
    assert!(report.unfinished[0].contains("no sweep"), "{:?}", report.unfinished);
    assert_eq!(fixture.kuma.lock().unwrap().dataplanes().count(), 2);
}

/// The operator's id of each registration.
fn operators(fixture: &OperatorFixture) -> Vec<String> {
    let kuma = fixture.kuma.lock().unwrap();
    let labels = kuma.dataplanes().map(|(_, _, body)| body["labels"]["ecs-mesh.dev/operator"].clone());
    labels.map(|label| label.as_str().unwrap_or_default().to_owned()).collect()
}

#[tokio::test(start_paused = true)]
async fn previous_operator_id_hands_its_registrations_over() {
    let mut fixture = registered(&[("a", 2), ("b", 1)]).await;
    fixture.ids = ("op-2", None);
    let without = fixture.run_once(TIMEOUT).await;
    assert_eq!((changes(&without), attention(&without)), ([0; 4], vec![("name_conflict", 3)]));
    // A task that has stopped meanwhile is removed, and the others are updated.
    {
        let mut tasks = fixture.ecs.tasks.lock().unwrap();
        let task = tasks.get_mut(&id(0)).unwrap();
        (task.last_status, task.desired_status) = (LastStatus::Stopped, DesiredStatus::Stopped);
    }
    fixture.ids = ("op-2", Some("op"));
    let taken = fixture.run_once(TIMEOUT).await;
    assert_eq!((changes(&taken), attention(&taken)), ([0, 2, 0, 1], vec![]));
    assert_eq!(operators(&fixture), ["op-2", "op-2"]);
    fixture.ids = ("op-2", None);
    assert_eq!(changes(&fixture.run_once(TIMEOUT).await), [0; 4]);
}
