//! Tasks in network mode `host` end to end: their addresses are those that EC2 shows of their container instances.

use aws_sdk_ecs::types::{ContainerDefinition, LaunchType, NetworkMode, PortMapping};

use super::harness::Harness;

/// Registers a task definition of this family in network mode `host`.
pub(super) async fn define(harness: &Harness, family: &str) {
    let port = PortMapping::builder().container_port(15_000).build();
    let app = ContainerDefinition::builder().name("app").image("app:1").memory(128).port_mappings(port);
    let definition = harness.ecs().register_task_definition().family(family);
    definition
        .network_mode(NetworkMode::Host)
        .task_role_arn(format!("arn:aws:iam::111122223333:role/{family}-task"))
        .container_definitions(app.build())
        .send()
        .await
        .unwrap();
}

/// Runs a task on an instance of this kind and returns its id.
pub(super) async fn run(harness: &Harness, family: &str, launch_type: &str) -> String {
    let request = harness.ecs().run_task().cluster("sandbox").task_definition(family);
    let ran = request.launch_type(LaunchType::from(launch_type)).send().await.unwrap();
    ran.tasks()[0].task_arn().unwrap().rsplit('/').next().unwrap().to_owned()
}

#[tokio::test]
async fn task_in_host_mode_has_the_address_that_ec2_shows() {
    let harness = Harness::start().await;
    harness.role("app").await;
    define(&harness, "app").await;
    harness.manifest("all.yaml", &harness.base_manifests());
    let queue = harness.variable("ECS_MESH_QUEUE_URL").to_owned();
    let mut operator = harness.operator(&["--queue-url", &queue]);
    operator.wait_for_sweep(true).await;

    let on_ec2 = run(&harness, "app", "EC2").await;
    let found = harness.wait_for_dataplanes("the task on EC2", |found| found.contains_key(&on_ec2)).await;
    assert_eq!(found[&on_ec2]["networking"]["address"], "172.31.0.4");
    // The account hides instances of ECS Managed Instances from those who do not ask for them.
    let managed = run(&harness, "app", "MANAGED_INSTANCES").await;
    let found = harness.wait_for_dataplanes("the managed task", |found| found.contains_key(&managed)).await;
    assert_eq!(found[&managed]["networking"]["address"], "172.31.0.5");

    let external = run(&harness, "app", "EXTERNAL").await;
    operator.line(&[("task", external.as_str()), ("*", "EXTERNAL")]).await;
    assert!(!harness.dataplanes().await.contains_key(&external));
    operator.signal("TERM");
    assert_eq!(operator.code().await, Some(0), "{}", operator.stderr());
}
