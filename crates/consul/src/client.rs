//! The client of Consul: implements [`ControlPlane`]. It finds and removes what tasks have registered; it creates,
//! changes and drains nothing, since tasks register themselves.
//!
//! One call is a bounded number of bounded exchanges. Its result is reported to the observer, and an error contains the
//! call, the response and the next step.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};
use async_trait::async_trait;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::api::ConsulApi;
use super::connection::settings;
use super::context::ClientContext;
use super::errors::{self, ConsulCall};
use super::members;
use super::objects::AclObjects;
use super::own_token::OwnToken;
use super::removal::{self, ReadCache, RemoveServices, ServiceKey};
use super::resource_key::ResourceKey;
use super::segments::{ConsulSegment, RegistrationsFound, SegmentResults};
use super::services::{self, ServiceQuery, ServicesOfCluster};
use super::tokens::{self, DEFAULT_CLIENT_METHOD, DEFAULT_METHOD, TokenKey, TokenQuery, TokensOfTasks};
use super::version::{ConsulVersion, MIN_TXN_OPERATIONS, TXN_OPERATIONS_SINCE_1_14};
use ecs_mesh_api::{AllowList, ConsulConnection};
use ecs_mesh_control_plane::http::{HttpMethod, HttpTransport, SettingsError, StreamTransport};
use ecs_mesh_control_plane::skipped_items::{SkippedItemLog, SkippedItems};
use ecs_mesh_control_plane::{
    ControlPlane, FailedSegment, MeshCallObserver, MeshError, MeshErrorKind, MeshMember, PartialList,
    Registration, RegistrationSummary, RenderedRegistration, SupportGate, UnattributedTokenCount, WriterId,
};
use ecs_mesh_controller::{ActiveWarnings, BatchError, Batcher, Lease, Secrets, TokenBucket};
use ecs_mesh_core::intent::{DesiredRegistration, RegistrationId};
use ecs_mesh_core::plan::DrainReason;
use ecs_mesh_model::{ClusterArn, MeshName, OperatorId, TaskArn, Timestamp};

/// The maximum number of tasks per token scan.
const MAX_TASKS_PER_SCAN: usize = 100_000;
/// Token scans per second: they are long and load the servers. (Lists of a cluster's services are shared by concurrent
/// callers and need no limit.)
const LISTS_PER_SECOND: f64 = 10.0;
const LIST_BURST: u32 = 4;
/// Concurrent removals of tokens; fewer than the connection's limit, so that other calls are not blocked.
const MAX_TOKEN_DELETES: usize = 3;

/// The client of one Consul: tokens and services of tasks.
pub struct ConsulControlPlane<T: StreamTransport + 'static> {
    pub(super) api: Arc<ConsulApi<T>>,
    pub(super) context: Arc<ClientContext>,
    /// Another id whose ACL objects are this operator's, too.
    previous_operator: Option<OperatorId>,
    /// This process, where it writes.
    writer: Option<WriterId>,
    tokens: Batcher<TokensOfTasks<T>>,
    services: Batcher<ServicesOfCluster<T>>,
    removals: Batcher<RemoveServices<T>>,
    /// The services as last read, for their removal.
    read_cache: Arc<ReadCache>,
    token_semaphore: Semaphore,
    version: Arc<ArcSwapOption<ConsulVersion>>,
    support: Arc<SupportGate>,
    /// The warning about an unknown or old version was logged.
    warnings: ActiveWarnings<&'static str>,
}

impl ConsulControlPlane<HttpTransport> {
    /// Prepares a connection without sending anything or reading a secret. The manifest may name the `allowed` files and
    /// variables. The process must have a default rustls provider.
    ///
    /// # Errors
    /// Names the invalid field of the manifest.
    pub fn connect(
        spec: &ConsulConnection,
        allowed: &AllowList,
        operator: OperatorId,
        observer: Arc<dyn MeshCallObserver>,
        secrets: Arc<dyn Secrets>,
    ) -> Result<Self, SettingsError> {
        Ok(Self::new(HttpTransport::new(settings(spec, allowed), secrets)?, spec, operator, observer))
    }
}

