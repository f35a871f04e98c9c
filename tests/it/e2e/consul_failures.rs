//! Unusable Consul servers and insufficient operator tokens: each is reported with a remedy, and nothing is removed.

use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use ecs_mesh_model::Timestamp;
use ecs_mesh_sandbox::consul::http::{ConsulFront, NoConsulFaults, serve};
use ecs_mesh_sandbox::consul::{ConsulConfig, ConsulServer};
use serde_json::Value;
use tokio::net::TcpListener;

use super::consul_harness::{ConsulHarness, JoinedTask, bound, consul_at};
use super::harness::{Harness, OperatorProcess};
use super::servers::{hanging_server, html_server};

/// A harness with one stopped task whose objects still exist.
async fn with_stopped_task() -> (ConsulHarness, JoinedTask) {
    let harness = ConsulHarness::start().await;
    let tasks = harness.deploy("web", 1).await;
    let dead = harness.join("web", &tasks[0]).await;
    harness.0.scale("web", 0).await;
    harness.wait_until_stopped(&dead.id).await;
    (harness, dead)
}

/// Starts an operator with another token of its own.
fn operator_with(harness: &ConsulHarness, token: &str) -> OperatorProcess {
    let mut environment = harness.0.environment.clone();
    environment.insert("CONSUL_HTTP_TOKEN".to_owned(), token.to_owned());
    harness.0.manifest("all.yaml", &harness.manifests(""));
    harness.0.operator_with("operator", &environment, &[])
}

/// Waits for a few sweeps and checks that all objects still exist and that warnings are not repeated.
async fn assert_nothing_is_removed(harness: &ConsulHarness, operator: &OperatorProcess, dead: &JoinedTask) {
    operator.wait_for_sweeps(3).await;
    let all = harness.all_objects().await;
    for name in dead.names(harness.cluster()) {
        assert!(all.contains_key(&name), "{name} is gone:\n{}", operator.stderr());
    }
    assert_eq!(operator.lines(&[("change", "remove"), ("result", "success")]), Vec::<Value>::new());
    let warnings = operator.warnings();
    assert!(warnings.len() <= 3, "{warnings:?}");
}

#[tokio::test]
async fn unknown_own_token_removes_nothing() {
    let (harness, dead) = with_stopped_task().await;
    let bad_token = "b1a9d2c4-planted-bad-token";
    let operator = operator_with(&harness, bad_token);
    let line = operator.line(&[("level", "WARN"), ("control_plane", "consul"), ("*", "tokenEnv")]).await;
    assert_eq!(line["reason"], "forbidden", "{line}");
    assert_nothing_is_removed(&harness, &operator, &dead).await;
    assert!(!operator.stderr().contains(bad_token));
}

#[tokio::test]
async fn denied_removal_names_the_missing_permission() {
    let (harness, dead) = with_stopped_task().await;
    let rules = "acl = \"read\"\nnode_prefix \"\" { policy = \"write\" }\nservice_prefix \"\" { policy = \"write\" }\n\
                 agent_prefix \"\" { policy = \"read\" }";
    let token = harness.token_with("no-acl-write", rules).await;
    let operator = operator_with(&harness, &token);
    let call = format!("DELETE /v1/acl/token/{}", dead.accessor);
    assert!(harness.all_objects().await.contains_key(&format!("token {}", dead.accessor)));
    let removal = [("target", "audit"), ("change", "remove"), ("name", dead.accessor.as_str())];
    let line = operator.line(&removal).await;
    assert_eq!((&line["level"], &line["result"]), (&"WARN".into(), &"error".into()), "{line}");
    assert_eq!(line["version"], env!("CARGO_PKG_VERSION"), "{line}");
    let error = line["error"].as_str().unwrap();
    assert!(error.contains(&call) && error.contains("acl = \"write\""), "{line}");
    // Further attempts log no further line.
    let sweeps = operator.sweeps("").len();
    operator.wait_for_sweeps(sweeps + 2).await;
    let audited = operator.lines(&[("target", "audit"), ("name", &dead.accessor)]);
    assert_eq!(audited.len(), 1, "{audited:?}");
    assert!(!operator.stderr().contains(&token));
}

