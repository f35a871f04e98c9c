//! Decoding of JSON bodies as in Go: field names ignore case, `null` counts as absent, and wrong types are rejected.

use serde_json::{Map, Value};

use ecs_mesh_model::GoDuration;

/// The type of a field.
#[derive(Clone, Copy)]
pub(super) enum JsonFieldKind {
    Text,
    Bool,
    Number,
    /// A duration, as text or in nanoseconds.
    Duration,
    Texts,
    /// `map[string]string`
    TextMap,
    /// Any object, unchanged.
    Object,
    /// Any value, unchanged.
    Any,
    Message(&'static JsonMessage),
    Messages(&'static JsonMessage),
}

/// The fields of a message.
pub(super) struct JsonMessage(pub(super) &'static [(&'static str, JsonFieldKind)]);

/// Handling of unknown fields.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum UnknownFields {
    Refused,
    Dropped,
}

/// Decodes a body to the known fields under their canonical names.
pub(super) fn body(
    message: &JsonMessage,
    body: &[u8],
    unknown: UnknownFields,
) -> Result<Map<String, Value>, String> {
    let value: Value = serde_json::from_slice(body).map_err(|error| {
        if body.is_empty() { "the body is empty".to_owned() } else { format!("not JSON: {error}") }
    })?;
    object(message, &value, unknown)
}

pub(super) fn object(
    message: &JsonMessage,
    value: &Value,
    unknown: UnknownFields,
) -> Result<Map<String, Value>, String> {
    let mut known = Map::new();
    let fields = match value {
        Value::Null => return Ok(known),
        Value::Object(fields) => fields,
        other => return Err(mismatch(other, "an object")),
    };
    for (name, value) in fields {
        let Some((name, kind)) = message.0.iter().find(|(field, _)| field.eq_ignore_ascii_case(name)) else {
            if unknown == UnknownFields::Refused {
                return Err(format!("the field {name:?} is not known"));
            }
            continue;
        };
        if !value.is_null() {
            let value = field(*kind, value, unknown).map_err(|what| format!("{name}: {what}"))?;
            known.insert((*name).to_owned(), value);
        }
    }
    Ok(known)
}

fn field(kind: JsonFieldKind, value: &Value, unknown: UnknownFields) -> Result<Value, String> {
    match (kind, value) {
        (JsonFieldKind::Any, _)
        | (JsonFieldKind::Text, Value::String(_))
        | (JsonFieldKind::Bool, Value::Bool(_))
        | (JsonFieldKind::Object, Value::Object(_)) => Ok(value.clone()),
        (JsonFieldKind::Number, Value::Number(number)) if number.is_i64() || number.is_u64() => {
            Ok(value.clone())
        }
        (JsonFieldKind::Duration, Value::Number(number)) if number.is_i64() || number.is_u64() => {
            Ok(value.clone())
        }
        (JsonFieldKind::Duration, Value::String(text)) => match GoDuration::parse(text) {
            Some(duration) => Ok(Value::from(duration.0)),
            None => Err(format!("{text:?} is not a duration such as 1h or 90s")),
        },
        (JsonFieldKind::Texts, Value::Array(items)) => {
            items.iter().map(|item| field(JsonFieldKind::Text, &null_is_empty(item), unknown)).collect()
        }
        (JsonFieldKind::TextMap, Value::Object(entries)) => {
            let entry = |(key, value): (&String, &Value)| {
                Ok((key.clone(), field(JsonFieldKind::Text, &null_is_empty(value), unknown)?))
            };
            Ok(Value::Object(entries.iter().map(entry).collect::<Result<_, String>>()?))
        }
        (JsonFieldKind::Message(message), _) => Ok(Value::Object(object(message, value, unknown)?)),
        (JsonFieldKind::Messages(message), Value::Array(items)) => {
            items.iter().map(|item| Ok(Value::Object(object(message, item, unknown)?))).collect()
        }
        _ => Err(mismatch(value, wanted(kind))),
    }
}

fn null_is_empty(value: &Value) -> Value {
    if value.is_null() { Value::from("") } else { value.clone() }
}

fn wanted(kind: JsonFieldKind) -> &'static str {
    match kind {
        JsonFieldKind::Text => "a text",
        JsonFieldKind::Bool => "true or false",
        JsonFieldKind::Number => "a whole number",
        JsonFieldKind::Duration => "a duration",
        JsonFieldKind::Texts => "a list of texts",
        JsonFieldKind::TextMap => "an object of texts",
        JsonFieldKind::Messages(_) => "a list of objects",
        _ => "an object",
    }
}

fn mismatch(found: &Value, wanted: &str) -> String {
    let found = match found {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    };
    format!("found {found} where {wanted} is needed")
}

/// A text field; empty if absent.
pub(super) fn text<'a>(fields: &'a Map<String, Value>, name: &str) -> &'a str {
    fields.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// The texts of a list; none if absent.
pub(super) fn texts(fields: &Map<String, Value>, name: &str) -> Vec<String> {
    let items = fields.get(name).and_then(Value::as_array).into_iter().flatten();
    items.filter_map(Value::as_str).map(str::to_owned).collect()
}

/// The objects of a list; none if absent.
pub(super) fn objects<'a>(
    fields: &'a Map<String, Value>,
    name: &str,
) -> impl Iterator<Item = &'a Map<String, Value>> {
    fields.get(name).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_object)
}

pub(super) fn flag(fields: &Map<String, Value>, name: &str) -> bool {
    fields.get(name).and_then(Value::as_bool).unwrap_or_default()
}

pub(super) fn number(fields: &Map<String, Value>, name: &str) -> i64 {
    fields.get(name).and_then(Value::as_i64).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const LINK: JsonMessage = JsonMessage(&[("ID", JsonFieldKind::Text), ("Name", JsonFieldKind::Text)]);
    const ROLE: JsonMessage = JsonMessage(&[
        ("Name", JsonFieldKind::Text),
        ("Policies", JsonFieldKind::Messages(&LINK)),
        ("TTL", JsonFieldKind::Duration),
    ]);

    fn read(value: &Value) -> Result<Value, String> {
        object(&ROLE, value, UnknownFields::Refused).map(Value::Object)
    }

    #[test]
    fn field_names_ignore_case() {
        let found = read(&json!({"name": "a", "POLICIES": [{"id": "1"}], "ttl": "1m"}));
        assert_eq!(found, Ok(json!({"Name": "a", "Policies": [{"ID": "1"}], "TTL": 60_000_000_000_i64})));
    }

    #[test]
    fn null_counts_as_absent_and_unknown_is_rejected() {
        assert_eq!(read(&json!({"Name": null})), Ok(json!({})));
        assert!(read(&json!({"Namespace": "x"})).is_err());
        assert!(object(&ROLE, &json!({"Namespace": "x"}), UnknownFields::Dropped).is_ok());
    }

    #[test]
    fn wrong_type_is_rejected() {
        for wrong in [json!({"Name": 1}), json!({"Policies": {}}), json!({"TTL": "soon"}), json!([])] {
            assert!(read(&wrong).is_err(), "{wrong}");
        }
    }
}
