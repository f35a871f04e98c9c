//! Removes services in batched transactions. A service is removed only in the version and with the owner that were last
//! read: a service that was registered again is kept, and a rejected removal does not affect the others.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use async_trait::async_trait;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::api::ConsulApi;
use super::errors::{self, ConsulCall};
use super::reply::ApiReply;
use super::resource_key::ResourceKey;
use super::services::{ServiceQuery, ServicesOfCluster};
use super::version::{ConsulVersion, MIN_TXN_OPERATIONS};
use ecs_mesh_control_plane::http::{HttpMethod, StreamTransport, quote};
use ecs_mesh_control_plane::{MeshError, MeshErrorKind, Registration, RegistrationOwner};
use ecs_mesh_controller::{BatchCall, Batcher, FencingToken, WriteObstacle};
use ecs_mesh_model::ClusterArn;

/// After this many partially rejected transactions, the remaining services are removed individually.
const MAX_TXN_ATTEMPTS: usize = 3;

/// A service whose last read is older is read again before its removal.
const READ_CACHE_TTL: Duration = Duration::from_mins(1);
/// The owner at the last read is kept for longer.
const OWNER_CACHE_TTL: Duration = Duration::from_mins(10);
/// The maximum number of cached services.
const MAX_CACHED_SERVICES: usize = 10_000;

const NEEDS: &str = "node_prefix \"\" { policy = \"read\" } service_prefix \"\" { policy = \"write\" }";

/// A service to remove.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ServiceKey {
    pub(super) cluster: ClusterArn,
    pub(super) id: Arc<str>,
    pub(super) namespace: Option<Arc<str>>,
}

/// The version of a service that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
struct ServiceVersion {
    service: Arc<str>,
    modify_index: u64,
    owner: RegistrationOwner,
}

impl ServiceVersion {
    fn of(registration: &Registration) -> Option<Self> {
        Some(Self {
            service: registration.service.clone()?,
            modify_index: registration.stored.get("ModifyIndex")?.as_u64()?,
            owner: registration.owner.clone(),
        })
    }
}

/// The recently read versions of services.
#[derive(Default)]
pub(super) struct ReadCache(Mutex<ReadCacheInner>);

#[derive(Default)]
struct ReadCacheInner {
    versions: BTreeMap<ServiceKey, (ServiceVersion, Instant)>,
    /// The keys in the order of their reads; a key that was read again appears twice.
    order: VecDeque<(ServiceKey, Instant)>,
}

impl ReadCache {
    fn lock(&self) -> MutexGuard<'_, ReadCacheInner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Caches the version that was read.
    pub(super) fn insert(&self, key: ServiceKey, registration: &Registration) {
        let Some(version) = ServiceVersion::of(registration) else { return };
        let (now, mut cache) = (Instant::now(), self.lock());
        cache.versions.insert(key.clone(), (version, now));
        cache.order.push_back((key, now));
        while let Some((_, since)) = cache.order.front()
            && (since.elapsed() >= OWNER_CACHE_TTL || cache.order.len() > MAX_CACHED_SERVICES)
        {
            let Some((key, since)) = cache.order.pop_front() else { break };
            // The service may have been read again since.
            if cache.versions.get(&key).is_some_and(|(_, last)| *last == since) {
                cache.versions.remove(&key);
            }
        }
    }

    /// Takes the last read version, and whether it is recent enough for a removal.
    fn take(&self, key: &ServiceKey) -> Option<(ServiceVersion, bool)> {
        let (version, since) = self.lock().versions.remove(key)?;
        Some((version, since.elapsed() < READ_CACHE_TTL))
    }
}

/// Removes batches of services.
pub(super) struct RemoveServices<T: StreamTransport + 'static> {
    pub(super) api: Arc<ConsulApi<T>>,
    pub(super) services: Batcher<ServicesOfCluster<T>>,
    pub(super) read_cache: Arc<ReadCache>,
    /// The servers' version, if known; it decides the size of a transaction.
    pub(super) version: Arc<ArcSwapOption<ConsulVersion>>,
}

/// The result of one removal.
type RemovalResult = Result<bool, MeshError>;

