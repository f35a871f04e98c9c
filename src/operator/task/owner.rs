//! Dataplanes that the operator does not own: those of sidecars in template mode, and those that it only observes. They are
//! read and compared, and reported.

use std::time::Duration;

use super::super::dataplane_checks::{DataplaneCheck, DataplaneFinding, DataplaneState};
use super::super::registry::RegistryEntry;
use super::{FactPending, TaskRun};
use ecs_mesh_api::manifests::Binding;
use ecs_mesh_aws::store::TaskSnapshot;
use ecs_mesh_control_plane::{CallError, Registration, RegistrationOwner};
use ecs_mesh_core::intent::{
    DataplaneTask, DesiredRegistration, Evaluation, HoldReason, OwnershipLabels, RegistrationId, Verdict,
    dataplane_owner,
};
use ecs_mesh_core::plan::{
    Action, Decision, KnownRegistration, OwnerAction, OwnerStep, PlanStep, TaskLiveness, diff,
};
use ecs_mesh_model::{DataplaneOwner, SidecarDataplane, Task};

/// How long a sidecar may take to register its task before the missing Dataplane is reported.
const MISSING_AFTER: Duration = Duration::from_mins(1);

/// Interval at which the Dataplane of a starting sidecar, or one that a gone task left, is looked for.
const MISSING_RECHECK: Duration = Duration::from_secs(30);

/// Interval at which a Dataplane that needs attention is compared again.
const ATTENTION_RECHECK: Duration = Duration::from_mins(10);

