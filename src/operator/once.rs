//! `run --once`: a run that ends once nothing is left to do.
//!
//! It is a run without a queue, with the same guard, settle time and confirmations. It ends when the last sweep was complete and
//! no task waits for anything but a person. The guard's hour and the sweeps that prove an absence begin with the process, as in
//! each run.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::control_plane_worker::ControlPlaneWorker;
use super::{Operator, RunOptions, TaskExited};
use crate::telemetry::state::{OperatorState, OwnedCounts, StateSource as _};
use ecs_mesh_controller::CircuitState;
use ecs_mesh_core::plan::TaskLiveness;
use ecs_mesh_manifests::ManifestStatus;
use ecs_mesh_model::TaskArn;

/// Interval at which the run checks whether something is left.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// How long clusters or registrations may be unreadable after the first sweep. A job should fail soon where a token is wrong.
const UNREADABLE_LIMIT: Duration = Duration::from_mins(2);

/// Pause before another sweep while ECS does not find tasks that are registered: two sweeps prove an absence.
const ABSENCE_RESWEEP: Duration = Duration::from_mins(1);

/// Warnings that time ends: the run waits for them.
const WAITING: [&str; 9] = [
    "settling",
    "awaiting_first_sweep",
    "address_pending",
    "unknown",
    "describe_failed",
    "readiness_unknown",
    "audit_backlog",
    "conflict",
    "server_error",
];

/// Warnings that a run neither waits for nor reports as a problem: the manifests ask for them.
const ACCEPTED: [&str; 4] = ["degraded", "observed", "paused", "skipped_by_policy"];

/// Waits without a place in the queue: a timer or a sweep brings the task back.
const WAITING_UNQUEUED: [&str; 2] = ["settling", "awaiting_first_sweep"];

/// A task that is rejected after one read of its role comes back for the second one.
const REJECTED: &str = "rejected";

/// How a run that ends has ended.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OnceReport {
    /// Why the run did not finish: the time limit, or what could not be read. Empty if nothing was left to do.
    pub unfinished: Vec<String>,
    /// The work for a person, with the number of tasks or objects, by control plane and reason.
    pub attention: BTreeMap<(Arc<str>, String), usize>,
    /// Written changes of registrations.
    pub changes: BTreeMap<&'static str, u64>,
    /// The registrations at the end, by control plane.
    pub owned: BTreeMap<Arc<str>, OwnedCounts>,
}

/// The work that the run waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum WorkLeft {
    /// The sweep has not ended, or has missed something.
    Sweep,
    /// The parts at which this much is queued, or waits.
    Work(Vec<String>),
    /// ECS does not list tasks that are registered; sweeps decide.
    MissingTasks(usize),
}

impl WorkLeft {
    fn describe(&self) -> Vec<String> {
        match self {
            Self::Sweep => {
                vec!["no sweep of clusters and registrations was complete; the log has the reason".to_owned()]
            }
            Self::Work(parts) => parts.clone(),
            Self::MissingTasks(tasks) => vec![format!(
                "{tasks} registrations are of tasks that ECS does not list; they are removed after cleanup.graceAge: raise \
                 --once-timeout above it"
            )],
        }
    }
}

impl Operator {
    /// Runs until nothing is left to do, for at most `timeout`, or until `stop`. An operator runs once.
    ///
    /// # Errors
    /// [`TaskExited`] when an internal task ended unexpectedly.
    pub async fn run_once(
        self: Arc<Self>,
        manifests: watch::Receiver<Arc<ManifestStatus>>,
        options: RunOptions,
        timeout: Duration,
        stop: CancellationToken,
    ) -> Result<OnceReport, TaskExited> {
        let ended = CancellationToken::new();
        let status = manifests.clone();
        let run = Arc::clone(&self).run(None, manifests, options, ended.clone());
        let watch = async {
            let left = tokio::select! {
                biased;
                () = stop.cancelled() => vec!["stopped by a signal".to_owned()],
                () = ended.cancelled() => Vec::new(),
                left = self.work_until_done(timeout) => left,
            };
            let report = self.once_report(left, &status.borrow());
            ended.cancel();
            report
        };
        let (ran, report) = tokio::join!(run, watch);
        ran.map(|_| report)
    }

    /// Waits until nothing is left. Returns what is left at the time limit.
    async fn work_until_done(&self, timeout: Duration) -> Vec<String> {
        let began = Instant::now();
        let (mut unreadable_since, mut swept_at) = (None, began);
        loop {
            sleep(POLL_INTERVAL).await;
            let Some(left) = self.work_left() else { return Vec::new() };
            let is_over = match &left {
                WorkLeft::Sweep if self.context.sweeps.has_ended() => {
                    unreadable_since.get_or_insert_with(Instant::now).elapsed() >= UNREADABLE_LIMIT
                }
                _ => {
                    unreadable_since = None;
                    false
                }
            };
            if is_over || began.elapsed() >= timeout {
                return left.describe();
            }
            if matches!(left, WorkLeft::MissingTasks(_)) && swept_at.elapsed() >= ABSENCE_RESWEEP {
                swept_at = Instant::now();
                self.context.sweeps.request();
            }
        }
    }

