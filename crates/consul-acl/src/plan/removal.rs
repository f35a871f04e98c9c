//! Plans removals: only owned objects, rules before methods and roles before policies, and only if no object or token of
//! others would be removed or changed with them.

use std::collections::BTreeSet;

use serde_json::Value;

use super::actual::ListedKind;
use super::ensure::{linked, names};
use super::matching::{ObjectMatches, is_of, name};
use super::{AclAction, AclPlanner};
use crate::desired::{
    DesiredObjects, DesiredState, ObjectId, ObjectOwner, OperatorIds, UndeclaredPolicy, owner,
};
use ecs_mesh_core::plan::report::ObjectKind;

/// Owned objects that will be removed unless others use them.
pub(super) fn pending_removals(
    desired: &DesiredObjects,
    matches: &ObjectMatches<'_>,
    operators: &OperatorIds,
) -> BTreeSet<ObjectId> {
    let is_ours = |kind, body: &Value| owner(kind, body, operators) == ObjectOwner::Ours;
    let mut pending_removals: BTreeSet<ObjectId> = desired
        .objects
        .iter()
        .filter(|object| object.state == DesiredState::Absent)
        .filter(|object| matches.of_desired(&object.id).iter().any(|body| is_ours(object.id.kind, body)))
        .map(|object| object.id.clone())
        .collect();
    let methods: Vec<ObjectId> =
        pending_removals.iter().filter(|id| id.kind == ObjectKind::AuthMethod).cloned().collect();
    for (id, body) in matches.unmatched() {
        let removed_with_method = id.kind == ObjectKind::BindingRule
            && methods.iter().any(|method| method.scope == id.scope && is_of(body, &method.name));
        let removes_all = desired.undeclared == UndeclaredPolicy::Remove && desired.own.contains(&id.scope);
        if is_ours(id.kind, body) && (removes_all || removed_with_method) {
            pending_removals.insert(id);
        }
    }
    pending_removals
}

impl<'a> AclPlanner<'a> {
    pub(super) fn absent(&mut self, id: &ObjectId, found: &[&'a Value]) {
        self.blocked.insert(id.clone(), Some(format!("{id} is declared absent")));
        if found.is_empty() {
            self.push(id, AclAction::Unchanged, "absent, as declared");
        }
        for body in found {
            match self.owner(id.kind, body) {
                ObjectOwner::Ours => self.remove(id, body, "declared absent"),
                ObjectOwner::Unmarked => {
                    let reason = "declared absent, but not owned by this operator: delete it manually";
                    self.push_found(id, body, AclAction::Unmanaged, reason);
                }
                ObjectOwner::Other(operator) => {
                    let reason = format!("declared absent here, but owned by operator {operator:?}");
                    self.push_found(id, body, AclAction::Unmanaged, reason);
                }
            }
        }
    }

    pub(super) fn remove(&mut self, id: &ObjectId, body: &'a Value, reason: &str) {
        if let Some(error) = self.removal_blockers(id) {
            self.push_found(id, body, AclAction::Hold, format!("{reason}, but held: {error}"));
            return;
        }
        let warning = self.cascades_to(id);
        self.push_found(id, body, AclAction::Remove, reason).warnings.extend(warning);
    }

    /// Objects and tokens of others that would be affected by the removal.
    fn removal_blockers(&self, id: &ObjectId) -> Option<String> {
        match id.kind {
            ObjectKind::AuthMethod => {
                let rules = self.set_listed(ObjectKind::BindingRule, id, "its rules");
                let of_others = |rule: &&Value| {
                    is_of(rule, &id.name) && self.owner(ObjectKind::BindingRule, rule) != ObjectOwner::Ours
                };
                in_use(rules, of_others, "binding rules of other owners depend on it and would be removed")
            }
            ObjectKind::Role => {
                self.foreign_rules_binding(id, "role").or_else(|| self.foreign_tokens_referencing(id))
            }
            ObjectKind::Policy => {
                let roles = self.set_listed(ObjectKind::Role, id, "the roles that have it");
                let of_others = |role: &&Value| {
                    names(&linked(ObjectKind::Role, role), id)
                        && self.owner(ObjectKind::Role, role) != ObjectOwner::Ours
                };
                in_use(roles, of_others, "roles of other owners have it and would lose it")
                    .or_else(|| self.foreign_rules_binding(id, "policy"))
                    .or_else(|| self.foreign_tokens_referencing(id))
            }
            ObjectKind::Node => match self.actual.services(id) {
                Some(0) => None,
                Some(count) => Some(format!("{count} services are registered on it and would be removed")),
                None => Some("it is not known which services would be removed".to_owned()),
            },
            _ => None,
        }
    }

    /// Rules of others whose logins would silently lose permissions.
    fn foreign_rules_binding(&self, id: &ObjectId, bind_type: &str) -> Option<String> {
        let rules = self.set_listed(ObjectKind::BindingRule, id, "the rules that may bind it");
        let of_others = |rule: &&Value| {
            binds(rule, bind_type, &id.name) && self.owner(ObjectKind::BindingRule, rule) != ObjectOwner::Ours
        };
        in_use(rules, of_others, "binding rules of other owners bind it, and their logins would lose it")
    }

    /// Tokens that were not issued by owned auth methods.
    fn foreign_tokens_referencing(&self, id: &ObjectId) -> Option<String> {
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
            Err(error) => Some(error),
        }
    }