#[async_trait]
impl<T: StreamTransport + 'static> BatchCall for RemoveServices<T> {
    type Group = ();
    type Request = ServiceKey;
    type Response = RemovalResult;
    /// An error is reported for each service.
    type Error = std::convert::Infallible;

    async fn call(
        &self,
        _all: &(),
        keys: Vec<ServiceKey>,
    ) -> Result<BTreeMap<ServiceKey, RemovalResult>, Self::Error> {
        let (mut done, mut open, mut unread) = (BTreeMap::new(), Vec::new(), BTreeMap::new());
        for key in keys {
            match self.read_cache.take(&key) {
                Some((version, true)) => open.push((key, version)),
                Some((version, false)) => drop(unread.insert(key, Some(version.owner))),
                None => drop(unread.insert(key, None)),
            }
        }
        for (key, version) in self.read_versions(unread.keys().cloned().collect()).await {
            match version {
                Ok(Some(version)) if unread.get(&key).and_then(Option::as_ref) == Some(&version.owner) => {
                    open.push((key, version));
                }
                // The service may have another owner now: the caller reads it again and checks the owner.
                Ok(Some(_)) => drop(done.insert(key.clone(), Err(changed(&key)))),
                Ok(None) => drop(done.insert(key, Ok(false))),
                Err(error) => drop(done.insert(key, Err(error))),
            }
        }
        let max_operations =
            self.version.load().as_ref().map_or(MIN_TXN_OPERATIONS, |version| version.max_txn_operations());
        let max_services = max_operations - usize::from(self.api.fencing_token().is_some());
        while !open.is_empty() {
            let rest = open.split_off(max_services.min(open.len()));
            self.remove(open, &mut done).await;
            open = rest;
        }
        Ok(done)
    }
}