    fn work_left(&self) -> Option<WorkLeft> {
        let workers = self.workers();
        if !self.context.sweeps.is_current() {
            return Some(WorkLeft::Sweep);
        }
        let mut parts: Vec<String> = workers.values().flat_map(|worker| work_at(worker)).collect();
        if !self.context.deployments.is_idle() {
            parts.push("deployments are looked at".to_owned());
        }
        if !parts.is_empty() {
            return Some(WorkLeft::Work(parts));
        }
        let missing: usize = workers.values().map(|worker| self.missing_tasks(worker)).sum();
        (missing > 0).then_some(WorkLeft::MissingTasks(missing))
    }

    /// Registered tasks that complete sweeps do not list, in clusters of the bindings, until that proves their absence.
    fn missing_tasks(&self, worker: &ControlPlaneWorker) -> usize {
        let (now, grace) = (self.context.now(), Duration::MAX);
        let is_missing = |task: &TaskArn| {
            let liveness = self.context.aws.store.snapshot(task, grace, now).liveness;
            matches!(liveness, TaskLiveness::Missing { .. }) && worker.warnings_of(task).is_empty()
        };
        worker.registry.tasks().iter().filter(|task| is_missing(task)).count()
    }

    fn once_report(&self, unfinished: Vec<String>, manifests: &ManifestStatus) -> OnceReport {
        let state = self.status.state();
        let changes = &self.context.metrics().changes;
        let mut report = OnceReport {
            unfinished,
            attention: attention(&state),
            changes: ["create", "update", "drain", "remove"]
                .map(|change| (change, changes.change_count(change)))
                .into(),
            owned: state.control_planes.iter().map(|(name, plane)| (Arc::clone(name), plane.owned)).collect(),
        };
        if !report.unfinished.is_empty() {
            report.unfinished.extend(state.pending.iter().cloned());
        }
        report.unfinished.extend(manifests.errors.iter().map(|error| format!("manifests: {error}")));
        let unsupported = state.control_planes.iter().filter_map(|(name, plane)| {
            Some(format!("nothing was written to control plane {name}: {}", plane.unsupported.as_ref()?))
        });
        report.unfinished.extend(unsupported);
        report
    }
}

/// The work that is queued or waits at one control plane.
fn work_at(worker: &ControlPlaneWorker) -> Vec<String> {
    let name = &worker.name;
    if worker.unsupported().is_some() {
        // Nothing is written to it.
        return Vec::new();
    }
    if worker.circuit_state() != CircuitState::Closed {
        return vec![format!("control plane {name} is not reachable")];
    }
    let stats = worker.queue.stats();
    let mut waiting: BTreeMap<&'static str, usize> = BTreeMap::new();
    for task in worker.queue.delayed() {
        let reasons = worker.warnings_of(&task);
        if !is_held(&reasons) {
            let reason = reasons.into_iter().find(|reason| WAITING.contains(reason));
            *waiting.entry(reason.unwrap_or("another look is due")).or_default() += 1;
        }
    }
    let unqueued = worker.tasks_with_warnings();
    waiting.extend(WAITING_UNQUEUED.iter().filter_map(|reason| Some((*reason, *unqueued.get(reason)?))));
    let mut parts = Vec::new();
    if stats.ready + stats.processing > 0 {
        let tasks = stats.ready + stats.processing;
        parts.push(format!("control plane {name}: {tasks} tasks are in work"));
    }
    parts.extend(
        waiting.iter().map(|(reason, tasks)| format!("control plane {name}: {tasks} tasks wait: {reason}")),
    );
    if !worker.are_objects_settled() {
        parts.push(format!("control plane {name}: its ACL objects or tokens are looked at"));
    }
    parts
}

/// Whether the task waits for a person, so that the run does not wait for the task.
fn is_held(reasons: &[&'static str]) -> bool {
    let by_person =
        |reason: &&str| *reason != REJECTED && !WAITING.contains(reason) && !ACCEPTED.contains(reason);
    reasons.iter().any(by_person)
}

/// The work for a person: tasks with warnings, and objects that are not as declared.
fn attention(state: &OperatorState) -> BTreeMap<(Arc<str>, String), usize> {
    let mut all = BTreeMap::new();
    for (name, plane) in &state.control_planes {
        let mut add = |what: String, count: usize| {
            if count > 0 {
                *all.entry((Arc::clone(name), what)).or_default() += count;
            }
        };
        for (reason, tasks) in &plane.tasks_with_warnings {
            if !ACCEPTED.contains(reason) && !WAITING.contains(reason) {
                add((*reason).to_owned(), *tasks);
            }
        }
        for (kind, states) in plane.acl.iter().flat_map(|acl| &acl.objects) {
            for (state, objects) in states {
                if matches!(*state, "conflict" | "drifted" | "unknown") {
                    add(format!("{kind} {state}"), *objects);
                }
            }
        }
        for (state, tokens) in plane.tokens.iter().flat_map(|tokens| &tokens.tokens) {
            if matches!(*state, "conflict" | "failed") {
                add(format!("token {state}"), *tokens);
            }
        }
    }
    all
}
