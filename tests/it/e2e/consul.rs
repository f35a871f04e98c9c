//! Clean-up at Consul: the operator removes the tokens and services of stopped tasks and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ecs_mesh_model::Timestamp;
use ecs_mesh_sandbox::aws::{CloudConfig, LifeTimes};
use ecs_mesh_sandbox::control_planes::ControlPlanes;
use ecs_mesh_sandbox::endpoints::{EndpointOptions, Endpoints};
use serde_json::{Value, json};

use super::consul_harness::{ConsulHarness, JoinedTask, TAG};
use super::harness::{Harness, OperatorProcess, eventually, tag};

/// The id of a task that never existed.
const UNKNOWN_TASK: &str = "0123456789abcdef0123456789abcdef";

/// All objects except those of the given tasks.
fn without(all: &BTreeMap<String, String>, gone: &[&JoinedTask], node: &str) -> BTreeMap<String, String> {
    let gone: BTreeSet<String> = gone.iter().flat_map(|joined| joined.names(node)).collect();
    all.iter().filter(|(name, _)| !gone.contains(*name)).map(|(n, text)| (n.clone(), text.clone())).collect()
}

/// Creates foreign tokens and services that resemble those of a stopped task.
async fn create_foreign_objects(harness: &ConsulHarness) {
    let cluster = harness.cluster();
    let meta = json!({"consul.hashicorp.com/cluster": cluster, "consul.hashicorp.com/task-id": UNKNOWN_TASK});
    let manual = json!({
        "Description": format!("token created via login: {meta}"), "ServiceIdentities": [{"ServiceName": "legacy"}],
    });
    harness.call_as_admin("PUT", "/v1/acl/token", &manual).await;
    let other = format!("{cluster}-of-others");
    for meta in [
        vec![
            ("consul.hashicorp.com/cluster", other),
            ("consul.hashicorp.com/task-id", UNKNOWN_TASK.to_owned()),
        ],
        vec![],
        vec![("consul.hashicorp.com/cluster", cluster.to_owned())],
        harness.meta("../etc/passwd"),
    ] {
        harness.log_in("web", &meta).await;
    }
    for (node, id, meta) in [
        (cluster, "by-hand", Value::Null),
        (cluster, "no-task", json!({"source": "consul-ecs"})),
        (cluster, "no-source", json!({"task-id": UNKNOWN_TASK})),
        ("a-machine", "elsewhere", json!({"source": "consul-ecs", "task-id": UNKNOWN_TASK})),
    ] {
        let body = json!({
            "Node": node, "Address": "127.0.0.1",
            "NodeMeta": if node == cluster { json!({"synthetic-node": "true"}) } else { Value::Null },
            "Service": {"ID": id, "Service": "legacy", "Meta": meta},
        });
        harness.call_as_admin("PUT", "/v1/catalog/register", &body).await;
    }
}

/// Checks that the audit log has a line with all fields for each removal of the task's objects.
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
        assert_eq!((&line["operator"], &line["change"]), (&json!("harness"), &json!("remove")), "{line}");
        let version = env!("CARGO_PKG_VERSION");
        assert_eq!((&line["version"], &line["result"]), (&json!(version), &json!("success")), "{line}");
        assert!(line["timestamp"].as_str().and_then(Timestamp::parse).is_some(), "{line}");
        assert_eq!(
            (&line["control_plane"], &line["binding"]),
            (&json!("consul"), &json!("harness")),
            "{line}"
        );
        assert!(line["task"].as_str().is_some_and(|arn| arn.ends_with(id)), "{line}");
        assert_eq!(line["role"], ConsulHarness::role_arn("web"), "{line}");
        assert!(line["service"].as_str().is_some_and(|service| service.starts_with("web")), "{line}");
        assert!(line["reason"].as_str().is_some_and(|text| text.contains(reason)), "{line}");
    }
}

fn assert_no_secret_logged(harness: &ConsulHarness, operator: &OperatorProcess, all: &[&JoinedTask]) {
    let log = operator.stderr();
    let secrets = all.iter().map(|joined| joined.secret.as_str());
    for secret in secrets.chain([harness.management(), "planted-in-the-aws-key"]) {
        let line = log.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "{secret}");
    }
}