impl<T: StreamTransport + 'static> RemoveServices<T> {
    /// Removes the services of one transaction.
    async fn remove(
        &self,
        mut open: Vec<(ServiceKey, ServiceVersion)>,
        done: &mut BTreeMap<ServiceKey, RemovalResult>,
    ) {
        for _ in 0..MAX_TXN_ATTEMPTS {
            if open.is_empty() {
                return;
            }
            open = self.transaction(open, done).await;
        }
        self.remove_individually(open, true, done).await;
    }

    /// Removes each service with a call of its own. Stops when the servers no longer respond: a hung server would use up
    /// the time limit of each service.
    async fn remove_individually(
        &self,
        open: Vec<(ServiceKey, ServiceVersion)>,
        in_transaction: bool,
        done: &mut BTreeMap<ServiceKey, RemovalResult>,
    ) {
        let mut aborted: Option<MeshError> = None;
        for (key, version) in open {
            if let Some(error) = &aborted {
                done.insert(key, Err(error.clone()));
                continue;
            }
            if in_transaction {
                // A transaction of one service returns none to retry.
                Box::pin(self.transaction(vec![(key.clone(), version)], done)).await;
            } else {
                let result = self.deregister(&key, &version).await;
                done.insert(key.clone(), result);
            }
            if let Some(Err(error)) = done.get(&key)
                && error.kind.affects_all_calls()
            {
                aborted = Some(error.clone());
            }
        }
    }

    /// Sends one transaction. Returns the services that were rolled back because of others, for another attempt.
    async fn transaction(
        &self,
        open: Vec<(ServiceKey, ServiceVersion)>,
        done: &mut BTreeMap<ServiceKey, RemovalResult>,
    ) -> Vec<(ServiceKey, ServiceVersion)> {
        let path = self.api.scope.path("/v1/txn", &[]);
        let call = ConsulCall { method: HttpMethod::Put, path: &path, needs: NEEDS };
        let mut operations: Vec<Value> =
            open.iter().map(|(key, version)| self.operation(key, version)).collect();
        // Last, so that the others keep their indexes.
        operations.extend(self.api.fencing_token().as_ref().map(fence));
        let count = operations.len();
        let body = Value::from(operations).to_string().into_bytes();
        let rejection = match self.api.send(&call, Some(body)).await {
            Ok(reply) if reply.is_ok() => {
                done.extend(open.into_iter().map(|(key, _)| (key, Ok(true))));
                return Vec::new();
            }
            Ok(reply) => reply,
            Err(error) => {
                done.extend(open.into_iter().map(|(key, _)| (key, Err(error.clone()))));
                return Vec::new();
            }
        };
        let reasons = reasons(&rejection, count);
        if reasons.is_empty() {
            return self.handle_rejection(&call, &rejection, open, done).await;
        }
        if let Some(reason) = reasons.get(&open.len()) {
            let error = fenced(&call, reason);
            done.extend(open.into_iter().map(|(key, _)| (key, Err(error.clone()))));
            return Vec::new();
        }
        let (mut retry, mut stale) = (Vec::new(), Vec::new());
        for (index, (key, version)) in open.into_iter().enumerate() {
            match reasons.get(&index) {
                None => retry.push((key, version)),
                Some(reason) if is_denied(reason) => {
                    let error = denied(&call, &key, reason);
                    done.insert(key, Err(error));
                }
                Some(reason) => stale.push((key, version, reason)),
            }
        }
        let current = self.read_versions(stale.iter().map(|(key, ..)| key.clone()).collect()).await;
        for (key, version, reason) in stale {
            let result = match current.get(&key) {
                Some(Ok(None)) => Ok(false),
                Some(Ok(Some(current))) if *current != version => Err(changed(&key)),
                Some(Err(error)) => Err(error.clone()),
                Some(Ok(Some(_))) | None => Err(errors::error(
                    MeshErrorKind::Invalid,
                    format!("{call}: removing the service {} on {}: {}", key.id, key.cluster, quote(reason)),
                )),
            };
            done.insert(key, result);
        }
        retry
    }

    /// Handles a transaction that was rejected as a whole and not because of single operations.
    async fn handle_rejection(
        &self,
        call: &ConsulCall<'_>,
        rejection: &ApiReply,
        open: Vec<(ServiceKey, ServiceVersion)>,
        done: &mut BTreeMap<ServiceKey, RemovalResult>,
    ) -> Vec<(ServiceKey, ServiceVersion)> {
        let error = call.status_error(rejection);
        match rejection.head.status {
            // The server, or a proxy before it, does not support transactions.
            404 | 405 | 501 => {
                self.remove_individually(open, false, done).await;
            }
            // One operation may be the cause: remove each service in a transaction of its own.
            400 | 413 | 500 if open.len() > 1 && error.kind == MeshErrorKind::Invalid => {
                self.remove_individually(open, true, done).await;
            }
            // A single removal has no body that could be invalid, so the error may be temporary.
            500 if error.kind == MeshErrorKind::Invalid => {
                let error = MeshError { kind: MeshErrorKind::ServerError, ..error };
                done.extend(open.into_iter().map(|(key, _)| (key, Err(error.clone()))));
            }
            _ => done.extend(open.into_iter().map(|(key, _)| (key, Err(error.clone())))),
        }
        Vec::new()
    }

    /// Removes a service without a transaction. The call has no condition on the version, so the service is read again
    /// right before.
    async fn deregister(&self, key: &ServiceKey, version: &ServiceVersion) -> RemovalResult {
        match self.read_versions(vec![key.clone()]).await.remove(key).transpose()?.flatten() {
            None => return Ok(false),
            Some(current) if current != *version => return Err(changed(key)),
            Some(_) => {}
        }
        let mut body = json!({"Node": key.cluster.as_str(), "ServiceID": &*key.id});
        self.add_scope(&mut body, key);
        let path = self.api.scope.path("/v1/catalog/deregister", &[]);
        self.api.put::<bool>(&path, NEEDS, body.to_string().into_bytes()).await
    }

    fn operation(&self, key: &ServiceKey, version: &ServiceVersion) -> Value {
        let mut service = json!({
            "ID": &*key.id, "Service": &*version.service, "ModifyIndex": version.modify_index,
        });
        self.add_scope(&mut service, key);
        json!({"Service": {"Verb": "delete-cas", "Node": key.cluster.as_str(), "Service": service}})
    }

    /// Enterprise: adds namespace and partition.
    fn add_scope(&self, body: &mut Value, key: &ServiceKey) {
        if let Some(namespace) = &key.namespace {
            body["Namespace"] = (&**namespace).into();
        }
        if let Some(partition) = self.api.scope.partition() {
            body["Partition"] = partition.into();
        }
    }

    /// Reads the current versions of services.
    async fn read_versions(
        &self,
        keys: Vec<ServiceKey>,
    ) -> BTreeMap<ServiceKey, Result<Option<ServiceVersion>, MeshError>> {
        let mut reads = JoinSet::new();
        for key in keys {
            let (api, services) = (Arc::clone(&self.api), self.services.clone());
            reads.spawn(async move {
                let registration = get_service(&api, &services, &key).await;
                (key, registration.map(|registration| registration.as_ref().and_then(ServiceVersion::of)))
            });
        }
        reads.join_all().await.into_iter().collect()
    }
}

