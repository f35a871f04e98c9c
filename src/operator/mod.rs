//! The operator: observations go through the store, intent and plan to the control planes.
//!
//! Events, sweeps, role changes and manifest changes only put tasks into work queues. One reconcile for each task and
//! control plane decides, from the newest that is known.
//!
//! | file | part |
//! |---|---|
//! | `context` | what the parts share |
//! | `event_handler` | describes the tasks that events name, and puts them into the queues |
//! | `sweeper` | lists control planes and clusters, finds what events missed |
//! | `leadership` | follows the lease: a standby keeps its caches, a new leader sweeps first |
//! | `accounts` | which accounts can be read |
//! | `role_watcher` | re-reads role tags |
//! | `manifest_applier` | creates and stops the workers |
//! | `control_plane_worker` | one control plane: queue, registry, circuit, write rate, guards |
//! | `task` | one reconcile of one task |
//! | `deployments` | protects the old tasks of deployments until their replacements are ready |
//! | `tokens` | issues, rotates and revokes data plane tokens |
//! | `apply` | one write: read, check ownership, compare, send |
//! | `plan` | a dry run that ends |
//! | `once` | a run that ends |
//! | `recorder` | logs and counts changes, or records them in a dry run |
//! | `evaluated_tasks`, `read_view` | the views of the read API |
//! | `journal` | passes changes and warnings to those who show or forward them |

mod accounts;
mod acl;
mod apply;
mod audited_lease;
mod context;
mod control_plane_worker;
mod dataplane_checks;
mod deployments;
mod deps;
mod drain_gate;
mod dry_run;
mod evaluated_tasks;
mod event_handler;
mod fact_waiters;
mod journal;
mod leadership;
mod manifest_applier;
mod mesh_members;
mod once;
mod outbound_check;
mod plan;
mod read_view;
mod recorder;
mod registry;
mod role_watcher;
mod status;
mod sweeper;
mod task;
#[cfg(test)]
#[cfg(feature = "sandbox")]
mod test_fixture;
#[cfg(test)]
#[cfg(feature = "sandbox")]
mod tests_clusters;
#[cfg(test)]
#[cfg(feature = "sandbox")]
mod tests_expressible;
#[cfg(test)]
mod tests_hosts;
#[cfg(test)]
#[cfg(feature = "sandbox")]
mod tests_import;
#[cfg(test)]
#[cfg(feature = "sandbox")]
mod tests_once;
#[cfg(test)]
#[cfg(feature = "sandbox")]
mod tests_outbounds;
#[cfg(test)]
#[cfg(feature = "sandbox")]
mod tests_owner;
#[cfg(test)]
#[cfg(feature = "sandbox")]
mod tests_reads;
#[cfg(test)]
#[cfg(feature = "sandbox")]
mod tests_settle;
#[cfg(test)]
#[cfg(feature = "sandbox")]
mod tests_sidecars;
#[cfg(test)]
#[cfg(feature = "sandbox")]
mod tests_startup;
#[cfg(test)]
#[cfg(feature = "sandbox")]
mod tests_support;
#[cfg(test)]
#[cfg(feature = "sandbox")]
mod tests_upgrade;
#[cfg(test)]
#[cfg(feature = "sandbox")]
mod tests_waiters;
#[cfg(test)]
mod tests_zone_proxies;
mod tokens;
mod warnings;
mod zone_proxy_lists;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use ecs_mesh_api::manifests::ManifestSet;
use ecs_mesh_aws::aws::EventQueue;
use ecs_mesh_aws::consumer::{PoisonPolicy, QueueConsumer};
use ecs_mesh_controller::{Lease, ShutdownSummary};
use ecs_mesh_manifests::ManifestStatus;
use ecs_mesh_model::ClusterArn;

use crate::telemetry::metrics::Metrics;
use context::{Context, RoleRecheck, WorkerMap};
use event_handler::TaskEventHandler;
use manifest_applier::ManifestApplier;
use role_watcher::RoleWatcher;
use status::OperatorStatus;
use sweeper::Sweeper;