impl TaskRun<'_> {
    /// Checks and reports what is left to the owners of Dataplanes. Returns when to decide again, if no sweep or event does.
    pub(super) async fn handle_for_owners(&self, steps: &[OwnerStep]) -> Result<Option<Duration>, CallError> {
        let mut next = None;
        for step in steps {
            let again = match &step.action {
                OwnerAction::Check(desired) => self.check_dataplane(step, desired).await?,
                OwnerAction::Withhold(action, evidence) => {
                    let is_role = evidence.is_by_role() && step.owner == DataplaneOwner::Sidecar;
                    let state = if is_role { DataplaneState::NotAllowed } else { DataplaneState::Stale };
                    self.record_check(&step.id, step.owner, state, false);
                    self.recorder.withheld(step, *action, evidence);
                    None
                }
            };
            next = next.into_iter().chain(again).min();
        }
        Ok(next)
    }

    /// The owner of a registration with this operator's labels.
    pub(super) fn owner_of(
        &self,
        binding: Option<&Binding>,
        task: Option<&Task>,
        entry: &RegistryEntry,
    ) -> DataplaneOwner {
        let Some(binding) = binding.filter(|_| !self.worker.kind.tasks_register_themselves()) else {
            return DataplaneOwner::Operator;
        };
        let forgotten = DataplaneTask::Forgotten { id: &entry.id, service: entry.service.as_deref() };
        let owned = task.map_or(forgotten, DataplaneTask::Shown);
        let declared = dataplane_owner(&self.manifests.set, binding, owned);
        declared.of_registered(entry.has_writer_mark, task.and_then(|task| self.cached_sidecar(task)))
    }

    /// How the task's sidecar gets its Dataplane, if its definition was read and shows that.
    fn cached_sidecar(&self, task: &Task) -> Option<SidecarDataplane> {
        let definition = self.context.aws.definitions.cached(&task.definition)?.ok()?;
        definition.sidecar_dataplane().map(|(_, dataplane)| dataplane)
    }

    /// Reads the definition of a task whose registration lacks the writer mark and may be drained: a sidecar that starts by name
    /// has not written it. A withdrawal from a live task waits while the definition cannot be read, for the returned reason. A
    /// stop that ECS has not confirmed does not wait, since AWS may not answer.
    pub(super) async fn ensure_owner_is_known(
        &self,
        snapshot: &TaskSnapshot,
        known: &[KnownRegistration],
        evaluation: Option<&Evaluation>,
    ) -> Result<Option<HoldReason>, FactPending> {
        let is_withdrawn = evaluation
            .is_some_and(|found| matches!(found.verdict, Verdict::Ignore(_) | Verdict::Reject { .. }));
        let lacks_mark = known.iter().any(|known| known.owner == DataplaneOwner::Sidecar);
        let (needs_sidecar, may_wait) = match snapshot.liveness {
            TaskLiveness::Live => (is_withdrawn && lacks_mark, true),
            TaskLiveness::Leaving => (lacks_mark, false),
            _ => (false, false),
        };
        let is_written = !self.worker.kind.tasks_register_themselves();
        let Some(task) = snapshot.task.as_ref().filter(|_| needs_sidecar && is_written) else {
            return Ok(None);
        };
        let unread = self.definition(&task.definition).await?.err().filter(|_| may_wait);
        Ok(unread.map(|reason| HoldReason::Unknown(reason.with_prefix("the task definition"))))
    }

    /// Compares a live task's Dataplane with the desired one. Returns when to compare again, if no sweep or event does.
    async fn check_dataplane(
        &self,
        step: &OwnerStep,
        desired: &DesiredRegistration,
    ) -> Result<Option<Duration>, CallError> {
        let owner = step.owner;
        self.worker.ensure_capabilities(&desired.id).await?;
        let found = self.worker.call(self.worker.client.get(&step.id)).await?;
        let finding = self.compare(desired, owner, found);
        let state = finding.state();
        let since = self.record_check(&step.id, owner, state, finding.is_unlabelled());
        let is_young = since.age_at(self.context.now()) < MISSING_AFTER;
        let is_starting = owner == DataplaneOwner::Sidecar
            && matches!(state, DataplaneState::Missing | DataplaneState::NameConflict)
            && is_young
            && self.recorder.takes_effect();
        if !is_starting {
            self.recorder.checked(step, &finding);
        }
        Ok(match state {
            DataplaneState::AsDeclared => None,
            DataplaneState::Missing | DataplaneState::NameConflict => match owner {
                DataplaneOwner::Sidecar if is_young => Some(MISSING_RECHECK),
                DataplaneOwner::Sidecar => Some(ATTENTION_RECHECK),
                // Sweeps find it.
                DataplaneOwner::Operator | DataplaneOwner::Observe => None,
            },
            _ => Some(ATTENTION_RECHECK),
        })
    }

    fn compare(
        &self,
        desired: &DesiredRegistration,
        owner: DataplaneOwner,
        found: Option<Registration>,
    ) -> DataplaneFinding {
        let client = &self.worker.client;
        let Some(found) = found else {
            return DataplaneFinding::Missing(client.render(desired, None).normal);
        };
        let own = OwnershipLabels::of(&self.context.process.id, self.task);
        let labelled = found.owner == RegistrationOwner::Owned(own);
        match (owner, &found.owner) {
            // A template without labels, or with some of them.
            (DataplaneOwner::Sidecar, RegistrationOwner::Foreign) => {}
            (_, other) if !labelled => return DataplaneFinding::Taken(other.clone()),
            _ => {}
        }
        let changes = if owner == DataplaneOwner::Sidecar {
            client.drift(desired, &found)
        } else {
            diff(&found.normal, &client.render(desired, Some(&found)).normal)
        };
        DataplaneFinding::Found { labelled, changes }
    }

    /// Looks for the Dataplane that a sidecar has registered although the role does not allow its task. Reports one that
    /// remains: the operator withdraws what it wrote itself.
    pub(super) async fn check_not_allowed(
        &self,
        evaluation: Option<&Evaluation>,
        known: &[KnownRegistration],
    ) -> Result<(), CallError> {
        let Some(Evaluation { owner: DataplaneOwner::Sidecar, verdict: Verdict::Reject { id, .. }, .. }) =
            evaluation
        else {
            return Ok(());
        };
        if let Some(known) = known.iter().find(|known| known.owner == DataplaneOwner::Sidecar) {
            self.record_check(&known.id, known.owner, DataplaneState::NotAllowed, false);
            self.recorder.not_revocable();
        }
        if !known.is_empty() {
            return Ok(());
        }
        let last = self.worker.dataplanes.get(self.task).map(|last| last.id);
        let Some(id) = last.or_else(|| id.clone()) else { return Ok(()) };
        self.worker.ensure_capabilities(&id).await?;
        // The labels of the operator would have made it known.
        let found = self.worker.call(self.worker.client.get(&id)).await?;
        if found.is_some_and(|found| found.owner == RegistrationOwner::Foreign) {
            self.record_check(&id, DataplaneOwner::Sidecar, DataplaneState::NotAllowed, true);
            self.recorder.not_revocable();
        } else {
            self.worker.dataplanes.forget(self.task);
        }
        Ok(())
    }

    fn record_check(
        &self,
        id: &RegistrationId,
        owner: DataplaneOwner,
        state: DataplaneState,
        unlabelled: bool,
    ) -> ecs_mesh_model::Timestamp {
        let check = DataplaneCheck { id: id.clone(), owner, state, unlabelled, since: self.context.now() };
        self.worker.dataplanes.record(self.task, check)
    }

    /// Ends the checks of a task whose Dataplane the operator owns, that should have none, or whose Dataplane is being removed.
    pub(super) fn end_checks(
        &self,
        evaluation: Option<&Evaluation>,
        known: &[KnownRegistration],
        decision: &Decision,
    ) {
        let is_over = match evaluation {
            // A withdrawal may still wait for `cleanup.settle`: the check shows the owner until then.
            Some(found) if matches!(found.verdict, Verdict::Ignore(_)) => {
                known.iter().all(|known| known.owner != DataplaneOwner::Sidecar)
            }
            Some(found) => found.owner == DataplaneOwner::Operator,
            // A leaving task is not evaluated, and its Dataplane may stay.
            None => decision.steps.iter().any(|step| matches!(step.action, Action::Remove(_))),
        };
        if is_over && decision.owner_steps.is_empty() {
            self.worker.dataplanes.forget(self.task);
        }
    }

    /// Whether the removal waits, since the sidecar of a live task is about to register the same name: it would lose its
    /// Dataplane if it did so between the last read and the removal, and registers only at its next connect. Reports a wait.
    pub(super) fn awaits_other_sidecar(&self, step: &PlanStep) -> bool {
        if !matches!(step.action, Action::Remove(_)) || !self.recorder.takes_effect() {
            return false;
        }
        let awaited = self.worker.dataplanes.awaiting_task(&step.id, self.task, self.context.now());
        self.recorder.awaits_sidecar(step, awaited.as_ref());
        awaited.is_some()
    }

    /// Looks for the Dataplane that a task without registration of ours had. The control plane deletes it when its sidecar
    /// disconnects; one that stays is reported, and never removed: its name proves nothing. Returns when to look again.
    pub(super) async fn check_left_behind(
        &self,
        snapshot: &TaskSnapshot,
    ) -> Result<Option<Duration>, CallError> {
        let Some(last) = self.worker.dataplanes.get(self.task) else { return Ok(None) };
        let is_gone = matches!(
            snapshot.liveness,
            TaskLiveness::Stopped | TaskLiveness::StoppedMissing { .. } | TaskLiveness::Absent { .. }
        );
        if !is_gone && last.state != DataplaneState::LeftBehind {
            return Ok(None);
        }
        let is_candidate = last.unlabelled && !self.worker.dataplanes.is_name_of_another(&last.id, self.task);
        let found =
            if is_candidate { self.worker.call(self.worker.client.get(&last.id)).await? } else { None };
        if found.is_none_or(|found| found.owner != RegistrationOwner::Foreign) {
            self.worker.dataplanes.forget(self.task);
            return Ok(None);
        }
        let left = DataplaneCheck { state: DataplaneState::LeftBehind, since: self.context.now(), ..last };
        let id = left.id.clone();
        let since = self.worker.dataplanes.record(self.task, left);
        // The control plane waits 10 s after a disconnect.
        if since.age_at(self.context.now()) < MISSING_RECHECK {
            return Ok(Some(MISSING_RECHECK));
        }
        self.recorder.left_behind(&id);
        Ok(Some(ATTENTION_RECHECK))
    }
}
