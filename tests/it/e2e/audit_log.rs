//! The operator's own log, read by `changes --audit-log`, has the changes that the operator itself answers.

use std::path::Path;

use serde_json::Value;

use super::consul_harness::ConsulHarness;
use super::consul_operators::auth;
use super::deployments::{DeploymentHarness, HOLD};
use super::harness::{Harness, binding, control_plane, document, tag};
use super::reading_commands::OperatorReader;

/// The changes in an order of their own, without the parts that a log cannot have: the number of the record, the time of the
/// record, and the bounded label of the reason.
fn comparable(changes: Vec<Value>) -> Vec<Value> {
    let mut changes = changes;
    for change in &mut changes {
        let fields = change.as_object_mut().unwrap();
        fields.remove("id");
        fields.remove("time").expect("it has a time");
        fields["reason"].as_object_mut().unwrap().remove("key");
    }
    // Reconciles run side by side, and a change is logged after it is recorded. The order of one object's changes stays.
    changes.sort_by_key(|change| ["object", "name", "task"].map(|field| change[field].to_string()));
    changes
}

/// The value of a field of each change.
fn all<'c>(changes: &'c [Value], field: &str) -> Vec<&'c str> {
    changes.iter().map(|change| change[field].as_str().unwrap_or_default()).collect()
}

/// The changes of a log, read as a file and as standard input.
async fn logged(reader: &OperatorReader<'_>, log: &Path, more: &[&str]) -> Vec<Value> {
    let file = [&["changes", "--audit-log", log.to_str().unwrap(), "-o", "json"], more].concat();
    let (file, stdin) =
        (reader.run(&file).await, [&["changes", "--audit-log", "-", "-o", "json"], more].concat());
    let stdin = reader.run_with_input(&stdin, log).await;
    assert_eq!((file.code, &*file.err), (Some(0), ""), "no line is skipped");
    assert_eq!((stdin.code, &stdin.out, &*stdin.err), (Some(0), &file.out, ""));
    let list: Value = serde_json::from_str(&file.out).unwrap();
    list["items"].as_array().unwrap().clone()
}

/// Manifests in which ECS service, `Workload` and service in the mesh have names of their own.
fn manifests(harness: &Harness, protocol: &str) -> String {
    let cluster = harness.variable("ECS_MESH_CLUSTER_ARN");
    let inbound = format!("{{name: http, containerPort: 8080, port: 15000, protocol: {protocol}}}");
    let shop = format!("{{selector: {{families: [app]}}, service: shop, inbounds: [{inbound}]}}");
    let ingress = "{selector: {families: [ingress]}, service: zone-ingress, proxy: zoneIngress, \
                   zoneIngress: {port: 10001}}";
    [
        control_plane("kuma", harness.variable("KUMA_API_URL"), ""),
        binding("harness", "kuma", cluster, ", tokens: {issue: true, path: /mesh}"),
        document("Workload", "checkout", &shop),
        document("Workload", "ingress", ingress),
    ]
    .concat()
}

#[tokio::test]
async fn log_has_the_changes_of_a_running_operator() {
    let harness = Harness::start().await;
    harness.manifest("all.yaml", &manifests(&harness, "http"));
    let of_shop =
        [tag("kuma.io/type", "dataplane"), tag("kuma.io/mesh", "default"), tag("kuma.io/service", "shop")];
    harness.role_with("app", &of_shop).await;
    harness.role_with("ingress", &[tag("kuma.io/type", "ingress")]).await;
    for service in ["app", "ingress"] {
        harness.define(service).await;
        harness.serve("sandbox", service, 1).await;
    }
    let queue = harness.variable("ECS_MESH_QUEUE_URL").to_owned();
    let mut operator = harness.operator(&["--queue-url", &queue, "--api-address", "127.0.0.1:0"]);
    let reader = OperatorReader::of(&harness, &operator).await;
    let has = |changes: &[Value], object: &str, kind: &str, count: usize| {
        let is = |change: &&Value| change["object"] == object && change["kind"] == kind;
        changes.iter().filter(is).count() >= count
    };
    let history = ["changes"];
    reader
        .wait_for_items(&history, "both are registered", |changes| {
            has(changes, "registration", "create", 2) && has(changes, "data_plane_token", "create", 1)
        })
        .await;
    harness.manifest("all.yaml", &manifests(&harness, "tcp"));
    reader
        .wait_for_items(&history, "one is updated", |changes| has(changes, "registration", "update", 1))
        .await;
    for service in ["app", "ingress"] {
        harness.scale(service, 0).await;
    }
    let live = reader
        .wait_for_items(&history, "both are removed", |changes| has(changes, "registration", "remove", 2))
        .await;
    // Each name by which people know the service.
    let mut by_name = Vec::new();
    for name in ["app", "checkout", "shop"] {
        by_name.push((name, reader.items(&["changes", "--service", name]).await));
    }
    operator.signal("TERM");
    assert_eq!(operator.code().await, Some(0));

    let log = harness.path("operator.err");
    let live = comparable(live);
    assert_eq!(comparable(logged(&reader, &log, &[]).await), live);
    assert!(live.iter().all(|change| change["result"] == "success"), "{live:?}");
    for (name, live) in by_name {
        let live = comparable(live);
        assert!(all(&live, "kind").contains(&"create"), "{name}: {live:?}");
        assert_eq!(comparable(logged(&reader, &log, &["--service", name]).await), live, "{name}");
    }
}