pub use audited_lease::AuditedLease;
pub use control_plane_worker::ControlPlaneWorker;
pub use deps::{ConnectFn, ConnectResult, Connected, OperatorDeps, ReadRates};
pub use dry_run::DryRunRecorder;
pub use journal::{
    ChangeCause, ChangeResult, Journal, JournalChange, JournalEntry, JournalEvent, JournalHold,
    JournalSubject, JournalSubscriber, JournalWarning,
};
pub(crate) use journal::{MAX_FIELDS, shortened};
pub use leadership::{Replicas, StandbyReads};
pub use once::OnceReport;
pub use plan::{
    ExplainedState, KnownRegistrationState, PlanOptions, PlanProgress, PlanProgressCounts, PlanSelection,
    TaskExplanation,
};
pub use read_view::OperatorReads;
pub use tokens::TokenStores;

/// How an operator runs.
#[derive(Clone, Copy, Debug)]
pub struct RunOptions {
    /// Concurrent reconciles per control plane.
    pub concurrency: usize,
    /// Concurrent receivers of the queue.
    pub receivers: usize,
    /// How unparseable messages are handled.
    pub poison: PoisonPolicy,
    /// Time to finish in-flight work at a stop; must be below ECS's stopTimeout.
    pub graceful_shutdown_timeout: Duration,
}

impl Default for RunOptions {
    fn default() -> Self {
        Self {
            concurrency: 128,
            receivers: 4,
            poison: PoisonPolicy::Delete,
            graceful_shutdown_timeout: Duration::from_secs(20),
        }
    }
}

/// An internal task ended although the operator was not stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an internal task exited unexpectedly; the log has the panic")]
pub struct TaskExited;

/// The operator of one set of manifests.
pub struct Operator {
    context: Arc<Context>,
    sweeper: Arc<Sweeper>,
    connect: ConnectFn,
    /// Taken by the one run.
    rechecks: Mutex<Option<mpsc::UnboundedReceiver<RoleRecheck>>>,
    status: Arc<OperatorStatus>,
}

impl Operator {
    /// An operator that has not started.
    pub fn new(deps: OperatorDeps) -> Arc<Self> {
        let (context, rechecks) = Context::new(&deps);
        let sweeper = Sweeper { context: Arc::clone(&context), ecs: deps.ecs };
        Arc::new(Self {
            sweeper: Arc::new(sweeper),
            connect: deps.connect,
            rechecks: Mutex::new(Some(rechecks)),
            status: Arc::new(OperatorStatus { context: Arc::clone(&context) }),
            context,
        })
    }

    /// The manifests in force.
    pub fn manifests(&self) -> Arc<ManifestSet> {
        self.context.manifests.load()
    }

    /// The workers of the control planes in force.
    pub fn workers(&self) -> Arc<WorkerMap> {
        self.context.workers.load()
    }

    /// Whether this process may write.
    pub fn lease(&self) -> Arc<dyn Lease> {
        Arc::clone(&self.context.process.lease)
    }

    /// The metrics of this process.
    pub fn metrics(&self) -> &Arc<Metrics> {
        self.context.metrics()
    }

    /// The journal of this run.
    pub fn journal(&self) -> &Arc<Journal> {
        &self.context.process.journal
    }

    /// The clusters that this process has swept completely.
    pub fn fully_swept_clusters(&self) -> BTreeSet<ClusterArn> {
        self.context.clusters.fully_swept()
    }

    /// The number of tasks in the store.
    pub fn known_tasks(&self) -> usize {
        self.context.aws.store.len()
    }

