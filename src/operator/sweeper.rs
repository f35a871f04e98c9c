//! The sweep finds what events missed. It lists control planes first and then ECS (desired RUNNING *and* STOPPED, every
//! page), so that a task that starts in between can't look like an orphan. An incomplete list proves no absence. Only
//! differences are described.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::accounts::{AccountSweep, is_of_account};
use super::context::{Context, MAX_REGISTERED_CLUSTERS, NamedCluster};
use super::control_plane_worker::ControlPlaneWorker;
use super::outbound_check;
use super::zone_proxy_lists;
use ecs_mesh_api::manifests::ManifestSet;
use ecs_mesh_aws::aws::{AwsError, AwsErrorKind, Ecs, ListPage};
use ecs_mesh_aws::cluster_checker::ClusterExistence;
use ecs_mesh_aws::store::{MAX_TASKS, TaskSummary};
use ecs_mesh_aws::task_describer::DescribeOutcome;
use ecs_mesh_control_plane::CallError;
use ecs_mesh_control_plane::{
    FailedSegment, MeshError, MeshErrorKind, RegistrationOwner, RegistrationSummary,
};
use ecs_mesh_controller::health::Heartbeat;
use ecs_mesh_controller::{Backoff, Priority, TokenBucket};
use ecs_mesh_model::{
    AccountRegion, ClusterArn, ClusterId, DesiredStatus, Glob, MeshName, Reason, TaskArn, Timestamp,
    partition_of_region,
};

/// Maximum pages of one list; a list with more has an endless `nextToken`.
const MAX_PAGES: usize = 10_000;

/// The next step for a cluster that ECS does not find.
const NOT_FOUND_FIX: &str = "if it was deleted, add its ARN to cleanup.removedClusters of its MeshBinding; otherwise check \
                             the ARN, the account and the Region";

/// Most names of clusters in a warning.
const MAX_NAMED_CLUSTERS: usize = 10;

/// Time limit of a page, a describe, or the wait for a control plane's list. After it the sweep counts as stuck.
const STEP_TIMEOUT: Duration = Duration::from_mins(2);

/// Maximum tasks that wait for a describe: a few calls of a hundred.
const MAX_INFLIGHT_DESCRIBES: usize = 300;

/// Interval at which the versions of control planes are read again while nothing is written.
const VERSION_RECHECK: Duration = Duration::from_secs(30);

/// Delays between attempts of a control plane's first list.
const FIRST_LIST_BACKOFF: Backoff = Backoff { min: Duration::from_millis(500), max: Duration::from_secs(10) };

/// A list in pages, and the rate limiter of its calls.
struct PagedList<'a> {
    what: &'a str,
    bucket: TokenBucket,
    heartbeat: &'a Heartbeat,
}

/// The tasks that may be missing from the lists of a sweep.
struct SweptTasks {
    known_before: BTreeSet<TaskArn>,
    registered: BTreeSet<TaskArn>,
}

/// The accounts of the listed clusters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ListedClusters {
    /// Those of all accounts.
    All,
    /// Those of the operator's own account, and not of each other.
    Own,
    /// Not even those.
    None,
}

impl ListedClusters {
    fn is_complete(self) -> bool {
        self == Self::All
    }
}

/// Lists control planes and clusters.
pub(super) struct Sweeper {
    pub(super) context: Arc<Context>,
    pub(super) ecs: Arc<dyn Ecs>,
}

