//! One control plane with its own queue, registry, circuit, write rate and guards, so that one control plane can't block
//! another (invariant I8).

mod list_state;
mod task_state;

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, error, info, warn};

use self::list_state::ListState;
use self::task_state::TaskState;
use super::dataplane_checks::DataplaneChecks;
use super::deps::Connected;
use super::drain_gate::DrainGate;
use super::evaluated_tasks::EvaluatedTasks;
use super::journal::{Journal, JournalEvent, JournalSubject};
use super::mesh_members::OthersByMesh;
use super::registry::Registry;
use super::tokens::TokenTarget;
use super::warnings::{GroupCount, Novelty, WarningDeduper};
use ecs_mesh_api::manifests::{Binding, ManifestSet};
use ecs_mesh_api::{BackendKind, ControlPlaneSpec, ControlPlaneType};
use ecs_mesh_consul_acl::reconcile::AclTarget;
use ecs_mesh_control_plane::{
    CallError, ControlPlane, FailedSegment, MeshError, MeshErrorKind, SupportedLease,
};
use ecs_mesh_controller::{
    ActiveWarnings, Backoff, Circuit, CircuitConfig, CircuitState, Lease, TokenBucket, WorkQueue,
    WriteObstacle,
};
use ecs_mesh_core::intent::{Evaluation, MeshServices, RegistrationId};
use ecs_mesh_core::plan::{GuardState, RemovalGuard};
use ecs_mesh_model::{ClusterArn, MeshName, SidecarOutbounds, TaskArn, Timestamp, intern};

pub(super) use self::task_state::RegistrationLock;

/// Minimum of concurrent reconciles where tasks register themselves: their reads are batched over a few connections.
const MIN_CONSUL_WORKERS: usize = 1_024;

/// How long the service of an outbound must be unknown before it is reported: services start at their own pace.
pub(super) const UNKNOWN_OUTBOUND_WARN_AFTER: Duration = Duration::from_mins(1);

/// The worker of one control plane.
pub struct ControlPlaneWorker {
    /// The name of the `ControlPlane` manifest.
    pub name: Arc<str>,
    /// The type of the control plane.
    pub kind: ControlPlaneType,
    /// The manifest that the worker was created from. Another manifest gets another worker.
    pub spec: Arc<ControlPlaneSpec>,
    /// The tasks to reconcile.
    pub queue: WorkQueue<TaskArn>,
    /// The registrations as last seen.
    pub registry: Registry,
    pub(super) client: Arc<dyn ControlPlane>,
    /// The ACL objects, where the control plane has them.
    pub(super) acl: Option<Arc<AclTarget>>,
    /// The data plane tokens, where the control plane has them.
    pub(super) tokens: Option<Arc<TokenTarget>>,
    pub(super) writes: WritePermits,
    pub(super) drains: DrainGate,
    /// The Dataplanes of tasks that the operator does not own.
    pub(super) dataplanes: DataplaneChecks,
    /// The last evaluations, for readers.
    pub(super) evaluated: EvaluatedTasks,
    /// The registrations of others, for readers.
    pub(super) others: OthersByMesh,
    circuit: Circuit,
    guards: Mutex<BTreeMap<Arc<str>, RemovalGuard>>,
    lists: ListState,
    tasks: TaskState,
    warnings: WorkerWarnings,
    journal: Arc<Journal>,
    /// How the sidecars of registrations get their outbounds, as they have reported it.
    reported_outbounds: Mutex<BTreeMap<RegistrationId, SidecarOutbounds>>,
}

/// The write rate.
pub(super) struct WritePermits {
    limiter: TokenBucket,
    /// Removals since the last one that took a permit, where one request has many removals.
    uncharged_removals: AtomicUsize,
}