    /// Runs until `stop`: receives events from each queue, sweeps, re-reads roles and applies manifests. Then
    /// stops receiving, finishes what is in flight within `options.graceful_shutdown_timeout`, and leaves the rest to the
    /// next start. An operator runs once.
    ///
    /// # Errors
    /// [`TaskExited`] when an internal task ended unexpectedly: a partial operator would delete events that no reconcile
    /// acts on.
    pub async fn run(
        self: Arc<Self>,
        queues: impl IntoIterator<Item = Arc<dyn EventQueue>> + Send,
        manifests: watch::Receiver<Arc<ManifestStatus>>,
        options: RunOptions,
        stop: CancellationToken,
    ) -> Result<ShutdownSummary, TaskExited> {
        let context = &self.context;
        let metrics = context.metrics();
        metrics.set_state_source(Arc::downgrade(&self.status) as _);
        metrics.health().set_stop_token(stop.clone());
        // The first message is already checked against the clusters that bindings select.
        let status = Arc::clone(&manifests.borrow());
        context.manifests.record(Arc::clone(&status.set), status.errors.is_empty(), context.now());
        // Sets of their own: if this future is dropped, no internal task goes on writing.
        let mut appliers = tokio::task::JoinSet::new();
        let applier = ManifestApplier {
            context: Arc::clone(context),
            connect: Arc::clone(&self.connect),
            options,
            plan: None,
        };
        appliers.spawn(applier.run(manifests, stop.child_token()));
        let mut loops = tokio::task::JoinSet::new();
        loops.spawn(Arc::clone(&self.sweeper).run(stop.child_token()));
        if let Some(rechecks) = self.rechecks.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let watcher = RoleWatcher { context: Arc::clone(context), rechecks };
            loops.spawn(watcher.run(stop.child_token()));
        }
        loops.spawn(leadership::run(Arc::clone(context), stop.child_token()));
        loops.spawn(deployments::run(Arc::clone(context), stop.child_token()));
        loops.spawn(mesh_members::run(Arc::clone(context), stop.child_token()));
        let queues: Vec<_> = queues.into_iter().collect();
        if queues.is_empty() {
            info!("no queue configured; relying on periodic sweeps");
        } else {
            loops.spawn(context.aws.hints.clone().run(stop.child_token()));
        }
        for (index, queue) in queues.into_iter().enumerate() {
            let consumer = QueueConsumer {
                queue,
                handler: Arc::new(TaskEventHandler { context: Arc::clone(context) }),
                poison: options.poison,
                observer: Arc::clone(metrics) as _,
                backlog: context.aws.hints.backlog(),
                health: metrics.health().clone(),
                clock: context.process.clock.clone(),
                seed: context.process.seed.wrapping_add(10_000 * index as u64),
            };
            let receiving =
                leadership::receive(Arc::clone(context), consumer, options.receivers, stop.child_token());
            loops.spawn(receiving);
        }
        let mut summary = None;
        let exited = tokio::select! {
            biased;
            () = stop.cancelled() => false,
            ended = appliers.join_next() => {
                summary = ended.and_then(Result::ok);
                !stop.is_cancelled()
            }
            _ = loops.join_next() => !stop.is_cancelled(),
        };
        if exited {
            error!("internal task exited unexpectedly (bug); shutting down");
            stop.cancel();
        }
        let summary = match summary {
            Some(summary) => summary,
            None => appliers.join_next().await.and_then(Result::ok).unwrap_or_default(),
        };
        while loops.join_next().await.is_some() {}
        info!(completed = summary.completed, cancelled = summary.cancelled, "stopped");
        if exited { Err(TaskExited) } else { Ok(summary) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ecs_mesh_aws::fakes::FakeEcs;

    #[tokio::test(start_paused = true)]
    async fn run_fails_when_an_internal_task_exits() {
        // This ECS panics at a list, and so does the sweeper.
        let ecs = FakeEcs { panics: true, ..FakeEcs::default() };
        let operator = Operator::new(OperatorDeps::for_tests(Arc::new(ecs)));
        let directory = tempfile::tempdir().unwrap();
        let text = "apiVersion: ecs-mesh.dev/v1alpha1\nkind: ControlPlane\nmetadata: {name: kuma}\nspec: {type: kuma, \
                    kuma: {address: \"http://127.0.0.1:9\"}}\n---\napiVersion: ecs-mesh.dev/v1alpha1\nkind: MeshBinding\n\
                    metadata: {name: b}\nspec: {controlPlane: kuma, mesh: default, selector: {clusters: [\"*\"]}}\n";
        std::fs::write(directory.path().join("all.yaml"), text).unwrap();
        let sources = ecs_mesh_manifests::ManifestSources::new(vec![directory.path().to_owned()]);
        let loaded = sources.load(None).into_loaded().unwrap();
        assert_eq!(loaded.set.bindings.len(), 1);
        let (_keep, manifests) = watch::channel(Arc::new(ManifestStatus::from(&loaded)));
        let ended = operator.run(None, manifests, RunOptions::default(), CancellationToken::new()).await;
        assert_eq!(ended, Err(TaskExited));
    }
}
