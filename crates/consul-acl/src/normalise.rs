//! Normal forms for comparison and requests: server-side fields and equivalent spellings are no difference, and undeclared
//! fields are sent unchanged.

mod config;

use serde_json::{Map, Value, json};

use crate::desired::unsigned;
use crate::hcl;
use ecs_mesh_core::plan::report::ObjectKind;
use ecs_mesh_core::plan::{FieldChange, diff};
use ecs_mesh_model::GoDuration;

/// Fields that the server sets, or that identify the object's scope.
const SERVERS: [&str; 9] = [
    "ID",
    "Hash",
    "CreateIndex",
    "ModifyIndex",
    "CreateTime",
    "SecretID",
    "Namespace",
    "Partition",
    "Datacenter",
];
/// Lists without a significant order.
const SETS: [&str; 9] = [
    "BoundIAMPrincipalARNs",
    "IAMEntityTags",
    "AllowedSTSHeaderValues",
    "Policies",
    "PolicyDefaults",
    "RoleDefaults",
    "ServiceIdentities",
    "NodeIdentities",
    "Datacenters",
];
/// Fields that a new object needs and an existing one keeps.
const AT_CREATION: &str = "Address";

/// The declared fields that differ.
pub(super) fn difference(kind: ObjectKind, found: &Value, declared: &Value) -> Vec<FieldChange> {
    let (found, twice) = config::normalise_config(found);
    let (found, declared) = (tidy(&found), tidy(declared));
    let mut before = within(&found, &declared);
    if let Some(Value::Object(config)) = before.get_mut("Config") {
        config.extend(twice);
    }
    let mut after = declared;
    name_alike(&mut before, &after);
    for side in [&mut before, &mut after] {
        for name in kept(kind) {
            side.as_object_mut().map(|fields| fields.remove(*name));
        }
    }
    if is_one_method(&before, &after) {
        before["AuthMethod"] = after["AuthMethod"].clone();
    }
    if let (Some(Value::String(old)), Some(Value::String(new))) = (before.get("Rules"), after.get("Rules"))
        && hcl::same_rules(old, new)
    {
        before["Rules"] = after["Rules"].clone();
    }
    diff(&without_empty(before), &without_empty(after))
}

/// Whether only the description differs.
pub(super) fn does_the_same(kind: ObjectKind, found: &Value, declared: &Value) -> bool {
    difference(kind, found, declared).iter().all(|change| change.path == "Description")
}

/// The request body of a create.
pub(super) fn created(declared: &Value) -> Value {
    without_empty(declared.clone())
}

/// The request body of an update: the actual object with the declared fields.
pub(super) fn updated(kind: ObjectKind, found: &Value, declared: &Value) -> Value {
    let (found, _) = config::normalise_config(found);
    let mut body = sendable(kind, &found);
    let mut declared = declared.clone();
    let same_method = is_one_method(&found, &declared);
    if let Some(fields) = declared.as_object_mut() {
        for name in kept(kind) {
            if body.get(*name).is_some_and(|value| !is_empty(value)) {
                fields.remove(*name);
            }
        }
        if same_method {
            // Consul never changes the spelling in a rule.
            fields.remove("AuthMethod");
        }
    }
    overlay(&mut body, &declared);
    body
}

/// Fields that keep their spelling. An auth method's name does not: Consul ignores its case, but tokens have it as spelled
/// and are found by it.
fn kept(kind: ObjectKind) -> &'static [&'static str] {
    match kind {
        ObjectKind::AuthMethod => &[],
        _ => &["Name", "Node", AT_CREATION],
    }
}

/// Consul links a policy by its stored spelling. Names are unique regardless of case.
fn name_alike(before: &mut Value, after: &Value) {
    let (Some(Value::Array(links)), Some(Value::Array(declared))) =
        (before.get_mut("Policies"), after.get("Policies"))
    else {
        return;
    };
    let name = |link: &Value| link.get("Name").and_then(Value::as_str).map(str::to_ascii_lowercase);
    for link in links.iter_mut() {
        if let Some(same) = declared.iter().find(|other| name(other).is_some() && name(other) == name(link)) {
            *link = same.clone();
        }
    }
    *links = in_one_order(std::mem::take(links));
}

/// Whether both are rules of the same auth method.
fn is_one_method(found: &Value, declared: &Value) -> bool {
    let method = |rule: &Value| rule.get("AuthMethod").and_then(Value::as_str).map(str::to_ascii_lowercase);
    method(declared).is_some_and(|name| method(found) == Some(name))
}

/// The object without server-side fields.
pub(super) fn sendable(kind: ObjectKind, found: &Value) -> Value {
    let mut body = found.clone();
    let node_id = (kind == ObjectKind::Node).then(|| found.get("ID").cloned()).flatten();
    if let Some(fields) = body.as_object_mut() {
        fields.retain(|name, _| !SERVERS.contains(&name.as_str()));
        // A namespace keeps its own metadata.
        if kind == ObjectKind::Node
            && let Some(meta) = fields.remove("Meta")
        {
            fields.insert("NodeMeta".to_owned(), meta);
        }
        if let Some(id) = node_id.filter(|id| !is_empty(id)) {
            fields.insert("ID".to_owned(), id);
        }
    }
    body
}

