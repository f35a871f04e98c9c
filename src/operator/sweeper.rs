//! The full sweep: repairs whatever events missed. First what is registered is listed, then ECS (desired RUNNING *and*
//! STOPPED, every page), so that a task born in between cannot look like an orphan. A list that failed anywhere proves
//! no absence. Describes are for the differences alone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::context::Context;
use super::control_plane_worker::ControlPlaneWorker;
use super::outbound_check;
use ecs_mesh_api::manifests::ManifestSet;
use ecs_mesh_aws::aws::{AwsError, AwsErrorKind, Ecs, ListPage};
use ecs_mesh_aws::store::TaskSummary;
use ecs_mesh_control_plane::CallError;
use ecs_mesh_control_plane::{FailedSegment, RegistrationOwner, RegistrationSummary};
use ecs_mesh_controller::health::Heartbeat;
use ecs_mesh_controller::{Backoff, Priority, TokenBucket};
use ecs_mesh_model::{ClusterArn, ClusterId, DesiredStatus, Glob, MeshName, TaskArn, Timestamp};

/// Pages of one list; more than this is an endless `nextToken`.
const MAX_PAGES: usize = 10_000;

/// A page, a describe or a control worker's list is there within this, however slow AWS is; else the sweep is stuck.
const STEP_TIMEOUT: Duration = Duration::from_mins(2);

/// Tasks that ask for a describe at a time: some calls of a hundred.
const MAX_INFLIGHT_DESCRIBES: usize = 300;

/// Between two tries of a control worker's first list.
const FIRST_LIST_BACKOFF: Backoff = Backoff { min: Duration::from_millis(500), max: Duration::from_secs(10) };

/// Lists control workers and clusters.
pub(super) struct Sweeper {
    pub(super) context: Arc<Context>,
    pub(super) ecs: Arc<dyn Ecs>,
    /// The rate limiter that all ECS reads share.
    pub(super) ecs_bucket: TokenBucket,
}

