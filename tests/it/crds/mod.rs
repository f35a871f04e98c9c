//! The manifests' schemas: current, taken by those who have to take them, and of one mind with loading.

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
