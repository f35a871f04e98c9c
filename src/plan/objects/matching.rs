//! Which object that is there is which that is desired: by name, and for binding rules, which have none, by what they
//! say. Each is at most one's.

use std::collections::BTreeMap;

use serde_json::Value;

use super::actual::ActualObjects;
use crate::intent::identity::{DesiredObject, DesiredObjects, ObjectId, ObjectKind, Scope, without_marks};

pub(super) struct Matches<'a> {
    by_desired: BTreeMap<ObjectId, Vec<&'a Value>>,
    rest: Vec<(ObjectId, &'a Value)>,
}

impl<'a> Matches<'a> {
    pub(super) fn of(desired: &DesiredObjects, actual: &'a ActualObjects) -> Self {
        let mut matches = Self { by_desired: BTreeMap::new(), rest: Vec::new() };
        for (kind, scope, body) in actual.all() {
            match find(desired, kind, scope, body) {
                Some(object) => matches.by_desired.entry(object.id.clone()).or_default().push(body),
                None => matches.rest.push((found_id(kind, scope, body), body)),
            }
        }
        matches
    }

    pub(super) fn of_desired(&self, id: &ObjectId) -> Vec<&'a Value> {
        self.by_desired.get(id).cloned().unwrap_or_default()
    }

    /// What is there and not desired.
    pub(super) fn rest(&self) -> Vec<(ObjectId, &'a Value)> {
        self.rest.clone()
    }
}

fn find<'d>(
    desired: &'d DesiredObjects,
    kind: ObjectKind,
    scope: &Scope,
    body: &Value,
) -> Option<&'d DesiredObject> {
    let here = || desired.objects.iter().filter(|object| object.id.kind == kind && object.id.scope == *scope);
    if kind != ObjectKind::BindingRule {
        // Consul knows no two names that differ in the case of letters alone.
        return here().find(|object| object.id.name.eq_ignore_ascii_case(name(kind, body)));
    }
    let text = |field: &str| body.get(field).and_then(Value::as_str).unwrap_or_default();
    let of_method = || {
        here().filter_map(|object| Some((object, object.rule.as_ref()?))).filter(|(_, rule)| {
            // The method of a rule never changes.
            *rule.auth_method == *text("AuthMethod")
        })
    };
    let words = without_marks(text("Description"));
    let by_words = of_method().find(|(_, rule)| rule.text == words);
    let by_bind =
        || of_method().find(|(_, rule)| rule.bind.0 == text("BindType") && *rule.bind.1 == *text("BindName"));
    by_words.or_else(by_bind).map(|(object, _)| object)
}

/// Consul's name for it.
pub(super) fn name(kind: ObjectKind, body: &Value) -> &str {
    let field = match kind {
        ObjectKind::Node => "Node",
        ObjectKind::AnonymousToken => "AccessorID",
        ObjectKind::BindingRule => "ID",
        _ => "Name",
    };
    body.get(field).and_then(Value::as_str).unwrap_or_default()
}

fn found_id(kind: ObjectKind, scope: &Scope, body: &Value) -> ObjectId {
    let text = |field: &str| body.get(field).and_then(Value::as_str).unwrap_or_default();
    let name = match kind {
        // The id tells rules apart that bind the same.
        ObjectKind::BindingRule => {
            format!("{}/{} ({})", text("AuthMethod"), text("BindName"), text("ID")).into()
        }
        kind => name(kind, body).into(),
    };
    ObjectId { kind, scope: scope.clone(), name }
}
