//! Keeps each control plane's identity set-up as its `ConsulAuth` declares it: at the start, after manifests or
//! clusters changed, at each sweep's interval, and soon after a failure. Beside the controllers, so that neither holds
//! up the other.

mod host;
mod acl_state;
mod pass;
mod report;
mod apply;
mod state;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::backend::AclBackend;
use crate::plan::ActualObjects;
use ecs_mesh_api::manifests::ManifestSet;
use ecs_mesh_api::{ConsulAuthSpec, ConsulConnection};
use ecs_mesh_clock::Clock;
use ecs_mesh_consul::{DEFAULT_CLIENT_METHOD, DEFAULT_METHOD};
use ecs_mesh_controller::{Backoff, Circuit, ShutdownSummary, Lease, Heartbeat, TokenBucket};
use ecs_mesh_core::plan::report::ObjectKind;
use ecs_mesh_model::OperatorId;

pub use host::{AclDryRun, AclHost, AclMetrics};
pub use state::{AclStatus, OBJECT_STATES};

use acl_state::AclState;
use pass::{ReconcileEnd, AclReconcile};
use report::AclReporter;

/// A look with all its writes that takes longer is cut off, and begun anew later.
const RECONCILE_TIMEOUT: Duration = Duration::from_mins(10);
/// What the loop does beside looking is done within this.
const STEP_TIMEOUT: Duration = Duration::from_mins(2);
/// Between two looks while something fails.
const RETRY: Backoff = Backoff { min: Duration::from_secs(1), max: Duration::from_mins(2) };

/// One control plane's objects: how they are reached, and what is remembered of them between two looks.
pub struct AclTarget {
    name: Arc<str>,
    /// As the manifest has it.
    connection: Option<ConsulConnection>,
    backend: Arc<dyn AclBackend>,
    circuit: Circuit,
    writes: TokenBucket,
    keeping: AclState,
}

impl AclTarget {
    /// The objects of the control plane of this name. `circuit` and `writes` are shared with whoever else calls it.
    pub fn new(
        name: Arc<str>,
        connection: Option<ConsulConnection>,
        backend: Arc<dyn AclBackend>,
        circuit: Circuit,
        writes: TokenBucket,
    ) -> Self {
        Self { name, connection, backend, circuit, writes, keeping: AclState::default() }
    }

    /// Something changed: look again.
    pub fn soon(&self) {
        self.keeping.request_reconcile();
    }

    /// Whether every look that was asked for has ended.
    pub fn is_settled(&self) -> bool {
        self.keeping.is_settled()
    }

    /// For the scrape.
    pub fn state(&self) -> AclStatus {
        self.keeping.state()
    }

    /// Has the tokens of the auth methods looked after that are declared for tasks and for clients, beside the usual
    /// ones', and of all that bear our mark, since those hand out tokens for as long as they are there.
    pub fn watch_auth_methods(&self, set: &ManifestSet) {
        self.backend.watch_auth_methods(self.methods(set));
    }

    /// Those that manifests name and the usual ones, and those of ours that looks found.
    fn methods(&self, set: &ManifestSet) -> BTreeSet<Arc<str>> {
        let mut methods = watched_auth_methods(set, &self.name);
        methods.extend(self.keeping.auth_methods());
        methods
    }
}

/// Looks after one control plane's objects.
pub struct AclReconciler {
    /// Whose mark the objects bear.
    pub operator: OperatorId,
    /// The objects.
    pub target: Arc<AclTarget>,
    /// What is in force.
    pub host: Arc<dyn AclHost>,
    /// Who counts.
    pub metrics: Arc<dyn AclMetrics>,
    /// In a dry run: nothing is written, and what would be goes in here.
    pub dry_run: Option<Arc<dyn AclDryRun>>,
    /// Whether this process may write.
    pub lease: Arc<dyn Lease>,
    /// Wall-clock time.
    pub clock: Clock,
    /// Feeds the jitter.
    pub seed: u64,
}

impl AclReconciler {
    /// Looks after the objects until `stop`; a write that is under way then has `drain` to end.
    pub async fn run(self, pulse: Heartbeat, graceful_shutdown_timeout: Duration, stop: CancellationToken) -> ShutdownSummary {
        let seed = self.seed.wrapping_add(5);
        let mut jitter = fastrand::Rng::with_seed(seed);
        let mut trouble = None;
        while !stop.is_cancelled() {
            pulse.expect_within(RECONCILE_TIMEOUT + STEP_TIMEOUT);
            let requested = self.target.keeping.begin_reconcile();
            let pass = AclReconcile { acl: &self, stop: &stop };
            let too_late = async {
                stop.cancelled().await;
                tokio::time::sleep(graceful_shutdown_timeout).await;
            };
            let ended = tokio::select! {
                biased;
                ended = tokio::time::timeout(RECONCILE_TIMEOUT, pass.run()) => Some(ended.unwrap_or(ReconcileEnd::Retry(None))),
                () = too_late => None,
            };
            AclReporter { acl: &self, is_declared: true }.report_cancelled();
            let Some(ended) = ended else { break };
            self.target.keeping.ends(requested);
            let pause = match ended {
                ReconcileEnd::Settled => {
                    trouble = None;
                    self.host.sweep_interval().mul_f64(0.95 + 0.1 * jitter.f64())
                }
                ReconcileEnd::Retry(not_before) => {
                    let delays = trouble.get_or_insert_with(|| RETRY.start(seed));
                    let at_least = not_before.map(|at| at.saturating_duration_since(Instant::now()));
                    delays.after_failure().max(at_least.unwrap_or_default())
                }
            };
            pulse.expect_within(pause + STEP_TIMEOUT);
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = self.target.keeping.wait_for_request() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
        pulse.unregister();
        ShutdownSummary::default()
    }

    fn is_dry_run(&self) -> bool {
        self.dry_run.is_some()
    }

    fn gap(&self, what: &str, why: Option<String>) {
        if let Some(dry_run) = &self.dry_run {
            dry_run.record_unresolved(what, why);
        }
    }

    /// What a look found of methods of ours. Tokens of those that it found first are listed soon.
    fn record_auth_methods(&self, actual: &ActualObjects) {
        let Some(ours) = actual.owned_names(ObjectKind::AuthMethod, &self.operator) else { return };
        let set = self.host.manifests();
        let before = self.target.methods(&set);
        self.target.keeping.set_auth_methods(ours);
        self.target.watch_auth_methods(&set);
        if !self.target.methods(&set).is_subset(&before) {
            self.host.invalidate_sweep();
        }
    }
}

/// What is declared for a plane, if anything. (There is at most one: the manifests' rules see to it.)
fn declared_auth<'a>(set: &'a ManifestSet, control_plane: &str) -> Option<&'a Arc<ConsulAuthSpec>> {
    set.consul_auths.values().find(|spec| *spec.control_plane == *control_plane)
}

/// The auth methods whose logins' tokens are looked after, whatever is found.
pub fn watched_auth_methods(set: &ManifestSet, control_plane: &str) -> BTreeSet<Arc<str>> {
    let declared = declared_auth(set, control_plane);
    let tasks = declared.and_then(|spec| Some(spec.service_tokens.as_ref()?.auth_method.as_str()));
    let clients = declared.and_then(|spec| Some(spec.client_tokens.as_ref()?.auth_method.as_str()));
    let usual = [DEFAULT_METHOD, DEFAULT_CLIENT_METHOD];
    usual.into_iter().chain(tasks).chain(clients).map(Arc::from).collect()
}
