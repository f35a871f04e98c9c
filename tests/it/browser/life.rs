//! The page of a real operator in the sandbox.

use std::time::Duration;

use aws_sdk_ecs::types::{ContainerDefinition, NetworkMode};
use ecs_mesh_sandbox::aws::{CloudConfig, LifeTimes};
use ecs_mesh_sandbox::endpoints::{EndpointOptions, Endpoints};

use super::driver::Browser;
use super::fixed::HOSTILE;
use crate::e2e::harness::{Harness, control_plane, document, workload};

#[tokio::test(flavor = "multi_thread")]
async fn page_follows_the_life_of_tasks() {
    let Some(mut browser) = Browser::start("the page of an operator in the sandbox") else { return };
    // A task that ECS stops keeps running until the test ends it.
    let life = LifeTimes { draining: Duration::from_hours(1), ..LifeTimes::default() };
    let cloud = CloudConfig { life, accept_aws_sources: true, ..CloudConfig::default() };
    let endpoints = Endpoints::start(EndpointOptions { cloud, ..EndpointOptions::default() }).await.unwrap();
    let harness = Harness::with_endpoints(endpoints.environment());
    let cluster = harness.variable("ECS_MESH_CLUSTER_ARN");
    let binding = format!(
        "{{controlPlane: kuma, mesh: default, selector: {{clusters: [\"{cluster}\"]}}, \
         cleanup: {{sweepInterval: 10s, graceAge: 20s, drain: 1s, settle: 1s}}}}"
    );
    let base = [
        control_plane("kuma", harness.variable("KUMA_API_URL"), ""),
        document("MeshBinding", "harness", &binding),
        workload("app", "app"),
        workload("bare", "bare"),
    ];
    harness.manifest("base.yaml", &base.concat());
    let environment = harness.environment.clone();
    let operator = harness.operator_with("operator", &environment, &["--api-address", "127.0.0.1:0"]);
    let line = operator.line(&[("level", "INFO"), ("server", "api"), ("address", "127.0.0.1:")]).await;
    browser.open(&format!("http://{}/#/tasks", line["address"].as_str().unwrap()));
    browser.expect_text(".shown", "0 tasks");

    // Created.
    harness.deploy("app", 3).await;
    let before = harness.running(3).await;
    browser.expect_count(".tbody .tr:has-text(\"Registered\")", 3);
    for id in &before {
        browser.expect(&format!(".tbody .tr:has-text(\"{id}\")"));
    }
    // Rejected: the role has no tags.
    harness.define("bare").await;
    harness.role_with("bare", &[]).await;
    harness.serve("sandbox", "bare", 1).await;
    browser.expect_count(".tbody .tr:has-text(\"Rejected\")", 1);
    browser.go("#/warnings");
    browser.expect_text(".warning-card", "bare");
    browser.go("#/services");
    // No sidecar of this world connects.
    browser.expect_text(".tbody .tr:has-text(\"app\")", "0/3");

    // Drained, then removed.
    browser.go("#/tasks?q=app");
    browser.expect_count(".tbody .tr", 3);
    harness.scale("app", 2).await;
    browser.expect_count(".tbody .tr:has-text(\"Drained\")", 1);
    browser.expect_count(".tbody .tr:has-text(\"Registered\")", 2);
    let after = harness.running(3).await;
    let gone = before.iter().find(|id| !after.contains(id)).unwrap();
    browser.expect(&format!(".tbody .tr:has-text(\"Drained\"):has-text(\"{gone}\")"));
    let task = cluster.replace(":cluster/", ":task/") + "/" + gone;
    assert!(endpoints.front.with(|cloud, now| cloud.kill_hard(&task, now)));
    // ECS shows a stopped task for an hour, and its registration is gone.
    browser.expect_count(".tbody .tr:has-text(\"Stopped\")", 1);
    browser.expect(".tbody .tr:has-text(\"Stopped\"):has-text(\"none\")");
    browser.go(&format!("#/changes?q={gone}"));
    let kinds =
        [".change:has-text(\"create\")", ".change:has-text(\"drain\")", ".change:has-text(\"remove\")"];
    kinds.iter().for_each(|kind| browser.expect(kind));
    browser.finish();
}

/// A team writes markup where the operator quotes it: into docker labels of its task definition.
#[tokio::test(flavor = "multi_thread")]
async fn docker_labels_are_shown_as_text() {
    let Some(mut browser) = Browser::start("docker labels in the page of an operator in the sandbox") else {
        return;
    };
    let harness = Harness::start().await;
    let cluster = harness.variable("ECS_MESH_CLUSTER_ARN");
    let binding = format!(
        "{{controlPlane: kuma, mesh: default, selector: {{clusters: [\"{cluster}\"]}}, discovery: tags, \
         claims: [{{rolePath: \"/*\", services: [\"*\"]}}]}}"
    );
    let base = [
        control_plane("kuma", harness.variable("KUMA_API_URL"), ""),
        document("MeshBinding", "harness", &binding),
    ];
    harness.manifest("base.yaml", &base.concat());
    harness.role("app").await;
    let app = ContainerDefinition::builder().name("app").image("app:1").memory(128);
    let app = app
        .docker_labels("ecs-mesh.dev/service", HOSTILE)
        .docker_labels("ecs-mesh.dev/inbound.1.port", HOSTILE)
        .docker_labels(format!("ecs-mesh.dev/{HOSTILE}"), "1")
        .build();
    let definition = harness.ecs().register_task_definition().family("app").network_mode(NetworkMode::Awsvpc);
    let role = "arn:aws:iam::111122223333:role/app-task";
    definition.task_role_arn(role).container_definitions(app).send().await.unwrap();
    harness.serve("sandbox", "app", 1).await;
    let environment = harness.environment.clone();
    let operator = harness.operator_with("operator", &environment, &["--api-address", "127.0.0.1:0"]);
    let line = operator.line(&[("level", "INFO"), ("server", "api"), ("address", "127.0.0.1:")]).await;
    let [task] = &harness.running(1).await[..] else { panic!("one task runs") };
    browser.open(&format!("http://{}/", line["address"].as_str().unwrap()));
    for (fragment, selector) in [("#/warnings", ".warning-card"), (&format!("#/tasks/{task}"), "main")] {
        browser.go(fragment);
        browser.expect_text(selector, "onerror=");
        assert_eq!(browser.run("document.querySelectorAll('img').length"), 0, "{fragment}");
    }
    assert!(!browser.run("document.title").as_str().unwrap().starts_with("hit"));
    browser.finish();
}
