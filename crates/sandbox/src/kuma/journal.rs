//! The record of every write that the HTTP API accepted, for those who check what a client did.

use serde_json::Value;

use ecs_mesh_model::Timestamp;

/// One accepted write.
#[derive(Clone, Debug, PartialEq)]
pub struct KumaJournalEntry {
    /// When it took effect.
    pub at: Timestamp,
    /// `PUT` or `DELETE`.
    pub method: &'static str,
    /// The type of the object, such as `Dataplane`.
    pub kind: &'static str,
    /// The mesh; empty for objects in none.
    pub mesh: String,
    /// The name.
    pub name: String,
    /// The stored body before; nothing where the write created it.
    pub before: Option<Value>,
    /// The stored body after; nothing where the write deleted it.
    pub after: Option<Value>,
    /// Whether anything but `modificationTime` changed. An unchanged PUT still makes a real server recompute what
    /// every proxy of the mesh is told.
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
