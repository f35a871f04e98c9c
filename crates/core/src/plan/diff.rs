//! The fields in which two normal forms differ, with readable paths.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

/// One field that differs. A list counts as one field when its lengths differ, so that a shifted list does not look
/// like many changes.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FieldChange {
    /// Path of the field, such as `networking.inbound[0].servicePort`.
    pub path: String,
    /// The current value; `None` where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<Value>,
    /// The desired value; `None` where the field is removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<Value>,
}

/// All fields in which `after` differs from `before`, in a stable order; empty where no write is needed.
pub fn diff(before: &Value, after: &Value) -> Vec<FieldChange> {
    let mut changes = Vec::new();
    walk("", Some(before), Some(after), &mut changes);
    changes
}

fn walk(path: &str, before: Option<&Value>, after: Option<&Value>, changes: &mut Vec<FieldChange>) {
    match (before, after) {
        (Some(b), Some(a)) if b == a => {}
        (Some(Value::Object(b)), Some(Value::Object(a))) => {
            let keys: std::collections::BTreeSet<&String> = b.keys().chain(a.keys()).collect();
            for key in keys {
                let below = match (path, key.contains(['.', '/'])) {
                    ("", false) => key.clone(),
                    (_, true) => format!("{path}[{key:?}]"),
                    (_, false) => format!("{path}.{key}"),
                };
                walk(&below, b.get(key), a.get(key), changes);
            }
        }
        (Some(Value::Array(b)), Some(Value::Array(a))) if b.len() == a.len() => {
            for (index, (b, a)) in b.iter().zip(a).enumerate() {
                walk(&format!("{path}[{index}]"), Some(b), Some(a), changes);
            }
        }
        (before, after) => changes.push(FieldChange {
            path: path.to_owned(),
            before: before.cloned(),
            after: after.cloned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn equal_values_have_no_difference() {
        let value = json!({"a": [1, {"b": null}]});
        assert_eq!(diff(&value, &value.clone()), []);
    }

    #[test]
    fn diff_names_each_changed_field_once() {
        let before = json!({"n": {"address": "10.0.0.1", "inbound": [{"port": 1}], "old": 1}, "labels": {"a.b/c": "x"}});
        let after = json!({"n": {"address": "10.0.0.2", "inbound": [{"port": 2}], "new": 1}, "labels": {"a.b/c": "y"}});
        let paths: Vec<String> = diff(&before, &after).into_iter().map(|change| change.path).collect();
        assert_eq!(paths, ["labels[\"a.b/c\"]", "n.address", "n.inbound[0].port", "n.new", "n.old"]);
    }

    #[test]
    fn list_of_other_length_is_one_change() {
        let changes = diff(&json!({"outbound": [1]}), &json!({"outbound": [0, 1]}));
        assert_eq!(changes.len(), 1);
        assert_eq!(changes[0].path, "outbound");
    }
}
