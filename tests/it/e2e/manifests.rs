//! Missing, invalid and contradicting manifests at the start and while the operator runs.

use super::harness::{Harness, OperatorProcess, binding, control_plane, document, workload};
use crate::manifest_sources::StoreClient;

/// Starts an operator with this manifest alone and returns exit code and standard error.
async fn start_with(text: &str) -> (Option<i32>, String) {
    let harness = Harness::start().await;
    harness.manifest("all.yaml", text);
    let mut operator = harness.operator(&[]);
    (operator.code().await, operator.stderr())
}

#[tokio::test]
async fn start_fails_with_a_help_when_no_manifests_exist() {
    let harness = Harness::start().await;
    let mut operator = harness.operator(&[]);
    assert_eq!(operator.code().await, Some(1));
    let stderr = operator.stderr();
    let last: serde_json::Value = serde_json::from_str(stderr.lines().last().unwrap()).unwrap();
    assert_eq!(last["level"], "ERROR", "{stderr}");
    assert!(last["error"].as_str().unwrap().contains("*.yaml"), "{stderr}");
}

#[tokio::test]
async fn empty_manifests_at_start_are_loaded_later() {
    let harness = Harness::start().await;
    harness.manifest("all.yaml", "# nothing yet\n");
    let queue = harness.variable("ECS_MESH_QUEUE_URL").to_owned();
    let operator = harness.operator(&["--queue-url", &queue]);
    operator.line(&[("level", "WARN"), ("sources", "")]).await;
    harness.deploy("app", 1).await;
    harness.manifest("all.yaml", &harness.base_manifests());
    harness.wait_for_dataplanes("a Dataplane by the new manifests", |found| found.len() == 1).await;
}

#[tokio::test]
async fn start_fails_with_location_when_all_are_invalid() {
    let text = workload("app", "app").replace("containerPort", "contianerPort");
    let (code, stderr) = start_with(&text).await;
    assert_eq!(code, Some(1));
    for part in ["all.yaml:4", "Workload/app", "spec.inbounds[0].contianerPort", "containerPort"] {
        assert!(stderr.contains(part), "{stderr}");
    }
}

#[tokio::test]
async fn unknown_kind_is_rejected_with_the_known_kinds() {
    let (code, stderr) = start_with(&document("Worklaod", "app", "{}")).await;
    assert_eq!(code, Some(1));
    for part in ["all.yaml:2", "Worklaod", "Workload", "ControlPlane", "MeshBinding", "OutboundList"] {
        assert!(stderr.contains(part), "{stderr}");
    }
}

