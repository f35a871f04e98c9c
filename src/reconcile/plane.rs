//! One control plane with all that is its own: queue, registry, circuit, write rate and guards. What one of them does
//! to itself, another does not feel (invariant I8).

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, warn};

use super::Connected;
use super::registry::Registry;
use super::said::{Count, News, Said};
use ecs_mesh_api::manifests::{Binding, ManifestSet};
use ecs_mesh_api::{ControlPlaneSpec, ControlPlaneType};
use ecs_mesh_consul_acl::reconcile::AclTarget;
use ecs_mesh_control_plane::{ControlPlane, FailedPart, Halt, MeshError, MeshErrorKind};
use ecs_mesh_controller::{Backoff, Circuit, CircuitConfig, CircuitState, Queue, TokenBucket};
use ecs_mesh_core::intent::RegistrationId;
use ecs_mesh_core::plan::{Guard, GuardState};
use ecs_mesh_model::{ClusterArn, MeshName, TaskArn, Timestamp};

/// A control plane under this operator's care.
pub struct Plane {
    /// The `ControlPlane`'s name.
    pub name: Arc<str>,
    /// Its type.
    pub kind: ControlPlaneType,
    /// The manifest that it was made from: another one makes another plane.
    pub spec: Arc<ControlPlaneSpec>,
    /// The tasks to look at.
    pub queue: Queue<TaskArn>,
    /// What is registered there.
    pub registry: Registry,
    pub(super) mesh: Arc<dyn ControlPlane>,
    /// The objects by which tasks get their identity, where it has such.
    pub(super) acl: Option<Arc<AclTarget>>,
    pub(super) writes: TokenBucket,
    circuit: Circuit,
    guards: Mutex<BTreeMap<Arc<str>, Guard>>,
    /// Held by the one who lists what is registered.
    listing: Arc<tokio::sync::Mutex<()>>,
    /// How long it took, the last time that it went well.
    last_list_took: Mutex<Duration>,
    listed: AtomicBool,
    /// Once all of it was listed.
    listed_whole: AtomicBool,
    /// The parts that the last list failed at, and why.
    unlisted: Mutex<BTreeMap<String, MeshErrorKind>>,
    /// Meshes whose settings were learned: nothing is rendered before.
    learned: Mutex<BTreeSet<MeshName>>,
    /// Tasks that have stopped, and that have not been searched for what they registered themselves since.
    unsearched: Mutex<BTreeSet<TaskArn>>,
    /// When a task's oldest unanswered event was received, for the latency figures.
    heard: Mutex<BTreeMap<TaskArn, Instant>>,
    /// Services that outbounds go to and the last sweep found unknown, by mesh.
    unknown_targets: Mutex<BTreeMap<MeshName, BTreeMap<String, UnknownTarget>>>,
    /// Who is at work on which registration.
    turns: Mutex<BTreeMap<RegistrationId, Arc<tokio::sync::Mutex<()>>>>,
    /// The troubles of the control plane itself that were told of and are not over.
    told: Mutex<BTreeSet<(MeshErrorKind, String)>>,
    /// What was said about tasks.
    said: Mutex<Said>,
    /// Runs under way.
    at_work: AtomicUsize,
    /// Registrations with our mark, as of the last list, whose cluster no binding names.
    pub(super) unplaced: AtomicUsize,
    /// Removals since the last one that was paid for, of those that go out many in a request.
    unpaid: AtomicUsize,
}

/// A sweep waits so long for a list at least, and at most. Were the least all, lists that always take longer would leave
/// no sweep whole, and ECS would be asked all over again and again.
const LISTS_WAIT_LEAST: Duration = Duration::from_secs(2);
const LISTS_WAIT_MOST: Duration = Duration::from_secs(30);

/// Tasks worked on at once where they register themselves, at least: what they ask the server is asked for all of them
/// together, by a few connections.
const TOGETHER: usize = 1_024;

