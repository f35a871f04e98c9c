//! The permissions that `doctor --print-iam-policy` prints are those that a run uses, with held deployments and tasks in
//! network mode `host`.

use std::collections::BTreeSet;

use serde_json::Value;

use super::deployments::{DeploymentHarness, HOLD};
use super::harness::{binding, eventually, workload};
use super::host_mode;

/// A receive that is under way at the end returns its messages to the queue. Nothing else needs it.
const RELEASE: &str = "sqs:ChangeMessageVisibility";

/// The actions of the printed policy.
async fn granted(deployment: &DeploymentHarness) -> BTreeSet<String> {
    let queue = deployment.harness.variable("ECS_MESH_QUEUE_URL");
    let arguments =
        ["doctor", "--print-iam-policy", "--host-mode", "--queue-url", queue, "--region", "eu-west-1"];
    let (code, out, err) = deployment.harness.run_to_end(&arguments).await;
    assert_eq!(code, 0, "{err}");
    let policy: Value = serde_json::from_str(&out).unwrap();
    let statements = policy["Statement"].as_array().unwrap().iter();
    let actions = statements.flat_map(|statement| match &statement["Action"] {
        Value::Array(actions) => actions.clone(),
        one => vec![one.clone()],
    });
    actions.map(|action| action.as_str().unwrap().to_owned()).collect()
}

/// The operations that the operator has called with success.
async fn used(deployment: &DeploymentHarness) -> BTreeSet<String> {
    let text = deployment.metrics().await;
    let series = text.lines().filter_map(|line| line.strip_prefix("ecs_mesh_aws_calls_total{operation=\""));
    let called = series.filter_map(|line| line.split_once("\",result=\"success\"} "));
    called.filter(|(_, count)| *count != "0").map(|(operation, _)| operation.to_owned()).collect()
}

#[tokio::test]
async fn each_permission_is_used_and_none_is_missing() {
    let mut deployment = DeploymentHarness::start(HOLD).await;
    // ECS describes a cluster whose tasks it cannot list.
    let gone = deployment.harness.variable("ECS_MESH_CLUSTER_ARN").replace("/sandbox", "/gone");
    deployment.harness.manifest("gone.yaml", &binding("gone", "kuma", &gone, ""));
    let granted = granted(&deployment).await;
    deployment.deploy("app-task").await;
    deployment.wait_for_protection(&deployment.old).await;
    let harness = &deployment.harness;
    harness.manifest("agent.yaml", &workload("agent", "agent"));
    harness.role("agent").await;
    host_mode::define(harness, "agent").await;
    host_mode::run(harness, "agent", "EC2").await;

    let before_end: BTreeSet<String> = granted.iter().filter(|action| *action != RELEASE).cloned().collect();
    eventually("every permission is used", || async {
        used(&deployment).await.is_superset(&before_end).then_some(())
    })
    .await;
    let used = used(&deployment).await;
    assert!(used.is_subset(&granted), "not granted: {:?}", used.difference(&granted));

    assert!(granted.contains(RELEASE));
    deployment.operator.signal("TERM");
    let queue = deployment.harness.variable("ECS_MESH_QUEUE_URL");
    deployment.harness.sqs().send_message().queue_url(queue).message_body("{}").send().await.unwrap();
    assert_eq!(deployment.operator.code().await, Some(0), "{}", deployment.operator.stderr());
    let calls = deployment.endpoints.front.calls();
    assert!(calls.contains_key("sqs.ChangeMessageVisibilityBatch"), "{calls:?}");
}
