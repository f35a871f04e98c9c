//! The schemas of the manifests: current, accepted by their consumers, and consistent with the loader.

mod cases;
mod commands;
mod golden;
mod validators;

use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn schemas() -> PathBuf {
    root().join("crds")
}
