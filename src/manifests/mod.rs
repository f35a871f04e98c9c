//! From files to a set of manifests that holds together; the last good set stays in force.

mod set;

pub use set::{Binding, ManifestSet};
