//! The text of one manifest file, wherever it is from.

use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

/// Maximum size of a manifest file.
pub(super) const MAX_FILE_BYTES: u64 = 1024 * 1024;

const EXTENSIONS: [&str; 3] = ["yaml", "yml", "json"];

/// A file and its text.
#[derive(Clone, Debug)]
pub(super) struct FileText {
    /// The path.
    pub(super) path: Arc<Path>,
    /// The text, or the error message.
    pub(super) text: Result<Arc<str>, String>,
}

impl FileText {
    /// Whether it is a text without content.
    pub(super) fn is_blank(&self) -> bool {
        self.text.as_ref().is_ok_and(|text| text.trim().is_empty())
    }
}

/// Why a source has no file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SourceFailure {
    /// The path does not exist.
    Missing,
    /// A directory without a manifest file.
    Empty,
    /// A text without content.
    Blank,
    /// Any other failure, as a message.
    Unreadable(String),
}

/// Manifests that are in no file, such as those of standard input.
#[derive(Clone, Debug)]
pub struct ManifestText {
    name: Arc<Path>,
    /// The text, or why there is none.
    text: Result<Arc<str>, String>,
    may_be_blank: bool,
}

impl ManifestText {
    /// Reads the text to its end, within the limit of a manifest file. Findings call it by this name.
    pub fn read(name: &str, reader: impl Read) -> Self {
        Self { name: Path::new(name).into(), text: read_text(reader).map(Into::into), may_be_blank: true }
    }

    /// The text of a variable or a flag. One without content is an error: a variable that was not filled looks like that.
    pub fn inline(name: &str, text: &str) -> Self {
        Self { may_be_blank: false, ..Self::read(name, text.as_bytes()) }
    }

    pub(super) fn path(&self) -> Arc<Path> {
        Arc::clone(&self.name)
    }

    /// The text as a file.
    pub(super) fn file(&self) -> Result<FileText, SourceFailure> {
        let file = FileText { path: self.path(), text: self.text.clone() };
        if file.is_blank() && !self.may_be_blank { Err(SourceFailure::Blank) } else { Ok(file) }
    }
}

/// Whether a file of this name is a manifest.
pub(super) fn is_manifest(path: &Path) -> bool {
    let hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    !hidden && EXTENSIONS.iter().any(|known| extension.eq_ignore_ascii_case(known))
}

/// The failure of a read, in words.
pub(super) fn describe_error(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "cannot be read: not found, or a broken link".to_owned(),
        io::ErrorKind::PermissionDenied => {
            "cannot be read: permission denied; let the operator's user read it".to_owned()
        }
        _ => format!("cannot be read: {error}"),
    }
}

/// Reads a text to its end: UTF-8, up to [`MAX_FILE_BYTES`].
fn read_text(reader: impl Read) -> Result<String, String> {
    let mut bytes = Vec::new();
    reader.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(|error| describe_error(&error))?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err("is larger than 1 MiB: split it into several files".to_owned());
    }
    text(bytes)
}

/// The text of a manifest.
pub(super) fn text(bytes: Vec<u8>) -> Result<String, String> {
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let line = error.as_bytes()[..at].split(|b| *b == b'\n').count();
        format!("is not UTF-8 text (first wrong byte on line {line}): save it as UTF-8")
    })
}
