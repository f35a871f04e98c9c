//! One control plane with all that is its own: queue, registry, circuit, write rate and guards. What one of them does
//! to itself, another does not feel (invariant I8).

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, warn};

use super::deps::Connected;
use super::registry::Registry;
use super::warnings::{GroupCount, Novelty, WarningDeduper};
use ecs_mesh_api::manifests::{Binding, ManifestSet};
use ecs_mesh_api::{ControlPlaneSpec, ControlPlaneType};
use ecs_mesh_consul_acl::reconcile::AclTarget;
use ecs_mesh_control_plane::{ControlPlane, FailedSegment, CallError, MeshError, MeshErrorKind};
use ecs_mesh_controller::{Backoff, Circuit, CircuitConfig, CircuitState, WorkQueue, TokenBucket};
use ecs_mesh_core::intent::RegistrationId;
use ecs_mesh_core::plan::{RemovalGuard, GuardState};
use ecs_mesh_model::{ClusterArn, MeshName, TaskArn, Timestamp};

/// A control plane under this operator's care.
pub struct ControlPlaneWorker {
    /// The `ControlPlane`'s name.
    pub name: Arc<str>,
    /// Its type.
    pub kind: ControlPlaneType,
    /// The manifest that it was made from: another one makes another plane.
    pub spec: Arc<ControlPlaneSpec>,
    /// The tasks to look at.
    pub queue: WorkQueue<TaskArn>,
    /// What is registered there.
    pub registry: Registry,
    pub(super) client: Arc<dyn ControlPlane>,
    /// The objects by which tasks get their identity, where it has such.
    pub(super) acl: Option<Arc<AclTarget>>,
    pub(super) write_limiter: TokenBucket,
    circuit: Circuit,
    guards: Mutex<BTreeMap<Arc<str>, RemovalGuard>>,
    /// Held by the one who lists what is registered.
    list_lock: Arc<tokio::sync::Mutex<()>>,
    /// How long it took, the last time that it went well.
    last_list_took: Mutex<Duration>,
    synced: AtomicBool,
    /// Once all of it was listed.
    fully_synced: AtomicBool,
    /// The parts that the last list failed at, and why.
    unlisted_segments: Mutex<BTreeMap<String, MeshErrorKind>>,
    /// Meshes whose settings were learned: nothing is rendered before.
    loaded_meshes: Mutex<BTreeSet<MeshName>>,
    /// Tasks that have stopped, and that have not been searched for what they registered themselves since.
    unsearched: Mutex<BTreeSet<TaskArn>>,
    /// When a task's oldest unanswered event was received, for the latency figures.
    pending_events: Mutex<BTreeMap<TaskArn, Instant>>,
    /// Services that outbounds go to and the last sweep found unknown, by mesh.
    unknown_outbounds: Mutex<BTreeMap<MeshName, BTreeMap<String, UnknownOutbound>>>,
    /// Who is at work on which registration.
    registration_locks: Mutex<BTreeMap<RegistrationId, Arc<tokio::sync::Mutex<()>>>>,
    /// The troubles of the control plane itself that were told of and are not over.
    warned_errors: Mutex<BTreeSet<(MeshErrorKind, String)>>,
    /// What was said about tasks.
    warnings: Mutex<WarningDeduper>,
    /// Runs under way.
    in_flight: AtomicUsize,
    /// Registrations with our mark, as of the last list, whose cluster no binding names.
    pub(super) unattributed_registrations: AtomicUsize,
    /// Removals since the last one that was paid for, of those that go out many in a request.
    uncharged_removals: AtomicUsize,
}

/// A sweep waits so long for a list at least, and at most. Were the least all, lists that always take longer would leave
/// no sweep whole, and ECS would be asked all over again and again.
const MIN_LIST_WAIT: Duration = Duration::from_secs(2);
const MAX_LIST_WAIT: Duration = Duration::from_secs(30);

/// Tasks worked on at once where they register themselves, at least: what they ask the server is asked for all of them
/// together, by a few connections.
const MIN_CONSUL_WORKERS: usize = 1_024;

/// How long an outbound's service must have been unknown to be told of: everything that is new starts at its own pace.
const UNKNOWN_OUTBOUND_WARN_AFTER: Duration = Duration::from_mins(1);

/// A service that the mesh does not know.
#[derive(Clone, Copy, Debug)]
struct UnknownOutbound {
    since: Timestamp,
    told: bool,
}

