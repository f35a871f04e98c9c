//! Rolling deployments, their limits and gates, and the end of services.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::testing::{CloudFixture, cloud_with};
use super::{CloudTask, CreateService, HealthStatus, RegisterTaskDefinition, StopCode, UpdateService};
use crate::aws::{CloudConfig, LifeTimes, READY_LABEL};
use ecs_mesh_model::{DesiredStatus, LastStatus};

/// How long tasks without a health check must run to count.
const WAIT: Duration = Duration::from_secs(4);

/// An account in which times of definitions pass ten times as fast.
fn account() -> CloudFixture {
    let life = LifeTimes { unchecked_healthy: WAIT, time_scale: 0.1, ..LifeTimes::default() };
    cloud_with(CloudConfig { life, ..CloudConfig::default() })
}

fn checked_containers(ready: &str) -> Value {
    json!([{
        "name": "app",
        "image": "kv:2",
        "healthCheck": {"command": ["CMD", "true"], "interval": 10, "retries": 3},
        "dockerLabels": {READY_LABEL: ready},
    }])
}

fn events_of(world: &mut CloudFixture, detail_type: &str) -> Vec<Value> {
    let mut events = world.events();
    events.retain(|event| event["detail-type"] == detail_type);
    events.into_iter().map(|event| event["detail"].clone()).collect()
}

#[test]
fn deployment_stays_within_its_limits() {
    // Minimum and maximum in percent; the fewest healthy and the most live tasks on the way from 3 to 3.
    for (least, most, fewest, many) in [(100, 200, 3, 6), (50, 100, 2, 3), (0, 100, 0, 3), (100, 150, 3, 4)] {
        let mut world = account();
        world.service_within(3, least, most);
        world.run_for_secs(10);
        assert_eq!(world.ecs_service("kv").healthy_count(), 3);
        world.definition("kv");
        world.deploy(2);
        let (mut healthy, mut live) = (BTreeSet::new(), BTreeSet::new());
        for _ in 0..800 {
            world.run_for_millis(50);
            let service = world.ecs_service("kv");
            healthy.insert(service.healthy_count());
            live.insert(service.running_count() + service.pending_count());
        }
        let limits = (least, most);
        assert_eq!((healthy.first(), live.last()), (Some(&fewest), Some(&many)), "{limits:?}");
        assert_eq!((world.live(1).len(), world.live(2).len()), (0, 3), "{limits:?}");
        assert!(world.is_stable("kv"), "{limits:?}");
    }
}

#[test]
fn deployment_cannot_proceed_without_room() {
    // 100 % of one is one: nothing can be stopped, and nothing started.
    let mut world = account();
    world.service_within(1, 50, 100);
    world.run_for_secs(10);
    world.definition("kv");
    world.deploy(2);
    world.run_for_secs(60);
    assert_eq!((world.live(1).len(), world.live(2).len()), (1, 0));
}

#[test]
fn old_tasks_stop_after_the_wait_without_checks() {
    let mut world = account();
    world.service("kv", 3);
    world.run_for_secs(10);
    world.definition("kv");
    world.deploy(2);
    world.run_for_secs(20);
    let started = world.live(2).iter().filter_map(|task| task.started_at).max().unwrap();
    let stops: Vec<_> = world.cloud.all_tasks().filter_map(|task| task.stopping_at).collect();
    assert_eq!(stops.len(), 3);
    let scheduling = world.cloud.config().life.scheduling;
    assert!(stops.iter().all(|at| *at == started.plus(WAIT).plus(scheduling)), "{started} {stops:?}");
}

#[test]
fn old_tasks_stop_when_new_ones_are_healthy() {
    let mut world = account();
    world.service("kv", 3);
    world.run_for_secs(10);
    world.define("kv", &checked_containers("2.5s")).unwrap();
    world.deploy(2);
    // Its containers run after 0.5 s. The check 3 s later is the first that passes.
    world.run_for_millis(3_500);
    let is_unknown = |task: &&Arc<CloudTask>| task.health() == HealthStatus::Unknown;
    assert_eq!((world.live(1).len(), world.live(2).iter().filter(is_unknown).count()), (3, 3));
    world.run_for_millis(200);
    assert!(world.live(2).iter().all(|task| task.health() == HealthStatus::Healthy));
    assert!(world.live(1).is_empty());
}

#[test]
fn unhealthy_tasks_are_replaced_first_and_stopped_then() {
    let mut world = account();
    world.define("kv", &checked_containers("0s")).unwrap();
    world.service("kv", 2);
    world.run_for_secs(10);
    let broken = world.live(2)[0].arn.clone();
    assert!(world.cloud.set_answering(&broken, "app", false, world.now));
    world.run_for_millis(3_000);
    assert_eq!(world.cloud.task(&broken).unwrap().health(), HealthStatus::Unhealthy);
    world.run_for_millis(500);
    assert_eq!(world.live(2).len(), 3, "a replacement starts");
    world.run_for_secs(10);
    let stopped = world.cloud.task(&broken).unwrap();
    assert_eq!(stopped.stop_code, Some(StopCode::ServiceSchedulerInitiated));
    assert_eq!((world.live(2).len(), world.ecs_service("kv").healthy_count()), (2, 2));
}

