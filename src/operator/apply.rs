//! Applies one step to one registration: read the server's copy, check ownership, compare, write. Nothing is written without
//! the lease (I7), while the audit log is blocked, to an unsupported control plane (I11), to a registration of another owner
//! (I3), or without a difference (I6). A dry run takes the same path up to the write.

use std::time::Duration;

use serde_json::Value;

use super::context::Context;
use super::control_plane_worker::ControlPlaneWorker;
use super::recorder::TaskRecorder;
use ecs_mesh_control_plane::CallError;
use ecs_mesh_control_plane::{
    ContentHash, MeshError, MeshErrorKind, Registration, RegistrationOwner, RegistrationSummary,
    RenderedRegistration,
};
use ecs_mesh_controller::WriteObstacle;
use ecs_mesh_core::intent::{DesiredRegistration, OwnershipLabels, RegistrationId};
use ecs_mesh_core::plan::DrainReason;
use ecs_mesh_core::plan::{Action, Evidence, FieldChange, PlanStep, TaskLiveness, diff};
use ecs_mesh_model::TaskArn;

/// Immediate retries of a write that raced another writer.
const MAX_CONFLICT_RETRIES: usize = 5;

/// The outcome of a step.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum ApplyOutcome {
    /// Created, with this normal form.
    Created(Value, WriteCause),
    Updated(Vec<FieldChange>, WriteCause),
    Drained,
    Removed,
    /// An earlier removal whose response was lost has taken effect.
    RemovalConfirmedLate,
    /// A removal was sent and failed.
    RemovalFailed(MeshError),
    /// Nothing differs.
    Equal,
    /// The registration was known and does not exist any more.
    Vanished,
    /// The policy does not permit an update.
    UpdateNotAllowed(Vec<FieldChange>),
    /// The name belongs to another owner or task.
    NameConflict(RegistrationOwner),
    /// This process may not write.
    Obstructed(WriteObstacle),
    /// The step's evidence no longer holds, or can't be confirmed: the absence of a removed task, the replacements of a drained
    /// one, or that the operator is the last writer. Nothing was sent.
    Unconfirmed,
}

/// Why a registration was created or updated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WriteCause {
    /// The manifests or the task have changed, or this process has not seen the registration before.
    Declared,
    /// Another writer changed or removed the registration since this process saw it as declared.
    Drift,
}

impl WriteCause {
    fn of(is_drift: bool) -> Self {
        if is_drift { Self::Drift } else { Self::Declared }
    }
}

impl ApplyOutcome {
    /// Whether a write took effect.
    pub(super) fn is_change(&self) -> bool {
        matches!(
            self,
            Self::Created(..)
                | Self::Updated(..)
                | Self::Drained
                | Self::Removed
                | Self::RemovalConfirmedLate
        )
    }

    /// Whether the registration no longer exists.
    pub(super) fn is_gone(&self) -> bool {
        matches!(self, Self::Removed | Self::RemovalConfirmedLate | Self::Vanished)
    }
}

/// Starts again with a fresh read when another writer wrote in between. (A macro: closures that borrow across an await are
/// not `Send` yet.)
macro_rules! retry_on_conflict {
    ($attempt:expr) => {{
        let mut left = MAX_CONFLICT_RETRIES;
        loop {
            match $attempt.await {
                Err(CallError::Failed(error)) if error.kind == MeshErrorKind::Conflict && left > 0 => {
                    left -= 1
                }
                other => return other,
            }
        }
    }};
}

/// Writes one task's registrations at one control plane, for one reconcile.
pub(super) struct RegistrationWriter<'a> {
    pub context: &'a Context,
    pub worker: &'a ControlPlaneWorker,
    pub recorder: &'a dyn TaskRecorder,
    /// The ownership labels of the task's registrations.
    pub owner: OwnershipLabels,
    pub task: &'a TaskArn,
}

