//! Tasks that describe themselves by tags, beside one that claims a service of others.

use aws_sdk_ecs::types::{ContainerDefinition, NetworkMode};
use serde_json::Value;

use super::harness::{Harness, OperatorProcess, control_plane, document};

/// Creates a service whose tasks claim a service of the mesh by docker labels.
async fn deploy_claiming(harness: &Harness, name: &str, claimed: &str) {
    harness.role(name).await;
    let labels = [
        ("ecs-mesh.dev/service", claimed),
        ("ecs-mesh.dev/inbound.1.port", "15000"),
        ("ecs-mesh.dev/inbound.1.container-port", "8080"),
    ];
    let app = ContainerDefinition::builder().name("app").image("app:1").memory(128);
    let app = labels.into_iter().fold(app, |app, (key, value)| app.docker_labels(key, value)).build();
    let definition = harness.ecs().register_task_definition().family(name).network_mode(NetworkMode::Awsvpc);
    let role = format!("arn:aws:iam::111122223333:role/{name}-task");
    definition.task_role_arn(role).container_definitions(app).send().await.unwrap();
    harness.serve("sandbox", name, 1).await;
}

#[tokio::test]
async fn foreign_claim_is_rejected_beside_a_valid_description() {
    let harness = Harness::start().await;
    let cluster = harness.variable("ECS_MESH_CLUSTER_ARN");
    let binding = format!(
        "{{controlPlane: kuma, mesh: default, selector: {{clusters: [\"{cluster}\"]}}, discovery: tags, \
         roleTags: {{mode: \"off\"}}, claims: [{{rolePath: /payments-task, services: [payments]}}]}}"
    );
    let manifests = control_plane("kuma", harness.variable("KUMA_API_URL"), "");
    harness.manifest("all.yaml", &(manifests + &document("MeshBinding", "harness", &binding)));
    deploy_claiming(&harness, "app", "app").await;
    deploy_claiming(&harness, "web", "payments").await;
    let operator = harness.operator(&[]);
    let rejected = operator.line(&[("level", "WARN"), ("reason", "rejected"), ("error", "payments")]).await;
    for part in ["ecs-mesh.dev/service", "web (its ECS service)", ":role/web-task"] {
        assert!(rejected.to_string().contains(part), "{part}: {rejected}");
    }
    operator.wait_for_sweep(true).await;
    let found = harness.wait_for_dataplanes("app alone is registered", |all| all.len() == 1).await;
    let inbound = &found.values().next().unwrap()["networking"]["inbound"][0];
    assert_eq!((&inbound["tags"]["kuma.io/service"], &inbound["port"]), (&"app".into(), &15_000.into()));

    let (directory, manifests) = (harness.directory.path(), harness.path("manifests"));
    let arguments = ["audit", "--output", "json", "--manifests", manifests.to_str().unwrap()];
    let mut audit = OperatorProcess::start(directory, "audit", &harness.environment, &arguments);
    let code = audit.code().await;
    let report: Value = serde_json::from_str(&audit.stdout())
        .unwrap_or_else(|error| panic!("{error}: {}{}", audit.stdout(), audit.stderr()));
    let of_tags = |finding: &&Value| finding["rule"].as_str().unwrap().starts_with("WORKLOAD-");
    let findings: Vec<&Value> = report["findings"].as_array().unwrap().iter().filter(of_tags).collect();
    let [finding] = findings[..] else { panic!("{code:?}: {findings:#?}") };
    assert_eq!((code, &finding["rule"]), (Some(1), &"WORKLOAD-CLAIM".into()), "{finding}");
    for part in ["payments", "ecs-mesh.dev/service", "of service web"] {
        assert!(finding.to_string().contains(part), "{part}: {finding}");
    }
}
