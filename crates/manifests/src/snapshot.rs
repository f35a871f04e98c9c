//! A snapshot of the sources: every file's bytes, and a digest of all.
//!
//! A directory contributes its own `*.yaml`, `*.yml` and `*.json` files in name order, without subdirectories. Names that
//! start with a dot are skipped: editors and mounted Kubernetes volumes use them for their own files.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use ecs_mesh_controller::ReadFileError;

/// Maximum size of a manifest file.
pub(super) const MAX_FILE_BYTES: u64 = 1024 * 1024;

const EXTENSIONS: [&str; 3] = ["yaml", "yml", "json"];

/// A file and its text.
pub(super) struct FileText {
    /// The path.
    pub(super) path: Arc<Path>,
    /// The text, or the error message.
    pub(super) text: Result<String, String>,
}

/// All sources at one moment.
pub(super) struct SourceSnapshot {
    /// The files, each once.
    pub(super) files: Vec<FileText>,
    /// Sources that could not be read or are empty, and the failures.
    pub(super) failures: Vec<(Arc<Path>, SourceFailure)>,
    /// Equal where files and failures are equal.
    pub(super) digest: [u8; 32],
}

/// Why a source has no file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SourceFailure {
    /// The path does not exist.
    Missing,
    /// A directory without a manifest file.
    Empty,
    /// Any other failure, as a message.
    Unreadable(String),
}

impl SourceSnapshot {
    /// Reads all sources. Blocks on the file system.
    pub(super) fn read(sources: &[PathBuf]) -> Self {
        let (mut files, mut failures) = (Vec::new(), Vec::new());
        let mut seen = BTreeSet::new();
        for source in sources {
            match paths_of(source) {
                Ok(paths) => {
                    for path in paths {
                        // A file that several sources include is read once.
                        if seen.insert(fs::canonicalize(&path).unwrap_or_else(|_| path.clone())) {
                            files.push(FileText { text: read_file(&path), path: path.into() });
                        }
                    }
                }
                Err(failure) => failures.push((source.as_path().into(), failure)),
            }
        }
        let digest = digest(&files, &failures);
        Self { files, failures, digest }
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

fn is_manifest(path: &Path) -> bool {
    let hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    !hidden && EXTENSIONS.iter().any(|known| extension.eq_ignore_ascii_case(known))
}

fn failure(error: &io::Error) -> SourceFailure {
    match error.kind() {
        io::ErrorKind::NotFound => SourceFailure::Missing,
        _ => SourceFailure::Unreadable(describe_error(error)),
    }
}

fn describe_error(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "cannot be read: not found, or a broken link".to_owned(),
        io::ErrorKind::PermissionDenied => {
            "cannot be read: permission denied; let the operator's user read it".to_owned()
        }
        _ => format!("cannot be read: {error}"),
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

/// Reads a text to its end: UTF-8, up to [`MAX_FILE_BYTES`].
pub(super) fn read_text(reader: impl io::Read) -> Result<String, String> {
    let mut bytes = Vec::new();
    reader.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(|error| describe_error(&error))?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err("is larger than 1 MiB: split it into several files".to_owned());
    }
    text(bytes)
}

fn text(bytes: Vec<u8>) -> Result<String, String> {
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let line = error.as_bytes()[..at].split(|b| *b == b'\n').count();
        format!("is not UTF-8 text (first wrong byte on line {line}): save it as UTF-8")
    })
}

fn digest(files: &[FileText], failures: &[(Arc<Path>, SourceFailure)]) -> [u8; 32] {
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
    hash.finalize().into()
}