/// How long an outbound's service must have been unknown to be told of: everything that is new starts at its own pace.
const UNKNOWN_FOR: Duration = Duration::from_mins(1);

/// A service that the mesh does not know.
#[derive(Clone, Copy, Debug)]
struct UnknownTarget {
    since: Timestamp,
    told: bool,
}

impl Plane {
    /// A plane around a client. `seed` feeds the jitter.
    pub fn new(name: Arc<str>, spec: Arc<ControlPlaneSpec>, connected: Connected, seed: u64) -> Self {
        let Connected { client: mesh, acl } = connected;
        let rate = spec.writes_per_second.max(1);
        let writes = TokenBucket::new(f64::from(rate), rate);
        let circuit = Circuit::new(name.as_ref(), CircuitConfig::default(), seed.wrapping_add(1));
        let acl = acl.map(|backend| {
            let (circuit, writes) = (circuit.clone(), writes.clone());
            Arc::new(AclTarget::new(Arc::clone(&name), spec.consul.clone(), backend, circuit, writes))
        });
        Self {
            queue: Queue::new(Backoff::default(), seed),
            registry: Registry::default(),
            mesh,
            acl,
            writes,
            circuit,
            guards: Mutex::default(),
            listing: Arc::default(),
            last_list_took: Mutex::default(),
            listed: AtomicBool::new(false),
            listed_whole: AtomicBool::new(false),
            unlisted: Mutex::default(),
            learned: Mutex::default(),
            unsearched: Mutex::default(),
            heard: Mutex::default(),
            told: Mutex::default(),
            said: Mutex::default(),
            at_work: AtomicUsize::new(0),
            turns: Mutex::default(),
            unknown_targets: Mutex::default(),
            unplaced: AtomicUsize::new(0),
            unpaid: AtomicUsize::new(0),
            kind: spec.kind,
            name,
            spec,
        }
    }

