//! Shared by the parts of the operator: immutable dependencies, and handles to state that each have one owner type.
//!
//! The parts are the [event handler](super::event_handler), the [sweeper](super::sweeper), the
//! [role watcher](super::role_watcher), the [manifest applier](super::manifest_applier), and a
//! [worker](super::control_plane_worker) for each control plane. None of them calls another: they meet in the work queues.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;

use super::accounts::AccountReads;
use super::control_plane_worker::ControlPlaneWorker;
use super::deployments::DeploymentWatches;
use super::deps::OperatorDeps;
use super::dry_run::DryRunRecorder;
use super::event_handler::HintedTasks;
use super::fact_waiters::FactWaiters;
use super::journal::Journal;
use super::leadership::{Leadership, ReadLimits, Replicas};
use super::mesh_members::ReaderDemand;
use super::recorder::{LiveRecorder, Recorder};
use super::status::StatusTracker;
use super::tokens::TokenStores;
use crate::telemetry::metrics::Metrics;
use ecs_mesh_api::manifests::ManifestSet;
use ecs_mesh_aws::aws::MemberAccounts;
use ecs_mesh_aws::cluster_checker::ClusterChecker;
use ecs_mesh_aws::hint_resolver::HintResolver;
use ecs_mesh_aws::host_address_cache::HostAddressCache;
use ecs_mesh_aws::role_tag_cache::{ROLE_RECHECK_DELAYS, RoleTagCache};
use ecs_mesh_aws::service_reader::ServiceReader;
use ecs_mesh_aws::store::{Observation, TaskStore};
use ecs_mesh_aws::task_definition_cache::TaskDefinitionCache;
use ecs_mesh_aws::task_describer::TaskDescriber;
use ecs_mesh_clock::Clock;
use ecs_mesh_consul_acl::desired::named_clusters;
use ecs_mesh_controller::{Lease, Priority};
use ecs_mesh_core::intent::{ManifestHistory, owning_binding};
use ecs_mesh_model::{AccountRegion, ClusterArn, ClusterId, OperatorId, RoleArn, TaskArn, Timestamp};

/// How long a line of the audit log waits for a task role that is not cached.
const ROLE_LOOKUP_TIMEOUT: Duration = Duration::from_secs(2);

/// Most clusters that registrations alone name: whoever may write a node at Consul may name one, and each costs lists.
pub(super) const MAX_REGISTERED_CLUSTERS: usize = 1_000;

/// A role, and when to read its tags.
pub(super) type RoleRecheck = (Instant, RoleArn);

/// Shared by all parts of one operator.
pub(super) struct Context {
    pub process: Process,
    pub aws: AwsState,
    pub manifests: ActiveManifests,
    pub workers: Workers,
    pub clusters: KnownClusters,
    pub sweeps: SweepRequests,
    pub deployments: DeploymentWatches,
    pub status: StatusTracker,
    pub leadership: Leadership,
    pub accounts: AccountReads,
    pub readers: ReaderDemand,
    role_rechecks: mpsc::UnboundedSender<RoleRecheck>,
}

/// Dependencies that no part changes.
pub(super) struct Process {
    pub id: OperatorId,
    /// The id that the operator had before.
    pub previous_id: Option<OperatorId>,
    pub lease: Arc<dyn Lease>,
    /// The other copies, where a lease elects one of them.
    pub replicas: Option<Replicas>,
    pub clock: Clock,
    pub token_stores: TokenStores,
    /// Where the accounts are set that may be read beside the operator's own.
    pub accounts: Arc<dyn MemberAccounts>,
    pub metrics: Arc<Metrics>,
    /// Takes each change and warning.
    pub journal: Arc<Journal>,
    /// Seed of all jitter.
    pub seed: u64,
    /// Logs and counts changes, or records them where this is a dry run.
    pub recorder: Arc<dyn Recorder>,
    /// The recorder of a dry run.
    pub dry_run: Option<Arc<DryRunRecorder>>,
}

/// Known AWS state, and its readers within the rate limits.
pub(super) struct AwsState {
    pub store: Arc<TaskStore>,
    pub describer: TaskDescriber,
    pub clusters: Arc<ClusterChecker>,
    pub hints: HintResolver,
    pub definitions: TaskDefinitionCache,
    pub services: ServiceReader,
    pub roles: RoleTagCache,
    pub hosts: HostAddressCache,
    /// The tasks that wait for a fact.
    pub waiters: Arc<FactWaiters>,
}

