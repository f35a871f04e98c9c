//! The last ready Dataplanes of a service stay in load balancing until replacements are ready.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ecs_mesh_sandbox::aws::{CloudConfig, LifeTimes};
use ecs_mesh_sandbox::endpoints::{EndpointOptions, Endpoints};
use serde_json::Value;

use super::harness::{Harness, eventually};
use super::servers::now;

/// Names of the Dataplanes that are drained.
fn drained(all: &BTreeMap<String, Value>) -> BTreeSet<String> {
    let drained = all.iter().filter(|(_, body)| body["labels"]["ecs-mesh.dev/drain"] == "stopping");
    drained.map(|(name, _)| name.clone()).collect()
}

/// Connects the sidecars of these tasks, whose apps answer.
async fn connect(harness: &Harness, endpoints: &Endpoints, tasks: &[String]) {
    let all = harness
        .wait_for_dataplanes("they are registered", |all| tasks.iter().all(|task| all.contains_key(task)));
    let all = all.await;
    let mut kuma = endpoints.kuma.lock().unwrap();
    for task in tasks {
        let address = all[task]["networking"]["address"].as_str().unwrap();
        assert!(kuma.connect_sidecar("default", task, address, now()));
        kuma.set_app_up("default", task, 8080, true, now());
    }
}

#[tokio::test]
async fn tasks_stopped_together_are_drained_once_replacements_are_ready() {
    // Tasks serve for an hour after they were told to stop.
    let life = LifeTimes { draining: Duration::from_hours(1), ..LifeTimes::default() };
    let cloud = CloudConfig { life, accept_aws_sources: true, ..CloudConfig::default() };
    let endpoints = Endpoints::start(EndpointOptions { cloud, ..EndpointOptions::default() }).await.unwrap();
    let harness = Harness::with_endpoints(endpoints.environment());
    harness.manifest("all.yaml", &harness.base_manifests());
    harness.deploy("app", 3).await;
    let old = harness.running(3).await;
    let operator = harness.operator(&["--metrics-address", "127.0.0.1:0"]);
    let listens = operator.line(&[("level", "INFO"), ("address", "")]).await;
    connect(&harness, &endpoints, &old).await;
    let ready = |tasks: Vec<String>| {
        move |all: &BTreeMap<String, Value>| {
            tasks.iter().all(|task| all[task]["networking"]["inbound"][0]["health"]["ready"] == true)
        }
    };
    harness.wait_for_dataplanes("health discovery finds the apps", ready(old.clone())).await;

    for task in &old {
        harness.ecs().stop_task().cluster("sandbox").task(task).send().await.unwrap();
    }
    let url = format!("http://{}/metrics", listens["address"].as_str().unwrap());
    let held = || async {
        let metrics = harness.http.get(&url).send().await.unwrap().text().await.unwrap();
        let value = metrics
            .lines()
            .find_map(|line| line.strip_prefix("ecs_mesh_held_drains{control_plane=\"kuma\"} "));
        value.unwrap().parse::<usize>().unwrap()
    };
    // Two of three must stay. One may go, if the operator learned of its stop first.
    eventually("each drain is made or held", || async {
        (held().await + drained(&harness.dataplanes().await).len() == 3).then_some(())
    })
    .await;
    let before = harness.dataplanes().await;
    assert!(drained(&before).len() <= 1, "{before:#?}");
    operator.line(&[("level", "INFO"), ("task", ""), ("ready", ""), ("needed", "2")]).await;

    // The replacements are registered, and not ready before their sidecars are.
    let new: Vec<String> = harness.running(3).await.into_iter().filter(|task| !old.contains(task)).collect();
    assert_eq!(new.len(), 3);
    connect(&harness, &endpoints, &new).await;
    harness
        .wait_for_dataplanes("all old ones are drained", |all| drained(all) == old.iter().cloned().collect())
        .await;
    eventually("nothing is held", || async { (held().await == 0).then_some(()) }).await;
    let after = harness.dataplanes().await;
    assert!(ready(new)(&after), "{after:#?}");
}
