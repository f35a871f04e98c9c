//! The Consul control plane as the rest sees it: what tasks made, to be found and taken away. It creates, changes and
//! drains nothing, since tasks register themselves.
//!
//! Whatever the servers answer, one call is a bounded number of bounded exchanges, its outcome is reported to the
//! observer, and an error says what was called, what came back and what to do next.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::{ArcSwap, ArcSwapOption};
use async_trait::async_trait;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::api::ConsulApi;
use super::connection::settings;
use super::errors::{self, ConsulCall};
use super::resource_key::ResourceKey;
use super::objects::AclObjects;
use super::own_token::OwnToken;
use super::segments::{RegistrationsFound, SegmentResults, ConsulSegment};
use super::removal::{self, RemoveServices, ReadCache, ServiceKey};
use super::scope::ConsulScope;
use super::services::{self, ServicesOfCluster, ServiceQuery};
use super::tokens::{self, DEFAULT_CLIENT_METHOD, DEFAULT_METHOD, TokenKey, TokensOfTasks, WantedToken};
use super::version::{ConsulVersion, MIN_TXN_OPERATIONS, TXN_OPERATIONS_SINCE_1_14};
use ecs_mesh_api::ConsulConnection;
use ecs_mesh_control_plane::http::{HttpTransport, HttpMethod, StreamTransport};
use ecs_mesh_control_plane::skipped_items::{SkippedItemLog, SkippedItems, SkipReason};
use ecs_mesh_control_plane::{
    ControlPlane, FailedSegment, PartialList, MeshCallObserver, MeshError, MeshErrorKind, UnattributedTokenCount, Registration,
    RenderedRegistration, RegistrationSummary,
};
use ecs_mesh_controller::Secrets;
use ecs_mesh_controller::{BatchError, Batcher, Lease, TokenBucket};
use ecs_mesh_core::intent::{DesiredRegistration, RegistrationId};
use ecs_mesh_core::plan::DrainReason;
use ecs_mesh_model::{ClusterArn, MeshName, OperatorId, TaskArn};

/// So many tasks share a pass over the tokens.
const MAX_TASKS_PER_SCAN: usize = 100_000;
/// Passes over the tokens a second: they are long, and the servers have other work. (A cluster's services come in one
/// list for all who ask while another is under way.)
const LISTS_PER_SECOND: f64 = 10.0;
const LIST_BURST: u32 = 4;
/// Tokens go one by one; this leaves room for other calls.
const MAX_TOKEN_DELETES: usize = 3;

/// Whose tasks' things are looked after, and who is told.
pub(super) struct ClientContext {
    pub(super) operator: OperatorId,
    /// The partition.
    pub(super) mesh: MeshName,
    /// Tokens of logins by these auth methods, and of no others.
    pub(super) methods: ArcSwap<BTreeSet<Arc<str>>>,
    pub(super) observer: Arc<dyn MeshCallObserver>,
    pub(super) skipped_items: SkippedItemLog,
    /// Tokens that name no task, as the last whole list showed them.
    pub(super) unattributed_tokens: ArcSwap<Vec<UnattributedTokenCount>>,
}

/// Why a token is left out of a list.
pub(super) const UNREADABLE_TOKEN: SkipReason = SkipReason {
    what: "token",
    why: "it has no readable accessor",
    fix: "see whether what is at the control plane's address changes Consul's answers",
};

/// The same of one that is too large to be kept.
pub(super) const TOO_LARGE_TOKEN: SkipReason = SkipReason {
    what: "token",
    why: "it is larger than 1 MiB",
    fix: "nobody can tell whose it is; look for the one with that long a description, or that many policies",
};

/// Why a service is left out of a list.
pub(super) fn skipped_service(why: &'static str) -> SkipReason {
    SkipReason { what: "service", why, fix: "nobody can tell whose it is; deregister it if it is a leftover" }
}

/// Consul, as far as its tasks' tokens and services go.
pub struct ConsulControlPlane<T: StreamTransport + 'static> {
    pub(super) api: Arc<ConsulApi<T>>,
    pub(super) context: Arc<ClientContext>,
    tokens: Batcher<TokensOfTasks<T>>,
    services: Batcher<ServicesOfCluster<T>>,
    removals: Batcher<RemoveServices<T>>,
    /// Services as they were when they were read, for their removal.
    read_cache: Arc<ReadCache>,
    token_semaphore: Semaphore,
    version: Arc<ArcSwapOption<ConsulVersion>>,
    /// It was told of that the version is not known, or too old.
    warned_of_version: AtomicBool,
}