impl Sweeper {
    /// Sweeps at the start, at the shortest interval of all bindings, soon after a failure, and on request.
    pub(super) async fn run(self: Arc<Self>, stop: CancellationToken) {
        let retry = Backoff { min: Duration::from_secs(5), max: Duration::from_mins(2) };
        let mut jitter = fastrand::Rng::with_seed(self.context.process.seed.wrapping_add(2));
        let mut retries = None;
        let mut lists = JoinSet::new();
        let heartbeat = self.context.metrics().health().register("sweep");
        // The first manifests request the first sweep.
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = self.context.sweeps.requested() => {}
        }
        loop {
            heartbeat.expect_within(STEP_TIMEOUT);
            let complete = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                complete = Arc::clone(&self).sweep(&mut lists, &heartbeat) => complete,
            };
            let pause = if complete {
                retries = None;
                // Spread the sweeps of several operators in one account.
                self.context.manifests.sweep_interval().mul_f64(0.95 + 0.1 * jitter.f64())
            } else {
                let seed = self.context.process.seed.wrapping_add(3);
                retries.get_or_insert_with(|| retry.start(seed)).after_failure()
            };
            heartbeat.expect_within(pause + STEP_TIMEOUT);
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = self.context.sweeps.requested() => {}
                () = tokio::time::sleep(pause) => {}
                () = self.recheck_versions() => {}
            }
        }
    }

    /// Reads the versions of the control planes again, so that one that is supported again is found without a write. Ends
    /// once one of them needs another format of registrations, or has instances of several releases, since only a sweep
    /// compares all registrations.
    async fn recheck_versions(&self) {
        loop {
            tokio::time::sleep(VERSION_RECHECK).await;
            for worker in self.context.workers.load().values() {
                if let Err(error) = worker.ensure_supported().await {
                    debug!(control_plane = %worker.name, ?error, "control plane can't be written to");
                }
                if worker.has_new_format() {
                    info!(control_plane = %worker.name, "control plane version changed; comparing registrations");
                    return;
                }
                if worker.has_several_releases() {
                    debug!(control_plane = %worker.name, "rolling upgrade in progress; comparing registrations");
                    return;
                }
            }
        }
    }

    /// Sweeps all control planes and clusters once. `true` when nothing failed.
    pub(super) async fn sweep(self: Arc<Self>, lists: &mut JoinSet<bool>, heartbeat: &Heartbeat) -> bool {
        let began = Instant::now();
        let epoch = self.context.sweeps.epoch();
        let dropped_before = self.context.aws.store.dropped();
        let manifests = self.context.manifests.load();
        let known_before: BTreeSet<TaskArn> = self.context.aws.store.all().into_iter().collect();
        let mut places = BTreeMap::new();
        let (clusters, listed_all) = self.clusters_of(&manifests, heartbeat, &mut places).await;
        let mut complete = listed_all.is_complete();
        self.context.status.record_clusters(&clusters, listed_all);
        self.record_clusters(&manifests, &clusters);
        let (registered, listed_all) = self.list_registrations(&manifests, lists).await;
        complete &= listed_all;
        // ECS does not list a cluster that was deleted.
        let named =
            registered.iter().map(TaskArn::cluster).filter(|cluster| self.context.manifests.select(cluster));
        let clusters: BTreeSet<ClusterArn> = clusters.into_iter().chain(named.cloned()).collect();
        let known = SweptTasks { known_before, registered: registered.clone() };
        complete &= Arc::clone(&self).sweep_clusters(&clusters, known, places, heartbeat).await;
        let tasks: BTreeSet<TaskArn> = self.context.aws.store.all().into_iter().chain(registered).collect();
        tasks.iter().for_each(|task| self.context.workers.enqueue(task, Priority::Sweep));
        let workers = self.context.workers.load();
        let needed =
            |task: &TaskArn| workers.values().any(|p| p.registry.contains(task) || p.is_unsearched(task));
        self.context.aws.store.expire(needed, self.context.now());
        workers.values().for_each(|worker| worker.dataplanes.retain(|task| tasks.contains(task)));
        workers.values().for_each(|worker| worker.evaluated.retain(|task| tasks.contains(task)));
        let dropped = self.context.aws.store.dropped();
        if dropped > dropped_before {
            self.context.metrics().record_warning("task_limit");
            warn!(known = MAX_TASKS, dropped, "too many tasks; further ones are not registered");
        }
        self.context.metrics().sweeps.record_duration(began.elapsed());
        let took = began.elapsed();
        let duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        info!(clusters = clusters.len(), tasks = tasks.len(), complete, duration_ms, "swept");
        self.context.sweeps.record_end(epoch, complete);
        complete
    }

    fn record_clusters(&self, manifests: &ManifestSet, clusters: &BTreeSet<ClusterArn>) {
        let workers = self.context.workers.load();
        let before: Vec<_> = workers
            .values()
            .map(|worker| self.context.clusters.selected_at(manifests, &worker.name))
            .collect();
        clusters.iter().for_each(|cluster| self.context.clusters.record(cluster));
        for (worker, before) in workers.values().zip(before) {
            if self.context.clusters.selected_at(manifests, &worker.name) != before {
                // Consul needs a node for each new cluster.
                worker.acl.iter().for_each(|acl| acl.soon());
            }
        }
    }

    /// Sweeps the clusters, those of different accounts and Regions at once, so that one that does not answer delays no other.
    async fn sweep_clusters(
        self: Arc<Self>,
        clusters: &BTreeSet<ClusterArn>,
        known: SweptTasks,
        mut places: BTreeMap<AccountRegion, AccountSweep>,
        heartbeat: &Heartbeat,
    ) -> bool {
        let mut by_place: BTreeMap<AccountRegion, Vec<ClusterArn>> = BTreeMap::new();
        for cluster in clusters {
            by_place.entry(AccountRegion::of(cluster)).or_default().push(cluster.clone());
        }
        self.context.accounts.retain(|place| by_place.contains_key(place) || places.contains_key(place));
        for (place, sweep) in places.iter().filter(|(place, _)| !by_place.contains_key(place)) {
            self.record_account(place, sweep);
        }
        if by_place.len() == 1
            && let Some((place, clusters)) = by_place.pop_first()
        {
            let sweep = places.remove(&place).unwrap_or_default();
            return self.sweep_account(place, clusters, sweep, &known, heartbeat).await;
        }
        let (mut sweeps, known) = (JoinSet::new(), Arc::new(known));
        for (index, (place, clusters)) in by_place.into_iter().enumerate() {
            let (me, known) = (Arc::clone(&self), Arc::clone(&known));
            let sweep = places.remove(&place).unwrap_or_default();
            // Each has its own, so that the progress of one account does not hide another that is stuck.
            let heartbeat = self.context.metrics().health().register(format!("sweep {index}"));
            sweeps.spawn(async move {
                let complete = me.sweep_account(place, clusters, sweep, &known, &heartbeat).await;
                heartbeat.unregister();
                complete
            });
        }
        let mut complete = true;
        heartbeat.idle();
        while let Some(swept) = sweeps.join_next().await {
            complete &= swept.unwrap_or(false);
        }
        complete
    }

    /// Sweeps the clusters of one account and Region, one after the other.
    async fn sweep_account(
        self: &Arc<Self>,
        place: AccountRegion,
        clusters: Vec<ClusterArn>,
        mut sweep: AccountSweep,
        known: &SweptTasks,
        heartbeat: &Heartbeat,
    ) -> bool {
        let mut complete = true;
        for cluster in clusters {
            if sweep.gives_up() {
                self.context.metrics().sweeps.record_sweep("list_failed");
                self.context.record_unresolved(
                    cluster.as_str(),
                    Some(format!("account {place} does not answer; the cluster waits for the next sweep")),
                );
                complete = false;
                continue;
            }
            let SweptTasks { known_before, registered } = known;
            let (listed, swept) = self.sweep_cluster(&cluster, known_before, registered, heartbeat).await;
            sweep.record(listed);
            complete &= swept;
        }
        self.record_account(&place, &sweep);
        complete
    }

    fn record_account(&self, place: &AccountRegion, sweep: &AccountSweep) {
        match sweep.failure() {
            Some(error) => self.context.accounts.record_failure(place, error, self.context.metrics()),
            None => self.context.accounts.record_success(place),
        }
    }

    /// The clusters that bindings select: those named in full, and those that ECS lists under a pattern. Failed lists are
    /// recorded in `places`.
    async fn clusters_of(
        &self,
        manifests: &ManifestSet,
        heartbeat: &Heartbeat,
        places: &mut BTreeMap<AccountRegion, AccountSweep>,
    ) -> (BTreeSet<ClusterArn>, ListedClusters) {
        let globs: BTreeSet<&Glob> =
            manifests.bindings.values().flat_map(|b| &b.spec.selector.clusters).collect();
        let mut clusters: BTreeSet<ClusterArn> = globs
            .iter()
            .filter(|g| g.is_literal())
            .filter_map(|g| ClusterArn::parse(g.as_str()).ok())
            .collect();
        let patterns: Vec<&&Glob> = globs.iter().filter(|glob| !glob.is_literal()).collect();
        if patterns.is_empty() {
            return (clusters, ListedClusters::All);
        }
        let mut take = |listed: Vec<ClusterArn>| {
            clusters.extend(listed.into_iter().filter(|c| patterns.iter().any(|g| g.matches(c.as_str()))));
        };
        let own = self.context.leadership.limits.tasks.of_account("");
        let own = PagedList { what: "clusters", bucket: own, heartbeat };
        let listed = self.list_all_pages(&own, |page| self.ecs.list_clusters(page), &mut take).await;
        if let Err(error) = &listed {
            self.warn_incomplete("clusters", error);
        }
        let mut result = if listed.is_ok() { ListedClusters::All } else { ListedClusters::None };
        for place in member_places(manifests, &patterns) {
            let what = format!("clusters of account {place}");
            let bucket = self.context.leadership.limits.tasks.of(&place);
            let list = PagedList { what: &what, bucket, heartbeat };
            let listed =
                self.list_all_pages(&list, |page| self.ecs.list_clusters_in(&place, page), &mut take).await;
            if let Err(error) = &listed {
                self.report_failed_list(&what, error);
                result = result.max(ListedClusters::Own);
            }
            places.entry(place).or_default().record(listed);
        }
        (clusters, result)
    }

    /// Lists the registrations at each control plane. Returns the tasks that have a registration, and `false` when a list
    /// failed or is still in progress; the next sweep then covers its new registrations.
    async fn list_registrations(
        self: &Arc<Self>,
        manifests: &Arc<ManifestSet>,
        lists: &mut JoinSet<bool>,
    ) -> (BTreeSet<TaskArn>, bool) {
        let mut complete = true;
        for worker in self.context.workers.load().values() {
            let meshes: BTreeSet<MeshName> = manifests
                .bindings
                .values()
                .filter(|binding| *binding.spec.control_plane == *worker.name)
                .map(|binding| binding.spec.mesh.clone())
                .collect();
            // The last list may still be in progress.
            if let Some(turn) = worker.try_lock_list() {
                let list =
                    Arc::clone(self).list_until_synced(Arc::clone(worker), Arc::clone(manifests), meshes);
                lists.spawn(async move {
                    let _turn = turn;
                    list.await
                });
            }
        }
        let wait = self.context.workers.load().values().map(|worker| worker.list_wait()).max();
        let enough = Instant::now() + wait.unwrap_or_default();
        while let Ok(Some(listed)) = tokio::time::timeout_at(enough, lists.join_next()).await {
            complete &= listed.unwrap_or(false);
        }
        complete &= lists.is_empty();
        let tasks = self.context.workers.load().values().flat_map(|worker| worker.registry.tasks()).collect();
        (tasks, complete)
    }

    /// Lists the registrations at a control plane. The first list is retried soon: no reconcile runs before it.
    async fn list_until_synced(
        self: Arc<Self>,
        worker: Arc<ControlPlaneWorker>,
        manifests: Arc<ManifestSet>,
        meshes: BTreeSet<MeshName>,
    ) -> bool {
        let mut delays = FIRST_LIST_BACKOFF.start(self.context.process.seed.wrapping_add(4));
        loop {
            let me = Arc::clone(&self);
            let listed =
                me.list_control_plane(Arc::clone(&worker), Arc::clone(&manifests), meshes.clone()).await;
            let replaced =
                self.context.workers.load().get(&worker.name).is_none_or(|now| !Arc::ptr_eq(now, &worker));
            if listed || replaced || worker.is_synced() {
                return listed;
            }
            tokio::time::sleep(delays.after_failure()).await;
        }
    }

    async fn list_control_plane(
        self: Arc<Self>,
        worker: Arc<ControlPlaneWorker>,
        manifests: Arc<ManifestSet>,
        meshes: BTreeSet<MeshName>,
    ) -> bool {
        let (requested, began) = (self.context.now(), Instant::now());
        if let Err(halt) = worker.refresh_capabilities(meshes.clone()).await {
            match halt {
                // The worker has reported it.
                CallError::Failed(MeshError { kind: MeshErrorKind::Obstructed(_), .. }) => {}
                CallError::Failed(error) => worker.warn_once(&error),
                CallError::CircuitOpen(_) => {
                    debug!(control_plane = %worker.name, "control plane not reachable; using the last known settings");
                }
            }
        }
        worker.record_format();
        self.record_named_clusters(&manifests, &worker).await;
        // Before the registrations, whose tasks are then reconciled.
        list_sidecars(&worker, &meshes).await;
        let clusters = self.clusters_to_list(&manifests, &worker);
        match self.list_into_registry(&worker, &manifests, &clusters, requested).await {
            Ok(failed) => {
                self.context.record_unresolved(&format!("control plane {}", worker.name), None);
                // The guards must know how many registrations there are before a reconcile uses this list.
                self.context.assign_bindings(&manifests, &worker, None);
                if self.record_list_result(&worker, &failed) {
                    self.context
                        .aws
                        .store
                        .all()
                        .into_iter()
                        .for_each(|task| worker.queue.add(task, Priority::Sweep));
                }
                outbound_check::run(&self.context, &worker, &manifests, &meshes).await;
                if failed.is_empty() {
                    worker.record_list_duration(began.elapsed());
                }
                failed.is_empty()
            }
            Err(halt) => {
                self.context.metrics().record_warning("registration_list_incomplete");
                match halt {
                    CallError::Failed(error) => {
                        self.context.record_unresolved(
                            &format!("control plane {}", worker.name),
                            Some(error.message.clone()),
                        );
                        worker.warn_once(&error);
                    }
                    CallError::CircuitOpen(_) => {
                        debug!(control_plane = %worker.name, "control plane not reachable; listing after the next probe");
                    }
                }
                false
            }
        }
    }

    /// Records the clusters that registrations name in full. Without them, nothing of a deleted cluster is listed.
    async fn record_named_clusters(&self, manifests: &ManifestSet, worker: &ControlPlaneWorker) {
        if !worker.kind.tasks_register_themselves() {
            return;
        }
        match worker.call(worker.client.list_clusters()).await {
            Ok(named) => {
                let mut over_limit = 0_usize;
                for cluster in named.iter().filter(|cluster| worker.selects_cluster(manifests, cluster)) {
                    match self.context.clusters.record_registered(cluster) {
                        NamedCluster::Known => {}
                        NamedCluster::New => {
                            debug!(control_plane = %worker.name, %cluster, "registrations name a cluster that is not listed");
                        }
                        NamedCluster::OverLimit => over_limit += 1,
                    }
                }
                warn_over_limit(worker, over_limit);
            }
            Err(error) => {
                debug!(control_plane = %worker.name, ?error, "cannot list the clusters of registrations");
            }
        }
    }

    /// The clusters whose tasks may have registrations at a control plane: those that its bindings select, and those of
    /// known registrations.
    pub(super) fn clusters_to_list(
        &self,
        manifests: &ManifestSet,
        worker: &ControlPlaneWorker,
    ) -> BTreeSet<ClusterArn> {
        let mut clusters = self.context.clusters.selected_at(manifests, &worker.name);
        clusters.extend(worker.registry.tasks().iter().map(|task| task.cluster().clone()));
        let named = self.context.clusters.registered_only();
        clusters.extend(named.into_iter().filter(|cluster| worker.selects_cluster(manifests, cluster)));
        clusters
    }

    /// Records that a list succeeded but for these segments. Whether it is the first.
    fn record_list_result(&self, worker: &ControlPlaneWorker, failed: &[FailedSegment]) -> bool {
        let what = |segment: &str| format!("{segment} at control plane {}", worker.name);
        let (first, over) = worker.record_list_result(failed);
        over.iter().for_each(|segment| self.context.record_unresolved(&what(segment), None));
        for FailedSegment { segment, error } in failed {
            self.context.record_unresolved(&what(&segment.to_string()), Some(error.message.clone()));
        }
        if !failed.is_empty() {
            self.context.metrics().record_warning("registration_list_incomplete");
        }
        first
    }

    /// Records each registration as it is read, under the task that its ownership labels name, so that a list of thousands
    /// is never held as a whole.
    async fn list_into_registry(
        &self,
        worker: &ControlPlaneWorker,
        manifests: &ManifestSet,
        clusters: &BTreeSet<ClusterArn>,
        requested: Timestamp,
    ) -> Result<Vec<FailedSegment>, CallError> {
        let mut by_id: BTreeMap<ClusterId, ClusterArn> = self.context.clusters.by_id();
        let homes = homes(manifests, &worker.name, by_id.values());
        let (mut unattributed, mut unselected, mut over_limit) = (0_usize, BTreeSet::new(), 0_usize);
        let mut take = |seen: RegistrationSummary| {
            let RegistrationOwner::Owned(labels) = &seen.owner else { return };
            if labels.operator != self.context.process.id {
                return;
            }
            if !by_id.contains_key(&labels.cluster)
                && let Some(cluster) = rebuild(&labels.cluster, seen.cluster_name.as_deref(), &homes)
                && worker.selects_cluster(manifests, &cluster)
            {
                if self.context.clusters.record_registered(&cluster) == NamedCluster::OverLimit {
                    over_limit += 1;
                    return;
                }
                by_id.insert(labels.cluster.clone(), cluster);
            }
            match by_id.get(&labels.cluster) {
                Some(cluster) => {
                    let task = cluster.task(labels.task.clone());
                    worker.registry.record_listed(&task, &seen, requested, self.context.now());
                }
                None => {
                    unattributed += 1;
                    if unselected.len() < MAX_NAMED_CLUSTERS {
                        unselected.extend(seen.cluster_name.clone());
                    }
                }
            }
        };
        let failed = worker.call(worker.client.list_owned(clusters, &mut take)).await?;
        let failed = zone_proxy_lists::without_unused(failed, manifests, worker);
        worker.registry.finish_list(&failed, requested);
        if !worker.drains.is_empty() {
            let known = worker.registry.ids();
            worker.drains.retain(|id| known.contains(id));
        }
        worker.record_unattributed(unattributed + over_limit);
        warn_over_limit(worker, over_limit);
        if unattributed > 0 {
            warn!(
                control_plane = %worker.name, count = unattributed, clusters = ?unselected,
                "ignoring owned registrations in clusters that no MeshBinding selects"
            );
        }
        Ok(failed)
    }

    /// Sweeps a cluster. Returns whether its tasks could be listed, and whether nothing failed.
    pub(super) async fn sweep_cluster(
        self: &Arc<Self>,
        cluster: &ClusterArn,
        known_before: &BTreeSet<TaskArn>,
        registered: &BTreeSet<TaskArn>,
        heartbeat: &Heartbeat,
    ) -> (Result<(), AwsError>, bool) {
        let began = self.context.now();
        let briefs = self.context.aws.store.of_cluster(cluster);
        let unsure =
            |task: &&TaskArn, listed| needs_describe(briefs.get(*task), listed, registered.contains(*task));
        let describes = Mutex::new(SweepDescribes::new(Arc::clone(&self.context)));
        let describe = |tasks: Vec<TaskArn>| {
            // A panic elsewhere leaves a usable list.
            describes.lock().unwrap_or_else(PoisonError::into_inner).add(tasks);
        };
        let (mut running, mut stopped) = (BTreeSet::new(), BTreeSet::new());
        // Each page counts as it is read, whether or not a later page fails.
        let take_running = |tasks: Vec<TaskArn>| {
            self.context.clusters.record_page(cluster);
            let now = self.context.now();
            tasks.iter().for_each(|task| self.context.aws.store.record_listed_running(task, now));
            describe(tasks.iter().filter(|task| unsure(task, DesiredStatus::Running)).cloned().collect());
            running.extend(tasks);
        };
        let take_stopped = |tasks: Vec<TaskArn>| {
            tasks.iter().for_each(|task| self.context.aws.store.record_listed_stopped(task));
            describe(tasks.iter().filter(|task| unsure(task, DesiredStatus::Stopped)).cloned().collect());
            stopped.extend(tasks);
        };
        if let Err(error) = self.list_tasks(cluster, heartbeat, take_running, take_stopped).await {
            match self.context.aws.clusters.check(cluster, &error).await {
                // Without tasks, all of its registrations are stale.
                ClusterExistence::Deleted => {
                    self.context.record_unresolved(cluster.as_str(), None);
                    debug!(%cluster, "the cluster was deleted; its tasks are absent");
                }
                ClusterExistence::NotFound => {
                    let registrations = registered.iter().filter(|task| task.cluster() == cluster).count();
                    self.report_not_found(cluster, registrations);
                    return (Ok(()), true);
                }
                ClusterExistence::NotDeleted => {
                    self.context.clusters.record_failed_list(cluster);
                    self.report_failed_list(cluster.as_str(), &error);
                    self.context.metrics().sweeps.record_sweep("list_failed");
                    // The pages that were read show tasks that exist.
                    into_inner(describes).finish(cluster, heartbeat).await;
                    return (Err(error), false);
                }
            }
        }
        self.context.clusters.clear_not_found(cluster);
        let now = self.context.now();
        for task in known_before.union(registered).filter(|task| task.cluster() == cluster) {
            let over = self.context.aws.store.is_over(task);
            if !over && !running.contains(task) && !stopped.contains(task) {
                self.context.aws.store.record_absence(task, began, now);
            }
        }
        let complete = into_inner(describes).finish(cluster, heartbeat).await;
        let manifests = self.context.manifests.load();
        for worker in self.context.workers.load().values() {
            self.context.assign_bindings(&manifests, worker, Some(cluster));
        }
        self.context.clusters.record_full_sweep(cluster, began);
        if complete {
            self.context.status.record_full_sweep(cluster, self.context.wall());
        }
        self.context.metrics().sweeps.record_sweep(if complete { "complete" } else { "describe_failed" });
        (Ok(()), complete)
    }

    /// Lists the tasks of a cluster, running and stopped, all pages.
    async fn list_tasks(
        &self,
        cluster: &ClusterArn,
        heartbeat: &Heartbeat,
        take_running: impl FnMut(Vec<TaskArn>),
        take_stopped: impl FnMut(Vec<TaskArn>),
    ) -> Result<(), AwsError> {
        let list = |desired, page| self.ecs.list_tasks(cluster, desired, page);
        let bucket = self.context.leadership.limits.tasks.of_cluster(cluster);
        let pages = PagedList { what: cluster.as_str(), bucket, heartbeat };
        let running =
            self.list_all_pages(&pages, |page| list(DesiredStatus::Running, page), take_running).await;
        // Also after a failure: each page shows tasks that exist.
        let stopped =
            self.list_all_pages(&pages, |page| list(DesiredStatus::Stopped, page), take_stopped).await;
        running.and(stopped)
    }

    /// Reports a cluster that ECS does not find, once until it is found. It is no reason to wait: ECS has answered.
    fn report_not_found(&self, cluster: &ClusterArn, registrations: usize) {
        self.context.metrics().sweeps.record_sweep("cluster_not_found");
        self.context.record_unresolved(
            cluster.as_str(),
            Some(format!("ECS does not find the cluster; {NOT_FOUND_FIX}")),
        );
        if self.context.clusters.record_not_found(cluster) {
            self.context.metrics().record_warning("cluster_not_found");
            warn!(%cluster, registrations, fix = NOT_FOUND_FIX, "cluster not found; keeping its registrations");
        }
    }

    /// Passes on each page of a list as it is read. When a page fails, the pages before it show what exists, and prove no
    /// absence.
    async fn list_all_pages<T, F>(
        &self,
        PagedList { what, bucket, heartbeat }: &PagedList<'_>,
        fetch: impl Fn(Option<String>) -> F,
        mut take: impl FnMut(Vec<T>),
    ) -> Result<(), AwsError>
    where
        F: Future<Output = Result<ListPage<T>, AwsError>>,
    {
        let mut page = None;
        for _ in 0..MAX_PAGES {
            heartbeat.expect_within(STEP_TIMEOUT);
            // Events go first: their describes take from the same bucket.
            bucket.acquire_spare().await;
            match fetch(page).await {
                Ok(ListPage { items: more, skipped, next }) => {
                    take(more);
                    for error in skipped {
                        self.context.metrics().record_warning("list_item_skipped");
                        warn!(what, error, "skipping an unreadable item of a list");
                    }
                    if next.is_none() {
                        self.context.record_unresolved(what, None);
                        return Ok(());
                    }
                    page = next;
                }
                Err(error) => {
                    if error.kind == AwsErrorKind::Throttled {
                        bucket.penalize(Duration::from_secs(1));
                    }
                    return Err(error);
                }
            }
        }
        Err(AwsError {
            kind: AwsErrorKind::Unavailable,
            operation: "ecs:List",
            resource: (*what).to_owned(),
            code: "pages".to_owned(),
            message: format!("the list does not end within {MAX_PAGES} pages"),
            hint: "",
        })
    }

    /// Reports a list that failed. A failure of the whole account is reported for the account.
    fn report_failed_list(&self, what: &str, error: &AwsError) {
        if is_of_account(error) {
            self.context.record_unresolved(what, Some(error.to_string()));
            debug!(what, %error, "incomplete sweep of an account that cannot be read");
        } else {
            self.warn_incomplete(what, error);
        }
    }

    fn warn_incomplete(&self, what: &str, error: &AwsError) {
        self.context.metrics().record_warning("sweep_incomplete");
        self.context.record_unresolved(what, Some(error.to_string()));
        warn!(what, %error, "incomplete sweep; not removing anything based on it");
    }
}

