//! Parses manifests and checks them against each other. Reads no files and keeps no state.

mod deserialize;
mod document;
mod finding;
mod outbounds;
mod set;
mod validate;
mod yaml;
mod zone_proxies;

pub use document::{Manifest, read_file};
pub use finding::{ManifestFinding, nearest, suggestion};
pub use outbounds::{DeclaredReach, MergedOutbounds, OutboundClaim, OutboundConflict, UsedPort, reserved};
pub use set::{Binding, ManifestSet};
pub use validate::{Assembled, ManifestScope, assemble, broken_description, is_dns_label, refused_sources};
