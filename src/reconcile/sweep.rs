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

use super::{Operator, Plane};
use ecs_mesh_api::manifests::ManifestSet;
use ecs_mesh_aws::aws::{AwsError, AwsErrorKind, Page};
use ecs_mesh_aws::store::Brief;
use ecs_mesh_control_plane::Halt;
use ecs_mesh_control_plane::{FailedPart, Owner, Sighting};
use ecs_mesh_controller::health::Pulse;
use ecs_mesh_controller::{Backoff, Priority};
use ecs_mesh_core::intent::caretaker;
use ecs_mesh_model::{ClusterArn, ClusterId, DesiredStatus, Glob, MeshName, TaskArn, Timestamp};

/// Pages of one list; more than this is an endless `nextToken`.
const MOST_PAGES: usize = 10_000;

/// A page, a describe or a control plane's list is there within this, however slow AWS is; else the sweep is stuck.
const PROGRESS: Duration = Duration::from_mins(2);

/// Tasks that ask for a describe at a time: some calls of a hundred.
const ASKING: usize = 300;

/// Between two tries of a control plane's first list.
const FIRST_LIST: Backoff = Backoff { min: Duration::from_millis(500), max: Duration::from_secs(10) };

impl Operator {
    /// Sweeps at the start, on the shortest interval of all bindings, soon after a failure, and when asked to.
    pub(super) async fn sweep_forever(self: Arc<Self>, stop: CancellationToken) {
        let retry = Backoff { min: Duration::from_secs(5), max: Duration::from_mins(2) };
        let mut jitter = fastrand::Rng::with_seed(self.seed.wrapping_add(2));
        let mut trouble = None;
        let mut lists = JoinSet::new();
        let pulse = self.metrics.health().pulse("sweep");
        // Before the first manifests are in force there is nothing to sweep.
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = self.sweep_soon.notified() => {}
        }
        loop {
            pulse.beat(PROGRESS);
            let whole = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                whole = Arc::clone(&self).sweep(&mut lists, &pulse) => whole,
            };
            let pause = if whole {
                trouble = None;
                // Operators of one account should not all sweep at once.
                self.sweep_interval().mul_f64(0.95 + 0.1 * jitter.f64())
            } else {
                let seed = self.seed.wrapping_add(3);
                trouble.get_or_insert_with(|| retry.start(seed)).after_failure()
            };
            pulse.beat(pause + PROGRESS);
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = self.sweep_soon.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    pub(super) fn sweep_interval(&self) -> Duration {
        let set = self.manifests();
        let intervals = set.bindings.values().map(|binding| binding.spec.cleanup.sweep_interval.0);
        intervals.min().unwrap_or(Duration::from_mins(10))
    }

    /// One sweep of everything. `true` when nothing failed.
    pub(super) async fn sweep(self: Arc<Self>, lists: &mut JoinSet<bool>, pulse: &Pulse) -> bool {
        let began = Instant::now();
        let learned = self.learned.load(Ordering::Acquire);
        let set = self.manifests();
        let known_before: BTreeSet<TaskArn> = self.store.all().into_iter().collect();
        let (clusters, mut whole) = self.clusters_of(&set, pulse).await;
        self.ledger.clusters_are(&clusters, whole);
        self.remember_clusters(&set, &clusters);
        let (registered, listed_all) = self.list_registrations(&set, lists).await;
        whole &= listed_all;
        for cluster in &clusters {
            whole &= self.sweep_cluster(cluster, &known_before, &registered, pulse).await;
        }
        let tasks: BTreeSet<TaskArn> = self.store.all().into_iter().chain(registered).collect();
        tasks.iter().for_each(|task| self.enqueue(task, Priority::Sweep));
        let planes = self.planes();
        let needed = |task: &TaskArn| planes.values().any(|p| p.registry.has(task) || p.is_unsearched(task));
        self.store.forget_old(needed, self.clock.now());
        self.metrics.sweep_took(began.elapsed());
        let took = began.elapsed();
        info!(clusters = clusters.len(), tasks = tasks.len(), whole, ?took, "swept");
        self.swept_so_far.send_modify(|(count, last)| {
            let is_all = self.learned.load(Ordering::Acquire) == learned;
            (*count, *last) = (*count + 1, whole && is_all);
        });
        whole
    }

