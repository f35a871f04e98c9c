//! From the objects that should be in Consul's configuration and those that are to what is to be done with each: pure,
//! and every object of ours gets exactly one answer.
//!
//! What has no mark is taken over only where the manifest says so; what has another operator's mark never is; what
//! could not be read is neither absent nor changed.

mod actual;
mod config;
mod verify;
mod matching;
mod partial_update;
mod normal;
mod ensure;
mod removal;
mod step;
mod undeclared;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;

pub use actual::ActualObjects;
pub use normal::does_the_same;
pub use step::{AclAction, AclStep};

use crate::desired::{DesiredObject, DesiredObjects, ObjectId, ObjectOwner, ObjectScope, UndeclaredPolicy, DesiredState, owner};
use actual::ListedKind;
use ecs_mesh_core::plan::report::ObjectKind;
use ecs_mesh_model::OperatorId;
use matching::ObjectMatches;

/// What is to be done with each object, in an order that works: what others rest on is made first and removed last.
pub fn plan_objects(
    desired: &DesiredObjects,
    actual: &ActualObjects,
    operator: &OperatorId,
) -> Vec<AclStep> {
    let matches = ObjectMatches::of(desired, actual, operator);
    let pending_removals = removal::pending_removals(desired, &matches, operator);
    let mut planner =
        AclPlanner { desired, actual, operator, matches, pending_removals, standing: BTreeMap::new(), steps: Vec::new() };
    for object in &desired.objects {
        planner.plan_object(object);
    }
    planner.plan_undeclared();
    let mut steps = planner.steps;
    steps.sort_by(|a, b| a.rank().cmp(&b.rank()));
    steps
}

/// Whether nothing is to be hung on it, and nothing of ours is there that is to be taken off it: then it is as wanted,
/// whatever it looks like.
pub fn can_skip_read(state: &DesiredState, actual: &ActualObjects, operator: &OperatorId) -> bool {
    let DesiredState::PolicyLinks { attach, detach } = state else { return false };
    attach.is_empty() && detach.iter().all(|policy| actual.has_none_of_ours(policy, operator))
}

struct AclPlanner<'a> {
    desired: &'a DesiredObjects,
    actual: &'a ActualObjects,
    operator: &'a OperatorId,
    matches: ObjectMatches<'a>,
    /// What of ours will be removed, if nothing stands against it.
    pending_removals: BTreeSet<ObjectId>,
    /// Why objects must not rest on the declared one of this id; `None` where they may.
    standing: BTreeMap<ObjectId, Option<String>>,
    steps: Vec<AclStep>,
}

impl<'a> AclPlanner<'a> {
    fn plan_object(&mut self, kind: &'a DesiredObject) {
        let id = &kind.id;
        match &kind.state {
            DesiredState::Blocked(error) => {
                self.push(id, AclAction::Hold, error.clone());
            }
            DesiredState::Present { body, needs } => match self.candidates(id) {
                Ok(found) => self.ensure(id, body, needs, &found),
                Err(error) => self.unknown(id, &error),
            },
            DesiredState::Absent => match self.candidates(id) {
                Ok(found) => self.absent(id, &found),
                Err(error) => self.unknown(id, &error),
            },
            DesiredState::PolicyLinks { attach, detach } => match self.candidates(id) {
                Ok(found) => self.links(id, attach, detach, &found),
                Err(_) if can_skip_read(&kind.state, self.actual, self.operator) => {
                    self.push(id, AclAction::Unchanged, "nothing of ours is there that might hang on it");
                }
                Err(error) => self.unknown(id, &error),
            },
        }
    }

    /// The objects that the declared one may be, or why that is not known.
    fn candidates(&self, id: &ObjectId) -> Result<Vec<&'a Value>, String> {
        match self.actual.of(id.kind, &id.scope) {
            ListedKind::Unknown(error) => Err(error),
            ListedKind::Listed(_) => match self.actual.unread(id) {
                Some(error) => Err(error.to_owned()),
                None => Ok(self.matches.of_desired(id)),
            },
        }
    }

    fn owner(&self, kind: ObjectKind, body: &Value) -> ObjectOwner {
        owner(kind, body, self.operator)
    }

    fn push(&mut self, id: &ObjectId, action: AclAction, reason: impl Into<String>) -> &mut AclStep {
        let step = AclStep {
            id: id.clone(),
            server_id: None,
            action,
            reason: reason.into(),
            warnings: Vec::new(),
            before: None,
        };
        self.steps.push(step);
        let last = self.steps.len() - 1;
        &mut self.steps[last]
    }

    /// About an object that is there.
    fn push_found(
        &mut self,
        id: &ObjectId,
        found: &Value,
        action: AclAction,
        reason: impl Into<String>,
    ) -> &mut AclStep {
        let step = self.push(id, action, reason);
        step.server_id = found.get("ID").and_then(Value::as_str).filter(|id| !id.is_empty()).map(Arc::from);
        step.before = Some(found.clone());
        step
    }

    fn unknown(&mut self, id: &ObjectId, error: &str) {
        self.standing.insert(id.clone(), Some(format!("{id} could not be read")));
        self.push(id, AclAction::Unknown, format!("it could not be read: {error}"));
    }

    /// What is there and no desired object spoke of.
    fn plan_undeclared(&mut self) {
        for (id, body) in self.matches.unmatched() {
            if !self.desired.own.contains(&id.scope) {
                continue;
            }
            match self.owner(id.kind, body) {
                ObjectOwner::Ours if self.pending_removals.contains(&id) => {
                    let reason = match self.desired.undeclared {
                        UndeclaredPolicy::Remove => "the whole set-up is declared absent",
                        UndeclaredPolicy::Keep => "its auth method goes",
                    };
                    self.remove(&id, body, reason);
                }
                ObjectOwner::Ours => self.undeclared(&id, body),
                ObjectOwner::Unmarked | ObjectOwner::Other(_) => self.foreign_rule(&id, body),
            }
        }
        if self.desired.undeclared == UndeclaredPolicy::Remove {
            self.report_unlisted();
        }
    }

    fn report_unlisted(&mut self) {
        let unknown: Vec<(ObjectKind, ObjectScope, String)> = self
            .actual
            .unlisted_kinds()
            .filter(|(_, scope, _)| self.desired.own.contains(scope))
            .map(|(kind, scope, error)| (kind, scope.clone(), error.to_owned()))
            .collect();
        for (kind, scope, error) in unknown {
            let id = ObjectId { kind, scope, name: "*".into() };
            self.push(&id, AclAction::Unknown, format!("they could not be listed: {error}"));
        }
    }
}
