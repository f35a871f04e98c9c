//! An object that is to go: only ours does, rules before methods and roles before policies, and nothing of others goes
//! along with it.

use std::collections::BTreeSet;

use serde_json::Value;

use super::actual::Read;
use super::matching::Matches;
use super::present::{linked, names};
use super::{ObjectAction, Planner};
use crate::intent::identity::{DesiredObjects, ObjectId, ObjectKind, Owner, Undeclared, Want, owner};
use crate::model::OperatorId;

/// What of ours will be removed, if nothing stands against it.
pub(super) fn going(
    desired: &DesiredObjects,
    matches: &Matches<'_>,
    operator: &OperatorId,
) -> BTreeSet<ObjectId> {
    let is_ours = |kind, body: &Value| owner(kind, body, operator) == Owner::Ours;
    let mut going: BTreeSet<ObjectId> = desired
        .objects
        .iter()
        .filter(|object| object.want == Want::Absent)
        .filter(|object| matches.of_desired(&object.id).iter().any(|body| is_ours(object.id.kind, body)))
        .map(|object| object.id.clone())
        .collect();
    let methods: Vec<ObjectId> =
        going.iter().filter(|id| id.kind == ObjectKind::AuthMethod).cloned().collect();
    for (id, body) in matches.rest() {
        let goes_with_its_method = id.kind == ObjectKind::BindingRule
            && methods.iter().any(|method| method.scope == id.scope && is_of(body, method));
        let all_goes = desired.undeclared == Undeclared::Remove && desired.own.contains(&id.scope);
        if is_ours(id.kind, body) && (all_goes || goes_with_its_method) {
            going.insert(id);
        }
    }
    going
}

fn is_of(rule: &Value, method: &ObjectId) -> bool {
    rule.get("AuthMethod").and_then(Value::as_str).is_some_and(|name| *name == *method.name)
}

impl<'a> Planner<'a> {
    pub(super) fn absent(&mut self, id: &ObjectId, found: &[&'a Value]) {
        self.standing.insert(id.clone(), Some(format!("{id} is declared absent")));
        if found.is_empty() {
            self.push(id, ObjectAction::Unchanged, "it is not there, as declared");
        }
        for body in found {
            match self.owner(id.kind, body) {
                Owner::Ours => self.remove(id, body, "it is declared absent"),
                Owner::Nobody => {
                    let reason = "it is declared absent, and has no mark of ours: delete it by hand";
                    self.push_found(id, body, ObjectAction::LeftAlone, reason);
                }
                Owner::Other(operator) => {
                    let reason =
                        format!("it is declared absent here, and operator {operator:?} has marked it");
                    self.push_found(id, body, ObjectAction::LeftAlone, reason);
                }
            }
        }
    }

    pub(super) fn remove(&mut self, id: &ObjectId, body: &'a Value, reason: &str) {
        if let Some(why) = self.in_the_way(id) {
            self.push_found(id, body, ObjectAction::Hold, format!("{reason}, and stays for now: {why}"));
            return;
        }
        let warning = self.goes_along(id);
        self.push_found(id, body, ObjectAction::Remove, reason).warnings.extend(warning);
    }

    /// What of others would go along with it.
    fn in_the_way(&self, id: &ObjectId) -> Option<String> {
        match id.kind {
            ObjectKind::AuthMethod => {
                let rules = self.listed(ObjectKind::BindingRule, id, "its rules");
                let of_others = |rule: &&Value| {
                    is_of(rule, id) && self.owner(ObjectKind::BindingRule, rule) != Owner::Ours
                };
                in_use(rules, of_others, "rules that are not ours hang on it and would go with it")
            }
            ObjectKind::Policy => {
                let roles = self.listed(ObjectKind::Role, id, "the roles that have it");
                let of_others = |role: &&Value| {
                    names(&linked(ObjectKind::Role, role), id)
                        && self.owner(ObjectKind::Role, role) != Owner::Ours
                };
                in_use(roles, of_others, "roles that are not ours have it and would lose it")
            }
            ObjectKind::Node => match self.actual.services(id) {
                Some(0) => None,
                Some(count) => Some(format!("{count} services are registered on it and would go with it")),
                None => Some("it is not known which services would go with it".to_owned()),
            },
            _ => None,
        }
    }

    fn listed(&self, kind: ObjectKind, id: &ObjectId, what: &str) -> Result<&'a [Value], String> {
        match self.actual.of(kind, &id.scope) {
            Read::Listed(bodies) => Ok(bodies),
            Read::Unknown(why) => Err(format!("{what} could not be listed: {why}")),
        }
    }

    fn goes_along(&self, id: &ObjectId) -> Option<String> {
        if id.kind != ObjectKind::AuthMethod {
            return None;
        }
        let tokens = match self.actual.tokens(id) {
            Some(0) => return None,
            Some(1) => "the one token that it gave out".to_owned(),
            Some(count) => format!("all {count} tokens that it gave out"),
            None => "all tokens that it gave out (how many is not known)".to_owned(),
        };
        Some(format!("with it go {tokens}: the tasks that have them are cut off"))
    }
}

fn in_use(all: Result<&[Value], String>, of_others: impl Fn(&&Value) -> bool, words: &str) -> Option<String> {
    let found: Vec<&str> = match all {
        Err(why) => return Some(why),
        Ok(bodies) => bodies
            .iter()
            .filter(of_others)
            .filter_map(|body| body.get("Name").or_else(|| body.get("ID")).and_then(Value::as_str))
            .collect(),
    };
    (!found.is_empty()).then(|| format!("{words} ({})", found.join(", ")))
}