/// The value of a mutex that no panic leaves unusable.
fn into_inner<T>(mutex: Mutex<T>) -> T {
    mutex.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// Describes tasks while their cluster is listed, so that the first are registered before the last are listed. The describer
/// batches them into calls. The number that waits there is bounded, since each costs memory.
struct SweepDescribes {
    context: Arc<Context>,
    waiting: VecDeque<TaskArn>,
    requested: JoinSet<(TaskArn, Result<DescribeOutcome, Reason>)>,
    failed: usize,
    last_error: String,
}

impl SweepDescribes {
    fn new(context: Arc<Context>) -> Self {
        Self {
            context,
            waiting: VecDeque::new(),
            requested: JoinSet::new(),
            failed: 0,
            last_error: String::new(),
        }
    }

    fn add(&mut self, tasks: Vec<TaskArn>) {
        self.waiting.extend(tasks);
        while let Some(described) = self.requested.try_join_next() {
            self.record(described);
        }
        self.request();
    }

    fn request(&mut self) {
        while self.requested.len() < MAX_INFLIGHT_DESCRIBES
            && let Some(task) = self.waiting.pop_front()
        {
            let describer = self.context.aws.describer.clone();
            self.requested.spawn(async move {
                let described = describer.describe(&task, Duration::MAX).await;
                (task, described)
            });
        }
    }

    fn record(&mut self, described: Result<(TaskArn, Result<DescribeOutcome, Reason>), JoinError>) {
        match described {
            Ok((task, Ok(_))) => self.context.workers.enqueue(&task, Priority::Sweep),
            Ok((_, Err(error))) => {
                self.failed += 1;
                self.last_error = error.message;
            }
            Err(_) => self.failed += 1,
        }
    }

    /// Waits for the rest. Whether all were described.
    async fn finish(mut self, cluster: &ClusterArn, heartbeat: &Heartbeat) -> bool {
        loop {
            self.request();
            let Some(described) = self.requested.join_next().await else { break };
            heartbeat.expect_within(STEP_TIMEOUT);
            self.record(described);
        }
        let Self { context, failed, last_error, .. } = self;
        let error = (failed > 0).then(|| format!("{failed} tasks could not be described: {last_error}"));
        context.record_unresolved(&format!("tasks of {cluster}"), error);
        if failed > 0 {
            warn!(%cluster, tasks = failed, error = last_error, "cannot describe tasks; retrying at the next sweep");
        }
        failed == 0
    }
}

/// The declared accounts and Regions whose clusters a pattern may match.
fn member_places(manifests: &ManifestSet, patterns: &[&&Glob]) -> BTreeSet<AccountRegion> {
    let places = manifests.aws_accounts.values().flat_map(|account| {
        account.regions.iter().map(|region| AccountRegion::new(&account.account, region))
    });
    let may_match = |place: &AccountRegion| {
        let partition = partition_of_region(&place.region);
        let any = format!("arn:{partition}:ecs:{}:{}:cluster/*", place.region, place.account);
        let any = Glob::new(any);
        patterns.iter().any(|pattern| pattern.overlaps(&any))
    };
    places.filter(may_match).collect()
}

/// A cluster of each account and Region that the bindings of a control plane select: the known ones, and those that
/// patterns name up to the cluster's name.
fn homes<'a>(
    manifests: &'a ManifestSet,
    control_plane: &str,
    known: impl Iterator<Item = &'a ClusterArn>,
) -> BTreeSet<ClusterArn> {
    let here = manifests.bindings.values().filter(|binding| *binding.spec.control_plane == *control_plane);
    let patterns = here.clone().flat_map(|binding| &binding.spec.selector.clusters);
    let any_of = |pattern: &Glob| {
        let (home, _) = pattern.as_str().split_once(":cluster/")?;
        ClusterArn::parse(&format!("{home}:cluster/any")).ok()
    };
    let removed = here.flat_map(|binding| &binding.spec.cleanup.removed_clusters);
    let known = known.chain(removed).filter_map(|cluster| cluster.sibling("any").ok());
    patterns.filter_map(any_of).chain(known).collect()
}

