//! The lifecycle of tasks end to end: register, update, revoke, drain and remove.

use std::collections::BTreeMap;

use aws_sdk_ecs::types::{ContainerOverride, KeyValuePair, LaunchType, TaskOverride};
use serde_json::{Value, json};

use super::harness::{Harness, OperatorProcess, awsvpc, binding, control_plane, document, tag, workload};

/// Secrets that the log must not contain.
const SECRETS: [&str; 4] = [
    "planted-in-an-override",
    "planted-in-a-role-tag",
    "planted-in-the-token-file",
    "planted-in-the-aws-key",
];

fn outbounds(ports: &[u16]) -> String {
    let entries: Vec<String> = ports
        .iter()
        .map(|port| format!("{{service: redis, targetPort: {port}, listen: {{port: {port}}}}}"))
        .collect();
    document(
        "OutboundList",
        "redis-users",
        &format!("{{workloads: [app], outbounds: [{}]}}", entries.join(", ")),
    )
}

fn outbound_ports(dataplane: &Value) -> Vec<u64> {
    let listed = dataplane["networking"]["outbound"].as_array();
    listed.into_iter().flatten().filter_map(|outbound| outbound["port"].as_u64()).collect()
}

/// Creates two Dataplanes of other owners.
async fn create_foreign_dataplanes(harness: &Harness) {
    let inbound = json!({"port": 8080, "tags": {"kuma.io/service": "legacy", "kuma.io/protocol": "http"}});
    let manual = json!({
        "type": "Dataplane", "mesh": "default", "name": "legacy-gateway",
        "networking": {"address": "10.9.9.9", "inbound": [inbound]},
    });
    harness.put("/meshes/default/dataplanes/legacy-gateway", &manual).await;
    let foreign_dataplanes = json!({
        "type": "Dataplane", "mesh": "default", "name": "0123456789abcdef0123456789abcdef",
        "labels": {
            "ecs-mesh.dev/operator": "neighbour",
            "ecs-mesh.dev/cluster-id": "0123456789abcdef",
            "ecs-mesh.dev/task-id": "0123456789abcdef0123456789abcdef",
        },
        "networking": {"address": "10.9.9.10", "inbound": [inbound]},
    });
    harness.put("/meshes/default/dataplanes/0123456789abcdef0123456789abcdef", &foreign_dataplanes).await;
}

async fn foreign_dataplanes(harness: &Harness) -> [String; 2] {
    [
        harness.get("/meshes/default/dataplanes/legacy-gateway").await,
        harness.get("/meshes/default/dataplanes/0123456789abcdef0123456789abcdef").await,
    ]
}

fn write_manifests(harness: &Harness) {
    std::fs::write(harness.path("token"), "planted-in-the-token-file\n").unwrap();
    let token_file = format!(", tokenFile: \"{}\"", harness.path("token").display());
    let base = [
        control_plane("kuma", harness.variable("KUMA_API_URL"), &token_file),
        binding("harness", "kuma", harness.variable("ECS_MESH_CLUSTER_ARN"), ""),
        workload("app", "app"),
    ];
    harness.manifest("base.yaml", &base.concat());
    harness.manifest("outbounds.yaml", &outbounds(&[6379]));
}

/// Runs a standalone task with a secret in its overrides.
async fn run_with_secret(harness: &Harness) {
    let variable = KeyValuePair::builder().name("PASSWORD").value("planted-in-an-override").build();
    let container = ContainerOverride::builder().name("app").environment(variable).build();
    let request = harness.ecs().run_task().cluster("sandbox").task_definition("app");
    request
        .overrides(TaskOverride::builder().container_overrides(container).build())
        .launch_type(LaunchType::Fargate)
        .network_configuration(awsvpc())
        .send()
        .await
        .unwrap();
}

/// Stops the operator as ECS does, and checks the exit.
async fn stop(operator: &mut OperatorProcess) {
    operator.signal("TERM");
    assert_eq!(operator.code().await, Some(0), "{}", operator.stderr());
    let stopped = operator.lines(&[("completed", ""), ("cancelled", "")]);
    assert_eq!(stopped[0]["cancelled"], 0, "{stopped:?}");
}

/// Waits for the audit line, which follows the write.
async fn assert_audited(operator: &OperatorProcess, task: &str, change: &str) {
    let line = operator.line(&[("target", "audit"), ("change", change), ("task", task)]).await;
    assert_eq!(line["service"], "app", "{line}");
    assert!(
        line["task"].as_str().is_some_and(|arn| arn.starts_with("arn:") && arn.ends_with(task)),
        "{line}"
    );
    assert!(line["reason"].as_str().is_some_and(|reason| reason.len() > 5), "{line}");
}

fn assert_no_secret_logged(operator: &OperatorProcess) {
    let log = operator.stderr();
    for secret in SECRETS {
        let line = log.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "{secret}");
    }
}

