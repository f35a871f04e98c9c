//! Executes a decision step by step, as far as pause, guard and lease permit.

use std::time::Duration;

use super::super::apply::{ApplyOutcome, RegistrationWriter};
use super::super::recorder::OwnerInfo;
use super::drain::{DueDrain, HELD_DRAIN_RECHECK, Replacements};
use super::{ExecuteOutcome, NAME_CONFLICT_RETRY, TaskRun, earlier, grace_age};
use ecs_mesh_aws::role_tag_cache::ROLE_CONFIRM_INTERVAL;
use ecs_mesh_control_plane::{CallError, MeshError, MeshErrorKind, RegistrationOwner};
use ecs_mesh_controller::Requeue;
use ecs_mesh_core::intent::{DesiredRegistration, OwnershipLabels};
use ecs_mesh_core::plan::{Action, Decision, GuardDecision, KnownRegistration, PlanStep, RemovalRequest};
use ecs_mesh_model::Reason;

/// Shortest wait before the guard is asked again for what the manifests ask for.
const STABLE_RECHECK: Duration = Duration::from_secs(10);

impl TaskRun<'_> {
    pub(super) async fn execute(
        &self,
        decision: &Decision,
        known: &[KnownRegistration],
    ) -> Result<ExecuteOutcome, CallError> {
        if self.verify_unacknowledged(decision).await? {
            return Ok(ExecuteOutcome::Reevaluate);
        }
        self.release_drains(decision, known);
        self.release_guards(decision);
        let mut next = decision.requeue_after.map_or(Requeue::Forget, Requeue::After);
        if let Some(wait) = self.handle_for_owners(&decision.owner_steps).await? {
            next = earlier(next, wait);
        }
        let mut refused = None;
        for step in &decision.steps {
            if self.awaits_other_sidecar(step) {
                next = earlier(next, ROLE_CONFIRM_INTERVAL);
                continue;
            }
            let paused = step.binding.spec.paused;
            if paused && !self.recorder.paused(step) {
                continue;
            }
            if step.needs_guard()
                && !paused
                && let Err(again) = self.guard_admits(step)
            {
                next = again.map_or(next, |wait| earlier(next, wait));
                continue;
            }
            // After the guard: what it stops does not wait for replacements.
            let mut basis = None;
            if let Action::Drain(reason, evidence) = &step.action
                && !paused
            {
                match self.drain_permit(step, *reason, evidence).await {
                    DueDrain::Now(replacements) => basis = replacements,
                    DueDrain::Held { ready, needed, before } => {
                        self.recorder.drain_held(step, ready, needed, before);
                        next = earlier(next, HELD_DRAIN_RECHECK);
                        continue;
                    }
                }
            }
            // Read first: no await may separate a removal from its line of the audit log.
            let owner = self.owner_info(step).await;
            match self.execute_step(step, known, basis.as_ref()).await? {
                // Deleted concurrently: re-evaluate.
                ApplyOutcome::Vanished if matches!(step.action, Action::Ensure { .. }) => {
                    return Ok(ExecuteOutcome::Reevaluate);
                }
                ApplyOutcome::Unconfirmed => return Ok(ExecuteOutcome::Reevaluate),
                ApplyOutcome::NameConflict(conflicting) => {
                    self.recorder.name_conflict(step, &conflicting);
                    let by_operator = matches!(conflicting, RegistrationOwner::Owned(_));
                    next =
                        earlier(next, if by_operator { ROLE_CONFIRM_INTERVAL } else { NAME_CONFLICT_RETRY });
                }
                ApplyOutcome::Obstructed(obstacle) => {
                    self.recorder.obstructed(step, obstacle);
                    next = earlier(next, ROLE_CONFIRM_INTERVAL);
                }
                ApplyOutcome::RemovalFailed(error) => {
                    if refused.is_none() {
                        self.recorder.removal_failed(step, &owner, &error);
                    }
                    self.context.metrics().record_warning("removal_failed");
                    // A removal that is not permitted, or that the server fails, does not block the others.
                    let affects_one = matches!(
                        error.kind,
                        MeshErrorKind::Forbidden | MeshErrorKind::Invalid | MeshErrorKind::ServerError
                    );
                    if !affects_one {
                        return Err(CallError::Failed(error));
                    }
                    // A failure that may be temporary decides when to retry.
                    if refused.as_ref().is_none_or(|first: &MeshError| first.kind == MeshErrorKind::Invalid) {
                        refused = Some(error);
                    }
                }
                outcome => {
                    if outcome.is_gone() && refused.is_none() {
                        self.worker.clear_warning(self.task, "removal_failed");
                    }
                    self.record_effect(step, &outcome);
                    self.recorder.outcome(step, &owner, &outcome);
                }
            }
        }
        refused.map_or(Ok(ExecuteOutcome::Settled(next)), |error| Err(CallError::Failed(error)))
    }

    /// Releases the holds of registrations that are not to be drained any more.
    fn release_drains(&self, decision: &Decision, known: &[KnownRegistration]) {
        let drains = |step: &PlanStep| matches!(step.action, Action::Drain(..)) && !step.binding.spec.paused;
        for KnownRegistration { id, .. } in known {
            if !decision.steps.iter().any(|step| step.id == *id && drains(step)) {
                self.worker.drains.release(id);
            }
        }
    }

    /// Ends the guard's admissions of a task that loses nothing any more, also where its Dataplane has another owner now.
    fn release_guards(&self, decision: &Decision) {
        if decision.is_withdrawing() {
            return;
        }
        let of_owners = decision.owner_steps.iter().map(|step| &step.binding);
        let bindings = decision.steps.iter().map(|step| &step.binding).chain(of_owners);
        for binding in bindings.filter(|binding| !binding.spec.paused) {
            self.worker.with_guard(&binding.name, |guard| guard.release(self.task));
        }
    }

    /// Reads the registration's service and the task's role. ECS is asked for the role only if a removal needs it.
    async fn owner_info(&self, step: &PlanStep) -> OwnerInfo {
        let entry = self.worker.registry.entries(self.task).into_iter().find(|entry| entry.id == step.id);
        let removes = matches!(step.action, Action::Remove(_)) && self.recorder.takes_effect();
        let ask = removes && self.worker.kind.tasks_register_themselves();
        OwnerInfo {
            service: entry.and_then(|entry| entry.service),
            role: self.context.role_of(self.task, ask).await,
        }
    }

    /// Verifies removals that were sent, whose response was lost, and that are no longer due. Whether one took effect.
    async fn verify_unacknowledged(&self, decision: &Decision) -> Result<bool, CallError> {
        let mut found_gone = false;
        let entries = self.worker.registry.entries(self.task);
        for step in entries.into_iter().filter_map(|entry| entry.unacknowledged) {
            let is_due = |due: &PlanStep| due.id == step.id && matches!(due.action, Action::Remove(_));
            if decision.steps.iter().any(is_due) {
                continue;
            }
            let owner = self.owner_info(&step).await;
            let outcome = self.writer().verify_removal(&step.id).await?;
            if outcome == ApplyOutcome::RemovalConfirmedLate {
                self.worker.clear_warning(self.task, "removal_failed");
                self.record_effect(&step, &outcome);
                self.recorder.outcome(&step, &owner, &outcome);
                found_gone = true;
            }
        }
        Ok(found_gone)
    }

    async fn execute_step(
        &self,
        step: &PlanStep,
        known: &[KnownRegistration],
        basis: Option<&Replacements>,
    ) -> Result<ApplyOutcome, CallError> {
        let writer = self.writer();
        match &step.action {
            Action::Ensure { desired, may_update } => {
                let registered = known.iter().any(|known| known.id == step.id);
                if self.recorder.takes_effect() {
                    return writer.ensure(desired, registered, *may_update).await;
                }
                // A plan shows the outbounds that an edit removes, although a run that starts now waits.
                let mut desired = DesiredRegistration::clone(desired);
                desired.reach = desired.reach.settled();
                writer.ensure(&desired, registered, *may_update).await
            }
            Action::Drain(reason, _) => {
                let is_permitted = || basis.is_none_or(|basis| self.is_still_permitted(step, basis));
                writer.drain(&step.id, *reason, &is_permitted).await
            }
            Action::Remove(_) => writer.remove(step, grace_age(known)).await,
            Action::Skip { .. } => {
                self.recorder.skipped_by_policy(step);
                Ok(ApplyOutcome::Equal)
            }
        }
    }

    fn writer(&self) -> RegistrationWriter<'_> {
        RegistrationWriter {
            context: self.context,
            worker: self.worker,
            recorder: self.recorder.as_ref(),
            owner: OwnershipLabels::of(&self.context.process.id, self.task),
            task: self.task,
        }
    }

    /// Asks the guard. `Err` is when to ask again, if no sweep or event does.
    fn guard_admits(&self, step: &PlanStep) -> Result<(), Option<Duration>> {
        if self.context.clusters.first_full_sweep(self.task.cluster()).is_none() {
            // Before the first full sweep the guard does not know how many are owned; the sweep enqueues the task.
            let reason = "withdrawal deferred until the first full sweep of the task's cluster";
            self.recorder.problem("awaiting_first_sweep", &Reason::constant(reason));
            return Err(None);
        }
        let now = self.context.now();
        let policy = &step.binding.spec.cleanup.guard;
        let released = step.binding.guard_released_until.is_some_and(|until| self.context.wall() < until);
        let registry = &self.worker.registry;
        let owned = registry.owned_by(&step.binding.name);
        let valid_for = self.manifests.history.valid_for(now);
        let basis = step.removal_basis(registry.undeclared_for(self.task, &step.id, valid_for));
        let request = RemovalRequest { task: self.task, id: &step.id, basis, owned, released, now };
        let decision = self.worker.with_guard(&step.binding.name, |guard| guard.admit(&request, policy));
        match decision {
            GuardDecision::Admitted => Ok(()),
            GuardDecision::Held(held) => {
                self.recorder.held_by_guard(step, &held);
                // No time passes for the guard while the manifests have errors.
                Err(held.stable_in.map(|wait| wait.max(STABLE_RECHECK)))
            }
        }
    }

    /// Counts what took effect for the guard, and acknowledges the event that led to it.
    fn record_effect(&self, step: &PlanStep, outcome: &ApplyOutcome) {
        if !self.recorder.takes_effect() {
            return;
        }
        let now = self.context.now();
        if outcome.is_gone() {
            self.worker.drains.release(&step.id);
        }
        // A create whose response was lost is confirmed only now.
        self.worker.record_owned_count(&step.binding, now);
        if outcome.is_gone() && step.needs_guard() && matches!(step.action, Action::Remove(_)) {
            self.worker
                .with_guard(&step.binding.name, |guard| guard.record_completed(self.task, &step.id, now));
        }
        if let Some(received) = self.event.acknowledge()
            && outcome.is_change()
        {
            self.context.metrics().changes.record_event_to_write(received.elapsed());
        }
    }
}