#[tokio::test]
async fn filtered_list_removes_nothing() {
    let (harness, dead) = with_stopped_task().await;
    // The token may read nodes but no services: Consul answers an empty list with the filter header.
    let rules =
        "acl = \"write\"\nnode_prefix \"\" { policy = \"write\" }\nagent_prefix \"\" { policy = \"read\" }";
    let token = harness.token_with("no-services", rules).await;
    let operator = operator_with(&harness, &token);
    let segment = [("level", "WARN"), ("reason", "forbidden"), ("segment", "")];
    operator.line(&[&segment[..], &[("*", "service_prefix")]].concat()).await;
    let token = format!("token {}", dead.accessor);
    let left = harness.wait_for_objects("the token is gone", |all| !all.contains_key(&token)).await;
    operator.wait_for_sweeps(3).await;
    for name in dead.names(harness.cluster()).iter().filter(|name| **name != token) {
        assert!(left.contains_key(name), "{name} is gone:\n{}", operator.stderr());
    }
    assert_eq!(operator.lines(&segment).len(), 1, "{}", operator.stderr());
    assert!(operator.sweeps("true").is_empty(), "a part is unknown");
}

#[tokio::test]
async fn hung_consul_does_not_delay_kuma() {
    let harness = Harness::start().await;
    let hanging = hanging_server().await;
    let mut environment = harness.environment.clone();
    environment.insert("CONSUL_HTTP_TOKEN".to_owned(), "any".to_owned());
    let cluster = harness.variable("ECS_MESH_CLUSTER_ARN");
    let manifests = [
        harness.base_manifests(),
        consul_at("hanging", &hanging.url, ", timeout: 2m"),
        bound("b", "hanging", cluster, ""),
    ];
    harness.manifest("all.yaml", &manifests.concat());
    let queue = harness.variable("ECS_MESH_QUEUE_URL").to_owned();
    let arguments = ["--queue-url", &queue, "--graceful-shutdown-timeout", "1s"];
    let mut operator = harness.operator_with("operator", &environment, &arguments);
    harness.deploy("app", 3).await;
    harness.wait_for_dataplanes("Dataplanes while it hangs", |found| found.len() == 3).await;
    harness.scale("app", 0).await;
    harness.wait_for_dataplanes("removals while it hangs", std::collections::BTreeMap::is_empty).await;
    assert!((1..=60).contains(&hanging.call_count()), "{} calls", hanging.call_count());
    operator.signal("TERM");
    assert_eq!(operator.code().await, Some(0));
}

/// Starts an operator whose Consul is at another address.
fn operator_at(harness: &ConsulHarness, address: &str) -> OperatorProcess {
    let manifests = [consul_at("consul", address, ""), bound("harness", "consul", harness.cluster(), "")];
    harness.0.manifest("all.yaml", &manifests.concat());
    harness.0.operator(&[])
}

#[tokio::test]
async fn server_that_is_no_consul_is_reported() {
    let harness = ConsulHarness::start().await;
    let website = html_server().await;
    let operator = operator_at(&harness, &website.url);
    let warning = [("level", "WARN"), ("control_plane", "consul"), ("reason", "unexpected_response")];
    operator.line(&[&warning[..], &[("*", "spec.consul.address")]].concat()).await;
    operator.wait_for_sweeps(2).await;
    assert!(website.call_count() <= 60, "{} calls", website.call_count());
}

#[tokio::test]
async fn consul_without_acls_is_reported() {
    let harness = ConsulHarness::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let now = || {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        Timestamp(i64::try_from(since.as_millis()).unwrap())
    };
    let config = ConsulConfig { acls_enabled: false, ..ConsulConfig::default() };
    let server = Arc::new(Mutex::new(ConsulServer::new(config, now())));
    let no_account = Arc::new(|_: &_| Err("no account".to_owned()));
    let front = ConsulFront::new(server, no_account, Arc::new(NoConsulFaults), Arc::new(now));
    tokio::spawn(serve(listener, front, std::future::pending()));
    let operator = operator_at(&harness, &url);
    operator.line(&[("level", "WARN"), ("control_plane", "consul"), ("*", "acl.enabled")]).await;
}
