//! The operator's state for metrics and probes: see [`crate::telemetry::state`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::context::Context;
use super::control_plane_worker::ControlPlaneWorker;
use super::dataplane_checks::DataplaneState;
use super::manifest_applier::RECONCILE_TIMEOUT;
use super::sweeper::ListedClusters;
use crate::telemetry::LONGEST_START_PERIOD;
use crate::telemetry::state::{
    AccountState, CheckedDataplanes, ControlPlaneState, ControllerState, LeaseState, ManifestState,
    OperatorState, StateSource,
};
use ecs_mesh_api::manifests::{ManifestFinding, ManifestSet};
use ecs_mesh_aws::aws::AwsError;
use ecs_mesh_controller::{CircuitState, WriteObstacle};
use ecs_mesh_lease::LeaseStoreErrorKind;
use ecs_mesh_manifests::ManifestStatus;
use ecs_mesh_model::{AccountRegion, ClusterArn, DataplaneOwner, Timestamp};

/// The manifest kinds, in the order of their references.
const MANIFEST_KINDS: [&str; 6] =
    ["ControlPlane", "MeshBinding", "Workload", "OutboundList", "ConsulAuth", "AwsAccount"];

/// State that only metrics and probes read.
#[derive(Default)]
pub(super) struct StatusTracker {
    inner: Mutex<Inner>,
    /// The configured concurrency.
    concurrency: AtomicUsize,
    /// Once ready, the operator stays ready unless writes are suspended: other failures have alerts of their own, and a
    /// restart would not fix them.
    was_ready: AtomicBool,
    /// Once started, a copy stays started: its end would help no other copy.
    was_started: AtomicBool,
}

#[derive(Default)]
struct Inner {
    /// The last applied manifests.
    manifests: Option<Arc<ManifestStatus>>,
    /// The clusters that bindings select; `None` before the first list.
    clusters: Option<BTreeSet<ClusterArn>>,
    /// The last complete sweep of each cluster.
    last_full_sweep: BTreeMap<ClusterArn, Timestamp>,
}

impl StatusTracker {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records the applied manifests and the configured concurrency.
    pub(super) fn record_manifests(&self, manifests: &ManifestStatus, concurrency: usize) {
        self.lock().manifests = Some(Arc::new(manifests.clone()));
        self.concurrency.store(concurrency, Ordering::Relaxed);
    }

    /// Records the clusters that bindings select, as far as they were listed.
    pub(super) fn record_clusters(&self, clusters: &BTreeSet<ClusterArn>, listed: ListedClusters) {
        let mut inner = self.lock();
        match (listed, &mut inner.clusters) {
            (ListedClusters::All, _) => {
                inner.last_full_sweep.retain(|cluster, _| clusters.contains(cluster));
                inner.clusters = Some(clusters.clone());
            }
            (_, Some(known)) => known.extend(clusters.iter().cloned()),
            // The accounts whose clusters are missing are a condition of their own.
            (ListedClusters::Own, None) => inner.clusters = Some(clusters.clone()),
            (ListedClusters::None, None) => {}
        }
    }

    /// The manifests that were last applied.
    pub(super) fn manifests(&self) -> Option<Arc<ManifestStatus>> {
        self.lock().manifests.clone()
    }

    /// The clusters that bindings select, with the last complete sweep of each.
    pub(super) fn sweeps_of_clusters(&self) -> Vec<(ClusterArn, Option<Timestamp>)> {
        let inner = self.lock();
        let clusters = inner.clusters.iter().flatten();
        clusters.map(|cluster| (cluster.clone(), inner.last_full_sweep.get(cluster).copied())).collect()
    }

    /// Records a complete sweep of the cluster.
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
        let pending = self.pending_conditions(&set);
        let startup_pending = self.startup_conditions(&set);
        let inner = self.context.status.lock();
        let selected = inner.clusters.as_ref();
        let clusters = selected.into_iter().flatten().map(|cluster| {
            let at = inner.last_full_sweep.get(cluster).map(|at| at.as_secs_f64());
            (short_name(cluster, selected), at)
        });
        let clusters = clusters.collect();
        let manifests = inner.manifests.as_deref().map(manifest_state).unwrap_or_default();
        drop(inner);
        let workers = self.context.workers.load();
        let workers = workers
            .iter()
            .map(|(name, worker)| (Arc::clone(name), self.control_plane_state(worker, &set, now)));
        OperatorState {
            operator: self.context.process.id.as_str().into(),
            leader: self.context.process.lease.holds(),
            lease: self.lease_state(),
            pending,
            startup_pending,
            manifests,
            clusters,
            accounts: account_states(self.context.accounts.all()),
            control_planes: workers.collect(),
            deployments: self.context.deployments.controller_state(),
            known_tasks: self.context.aws.store.len(),
        }
    }
}

impl OperatorStatus {
    fn lease_state(&self) -> Option<LeaseState> {
        let status = self.context.process.replicas.as_ref()?.election.status();
        Some(LeaseState {
            role: if self.context.process.lease.holds() { "leader" } else { "standby" },
            leader: status.leader.map(|leader| leader.as_str().to_owned()),
            epoch: status.epoch,
            acquired: status.acquired,
            lost: status.lost,
            store_error: status.store_error.map(LeaseStoreErrorKind::label),
        })
    }

