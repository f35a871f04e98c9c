//! Holds the old tasks of deployments, where a binding asks for it, until their replacements are ready in the mesh.
//!
//! Reconciles of tasks note which deployment started each task. A service whose tasks are of several deployments, and one
//! that a deployment event names, is looked at: ECS describes it, the control plane lists its readiness, and
//! [`DeploymentHold`] decides.

mod look;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use self::look::DeploymentReconciler;
use super::context::Context;
use crate::telemetry::state::ControllerState;
use ecs_mesh_aws::events::DeploymentHint;
use ecs_mesh_controller::{ActiveWarnings, Backoff, Controller, Priority, WorkQueue};
use ecs_mesh_core::plan::{DeploymentHold, HoldEnd};
use ecs_mesh_model::{EcsServiceRef, TaskArn};

/// Services that are looked at concurrently.
const CONCURRENCY: usize = 32;

/// A look that takes longer is cancelled and repeated.
const LOOK_TIMEOUT: Duration = Duration::from_mins(1);

/// Describes that may lack the deployment of an event, 1, 2, 4 and 8 s apart.
const MAX_ANSWERS: u32 = 5;

/// Looks at services until `stop`.
pub(super) async fn run(context: Arc<Context>, stop: CancellationToken) {
    let queue = context.deployments.queue.clone();
    let reconciler = Arc::new(DeploymentReconciler { context });
    // A protection that a stop cuts off expires by itself.
    Controller::new(queue, reconciler, CONCURRENCY)
        .timeout(LOOK_TIMEOUT)
        .graceful_shutdown_timeout(Duration::ZERO)
        .run(stop)
        .await;
}

/// A task that ECS wants to run, as its last reconcile left it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NotedTask {
    /// The deployment that started it.
    pub(super) deployment: Arc<str>,
    /// Where it is, or would be, registered.
    pub(super) control_plane: Arc<str>,
    /// The binding that asks for a hold, and `deployments.maxHold`.
    pub(super) hold: Option<(Arc<str>, Duration)>,
    /// Why it will not be registered.
    pub(super) obstacle: Option<HoldEnd>,
}

/// The services whose bindings ask for a hold.
pub(super) struct DeploymentWatches {
    queue: WorkQueue<EcsServiceRef>,
    services: Mutex<BTreeMap<EcsServiceRef, ServiceWatch>>,
    /// Failures that were logged, by service and kind.
    warnings: ActiveWarnings<(EcsServiceRef, &'static str)>,
}

/// One service.
#[derive(Default)]
struct ServiceWatch {
    tasks: BTreeMap<TaskArn, NotedTask>,
    hold: DeploymentHold,
    /// The deployment that an event named and no describe has shown, and the number of describes since.
    awaited: Option<(String, u32)>,
    /// Where this operator protects tasks.
    control_plane: Option<Arc<str>>,
    /// Dry run: tasks that would be protected.
    planned: BTreeSet<TaskArn>,
}

impl ServiceWatch {
    /// Whether no protection, made or planned, is left.
    fn is_settled(&self) -> bool {
        self.hold.protected_count() == 0 && self.planned.is_empty()
    }

