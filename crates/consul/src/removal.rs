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

use super::api::{Api, Reply};
use super::errors::{self, Call};
use super::handle::Handle;
use super::services::{ServicesOfCluster, Wanted};
use super::version::{ConsulVersion, OPERATIONS_OF_ALL};
use ecs_mesh_control_plane::http::{Method, StreamTransport};
use ecs_mesh_control_plane::{MeshError, MeshErrorKind, Owner, Registration};
use ecs_mesh_controller::{BatchCall, Batcher};
use ecs_mesh_model::ClusterArn;

/// After this many transactions of which some were refused, the rest is removed one by one.
const MOST_ROUNDS: usize = 3;

/// What was read longer ago is read again before it is removed.
const FRESH_FOR: Duration = Duration::from_mins(1);
/// Whose it was is remembered for longer.
const REMEMBERED_FOR: Duration = Duration::from_mins(10);
/// So many that were read are remembered.
const MOST_REMEMBERED: usize = 10_000;

const NEEDS: &str = "node_prefix \"\" { policy = \"read\" } service_prefix \"\" { policy = \"write\" }";

/// A service to remove.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Victim {
    pub(super) cluster: ClusterArn,
    pub(super) id: Arc<str>,
    pub(super) namespace: Option<Arc<str>>,
}

/// As it was when it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Version {
    service: Arc<str>,
    modify_index: u64,
    owner: Owner,
}

impl Version {
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
pub(super) struct Seen(Mutex<SeenServices>);

#[derive(Default)]
struct SeenServices {
    versions: BTreeMap<Victim, (Version, Instant)>,
    /// In the order in which they were read; what was read again is here twice.
    order: VecDeque<(Victim, Instant)>,
}

impl Seen {
    fn lock(&self) -> MutexGuard<'_, SeenServices> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers what was read.
    pub(super) fn keep(&self, victim: Victim, registration: &Registration) {
        let Some(version) = Version::of(registration) else { return };
        let (now, mut seen) = (Instant::now(), self.lock());
        seen.versions.insert(victim.clone(), (version, now));
        seen.order.push_back((victim, now));
        while let Some((_, since)) = seen.order.front()
            && (since.elapsed() >= REMEMBERED_FOR || seen.order.len() > MOST_REMEMBERED)
        {
            let Some((victim, since)) = seen.order.pop_front() else { break };
            // It may have been read again since.
            if seen.versions.get(&victim).is_some_and(|(_, last)| *last == since) {
                seen.versions.remove(&victim);
            }
        }
    }

    /// As it was last read, and whether that was a short while ago.
    fn take(&self, victim: &Victim) -> Option<(Version, bool)> {
        let (version, since) = self.lock().versions.remove(victim)?;
        Some((version, since.elapsed() < FRESH_FOR))
    }
}

/// Removes many services at once.
pub(super) struct RemoveServices<T: StreamTransport + 'static> {
    pub(super) api: Arc<Api<T>>,
    pub(super) services: Batcher<ServicesOfCluster<T>>,
    pub(super) seen: Arc<Seen>,
    /// As far as it is known: it says how many a transaction may hold.
    pub(super) version: Arc<ArcSwapOption<ConsulVersion>>,
}

/// What became of one.
type Outcome = Result<bool, MeshError>;

