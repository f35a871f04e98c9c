//! Reads the service instances of a datacenter, of any owner, with their health, for those who look at it.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;

use super::api::{ConsulApi, ListLocation};
use super::context::ClientContext;
use super::errors::ConsulCall;
use super::scope::ALL_NAMESPACES;
use super::services::NodeService;
use ecs_mesh_control_plane::http::{HttpMethod, StreamTransport, TooLarge, segment};
use ecs_mesh_control_plane::{MeshError, MeshMember};
use ecs_mesh_model::ClusterArn;

const NEEDS: &str = "node_prefix \"\" { policy = \"read\" } service_prefix \"\" { policy = \"read\" }";

/// The status of a check whose instance gets no requests.
const CRITICAL: &str = "critical";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HealthEntry {
    node: HealthNode,
    service: NodeService,
    #[serde(default)]
    checks: Option<Vec<HealthCheck>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HealthNode {
    node: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HealthCheck {
    status: String,
}

impl HealthEntry {
    /// The member that the entry shows. An instance is ready unless a check of its own or of its node is critical.
    fn member(self, context: &ClientContext) -> MeshMember {
        let ready = self.checks.iter().flatten().all(|check| check.status != CRITICAL);
        let cluster = ClusterArn::parse(&self.node.node).ok();
        self.service.member(&self.node.node, cluster.as_ref(), ready, context)
    }
}

/// Lists the instances of all services. In all namespaces at once (`*`) there is no such list.
pub(super) async fn list<T: StreamTransport>(
    api: &ConsulApi<T>,
    context: &ClientContext,
    sink: &mut (dyn FnMut(MeshMember) + Send),
) -> Result<(), MeshError> {
    for namespace in api.scope.namespaces() {
        if namespace.as_deref() == Some(ALL_NAMESPACES) {
            continue;
        }
        let path = api.scope.path_in(namespace.as_deref(), "/v1/catalog/services", &[]);
        let names: BTreeMap<Arc<str>, Value> = api.get(&path, NEEDS).await?;
        for name in names.keys() {
            let path = format!("/v1/health/service/{}", segment(name));
            let path = api.scope.path_in(namespace.as_deref(), &path, &[]);
            let call = ConsulCall { method: HttpMethod::Get, path: &path, needs: NEEDS };
            let mut on_item = |item: Result<&[u8], TooLarge>| {
                let entry = item.ok().and_then(|item| serde_json::from_slice::<HealthEntry>(item).ok());
                match entry {
                    Some(entry) => sink(entry.member(context)),
                    None => context.observer.skipped("list_members"),
                }
            };
            let _: Vec<()> = api.list(&call, ListLocation::Root, &mut on_item).await?;
        }
    }
    Ok(())
}
