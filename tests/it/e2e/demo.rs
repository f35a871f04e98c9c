//! The command `sandbox`, run by a person or a script.

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
    for name in ["tasks", "dataplanes", "violations", "latencyMs", "awsCalls", "controlPlaneWrites"] {
        assert!(summary.get(name).is_some(), "{name} is not among {:?}", keys(&summary));
    }
    assert_numbers(&summary["tasks"], &["started", "stopped"]);
    assert_numbers(&summary["dataplanes"], &["created", "updated", "drained", "removed", "rejected"]);
    assert_numbers(&summary["latencyMs"]["eventToWrite"], &["p50", "p99", "count"]);
    assert_numbers(&summary, &["controlPlaneWrites"]);
    let invariants = ["I1", "I10", "I11", "I2", "I3", "I4", "I5", "I6", "I7", "I8", "I9"];
    assert_eq!(keys(&summary["violations"]), invariants);
    assert!(invariants.iter().all(|name| summary["violations"][name] == 0), "{summary}");
    assert!(summary["tasks"]["started"].as_u64() >= Some(8), "{summary}");
    assert!(summary["dataplanes"]["created"].as_u64() >= Some(8), "{summary}");
    assert!(summary["controlPlaneWrites"].as_u64() >= Some(8), "{summary}");
    assert!(summary["writingProcesses"].as_u64() >= Some(1), "{summary}");
    assert!(!keys(&summary["awsCalls"]).is_empty(), "{summary}");
}

/// The status of each check.
fn statuses(line: &str) -> BTreeMap<String, String> {
    let summary: Value = serde_json::from_str(line).unwrap();
    let checks = summary["checks"].as_object().unwrap();
    checks.iter().map(|(name, check)| (name.clone(), check["status"].as_str().unwrap().to_owned())).collect()
}

/// The checks of a demo beside Kuma alone, with their statuses.
fn expected(skipped: &[&str]) -> BTreeMap<String, String> {
    let status = |name: &str| if skipped.contains(&name) { "skipped" } else { "passed" };
    ["bindOutbounds", "exclusiveMesh", "hostMode", "upgrade", "zoneProxies"]
        .map(|name| (name.to_owned(), status(name).to_owned()))
        .into()
}

#[tokio::test]
async fn demo_ends_with_a_json_summary() {
    let directory = TempDir::new().unwrap();
    let arguments = ["sandbox", "--duration", "6s", "--tasks", "8", "--seed", "3", "--output", "json"];
    let mut demo = OperatorProcess::start(directory.path(), "demo", &BTreeMap::new(), &arguments);
    let code = demo.code().await;
    let out = demo.stdout();
    assert_eq!(code, Some(0), "{out}\n{}", demo.stderr());
    assert_summary(out.lines().last().unwrap());
    assert_eq!(statuses(out.lines().last().unwrap()), expected(&[]));
}

/// The leader is killed, and another replica must lead and write, for the demo to succeed.
#[tokio::test]
async fn demo_of_two_replicas_shows_a_takeover() {
    let directory = TempDir::new().unwrap();
    let arguments = [
        "sandbox",
        "--replicas",
        "2",
        "--duration",
        "12s",
        "--tasks",
        "8",
        "--seed",
        "3",
        "--output",
        "json",
    ];
    let mut demo = OperatorProcess::start(directory.path(), "demo", &BTreeMap::new(), &arguments);
    let code = demo.code().await;
    let out = demo.stdout();
    assert_eq!(code, Some(0), "{out}\n{}", demo.stderr());
    let line = out.lines().last().unwrap();
    assert_summary(line);
    let mut with_takeover = expected(&[]);
    with_takeover.insert("takeover".to_owned(), "passed".to_owned());
    assert_eq!(statuses(line), with_takeover, "{line}");
    let summary: Value = serde_json::from_str(line).unwrap();
    assert_eq!(summary["writingProcesses"], 2, "{line}");
}

#[tokio::test]
async fn demo_does_what_its_version_has() {
    let directory = TempDir::new().unwrap();
    let start = |version: &str, more: &[&str]| {
        let mut arguments =
            vec!["sandbox", "--duration", "4s", "--tasks", "8", "--output", "json", "--kuma", version];
        arguments.extend(more);
        let name = format!("demo-{version}{}", more.len());
        OperatorProcess::start(directory.path(), &name, &BTreeMap::new(), &arguments)
    };
    let mut demos = [
        (start("2.9", &[]), vec![]),
        (start("2.7", &["--upgrade-to", "none"]), vec!["exclusiveMesh", "bindOutbounds", "upgrade"]),
        (start("3.0", &[]), vec!["exclusiveMesh", "upgrade"]),
    ];
    for (demo, skipped) in &mut demos {
        assert_eq!(demo.code().await, Some(0), "{}\n{}", demo.stdout(), demo.stderr());
        let out = demo.stdout();
        assert_eq!(statuses(out.lines().last().unwrap()), expected(skipped), "{out}");
    }
}

#[tokio::test]
async fn upgrade_that_the_version_does_not_allow_is_refused() {
    let directory = TempDir::new().unwrap();
    for (number, (arguments, message)) in [
        (["--kuma", "2.9", "--upgrade-to", "3.0"], "needs --kuma 2.14"),
        (["--kuma", "3.0", "--upgrade-to", "2.14"], "is no upgrade of --kuma 3.0"),
        (["--world", "none", "--upgrade-to", "3.0"], "needs --world demo"),
    ]
    .into_iter()
    .enumerate()
    {
        let arguments: Vec<&str> = std::iter::once("sandbox").chain(arguments).collect();
        let name = format!("demo-{number}");
        let mut demo = OperatorProcess::start(directory.path(), &name, &BTreeMap::new(), &arguments);
        assert_eq!(demo.code().await, Some(1));
        assert!(demo.stderr().contains(message), "{}", demo.stderr());
    }
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
    let mut demo = OperatorProcess::start(directory.path(), "demo", &BTreeMap::new(), &arguments);
    let code = demo.code().await;
    let out = demo.stdout();
    assert_eq!(code, Some(0), "{out}\n{}", demo.stderr());
    assert_summary(out.lines().last().unwrap());
    let summary: Value = serde_json::from_str(out.lines().last().unwrap()).unwrap();
    let consul = &summary["consul"];
    assert!(consul["logins"].as_u64() >= Some(8), "{summary}");
    assert!(consul["crashes"].as_u64() >= Some(1), "{summary}");
    // The unknown task of the fixtures adds a service token and a client token.
    assert_eq!(
        consul["tokensRemoved"].as_u64(),
        consul["crashes"].as_u64().map(|crashes| crashes + 2),
        "{summary}"
    );
    assert!(!demo.stderr().contains("panicked"), "{}", demo.stderr());
}

#[tokio::test]
async fn ctrl_c_ends_the_demo_cleanly() {
    let directory = TempDir::new().unwrap();
    let arguments = ["sandbox", "--duration", "1h", "--tasks", "5"];
    let mut demo = OperatorProcess::start(directory.path(), "demo", &BTreeMap::new(), &arguments);
    eventually("the first registrations", || async { demo.stdout().contains("creates").then_some(()) }).await;
    demo.signal("INT");
    assert_eq!(demo.code().await, Some(0), "{}\n{}", demo.stdout(), demo.stderr());
    let out = demo.stdout();
    assert!(out.contains("interrupted after") && out.contains("I1 no leak"), "{out}");
    assert!(!demo.stderr().contains("panicked"), "{}", demo.stderr());
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
