//! Probes and `healthcheck`, as ECS meets them.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::Path;

use serde_json::Value;

use super::harness::{Harness, OperatorProcess};

/// Exit code and words of `healthcheck`.
async fn check(directory: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let arguments: Vec<&str> = ["healthcheck"].iter().chain(arguments).copied().collect();
    let mut process = OperatorProcess::start(directory, "healthcheck", &BTreeMap::new(), &arguments);
    (process.code().await, format!("{}{}", process.stdout(), process.stderr()))
}

fn address_of(line: &Value) -> String {
    line["address"].as_str().unwrap().to_owned()
}

/// An address of loopback that is free now.
fn free() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

#[tokio::test]
async fn healthcheck_reports_running_and_missing_operator() {
    let house = Harness::open().await;
    house.manifest("all.yaml", &house.usual());
    let mut operator = house.operator(&["--metrics-address", "127.0.0.1:0"]);
    let address = address_of(&operator.line(&[("level", "INFO"), ("address", "")]).await);
    operator.wait_for_sweep(true).await;
    let directory = house.directory.path();
    let (code, said) = check(directory, &["--metrics-address", &address]).await;
    assert_eq!((code, said.lines().count()), (Some(0), 1), "{said}");
    assert!(said.ends_with(": ok\n"), "{said}");
    let (code, said) = check(directory, &["--metrics-address", &address, "--ready"]).await;
    assert_eq!(code, Some(0), "{said}");
    operator.signal("TERM");
    assert_eq!(operator.code().await, Some(0));
    let (code, said) = check(directory, &["--metrics-address", &address]).await;
    assert_eq!((code, said.lines().count()), (Some(1), 1), "{said}");
    assert!(said.starts_with("error: ") && said.contains(&address), "{said}");
    let (code, said) = check(directory, &["--metrics-address", "none"]).await;
    assert!(code == Some(1) && said.contains("--metrics-address"), "{said}");
}

#[tokio::test]
async fn outage_keeps_healthz_ok_and_delays_readyz() {
    let house = Harness::open().await;
    house.manifest("all.yaml", &house.usual());
    let mut environment = house.environment.clone();
    // Nobody listens there: no list, no queue.
    environment.insert("AWS_ENDPOINT_URL".to_owned(), format!("http://{}", free()));
    let queue = house.variable("ECS_MESH_QUEUE_URL").to_owned();
    let more = ["--metrics-address", "127.0.0.1:0", "--queue-url", &queue];
    let operator = house.operator_with("operator", &environment, &more);
    let address = address_of(&operator.line(&[("level", "INFO"), ("address", "")]).await);
    operator.wait_for_sweep(false).await;
    let directory = house.directory.path();
    let (code, said) = check(directory, &["--metrics-address", &address]).await;
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = check(directory, &["--metrics-address", &address, "--ready"]).await;
    assert!(code == Some(1) && said.contains(house.variable("ECS_MESH_CLUSTER_ARN")), "{said}");
}

#[tokio::test]
async fn metrics_port_in_use_does_not_stop_the_operator() {
    let house = Harness::open().await;
    house.manifest("all.yaml", &house.usual());
    house.deploy("app", 2).await;
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let operator = house.operator(&["--metrics-address", &address]);
    operator.line(&[("level", "ERROR"), ("address", &address), ("help", "--metrics-address")]).await;
    house.dataplanes_once("both tasks are registered all the same", |all| all.len() == 2).await;
    drop(taken);
    operator.line(&[("level", "INFO"), ("address", &address)]).await;
}