/// Conditions that were logged as warnings and still hold.
#[derive(Default)]
struct WorkerWarnings {
    /// Of the control plane itself, by error kind and, for a missing mesh, message.
    control_plane: ActiveWarnings<(MeshErrorKind, String)>,
    /// Of tasks.
    tasks: Mutex<WarningDeduper>,
    /// Services that outbounds name and the mesh did not know at the last sweep, by mesh: since when.
    unknown_outbounds: Mutex<BTreeMap<MeshName, BTreeMap<String, Timestamp>>>,
    /// Those of them that were reported.
    reported_outbounds: ActiveWarnings<(MeshName, String)>,
    /// The meshes whose services have addresses that sidecars cannot bind.
    unbindable: ActiveWarnings<MeshName>,
    /// The services of each mesh, as last listed.
    mesh_services: Mutex<BTreeMap<MeshName, Arc<BTreeSet<Arc<str>>>>>,
}

impl WritePermits {
    /// Waits for one write of the rate.
    pub(super) async fn acquire(&self) {
        self.limiter.acquire(1).await;
    }

    /// Whether a removal takes a permit, where one request has up to `batch_size` removals: the first of them does.
    pub(super) fn is_charged(&self, batch_size: usize) -> bool {
        batch_size <= 1 || self.uncharged_removals.fetch_add(1, Ordering::Relaxed).is_multiple_of(batch_size)
    }
}

impl ControlPlaneWorker {
    /// A worker with these clients. `seed` feeds the jitter.
    pub fn new(
        name: Arc<str>,
        spec: Arc<ControlPlaneSpec>,
        connected: Connected,
        journal: Arc<Journal>,
        seed: u64,
    ) -> Self {
        let Connected { client, acl, tokens } = connected;
        let rate = spec.writes_per_second.max(1);
        let limiter = TokenBucket::new(f64::from(rate), rate);
        let circuit = Circuit::new(name.as_ref(), CircuitConfig::default(), seed.wrapping_add(1));
        let acl = acl.map(|backend| {
            let (circuit, limiter) = (circuit.clone(), limiter.clone());
            Arc::new(AclTarget::new(Arc::clone(&name), spec.consul.clone(), backend, circuit, limiter))
        });
        Self {
            queue: WorkQueue::new(Backoff::default(), seed),
            registry: Registry::default(),
            drains: DrainGate::new(Arc::clone(&client), circuit.clone()),
            dataplanes: DataplaneChecks::default(),
            evaluated: EvaluatedTasks::default(),
            others: OthersByMesh::default(),
            client,
            acl,
            tokens: tokens.map(|issuer| Arc::new(TokenTarget::new(issuer))),
            writes: WritePermits { limiter, uncharged_removals: AtomicUsize::new(0) },
            circuit,
            guards: Mutex::default(),
            lists: ListState::default(),
            tasks: TaskState::default(),
            warnings: WorkerWarnings::default(),
            journal,
            reported_outbounds: Mutex::default(),
            kind: spec.kind,
            name,
            spec,
        }
    }