impl Context {
    /// The context of an operator that has not started, with the receiver of role rechecks.
    pub(super) fn new(deps: &OperatorDeps) -> (Arc<Self>, mpsc::UnboundedReceiver<RoleRecheck>) {
        let limits = ReadLimits::new(deps.rates);
        let store = Arc::new(TaskStore::default());
        let (task_reads, definition_reads) = (limits.tasks.clone(), limits.definitions.clone());
        let (service_reads, protection) = (limits.services.clone(), limits.protection.clone());
        let (role_reads, instance_reads) = (limits.roles.clone(), limits.instances.clone());
        let leadership = Leadership::new(deps.lease.holds(), limits);
        let (role_rechecks, rechecks) = mpsc::unbounded_channel();
        let recorder: Arc<dyn Recorder> = match &deps.recorder {
            Some(recorder) => Arc::clone(recorder) as _,
            None => Arc::new(LiveRecorder),
        };
        let context = Arc::new_cyclic(|context: &Weak<Self>| {
            let (sink, context) = (HintedTasks { context: context.clone() }, context.clone());
            // The context holds the describer, so the describer holds the context weakly.
            let on_leaving = move |task: &TaskArn, observed: Observation| {
                if let Some(context) = context.upgrade() {
                    context.enqueue_leaving(task, observed);
                }
            };
            let clusters = Arc::new(ClusterChecker::new(Arc::clone(&deps.ecs), task_reads.clone()));
            let describer = TaskDescriber::new(
                Arc::clone(&deps.ecs),
                Arc::clone(&store),
                deps.clock.clone(),
                task_reads.clone(),
                Arc::clone(&clusters),
                Arc::new(on_leaving),
            );
            let hints = HintResolver::new(
                describer.clone(),
                Arc::clone(&store),
                deps.clock.clone(),
                Arc::new(sink),
                deps.seed.wrapping_add(5),
            );
            let definitions = TaskDefinitionCache::new(Arc::clone(&deps.ecs), definition_reads);
            let services = ServiceReader::new(Arc::clone(&deps.ecs), service_reads, protection);
            let roles = RoleTagCache::new(Arc::clone(&deps.iam), deps.clock.clone(), role_reads);
            let hosts = HostAddressCache::new(
                Arc::clone(&deps.ecs),
                Arc::clone(&deps.ec2),
                task_reads,
                instance_reads,
            );
            Self {
                process: Process {
                    id: deps.id.clone(),
                    previous_id: deps.previous_id.clone(),
                    lease: Arc::clone(&deps.lease),
                    replicas: deps.replicas.clone(),
                    clock: deps.clock.clone(),
                    token_stores: deps.token_stores.clone(),
                    accounts: Arc::clone(&deps.accounts),
                    metrics: Arc::clone(&deps.metrics),
                    journal: Arc::new(Journal::new(deps.clock.clone())),
                    seed: deps.seed,
                    recorder,
                    dry_run: deps.recorder.clone(),
                },
                aws: AwsState {
                    store,
                    describer,
                    clusters,
                    hints,
                    definitions,
                    services,
                    roles,
                    hosts,
                    waiters: Arc::default(),
                },
                manifests: ActiveManifests::default(),
                workers: Workers::default(),
                clusters: KnownClusters::default(),
                sweeps: SweepRequests::default(),
                deployments: DeploymentWatches::new(deps.seed.wrapping_add(6)),
                status: StatusTracker::default(),
                leadership,
                accounts: AccountReads::default(),
                readers: ReaderDemand::default(),
                role_rechecks,
            }
        });
        (context, rechecks)
    }

    /// The steady time now, for all durations.
    pub(super) fn now(&self) -> Timestamp {
        self.process.clock.now()
    }

    /// The wall-clock time, for times that people set and read.
    pub(super) fn wall(&self) -> Timestamp {
        self.process.clock.wall()
    }

    /// Metrics and health.
    pub(super) fn metrics(&self) -> &Arc<Metrics> {
        &self.process.metrics
    }

    /// Records what a dry run could not find out, or, with `None`, that it now has.
    pub(super) fn record_unresolved(&self, subject: &str, error: Option<String>) {
        self.process.recorder.record_unresolved(subject, error);
    }

