//! Carries out one step on one registration: read the server's copy, check whose it is, compare, write. Nothing is
//! written without the lease (I7), to what is not ours (I3), or where nothing differs (I6).
//!
//! A dry run goes the same way up to the write itself, and says what that would have come to.

use std::time::Duration;

use serde_json::Value;

use super::plane::Plane;
use ecs_mesh_aws::describer::Describer;
use ecs_mesh_aws::store::{Life, Store};
use ecs_mesh_clock::Clock;
use ecs_mesh_control_plane::{
    Fingerprint, Halt, MeshError, MeshErrorKind, Owner, Registration, Rendered, Sighting,
};
use ecs_mesh_controller::Lease;
use ecs_mesh_core::intent::{Desired, Marks, Outbounds, RegistrationId};
use ecs_mesh_core::plan::{Action, DrainReason, Evidence, FieldChange, Step, diff};
use ecs_mesh_model::TaskArn;

/// How often a write that raced another writer is redone at once.
const REDO: usize = 5;

/// What a step came to.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Outcome {
    /// With its normal form.
    Created(Value),
    Updated(Vec<FieldChange>),
    Drained,
    Removed,
    /// A removal had been sent before, its answer was lost, and now it is gone.
    RemovedUnheard,
    /// A removal was sent, and failed as far as is known.
    NotRemoved(MeshError),
    /// Nothing differs.
    Equal,
    /// It was believed to be registered and is not there.
    Vanished,
    /// The policy allows no update.
    MayNotUpdate(Vec<FieldChange>),
    /// The name is taken by something that is not this task's.
    Taken(Owner),
    /// This process does not hold the lease.
    NoLease,
    /// ECS no longer confirms, or can't confirm, that the task is absent. Nothing was sent.
    Unconfirmed,
}

impl Outcome {
    /// Whether nothing is there any more.
    pub(super) fn is_gone(&self) -> bool {
        matches!(self, Self::Removed | Self::RemovedUnheard | Self::Vanished)
    }
}

/// Begins again, with a fresh read, when somebody else wrote in between. (A macro: closures that borrow across an await
/// are not `Send` yet.)
macro_rules! redo {
    ($attempt:expr) => {{
        let mut left = REDO;
        loop {
            match $attempt.await {
                Err(Halt::Failed(error)) if error.kind == MeshErrorKind::Conflict && left > 0 => left -= 1,
                other => return other,
            }
        }
    }};
}

/// One task's registrations at one plane, for one run.
pub(super) struct Apply<'a> {
    pub plane: &'a Plane,
    pub lease: &'a dyn Lease,
    /// Nothing is written, nor remembered as written.
    pub dry: bool,
    pub marks: Marks,
    pub task: &'a TaskArn,
    pub clock: &'a Clock,
    pub store: &'a Store,
    pub describer: &'a Describer,
}

/// What became of a write.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sent {
    Done,
    /// It would have been.
    Dry,
    /// Without the lease nothing was sent.
    NoLease,
}

/// What is on the server under a name.
enum There {
    Nothing,
    Ours(Box<Registration>),
    NotOurs(Owner),
}