#[test]
fn unhealthy_task_is_stopped_first_without_room() {
    let mut world = account();
    world.define("kv", &checked_containers("0s")).unwrap();
    world.service_within(2, 50, 100);
    world.run_for_secs(10);
    let broken = world.live(2)[0].arn.clone();
    world.cloud.set_answering(&broken, "app", false, world.now);
    for _ in 0..200 {
        world.run_for_millis(50);
        assert!(world.live(2).len() <= 2);
    }
    assert_eq!(world.cloud.task(&broken).unwrap().desired_status, DesiredStatus::Stopped);
    assert_eq!(world.ecs_service("kv").healthy_count(), 2);
}

#[test]
fn circuit_breaker_fails_and_rolls_back() {
    for (rollback, expected) in [(false, "FAILED"), (true, "COMPLETED")] {
        let mut world = account();
        let breaker = json!({"deploymentCircuitBreaker": {"enable": true, "rollback": rollback}});
        let request = CreateService {
            deployment_configuration: Some(breaker),
            ..CreateService::awsvpc("prod", "kv", "kv", 2)
        };
        world.cloud.create_service(request, world.now).unwrap();
        world.run_for_secs(10);
        world.definition("kv");
        world.events();
        world.deploy(2);
        for _ in 0..200 {
            world.run_for_millis(50);
            for task in world.live(2) {
                world.cloud.fail_to_start(&task.arn, "no image", world.now);
            }
        }
        let service = world.ecs_service("kv").to_api_json();
        assert_eq!(service["deployments"][0]["rolloutState"], expected, "{service}");
        assert_eq!((world.live(1).len(), world.live(2).len()), (2, 0), "rollback {rollback}");
        let events = events_of(&mut world, "ECS Deployment State Change");
        let failed = events.iter().find(|event| event["eventName"] == "SERVICE_DEPLOYMENT_FAILED").unwrap();
        assert_eq!(failed["eventType"], "ERROR");
        assert_eq!(events.len(), if rollback { 4 } else { 2 }, "{events:?}");
        let failures = |world: &CloudFixture| {
            world.cloud.all_tasks().filter(|task| task.definition.revision == 2).count()
        };
        let before = failures(&world);
        world.run_for_secs(60);
        assert_eq!((failures(&world), before >= 3), (before, true), "no more are started");
    }
}

#[test]
fn service_names_its_deployments() {
    let mut world = account();
    world.service("kv", 2);
    world.run_for_secs(10);
    world.definition("kv");
    world.events();
    world.deploy(2);
    world.run_for_secs(2);
    let (found, missing) = world.cloud.describe_services("prod", &["kv", "none"]).unwrap();
    let shown = found[0].to_api_json();
    let arn = "arn:aws:ecs:eu-west-1:111122223333:service/prod/none".to_owned();
    assert_eq!((missing[0].arn.clone(), missing[0].reason), (arn, "MISSING"));
    let fields = |index: usize| {
        let deployment = &shown["deployments"][index];
        ["status", "desiredCount", "runningCount", "pendingCount", "rolloutState"]
            .map(|field| deployment[field].to_string())
    };
    assert_eq!(fields(0), ["\"PRIMARY\"", "2", "2", "0", "\"IN_PROGRESS\""]);
    assert_eq!(fields(1), ["\"ACTIVE\"", "2", "2", "0", "\"COMPLETED\""]);
    for (index, revision) in [(0, 2), (1, 1)] {
        let deployment = &shown["deployments"][index];
        let definition = format!("task-definition/kv:{revision}");
        assert!(deployment["taskDefinition"].as_str().unwrap().ends_with(&definition));
        assert!(
            world.live(revision).iter().all(|task| deployment["id"] == *task.started_by.as_deref().unwrap())
        );
    }
    world.run_for_secs(10);
    let names: Vec<Value> = events_of(&mut world, "ECS Deployment State Change")
        .into_iter()
        .map(|event| json!([event["eventName"], event["deploymentId"]]))
        .collect();
    let id = &shown["deployments"][0]["id"];
    let expected =
        [json!(["SERVICE_DEPLOYMENT_IN_PROGRESS", id]), json!(["SERVICE_DEPLOYMENT_COMPLETED", id])];
    assert_eq!(names, expected);
    let many = ["kv"; 11];
    assert_eq!(world.cloud.describe_services("prod", &many).unwrap_err().code, "InvalidParameterException");
}

