//! Matches actual with desired objects: by name, and binding rules, which have no name, by content. Each actual object
//! matches at most one desired object. An owned rule without a match was changed: it is matched with a missing rule, so that
//! the update replaces its content.

use std::collections::BTreeMap;

use serde_json::Value;

use super::actual::ActualObjects;
use crate::desired::{
    DesiredObject, DesiredObjects, DesiredState, ObjectId, ObjectScope, OperatorIds, RuleKey, is_ours,
    rule_name,
};
use crate::normalise;
use ecs_mesh_core::plan::report::ObjectKind;

pub(super) struct ObjectMatches<'a> {
    by_desired: BTreeMap<ObjectId, Vec<&'a Value>>,
    unmatched: Vec<(ObjectId, &'a Value)>,
}

impl<'a> ObjectMatches<'a> {
    pub(super) fn of(desired: &DesiredObjects, actual: &'a ActualObjects, operators: &OperatorIds) -> Self {
        let mut matches = Self { by_desired: BTreeMap::new(), unmatched: Vec::new() };
        for (kind, scope, body) in actual.all() {
            match find(desired, kind, scope, body) {
                Some(object) => matches.by_desired.entry(object.id.clone()).or_default().push(body),
                None => matches.unmatched.push((found_id(kind, scope, body), body)),
            }
        }
        matches.match_changed_rules(desired, operators);
        matches
    }

    /// Matches each changed rule with the most similar missing rule of its auth method, the oldest first.
    fn match_changed_rules(&mut self, desired: &DesiredObjects, operators: &OperatorIds) {
        let (mut changed, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.unmatched).into_iter().partition(|(id, body)| {
                id.kind == ObjectKind::BindingRule && is_ours(id.kind, body, operators) && !is_once_ours(body)
            });
        self.unmatched = rest;
        changed
            .sort_by_cached_key(|(id, body)| (body.get("CreateIndex").and_then(Value::as_u64), id.clone()));
        for (id, body) in changed {
            let missing = desired.objects.iter().filter_map(|object| match (&object.state, &object.rule) {
                (DesiredState::Present { body: declared, .. }, Some(rule)) => Some((object, declared, rule)),
                _ => None,
            });
            let nearest = missing
                .filter(|(object, _, rule)| object.id.scope == id.scope && is_of(body, &rule.auth_method))
                .filter(|(object, ..)| {
                    !self.of_desired(&object.id).iter().any(|found| is_ours(id.kind, found, operators))
                })
                .min_by_key(|(object, declared, _)| {
                    (normalise::difference(id.kind, body, declared).len(), &object.id)
                });
            match nearest {
                Some((object, ..)) => self.by_desired.entry(object.id.clone()).or_default().push(body),
                None => self.unmatched.push((id, body)),
            }
        }
    }

    pub(super) fn of_desired(&self, id: &ObjectId) -> Vec<&'a Value> {
        self.by_desired.get(id).cloned().unwrap_or_default()
    }

    /// Objects that exist and are not desired.
    pub(super) fn unmatched(&self) -> Vec<(ObjectId, &'a Value)> {
        self.unmatched.clone()
    }
}

fn find<'d>(
    desired: &'d DesiredObjects,
    kind: ObjectKind,
    scope: &ObjectScope,
    body: &Value,
) -> Option<&'d DesiredObject> {
    let here = || desired.objects.iter().filter(|object| object.id.kind == kind && object.id.scope == *scope);
    if kind != ObjectKind::BindingRule {
        // Consul knows no two names that differ in the case of letters alone.
        return here().find(|object| object.id.name.eq_ignore_ascii_case(name(kind, body)));
    }
    let of_method = || {
        here().filter_map(|object| Some((object, object.rule.as_ref()?))).filter(|(_, rule)| {
            // The method of a rule never changes.
            is_of(body, &rule.auth_method)
        })
    };
    let by_deed = of_method().find(|(object, _)| match &object.state {
        DesiredState::Present { body: declared, .. } => normalise::does_the_same(kind, body, declared),
        _ => false,
    });
    let by_words = || of_method().find(|(_, rule)| rule.matches_text(body));
    let by_bind = || of_method().find(|(_, rule)| rule.binds(body));
    by_deed.or_else(by_words).or_else(by_bind).map(|(object, _)| object)
}

/// Whether the rule belongs to this method. Consul has no two methods whose names differ only in case.
pub(super) fn is_of(rule: &Value, method: &str) -> bool {
    text(rule, "AuthMethod").eq_ignore_ascii_case(method)
}

/// Whether this operator creates such a rule for its method, declared now or not.
fn is_once_ours(rule: &Value) -> bool {
    RuleKey::all_well_known(text(rule, "AuthMethod"))
        .iter()
        .any(|made| made.key.matches_text(rule) || made.key.binds(rule))
}

pub(super) fn text<'v>(body: &'v Value, field: &str) -> &'v str {
    body.get(field).and_then(Value::as_str).unwrap_or_default()
}

/// Consul's name for it.
pub(super) fn name(kind: ObjectKind, body: &Value) -> &str {
    let field = match kind {
        ObjectKind::Node => "Node",
        ObjectKind::AnonymousToken => "AccessorID",
        ObjectKind::BindingRule => "ID",
        _ => "Name",
    };
    text(body, field)
}

fn found_id(kind: ObjectKind, scope: &ObjectScope, body: &Value) -> ObjectId {
    let name = match kind {
        // The name as declared; the server's id distinguishes rules of one name.
        ObjectKind::BindingRule => rule_name(body).into(),
        kind => name(kind, body).into(),
    };
    ObjectId { kind, scope: scope.clone(), name }
}
