//! Consuls that cannot be used, and tokens of our own that are not enough: each is told of with what to do, and nothing
//! is removed.

use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use ecs_mesh_model::Timestamp;
use ecs_mesh_sandbox::consul::http::{ConsulFront, NoConsulFaults, serve};
use ecs_mesh_sandbox::consul::{ConsulConfig, ConsulServer};
use serde_json::Value;
use tokio::net::TcpListener;

use super::consul_harness::{ConsulHarness, JoinedTask, bound, consul_at};
use super::harness::{Harness, OperatorProcess};
use super::servers::{silent, website};

/// A house with one dead task, whose things are there still.
async fn with_a_dead_task() -> (ConsulHarness, JoinedTask) {
    let house = ConsulHarness::open().await;
    let tasks = house.deploy("web", 1).await;
    let dead = house.join("web", &tasks[0]).await;
    house.0.scale("web", 0).await;
    house.once_stopped(&dead.id).await;
    (house, dead)
}

/// An operator whose own token is another one.
fn operator_with(house: &ConsulHarness, token: &str) -> OperatorProcess {
    let mut environment = house.0.environment.clone();
    environment.insert("CONSUL_HTTP_TOKEN".to_owned(), token.to_owned());
    house.0.manifest("all.yaml", &house.manifests(""));
    house.0.operator_with("operator", &environment, &[])
}

/// After a few sweeps everything is there still, and nobody said more than a few times what is wrong.
async fn assert_nothing_is_removed(house: &ConsulHarness, operator: &OperatorProcess, dead: &JoinedTask) {
    operator.wait_for_sweeps(3).await;
    let all = house.everything().await;
    for name in dead.names(house.cluster()) {
        assert!(all.contains_key(&name), "{name} is gone:\n{}", operator.stderr());
    }
    assert_eq!(operator.lines(&[("change", "remove"), ("result", "success")]), Vec::<Value>::new());
    let loud = operator.warnings();
    assert!(loud.len() <= 3, "{loud:?}");
}

#[tokio::test]
async fn unknown_own_token_removes_nothing() {
    let (house, dead) = with_a_dead_task().await;
    let planted = "b1a9d2c4-planted-bad-token";
    let operator = operator_with(&house, planted);
    let line = operator.line(&[("level", "WARN"), ("control_plane", "consul"), ("*", "tokenEnv")]).await;
    assert_eq!(line["reason"], "forbidden", "{line}");
    assert_nothing_is_removed(&house, &operator, &dead).await;
    assert!(!operator.stderr().contains(planted));
}

#[tokio::test]
async fn a_token_that_may_not_remove_tokens_is_told_what_it_needs() {
    let (house, dead) = with_a_dead_task().await;
    let rules = "acl = \"read\"\nnode_prefix \"\" { policy = \"write\" }\nservice_prefix \"\" { policy = \"write\" }\n\
                 agent_prefix \"\" { policy = \"read\" }";
    let token = house.token_with("no-acl-write", rules).await;
    let operator = operator_with(&house, &token);
    let call = format!("DELETE /v1/acl/token/{}", dead.accessor);
    assert!(house.everything().await.contains_key(&format!("token {}", dead.accessor)));
    let removal = [("target", "audit"), ("change", "remove"), ("name", dead.accessor.as_str())];
    let line = operator.line(&removal).await;
    assert_eq!((&line["level"], &line["result"]), (&"WARN".into(), &"error".into()), "{line}");
    assert_eq!(line["version"], env!("CARGO_PKG_VERSION"), "{line}");
    let error = line["error"].as_str().unwrap();
    assert!(error.contains(&call) && error.contains("acl = \"write\""), "{line}");
    // Its next attempts say nothing new.
    let sweeps = operator.sweeps("").len();
    operator.wait_for_sweeps(sweeps + 2).await;
    let audited = operator.lines(&[("target", "audit"), ("name", &dead.accessor)]);
    assert_eq!(audited.len(), 1, "{audited:?}");
    assert!(!operator.stderr().contains(&token));
}

