//! One thread through a Consul: what tasks that died left behind goes, and nothing else does.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ecs_mesh_model::Timestamp;
use ecs_mesh_sandbox::aws::{CloudConfig, LifeTimes};
use ecs_mesh_sandbox::endpoints::{Endpoints, EndpointOptions};
use ecs_mesh_sandbox::control_planes::ControlPlanes;
use serde_json::{Value, json};

use super::consul_harness::{ConsulHarness, JoinedTask, TAG};
use super::harness::{Harness, OperatorProcess, eventually, tag};

/// A task that never was.
const NEVER: &str = "0123456789abcdef0123456789abcdef";

/// Everything but what these tasks had.
fn without(all: &BTreeMap<String, String>, gone: &[&JoinedTask], node: &str) -> BTreeMap<String, String> {
    let gone: BTreeSet<String> = gone.iter().flat_map(|joined| joined.names(node)).collect();
    all.iter().filter(|(name, _)| !gone.contains(*name)).map(|(n, text)| (n.clone(), text.clone())).collect()
}

/// Tokens and services of other people, in shapes that are easily taken for a dead task's.
async fn furnish_with_others(house: &ConsulHarness) {
    let cluster = house.cluster();
    let says = json!({"consul.hashicorp.com/cluster": cluster, "consul.hashicorp.com/task-id": NEVER});
    let by_hand = json!({
        "Description": format!("token created via login: {says}"), "ServiceIdentities": [{"ServiceName": "legacy"}],
    });
    house.done("PUT", "/v1/acl/token", &by_hand).await;
    let other = format!("{cluster}-of-others");
    for meta in [
        vec![("consul.hashicorp.com/cluster", other), ("consul.hashicorp.com/task-id", NEVER.to_owned())],
        vec![],
        vec![("consul.hashicorp.com/cluster", cluster.to_owned())],
        house.meta("../etc/passwd"),
    ] {
        house.log_in("web", &meta).await;
    }
    for (node, id, meta) in [
        (cluster, "by-hand", Value::Null),
        (cluster, "no-task", json!({"source": "consul-ecs"})),
        (cluster, "no-source", json!({"task-id": NEVER})),
        ("a-machine", "elsewhere", json!({"source": "consul-ecs", "task-id": NEVER})),
    ] {
        let body = json!({
            "Node": node, "Address": "127.0.0.1",
            "NodeMeta": if node == cluster { json!({"synthetic-node": "true"}) } else { Value::Null },
            "Service": {"ID": id, "Service": "legacy", "Meta": meta},
        });
        house.done("PUT", "/v1/catalog/register", &body).await;
    }
}

/// Each removal is in the audit log with who, what, whose, why, when and its result.
fn assert_audited(operator: &OperatorProcess, joined: &JoinedTask, reason: &str) {
    let lines = operator.lines(&[("change", "remove"), ("result", "success"), ("task", &joined.id)]);
    let names: BTreeSet<String> =
        lines.iter().filter_map(|line| Some(line["name"].as_str()?.split('@').next()?.to_owned())).collect();
    let id = &joined.id;
    let expected = [
        format!("service/web-{id}"),
        format!("service/web-{id}-sidecar-proxy"),
        format!("token/{}", joined.accessor),
    ];
    assert_eq!(names, expected.into(), "{}", operator.stderr());
    for line in &lines {
        assert_eq!(line["target"], "audit", "{line}");
        assert_eq!((&line["operator"], &line["change"]), (&json!("house"), &json!("remove")), "{line}");
        let version = env!("CARGO_PKG_VERSION");
        assert_eq!((&line["version"], &line["result"]), (&json!(version), &json!("success")), "{line}");
        assert!(line["timestamp"].as_str().and_then(Timestamp::parse).is_some(), "{line}");
        assert_eq!((&line["control_plane"], &line["binding"]), (&json!("consul"), &json!("house")), "{line}");
        assert!(line["task"].as_str().is_some_and(|arn| arn.ends_with(id)), "{line}");
        assert_eq!(line["role"], ConsulHarness::role_arn("web"), "{line}");
        assert!(line["service"].as_str().is_some_and(|service| service.starts_with("web")), "{line}");
        assert!(line["reason"].as_str().is_some_and(|why| why.contains(reason)), "{line}");
    }
}

fn assert_discreet(house: &ConsulHarness, operator: &OperatorProcess, all: &[&JoinedTask]) {
    let log = operator.stderr();
    let secrets = all.iter().map(|joined| joined.secret.as_str());
    for secret in secrets.chain([house.management(), "planted-in-the-aws-key"]) {
        let line = log.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "{secret}");
    }
}