/// Whether a write is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WriteDecision {
    Send,
    /// A dry run: the write would have been sent.
    DryRun,
    /// This process may not write.
    Obstructed(WriteObstacle),
}

/// The server's registration of a name.
enum Lookup {
    Missing,
    Owned(Box<Registration>),
    Foreign(RegistrationOwner),
}

impl RegistrationWriter<'_> {
    /// Creates or updates the registration. `known`: the registry has it.
    pub(super) async fn ensure(
        &self,
        desired: &DesiredRegistration,
        known: bool,
        may_update: bool,
    ) -> Result<ApplyOutcome, CallError> {
        obstructed(self.ensure_with_retry(desired, known, may_update).await)
    }

    async fn ensure_with_retry(
        &self,
        desired: &DesiredRegistration,
        known: bool,
        may_update: bool,
    ) -> Result<ApplyOutcome, CallError> {
        self.worker.ensure_capabilities(&desired.id).await?;
        let new = self.render_new(desired)?;
        if self.matches_cached_hash(desired, &new) {
            self.worker.registry.record_exact(self.task, &desired.id, &new.normal);
            return Ok(ApplyOutcome::Equal);
        }
        let _lock = self.worker.lock_registration(&desired.id).await;
        retry_on_conflict!(self.try_ensure(desired, known, may_update))
    }

    async fn try_ensure(
        &self,
        desired: &DesiredRegistration,
        known: bool,
        may_update: bool,
    ) -> Result<ApplyOutcome, CallError> {
        self.acquire_write_token().await;
        self.worker.ensure_supported().await?;
        // Only now: the control plane may have been upgraded since the last answer about its version.
        let new = self.render_new(desired)?;
        let current = match self.get_owned(&desired.id).await? {
            Lookup::Foreign(owner) => return Ok(self.name_conflict(&desired.id, owner)),
            Lookup::Missing if known => return Ok(self.forget_missing(&desired.id)),
            Lookup::Missing => return self.create(desired, &new).await,
            Lookup::Owned(current) => current,
        };
        let rendered = self.worker.client.render(desired, Some(&current));
        let changes = diff(&current.normal, &rendered.normal);
        self.worker.registry.record_seen(
            self.task,
            &RegistrationSummary::from(&*current),
            self.context.now(),
        );
        // Without what is kept of the current copy.
        let is_exact = rendered.normal == new.normal;
        if changes.is_empty() {
            if is_exact {
                self.worker.registry.record_exact(self.task, &desired.id, &new.normal);
            }
            return Ok(ApplyOutcome::Equal);
        }
        if !may_update {
            return Ok(ApplyOutcome::UpdateNotAllowed(changes));
        }
        // A drain that this update undoes is the operator's own.
        let was_exact = self.worker.registry.was_exactly(self.task, &desired.id, &new.normal);
        let cause = WriteCause::of(is_exact && was_exact && current.drained.is_none());
        match self.write(&desired.id, &rendered).await? {
            WriteDecision::Obstructed(obstacle) => return Ok(ApplyOutcome::Obstructed(obstacle)),
            WriteDecision::DryRun => {}
            WriteDecision::Send => {
                self.worker.registry.record_written(
                    self.task,
                    &desired.id,
                    None,
                    &rendered.normal,
                    self.context.now(),
                );
                if is_exact {
                    self.worker.registry.record_exact(self.task, &desired.id, &new.normal);
                }
            }
        }
        Ok(ApplyOutcome::Updated(changes, cause))
    }

    /// Renders the registration of a task that has none, in the format of the control plane's version.
    fn render_new(&self, desired: &DesiredRegistration) -> Result<RenderedRegistration, CallError> {
        let client = &self.worker.client;
        client.check_desired(desired).map_err(CallError::Failed)?;
        Ok(client.render(desired, None))
    }

    async fn create(
        &self,
        desired: &DesiredRegistration,
        rendered: &RenderedRegistration,
    ) -> Result<ApplyOutcome, CallError> {
        let id = &desired.id;
        let cause = WriteCause::of(self.worker.registry.take_lost(self.task, id));
        if self.write_decision() == WriteDecision::Send {
            // Record first: if the response is lost, the next list still finds it.
            let (service, binding) = (self.worker.client.registered_service(desired), &desired.binding);
            self.worker.registry.record_pending(self.task, id, service, binding, self.context.now());
        }
        match self.write(id, rendered).await {
            Ok(WriteDecision::DryRun) => Ok(ApplyOutcome::Created(rendered.normal.clone(), cause)),
            Ok(WriteDecision::Send) => {
                self.worker.registry.record_written(
                    self.task,
                    id,
                    None,
                    &rendered.normal,
                    self.context.now(),
                );
                self.worker.registry.record_exact(self.task, id, &rendered.normal);
                Ok(ApplyOutcome::Created(rendered.normal.clone(), cause))
            }
            Ok(WriteDecision::Obstructed(obstacle)) => {
                self.worker.registry.forget(self.task, id);
                Ok(ApplyOutcome::Obstructed(obstacle))
            }
            Err(error) => {
                if !error.may_have_taken_effect() {
                    self.worker.registry.forget(self.task, id);
                }
                Err(error)
            }
        }
    }

    /// Drains the registration, unless `is_permitted` denies it right before the write.
    pub(super) async fn drain(
        &self,
        id: &RegistrationId,
        reason: DrainReason,
        is_permitted: &(dyn Fn() -> bool + Sync),
    ) -> Result<ApplyOutcome, CallError> {
        let _lock = self.worker.lock_registration(id).await;
        obstructed(self.drain_with_retry(id, reason, is_permitted).await)
    }

    async fn drain_with_retry(
        &self,
        id: &RegistrationId,
        reason: DrainReason,
        is_permitted: &(dyn Fn() -> bool + Sync),
    ) -> Result<ApplyOutcome, CallError> {
        retry_on_conflict!(self.try_drain(id, reason, is_permitted))
    }

    async fn try_drain(
        &self,
        id: &RegistrationId,
        reason: DrainReason,
        is_permitted: &(dyn Fn() -> bool + Sync),
    ) -> Result<ApplyOutcome, CallError> {
        // Read now what the client needs, not between the check of the lease and the write.
        self.worker.ensure_capabilities(id).await?;
        self.acquire_write_token().await;
        self.worker.ensure_supported().await?;
        let current = match self.get_owned(id).await? {
            Lookup::Missing => return Ok(self.forget_missing(id)),
            Lookup::Foreign(owner) => return Ok(self.name_conflict(id, owner)),
            Lookup::Owned(current) if self.was_overwritten(&current) => return Ok(ApplyOutcome::Unconfirmed),
            Lookup::Owned(current) => current,
        };
        if current.drained.is_some_and(|now| now == reason || now == DrainReason::Stopping) {
            self.worker.registry.record_seen(
                self.task,
                &RegistrationSummary::from(&*current),
                self.context.now(),
            );
            return Ok(ApplyOutcome::Equal);
        }
        let rendered = self.worker.client.render_drained(&current, reason);
        if self.recorder.takes_effect() && !is_permitted() {
            return Ok(ApplyOutcome::Unconfirmed);
        }
        match self.write(id, &rendered).await? {
            WriteDecision::Obstructed(obstacle) => return Ok(ApplyOutcome::Obstructed(obstacle)),
            WriteDecision::DryRun => {}
            WriteDecision::Send => {
                self.worker.registry.record_written(
                    self.task,
                    id,
                    Some(reason),
                    &rendered.normal,
                    self.context.now(),
                );
            }
        }
        Ok(ApplyOutcome::Drained)
    }

    /// Removes the registration. `grace`: how long an absence must have lasted.
    pub(super) async fn remove(&self, step: &PlanStep, grace: Duration) -> Result<ApplyOutcome, CallError> {
        let _lock = self.worker.lock_registration(&step.id).await;
        let mut sent = false;
        match obstructed(self.remove_with_retry(step, grace, &mut sent).await) {
            Err(CallError::Failed(error)) if sent => Ok(ApplyOutcome::RemovalFailed(error)),
            ended => ended,
        }
    }

    async fn remove_with_retry(
        &self,
        step: &PlanStep,
        grace: Duration,
        sent: &mut bool,
    ) -> Result<ApplyOutcome, CallError> {
        retry_on_conflict!(self.try_remove(step, grace, sent))
    }

    /// Whether the evidence for a removal still holds. An absence rests on a describe made right before the removal.
    fn is_confirmed(&self, step: &PlanStep, grace: Duration) -> bool {
        // A dry run also plans removals whose absence is not confirmed yet, and sends none.
        let is_absence = matches!(step.action, Action::Remove(Evidence::Absent { .. }));
        if !is_absence || !self.recorder.takes_effect() {
            return true;
        }
        matches!(
            self.context.aws.store.snapshot(self.task, grace, self.context.now()).liveness,
            TaskLiveness::Absent { .. }
        )
    }

    /// As [`Self::is_confirmed`], after another describe where the last one is too old: the removal may have waited for
    /// the write rate, for its turn, or for the role that the audit log names.
    async fn confirm(&self, step: &PlanStep, grace: Duration) -> bool {
        self.is_confirmed(step, grace)
            || self.context.aws.describer.describe(self.task, grace).await.is_ok()
                && self.is_confirmed(step, grace)
    }

    /// Sets `sent` if a removal was sent.
    async fn try_remove(
        &self,
        step: &PlanStep,
        grace: Duration,
        sent: &mut bool,
    ) -> Result<ApplyOutcome, CallError> {
        if self.worker.writes.is_charged(self.worker.client.delete_batch_size(&step.id)) {
            self.acquire_write_token().await;
        }
        self.worker.ensure_supported().await?;
        if !self.confirm(step, grace).await {
            return Ok(ApplyOutcome::Unconfirmed);
        }
        let (id, registry) = (&step.id, &self.worker.registry);
        let unacknowledged = registry.is_unacknowledged(self.task, id);
        match self.get_owned(id).await? {
            Lookup::Missing => return Ok(self.missing_outcome(id, unacknowledged)),
            Lookup::Foreign(owner) => return Ok(self.name_conflict(id, owner)),
            Lookup::Owned(current) if self.was_overwritten(&current) => return Ok(ApplyOutcome::Unconfirmed),
            Lookup::Owned(_) => {}
        }
        if !self.is_confirmed(step, grace) {
            return Ok(ApplyOutcome::Unconfirmed);
        }
        match self.write_decision() {
            WriteDecision::Obstructed(obstacle) => return Ok(ApplyOutcome::Obstructed(obstacle)),
            WriteDecision::DryRun => return Ok(ApplyOutcome::Removed),
            WriteDecision::Send => {}
        }
        *sent = true;
        if step.needs_guard() {
            self.worker.with_guard(&step.binding.name, |guard| guard.record_sent(self.task, &step.id));
        }
        // Record first: if the response is lost, the next lookup still reports the removal.
        registry.begin_removal(self.task, step);
        match self.worker.call(self.worker.client.delete(id)).await {
            Ok(true) => {
                registry.forget(self.task, id);
                Ok(ApplyOutcome::Removed)
            }
            Ok(false) => Ok(self.missing_outcome(id, unacknowledged)),
            Err(error) => {
                if !unacknowledged && !error.may_have_taken_effect() {
                    registry.acknowledge(self.task, id);
                }
                Err(error)
            }
        }
    }

    /// Checks whether a removal took effect that was sent and is no longer due.
    pub(super) async fn verify_removal(&self, id: &RegistrationId) -> Result<ApplyOutcome, CallError> {
        let _lock = self.worker.lock_registration(id).await;
        let unacknowledged = self.worker.registry.is_unacknowledged(self.task, id);
        match self.get_owned(id).await? {
            Lookup::Missing => Ok(self.missing_outcome(id, unacknowledged)),
            Lookup::Foreign(owner) => Ok(self.name_conflict(id, owner)),
            Lookup::Owned(_) => {
                self.worker.registry.acknowledge(self.task, id);
                Ok(ApplyOutcome::Equal)
            }
        }
    }

    /// The registration does not exist. With `unacknowledged`, a removal had been sent.
    fn missing_outcome(&self, id: &RegistrationId, unacknowledged: bool) -> ApplyOutcome {
        match self.forget_missing(id) {
            _ if unacknowledged => ApplyOutcome::RemovalConfirmedLate,
            vanished => vanished,
        }
    }

    /// Whether the last seen registration equals the desired one, so that no read is needed.
    fn matches_cached_hash(&self, desired: &DesiredRegistration, rendered: &RenderedRegistration) -> bool {
        let entries = self.worker.registry.entries(self.task);
        let Some(entry) = entries.iter().find(|entry| entry.id == desired.id) else { return false };
        !desired.reach.keeps_current()
            && entry.drained.is_none()
            && entry.content_hash == Some(ContentHash::of(&rendered.normal))
    }

    async fn get_owned(&self, id: &RegistrationId) -> Result<Lookup, CallError> {
        Ok(match self.worker.call(self.worker.client.get(id)).await? {
            None => Lookup::Missing,
            Some(found) if found.owner == RegistrationOwner::Owned(self.owner.clone()) => {
                Lookup::Owned(Box::new(found))
            }
            Some(found) => Lookup::Foreign(found.owner),
        })
    }

    /// Whether a sidecar has overwritten the operator's copy since it was last read or written, so that the sidecar owns it now.
    /// Records the copy.
    fn was_overwritten(&self, current: &Registration) -> bool {
        let registry = &self.worker.registry;
        let entries = registry.entries(self.task);
        let was_own = entries.iter().any(|entry| entry.id == current.id && entry.has_writer_mark);
        if was_own && !current.has_writer_mark {
            registry.record_seen(self.task, &RegistrationSummary::from(current), self.context.now());
            return true;
        }
        false
    }

    /// Waits for the write rate, before the read: nothing may wait between the read and the write.
    async fn acquire_write_token(&self) {
        if self.recorder.takes_effect() {
            self.worker.writes.acquire().await;
        }
    }

    /// Asked last, right before each write and removal.
    fn write_decision(&self) -> WriteDecision {
        self.recorder.write_decision(&self.worker.lease(&self.context.process.lease))
    }

    async fn write(
        &self,
        id: &RegistrationId,
        rendered: &RenderedRegistration,
    ) -> Result<WriteDecision, CallError> {
        let sent = self.write_decision();
        if sent == WriteDecision::Send {
            self.worker.call(self.worker.client.put(id, &rendered.body)).await?;
            self.worker.clear_errors(|kind| kind != MeshErrorKind::MeshNotFound);
        }
        Ok(sent)
    }

    fn forget_missing(&self, id: &RegistrationId) -> ApplyOutcome {
        self.worker.registry.forget_missing(self.task, id);
        ApplyOutcome::Vanished
    }

    fn name_conflict(&self, id: &RegistrationId, owner: RegistrationOwner) -> ApplyOutcome {
        self.worker.registry.forget(self.task, id);
        ApplyOutcome::NameConflict(owner)
    }
}

/// A write that was not sent because of an obstacle is an outcome, and no failed call.
fn obstructed(result: Result<ApplyOutcome, CallError>) -> Result<ApplyOutcome, CallError> {
    match result {
        Err(CallError::Failed(MeshError { kind: MeshErrorKind::Obstructed(obstacle), .. })) => {
            Ok(ApplyOutcome::Obstructed(obstacle))
        }
        other => other,
    }
}
