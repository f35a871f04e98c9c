//! Steps carried out one after the other, each right before whose write it is asked whether it still may go out. One
//! object that fails holds up only what rests on it, and of that only what it would add; servers that have no time or
//! do not answer hold up the rest.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::time::Instant;

use super::acl_state::ObjectKey;
use super::pass::AclReconcile;
use super::report::{AclOutcome, AclReporter};
use crate::backend::{AclBackend, WriteGate, WriteResult};
use crate::desired::{DesiredObjects, ObjectId, DesiredState};
use crate::plan::{AclAction, AclStep};
use ecs_mesh_api::manifests::ManifestSet;
use ecs_mesh_control_plane::{CallError, MeshError, MeshErrorKind, call};
use ecs_mesh_core::plan::report::ObjectKind;

const SUPERSEDED_BY_MANIFESTS: &str = "other manifests are in force by now";

/// What a round's steps came to.
#[derive(Default)]
pub(super) struct PassResult {
    pub(super) outcomes: Vec<(AclStep, AclOutcome)>,
    pub(super) wrote: bool,
    pub(super) failed: bool,
    /// Nothing more is asked of the control plane for now.
    pub(super) is_halted: bool,
    pub(super) not_before: Option<Instant>,
}

/// Carries out the steps of one pass, by one set of manifests.
pub(super) struct Applier<'a> {
    pass: &'a AclReconcile<'a>,
    identities: &'a dyn AclBackend,
    set: &'a ManifestSet,
    reporter: AclReporter<'a>,
    written: BTreeMap<ObjectKey, AclAction>,
}

impl<'a> Applier<'a> {
    pub(super) fn new(
        pass: &'a AclReconcile<'a>,
        identities: &'a dyn AclBackend,
        set: &'a ManifestSet,
        reporter: AclReporter<'a>,
    ) -> Self {
        Self { pass, identities, set, reporter, written: BTreeMap::new() }
    }

    /// Whether just this has been written in this pass.
    pub(super) fn has_written(&self, step: &AclStep) -> bool {
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
        steps: Vec<AclStep>,
        busy: Option<&MeshError>,
    ) -> PassResult {
        let mut round = PassResult::default();
        if let Some(error) = busy {
            round.halt(error.retry_after.map(|wait| Instant::now() + wait));
        }
        let mut failed: BTreeSet<ObjectId> = BTreeSet::new();
        // Of these something is there; what could not be made rests on nothing.
        let mut left: BTreeSet<ObjectId> = BTreeSet::new();
        for step in steps {
            let missing =
                missing(desired, &step, if step.action == AclAction::Remove { &left } else { &failed });
            let (step, outcome) = self.apply_step(step, &missing, &mut round).await;
            self.reporter.report_outcome(&step, &outcome);
            match &outcome {
                AclOutcome::Unchanged | AclOutcome::DryRun => {}
                AclOutcome::Done => {
                    round.wrote = true;
                    self.written.insert(key(&step), step.action.clone());
                }
                // Trying again soon would change nothing.
                AclOutcome::NoLease | AclOutcome::NotConverging | AclOutcome::Unsupported(_) | AclOutcome::Blocked(_) => {
                    failed.insert(step.id.clone());
                }
                AclOutcome::Deferred(_) | AclOutcome::Stale(_) | AclOutcome::Failed(_) => {
                    round.failed = true;
                    failed.insert(step.id.clone());
                }
            }
            if failed.contains(&step.id) && !matches!(step.action, AclAction::Create { .. }) {
                left.insert(step.id.clone());
            }
            round.outcomes.push((step, outcome));
        }
        round
    }

    /// The step, or what can be done of it while these are missing, and what it came to.
    async fn apply_step(
        &self,
        mut step: AclStep,
        missing: &[&ObjectId],
        round: &mut PassResult,
    ) -> (AclStep, AclOutcome) {
        if !step.writes() {
            return (step, AclOutcome::Unchanged);
        }
        if self.is_superseded() {
            return (step, AclOutcome::Deferred(SUPERSEDED_BY_MANIFESTS.to_owned()));
        }
        if self.pass.stop.is_cancelled() || round.is_halted {
            return (step, AclOutcome::Deferred("it is tried again later".to_owned()));
        }
        if let Some(need) = missing.first() {
            let Some(rest) = step.without_references(missing) else {
                let why = format!("something must come first: {need} could not be written");
                return (step, AclOutcome::Blocked(why));
            };
            step = rest;
        }
        if self.has_written(&step) {
            return (step, AclOutcome::NotConverging);
        }
        let outcome = self.write(&step, round).await;
        (step, outcome)
    }

