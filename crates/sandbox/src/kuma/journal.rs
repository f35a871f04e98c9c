//! The journal of writes that the HTTP API accepted.

use serde_json::Value;

use ecs_mesh_model::Timestamp;

/// One accepted write.
#[derive(Clone, Debug, PartialEq)]
pub struct KumaJournalEntry {
    /// Time of the write.
    pub at: Timestamp,
    /// `PUT` or `DELETE`.
    pub method: &'static str,
    /// The type of the object, such as `Dataplane`.
    pub kind: &'static str,
    /// The mesh; empty for global objects.
    pub mesh: String,
    /// The name.
    pub name: String,
    /// The stored body before the write; `None` if the write created it.
    pub before: Option<Value>,
    /// The stored body after the write; `None` if the write deleted it.
    pub after: Option<Value>,
    /// Whether a field other than `modificationTime` changed. An unchanged PUT still makes a real server recompute
    /// the configuration of every proxy of the mesh.
    pub changed: bool,
}

impl KumaJournalEntry {
    pub(super) fn differ(before: Option<&Value>, after: Option<&Value>) -> bool {
        let (Some(Value::Object(before)), Some(Value::Object(after))) = (before, after) else { return true };
        let own = |field: &&String| field.as_str() != "modificationTime";
        before.keys().filter(own).count() != after.keys().filter(own).count()
            || before
                .iter()
                .filter(|(field, _)| own(field))
                .any(|(field, value)| after.get(field) != Some(value))
    }
}
