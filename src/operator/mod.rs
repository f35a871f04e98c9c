//! Where the rooms meet: what was observed goes through intent and plan to the control planes.
//!
//! Events, sweeps, role changes and manifest changes only put tasks into queues; one run a task and control plane
//! decides, from the newest that is known.

mod acl;
mod apply;
mod dry_run;
mod manifest_applier;
mod plan;
mod control_plane_worker;
mod registry;
mod report;
mod role_watcher;
mod run;
mod warnings;
mod status;
mod sweep;
mod outbound_check;
mod task;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;

use crate::telemetry::metrics::Metrics;
use ecs_mesh_api::ControlPlaneSpec;
use ecs_mesh_api::manifests::ManifestSet;
use ecs_mesh_aws::aws::{Ecs, Iam};
use ecs_mesh_aws::task_definition_cache::TaskDefinitionCache;
use ecs_mesh_aws::task_describer::{TaskDescriber, OnLeaving};
use ecs_mesh_aws::events::RoleEvent;
use ecs_mesh_aws::consumer::{EventHandler, EventResult};
use ecs_mesh_aws::role_tag_cache::{ROLE_RECHECK_DELAYS, RoleTagCache};
use ecs_mesh_aws::store::{Observation, ObservationSource, TaskStore};
use ecs_mesh_clock::Clock;
use ecs_mesh_consul::ConsulControlPlane;
use ecs_mesh_consul_acl::backend::ConsulAclBackend;
use ecs_mesh_consul_acl::backend::AclBackend;
use ecs_mesh_consul_acl::desired::named_clusters;
use ecs_mesh_control_plane::ControlPlane;
use ecs_mesh_control_plane::http::StreamTransport;
use ecs_mesh_controller::{Lease, Requeue, Priority, Reconciler, TokenBucket};
use ecs_mesh_model::{ClusterArn, ClusterId, OperatorId, RoleArn, Task, TaskArn, Timestamp};

pub use dry_run::DryRunRecorder;
pub use plan::PlanOptions;
pub use control_plane_worker::ControlPlaneWorker;
pub use run::{TaskExited, RunOptions};

/// Makes the client of a control plane. The error says, for a person, which field of the manifest is at fault.
pub type ConnectFn = Arc<dyn Fn(&str, &ControlPlaneSpec) -> Result<Connected, String> + Send + Sync>;

/// What is done through one connection to a control plane.
#[derive(Clone)]
pub struct Connected {
    /// Registrations of tasks.
    pub client: Arc<dyn ControlPlane>,
    /// The objects by which tasks get their identity, where the control plane has such.
    pub acl: Option<Arc<dyn AclBackend>>,
}

impl Connected {
    /// A control plane without objects by which tasks get their identity.
    pub fn new(client: Arc<dyn ControlPlane>) -> Self {
        Self { client, acl: None }
    }

    /// Consul, whose ACL objects are kept, too.
    pub fn consul<T: StreamTransport + 'static>(client: ConsulControlPlane<T>) -> Self {
        let client = Arc::new(client);
        Self { acl: Some(Arc::new(ConsulAclBackend::new(Arc::clone(&client)))), client }
    }
}

/// How fast AWS may be asked.
#[derive(Clone, Copy, Debug)]
pub struct ReadRates {
    /// ListTasks and DescribeTasks a second. The account has 20 with a burst of 100, for everybody in it.
    pub ecs: f64,
    /// DescribeTaskDefinition a second (the account: 20, burst 50).
    pub definitions: f64,
    /// GetRole a second (unpublished).
    pub iam: f64,
}

impl Default for ReadRates {
    fn default() -> Self {
        Self { ecs: 10.0, definitions: 10.0, iam: 5.0 }
    }
}

/// What an operator is made of.
pub struct OperatorDeps {
    /// Its stable identity.
    pub id: OperatorId,
    /// ECS.
    pub ecs: Arc<dyn Ecs>,
    /// IAM.
    pub iam: Arc<dyn Iam>,
    /// Makes control plane clients.
    pub connect: ConnectFn,
    /// Whether this process may write.
    pub lease: Arc<dyn Lease>,
    /// Wall-clock time.
    pub clock: Clock,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// How fast AWS may be asked.
    pub rates: ReadRates,
    /// Feeds all jitter.
    pub seed: u64,
    /// A dry run: what would be written goes in here, and nothing is written.
    pub recorder: Option<Arc<DryRunRecorder>>,
}

