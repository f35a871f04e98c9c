//! Scale-in protection, by the calls and by what the scheduler does.

use std::sync::Arc;
use std::time::Duration;

use super::testing::{CloudFixture, cloud};
use super::{TaskProtections, UpdateService, UpdateTaskProtection};
use crate::aws::AwsApiResult;
use ecs_mesh_model::{DesiredStatus, LastStatus};

fn protect(
    world: &mut CloudFixture,
    tasks: &[Arc<str>],
    enabled: bool,
    minutes: Option<i64>,
) -> AwsApiResult<TaskProtections> {
    let request = UpdateTaskProtection {
        cluster: "prod".into(),
        tasks: tasks.iter().map(ToString::to_string).collect(),
        protection_enabled: Some(enabled),
        expires_in_minutes: minutes,
    };
    world.cloud.update_task_protection(&request, world.now)
}

/// A service with three running tasks.
fn service(least: usize, most: usize) -> (CloudFixture, Vec<Arc<str>>) {
    let mut world = cloud();
    world.service_within(3, least, most);
    world.run_for_secs(5);
    let tasks = world.running("kv");
    (world, tasks)
}

fn reasons(answer: &TaskProtections) -> Vec<&'static str> {
    answer.failures.iter().map(|failure| failure.reason).collect()
}

#[test]
fn protected_task_survives_a_deployment_until_it_expires() {
    let (mut world, tasks) = service(100, 200);
    let answer = protect(&mut world, &tasks[..1], true, Some(1)).unwrap();
    assert_eq!(answer.tasks[0].until, Some(world.now.plus(Duration::from_mins(1))));
    world.definition("kv");
    world.deploy(2);
    world.run_for_secs(30);
    let left: Vec<_> = world.live(1).iter().map(|task| task.arn.clone()).collect();
    assert_eq!((left, world.live(2).len()), (vec![tasks[0].clone()], 3));
    assert!(!world.is_stable("kv"), "the deployment is not complete");
    // A further call sets the time anew.
    protect(&mut world, &tasks[..1], true, Some(1)).unwrap();
    world.run_for_secs(59);
    assert_eq!(world.live(1).len(), 1);
    world.run_for_secs(2);
    assert!(world.live(1).is_empty());
    world.run_for_secs(5);
    assert!(world.is_stable("kv"));
}

#[test]
fn scale_in_spares_protected_tasks() {
    let (mut world, tasks) = service(100, 200);
    protect(&mut world, &tasks[1..2], true, None).unwrap();
    world.update(UpdateService { desired_count: Some(0), ..UpdateService::default() });
    world.run_for_secs(5);
    assert_eq!(world.running("kv"), tasks[1..2]);
    protect(&mut world, &tasks[1..2], false, None).unwrap();
    world.run_for_secs(5);
    assert!(world.running("kv").is_empty());
}

#[test]
fn protected_tasks_block_a_deployment_without_room() {
    let (mut world, tasks) = service(0, 100);
    protect(&mut world, &tasks, true, Some(1)).unwrap();
    world.definition("kv");
    world.deploy(2);
    world.run_for_secs(30);
    assert_eq!((world.live(1).len(), world.live(2).len()), (3, 0));
    world.run_for_secs(40);
    assert_eq!((world.live(1).len(), world.live(2).len()), (0, 3));
}

#[test]
fn stop_task_stops_a_protected_task() {
    let (mut world, tasks) = service(100, 200);
    protect(&mut world, &tasks[..1], true, None).unwrap();
    world.cloud.stop_task("prod", &tasks[0], "by hand", world.now).unwrap();
    assert_eq!(world.cloud.task(&tasks[0]).unwrap().desired_status, DesiredStatus::Stopped);
    let answer = world.cloud.task_protection("prod", &tasks[..2]).unwrap();
    assert_eq!((reasons(&answer), answer.tasks.len()), (vec!["TASK_NOT_VALID"], 1));
    world.run_for_secs(5);
    assert_eq!(world.status(&tasks[0]), LastStatus::Stopped);
}

#[test]
fn protection_needs_a_task_of_a_service() {
    let (mut world, tasks) = service(100, 200);
    let standalone = world.task();
    let unknown: Arc<str> = "0123456789abcdef0123456789abcdef".into();
    let answer = protect(&mut world, &[standalone, tasks[0].clone(), unknown], true, None).unwrap();
    assert_eq!(reasons(&answer), ["TASK_NOT_VALID", "MISSING"]);
    assert_eq!(answer.tasks[0].until, Some(world.now.plus(Duration::from_hours(2))), "the default");
    // More protected tasks than desired ones.
    protect(&mut world, &tasks[..2], true, None).unwrap();
    world.update(UpdateService { desired_count: Some(2), ..UpdateService::default() });
    let answer = protect(&mut world, &tasks, true, None).unwrap();
    assert_eq!((reasons(&answer), answer.tasks.len()), (vec!["DEPLOYMENT_BLOCKED"], 2));
    let answer = protect(&mut world, &tasks[1..], false, None).unwrap();
    assert_eq!((reasons(&answer), answer.tasks.len()), (Vec::new(), 2));
}

#[test]
fn protection_rejects_values_out_of_range() {
    let (mut world, tasks) = service(100, 200);
    for minutes in [0, 2_881, -1] {
        let error = protect(&mut world, &tasks, true, Some(minutes)).unwrap_err();
        assert_eq!(error.code, "InvalidParameterException", "{error}");
    }
    let many = vec![tasks[0].clone(); 11];
    assert_eq!(protect(&mut world, &many, true, None).unwrap_err().code, "InvalidParameterException");
    assert_eq!(protect(&mut world, &[], true, None).unwrap_err().code, "InvalidParameterException");
    let none = UpdateTaskProtection { cluster: "none".into(), ..UpdateTaskProtection::default() };
    let error = world.cloud.update_task_protection(&none, world.now).unwrap_err();
    assert_eq!(error.code, "ClusterNotFoundException");
}

#[test]
fn protection_changes_neither_version_nor_events() {
    let (mut world, tasks) = service(100, 200);
    world.events();
    let before = world.cloud.task(&tasks[0]).unwrap().version;
    let as_of = world.now;
    world.run_for_secs(1);
    protect(&mut world, &tasks[..1], true, Some(2_880)).unwrap();
    assert_eq!(world.cloud.task(&tasks[0]).unwrap().version, before);
    assert!(world.events().is_empty());
    assert_eq!(world.cloud.task_as_of(&tasks[0], as_of).unwrap().protected_until, None);
    let shown = world.cloud.task_protection("prod", &tasks[..1]).unwrap().tasks[0].to_api_json();
    let until = world.now.plus(Duration::from_hours(48));
    assert_eq!(
        (&shown["protectionEnabled"], shown["expirationDate"].as_f64()),
        (&true.into(), Some(until.as_secs_f64()))
    );
    world.run_for_secs(48 * 3_600);
    assert_eq!(world.cloud.task_protection("prod", &tasks[..1]).unwrap().tasks[0].until, None);
}