#[tokio::test]
async fn log_has_the_changes_of_protection() {
    let mut deployment = DeploymentHarness::start(HOLD).await;
    deployment.deploy("app-task").await;
    deployment.wait_for_protection(&deployment.old).await;
    let reader = OperatorReader::of(&deployment.harness, &deployment.operator).await;
    let of_protection = ["changes", "--kind", "protection"];
    let fits = |changes: &[Value]| changes.len() == 2;
    let live = reader.wait_for_items(&of_protection, "both are protected", fits).await;
    deployment.operator.signal("TERM");
    assert_eq!(deployment.operator.code().await, Some(0));
    let log = deployment.harness.path("operator.err");
    // The log's lines name neither the role nor the end of the protection.
    let without_reason = |changes: Vec<Value>| {
        let mut changes = comparable(changes);
        for change in &mut changes {
            change["reason"] = Value::Null;
            change.as_object_mut().unwrap().remove("role");
        }
        changes
    };
    let logged = logged(&reader, &log, &of_protection[1..]).await;
    assert_eq!(without_reason(logged), without_reason(live));
}

#[tokio::test]
async fn log_has_the_changes_of_acl_objects() {
    let harness = ConsulHarness::start().await;
    let manifests = |ttl: &str| harness.manifests("") + &auth(&harness, ttl, ", gateways: [mesh-gateway]");
    harness.0.manifest("all.yaml", &manifests("1h"));
    let queue = harness.0.variable("ECS_MESH_QUEUE_URL").to_owned();
    let mut operator = harness.0.operator(&["--queue-url", &queue, "--api-address", "127.0.0.1:0"]);
    let reader = OperatorReader::of(&harness.0, &operator).await;
    let made = ["policy", "role", "auth_method", "binding_rule", "node"];
    reader
        .wait_for_items(&["changes"], "the declared objects are there", |changes| {
            made.iter().all(|kind| all(changes, "object").contains(kind))
        })
        .await;
    harness.0.manifest("all.yaml", &manifests("2h"));
    reader
        .wait_for_items(&["changes", "--kind", "update"], "the auth method is updated", |changes| {
            all(changes, "object").contains(&"auth_method")
        })
        .await;
    let tasks = harness.deploy("web", 1).await;
    let joined = harness.join("web", &tasks[0]).await;
    operator.wait_for_sweeps(operator.sweeps("").len() + 2).await;
    harness.0.scale("web", 0).await;
    harness.wait_until_gone(&joined).await;
    let live = reader
        .wait_for_items(&["changes"], "the task's objects are removed", |changes| {
            all(changes, "task").iter().filter(|task| task.ends_with(&tasks[0])).count() == 3
        })
        .await;
    operator.signal("TERM");
    assert_eq!(operator.code().await, Some(0));

    let log = harness.0.path("operator.err");
    assert_eq!(comparable(logged(&reader, &log, &[]).await), comparable(live.clone()));
    for kind in made {
        let logged = logged(&reader, &log, &["--kind", kind]).await;
        let count = all(&live, "object").iter().filter(|object| **object == kind).count();
        assert!(count > 0 && logged.len() == count, "{kind}: {logged:?}");
    }
}
