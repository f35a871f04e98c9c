//! Steps carried out one after the other, each right before whose write it is asked whether it still may go out. One
//! object that fails holds up only what rests on it, and of that only what it would add; servers that have no time or
//! do not answer hold up the rest.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::time::Instant;

use super::keeping::Key;
use super::pass::Pass;
use super::report::{Outcome, Report};
use crate::backend::{Identities, MaySend, Written};
use crate::desired::{DesiredObjects, ObjectId, Want};
use crate::plan::{ObjectAction, ObjectStep};
use ecs_mesh_api::manifests::ManifestSet;
use ecs_mesh_control_plane::{Halt, MeshError, MeshErrorKind, call};
use ecs_mesh_core::plan::proposal::ObjectKind;

const SUPERSEDED: &str = "other manifests are in force by now";

/// What a round's steps came to.
#[derive(Default)]
pub(super) struct Round {
    pub(super) outcomes: Vec<(ObjectStep, Outcome)>,
    pub(super) wrote: bool,
    pub(super) failed: bool,
    /// Nothing more is asked of the control plane for now.
    pub(super) is_halted: bool,
    pub(super) not_before: Option<Instant>,
}

/// Carries out the steps of one pass, by one set of manifests.
pub(super) struct Hand<'a> {
    pass: &'a Pass<'a>,
    identities: &'a dyn Identities,
    set: &'a ManifestSet,
    report: Report<'a>,
    written: BTreeMap<Key, ObjectAction>,
}

impl<'a> Hand<'a> {
    pub(super) fn new(
        pass: &'a Pass<'a>,
        identities: &'a dyn Identities,
        set: &'a ManifestSet,
        report: Report<'a>,
    ) -> Self {
        Self { pass, identities, set, report, written: BTreeMap::new() }
    }

    /// Whether just this has been written in this pass.
    pub(super) fn has_written(&self, step: &ObjectStep) -> bool {
        step.writes() && self.written.get(&key(step)).is_some_and(|before| are_alike(before, &step.action))
    }

    /// Whether other manifests are in force than those that the steps follow from.
    pub(super) fn is_superseded(&self) -> bool {
        self.pass.acl.host.manifests().generation != self.set.generation
    }

    /// `busy`: the look was told by the servers that they have too much to do.
    pub(super) async fn carry_out(
        &mut self,
        desired: &DesiredObjects,
        steps: Vec<ObjectStep>,
        busy: Option<&MeshError>,
    ) -> Round {
        let mut round = Round::default();
        if let Some(error) = busy {
            round.halt(error.retry_after.map(|wait| Instant::now() + wait));
        }
        let mut failed: BTreeSet<ObjectId> = BTreeSet::new();
        // Of these something is there; what could not be made rests on nothing.
        let mut left: BTreeSet<ObjectId> = BTreeSet::new();
        for step in steps {
            let missing =
                missing(desired, &step, if step.action == ObjectAction::Remove { &left } else { &failed });
            let (step, outcome) = self.take(step, &missing, &mut round).await;
            self.report.tell_of(&step, &outcome);
            match &outcome {
                Outcome::Seen | Outcome::Planned => {}
                Outcome::Done => {
                    round.wrote = true;
                    self.written.insert(key(&step), step.action.clone());
                }
                // Trying again soon would change nothing.
                Outcome::NoLease | Outcome::Stubborn | Outcome::Impossible(_) | Outcome::Waits(_) => {
                    failed.insert(step.id.clone());
                }
                Outcome::Later(_) | Outcome::Moved(_) | Outcome::Failed(_) => {
                    round.failed = true;
                    failed.insert(step.id.clone());
                }
            }
            if failed.contains(&step.id) && !matches!(step.action, ObjectAction::Create { .. }) {
                left.insert(step.id.clone());
            }
            round.outcomes.push((step, outcome));
        }
        round
    }

    /// The step, or what can be done of it while these are missing, and what it came to.
    async fn take(
        &self,
        mut step: ObjectStep,
        missing: &[&ObjectId],
        round: &mut Round,
    ) -> (ObjectStep, Outcome) {
        if !step.writes() {
            return (step, Outcome::Seen);
        }
        if self.is_superseded() {
            return (step, Outcome::Later(SUPERSEDED.to_owned()));
        }
        if self.pass.stop.is_cancelled() || round.is_halted {
            return (step, Outcome::Later("it is tried again later".to_owned()));
        }
        if let Some(need) = missing.first() {
            let Some(rest) = step.without(missing) else {
                let why = format!("something must come first: {need} could not be written");
                return (step, Outcome::Waits(why));
            };
            step = rest;
        }
        if self.has_written(&step) {
            return (step, Outcome::Stubborn);
        }
        let outcome = self.write(&step, round).await;
        (step, outcome)
    }

