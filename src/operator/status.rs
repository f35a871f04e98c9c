//! What the operator tells of itself, at one moment: see [`crate::telemetry::state`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::manifest_applier::RECONCILE_TIMEOUT;
use super::context::Context;
use super::control_plane_worker::ControlPlaneWorker;
use crate::telemetry::state::{ManifestState, OperatorState, ControlPlaneState, StateSource};
use ecs_mesh_api::manifests::{ManifestFinding, ManifestSet};
use ecs_mesh_controller::CircuitState;
use ecs_mesh_manifests::ManifestStatus;
use ecs_mesh_model::{ClusterArn, Timestamp};

/// The kinds of documents, in the order in which they build on each other.
const MANIFEST_KINDS: [&str; 5] = ["ControlPlane", "MeshBinding", "Workload", "OutboundList", "ConsulAuth"];

/// What is kept for no other end than to be told.
#[derive(Default)]
pub(super) struct StatusTracker {
    inner: Mutex<Inner>,
    /// Tasks worked on at once, as asked for.
    concurrency: AtomicUsize,
    /// Once ready, the operator stays so: what fails later has alerts of its own, and no restart would mend it.
    was_ready: AtomicBool,
}

#[derive(Default)]
struct Inner {
    /// As last put in force.
    manifests: Option<Arc<ManifestStatus>>,
    /// Those that bindings select; `None` before they could be listed.
    clusters: Option<BTreeSet<ClusterArn>>,
    /// When a sweep last saw each whole.
    last_full_sweep: BTreeMap<ClusterArn, Timestamp>,
}

impl StatusTracker {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// These manifests are in force, and so many tasks are to be worked on at once.
    pub(super) fn record_manifests(&self, manifests: &ManifestStatus, concurrency: usize) {
        self.lock().manifests = Some(Arc::new(manifests.clone()));
        self.concurrency.store(concurrency, Ordering::Relaxed);
    }

    /// The clusters that bindings select were found: all of them, or those that are named in full.
    pub(super) fn record_clusters(&self, clusters: &BTreeSet<ClusterArn>, all: bool) {
        let mut inner = self.lock();
        if all {
            inner.last_full_sweep.retain(|cluster, _| clusters.contains(cluster));
            inner.clusters = Some(clusters.clone());
        } else if let Some(known) = &mut inner.clusters {
            known.extend(clusters.iter().cloned());
        }
    }

    /// A sweep saw the cluster whole.
    pub(super) fn record_full_sweep(&self, cluster: &ClusterArn, at: Timestamp) {
        self.lock().last_full_sweep.insert(cluster.clone(), at);
    }
}

/// Reads the state of the operator's parts.
pub(super) struct OperatorStatus {
    pub(super) context: Arc<Context>,
}

impl StateSource for OperatorStatus {
    fn state(&self) -> OperatorState {
        let now = self.context.now();
        let set = self.context.manifests.load();
        let pending = self.waits_for(&set);
        let inner = self.context.status.lock();
        let clusters = inner.clusters.iter().flatten().map(|cluster| {
            let at = inner.last_full_sweep.get(cluster).map(|at| seconds(*at));
            (cluster.name().to_owned(), at)
        });
        let clusters = clusters.collect();
        let manifests = inner.manifests.as_deref().map(told).unwrap_or_default();
        drop(inner);
        let planes = self.context.workers.load();
        let planes =
            planes.iter().map(|(name, plane)| (Arc::clone(name), self.control_plane_state(plane, &set, now)));
        OperatorState {
            operator: self.context.process.id.as_str().into(),
            leader: self.context.process.lease.holds(),
            pending,
            manifests,
            clusters,
            control_planes: planes.collect(),
            known_tasks: self.context.aws.store.len(),
        }
    }
}

impl OperatorStatus {
    fn control_plane_state(&self, worker: &ControlPlaneWorker, set: &ManifestSet, now: Timestamp) -> ControlPlaneState {
        ControlPlaneState {
            circuit: worker.circuit_state(),
            synced: worker.is_fully_synced(),
            unlisted_segments: worker.unlisted_segments(),
            queue: worker.queue.stats(),
            workers: worker.worker_count(self.context.status.concurrency.load(Ordering::Relaxed)),
            reconcile_timeout: RECONCILE_TIMEOUT,
            owned: worker.registry.owned(),
            unattributed_registrations: worker.unattributed_registrations(),
            unknown_outbound_services: worker.unknown_outbound_counts(),
            tasks_with_warnings: worker.tasks_with_warnings(),
            guards: worker.guard_states(set, now),
            identity: worker.acl.as_ref().map(|acl| acl.state()),
        }
    }

    /// Why the operator is not ready.
    fn waits_for(&self, set: &ManifestSet) -> Vec<String> {
        if self.context.status.was_ready.load(Ordering::Relaxed) {
            return Vec::new();
        }
        let mut why = Vec::new();
        let inner = self.context.status.lock();
        if inner.manifests.is_none() {
            why.push("the manifests are not in force yet".to_owned());
        }
        if !set.bindings.is_empty() {
            match &inner.clusters {
                None => why.push("the clusters that bindings select are not listed yet".to_owned()),
                Some(clusters) => {
                    let swept = self.context.clusters.fully_swept();
                    let left = clusters.iter().filter(|cluster| !swept.contains(*cluster));
                    why.extend(left.map(|cluster| format!("no sweep has seen cluster {cluster} whole yet")));
                }
            }
        }
        drop(inner);
        for (name, plane) in self.context.workers.load().iter() {
            if !plane.is_fully_synced() && plane.circuit_state() == CircuitState::Closed {
                let parts = plane.unlisted_segments();
                let lacks = if parts.is_empty() { String::new() } else { format!(": {}", parts.join(", ")) };
                why.push(format!("what is registered at control plane {name} is not listed yet{lacks}"));
            }
        }
        if why.is_empty() {
            self.context.status.was_ready.store(true, Ordering::Relaxed);
        }
        why
    }
}

fn told(status: &ManifestStatus) -> ManifestState {
    let set = &status.set;
    let sizes = [
        set.control_planes.len(),
        set.bindings.len(),
        set.workloads.len(),
        set.outbound_lists.len(),
        set.consul_auths.len(),
    ];
    let mut errors: BTreeMap<&'static str, usize> = MANIFEST_KINDS.into_iter().map(|kind| (kind, 0)).collect();
    errors.insert("unknown", 0);
    for error in &status.errors {
        *errors.entry(kind_of(error)).or_default() += 1;
    }
    ManifestState {
        generation: set.generation,
        complete: set.complete,
        loaded: MANIFEST_KINDS.into_iter().zip(sizes).collect(),
        errors,
        warnings: status.warnings.len(),
    }
}

/// Whatever a document calls itself, the label's values are bounded.
fn kind_of(finding: &ManifestFinding) -> &'static str {
    let last_warnings = finding.subject.as_deref().and_then(|subject| subject.split('/').next());
    MANIFEST_KINDS.into_iter().find(|kind| Some(*kind) == last_warnings).unwrap_or("unknown")
}

#[allow(clippy::cast_precision_loss)] // milliseconds of this century
pub(super) fn seconds(at: Timestamp) -> f64 {
    at.0 as f64 / 1_000.0
}
