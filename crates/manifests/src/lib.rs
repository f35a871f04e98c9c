//! From files to a set of manifests that holds together; the last good set stays in force.

#![forbid(unsafe_code)]

mod snapshot;
mod sources;
#[cfg(test)]
mod tests;
mod watch;

pub use sources::{Checked, LoadOutcome, Loaded, Sources};
pub use watch::{Status, WatchOptions, watch, watch_by_pulse};