fn daemon(world: &mut CloudFixture) -> CreateService {
    let mut bridge = RegisterTaskDefinition::fargate("kv", None, 80);
    bridge.network_mode = None;
    bridge.rest.clear();
    world.cloud.register_task_definition(bridge, world.now).unwrap();
    let strategy = Some("DAEMON".into());
    CreateService { scheduling_strategy: strategy, ..CreateService::awsvpc("prod", "kv", "kv", 0) }
}

#[test]
fn daemon_has_one_task_on_each_instance() {
    let life = LifeTimes { unchecked_healthy: WAIT, ..LifeTimes::default() };
    let mut world = cloud_with(CloudConfig { life, container_instances: 3, ..CloudConfig::default() });
    let request = daemon(&mut world);
    world.cloud.create_service(request, world.now).unwrap();
    world.run_for_secs(10);
    assert_eq!(world.live(2).len(), 3);
    daemon(&mut world);
    world.deploy(3);
    let mut fewest = 3;
    for _ in 0..200 {
        world.run_for_millis(50);
        let mut instances = BTreeSet::new();
        for task in world.cloud.all_tasks().filter(|task| !task.last_status.is_stopped()) {
            let Some(instance) = task.container_instance_arn() else { continue };
            assert!(instances.insert(instance), "two tasks on an instance");
        }
        fewest = fewest.min(world.ecs_service("kv").running_count());
    }
    // Its minimum is 0 %.
    assert_eq!((fewest, world.live(2).len(), world.live(3).len()), (0, 0, 3));
    assert!(world.is_stable("kv"));
    let scaled = UpdateService {
        cluster: "prod".into(),
        service: "kv".into(),
        desired_count: Some(1),
        ..UpdateService::default()
    };
    assert_eq!(world.cloud.update_service(&scaled, world.now).unwrap_err().code, "InvalidParameterException");
}

#[test]
fn daemon_rejects_fargate_and_other_maximums() {
    let mut world = account();
    let fargate = CreateService {
        scheduling_strategy: Some("DAEMON".into()),
        ..CreateService::awsvpc("prod", "kv", "kv", 0)
    };
    let request = daemon(&mut world);
    let limits = Some(json!({"maximumPercent": 200}));
    let wide = CreateService { deployment_configuration: limits, ..request.clone() };
    let unknown = CreateService { scheduling_strategy: Some("ANY".into()), ..request };
    let fargate = CreateService { task_definition: "kv:1".into(), ..fargate };
    for request in [fargate, wide, unknown] {
        let error = world.cloud.create_service(request, world.now).unwrap_err();
        assert_eq!(error.code, "InvalidParameterException", "{error}");
    }
}

#[test]
fn service_scaled_to_zero_stops_all_tasks_at_once() {
    let mut world = account();
    world.service("kv", 3);
    world.run_for_secs(10);
    world.update(UpdateService { desired_count: Some(0), ..UpdateService::default() });
    world.run_for_millis(100);
    assert!(world.live(1).is_empty());
    world.run_for_secs(5);
    assert!(world.cloud.all_tasks().all(|task| task.last_status == LastStatus::Stopped));
    let shown = world.ecs_service("kv").to_api_json();
    assert_eq!((&shown["status"], &shown["desiredCount"]), (&json!("ACTIVE"), &json!(0)));
    world.update(UpdateService { desired_count: Some(1), ..UpdateService::default() });
    world.run_for_secs(10);
    assert_eq!(world.live(1).len(), 1);
}

#[test]
fn deleted_service_drains_and_frees_its_name() {
    let mut world = account();
    world.service("kv", 2);
    world.run_for_secs(10);
    let error = world.cloud.delete_service("prod", "kv", false, world.now).unwrap_err();
    assert_eq!(error.code, "InvalidParameterException");
    let status = |world: &CloudFixture| world.ecs_service("kv").to_api_json()["status"].clone();
    world.cloud.delete_service("prod", "kv", true, world.now).unwrap();
    assert_eq!((status(&world), world.live(1).len()), (json!("DRAINING"), 0));
    let again = CreateService::awsvpc("prod", "kv", "kv", 1);
    assert!(world.cloud.create_service(again.clone(), world.now).is_err());
    let update = UpdateService { cluster: "prod".into(), service: "kv".into(), ..UpdateService::default() };
    assert_eq!(world.cloud.update_service(&update, world.now).unwrap_err().code, "ServiceNotActiveException");
    world.run_for_secs(5);
    assert_eq!(status(&world), json!("INACTIVE"));
    assert_eq!(world.ecs_service("kv").to_api_json()["deployments"], json!([]));
    world.cloud.create_service(again, world.now).unwrap();
    world.run_for_secs(10);
    assert_eq!((status(&world), world.live(1).len()), (json!("ACTIVE"), 1));
}