    /// The mesh of a registration, for people; Consul has none, and neither do resources of a zone.
    pub(super) fn mesh_label<'m>(&self, id: &'m RegistrationId) -> Option<&'m str> {
        id.mesh_scope().filter(|_| self.kind != ControlPlaneType::Consul).map(MeshName::as_str)
    }

    /// The partition of Consul Enterprise, where the manifest names one.
    pub(super) fn partition(&self) -> Option<&str> {
        self.spec.consul.as_ref()?.partition.as_deref()
    }

    /// The name of a registration, for people.
    pub(super) fn display_name(&self, id: &RegistrationId) -> String {
        self.mesh_label(id).map_or_else(|| id.name.to_string(), |_| id.to_string())
    }

    /// Whether a binding of this control plane selects the cluster.
    pub(super) fn selects_cluster(&self, manifests: &ManifestSet, cluster: &ClusterArn) -> bool {
        let mut bindings = manifests.bindings.values();
        bindings.any(|b| *b.spec.control_plane == *self.name && b.selects_cluster(cluster))
    }

    /// Whether a registration of the task may be here: a binding selects its cluster, or one is known.
    pub(super) fn may_hold(&self, manifests: &ManifestSet, task: &TaskArn) -> bool {
        self.selects_cluster(manifests, task.cluster()) || self.registry.contains(task)
    }

    /// The number of concurrent reconciles, where `concurrency` is configured.
    pub(super) fn worker_count(&self, concurrency: usize) -> usize {
        if self.kind.tasks_register_themselves() { concurrency.max(MIN_CONSUL_WORKERS) } else { concurrency }
    }

    /// Another process that has recently written here with this operator's id.
    pub(super) fn foreign_writer(&self) -> Option<Arc<str>> {
        self.client.foreign_writer().or_else(|| self.acl.as_ref()?.foreign_writer())
    }

    // Calls

    /// Calls the control plane unless its circuit is open, and records the result in the circuit.
    pub(super) async fn call<T>(
        &self,
        call: impl Future<Output = Result<T, MeshError>>,
    ) -> Result<T, CallError> {
        ecs_mesh_control_plane::call(&self.circuit, call).await
    }

    /// Reads the settings of the control plane and of the registration's mesh unless they are known: they decide how the
    /// registration is rendered.
    pub(super) async fn ensure_capabilities(&self, id: &RegistrationId) -> Result<(), CallError> {
        let mesh = id.mesh_scope();
        if self.lists.has_capabilities(mesh) {
            return Ok(());
        }
        self.refresh_capabilities(mesh.cloned().into_iter().collect()).await
    }

    /// Reads the settings of these meshes again.
    pub(super) async fn refresh_capabilities(&self, meshes: BTreeSet<MeshName>) -> Result<(), CallError> {
        let refreshed = self.call(self.client.refresh_capabilities(&meshes)).await;
        self.report_support();
        refreshed?;
        self.clear_errors(|kind| kind == MeshErrorKind::MeshNotFound || kind == MeshErrorKind::Unreachable);
        self.lists.record_capabilities(meshes);
        Ok(())
    }

    /// Fails if the control plane is not supported, or if that could not be found out.
    pub(super) async fn ensure_supported(&self) -> Result<(), CallError> {
        let supported = self.call(self.client.ensure_supported()).await;
        self.report_support();
        supported
    }

    /// Why nothing is written to the control plane, if it is not supported.
    pub(super) fn unsupported(&self) -> Option<Arc<String>> {
        self.client.support().refusal()
    }

    /// The lease of the process, which permits no write while the control plane is not supported.
    pub(super) fn lease(&self, process: &Arc<dyn Lease>) -> SupportedLease {
        SupportedLease::new(Arc::clone(process), self.client.support())
    }

    /// Logs, once, that the control plane is not supported, and that it is again.
    fn report_support(&self) {
        let kind = MeshErrorKind::Obstructed(WriteObstacle::UnsupportedControlPlane);
        let (control_plane, warnings) = (&self.name, &self.warnings.control_plane);
        match self.unsupported() {
            Some(reason) if warnings.raise((kind, String::new()), ()) => {
                error!(%control_plane, %reason, "control plane not supported; nothing is written to it");
                self.record_state(|| JournalEvent::Unsupported { message: reason.to_string() });
            }
            Some(_) => {}
            None if warnings.retain(|(raised, _)| *raised != kind).is_empty() => {}
            None => {
                info!(%control_plane, "control plane is supported again; writes resume");
                self.record_state(|| JournalEvent::Supported);
            }
        }
    }

    /// Records a state of the control plane in the journal.
    fn record_state(&self, event: impl FnOnce() -> JournalEvent) {
        self.journal.record(|| {
            let control_plane = Some(Arc::clone(&self.name));
            (JournalSubject { control_plane, ..JournalSubject::default() }, event())
        });
    }

    /// Whether the circuit is closed.
    pub fn is_reachable(&self) -> bool {
        self.circuit_state() == CircuitState::Closed
    }

    /// The state of the circuit.
    pub fn circuit_state(&self) -> CircuitState {
        self.circuit.state()
    }

    /// Whether no pass over the ACL objects or the tokens is requested or running.
    pub fn are_objects_settled(&self) -> bool {
        self.acl.as_ref().is_none_or(|acl| acl.is_settled())
            && self.tokens.as_ref().is_none_or(|tokens| tokens.is_settled())
    }

    // Guards

    /// Works on the guard of a binding.
    pub(super) fn with_guard<T>(&self, binding: &Arc<str>, work: impl FnOnce(&mut RemovalGuard) -> T) -> T {
        work(lock(&self.guards).entry(Arc::clone(binding)).or_default())
    }

    /// Passes the number of a binding's registrations to its guard: a removal is a part of these.
    pub(super) fn record_owned_count(&self, binding: &Binding, now: Timestamp) {
        let owned = self.registry.owned_by(&binding.name);
        self.with_guard(&binding.name, |guard| guard.record_owned(owned, now));
    }

    /// The number of removals that the guards hold, by binding.
    pub fn held_by_guard(&self) -> BTreeMap<Arc<str>, usize> {
        lock(&self.guards).iter().map(|(binding, guard)| (Arc::clone(binding), guard.held_count())).collect()
    }

    /// The tasks whose removal a guard holds.
    pub fn tasks_held_by_guard(&self) -> BTreeSet<TaskArn> {
        lock(&self.guards).values().flat_map(|guard| guard.held().cloned().collect::<Vec<_>>()).collect()
    }

    /// The state of the guards, by binding: of registrations, and of data plane tokens.
    pub(super) fn guard_states(
        &self,
        manifests: &ManifestSet,
        now: Timestamp,
        wall: Timestamp,
    ) -> BTreeMap<Arc<str>, GuardState> {
        let guards = lock(&self.guards);
        let here = manifests.bindings.values().filter(|binding| *binding.spec.control_plane == *self.name);
        let state = |binding: &Arc<Binding>| {
            let released = binding.guard_released_until.is_some_and(|until| wall < until);
            let guard = guards.get(&binding.name);
            let of_tasks = guard.map(|guard| guard.state(&binding.spec.cleanup.guard, released, now));
            let tokens = self.tokens.as_ref();
            let of_tokens = tokens.and_then(|tokens| tokens.guard_state(binding, released, now));
            Some((Arc::clone(&binding.name), of_tasks.into_iter().chain(of_tokens).reduce(sum_of_guards)?))
        };
        here.filter_map(state).collect()
    }

    // Lists

    /// How long a sweep waits for this control plane's list. A slower list goes on and counts in the next sweep.
    pub(super) fn list_wait(&self) -> Duration {
        self.lists.wait()
    }

    /// A complete list took this long.
    pub(super) fn record_list_duration(&self, took: Duration) {
        self.lists.record_duration(took);
    }

    /// Records the format in which registrations are compared with this list.
    pub(super) fn record_format(&self) {
        self.lists.record_format(self.client.registration_format());
    }

    /// Records what sidecars have reported. A report that the lists lack stays, as long as the task is registered: a
    /// sidecar runs as it was started.
    pub(super) fn record_sidecars(&self, reported: Vec<(RegistrationId, SidecarOutbounds)>) {
        let registered = self.registry.ids();
        let mut all = lock(&self.reported_outbounds);
        all.retain(|id, _| registered.contains(id));
        all.extend(reported);
    }

    /// How the sidecar of a task gets its outbounds, if it has reported that.
    pub(super) fn reported_outbounds(&self, task: &TaskArn) -> Option<SidecarOutbounds> {
        let entries = self.registry.entries(task);
        let all = lock(&self.reported_outbounds);
        entries.iter().find_map(|entry| all.get(&entry.id).copied())
    }

    /// Whether instances of several releases answer: what is registered must be compared again and again.
    pub(super) fn has_several_releases(&self) -> bool {
        self.is_synced() && self.client.has_several_releases()
    }

    /// Whether the format of registrations is another one than at the last list: the control plane was upgraded, and what is
    /// registered must be compared again.
    pub(super) fn has_new_format(&self) -> bool {
        self.is_synced() && !self.lists.is_format(self.client.registration_format().as_deref())
    }

    /// The lock of the list; `None` while a list is in progress.
    pub(super) fn try_lock_list(&self) -> Option<tokio::sync::OwnedMutexGuard<()>> {
        self.lists.try_lock()
    }

    /// A list succeeded but for these segments. Returns whether it is the first, and the segments that failed before and
    /// no longer do.
    pub(super) fn record_list_result(&self, failed: &[FailedSegment]) -> (bool, Vec<String>) {
        self.warn_failed_segments(failed);
        self.lists.record_result(failed)
    }

    /// Warns of segments that could not be listed, once until they are listed or fail for another reason.
    pub(super) fn warn_failed_segments(&self, failed: &[FailedSegment]) {
        for FailedSegment { segment, error } in failed {
            let (control_plane, reason, error) = (&self.name, error.kind.label(), &error.message);
            if self.lists.raise_unlisted(segment.to_string(), reason) {
                warn!(%control_plane, reason, %segment, error, "cannot list a segment; keeping its registrations");
            } else {
                debug!(%control_plane, reason, %segment, error, "cannot list a segment; keeping its registrations");
            }
        }
    }

    /// The segments that the last list failed to read.
    pub(super) fn unlisted_segments(&self) -> Vec<String> {
        self.lists.unlisted()
    }

    /// Whether this process has listed at least a segment. Before, neither the guards know how many are owned, nor the
    /// registry which task has a registration.
    pub(super) fn is_synced(&self) -> bool {
        self.lists.is_synced()
    }

    /// Whether this process has listed all segments.
    pub(super) fn is_fully_synced(&self) -> bool {
        self.lists.is_fully_synced()
    }

    /// Records how many registrations of this operator name a cluster that no binding selects.
    pub(super) fn record_unattributed(&self, count: usize) {
        self.lists.record_unattributed(count);
    }

    /// How many registrations of this operator name a cluster that no binding selects, as of the last list.
    pub(super) fn unattributed_registrations(&self) -> usize {
        self.lists.unattributed()
    }

    // Tasks

    /// Records that a task has stopped, where tasks register themselves: what the task registered must be searched for
    /// once, whether an event or a describe showed the stop, and until a search succeeds.
    pub(super) fn record_stop(&self, task: &TaskArn) {
        if self.kind.tasks_register_themselves() {
            self.tasks.record_stop(task);
        }
    }

    /// Whether a task has stopped and what it registered has not been searched for since.
    pub(super) fn is_unsearched(&self, task: &TaskArn) -> bool {
        self.tasks.is_unsearched(task)
    }

    /// A search for what the stopped task registered succeeded.
    pub(super) fn record_search(&self, task: &TaskArn) {
        self.tasks.record_search(task);
    }

    /// An event of the task was received.
    pub(super) fn record_event(&self, task: &TaskArn, at: Instant) {
        self.tasks.record_event(task, at);
    }

    /// Takes the time of the task's oldest event that no reconcile has acknowledged.
    pub(super) fn take_pending_event(&self, task: &TaskArn) -> Option<Instant> {
        self.tasks.take_pending_event(task)
    }

    /// Locks a registration for read, check and write. Names recur (`{hostname}` returns with the address), so two tasks
    /// may want one name, and the control plane has no compare-and-swap.
    pub(super) async fn lock_registration(&self, id: &RegistrationId) -> RegistrationLock<'_> {
        self.tasks.lock_registration(id).await
    }

    /// Counts a reconcile until the returned guard is dropped.
    pub(super) fn begin_run(&self) -> InFlightGuard<'_> {
        self.tasks.begin_run();
        InFlightGuard(self)
    }

    // Warnings

    /// Warns of a failure of the control plane itself, once until it is over.
    pub(super) fn warn_once(&self, error: &MeshError) {
        // Several meshes may be missing, and each is a cause of its own.
        let cause =
            if error.kind == MeshErrorKind::MeshNotFound { error.message.clone() } else { String::new() };
        let (control_plane, reason) = (&self.name, error.kind.label());
        if self.warnings.control_plane.raise((error.kind, cause), ()) {
            warn!(%control_plane, reason, error = error.message, "call failed; keeping registrations and retrying");
        } else {
            debug!(%control_plane, reason, error = error.message, "call failed; keeping registrations and retrying");
        }
    }

    /// Failures of these kinds are over.
    pub(super) fn clear_errors(&self, over: impl Fn(MeshErrorKind) -> bool) {
        self.warnings.control_plane.retain(|(kind, _)| !over(*kind));
    }

    /// Records a warning of a task: see [`WarningDeduper::record`].
    pub(super) fn record_warning(
        &self,
        task: &TaskArn,
        reason: &'static str,
        key: &str,
        message: &str,
    ) -> Novelty {
        lock(&self.warnings.tasks).record(task, reason, key, message)
    }

    /// A warning of the task is over.
    pub(super) fn clear_warning(&self, task: &TaskArn, reason: &'static str) {
        if lock(&self.warnings.tasks).resolve(task, reason) {
            self.record_resolved(task, reason);
        }
    }

    /// All warnings of the task are over.
    pub(super) fn clear_warnings(&self, task: &TaskArn) {
        let resolved = lock(&self.warnings.tasks).resolve_all(task);
        resolved.into_iter().for_each(|reason| self.record_resolved(task, reason));
    }

    fn record_resolved(&self, task: &TaskArn, reason: &'static str) {
        self.journal.record(|| {
            let subject = JournalSubject {
                control_plane: Some(Arc::clone(&self.name)),
                task: Some(task.clone()),
                ..JournalSubject::default()
            };
            (subject, JournalEvent::Resolved { reason })
        });
    }

    /// The reasons of the task's active warnings.
    pub(super) fn warnings_of(&self, task: &TaskArn) -> Vec<&'static str> {
        lock(&self.warnings.tasks).reasons_of(task)
    }

    /// The number of tasks with active warnings, by reason.
    pub(super) fn tasks_with_warnings(&self) -> BTreeMap<&'static str, usize> {
        lock(&self.warnings.tasks).counts_by_reason()
    }

    /// Logs how many tasks each grown group of warnings has, unless more reconciles are due.
    fn flush_counts(&self) {
        if !lock(&self.warnings.tasks).has_due() || self.queue.stats().ready > 0 {
            return;
        }
        for GroupCount { reason, tasks, example, message } in lock(&self.warnings.tasks).take_due() {
            warn!(
                control_plane = %self.name, task = %example, reason, tasks, error = message,
                "more tasks need attention; `plan` lists them"
            );
        }
    }

    /// Records the outbound services that a sweep found unknown in a mesh. Returns those to report: unknown for a while,
    /// and known again after a report.
    pub(super) fn record_unknown_outbounds(
        &self,
        mesh: &MeshName,
        unknown: BTreeSet<String>,
        now: Timestamp,
    ) -> (Vec<String>, Vec<String>) {
        let reported = &self.warnings.reported_outbounds;
        let found = reported.retain(|(at, service)| at != mesh || unknown.contains(service));
        let found = found.into_iter().map(|(_, service)| service).collect();
        let mut all = lock(&self.warnings.unknown_outbounds);
        let before = std::mem::take(all.entry(mesh.clone()).or_default());
        let since: BTreeMap<String, Timestamp> = unknown
            .into_iter()
            .map(|service| (before.get(&service).copied().unwrap_or(now), service))
            .map(|(since, service)| (service, since))
            .collect();
        let late = since
            .iter()
            .filter(|(_, since)| since.age_at(now) >= UNKNOWN_OUTBOUND_WARN_AFTER)
            .filter(|(service, _)| reported.raise((mesh.clone(), (*service).clone()), ()))
            .map(|(service, _)| service.clone())
            .collect();
        all.insert(mesh.clone(), since);
        (late, found)
    }

    /// Records that a mesh has services whose addresses sidecars cannot bind. Whether that is new.
    pub(super) fn raise_unbindable(&self, mesh: &MeshName) -> bool {
        self.warnings.unbindable.raise(mesh.clone(), ())
    }

    /// Records that sidecars can bind all addresses of a mesh.
    pub(super) fn clear_unbindable(&self, mesh: &MeshName) {
        self.warnings.unbindable.clear(mesh);
    }

    /// Forgets what is known of meshes that no binding names any more.
    pub(super) fn retain_meshes(&self, bound: &BTreeSet<MeshName>) {
        lock(&self.warnings.unknown_outbounds).retain(|mesh, _| bound.contains(mesh));
        self.warnings.reported_outbounds.retain(|(mesh, _)| bound.contains(mesh));
        self.warnings.unbindable.retain(|mesh| bound.contains(mesh));
        lock(&self.warnings.mesh_services).retain(|mesh, _| bound.contains(mesh));
    }

    /// Records an evaluation of a task for readers, where there may be any.
    pub(super) fn record_evaluation(&self, task: &TaskArn, evaluation: &Evaluation) {
        if self.journal.is_observed() {
            self.evaluated.record(task, evaluation);
        }
    }

    /// Records the services of a mesh for readers, where there may be any.
    pub(super) fn record_mesh_services(&self, mesh: &MeshName, known: &MeshServices) {
        if self.journal.is_observed() {
            let named = known.names.iter().flatten().map(String::as_str);
            let resources = known.resources.iter().filter(|one| one.kind == BackendKind::MeshService);
            let all = named.chain(resources.map(|one| one.name.as_str())).map(intern).collect();
            lock(&self.warnings.mesh_services).insert(mesh.clone(), Arc::new(all));
        }
    }

    /// The services of each mesh, as last listed.
    pub(super) fn mesh_services(&self) -> BTreeMap<MeshName, Arc<BTreeSet<Arc<str>>>> {
        lock(&self.warnings.mesh_services).clone()
    }

    /// Since when sweeps find that the mesh does not know the service of an outbound; `None` if it does, or was not listed.
    pub(super) fn unknown_outbound_since(&self, mesh: &MeshName, service: &str) -> Option<Timestamp> {
        lock(&self.warnings.unknown_outbounds).get(mesh)?.get(service).copied()
    }

    /// Whether a sweep has compared the outbounds of the mesh with its services.
    pub(super) fn has_compared_outbounds(&self, mesh: &MeshName) -> bool {
        lock(&self.warnings.unknown_outbounds).contains_key(mesh)
    }

    /// The number of outbound services that are unknown, by mesh.
    pub(super) fn unknown_outbound_counts(&self) -> BTreeMap<Arc<str>, usize> {
        let all = lock(&self.warnings.unknown_outbounds);
        all.iter().map(|(mesh, services)| (mesh.as_str().into(), services.len())).collect()
    }
}

/// A reconcile in flight. The last one to end logs the counts of grown warnings.
pub(super) struct InFlightGuard<'a>(&'a ControlPlaneWorker);

impl Drop for InFlightGuard<'_> {
    fn drop(&mut self) {
        if self.0.tasks.end_run() {
            self.0.flush_counts();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The numbers of two guards of one binding. One that guards nothing has a limit all the same, which does not count.
fn sum_of_guards(one: GuardState, other: GuardState) -> GuardState {
    if one.held + one.admitted + one.owned == 0 {
        return other;
    }
    GuardState {
        held: one.held + other.held,
        stabilising: one.stabilising + other.stabilising,
        admitted: one.admitted + other.admitted,
        owned: one.owned + other.owned,
        limit: one.limit + other.limit,
    }
}

#[cfg(test)]
mod tests;