#[cfg(test)]
impl OperatorDeps {
    /// The operator `op` around this ECS, with an IAM without tags; no control plane can be connected to.
    fn for_tests(ecs: Arc<dyn Ecs>) -> Self {
        Self {
            id: OperatorId::parse("op").unwrap(),
            ecs,
            iam: ecs_mesh_aws::fakes::FakeIam::returning(Ok(ecs_mesh_model::Tags::default())),
            connect: Arc::new(|_, _| Err("there is none".to_owned())),
            lease: Arc::new(ecs_mesh_controller::AlwaysHeld),
            clock: ecs_mesh_aws::fakes::clock(),
            metrics: Arc::new(Metrics::default()),
            rates: ReadRates::default(),
            seed: 1,
            recorder: None,
        }
    }
}

/// The operator: everything that it knows, and its loops.
pub struct Operator {
    id: OperatorId,
    ecs: Arc<dyn Ecs>,
    ecs_bucket: TokenBucket,
    connect: ConnectFn,
    lease: Arc<dyn Lease>,
    clock: Clock,
    metrics: Arc<Metrics>,
    seed: u64,
    recorder: Option<Arc<DryRunRecorder>>,
    /// How many sweeps have ended, and whether the last one was whole.
    sweep_progress: watch::Sender<(u64, bool)>,
    /// How often something was learned that a sweep under way has not asked for.
    sweep_epoch: AtomicU64,
    manifests: ArcSwap<ManifestSet>,
    store: Arc<TaskStore>,
    describer: TaskDescriber,
    definitions: TaskDefinitionCache,
    roles: RoleTagCache,
    workers: ArcSwap<BTreeMap<Arc<str>, Arc<ControlPlaneWorker>>>,
    clusters: Mutex<KnownClusters>,
    sweep_requested: Notify,
    role_recheck_tx: mpsc::UnboundedSender<(Instant, RoleArn)>,
    role_recheck_rx: Mutex<Option<mpsc::UnboundedReceiver<(Instant, RoleArn)>>>,
    status: status::StatusTracker,
}

#[derive(Default)]
struct KnownClusters {
    by_id: BTreeMap<ClusterId, ClusterArn>,
    /// Seen whole by a sweep of this process, the first of which began at this time.
    swept: BTreeMap<ClusterArn, Timestamp>,
}

impl Operator {
    /// An operator that has done nothing yet.
    pub fn new(parts: OperatorDeps) -> Arc<Self> {
        let bucket = |rate: f64, seconds: f64| {
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // a small positive number
            let burst = (rate * seconds).clamp(1.0, 1e6) as u32;
            TokenBucket::new(rate, burst)
        };
        let store = Arc::new(TaskStore::default());
        let ecs_bucket = bucket(parts.rates.ecs, 5.0);
        let (role_recheck_tx, role_recheck_rx) = mpsc::unbounded_channel();
        Arc::new_cyclic(|operator: &Weak<Self>| Self {
            describer: TaskDescriber::new(
                Arc::clone(&parts.ecs),
                Arc::clone(&store),
                parts.clock.clone(),
                ecs_bucket.clone(),
                on_leaving(operator.clone()),
            ),
            definitions: TaskDefinitionCache::new(Arc::clone(&parts.ecs), bucket(parts.rates.definitions, 4.0)),
            roles: RoleTagCache::new(parts.iam, parts.clock.clone(), bucket(parts.rates.iam, 4.0)),
            id: parts.id,
            ecs: parts.ecs,
            ecs_bucket,
            connect: parts.connect,
            lease: parts.lease,
            clock: parts.clock,
            metrics: parts.metrics,
            seed: parts.seed,
            recorder: parts.recorder,
            sweep_progress: watch::Sender::new((0, false)),
            sweep_epoch: AtomicU64::new(0),
            manifests: ArcSwap::default(),
            store,
            workers: ArcSwap::default(),
            clusters: Mutex::default(),
            sweep_requested: Notify::new(),
            role_recheck_tx,
            role_recheck_rx: Mutex::new(Some(role_recheck_rx)),
            status: status::StatusTracker::default(),
        })
    }

    /// The manifests in force.
    pub fn manifests(&self) -> Arc<ManifestSet> {
        self.manifests.load_full()
    }

    /// The control planes under care.
    pub fn workers(&self) -> Arc<BTreeMap<Arc<str>, Arc<ControlPlaneWorker>>> {
        self.workers.load_full()
    }

    /// The clusters that a sweep of this process has seen whole.
    pub fn fully_swept_clusters(&self) -> BTreeSet<ClusterArn> {
        self.clusters().swept.keys().cloned().collect()
    }

    /// How many tasks are known.
    pub fn known_tasks(&self) -> usize {
        self.store.len()
    }

    /// Whether nothing may be written.
    fn is_dry_run(&self) -> bool {
        self.recorder.is_some()
    }

    /// Tells a dry run's book of what could not be found out, or now was.
    fn record_unresolved(&self, what: &str, why: Option<String>) {
        match (&self.recorder, why) {
            (Some(recorder), Some(why)) => recorder.record_unresolved(what, why),
            (Some(recorder), None) => recorder.clear_unresolved(what),
            (None, _) => {}
        }
    }

