//! The status of a control plane's ACL objects, for metrics and `/readyz`.

use std::collections::BTreeMap;

use serde::Serialize;

/// ACL objects as of the last reconcile.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct AclStatus {
    /// Number of objects by kind and state: see [`OBJECT_STATES`].
    pub objects: BTreeMap<&'static str, BTreeMap<&'static str, usize>>,
    /// Time of the last reconcile after which all objects were as declared, in seconds since 1970.
    pub last_sync: Option<f64>,
}

/// States of objects: as declared; not as declared; waiting for a dependency; in the way and not owned; unreadable; reported
/// and not changed.
pub const OBJECT_STATES: [&str; 6] = ["ok", "drifted", "held", "conflict", "unknown", "unmanaged"];
