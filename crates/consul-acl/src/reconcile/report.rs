//! What a pass says: one line of target `audit` for each change of an identity object, done or failed, at once, so that
//! whatever cuts the pass off leaves no change untold; other things once, until they change; all of it as numbers. In a
//! dry run it goes into the plan instead.

use std::collections::BTreeMap;
use std::time::Duration;

use tracing::{debug, info, warn};

use super::AclReconciler;
use super::keeping::Key;
use super::round::key;
use crate::desired::{Owner, owner};
use crate::plan::{ActualObjects, ObjectAction, ObjectStep};
use ecs_mesh_control_plane::MeshError;
use ecs_mesh_core::plan::proposal::ObjectKind;
use ecs_mesh_core::plan::proposal::{Change, Item};

const DONE: &str = "done";
/// It was sent, its answer never came, and a later look finds it done.
const LOST: &str = "done, the answer was lost";
const OPEN: &str = "; whether it took effect all the same, the next look finds";
const CUT_OFF: &str =
    "failed: cut off before its answer came; whether it took effect all the same, the next look finds";

/// What a step came to.
pub(super) enum Outcome {
    /// There was nothing to write.
    Seen,
    /// It was written.
    Done,
    /// It would have been.
    Planned,
    /// This process does not hold the lease.
    NoLease,
    /// What it rests on was not written.
    Waits(String),
    /// This is not the time for it.
    Later(String),
    /// What is there changed meanwhile.
    Moved(String),
    /// The servers cannot have it.
    Impossible(String),
    /// It was written just now, and is not as it was written.
    Stubborn,
    /// The write, or the read before it, failed.
    Failed(MeshError),
}

/// Says what a pass came to at one plane.
#[derive(Clone, Copy)]
pub(super) struct Report<'a> {
    pub(super) acl: &'a AclReconciler,
    /// A `ConsulAuth` speaks of this plane.
    pub(super) is_declared: bool,
}

impl Report<'_> {
    /// After a round.
    pub(super) fn tell(&self, outcomes: &[(ObjectStep, Outcome)]) {
        if self.acl.is_dry() {
            return self.note(outcomes);
        }
        let is_news_again = |(step, outcome): &&(ObjectStep, Outcome)| {
            matches!((outcome, &step.action), (Outcome::Seen, ObjectAction::Unchanged) | (Outcome::Done, _))
        };
        let still = outcomes.iter().filter(|told| !is_news_again(told)).map(|(step, _)| key(step)).collect();
        self.acl.target.keeping.only_said_of(&still);
    }

    /// Of the writes whose answer was lost, those that a look shows to be done. It shows the others within
    /// `long_enough`, or never.
    pub(super) fn tell_of_lost_answers(&self, long_enough: Duration, actual: &ActualObjects) {
        for step in self.acl.target.keeping.took_effect(long_enough, |step| actual.shows(step)) {
            self.acl.metrics.object_changed(step.id.kind, self.change(&step), true);
            self.audit(&step, LOST);
        }
    }

    /// Of the writes that went out just before the pass was cut off.
    pub(super) fn tell_of_cut_off(&self) {
        for step in self.acl.target.keeping.cut_off() {
            self.acl.metrics.object_changed(step.id.kind, self.change(&step), false);
            self.audit(&step, CUT_OFF);
        }
    }

    pub(super) fn tell_failures(&self, errors: &[MeshError]) {
        let control_plane = &self.acl.target.name;
        let what = format!("identity set-up at control plane {control_plane}");
        let first = errors.first().filter(|_| self.is_declared);
        self.acl.gap(&what, first.map(|error| error.message.clone()));
        for error in errors {
            self.acl.metrics.held(error.kind.label());
        }
        let news = self.acl.target.keeping.failed(errors.iter().map(|error| error.message.clone()).collect());
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
    fn note(&self, outcomes: &[(ObjectStep, Outcome)]) {
        let Some(dry_run) = &self.acl.dry_run else { return };
        let mut items = Vec::new();
        for (step, outcome) in outcomes {
            let item = step.clone().into_item();
            let instead = |change: Change, why: String| Item {
                fields: Vec::new(),
                registration: None,
                ..Item { change, reason: why.clone(), cause: why, ..item.clone() }
            };
            items.push(match outcome {
                Outcome::Waits(why) | Outcome::Later(why) | Outcome::Impossible(why) => {
                    instead(Change::Hold, why.clone())
                }
                Outcome::Moved(why) => instead(Change::Unknown, why.clone()),
                Outcome::Failed(error) => instead(Change::Unknown, error.message.clone()),
                Outcome::Seen | Outcome::Done | Outcome::Planned | Outcome::NoLease | Outcome::Stubborn => {
                    item
                }
            });
        }
        dry_run.record(&self.acl.target.name, items);
    }

    /// Right after each step.
    pub(super) fn tell_of(&self, step: &ObjectStep, outcome: &Outcome) {
        if self.acl.is_dry() {
            return;
        }
        let key = &key(step);
        let metrics = &self.acl.metrics;
        match outcome {
            Outcome::Done => {
                metrics.object_changed(step.id.kind, self.change(step), true);
                self.audit(step, DONE);
            }
            Outcome::Failed(error) => {
                metrics.object_changed(step.id.kind, self.change(step), false);
                metrics.held(error.kind.label());
                let open = if self.acl.target.keeping.is_open(key) { OPEN } else { "" };
                let result = format!("failed: {}{open}", error.message);
                if self.acl.target.keeping.is_news(key, &result) {
                    self.audit(step, &result);
                } else {
                    debug!(object = %step.id, "{result}");
                }
            }
            Outcome::Impossible(why) => self.once(key, step, true, why),
            Outcome::Stubborn => self.once(
                key,
                step,
                true,
                "the control plane keeps it otherwise than it was sent; it is left so until the next look",
            ),
            Outcome::NoLease => {
                metrics.held("lease");
                debug!(object = %step.id, "another copy holds the lease");
            }
            Outcome::Waits(why) | Outcome::Later(why) | Outcome::Moved(why) => {
                debug!(object = %step.id, "{why}");
            }
            Outcome::Seen | Outcome::Planned => self.tell_of_seen(key, step),
        }
    }

    fn tell_of_seen(&self, key: &Key, step: &ObjectStep) {
        match &step.action {
            ObjectAction::Conflict { .. } | ObjectAction::Drifted { .. } | ObjectAction::Stray => {
                self.once(key, step, true, &step.reason);
            }
            ObjectAction::LeftAlone => self.once(key, step, !step.warnings.is_empty(), &step.reason),
            ObjectAction::Hold => self.once(key, step, false, &step.reason),
            // The failed call is told of by itself.
            _ => debug!(object = %step.id, reason = step.reason, "nothing is done"),
        }
    }

    /// Once, until it is something else.
    fn once(&self, key: &Key, step: &ObjectStep, loud: bool, why: &str) {
        let (control_plane, object, name) = (&self.acl.target.name, step.id.kind.as_str(), &step.id.name);
        let (fields, mind) = (paths(step), step.warnings.join("; "));
        let id = step.server_id.as_deref();
        if !self.acl.target.keeping.is_news(key, &format!("{why} {fields} {mind}")) {
            debug!(%control_plane, object, %name, id, fields, mind, "{why}");
        } else if loud {
            warn!(%control_plane, object, %name, id, fields, mind, "nothing is done to it: {why}");
        } else {
            info!(%control_plane, object, %name, id, fields, mind, "nothing is done to it: {why}");
        }
    }

    /// Who changed what, where, why, and what came of it.
    fn audit(&self, step: &ObjectStep, result: &str) {
        let (operator, control_plane) = (&self.acl.operator, &self.acl.target.name);
        let (version, change) = (env!("CARGO_PKG_VERSION"), self.change(step));
        let (object, name, scope) = (step.id.kind.as_str(), &step.id.name, &step.id.scope);
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
        if [DONE, LOST].contains(&result) { say!(info) } else { say!(warn) }
    }

    /// A label of a metric, and a word.
    fn change(&self, step: &ObjectStep) -> &'static str {
        match &step.action {
            ObjectAction::Create { .. } => "create",
            ObjectAction::Remove => "remove",
            _ => {
                let has_marks = !matches!(step.id.kind, ObjectKind::AnonymousToken | ObjectKind::Namespace);
                let was_nobodys = step
                    .before
                    .as_ref()
                    .is_some_and(|body| owner(step.id.kind, body, &self.acl.operator) == Owner::Nobody);
                if has_marks && was_nobodys { "adopt" } else { "update" }
            }
        }
    }
}

