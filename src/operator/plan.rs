//! A plan: a dry run that sweeps once, evaluates every task once, and ends.

mod explain;
mod lost_listeners;
mod progress;
mod selection;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use self::lost_listeners::lost_listeners;
use super::control_plane_worker::ControlPlaneWorker;
use super::manifest_applier::ManifestApplier;
use super::task::TaskReconciler;
use super::{DryRunRecorder, Operator, RunOptions, TaskExited, deployments};
use ecs_mesh_api::HumanDuration;
use ecs_mesh_control_plane::UnattributedTokenCount;
use ecs_mesh_controller::{Backoff, Priority, Reconciler, Requeue};
use ecs_mesh_core::plan::report::{
    ManifestsSummary, PlanReport, PlannedUpgrade, UnattributedTokens, Unresolved, UnsupportedControlPlane,
};
use ecs_mesh_manifests::ManifestStatus;
use ecs_mesh_model::TaskArn;

pub use explain::{ExplainedState, KnownRegistrationState, TaskExplanation};
pub use progress::{PlanProgress, PlanProgressCounts};
pub use selection::PlanSelection;

/// Limits and scope of a plan.
#[derive(Clone, Debug)]
pub struct PlanOptions {
    /// Time to retry failed reads before they count as unresolved.
    pub retry_timeout: Duration,
    /// Overall time limit. Facts that are not known then are unresolved.
    pub timeout: Duration,
    /// Concurrent reconciles per control plane.
    pub concurrency: usize,
    /// The tasks of the plan.
    pub selection: PlanSelection,
}

impl Default for PlanOptions {
    fn default() -> Self {
        Self {
            retry_timeout: Duration::from_secs(10),
            timeout: Duration::from_mins(5),
            concurrency: 128,
            selection: PlanSelection::default(),
        }
    }
}

/// Interval at which a plan checks whether it has settled.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Delays between sweeps that failed in part.
const SWEEP_RETRY: Backoff = Backoff { min: Duration::from_secs(1), max: Duration::from_secs(5) };

/// Reconciles tasks of a run or of a plan. A plan evaluates each selected task once, after the sweep.
pub(super) struct OperatorReconciler {
    pub(super) tasks: TaskReconciler,
    pub(super) plan: Option<Arc<PlanProgress>>,
}

#[async_trait]
impl Reconciler<TaskArn> for OperatorReconciler {
    async fn reconcile(&self, task: &TaskArn, cause: Priority) -> Requeue {
        let Some(plan) = &self.plan else { return self.tasks.reconcile(task, cause).await };
        let control_plane = &self.tasks.worker.name;
        if !plan.awaits(control_plane, task) {
            return Requeue::Forget;
        }
        let next = self.tasks.reconcile(task, cause).await;
        match next {
            // The state has changed while it was evaluated.
            Requeue::After(wait) if wait.is_zero() => next,
            Requeue::Backoff | Requeue::DeferUntil(_) if plan.may_retry(control_plane, task) => next,
            _ => {
                plan.record_evaluated(control_plane, task);
                Requeue::Forget
            }
        }
    }
}

