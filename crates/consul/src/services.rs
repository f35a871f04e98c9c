//! Catalog services of tasks. A service belongs to a task if it is on the node of the task's cluster and consul-ecs has
//! marked it with that task. An unreadable service is skipped and counted; it never fails a list.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use serde::Deserialize;
use serde_json::{Value, json};

use super::api::{ConsulApi, ListLocation};
use super::context::{ClientContext, skipped_service};
use super::errors::ConsulCall;
use super::objects::nullable;
use super::resource_key::ResourceKey;
use super::segments::{ConsulSegment, RegistrationsFound, SegmentResults};
use super::tokens::owner;
use ecs_mesh_control_plane::http::{HttpMethod, StreamTransport, TooLarge, segment};
use ecs_mesh_control_plane::skipped_items::SkippedItems;
use ecs_mesh_control_plane::{MeshError, MeshMember, Registration, RegistrationOwner, RegistrationSummary};
use ecs_mesh_controller::BatchCall;
use ecs_mesh_core::intent::RegistrationId;
use ecs_mesh_model::{ClusterArn, TaskArn, TaskId, intern};

const NEEDS: &str = "node_prefix \"\" { policy = \"read\" } service_prefix \"\" { policy = \"read\" }";

/// The maximum number of terms in a filter. For more terms the complete list is cheaper for the servers, which match each
/// service against each term.
const MAX_FILTER_TERMS: usize = 16;

/// The fields of a service on a node that the client uses.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct NodeService {
    #[serde(rename = "ID")]
    id: Arc<str>,
    #[serde(rename = "Service")]
    name: Arc<str>,
    #[serde(default, deserialize_with = "nullable")]
    meta: BTreeMap<String, String>,
    modify_index: u64,
    #[serde(default)]
    namespace: Option<Arc<str>>,
}

/// The response without the services. A missing node is `null` and has no services.
#[derive(Deserialize)]
struct NodeServices {
    #[serde(rename = "Node")]
    _node: Value,
    #[serde(rename = "Services")]
    _services: Option<Vec<()>>,
}

/// The owner of a service.
#[derive(Debug, PartialEq, Eq)]
enum ServiceOwner {
    Task(TaskArn),
    /// Not registered by consul-ecs.
    Foreign,
    Malformed(&'static str),
}

impl NodeService {
    fn owner(&self, cluster: &ClusterArn) -> ServiceOwner {
        if self.meta.get("source").map(String::as_str) != Some("consul-ecs") {
            return ServiceOwner::Foreign;
        }
        let Some(id) = self.meta.get("task-id").and_then(|id| TaskId::parse(id).ok()) else {
            return ServiceOwner::Malformed("no valid task-id in its metadata");
        };
        let task = cluster.task(id);
        match self.meta.get("task-arn").map(|arn| TaskArn::parse(arn)) {
            None => ServiceOwner::Task(task),
            Some(Ok(arn)) if arn == task => ServiceOwner::Task(task),
            Some(_) => ServiceOwner::Malformed("its metadata's task-arn does not match its task-id and node"),
        }
    }

    /// The instance as a member of the mesh, on this node, which may be a cluster's.
    pub(super) fn member(
        self,
        node: &str,
        cluster: Option<&ClusterArn>,
        ready: bool,
        context: &ClientContext,
    ) -> MeshMember {
        if let Some(cluster) = cluster
            && let ServiceOwner::Task(task) = self.owner(cluster)
        {
            let registration = self.registration(cluster, Some(&task), context);
            let services = registration.service.into_iter().collect();
            return MeshMember { id: registration.id, owner: registration.owner, services, ready };
        }
        let id =
            RegistrationId { mesh: context.mesh.clone(), name: format!("service/{}@{node}", self.id).into() };
        let services = vec![intern(&self.name)];
        MeshMember { id, owner: RegistrationOwner::Foreign, services, ready }
    }

