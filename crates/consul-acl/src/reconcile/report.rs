//! Reports a reconcile: one log line of target `audit` for each change of an ACL object, right after its write, so
//! that a cancelled reconcile leaves no change unreported; other conditions once, until they change; and metrics. A dry run
//! records planned changes instead.

use std::collections::BTreeMap;
use std::time::Duration;

use tracing::{debug, info, warn};

use super::AclReconciler;
use super::acl_state::ObjectKey;
use super::apply::key;
use super::host::{AclChange, AclChangeResult};
use crate::desired::{ObjectOwner, owner};
use crate::plan::{AclAction, AclStep, ActualObjects};
use ecs_mesh_control_plane::MeshError;
use ecs_mesh_controller::WriteObstacle;
use ecs_mesh_core::plan::FieldChange;
use ecs_mesh_core::plan::report::{Change, ObjectKind, PlannedChange};

const OUTCOME_UNKNOWN: &str = "; outcome unknown, the next pass verifies it";
const ERROR_CANCELLED: &str = "cancelled before the response; outcome unknown, the next pass verifies it";

/// The result of a step.
pub(super) enum AclOutcome {
    /// Nothing to write.
    Unchanged,
    /// Written.
    Done,
    /// A dry run would have written it.
    DryRun,
    /// This process may not write.
    Obstructed(WriteObstacle),
    /// A dependency was not written.
    Blocked(String),
    /// Deferred to a later pass.
    Deferred(String),
    /// Changed since the snapshot.
    Stale(String),
    /// The servers do not support it.
    Unsupported(String),
    /// Written by this reconcile, and still different.
    NotConverging,
    /// The write, or the read before it, failed.
    Failed(MeshError),
}

/// Reports the reconciles of one control plane.
#[derive(Clone, Copy)]
pub(super) struct AclReporter<'a> {
    pub(super) acl: &'a AclReconciler,
    /// Whether a `ConsulAuth` declares objects of this control plane.
    pub(super) is_declared: bool,
}