    /// Why the lease keeps this copy from leading and from standing by.
    fn pending_lease(&self) -> Option<String> {
        let lease = self.lease_state()?;
        if self.context.process.lease.holds() {
            return None;
        }
        match lease.store_error {
            // It cannot take over.
            Some(error) => Some(format!("the lease's store cannot be used: {error}; the log has the cause")),
            None if lease.leader.is_none() && !self.context.status.was_ready.load(Ordering::Relaxed) => {
                Some("no copy leads yet".to_owned())
            }
            None => None,
        }
    }

    fn control_plane_state(
        &self,
        worker: &ControlPlaneWorker,
        set: &ManifestSet,
        now: Timestamp,
    ) -> ControlPlaneState {
        ControlPlaneState {
            version: worker.client.server_version(),
            circuit: worker.circuit_state(),
            synced: worker.is_fully_synced(),
            foreign_writer: worker.foreign_writer(),
            unsupported: worker.unsupported().map(|reason| reason.to_string()),
            unlisted_segments: worker.unlisted_segments(),
            controller: ControllerState {
                queue: worker.queue.stats(),
                workers: worker.worker_count(self.context.status.concurrency.load(Ordering::Relaxed)),
                reconcile_timeout: RECONCILE_TIMEOUT,
            },
            owned: worker.registry.owned(),
            token_expiry: worker.client.token_expiry().map(Timestamp::as_secs_f64),
            unattributed_registrations: worker.unattributed_registrations(),
            unknown_outbound_services: worker.unknown_outbound_counts(),
            tasks_with_warnings: worker.tasks_with_warnings(),
            guards: worker.guard_states(set, now, self.context.wall()),
            held_drains: worker.drains.held_count(),
            protected_tasks: self.context.deployments.protected_count(&worker.name),
            checked_dataplanes: checked_dataplanes(worker),
            acl: worker.acl.as_ref().map(|acl| acl.state()),
            tokens: worker.tokens.as_ref().map(|tokens| tokens.status()),
        }
    }

    /// Why this copy has not started yet.
    ///
    /// A standby must be ready once and have read a control plane: until then, another copy may do better. The first complete
    /// sweep is waited for only for [`LONGEST_START_PERIOD`], or no deployment of an operator with very many tasks would ever
    /// end. A copy that leads is started, ready or not: no other copy works in its place, and a restart would begin its guard's hour and its
    /// waits anew.
    fn startup_conditions(&self, set: &ManifestSet) -> Vec<String> {
        if self.context.status.was_started.load(Ordering::Relaxed) {
            return Vec::new();
        }
        let mut conditions = Vec::new();
        if !self.context.process.lease.holds() {
            let is_late = self.context.metrics().uptime() > LONGEST_START_PERIOD;
            conditions = self.suspended_conditions();
            if conditions.is_empty() && !self.context.status.was_ready.load(Ordering::Relaxed) {
                conditions = self.unread_conditions(set, is_late);
            }
            let workers = self.context.workers.load();
            // One of several may be down for days, and must not stop the deployments of the operator.
            let is_reached =
                set.control_planes.is_empty() || workers.values().any(|worker| worker.is_fully_synced());
            if !is_reached {
                let names: Vec<&str> = set.control_planes.keys().map(|name| &**name).collect();
                conditions.push(format!("no control plane was listed yet: {}", names.join(", ")));
            }
        }
        if conditions.is_empty() {
            self.context.status.was_started.store(true, Ordering::Relaxed);
        }
        conditions
    }

    /// The unmet readiness conditions.
    fn pending_conditions(&self, set: &ManifestSet) -> Vec<String> {
        let suspended = self.suspended_conditions();
        if !suspended.is_empty() || self.context.status.was_ready.load(Ordering::Relaxed) {
            return suspended;
        }
        let unread = self.unread_conditions(set, false);
        if unread.is_empty() {
            self.context.status.was_ready.store(true, Ordering::Relaxed);
        }
        unread
    }

    /// Why writes are suspended, which ends readiness whenever it occurs.
    fn suspended_conditions(&self) -> Vec<String> {
        if self.context.process.lease.obstacle() == Some(WriteObstacle::AuditBacklog) {
            return vec![format!("nothing is written: {}", WriteObstacle::AuditBacklog)];
        }
        if let Some(pending) = self.pending_lease() {
            return vec![pending];
        }
        let workers = self.context.workers.load();
        let unsupported = workers.iter().filter_map(|(name, worker)| {
            Some(format!("nothing is written to control plane {name}: {}", worker.unsupported()?))
        });
        let unsupported: Vec<String> = unsupported.collect();
        if !unsupported.is_empty() {
            return unsupported;
        }
        let foreign = workers.iter().filter_map(|(name, worker)| {
            let writer = worker.foreign_writer()?;
            Some(format!("another process ({writer}) writes to control plane {name} with this operator id"))
        });
        foreign.collect()
    }