    /// Schedules one read of each known role's tags: another copy may have received the event of a change and acted on it no
    /// more.
    pub(super) fn schedule_all_role_rechecks(&self) {
        let now = Instant::now();
        for role in self.aws.store.roles() {
            // Fails only after the role watcher has ended, when no read is needed any more.
            let _ = self.role_rechecks.send((now, role));
        }
    }

    /// The role that a task runs, or ran, as. With `ask` its task definition is read if it is known and not cached.
    pub(super) async fn role_of(&self, task: &TaskArn, ask: bool) -> Option<RoleArn> {
        if let Some(role) = self.aws.store.role_of(task) {
            return Some(role);
        }
        let known = self.aws.store.snapshot(task, Duration::MAX, self.now()).task.filter(|_| ask)?;
        let definition = self.aws.definitions.get(&known.definition);
        let definition = tokio::time::timeout(ROLE_LOOKUP_TIMEOUT, definition).await;
        definition.ok()?.ok()?.task_role.clone()
    }

    /// Schedules reads of a role's tags, at once and some time later: an event may arrive before the change it reports
    /// is visible.
    pub(super) fn schedule_role_recheck(&self, role: &RoleArn) {
        let now = Instant::now();
        for after in ROLE_RECHECK_DELAYS {
            // Fails only after the role watcher has ended, when no read is needed any more.
            let _ = self.role_rechecks.send((now + after, role.clone()));
        }
    }

    /// Enqueues a task that ECS is stopping at each control plane that may hold a registration of it.
    pub(super) fn enqueue_leaving(&self, task: &TaskArn, observed: Observation) {
        let manifests = self.manifests.load();
        for worker in self.workers.load().values().filter(|worker| worker.may_hold(&manifests, task)) {
            if observed.first_stop {
                worker.record_stop(task);
            }
            worker.queue.add(task.clone(), Priority::Removal);
        }
    }

    /// Assigns each registration of one cluster, or of all, to the binding that owns it, so that the binding's guard
    /// knows how many it guards.
    pub(super) fn assign_bindings(
        &self,
        manifests: &ManifestSet,
        worker: &ControlPlaneWorker,
        cluster: Option<&ClusterArn>,
    ) {
        let now = self.now();
        for task in worker.registry.tasks() {
            if cluster.is_some_and(|cluster| task.cluster() != cluster) {
                continue;
            }
            let known = self.aws.store.snapshot(&task, Duration::MAX, now).task;
            for entry in worker.registry.entries(&task) {
                let mesh = entry.id.mesh_scope();
                let binding = owning_binding(manifests, &worker.name, mesh, task.cluster(), known.as_ref());
                let name = binding.as_ref().map(|binding| &binding.name);
                worker.registry.assign_binding(&task, &entry.id, name);
            }
        }
        for binding in manifests.bindings.values().filter(|b| *b.spec.control_plane == *worker.name) {
            worker.record_owned_count(binding, now);
        }
    }
}

/// The manifests in force, and what has left them.
#[derive(Clone, Debug, Default)]
pub(super) struct ManifestsInForce {
    pub set: Arc<ManifestSet>,
    pub history: ManifestHistory,
}

/// The current [`ManifestsInForce`]. The manifest applier alone replaces them.
#[derive(Default)]
pub(super) struct ActiveManifests(ArcSwap<ManifestsInForce>);

impl ActiveManifests {
    /// The set in force.
    pub(super) fn load(&self) -> Arc<ManifestSet> {
        Arc::clone(&self.0.load().set)
    }

    /// The set in force, and what has left it.
    pub(super) fn in_force(&self) -> Arc<ManifestsInForce> {
        self.0.load_full()
    }

    /// Records a load: the set that is in force after it, and whether the sources have no error.
    pub(super) fn record(&self, set: Arc<ManifestSet>, without_errors: bool, now: Timestamp) {
        let mut history = self.0.load().history.clone();
        history.record(&set, without_errors, now);
        self.0.store(Arc::new(ManifestsInForce { set, history }));
    }

    /// How long until a withdrawal no longer waits for `cleanup.settle`, where one may.
    pub(super) fn next_settled(&self, now: Timestamp) -> Option<Duration> {
        let ManifestsInForce { set, history } = &**self.0.load();
        history.next_settled(set.bindings.values().map(|binding| binding.spec.cleanup.settle.0), now)
    }

    /// Whether a binding selects the cluster.
    pub(super) fn select(&self, cluster: &ClusterArn) -> bool {
        self.0.load().set.bindings.values().any(|binding| binding.selects_cluster(cluster))
    }