impl AclReporter<'_> {
    /// Called after each pass: clears the warnings of objects that are as declared.
    pub(super) fn finish_pass(&self, outcomes: &[(AclStep, AclOutcome)]) {
        if self.acl.is_dry_run() {
            return self.record_changes(outcomes);
        }
        let is_resolved = |(step, outcome): &&(AclStep, AclOutcome)| {
            matches!(
                (outcome, &step.action),
                (AclOutcome::Unchanged, AclAction::Unchanged) | (AclOutcome::Done, _)
            )
        };
        let unresolved =
            outcomes.iter().filter(|entry| !is_resolved(entry)).map(|(step, _)| key(step)).collect();
        self.acl.target.state.retain_warnings(&unresolved);
    }

    /// Reports writes whose response was lost and that the snapshot shows. A write that does not show within `long_enough`
    /// never took effect.
    pub(super) fn report_lost_responses(&self, long_enough: Duration, actual: &ActualObjects) {
        for step in self.acl.target.state.take_confirmed(long_enough, |step| actual.has_taken_effect(step)) {
            self.acl.metrics.record_acl_change(step.id.kind, self.change(&step), true);
            self.audit(&step, AclChangeResult::ResponseLost);
        }
    }

    /// Reports writes that were in flight when the reconcile was cancelled.
    pub(super) fn report_cancelled(&self) {
        for step in self.acl.target.state.take_unreported() {
            self.acl.metrics.record_acl_change(step.id.kind, self.change(&step), false);
            self.audit(&step, AclChangeResult::Error(ERROR_CANCELLED));
        }
    }

    /// Reports the failed reads of a snapshot.
    pub(super) fn report_errors(&self, errors: &[MeshError]) {
        let control_plane = &self.acl.target.name;
        let subject = format!("ACL objects of control plane {control_plane}");
        let first = errors.first().filter(|_| self.is_declared);
        self.acl.record_unresolved(&subject, first.map(|error| error.message.clone()));
        for error in errors {
            self.acl.metrics.record_warning(error.kind.label());
        }
        let new =
            self.acl.target.state.record_errors(errors.iter().map(|error| error.message.clone()).collect());
        for error in new {
            if self.is_declared {
                warn!(%control_plane, error, "reading ACL objects failed; they stay unchanged");
            } else {
                debug!(%control_plane, error, "reading ACL objects failed; they stay unchanged");
            }
        }
    }

    /// Records the planned changes of a dry run.
    fn record_changes(&self, outcomes: &[(AclStep, AclOutcome)]) {
        let Some(dry_run) = &self.acl.dry_run else { return };
        let mut changes = Vec::new();
        for (step, outcome) in outcomes {
            let planned = step.clone().into_plan_entry();
            let with_reason = |change: Change, reason: String| PlannedChange {
                fields: Vec::new(),
                registration: None,
                ..PlannedChange { change, key: reason.clone(), reason, ..planned.clone() }
            };
            changes.push(match outcome {
                AclOutcome::Blocked(reason)
                | AclOutcome::Deferred(reason)
                | AclOutcome::Unsupported(reason) => with_reason(Change::Hold, reason.clone()),
                AclOutcome::Stale(reason) => with_reason(Change::Unknown, reason.clone()),
                AclOutcome::Failed(error) => with_reason(Change::Unknown, error.message.clone()),
                AclOutcome::Unchanged
                | AclOutcome::Done
                | AclOutcome::DryRun
                | AclOutcome::Obstructed(_)
                | AclOutcome::NotConverging => planned,
            });
        }
        dry_run.record(&self.acl.target.name, changes);
    }

    /// Reports a step right after it.
    pub(super) fn report_outcome(&self, step: &AclStep, outcome: &AclOutcome) {
        if self.acl.is_dry_run() {
            return;
        }
        let key = &key(step);
        let metrics = &self.acl.metrics;
        match outcome {
            AclOutcome::Done => {
                metrics.record_acl_change(step.id.kind, self.change(step), true);
                self.audit(step, AclChangeResult::Success);
            }
            AclOutcome::Failed(error) => {
                metrics.record_acl_change(step.id.kind, self.change(step), false);
                metrics.record_warning(error.kind.label());
                let suffix = if self.acl.target.state.is_unacknowledged(key) { OUTCOME_UNKNOWN } else { "" };
                let error = format!("{}{suffix}", error.message);
                if self.acl.target.state.warn_once(key, &error) {
                    self.audit(step, AclChangeResult::Error(&error));
                } else {
                    let (control_plane, kind, name) = self.identify(step);
                    debug!(%control_plane, kind, name, error, "changing an ACL object failed again");
                }
            }
            AclOutcome::Unsupported(reason) => self.warn_once(key, step, true, reason),
            AclOutcome::NotConverging => self.warn_once(
                key,
                step,
                true,
                "Consul's copy differs from what was written; retried at the next reconcile",
            ),
            AclOutcome::Obstructed(obstacle) => {
                let reason = obstacle.label();
                metrics.record_warning(reason);
                let (control_plane, kind, name) = self.identify(step);
                debug!(%control_plane, kind, name, reason, "ACL object not changed");
            }
            AclOutcome::Blocked(reason) | AclOutcome::Deferred(reason) | AclOutcome::Stale(reason) => {
                let (control_plane, kind, name) = self.identify(step);
                debug!(%control_plane, kind, name, reason, "ACL object not changed");
            }
            AclOutcome::Unchanged | AclOutcome::DryRun => self.report_unchanged(key, step),
        }
    }

    fn report_unchanged(&self, key: &ObjectKey, step: &AclStep) {
        match &step.action {
            AclAction::Conflict { .. } | AclAction::Drifted { .. } | AclAction::Undeclared => {
                self.warn_once(key, step, true, &step.reason);
            }
            AclAction::Unmanaged => self.warn_once(key, step, !step.warnings.is_empty(), &step.reason),
            AclAction::Hold => self.warn_once(key, step, false, &step.reason),
            // Failed reads are reported by `report_errors`.
            _ => {
                let (control_plane, kind, name) = self.identify(step);
                debug!(%control_plane, kind, name, reason = step.reason, "ACL object not changed");
            }
        }
    }

    /// Logs once, until reason, fields or warnings change: as a warning or as information.
    fn warn_once(&self, key: &ObjectKey, step: &AclStep, is_warning: bool, reason: &str) {
        let (control_plane, kind, name) = self.identify(step);
        let (fields, warnings) = (paths(step), step.warnings.join("; "));
        let id = step.server_id.as_deref();
        if !self.acl.target.state.warn_once(key, &format!("{reason} {fields} {warnings}")) {
            debug!(%control_plane, kind, name, id, fields, warnings, reason, "ACL object not changed");
        } else if is_warning {
            warn!(%control_plane, kind, name, id, fields, warnings, reason, "ACL object not changed");
        } else {
            info!(%control_plane, kind, name, id, fields, warnings, reason, "ACL object not changed");
        }
    }

    /// The log fields that identify a step's object.
    fn identify<'s>(&'s self, step: &'s AclStep) -> (&'s str, &'static str, &'s str) {
        (&self.acl.target.name, step.id.kind.label(), &step.id.name)
    }

    /// Logs a change of an object for the audit trail, and passes it on.
    fn audit(&self, step: &AclStep, outcome: AclChangeResult<'_>) {
        let (result, error) = (outcome.label(), outcome.error());
        let operator = self.acl.target.backend.operators().current();
        let (control_plane, kind, name) = self.identify(step);
        let (version, change, scope) = (env!("CARGO_PKG_VERSION"), self.change(step), &step.id.scope);
        let (partition, namespace) = (scope.partition.as_deref(), scope.namespace.as_deref());
        let (id, fields, reason) = (step.server_id.as_deref(), paths(step), step.reason.as_str());
        let warnings = step.warnings.join("; ");
        macro_rules! log {
            ($level:ident, $message:literal) => {
                $level!(
                    target: "audit", %operator, version, control_plane, partition, namespace, kind, name, id,
                    change, fields, reason, warnings, result, error, $message
                )
            };
        }
        if error.is_none() {
            log!(info, "ACL object changed");
        } else {
            log!(warn, "changing an ACL object failed");
        }
        self.acl.host.record_change(AclChange {
            control_plane: &self.acl.target.name,
            kind: step.id.kind,
            name: &step.id.name,
            id,
            change,
            reason,
            fields: changed_fields(step).iter().map(|change| change.path.clone()).collect(),
            result: outcome,
        });
    }

    /// The kind of change, as a log field and metric label.
    fn change(&self, step: &AclStep) -> &'static str {
        match &step.action {
            AclAction::Create { .. } => "create",
            AclAction::Remove => "remove",
            _ => {
                let is_markable = !matches!(step.id.kind, ObjectKind::AnonymousToken | ObjectKind::Namespace);
                let was_unmarked = step.before.as_ref().is_some_and(|body| {
                    owner(step.id.kind, body, self.acl.target.backend.operators()) == ObjectOwner::Unmarked
                });
                if is_markable && was_unmarked { "adopt" } else { "update" }
            }
        }
    }
}

