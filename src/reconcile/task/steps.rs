//! Carries out what was decided, step by step, as far as pause, guard and lease let it.

use super::super::apply::{Apply, Outcome};
use super::super::report::Whose;
use super::{Done, Run, TAKEN_WAIT, sooner};
use ecs_mesh_aws::roles::APART;
use ecs_mesh_control_plane::Halt;
use ecs_mesh_control_plane::{MeshError, MeshErrorKind, Owner};
use ecs_mesh_controller::Next;
use ecs_mesh_core::intent::Marks;
use ecs_mesh_core::plan::{Action, Admission, Decision, Known, Step};
use ecs_mesh_model::Why;

impl Run<'_> {
    pub(super) async fn carry_out(&self, decision: &Decision, known: &[Known]) -> Result<Done, Halt> {
        if self.look_after_unheard(decision).await? {
            return Ok(Done::LookAgain);
        }
        let mut next = decision.again.map_or(Next::Forget, Next::After);
        let mut refused = None;
        for step in &decision.steps {
            let paused = step.binding.spec.paused;
            // A dry run looks what it would come to: it writes nothing anyway.
            if paused && !self.operator.is_dry() {
                self.report.paused(step);
                continue;
            }
            if step.needs_guard() && !paused && !self.guard_admits(step) {
                next = Next::Forget;
                continue;
            }
            if !decision.withdraws() {
                self.plane.guard(&step.binding.name, |guard| guard.no_longer_needed(self.task));
            }
            // Asked before: after a removal nothing may come between it and its line of the audit log.
            let whose = self.whose(step).await;
            match self.carry_out_step(step, known).await? {
                // The picture has changed under our hands.
                Outcome::Vanished if matches!(step.action, Action::Ensure { .. }) => {
                    return Ok(Done::LookAgain);
                }
                Outcome::Unconfirmed => return Ok(Done::LookAgain),
                Outcome::Taken(owner) => {
                    self.report.taken(step, &owner);
                    let wait = if matches!(owner, Owner::Marked(_)) { APART } else { TAKEN_WAIT };
                    next = sooner(next, wait);
                }
                Outcome::NoLease => {
                    let why = Why::of_all("another copy of this operator holds the lease");
                    self.report.trouble("lease", &why);
                    next = sooner(next, APART);
                }
                Outcome::NotRemoved(error) => {
                    // One failure a task tells enough.
                    if refused.is_none() {
                        self.report.not_removed(step, &whose, &error);
                    }
                    self.operator.metrics.held("not_removed");
                    // What our token may not remove, or the servers do not, keeps nothing else.
                    let is_of_this_one = matches!(
                        error.kind,
                        MeshErrorKind::Forbidden | MeshErrorKind::Invalid | MeshErrorKind::Failed
                    );
                    if !is_of_this_one {
                        return Err(Halt::Failed(error));
                    }
                    // One that may be over later decides when the task is looked at again.
                    if refused.as_ref().is_none_or(|first: &MeshError| first.kind == MeshErrorKind::Invalid) {
                        refused = Some(error);
                    }
                }
                outcome => {
                    if outcome.is_gone() && refused.is_none() {
                        self.plane.is_said_no_more(self.task, "not_removed");
                    }
                    self.note(step, &outcome);
                    self.report.outcome(step, &whose, &outcome);
                }
            }
        }
        refused.map_or(Ok(Done::Settled(next)), |error| Err(Halt::Failed(error)))
    }

    /// Asked before a step, since a removal forgets it. Only for a removal is ECS asked.
    async fn whose(&self, step: &Step) -> Whose {
        let entry = self.plane.registry.of(self.task).into_iter().find(|entry| entry.id == step.id);
        let removes = matches!(step.action, Action::Remove(_)) && !self.operator.is_dry();
        let asks = removes && self.plane.kind.tasks_register_themselves();
        Whose {
            service: entry.and_then(|entry| entry.service),
            role: self.operator.role_of(self.task, asks).await,
        }
    }

    /// Looks after removals that were sent, whose answer was lost, and that are not due any more: there may have been
    /// one. Whether there was.
    async fn look_after_unheard(&self, decision: &Decision) -> Result<bool, Halt> {
        let mut found_gone = false;
        for step in self.plane.registry.of(self.task).into_iter().filter_map(|entry| entry.unheard) {
            let is_due = |due: &Step| due.id == step.id && matches!(due.action, Action::Remove(_));
            if decision.steps.iter().any(is_due) {
                continue;
            }
            let whose = self.whose(&step).await;
            let outcome = self.apply().look_after(&step.id).await?;
            if outcome == Outcome::RemovedUnheard {
                self.plane.is_said_no_more(self.task, "not_removed");
                self.note(&step, &outcome);
                self.report.outcome(&step, &whose, &outcome);
                found_gone = true;
            }
        }
        Ok(found_gone)
    }

    async fn carry_out_step(&self, step: &Step, known: &[Known]) -> Result<Outcome, Halt> {
        let apply = self.apply();
        match &step.action {
            Action::Ensure { desired, may_update } => {
                let there = known.iter().any(|known| known.id == step.id);
                apply.ensure(desired, there, *may_update).await
            }
            Action::Drain(reason, _) => apply.drain(&step.id, *reason).await,
            Action::Remove(_) => apply.remove(step, Self::grace(known)).await,
            Action::Skip { .. } => {
                self.report.skipped(step);
                Ok(Outcome::Equal)
            }
        }
    }

    fn apply(&self) -> Apply<'_> {
        Apply {
            plane: self.plane,
            lease: self.operator.lease.as_ref(),
            dry: self.operator.is_dry(),
            marks: Marks::of(&self.operator.id, self.task),
            task: self.task,
            clock: &self.operator.clock,
            store: &self.operator.store,
            describer: &self.operator.describer,
        }
    }

    fn guard_admits(&self, step: &Step) -> bool {
        if self.operator.swept_since(self.task.cluster()).is_none() {
            // How many are owned is not known before; the sweep brings the task back.
            let words = "no withdrawal before a sweep has seen the task's cluster whole: without it the guard does not \
                         know how many there are";
            self.report.trouble("not_swept", &Why::of_all(words));
            return false;
        }
        let now = self.operator.clock.now();
        let policy = &step.binding.spec.cleanup.guard;
        let released = step.binding.guard_released_until.is_some_and(|until| now < until);
        let owned = self.plane.registry.owned_by(&step.binding.name);
        let admission = self
            .plane
            .guard(&step.binding.name, |guard| guard.admit(self.task, owned, policy, released, now));
        match admission {
            Admission::Admitted => true,
            Admission::Stopped { admitted, owned } => {
                self.report.held_back(step, admitted, owned);
                false
            }
        }
    }

    fn note(&self, step: &Step, outcome: &Outcome) {
        if self.operator.is_dry() {
            return;
        }
        // One that was created and whose answer got lost shows only now.
        self.plane.note_owned(&step.binding, self.operator.clock.now());
        if outcome.is_gone() && step.needs_guard() && matches!(step.action, Action::Remove(_)) {
            let now = self.operator.clock.now();
            self.plane.guard(&step.binding.name, |guard| guard.carried_out(self.task, now));
        }
        let did_something = matches!(
            outcome,
            Outcome::Created(_)
                | Outcome::Updated(_)
                | Outcome::Drained
                | Outcome::Removed
                | Outcome::RemovedUnheard
        );
        if let Some(heard) = self.heard.answer()
            && did_something
        {
            self.operator.metrics.answered(heard.elapsed());
        }
    }
}