impl ConsulControlPlane<HttpTransport> {
    /// Prepares a connection; nothing is sent yet, and no secret read. The error names the field of the manifest that
    /// is at fault. The process must have a default rustls provider.
    pub fn connect(
        spec: &ConsulConnection,
        operator: OperatorId,
        observer: Arc<dyn MeshCallObserver>,
        secrets: Arc<dyn Secrets>,
    ) -> Result<Self, String> {
        Ok(Self::new(HttpTransport::with_secrets(settings(spec), secrets)?, spec, operator, observer))
    }
}

impl<T: StreamTransport + 'static> ConsulControlPlane<T> {
    /// A control plane behind this transport, of which nothing is known yet. Of `spec` only the datacenter, partition
    /// and namespaces count.
    pub fn new(
        transport: T,
        spec: &ConsulConnection,
        operator: OperatorId,
        observer: Arc<dyn MeshCallObserver>,
    ) -> Self {
        let scope = ConsulScope::of(spec);
        let methods = [DEFAULT_METHOD, DEFAULT_CLIENT_METHOD].into_iter().map(Into::into).collect();
        let methods = ArcSwap::from_pointee(methods);
        let context = Arc::new(ClientContext {
            operator,
            mesh: scope.mesh(),
            methods,
            observer,
            skipped_items: SkippedItemLog::default(),
            unattributed_tokens: ArcSwap::default(),
        });
        let api = Arc::new(ConsulApi::new(transport, scope));
        let pace = || Some(TokenBucket::new(LISTS_PER_SECOND, LIST_BURST));
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
            tokens: Batcher::new(tokens, MAX_TASKS_PER_SCAN, pace()),
            removals: Batcher::new(removals, TXN_OPERATIONS_SINCE_1_14, None),
            api,
            context,
            services,
            read_cache,
            token_semaphore: Semaphore::new(MAX_TOKEN_DELETES),
            version,
            warned_of_version: AtomicBool::new(false),
        }
    }

    /// From now on the tokens of logins by these auth methods are looked after, instead of [`DEFAULT_METHOD`]'s and
    /// [`DEFAULT_CLIENT_METHOD`]'s.
    pub fn watch_auth_methods(&self, methods: BTreeSet<Arc<str>>) {
        // Two names that differ in case alone are one method's.
        let mut once: BTreeMap<String, Arc<str>> = BTreeMap::new();
        for method in methods {
            once.entry(method.to_ascii_lowercase()).or_insert(method);
        }
        self.context.methods.store(Arc::new(once.into_values().collect()));
    }

    /// The servers' version, once a refresh has learned it.
    pub fn version(&self) -> Option<Arc<ConsulVersion>> {
        self.version.load_full()
    }

    /// The ACL objects, and the nodes, of this part of Consul.
    pub fn objects(&self) -> AclObjects<T> {
        AclObjects::new(Arc::clone(&self.api))
    }

    /// Whose marks count as ours.
    pub fn operator(&self) -> &OperatorId {
        &self.context.operator
    }

    /// The datacenter that the manifest names.
    pub fn datacenter(&self) -> Option<&str> {
        self.api.scope.datacenter()
    }

    /// All datacenters that the servers know of. Needs no permission.
    pub async fn datacenters(&self) -> Result<Vec<String>, MeshError> {
        self.api.get("/v1/catalog/datacenters", "nothing").await
    }

    /// Our own token, as the servers know it.
    pub async fn own_token(&self) -> Result<OwnToken, MeshError> {
        self.api.own_token().await
    }

    /// Does something by further calls, and tells the observer of it as one operation.
    pub async fn observed<R>(
        &self,
        operation: &'static str,
        work: impl Future<Output = Result<R, MeshError>> + Send,
    ) -> Result<R, MeshError> {
        let began = Instant::now();
        let result = work.await;
        self.observe_outcome(operation, result.as_ref().err(), began);
        result
    }

    /// A list of which a part failed has that part's outcome.
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
        self.observe_outcome(operation, error, began);
        result
    }

    fn observe_outcome(&self, operation: &'static str, error: Option<&MeshError>, began: Instant) {
        let outcome = error.map_or("success", |error| error.kind.label());
        self.context.observer.call(operation, outcome, began.elapsed());
    }

    async fn list_owned(
        &self,
        clusters: &BTreeSet<ClusterArn>,
        take: &mut (dyn FnMut(RegistrationSummary) + Send),
    ) -> Result<Vec<FailedSegment>, MeshError> {
        let (mut skipped_items, mut parts) = (SkippedItems::default(), SegmentResults::default());
        tokens::of_clusters(&self.api, &self.context, clusters, &mut skipped_items, &mut parts, take).await;
        for cluster in clusters {
            services::of_cluster(&self.api, &self.context, cluster, &mut skipped_items, &mut parts, take).await;
        }
        let failed = parts.finish()?;
        self.context.skipped_items.report(skipped_items, failed.is_empty());
        Ok(failed)
    }

    async fn find_all(&self, task: &TaskArn) -> Result<PartialList, MeshError> {
        let cluster = task.cluster();
        let services = self.services.ask(cluster.clone(), ServiceQuery::Task(task.id().clone()));
        let (tokens, services) =
            tokio::join!(self.tokens.ask((), WantedToken::OfTask(task.clone())), services);
        if let (Err(tokens), Err(services)) = (&tokens, &services) {
            let errors = [tokens, services].map(|failure| errors::of_batch(failure.clone()));
            // That nobody answers says more than that somebody refuses.
            let unanswered = |error: &MeshError| error.kind != MeshErrorKind::Unreachable;
            return errors.into_iter().min_by_key(unanswered).map_or_else(|| Ok(PartialList::default()), Err);
        }
        let mut all = RegistrationsFound::default();
        let services_at = ConsulSegment::Services { cluster: cluster.clone(), namespace: None };
        for (place, answer) in [(ConsulSegment::Tokens { namespace: None }, tokens), (services_at, services)] {
            match answer.map_err(errors::of_batch) {
                Ok(found) => {
                    all.registrations.extend(found.registrations);
                    all.failed.extend(found.failed);
                }
                Err(error) => all.failed.push(FailedSegment { segment: Arc::new(place), error }),
            }
        }
        let mut seen: Vec<RegistrationSummary> = all.registrations.iter().map(RegistrationSummary::from).collect();
        seen.sort_by(|a, b| a.id.cmp(&b.id));
        seen.dedup_by(|a, b| a.id == b.id);
        Ok(PartialList { seen, failed: all.failed })
    }

    async fn read_one(&self, id: &RegistrationId) -> Result<Option<Registration>, MeshError> {
        match self.handle(id)? {
            ResourceKey::Token { accessor, namespace } => {
                let key = TokenKey { accessor, namespace };
                tokens::look_up(&self.api, &self.context, &self.tokens, &key).await
            }
            ResourceKey::Service { cluster, id, namespace } => {
                let victim = ServiceKey { cluster, id, namespace };
                let found = removal::get_service(&self.api, &self.services, &victim).await?;
                if let Some(found) = &found {
                    self.read_cache.insert(victim, found);
                }
                Ok(found)
            }
        }
    }

    async fn remove(&self, id: &RegistrationId) -> Result<bool, MeshError> {
        match self.handle(id)? {
            ResourceKey::Token { accessor, namespace } => {
                let key = TokenKey { accessor, namespace };
                tokens::remove(&self.api, &self.tokens, &self.token_semaphore, &key).await
            }
            ResourceKey::Service { cluster, id, namespace } => {
                match self.removals.ask((), ServiceKey { cluster, id, namespace }).await {
                    Ok(outcome) => outcome,
                    Err(failure @ (BatchError::Missing | BatchError::Lost)) => {
                        Err(errors::error(MeshErrorKind::Unreachable, failure.to_string()))
                    }
                }
            }
        }
    }

    fn handle(&self, id: &RegistrationId) -> Result<ResourceKey, MeshError> {
        let handle = ResourceKey::parse(&id.name).filter(|_| id.mesh == self.context.mesh);
        handle.ok_or_else(|| {
            errors::error(
                MeshErrorKind::Invalid,
                format!("{id} is nothing that is registered with this Consul"),
            )
        })
    }

    pub(super) async fn load_version(&self) -> Result<Option<ConsulVersion>, MeshError> {
        if let Some((version, _)) = self.agent().await? {
            return Ok(Some(version));
        }
        // Newer servers tell everybody, by a call of its own.
        let path = self.api.scope.path("/v1/agent/version", &[]);
        let said: Option<BuildInfo> = self.api.get(&path, "nothing").await.ok();
        let version = said.and_then(|said| ConsulVersion::parse(&said.human_version));
        if let Some(version) = &version {
            self.version.store(Some(Arc::new(version.clone())));
        }
        Ok(version)
    }

    /// The servers' version, and what the agent says of itself; `None` where the token may not see it, and there are
    /// Consul's servers.
    pub async fn agent(&self) -> Result<Option<(ConsulVersion, Vec<u8>)>, MeshError> {
        let path = self.api.scope.path("/v1/agent/self", &[]);
        let call =
            ConsulCall { method: HttpMethod::Get, path: &path, needs: "agent_prefix \"\" { policy = \"read\" }" };
        let reply = self.api.send(&call, None).await?;
        if reply.head.status == 403 {
            // A token that may look after tasks need not see the agent.
            self.check_leader().await?;
            return Ok(None);
        }
        if !reply.is_ok() {
            return Err(call.refused(&reply));
        }
        let version = ConsulVersion::read(&reply.body).map_err(|why| call.unreadable(&reply.body, why))?;
        self.version.store(Some(Arc::new(version.clone())));
        Ok(Some((version, reply.body)))
    }

    /// An error unless these are Consul's servers and have a leader. Needs no permission.
    async fn check_leader(&self) -> Result<(), MeshError> {
        let path = self.api.scope.path("/v1/status/leader", &[]);
        let leader: String = self.api.get(&path, "nothing").await?;
        if leader.is_empty() {
            return Err(errors::error(
                MeshErrorKind::Unreachable,
                format!("GET {path}: the servers have no leader: see to their quorum"),
            ));
        }
        Ok(())
    }

    async fn load_capabilities(&self) -> Result<(), MeshError> {
        let version = self.load_version().await?;
        // Says whether there are ACLs, and whether our token is one of them.
        self.api.own_token().await?;
        match &version {
            None => self.warn_of_version(
                "the servers' version cannot be read: the token has no `agent_prefix \"\" { policy = \"read\" }`; \
                 taken to be 1.12 or later",
            ),
            Some(version) if !version.has_iam_logins() => self.warn_of_version(
                "older than 1.12, the first Consul with logins by AWS IAM: an answer that the token was kept from \
                 seeing whole cannot be told from a whole one",
            ),
            Some(version) if !version.is_enterprise() && self.api.scope.is_of_enterprise() => {
                return Err(errors::error(
                    MeshErrorKind::Invalid,
                    format!(
                        "Consul {version} is the open-source edition, which has no partitions and namespaces: leave \
                         out ControlPlane.spec.consul.partition and namespaces"
                    ),
                ));
            }
            Some(_) => {}
        }
        Ok(())
    }

    fn warn_of_version(&self, what: &str) {
        if !self.warned_of_version.swap(true, Ordering::Relaxed) {
            tracing::warn!(version = ?self.version().map(|version| version.text.clone()), "{what}");
        }
    }

    async fn known_services(&self) -> Result<BTreeSet<String>, MeshError> {
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

/// Nothing is ever written for a task: whoever asks for it has overlooked
/// [`tasks_register_themselves`](ecs_mesh_api::ControlPlaneType::tasks_register_themselves).
fn unsupported_write() -> MeshError {
    errors::error(
        MeshErrorKind::Invalid,
        "tasks register themselves with Consul: nothing is created, changed or drained for them",
    )
}

#[async_trait]
impl<T: StreamTransport + 'static> ControlPlane for ConsulControlPlane<T> {
    async fn list_owned(
        &self,
        clusters: &BTreeSet<ClusterArn>,
        take: &mut (dyn FnMut(RegistrationSummary) + Send),
    ) -> Result<Vec<FailedSegment>, MeshError> {
        self.observed_list("list_owned", self.list_owned(clusters, take)).await
    }

    async fn list_for_task(&self, task: &TaskArn) -> Result<PartialList, MeshError> {
        self.observed_list("list_for_task", self.find_all(task)).await
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

    fn set_lease(&self, lease: Arc<dyn Lease>) {
        self.api.set_lease(lease);
    }

    /// Services go in transactions, one of which is under way at a time.
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

    /// The names in the catalog. (`mesh` is the partition, of which there is one.)
    async fn list_services(&self, _mesh: &MeshName) -> Result<BTreeSet<String>, MeshError> {
        self.observed("list_services", self.known_services()).await
    }

    async fn refresh_capabilities(&self, _meshes: &BTreeSet<MeshName>) -> Result<(), MeshError> {
        self.observed("refresh_capabilities", self.load_capabilities()).await
    }

    /// Empty: it is never sent.
    fn render(&self, _desired: &DesiredRegistration, _current: Option<&Registration>) -> RenderedRegistration {
        RenderedRegistration { body: Value::Null, normal: Value::Null }
    }

    /// Empty: it is never sent.
    fn render_drained(&self, _current: &Registration, _reason: DrainReason) -> RenderedRegistration {
        RenderedRegistration { body: Value::Null, normal: Value::Null }
    }
}