    fn registration(
        self,
        cluster: &ClusterArn,
        task: Option<&TaskArn>,
        context: &ClientContext,
    ) -> Registration {
        let key = ResourceKey::Service { cluster: cluster.clone(), id: self.id, namespace: self.namespace };
        Registration {
            id: key.in_mesh(context.mesh.clone()),
            owner: owner(task, &context.operator),
            cluster_name: None,
            service: Some(intern(&self.name)),
            created_at: None,
            drained: None,
            ready: None,
            has_writer_mark: false,
            normal: Value::Null,
            stored: json!({"Service": &*self.name, "ModifyIndex": self.modify_index}),
        }
    }
}

/// A query for services on a cluster's node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ServiceQuery {
    /// A task's services.
    Task(TaskId),
    /// One service.
    One { id: Arc<str>, namespace: Option<Arc<str>> },
}

impl ServiceQuery {
    /// The filter term; `None` if the id cannot be quoted safely.
    fn filter(&self) -> Option<String> {
        match self {
            Self::Task(id) => Some(format!("Meta[\"task-id\"] == \"{id}\"")),
            Self::One { id, .. } => {
                let plain = id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:/@ ".contains(&b));
                plain.then(|| format!("ID == \"{id}\""))
            }
        }
    }
}

impl<T: StreamTransport> ConsulApi<T> {
    /// Lists the services on a cluster's node, or the reason for each unreadable one. Each namespace is a segment.
    async fn services_on(
        &self,
        cluster: &ClusterArn,
        filter: Option<&str>,
        segments: &mut SegmentResults,
        sink: &mut (dyn FnMut(Result<NodeService, &'static str>) + Send),
    ) {
        let query: Vec<(&str, &str)> = filter.map(|filter| ("filter", filter)).into_iter().collect();
        for namespace in self.scope.namespaces() {
            let is_empty = AtomicBool::new(true);
            let mut on_item = |item: Result<&[u8], TooLarge>| {
                is_empty.store(false, Ordering::Relaxed);
                let item = item.map_err(|TooLarge| "larger than 1 MiB");
                sink(item.and_then(|item| {
                    serde_json::from_slice(item).map_err(|_| "no readable id, name or index")
                }));
            };
            let path = format!("/v1/catalog/node-services/{}", segment(cluster.as_str()));
            let path = self.scope.path_in(namespace.as_deref(), &path, &query);
            let call = ConsulCall { method: HttpMethod::Get, path: &path, needs: NEEDS };
            let list = async {
                let _: NodeServices = self.list(&call, ListLocation::Fields, &mut on_item).await?;
                // For an unknown own token the list is empty, and old servers do not mark it as filtered.
                if is_empty.load(Ordering::Relaxed) { self.check_own_token_cached().await } else { Ok(()) }
            };
            segments.list(ConsulSegment::Services { cluster: cluster.clone(), namespace }, list).await;
        }
    }
}

/// Lists all services of a cluster's tasks in the segments that can be listed.
pub(super) async fn of_cluster<T: StreamTransport>(
    api: &ConsulApi<T>,
    context: &ClientContext,
    cluster: &ClusterArn,
    skipped: &mut SkippedItems,
    segments: &mut SegmentResults,
    sink: &mut (dyn FnMut(RegistrationSummary) + Send),
) {
    let mut skip = |name: &str, problem| {
        context.observer.skipped("list_owned");
        skipped.add(name, skipped_service(problem));
    };
    let mut read = |service: Result<NodeService, &'static str>| match service {
        Err(problem) => skip("?", problem),
        Ok(service) => match service.owner(cluster) {
            ServiceOwner::Task(task) => {
                sink(RegistrationSummary::from(&service.registration(cluster, Some(&task), context)));
            }
            ServiceOwner::Foreign => {}
            ServiceOwner::Malformed(problem) => skip(&service.id, problem),
        },
    };
    api.services_on(cluster, None, segments, &mut read).await;
}

/// Answers many queries for services of one cluster with one list.
pub(super) struct ServicesOfCluster<T> {
    pub(super) api: Arc<ConsulApi<T>>,
    pub(super) context: Arc<ClientContext>,
}

#[async_trait]
impl<T: StreamTransport + 'static> BatchCall for ServicesOfCluster<T> {
    type Group = ClusterArn;
    type Request = ServiceQuery;
    type Response = RegistrationsFound;
    type Error = MeshError;

