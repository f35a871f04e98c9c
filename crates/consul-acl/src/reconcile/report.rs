//! What a pass says: one line of target `audit` for each change of an identity object, done or failed, at once, so that
//! whatever cuts the pass off leaves no change untold; other things once, until they change; all of it as numbers. In a
//! dry run it goes into the plan instead.

use std::collections::BTreeMap;
use std::time::Duration;

use tracing::{debug, info, warn};

use super::AclReconciler;
use super::acl_state::ObjectKey;
use super::apply::key;
use crate::desired::{ObjectOwner, owner};
use crate::plan::{ActualObjects, AclAction, AclStep};
use ecs_mesh_control_plane::MeshError;
use ecs_mesh_core::plan::report::ObjectKind;
use ecs_mesh_core::plan::report::{Change, PlannedChange};

const RESULT_SUCCESS: &str = "done";
/// It was sent, its answer never came, and a later look finds it done.
const RESULT_RESPONSE_LOST: &str = "done, the answer was lost";
const OUTCOME_UNKNOWN: &str = "; whether it took effect all the same, the next look finds";
const RESULT_CANCELLED: &str =
    "failed: cut off before its answer came; whether it took effect all the same, the next look finds";

/// What a step came to.
pub(super) enum AclOutcome {
    /// There was nothing to write.
    Unchanged,
    /// It was written.
    Done,
    /// It would have been.
    DryRun,
    /// This process does not hold the lease.
    NoLease,
    /// What it rests on was not written.
    Blocked(String),
    /// This is not the time for it.
    Deferred(String),
    /// What is there changed meanwhile.
    Stale(String),
    /// The servers cannot have it.
    Unsupported(String),
    /// It was written just now, and is not as it was written.
    NotConverging,
    /// The write, or the read before it, failed.
    Failed(MeshError),
}

/// Says what a pass came to at one plane.
#[derive(Clone, Copy)]
pub(super) struct AclReporter<'a> {
    pub(super) acl: &'a AclReconciler,
    /// A `ConsulAuth` speaks of this plane.
    pub(super) is_declared: bool,
}