#[tokio::test]
async fn stopped_event_removes_only_the_tasks_objects() {
    let mut harness = ConsulHarness::start().await;
    harness.0.environment.insert("AWS_SECRET_ACCESS_KEY".to_owned(), "planted-in-the-aws-key".to_owned());
    harness.0.manifest("all.yaml", &harness.manifests(""));
    let tasks = harness.deploy("web", 3).await;
    let first = harness.join("web", &tasks[0]).await;
    create_foreign_objects(&harness).await;
    let mut operator = harness.operator();
    operator.wait_for_sweep(true).await;
    // These tasks log in after the first sweep.
    let second = harness.join("web", &tasks[1]).await;
    let third = harness.join("web", &tasks[2]).await;
    harness.0.scale("web", 1).await;
    let before = harness.all_objects().await;
    harness.stop(&second.id).await;
    let node = harness.cluster().to_owned();
    let after = harness.wait_until_gone(&second).await;
    // The scale-in of the service may have stopped another task.
    let left = harness.0.running(1).await;
    let dead: Vec<&JoinedTask> =
        [&first, &second, &third].into_iter().filter(|joined| !left.contains(&joined.id)).collect();
    for joined in &dead {
        harness.wait_until_gone(joined).await;
    }
    drop(after);
    assert_eq!(harness.all_objects().await, without(&before, &dead, &node));
    for joined in &dead {
        for name in [&*joined.accessor, "service/web-", "-sidecar-proxy@"] {
            operator.line(&[("change", "remove"), ("task", &joined.id), ("name", name)]).await;
        }
        assert_audited(&operator, joined, "the task has stopped");
    }
    assert_no_secret_logged(&harness, &operator, &[&first, &second, &third]);
    operator.signal("TERM");
    assert_eq!(operator.code().await, Some(0), "{}", operator.stderr());
}

/// Endpoints in this process, with tasks that take this long to stop.
async fn with_slow_stops(stopping: Duration) -> (ConsulHarness, Endpoints) {
    let life = LifeTimes { stopping, ..LifeTimes::default() };
    let cloud = CloudConfig { life, accept_aws_sources: true, ..CloudConfig::default() };
    let options =
        EndpointOptions { cloud, control_planes: ControlPlanes::Consul, ..EndpointOptions::default() };
    let endpoints = Endpoints::start(options).await.unwrap();
    (ConsulHarness(Harness::with_endpoints(endpoints.environment())), endpoints)
}

#[tokio::test]
async fn draining_task_keeps_its_token_until_stopped() {
    let (harness, endpoints) = with_slow_stops(Duration::from_hours(1)).await;
    harness.0.manifest("all.yaml", &harness.manifests(""));
    let tasks = harness.deploy("web", 2).await;
    let (draining, other) = (harness.join("web", &tasks[0]).await, harness.join("web", &tasks[1]).await);
    let operator = harness.operator();
    operator.wait_for_sweep(true).await;
    let before = harness.all_objects().await;
    harness.stop(&draining.id).await;
    eventually("the task is being stopped", || async {
        let arn = format!("{}/{}", harness.cluster().replacen(":cluster/", ":task/", 1), draining.id);
        let status = endpoints.with(|cloud, _, _| cloud.task(&arn).map(|task| task.last_status.as_str()));
        (status == Some("STOPPING")).then_some(())
    })
    .await;
    // Another task stops later: once its objects are removed, the event of the first is processed.
    let arn = format!("{}/{}", harness.cluster().replacen(":cluster/", ":task/", 1), other.id);
    endpoints.with(|cloud, _, now| assert!(cloud.kill_hard(&arn, now)));
    harness.wait_until_gone(&other).await;
    let sweeps = operator.sweeps("").len();
    operator.wait_for_sweeps(sweeps + 2).await;
    let node = harness.cluster().to_owned();
    let mut left = harness.all_objects().await;
    left.retain(|name, _| before.contains_key(name));
    assert_eq!(left, without(&before, &[&other], &node));
    let arn = format!("{}/{}", harness.cluster().replacen(":cluster/", ":task/", 1), draining.id);
    endpoints.with(|cloud, _, now| assert!(cloud.kill_hard(&arn, now)));
    harness.wait_until_gone(&draining).await;
}

#[tokio::test]
async fn task_that_logs_out_needs_no_cleanup() {
    let harness = ConsulHarness::start().await;
    harness.0.manifest("all.yaml", &harness.manifests(""));
    let tasks = harness.deploy("web", 2).await;
    let (clean, dead) = (harness.join("web", &tasks[0]).await, harness.join("web", &tasks[1]).await);
    let operator = harness.operator();
    operator.wait_for_sweep(true).await;
    harness.0.scale("web", 0).await;
    harness.leave(&clean).await;
    harness.wait_until_gone(&dead).await;
    operator.line(&[("change", "remove"), ("name", &dead.accessor)]).await;
    assert_eq!(operator.lines(&[("change", "remove"), ("task", &clean.id)]), Vec::<Value>::new());
    assert_eq!(operator.warnings(), Vec::<Value>::new());
}

#[tokio::test]
async fn sweep_removes_objects_of_forgotten_tasks() {
    let harness = ConsulHarness::start().await;
    harness.0.manifest("all.yaml", &harness.manifests(""));
    let tasks = harness.deploy("web", 1).await;
    let alive = harness.join("web", &tasks[0]).await;
    let orphan = harness.join("web", UNKNOWN_TASK).await;
    let before = harness.all_objects().await;
    // Without a queue the operator receives no events.
    let mut environment = harness.0.environment.clone();
    environment.remove("ECS_MESH_QUEUE_URL");
    let operator = harness.0.operator_with("operator", &environment, &[]);
    let after = harness.wait_until_gone(&orphan).await;
    assert_eq!(after, without(&before, &[&orphan], harness.cluster()));
    let line = operator.line(&[("change", "remove"), ("name", &orphan.accessor)]).await;
    let text = line["reason"].as_str().unwrap();
    assert!(text.contains("missing from 2 complete sweeps"), "{line}");
    assert!(after.contains_key(&format!("token {}", alive.accessor)));
}

