//! From texts to a set of manifests that holds together. Reads no files and keeps nothing.

mod document;
mod finding;
mod outbounds;
mod set;
mod deserialize;
mod validate;
mod yaml;

pub use document::{Manifest, read_file};
pub use finding::ManifestFinding;
pub use outbounds::{MergedOutbounds, OutboundClaim, OutboundConflict, UsedPort, reserved};
pub use set::{Binding, ManifestSet};
pub(crate) use validate::CONSUL_NAME_RULE;
pub use validate::{Assembled, DNS_LABEL, ManifestScope, assemble, is_dns_label};
