//! What there is to tell of an identity set-up.

use std::collections::BTreeMap;

use serde::Serialize;

/// The objects of an identity set-up at the last look.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct AclStatus {
    /// How many, by kind and by how they are: see [`OBJECT_STATES`].
    pub objects: BTreeMap<&'static str, BTreeMap<&'static str, usize>>,
    /// When all of it was last looked at and was, or was made, as declared as far as it is ours, in seconds since 1970.
    pub last_sync: Option<f64>,
}

/// How objects can be: as declared; not (yet) as declared; waiting for something that must come first; in the way and
/// not ours; not readable; reported and left.
pub const OBJECT_STATES: [&str; 6] = ["ok", "drifted", "held", "conflict", "unknown", "unmanaged"];
