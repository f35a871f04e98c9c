//! Services are removed in transactions of many, each only as it was when it was last read, and only while it is whose
//! it was then: one that was registered again since is not touched, and one that is refused holds up no other.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use async_trait::async_trait;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::api::{ConsulApi, ApiReply};
use super::errors::{self, ConsulCall};
use super::resource_key::ResourceKey;
use super::services::{ServicesOfCluster, ServiceQuery};
use super::version::{ConsulVersion, MIN_TXN_OPERATIONS};
use ecs_mesh_control_plane::http::{HttpMethod, StreamTransport};
use ecs_mesh_control_plane::{MeshError, MeshErrorKind, RegistrationOwner, Registration};
use ecs_mesh_controller::{BatchCall, Batcher};
use ecs_mesh_model::ClusterArn;

/// After this many transactions of which some were refused, the rest is removed one by one.
const MAX_TXN_ATTEMPTS: usize = 3;

/// What was read longer ago is read again before it is removed.
const READ_CACHE_TTL: Duration = Duration::from_mins(1);
/// Whose it was is remembered for longer.
const OWNER_CACHE_TTL: Duration = Duration::from_mins(10);
/// So many that were read are remembered.
const MAX_CACHED_SERVICES: usize = 10_000;

const NEEDS: &str = "node_prefix \"\" { policy = \"read\" } service_prefix \"\" { policy = \"write\" }";

/// A service to remove.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ServiceKey {
    pub(super) cluster: ClusterArn,
    pub(super) id: Arc<str>,
    pub(super) namespace: Option<Arc<str>>,
}

/// As it was when it was read.
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

/// What was read of services a short while ago.
#[derive(Default)]
pub(super) struct ReadCache(Mutex<ReadCacheInner>);

#[derive(Default)]
struct ReadCacheInner {
    versions: BTreeMap<ServiceKey, (ServiceVersion, Instant)>,
    /// In the order in which they were read; what was read again is here twice.
    order: VecDeque<(ServiceKey, Instant)>,
}

impl ReadCache {
    fn lock(&self) -> MutexGuard<'_, ReadCacheInner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers what was read.
    pub(super) fn insert(&self, victim: ServiceKey, registration: &Registration) {
        let Some(version) = ServiceVersion::of(registration) else { return };
        let (now, mut read_cache) = (Instant::now(), self.lock());
        read_cache.versions.insert(victim.clone(), (version, now));
        read_cache.order.push_back((victim, now));
        while let Some((_, since)) = read_cache.order.front()
            && (since.elapsed() >= OWNER_CACHE_TTL || read_cache.order.len() > MAX_CACHED_SERVICES)
        {
            let Some((victim, since)) = read_cache.order.pop_front() else { break };
            // It may have been read again since.
            if read_cache.versions.get(&victim).is_some_and(|(_, last)| *last == since) {
                read_cache.versions.remove(&victim);
            }
        }
    }

    /// As it was last read, and whether that was a short while ago.
    fn take(&self, victim: &ServiceKey) -> Option<(ServiceVersion, bool)> {
        let (version, since) = self.lock().versions.remove(victim)?;
        Some((version, since.elapsed() < READ_CACHE_TTL))
    }
}

/// Removes many services at once.
pub(super) struct RemoveServices<T: StreamTransport + 'static> {
    pub(super) api: Arc<ConsulApi<T>>,
    pub(super) services: Batcher<ServicesOfCluster<T>>,
    pub(super) read_cache: Arc<ReadCache>,
    /// As far as it is known: it says how many a transaction may hold.
    pub(super) version: Arc<ArcSwapOption<ConsulVersion>>,
}

/// What became of one.
type RemovalResult = Result<bool, MeshError>;

#[async_trait]
impl<T: StreamTransport + 'static> BatchCall for RemoveServices<T> {
    type Group = ();
    type Request = ServiceKey;
    type Response = RemovalResult;
    /// What befalls a call befalls each service by itself.
    type Error = std::convert::Infallible;

    async fn call(&self, _all: &(), victims: Vec<ServiceKey>) -> Result<BTreeMap<ServiceKey, RemovalResult>, Self::Error> {
        let (mut done, mut open, mut unread) = (BTreeMap::new(), Vec::new(), BTreeMap::new());
        for victim in victims {
            match self.read_cache.take(&victim) {
                Some((version, true)) => open.push((victim, version)),
                Some((version, false)) => drop(unread.insert(victim, Some(version.owner))),
                None => drop(unread.insert(victim, None)),
            }
        }
        for (victim, version) in self.versions(unread.keys().cloned().collect()).await {
            match version {
                Ok(Some(version)) if unread.get(&victim).and_then(Option::as_ref) == Some(&version.owner) => {
                    open.push((victim, version));
                }
                // Somebody else may have it by now, and whoever asks for its removal looks whose it is.
                Ok(Some(_)) => drop(done.insert(victim.clone(), Err(changed(&victim)))),
                Ok(None) => drop(done.insert(victim, Ok(false))),
                Err(error) => drop(done.insert(victim, Err(error))),
            }
        }
        let most = self.version.load().as_ref().map_or(MIN_TXN_OPERATIONS, |version| version.max_txn_operations());
        while !open.is_empty() {
            let rest = open.split_off(most.min(open.len()));
            self.remove(open, &mut done).await;
            open = rest;
        }
        Ok(done)
    }
}