impl Operator {
    /// Plans what a run would do now: sweeps once, evaluates every selected task once, and writes nothing.
    ///
    /// `recorder` is the one of [`OperatorDeps::recorder`](super::OperatorDeps::recorder). `progress` shows how far the
    /// plan is. An operator plans once.
    ///
    /// # Errors
    /// [`TaskExited`] when an internal task ended unexpectedly.
    pub async fn plan(
        self: Arc<Self>,
        recorder: &DryRunRecorder,
        manifests: watch::Receiver<Arc<ManifestStatus>>,
        options: PlanOptions,
        progress: &Arc<PlanProgress>,
    ) -> Result<PlanReport, TaskExited> {
        let stop = CancellationToken::new();
        let status = Arc::clone(&manifests.borrow());
        // With errors in it, so that no time passes for what settles: a plan is what a run does that starts now.
        self.context.manifests.record(Arc::clone(&status.set), false, self.context.now());
        // However long the plan takes, no answer of it gets too old for it.
        self.context.aws.roles.keep_readings();
        progress.limit_retries(options.retry_timeout);
        let applier = ManifestApplier {
            context: Arc::clone(&self.context),
            connect: Arc::clone(&self.connect),
            options: RunOptions {
                concurrency: options.concurrency,
                // A dry run has no write to finish.
                graceful_shutdown_timeout: Duration::ZERO,
                ..RunOptions::default()
            },
            plan: Some(Arc::clone(progress)),
        };
        let mut internal = JoinSet::new();
        internal.spawn(applier.run(manifests, stop.child_token()));
        let mut looks = JoinSet::new();
        looks.spawn(deployments::run(Arc::clone(&self.context), stop.child_token()));
        let mut upgrades = Vec::new();
        let planned = async {
            self.plan_all(recorder, &options, progress).await;
            upgrades = self.check_upgrades(recorder).await;
        };
        let timed_out = tokio::select! {
            biased;
            _ = internal.join_next() => return Err(TaskExited),
            _ = looks.join_next() => return Err(TaskExited),
            planned = tokio::time::timeout(options.timeout, planned) => {
                planned.is_err()
            }
        };
        let (mut unresolved, mut warnings, mut changes) = recorder.snapshot();
        if timed_out {
            unresolved.extend(self.missing(&options, progress));
        }
        stop.cancel();
        while internal.join_next().await.is_some() {}
        while looks.join_next().await.is_some() {}
        if !options.selection.is_all() {
            changes.retain(|entry| entry.task.is_some());
            warnings.retain(|warning| !warning.task.is_empty());
        }
        let manifests = ManifestsSummary {
            files: status.files,
            errors: status.errors.iter().map(ToString::to_string).collect(),
            warnings: status.warnings.iter().map(ToString::to_string).collect(),
        };
        let at = self.context.wall();
        let mut report =
            PlanReport::new(self.context.process.id.as_str(), at, manifests, unresolved, warnings, changes);
        report = report.with_unsupported(self.unsupported_control_planes());
        report.upgrades = upgrades;
        if options.selection.is_all() {
            report.unattributed_tokens = self.unattributed_tokens();
        }
        Ok(report)
    }