impl<T: StreamTransport + 'static> ConsulControlPlane<T> {
    /// Creates a client on this transport. Of `spec`, the connection's own settings are not used.
    pub fn new(
        transport: T,
        spec: &ConsulConnection,
        operator: OperatorId,
        observer: Arc<dyn MeshCallObserver>,
    ) -> Self {
        let api = Arc::new(ConsulApi::new(transport, spec));
        let methods = [DEFAULT_METHOD, DEFAULT_CLIENT_METHOD].into_iter().map(Into::into).collect();
        let methods = ArcSwap::from_pointee(methods);
        let context = Arc::new(ClientContext {
            operator,
            mesh: api.scope.mesh(),
            methods,
            observer,
            skipped_items: SkippedItemLog::default(),
            unattributed_tokens: ArcSwap::default(),
        });
        let scan_rate = TokenBucket::new(LISTS_PER_SECOND, LIST_BURST);
        let tokens = TokensOfTasks { api: Arc::clone(&api), context: Arc::clone(&context) };
        let services = ServicesOfCluster { api: Arc::clone(&api), context: Arc::clone(&context) };
        let services = Batcher::new(services, MAX_TASKS_PER_SCAN, None);
        let read_cache = Arc::new(ReadCache::default());
        let version = Arc::new(ArcSwapOption::empty());
        let removals = RemoveServices {
            api: Arc::clone(&api),
            services: services.clone(),
            read_cache: Arc::clone(&read_cache),
            version: Arc::clone(&version),
        };
        Self {
            tokens: Batcher::new(tokens, MAX_TASKS_PER_SCAN, Some(scan_rate)),
            removals: Batcher::new(removals, TXN_OPERATIONS_SINCE_1_14, None),
            api,
            context,
            previous_operator: None,
            writer: None,
            services,
            read_cache,
            token_semaphore: Semaphore::new(MAX_TOKEN_DELETES),
            version,
            support: Arc::default(),
            warnings: ActiveWarnings::default(),
        }
    }

    /// The same client for an operator that had this id before: ACL objects with its markers are owned, and the next write gives
    /// each the new id. No operator with the previous id may run.
    #[must_use]
    pub fn with_previous_operator(self, previous: Option<OperatorId>) -> Self {
        Self { previous_operator: previous.filter(|previous| *previous != self.context.operator), ..self }
    }

    /// The same client, which marks the ACL objects that it writes as written by this process. `None`: it writes nothing.
    #[must_use]
    pub fn with_writer(self, writer: Option<WriterId>) -> Self {
        Self { writer, ..self }
    }

    /// Manages the login tokens of these auth methods from now on, instead of those of [`DEFAULT_METHOD`] and
    /// [`DEFAULT_CLIENT_METHOD`].
    pub fn watch_auth_methods(&self, methods: BTreeSet<Arc<str>>) {
        // Names that differ only in case are the same method.
        let mut unique: BTreeMap<String, Arc<str>> = BTreeMap::new();
        for method in methods {
            unique.entry(method.to_ascii_lowercase()).or_insert(method);
        }
        self.context.methods.store(Arc::new(unique.into_values().collect()));
    }

    /// The servers' version; `None` before the first refresh.
    pub fn version(&self) -> Option<Arc<ConsulVersion>> {
        self.version.load_full()
    }

    /// The ACL objects and nodes of the configured scope.
    pub fn objects(&self) -> AclObjects<T> {
        AclObjects::new(Arc::clone(&self.api))
    }

    /// The operator id in the ownership markers of this client.
    pub fn operator(&self) -> &OperatorId {
        &self.context.operator
    }

    /// The id that the operator had before, if its ACL objects are owned.
    pub fn previous_operator(&self) -> Option<&OperatorId> {
        self.previous_operator.as_ref()
    }

    /// This process, where it writes.
    pub fn writer(&self) -> Option<&WriterId> {
        self.writer.as_ref()
    }

    /// The datacenter that the manifest names.
    pub fn datacenter(&self) -> Option<&str> {
        self.api.scope.datacenter()
    }

    /// Lists the datacenters of the servers. Needs no permission.
    pub async fn datacenters(&self) -> Result<Vec<String>, MeshError> {
        self.api.get("/v1/catalog/datacenters", "nothing").await
    }

    /// Reads the operator's own token.
    pub async fn own_token(&self) -> Result<OwnToken, MeshError> {
        self.api.own_token().await
    }

    /// Runs several calls and reports them to the observer as one operation.
    pub async fn observed<R>(
        &self,
        operation: &'static str,
        work: impl Future<Output = Result<R, MeshError>> + Send,
    ) -> Result<R, MeshError> {
        let began = Instant::now();
        let result = work.await;
        self.observe_result(operation, result.as_ref().err(), began);
        result
    }

    /// Runs a list and reports it to the observer; the error of a failed segment is the result of the list.
    async fn observed_list<L: AsRef<[FailedSegment]>>(
        &self,
        operation: &'static str,
        work: impl Future<Output = Result<L, MeshError>> + Send,
    ) -> Result<L, MeshError> {
        let began = Instant::now();
        let result = work.await;
        let error = match &result {
            Ok(listed) => listed.as_ref().first().map(|failed| &failed.error),
            Err(error) => Some(error),
        };
        self.observe_result(operation, error, began);
        result
    }

    fn observe_result(&self, operation: &'static str, error: Option<&MeshError>, began: Instant) {
        let outcome = error.map_or("success", |error| error.kind.label());
        self.context.observer.call(operation, outcome, began.elapsed());
    }

    async fn list_all_owned(
        &self,
        clusters: &BTreeSet<ClusterArn>,
        sink: &mut (dyn FnMut(RegistrationSummary) + Send),
    ) -> Result<Vec<FailedSegment>, MeshError> {
        let (mut skipped, mut segments) = (SkippedItems::default(), SegmentResults::default());
        tokens::of_clusters(&self.api, &self.context, clusters, &mut skipped, &mut segments, sink).await;
        for cluster in clusters {
            services::of_cluster(&self.api, &self.context, cluster, &mut skipped, &mut segments, sink).await;
        }
        let failed = segments.finish()?;
        self.context.skipped_items.report(skipped, failed.is_empty());
        Ok(failed)
    }

    async fn list_all_of_task(&self, task: &TaskArn) -> Result<PartialList, MeshError> {
        let cluster = task.cluster();
        let services = self.services.ask(cluster.clone(), ServiceQuery::Task(task.id().clone()));
        let (tokens, services) =
            tokio::join!(self.tokens.ask((), TokenQuery::OfTask(task.clone())), services);
        if let (Err(tokens), Err(services)) = (&tokens, &services) {
            let errors = [tokens, services].map(|failure| errors::of_batch(failure.clone()));
            // An unreachable server takes precedence over a rejected call.
            let is_reachable = |error: &MeshError| error.kind != MeshErrorKind::Unreachable;
            return errors
                .into_iter()
                .min_by_key(is_reachable)
                .map_or_else(|| Ok(PartialList::default()), Err);
        }
        let mut all = RegistrationsFound::default();
        let tokens_segment = ConsulSegment::Tokens { namespace: None };
        let services_segment = ConsulSegment::Services { cluster: cluster.clone(), namespace: None };
        for (segment, result) in [(tokens_segment, tokens), (services_segment, services)] {
            match result.map_err(errors::of_batch) {
                Ok(found) => {
                    all.registrations.extend(found.registrations);
                    all.failed.extend(found.failed);
                }
                Err(error) => all.failed.push(FailedSegment { segment: Arc::new(segment), error }),
            }
        }
        let mut seen: Vec<RegistrationSummary> =
            all.registrations.iter().map(RegistrationSummary::from).collect();
        seen.sort_by(|a, b| a.id.cmp(&b.id));
        seen.dedup_by(|a, b| a.id == b.id);
        Ok(PartialList { seen, failed: all.failed })
    }

    async fn read_one(&self, id: &RegistrationId) -> Result<Option<Registration>, MeshError> {
        match self.resource_key(id)? {
            ResourceKey::Token { accessor, namespace } => {
                let key = TokenKey { accessor, namespace };
                tokens::get(&self.api, &self.context, &self.tokens, &key).await
            }
            ResourceKey::Service { cluster, id, namespace } => {
                let key = ServiceKey { cluster, id, namespace };
                let registration = removal::get_service(&self.api, &self.services, &key).await?;
                if let Some(registration) = &registration {
                    self.read_cache.insert(key, registration);
                }
                Ok(registration)
            }
        }
    }

    async fn remove(&self, id: &RegistrationId) -> Result<bool, MeshError> {
        match self.resource_key(id)? {
            ResourceKey::Token { accessor, namespace } => {
                let key = TokenKey { accessor, namespace };
                tokens::remove(&self.api, &self.tokens, &self.token_semaphore, &key).await
            }
            ResourceKey::Service { cluster, id, namespace } => {
                match self.removals.ask((), ServiceKey { cluster, id, namespace }).await {
                    Ok(result) => result,
                    Err(failure @ (BatchError::Missing | BatchError::Lost)) => {
                        Err(errors::error(MeshErrorKind::Unreachable, failure.to_string()))
                    }
                }
            }
        }
    }

    fn resource_key(&self, id: &RegistrationId) -> Result<ResourceKey, MeshError> {
        let key = ResourceKey::parse(&id.name).filter(|_| id.mesh == self.context.mesh);
        key.ok_or_else(|| {
            errors::error(
                MeshErrorKind::Invalid,
                format!("{id} is not the id of a registration in this Consul"),
            )
        })
    }

    pub(super) async fn load_version(&self) -> Result<Option<ConsulVersion>, MeshError> {
        if let Some((version, _)) = self.agent().await? {
            return Ok(Some(version));
        }
        // Newer servers have a call for the version that needs no permission.
        let path = self.api.scope.path("/v1/agent/version", &[]);
        let build: Option<BuildInfo> = self.api.get(&path, "nothing").await.ok();
        let version = build.and_then(|build| ConsulVersion::parse(&build.human_version));
        if let Some(version) = &version {
            self.version.store(Some(Arc::new(version.clone())));
        }
        Ok(version)
    }

    /// Reads the servers' version and the agent's description of itself; `None` if these are Consul's servers and the
    /// token may not read it.
    pub async fn agent(&self) -> Result<Option<(ConsulVersion, Vec<u8>)>, MeshError> {
        let path = self.api.scope.path("/v1/agent/self", &[]);
        let call = ConsulCall {
            method: HttpMethod::Get,
            path: &path,
            needs: "agent_prefix \"\" { policy = \"read\" }",
        };
        let reply = self.api.send(&call, None).await?;
        if reply.head.status == 403 {
            // A token that may manage tasks need not have access to the agent.
            self.check_leader().await?;
            return Ok(None);
        }
        if !reply.is_ok() {
            return Err(call.status_error(&reply));
        }
        let version =
            ConsulVersion::read(&reply.body).map_err(|cause| call.unreadable(&reply.body, cause))?;
        self.version.store(Some(Arc::new(version.clone())));
        Ok(Some((version, reply.body)))
    }

    /// Fails unless these are Consul's servers and have a leader. Needs no permission.
    async fn check_leader(&self) -> Result<(), MeshError> {
        let path = self.api.scope.path("/v1/status/leader", &[]);
        let leader: String = self.api.get(&path, "nothing").await?;
        if leader.is_empty() {
            return Err(errors::error(
                MeshErrorKind::Unreachable,
                format!("GET {path}: the servers have no leader; help: restore their quorum"),
            ));
        }
        Ok(())
    }

    async fn load_capabilities(&self) -> Result<(), MeshError> {
        let version = self.load_version().await?;
        // An unread version says nothing: what is known of the servers stays.
        if let Some(version) = &version {
            self.support.record(version.refusal());
        }
        self.support.check()?;
        // Shows whether ACLs are enabled and whether the token is valid.
        self.api.own_token().await?;
        match &version {
            None => {
                if self.warnings.raise("version", ()) {
                    let needs = "agent_prefix \"\" { policy = \"read\" }";
                    tracing::warn!(needs, "cannot read the Consul version; assuming 1.12 or later");
                }
            }
            Some(version) if !version.has_iam_logins() => {
                if self.warnings.raise("version", ()) {
                    let reason = "no logins by AWS IAM; filtered responses cannot be detected";
                    tracing::warn!(version = %version.text, reason, "Consul is older than 1.12");
                }
            }
            Some(version) if !version.is_enterprise() && self.api.scope.is_of_enterprise() => {
                return Err(errors::error(
                    MeshErrorKind::Invalid,
                    format!(
                        "Consul {version} is the open-source edition, which has no partitions and namespaces; help: \
                         remove ControlPlane.spec.consul.partition and namespaces"
                    ),
                ));
            }
            Some(_) => {}
        }
        Ok(())
    }

    async fn list_service_names(&self) -> Result<BTreeSet<String>, MeshError> {
        let mut names = BTreeSet::new();
        for namespace in self.api.scope.namespaces() {
            let path = self.api.scope.path_in(namespace.as_deref(), "/v1/catalog/services", &[]);
            let found: BTreeMap<String, Value> =
                self.api.get(&path, "service_prefix \"\" { policy = \"read\" }").await?;
            names.extend(found.into_keys());
        }
        Ok(names)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct BuildInfo {
    human_version: String,
}

/// The error of a write for a task. Callers check
/// [`tasks_register_themselves`](ecs_mesh_api::ControlPlaneType::tasks_register_themselves) first.
fn unsupported_write() -> MeshError {
    errors::error(
        MeshErrorKind::Invalid,
        "tasks register themselves with Consul: the operator creates, changes and drains nothing for them",
    )
}

#[async_trait]
impl<T: StreamTransport + 'static> ControlPlane for ConsulControlPlane<T> {
    async fn list_owned(
        &self,
        clusters: &BTreeSet<ClusterArn>,
        sink: &mut (dyn FnMut(RegistrationSummary) + Send),
    ) -> Result<Vec<FailedSegment>, MeshError> {
        self.observed_list("list_owned", self.list_all_owned(clusters, sink)).await
    }

    /// The node of a cluster has its ARN as its name.
    async fn list_clusters(&self) -> Result<BTreeSet<ClusterArn>, MeshError> {
        let nodes = self.observed("list_clusters", self.objects().nodes_like(&[])).await?;
        Ok(nodes.iter().filter_map(|node| ClusterArn::parse(&node.node).ok()).collect())
    }

    async fn list_for_task(&self, task: &TaskArn) -> Result<PartialList, MeshError> {
        self.observed_list("list_for_task", self.list_all_of_task(task)).await
    }

    async fn get(&self, id: &RegistrationId) -> Result<Option<Registration>, MeshError> {
        self.observed("get", self.read_one(id)).await
    }

    /// Always an error.
    async fn put(&self, _id: &RegistrationId, _body: &Value) -> Result<(), MeshError> {
        self.observed("put", async { Err(unsupported_write()) }).await
    }

    async fn delete(&self, id: &RegistrationId) -> Result<bool, MeshError> {
        self.observed("delete", self.remove(id)).await
    }

    fn token_expiry(&self) -> Option<Timestamp> {
        self.api.token_expiry()
    }

    fn server_version(&self) -> Option<Arc<str>> {
        self.version().map(|version| format!("Consul {version}").into())
    }

    fn set_lease(&self, lease: Arc<dyn Lease>) {
        self.api.set_lease(lease);
    }

    /// Services are removed in transactions, one at a time.
    fn delete_batch_size(&self, id: &RegistrationId) -> usize {
        match ResourceKey::parse(&id.name) {
            Some(ResourceKey::Service { .. }) => {
                self.version().map_or(MIN_TXN_OPERATIONS, |version| version.max_txn_operations())
            }
            _ => 1,
        }
    }

    fn unattributed_tokens(&self) -> Vec<UnattributedTokenCount> {
        self.context.unattributed_tokens.load().as_ref().clone()
    }

    fn support(&self) -> Arc<SupportGate> {
        Arc::clone(&self.support)
    }

    /// The services in the catalog. (`mesh` is the single partition of this client.)
    async fn list_services(&self, _mesh: &MeshName) -> Result<BTreeSet<String>, MeshError> {
        self.observed("list_services", self.list_service_names()).await
    }

    async fn list_members(
        &self,
        _mesh: &MeshName,
        sink: &mut (dyn FnMut(MeshMember) + Send),
    ) -> Result<(), MeshError> {
        self.observed("list_members", members::list(&self.api, &self.context, sink)).await
    }

    async fn refresh_capabilities(&self, _meshes: &BTreeSet<MeshName>) -> Result<(), MeshError> {
        self.observed("refresh_capabilities", self.load_capabilities()).await
    }

    /// Returns an empty body, which is never sent.
    fn render(
        &self,
        _desired: &DesiredRegistration,
        _current: Option<&Registration>,
    ) -> RenderedRegistration {
        RenderedRegistration { body: Value::Null, normal: Value::Null }
    }

    /// Returns an empty body, which is never sent.
    fn render_drained(&self, _current: &Registration, _reason: DrainReason) -> RenderedRegistration {
        RenderedRegistration { body: Value::Null, normal: Value::Null }
    }
}
