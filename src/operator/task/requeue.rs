//! What a run says at its end of the verdict or of what stopped it, and when the task is looked at again.

use std::time::Duration;

use super::{ADDRESS_TIMEOUT, TaskRun, earlier};
use ecs_mesh_aws::role_tag_cache::ROLE_CONFIRM_INTERVAL;
use ecs_mesh_aws::store::TaskSnapshot;
use ecs_mesh_control_plane::CallError;
use ecs_mesh_controller::Requeue;
use ecs_mesh_core::intent::{HoldReason, Evaluation, Verdict};
use ecs_mesh_core::plan::Decision;
use ecs_mesh_core::plan::report::Change;

impl TaskRun<'_> {
    pub(super) fn requeue_after_error(&self, halt: &CallError) -> Requeue {
        if let CallError::Failed(error) = halt {
            if error.kind.affects_one_registration() || self.operator.is_dry_run() {
                self.reporter.rejected_by_server(error);
            } else {
                self.operator.metrics.record_warning(error.kind.label());
                self.worker.warn_once(error);
            }
        } else {
            self.reporter.record_no_change("the control plane cannot be reached", Change::Unknown);
        }
        halt.requeue()
    }

    /// Says what the verdict means for a person, and when to look again.
    pub(super) async fn requeue(
        &self,
        snapshot: &TaskSnapshot,
        judgement: Option<&Evaluation>,
        decision: &Decision,
        next: Requeue,
    ) -> Requeue {
        let Some(judgement) = judgement else {
            // With the last of what it had goes what was said of it.
            if !self.operator.is_dry_run() && self.worker.registry.entries(self.task).is_empty() {
                self.worker.clear_warnings(self.task);
            }
            return next;
        };
        if !judgement.warnings.is_empty() {
            self.reporter.warnings(&judgement.warnings);
        }
        match &judgement.verdict {
            Verdict::Register(_) | Verdict::Admit => {
                if judgement.warnings.is_empty() && next == Requeue::Forget {
                    self.worker.clear_warnings(self.task);
                }
                next
            }
            Verdict::Reject { violations, .. } => {
                self.reporter.rejected(violations);
                if decision.recheck_role { earlier(next, ROLE_CONFIRM_INTERVAL) } else { next }
            }
            Verdict::Hold(reason @ HoldReason::AddressPending) => {
                let next = self.wait_for_address(snapshot).await;
                self.reporter.record_no_change(&format!("{reason}; registered when it is"), Change::Hold);
                next
            }
            Verdict::Hold(reason @ HoldReason::Unknown(_)) => {
                self.reporter.held(reason);
                Requeue::Backoff
            }
            Verdict::Hold(reason) => {
                self.reporter.held(reason);
                next
            }
            Verdict::Ignore(reason) => {
                self.reporter.ignored(reason);
                next
            }
            Verdict::NeedsFact(_) => next,
        }
    }

    /// The address comes with the next event; should that get lost, it is asked for.
    async fn wait_for_address(&self, snapshot: &TaskSnapshot) -> Requeue {
        let now = self.operator.clock.now();
        let last_warnings = snapshot.task.as_ref().and_then(|task| task.updated_at.or(task.created_at));
        if last_warnings.is_none_or(|at| at.age_at(now) >= ADDRESS_TIMEOUT) {
            if let Err(why) = self.operator.describer.describe(self.task, Duration::MAX).await {
                self.reporter.warn("describe_failed", &why);
                return Requeue::Backoff;
            }
            let found = self.operator.store.snapshot(self.task, Duration::MAX, now).task;
            if found.is_some_and(|task| task.address.is_some()) {
                return Requeue::After(Duration::ZERO);
            }
        }
        Requeue::After(ADDRESS_TIMEOUT)
    }
}
