//! A snapshot of the sources: every file's bytes, and a digest of all.
//!
//! A directory contributes its own `*.yaml`, `*.yml` and `*.json` files in name order, without subdirectories. Names that
//! start with a dot are skipped: editors and mounted Kubernetes volumes use them for their own files.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::file_text::{
    FileText, MAX_FILE_BYTES, ManifestText, SourceFailure, describe_error, is_manifest, text,
};
use super::remote::RemoteReading;
use ecs_mesh_api::manifests::ManifestFinding;
use ecs_mesh_controller::ReadFileError;

/// All sources at one moment.
#[derive(Default)]
pub(super) struct SourceSnapshot {
    /// The names of the sources.
    pub(super) sources: Vec<Arc<Path>>,
    /// The files, each once.
    pub(super) files: Vec<FileText>,
    /// Sources that could not be read or are empty, and the failures.
    pub(super) failures: Vec<(Arc<Path>, SourceFailure)>,
    /// Why remote sources may have other manifests by now.
    pub(super) unread: Vec<ManifestFinding>,
    /// Equal where all else is equal.
    pub(super) digest: [u8; 32],
}

impl SourceSnapshot {
    /// Reads the files, with these texts and what the remote sources have. Blocks on the file system.
    pub(super) fn read(sources: &[PathBuf], texts: &[ManifestText], remote: &[Arc<RemoteReading>]) -> Self {
        let (mut files, mut failures) = (Vec::new(), Vec::new());
        let mut seen = BTreeSet::new();
        for source in sources {
            match paths_of(source) {
                Ok(paths) => {
                    for path in paths {
                        // A file that several sources include is read once.
                        if seen.insert(fs::canonicalize(&path).unwrap_or_else(|_| path.clone())) {
                            files
                                .push(FileText { text: read_file(&path).map(Into::into), path: path.into() });
                        }
                    }
                }
                Err(failure) => failures.push((source.as_path().into(), failure)),
            }
        }
        for text in texts {
            match text.file() {
                Ok(file) => files.push(file),
                Err(failure) => failures.push((text.path(), failure)),
            }
        }
        let digest = digest(&files, &failures, remote);
        files.extend(remote.iter().flat_map(|reading| reading.files.iter().cloned()));
        let unread = remote.iter().flat_map(|reading| reading.unread.iter().cloned()).collect();
        Self { files, failures, unread, digest, ..Self::default() }
    }
}

fn paths_of(source: &Path) -> Result<Vec<PathBuf>, SourceFailure> {
    let kind = fs::metadata(source).map_err(|error| failure(&error))?;
    if !kind.is_dir() {
        return Ok(vec![source.to_owned()]);
    }
    let mut paths = Vec::new();
    for entry in fs::read_dir(source).map_err(|error| failure(&error))? {
        let path = entry.map_err(|error| failure(&error))?.path();
        if is_manifest(&path) && !path.is_dir() {
            paths.push(path);
        }
    }
    paths.sort();
    if paths.is_empty() { Err(SourceFailure::Empty) } else { Ok(paths) }
}

fn failure(error: &io::Error) -> SourceFailure {
    match error.kind() {
        io::ErrorKind::NotFound => SourceFailure::Missing,
        _ => SourceFailure::Unreadable(describe_error(error)),
    }
}

fn read_file(path: &Path) -> Result<String, String> {
    let bytes = ecs_mesh_controller::read_file(path, MAX_FILE_BYTES).map_err(|error| match &error {
        ReadFileError::Io(error) => describe_error(error),
        ReadFileError::NotRegular(_) => format!("cannot be read: {error}"),
        ReadFileError::TooLarge(_) => format!("is {error}: split it into several files"),
    })?;
    text(bytes)
}

fn digest(
    files: &[FileText],
    failures: &[(Arc<Path>, SourceFailure)],
    remote: &[Arc<RemoteReading>],
) -> [u8; 32] {
    let mut hash = Sha256::new();
    // Lengths are included, so that no text can imitate the border between two.
    let mut add = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    for FileText { path, text } in files {
        add(path.as_os_str().as_encoded_bytes());
        match text {
            Ok(text) => {
                add(b"text");
                add(text.as_bytes());
            }
            Err(message) => {
                add(b"error");
                add(message.as_bytes());
            }
        }
    }
    for (path, failure) in failures {
        add(path.as_os_str().as_encoded_bytes());
        add(format!("{failure:?}").as_bytes());
    }
    remote.iter().for_each(|reading| add(&reading.digest));
    hash.finalize().into()
}