    fn clusters(&self) -> MutexGuard<'_, KnownClusters> {
        self.clusters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The clusters that a control plane's bindings select: those named in full, and those that patterns have been found
    /// to stand for.
    fn clusters_at(&self, set: &ManifestSet, control_plane: &str) -> BTreeSet<ClusterArn> {
        let mut clusters = named_clusters(set, control_plane);
        let bindings = set.bindings.values().filter(|binding| *binding.spec.control_plane == *control_plane);
        let bindings: Vec<_> = bindings.collect();
        let known = self.clusters();
        let selected = known.by_id.values().filter(|known| bindings.iter().any(|b| b.selects_cluster(known)));
        clusters.extend(selected.cloned());
        clusters
    }

    /// There is more to list than the last sweep, or one under way, has asked for: that was not all, and the next comes
    /// soon.
    fn invalidate_sweep(&self) {
        self.sweep_epoch.fetch_add(1, Ordering::AcqRel);
        self.sweep_progress.send_modify(|(_, whole)| *whole = false);
        self.sweep_requested.notify_one();
    }

    /// When this process began to know the cluster whole.
    fn first_full_sweep(&self, cluster: &ClusterArn) -> Option<Timestamp> {
        self.clusters().swept.get(cluster).copied()
    }

    fn record_cluster(&self, cluster: &ClusterArn) {
        self.clusters().by_id.entry(ClusterId::of(cluster)).or_insert_with(|| cluster.clone());
    }

    fn has_binding_for(&self, cluster: &ClusterArn) -> bool {
        self.manifests.load().bindings.values().any(|binding| binding.selects_cluster(cluster))
    }

    /// Brings a task that ECS takes down into the queue of each control plane that may hold something of it.
    fn task_leaves(&self, task: &TaskArn, observed: Observation) {
        let set = self.manifests.load();
        for plane in self.workers.load().values() {
            if plane.selects_cluster(&set, task.cluster()) || plane.registry.contains(task) {
                if observed.first_stop {
                    plane.record_stop(task);
                }
                plane.queue.add(task.clone(), Priority::Removal);
            }
        }
    }

    fn enqueue(&self, task: &TaskArn, priority: Priority) {
        for plane in self.workers.load().values() {
            plane.queue.add(task.clone(), priority);
        }
    }

    /// Reads the role again at once, and some time later: an event may outrun the change that it tells of.
    fn schedule_role_recheck(&self, role: &RoleArn) {
        let now = Instant::now();
        for after in ROLE_RECHECK_DELAYS {
            // The receiver lives as long as the loops; afterwards nobody cares.
            let _ = self.role_recheck_tx.send((now + after, role.clone()));
        }
    }
}

impl EventHandler for Operator {
    fn on_task_change(&self, task: Task, received: Instant) -> EventResult {
        if !self.has_binding_for(task.arn.cluster()) {
            return EventResult::UnboundCluster;
        }
        let arn = task.arn.clone();
        let priority = if task.is_leaving() { Priority::Removal } else { Priority::Event };
        let observed = self.store.observe(task, ObservationSource::Event, self.clock.now());
        if !observed.changed {
            return EventResult::Stale;
        }
        let set = self.manifests.load();
        for plane in self.workers.load().values() {
            if plane.selects_cluster(&set, arn.cluster()) || plane.registry.contains(&arn) {
                plane.record_event(&arn, received);
                if observed.first_stop {
                    plane.record_stop(&arn);
                }
                plane.queue.add(arn.clone(), priority);
            }
        }
        EventResult::Accepted
    }

    fn on_role_change(&self, account: &str, role_name: &str, _event: RoleEvent) -> EventResult {
        let roles = self.roles.roles_by_name(account, role_name);
        roles.iter().for_each(|role| self.schedule_role_recheck(role));
        if roles.is_empty() { EventResult::UnknownRole } else { EventResult::Accepted }
    }
}

/// What the describer calls. The operator holds the describer, so this holds the operator weakly.
fn on_leaving(operator: Weak<Operator>) -> OnLeaving {
    Arc::new(move |task, observed| {
        if let Some(operator) = operator.upgrade() {
            operator.task_leaves(task, observed);
        }
    })
}

/// Runs an operator's tasks at one plane.
struct TaskReconciler {
    operator: Arc<Operator>,
    plane: Arc<ControlPlaneWorker>,
}

#[async_trait]
impl Reconciler<TaskArn> for TaskReconciler {
    async fn reconcile(&self, task: &TaskArn, _cause: Priority) -> Requeue {
        task::TaskRun::new(&self.operator, &self.plane, task).reconcile().await
    }
}
