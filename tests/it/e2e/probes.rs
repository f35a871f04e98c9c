//! Probe endpoints and `healthcheck`, as used by ECS.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::Path;

use serde_json::Value;

use super::harness::{Harness, OperatorProcess};

/// Runs `healthcheck` and returns exit code and output.
async fn check(directory: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let arguments: Vec<&str> = ["healthcheck"].iter().chain(arguments).copied().collect();
    let mut process = OperatorProcess::start(directory, "healthcheck", &BTreeMap::new(), &arguments);
    (process.code().await, format!("{}{}", process.stdout(), process.stderr()))
}

fn address_of(line: &Value) -> String {
    line["address"].as_str().unwrap().to_owned()
}

/// A free loopback address.
fn free() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

#[tokio::test]
async fn healthcheck_reports_running_and_missing_operator() {
    let harness = Harness::start().await;
    harness.manifest("all.yaml", &harness.base_manifests());
    let mut operator = harness.operator(&["--metrics-address", "127.0.0.1:0"]);
    let address = address_of(&operator.line(&[("level", "INFO"), ("address", "")]).await);
    operator.wait_for_sweep(true).await;
    let directory = harness.directory.path();
    let (code, output) = check(directory, &["--metrics-address", &address]).await;
    assert_eq!((code, output.lines().count()), (Some(0), 1), "{output}");
    assert!(output.ends_with(": ok\n"), "{output}");
    let (code, output) = check(directory, &["--metrics-address", &address, "--ready"]).await;
    assert_eq!(code, Some(0), "{output}");
    operator.signal("TERM");
    assert_eq!(operator.code().await, Some(0));
    let (code, output) = check(directory, &["--metrics-address", &address]).await;
    assert_eq!((code, output.lines().count()), (Some(1), 1), "{output}");
    assert!(output.starts_with("error: ") && output.contains(&address), "{output}");
    let (code, output) = check(directory, &["--metrics-address", "none"]).await;
    assert!(code == Some(1) && output.contains("--metrics-address"), "{output}");
}

#[tokio::test]
async fn outage_keeps_healthz_ok_and_delays_readyz() {
    let harness = Harness::start().await;
    harness.manifest("all.yaml", &harness.base_manifests());
    let mut environment = harness.environment.clone();
    // The AWS endpoint refuses connections, so that lists and queue fail.
    environment.insert("AWS_ENDPOINT_URL".to_owned(), format!("http://{}", free()));
    let queue = harness.variable("ECS_MESH_QUEUE_URL").to_owned();
    let more = ["--metrics-address", "127.0.0.1:0", "--queue-url", &queue];
    let operator = harness.operator_with("operator", &environment, &more);
    let address = address_of(&operator.line(&[("level", "INFO"), ("address", "")]).await);
    operator.wait_for_sweep(false).await;
    let directory = harness.directory.path();
    let (code, output) = check(directory, &["--metrics-address", &address]).await;
    assert_eq!(code, Some(0), "{output}");
    let (code, output) = check(directory, &["--metrics-address", &address, "--ready"]).await;
    // One condition for all clusters of the account and Region.
    assert!(code == Some(1) && output.contains("account 111122223333 in eu-west-1"), "{output}");
}

#[tokio::test]
async fn metrics_port_in_use_does_not_stop_the_operator() {
    let harness = Harness::start().await;
    harness.manifest("all.yaml", &harness.base_manifests());
    harness.deploy("app", 2).await;
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let operator = harness.operator(&["--metrics-address", &address]);
    operator.line(&[("level", "ERROR"), ("address", &address), ("help", "--metrics-address")]).await;
    harness.wait_for_dataplanes("both tasks are registered all the same", |all| all.len() == 2).await;
    drop(taken);
    operator.line(&[("level", "INFO"), ("address", &address)]).await;
}
