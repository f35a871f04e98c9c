//! Applies steps one by one, each with a check right before its write. A failed object blocks only its dependents, and of
//! these only additions. Throttling or unreachable servers defer the rest.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::time::Instant;

use super::acl_state::ObjectKey;
use super::pass::AclReconcile;
use super::report::{AclOutcome, AclReporter};
use crate::backend::{AclBackend, WriteGate, WriteResult};
use crate::desired::{DesiredObjects, DesiredState, ObjectId};
use crate::plan::{AclAction, AclStep};
use ecs_mesh_api::manifests::ManifestSet;
use ecs_mesh_control_plane::{CallError, MeshError, MeshErrorKind, call};
use ecs_mesh_controller::WriteObstacle;
use ecs_mesh_core::plan::report::ObjectKind;

const SUPERSEDED_BY_MANIFESTS: &str = "superseded by newer manifests";

/// The results of a pass's steps.
#[derive(Default)]
pub(super) struct PassResult {
    pub(super) outcomes: Vec<(AclStep, AclOutcome)>,
    pub(super) wrote: bool,
    pub(super) failed: bool,
    /// No more calls in this pass.
    pub(super) is_halted: bool,
    pub(super) not_before: Option<Instant>,
}

/// Applies the steps of one reconcile, for one set of manifests.
pub(super) struct Applier<'a> {
    pass: &'a AclReconcile<'a>,
    backend: &'a dyn AclBackend,
    set: &'a ManifestSet,
    reporter: AclReporter<'a>,
    written: BTreeMap<ObjectKey, AclAction>,
}

impl<'a> Applier<'a> {
    pub(super) fn new(
        pass: &'a AclReconcile<'a>,
        backend: &'a dyn AclBackend,
        set: &'a ManifestSet,
        reporter: AclReporter<'a>,
    ) -> Self {
        Self { pass, backend, set, reporter, written: BTreeMap::new() }
    }

    /// Whether this reconcile has written the same already.
    pub(super) fn has_written(&self, step: &AclStep) -> bool {
        step.writes() && self.written.get(&key(step)).is_some_and(|before| are_alike(before, &step.action))
    }

    /// Whether newer manifests than those of the steps are in force.
    pub(super) fn is_superseded(&self) -> bool {
        self.pass.acl.host.manifests().generation != self.set.generation
    }

    /// Applies the steps. `throttled`: the snapshot was throttled.
    pub(super) async fn apply(
        &mut self,
        desired: &DesiredObjects,
        steps: Vec<AclStep>,
        throttled: Option<&MeshError>,
    ) -> PassResult {
        let mut result = PassResult::default();
        if let Some(error) = throttled {
            result.halt(error.retry_after.map(|wait| Instant::now() + wait));
        }
        let mut failed: BTreeSet<ObjectId> = BTreeSet::new();
        // Failed objects that exist and so block the removal of what they reference.
        let mut remaining: BTreeSet<ObjectId> = BTreeSet::new();
        for step in steps {
            let missing =
                missing(desired, &step, if step.action == AclAction::Remove { &remaining } else { &failed });
            let (step, outcome) = self.apply_step(step, &missing, &mut result).await;
            self.reporter.report_outcome(&step, &outcome);
            match &outcome {
                AclOutcome::Unchanged | AclOutcome::DryRun => {}
                AclOutcome::Done => {
                    result.wrote = true;
                    self.written.insert(key(&step), step.action.clone());
                }
                // An early retry would not help.
                AclOutcome::Obstructed(WriteObstacle::NotLeader | WriteObstacle::UnsupportedControlPlane)
                | AclOutcome::NotConverging
                | AclOutcome::Unsupported(_)
                | AclOutcome::Blocked(_) => {
                    failed.insert(step.id.clone());
                }
                AclOutcome::Obstructed(WriteObstacle::AuditBacklog | WriteObstacle::LeaseEnds)
                | AclOutcome::Deferred(_)
                | AclOutcome::Stale(_)
                | AclOutcome::Failed(_) => {
                    result.failed = true;
                    failed.insert(step.id.clone());
                }
            }
            if failed.contains(&step.id) && !matches!(step.action, AclAction::Create { .. }) {
                remaining.insert(step.id.clone());
            }
            result.outcomes.push((step, outcome));
        }
        result
    }

