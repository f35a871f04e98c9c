//! One JSON Schema for manifests of every kind, for editors: unknown fields are errors, and the kind decides which
//! fields there are. Draft 7, which yaml-language-server knows best.

use serde_json::{Map, Value, json};

use super::kinds::SchemaKind;
use super::source;
use crate::{API_VERSION, NAME_PATTERN};

/// The schema.
pub(super) fn schema(kinds: &[SchemaKind]) -> Value {
    let names: Vec<&str> = kinds.iter().map(|kind| kind.name).collect();
    let mut schema = json!({
        "title": "ecs-mesh-operator manifest",
        "type": "object",
        "additionalProperties": false,
        "required": ["apiVersion", "kind", "metadata", "spec"],
        "properties": {
            "apiVersion": { "type": "string", "enum": [API_VERSION], "default": API_VERSION },
            "kind": {
                "description": "What the manifest is about.",
                "type": "string",
                "enum": names,
                "x-enum-descriptions": kinds.iter().map(description).collect::<Vec<_>>(),
            },
            "metadata": metadata(),
            // Which fields it has is said below, by kind.
            "spec": { "type": "object" },
        },
        // One `if` a kind, and not `oneOf`: so an error is told of the kind that was meant.
        "allOf": kinds.iter().map(by_kind).collect::<Vec<_>>(),
    });
    source::every_object(&mut schema, &for_editors);
    schema["$schema"] = json!("http://json-schema.org/draft-07/schema#");
    schema["definitions"] = kinds.iter().map(definition).collect::<Map<_, _>>().into();
    schema
}

fn description(kind: &SchemaKind) -> Value {
    source::spec(kind).get("description").cloned().unwrap_or_default()
}

fn by_kind(kind: &SchemaKind) -> Value {
    json!({
        "if": { "required": ["kind"], "properties": { "kind": { "const": kind.name } } },
        "then": { "properties": { "spec": { "$ref": format!("#/definitions/{}", kind.name) } } },
    })
}

fn definition(kind: &SchemaKind) -> (String, Value) {
    let mut spec = source::spec(kind);
    source::every_object(&mut spec, &for_editors);
    (kind.name.to_owned(), spec)
}

fn metadata() -> Value {
    let texts = |description: &str| {
        let text = json!({ "type": "string", "x-unquoted": true });
        json!({ "type": "object", "additionalProperties": text, "description": description })
    };
    json!({
        "type": "object",
        "additionalProperties": false,
        "required": ["name"],
        "properties": {
            "name": {
                "description": "Unique within its kind.",
                "type": "string",
                "pattern": NAME_PATTERN,
                "maxLength": 63,
                "x-allowed": "lower-case letters, digits, `-` and `.`, at most 63 characters",
                "x-unquoted": true,
            },
            "labels": texts("Allowed and ignored."),
            "annotations": texts("Allowed and ignored."),
        },
    })
}

fn for_editors(schema: &mut Map<String, Value>) {
    if let Some(description) = source::full_description(schema) {
        // Where the words of a choice have their own place, the description needs no list of them.
        let own = description.split("\n\n- `").next().unwrap_or(&description).to_owned();
        schema.insert("description".to_owned(), own.into());
    }
    if let Some(meanings) = schema.remove("x-enum-descriptions") {
        schema.insert("markdownEnumDescriptions".to_owned(), meanings);
    }
    let constrained = ["enum", "pattern", "format", "anyOf"].iter().any(|key| schema.contains_key(*key));
    let unquoted = schema.contains_key("x-unquoted") || !constrained;
    if schema.get("type") == Some(&json!("string")) && unquoted {
        schema.insert("type".to_owned(), json!(["string", "number", "boolean"]));
    }
    // Sizes of integers are no formats here; the limits beside them say the same.
    if matches!(schema.get("format").and_then(Value::as_str), Some("int32" | "int64" | "double")) {
        schema.remove("format");
    }
    schema.retain(|key, _| !key.starts_with("x-"));
}