    /// The shortest sweep interval of all bindings.
    pub(super) fn sweep_interval(&self) -> Duration {
        let manifests = self.load();
        let intervals = manifests.bindings.values().map(|binding| binding.spec.cleanup.sweep_interval.0);
        intervals.min().unwrap_or(Duration::from_mins(10))
    }
}

/// The workers by the name of their control plane.
pub(super) type WorkerMap = BTreeMap<Arc<str>, Arc<ControlPlaneWorker>>;

/// The workers in force.
#[derive(Default)]
pub(super) struct Workers(ArcSwap<WorkerMap>);

impl Workers {
    pub(super) fn load(&self) -> Arc<WorkerMap> {
        self.0.load_full()
    }

    pub(super) fn store(&self, workers: WorkerMap) {
        self.0.store(Arc::new(workers));
    }

    /// Enqueues a task at every control plane.
    pub(super) fn enqueue(&self, task: &TaskArn, priority: Priority) {
        for worker in self.0.load().values() {
            worker.queue.add(task.clone(), priority);
        }
    }
}

/// The known state of a cluster that registrations name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NamedCluster {
    /// Recorded before.
    Known,
    /// Recorded now.
    New,
    /// Unknown, and not recorded: there are [`MAX_REGISTERED_CLUSTERS`].
    OverLimit,
}

/// The clusters that bindings or registrations have named.
#[derive(Default)]
pub(super) struct KnownClusters(Mutex<ClusterRecords>);

#[derive(Default)]
struct ClusterRecords {
    by_id: BTreeMap<ClusterId, ClusterArn>,
    /// Those of them that no list of ECS has shown and no binding names in full: registrations alone name them.
    registered_only: BTreeSet<ClusterArn>,
    /// The start of the first complete sweep of each cluster, by this process in its term as leader.
    swept: BTreeMap<ClusterArn, Timestamp>,
    /// The accounts and Regions in which a page of tasks was read, and no list has failed since.
    read_places: BTreeSet<AccountRegion>,
    /// Clusters whose last list failed, and no page of a later one was read.
    failed_lists: BTreeSet<ClusterArn>,
    /// Clusters that ECS does not find.
    not_found: BTreeSet<ClusterArn>,
    /// The start of this process's term as leader; sweeps that began before prove nothing in it.
    term_began: Option<Timestamp>,
}

impl KnownClusters {
    fn lock(&self) -> MutexGuard<'_, ClusterRecords> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records a cluster that ECS lists or that a binding names in full.
    pub(super) fn record(&self, cluster: &ClusterArn) {
        let mut records = self.lock();
        records.by_id.entry(ClusterId::of(cluster)).or_insert_with(|| cluster.clone());
        records.registered_only.remove(cluster);
    }

    /// Records a cluster that registrations name.
    pub(super) fn record_registered(&self, cluster: &ClusterArn) -> NamedCluster {
        let mut records = self.lock();
        let id = ClusterId::of(cluster);
        if records.by_id.contains_key(&id) {
            return NamedCluster::Known;
        }
        if records.registered_only.len() >= MAX_REGISTERED_CLUSTERS {
            return NamedCluster::OverLimit;
        }
        records.by_id.insert(id, cluster.clone());
        records.registered_only.insert(cluster.clone());
        NamedCluster::New
    }

    /// The clusters that registrations alone name: ECS does not list them any more.
    pub(super) fn registered_only(&self) -> BTreeSet<ClusterArn> {
        self.lock().registered_only.clone()
    }

    /// The clusters by the id that ownership labels carry.
    pub(super) fn by_id(&self) -> BTreeMap<ClusterId, ClusterArn> {
        self.lock().by_id.clone()
    }

    /// Records a complete sweep that began at this time.
    pub(super) fn record_full_sweep(&self, cluster: &ClusterArn, began: Timestamp) {
        let mut records = self.lock();
        if records.term_began.is_none_or(|term| began >= term) {
            records.swept.entry(cluster.clone()).or_insert(began);
        }
    }

    /// Records that a page of the cluster's tasks was read.
    pub(super) fn record_page(&self, cluster: &ClusterArn) {
        let mut records = self.lock();
        records.read_places.insert(AccountRegion::of(cluster));
        records.failed_lists.remove(cluster);
    }