/// The differing fields.
fn changed_fields(step: &AclStep) -> &[FieldChange] {
    match &step.action {
        AclAction::Update { fields, .. } => fields,
        AclAction::Conflict { difference } | AclAction::Drifted { difference } => difference,
        _ => &[],
    }
}

/// The paths of the differing fields, without values.
fn paths(step: &AclStep) -> String {
    changed_fields(step).iter().map(|change| change.path.as_str()).collect::<Vec<_>>().join(", ")
}

/// One of [`OBJECT_STATES`](super::OBJECT_STATES).
fn state(step: &AclStep, outcome: &AclOutcome) -> &'static str {
    match (outcome, &step.action) {
        (AclOutcome::Done, _) | (AclOutcome::Unchanged, AclAction::Unchanged) => "ok",
        (AclOutcome::Unchanged, AclAction::Conflict { .. }) => "conflict",
        (AclOutcome::Unchanged, AclAction::Unmanaged) => "unmanaged",
        (AclOutcome::Unchanged, AclAction::Unknown) => "unknown",
        (AclOutcome::Unchanged, AclAction::Hold) => "held",
        _ => "drifted",
    }
}

/// Number of objects by kind and state.
pub(super) fn counts(
    outcomes: &[(AclStep, AclOutcome)],
) -> BTreeMap<&'static str, BTreeMap<&'static str, usize>> {
    let mut counts: BTreeMap<&'static str, BTreeMap<&'static str, usize>> = BTreeMap::new();
    for (step, outcome) in outcomes {
        *counts.entry(step.id.kind.label()).or_default().entry(state(step, outcome)).or_default() += 1;
    }
    counts
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::desired::{ObjectId, ObjectScope};
    use crate::reconcile::OBJECT_STATES;

    #[test]
    fn non_converging_object_counts_as_drifted() {
        let seen = |action| {
            let id = ObjectId { kind: ObjectKind::Role, scope: ObjectScope::default(), name: "r".into() };
            let step = AclStep {
                id,
                server_id: None,
                action,
                reason: String::new(),
                warnings: Vec::new(),
                before: Some(json!({})),
            };
            state(&step, &AclOutcome::Unchanged)
        };
        for (action, expected) in [
            (AclAction::Drifted { difference: Vec::new() }, "drifted"),
            (AclAction::Undeclared, "drifted"),
            (AclAction::Conflict { difference: Vec::new() }, "conflict"),
            (AclAction::Hold, "held"),
            (AclAction::Unmanaged, "unmanaged"),
            (AclAction::Unknown, "unknown"),
            (AclAction::Unchanged, "ok"),
        ] {
            assert_eq!(seen(action), expected);
            assert!(OBJECT_STATES.contains(&expected));
        }
    }
}
