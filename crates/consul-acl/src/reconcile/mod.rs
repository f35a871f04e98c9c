//! Reconciles the ACL objects of each control plane with its `ConsulAuth`: at start, after manifests or clusters
//! changed, at each sweep interval, and with backoff after a failure. Runs beside the task controllers, so that neither
//! delays the other.

mod acl_state;
mod apply;
mod host;
mod pass;
mod report;
mod sightings;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::backend::AclBackend;
use crate::desired::OperatorIds;
use crate::plan::ActualObjects;
use ecs_mesh_api::manifests::ManifestSet;
use ecs_mesh_api::{ConsulAuthSpec, ConsulConnection};
use ecs_mesh_clock::Clock;
use ecs_mesh_consul::{DEFAULT_CLIENT_METHOD, DEFAULT_METHOD};
use ecs_mesh_controller::{Backoff, Circuit, Heartbeat, Lease, ShutdownSummary, TokenBucket};
use ecs_mesh_core::plan::report::ObjectKind;

pub use acl_state::{AclStatus, OBJECT_STATES};
pub use host::{AclChange, AclChangeResult, AclDryRun, AclHost, AclMetrics};

use acl_state::AclState;
use pass::{AclReconcile, ReconcileEnd};
use report::AclReporter;
use sightings::AclSightings;

/// Time limit of one reconcile with all its writes; it is cancelled and retried later.
const RECONCILE_TIMEOUT: Duration = Duration::from_mins(10);
/// Time limit of the loop's other steps.
const STEP_TIMEOUT: Duration = Duration::from_mins(2);
/// Backoff while reconciles fail.
const RETRY: Backoff = Backoff { min: Duration::from_secs(1), max: Duration::from_mins(2) };

/// The ACL objects of one control plane: how to reach them, and the state between two reconciles.
pub struct AclTarget {
    name: Arc<str>,
    /// The connection of the manifest.
    connection: Option<ConsulConnection>,
    backend: Arc<dyn AclBackend>,
    circuit: Circuit,
    writes: TokenBucket,
    state: AclState,
    sightings: AclSightings,
}

impl AclTarget {
    /// Creates the target. `circuit` and `writes` are shared with the control plane's other callers.
    pub fn new(
        name: Arc<str>,
        connection: Option<ConsulConnection>,
        backend: Arc<dyn AclBackend>,
        circuit: Circuit,
        writes: TokenBucket,
    ) -> Self {
        let sightings = AclSightings::new(backend.operators().clone(), backend.writer().cloned());
        Self { name, connection, backend, circuit, writes, state: AclState::default(), sightings }
    }

    /// Requests a reconcile.
    pub fn soon(&self) {
        self.state.request_reconcile();
    }

    /// Whether every requested reconcile has ended.
    pub fn is_settled(&self) -> bool {
        self.state.is_settled()
    }

    /// The status, for metrics.
    pub fn state(&self) -> AclStatus {
        self.state.status()
    }

    /// Another process that has recently written with this operator's id.
    pub fn foreign_writer(&self) -> Option<Arc<str>> {
        self.sightings.foreign_writer()
    }

    /// Watches the tokens of the declared and default auth methods, and of all owned ones, since an owned method issues
    /// tokens as long as it exists.
    pub fn watch_auth_methods(&self, set: &ManifestSet) {
        self.backend.watch_auth_methods(self.methods(set));
    }

    /// Declared and default auth methods, and owned ones as of the last snapshot.
    fn methods(&self, set: &ManifestSet) -> BTreeSet<Arc<str>> {
        let mut methods = watched_auth_methods(set, &self.name);
        methods.extend(self.state.auth_methods());
        methods
    }
}

/// Reconciles the ACL objects of one control plane.
pub struct AclReconciler {
    /// The objects.
    pub target: Arc<AclTarget>,
    /// The manifests in force, and the rest of the program.
    pub host: Arc<dyn AclHost>,
    /// Records metrics.
    pub metrics: Arc<dyn AclMetrics>,
    /// In a dry run, records changes instead of writing.
    pub dry_run: Option<Arc<dyn AclDryRun>>,
    /// Whether this process may write.
    pub lease: Arc<dyn Lease>,
    /// Wall-clock time.
    pub clock: Clock,
    /// Seed of the jitter.
    pub seed: u64,
}