    /// The mesh, for people; at Consul there is none.
    pub(super) fn mesh_of<'m>(&self, mesh: &'m MeshName) -> Option<&'m str> {
        (self.kind != ControlPlaneType::Consul).then(|| mesh.as_str())
    }

    /// The partition of Consul Enterprise, where the manifest names one.
    pub(super) fn partition(&self) -> Option<&str> {
        self.spec.consul.as_ref()?.partition.as_deref()
    }

    /// A registration's name, for people.
    pub(super) fn named(&self, id: &RegistrationId) -> String {
        self.mesh_of(&id.mesh).map_or_else(|| id.name.to_string(), |_| id.to_string())
    }

    /// Calls the control plane, unless its circuit is open, and tells the circuit how it went.
    pub(super) async fn call<T>(&self, call: impl Future<Output = Result<T, MeshError>>) -> Result<T, Halt> {
        ecs_mesh_control_plane::call(&self.circuit, call).await
    }

    /// Whether a removal takes one of the writes that are allowed a second, where so many go out in a request: the
    /// first of them does.
    pub(super) fn pays_for_a_write(&self, together: usize) -> bool {
        together <= 1 || self.unpaid.fetch_add(1, Ordering::Relaxed).is_multiple_of(together)
    }

    /// Makes sure that the mesh's settings are known before something is rendered for it.
    pub(super) async fn learn(&self, mesh: &MeshName) -> Result<(), Halt> {
        if lock(&self.learned).contains(mesh) {
            return Ok(());
        }
        self.relearn([mesh.clone()].into()).await
    }

    /// Learns the settings of these meshes anew.
    pub(super) async fn relearn(&self, meshes: BTreeSet<MeshName>) -> Result<(), Halt> {
        self.call(self.mesh.refresh(&meshes)).await?;
        self.is_over(|kind| kind == MeshErrorKind::NoSuchMesh || kind == MeshErrorKind::Unreachable);
        lock(&self.learned).extend(meshes);
        Ok(())
    }

    /// Waits for a turn at a registration. Names recur (`{hostname}` comes back with the address), so two tasks may want
    /// one at a time, and the control plane has no compare-and-swap: read, check and write must not be divided.
    pub(super) async fn turn(&self, id: &RegistrationId) -> Turn<'_> {
        let gate = Arc::clone(lock(&self.turns).entry(id.clone()).or_default());
        let held = Arc::clone(&gate).lock_owned().await;
        Turn { plane: self, id: id.clone(), held: Some(held) }
    }

    /// Works on the guard of a binding.
    pub(super) fn guard<T>(&self, binding: &Arc<str>, work: impl FnOnce(&mut Guard) -> T) -> T {
        work(lock(&self.guards).entry(Arc::clone(binding)).or_default())
    }

    /// Tells a binding's guard how many registrations there are, so that it knows what a removal is a part of.
    pub(super) fn note_owned(&self, binding: &Binding, now: Timestamp) {
        let owned = self.registry.owned_by(&binding.name);
        self.guard(&binding.name, |guard| guard.note_owned(owned, now));
    }

    /// Whether a binding of this control plane selects the cluster.
    pub(super) fn binds(&self, set: &ManifestSet, cluster: &ClusterArn) -> bool {
        let mut bindings = set.bindings.values();
        bindings.any(|b| *b.spec.control_plane == *self.name && b.selects_cluster(cluster))
    }

    /// The removals that guards hold back, by binding.
    pub fn held_back(&self) -> BTreeMap<Arc<str>, usize> {
        lock(&self.guards).iter().map(|(binding, guard)| (Arc::clone(binding), guard.holding())).collect()
    }

    /// The tasks whose removal a guard holds back.
    pub fn held_tasks(&self) -> BTreeSet<TaskArn> {
        lock(&self.guards).values().flat_map(|guard| guard.held().cloned().collect::<Vec<_>>()).collect()
    }

    /// Remembers that a task has stopped, where tasks register themselves: what it has registered must be searched for
    /// once, whether an event or a describe showed the stop, and until a search succeeds.
    pub(super) fn record_stop(&self, task: &TaskArn) {
        if self.kind.tasks_register_themselves() {
            lock(&self.unsearched).insert(task.clone());
        }
    }

    /// Whether a task has stopped and what it registered itself has not been searched for since.
    pub(super) fn is_unsearched(&self, task: &TaskArn) -> bool {
        lock(&self.unsearched).contains(task)
    }

    /// A search for what the stopped task registered itself succeeded.
    pub(super) fn record_search(&self, task: &TaskArn) {
        lock(&self.unsearched).remove(task);
    }

    /// An event of the task was received.
    pub(super) fn heard_of(&self, task: &TaskArn, at: Instant) {
        let mut heard = lock(&self.heard);
        let oldest = heard.entry(task.clone()).or_insert(at);
        *oldest = at.min(*oldest);
    }

    /// Since when an event of the task is unanswered. Answers it.
    pub(super) fn answered(&self, task: &TaskArn) -> Option<Instant> {
        lock(&self.heard).remove(task)
    }

    /// How many tasks are worked on at once, where `concurrency` is asked for.
    pub(super) fn workers(&self, concurrency: usize) -> usize {
        if self.kind.tasks_register_themselves() { concurrency.max(TOGETHER) } else { concurrency }
    }

    /// How long a sweep waits for this plane's list: twice as long as the last one took, within limits. One that takes
    /// longer goes on, and counts in the next sweep: nobody else waits for a control plane that hangs (invariant I8).
    pub(super) fn lists_wait(&self) -> Duration {
        (*lock(&self.last_list_took) * 2).clamp(LISTS_WAIT_LEAST, LISTS_WAIT_MOST)
    }

    /// What is registered was listed, in this time.
    pub(super) fn list_took(&self, took: Duration) {
        *lock(&self.last_list_took) = took;
    }

    /// The right to list what is registered; `None` while somebody does.
    pub(super) fn begin_to_list(&self) -> Option<tokio::sync::OwnedMutexGuard<()>> {
        Arc::clone(&self.listing).try_lock_owned().ok()
    }

    /// What is registered was listed, but for those parts. Whether for the first time. Each part is told of once, until
    /// it is listed or fails for another reason. Gives the parts that failed before and no longer do, too.
    pub(super) fn was_listed(&self, failed: &[FailedPart]) -> (bool, Vec<String>) {
        self.tell_of_parts(failed);
        let mut unlisted = lock(&self.unlisted);
        let failing: BTreeSet<String> = failed.iter().map(|failed| failed.part.to_string()).collect();
        let over: Vec<String> = unlisted.keys().filter(|part| !failing.contains(*part)).cloned().collect();
        unlisted.retain(|part, _| failing.contains(part));
        if failed.is_empty() {
            self.listed_whole.store(true, Ordering::Release);
        }
        (!self.listed.swap(true, Ordering::AcqRel), over)
    }

    /// Tells of the parts that could not be listed, and of which the last list did not tell.
    pub(super) fn tell_of_parts(&self, failed: &[FailedPart]) {
        let mut unlisted = lock(&self.unlisted);
        for FailedPart { part, error } in failed {
            let (control_plane, reason) = (&self.name, error.kind.label());
            if unlisted.insert(part.to_string(), error.kind) == Some(error.kind) {
                debug!(%control_plane, reason, %part, "{}", error.message);
            } else {
                let what = "cannot be listed, so what is registered there stays; the rest is looked after";
                warn!(%control_plane, reason, %part, "{part} {what}: {}", error.message);
            }
        }
    }

    /// The parts that the last list failed at.
    pub(super) fn unlisted(&self) -> Vec<String> {
        lock(&self.unlisted).keys().cloned().collect()
    }

    /// Whether this process has ever seen what is registered here, or a part of it. Before, neither the guard knows how
    /// much is owned, nor anybody which task has a registration.
    pub(super) fn is_listed(&self) -> bool {
        self.listed.load(Ordering::Acquire)
    }

    /// Whether this process has ever seen all that is registered here.
    pub(super) fn is_listed_whole(&self) -> bool {
        self.listed_whole.load(Ordering::Acquire)
    }

    /// Tells of a failure that is the control plane's and not one task's: once, until it is over.
    pub(super) fn tell(&self, error: &MeshError) {
        // Several meshes may be missing, and each is somebody's.
        let mesh =
            if error.kind == MeshErrorKind::NoSuchMesh { error.message.clone() } else { String::new() };
        let (control_plane, reason) = (&self.name, error.kind.label());
        if lock(&self.told).insert((error.kind, mesh)) {
            warn!(%control_plane, reason, "{}; what is registered stays, and it is tried again", error.message);
        } else {
            debug!(%control_plane, reason, "{}", error.message);
        }
    }

    /// These troubles are over: should they come again, they are told of again.
    pub(super) fn is_over(&self, over: impl Fn(MeshErrorKind) -> bool) {
        lock(&self.told).retain(|(kind, _)| !over(*kind));
    }

    /// Takes in what is to be said of a task: see [`Said::note`].
    pub(super) fn note(&self, task: &TaskArn, reason: &'static str, cause: &str, message: &str) -> News {
        lock(&self.said).note(task, reason, cause, message)
    }

    /// A run begins, and ends when what this gives is dropped.
    pub(super) fn begin(&self) -> AtWork<'_> {
        self.at_work.fetch_add(1, Ordering::AcqRel);
        AtWork(self)
    }

    /// Tells of how many tasks something is true that was said of one, unless more tasks are about to be looked at.
    fn tell_counts(&self) {
        if !lock(&self.said).has_grown() || self.queue.stats().ready > 0 {
            return;
        }
        for Count { reason, tasks, example, message } in lock(&self.said).due() {
            warn!(
                control_plane = %self.name, task = %example, reason, tasks,
                "true of {tasks} tasks by now (plan lists them), of this one so: {message}"
            );
        }
    }

    /// Takes in the targets that a sweep found unknown. Gives those to tell of: unknown for a while now, and known
    /// again after having been told of.
    pub(super) fn unknown_targets(
        &self,
        mesh: &MeshName,
        unknown: BTreeSet<String>,
        now: Timestamp,
    ) -> (Vec<String>, Vec<String>) {
        let mut all = lock(&self.unknown_targets);
        let before = std::mem::take(all.entry(mesh.clone()).or_default());
        let found = before.iter().filter(|(name, target)| target.told && !unknown.contains(*name));
        let found = found.map(|(name, _)| name.clone()).collect();
        let mut late = Vec::new();
        let mut still = BTreeMap::new();
        for name in unknown {
            let mut target = before.get(&name).copied().unwrap_or(UnknownTarget { since: now, told: false });
            if !target.told && target.since.age_at(now) >= UNKNOWN_FOR {
                target.told = true;
                late.push(name.clone());
            }
            still.insert(name, target);
        }
        all.insert(mesh.clone(), still);
        (late, found)
    }

    /// This is not so any more of the task.
    pub(super) fn is_said_no_more(&self, task: &TaskArn, reason: &'static str) {
        lock(&self.said).over(task, reason);
    }

    /// Nothing is wrong with the task any more.
    pub(super) fn all_said(&self, task: &TaskArn) {
        lock(&self.said).all_over(task);
    }

    /// Whether nothing that should be looked at of the objects by which tasks get their identity waits for a look.
    pub fn has_settled_identities(&self) -> bool {
        self.acl.as_ref().is_none_or(|acl| acl.is_settled())
    }

    /// Whether the circuit is closed.
    pub fn is_reachable(&self) -> bool {
        self.circuit_state() == CircuitState::Closed
    }

    /// Where the circuit stands.
    pub fn circuit_state(&self) -> CircuitState {
        self.circuit.state()
    }

    /// The guards in numbers, by binding.
    pub(super) fn guard_states(&self, set: &ManifestSet, now: Timestamp) -> BTreeMap<Arc<str>, GuardState> {
        let guards = lock(&self.guards);
        let here = set.bindings.values().filter(|binding| *binding.spec.control_plane == *self.name);
        let state = |binding: &Arc<Binding>| {
            let released = binding.guard_released_until.is_some_and(|until| now < until);
            let guard = guards.get(&binding.name)?;
            Some((Arc::clone(&binding.name), guard.state(&binding.spec.cleanup.guard, released, now)))
        };
        here.filter_map(state).collect()
    }

    /// How many services that outbounds go to are unknown, by mesh.
    pub(super) fn unknown_target_counts(&self) -> BTreeMap<Arc<str>, usize> {
        lock(&self.unknown_targets).iter().map(|(mesh, all)| (mesh.as_str().into(), all.len())).collect()
    }

    /// Of how many tasks something was said that still holds, by reason.
    pub(super) fn troubles(&self) -> BTreeMap<&'static str, usize> {
        lock(&self.said).troubles()
    }
}

/// A run under way. The last one to end tells of how many tasks was true what it said of one.
pub(super) struct AtWork<'a>(&'a Plane);

impl Drop for AtWork<'_> {
    fn drop(&mut self) {
        if self.0.at_work.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.tell_counts();
        }
    }
}

/// A turn at a registration, given back when dropped.
pub(super) struct Turn<'a> {
    plane: &'a Plane,
    id: RegistrationId,
    held: Option<tokio::sync::OwnedMutexGuard<()>>,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut turns = lock(&self.plane.turns);
        self.held = None;
        // Nobody else has the gate, or waits at it: whoever comes next makes a new one.
        if turns.get(&self.id).is_some_and(|gate| Arc::strong_count(gate) == 1) {
            turns.remove(&self.id);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