    /// Whether the policy is detached from the anonymous token first.
    fn loses_the_anonymous_token(&self, policy: &ObjectId) -> bool {
        self.desired.objects.iter().any(|object| {
            let detaches =
                matches!(&object.state, DesiredState::PolicyLinks { detach, .. } if detach.contains(policy));
            object.id.kind == ObjectKind::AnonymousToken && detaches
        })
    }

    fn our_methods(&self, id: &ObjectId) -> Result<BTreeSet<&'a str>, String> {
        let methods = self.set_listed(ObjectKind::AuthMethod, id, "the auth methods whose tokens have it")?;
        let ours =
            methods.iter().filter(|method| self.owner(ObjectKind::AuthMethod, method) == ObjectOwner::Ours);
        Ok(ours.map(|method| name(ObjectKind::AuthMethod, method)).collect())
    }

    fn set_listed(&self, kind: ObjectKind, id: &ObjectId, subject: &str) -> Result<&'a [Value], String> {
        match self.actual.of(kind, &id.scope) {
            ListedKind::Listed(bodies) => Ok(bodies),
            ListedKind::Unknown(error) => Err(format!("{subject} could not be listed: {error}")),
        }
    }

    fn cascades_to(&self, id: &ObjectId) -> Option<String> {
        match id.kind {
            ObjectKind::AuthMethod => self.cascaded_tokens(id),
            ObjectKind::Role | ObjectKind::Policy => self.own_logins_referencing(id),
            _ => None,
        }
    }

    fn cascaded_tokens(&self, method: &ObjectId) -> Option<String> {
        let tokens = match self.actual.tokens(method) {
            Some(0) => return None,
            Some(1) => "one token that it issued".to_owned(),
            Some(count) => format!("all {count} tokens that it issued"),
            None => "all tokens that it issued (number unknown)".to_owned(),
        };
        Some(format!("also removes {tokens}: their tasks lose access"))
    }

    /// Tokens of owned auth methods that remain and lose the object.
    fn own_logins_referencing(&self, id: &ObjectId) -> Option<String> {
        let holders = self.actual.holders(id)?;
        let goes = |method: &str| {
            let is_it = |gone: &ObjectId| {
                gone.kind == ObjectKind::AuthMethod && gone.scope == id.scope && *gone.name == *method
            };
            self.pending_removals.iter().any(is_it)
        };
        let tokens = match holders.of_logins(|method| !goes(method)) {
            0 => return None,
            1 => "one login token loses it".to_owned(),
            count => format!("{count} login tokens lose it"),
        };
        Some(format!("{tokens}: these tasks lose permissions immediately; stop them first"))
    }
}

fn binds(rule: &Value, bind_type: &str, name: &str) -> bool {
    let text = |field: &str| rule.get(field).and_then(Value::as_str).unwrap_or_default();
    text("BindType") == bind_type && text("BindName").eq_ignore_ascii_case(name)
}

/// A label by which a person finds the object.
fn label(body: &Value) -> Option<String> {
    let text = |field: &str| body.get(field).and_then(Value::as_str);
    match (text("Name"), text("ID"), text("AuthMethod")) {
        (None, Some(id), Some(method)) => Some(format!("{id} of {method}")),
        (name, id, _) => name.or(id).map(str::to_owned),
    }
}

fn in_use(all: Result<&[Value], String>, of_others: impl Fn(&&Value) -> bool, words: &str) -> Option<String> {
    let found: Vec<String> = match all {
        Err(error) => return Some(error),
        Ok(bodies) => bodies.iter().filter(of_others).filter_map(label).collect(),
    };
    (!found.is_empty()).then(|| format!("{words} ({})", found.join(", ")))
}