#[tokio::test]
async fn invalid_yaml_is_rejected_with_its_line() {
    let (code, stderr) = start_with("apiVersion: ecs-mesh.dev/v1alpha1\nkind: [Workload\n").await;
    assert_eq!(code, Some(1));
    assert!(stderr.contains("all.yaml:"), "{stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
}

#[tokio::test]
async fn invalid_manifest_at_start_does_not_block_others() {
    let harness = Harness::start().await;
    harness.manifest("good.yaml", &harness.base_manifests());
    harness.manifest("bad.yaml", &workload("bad", "bad").replace("service:", "servcie:"));
    let queue = harness.variable("ECS_MESH_QUEUE_URL").to_owned();
    let operator = harness.operator(&["--queue-url", &queue]);
    harness.deploy("app", 1).await;
    harness.wait_for_dataplanes("a Dataplane by the good manifests", |found| found.len() == 1).await;
    let location = [("file", "bad.yaml"), ("line", "4"), ("path", "spec.servcie")];
    operator.line(&[&[("level", "ERROR")], &location[..]].concat()).await;
}

#[tokio::test]
async fn overlapping_workloads_hold_their_tasks() {
    let harness = Harness::start().await;
    let twice = [harness.base_manifests(), workload("app-too", "app")].concat();
    harness.manifest("all.yaml", &twice);
    let queue = harness.variable("ECS_MESH_QUEUE_URL").to_owned();
    let operator = harness.operator(&["--queue-url", &queue]);
    harness.deploy("app", 1).await;
    let line =
        operator.line(&[("level", "WARN"), ("reason", "workloads_overlap"), ("error", "app-too")]).await;
    assert!(line["error"].as_str().unwrap().replace("app-too", "").contains("app"), "{line}");
    assert!(harness.dataplanes().await.is_empty());
    harness.manifest("all.yaml", &harness.base_manifests());
    harness.wait_for_dataplanes("a Dataplane once it is clear", |found| found.len() == 1).await;
}

#[tokio::test]
async fn overlapping_bindings_hold_their_tasks() {
    let harness = Harness::start().await;
    let twice =
        [harness.base_manifests(), binding("second", "kuma", harness.variable("ECS_MESH_CLUSTER_ARN"), "")]
            .concat();
    harness.manifest("all.yaml", &twice);
    let queue = harness.variable("ECS_MESH_QUEUE_URL").to_owned();
    let operator = harness.operator(&["--queue-url", &queue]);
    harness.deploy("app", 1).await;
    let reason = [("level", "WARN"), ("reason", "bindings_overlap")];
    operator.line(&[&reason[..], &[("error", "second"), ("error", "harness")]].concat()).await;
    assert!(harness.dataplanes().await.is_empty());
}

#[tokio::test]
async fn deleted_workload_settles_and_a_renamed_one_stays() {
    let harness = Harness::start().await;
    let base = [
        control_plane("kuma", harness.variable("KUMA_API_URL"), ""),
        binding("harness", "kuma", harness.variable("ECS_MESH_CLUSTER_ARN"), ""),
    ];
    harness.manifest("base.yaml", &base.concat());
    harness.manifest("app.yaml", &workload("app", "app"));
    let queue = harness.variable("ECS_MESH_QUEUE_URL").to_owned();
    let operator = harness.operator(&["--queue-url", &queue]);
    harness.deploy("app", 1).await;
    let registered = harness.wait_for_dataplanes("a Dataplane", |found| found.len() == 1).await;
    harness.manifest("app.yaml", &workload("renamed", "app"));
    operator.line(&[("level", "INFO"), ("generation", "2")]).await;
    operator.wait_for_sweeps(operator.sweeps("").len() + 1).await;
    assert_eq!(harness.dataplanes().await, registered);
    // The other file shows that the directory is there.
    std::fs::remove_file(harness.path("manifests").join("app.yaml")).unwrap();
    harness.wait_for_dataplanes("its withdrawal", std::collections::BTreeMap::is_empty).await;
    let task = registered.keys().next().unwrap();
    let settling = operator.lines(&[("level", "WARN"), ("reason", "settling"), ("task", task)]);
    assert_eq!(settling.len(), 1, "{}", operator.stderr());
    operator.line(&[("target", "audit"), ("change", "remove"), ("task", task)]).await;
}

#[tokio::test]
async fn manifests_of_s3_ssm_and_variable_are_in_force_together() {
    let mut harness = Harness::start().await;
    harness.manifest("none.yaml", "# the rest is elsewhere\n");
    let address = harness.variable("KUMA_API_URL").to_owned();
    let cluster = harness.variable("ECS_MESH_CLUSTER_ARN").to_owned();
    let store = StoreClient::new(harness.variable("AWS_ENDPOINT_URL"));
    store.create_bucket("manifests").await;
    store.put_object("manifests", "prod/binding.yaml", &binding("prod", "kuma", &cluster, "")).await;
    store.put_parameter("/mesh/prod/app", &workload("app", "app")).await;
    let content = control_plane("kuma", &address, "");
    harness.environment.insert("ECS_MESH_MANIFESTS_CONTENT".to_owned(), content);
    let operator = harness.operator(&[
        "--manifests",
        "s3://manifests/prod/",
        "ssm:/mesh/prod/",
        "--manifests-poll-interval",
        "5s",
        "--metrics-address",
        "127.0.0.1:0",
    ]);
    harness.deploy("app", 1).await;
    harness.wait_for_dataplanes("a Dataplane by all sources", |found| found.len() == 1).await;

    // Another workload, without a deployment of the operator.
    store.put_parameter("/mesh/prod/kv", &workload("kv", "kv")).await;
    harness.deploy("kv", 1).await;
    harness.wait_for_dataplanes("a Dataplane by the changed source", |found| found.len() == 2).await;

    // A prefix that is emptied removes nothing, and the others go on.
    store.delete_object("manifests", "prod/binding.yaml").await;
    operator.line(&[("level", "WARN"), ("source", "s3://manifests/prod/"), ("result", "empty")]).await;
    let listens = operator.line(&[("level", "INFO"), ("address", "")]).await;
    let url = format!("http://{}/metrics", listens["address"].as_str().unwrap());
    let metrics = harness.http.get(url).send().await.unwrap().text().await.unwrap();
    let is_read =
        |line: &str| line.contains("source=\"ssm:/mesh/prod/\"") && line.contains("result=\"success\"");
    assert!(metrics.lines().any(|line| is_read(line) && !line.ends_with(" 0")), "{metrics}");
    harness.scale("app", 2).await;
    harness.wait_for_dataplanes("all Dataplanes are kept", |found| found.len() == 3).await;
}

#[tokio::test]
async fn unreadable_source_is_named_by_each_command() {
    let harness = Harness::start().await;
    harness.manifest("all.yaml", &harness.base_manifests());
    let given = harness.path("manifests");
    let arguments =
        ["validate", given.to_str().unwrap(), "s3://missing-bucket/prod/", "--region", "eu-west-1"];
    let mut process =
        OperatorProcess::start(harness.directory.path(), "validate", &harness.environment, &arguments);
    assert_eq!(process.code().await, Some(1));
    let stdout = process.stdout();
    assert!(stdout.contains("s3://missing-bucket/prod/") && stdout.contains("NoSuchBucket"), "{stdout}");

    let more = ["doctor", "--manifests", "s3://missing-bucket/prod/", "--output", "json"];
    let (code, stdout, _) = harness.run_to_end(&more).await;
    let report: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    let checks = report["checks"].as_array().unwrap();
    let check = checks.iter().find(|check| check["id"] == "manifests.source").unwrap();
    assert_eq!((code, &check["status"]), (1, &serde_json::json!("error")), "{check}");
}
