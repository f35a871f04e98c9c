//! Manifests that are missing, wrong, or at odds with each other, as the process meets them.

use super::harness::{Harness, binding, document, workload};

/// What a start with just this manifest comes to: the exit code and standard error.
async fn start_with(text: &str) -> (Option<i32>, String) {
    let house = Harness::open().await;
    house.manifest("all.yaml", text);
    let mut operator = house.operator(&[]);
    (operator.code().await, operator.stderr())
}

#[tokio::test]
async fn a_start_with_an_empty_directory_is_refused_with_what_to_do() {
    let house = Harness::open().await;
    let mut operator = house.operator(&[]);
    assert_eq!(operator.code().await, Some(1));
    let words = operator.stderr();
    for part in ["error: ", "*.yaml"] {
        assert!(words.contains(part), "{words}");
    }
}

#[tokio::test]
async fn empty_manifests_at_start_are_loaded_later() {
    let house = Harness::open().await;
    house.manifest("all.yaml", "# nothing yet\n");
    let queue = house.variable("ECS_MESH_QUEUE_URL").to_owned();
    let operator = house.operator(&["--queue-url", &queue]);
    operator.line(&[("level", "WARN"), ("paths", "")]).await;
    house.deploy("app", 1).await;
    house.manifest("all.yaml", &house.usual());
    house.dataplanes_once("a Dataplane by the new manifests", |found| found.len() == 1).await;
}

#[tokio::test]
async fn a_start_with_nothing_valid_is_refused_with_the_place() {
    let text = workload("app", "app").replace("containerPort", "contianerPort");
    let (code, words) = start_with(&text).await;
    assert_eq!(code, Some(1));
    for part in ["all.yaml:4", "Workload/app", "spec.inbounds[0].contianerPort", "containerPort"]
    {
        assert!(words.contains(part), "{words}");
    }
}

#[tokio::test]
async fn an_unknown_kind_is_refused_with_the_known_ones() {
    let (code, words) = start_with(&document("Worklaod", "app", "{}")).await;
    assert_eq!(code, Some(1));
    for part in ["all.yaml:2", "Worklaod", "Workload", "ControlPlane", "MeshBinding", "OutboundList"] {
        assert!(words.contains(part), "{words}");
    }
}

#[tokio::test]
async fn text_that_is_no_yaml_is_refused_with_its_line() {
    let (code, words) = start_with("apiVersion: ecs-mesh.dev/v1alpha1\nkind: [Workload\n").await;
    assert_eq!(code, Some(1));
    assert!(words.contains("all.yaml:"), "{words}");
    assert!(!words.contains("panicked"), "{words}");
}

#[tokio::test]
async fn invalid_manifest_at_start_does_not_block_others() {
    let house = Harness::open().await;
    house.manifest("good.yaml", &house.usual());
    house.manifest("bad.yaml", &workload("bad", "bad").replace("service:", "servcie:"));
    let queue = house.variable("ECS_MESH_QUEUE_URL").to_owned();
    let operator = house.operator(&["--queue-url", &queue]);
    house.deploy("app", 1).await;
    house.dataplanes_once("a Dataplane by the good manifests", |found| found.len() == 1).await;
    let location = [("file", "bad.yaml"), ("line", "4"), ("path", "spec.servcie")];
    operator.line(&[&[("level", "ERROR")], &location[..]].concat()).await;
}

#[tokio::test]
async fn tasks_of_two_workloads_are_held_and_both_are_named() {
    let house = Harness::open().await;
    let twice = [house.usual(), workload("app-too", "app")].concat();
    house.manifest("all.yaml", &twice);
    let queue = house.variable("ECS_MESH_QUEUE_URL").to_owned();
    let operator = house.operator(&["--queue-url", &queue]);
    house.deploy("app", 1).await;
    let line = operator.line(&[("level", "WARN"), ("reason", "workloads_overlap"), ("error", "app-too")]).await;
    assert!(line["error"].as_str().unwrap().replace("app-too", "").contains("app"), "{line}");
    assert!(house.dataplanes().await.is_empty());
    house.manifest("all.yaml", &house.usual());
    house.dataplanes_once("a Dataplane once it is clear", |found| found.len() == 1).await;
}

#[tokio::test]
async fn tasks_of_two_bindings_are_held_and_both_are_named() {
    let house = Harness::open().await;
    let twice =
        [house.usual(), binding("second", "kuma", house.variable("ECS_MESH_CLUSTER_ARN"), "")].concat();
    house.manifest("all.yaml", &twice);
    let queue = house.variable("ECS_MESH_QUEUE_URL").to_owned();
    let operator = house.operator(&["--queue-url", &queue]);
    house.deploy("app", 1).await;
    let reason = [("level", "WARN"), ("reason", "bindings_overlap")];
    operator.line(&[&reason[..], &[("error", "second"), ("error", "house")]].concat()).await;
    assert!(house.dataplanes().await.is_empty());
}