/// Reads how sidecars get their outbounds. Without an answer, what they reported before counts, or else their definitions.
async fn list_sidecars(worker: &ControlPlaneWorker, meshes: &BTreeSet<MeshName>) {
    let mut all = Vec::new();
    for mesh in meshes {
        match worker.call(worker.client.list_sidecar_outbounds(mesh)).await {
            Ok(reported) => all.extend(reported),
            Err(error) => {
                debug!(control_plane = %worker.name, %mesh, ?error, "cannot list the sidecars of the mesh");
            }
        }
    }
    worker.record_sidecars(all);
}

fn warn_over_limit(worker: &ControlPlaneWorker, count: usize) {
    if count > 0 {
        warn!(
            control_plane = %worker.name, count, limit = MAX_REGISTERED_CLUSTERS,
            "registrations name too many unknown clusters; ignoring the rest"
        );
    }
}

/// Rebuilds a cluster's ARN from its name, in one of the accounts and Regions of `homes`. The id, a hash of the ARN, proves
/// that it is the one.
fn rebuild(id: &ClusterId, name: Option<&str>, homes: &BTreeSet<ClusterArn>) -> Option<ClusterArn> {
    let name = name?;
    homes.iter().filter_map(|home| home.sibling(name).ok()).find(|cluster| ClusterId::of(cluster) == *id)
}

