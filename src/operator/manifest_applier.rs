//! Applies each manifest set: creates, keeps and stops the workers of control planes, and enqueues every task when the
//! manifests changed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::context::{Context, WorkerMap};
use super::control_plane_worker::ControlPlaneWorker;
use super::deps::{ConnectFn, ConnectResult};
use super::plan::{OperatorReconciler, PlanProgress};
use super::task::TaskReconciler;
use super::tokens::TokenLoop;
use super::{RunOptions, acl};
use ecs_mesh_api::ControlPlaneSpec;
use ecs_mesh_api::manifests::ManifestSet;
use ecs_mesh_audit::member_accounts;
use ecs_mesh_controller::{BlockingLane, Controller, Priority, ShutdownSummary};
use ecs_mesh_manifests::ManifestStatus;
use ecs_mesh_model::TaskArn;

/// A reconcile that takes longer is cancelled and requeued, so that no task holds a place in the pool for good.
pub(super) const RECONCILE_TIMEOUT: Duration = Duration::from_mins(2);

/// Pause before another attempt to connect to a control plane whose manifest could not be used.
const CONNECT_RETRY: Duration = Duration::from_secs(30);

/// Longest attempt to connect, which reads the files that the manifest names and calls no server.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Applies manifests.
pub(super) struct ManifestApplier {
    pub(super) context: Arc<Context>,
    pub(super) connect: ConnectFn,
    pub(super) options: RunOptions,
    /// The plan that this is for, instead of a run.
    pub(super) plan: Option<Arc<PlanProgress>>,
}

/// The running controllers of the workers.
#[derive(Default)]
struct RunningControllers {
    /// Manifests have been applied before.
    applied_once: bool,
    /// Where control planes with files are connected to.
    lanes: BTreeMap<Arc<str>, BlockingLane>,
    running: BTreeMap<Arc<str>, CancellationToken>,
    tasks: JoinSet<ShutdownSummary>,
}

