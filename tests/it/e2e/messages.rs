//! Unusable messages in the queue, and a missing queue.

use aws_sdk_sqs::types::QueueAttributeName;
use serde_json::json;

use super::harness::{Harness, eventually};

/// The account of the foreign cluster, which forwards its events.
const ACCOUNT: &str = "999999999999";

/// Message bodies that the operator cannot parse or that do not concern it.
fn bodies() -> Vec<(&'static str, String)> {
    let event = |detail_type: &str, source: &str, detail: serde_json::Value| {
        json!({
            "version": "0", "id": "1", "detail-type": detail_type, "source": source, "account": ACCOUNT,
            "time": "2026-01-01T00:00:00Z", "region": "eu-west-1", "resources": [], "detail": detail,
        })
        .to_string()
    };
    let foreign = json!({
        "taskArn": "arn:aws:ecs:eu-west-1:999999999999:task/theirs/0123456789abcdef0123456789abcdef",
        "clusterArn": "arn:aws:ecs:eu-west-1:999999999999:cluster/theirs",
        "taskDefinitionArn": "arn:aws:ecs:eu-west-1:999999999999:task-definition/app:1",
        "group": "family:app", "version": 3, "lastStatus": "RUNNING", "desiredStatus": "RUNNING",
        "attachments": [], "containers": [], "overrides": {"containerOverrides": []},
        "createdAt": "2026-01-01T00:00:00Z", "updatedAt": "2026-01-01T00:00:00Z",
    });
    vec![
        ("malformed", "{\"version\": \"0\", \"detail-type\": ".to_owned()),
        ("no JSON", "planted-in-a-message".to_owned()),
        ("missing fields", event("ECS Task State Change", "aws.ecs", json!({"lastStatus": "RUNNING"}))),
        ("large", "{\"x\": \"".to_owned() + &"a".repeat(256 * 1024 - 7)),
        ("unknown type", event("Aliens Landed", "space", json!({}))),
        ("foreign cluster", event("ECS Task State Change", "aws.ecs", foreign)),
    ]
}

/// Number of [`bodies`] that cannot be parsed.
const POISON: usize = 4;

async fn send_all(harness: &Harness) {
    for (what, body) in bodies() {
        let sent =
            harness.sqs().send_message().queue_url(harness.variable("ECS_MESH_QUEUE_URL")).message_body(body);
        sent.send().await.unwrap_or_else(|error| panic!("{what}: {error:?}"));
    }
}

/// Number of messages in a queue, visible or in flight.
async fn message_count(harness: &Harness, url: &str) -> usize {
    let request =
        harness.sqs().get_queue_attributes().queue_url(url).attribute_names(QueueAttributeName::All);
    let answer = request.send().await.unwrap();
    let count = |name| answer.attributes().and_then(|all| all.get(&name)).unwrap().parse::<usize>().unwrap();
    count(QueueAttributeName::ApproximateNumberOfMessages)
        + count(QueueAttributeName::ApproximateNumberOfMessagesNotVisible)
}

#[tokio::test]
async fn unusable_messages_are_counted_and_deleted() {
    let harness = Harness::start().await;
    harness.manifest("all.yaml", &harness.base_manifests());
    send_all(&harness).await;
    let queue = harness.variable("ECS_MESH_QUEUE_URL").to_owned();
    let operator = harness.operator(&["--queue-url", &queue, "--log", "debug"]);
    eventually("an empty queue", || async { (message_count(&harness, &queue).await == 0).then_some(()) })
        .await;
    harness.deploy("app", 1).await;
    harness.wait_for_dataplanes("a Dataplane after all that", |found| found.len() == 1).await;
    let failures = operator.lines(&[("reason", ""), ("path", ""), ("action", "")]);
    assert_eq!(failures.len(), POISON, "{failures:?}");
    for reason in ["not_json", "missing_field"] {
        operator.line(&[("reason", reason), ("action", "delete")]).await;
    }
    assert!(!operator.stderr().contains("planted-in-a-message"));
}

#[tokio::test]
async fn redrive_moves_poison_to_the_dead_letter_queue() {
    let harness = Harness::start().await;
    harness.manifest("all.yaml", &harness.base_manifests());
    let queue = harness.variable("ECS_MESH_QUEUE_URL").to_owned();
    let request = harness.sqs().set_queue_attributes().queue_url(&queue);
    request.attributes(QueueAttributeName::VisibilityTimeout, "1").send().await.unwrap();
    send_all(&harness).await;
    let _operator = harness.operator(&["--queue-url", &queue, "--poison", "redrive"]);
    harness.deploy("app", 1).await;
    harness.wait_for_dataplanes("a Dataplane meanwhile", |found| found.len() == 1).await;
    let dead = format!("{queue}-dead");
    eventually("the dead letters", || async {
        (message_count(&harness, &dead).await == POISON).then_some(())
    })
    .await;
    eventually("an empty queue", || async { (message_count(&harness, &queue).await == 0).then_some(()) })
        .await;
}

#[tokio::test]
async fn missing_queue_is_logged_once_and_sweeps_continue() {
    let harness = Harness::start().await;
    harness.manifest("all.yaml", &harness.base_manifests());
    let missing = format!("{}-missing", harness.variable("ECS_MESH_QUEUE_URL"));
    harness.deploy("app", 1).await;
    let mut operator = harness.operator(&["--queue-url", &missing]);
    harness.wait_for_dataplanes("a Dataplane by the first sweep", |found| found.len() == 1).await;
    harness.scale("app", 2).await;
    harness.wait_for_dataplanes("a Dataplane by a later sweep", |found| found.len() == 2).await;
    let failures = operator.lines(&[("level", "WARN"), ("error", "-missing")]);
    assert!((1..=2).contains(&failures.len()), "{failures:?}");
    assert!(operator.is_running());
}
