//! The sandbox's show, as a person or a script runs it.

use std::collections::BTreeMap;

use serde_json::Value;
use tempfile::TempDir;

use super::harness::{OperatorProcess, eventually};

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

fn assert_numbers(value: &Value, names: &[&str]) {
    for name in names {
        assert!(value[name].is_number(), "{name} in {value}");
    }
}

fn assert_summary(line: &str) {
    let summary: Value = serde_json::from_str(line).unwrap();
    for name in ["tasks", "dataplanes", "violations", "latency_ms", "aws_calls", "cp_writes"] {
        assert!(summary.get(name).is_some(), "{name} is not among {:?}", keys(&summary));
    }
    assert_numbers(&summary["tasks"], &["started", "stopped"]);
    assert_numbers(&summary["dataplanes"], &["created", "updated", "drained", "removed", "rejected"]);
    assert_numbers(&summary["latency_ms"]["event_to_write"], &["p50", "p99", "count"]);
    assert_numbers(&summary, &["cp_writes"]);
    let invariants = ["I1", "I2", "I3", "I4", "I5", "I6", "I7", "I8", "I9"];
    assert_eq!(keys(&summary["violations"]), invariants);
    assert!(invariants.iter().all(|name| summary["violations"][name] == 0), "{summary}");
    assert!(summary["tasks"]["started"].as_u64() >= Some(8), "{summary}");
    assert!(summary["dataplanes"]["created"].as_u64() >= Some(8), "{summary}");
    assert!(summary["cp_writes"].as_u64() >= Some(8), "{summary}");
    assert!(!keys(&summary["aws_calls"]).is_empty(), "{summary}");
}

#[tokio::test]
async fn demo_ends_with_a_json_summary() {
    let directory = TempDir::new().unwrap();
    let arguments = ["sandbox", "--duration", "6s", "--tasks", "8", "--seed", "3", "--output", "json"];
    let mut show = OperatorProcess::start(directory.path(), "show", &BTreeMap::new(), &arguments);
    let code = show.code().await;
    let out = show.stdout();
    assert_eq!(code, Some(0), "{out}\n{}", show.stderr());
    assert_summary(out.lines().last().unwrap());
}

#[tokio::test]
async fn consul_demo_cleans_up_and_keeps_invariants() {
    let directory = TempDir::new().unwrap();
    let arguments = [
        "sandbox",
        "--control-plane",
        "both",
        "--duration",
        "12s",
        "--tasks",
        "8",
        "--seed",
        "7",
        "--output",
        "json",
    ];
    let mut show = OperatorProcess::start(directory.path(), "show", &BTreeMap::new(), &arguments);
    let code = show.code().await;
    let out = show.stdout();
    assert_eq!(code, Some(0), "{out}\n{}", show.stderr());
    assert_summary(out.lines().last().unwrap());
    let summary: Value = serde_json::from_str(out.lines().last().unwrap()).unwrap();
    let consul = &summary["consul"];
    assert!(consul["logins"].as_u64() >= Some(8), "{summary}");
    assert!(consul["left_behind"].as_u64() >= Some(1), "{summary}");
    // What two tasks left that ECS has forgotten, too: one's token of a service, and one's of a client.
    assert_eq!(
        consul["tokens_removed"].as_u64(),
        consul["left_behind"].as_u64().map(|dead| dead + 2),
        "{summary}"
    );
    assert!(!show.stderr().contains("panicked"), "{}", show.stderr());
}

#[tokio::test]
async fn control_c_ends_a_show_cleanly() {
    let directory = TempDir::new().unwrap();
    let arguments = ["sandbox", "--duration", "1h", "--tasks", "5"];
    let mut show = OperatorProcess::start(directory.path(), "show", &BTreeMap::new(), &arguments);
    eventually("the first registrations", || async { show.stdout().contains("creates").then_some(()) }).await;
    show.signal("INT");
    assert_eq!(show.code().await, Some(0), "{}\n{}", show.stdout(), show.stderr());
    let out = show.stdout();
    assert!(out.contains("interrupted after") && out.contains("I1 no leak"), "{out}");
    assert!(!show.stderr().contains("panicked"), "{}", show.stderr());
}

#[tokio::test]
async fn ctrl_c_stops_served_endpoints_cleanly() {
    let directory = TempDir::new().unwrap();
    let mut sandbox = OperatorProcess::start(
        directory.path(),
        "sandbox",
        &BTreeMap::new(),
        &["sandbox", "--serve", "--tasks", "5"],
    );
    let ready = || async { sandbox.stdout().lines().any(|line| line == "ready").then_some(()) };
    eventually("the line `ready`", ready).await;
    let names: Vec<String> = sandbox
        .stdout()
        .lines()
        .filter_map(|line| Some(line.strip_prefix("export ")?.split_once('=')?.0.to_owned()))
        .collect();
    let mut expected = [
        "AWS_ENDPOINT_URL",
        "AWS_REGION",
        "AWS_DEFAULT_REGION",
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "KUMA_API_URL",
        "ECS_MESH_QUEUE_URL",
        "ECS_MESH_CLUSTER_ARN",
    ];
    expected.sort_unstable();
    let mut sorted = names.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, expected);
    sandbox.signal("INT");
    assert_eq!(sandbox.code().await, Some(0), "{}", sandbox.stderr());
    let left: Vec<_> =
        std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "its output alone: {left:?}");
}