#[tokio::test]
async fn task_lifecycle_end_to_end() {
    let harness = Harness::start().await;
    create_foreign_dataplanes(&harness).await;
    let others_before = foreign_dataplanes(&harness).await;
    write_manifests(&harness);
    let mut environment = harness.environment.clone();
    environment.insert("AWS_SECRET_ACCESS_KEY".to_owned(), "planted-in-the-aws-key".to_owned());
    let queue = harness.variable("ECS_MESH_QUEUE_URL").to_owned();
    let mut operator =
        harness.operator_with("first", &environment, &["--queue-url", &queue, "--log", "debug"]);

    // Tasks start.
    harness.deploy("app", 2).await;
    let secret = tag("note", "planted-in-a-role-tag");
    harness.iam().tag_role().role_name("app-task").tags(secret).send().await.unwrap();
    run_with_secret(&harness).await;
    let registered = harness.wait_for_dataplanes("three Dataplanes", |found| found.len() == 3).await;
    assert_eq!(registered.keys().cloned().collect::<Vec<_>>(), harness.task_ids().await);
    for (name, dataplane) in &registered {
        assert_eq!(dataplane["labels"]["ecs-mesh.dev/task-id"], name.as_str());
        assert!(dataplane["labels"]["ecs-mesh.dev/cluster-id"].is_string(), "{dataplane}");
        let inbound = &dataplane["networking"]["inbound"][0];
        assert_eq!((&inbound["state"], &inbound["port"]), (&json!("NotReady"), &json!(15000)), "{dataplane}");
        assert!(inbound["serviceProbe"]["tcp"].is_object(), "{dataplane}");
        assert_eq!(outbound_ports(dataplane), [6379]);
        assert_audited(&operator, name, "create").await;
    }

    // An edited OutboundList updates the registrations.
    harness.manifest("outbounds.yaml", &outbounds(&[6379, 6380]));
    let two_each =
        |found: &BTreeMap<String, Value>| found.values().all(|d| outbound_ports(d) == [6379, 6380]);
    let edited = harness.wait_for_dataplanes("the edited outbounds at each task", two_each).await;
    assert!(edited.keys().eq(registered.keys()));

    // An invalid edit changes nothing and is reported with its location.
    let wrong = outbounds(&[6381]).replace("targetPort", "tragetPort");
    harness.manifest("outbounds.yaml", &wrong);
    let location = [("file", "outbounds.yaml"), ("line", "4"), ("path", "spec.outbounds[0].tragetPort")];
    operator.line(&[&[("level", "ERROR")], &location[..]].concat()).await;
    assert_eq!(harness.dataplanes().await, edited);
    harness.manifest("outbounds.yaml", &outbounds(&[6379]));
    harness
        .wait_for_dataplanes("the corrected outbounds", |found| {
            found.values().all(|d| outbound_ports(d) == [6379])
        })
        .await;

    // A removed role tag removes the registrations, and a restored one registers again.
    harness.iam().untag_role().role_name("app-task").tag_keys("kuma.io/mesh").send().await.unwrap();
    harness.wait_for_dataplanes("withdrawal of the role's tasks", BTreeMap::is_empty).await;
    let violation = [("error", "app-task"), ("error", "kuma.io/mesh")];
    operator.line(&[&[("level", "WARN"), ("reason", "rejected")], &violation[..]].concat()).await;
    for task in registered.keys() {
        assert_audited(&operator, task, "remove").await;
    }
    harness.iam().tag_role().role_name("app-task").tags(tag("kuma.io/mesh", "default")).send().await.unwrap();
    let again =
        harness.wait_for_dataplanes("registration of the role's tasks", |found| found.len() == 3).await;
    assert!(again.keys().eq(registered.keys()));

    // Stopping tasks are drained, and removed once stopped.
    harness.scale("app", 0).await;
    let drained = |found: &BTreeMap<String, Value>| {
        found.values().filter(|d| d["labels"]["ecs-mesh.dev/drain"] == "stopping").count() == 2
    };
    let draining = harness.wait_for_dataplanes("two drained Dataplanes", drained).await;
    for dataplane in draining.values().filter(|d| d["labels"]["ecs-mesh.dev/drain"].is_string()) {
        assert_eq!(dataplane["networking"]["inbound"][0]["health"], json!({}), "{dataplane}");
    }
    harness.wait_for_dataplanes("removal of the service's tasks", |found| found.len() == 1).await;

    // A restart with unchanged tasks writes nothing.
    stop(&mut operator).await;
    let times = |found: &BTreeMap<String, Value>| -> Vec<(String, Value)> {
        found.iter().map(|(name, d)| (name.clone(), d["modificationTime"].clone())).collect()
    };
    let before = times(&harness.dataplanes().await);
    let mut second =
        harness.operator_with("second", &environment, &["--queue-url", &queue, "--log", "trace"]);
    second.line(&[("outcome", "Equal"), ("task", &before[0].0)]).await;
    second.wait_for_sweep(true).await;
    assert_eq!(times(&harness.dataplanes().await), before);
    assert_eq!(foreign_dataplanes(&harness).await, others_before);
    stop(&mut second).await;
    assert_eq!(second.lines(&[("change", "")]), Vec::<Value>::new());
    assert_no_secret_logged(&operator);
    assert_no_secret_logged(&second);
}