    fn remember_clusters(&self, set: &ManifestSet, clusters: &BTreeSet<ClusterArn>) {
        let planes = self.planes();
        let before: Vec<_> = planes.values().map(|plane| self.clusters_at(set, &plane.name)).collect();
        clusters.iter().for_each(|cluster| self.remember_cluster(cluster));
        for (plane, before) in planes.values().zip(before) {
            if self.clusters_at(set, &plane.name) != before {
                // New clusters need their nodes.
                plane.acl.iter().for_each(|acl| acl.soon());
            }
        }
    }

    /// The clusters that bindings select: those named in full, and those that ECS lists under a pattern.
    async fn clusters_of(&self, set: &ManifestSet, pulse: &Pulse) -> (BTreeSet<ClusterArn>, bool) {
        let globs: BTreeSet<&Glob> = set.bindings.values().flat_map(|b| &b.spec.selector.clusters).collect();
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
        let whole = self.every_page("clusters", pulse, |page| self.ecs.list_clusters(page), take).await;
        (clusters, whole)
    }

    /// Lists what is registered at each plane, and gives the tasks that have a registration. `false` when a list failed
    /// or is not done: what it holds beyond the last one is then looked at in the next sweep.
    async fn list_registrations(
        self: &Arc<Self>,
        set: &Arc<ManifestSet>,
        lists: &mut JoinSet<bool>,
    ) -> (BTreeSet<TaskArn>, bool) {
        let mut whole = true;
        for plane in self.planes().values() {
            let meshes: BTreeSet<MeshName> = set
                .bindings
                .values()
                .filter(|binding| *binding.spec.control_plane == *plane.name)
                .map(|binding| binding.spec.mesh.clone())
                .collect();
            // The last one may be under way still.
            if let Some(turn) = plane.begin_to_list() {
                let list = Arc::clone(self).list_until_listed(Arc::clone(plane), Arc::clone(set), meshes);
                lists.spawn(async move {
                    let _turn = turn;
                    list.await
                });
            }
        }
        let wait = self.planes().values().map(|plane| plane.lists_wait()).max();
        let enough = Instant::now() + wait.unwrap_or_default();
        while let Ok(Some(listed)) = tokio::time::timeout_at(enough, lists.join_next()).await {
            whole &= listed.unwrap_or(false);
        }
        whole &= lists.is_empty();
        let tasks = self.planes().values().flat_map(|plane| plane.registry.tasks()).collect();
        (tasks, whole)
    }

    /// Lists what is registered at a plane. One that was never listed is asked again soon: nothing is done there before.
    async fn list_until_listed(
        self: Arc<Self>,
        plane: Arc<Plane>,
        set: Arc<ManifestSet>,
        meshes: BTreeSet<MeshName>,
    ) -> bool {
        let mut delays = FIRST_LIST.start(self.seed.wrapping_add(4));
        loop {
            let me = Arc::clone(&self);
            let listed = me.list_plane(Arc::clone(&plane), Arc::clone(&set), meshes.clone()).await;
            let replaced = self.planes().get(&plane.name).is_none_or(|now| !Arc::ptr_eq(now, &plane));
            if listed || replaced || plane.is_listed() {
                return listed;
            }
            tokio::time::sleep(delays.after_failure()).await;
        }
    }

    async fn list_plane(
        self: Arc<Self>,
        plane: Arc<Plane>,
        set: Arc<ManifestSet>,
        meshes: BTreeSet<MeshName>,
    ) -> bool {
        let (asked, began) = (self.clock.now(), Instant::now());
        if let Err(halt) = plane.relearn(meshes.clone()).await {
            match halt {
                Halt::Failed(error) => plane.tell(&error),
                Halt::Until(_) => {
                    debug!(control_plane = %plane.name, "not reachable: the last known settings count");
                }
            }
        }
        let clusters = self.clusters_to_list(&set, &plane);
        match self.list_into_registry(&plane, &clusters, asked).await {
            Ok(failed) => {
                self.gap(&format!("control plane {}", plane.name), None);
                // The guards must know what there is before anybody works by this list.
                self.assign_caretakers(&set, &plane, None);
                if self.was_listed(&plane, &failed) {
                    self.store.all().into_iter().for_each(|task| plane.queue.add(task, Priority::Sweep));
                }
                self.check_targets(&plane, &set, &meshes).await;
                if failed.is_empty() {
                    plane.list_took(began.elapsed());
                }
                failed.is_empty()
            }
            Err(halt) => {
                self.metrics.held("registrations_unlisted");
                match halt {
                    Halt::Failed(error) => {
                        self.gap(&format!("control plane {}", plane.name), Some(error.message.clone()));
                        plane.tell(&error);
                    }
                    Halt::Until(_) => {
                        debug!(control_plane = %plane.name, "not reachable: not listed before the next probe");
                    }
                }
                false
            }
        }
    }