    /// Sweeps, until nothing fails or `retry_timeout` is over, and then evaluates.
    async fn plan_all(&self, recorder: &DryRunRecorder, options: &PlanOptions, progress: &Arc<PlanProgress>) {
        let began = Instant::now();
        // The workers of the manifests exist.
        self.context.sweeps.requested().await;
        let heartbeat = self.context.metrics().health().register("sweep");
        let mut lists = JoinSet::new();
        let is_retried = || began.elapsed() >= options.retry_timeout;
        'sweeps: loop {
            let mut delays = SWEEP_RETRY.start(self.context.process.seed);
            let is_complete = loop {
                let swept = Arc::clone(&self.sweeper).sweep(&mut lists, &heartbeat).await;
                // ACL objects may show auth methods whose tokens the sweep did not list.
                while !self.workers().values().all(|worker| worker.are_objects_settled()) && !is_retried() {
                    sleep(POLL_INTERVAL).await;
                }
                if swept && self.context.sweeps.is_current() {
                    break true;
                }
                if is_retried() && recorder.has_unresolved() {
                    break false;
                }
                sleep(delays.after_failure()).await;
            };
            self.enqueue_selected(options, progress);
            loop {
                if is_complete && !self.context.sweeps.is_current() {
                    continue 'sweeps;
                }
                let idle = self.workers().values().all(|worker| {
                    let stats = worker.queue.stats();
                    stats.ready == 0 && stats.processing == 0 && worker.are_objects_settled()
                });
                let idle = idle && self.context.deployments.is_idle();
                if idle && progress.is_settled() && (is_retried() || !recorder.has_unresolved()) {
                    return;
                }
                sleep(POLL_INTERVAL).await;
            }
        }
    }

    /// Puts every selected task into the queues. Nothing that was enqueued before is evaluated: its facts were incomplete.
    fn enqueue_selected(&self, options: &PlanOptions, progress: &PlanProgress) {
        let known = self.context.aws.store.all();
        for worker in self.workers().values() {
            let mut tasks: Vec<TaskArn> = known.iter().cloned().chain(worker.registry.tasks()).collect();
            tasks.sort_unstable();
            tasks.dedup();
            tasks.retain(|task| self.selects(&options.selection, worker, task));
            progress.expect(&worker.name, &tasks);
            tasks.into_iter().for_each(|task| worker.queue.add(task, Priority::Sweep));
        }
        progress.record_swept();
    }

    /// Whether the plan is about the task, by what the sweep found.
    fn selects(&self, selection: &PlanSelection, worker: &ControlPlaneWorker, task: &TaskArn) -> bool {
        if selection.is_all() {
            return true;
        }
        let known = self.context.aws.store.snapshot(task, Duration::MAX, self.context.now()).task;
        let registered = worker.registry.entries(task).into_iter().filter_map(|entry| entry.service);
        let registered: Vec<Arc<str>> = registered.collect();
        selection.matches(task, known.as_ref(), &registered, &self.context.manifests.load())
    }

    /// The tasks that were not evaluated when the time is over: all of them if the sweep did not end.
    fn missing(&self, options: &PlanOptions, progress: &PlanProgress) -> Vec<Unresolved> {
        let help = "raise --timeout, narrow the plan by --cluster, --service or --task, or check for a slow AWS or \
                    control-plane endpoint";
        let limit = HumanDuration(options.timeout);
        if !progress.is_swept() {
            let error = format!("not listed completely within {limit}; {help}");
            return vec![Unresolved { subject: "clusters and registrations".to_owned(), error }];
        }
        let service_of = |task: &TaskArn| {
            let known = self.context.aws.store.snapshot(task, Duration::MAX, self.context.now()).task;
            known.and_then(|known| known.group.service().map(str::to_owned))
        };
        let mut missing = progress.missing(service_of);
        for missing in &mut missing {
            missing.error = format!("not evaluated within {limit}: {}", missing.error);
        }
        if let Some(last) = missing.last_mut() {
            last.error = format!("{}; {help}", last.error);
        }
        missing
    }

    /// Reads what blocks the upgrades that the clients plan.
    async fn check_upgrades(&self, recorder: &DryRunRecorder) -> Vec<PlannedUpgrade> {
        let mut upgrades = Vec::new();
        for worker in self.workers().values() {
            // The plan renders those of the operator alone.
            let checked = |task: &TaskArn| Some(worker.dataplanes.get(task)?.id);
            let unmanaged = worker.registry.tasks().iter().filter_map(checked).collect();
            match worker.client.check_upgrade(Some(&unmanaged)).await {
                Ok(Some(mut check)) => {
                    let lost = lost_listeners(&self.context.manifests.load(), worker, &check.target_version);
                    check.blockers.extend(lost);
                    upgrades.push(PlannedUpgrade { control_plane: Arc::clone(&worker.name), check });
                }
                Ok(None) => {}
                Err(error) => recorder.record_unresolved(
                    format!("what blocks the upgrade of control plane {}", worker.name),
                    error.to_string(),
                ),
            }
        }
        upgrades
    }

    /// The control planes that are not supported, as of the last answers.
    fn unsupported_control_planes(&self) -> Vec<UnsupportedControlPlane> {
        let workers = self.workers();
        let unsupported = workers.values().filter_map(|worker| {
            let reason = worker.unsupported()?.to_string();
            Some(UnsupportedControlPlane { control_plane: Arc::clone(&worker.name), reason })
        });
        unsupported.collect()
    }

    /// Login tokens that name no task, as of the last lists.
    fn unattributed_tokens(&self) -> Vec<UnattributedTokens> {
        let workers = self.workers();
        let of_control_plane = workers.values().flat_map(|worker| {
            let unattributed = worker.client.unattributed_tokens();
            unattributed.into_iter().map(|UnattributedTokenCount { reason, count, examples }| {
                UnattributedTokens {
                    control_plane: Arc::clone(&worker.name),
                    reason,
                    count,
                    examples: examples.iter().map(ToString::to_string).collect(),
                }
            })
        });
        of_control_plane.collect()
    }
}