#[tokio::test]
async fn plan_shows_removals_and_writes_nothing() {
    let harness = ConsulHarness::start().await;
    harness.0.manifest("all.yaml", &harness.manifests(""));
    let tasks = harness.deploy("web", 2).await;
    let (dead, alive) = (harness.join("web", &tasks[0]).await, harness.join("web", &tasks[1]).await);
    harness.0.scale("web", 1).await;
    harness.stop(&dead.id).await;
    let left = eventually("one task", || async {
        let left = harness.0.running(1).await;
        (!left.contains(&dead.id)).then_some(left)
    })
    .await;
    for joined in [&dead, &alive].into_iter().filter(|joined| !left.contains(&joined.id)) {
        harness.wait_until_stopped(&joined.id).await;
    }
    let before = harness.all_objects().await;
    let (code, plan) = harness.0.plan().await;
    assert_eq!(code, 2, "{plan}");
    assert_eq!(harness.all_objects().await, before, "a plan wrote something");
    let removed: BTreeSet<&str> = plan["changes"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|item| item["change"] == "remove")
        .map(|item| item["name"].as_str().unwrap().split('@').next().unwrap())
        .collect();
    let token = format!("token/{}", dead.accessor);
    assert!(removed.contains(token.as_str()), "{plan}");
    assert!(removed.iter().all(|name| !name.contains(&left[0])), "{plan}");
    // The scale-in may have stopped the other task, and ECS started a third.
    let gone = [&dead, &alive].into_iter().filter(|joined| !left.contains(&joined.id)).count();
    assert_eq!(plan["summary"]["remove"], json!(3 * gone), "{plan}");
    assert!(!plan.to_string().contains(&dead.secret) && !plan.to_string().contains(harness.management()));
    let (_, text, err) = harness.0.run_to_end(&["plan"]).await;
    assert!(
        text.contains(&dead.accessor) && text.contains("STOPPED") | text.contains("stopped"),
        "{text}\n{err}"
    );
}

/// Removes the tag of a role whose task has joined, and waits for the warning.
async fn revoke(harness: &ConsulHarness, operator: &OperatorProcess) {
    harness.0.iam().untag_role().role_name("web-task").tag_keys(TAG).send().await.unwrap();
    operator.line(&[("level", "WARN"), ("reason", "rejected"), ("error", "web-task"), ("error", TAG)]).await;
}

#[tokio::test]
async fn running_task_keeps_its_token_without_its_role_tag() {
    let harness = ConsulHarness::start().await;
    harness.0.manifest("all.yaml", &harness.manifests(", roleTags: {recheck: 1m}"));
    let tasks = harness.deploy("web", 2).await;
    let (alive, dead) = (harness.join("web", &tasks[0]).await, harness.join("web", &tasks[1]).await);
    let operator = harness.operator();
    operator.wait_for_sweep(true).await;
    revoke(&harness, &operator).await;
    // A task that stops after the warning: once its objects are removed, the revocation is processed.
    // ECS starts a replacement and keeps the other task.
    harness.stop(&dead.id).await;
    harness.wait_until_gone(&dead).await;
    assert!(harness.0.running(2).await.contains(&alive.id));
    let all = harness.all_objects().await;
    for name in alive.names(harness.cluster()) {
        assert!(all.contains_key(&name), "{name} is gone:\n{}", operator.stderr());
    }
    assert_eq!(operator.lines(&[("change", "remove"), ("task", &alive.id)]), Vec::<Value>::new());
}

#[tokio::test]
async fn on_revoked_withdraw_removes_tokens() {
    let harness = ConsulHarness::start().await;
    harness.0.manifest("all.yaml", &harness.manifests(", roleTags: {recheck: 1m, onRevoked: withdraw}"));
    let tasks = harness.deploy("web", 1).await;
    let alive = harness.join("web", &tasks[0]).await;
    let before = harness.all_objects().await;
    let operator = harness.operator();
    operator.wait_for_sweep(true).await;
    revoke(&harness, &operator).await;
    let after = harness.wait_until_gone(&alive).await;
    assert_eq!(after, without(&before, &[&alive], harness.cluster()));
    for name in [&*alive.accessor, "service/web-", "-sidecar-proxy@"] {
        operator.line(&[("change", "remove"), ("task", &alive.id), ("name", name)]).await;
    }
    assert_audited(&operator, &alive, "tags");
    harness.0.iam().tag_role().role_name("web-task").tags(tag(TAG, "web")).send().await.unwrap();
}