    /// The clusters whose tasks may have made something at a plane: those that its bindings select, and those of what is
    /// known to be there still.
    pub(super) fn clusters_to_list(&self, set: &ManifestSet, plane: &Plane) -> BTreeSet<ClusterArn> {
        let mut clusters = self.clusters_at(set, &plane.name);
        clusters.extend(plane.registry.tasks().iter().map(|task| task.cluster().clone()));
        clusters
    }

    /// What is registered at a plane was listed, but for those parts. Whether for the first time.
    fn was_listed(&self, plane: &Plane, failed: &[FailedPart]) -> bool {
        let what = |part: &str| format!("{part} at control plane {}", plane.name);
        let (first, over) = plane.was_listed(failed);
        over.iter().for_each(|part| self.gap(&what(part), None));
        for FailedPart { part, error } in failed {
            self.gap(&what(&part.to_string()), Some(error.message.clone()));
        }
        if !failed.is_empty() {
            self.metrics.held("registrations_unlisted");
        }
        first
    }

    /// Takes in each registration as it is read, under the task that its marks name: a list of thousands is never held
    /// as a whole.
    async fn list_into_registry(
        &self,
        plane: &Plane,
        clusters: &BTreeSet<ClusterArn>,
        asked: Timestamp,
    ) -> Result<Vec<FailedPart>, Halt> {
        let by_id: BTreeMap<ClusterId, ClusterArn> = self.clusters().by_id.clone();
        let mut unplaced = 0_usize;
        let mut take = |seen: Sighting| {
            let Owner::Marked(marks) = &seen.owner else { return };
            if marks.operator != self.id {
                return;
            }
            match by_id.get(&marks.cluster) {
                Some(cluster) => {
                    let task = cluster.task(marks.task.clone());
                    plane.registry.listed(&task, &seen, asked, self.clock.now());
                }
                None => unplaced += 1,
            }
        };
        let failed = plane.call(plane.mesh.owned(clusters, &mut take)).await?;
        plane.registry.end_list(&failed, asked);
        plane.unplaced.store(unplaced, Ordering::Relaxed);
        if unplaced > 0 {
            warn!(
                control_plane = %plane.name, count = unplaced,
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
        pulse: &Pulse,
    ) -> bool {
        let began = self.clock.now();
        let list = |desired, page| self.ecs.list_tasks(cluster, desired, page);
        let (mut running, mut stopped) = (BTreeSet::new(), BTreeSet::new());
        // Each page counts as it is read: that a later one fails takes nothing from what this one shows alive.
        let take_running = |tasks: Vec<TaskArn>| {
            let now = self.clock.now();
            tasks.iter().for_each(|task| self.store.listed_alive(task, now));
            running.extend(tasks);
        };
        let take_stopped = |tasks: Vec<TaskArn>| {
            tasks.iter().for_each(|task| self.store.listed_leaving(task));
            stopped.extend(tasks);
        };
        let what = cluster.as_str();
        let running_whole =
            self.every_page(what, pulse, |page| list(DesiredStatus::Running, page), take_running).await;
        let stopped_whole =
            self.every_page(what, pulse, |page| list(DesiredStatus::Stopped, page), take_stopped).await;
        if !(running_whole && stopped_whole) {
            self.metrics.swept("incomplete");
            return false;
        }
        let now = self.clock.now();
        let briefs = self.store.of_cluster(cluster);
        for task in known_before.union(registered).filter(|task| task.cluster() == cluster) {
            let over = briefs.get(task).is_some_and(|brief| brief.stopped);
            if !over && !running.contains(task) && !stopped.contains(task) {
                self.store.missed_by_sweep(task, began, now);
            }
        }
        let unsure = running
            .iter()
            .filter(|task| tells_news(briefs.get(*task), DesiredStatus::Running, registered.contains(*task)))
            .chain(stopped.iter().filter(|task| {
                tells_news(briefs.get(*task), DesiredStatus::Stopped, registered.contains(*task))
            }))
            .cloned()
            .collect();
        let whole = self.describe_all(cluster, unsure, pulse).await;
        let set = self.manifests();
        for plane in self.planes().values() {
            self.assign_caretakers(&set, plane, Some(cluster));
        }
        self.clusters().swept.entry(cluster.clone()).or_insert(began);
        if whole {
            self.ledger.swept_whole(cluster, self.clock.now());
        }
        self.metrics.swept(if whole { "complete" } else { "undescribed" });
        whole
    }

    /// Finds the binding that takes care of each registration (of one cluster, or of all), so that its guard knows what
    /// it guards.
    pub(super) fn assign_caretakers(&self, set: &ManifestSet, plane: &Plane, cluster: Option<&ClusterArn>) {
        let now = self.clock.now();
        for task in plane.registry.tasks() {
            if cluster.is_some_and(|cluster| task.cluster() != cluster) {
                continue;
            }
            let known = self.store.snapshot(&task, Duration::MAX, now).task;
            for entry in plane.registry.of(&task) {
                let found = caretaker(set, &plane.name, &entry.id.mesh, task.cluster(), known.as_ref());
                plane.registry.assign(&task, &entry.id, found.as_ref().map(|binding| &binding.name));
            }
        }
        for binding in set.bindings.values().filter(|b| *b.spec.control_plane == *plane.name) {
            plane.note_owned(binding, now);
        }
    }

    /// Describes many; the describer packs them into calls. Not all ask at once: each that waits costs memory.
    async fn describe_all(
        self: &Arc<Self>,
        cluster: &ClusterArn,
        tasks: Vec<TaskArn>,
        pulse: &Pulse,
    ) -> bool {
        let mut asked = JoinSet::new();
        let mut tasks = tasks.into_iter();
        let mut failed = 0_usize;
        let mut last = String::new();
        loop {
            for task in tasks.by_ref().take(ASKING - asked.len()) {
                let describer = self.describer.clone();
                asked.spawn(async move { describer.describe(&task, Duration::MAX).await });
            }
            let Some(answer) = asked.join_next().await else { break };
            pulse.beat(PROGRESS);
            if let Ok(Err(why)) = answer {
                failed += 1;
                last = why.words;
            }
        }
        let why = (failed > 0).then(|| format!("{failed} tasks could not be described: {last}"));
        self.gap(&format!("tasks of {cluster}"), why);
        if failed > 0 {
            warn!(tasks = failed, "tasks could not be described, the next sweep tries again: {last}");
        }
        failed == 0
    }

    /// Hands over each page of a list as it is read. `false`, with a warning, when a page failed: the pages before it
    /// show what is there, and prove no absence.
    async fn every_page<T, F>(
        &self,
        what: &str,
        pulse: &Pulse,
        fetch: impl Fn(Option<String>) -> F,
        mut take: impl FnMut(Vec<T>),
    ) -> bool
    where
        F: Future<Output = Result<Page<T>, AwsError>>,
    {
        let mut page = None;
        for _ in 0..MOST_PAGES {
            pulse.beat(PROGRESS);
            self.ecs_bucket.acquire(1).await;
            match fetch(page).await {
                Ok(Page { items: more, next }) => {
                    take(more);
                    if next.is_none() {
                        self.gap(what, None);
                        return true;
                    }
                    page = next;
                }
                Err(error) => {
                    if error.kind == AwsErrorKind::Throttled {
                        self.ecs_bucket.penalize(Duration::from_secs(1));
                    }
                    self.metrics.held("sweep_incomplete");
                    self.gap(what, Some(error.to_string()));
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
fn tells_news(known: Option<&Brief>, listed: DesiredStatus, registered: bool) -> bool {
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
