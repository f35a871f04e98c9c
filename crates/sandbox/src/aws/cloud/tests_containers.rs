//! Order, health and exits of the containers of a task.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::testing::{CloudFixture, cloud_with};
use super::{CloudTask, ContainerStatus, HealthStatus, RunTask, StopCode};
use crate::aws::{CloudConfig, EXIT_CODE_LABEL, EXITS_LABEL, LifeTimes, READY_LABEL, SERVING_LABEL};
use ecs_mesh_model::LastStatus;

/// An account whose definitions' times are real, and whose containers take a second to start.
fn account() -> CloudFixture {
    let life = LifeTimes {
        container_start: Duration::from_secs(1),
        ready: Duration::from_secs(2),
        time_scale: 1.0,
        ..LifeTimes::default()
    };
    cloud_with(CloudConfig { life, ..CloudConfig::default() })
}

fn run(world: &mut CloudFixture, containers: &Value) -> Arc<str> {
    world.define("many", containers).unwrap();
    world.cloud.run_task(&RunTask::awsvpc("prod", "many"), world.now).unwrap()[0].arn.clone()
}

fn after(name: &str, condition: &str) -> Value {
    json!([{"containerName": name, "condition": condition}])
}

/// An app that depends on its sidecar, and serves for as long after SIGTERM.
fn app_and_sidecar(serving: &str, stop_timeout: u64) -> Value {
    json!([
        {
            "name": "app", "image": "app", "dependsOn": after("sidecar", "START"), "stopTimeout": stop_timeout,
            "dockerLabels": {SERVING_LABEL: serving},
        },
        {"name": "sidecar", "image": "sidecar"},
    ])
}

impl CloudFixture {
    fn seen(&self, arn: &str) -> Arc<CloudTask> {
        self.cloud.task(arn).unwrap()
    }

    /// Runs until the task has this status, in steps of 100 ms.
    fn run_until(&mut self, arn: &str, status: LastStatus) {
        for _ in 0..2_000 {
            if self.status(arn) == status {
                return;
            }
            self.run_for_millis(100);
        }
        panic!("{arn} is {:?}", self.status(arn));
    }
}

fn statuses(task: &CloudTask) -> Vec<&'static str> {
    task.containers.iter().map(|container| container.status.as_str()).collect()
}

#[test]
fn containers_start_after_their_dependencies() {
    let mut world = account();
    let task = run(&mut world, &app_and_sidecar("0s", 30));
    world.run_for_millis(600);
    assert_eq!(
        (statuses(&world.seen(&task)), world.status(&task)),
        (vec!["PENDING"; 2], LastStatus::Pending)
    );
    world.run_for_millis(1_000);
    let seen = world.seen(&task);
    assert_eq!((statuses(&seen), seen.last_status), (vec!["PENDING", "RUNNING"], LastStatus::Pending));
    world.run_for_secs(2);
    let seen = world.seen(&task);
    assert_eq!((statuses(&seen), seen.last_status), (vec!["RUNNING"; 2], LastStatus::Running));
    let started = |name| seen.container(name).unwrap().started_at.unwrap();
    assert_eq!(started("sidecar").plus(Duration::from_secs(1)), started("app"));
    // The start of the sidecar has an event and a version of its own.
    let shown: Vec<Value> = world.events().into_iter().map(|event| event["detail"].clone()).collect();
    assert_eq!(shown.last().unwrap()["version"], shown.len());
    let between: Vec<&Value> = shown.iter().filter(|task| task["lastStatus"] == "PENDING").collect();
    assert_eq!(between.len(), 2);
    assert_eq!(between[1]["containers"][1]["lastStatus"], "RUNNING");
}