impl Apply<'_> {
    /// Creates or updates. `known`: it is believed to be there already.
    pub(super) async fn ensure(
        &self,
        desired: &Desired,
        known: bool,
        may_update: bool,
    ) -> Result<Outcome, Halt> {
        self.plane.learn(&desired.id.mesh).await?;
        if self.is_equal_as_last_seen(desired) {
            return Ok(Outcome::Equal);
        }
        let _turn = self.plane.turn(&desired.id).await;
        redo!(self.try_to_ensure(desired, known, may_update))
    }

    async fn try_to_ensure(&self, desired: &Desired, known: bool, may_update: bool) -> Result<Outcome, Halt> {
        self.turn_to_write().await;
        let current = match self.look(&desired.id).await? {
            There::NotOurs(owner) => return Ok(self.taken(&desired.id, owner)),
            There::Nothing if known => return Ok(self.gone(&desired.id)),
            There::Nothing => return self.create(desired).await,
            There::Ours(current) => current,
        };
        let rendered = self.plane.mesh.render(desired, Some(&current));
        let changes = diff(&current.normal, &rendered.normal);
        self.plane.registry.record(self.task, &Sighting::from(&*current), self.clock.now());
        if changes.is_empty() {
            return Ok(Outcome::Equal);
        }
        if !may_update {
            return Ok(Outcome::MayNotUpdate(changes));
        }
        match self.write(&desired.id, &rendered).await? {
            Sent::NoLease => return Ok(Outcome::NoLease),
            Sent::Dry => {}
            Sent::Done => {
                self.plane.registry.wrote(self.task, &desired.id, None, &rendered.normal, self.clock.now());
            }
        }
        Ok(Outcome::Updated(changes))
    }

    async fn create(&self, desired: &Desired) -> Result<Outcome, Halt> {
        let (id, rendered) = (&desired.id, self.plane.mesh.render(desired, None));
        if self.may_send() == Sent::Done {
            // Should the answer get lost, this is what finds the registration again.
            let (service, binding) = (desired.service.as_str(), &desired.binding);
            self.plane.registry.expect(self.task, id, service, binding, self.clock.now());
        }
        match self.write(id, &rendered).await {
            Ok(Sent::Dry) => Ok(Outcome::Created(rendered.normal)),
            Ok(Sent::Done) => {
                self.plane.registry.wrote(self.task, id, None, &rendered.normal, self.clock.now());
                Ok(Outcome::Created(rendered.normal))
            }
            Ok(Sent::NoLease) => {
                self.plane.registry.forget(self.task, id);
                Ok(Outcome::NoLease)
            }
            Err(halt) => {
                if !halt.may_have_happened() {
                    self.plane.registry.forget(self.task, id);
                }
                Err(halt)
            }
        }
    }

    /// Takes out of service.
    pub(super) async fn drain(&self, id: &RegistrationId, reason: DrainReason) -> Result<Outcome, Halt> {
        let _turn = self.plane.turn(id).await;
        redo!(self.try_to_drain(id, reason))
    }

    async fn try_to_drain(&self, id: &RegistrationId, reason: DrainReason) -> Result<Outcome, Halt> {
        // What the client has yet to learn it would ask between the check of the lease and the write.
        self.plane.learn(&id.mesh).await?;
        self.turn_to_write().await;
        let current = match self.look(id).await? {
            There::Nothing => return Ok(self.gone(id)),
            There::NotOurs(owner) => return Ok(self.taken(id, owner)),
            There::Ours(current) => current,
        };
        if current.drained.is_some_and(|now| now == reason || now == DrainReason::Stopping) {
            self.plane.registry.record(self.task, &Sighting::from(&*current), self.clock.now());
            return Ok(Outcome::Equal);
        }
        let rendered = self.plane.mesh.render_drained(&current, reason);
        match self.write(id, &rendered).await? {
            Sent::NoLease => return Ok(Outcome::NoLease),
            Sent::Dry => {}
            Sent::Done => {
                self.plane.registry.wrote(self.task, id, Some(reason), &rendered.normal, self.clock.now());
            }
        }
        Ok(Outcome::Drained)
    }

    /// Removes what the step is about. `grace`: how long an absence must have lasted.
    pub(super) async fn remove(&self, step: &Step, grace: Duration) -> Result<Outcome, Halt> {
        let _turn = self.plane.turn(&step.id).await;
        let mut sent = false;
        match self.remove_or_redo(step, grace, &mut sent).await {
            Err(Halt::Failed(error)) if error.kind == MeshErrorKind::NoLease => Ok(Outcome::NoLease),
            Err(Halt::Failed(error)) if sent => Ok(Outcome::NotRemoved(error)),
            ended => ended,
        }
    }

    async fn remove_or_redo(&self, step: &Step, grace: Duration, sent: &mut bool) -> Result<Outcome, Halt> {
        redo!(self.try_to_remove(step, grace, sent))
    }

    /// Whether the evidence for a removal still holds. An absence rests on a describe made right before the removal.
    fn is_confirmed(&self, step: &Step, grace: Duration) -> bool {
        if !matches!(step.action, Action::Remove(Evidence::Absent { .. })) {
            return true;
        }
        matches!(self.store.snapshot(self.task, grace, self.clock.now()).life, Life::Absent { .. })
    }

    /// As [`Self::is_confirmed`], after another describe where the last one is too old: the removal may have waited for
    /// the write rate, for its turn, or for the role that the audit log names.
    async fn confirm(&self, step: &Step, grace: Duration) -> bool {
        self.is_confirmed(step, grace)
            || self.describer.describe(self.task, grace).await.is_ok() && self.is_confirmed(step, grace)
    }

    /// Says in `sent` whether a removal went out.
    async fn try_to_remove(&self, step: &Step, grace: Duration, sent: &mut bool) -> Result<Outcome, Halt> {
        if self.plane.pays_for_a_write(self.plane.mesh.removed_together(&step.id)) {
            self.turn_to_write().await;
        }
        if !self.confirm(step, grace).await {
            return Ok(Outcome::Unconfirmed);
        }
        let (id, registry) = (&step.id, &self.plane.registry);
        let unheard = registry.is_unheard(self.task, id);
        match self.look(id).await? {
            There::Nothing => return Ok(self.gone_after(id, unheard)),
            There::NotOurs(owner) => return Ok(self.taken(id, owner)),
            There::Ours(_) => {}
        }
        if !self.is_confirmed(step, grace) {
            return Ok(Outcome::Unconfirmed);
        }
        match self.may_send() {
            Sent::NoLease => return Ok(Outcome::NoLease),
            Sent::Dry => return Ok(Outcome::Removed),
            Sent::Done => {}
        }
        *sent = true;
        if step.needs_guard() {
            self.plane.guard(&step.binding.name, |guard| guard.sent(self.task));
        }
        // Should the answer get lost, this is what knows that there was a removal.
        registry.sends_removal(self.task, step);
        match self.plane.call(self.plane.mesh.delete(id)).await {
            Ok(true) => {
                registry.forget(self.task, id);
                Ok(Outcome::Removed)
            }
            Ok(false) => Ok(self.gone_after(id, unheard)),
            Err(halt) => {
                if !unheard && !halt.may_have_happened() {
                    registry.heard(self.task, id);
                }
                Err(halt)
            }
        }
    }

    /// Looks whether a removal took effect that was sent and is not due any more.
    pub(super) async fn look_after(&self, id: &RegistrationId) -> Result<Outcome, Halt> {
        let _turn = self.plane.turn(id).await;
        let unheard = self.plane.registry.is_unheard(self.task, id);
        match self.look(id).await? {
            There::Nothing => Ok(self.gone_after(id, unheard)),
            There::NotOurs(owner) => Ok(self.taken(id, owner)),
            There::Ours(_) => {
                self.plane.registry.heard(self.task, id);
                Ok(Outcome::Equal)
            }
        }
    }

    /// It is not there. With `unheard` a removal of ours had been sent.
    fn gone_after(&self, id: &RegistrationId, unheard: bool) -> Outcome {
        match self.gone(id) {
            _ if unheard => Outcome::RemovedUnheard,
            vanished => vanished,
        }
    }

    /// Whether what was last seen is what is desired, so that nobody needs to be asked.
    fn is_equal_as_last_seen(&self, desired: &Desired) -> bool {
        let entries = self.plane.registry.of(self.task);
        let Some(entry) = entries.iter().find(|entry| entry.id == desired.id) else { return false };
        let settled = entry.drained.is_none() && matches!(desired.outbounds, Outbounds::Exactly(_));
        settled && entry.fingerprint == Some(Fingerprint::of(&self.plane.mesh.render(desired, None).normal))
    }

    async fn look(&self, id: &RegistrationId) -> Result<There, Halt> {
        Ok(match self.plane.call(self.plane.mesh.read(id)).await? {
            None => There::Nothing,
            Some(found) if found.owner == Owner::Marked(self.marks.clone()) => There::Ours(Box::new(found)),
            Some(found) => There::NotOurs(found.owner),
        })
    }

    /// Waits for the write rate, before the look: between that and the write nothing may wait.
    async fn turn_to_write(&self) {
        if !self.dry {
            self.plane.writes.acquire(1).await;
        }
    }

    /// Asked last before each write and removal: the one place that tells a dry run from a real one.
    fn may_send(&self) -> Sent {
        if self.dry {
            Sent::Dry
        } else if self.lease.holds() {
            Sent::Done
        } else {
            Sent::NoLease
        }
    }

    async fn write(&self, id: &RegistrationId, rendered: &Rendered) -> Result<Sent, Halt> {
        let sent = self.may_send();
        if sent == Sent::Done {
            self.plane.call(self.plane.mesh.put(id, &rendered.body)).await?;
            self.plane.is_over(|kind| kind != MeshErrorKind::NoSuchMesh);
        }
        Ok(sent)
    }

    fn gone(&self, id: &RegistrationId) -> Outcome {
        self.plane.registry.forget(self.task, id);
        Outcome::Vanished
    }

    fn taken(&self, id: &RegistrationId, owner: Owner) -> Outcome {
        self.plane.registry.forget(self.task, id);
        Outcome::Taken(owner)
    }
}
