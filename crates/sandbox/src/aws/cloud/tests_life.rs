//! The life cycle of a task in events, DescribeTasks and ListTasks.

use std::net::Ipv4Addr;

use serde_json::{Value, json};

use super::testing::{CloudFixture, cloud, cloud_with};
use super::{ListTasks, RegisterTaskDefinition, RunTask, StopCode, TaskOverrides};
use crate::aws::{AddressReuse, CloudConfig};
use ecs_mesh_model::{DesiredStatus, LastStatus, Tags, Timestamp};

fn states(world: &mut CloudFixture) -> Vec<String> {
    let mut events = world.events();
    events.sort_by_key(|event| event["detail"]["version"].as_u64());
    events
        .iter()
        .map(|event| {
            let detail = &event["detail"];
            format!(
                "{}/{}",
                detail["lastStatus"].as_str().unwrap(),
                detail["desiredStatus"].as_str().unwrap()
            )
        })
        .collect()
}

#[test]
fn task_emits_each_state_with_a_growing_version() {
    let mut world = cloud();
    let task = world.task();
    world.run_for_secs(5);
    world.cloud.stop_task("prod", &task, "enough", world.now).unwrap();
    world.run_for_secs(5);
    let expected = [
        "PROVISIONING/RUNNING",
        "PROVISIONING/RUNNING",
        "PENDING/RUNNING",
        "ACTIVATING/RUNNING",
        "RUNNING/RUNNING",
        "RUNNING/STOPPED",
        "DEACTIVATING/STOPPED",
        "STOPPING/STOPPED",
        "DEPROVISIONING/STOPPED",
        "STOPPED/STOPPED",
    ];
    assert_eq!(states(&mut world), expected);
    assert_eq!(world.cloud.task(&task).unwrap().version, 10);
}

#[test]
fn address_appears_in_the_second_event() {
    let mut world = cloud();
    let task = world.task();
    let first = world.events().remove(0);
    assert_eq!(first["detail"]["attachments"][0]["status"], "PRECREATED");
    assert!(!first.to_string().contains("10.0.0.4"));
    world.run_for_millis(150);
    let second = world.events().remove(0);
    let detail = &second["detail"];
    let attachment = &detail["attachments"][0];
    assert_eq!(attachment["type"], "eni");
    let named = |name: &str| {
        let details = attachment["details"].as_array().unwrap();
        details.iter().find(|one| one["name"] == name).map(|one| one["value"].clone())
    };
    assert_eq!(named("privateIPv4Address"), Some(json!("10.0.0.4")));
    assert!(
        named("networkInterfaceId").is_some() && named("macAddress").is_some() && named("subnetId").is_some()
    );
    let interface = &detail["containers"][0]["networkInterfaces"][0];
    assert_eq!(interface, &json!({"attachmentId": attachment["id"], "privateIpv4Address": "10.0.0.4"}));
    assert_eq!(second["source"], "aws.ecs");
    assert_eq!(second["detail-type"], "ECS Task State Change");
    assert_eq!(second["resources"], json!([&*task]));
    assert!(Timestamp::parse(detail["updatedAt"].as_str().unwrap()).is_some());
    assert!(detail.get("tags").is_none() && detail.get("healthStatus").is_none());
    let api = world.cloud.task(&task).unwrap().to_api_json(true);
    assert_eq!(api["attachments"][0]["type"], "ElasticNetworkInterface");
    assert!(api["createdAt"].is_f64() && api.get("updatedAt").is_none());
}

#[test]
fn event_has_role_override_only() {
    let mut world = cloud();
    world.task();
    let role = "arn:aws:iam::111122223333:role/other".to_owned();
    let overrides = TaskOverrides { task_role_arn: Some(role.clone()), ..TaskOverrides::default() };
    let request = RunTask { overrides, ..RunTask::awsvpc("prod", "kv") };
    world.cloud.run_task(&request, world.now).unwrap();
    let events = world.events();
    assert_eq!(events[0]["detail"]["overrides"], json!({"containerOverrides": [{"name": "app"}]}));
    assert_eq!(events[1]["detail"]["overrides"]["taskRoleArn"], json!(role));
    assert!(!events[0].to_string().contains("kv-task"));
}

#[test]
fn killed_task_stops_without_drain_and_has_a_reason() {
    let mut world = cloud();
    let task = world.task();
    world.run_for_secs(5);
    world.events();
    assert!(world.cloud.kill_hard(&task, world.now));
    assert!(!world.cloud.kill_hard(&task, world.now), "only once");
    world.run_for_secs(5);
    let last = world.events().pop().unwrap();
    assert_eq!(last["detail"]["lastStatus"], "STOPPED");
    assert_eq!(last["detail"]["stopCode"], "EssentialContainerExited");
    assert_eq!(last["detail"]["containers"][0]["exitCode"], 137);
}