#[tokio::test]
async fn stopped_event_removes_only_the_tasks_objects() {
    let mut house = ConsulHarness::open().await;
    house.0.environment.insert("AWS_SECRET_ACCESS_KEY".to_owned(), "planted-in-the-aws-key".to_owned());
    house.0.manifest("all.yaml", &house.manifests(""));
    let tasks = house.deploy("web", 3).await;
    let first = house.join("web", &tasks[0]).await;
    furnish_with_others(&house).await;
    let mut operator = house.operator();
    operator.wait_for_sweep(true).await;
    // These log in after the operator has looked.
    let second = house.join("web", &tasks[1]).await;
    let third = house.join("web", &tasks[2]).await;
    house.0.scale("web", 1).await;
    let before = house.everything().await;
    house.stop(&second.id).await;
    let node = house.cluster().to_owned();
    let after = house.once_gone(&second).await;
    // The service's own scale-in may have taken one of the others, too.
    let left = house.0.running(1).await;
    let dead: Vec<&JoinedTask> =
        [&first, &second, &third].into_iter().filter(|joined| !left.contains(&joined.id)).collect();
    for joined in &dead {
        house.once_gone(joined).await;
    }
    drop(after);
    assert_eq!(house.everything().await, without(&before, &dead, &node));
    for joined in &dead {
        for name in [&*joined.accessor, "service/web-", "-sidecar-proxy@"] {
            operator.line(&[("change", "remove"), ("task", &joined.id), ("name", name)]).await;
        }
        assert_audited(&operator, joined, "the task has stopped");
    }
    assert_discreet(&house, &operator, &[&first, &second, &third]);
    operator.signal("TERM");
    assert_eq!(operator.code().await, Some(0), "{}", operator.stderr());
}

/// A house around endpoints in this process, whose tasks take that long to stop.
async fn slow_to_stop(stopping: Duration) -> (ConsulHarness, Endpoints) {
    let life = LifeTimes { stopping, ..LifeTimes::default() };
    let cloud = CloudConfig { life, accept_aws_sources: true, ..CloudConfig::default() };
    let options = EndpointOptions { cloud, control_planes: ControlPlanes::Consul, ..EndpointOptions::default() };
    let endpoints = Endpoints::start(options).await.unwrap();
    (ConsulHarness(Harness::around(endpoints.environment())), endpoints)
}

#[tokio::test]
async fn a_draining_task_keeps_its_token_until_it_has_stopped() {
    let (house, endpoints) = slow_to_stop(Duration::from_hours(1)).await;
    house.0.manifest("all.yaml", &house.manifests(""));
    let tasks = house.deploy("web", 2).await;
    let (draining, other) = (house.join("web", &tasks[0]).await, house.join("web", &tasks[1]).await);
    let operator = house.operator();
    operator.wait_for_sweep(true).await;
    let before = house.everything().await;
    house.stop(&draining.id).await;
    eventually("the task is being stopped", || async {
        let arn = format!("{}/{}", house.cluster().replacen(":cluster/", ":task/", 1), draining.id);
        let status = endpoints.with(|cloud, _, _| cloud.task(&arn).map(|task| task.last_status.as_str()));
        (status == Some("STOPPING")).then_some(())
    })
    .await;
    // Another dies meanwhile: once it is cleaned up, the news of the first has been worked on, too.
    let arn = format!("{}/{}", house.cluster().replacen(":cluster/", ":task/", 1), other.id);
    endpoints.with(|cloud, _, now| assert!(cloud.kill_hard(&arn, now)));
    house.once_gone(&other).await;
    let sweeps = operator.sweeps("").len();
    operator.wait_for_sweeps(sweeps + 2).await;
    let node = house.cluster().to_owned();
    let mut left = house.everything().await;
    left.retain(|name, _| before.contains_key(name));
    assert_eq!(left, without(&before, &[&other], &node));
    let arn = format!("{}/{}", house.cluster().replacen(":cluster/", ":task/", 1), draining.id);
    endpoints.with(|cloud, _, now| assert!(cloud.kill_hard(&arn, now)));
    house.once_gone(&draining).await;
}

#[tokio::test]
async fn a_task_that_logs_out_leaves_nothing_to_do() {
    let house = ConsulHarness::open().await;
    house.0.manifest("all.yaml", &house.manifests(""));
    let tasks = house.deploy("web", 2).await;
    let (clean, dead) = (house.join("web", &tasks[0]).await, house.join("web", &tasks[1]).await);
    let operator = house.operator();
    operator.wait_for_sweep(true).await;
    house.0.scale("web", 0).await;
    house.leave(&clean).await;
    house.once_gone(&dead).await;
    operator.line(&[("change", "remove"), ("name", &dead.accessor)]).await;
    assert_eq!(operator.lines(&[("change", "remove"), ("task", &clean.id)]), Vec::<Value>::new());
    assert_eq!(operator.warnings(), Vec::<Value>::new());
}

