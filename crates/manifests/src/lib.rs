//! Loads manifests from files and from remote stores, and watches them. The last valid set stays in force: an invalid edit,
//! an emptied file, a failed mount or a store that does not answer removes nothing.
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

mod file_text;
mod manifest_source;
mod remote;
mod snapshot;
mod sources;
#[cfg(test)]
mod tests;
mod watch;

pub use file_text::ManifestText;
pub use manifest_source::{ManifestSource, ManifestSourceError, S3Location};
pub use remote::{
    RemoteEntry, RemoteError, RemotePage, RemoteSource, RemoteStore, SOURCE_RESULTS, SourceObserver,
};
pub use sources::{LoadOutcome, Loaded, ManifestSources, ValidationResult};
pub use watch::{ManifestStatus, WatchObservers, WatchOptions, watch, watch_observed};
