//! A log line as the read API's change.

use std::borrow::Cow;

use serde_json::{Map, Value, json};

use super::fields::LogFields;
use ecs_mesh_model::Timestamp;

/// The message of lines that name a task's condition.
const WARNING: &str = "task needs attention";
/// The reason of an update, before the paths of its fields.
const DIFFERS: &str = "differs in ";
/// Types of resources before the name of a zone proxy's registration, which has no mesh.
const ZONE_PROXIES: [&str; 2] = ["zoneingress/", "zoneegress/"];

/// A line's part in the history.
#[derive(Debug, PartialEq)]
pub(super) enum Entry {
    /// A change, as JSON.
    Change(Value),
    /// A condition of a task, as JSON.
    Warning(Value),
    /// A line about something else.
    Other,
    /// A change or warning without a time.
    Undated,
}

/// The part of the line with this number in the history.
pub(super) fn entry(number: u64, fields: &LogFields) -> Entry {
    let is_warning = fields.get("message") == Some(WARNING);
    // A planned change of a dry run has no result.
    let is_change = fields.get("change").is_some() && fields.get("result").is_some();
    if !is_warning && !is_change {
        return Entry::Other;
    }
    let Some(time) = fields.get("timestamp").filter(|text| Timestamp::parse(text).is_some()) else {
        return Entry::Undated;
    };
    let mut object = Map::new();
    let mut set = |key: &str, value: Value| {
        object.insert(key.to_owned(), value);
    };
    set("id", number.into());
    set("time", time.into());
    set("kind", if is_warning { "warning" } else { fields.get("change").unwrap_or_default() }.into());
    set("object", object_kind(fields).into());
    for (key, from) in [
        ("controlPlane", "control_plane"),
        ("mesh", "mesh"),
        ("task", "task"),
        ("service", "service"),
        ("workload", "workload"),
        ("role", "role"),
        ("binding", "binding"),
        ("cluster", "cluster"),
    ] {
        if let Some(value) = fields.get(from) {
            set(key, value.into());
        }
    }
    if let Some(name) = name(fields) {
        set("name", name.into());
    }
    // The log has the cluster before the service's name.
    if let Some(service) = fields.get("ecs_service") {
        set("ecsService", service.rsplit('/').next().unwrap_or(service).into());
    }
    if fields.get("cluster").is_none()
        && let Some(cluster) = fields.get("task").and_then(cluster)
    {
        set("cluster", cluster.into());
    }
    let reason = fields.get("reason").unwrap_or_default();
    if is_warning {
        set("reason", json!({"key": reason, "message": fields.get("error").unwrap_or_default()}));
        return Entry::Warning(Value::Object(object));
    }
    set("reason", json!({"message": reason}));
    let paths = fields.get("fields").or_else(|| fields.get("reason")?.strip_prefix(DIFFERS));
    let paths: Vec<&str> = paths.into_iter().flat_map(|all| all.split(", ")).collect();
    if !paths.is_empty() {
        set("fields", paths.into());
    }
    set("result", result(fields).into());
    if let Some(error) = fields.get("error") {
        set("error", error.into());
    }
    Entry::Change(Value::Object(object))
}

/// The kind of object, as in the read API.
fn object_kind(fields: &LogFields) -> &str {
    match fields.get("change").unwrap_or_default() {
        "protect" | "unprotect" => "protection",
        _ if fields.get("store").is_some() => "data_plane_token",
        _ => fields.get("kind").unwrap_or("registration"),
    }
}

/// The name of the object, as in the read API.
fn name(fields: &LogFields) -> Option<Cow<'_, str>> {
    let name = fields.get("name")?;
    // Consul gives a binding rule an id and no name.
    if fields.get("kind") == Some("binding_rule") {
        let with_id = |id: &str| Cow::Owned(format!("{name} ({id})"));
        return Some(fields.get("id").map_or(Cow::Borrowed(name), with_id));
    }
    Some(ZONE_PROXIES.into_iter().find_map(|prefix| name.strip_prefix(prefix)).unwrap_or(name).into())
}

/// The ARN of the cluster of a task's ARN.
fn cluster(task: &str) -> Option<String> {
    let (account, path) = task.split_once(":task/")?;
    path.split_once('/').map(|(cluster, _)| format!("{account}:cluster/{cluster}"))
}

fn result(fields: &LogFields) -> &str {
    match fields.get("result").unwrap_or_default() {
        "success_response_lost" => "successResponseLost",
        other => other,
    }
}