    async fn call(
        &self,
        cluster: &ClusterArn,
        queries: Vec<ServiceQuery>,
    ) -> Result<BTreeMap<ServiceQuery, RegistrationsFound>, MeshError> {
        let fits = queries.len() <= MAX_FILTER_TERMS;
        let terms: Option<Vec<String>> =
            fits.then(|| queries.iter().map(ServiceQuery::filter).collect()).flatten();
        let filter = terms.map(|terms| terms.join(" or "));
        let mut found: BTreeMap<ServiceQuery, RegistrationsFound> =
            queries.into_iter().map(|query| (query, RegistrationsFound::default())).collect();
        // Skipped services are logged by the complete list of a sweep.
        let skip = || self.context.observer.skipped("list_for_task");
        let mut sink = |service: Result<NodeService, &'static str>| {
            let Ok(service) = service else { return skip() };
            let owner = service.owner(cluster);
            let task = match &owner {
                ServiceOwner::Task(task) => Some(task),
                ServiceOwner::Foreign => None,
                ServiceOwner::Malformed(_) => {
                    skip();
                    None
                }
            };
            let one = ServiceQuery::One { id: Arc::clone(&service.id), namespace: service.namespace.clone() };
            let registration = service.registration(cluster, task, &self.context);
            if let Some(found) = task.and_then(|task| found.get_mut(&ServiceQuery::Task(task.id().clone()))) {
                found.registrations.push(registration.clone());
            }
            if let Some(found) = found.get_mut(&one) {
                found.registrations.push(registration);
            }
        };
        let mut segments = SegmentResults::default();
        self.api.services_on(cluster, filter.as_deref(), &mut segments, &mut sink).await;
        let failed = segments.finish()?;
        found.values_mut().for_each(|found| found.failed.clone_from(&failed));
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARN: &str = "arn:aws:ecs:us-east-1:123456789012:cluster/anchor";

    fn owner(meta: &Value) -> ServiceOwner {
        let service = json!({"ID": "web-1", "Service": "web", "Meta": meta, "ModifyIndex": 7});
        serde_json::from_value::<NodeService>(service).unwrap().owner(&ClusterArn::parse(ARN).unwrap())
    }

    #[test]
    fn service_owner_needs_consistent_metadata() {
        let task =
            |id: &str| ServiceOwner::Task(ClusterArn::parse(ARN).unwrap().task(TaskId::parse(id).unwrap()));
        let arn = |cluster: &str, id: &str| format!("arn:aws:ecs:us-east-1:123456789012:task/{cluster}/{id}");
        assert_eq!(owner(&json!({"source": "consul-ecs", "task-id": "a1"})), task("a1"));
        let with_arn = json!({"source": "consul-ecs", "task-id": "a1", "task-arn": arn("anchor", "a1")});
        assert_eq!(owner(&with_arn), task("a1"));
        for foreign in
            [json!(null), json!({}), json!({"task-id": "a1"}), json!({"source": "k8s", "task-id": "a1"})]
        {
            assert_eq!(owner(&foreign), ServiceOwner::Foreign, "{foreign}");
        }
        for bad in [
            json!({"source": "consul-ecs"}),
            json!({"source": "consul-ecs", "task-id": "a/b"}),
            json!({"source": "consul-ecs", "task-id": "a1", "task-arn": "a1"}),
            json!({"source": "consul-ecs", "task-id": "a1", "task-arn": arn("anchor", "a2")}),
            json!({"source": "consul-ecs", "task-id": "a1", "task-arn": arn("other", "a1")}),
        ] {
            assert!(matches!(owner(&bad), ServiceOwner::Malformed(_)), "{bad}");
        }
    }

    #[test]
    fn unsafe_id_is_kept_out_of_filters() {
        let one = |id: &str| ServiceQuery::One { id: id.into(), namespace: None }.filter();
        assert_eq!(one("web-1").as_deref(), Some("ID == \"web-1\""));
        assert_eq!(one("a\" or ID != \"b"), None);
        assert_eq!(one("a\\"), None);
    }
}