#[test]
fn task_that_fails_to_start_never_runs() {
    let mut world = cloud();
    let task = world.task();
    assert!(world.cloud.fail_to_start(&task, "no image", world.now));
    world.run_for_secs(5);
    let task = world.cloud.task(&task).unwrap();
    assert_eq!((task.last_status, task.stop_code), (LastStatus::Stopped, Some(StopCode::TaskFailedToStart)));
    assert_eq!(task.started_at, None);
}

#[test]
fn address_is_reused_before_task_is_stopped() {
    let mut world =
        cloud_with(CloudConfig { reuse_addresses: AddressReuse::Immediate, ..CloudConfig::default() });
    let old = world.task();
    world.run_for_secs(5);
    let address = world.cloud.task(&old).unwrap().address();
    world.cloud.kill_hard(&old, world.now);
    let new = world.task();
    world.run_for_millis(160);
    assert_eq!(world.status(&old), LastStatus::Deprovisioning);
    assert_eq!(world.cloud.task(&new).unwrap().address(), address);
}

#[test]
fn forced_address_goes_to_the_next_task() {
    let mut world = cloud();
    world.cloud.force_address(Ipv4Addr::new(10, 0, 9, 9));
    let task = world.task();
    world.run_for_secs(1);
    assert_eq!(world.cloud.task(&task).unwrap().address(), Some(Ipv4Addr::new(10, 0, 9, 9)));
}

#[test]
fn draining_task_is_listed_as_stopped_only() {
    let mut world = cloud();
    let task = world.task();
    world.run_for_secs(5);
    world.cloud.stop_task("prod", &task, "", world.now).unwrap();
    assert_eq!(world.status(&task), LastStatus::Running);
    let list = |desired| world.cloud.list_tasks(&ListTasks::of("prod", desired)).unwrap().arns;
    assert!(list(DesiredStatus::Running).is_empty());
    assert_eq!(list(DesiredStatus::Stopped), [task]);
}

#[test]
fn stopped_task_is_missing_after_an_hour() {
    let mut world = cloud();
    let task = world.task();
    world.run_for_secs(1);
    world.cloud.stop_task("prod", &task, "", world.now).unwrap();
    world.run_for_secs(3600);
    assert_eq!(world.cloud.describe_tasks("prod", &[&*task]).unwrap().tasks.len(), 1);
    world.run_for_secs(60);
    let described = world.cloud.describe_tasks("prod", &[&*task]).unwrap();
    assert!(described.tasks.is_empty());
    assert_eq!(described.failures[0].arn, *task);
    assert_eq!(described.failures[0].reason, "MISSING");
}

#[test]
fn history_serves_past_tasks_and_lists() {
    let mut world = cloud();
    let born = world.now;
    let task = world.task();
    world.run_for_secs(5);
    let running = world.now;
    world.run_for_secs(1);
    world.cloud.stop_task("prod", &task, "", world.now).unwrap();
    world.run_for_secs(5);
    let status = |at| world.cloud.task_as_of(&task, at).map(|task| task.last_status);
    assert_eq!(status(Timestamp(born.0 - 1)), None);
    assert_eq!(status(born), Some(LastStatus::Provisioning));
    assert_eq!(status(running), Some(LastStatus::Running));
    assert_eq!(status(world.now), Some(LastStatus::Stopped));
    let list =
        |at| world.cloud.list_tasks_as_of(&ListTasks::of("prod", DesiredStatus::Running), at).unwrap().arns;
    assert_eq!(list(running), std::slice::from_ref(&task));
    assert!(list(world.now).is_empty() && list(Timestamp(born.0 - 1)).is_empty());
}

#[test]
fn task_pages_are_complete_and_disjoint() {
    let mut world = cloud();
    let mut started: Vec<_> = (0..25).map(|_| world.task()).collect();
    started.sort();
    let mut request = ListTasks { max_results: Some(10), ..ListTasks::of("prod", DesiredStatus::Running) };
    let mut listed = Vec::new();
    loop {
        let page = world.cloud.list_tasks(&request).unwrap();
        listed.extend(page.arns);
        request.next_token = page.next_token;
        if request.next_token.is_none() {
            break;
        }
    }
    assert_eq!(listed, started);
    request.next_token = Some("what".into());
    assert_eq!(world.cloud.list_tasks(&request).unwrap_err().code, "InvalidParameterException");
}