impl AclReporter<'_> {
    /// After a round.
    pub(super) fn finish_pass(&self, outcomes: &[(AclStep, AclOutcome)]) {
        if self.acl.is_dry_run() {
            return self.note(outcomes);
        }
        let is_news_again = |(step, outcome): &&(AclStep, AclOutcome)| {
            matches!((outcome, &step.action), (AclOutcome::Unchanged, AclAction::Unchanged) | (AclOutcome::Done, _))
        };
        let still = outcomes.iter().filter(|told| !is_news_again(told)).map(|(step, _)| key(step)).collect();
        self.acl.target.keeping.retain_warnings(&still);
    }

    /// Of the writes whose answer was lost, those that a look shows to be done. It shows the others within
    /// `long_enough`, or never.
    pub(super) fn report_lost_responses(&self, long_enough: Duration, actual: &ActualObjects) {
        for step in self.acl.target.keeping.take_confirmed(long_enough, |step| actual.has_taken_effect(step)) {
            self.acl.metrics.record_acl_change(step.id.kind, self.change(&step), true);
            self.audit(&step, RESULT_RESPONSE_LOST);
        }
    }

    /// Of the writes that went out just before the pass was cut off.
    pub(super) fn report_cancelled(&self) {
        for step in self.acl.target.keeping.take_unreported() {
            self.acl.metrics.record_acl_change(step.id.kind, self.change(&step), false);
            self.audit(&step, RESULT_CANCELLED);
        }
    }

    pub(super) fn report_errors(&self, errors: &[MeshError]) {
        let control_plane = &self.acl.target.name;
        let what = format!("identity set-up at control plane {control_plane}");
        let first = errors.first().filter(|_| self.is_declared);
        self.acl.gap(&what, first.map(|error| error.message.clone()));
        for error in errors {
            self.acl.metrics.record_warning(error.kind.label());
        }
        let news = self.acl.target.keeping.record_errors(errors.iter().map(|error| error.message.clone()).collect());
        for message in news {
            if self.is_declared {
                warn!(
                    %control_plane,
                    "a part of the identity set-up could not be read, and is left as it is: {message}"
                );
            } else {
                debug!(%control_plane, "whether there are objects of ours could not be read: {message}");
            }
        }
    }

    /// Into the plan.
    fn note(&self, outcomes: &[(AclStep, AclOutcome)]) {
        let Some(dry_run) = &self.acl.dry_run else { return };
        let mut items = Vec::new();
        for (step, outcome) in outcomes {
            let item = step.clone().into_plan_entry();
            let instead = |change: Change, why: String| PlannedChange {
                fields: Vec::new(),
                registration: None,
                ..PlannedChange { change, reason: why.clone(), key: why, ..item.clone() }
            };
            items.push(match outcome {
                AclOutcome::Blocked(why) | AclOutcome::Deferred(why) | AclOutcome::Unsupported(why) => {
                    instead(Change::Hold, why.clone())
                }
                AclOutcome::Stale(why) => instead(Change::Unknown, why.clone()),
                AclOutcome::Failed(error) => instead(Change::Unknown, error.message.clone()),
                AclOutcome::Unchanged | AclOutcome::Done | AclOutcome::DryRun | AclOutcome::NoLease | AclOutcome::NotConverging => {
                    item
                }
            });
        }
        dry_run.record(&self.acl.target.name, items);
    }

    /// Right after each step.
    pub(super) fn report_outcome(&self, step: &AclStep, outcome: &AclOutcome) {
        if self.acl.is_dry_run() {
            return;
        }
        let key = &key(step);
        let metrics = &self.acl.metrics;
        match outcome {
            AclOutcome::Done => {
                metrics.record_acl_change(step.id.kind, self.change(step), true);
                self.audit(step, RESULT_SUCCESS);
            }
            AclOutcome::Failed(error) => {
                metrics.record_acl_change(step.id.kind, self.change(step), false);
                metrics.record_warning(error.kind.label());
                let open = if self.acl.target.keeping.is_unacknowledged(key) { OUTCOME_UNKNOWN } else { "" };
                let result = format!("failed: {}{open}", error.message);
                if self.acl.target.keeping.warn_once(key, &result) {
                    self.audit(step, &result);
                } else {
                    debug!(object = %step.id, "{result}");
                }
            }
            AclOutcome::Unsupported(why) => self.warn_once(key, step, true, why),
            AclOutcome::NotConverging => self.warn_once(
                key,
                step,
                true,
                "the control plane keeps it otherwise than it was sent; it is left so until the next look",
            ),
            AclOutcome::NoLease => {
                metrics.record_warning("not_leader");
                debug!(object = %step.id, "another copy holds the lease");
            }
            AclOutcome::Blocked(why) | AclOutcome::Deferred(why) | AclOutcome::Stale(why) => {
                debug!(object = %step.id, "{why}");
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
            // The failed call is told of by itself.
            _ => debug!(object = %step.id, reason = step.reason, "nothing is done"),
        }
    }

    /// Once, until it is something else.
    fn warn_once(&self, key: &ObjectKey, step: &AclStep, loud: bool, why: &str) {
        let (control_plane, object, name) = (&self.acl.target.name, step.id.kind.label(), &step.id.name);
        let (fields, mind) = (paths(step), step.warnings.join("; "));
        let id = step.server_id.as_deref();
        if !self.acl.target.keeping.warn_once(key, &format!("{why} {fields} {mind}")) {
            debug!(%control_plane, object, %name, id, fields, mind, "{why}");
        } else if loud {
            warn!(%control_plane, object, %name, id, fields, mind, "nothing is done to it: {why}");
        } else {
            info!(%control_plane, object, %name, id, fields, mind, "nothing is done to it: {why}");
        }
    }

    /// Who changed what, where, why, and what came of it.
    fn audit(&self, step: &AclStep, result: &str) {
        let (operator, control_plane) = (&self.acl.operator, &self.acl.target.name);
        let (version, change) = (env!("CARGO_PKG_VERSION"), self.change(step));
        let (object, name, scope) = (step.id.kind.label(), &step.id.name, &step.id.scope);
        let (partition, namespace) = (scope.partition.as_deref(), scope.namespace.as_deref());
        let (id, fields, reason) = (step.server_id.as_deref(), paths(step), step.reason.as_str());
        let mind = step.warnings.join("; ");
        macro_rules! say {
            ($level:ident) => {
                $level!(
                    target: "audit", %operator, version, %control_plane, partition, namespace, object, %name, id,
                    change, fields, reason, mind, result, "{} of {}", change, step.id
                )
            };
        }
        if [RESULT_SUCCESS, RESULT_RESPONSE_LOST].contains(&result) { say!(info) } else { say!(warn) }
    }

    /// A label of a metric, and a word.
    fn change(&self, step: &AclStep) -> &'static str {
        match &step.action {
            AclAction::Create { .. } => "create",
            AclAction::Remove => "remove",
            _ => {
                let has_marks = !matches!(step.id.kind, ObjectKind::AnonymousToken | ObjectKind::Namespace);
                let was_nobodys = step
                    .before
                    .as_ref()
                    .is_some_and(|body| owner(step.id.kind, body, &self.acl.operator) == ObjectOwner::Unmarked);
                if has_marks && was_nobodys { "adopt" } else { "update" }
            }
        }
    }
}

/// The fields in question, without their values.
fn paths(step: &AclStep) -> String {
    let fields = match &step.action {
        AclAction::Update { fields, .. } => fields.as_slice(),
        AclAction::Conflict { difference } | AclAction::Drifted { difference } => difference.as_slice(),
        _ => &[],
    };
    fields.iter().map(|change| change.path.as_str()).collect::<Vec<_>>().join(", ")
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

/// How many objects of each kind are how.
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
