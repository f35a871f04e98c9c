//! From files to a set of manifests that holds together; the last good set stays in force.

mod document;
mod finding;
mod outbounds;
mod set;
mod snapshot;
mod sources;
#[cfg(test)]
mod tests;
mod typed;
mod validate;
mod watch;
mod yaml;

pub use finding::Finding;
pub(crate) use outbounds::reserved;
pub use outbounds::{MergedOutbounds, OutboundClaim, OutboundConflict, Taken};
pub use set::{Binding, ManifestSet};
pub use sources::{Checked, LoadOutcome, Loaded, Sources};
pub use validate::Extent;
pub(crate) use validate::{CONSUL_NAME_RULE, DNS_LABEL, is_dns_label};
pub use watch::{Status, WatchOptions, watch, watch_by_pulse};