impl<T: StreamTransport + 'static> RemoveServices<T> {
    /// As many as a transaction may hold.
    async fn remove(&self, mut open: Vec<(ServiceKey, ServiceVersion)>, done: &mut BTreeMap<ServiceKey, RemovalResult>) {
        for _ in 0..MAX_TXN_ATTEMPTS {
            if open.is_empty() {
                return;
            }
            open = self.transaction(open, done).await;
        }
        self.remove_individually(open, true, done).await;
    }

    /// Each by itself, by transactions or without, for as long as the servers answer: a server that hangs would take its
    /// time for every one of them.
    async fn remove_individually(
        &self,
        open: Vec<(ServiceKey, ServiceVersion)>,
        by_transaction: bool,
        done: &mut BTreeMap<ServiceKey, RemovalResult>,
    ) {
        let mut aborted: Option<MeshError> = None;
        for (victim, version) in open {
            if let Some(error) = &aborted {
                done.insert(victim, Err(error.clone()));
                continue;
            }
            if by_transaction {
                // Of one alone nothing is given back.
                Box::pin(self.transaction(vec![(victim.clone(), version)], done)).await;
            } else {
                let outcome = self.deregister(&victim, &version).await;
                done.insert(victim.clone(), outcome);
            }
            if let Some(Err(error)) = done.get(&victim)
                && error.kind.affects_all_calls()
            {
                aborted = Some(error.clone());
            }
        }
    }

    /// One transaction. What was refused for no fault of its own is given back, to be tried again.
    async fn transaction(
        &self,
        open: Vec<(ServiceKey, ServiceVersion)>,
        done: &mut BTreeMap<ServiceKey, RemovalResult>,
    ) -> Vec<(ServiceKey, ServiceVersion)> {
        let path = self.api.scope.path("/v1/txn", &[]);
        let call = ConsulCall { method: HttpMethod::Put, path: &path, needs: NEEDS };
        let operations: Vec<Value> =
            open.iter().map(|(victim, version)| self.operation(victim, version)).collect();
        let body = Value::from(operations).to_string().into_bytes();
        let refusal = match self.api.send(&call, Some(body)).await {
            Ok(reply) if reply.is_ok() => {
                done.extend(open.into_iter().map(|(victim, _)| (victim, Ok(true))));
                return Vec::new();
            }
            Ok(reply) => reply,
            Err(error) => {
                done.extend(open.into_iter().map(|(victim, _)| (victim, Err(error.clone()))));
                return Vec::new();
            }
        };
        let reasons = reasons(&refusal, open.len());
        if reasons.is_empty() {
            return self.fail_all(&call, &refusal, open, done).await;
        }
        let (mut again, mut stale) = (Vec::new(), Vec::new());
        for (at, (victim, version)) in open.into_iter().enumerate() {
            match reasons.get(&at) {
                None => again.push((victim, version)),
                Some(reason) if is_denied(reason) => {
                    let error = denied(&call, &victim, reason);
                    done.insert(victim, Err(error));
                }
                Some(reason) => stale.push((victim, version, reason)),
            }
        }
        let now = self.versions(stale.iter().map(|(victim, ..)| victim.clone()).collect()).await;
        for (victim, version, reason) in stale {
            let outcome = match now.get(&victim) {
                Some(Ok(None)) => Ok(false),
                Some(Ok(Some(now))) if *now != version => Err(changed(&victim)),
                Some(Err(error)) => Err(error.clone()),
                Some(Ok(Some(_))) | None => Err(errors::error(
                    MeshErrorKind::Invalid,
                    format!(
                        "{call}: the service {} on {} was not removed: {reason}",
                        victim.id, victim.cluster
                    ),
                )),
            };
            done.insert(victim, outcome);
        }
        again
    }

    /// The transaction was refused, and not for single operations.
    async fn fail_all(
        &self,
        call: &ConsulCall<'_>,
        refusal: &ApiReply,
        open: Vec<(ServiceKey, ServiceVersion)>,
        done: &mut BTreeMap<ServiceKey, RemovalResult>,
    ) -> Vec<(ServiceKey, ServiceVersion)> {
        let error = call.refused(refusal);
        match refusal.head.status {
            // A server, or something before it, that knows no transactions.
            404 | 405 | 501 => {
                self.remove_individually(open, false, done).await;
            }
            // One of them may be at fault: each by itself then, as long as that makes a difference.
            400 | 413 | 500 if open.len() > 1 && error.kind == MeshErrorKind::Invalid => {
                self.remove_individually(open, true, done).await;
            }
            // What is removed by itself has no body that could be wrong: it may be over later.
            500 if error.kind == MeshErrorKind::Invalid => {
                let error = MeshError { kind: MeshErrorKind::ServerError, ..error };
                done.extend(open.into_iter().map(|(victim, _)| (victim, Err(error.clone()))));
            }
            _ => done.extend(open.into_iter().map(|(victim, _)| (victim, Err(error.clone())))),
        }
        Vec::new()
    }

    /// Without a transaction. It cannot be made to depend on what was read; so it is read again right before.
    async fn deregister(&self, victim: &ServiceKey, version: &ServiceVersion) -> RemovalResult {
        match self.versions(vec![victim.clone()]).await.remove(victim).transpose()?.flatten() {
            None => return Ok(false),
            Some(now) if now != *version => return Err(changed(victim)),
            Some(_) => {}
        }
        let mut body = json!({"Node": victim.cluster.as_str(), "ServiceID": &*victim.id});
        self.place(&mut body, victim);
        let path = self.api.scope.path("/v1/catalog/deregister", &[]);
        self.api.put::<bool>(&path, NEEDS, body.to_string().into_bytes()).await
    }

    fn operation(&self, victim: &ServiceKey, version: &ServiceVersion) -> Value {
        let mut service = json!({
            "ID": &*victim.id, "Service": &*version.service, "ModifyIndex": version.modify_index,
        });
        self.place(&mut service, victim);
        json!({"Service": {"Verb": "delete-cas", "Node": victim.cluster.as_str(), "Service": service}})
    }

    /// Enterprise: which of several of the same name.
    fn place(&self, body: &mut Value, victim: &ServiceKey) {
        if let Some(namespace) = &victim.namespace {
            body["Namespace"] = (&**namespace).into();
        }
        if let Some(partition) = self.api.scope.partition() {
            body["Partition"] = partition.into();
        }
    }

    /// As the server has them now.
    async fn versions(&self, victims: Vec<ServiceKey>) -> BTreeMap<ServiceKey, Result<Option<ServiceVersion>, MeshError>> {
        let mut asked = JoinSet::new();
        for victim in victims {
            let (api, services) = (Arc::clone(&self.api), self.services.clone());
            asked.spawn(async move {
                let found = get_service(&api, &services, &victim).await;
                (victim, found.map(|found| found.as_ref().and_then(ServiceVersion::of)))
            });
        }
        asked.join_all().await.into_iter().collect()
    }
}