fn overlay(body: &mut Value, declared: &Value) {
    let Some(declared) = declared.as_object() else { return };
    if !body.is_object() {
        *body = Value::Object(Map::new());
    }
    let Some(fields) = body.as_object_mut() else { return };
    for (name, value) in declared {
        match value {
            value if is_empty(value) => {
                fields.remove(name);
            }
            Value::Object(_) => overlay(fields.entry(name.clone()).or_insert(Value::Null), value),
            value => {
                fields.insert(name.clone(), value.clone());
            }
        }
    }
}

/// The declared part of the actual object.
fn within(found: &Value, declared: &Value) -> Value {
    match (found, declared) {
        (Value::Object(found), Value::Object(declared)) if !declared.is_empty() => declared
            .iter()
            .filter_map(|(name, value)| Some((name.clone(), within(found.get(name)?, value))))
            .collect::<Map<_, _>>()
            .into(),
        (found, _) => found.clone(),
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(changes) => changes.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    }
}

fn without_empty(value: Value) -> Value {
    let Value::Object(fields) = value else { return value };
    let fields = fields.into_iter().map(|(name, value)| (name, without_empty(value)));
    fields.filter(|(_, value)| !is_empty(value)).collect::<Map<_, _>>().into()
}

/// The normal form of a value.
fn tidy(value: &Value) -> Value {
    let Value::Object(fields) = value else { return value.clone() };
    let mut tidied = Map::new();
    for (name, value) in fields {
        let (name, value) = match (name.as_str(), value) {
            ("Meta", meta) => ("NodeMeta", meta.clone()),
            ("TokenLocality", Value::String(text)) if text == "local" => ("TokenLocality", json!("")),
            ("MaxTokenTTL", Value::String(text)) => ("MaxTokenTTL", json!(ttl(text))),
            ("Description", Value::String(text)) => ("Description", json!(unsigned(text))),
            ("Selector", Value::String(text)) => ("Selector", json!(text.trim())),
            (name, Value::Array(changes)) if SETS.contains(&name) => (name, set(changes)),
            (name, Value::Object(_)) => (name, tidy(value)),
            (name, value) => (name, value.clone()),
        };
        tidied.insert(name.to_owned(), value);
    }
    tidied.into()
}

/// Policy links by name, sorted.
fn set(changes: &[Value]) -> Value {
    let changes = changes.iter().map(|item| match item.get("Name") {
        Some(name) => json!({ "Name": name }),
        None => item.clone(),
    });
    in_one_order(changes.collect()).into()
}

fn in_one_order(mut changes: Vec<Value>) -> Vec<Value> {
    changes.sort_by_cached_key(Value::to_string);
    changes.dedup();
    changes
}

/// The normal form of a duration: `1h`, `60m` and `1h0m0s` are equal, and zero is empty. Other texts stay unchanged.
fn ttl(text: &str) -> String {
    match GoDuration::parse(text) {
        Some(GoDuration(0)) => String::new(),
        Some(duration) => duration.to_string(),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_durations_have_one_normal_form() {
        for text in ["1h30m0s", "90m", "5400s", "1.5h", "1h30m"] {
            assert_eq!(ttl(text), "1h30m0s", "{text}");
        }
        for (text, expected) in
            [("0s", ""), ("0", ""), ("", ""), ("1m0.5s", "1m0.5s"), ("soon", "soon"), ("1.2.3s", "1.2.3s")]
        {
            assert_eq!(ttl(text), expected, "{text}");
        }
    }

    #[test]
    fn update_body_keeps_undeclared_fields() {
        let found = json!({
            "ID": "1", "Name": "M", "Hash": "h", "CreateIndex": 1, "DisplayName": "Tasks", "TokenLocality": "global",
            "Config": { "A": ["x"], "MaxRetries": 3, "STSEndpoint": "https://evil" },
        });
        let declared =
            json!({ "Name": "m", "TokenLocality": "", "Config": { "A": ["y"], "STSEndpoint": "" } });
        assert_eq!(
            updated(ObjectKind::AuthMethod, &found, &declared),
            json!({ "Name": "m", "DisplayName": "Tasks", "Config": { "A": ["y"], "MaxRetries": 3 } })
        );
        let paths: Vec<String> = difference(ObjectKind::AuthMethod, &found, &declared)
            .into_iter()
            .map(|change| change.path)
            .collect();
        assert_eq!(paths, ["Config.A[0]", "Config.STSEndpoint", "Name", "TokenLocality"]);
    }

    #[test]
    fn node_keeps_its_address_and_foreign_metadata() {
        let found = json!({
            "ID": "", "Node": "n", "Address": "10.0.0.1", "Datacenter": "dc1", "Meta": { "a": "b" }, "ModifyIndex": 3,
        });
        let declared =
            json!({ "Node": "n", "Address": "127.0.0.1", "NodeMeta": { "synthetic-node": "true" } });
        assert_eq!(
            updated(ObjectKind::Node, &found, &declared),
            json!({ "Node": "n", "Address": "10.0.0.1", "NodeMeta": { "a": "b", "synthetic-node": "true" } })
        );
        assert_eq!(difference(ObjectKind::Node, &found, &declared)[0].path, "NodeMeta");
    }
}