#[test]
fn dependent_waits_for_health_and_for_exits() {
    let check = json!({"command": ["CMD", "true"], "interval": 5});
    for (other, condition, expected) in [
        // Ready after 2 s, so the check after 5 s is the first to pass.
        (json!({"healthCheck": check}), "HEALTHY", 5),
        (json!({"essential": false, "dockerLabels": {EXITS_LABEL: "3s"}}), "SUCCESS", 3),
        (
            json!({"essential": false, "dockerLabels": {EXITS_LABEL: "4s", EXIT_CODE_LABEL: "1"}}),
            "COMPLETE",
            4,
        ),
    ] {
        let mut world = account();
        let mut other = other.clone();
        (other["name"], other["image"]) = (json!("other"), json!("other"));
        let app = json!({"name": "app", "image": "app", "dependsOn": after("other", condition)});
        let task = run(&mut world, &json!([app, other]));
        world.run_until(&task, LastStatus::Running);
        let seen = world.seen(&task);
        let started = |name| seen.container(name).unwrap().started_at.unwrap();
        let waited = started("other").age_at(started("app"));
        assert_eq!(waited, Duration::from_secs(expected + 1), "{condition}");
        world.run_for_secs(60);
        assert_eq!(world.status(&task), LastStatus::Running, "{condition}");
    }
}

#[test]
fn failed_dependency_fails_the_task() {
    let mut world = account();
    let labels = json!({EXITS_LABEL: "1s", EXIT_CODE_LABEL: "3"});
    let task = run(
        &mut world,
        &json!([
            {"name": "app", "image": "app", "dependsOn": after("init", "SUCCESS")},
            {"name": "init", "image": "init", "essential": false, "dockerLabels": labels},
        ]),
    );
    world.run_for_secs(10);
    let seen = world.seen(&task);
    assert_eq!((seen.last_status, seen.stop_code), (LastStatus::Stopped, Some(StopCode::TaskFailedToStart)));
    let codes: Vec<_> = seen.containers.iter().map(|container| container.exit_code).collect();
    assert_eq!((codes, seen.started_at), (vec![None, Some(3)], None));
    assert!(seen.stopped_reason.as_deref().unwrap().contains("app"));
}

#[test]
fn containers_stop_in_reverse_order_within_their_timeouts() {
    // How long the app serves, its stop timeout; after how long it is gone, and its exit code.
    for (serving, timeout, gone, code) in [("8s", 30, 8, 0), ("60s", 10, 10, 137), ("0s", 10, 0, 0)] {
        let mut world = account();
        let task = run(&mut world, &app_and_sidecar(serving, timeout));
        world.run_until(&task, LastStatus::Running);
        world.run_for_secs(10);
        world.events();
        world.cloud.stop_task("prod", &task, "enough", world.now).unwrap();
        let version = world.seen(&task).version;
        world.run_until(&task, LastStatus::Stopping);
        let seen = world.seen(&task);
        let sent = |name: &str| seen.container(name).unwrap().sigterm_at;
        assert!(sent("app").is_some() && sent("sidecar").is_none(), "{serving}");
        world.run_until(&task, LastStatus::Deprovisioning);
        let seen = world.seen(&task);
        let (app, sidecar) = (seen.container("app").unwrap(), seen.container("sidecar").unwrap());
        // An app that stops serving at once takes `stopping` to exit.
        let gone = Duration::from_secs(gone).max(Duration::from_millis(300));
        assert_eq!(app.sigterm_at.unwrap().plus(gone), sidecar.sigterm_at.unwrap(), "{serving}");
        assert_eq!((app.exit_code, sidecar.exit_code), (Some(code), Some(0)), "{serving}");
        let execution = seen.execution_stopped_at.unwrap();
        assert_eq!(sidecar.sigterm_at.unwrap().plus(Duration::from_millis(300)), execution);
        let detail = |event: Value| event["detail"].clone();
        let events: Vec<Value> = world.events().into_iter().map(detail).collect();
        let half = events.iter().filter(|task| {
            task["containers"][0]["lastStatus"] == "STOPPED"
                && task["containers"][1]["lastStatus"] == "RUNNING"
        });
        let half: Vec<&Value> = half.collect();
        assert_eq!(half.len(), 1, "the app's exit has an event");
        assert_eq!(
            (&half[0]["lastStatus"], &half[0]["containers"][0]["exitCode"]),
            (&json!("STOPPING"), &json!(code))
        );
        // The stop, DEACTIVATING, STOPPING, the app's exit, DEPROVISIONING.
        assert_eq!(seen.version, version + 4);
    }
}