/// Reads the server's current copy of one service.
pub(super) async fn get_service<T: StreamTransport + 'static>(
    api: &ConsulApi<T>,
    services: &Batcher<ServicesOfCluster<T>>,
    key: &ServiceKey,
) -> Result<Option<Registration>, MeshError> {
    let query = ServiceQuery::One { id: Arc::clone(&key.id), namespace: key.namespace.clone() };
    let found = services.ask(key.cluster.clone(), query).await.map_err(errors::of_batch)?;
    let registration = found.registrations.into_iter().next();
    if registration.is_none() {
        let id = ResourceKey::Service {
            cluster: key.cluster.clone(),
            id: Arc::clone(&key.id),
            namespace: key.namespace.clone(),
        };
        let id = id.in_mesh(api.scope.mesh());
        if let Some(failed) = found.failed.into_iter().find(|failed| failed.segment.contains(&id)) {
            return Err(failed.error);
        }
        // A server that does not know the own token returns an empty list.
        api.check_own_token_cached().await?;
    }
    Ok(registration)
}

/// The operation that fails unless this process's session has the lease's lock.
fn fence(token: &FencingToken) -> Value {
    json!({"KV": {"Verb": "check-session", "Key": &*token.lock, "Session": &*token.holder}})
}

/// The error of a transaction whose fence failed: nothing was removed.
fn fenced(call: &ConsulCall<'_>, reason: &str) -> MeshError {
    if is_denied(reason) {
        let message = format!(
            "{call}: checking the lease: {}; help: the token of ControlPlane.spec.consul needs `key \"KEY\" {{ policy = \
             \"read\" }}` for the key of the lease",
            quote(reason)
        );
        return errors::error(MeshErrorKind::Forbidden, message);
    }
    call.obstructed(WriteObstacle::NotLeader)
}

fn is_denied(reason: &str) -> bool {
    reason.contains("Permission denied") || reason.contains("ACL not found")
}

fn denied(call: &ConsulCall<'_>, key: &ServiceKey, reason: &str) -> MeshError {
    let message = format!(
        "{call}: removing the service {} on {}: {}; help: the token of ControlPlane.spec.consul needs `{NEEDS}`; add it \
         to one of its policies",
        key.id,
        key.cluster,
        quote(reason)
    );
    errors::error(MeshErrorKind::Forbidden, message)
}

fn changed(key: &ServiceKey) -> MeshError {
    let message = format!("the service {} on {} changed since it was read; not removed", key.id, key.cluster);
    errors::error(MeshErrorKind::Conflict, message)
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct TxnErrors {
    errors: Vec<TxnError>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct TxnError {
    op_index: usize,
    what: String,
}

/// The reasons of rejected operations, by index.
fn reasons(reply: &ApiReply, operations: usize) -> BTreeMap<usize, String> {
    if reply.head.status != 409 {
        return BTreeMap::new();
    }
    let rejection: Option<TxnErrors> = serde_json::from_slice(&reply.body).ok();
    let reasons = rejection.into_iter().flat_map(|rejection| rejection.errors);
    reasons
        .filter(|reason| reason.op_index < operations)
        .map(|reason| (reason.op_index, reason.what))
        .collect()
}