#[test]
fn task_converts_to_the_operators_type() {
    let mut world = cloud();
    let tags = Tags::from([("team".into(), "kv".into())]);
    let request = RunTask { tags, ..RunTask::awsvpc("prod", "kv") };
    let arn = world.cloud.run_task(&request, world.now).unwrap()[0].arn.clone();
    world.run_for_secs(5);
    let task = world.cloud.task(&arn).unwrap().to_model().unwrap();
    assert_eq!(task.arn.to_string(), *arn);
    assert_eq!((task.version, task.last_status), (5, LastStatus::Running));
    assert_eq!(task.addresses.v4(), Some(Ipv4Addr::new(10, 0, 0, 4)));
    assert_eq!(task.tags.unwrap()["team"], "kv");
    let definition = world.cloud.describe_task_definition("kv").unwrap().to_model().unwrap();
    assert_eq!(definition.task_role.unwrap().name(), "kv-task");
    assert_eq!(definition.containers[0].ports, [8080]);
}

#[test]
fn next_deadline_is_the_next_change() {
    let mut world = cloud();
    assert_eq!(world.cloud.next_deadline(), None);
    world.task();
    let mut steps = 0;
    while let Some(at) = world.cloud.next_deadline() {
        assert!(at > world.now);
        world.now = at;
        world.cloud.step(at);
        steps += 1;
    }
    assert_eq!(steps, 4);
}

#[test]
fn same_seed_gives_the_same_events() {
    let history = |seed| {
        let mut world = cloud_with(CloudConfig { seed, ..CloudConfig::default() });
        world.service("kv", 3);
        world.run_for_secs(5);
        Value::from(world.events()).to_string()
    };
    assert_eq!(history(7), history(7));
    assert_ne!(history(7), history(8));
}

#[test]
fn fifteen_thousand_tasks_are_listed_in_pages() {
    let mut world = cloud();
    world.cloud.set_rule_enabled("all", false).unwrap();
    world.service("kv", 15_000);
    world.run_for_secs(5);
    world.cloud.set_rule_enabled("all", true).unwrap();
    world.cloud.kill_hard(
        &world.cloud.list_tasks(&ListTasks::of("prod", DesiredStatus::Running)).unwrap().arns[0],
        world.now,
    );
    world.run_for_secs(5);
    let request = ListTasks { max_results: Some(100), ..ListTasks::of("prod", DesiredStatus::Running) };
    assert_eq!(world.cloud.list_tasks(&request).unwrap().arns.len(), 100);
    assert!(world.is_stable("kv"));
    assert_eq!(world.cloud.queue_counts("events", world.now).unwrap().visible, 7);
}

#[test]
fn service_emits_deployment_events() {
    let mut world = cloud();
    world.service("kv", 1);
    world.run_for_secs(5);
    let events = world.events();
    let named = |detail_type: &str| -> Vec<Value> {
        let found = events.iter().filter(|event| event["detail-type"] == detail_type);
        found.map(|event| event["detail"]["eventName"].clone()).collect()
    };
    let deployment = ["SERVICE_DEPLOYMENT_IN_PROGRESS", "SERVICE_DEPLOYMENT_COMPLETED"];
    assert_eq!(named("ECS Deployment State Change"), deployment);
    assert_eq!(named("ECS Service Action"), ["SERVICE_STEADY_STATE"]);
    assert_eq!(named("ECS Task State Change").len(), 5);
}

#[test]
fn task_without_awsvpc_has_no_address() {
    let mut world = cloud();
    let mut bridge = RegisterTaskDefinition::fargate("old", None, 80);
    bridge.network_mode = None;
    bridge.rest.clear();
    world.cloud.register_task_definition(bridge, world.now).unwrap();
    let request = RunTask { cluster: "prod".into(), task_definition: "old".into(), ..RunTask::default() };
    let arn = world.cloud.run_task(&request, world.now).unwrap()[0].arn.clone();
    world.run_for_secs(5);
    let task = world.cloud.task(&arn).unwrap();
    assert_eq!((task.last_status, task.address(), &*task.launch_type), (LastStatus::Running, None, "EC2"));
    let shown = task.to_api_json(false);
    assert_eq!(shown["attachments"], json!([]));
    assert!(shown["containerInstanceArn"].is_string());
}

/// Runs a task in this network mode on an instance of this kind until it is RUNNING.
fn task_on(world: &mut CloudFixture, launch_type: &str, network_mode: &str) -> String {
    let mut definition = RegisterTaskDefinition::fargate("agent", None, 80);
    definition.network_mode = Some(network_mode.into());
    definition.rest.clear();
    let definition = world.cloud.register_task_definition(definition, world.now).unwrap().arn.clone();
    let launch_type = Some(launch_type.to_owned());
    let request = RunTask { launch_type, ..RunTask::awsvpc("prod", &definition) };
    let arn = world.cloud.run_task(&request, world.now).unwrap()[0].arn.to_string();
    let task = world.cloud.task(&arn).unwrap();
    assert_eq!((task.last_status, task.container_instance_arn()), (LastStatus::Provisioning, None));
    world.run_for_secs(5);
    arn
}

