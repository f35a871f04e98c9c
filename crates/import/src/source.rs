//! Files that are imported, and their documents.

use std::sync::Arc;

use crate::place::{DocumentPlace, ImportError, SourceError};
use crate::tree::SourceNode;
use crate::{json, yaml};

/// A file, or standard input, with its text.
#[derive(Clone, Debug)]
pub struct SourceFile {
    /// The path as given, for the report.
    pub name: Arc<str>,
    /// The content.
    pub text: String,
}

impl SourceFile {
    /// A file of this name.
    pub fn new(name: &str, text: impl Into<String>) -> Self {
        Self { name: name.into(), text: text.into() }
    }

    /// Whether the text is read as JSON: by the name's end, or else by the first character.
    fn is_json(&self) -> bool {
        let start = self.text.trim_start_matches('\u{feff}').trim_start();
        let by_name = [".yaml", ".yml"].iter().any(|end| self.name.ends_with(end));
        !by_name && !start.starts_with("{{") && start.starts_with(['{', '['])
    }

    /// The documents, and the errors of those that cannot be read.
    pub(crate) fn documents(&self) -> (Vec<SourceDocument>, Vec<ImportError>) {
        let parsed: Vec<Result<SourceNode, SourceError>> = if self.is_json() {
            let text = self.text.trim_start_matches('\u{feff}');
            let (nodes, error) = json::documents(text);
            nodes.into_iter().map(Ok).chain(error.map(Err)).collect()
        } else {
            yaml::documents(&self.text)
        };
        let (mut documents, mut errors) = (Vec::new(), Vec::new());
        if parsed.is_empty() {
            errors.push(ImportError::about_file(&self.name, "has no document: the file is empty"));
        }
        for (number, parsed) in (1..).zip(parsed) {
            let place = DocumentPlace { file: Arc::clone(&self.name), document: number };
            match parsed {
                Ok(root) => documents.push(SourceDocument { place, root }),
                Err(error) => errors.push(error.at(&place)),
            }
        }
        (documents, errors)
    }
}

/// A document and its place.
#[derive(Clone, Debug)]
pub(crate) struct SourceDocument {
    pub(crate) place: DocumentPlace,
    pub(crate) root: SourceNode,
}