impl ManifestApplier {
    /// Follows the manifests until `stop`; then lets each worker finish what is in flight.
    pub(super) async fn run(
        self,
        mut manifests: watch::Receiver<Arc<ManifestStatus>>,
        stop: CancellationToken,
    ) -> ShutdownSummary {
        let mut controllers = RunningControllers::default();
        loop {
            let status = Arc::clone(&manifests.borrow_and_update());
            let complete = self.apply(&status, &mut controllers).await;
            let settled = self.context.manifests.next_settled(self.context.now());
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                changed = manifests.changed() => if changed.is_err() { stop.cancelled().await; break },
                // Withdrawals that waited for the absence of a document are due.
                () = tokio::time::sleep(settled.unwrap_or_default()), if settled.is_some() => self.enqueue_all(),
                () = tokio::time::sleep(CONNECT_RETRY), if !complete => {}
            }
        }
        let mut all = ShutdownSummary::default();
        controllers.running.values().for_each(CancellationToken::cancel);
        while let Some(ended) = controllers.tasks.join_next().await {
            let ended = ended.unwrap_or_default();
            all.completed += ended.completed;
            all.cancelled += ended.cancelled;
        }
        all
    }

    /// Applies one manifest set. `true` when every control plane of the set has a worker of its own manifest.
    async fn apply(&self, status: &ManifestStatus, controllers: &mut RunningControllers) -> bool {
        let context = &self.context;
        let before = context.manifests.load();
        // A plan is what a run does that starts now: no time passes for what settles.
        let without_errors = status.errors.is_empty() && self.plan.is_none();
        if !without_errors {
            // At once: a file in error may hold the document whose absence is about to withdraw something.
            context.manifests.record(Arc::clone(&before), false, context.now());
        }
        // Before any read for the new set.
        context.process.accounts.set_members(member_accounts(&status.set));
        context.leadership.limits.set_accounts(&status.set);
        let (workers, complete) = self.workers_for(&status.set, &mut controllers.lanes).await;
        let old = context.workers.load();
        let (mut acl_reconcilers, mut token_loops) = (Vec::new(), Vec::new());
        for (name, worker) in &workers {
            worker.acl.iter().for_each(|acl| acl.watch_auth_methods(&status.set));
            if old.get(name).is_none_or(|old| !Arc::ptr_eq(old, worker)) {
                if let Some(replaced) = controllers.running.remove(name) {
                    replaced.cancel();
                }
                worker.client.set_lease(Arc::new(worker.lease(&context.process.lease)));
                let token = CancellationToken::new();
                controllers.tasks.spawn(self.controller(worker).run(token.clone()));
                if let Some(reconciler) = acl::reconciler(context, worker) {
                    let heartbeat = context.metrics().health().register(format!("acl {name}"));
                    let timeout = self.options.graceful_shutdown_timeout;
                    acl_reconcilers.push(reconciler.run(heartbeat, timeout, token.clone()));
                }
                if let Some(tokens) = TokenLoop::of(context, worker) {
                    let heartbeat = context.metrics().health().register(format!("tokens {name}"));
                    let timeout = self.options.graceful_shutdown_timeout;
                    token_loops.push(tokens.run(heartbeat, timeout, token.clone()));
                }
                controllers.running.insert(Arc::clone(name), token);
            }
        }
        controllers.running.retain(|name, token| {
            let keep = workers.contains_key(name);
            if !keep {
                token.cancel();
            }
            keep
        });
        let same_workers = workers.len() == old.len()
            && workers.iter().all(|(name, new)| old.get(name).is_some_and(|old| Arc::ptr_eq(old, new)));
        // The guards must know how many registrations each binding owns before a reconcile uses the new set.
        for worker in workers.values() {
            context.assign_bindings(&status.set, worker, None);
        }
        context.process.recorder.retain_control_planes(&workers.keys().cloned().collect());
        context.manifests.record(Arc::clone(&status.set), without_errors, context.now());
        let removed = status.set.bindings.values().flat_map(|binding| &binding.spec.cleanup.removed_clusters);
        context.aws.clusters.set_removed(removed.cloned().collect());
        context.workers.store(workers);
        // These start at once, and must see the new set.
        for reconciler in acl_reconcilers {
            controllers.tasks.spawn(reconciler);
        }
        for tokens in token_loops {
            controllers.tasks.spawn(tokens);
        }
        context.status.record_manifests(status, self.options.concurrency);
        let first = !std::mem::replace(&mut controllers.applied_once, true);
        if first || status.set.generation != before.generation || !same_workers {
            // A new control plane or binding may have registrations that only a sweep finds.
            context.sweeps.request();
            for acl in context.workers.load().values().filter_map(|worker| worker.acl.as_ref()) {
                acl.soon();
            }
            self.enqueue_all();
        }
        complete
    }

    fn enqueue_all(&self) {
        for tokens in self.context.workers.load().values().filter_map(|worker| worker.tokens.as_ref()) {
            tokens.soon();
        }
        for task in self.context.aws.store.all() {
            self.context.workers.enqueue(&task, Priority::Manifest);
        }
    }

    fn controller(&self, worker: &Arc<ControlPlaneWorker>) -> Controller<TaskArn, OperatorReconciler> {
        let tasks = TaskReconciler { context: Arc::clone(&self.context), worker: Arc::clone(worker) };
        let reconciler = OperatorReconciler { tasks, plan: self.plan.clone() };
        let workers = worker.worker_count(self.options.concurrency);
        Controller::new(worker.queue.clone(), Arc::new(reconciler), workers)
            .graceful_shutdown_timeout(self.options.graceful_shutdown_timeout)
            .timeout(RECONCILE_TIMEOUT)
            .observer(self.context.metrics().control_plane(&worker.name)
                as Arc<dyn ecs_mesh_controller::ControllerObserver>)
    }

    /// A worker for each control plane of the set: the one in force where its manifest is the same, or a new one.
    async fn workers_for(
        &self,
        manifests: &ManifestSet,
        lanes: &mut BTreeMap<Arc<str>, BlockingLane>,
    ) -> (WorkerMap, bool) {
        lanes.retain(|name, _| manifests.control_planes.contains_key(name));
        let old = self.context.workers.load();
        let mut complete = true;
        let mut workers = WorkerMap::new();
        for (index, (name, spec)) in manifests.control_planes.iter().enumerate() {
            if let Some(worker) = old.get(name).filter(|worker| worker.spec == *spec) {
                workers.insert(Arc::clone(name), Arc::clone(worker));
                continue;
            }
            let lane = lanes.entry(Arc::clone(name)).or_default();
            match self.connect_to(name, spec, lane).await {
                Ok(connected) => {
                    info!(control_plane = %name, "control plane added");
                    let seed = self.context.process.seed.wrapping_add(1_000 * (index as u64 + 1));
                    let (name_of_worker, journal) =
                        (Arc::clone(name), Arc::clone(&self.context.process.journal));
                    let worker =
                        ControlPlaneWorker::new(name_of_worker, Arc::clone(spec), connected, journal, seed);
                    workers.insert(Arc::clone(name), Arc::new(worker));
                }
                Err(error) => {
                    complete = false;
                    self.context.record_unresolved(&format!("control plane {name}"), Some(error.to_string()));
                    error!(control_plane = %name, %error, "cannot use the control plane");
                    // The last manifest that could be used is better than none.
                    if let Some(worker) = old.get(name) {
                        workers.insert(Arc::clone(name), Arc::clone(worker));
                    }
                }
            }
        }
        (workers, complete)
    }

    /// Connects to a control plane, off the runtime where its manifest names a file: file systems can hang.
    async fn connect_to(
        &self,
        name: &Arc<str>,
        spec: &Arc<ControlPlaneSpec>,
        lane: &BlockingLane,
    ) -> ConnectResult {
        let kuma_file = spec.kuma.as_ref().and_then(|kuma| kuma.ca_file.as_ref());
        let consul_file = spec.consul.as_ref().and_then(|consul| consul.ca_file.as_ref());
        let Some(file) = kuma_file.or(consul_file) else { return (self.connect)(name, spec) };
        let (connect, name, spec) = (Arc::clone(&self.connect), Arc::clone(name), Arc::clone(spec));
        let connected = lane.run(CONNECT_TIMEOUT, move || connect(&name, &spec)).await;
        connected.unwrap_or_else(|| Err(format!("reading {}: timed out", file.display()).into()))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::thread::{self, ThreadId};

    use serde_json::json;

    use super::super::OperatorDeps;
    use super::*;
    use ecs_mesh_aws::fakes::FakeEcs;

    #[tokio::test]
    async fn files_of_a_control_plane_are_read_off_the_runtime() {
        let threads: Arc<Mutex<BTreeMap<String, ThreadId>>> = Arc::default();
        let seen = Arc::clone(&threads);
        let connect: ConnectFn = Arc::new(move |name, _| {
            seen.lock().unwrap().insert(name.to_owned(), thread::current().id());
            Err("no control plane".into())
        });
        let (context, _) = Context::new(&OperatorDeps::for_tests(Arc::new(FakeEcs::default())));
        let applier = ManifestApplier { context, connect, plan: None, options: RunOptions::default() };
        let spec = |fields: serde_json::Value| -> Arc<ControlPlaneSpec> {
            Arc::new(serde_json::from_value(json!({"type": "kuma", "kuma": fields})).unwrap())
        };
        let manifests = ManifestSet {
            control_planes: [
                ("plain".into(), spec(json!({"address": "http://cp:5681"}))),
                ("file".into(), spec(json!({"address": "https://cp:5682", "caFile": "/ca.pem"}))),
            ]
            .into(),
            ..ManifestSet::default()
        };
        let (workers, complete) = applier.workers_for(&manifests, &mut BTreeMap::new()).await;
        assert!(workers.is_empty() && !complete);
        let threads = threads.lock().unwrap();
        assert_eq!(threads["plain"], thread::current().id());
        assert_ne!(threads["file"], thread::current().id());
    }
}
