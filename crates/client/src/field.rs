//! Fields of objects: paths to them, their text, their order.

use std::cmp::Ordering;
use std::str::FromStr;

use serde_json::Value;

use ecs_mesh_model::Timestamp;

/// A path to a field, as kubectl writes it: `.registrations.ready`, `{.state}` or `state`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldPath(Vec<String>);

impl FromStr for FieldPath {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let inner = text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).unwrap_or(text);
        let inner = inner.strip_prefix('.').unwrap_or(inner);
        let parts: Vec<String> = inner.split('.').map(str::to_owned).collect();
        let is_name = |part: &String| !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric());
        if parts.iter().all(is_name) {
            return Ok(Self(parts));
        }
        Err(format!("{text:?} is not a path to a field: write names and dots, as in .registrations.ready"))
    }
}

impl std::fmt::Display for FieldPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|part| write!(f, ".{part}"))
    }
}

impl FieldPath {
    /// The field of the object.
    pub fn of<'a>(&self, object: &'a Value) -> Option<&'a Value> {
        self.0.iter().try_fold(object, |value, part| value.get(part)).filter(|value| !value.is_null())
    }

    /// The order of two objects by this field: numbers by size, times by time, all else as text, and what lacks the field
    /// last.
    pub fn compare(&self, one: &Value, other: &Value) -> Ordering {
        match (self.of(one), self.of(other)) {
            (None, None) => Ordering::Equal,
            (None, Some(_)) => Ordering::Greater,
            (Some(_), None) => Ordering::Less,
            (Some(one), Some(other)) => compare(one, other),
        }
    }
}

fn compare(one: &Value, other: &Value) -> Ordering {
    if let (Some(one), Some(other)) = (one.as_f64(), other.as_f64()) {
        return one.total_cmp(&other);
    }
    let (one, other) = (scalar(one), scalar(other));
    match (Timestamp::parse(&one), Timestamp::parse(&other)) {
        (Some(one), Some(other)) => one.cmp(&other),
        _ => one.cmp(&other),
    }
}

/// The text of a value: itself where it is a string, items separated by commas, and JSON else.
pub(crate) fn scalar(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(scalar).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

/// The text at a pointer such as `/reason/message`; empty where there is none.
pub(crate) fn text_at(object: &Value, pointer: &str) -> String {
    object.pointer(pointer).map(scalar).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn path_is_read_in_each_form_of_kubectl() {
        let object = json!({"registrations": {"ready": 2}});
        for text in [".registrations.ready", "{.registrations.ready}", "registrations.ready"] {
            let path: FieldPath = text.parse().unwrap();
            assert_eq!(path.of(&object), Some(&json!(2)), "{text}");
        }
        for text in ["", ".", "a..b", "a[0]", "{.a", "a b"] {
            assert!(text.parse::<FieldPath>().is_err(), "{text}");
        }
    }

    #[test]
    fn objects_are_ordered_by_number_time_and_text() {
        let path: FieldPath = ".x".parse().unwrap();
        let mut all = vec![json!({}), json!({"x": 10}), json!({"x": 9})];
        all.sort_by(|one, other| path.compare(one, other));
        assert_eq!(all, [json!({"x": 9}), json!({"x": 10}), json!({})]);
        let (early, late) = (json!({"x": "2026-11-30T01:00:00Z"}), json!({"x": "2026-11-30T01:00:00.5Z"}));
        assert_eq!(path.compare(&early, &late), Ordering::Less);
        assert_eq!(path.compare(&json!({"x": "b"}), &json!({"x": "a"})), Ordering::Greater);
    }
}
