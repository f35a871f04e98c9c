//! What stands in the sources at one moment: every file's bytes, and a digest of all of it.
//!
//! A directory gives its own `*.yaml`, `*.yml` and `*.json` files, in name order and without those whose name starts
//! with a dot (editors and mounted Kubernetes volumes keep theirs so); it is not searched deeper.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

/// Largest manifest file.
pub(super) const MAX_FILE_BYTES: u64 = 1024 * 1024;

const EXTENSIONS: [&str; 3] = ["yaml", "yml", "json"];

/// A file and what was found in it.
pub(super) struct FileText {
    /// Where.
    pub(super) path: Arc<Path>,
    /// Its text, or why there is none, in words.
    pub(super) text: Result<String, String>,
}

/// All sources at one moment.
pub(super) struct SourceSnapshot {
    /// The files, each once.
    pub(super) files: Vec<FileText>,
    /// Sources that could not be looked into or hold nothing, and why.
    pub(super) failures: Vec<(Arc<Path>, SourceFailure)>,
    /// Equal when everything above is.
    pub(super) digest: [u8; 32],
}

/// Why a source gave no file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SourceFailure {
    /// Nothing is at the path.
    Missing,
    /// A directory without a manifest file.
    Empty,
    /// Anything else, in words.
    Unreadable(String),
}

impl SourceSnapshot {
    /// Reads all sources. Blocks on the file system.
    pub(super) fn take(sources: &[PathBuf]) -> Self {
        let (mut files, mut failures) = (Vec::new(), Vec::new());
        let mut seen = BTreeSet::new();
        for source in sources {
            match paths_of(source) {
                Ok(paths) => {
                    for path in paths {
                        // A file that is named twice, or named and in a named directory, is one file.
                        if seen.insert(fs::canonicalize(&path).unwrap_or_else(|_| path.clone())) {
                            files.push(FileText { text: read(&path), path: path.into() });
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
        _ => SourceFailure::Unreadable(in_words(error)),
    }
}

fn in_words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "cannot be read: it does not exist, or is a link to nothing".to_owned(),
        io::ErrorKind::PermissionDenied => {
            "cannot be read: permission denied; let the operator's user read it".to_owned()
        }
        _ => format!("cannot be read: {error}"),
    }
}

fn read(path: &Path) -> Result<String, String> {
    let file = File::open(path).map_err(|error| in_words(&error))?;
    // A pipe would be waited on for ever, and a device has no end.
    if !file.metadata().is_ok_and(|found| found.is_file()) {
        return Err("cannot be read: not a regular file".to_owned());
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(|error| in_words(&error))?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err("is larger than 1 MiB: split it into several files".to_owned());
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let line = error.as_bytes()[..at].split(|b| *b == b'\n').count();
        format!("is not UTF-8 text (first wrong byte on line {line}): save it as UTF-8")
    })
}

fn digest(files: &[FileText], failures: &[(Arc<Path>, SourceFailure)]) -> [u8; 32] {
    let mut hash = Sha256::new();
    // Lengths go in too, so that no text can pass for the border between two.
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
            Err(why) => {
                add(b"error");
                add(why.as_bytes());
            }
        }
    }
    for (path, failure) in failures {
        add(path.as_os_str().as_encoded_bytes());
        add(format!("{failure:?}").as_bytes());
    }
    hash.finalize().into()
}
