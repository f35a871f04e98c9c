//! An object that is to go: only ours does, rules before methods and roles before policies, and nothing of others goes
//! along with it or loses by it.

use std::collections::BTreeSet;

use serde_json::Value;

use super::actual::Read;
use super::matching::{Matches, is_of, name};
use super::present::{linked, names};
use super::{ObjectAction, Planner};
use crate::desired::{DesiredObjects, ObjectId, Owner, Undeclared, Want, owner};
use ecs_mesh_core::plan::proposal::ObjectKind;
use ecs_mesh_model::OperatorId;

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
            && methods.iter().any(|method| method.scope == id.scope && is_of(body, &method.name));
        let all_goes = desired.undeclared == Undeclared::Remove && desired.own.contains(&id.scope);
        if is_ours(id.kind, body) && (all_goes || goes_with_its_method) {
            going.insert(id);
        }
    }
    going
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
                    let reason =
                        "it is declared absent, and has no mark of ours, so it stays: delete it by hand";
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
                    is_of(rule, &id.name) && self.owner(ObjectKind::BindingRule, rule) != Owner::Ours
                };
                in_use(rules, of_others, "rules that are not ours hang on it and would go with it")
            }
            ObjectKind::Role => self.rules_that_bind(id, "role").or_else(|| self.tokens_that_lose(id)),
            ObjectKind::Policy => {
                let roles = self.listed(ObjectKind::Role, id, "the roles that have it");
                let of_others = |role: &&Value| {
                    names(&linked(ObjectKind::Role, role), id)
                        && self.owner(ObjectKind::Role, role) != Owner::Ours
                };
                in_use(roles, of_others, "roles that are not ours have it and would lose it")
                    .or_else(|| self.rules_that_bind(id, "policy"))
                    .or_else(|| self.tokens_that_lose(id))
            }
            ObjectKind::Node => match self.actual.services(id) {
                Some(0) => None,
                Some(count) => Some(format!("{count} services are registered on it and would go with it")),
                None => Some("it is not known which services would go with it".to_owned()),
            },
            _ => None,
        }
    }

    /// Rules of others whose logins would get nothing any more, and nobody would tell them.
    fn rules_that_bind(&self, id: &ObjectId, bind_type: &str) -> Option<String> {
        let rules = self.listed(ObjectKind::BindingRule, id, "the rules that may bind it");
        let of_others = |rule: &&Value| {
            binds(rule, bind_type, &id.name) && self.owner(ObjectKind::BindingRule, rule) != Owner::Ours
        };
        in_use(rules, of_others, "rules that are not ours bind it, and their logins would get it no more")
    }

    /// Tokens that are none of our logins'.
    fn tokens_that_lose(&self, id: &ObjectId) -> Option<String> {
        let Some(holders) = self.actual.holders(id) else {
            return Some("it is not known which tokens have it and would lose it".to_owned());
        };
        let holders =
            if self.loses_the_anonymous_token(id) { holders.without_anonymous() } else { holders.clone() };
        if holders.is_empty() {
            return None;
        }
        match self.our_methods(id) {
            Ok(ours) => holders.of_others(|method| ours.contains(method)),
            Err(why) => Some(why),
        }
    }

    /// Whether the policy is taken off the anonymous token first.
    fn loses_the_anonymous_token(&self, policy: &ObjectId) -> bool {
        self.desired.objects.iter().any(|object| {
            let detaches = matches!(&object.want, Want::Links { detach, .. } if detach.contains(policy));
            object.id.kind == ObjectKind::AnonymousToken && detaches
        })
    }

    fn our_methods(&self, id: &ObjectId) -> Result<BTreeSet<&'a str>, String> {
        let methods = self.listed(ObjectKind::AuthMethod, id, "the auth methods whose tokens have it")?;
        let ours = methods.iter().filter(|method| self.owner(ObjectKind::AuthMethod, method) == Owner::Ours);
        Ok(ours.map(|method| name(ObjectKind::AuthMethod, method)).collect())
    }

    fn listed(&self, kind: ObjectKind, id: &ObjectId, what: &str) -> Result<&'a [Value], String> {
        match self.actual.of(kind, &id.scope) {
            Read::Listed(bodies) => Ok(bodies),
            Read::Unknown(why) => Err(format!("{what} could not be listed: {why}")),
        }
    }

    fn goes_along(&self, id: &ObjectId) -> Option<String> {
        match id.kind {
            ObjectKind::AuthMethod => self.tokens_that_go(id),
            ObjectKind::Role | ObjectKind::Policy => self.logins_that_lose(id),
            _ => None,
        }
    }

    fn tokens_that_go(&self, method: &ObjectId) -> Option<String> {
        let tokens = match self.actual.tokens(method) {
            Some(0) => return None,
            Some(1) => "the one token that it gave out".to_owned(),
            Some(count) => format!("all {count} tokens that it gave out"),
            None => "all tokens that it gave out (how many is not known)".to_owned(),
        };
        Some(format!("with it go {tokens}: the tasks that have them are cut off"))
    }

    /// Tokens of our own logins that stay, and have it no more.
    fn logins_that_lose(&self, id: &ObjectId) -> Option<String> {
        let holders = self.actual.holders(id)?;
        let goes = |method: &str| {
            let is_it = |gone: &ObjectId| {
                gone.kind == ObjectKind::AuthMethod && gone.scope == id.scope && *gone.name == *method
            };
            self.going.iter().any(is_it)
        };
        let tokens = match holders.of_logins(|method| !goes(method)) {
            0 => return None,
            1 => "one token of a login has it and loses it".to_owned(),
            count => format!("{count} tokens of logins have it and lose it"),
        };
        Some(format!("{tokens}: their tasks may do less at once, and nothing tells them; stop them first"))
    }
}

fn binds(rule: &Value, bind_type: &str, name: &str) -> bool {
    let text = |field: &str| rule.get(field).and_then(Value::as_str).unwrap_or_default();
    text("BindType") == bind_type && text("BindName").eq_ignore_ascii_case(name)
}

/// By which a person finds it.
fn label(body: &Value) -> Option<String> {
    let text = |field: &str| body.get(field).and_then(Value::as_str);
    match (text("Name"), text("ID"), text("AuthMethod")) {
        (None, Some(id), Some(method)) => Some(format!("{id} of {method}")),
        (name, id, _) => name.or(id).map(str::to_owned),
    }
}

fn in_use(all: Result<&[Value], String>, of_others: impl Fn(&&Value) -> bool, words: &str) -> Option<String> {
    let found: Vec<String> = match all {
        Err(why) => return Some(why),
        Ok(bodies) => bodies.iter().filter(of_others).filter_map(label).collect(),
    };
    (!found.is_empty()).then(|| format!("{words} ({})", found.join(", ")))
}