#[test]
fn app_answers_while_it_serves() {
    let mut world = account();
    let mut containers = app_and_sidecar("8s", 30);
    containers[0]["dockerLabels"][READY_LABEL] = json!("3s");
    let task = run(&mut world, &containers);
    world.run_until(&task, LastStatus::Running);
    let app =
        |world: &CloudFixture, at| world.cloud.task(&task).unwrap().container("app").unwrap().answers(at);
    let started = world.seen(&task).container("app").unwrap().started_at.unwrap();
    assert!(!app(&world, started.plus(Duration::from_millis(2_999))));
    assert!(app(&world, started.plus(Duration::from_secs(3))));
    world.cloud.stop_task("prod", &task, "", world.now).unwrap();
    world.run_until(&task, LastStatus::Stopping);
    let sigterm = world.seen(&task).container("app").unwrap().sigterm_at.unwrap();
    assert!(app(&world, sigterm.plus(Duration::from_millis(7_999))));
    assert!(!app(&world, sigterm.plus(Duration::from_secs(8))));
    world.run_for_secs(10);
    assert!(!app(&world, world.now));
}

#[test]
fn essential_exit_stops_the_other_containers_in_order() {
    let mut world = account();
    let task = run(&mut world, &app_and_sidecar("5s", 30));
    world.run_until(&task, LastStatus::Running);
    world.run_for_secs(5);
    // The app outlives its sidecar.
    assert!(world.cloud.exit_container(&task, "sidecar", 1, world.now));
    assert!(!world.cloud.exit_container(&task, "sidecar", 1, world.now), "only once");
    let seen = world.seen(&task);
    assert_eq!(
        (seen.last_status, seen.stop_code),
        (LastStatus::Stopping, Some(StopCode::EssentialContainerExited))
    );
    assert_eq!(statuses(&seen), ["RUNNING", "STOPPED"]);
    world.run_for_secs(5);
    let seen = world.seen(&task);
    let codes: Vec<_> = seen.containers.iter().map(|container| container.exit_code).collect();
    assert_eq!((seen.last_status, codes), (LastStatus::Deprovisioning, vec![Some(0), Some(1)]));
}

#[test]
fn exit_of_a_container_that_is_not_essential_stops_nothing() {
    let mut world = account();
    let task = run(
        &mut world,
        &json!([
            {"name": "app", "image": "app"},
            {"name": "logs", "image": "logs", "essential": false},
        ]),
    );
    world.run_until(&task, LastStatus::Running);
    let version = world.seen(&task).version;
    assert!(world.cloud.exit_container(&task, "logs", 0, world.now));
    world.run_for_secs(60);
    let seen = world.seen(&task);
    assert_eq!((seen.last_status, seen.version), (LastStatus::Running, version + 1));
    assert_eq!(seen.container("logs").unwrap().status, ContainerStatus::Stopped);
}

#[test]
fn stop_before_running_stops_started_containers() {
    let mut world = account();
    let task = run(&mut world, &app_and_sidecar("0s", 30));
    world.run_for_millis(1_600);
    assert_eq!(statuses(&world.seen(&task)), ["PENDING", "RUNNING"]);
    world.cloud.stop_task("prod", &task, "", world.now).unwrap();
    let seen = world.seen(&task);
    assert_eq!((statuses(&seen), seen.last_status), (vec!["STOPPED", "RUNNING"], LastStatus::Stopping));
    world.run_for_secs(1);
    let seen = world.seen(&task);
    let codes: Vec<_> = seen.containers.iter().map(|container| container.exit_code).collect();
    assert_eq!((seen.last_status, codes), (LastStatus::Stopped, vec![None, Some(0)]));
}