#[tokio::test]
async fn sweep_removes_objects_of_forgotten_tasks() {
    let house = ConsulHarness::open().await;
    house.0.manifest("all.yaml", &house.manifests(""));
    let tasks = house.deploy("web", 1).await;
    let alive = house.join("web", &tasks[0]).await;
    let orphan = house.join("web", NEVER).await;
    let before = house.everything().await;
    // Nobody tells it of events.
    let mut environment = house.0.environment.clone();
    environment.remove("ECS_MESH_QUEUE_URL");
    let operator = house.0.operator_with("operator", &environment, &[]);
    let after = house.once_gone(&orphan).await;
    assert_eq!(after, without(&before, &[&orphan], house.cluster()));
    let line = operator.line(&[("change", "remove"), ("name", &orphan.accessor)]).await;
    let why = line["reason"].as_str().unwrap();
    assert!(why.contains("missing from 2 complete sweeps"), "{line}");
    assert!(after.contains_key(&format!("token {}", alive.accessor)));
}

#[tokio::test]
async fn a_plan_shows_the_removals_and_writes_nothing() {
    let house = ConsulHarness::open().await;
    house.0.manifest("all.yaml", &house.manifests(""));
    let tasks = house.deploy("web", 2).await;
    let (dead, alive) = (house.join("web", &tasks[0]).await, house.join("web", &tasks[1]).await);
    house.0.scale("web", 1).await;
    house.stop(&dead.id).await;
    let left = eventually("one task", || async {
        let left = house.0.running(1).await;
        (!left.contains(&dead.id)).then_some(left)
    })
    .await;
    for joined in [&dead, &alive].into_iter().filter(|joined| !left.contains(&joined.id)) {
        house.once_stopped(&joined.id).await;
    }
    let before = house.everything().await;
    let (code, plan) = house.0.plan().await;
    assert_eq!(code, 2, "{plan}");
    assert_eq!(house.everything().await, before, "a plan wrote something");
    let removed: BTreeSet<&str> = plan["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|item| item["change"] == "remove")
        .map(|item| item["name"].as_str().unwrap().split('@').next().unwrap())
        .collect();
    let token = format!("token/{}", dead.accessor);
    assert!(removed.contains(token.as_str()), "{plan}");
    assert!(removed.iter().all(|name| !name.contains(&left[0])), "{plan}");
    // The scale-in may have taken the other, and ECS started a third.
    let gone = [&dead, &alive].into_iter().filter(|joined| !left.contains(&joined.id)).count();
    assert_eq!(plan["summary"]["remove"], json!(3 * gone), "{plan}");
    assert!(!plan.to_string().contains(&dead.secret) && !plan.to_string().contains(house.management()));
    let (_, text, err) = house.0.ask(&["plan"]).await;
    assert!(
        text.contains(&dead.accessor) && text.contains("STOPPED") | text.contains("stopped"),
        "{text}\n{err}"
    );
}

/// Takes the tag off a role whose task has joined, and waits until that was told of.
async fn revoke(house: &ConsulHarness, operator: &OperatorProcess) {
    house.0.iam().untag_role().role_name("web-task").tag_keys(TAG).send().await.unwrap();
    operator.line(&[("level", "WARN"), ("reason", "rejected"), ("error", "web-task"), ("error", TAG)]).await;
}

#[tokio::test]
async fn a_running_task_whose_role_loses_its_tag_keeps_its_token() {
    let house = ConsulHarness::open().await;
    house.0.manifest("all.yaml", &house.manifests(", roleTags: {recheck: 1m}"));
    let tasks = house.deploy("web", 2).await;
    let (alive, dead) = (house.join("web", &tasks[0]).await, house.join("web", &tasks[1]).await);
    let operator = house.operator();
    operator.wait_for_sweep(true).await;
    revoke(&house, &operator).await;
    // Told of, and worked on; this comes after it. ECS starts another in its place, and lets this one be.
    house.stop(&dead.id).await;
    house.once_gone(&dead).await;
    assert!(house.0.running(2).await.contains(&alive.id));
    let all = house.everything().await;
    for name in alive.names(house.cluster()) {
        assert!(all.contains_key(&name), "{name} is gone:\n{}", operator.stderr());
    }
    assert_eq!(operator.lines(&[("change", "remove"), ("task", &alive.id)]), Vec::<Value>::new());
}

#[tokio::test]
async fn on_revoked_withdraw_removes_tokens() {
    let house = ConsulHarness::open().await;
    house.0.manifest("all.yaml", &house.manifests(", roleTags: {recheck: 1m, onRevoked: withdraw}"));
    let tasks = house.deploy("web", 1).await;
    let alive = house.join("web", &tasks[0]).await;
    let before = house.everything().await;
    let operator = house.operator();
    operator.wait_for_sweep(true).await;
    revoke(&house, &operator).await;
    let after = house.once_gone(&alive).await;
    assert_eq!(after, without(&before, &[&alive], house.cluster()));
    for name in [&*alive.accessor, "service/web-", "-sidecar-proxy@"] {
        operator.line(&[("change", "remove"), ("task", &alive.id), ("name", name)]).await;
    }
    assert_audited(&operator, &alive, "tags");
    house.0.iam().tag_role().role_name("web-task").tags(tag(TAG, "web")).send().await.unwrap();
}