impl AclReconciler {
    /// Reconciles until `stop`; a write in flight then has `graceful_shutdown_timeout` to end.
    pub async fn run(
        self,
        heartbeat: Heartbeat,
        graceful_shutdown_timeout: Duration,
        stop: CancellationToken,
    ) -> ShutdownSummary {
        let seed = self.seed.wrapping_add(5);
        let mut jitter = fastrand::Rng::with_seed(seed);
        let mut retry_delays = None;
        while !stop.is_cancelled() {
            heartbeat.expect_within(RECONCILE_TIMEOUT + STEP_TIMEOUT);
            let requested = self.target.state.begin_reconcile();
            let pass = AclReconcile { acl: &self, stop: &stop };
            let shutdown_timeout = async {
                stop.cancelled().await;
                tokio::time::sleep(graceful_shutdown_timeout).await;
            };
            let ended = tokio::select! {
                biased;
                ended = tokio::time::timeout(RECONCILE_TIMEOUT, pass.run()) => Some(ended.unwrap_or(ReconcileEnd::Retry(None))),
                () = shutdown_timeout => None,
            };
            AclReporter { acl: &self, is_declared: true }.report_cancelled();
            let Some(ended) = ended else { break };
            self.target.state.complete_reconcile(requested);
            let pause = match ended {
                ReconcileEnd::Settled => {
                    retry_delays = None;
                    self.host.sweep_interval().mul_f64(0.95 + 0.1 * jitter.f64())
                }
                ReconcileEnd::Retry(not_before) => {
                    let delays = retry_delays.get_or_insert_with(|| RETRY.start(seed));
                    let at_least = not_before.map(|at| at.saturating_duration_since(Instant::now()));
                    delays.after_failure().max(at_least.unwrap_or_default())
                }
            };
            heartbeat.expect_within(pause + STEP_TIMEOUT);
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = self.target.state.wait_for_request() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
        heartbeat.unregister();
        ShutdownSummary::default()
    }

    fn is_dry_run(&self) -> bool {
        self.dry_run.is_some()
    }

    fn record_unresolved(&self, subject: &str, error: Option<String>) {
        if let Some(dry_run) = &self.dry_run {
            dry_run.record_unresolved(subject, error);
        }
    }

    /// Records the owned auth methods of a snapshot. New ones invalidate the sweep, so that their tokens are listed soon.
    fn record_auth_methods(&self, actual: &ActualObjects, operators: &OperatorIds) {
        let Some(owned) = actual.owned_names(ObjectKind::AuthMethod, operators) else { return };
        let set = self.host.manifests();
        let before = self.target.methods(&set);
        self.target.state.set_auth_methods(owned);
        self.target.watch_auth_methods(&set);
        if !self.target.methods(&set).is_subset(&before) {
            self.host.invalidate_sweep();
        }
    }
}

/// The control plane's `ConsulAuth`, if any. Validation allows at most one.
fn declared_auth<'a>(set: &'a ManifestSet, control_plane: &str) -> Option<&'a Arc<ConsulAuthSpec>> {
    set.consul_auths.values().find(|spec| *spec.control_plane == *control_plane)
}

/// The declared and default auth methods, whose tokens the operator removes.
pub fn watched_auth_methods(set: &ManifestSet, control_plane: &str) -> BTreeSet<Arc<str>> {
    let declared = declared_auth(set, control_plane);
    let tasks = declared.and_then(|spec| Some(spec.service_tokens.as_ref()?.auth_method.as_str()));
    let clients = declared.and_then(|spec| Some(spec.client_tokens.as_ref()?.auth_method.as_str()));
    let defaults = [DEFAULT_METHOD, DEFAULT_CLIENT_METHOD];
    defaults.into_iter().chain(tasks).chain(clients).map(Arc::from).collect()
}
