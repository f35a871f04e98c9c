//! Carries out what was decided, step by step, as far as pause, guard and lease let it.

use super::super::apply::{RegistrationWriter, ApplyOutcome};
use super::super::report::OwnerInfo;
use super::{ExecuteOutcome, TaskRun, NAME_CONFLICT_RETRY, earlier};
use ecs_mesh_aws::role_tag_cache::ROLE_CONFIRM_INTERVAL;
use ecs_mesh_control_plane::CallError;
use ecs_mesh_control_plane::{MeshError, MeshErrorKind, RegistrationOwner};
use ecs_mesh_controller::Requeue;
use ecs_mesh_core::intent::OwnershipLabels;
use ecs_mesh_core::plan::{Action, GuardDecision, Decision, KnownRegistration, PlanStep};
use ecs_mesh_model::Reason;

impl TaskRun<'_> {
    pub(super) async fn carry_out(&self, decision: &Decision, known: &[KnownRegistration]) -> Result<ExecuteOutcome, CallError> {
        if self.verify_unacknowledged(decision).await? {
            return Ok(ExecuteOutcome::Reevaluate);
        }
        let mut next = decision.requeue_after.map_or(Requeue::Forget, Requeue::After);
        let mut refused = None;
        for step in &decision.steps {
            let paused = step.binding.spec.paused;
            // A dry run looks what it would come to: it writes nothing anyway.
            if paused && !self.operator.is_dry_run() {
                self.reporter.paused(step);
                continue;
            }
            if step.needs_guard() && !paused && !self.guard_admits(step) {
                next = Requeue::Forget;
                continue;
            }
            if !decision.is_withdrawing() {
                self.worker.with_guard(&step.binding.name, |guard| guard.release(self.task));
            }
            // Asked before: after a removal nothing may come between it and its line of the audit log.
            let whose = self.owner_info(step).await;
            match self.execute_step(step, known).await? {
                // The picture has changed under our hands.
                ApplyOutcome::Vanished if matches!(step.action, Action::Ensure { .. }) => {
                    return Ok(ExecuteOutcome::Reevaluate);
                }
                ApplyOutcome::Unconfirmed => return Ok(ExecuteOutcome::Reevaluate),
                ApplyOutcome::NameConflict(owner) => {
                    self.reporter.name_conflict(step, &owner);
                    let wait = if matches!(owner, RegistrationOwner::Owned(_)) { ROLE_CONFIRM_INTERVAL } else { NAME_CONFLICT_RETRY };
                    next = earlier(next, wait);
                }
                ApplyOutcome::NoLease => {
                    let why = Reason::constant("another copy of this operator holds the lease");
                    self.reporter.warn("not_leader", &why);
                    next = earlier(next, ROLE_CONFIRM_INTERVAL);
                }
                ApplyOutcome::RemovalFailed(error) => {
                    // One failure a task tells enough.
                    if refused.is_none() {
                        self.reporter.removal_failed(step, &whose, &error);
                    }
                    self.operator.metrics.record_warning("removal_failed");
                    // What our token may not remove, or the servers do not, keeps nothing else.
                    let is_of_this_one = matches!(
                        error.kind,
                        MeshErrorKind::Forbidden | MeshErrorKind::Invalid | MeshErrorKind::ServerError
                    );
                    if !is_of_this_one {
                        return Err(CallError::Failed(error));
                    }
                    // One that may be over later decides when the task is looked at again.
                    if refused.as_ref().is_none_or(|first: &MeshError| first.kind == MeshErrorKind::Invalid) {
                        refused = Some(error);
                    }
                }
                outcome => {
                    if outcome.is_gone() && refused.is_none() {
                        self.worker.clear_warning(self.task, "removal_failed");
                    }
                    self.note(step, &outcome);
                    self.reporter.outcome(step, &whose, &outcome);
                }
            }
        }
        refused.map_or(Ok(ExecuteOutcome::Settled(next)), |error| Err(CallError::Failed(error)))
    }

    /// Asked before a step, since a removal forgets it. Only for a removal is ECS asked.
    async fn owner_info(&self, step: &PlanStep) -> OwnerInfo {
        let entry = self.worker.registry.entries(self.task).into_iter().find(|entry| entry.id == step.id);
        let removes = matches!(step.action, Action::Remove(_)) && !self.operator.is_dry_run();
        let asks = removes && self.worker.kind.tasks_register_themselves();
        OwnerInfo {
            service: entry.and_then(|entry| entry.service),
            role: self.operator.role_of(self.task, asks).await,
        }
    }

    /// Looks after removals that were sent, whose answer was lost, and that are not due any more: there may have been
    /// one. Whether there was.
    async fn verify_unacknowledged(&self, decision: &Decision) -> Result<bool, CallError> {
        let mut found_gone = false;
        for step in self.worker.registry.entries(self.task).into_iter().filter_map(|entry| entry.unacknowledged) {
            let is_due = |due: &PlanStep| due.id == step.id && matches!(due.action, Action::Remove(_));
            if decision.steps.iter().any(is_due) {
                continue;
            }
            let whose = self.owner_info(&step).await;
            let outcome = self.writer().verify_removal(&step.id).await?;
            if outcome == ApplyOutcome::RemovalConfirmedLate {
                self.worker.clear_warning(self.task, "removal_failed");
                self.note(&step, &outcome);
                self.reporter.outcome(&step, &whose, &outcome);
                found_gone = true;
            }
        }
        Ok(found_gone)
    }

    async fn execute_step(&self, step: &PlanStep, known: &[KnownRegistration]) -> Result<ApplyOutcome, CallError> {
        let apply = self.writer();
        match &step.action {
            Action::Ensure { desired, may_update } => {
                let registered = known.iter().any(|known| known.id == step.id);
                apply.ensure(desired, registered, *may_update).await
            }
            Action::Drain(reason, _) => apply.drain(&step.id, *reason).await,
            Action::Remove(_) => apply.remove(step, Self::grace(known)).await,
            Action::Skip { .. } => {
                self.reporter.skipped_by_policy(step);
                Ok(ApplyOutcome::Equal)
            }
        }
    }

    fn writer(&self) -> RegistrationWriter<'_> {
        RegistrationWriter {
            worker: self.worker,
            lease: self.operator.lease.as_ref(),
            dry: self.operator.is_dry_run(),
            owner: OwnershipLabels::of(&self.operator.id, self.task),
            task: self.task,
            clock: &self.operator.clock,
            store: &self.operator.store,
            describer: &self.operator.describer,
        }
    }

    fn guard_admits(&self, step: &PlanStep) -> bool {
        if self.operator.first_full_sweep(self.task.cluster()).is_none() {
            // How many are owned is not known before; the sweep brings the task back.
            let words = "no withdrawal before a sweep has seen the task's cluster whole: without it the guard does not \
                         know how many there are";
            self.reporter.warn("awaiting_first_sweep", &Reason::constant(words));
            return false;
        }
        let now = self.operator.clock.now();
        let policy = &step.binding.spec.cleanup.guard;
        let released = step.binding.guard_released_until.is_some_and(|until| now < until);
        let owned = self.worker.registry.owned_by(&step.binding.name);
        let admission = self
            .worker
            .with_guard(&step.binding.name, |guard| guard.admit(self.task, owned, policy, released, now));
        match admission {
            GuardDecision::Admitted => true,
            GuardDecision::Held { admitted, owned } => {
                self.reporter.held_by_guard(step, admitted, owned);
                false
            }
        }
    }

    fn note(&self, step: &PlanStep, outcome: &ApplyOutcome) {
        if self.operator.is_dry_run() {
            return;
        }
        // One that was created and whose answer got lost shows only now.
        self.worker.record_owned_count(&step.binding, self.operator.clock.now());
        if outcome.is_gone() && step.needs_guard() && matches!(step.action, Action::Remove(_)) {
            let now = self.operator.clock.now();
            self.worker.with_guard(&step.binding.name, |guard| guard.record_completed(self.task, now));
        }
        let did_something = matches!(
            outcome,
            ApplyOutcome::Created(_)
                | ApplyOutcome::Updated(_)
                | ApplyOutcome::Drained
                | ApplyOutcome::Removed
                | ApplyOutcome::RemovalConfirmedLate
        );
        if let Some(heard) = self.event.acknowledge()
            && did_something
        {
            self.operator.metrics.record_event_to_write(heard.elapsed());
        }
    }
}
