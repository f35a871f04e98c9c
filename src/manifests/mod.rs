//! From files to a set of manifests that holds together; the last good set stays in force.

mod document;
mod finding;
mod outbounds;
mod set;
mod typed;
mod validate;
mod yaml;

pub use finding::Finding;
pub use outbounds::{OutboundClaim, OutboundConflict};
pub use set::{Binding, ManifestSet};