#[test]
fn health_follows_checks_after_the_start_period() {
    let mut world = account();
    let check = json!({"command": ["CMD", "true"], "interval": 10, "retries": 2, "startPeriod": 25});
    let app = json!({
        "name": "app", "image": "app", "healthCheck": check, "dockerLabels": {READY_LABEL: "55s"},
    });
    let task = run(&mut world, &json!([app, {"name": "plain", "image": "plain", "essential": false}]));
    world.run_until(&task, LastStatus::Running);
    let version = world.seen(&task).version;
    world.events();
    let started = world.seen(&task).containers[0].started_at.unwrap();
    let health = |world: &mut CloudFixture, seconds| {
        world.now = started.plus(Duration::from_secs(seconds));
        world.cloud.step(world.now);
        world.cloud.task(&task).unwrap().health()
    };
    // Failures at 10 and 20 s do not count; those at 30 and 40 s do.
    assert_eq!(health(&mut world, 39), HealthStatus::Unknown);
    assert_eq!(health(&mut world, 40), HealthStatus::Unhealthy);
    assert_eq!(health(&mut world, 59), HealthStatus::Unhealthy);
    assert_eq!(health(&mut world, 60), HealthStatus::Healthy);
    let shown = world.seen(&task).to_api_json(false);
    assert_eq!(
        (&shown["healthStatus"], &shown["containers"][1]["healthStatus"]),
        (&json!("HEALTHY"), &json!("UNKNOWN"))
    );
    assert_eq!(health(&mut world, 95), HealthStatus::Healthy);
    assert!(world.cloud.set_answering(&task, "app", false, world.now));
    assert_eq!(health(&mut world, 109), HealthStatus::Healthy);
    assert_eq!(health(&mut world, 110), HealthStatus::Unhealthy);
    assert!(world.cloud.set_answering(&task, "app", true, world.now));
    assert_eq!(health(&mut world, 120), HealthStatus::Healthy);
    // Neither an event nor a version; a task of no service goes on.
    assert_eq!((world.seen(&task).version, world.events().len()), (version, 0));
}

#[test]
fn task_without_checks_has_unknown_health() {
    let mut world = account();
    let task = run(&mut world, &app_and_sidecar("0s", 30));
    world.run_for_secs(60);
    let seen = world.seen(&task);
    assert_eq!((seen.last_status, seen.health()), (LastStatus::Running, HealthStatus::Unknown));
    assert!(seen.to_event_detail().get("healthStatus").is_none());
}

#[test]
fn definitions_that_cannot_work_are_rejected() {
    let container = |name: &str, rest: Value| {
        let mut container = rest;
        (container["name"], container["image"]) = (json!(name), json!(name));
        container
    };
    let on = |name: &str, condition: &str| json!({"dependsOn": after(name, condition)});
    let check = |field: &str, value: u64| json!({"healthCheck": {"command": ["CMD", "true"], field: value}});
    for containers in [
        json!([container("a", on("b", "START"))]),
        json!([container("a", on("b", "START")), container("b", on("a", "START"))]),
        json!([container("a", on("a", "START"))]),
        json!([container("a", on("b", "LATER")), container("b", json!({}))]),
        json!([container("a", on("b", "HEALTHY")), container("b", json!({}))]),
        json!([container("a", on("b", "SUCCESS")), container("b", json!({}))]),
        json!([container("a", json!({"essential": false}))]),
        json!([container("a", json!({"stopTimeout": 121}))]),
        json!([container("a", json!({"stopTimeout": 1}))]),
        json!([container("a", check("interval", 4))]),
        json!([container("a", check("retries", 11))]),
        json!([container("a", check("startPeriod", 301))]),
        json!([container("a", json!({"dockerLabels": {SERVING_LABEL: "soon"}}))]),
    ] {
        let error = account().define("bad", &containers).unwrap_err();
        assert_eq!(error.code, "ClientException", "{containers}: {error}");
    }
}