    fn is_deploying(&self) -> bool {
        let mut deployments = self.tasks.values().map(|noted| &noted.deployment);
        let first = deployments.next();
        deployments.any(|deployment| Some(deployment) != first)
    }
}

impl DeploymentWatches {
    /// No services. `seed` feeds the jitter of retries.
    pub(super) fn new(seed: u64) -> Self {
        let queue = WorkQueue::new(Backoff::default(), seed);
        Self { queue, services: Mutex::default(), warnings: ActiveWarnings::default() }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<EcsServiceRef, ServiceWatch>> {
        // Every change leaves the map consistent, so the lock may be used after a panic.
        self.services.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a task that ECS wants to run. The service is looked at if that is news, and its tasks are of several
    /// deployments.
    pub(super) fn note(&self, service: EcsServiceRef, task: &TaskArn, noted: NotedTask) {
        let mut services = self.lock();
        if noted.hold.is_none() && !services.contains_key(&service) {
            return;
        }
        let watch = services.entry(service.clone()).or_default();
        if watch.tasks.get(task) == Some(&noted) {
            return;
        }
        watch.tasks.insert(task.clone(), noted);
        if watch.is_deploying() {
            self.queue.add(service, Priority::Event);
        }
    }

    /// Forgets a task that ECS does not want to run any more.
    pub(super) fn forget(&self, task: &TaskArn) {
        self.lock().retain(|_, watch| {
            watch.tasks.remove(task);
            !watch.tasks.is_empty() || !watch.is_settled()
        });
    }

    /// Records an event of a deployment. Whether it is one of a service that a binding holds.
    pub(super) fn record_event(&self, hint: &DeploymentHint) -> bool {
        let mut services = self.lock();
        let is_named =
            |service: &EcsServiceRef| hint.service.in_cluster(service.cluster()).as_ref() == Some(service);
        let named = services.iter_mut().filter(|(service, _)| is_named(service));
        let mut accepted = false;
        for (service, watch) in named {
            watch.awaited = Some((hint.deployment.clone(), 0));
            self.queue.add(service.clone(), Priority::Event);
            accepted = true;
        }
        accepted
    }

    /// Looks at every service again, whose protection another copy may have changed.
    pub(super) fn enqueue_all(&self) {
        self.lock().keys().for_each(|service| self.queue.add(service.clone(), Priority::Sweep));
    }

    /// Whether no look is due.
    pub(super) fn is_idle(&self) -> bool {
        let stats = self.queue.stats();
        stats.ready == 0 && stats.processing == 0
    }

    /// The state of the controller that looks at services.
    pub(super) fn controller_state(&self) -> ControllerState {
        ControllerState { queue: self.queue.stats(), workers: CONCURRENCY, reconcile_timeout: LOOK_TIMEOUT }
    }

    /// The number of tasks that this operator protects because of readiness at the control plane.
    pub(super) fn protected_count(&self, control_plane: &Arc<str>) -> usize {
        let services = self.lock();
        let here = services.values().filter(|watch| watch.control_plane.as_ref() == Some(control_plane));
        here.map(|watch| watch.hold.protected_count()).sum()
    }

    /// The tasks of a service; `None` if nothing is known of it.
    fn tasks(&self, service: &EcsServiceRef) -> Option<BTreeMap<TaskArn, NotedTask>> {
        Some(self.lock().get(service)?.tasks.clone())
    }

    /// Works on a watched service.
    fn with<T>(&self, service: &EcsServiceRef, work: impl FnOnce(&mut ServiceWatch) -> T) -> T {
        work(self.lock().entry(service.clone()).or_default())
    }

    /// Forgets a service without tasks, or without a binding that asks for a hold, of which no protection is left.
    fn expire(&self, service: &EcsServiceRef) {
        let mut services = self.lock();
        let is_over = |watch: &ServiceWatch| {
            let is_wanted = watch.tasks.values().any(|noted| noted.hold.is_some());
            !is_wanted && watch.is_settled()
        };
        if services.get(service).is_some_and(is_over) {
            services.remove(service);
            self.warnings.retain(|(warned, _)| warned != service);
        }
    }

    /// Forgets a service that does not exist any more.
    fn remove(&self, service: &EcsServiceRef) {
        self.lock().remove(service);
    }

    /// Describes still to come until one shows the deployment of the last event: how long to wait for the next.
    fn awaits(&self, service: &EcsServiceRef, shown: &[ecs_mesh_model::EcsDeployment]) -> Option<Duration> {
        self.with(service, |watch| {
            let (awaited, answers) = watch.awaited.as_mut()?;
            *answers += 1;
            if *answers >= MAX_ANSWERS || shown.iter().any(|deployment| *deployment.id == **awaited) {
                watch.awaited = None;
                return None;
            }
            Some(Duration::from_secs(1 << (*answers - 1)))
        })
    }
}