    async fn write(&self, step: &ObjectStep, round: &mut Round) -> Outcome {
        let acl = self.pass.acl;
        let dry = acl.is_dry();
        if !dry {
            // Before the read that comes before the write: between these nothing may wait.
            acl.target.writes.acquire(1).await;
        }
        let sent = AtomicBool::new(false);
        let may_send = || match (dry, self.is_superseded(), acl.lease.holds()) {
            (true, ..) => MaySend::Dry,
            (_, true, _) => MaySend::Outdated(SUPERSEDED),
            (.., false) => MaySend::NoLease,
            (.., true) => {
                // Whoever waits for the answer may be cut off.
                acl.target.keeping.sends(key(step), step);
                sent.store(true, Ordering::Relaxed);
                MaySend::Yes
            }
        };
        let answer = call(&acl.target.circuit, self.identities.carry_out(step, &may_send)).await;
        if sent.load(Ordering::Relaxed) && !answer.as_ref().is_err_and(Halt::may_have_happened) {
            acl.target.keeping.was_answered(&key(step), matches!(answer, Ok(Written::Done)));
        }
        match answer {
            Ok(Written::Done) => Outcome::Done,
            Ok(Written::Dry) => Outcome::Planned,
            Ok(Written::NoLease) => Outcome::NoLease,
            Ok(Written::Moved(why)) => Outcome::Moved(why),
            Ok(Written::Impossible(why)) => Outcome::Impossible(why),
            Err(Halt::Until(at)) => {
                round.halt(Some(at));
                Outcome::Later("the control plane has not been reachable".to_owned())
            }
            Err(Halt::Failed(error)) => {
                if error.kind == MeshErrorKind::Busy {
                    round.halt(error.retry_after.map(|wait| Instant::now() + wait));
                }
                Outcome::Failed(error)
            }
        }
    }
}

impl Round {
    fn halt(&mut self, not_before: Option<Instant>) {
        self.is_halted = true;
        self.not_before = not_before;
    }
}

pub(super) fn key(step: &ObjectStep) -> Key {
    (step.id.clone(), step.server_id.clone())
}

/// Whether both would write the same.
fn are_alike(one: &ObjectAction, other: &ObjectAction) -> bool {
    match (one, other) {
        (ObjectAction::Update { fields: a, .. }, ObjectAction::Update { fields: b, .. }) => a
            .iter()
            .map(|change| (&change.path, &change.after))
            .eq(b.iter().map(|change| (&change.path, &change.after))),
        (a, b) => std::mem::discriminant(a) == std::mem::discriminant(b),
    }
}

/// What the step's object rests on and could not be written, or what rests on it and could not be removed.
fn missing<'f>(
    desired: &DesiredObjects,
    step: &ObjectStep,
    failed: &'f BTreeSet<ObjectId>,
) -> Vec<&'f ObjectId> {
    if step.action == ObjectAction::Remove {
        // Removals come last, and each kind of them before what it rests on.
        let above: &[ObjectKind] = match step.id.kind {
            ObjectKind::AuthMethod => &[ObjectKind::BindingRule],
            ObjectKind::Role => &[ObjectKind::BindingRule, ObjectKind::AuthMethod],
            ObjectKind::Policy => &[ObjectKind::Role, ObjectKind::AnonymousToken, ObjectKind::Namespace],
            _ => &[],
        };
        return failed.iter().filter(|id| above.contains(&id.kind)).collect();
    }
    let object = desired.objects.iter().find(|object| object.id == step.id);
    let needs = match object.map(|object| &object.want) {
        Some(Want::Present { needs, .. }) => needs.as_slice(),
        Some(Want::Links { attach, .. }) => attach.as_slice(),
        Some(Want::Absent | Want::Held(_)) | None => &[],
    };
    failed.iter().filter(|id| needs.contains(id)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desired::Scope;

    fn step(kind: ObjectKind, action: ObjectAction) -> ObjectStep {
        let id = ObjectId { kind, scope: Scope::default(), name: "x".into() };
        ObjectStep { id, server_id: None, action, reason: "r".into(), warnings: Vec::new(), before: None }
    }

    #[test]
    fn what_something_rests_on_goes_after_it_or_not_at_all() {
        let failed = |kind| BTreeSet::from([step(kind, ObjectAction::Remove).id]);
        let desired = DesiredObjects::default();
        for (goes, stays, waits) in [
            (ObjectKind::Policy, ObjectKind::Role, true),
            (ObjectKind::Policy, ObjectKind::AnonymousToken, true),
            (ObjectKind::AuthMethod, ObjectKind::BindingRule, true),
            (ObjectKind::Node, ObjectKind::Role, false),
            (ObjectKind::BindingRule, ObjectKind::Policy, false),
        ] {
            let failed = failed(stays);
            let found = missing(&desired, &step(goes, ObjectAction::Remove), &failed);
            assert_eq!(!found.is_empty(), waits, "{goes:?} after {stays:?}");
        }
    }
}
