//! Loads manifests from files and watches them. The last valid set stays in force: an invalid edit, an emptied file or a
//! failed mount removes nothing.
//!
//! ```
//! use ecs_mesh_manifests::ManifestSources;
//!
//! let directory = std::env::temp_dir().join("ecs-mesh-manifests-example");
//! std::fs::create_dir_all(&directory)?;
//! std::fs::write(directory.join("none.yaml"), "# no manifests yet\n")?;
//!
//! let loaded = ManifestSources::new([directory]).load(None).into_loaded().expect("a first load is a change");
//! assert!(loaded.set.complete && loaded.errors.is_empty());
//! # Ok::<(), std::io::Error>(())
//! ```

#![forbid(unsafe_code)]

mod snapshot;
mod sources;
#[cfg(test)]
mod tests;
mod watch;

pub use sources::{LoadOutcome, Loaded, ManifestSources, ManifestText, ValidationResult};
pub use watch::{ManifestStatus, WatchOptions, watch, watch_with_heartbeat};