/// Whether a list shows of a task what the store does not know.
fn needs_describe(known: Option<&TaskSummary>, listed: DesiredStatus, registered: bool) -> bool {
    match (known, listed) {
        (None, DesiredStatus::Running) => true,
        // An unknown stopped task without a registration needs nothing.
        (None, DesiredStatus::Stopped) => registered,
        (Some(brief), DesiredStatus::Running) => brief.desired == DesiredStatus::Running && !brief.is_located,
        (Some(brief), DesiredStatus::Stopped) => {
            !brief.stopped && (brief.desired == DesiredStatus::Running || registered)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deleted_cluster_is_rebuilt_from_its_name_only_if_the_hash_fits() {
        let cluster = |text: &str| ClusterArn::parse(text).unwrap();
        let gone = cluster("arn:aws:ecs:eu-west-1:111122223333:cluster/gone");
        let id = ClusterId::of(&gone);
        for (home, name, expected) in [
            ("arn:aws:ecs:eu-west-1:111122223333:cluster/prod", Some("gone"), true),
            // Another Region, another account, another name, no name.
            ("arn:aws:ecs:eu-north-1:111122223333:cluster/prod", Some("gone"), false),
            ("arn:aws:ecs:eu-west-1:444455556666:cluster/prod", Some("gone"), false),
            ("arn:aws:ecs:eu-west-1:111122223333:cluster/prod", Some("prod"), false),
            ("arn:aws:ecs:eu-west-1:111122223333:cluster/prod", Some("a/b"), false),
            ("arn:aws:ecs:eu-west-1:111122223333:cluster/prod", None, false),
        ] {
            let homes = BTreeSet::from([cluster(home)]);
            let expected = expected.then(|| gone.clone());
            assert_eq!(rebuild(&id, name, &homes), expected, "{home} {name:?}");
        }
    }
}
