//! A printed IAM policy, and which calls it permits.

use std::collections::{BTreeMap, BTreeSet};

use ecs_mesh_model::Glob;
use serde_json::Value;

/// A permission that a call needs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct NeededPermission {
    pub(super) action: String,
    /// An ARN; `*` for an action without resource types.
    pub(super) resource: String,
    /// The condition keys, by name.
    pub(super) context: BTreeMap<&'static str, Vec<String>>,
}

/// The statements of a printed policy.
pub(super) struct PrintedPolicy(Vec<Value>);

impl PrintedPolicy {
    pub(super) fn read(text: &str) -> Self {
        let policy: Value = serde_json::from_str(text).unwrap();
        Self(policy["Statement"].as_array().unwrap().clone())
    }

    /// The permissions that no statement grants.
    pub(super) fn missing<'n>(&self, needed: &'n BTreeSet<NeededPermission>) -> Vec<&'n NeededPermission> {
        needed.iter().filter(|one| !self.0.iter().any(|statement| permits(statement, one))).collect()
    }

    /// The actions of each statement, by its id, for which it permits none of these.
    pub(super) fn unused(&self, needed: &BTreeSet<NeededPermission>) -> BTreeSet<(String, String)> {
        let mut unused = BTreeSet::new();
        for statement in &self.0 {
            let is_used = |action: &str| {
                needed.iter().any(|needed| needed.action == action && permits(statement, needed))
            };
            let sid = statement["Sid"].as_str().unwrap();
            let actions = texts(&statement["Action"]).into_iter().filter(|action| !is_used(action));
            unused.extend(actions.map(|action| (sid.to_owned(), action.to_owned())));
        }
        unused
    }
}

/// The items of a list, or the one text.
fn texts(value: &Value) -> Vec<&str> {
    match value {
        Value::Array(items) => items.iter().map(|item| item.as_str().unwrap()).collect(),
        one => vec![one.as_str().unwrap()],
    }
}

fn permits(statement: &Value, needed: &NeededPermission) -> bool {
    assert_eq!(statement["Effect"], "Allow");
    let conditions = statement["Condition"].as_object().into_iter().flatten();
    let mut tests = conditions
        .flat_map(|(operator, keys)| keys.as_object().unwrap().iter().map(move |key| (operator, key)));
    texts(&statement["Action"]).contains(&&*needed.action)
        && texts(&statement["Resource"]).iter().any(|one| Glob::new(*one).matches(&needed.resource))
        && tests.all(|(operator, (key, allowed))| {
            holds(operator, &texts(allowed), needed.context.get(&**key).map(Vec::as_slice))
        })
}

/// Whether the values of a condition key pass.
///
/// Source: <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_condition_operators.html>.
fn holds(operator: &str, allowed: &[&str], found: Option<&[String]>) -> bool {
    let equals = |value: &String| allowed.contains(&&**value);
    let matches = |value: &String| allowed.iter().any(|allowed| Glob::new(*allowed).matches(value));
    match operator {
        "StringEquals" => found.is_some_and(|found| found.iter().all(equals)),
        "ForAllValues:StringEquals" => found.is_none_or(|found| found.iter().all(equals)),
        "StringLike" | "ArnEquals" | "ArnLike" => found.is_some_and(|found| found.iter().all(matches)),
        other => panic!("the condition operator {other} is not known to this test"),
    }
}
