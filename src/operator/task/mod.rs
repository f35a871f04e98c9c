//! One run for one task at one control plane: gather what is known, judge, decide, do.

mod preview;
mod pending_event;
mod evaluate;
mod requeue;
mod execute;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use self::pending_event::PendingEvent;
use super::Operator;
use super::control_plane_worker::ControlPlaneWorker;
use super::registry::RegistryEntry;
use super::report::{TaskReporter, ReportSubject};
use ecs_mesh_api::manifests::ManifestSet;
use ecs_mesh_aws::task_describer::DescribeOutcome;
use ecs_mesh_aws::store::TaskSnapshot;
use ecs_mesh_control_plane::FailedSegment;
use ecs_mesh_control_plane::CallError;
use ecs_mesh_controller::Requeue;
use ecs_mesh_core::intent::{Evaluation, owning_binding};
use ecs_mesh_core::plan::report::Change;
use ecs_mesh_core::plan::{Decision, KnownRegistration, TaskLiveness, decide};
use ecs_mesh_model::{TaskArn, Reason};

/// How long to wait for the event that brings a new task's address before asking for it.
const ADDRESS_TIMEOUT: Duration = Duration::from_secs(10);

/// How long to wait before looking again at a name that somebody else holds.
const NAME_CONFLICT_RETRY: Duration = Duration::from_mins(1);

/// How long to wait for the first list of what is registered, which brings all tasks back by itself.
const FIRST_SYNC_WAIT: Duration = Duration::from_secs(10);

/// A run in progress.
pub(super) struct TaskRun<'a> {
    pub operator: &'a Operator,
    pub worker: &'a ControlPlaneWorker,
    pub task: &'a TaskArn,
    pub manifests: Arc<ManifestSet>,
    pub reporter: TaskReporter<'a>,
    event: PendingEvent<'a>,
    /// Why a part of what the task may have made could not be looked for.
    lookup_error: Mutex<Option<CallError>>,
}