    async fn write(&self, step: &AclStep, round: &mut PassResult) -> AclOutcome {
        let acl = self.pass.acl;
        let dry = acl.is_dry_run();
        if !dry {
            // Before the read that comes before the write: between these nothing may wait.
            acl.target.writes.acquire(1).await;
        }
        let sent = AtomicBool::new(false);
        let may_send = || match (dry, self.is_superseded(), acl.lease.holds()) {
            (true, ..) => WriteGate::Dry,
            (_, true, _) => WriteGate::Outdated(SUPERSEDED_BY_MANIFESTS),
            (.., false) => WriteGate::NoLease,
            (.., true) => {
                // Whoever waits for the answer may be cut off.
                acl.target.keeping.begin_write(key(step), step);
                sent.store(true, Ordering::Relaxed);
                WriteGate::Allowed
            }
        };
        let answer = call(&acl.target.circuit, self.identities.apply(step, &may_send)).await;
        if sent.load(Ordering::Relaxed) && !answer.as_ref().is_err_and(CallError::may_have_taken_effect) {
            acl.target.keeping.acknowledge(&key(step), matches!(answer, Ok(WriteResult::Done)));
        }
        match answer {
            Ok(WriteResult::Done) => AclOutcome::Done,
            Ok(WriteResult::Dry) => AclOutcome::DryRun,
            Ok(WriteResult::NoLease) => AclOutcome::NoLease,
            Ok(WriteResult::Stale(why)) => AclOutcome::Stale(why),
            Ok(WriteResult::Unsupported(why)) => AclOutcome::Unsupported(why),
            Err(CallError::Until(at)) => {
                round.halt(Some(at));
                AclOutcome::Deferred("the control plane has not been reachable".to_owned())
            }
            Err(CallError::Failed(error)) => {
                if error.kind == MeshErrorKind::Throttled {
                    round.halt(error.retry_after.map(|wait| Instant::now() + wait));
                }
                AclOutcome::Failed(error)
            }
        }
    }
}

impl PassResult {
    fn halt(&mut self, not_before: Option<Instant>) {
        self.is_halted = true;
        self.not_before = not_before;
    }
}

pub(super) fn key(step: &AclStep) -> ObjectKey {
    (step.id.clone(), step.server_id.clone())
}

/// Whether both would write the same.
fn are_alike(one: &AclAction, other: &AclAction) -> bool {
    match (one, other) {
        (AclAction::Update { fields: a, .. }, AclAction::Update { fields: b, .. }) => a
            .iter()
            .map(|change| (&change.path, &change.after))
            .eq(b.iter().map(|change| (&change.path, &change.after))),
        (a, b) => std::mem::discriminant(a) == std::mem::discriminant(b),
    }
}

/// What the step's object rests on and could not be written, or what rests on it and could not be removed.
fn missing<'f>(
    desired: &DesiredObjects,
    step: &AclStep,
    failed: &'f BTreeSet<ObjectId>,
) -> Vec<&'f ObjectId> {
    if step.action == AclAction::Remove {
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
    let needs = match object.map(|object| &object.state) {
        Some(DesiredState::Present { needs, .. }) => needs.as_slice(),
        Some(DesiredState::PolicyLinks { attach, .. }) => attach.as_slice(),
        Some(DesiredState::Absent | DesiredState::Blocked(_)) | None => &[],
    };
    failed.iter().filter(|id| needs.contains(id)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desired::ObjectScope;

    fn step(kind: ObjectKind, action: AclAction) -> AclStep {
        let id = ObjectId { kind, scope: ObjectScope::default(), name: "x".into() };
        AclStep { id, server_id: None, action, reason: "r".into(), warnings: Vec::new(), before: None }
    }

    #[test]
    fn dependency_is_removed_after_its_dependents() {
        let failed = |kind| BTreeSet::from([step(kind, AclAction::Remove).id]);
        let desired = DesiredObjects::default();
        for (goes, stays, waits) in [
            (ObjectKind::Policy, ObjectKind::Role, true),
            (ObjectKind::Policy, ObjectKind::AnonymousToken, true),
            (ObjectKind::AuthMethod, ObjectKind::BindingRule, true),
            (ObjectKind::Node, ObjectKind::Role, false),
            (ObjectKind::BindingRule, ObjectKind::Policy, false),
        ] {
            let failed = failed(stays);
            let found = missing(&desired, &step(goes, AclAction::Remove), &failed);
            assert_eq!(!found.is_empty(), waits, "{goes:?} after {stays:?}");
        }
    }
}
