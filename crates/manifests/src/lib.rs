//! From files to a set of manifests that holds together; the last good set stays in force.

#![forbid(unsafe_code)]

mod snapshot;
mod sources;
#[cfg(test)]
mod tests;
mod watch;

pub use sources::{ValidationResult, LoadOutcome, Loaded, ManifestSources};
pub use watch::{ManifestStatus, WatchOptions, watch, watch_with_heartbeat};
