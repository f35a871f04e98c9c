//! Graceful shutdown: reconciles in flight finish, and the deadline bounds the wait.

use std::time::Duration;

use ecs_mesh_sandbox::kuma::KumaConfig;

use super::harness::{Harness, binding, control_plane, eventually, workload};
use super::servers::TestKuma;

#[tokio::test]
async fn shutdown_finishes_reconciles_in_flight() {
    let harness = Harness::start().await;
    let kuma = TestKuma::start(KumaConfig::default(), Duration::from_secs(3)).await;
    let manifests = [
        control_plane("slow", &kuma.server.url, ""),
        binding("harness", "slow", harness.variable("ECS_MESH_CLUSTER_ARN"), ""),
        workload("app", "app"),
    ];
    harness.manifest("all.yaml", &manifests.concat());
    let queue = harness.variable("ECS_MESH_QUEUE_URL").to_owned();
    let mut operator = harness.operator(&["--queue-url", &queue]);
    harness.deploy("app", 1).await;
    eventually("a write that has begun", || async { (kuma.writes() == 1).then_some(()) }).await;
    assert_eq!(kuma.dataplanes(), 0);
    operator.signal("TERM");
    assert_eq!(operator.code().await, Some(0));
    assert_eq!(kuma.dataplanes(), 1);
    let stopped = operator.line(&[("completed", ""), ("cancelled", "")]).await;
    assert_eq!((&stopped["completed"], &stopped["cancelled"]), (&1.into(), &0.into()), "{stopped}");
}

#[tokio::test]
async fn shutdown_ends_at_the_deadline() {
    let harness = Harness::start().await;
    let kuma = TestKuma::start(KumaConfig::default(), Duration::from_hours(1)).await;
    let manifests = [
        control_plane("slow", &kuma.server.url, ", timeout: 2m"),
        binding("harness", "slow", harness.variable("ECS_MESH_CLUSTER_ARN"), ""),
        workload("app", "app"),
    ];
    harness.manifest("all.yaml", &manifests.concat());
    let queue = harness.variable("ECS_MESH_QUEUE_URL").to_owned();
    let mut operator = harness.operator(&["--queue-url", &queue, "--graceful-shutdown-timeout", "1s"]);
    harness.deploy("app", 1).await;
    eventually("a write that has begun", || async { (kuma.writes() == 1).then_some(()) }).await;
    operator.signal("INT");
    assert_eq!(operator.code().await, Some(0));
    let stopped = operator.line(&[("completed", ""), ("cancelled", "")]).await;
    assert_eq!((&stopped["completed"], &stopped["cancelled"]), (&0.into(), &1.into()), "{stopped}");
}
