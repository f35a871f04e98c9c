//! A cluster that was deleted while no operator ran. Its registrations are left over, and ECS lists neither the cluster
//! nor its tasks.

use ecs_mesh_model::{ClusterArn, ClusterId, Tags};
use ecs_mesh_sandbox::aws::Cloud;
use ecs_mesh_sandbox::consul::{ConsulRequest, ConsulServer};
use ecs_mesh_sandbox::kuma::{KumaCp, KumaRequest};
use ecs_mesh_sandbox::world::MANAGEMENT_TOKEN;
use serde_json::{Value, json};

use super::driver::OPERATOR;
use super::env::{START, SimEnv};
use super::faults::SimFault;

const NAME: &str = "retired";
const TASKS: [&str; 2] = ["d0000000000000000000000000000001", "d0000000000000000000000000000002"];

/// A pattern for the clusters of the account: no binding names a deleted cluster in full.
pub(super) const PATTERN: &str = "arn:aws:ecs:eu-west-1:111122223333:cluster/*";

/// Whether a life has a deleted cluster. Not by a draw, so that the rest of a life does not depend on it.
pub(super) fn is_in(seed: u64, env: &SimEnv) -> bool {
    let is_in = seed % 7 == 1 && env.faults.are_enabled();
    if is_in {
        env.faults.count(SimFault::DeletedCluster);
    }
    is_in
}

/// Deletes the cluster.
pub(super) fn delete(cloud: &mut Cloud) -> ClusterArn {
    let created = cloud.create_cluster(NAME, Tags::default()).unwrap();
    cloud.delete_cluster(NAME).unwrap();
    ClusterArn::parse(&created.arn).unwrap()
}

/// Leaves Dataplanes of its tasks, as this operator writes them.
pub(super) fn leave_dataplanes(cluster: &ClusterArn, kuma: &mut KumaCp) {
    for (n, task) in TASKS.iter().enumerate() {
        let body = json!({
            "type": "Dataplane", "mesh": "default", "name": task,
            "labels": {
                "ecs-mesh.dev/operator": OPERATOR,
                "ecs-mesh.dev/cluster": NAME,
                "ecs-mesh.dev/cluster-id": ClusterId::of(cluster).as_str(),
                "ecs-mesh.dev/task-id": task,
            },
            "networking": {"address": format!("10.250.0.{n}"), "inbound": [{
                "port": 15000, "servicePort": 8080, "tags": {"kuma.io/service": NAME, "kuma.io/protocol": "http"},
            }]},
        });
        let path = format!("/meshes/default/dataplanes/{task}");
        let written = kuma.handle(START, &KumaRequest::json("PUT", &path, body.to_string().into_bytes()));
        assert_eq!(written.status, 201);
    }
    kuma.take_journal();
}

/// Leaves services of its tasks.
pub(super) fn leave_services(cluster: &ClusterArn, consul: &mut ConsulServer) {
    for task in TASKS {
        let body = json!({
            "Node": cluster.as_str(), "Address": "127.0.0.1", "NodeMeta": {"synthetic-node": "true"},
            "Service": {
                "ID": format!("{NAME}-{task}"), "Service": NAME,
                "Meta": {"source": "consul-ecs", "task-id": task},
            },
        });
        let request = ConsulRequest::new("PUT", "/v1/catalog/register", Some(MANAGEMENT_TOKEN), &body);
        assert_eq!(consul.handle(START, &request).status, 200);
    }
    consul.take_journal();
}

/// The tasks of the cluster whose services are still there.
pub(super) fn services_left(cluster: &str, consul: &ConsulServer) -> Vec<String> {
    let services = consul.services(cluster).into_values();
    services.filter_map(|service: Value| Some(service["Meta"]["task-id"].as_str()?.to_owned())).collect()
}