impl Sweeper {
    /// Sweeps at the start, on the shortest interval of all bindings, soon after a failure, and when asked to.
    pub(super) async fn run(self: Arc<Self>, stop: CancellationToken) {
        let retry = Backoff { min: Duration::from_secs(5), max: Duration::from_mins(2) };
        let mut jitter = fastrand::Rng::with_seed(self.context.process.seed.wrapping_add(2));
        let mut retries = None;
        let mut lists = JoinSet::new();
        let heartbeat = self.context.metrics().health().register("sweep");
        // Before the first manifests are in force there is nothing to sweep.
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
                // Operators of one account should not all sweep at once.
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
            }
        }
    }

    /// One sweep of everything. `true` when nothing failed.
    pub(super) async fn sweep(self: Arc<Self>, lists: &mut JoinSet<bool>, heartbeat: &Heartbeat) -> bool {
        let began = Instant::now();
        let epoch = self.context.sweeps.epoch();
        let manifests = self.context.manifests.load();
        let known_before: BTreeSet<TaskArn> = self.context.aws.store.all().into_iter().collect();
        let (clusters, mut complete) = self.clusters_of(&manifests, heartbeat).await;
        self.context.status.record_clusters(&clusters, complete);
        self.record_clusters(&manifests, &clusters);
        let (registered, listed_all) = self.list_registrations(&manifests, lists).await;
        complete &= listed_all;
        for cluster in &clusters {
            complete &= self.sweep_cluster(cluster, &known_before, &registered, heartbeat).await;
        }
        let tasks: BTreeSet<TaskArn> = self.context.aws.store.all().into_iter().chain(registered).collect();
        tasks.iter().for_each(|task| self.context.workers.enqueue(task, Priority::Sweep));
        let workers = self.context.workers.load();
        let needed = |task: &TaskArn| workers.values().any(|p| p.registry.contains(task) || p.is_unsearched(task));
        self.context.aws.store.expire(needed, self.context.now());
        self.context.metrics().record_sweep_duration(began.elapsed());
        let took = began.elapsed();
        info!(clusters = clusters.len(), tasks = tasks.len(), complete, ?took, "swept");
        self.context.sweeps.record_end(epoch, complete);
        complete
    }

    fn record_clusters(&self, manifests: &ManifestSet, clusters: &BTreeSet<ClusterArn>) {
        let workers = self.context.workers.load();
        let before: Vec<_> = workers.values().map(|worker| self.context.clusters.selected_at(manifests, &worker.name)).collect();
        clusters.iter().for_each(|cluster| self.context.clusters.record(cluster));
        for (worker, before) in workers.values().zip(before) {
            if self.context.clusters.selected_at(manifests, &worker.name) != before {
                // New clusters need their nodes.
                worker.acl.iter().for_each(|acl| acl.soon());
            }
        }
    }

    /// The clusters that bindings select: those named in full, and those that ECS lists under a pattern.
    async fn clusters_of(&self, manifests: &ManifestSet, heartbeat: &Heartbeat) -> (BTreeSet<ClusterArn>, bool) {
        let globs: BTreeSet<&Glob> = manifests.bindings.values().flat_map(|b| &b.spec.selector.clusters).collect();
        let mut clusters: BTreeSet<ClusterArn> = globs
            .iter()
            .filter(|g| g.is_literal())
            .filter_map(|g| ClusterArn::parse(g.as_str()).ok())
            .collect();
        let patterns: Vec<&&Glob> = globs.iter().filter(|glob| !glob.is_literal()).collect();
        if patterns.is_empty() {
            return (clusters, true);
        }
        let take = |listed: Vec<ClusterArn>| {
            clusters.extend(listed.into_iter().filter(|c| patterns.iter().any(|g| g.matches(c.as_str()))));
        };
        let complete = self.list_all_pages("clusters", heartbeat, |page| self.ecs.list_clusters(page), take).await;
        (clusters, complete)
    }

    /// Lists what is registered at each worker, and gives the tasks that have a registration. `false` when a list failed
    /// or is not done: what it holds beyond the last one is then looked at in the next sweep.
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
            // The last one may be under way still.
            if let Some(turn) = worker.try_lock_list() {
                let list = Arc::clone(self).list_until_synced(Arc::clone(worker), Arc::clone(manifests), meshes);
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

    /// Lists what is registered at a worker. One that was never listed is asked again soon: nothing is done there before.
    async fn list_until_synced(
        self: Arc<Self>,
        worker: Arc<ControlPlaneWorker>,
        manifests: Arc<ManifestSet>,
        meshes: BTreeSet<MeshName>,
    ) -> bool {
        let mut delays = FIRST_LIST_BACKOFF.start(self.context.process.seed.wrapping_add(4));
        loop {
            let me = Arc::clone(&self);
            let listed = me.list_control_plane(Arc::clone(&worker), Arc::clone(&manifests), meshes.clone()).await;
            let replaced = self.context.workers.load().get(&worker.name).is_none_or(|now| !Arc::ptr_eq(now, &worker));
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
                CallError::Failed(error) => worker.warn_once(&error),
                CallError::CircuitOpen(_) => {
                    debug!(control_plane = %worker.name, "not reachable: the last known settings count");
                }
            }
        }
        let clusters = self.clusters_to_list(&manifests, &worker);
        match self.list_into_registry(&worker, &clusters, requested).await {
            Ok(failed) => {
                self.context.record_unresolved(&format!("control worker {}", worker.name), None);
                // The guards must know what there is before anybody works by this list.
                self.context.assign_bindings(&manifests, &worker, None);
                if self.record_list_result(&worker, &failed) {
                    self.context.aws.store.all().into_iter().for_each(|task| worker.queue.add(task, Priority::Sweep));
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
                        self.context.record_unresolved(&format!("control worker {}", worker.name), Some(error.message.clone()));
                        worker.warn_once(&error);
                    }
                    CallError::CircuitOpen(_) => {
                        debug!(control_plane = %worker.name, "not reachable: not listed before the next probe");
                    }
                }
                false
            }
        }
    }

    /// The clusters whose tasks may have made something at a worker: those that its bindings select, and those of what is
    /// known to be there still.
    pub(super) fn clusters_to_list(&self, manifests: &ManifestSet, worker: &ControlPlaneWorker) -> BTreeSet<ClusterArn> {
        let mut clusters = self.context.clusters.selected_at(manifests, &worker.name);
        clusters.extend(worker.registry.tasks().iter().map(|task| task.cluster().clone()));
        clusters
    }

    /// What is registered at a worker was listed, but for those parts. Whether for the first time.
    fn record_list_result(&self, worker: &ControlPlaneWorker, failed: &[FailedSegment]) -> bool {
        let what = |segment: &str| format!("{segment} at control worker {}", worker.name);
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

    /// Takes in each registration as it is read, under the task that its marks name: a list of thousands is never held
    /// as a whole.
    async fn list_into_registry(
        &self,
        worker: &ControlPlaneWorker,
        clusters: &BTreeSet<ClusterArn>,
        requested: Timestamp,
    ) -> Result<Vec<FailedSegment>, CallError> {
        let by_id: BTreeMap<ClusterId, ClusterArn> = self.context.clusters.by_id();
        let mut unplaced = 0_usize;
        let mut take = |seen: RegistrationSummary| {
            let RegistrationOwner::Owned(marks) = &seen.owner else { return };
            if marks.operator != self.context.process.id {
                return;
            }
            match by_id.get(&marks.cluster) {
                Some(cluster) => {
                    let task = cluster.task(marks.task.clone());
                    worker.registry.record_listed(&task, &seen, requested, self.context.now());
                }
                None => unplaced += 1,
            }
        };
        let failed = worker.call(worker.client.list_owned(clusters, &mut take)).await?;
        worker.registry.finish_list(&failed, requested);
        worker.record_unattributed(unplaced);
        if unplaced > 0 {
            warn!(
                control_plane = %worker.name, count = unplaced,
                "registrations carry this operator's mark and a cluster that no MeshBinding names; they are left alone"
            );
        }
        Ok(failed)
    }

    pub(super) async fn sweep_cluster(
        self: &Arc<Self>,
        cluster: &ClusterArn,
        known_before: &BTreeSet<TaskArn>,
        registered: &BTreeSet<TaskArn>,
        heartbeat: &Heartbeat,
    ) -> bool {
        let began = self.context.now();
        let list = |desired, page| self.ecs.list_tasks(cluster, desired, page);
        let (mut running, mut stopped) = (BTreeSet::new(), BTreeSet::new());
        // Each page counts as it is read: that a later one fails takes nothing from what this one shows alive.
        let take_running = |tasks: Vec<TaskArn>| {
            let now = self.context.now();
            tasks.iter().for_each(|task| self.context.aws.store.record_listed_running(task, now));
            running.extend(tasks);
        };
        let take_stopped = |tasks: Vec<TaskArn>| {
            tasks.iter().for_each(|task| self.context.aws.store.record_listed_stopped(task));
            stopped.extend(tasks);
        };
        let what = cluster.as_str();
        let running_whole =
            self.list_all_pages(what, heartbeat, |page| list(DesiredStatus::Running, page), take_running).await;
        let stopped_whole =
            self.list_all_pages(what, heartbeat, |page| list(DesiredStatus::Stopped, page), take_stopped).await;
        if !(running_whole && stopped_whole) {
            self.context.metrics().record_sweep("list_failed");
            return false;
        }
        let now = self.context.now();
        let briefs = self.context.aws.store.of_cluster(cluster);
        for task in known_before.union(registered).filter(|task| task.cluster() == cluster) {
            let over = briefs.get(task).is_some_and(|brief| brief.stopped);
            if !over && !running.contains(task) && !stopped.contains(task) {
                self.context.aws.store.record_absence(task, began, now);
            }
        }
        let unsure = running
            .iter()
            .filter(|task| needs_describe(briefs.get(*task), DesiredStatus::Running, registered.contains(*task)))
            .chain(stopped.iter().filter(|task| {
                needs_describe(briefs.get(*task), DesiredStatus::Stopped, registered.contains(*task))
            }))
            .cloned()
            .collect();
        let complete = self.describe_tasks(cluster, unsure, heartbeat).await;
        let manifests = self.context.manifests.load();
        for worker in self.context.workers.load().values() {
            self.context.assign_bindings(&manifests, worker, Some(cluster));
        }
        self.context.clusters.record_full_sweep(cluster, began);
        if complete {
            self.context.status.record_full_sweep(cluster, self.context.now());
        }
        self.context.metrics().record_sweep(if complete { "complete" } else { "describe_failed" });
        complete
    }

    /// Describes many; the describer packs them into calls. Not all ask at once: each that waits costs memory.
    async fn describe_tasks(
        self: &Arc<Self>,
        cluster: &ClusterArn,
        tasks: Vec<TaskArn>,
        heartbeat: &Heartbeat,
    ) -> bool {
        let mut requested = JoinSet::new();
        let mut tasks = tasks.into_iter();
        let mut failed = 0_usize;
        let mut last = String::new();
        loop {
            for task in tasks.by_ref().take(MAX_INFLIGHT_DESCRIBES - requested.len()) {
                let describer = self.context.aws.describer.clone();
                requested.spawn(async move { describer.describe(&task, Duration::MAX).await });
            }
            let Some(answer) = requested.join_next().await else { break };
            heartbeat.expect_within(STEP_TIMEOUT);
            if let Ok(Err(why)) = answer {
                failed += 1;
                last = why.message;
            }
        }
        let why = (failed > 0).then(|| format!("{failed} tasks could not be described: {last}"));
        self.context.record_unresolved(&format!("tasks of {cluster}"), why);
        if failed > 0 {
            warn!(tasks = failed, "tasks could not be described, the next sweep tries again: {last}");
        }
        failed == 0
    }

    /// Hands over each page of a list as it is read. `false`, with a warning, when a page failed: the pages before it
    /// show what is there, and prove no absence.
    async fn list_all_pages<T, F>(
        &self,
        what: &str,
        heartbeat: &Heartbeat,
        fetch: impl Fn(Option<String>) -> F,
        mut take: impl FnMut(Vec<T>),
    ) -> bool
    where
        F: Future<Output = Result<ListPage<T>, AwsError>>,
    {
        let mut page = None;
        for _ in 0..MAX_PAGES {
            heartbeat.expect_within(STEP_TIMEOUT);
            self.ecs_bucket.acquire(1).await;
            match fetch(page).await {
                Ok(ListPage { items: more, next }) => {
                    take(more);
                    if next.is_none() {
                        self.context.record_unresolved(what, None);
                        return true;
                    }
                    page = next;
                }
                Err(error) => {
                    if error.kind == AwsErrorKind::Throttled {
                        self.ecs_bucket.penalize(Duration::from_secs(1));
                    }
                    self.context.metrics().record_warning("sweep_incomplete");
                    self.context.record_unresolved(what, Some(error.to_string()));
                    warn!("the sweep of {what} is incomplete and proves no absence: {error}");
                    return false;
                }
            }
        }
        warn!("the sweep of {what} is incomplete and proves no absence: its list does not end");
        false
    }
}

/// Whether a list's word on a task differs from what is known, or is all that there is.
fn needs_describe(known: Option<&TaskSummary>, listed: DesiredStatus, registered: bool) -> bool {
    match (known, listed) {
        (None, DesiredStatus::Running) => true,
        // A stopped task that nobody knows and nobody registered is of no interest.
        (None, DesiredStatus::Stopped) => registered,
        (Some(brief), DesiredStatus::Running) => {
            brief.desired == DesiredStatus::Running && !brief.has_address
        }
        (Some(brief), DesiredStatus::Stopped) => {
            !brief.stopped && (brief.desired == DesiredStatus::Running || registered)
        }
    }
}