impl ControlPlaneWorker {
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
            queue: WorkQueue::new(Backoff::default(), seed),
            registry: Registry::default(),
            client: mesh,
            acl,
            write_limiter: writes,
            circuit,
            guards: Mutex::default(),
            list_lock: Arc::default(),
            last_list_took: Mutex::default(),
            synced: AtomicBool::new(false),
            fully_synced: AtomicBool::new(false),
            unlisted_segments: Mutex::default(),
            loaded_meshes: Mutex::default(),
            unsearched: Mutex::default(),
            pending_events: Mutex::default(),
            warned_errors: Mutex::default(),
            warnings: Mutex::default(),
            in_flight: AtomicUsize::new(0),
            registration_locks: Mutex::default(),
            unknown_outbounds: Mutex::default(),
            unattributed_registrations: AtomicUsize::new(0),
            uncharged_removals: AtomicUsize::new(0),
            kind: spec.kind,
            name,
            spec,
        }
    }

    /// The mesh, for people; at Consul there is none.
    pub(super) fn mesh_label<'m>(&self, mesh: &'m MeshName) -> Option<&'m str> {
        (self.kind != ControlPlaneType::Consul).then(|| mesh.as_str())
    }

    /// The partition of Consul Enterprise, where the manifest names one.
    pub(super) fn partition(&self) -> Option<&str> {
        self.spec.consul.as_ref()?.partition.as_deref()
    }

    /// A registration's name, for people.
    pub(super) fn display_name(&self, id: &RegistrationId) -> String {
        self.mesh_label(&id.mesh).map_or_else(|| id.name.to_string(), |_| id.to_string())
    }

    /// Calls the control plane, unless its circuit is open, and tells the circuit how it went.
    pub(super) async fn call<T>(&self, call: impl Future<Output = Result<T, MeshError>>) -> Result<T, CallError> {
        ecs_mesh_control_plane::call(&self.circuit, call).await
    }

    /// Whether a removal takes one of the writes that are allowed a second, where so many go out in a request: the
    /// first of them does.
    pub(super) fn charge_write(&self, together: usize) -> bool {
        together <= 1 || self.uncharged_removals.fetch_add(1, Ordering::Relaxed).is_multiple_of(together)
    }

    /// Makes sure that the mesh's settings are known before something is rendered for it.
    pub(super) async fn ensure_capabilities(&self, mesh: &MeshName) -> Result<(), CallError> {
        if lock(&self.loaded_meshes).contains(mesh) {
            return Ok(());
        }
        self.refresh_capabilities([mesh.clone()].into()).await
    }

    /// Learns the settings of these meshes anew.
    pub(super) async fn refresh_capabilities(&self, meshes: BTreeSet<MeshName>) -> Result<(), CallError> {
        self.call(self.client.refresh_capabilities(&meshes)).await?;
        self.clear_errors(|kind| kind == MeshErrorKind::MeshNotFound || kind == MeshErrorKind::Unreachable);
        lock(&self.loaded_meshes).extend(meshes);
        Ok(())
    }

    /// Waits for a turn at a registration. Names recur (`{hostname}` comes back with the address), so two tasks may want
    /// one at a time, and the control plane has no compare-and-swap: read, check and write must not be divided.
    pub(super) async fn lock_registration(&self, id: &RegistrationId) -> RegistrationLock<'_> {
        let gate = Arc::clone(lock(&self.registration_locks).entry(id.clone()).or_default());
        let held = Arc::clone(&gate).lock_owned().await;
        RegistrationLock { worker: self, id: id.clone(), held: Some(held) }
    }

    /// Works on the guard of a binding.
    pub(super) fn with_guard<T>(&self, binding: &Arc<str>, work: impl FnOnce(&mut RemovalGuard) -> T) -> T {
        work(lock(&self.guards).entry(Arc::clone(binding)).or_default())
    }

    /// Tells a binding's guard how many registrations there are, so that it knows what a removal is a part of.
    pub(super) fn record_owned_count(&self, binding: &Binding, now: Timestamp) {
        let owned = self.registry.owned_by(&binding.name);
        self.with_guard(&binding.name, |guard| guard.record_owned(owned, now));
    }

    /// Whether a binding of this control plane selects the cluster.
    pub(super) fn selects_cluster(&self, set: &ManifestSet, cluster: &ClusterArn) -> bool {
        let mut bindings = set.bindings.values();
        bindings.any(|b| *b.spec.control_plane == *self.name && b.selects_cluster(cluster))
    }

    /// Whether a registration of the task may be here: a binding selects its cluster, or one is known.
    pub(super) fn may_hold(&self, manifests: &ManifestSet, task: &TaskArn) -> bool {
        self.selects_cluster(manifests, task.cluster()) || self.registry.contains(task)
    }

    /// The removals that guards hold back, by binding.
    pub fn held_by_guard(&self) -> BTreeMap<Arc<str>, usize> {
        lock(&self.guards).iter().map(|(binding, guard)| (Arc::clone(binding), guard.held_count())).collect()
    }

    /// The tasks whose removal a guard holds back.
    pub fn tasks_held_by_guard(&self) -> BTreeSet<TaskArn> {
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
    pub(super) fn record_event(&self, task: &TaskArn, at: Instant) {
        let mut heard = lock(&self.pending_events);
        let oldest = heard.entry(task.clone()).or_insert(at);
        *oldest = at.min(*oldest);
    }

    /// Since when an event of the task is unanswered. Answers it.
    pub(super) fn take_pending_event(&self, task: &TaskArn) -> Option<Instant> {
        lock(&self.pending_events).remove(task)
    }

    /// How many tasks are worked on at once, where `concurrency` is asked for.
    pub(super) fn worker_count(&self, concurrency: usize) -> usize {
        if self.kind.tasks_register_themselves() { concurrency.max(MIN_CONSUL_WORKERS) } else { concurrency }
    }

    /// How long a sweep waits for this plane's list: twice as long as the last one took, within limits. One that takes
    /// longer goes on, and counts in the next sweep: nobody else waits for a control plane that hangs (invariant I8).
    pub(super) fn list_wait(&self) -> Duration {
        (*lock(&self.last_list_took) * 2).clamp(MIN_LIST_WAIT, MAX_LIST_WAIT)
    }

    /// What is registered was listed, in this time.
    pub(super) fn record_list_duration(&self, took: Duration) {
        *lock(&self.last_list_took) = took;
    }

    /// The right to list what is registered; `None` while somebody does.
    pub(super) fn try_lock_list(&self) -> Option<tokio::sync::OwnedMutexGuard<()>> {
        Arc::clone(&self.list_lock).try_lock_owned().ok()
    }

    /// What is registered was listed, but for those parts. Whether for the first time. Each part is told of once, until
    /// it is listed or fails for another reason. Gives the parts that failed before and no longer do, too.
    pub(super) fn record_list_result(&self, failed: &[FailedSegment]) -> (bool, Vec<String>) {
        self.warn_failed_segments(failed);
        let mut unlisted_segments = lock(&self.unlisted_segments);
        let failing: BTreeSet<String> = failed.iter().map(|failed| failed.segment.to_string()).collect();
        let over: Vec<String> = unlisted_segments.keys().filter(|segment| !failing.contains(*segment)).cloned().collect();
        unlisted_segments.retain(|segment, _| failing.contains(segment));
        if failed.is_empty() {
            self.fully_synced.store(true, Ordering::Release);
        }
        (!self.synced.swap(true, Ordering::AcqRel), over)
    }

    /// Tells of the parts that could not be listed, and of which the last list did not tell.
    pub(super) fn warn_failed_segments(&self, failed: &[FailedSegment]) {
        let mut unlisted_segments = lock(&self.unlisted_segments);
        for FailedSegment { segment, error } in failed {
            let (control_plane, reason) = (&self.name, error.kind.label());
            if unlisted_segments.insert(segment.to_string(), error.kind) == Some(error.kind) {
                debug!(%control_plane, reason, %segment, "{}", error.message);
            } else {
                let what = "cannot be listed, so what is registered there stays; the rest is looked after";
                warn!(%control_plane, reason, %segment, "{segment} {what}: {}", error.message);
            }
        }
    }

    /// The parts that the last list failed at.
    pub(super) fn unlisted_segments(&self) -> Vec<String> {
        lock(&self.unlisted_segments).keys().cloned().collect()
    }

    /// Whether this process has ever seen what is registered here, or a part of it. Before, neither the guard knows how
    /// much is owned, nor anybody which task has a registration.
    pub(super) fn is_synced(&self) -> bool {
        self.synced.load(Ordering::Acquire)
    }

    /// Whether this process has ever seen all that is registered here.
    pub(super) fn is_fully_synced(&self) -> bool {
        self.fully_synced.load(Ordering::Acquire)
    }

    /// Tells of a failure that is the control plane's and not one task's: once, until it is over.
    pub(super) fn warn_once(&self, error: &MeshError) {
        // Several meshes may be missing, and each is somebody's.
        let mesh =
            if error.kind == MeshErrorKind::MeshNotFound { error.message.clone() } else { String::new() };
        let (control_plane, reason) = (&self.name, error.kind.label());
        if lock(&self.warned_errors).insert((error.kind, mesh)) {
            warn!(%control_plane, reason, "{}; what is registered stays, and it is tried again", error.message);
        } else {
            debug!(%control_plane, reason, "{}", error.message);
        }
    }

    /// These troubles are over: should they come again, they are told of again.
    pub(super) fn clear_errors(&self, over: impl Fn(MeshErrorKind) -> bool) {
        lock(&self.warned_errors).retain(|(kind, _)| !over(*kind));
    }

    /// Takes in what is to be said of a task: see [`WarningDeduper::note`].
    pub(super) fn record_warning(&self, task: &TaskArn, reason: &'static str, cause: &str, message: &str) -> Novelty {
        lock(&self.warnings).record(task, reason, cause, message)
    }

    /// A run begins, and ends when what this gives is dropped.
    pub(super) fn begin_run(&self) -> InFlightGuard<'_> {
        self.in_flight.fetch_add(1, Ordering::AcqRel);
        InFlightGuard(self)
    }

    /// Tells of how many tasks something is true that was said of one, unless more tasks are about to be looked at.
    fn flush_counts(&self) {
        if !lock(&self.warnings).has_due() || self.queue.stats().ready > 0 {
            return;
        }
        for GroupCount { reason, tasks, example, message } in lock(&self.warnings).take_due() {
            warn!(
                control_plane = %self.name, task = %example, reason, tasks,
                "true of {tasks} tasks by now (plan lists them), of this one so: {message}"
            );
        }
    }

    /// Takes in the targets that a sweep found unknown. Gives those to tell of: unknown for a while now, and known
    /// again after having been told of.
    pub(super) fn record_unknown_outbounds(
        &self,
        mesh: &MeshName,
        unknown: BTreeSet<String>,
        now: Timestamp,
    ) -> (Vec<String>, Vec<String>) {
        let mut all = lock(&self.unknown_outbounds);
        let before = std::mem::take(all.entry(mesh.clone()).or_default());
        let found = before.iter().filter(|(name, target)| target.told && !unknown.contains(*name));
        let found = found.map(|(name, _)| name.clone()).collect();
        let mut late = Vec::new();
        let mut still = BTreeMap::new();
        for name in unknown {
            let mut target = before.get(&name).copied().unwrap_or(UnknownOutbound { since: now, told: false });
            if !target.told && target.since.age_at(now) >= UNKNOWN_OUTBOUND_WARN_AFTER {
                target.told = true;
                late.push(name.clone());
            }
            still.insert(name, target);
        }
        all.insert(mesh.clone(), still);
        (late, found)
    }

    /// This is not so any more of the task.
    pub(super) fn clear_warning(&self, task: &TaskArn, reason: &'static str) {
        lock(&self.warnings).resolve(task, reason);
    }

    /// Nothing is wrong with the task any more.
    pub(super) fn clear_warnings(&self, task: &TaskArn) {
        lock(&self.warnings).resolve_all(task);
    }

    /// Whether nothing that should be looked at of the objects by which tasks get their identity waits for a look.
    pub fn is_acl_settled(&self) -> bool {
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
    pub(super) fn unknown_outbound_counts(&self) -> BTreeMap<Arc<str>, usize> {
        lock(&self.unknown_outbounds).iter().map(|(mesh, all)| (mesh.as_str().into(), all.len())).collect()
    }

    /// Of how many tasks something was said that still holds, by reason.
    pub(super) fn tasks_with_warnings(&self) -> BTreeMap<&'static str, usize> {
        lock(&self.warnings).counts_by_reason()
    }
}

/// A run under way. The last one to end tells of how many tasks was true what it said of one.
pub(super) struct InFlightGuard<'a>(&'a ControlPlaneWorker);

impl Drop for InFlightGuard<'_> {
    fn drop(&mut self) {
        if self.0.in_flight.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.flush_counts();
        }
    }
}

/// A turn at a registration, given back when dropped.
pub(super) struct RegistrationLock<'a> {
    worker: &'a ControlPlaneWorker,
    id: RegistrationId,
    held: Option<tokio::sync::OwnedMutexGuard<()>>,
}

impl Drop for RegistrationLock<'_> {
    fn drop(&mut self) {
        let mut turns = lock(&self.worker.registration_locks);
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
