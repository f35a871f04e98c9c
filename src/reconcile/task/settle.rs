//! What a run says at its end of the verdict or of what stopped it, and when the task is looked at again.

use std::time::Duration;

use super::{ADDRESS_WAIT, Run, sooner};
use ecs_mesh_aws::roles::APART;
use ecs_mesh_aws::store::Snapshot;
use ecs_mesh_control_plane::Halt;
use ecs_mesh_controller::Next;
use ecs_mesh_core::intent::{HoldReason, Judgement, Verdict};
use ecs_mesh_core::plan::Decision;
use ecs_mesh_core::plan::proposal::Change;

impl Run<'_> {
    pub(super) fn halted(&self, halt: &Halt) -> Next {
        if let Halt::Failed(error) = halt {
            if error.kind.is_of_one_body() || self.operator.is_dry() {
                self.report.refused(error);
            } else {
                self.operator.metrics.held(error.kind.label());
                self.plane.tell(error);
            }
        } else {
            self.report.quiet("the control plane cannot be reached", Change::Unknown);
        }
        halt.next()
    }

    /// Says what the verdict means for a person, and when to look again.
    pub(super) async fn settle(
        &self,
        snapshot: &Snapshot,
        judgement: Option<&Judgement>,
        decision: &Decision,
        next: Next,
    ) -> Next {
        let Some(judgement) = judgement else {
            // With the last of what it had goes what was said of it.
            if !self.operator.is_dry() && self.plane.registry.of(self.task).is_empty() {
                self.plane.all_said(self.task);
            }
            return next;
        };
        if !judgement.warnings.is_empty() {
            self.report.warnings(&judgement.warnings);
        }
        match &judgement.verdict {
            Verdict::Register(_) | Verdict::Admit => {
                if judgement.warnings.is_empty() && next == Next::Forget {
                    self.plane.all_said(self.task);
                }
                next
            }
            Verdict::Reject { violations, .. } => {
                self.report.rejected(violations);
                if decision.reread_role { sooner(next, APART) } else { next }
            }
            Verdict::Hold(reason @ HoldReason::AddressPending) => {
                let next = self.wait_for_address(snapshot).await;
                self.report.quiet(&format!("{reason}; registered when it is"), Change::Hold);
                next
            }
            Verdict::Hold(reason @ HoldReason::Unknown(_)) => {
                self.report.held(reason);
                Next::Backoff
            }
            Verdict::Hold(reason) => {
                self.report.held(reason);
                next
            }
            Verdict::Ignore(reason) => {
                self.report.ignored(reason);
                next
            }
            Verdict::Need(_) => next,
        }
    }

    /// The address comes with the next event; should that get lost, it is asked for.
    async fn wait_for_address(&self, snapshot: &Snapshot) -> Next {
        let now = self.operator.clock.now();
        let said = snapshot.task.as_ref().and_then(|task| task.updated_at.or(task.created_at));
        if said.is_none_or(|at| at.age_at(now) >= ADDRESS_WAIT) {
            if let Err(why) = self.operator.describer.describe(self.task, Duration::MAX).await {
                self.report.trouble("describe", &why);
                return Next::Backoff;
            }
            let found = self.operator.store.snapshot(self.task, Duration::MAX, now).task;
            if found.is_some_and(|task| task.address.is_some()) {
                return Next::After(Duration::ZERO);
            }
        }
        Next::After(ADDRESS_WAIT)
    }
}