    /// Applies the step, or the part of it that is possible without the missing objects.
    async fn apply_step(
        &self,
        mut step: AclStep,
        missing: &[&ObjectId],
        result: &mut PassResult,
    ) -> (AclStep, AclOutcome) {
        if !step.writes() {
            return (step, AclOutcome::Unchanged);
        }
        if self.is_superseded() {
            return (step, AclOutcome::Deferred(SUPERSEDED_BY_MANIFESTS.to_owned()));
        }
        if self.pass.stop.is_cancelled() || result.is_halted {
            return (step, AclOutcome::Deferred("deferred to a later pass".to_owned()));
        }
        if let Some(dependency) = missing.first() {
            let Some(rest) = step.without_references(missing) else {
                let reason = format!("blocked by {dependency}, which could not be written");
                return (step, AclOutcome::Blocked(reason));
            };
            step = rest;
        }
        if self.has_written(&step) {
            return (step, AclOutcome::NotConverging);
        }
        let outcome = self.write(&step, result).await;
        (step, outcome)
    }

    async fn write(&self, step: &AclStep, result: &mut PassResult) -> AclOutcome {
        let acl = self.pass.acl;
        let dry = acl.is_dry_run();
        if !dry {
            // Before the read that precedes the write, since nothing may wait between these two.
            acl.target.writes.acquire(1).await;
        }
        let sent = AtomicBool::new(false);
        let may_send = || match (dry, self.is_superseded(), acl.lease.obstacle()) {
            (true, ..) => WriteGate::Dry,
            (_, true, _) => WriteGate::Outdated(SUPERSEDED_BY_MANIFESTS),
            (.., Some(obstacle)) => WriteGate::Obstructed(obstacle),
            (.., None) => {
                // Recorded first: the caller may be cancelled before the response.
                acl.target.state.begin_write(key(step), step);
                sent.store(true, Ordering::Relaxed);
                WriteGate::Allowed
            }
        };
        let answer = call(&acl.target.circuit, self.backend.apply(step, &may_send)).await;
        if sent.load(Ordering::Relaxed) && !answer.as_ref().is_err_and(CallError::may_have_taken_effect) {
            acl.target.state.acknowledge(&key(step), matches!(answer, Ok(WriteResult::Done)));
        }
        match answer {
            Ok(WriteResult::Done) => AclOutcome::Done,
            Ok(WriteResult::Dry) => AclOutcome::DryRun,
            Ok(WriteResult::Obstructed(obstacle)) => AclOutcome::Obstructed(obstacle),
            Ok(WriteResult::Stale(reason)) => AclOutcome::Stale(reason),
            Ok(WriteResult::Unsupported(reason)) => AclOutcome::Unsupported(reason),
            Err(CallError::CircuitOpen(at)) => {
                result.halt(Some(at));
                AclOutcome::Deferred("the control plane is unreachable".to_owned())
            }
            Err(CallError::Failed(error)) => {
                if error.kind == MeshErrorKind::Throttled {
                    result.halt(error.retry_after.map(|wait| Instant::now() + wait));
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

/// Whether both write the same.
fn are_alike(one: &AclAction, other: &AclAction) -> bool {
    match (one, other) {
        (AclAction::Update { fields: a, .. }, AclAction::Update { fields: b, .. }) => a
            .iter()
            .map(|change| (&change.path, &change.after))
            .eq(b.iter().map(|change| (&change.path, &change.after))),
        (a, b) => std::mem::discriminant(a) == std::mem::discriminant(b),
    }
}

/// Failed dependencies of the step's object; for a removal, dependents that could not be removed.
fn missing<'f>(
    desired: &DesiredObjects,
    step: &AclStep,
    failed: &'f BTreeSet<ObjectId>,
) -> Vec<&'f ObjectId> {
    if step.action == AclAction::Remove {
        // Removals come last, dependents before their dependencies.
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