    /// The parts of manifests, clusters and control planes that were not read yet. With `is_begun_enough`, clusters and accounts
    /// count that are being read.
    fn unread_conditions(&self, set: &ManifestSet, is_begun_enough: bool) -> Vec<String> {
        let workers = self.context.workers.load();
        let mut pending = Vec::new();
        let inner = self.context.status.lock();
        match inner.manifests.as_deref() {
            None => pending.push("manifests are not applied yet".to_owned()),
            // An operator that has never read a part of its manifests replaces none that has.
            Some(status) if !status.set.complete => {
                pending.extend(status.unread.iter().map(|finding| format!("manifest source {finding}")));
            }
            Some(_) => {}
        }
        if !set.bindings.is_empty() {
            match &inner.clusters {
                None => pending.push("clusters that bindings select are not listed yet".to_owned()),
                Some(clusters) => {
                    let (swept, not_found) =
                        (self.context.clusters.fully_swept(), self.context.clusters.not_found());
                    let accounts = self.context.accounts.all();
                    let is_unreadable = |cluster: &ClusterArn| {
                        accounts.get(&AccountRegion::of(cluster)).is_some_and(Option::is_some)
                    };
                    let known = &self.context.clusters;
                    let failed = accounts.iter().filter_map(|(place, error)| Some((place, error.as_ref()?)));
                    let failed = failed.filter(|(place, _)| !(is_begun_enough && known.is_place_read(place)));
                    pending.extend(failed.map(|(place, error)| {
                        format!("account {place} cannot be read: {} {}", error.operation, error.code)
                    }));
                    let is_left = |cluster: &&ClusterArn| {
                        !(swept.contains(*cluster)
                            || not_found.contains(*cluster)
                            || is_unreadable(cluster)
                            || (is_begun_enough && known.is_being_read(cluster)))
                    };
                    let left = clusters.iter().filter(is_left);
                    pending.extend(
                        left.map(|cluster| format!("cluster {cluster} has not been swept completely yet")),
                    );
                }
            }
        }
        drop(inner);
        for (name, worker) in workers.iter() {
            if !worker.is_fully_synced() && worker.circuit_state() == CircuitState::Closed {
                let parts = worker.unlisted_segments();
                let lacks = if parts.is_empty() { String::new() } else { format!(": {}", parts.join(", ")) };
                pending.push(format!("registrations at control plane {name} are not listed yet{lacks}"));
            }
        }
        pending
    }
}

/// The cluster's name, with its account and Region where another selected cluster has the same.
fn short_name(cluster: &ClusterArn, selected: Option<&BTreeSet<ClusterArn>>) -> String {
    let others = selected.into_iter().flatten().filter(|other| *other != cluster);
    if others.clone().any(|other| other.name() == cluster.name()) {
        format!("{}/{}/{}", cluster.account(), cluster.region(), cluster.name())
    } else {
        cluster.name().to_owned()
    }
}

fn account_states(accounts: BTreeMap<AccountRegion, Option<AwsError>>) -> Vec<AccountState> {
    let state =
        |(AccountRegion { account, region }, error): (AccountRegion, Option<AwsError>)| AccountState {
            account,
            region,
            error: error.map(|error| format!("{} {}", error.operation, error.code)),
        };
    accounts.into_iter().map(state).collect()
}

/// The Dataplanes that the operator does not own, by owner and state. An owner that no task has is left out.
fn checked_dataplanes(worker: &ControlPlaneWorker) -> Vec<CheckedDataplanes> {
    let counts = worker.dataplanes.counts();
    let owners = [DataplaneOwner::Sidecar, DataplaneOwner::Observe];
    let in_use = owners.into_iter().filter(|owner| counts.keys().any(|(checked, _)| checked == owner));
    let states = in_use.flat_map(|owner| DataplaneState::ALL.into_iter().map(move |state| (owner, state)));
    let all = states.map(|(owner, state)| CheckedDataplanes {
        owner: owner.as_str(),
        state: state.label(),
        count: counts.get(&(owner, state)).copied().unwrap_or_default(),
    });
    all.collect()
}

fn manifest_state(status: &ManifestStatus) -> ManifestState {
    let set = &status.set;
    let sizes = [
        set.control_planes.len(),
        set.bindings.len(),
        set.workloads.len(),
        set.outbound_lists.len(),
        set.consul_auths.len(),
        set.aws_accounts.len(),
    ];
    let mut errors: BTreeMap<&'static str, usize> =
        MANIFEST_KINDS.into_iter().map(|kind| (kind, 0)).collect();
    errors.insert("unknown", 0);
    // Unread sources have metrics of their own, and hold back no edit.
    for error in status.errors.iter().filter(|error| !status.unread.contains(error)) {
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

/// The kind of a finding's document. The label's values are bounded, whatever kind a document names.
fn kind_of(finding: &ManifestFinding) -> &'static str {
    let last_warnings = finding.subject.as_deref().and_then(|subject| subject.split('/').next());
    MANIFEST_KINDS.into_iter().find(|kind| Some(*kind) == last_warnings).unwrap_or("unknown")
}