/// The EC2 id of a task's container instance, and what EC2 shows of it.
fn instance_of(world: &CloudFixture, arn: &str, include_managed: bool) -> (String, Value) {
    let instance = world.cloud.task(arn).unwrap().container_instance_arn().unwrap();
    let (found, _) = world.cloud.describe_container_instances("prod", &[instance]).unwrap();
    let id = found[0]["ec2InstanceId"].as_str().unwrap().to_owned();
    let shown = world.cloud.describe_instances(std::slice::from_ref(&id), include_managed);
    let instance = &shown["reservationSet"][0]["instancesSet"][0];
    (id, instance.clone())
}

#[test]
fn task_in_host_mode_runs_on_a_described_instance() {
    let mut world = cloud();
    let arn = task_on(&mut world, "EC2", "host");
    let task = world.cloud.task(&arn).unwrap();
    let instance = task.container_instance_arn().unwrap();
    let unknown = instance.replace("00001", "00002");
    let (found, missing) =
        world.cloud.describe_container_instances("prod", &[instance, unknown.clone()]).unwrap();
    assert_eq!((found.len(), missing[0].reason, &missing[0].arn), (1, "MISSING", &unknown));
    let (_, shown) = instance_of(&world, &arn, false);
    let address = world.cloud.reachable_address(&task).unwrap();
    assert_eq!(shown["privateIpAddress"], json!(address));
    assert_eq!(shown["networkInterfaceSet"][0]["attachment"]["deviceIndex"], 0);
    assert!(task.to_model().unwrap().addresses.is_empty());
}

#[test]
fn ec2_hides_managed_instances_and_lacks_external_ones() {
    let mut world = cloud();
    for (launch_type, prefix, shown, shown_on_request) in [
        ("EC2", "i-", true, true),
        ("MANAGED_INSTANCES", "i-", false, true),
        ("EXTERNAL", "mi-", false, false),
    ] {
        let arn = task_on(&mut world, launch_type, "host");
        for (include_managed, expected) in [(false, shown), (true, shown_on_request)] {
            let (id, instance) = instance_of(&world, &arn, include_managed);
            assert!(id.starts_with(prefix), "{id}");
            assert_eq!(!instance.is_null(), expected, "{launch_type} {include_managed}");
        }
    }
}

#[test]
fn dual_stack_interfaces_have_an_ipv6_address() {
    let mut world = cloud_with(CloudConfig { dual_stack: true, ..CloudConfig::default() });
    let arn = task_on(&mut world, "EC2", "host");
    let (_, shown) = instance_of(&world, &arn, false);
    assert_eq!(shown["ipv6Address"], "2001:db8:0:1::ac1f:4");
    assert_eq!(shown["networkInterfaceSet"][0]["ipv6AddressesSet"][0]["ipv6Address"], "2001:db8:0:1::ac1f:4");
    let task = task_on(&mut world, "FARGATE", "awsvpc");
    let task = world.cloud.task(&task).unwrap();
    let interface = &task.to_api_json(false)["containers"][0]["networkInterfaces"][0];
    assert_eq!(interface["ipv6Address"], "2001:db8:0:1::a00:4");
    assert_eq!(task.to_model().unwrap().addresses.v6(), Some("2001:db8:0:1::a00:4".parse().unwrap()));
}

#[test]
fn container_instances_are_described_by_the_hundred() {
    let world = cloud();
    let asked = vec!["00000000000000000000000000000001".to_owned(); 101];
    let refused = world.cloud.describe_container_instances("prod", &asked).unwrap_err();
    assert_eq!(refused.code, "InvalidParameterException");
    assert_eq!(world.cloud.describe_container_instances("prod", &asked[..100]).unwrap().1.len(), 100);
    assert!(world.cloud.describe_container_instances("prod", &[]).is_err());
}

#[test]
fn full_subnet_fails_new_tasks() {
    let mut world = cloud_with(CloudConfig { subnet: "10.1.0.0/28".into(), ..CloudConfig::default() });
    let started: Vec<_> = (0..12).map(|_| world.task()).collect();
    world.run_for_secs(5);
    let tasks: Vec<_> = started.iter().map(|arn| world.cloud.task(arn).unwrap()).collect();
    let running = tasks.iter().filter(|task| task.last_status == LastStatus::Running);
    let addresses: std::collections::BTreeSet<_> = running.filter_map(|task| task.address()).collect();
    assert_eq!(addresses.len(), 11);
    assert_eq!(tasks[11].stop_code, Some(StopCode::TaskFailedToStart));
}