#[async_trait]
impl<T: StreamTransport + 'static> BatchCall for RemoveServices<T> {
    type Group = ();
    type Request = Victim;
    type Response = Outcome;
    /// What befalls a call befalls each service by itself.
    type Error = std::convert::Infallible;

    async fn call(&self, _all: &(), victims: Vec<Victim>) -> Result<BTreeMap<Victim, Outcome>, Self::Error> {
        let (mut done, mut open, mut unread) = (BTreeMap::new(), Vec::new(), BTreeMap::new());
        for victim in victims {
            match self.seen.take(&victim) {
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
        let most = self.version.load().as_ref().map_or(OPERATIONS_OF_ALL, |version| version.operations());
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
    async fn remove(&self, mut open: Vec<(Victim, Version)>, done: &mut BTreeMap<Victim, Outcome>) {
        for _ in 0..MOST_ROUNDS {
            if open.is_empty() {
                return;
            }
            open = self.round(open, done).await;
        }
        self.one_by_one(open, true, done).await;
    }

    /// Each by itself, by transactions or without, for as long as the servers answer: a server that hangs would take its
    /// time for every one of them.
    async fn one_by_one(
        &self,
        open: Vec<(Victim, Version)>,
        by_transaction: bool,
        done: &mut BTreeMap<Victim, Outcome>,
    ) {
        let mut given_up: Option<MeshError> = None;
        for (victim, version) in open {
            if let Some(error) = &given_up {
                done.insert(victim, Err(error.clone()));
                continue;
            }
            if by_transaction {
                // Of one alone nothing is given back.
                Box::pin(self.round(vec![(victim.clone(), version)], done)).await;
            } else {
                let outcome = self.deregister(&victim, &version).await;
                done.insert(victim.clone(), outcome);
            }
            if let Some(Err(error)) = done.get(&victim)
                && error.kind.is_of_the_servers()
            {
                given_up = Some(error.clone());
            }
        }
    }

    /// One transaction. What was refused for no fault of its own is given back, to be tried again.
    async fn round(
        &self,
        open: Vec<(Victim, Version)>,
        done: &mut BTreeMap<Victim, Outcome>,
    ) -> Vec<(Victim, Version)> {
        let path = self.api.scope.path("/v1/txn", &[]);
        let call = Call { method: Method::Put, path: &path, needs: NEEDS };
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
            return self.without_reasons(&call, &refusal, open, done).await;
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
    async fn without_reasons(
        &self,
        call: &Call<'_>,
        refusal: &Reply,
        open: Vec<(Victim, Version)>,
        done: &mut BTreeMap<Victim, Outcome>,
    ) -> Vec<(Victim, Version)> {
        let error = call.refused(refusal);
        match refusal.head.status {
            // A server, or something before it, that knows no transactions.
            404 | 405 | 501 => {
                self.one_by_one(open, false, done).await;
            }
            // One of them may be at fault: each by itself then, as long as that makes a difference.
            400 | 413 | 500 if open.len() > 1 && error.kind == MeshErrorKind::Invalid => {
                self.one_by_one(open, true, done).await;
            }
            // What is removed by itself has no body that could be wrong: it may be over later.
            500 if error.kind == MeshErrorKind::Invalid => {
                let error = MeshError { kind: MeshErrorKind::Failed, ..error };
                done.extend(open.into_iter().map(|(victim, _)| (victim, Err(error.clone()))));
            }
            _ => done.extend(open.into_iter().map(|(victim, _)| (victim, Err(error.clone())))),
        }
        Vec::new()
    }

    /// Without a transaction. It cannot be made to depend on what was read; so it is read again right before.
    async fn deregister(&self, victim: &Victim, version: &Version) -> Outcome {
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

    fn operation(&self, victim: &Victim, version: &Version) -> Value {
        let mut service = json!({
            "ID": &*victim.id, "Service": &*version.service, "ModifyIndex": version.modify_index,
        });
        self.place(&mut service, victim);
        json!({"Service": {"Verb": "delete-cas", "Node": victim.cluster.as_str(), "Service": service}})
    }

    /// Enterprise: which of several of the same name.
    fn place(&self, body: &mut Value, victim: &Victim) {
        if let Some(namespace) = &victim.namespace {
            body["Namespace"] = (&**namespace).into();
        }
        if let Some(partition) = self.api.scope.partition() {
            body["Partition"] = partition.into();
        }
    }

    /// As the server has them now.
    async fn versions(&self, victims: Vec<Victim>) -> BTreeMap<Victim, Result<Option<Version>, MeshError>> {
        let mut asked = JoinSet::new();
        for victim in victims {
            let (api, services) = (Arc::clone(&self.api), self.services.clone());
            asked.spawn(async move {
                let found = look_up(&api, &services, &victim).await;
                (victim, found.map(|found| found.as_ref().and_then(Version::of)))
            });
        }
        asked.join_all().await.into_iter().collect()
    }
}

/// The server's current copy of one service.
pub(super) async fn look_up<T: StreamTransport + 'static>(
    api: &Api<T>,
    services: &Batcher<ServicesOfCluster<T>>,
    victim: &Victim,
) -> Result<Option<Registration>, MeshError> {
    let wanted = Wanted::One { id: Arc::clone(&victim.id), namespace: victim.namespace.clone() };
    let found = services.ask(victim.cluster.clone(), wanted).await.map_err(errors::of_batch)?;
    let registration = found.registrations.into_iter().next();
    if registration.is_none() {
        let id = Handle::Service {
            cluster: victim.cluster.clone(),
            id: Arc::clone(&victim.id),
            namespace: victim.namespace.clone(),
        };
        let id = id.in_mesh(api.scope.mesh());
        if let Some(failed) = found.failed.into_iter().find(|failed| failed.part.holds(&id)) {
            return Err(failed.error);
        }
        // A token that may see nothing sees nothing.
        api.own_token_was_good().await?;
    }
    Ok(registration)
}

fn is_denied(reason: &str) -> bool {
    reason.contains("Permission denied") || reason.contains("ACL not found")
}

fn denied(call: &Call<'_>, victim: &Victim, reason: &str) -> MeshError {
    let message = format!(
        "{call}: the service {} on {} was not removed ({reason}); the token that ControlPlane.spec.consul names needs \
         `{NEEDS}`: add that to one of its policies",
        victim.id, victim.cluster
    );
    errors::error(MeshErrorKind::Forbidden, message)
}

fn changed(victim: &Victim) -> MeshError {
    let message = format!(
        "the service {} on {} was registered again since it was read, and is left as it is",
        victim.id, victim.cluster
    );
    errors::error(MeshErrorKind::Conflict, message)
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Refusal {
    errors: Vec<Reason>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Reason {
    op_index: usize,
    what: String,
}

/// Why single operations were refused.
fn reasons(reply: &Reply, operations: usize) -> BTreeMap<usize, String> {
    if reply.head.status != 409 {
        return BTreeMap::new();
    }
    let refusal: Option<Refusal> = serde_json::from_slice(&reply.body).ok();
    let reasons = refusal.into_iter().flat_map(|refusal| refusal.errors);
    reasons
        .filter(|reason| reason.op_index < operations)
        .map(|reason| (reason.op_index, reason.what))
        .collect()
}
