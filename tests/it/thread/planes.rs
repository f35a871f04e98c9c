//! Control planes that cannot be used: each is told of once, in words that say what to do, is not asked again and
//! again, and holds up nobody else.

use std::time::Duration;

use ecs_mesh_operator::sandbox::kuma::KumaConfig;

use super::house::{House, Process, binding, control_plane, workload};
use super::servers::{Kuma, Server, absent, self_signed, silent, unknown, website};

/// Three tasks, two sweeps and every first retry come to about twenty calls; a loop comes to thousands.
const MOST_CALLS: usize = 60;
/// A sweep, three tasks that fail at different steps, the circuit: not one a retry.
const MOST_LINES: usize = 4;

/// Has an operator keep three tasks at a broken control plane, and one at a good one.
async fn beside_a_good_one(broken: &Server, more: &str, mesh: &str) -> (House, Process) {
    let house = House::open().await;
    let other = house.ecs().create_cluster().cluster_name("other").send().await.unwrap();
    let other = other.cluster.unwrap().cluster_arn.unwrap();
    let at_other =
        binding("at-broken", "broken", &other, "").replace("mesh: default", &format!("mesh: {mesh}"));
    let manifests =
        [house.usual(), control_plane("broken", &broken.url, more), at_other, workload("lost", "lost")];
    house.manifest("all.yaml", &manifests.concat());
    house.role("lost").await;
    house.define("lost").await;
    let lost = house.iam().tag_role().role_name("lost-task");
    lost.tags(super::house::tag("kuma.io/mesh", mesh)).send().await.unwrap();
    let queue = house.variable("ECS_MESH_QUEUE_URL").to_owned();
    let operator = house.operator(&["--queue-url", &queue]);
    house.serve("other", "lost", 3).await;
    house.deploy("app", 1).await;
    house.dataplanes_once("the Dataplane at the good control plane", |found| found.len() == 1).await;
    (house, operator)
}

/// The broken one is told of with these words, not often, and not called often.
async fn assert_told_once(operator: &mut Process, broken: &Server, words: &[&str]) {
    operator.says(words).await;
    // Sweeps come after each other, so that at the third one there were retries enough.
    super::house::eventually("three sweeps", || async {
        (operator.said(&["\"swept\""]).len() >= 3).then_some(())
    })
    .await;
    assert!(operator.is_running());
    assert!(broken.calls() <= MOST_CALLS, "{} calls", broken.calls());
    let told: Vec<String> = operator
        .log()
        .iter()
        .filter(|line| line["level"] == "WARN" || line["level"] == "ERROR")
        .map(ToString::to_string)
        .collect();
    assert!(told.len() <= MOST_LINES, "{} lines:\n{}", told.len(), told.join("\n"));
    assert!(told.iter().all(|line| !line.contains("Failed(MeshError")), "{told:?}");
}

#[tokio::test]
async fn nobody_listens() {
    let broken = absent();
    let (_house, mut operator) = beside_a_good_one(&broken, "", "default").await;
    assert_told_once(
        &mut operator,
        &broken,
        &["\"broken\"", "is not reached", "ControlPlane.spec.kuma.address"],
    )
    .await;
}

#[tokio::test]
async fn the_name_does_not_exist() {
    let broken = unknown();
    let (_house, mut operator) = beside_a_good_one(&broken, "", "default").await;
    assert_told_once(
        &mut operator,
        &broken,
        &["\"broken\"", "kuma.invalid", "ControlPlane.spec.kuma.address"],
    )
    .await;
}

#[tokio::test]
async fn the_address_is_no_control_plane() {
    let broken = website().await;
    let (_house, mut operator) = beside_a_good_one(&broken, "", "default").await;
    assert_told_once(&mut operator, &broken, &["\"broken\"", "HTML", "check"]).await;
}

#[tokio::test]
async fn the_certificate_is_signed_by_nobody_known() {
    let broken = self_signed();
    let (_house, mut operator) = beside_a_good_one(&broken, "", "default").await;
    assert_told_once(&mut operator, &broken, &["\"broken\"", "TLS", "ControlPlane.spec.kuma.caFile"]).await;
}

#[tokio::test]
async fn the_token_is_not_accepted() {
    let config = KumaConfig {
        localhost_is_admin: false,
        admin_token: Some("the-right-one".to_owned()),
        ..KumaConfig::default()
    };
    let kuma = Kuma::start(config, Duration::ZERO).await;
    let token = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(token.path(), "planted-wrong-token").unwrap();
    let more = format!(", tokenFile: \"{}\"", token.path().display());
    let (_house, mut operator) = beside_a_good_one(&kuma.server, &more, "default").await;
    assert_told_once(&mut operator, &kuma.server, &["\"broken\"", "401", "tokenFile"]).await;
    assert!(!operator.stderr().contains("planted-wrong-token"));
}

#[tokio::test]
async fn the_mesh_does_not_exist() {
    let kuma = Kuma::start(KumaConfig::default(), Duration::ZERO).await;
    let (_house, mut operator) = beside_a_good_one(&kuma.server, "", "nowhere").await;
    assert_told_once(&mut operator, &kuma.server, &["\"broken\"", "nowhere", "MeshBinding.spec.mesh"]).await;
}

#[tokio::test]
async fn the_control_plane_is_read_only() {
    let kuma = Kuma::start(KumaConfig { read_only: true, ..KumaConfig::default() }, Duration::ZERO).await;
    let (_house, mut operator) = beside_a_good_one(&kuma.server, "", "default").await;
    assert_told_once(&mut operator, &kuma.server, &["\"broken\"", "405", "ControlPlane.spec.kuma.address"])
        .await;
    assert_eq!(kuma.dataplanes(), 0);
}

#[tokio::test]
async fn a_control_plane_that_hangs_holds_up_nobody_else() {
    let broken = silent().await;
    // Longer than anybody waits here: whoever waits for it is never done.
    let (house, mut operator) = beside_a_good_one(&broken, ", timeout: 2m", "default").await;
    house.scale("app", 3).await;
    house.dataplanes_once("more Dataplanes while it hangs", |found| found.len() == 3).await;
    house.scale("app", 0).await;
    house.dataplanes_once("removals while it hangs", |found| found.is_empty()).await;
    assert!(operator.said(&["broken", "no whole answer"]).is_empty(), "it has hung all the time");
    assert!(operator.is_running());
    assert!(broken.calls() <= MOST_CALLS, "{} calls", broken.calls());
    operator.signal("TERM");
    assert_eq!(operator.code().await, Some(0));
}
