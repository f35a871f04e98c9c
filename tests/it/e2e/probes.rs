//! Probe endpoints and `healthcheck`, as used by ECS.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::Path;

use serde_json::Value;

use super::harness::{Harness, OperatorProcess, eventually};
use crate::lease::create_table;

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

/// The flags of a lease in the sandbox's table, with the shortest times.
const LEASE: [&str; 8] = [
    "--lease",
    "dynamodb:leases",
    "--lease-duration",
    "10s",
    "--lease-renew-deadline",
    "6s",
    "--lease-retry-period",
    "500ms",
];

#[tokio::test]
async fn started_check_fails_for_a_standby_that_cannot_read() {
    let harness = Harness::start().await;
    harness.manifest("all.yaml", &harness.base_manifests());
    create_table(harness.variable("AWS_ENDPOINT_URL")).await;
    let start = |name: &str, environment: &BTreeMap<String, String>| {
        harness.operator_with(
            name,
            environment,
            &[&LEASE[..], &["--metrics-address", "127.0.0.1:0"]].concat(),
        )
    };
    let directory = harness.directory.path();
    let mut leader = start("leader", &harness.environment);
    leader.line(&[("message", "acquired the lease; this copy leads")]).await;

    // Only the lease's store can be reached.
    let mut environment = harness.environment.clone();
    let store = environment.insert("AWS_ENDPOINT_URL".to_owned(), format!("http://{}", free())).unwrap();
    environment.insert("AWS_ENDPOINT_URL_DYNAMODB".to_owned(), store);
    let blind = start("blind", &environment);
    let standing_by = [("message", "another copy leads; standing by")];
    blind.line(&standing_by).await;
    blind.wait_for_sweep(false).await;
    let blind_address =
        address_of(&blind.line(&[("level", "INFO"), ("address", ""), ("server", "metrics")]).await);
    let is_started = ["--metrics-address", &blind_address, "--started"];
    let (code, output) = check(directory, &is_started).await;
    assert!(code == Some(1) && output.contains("account 111122223333 in eu-west-1"), "{output}");
    let (code, output) = check(directory, &is_started[..2]).await;
    assert_eq!(code, Some(0), "it is alive: {output}");

    let mut sound = start("sound", &harness.environment);
    sound.line(&standing_by).await;
    let address = address_of(&sound.line(&[("level", "INFO"), ("address", ""), ("server", "metrics")]).await);
    eventually("a standby that reads everything has started", || async {
        (check(directory, &["--metrics-address", &address, "--started"]).await.0 == Some(0)).then_some(())
    })
    .await;

    // Without another copy, it leads, and a restart would help nothing.
    for copy in [&mut leader, &mut sound] {
        copy.signal("TERM");
        assert_eq!(copy.code().await, Some(0));
    }
    blind.line(&[("message", "acquired the lease; this copy leads")]).await;
    let (code, output) = check(directory, &is_started).await;
    assert_eq!(code, Some(0), "{output}");
}
