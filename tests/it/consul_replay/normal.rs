//! Normal forms of bodies, without values that differ between runs.

use serde_json::{Value, json};

/// Fields whose values differ between servers.
const OWN: [&str; 11] = [
    "AccessorID",
    "SecretID",
    "ID",
    "Hash",
    "CreateTime",
    "ExpirationTime",
    "CreateIndex",
    "ModifyIndex",
    "NodeID",
    "What",
    "CreateIndexes",
];

/// A body without values that differ between runs. Presence and type of such values remain.
pub(super) fn normal(body: &Value) -> Value {
    match body {
        Value::Object(fields) => fields
            .iter()
            .map(|(field, value)| {
                let service_id = field == "ID" && fields.contains_key("Service");
                let value = match value {
                    _ if service_id => value.clone(),
                    Value::String(text) if OWN.contains(&field.as_str()) && !text.is_empty() => json!("…"),
                    Value::Number(number) if OWN.contains(&field.as_str()) => {
                        json!(number.as_u64() != Some(0))
                    }
                    Value::String(text) if text.starts_with("synthetic-policy-") => json!("synthetic-policy"),
                    // The server describes its own objects differently in each version.
                    Value::String(text) if field == "Description" && text.starts_with("A ") => json!("…"),
                    other => normal(other),
                };
                (field.clone(), value)
            })
            .collect(),
        Value::Array(items) => items.iter().map(normal).collect(),
        Value::String(text) if text.starts_with("127.0.0.1:") => json!("127.0.0.1"),
        Value::String(text) if text.starts_with("http://127.0.0.1:") => json!("http://127.0.0.1"),
        other => other.clone(),
    }
}

/// Sorts lists by their remaining content, since they are in the order of ids, which differ.
pub(super) fn sorted(body: Value) -> Value {
    match body {
        Value::Array(items) => {
            let mut items: Vec<Value> = items.into_iter().map(sorted).collect();
            items.sort_by_key(ToString::to_string);
            Value::Array(items)
        }
        Value::Object(fields) => fields.into_iter().map(|(field, value)| (field, sorted(value))).collect(),
        other => other,
    }
}
