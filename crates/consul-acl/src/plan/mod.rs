//! From the objects that should be in Consul's configuration and those that are to what is to be done with each: pure,
//! and every object of ours gets exactly one answer.
//!
//! What has no mark is taken over only where the manifest says so; what has another operator's mark never is; what
//! could not be read is neither absent nor changed.

mod actual;
mod config;
mod effect;
mod matching;
mod narrowed;
mod normal;
mod present;
mod removal;
mod step;
mod strays;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;

pub use actual::ActualObjects;
pub use normal::does_the_same;
pub use step::{ObjectAction, ObjectStep};

use crate::desired::{DesiredObject, DesiredObjects, ObjectId, Owner, Scope, Undeclared, Want, owner};
use actual::Read;
use ecs_mesh_core::plan::proposal::ObjectKind;
use ecs_mesh_model::OperatorId;
use matching::Matches;

/// What is to be done with each object, in an order that works: what others rest on is made first and removed last.
pub fn plan_objects(
    desired: &DesiredObjects,
    actual: &ActualObjects,
    operator: &OperatorId,
) -> Vec<ObjectStep> {
    let matches = Matches::of(desired, actual, operator);
    let going = removal::going(desired, &matches, operator);
    let mut planner =
        Planner { desired, actual, operator, matches, going, standing: BTreeMap::new(), steps: Vec::new() };
    for object in &desired.objects {
        planner.judge(object);
    }
    planner.judge_the_rest();
    let mut steps = planner.steps;
    steps.sort_by(|a, b| a.rank().cmp(&b.rank()));
    steps
}

/// Whether nothing is to be hung on it, and nothing of ours is there that is to be taken off it: then it is as wanted,
/// whatever it looks like.
pub fn needs_no_look(want: &Want, actual: &ActualObjects, operator: &OperatorId) -> bool {
    let Want::Links { attach, detach } = want else { return false };
    attach.is_empty() && detach.iter().all(|policy| actual.has_none_of_ours(policy, operator))
}

struct Planner<'a> {
    desired: &'a DesiredObjects,
    actual: &'a ActualObjects,
    operator: &'a OperatorId,
    matches: Matches<'a>,
    /// What of ours will be removed, if nothing stands against it.
    going: BTreeSet<ObjectId>,
    /// Why objects must not rest on the declared one of this id; `None` where they may.
    standing: BTreeMap<ObjectId, Option<String>>,
    steps: Vec<ObjectStep>,
}

impl<'a> Planner<'a> {
    fn judge(&mut self, object: &'a DesiredObject) {
        let id = &object.id;
        match &object.want {
            Want::Held(why) => {
                self.push(id, ObjectAction::Hold, why.clone());
            }
            Want::Present { body, needs } => match self.candidates(id) {
                Ok(found) => self.present(id, body, needs, &found),
                Err(why) => self.unknown(id, &why),
            },
            Want::Absent => match self.candidates(id) {
                Ok(found) => self.absent(id, &found),
                Err(why) => self.unknown(id, &why),
            },
            Want::Links { attach, detach } => match self.candidates(id) {
                Ok(found) => self.links(id, attach, detach, &found),
                Err(_) if needs_no_look(&object.want, self.actual, self.operator) => {
                    self.push(id, ObjectAction::Unchanged, "nothing of ours is there that might hang on it");
                }
                Err(why) => self.unknown(id, &why),
            },
        }
    }

    /// The objects that the declared one may be, or why that is not known.
    fn candidates(&self, id: &ObjectId) -> Result<Vec<&'a Value>, String> {
        match self.actual.of(id.kind, &id.scope) {
            Read::Unknown(why) => Err(why),
            Read::Listed(_) => match self.actual.unread(id) {
                Some(why) => Err(why.to_owned()),
                None => Ok(self.matches.of_desired(id)),
            },
        }
    }

    fn owner(&self, kind: ObjectKind, body: &Value) -> Owner {
        owner(kind, body, self.operator)
    }

    fn push(&mut self, id: &ObjectId, action: ObjectAction, reason: impl Into<String>) -> &mut ObjectStep {
        let step = ObjectStep {
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
        action: ObjectAction,
        reason: impl Into<String>,
    ) -> &mut ObjectStep {
        let step = self.push(id, action, reason);
        step.server_id = found.get("ID").and_then(Value::as_str).filter(|id| !id.is_empty()).map(Arc::from);
        step.before = Some(found.clone());
        step
    }

    fn unknown(&mut self, id: &ObjectId, why: &str) {
        self.standing.insert(id.clone(), Some(format!("{id} could not be read")));
        self.push(id, ObjectAction::Unknown, format!("it could not be read: {why}"));
    }

    /// What is there and no desired object spoke of.
    fn judge_the_rest(&mut self) {
        for (id, body) in self.matches.rest() {
            if !self.desired.own.contains(&id.scope) {
                continue;
            }
            match self.owner(id.kind, body) {
                Owner::Ours if self.going.contains(&id) => {
                    let reason = match self.desired.undeclared {
                        Undeclared::Remove => "the whole set-up is declared absent",
                        Undeclared::LeaveAlone => "its auth method goes",
                    };
                    self.remove(&id, body, reason);
                }
                Owner::Ours => self.undeclared(&id, body),
                Owner::Nobody | Owner::Other(_) => self.stranger(&id, body),
            }
        }
        if self.desired.undeclared == Undeclared::Remove {
            self.say_what_was_not_listed();
        }
    }

    fn say_what_was_not_listed(&mut self) {
        let unknown: Vec<(ObjectKind, Scope, String)> = self
            .actual
            .unknown_parts()
            .filter(|(_, scope, _)| self.desired.own.contains(scope))
            .map(|(kind, scope, why)| (kind, scope.clone(), why.to_owned()))
            .collect();
        for (kind, scope, why) in unknown {
            let id = ObjectId { kind, scope, name: "*".into() };
            self.push(&id, ObjectAction::Unknown, format!("they could not be listed: {why}"));
        }
    }
}