/// The fields in question, without their values.
fn paths(step: &ObjectStep) -> String {
    let fields = match &step.action {
        ObjectAction::Update { fields, .. } => fields.as_slice(),
        ObjectAction::Conflict { difference } | ObjectAction::Drifted { difference } => difference.as_slice(),
        _ => &[],
    };
    fields.iter().map(|change| change.path.as_str()).collect::<Vec<_>>().join(", ")
}

/// One of [`OBJECT_STATES`](super::OBJECT_STATES).
fn state(step: &ObjectStep, outcome: &Outcome) -> &'static str {
    match (outcome, &step.action) {
        (Outcome::Done, _) | (Outcome::Seen, ObjectAction::Unchanged) => "ok",
        (Outcome::Seen, ObjectAction::Conflict { .. }) => "conflict",
        (Outcome::Seen, ObjectAction::LeftAlone) => "left_alone",
        (Outcome::Seen, ObjectAction::Unknown) => "unknown",
        (Outcome::Seen, ObjectAction::Hold) => "held",
        _ => "drifted",
    }
}

/// How many objects of each kind are how.
pub(super) fn counts(
    outcomes: &[(ObjectStep, Outcome)],
) -> BTreeMap<&'static str, BTreeMap<&'static str, usize>> {
    let mut counts: BTreeMap<&'static str, BTreeMap<&'static str, usize>> = BTreeMap::new();
    for (step, outcome) in outcomes {
        *counts.entry(step.id.kind.as_str()).or_default().entry(state(step, outcome)).or_default() += 1;
    }
    counts
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::desired::{ObjectId, Scope};
    use crate::reconcile::OBJECT_STATES;

    #[test]
    fn what_stays_otherwise_than_declared_counts_as_drift_and_raises_the_alert() {
        let seen = |action| {
            let id = ObjectId { kind: ObjectKind::Role, scope: Scope::default(), name: "r".into() };
            let step = ObjectStep {
                id,
                server_id: None,
                action,
                reason: String::new(),
                warnings: Vec::new(),
                before: Some(json!({})),
            };
            state(&step, &Outcome::Seen)
        };
        for (action, expected) in [
            (ObjectAction::Drifted { difference: Vec::new() }, "drifted"),
            (ObjectAction::Stray, "drifted"),
            (ObjectAction::Conflict { difference: Vec::new() }, "conflict"),
            (ObjectAction::Hold, "held"),
            (ObjectAction::LeftAlone, "left_alone"),
            (ObjectAction::Unknown, "unknown"),
            (ObjectAction::Unchanged, "ok"),
        ] {
            assert_eq!(seen(action), expected);
            assert!(OBJECT_STATES.contains(&expected));
        }
    }
}