    /// Records that the list of the cluster's tasks failed.
    pub(super) fn record_failed_list(&self, cluster: &ClusterArn) {
        let mut records = self.lock();
        records.read_places.remove(&AccountRegion::of(cluster));
        records.failed_lists.insert(cluster.clone());
    }

    /// Whether a page of tasks was read in an account and Region, and no list has failed there since.
    pub(super) fn is_place_read(&self, place: &AccountRegion) -> bool {
        self.lock().read_places.contains(place)
    }

    /// Whether the place of a cluster is read, and a page of the cluster itself if its list has failed.
    pub(super) fn is_being_read(&self, cluster: &ClusterArn) -> bool {
        self.is_place_read(&AccountRegion::of(cluster)) && !self.lock().failed_lists.contains(cluster)
    }

    /// Begins a term as leader: nothing is removed for its absence before a sweep of this term.
    pub(super) fn begin_term(&self, now: Timestamp) {
        let mut records = self.lock();
        records.term_began = Some(now);
        records.swept.clear();
    }

    /// Records that ECS does not find the cluster. Whether that is new.
    pub(super) fn record_not_found(&self, cluster: &ClusterArn) -> bool {
        self.lock().not_found.insert(cluster.clone())
    }

    /// ECS has found the cluster, or has reported its deletion.
    pub(super) fn clear_not_found(&self, cluster: &ClusterArn) {
        self.lock().not_found.remove(cluster);
    }

    /// The clusters that ECS does not find.
    pub(super) fn not_found(&self) -> BTreeSet<ClusterArn> {
        self.lock().not_found.clone()
    }

    /// The start of this process's first complete sweep of the cluster.
    pub(super) fn first_full_sweep(&self, cluster: &ClusterArn) -> Option<Timestamp> {
        self.lock().swept.get(cluster).copied()
    }

    /// The clusters that this process has swept completely.
    pub(super) fn fully_swept(&self) -> BTreeSet<ClusterArn> {
        self.lock().swept.keys().cloned().collect()
    }

    /// The clusters that the bindings of a control plane select: those named in full, and those that ECS has listed and a
    /// pattern matches.
    pub(super) fn selected_at(&self, manifests: &ManifestSet, control_plane: &str) -> BTreeSet<ClusterArn> {
        let mut clusters = named_clusters(manifests, control_plane);
        let bindings =
            manifests.bindings.values().filter(|binding| *binding.spec.control_plane == *control_plane);
        let bindings: Vec<_> = bindings.collect();
        let known = self.lock();
        let listed = known.by_id.values().filter(|cluster| !known.registered_only.contains(*cluster));
        let selected = listed.filter(|cluster| bindings.iter().any(|b| b.selects_cluster(cluster)));
        clusters.extend(selected.cloned());
        clusters
    }
}

/// Asks for sweeps, and says how far they have got.
#[derive(Default)]
pub(super) struct SweepRequests {
    requested: Notify,
    /// Grows when there is more to list than the sweep under way has asked for.
    epoch: AtomicU64,
    progress: SweepProgress,
}

struct SweepProgress(watch::Sender<(u64, bool)>);

impl Default for SweepProgress {
    fn default() -> Self {
        Self(watch::Sender::new((0, false)))
    }
}

impl SweepRequests {
    /// Asks for a sweep soon.
    pub(super) fn request(&self) {
        self.requested.notify_one();
    }

    /// Waits for [`Self::request`].
    pub(super) async fn requested(&self) {
        self.requested.notified().await;
    }

    /// Asks for a sweep soon, and makes the last one and the one under way count as incomplete: there is more to list.
    pub(super) fn invalidate(&self) {
        self.epoch.fetch_add(1, Ordering::AcqRel);
        self.progress.0.send_modify(|(_, complete)| *complete = false);
        self.request();
    }

    /// The current epoch, for [`Self::record_end`].
    pub(super) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// A sweep that began in this epoch has ended.
    pub(super) fn record_end(&self, epoch: u64, complete: bool) {
        self.progress.0.send_modify(|(count, last)| {
            let is_current = self.epoch() == epoch;
            (*count, *last) = (*count + 1, complete && is_current);
        });
    }

    /// Whether a sweep has ended, complete or not.
    pub(super) fn has_ended(&self) -> bool {
        self.progress.0.borrow().0 > 0
    }

    /// Whether a sweep has ended, and nothing was added to list since it began.
    pub(super) fn is_current(&self) -> bool {
        let (count, complete) = *self.progress.0.borrow();
        count > 0 && complete
    }
}
