//! Follows the manifests: makes, keeps and ends planes as control planes come and go, and has every task looked at
//! again when something changed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::run::RunOptions;
use super::{TaskReconciler, Operator, ControlPlaneWorker};
use ecs_mesh_api::manifests::ManifestSet;
use ecs_mesh_controller::{Controller, ShutdownSummary, Priority};
use ecs_mesh_manifests::ManifestStatus;
use ecs_mesh_model::TaskArn;

/// A run that takes longer is cut off and tried again: nothing may hold a place for ever.
pub(super) const RECONCILE_TIMEOUT: Duration = Duration::from_mins(2);

/// How long to wait before trying again to make a plane that could not be made.
const CONNECT_RETRY: Duration = Duration::from_secs(30);

/// The controllers of the planes.
struct RunningControllers {
    /// Manifests have been put in force before.
    applied_once: bool,
    running: BTreeMap<Arc<str>, CancellationToken>,
    tasks: JoinSet<ShutdownSummary>,
}

impl Operator {
    /// Follows the manifests until `stop`; then lets what is in flight at each plane finish.
    pub(super) async fn watch_manifests(
        self: Arc<Self>,
        mut manifests: watch::Receiver<Arc<ManifestStatus>>,
        options: RunOptions,
        stop: CancellationToken,
    ) -> ShutdownSummary {
        let mut controllers = RunningControllers { applied_once: false, running: BTreeMap::new(), tasks: JoinSet::new() };
        loop {
            let status = Arc::clone(&manifests.borrow_and_update());
            let whole = self.apply_manifests(&status, &mut controllers, options);
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                changed = manifests.changed() => if changed.is_err() { stop.cancelled().await; break },
                () = tokio::time::sleep(CONNECT_RETRY), if !whole => {}
            }
        }
        let mut all = ShutdownSummary::default();
        controllers.running.values().for_each(CancellationToken::cancel);
        while let Some(drained) = controllers.tasks.join_next().await {
            let drained = drained.unwrap_or_default();
            all.completed += drained.completed;
            all.cancelled += drained.cancelled;
        }
        all
    }

    /// Whether every control plane of the manifests could be made.
    fn apply_manifests(
        self: &Arc<Self>,
        status: &ManifestStatus,
        controllers: &mut RunningControllers,
        options: RunOptions,
    ) -> bool {
        let before = self.manifests();
        let (planes, whole) = self.workers_for(&status.set);
        let old = self.workers();
        let mut keepers = Vec::new();
        for (name, plane) in &planes {
            plane.acl.iter().for_each(|acl| acl.watch_auth_methods(&status.set));
            if old.get(name).is_none_or(|old| !Arc::ptr_eq(old, plane)) {
                if let Some(replaced) = controllers.running.remove(name) {
                    replaced.cancel();
                }
                plane.client.set_lease(Arc::clone(&self.lease));
                let token = CancellationToken::new();
                let controller = self.controller(plane, options);
                controllers.tasks.spawn(controller.run(token.clone()));
                if let Some(keeper) = self.acl_reconciler(plane) {
                    let pulse = self.metrics.health().register(format!("identity {name}"));
                    keepers.push(keeper.run(pulse, options.graceful_shutdown_timeout, token.clone()));
                }
                controllers.running.insert(Arc::clone(name), token);
            }
        }
        controllers.running.retain(|name, token| {
            let stays = planes.contains_key(name);
            if !stays {
                token.cancel();
            }
            stays
        });
        let same_planes = planes.len() == old.len()
            && planes.iter().all(|(name, plane)| old.get(name).is_some_and(|old| Arc::ptr_eq(old, plane)));
        // The guards must know what each binding has before anybody works by the new set.
        for plane in planes.values() {
            self.assign_bindings(&status.set, plane, None);
        }
        if let Some(recorder) = &self.recorder {
            recorder.retain_control_planes(&planes.keys().cloned().collect());
        }
        self.manifests.store(Arc::clone(&status.set));
        self.workers.store(Arc::new(planes));
        // They begin at once, and by the new set.
        for keeper in keepers {
            controllers.tasks.spawn(keeper);
        }
        self.status.record_manifests(status, options.concurrency);
        let first = !std::mem::replace(&mut controllers.applied_once, true);
        if first || status.set.generation != before.generation || !same_planes {
            // Whatever is new is registered nowhere that we know of yet: only a sweep tells.
            self.sweep_requested.notify_one();
            self.workers().values().filter_map(|plane| plane.acl.as_ref()).for_each(|acl| acl.soon());
            for task in self.store.all() {
                self.enqueue(&task, Priority::Manifest);
            }
        }
        whole
    }

    fn controller(self: &Arc<Self>, worker: &Arc<ControlPlaneWorker>, options: RunOptions) -> Controller<TaskArn, TaskReconciler> {
        let reconciler = Arc::new(TaskReconciler { operator: Arc::clone(self), plane: Arc::clone(worker) });
        Controller::new(worker.queue.clone(), reconciler, worker.worker_count(options.concurrency))
            .graceful_shutdown_timeout(options.graceful_shutdown_timeout)
            .timeout(RECONCILE_TIMEOUT)
            .observer(self.metrics.plane(&worker.name) as Arc<dyn ecs_mesh_controller::ControllerObserver>)
    }

    fn workers_for(&self, set: &ManifestSet) -> (BTreeMap<Arc<str>, Arc<ControlPlaneWorker>>, bool) {
        let old = self.workers();
        let mut whole = true;
        let mut planes = BTreeMap::new();
        for (index, (name, spec)) in set.control_planes.iter().enumerate() {
            if let Some(plane) = old.get(name).filter(|plane| plane.spec == *spec) {
                planes.insert(Arc::clone(name), Arc::clone(plane));
                continue;
            }
            match (self.connect)(name, spec) {
                Ok(connected) => {
                    info!(control_plane = %name, "taken into care");
                    let seed = self.seed.wrapping_add(1_000 * (index as u64 + 1));
                    let plane = ControlPlaneWorker::new(Arc::clone(name), Arc::clone(spec), connected, seed);
                    planes.insert(Arc::clone(name), Arc::new(plane));
                }
                Err(why) => {
                    whole = false;
                    self.record_unresolved(&format!("control plane {name}"), Some(why.clone()));
                    error!(control_plane = %name, "cannot be used: {why}");
                    // The one that works is better than none.
                    if let Some(plane) = old.get(name) {
                        planes.insert(Arc::clone(name), Arc::clone(plane));
                    }
                }
            }
        }
        (planes, whole)
    }
}
