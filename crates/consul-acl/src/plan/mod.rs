//! Plans ACL objects: compares desired and actual objects. Pure; every owned object gets exactly one step.
//!
//! An unmarked object is adopted only if the manifest says so; an object with another operator's marker is never changed; an
//! unreadable object is unknown, not absent.
//!
//! Decision table, for each declared object:
//!
//! | declared | in Consul | step |
//! |---|---|---|
//! | blocked (by the desired state) | – | hold |
//! | any | not listed, or not readable | unknown |
//! | present | none, dependencies usable | create |
//! | present | none, a dependency is missing, unknown or in conflict | hold |
//! | present | owned, equal | unchanged |
//! | present | owned, differs | update; additions that need a missing dependency wait |
//! | present | owned, differs only by such additions | drifted |
//! | present | differs in `Type`, which Consul never changes | conflict |
//! | present | unmarked, listed in `adopt` | update that adds the marker (adopt) |
//! | present | unmarked, or owned by another operator | conflict |
//! | present | a second owned binding rule that does the same | remove |
//! | present | a second object of another owner, or of another kind | unmanaged |
//! | absent | none | unchanged |
//! | absent | owned, unused by others | remove |
//! | absent | owned, used by others or use unknown | hold |
//! | absent | unmarked, or owned by another operator | unmanaged |
//! | policy links | links as declared | unchanged |
//! | policy links | links differ | update of the links; other links stay |
//! | policy links | target missing, or a policy is not usable | hold |
//!
//! And for each listed object that is not declared:
//!
//! | owner | condition | step |
//! |---|---|---|
//! | this operator | its auth method is removed, or the whole `ConsulAuth` is absent | remove or hold, as above |
//! | this operator, by its previous id | – | update of the marker (take over) |
//! | this operator | grants as once declared | unmanaged |
//! | this operator | grants more than was ever declared | undeclared |
//! | unmarked or another operator | a binding rule of a declared auth method | unmanaged |
//! | unmarked or another operator | otherwise | no step |
//!
//! Steps are ordered so that dependencies are written first and removed last.

mod actual;
mod ensure;
mod matching;
mod removal;
mod step;
mod undeclared;
mod verify;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;

pub use actual::ActualObjects;
pub use step::{AclAction, AclStep};

use crate::desired::{
    DesiredObject, DesiredObjects, DesiredState, ObjectId, ObjectOwner, ObjectScope, OperatorIds,
    UndeclaredPolicy, owner,
};
use actual::ListedKind;
use ecs_mesh_core::plan::report::ObjectKind;
use matching::ObjectMatches;

/// Plans one step for each object, in a working order: dependencies are written first and removed last.
pub fn plan_objects(
    desired: &DesiredObjects,
    actual: &ActualObjects,
    operators: &OperatorIds,
) -> Vec<AclStep> {
    let matches = ObjectMatches::of(desired, actual, operators);
    let pending_removals = removal::pending_removals(desired, &matches, operators);
    let mut planner = AclPlanner {
        desired,
        actual,
        operators,
        matches,
        pending_removals,
        blocked: BTreeMap::new(),
        steps: Vec::new(),
    };
    for object in &desired.objects {
        planner.plan_object(object);
    }
    planner.plan_undeclared();
    let mut steps = planner.steps;
    steps.sort_by(|a, b| a.rank().cmp(&b.rank()));
    steps
}

/// Whether the object need not be read: no policy is to be attached, and no owned policy exists that could be detached.
pub fn can_skip_read(state: &DesiredState, actual: &ActualObjects, operators: &OperatorIds) -> bool {
    let DesiredState::PolicyLinks { attach, detach } = state else { return false };
    attach.is_empty() && detach.iter().all(|policy| actual.has_none_of_ours(policy, operators))
}

struct AclPlanner<'a> {
    desired: &'a DesiredObjects,
    actual: &'a ActualObjects,
    operators: &'a OperatorIds,
    matches: ObjectMatches<'a>,
    /// Owned objects that will be removed unless others use them.
    pending_removals: BTreeSet<ObjectId>,
    /// For each declared object, why others must not depend on it; `None` if they may.
    blocked: BTreeMap<ObjectId, Option<String>>,
    steps: Vec<AclStep>,
}

impl<'a> AclPlanner<'a> {
    fn plan_object(&mut self, object: &'a DesiredObject) {
        let id = &object.id;
        match &object.state {
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
                Err(_) if can_skip_read(&object.state, self.actual, self.operators) => {
                    self.push(id, AclAction::Unchanged, "no owned policy exists that could be attached");
                }
                Err(error) => self.unknown(id, &error),
            },
        }
    }

    /// The actual objects that match the declared one, or why they are unknown.
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
        owner(kind, body, self.operators)
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

    /// A step about an existing object.
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
        self.blocked.insert(id.clone(), Some(format!("{id} could not be read")));
        self.push(id, AclAction::Unknown, format!("reading the object: {error}"));
    }

    /// Plans objects that are not declared.
    fn plan_undeclared(&mut self) {
        for (id, body) in self.matches.unmatched() {
            if !self.desired.own.contains(&id.scope) {
                continue;
            }
            match self.owner(id.kind, body) {
                ObjectOwner::Ours if self.pending_removals.contains(&id) => {
                    let reason = match self.desired.undeclared {
                        UndeclaredPolicy::Remove => "the whole ConsulAuth is declared absent",
                        UndeclaredPolicy::Keep => "its auth method is removed",
                    };
                    self.remove(&id, body, reason);
                }
                ObjectOwner::Ours if self.operators.is_of_previous(id.kind, body) => {
                    self.take_over(&id, body);
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
            self.push(&id, AclAction::Unknown, format!("listing the objects: {error}"));
        }
    }
}