/// The server's current copy of one service.
pub(super) async fn get_service<T: StreamTransport + 'static>(
    api: &ConsulApi<T>,
    services: &Batcher<ServicesOfCluster<T>>,
    victim: &ServiceKey,
) -> Result<Option<Registration>, MeshError> {
    let wanted = ServiceQuery::One { id: Arc::clone(&victim.id), namespace: victim.namespace.clone() };
    let found = services.ask(victim.cluster.clone(), wanted).await.map_err(errors::of_batch)?;
    let registration = found.registrations.into_iter().next();
    if registration.is_none() {
        let id = ResourceKey::Service {
            cluster: victim.cluster.clone(),
            id: Arc::clone(&victim.id),
            namespace: victim.namespace.clone(),
        };
        let id = id.in_mesh(api.scope.mesh());
        if let Some(failed) = found.failed.into_iter().find(|failed| failed.segment.contains(&id)) {
            return Err(failed.error);
        }
        // A token that may see nothing sees nothing.
        api.check_own_token_cached().await?;
    }
    Ok(registration)
}

fn is_denied(reason: &str) -> bool {
    reason.contains("Permission denied") || reason.contains("ACL not found")
}

fn denied(call: &ConsulCall<'_>, victim: &ServiceKey, reason: &str) -> MeshError {
    let message = format!(
        "{call}: the service {} on {} was not removed ({reason}); the token that ControlPlane.spec.consul names needs \
         `{NEEDS}`: add that to one of its policies",
        victim.id, victim.cluster
    );
    errors::error(MeshErrorKind::Forbidden, message)
}

fn changed(victim: &ServiceKey) -> MeshError {
    let message = format!(
        "the service {} on {} was registered again since it was read, and is left as it is",
        victim.id, victim.cluster
    );
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

/// Why single operations were refused.
fn reasons(reply: &ApiReply, operations: usize) -> BTreeMap<usize, String> {
    if reply.head.status != 409 {
        return BTreeMap::new();
    }
    let refusal: Option<TxnErrors> = serde_json::from_slice(&reply.body).ok();
    let reasons = refusal.into_iter().flat_map(|refusal| refusal.errors);
    reasons
        .filter(|reason| reason.op_index < operations)
        .map(|reason| (reason.op_index, reason.what))
        .collect()
}
