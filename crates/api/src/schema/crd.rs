//! A kind as `CustomResourceDefinition` (`apiextensions.k8s.io/v1`), whose schema is structural.

use serde_json::{Map, Value, json};

use super::kinds::{Column, SchemaKind};
use super::source;
use crate::{API_VERSION, NAME_PATTERN};

/// The definition of one kind.
pub(super) fn definition(kind: &SchemaKind) -> Value {
    let (group, version) = API_VERSION.split_once('/').unwrap_or((API_VERSION, ""));
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": { "name": format!("{}.{group}", kind.plural) },
        "spec": {
            "group": group,
            // A manifest has no namespace.
            "scope": "Cluster",
            "names": {
                "kind": kind.name,
                "listKind": format!("{}List", kind.name),
                "plural": kind.plural,
                "singular": kind.name.to_lowercase(),
                "shortNames": [kind.short_name],
                "categories": ["ecs-mesh"],
            },
            "versions": [{
                "name": version,
                "served": true,
                "storage": true,
                "additionalPrinterColumns": kind.columns.iter().map(column).collect::<Vec<_>>(),
                "schema": { "openAPIV3Schema": schema(kind) },
            }],
        },
    })
}

fn column(column: &Column) -> Value {
    let mut value = json!({ "name": column.name, "type": column.kind, "jsonPath": column.path });
    if column.wide {
        value["priority"] = json!(1);
    }
    value
}

fn schema(kind: &SchemaKind) -> Value {
    let mut spec = source::spec(kind);
    let description = spec.get("description").cloned().unwrap_or_default();
    source::every_object(&mut spec, &structural);
    json!({
        "description": description,
        "type": "object",
        "required": ["metadata", "spec"],
        "properties": {
            "apiVersion": { "type": "string" },
            "kind": { "type": "string" },
            "metadata": {
                "type": "object",
                "properties": { "name": { "type": "string", "pattern": NAME_PATTERN, "maxLength": 63 } },
            },
            "spec": spec,
        },
    })
}

/// Makes a schema structural. A structural schema cannot exclude unknown fields: the API server drops them, or rejects them
/// under strict validation. Lists are replaced as a whole unless a key identifies their items.
fn structural(schema: &mut Map<String, Value>) {
    if let Some(description) = source::full_description(schema) {
        schema.insert("description".to_owned(), description.into());
    }
    if schema.get("additionalProperties") == Some(&json!(false)) {
        schema.remove("additionalProperties");
    }
    if schema.get("type") == Some(&json!("array")) {
        schema.entry("x-kubernetes-list-type").or_insert(json!("atomic"));
    }
    schema.retain(|key, _| !key.starts_with("x-") || key.starts_with("x-kubernetes-"));
}
