//! One JSON Schema for manifests of all kinds, for editors. Unknown fields are errors, and `kind` selects the fields. Draft
//! 7, which yaml-language-server supports best.

use serde_json::{Map, Value, json};

use super::kinds::SchemaKind;
use super::source;
use crate::{API_VERSION, NAME_PATTERN};

/// The schema of all kinds.
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
                "description": "Kind of the manifest.",
                "type": "string",
                "enum": names,
                "x-enum-descriptions": kinds.iter().map(description).collect::<Vec<_>>(),
            },
            "metadata": metadata(),
            // The fields follow below, by kind.
            "spec": { "type": "object" },
        },
        // One `if` for each kind instead of `oneOf`, so that errors are those of the given kind.
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
        // Descriptions of enum values have a keyword of their own here.
        let text = description.split("\n\n- `").next().unwrap_or(&description).to_owned();
        schema.insert("description".to_owned(), text.into());
    }
    if let Some(meanings) = schema.remove("x-enum-descriptions") {
        schema.insert("markdownEnumDescriptions".to_owned(), meanings);
    }
    let constrained = ["enum", "pattern", "format", "anyOf"].iter().any(|key| schema.contains_key(*key));
    let unquoted = schema.contains_key("x-unquoted") || !constrained;
    if schema.get("type") == Some(&json!("string")) && unquoted {
        schema.insert("type".to_owned(), json!(["string", "number", "boolean"]));
    }
    // Draft 7 has no formats for integer sizes; the limits are given as minimum and maximum.
    if matches!(schema.get("format").and_then(Value::as_str), Some("int32" | "int64" | "double")) {
        schema.remove("format");
    }
    schema.retain(|key, _| !key.starts_with("x-"));
}
