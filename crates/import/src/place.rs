//! Places in the input, and errors with their places.

use std::fmt;
use std::sync::Arc;

/// A document's place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DocumentPlace {
    /// The file's name as given.
    pub file: Arc<str>,
    /// The number in the file, from 1; documents without content do not count.
    pub document: u32,
}

/// Why a document cannot be read, before its file is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SourceError {
    pub(crate) line: Option<u32>,
    pub(crate) column: Option<usize>,
    pub(crate) path: String,
    pub(crate) message: String,
}

impl SourceError {
    pub(crate) fn at(self, place: &DocumentPlace) -> ImportError {
        let Self { line, column, path, message } = self;
        let DocumentPlace { file, document } = place.clone();
        ImportError { file, document: Some(document), line, column, path, message }
    }
}

/// Input that cannot be imported, with its place. Prints as `FILE:LINE:COLUMN (document N): PATH: MESSAGE`, without what
/// is unknown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ImportError {
    /// The file's name as given.
    pub file: Arc<str>,
    /// The document's number in the file, from 1.
    pub document: Option<u32>,
    /// The line, from 1.
    pub line: Option<u32>,
    /// The column, from 1.
    pub column: Option<usize>,
    /// The field's path; empty for a whole document.
    pub path: String,
    /// The cause, and the next step.
    pub message: String,
}

impl ImportError {
    /// An error of a whole file.
    pub fn about_file(file: &str, message: impl Into<String>) -> Self {
        let (document, line, column) = (None, None, None);
        Self { file: file.into(), document, line, column, path: String::new(), message: message.into() }
    }

    /// An error of a document.
    pub(crate) fn about(place: &DocumentPlace, line: u32, message: impl Into<String>) -> Self {
        Self {
            file: Arc::clone(&place.file),
            document: Some(place.document),
            line: Some(line),
            column: None,
            path: String::new(),
            message: message.into(),
        }
    }
}

impl fmt::Display for ImportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if let (Some(_), Some(column)) = (self.line, self.column) {
            write!(f, ":{column}")?;
        }
        if let Some(document) = self.document {
            write!(f, " (document {document})")?;
        }
        if !self.path.is_empty() {
            write!(f, ": {}", self.path)?;
        }
        write!(f, ": {}", self.message)
    }
}