#[tokio::test]
async fn filtered_list_removes_nothing() {
    let (house, dead) = with_a_dead_task().await;
    // Sees the nodes, and of the services none: an empty list, with a header that says why.
    let rules =
        "acl = \"write\"\nnode_prefix \"\" { policy = \"write\" }\nagent_prefix \"\" { policy = \"read\" }";
    let token = house.token_with("no-services", rules).await;
    let operator = operator_with(&house, &token);
    let segment = [("level", "WARN"), ("reason", "forbidden"), ("segment", "")];
    operator.line(&[&segment[..], &[("*", "service_prefix")]].concat()).await;
    let token = format!("token {}", dead.accessor);
    let left = house.once("the token is gone", |all| !all.contains_key(&token)).await;
    operator.wait_for_sweeps(3).await;
    for name in dead.names(house.cluster()).iter().filter(|name| **name != token) {
        assert!(left.contains_key(name), "{name} is gone:\n{}", operator.stderr());
    }
    assert_eq!(operator.lines(&segment).len(), 1, "{}", operator.stderr());
    assert!(operator.sweeps("true").is_empty(), "a part is unknown");
}

#[tokio::test]
async fn a_consul_that_hangs_holds_up_no_kuma() {
    let house = Harness::open().await;
    let hanging = silent().await;
    let mut environment = house.environment.clone();
    environment.insert("CONSUL_HTTP_TOKEN".to_owned(), "any".to_owned());
    let cluster = house.variable("ECS_MESH_CLUSTER_ARN");
    let manifests = [
        house.usual(),
        consul_at("hanging", &hanging.url, ", timeout: 2m"),
        bound("b", "hanging", cluster, ""),
    ];
    house.manifest("all.yaml", &manifests.concat());
    let queue = house.variable("ECS_MESH_QUEUE_URL").to_owned();
    let arguments = ["--queue-url", &queue, "--graceful-shutdown-timeout", "1s"];
    let mut operator = house.operator_with("operator", &environment, &arguments);
    house.deploy("app", 3).await;
    house.dataplanes_once("Dataplanes while it hangs", |found| found.len() == 3).await;
    house.scale("app", 0).await;
    house.dataplanes_once("removals while it hangs", std::collections::BTreeMap::is_empty).await;
    assert!((1..=60).contains(&hanging.count_call()), "{} calls", hanging.count_call());
    operator.signal("TERM");
    assert_eq!(operator.code().await, Some(0));
}

/// An operator at another address than the house's Consul.
fn operator_at(house: &ConsulHarness, address: &str) -> OperatorProcess {
    let manifests = [consul_at("consul", address, ""), bound("house", "consul", house.cluster(), "")];
    house.0.manifest("all.yaml", &manifests.concat());
    house.0.operator(&[])
}

#[tokio::test]
async fn what_is_no_consul_is_told_of() {
    let house = ConsulHarness::open().await;
    let website = website().await;
    let operator = operator_at(&house, &website.url);
    let warning = [("level", "WARN"), ("control_plane", "consul"), ("reason", "unexpected_response")];
    operator.line(&[&warning[..], &[("*", "spec.consul.address")]].concat()).await;
    operator.wait_for_sweeps(2).await;
    assert!(website.count_call() <= 60, "{} calls", website.count_call());
}

#[tokio::test]
async fn where_acls_are_off_that_is_told_of() {
    let house = ConsulHarness::open().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let now = || {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        Timestamp(i64::try_from(since.as_millis()).unwrap())
    };
    let config = ConsulConfig { acls_enabled: false, ..ConsulConfig::default() };
    let server = Arc::new(Mutex::new(ConsulServer::new(config, now())));
    let nobody = Arc::new(|_: &_| Err("nobody is there".to_owned()));
    let front = ConsulFront::new(server, nobody, Arc::new(NoConsulFaults), Arc::new(now));
    tokio::spawn(serve(listener, front, std::future::pending()));
    let operator = operator_at(&house, &url);
    operator.line(&[("level", "WARN"), ("control_plane", "consul"), ("*", "acl.enabled")]).await;
}