impl TaskRun<'_> {
    /// Brings the task's registrations to what they should be, as far as that is possible now.
    pub(super) async fn reconcile(&self) -> Requeue {
        let _at_work = self.worker.begin_run();
        if !self.worker.is_synced() {
            return Requeue::After(FIRST_SYNC_WAIT);
        }
        let heard_at = self.event.since();
        let mut next = self.attempt().await;
        let lookup_error = self.lookup_error.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(halt) = &lookup_error {
            // What was found is worked on, which answers the event; the rest is sought again.
            heard_at.into_iter().for_each(|at| self.worker.record_event(self.task, at));
            if !matches!(next, Requeue::Backoff | Requeue::DeferUntil(_)) {
                next = halt.requeue();
            }
        }
        self.reporter.finish();
        // An event that led to nothing is answered; one that still may is not.
        if lookup_error.is_none() && !matches!(next, Requeue::Backoff | Requeue::DeferUntil(_)) {
            self.event.acknowledge();
        }
        next
    }

    async fn attempt(&self) -> Requeue {
        let mut searched = false;
        // Each describe may change the picture; two looks are enough, and the third proves that waiting is due.
        for _ in 0..3 {
            self.reporter.start_attempt();
            let mut known = self.known_registrations();
            let snapshot =
                self.operator.store.snapshot(self.task, Self::grace(&known), self.operator.clock.now());
            let unsearched = !searched && self.worker.is_unsearched(self.task);
            if unsearched && snapshot.liveness == TaskLiveness::Stopped {
                if let Err(halt) = self.search().await {
                    return self.requeue_after_error(&halt);
                }
                searched = true;
                known = self.known_registrations();
            }
            let may_have_more = unsearched && snapshot.liveness == TaskLiveness::StoppedUnconfirmed;
            let may_run = snapshot.liveness == TaskLiveness::Live && !snapshot.is_lost();
            if known.is_empty() && !may_run && !may_have_more {
                self.worker.clear_warnings(self.task);
                return Requeue::Forget;
            }
            let judgement = match (&snapshot.liveness, &snapshot.task) {
                (TaskLiveness::Live, Some(task)) => Some(self.evaluate(task, !known.is_empty()).await),
                _ => None,
            };
            // Judging may have waited for AWS, and another describe may have shown meanwhile that the task has stopped:
            // the event of that is stale then, and nothing else would bring the task back.
            if judgement.is_some() && self.life(&known) != snapshot.liveness {
                continue;
            }
            // The tags that this may have learned tell which binding takes care of what is there.
            let known = if judgement.is_some() { self.known_registrations() } else { known };
            let decision = self.decide(&snapshot, &known, judgement.as_ref());
            let next = match self.carry_out(&decision, &known).await {
                Ok(ExecuteOutcome::Settled(next)) => next,
                Ok(ExecuteOutcome::Reevaluate) => continue,
                Err(halt) => return self.requeue_after_error(&halt),
            };
            if decision.describe {
                match self.operator.describer.describe(self.task, Self::grace(&known)).await {
                    Ok(DescribeOutcome::Found | DescribeOutcome::Missing) => continue,
                    Ok(DescribeOutcome::Failed(why)) => {
                        self.reporter.warn("describe_failed", &Reason::constant(why));
                        return Requeue::Backoff;
                    }
                    Err(why) => {
                        self.reporter.warn("describe_failed", &why);
                        return Requeue::Backoff;
                    }
                }
            }
            if self.operator.is_dry_run() {
                if let Err(halt) = self.preview_confirmed(&snapshot, &known, judgement.as_ref()).await {
                    return self.requeue_after_error(&halt);
                }
                let next = self.requeue(&snapshot, judgement.as_ref(), &decision, Requeue::Forget).await;
                self.record_unchanged(&snapshot, &known);
                return next;
            }
            return self.requeue(&snapshot, judgement.as_ref(), &decision, next).await;
        }
        self.reporter.record_no_change("ECS contradicts its own event of the task", Change::Unknown);
        // ECS still says otherwise than what an event said: it is eventually consistent.
        Requeue::Backoff
    }

    fn life(&self, known: &[KnownRegistration]) -> TaskLiveness {
        let now = self.operator.clock.now();
        self.operator.store.snapshot(self.task, Self::grace(known), now).liveness
    }

    /// Finds what the task has registered itself. It has stopped, so nothing is added any more.
    async fn search(&self) -> Result<(), CallError> {
        let requested = self.operator.clock.now();
        let found = self.worker.call(self.worker.client.list_for_task(self.task)).await?;
        let now = self.operator.clock.now();
        self.worker.registry.replace_task(self.task, &found.seen, &found.failed, requested, now);
        if found.failed.is_empty() {
            self.worker.record_search(self.task);
        }
        if let Some(FailedSegment { error, .. }) = found.failed.first() {
            self.operator.metrics.record_warning(error.kind.label());
            self.worker.warn_failed_segments(&found.failed);
            *self.lookup_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(CallError::Failed(error.clone()));
        }
        for known in self.known_registrations() {
            let binding = known.binding.as_ref().map(|binding| &binding.name);
            self.worker.registry.assign_binding(self.task, &known.id, binding);
        }
        Ok(())
    }

    fn known_registrations(&self) -> Vec<KnownRegistration> {
        let entries = self.worker.registry.entries(self.task);
        let snapshot = self.operator.store.snapshot(self.task, Duration::MAX, self.operator.clock.now());
        let place = |entry: RegistryEntry| {
            let (cp, cluster) = (&self.worker.name, self.task.cluster());
            let owning_binding = owning_binding(&self.manifests, cp, &entry.id.mesh, cluster, snapshot.task.as_ref());
            KnownRegistration { id: entry.id, drained: entry.drained, binding: owning_binding }
        };
        entries.into_iter().map(place).collect()
    }

    /// The longest grace age of those who take care of the registrations.
    fn grace(known: &[KnownRegistration]) -> Duration {
        let ages = known.iter().filter_map(|k| Some(k.binding.as_ref()?.spec.cleanup.grace_age.0));
        ages.max().unwrap_or(Duration::from_mins(5))
    }

    fn decide(&self, snapshot: &TaskSnapshot, known: &[KnownRegistration], judgement: Option<&Evaluation>) -> Decision {
        decide(&self.situation(snapshot, known, judgement))
    }
}

/// How a run's steps went.
enum ExecuteOutcome {
    Settled(Requeue),
    Reevaluate,
}

fn earlier(next: Requeue, wait: Duration) -> Requeue {
    match next {
        Requeue::After(earlier) => Requeue::After(earlier.min(wait)),
        Requeue::Forget => Requeue::After(wait),
        other => other,
    }
}

impl<'a> TaskRun<'a> {
    /// A run for this task.
    pub(super) fn new(operator: &'a Operator, worker: &'a ControlPlaneWorker, task: &'a TaskArn) -> Self {
        let subject = ReportSubject { operator, worker, task };
        let (set, report) = (operator.manifests(), TaskReporter::new(subject));
        let heard = PendingEvent::take(worker, task);
        Self { operator, worker, task, manifests: set, reporter: report, event: heard, lookup_error: Mutex::default() }
    }
}
