//! What is wrong with the manifests, said so that a person finds the place and knows what to write instead.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// One error or warning about the sources, with the place that it speaks of.
///
/// Prints as `FILE:LINE (document N, KIND/NAME): FIELD: MESSAGE`, without the parts that are not known. Values are
/// shown cut short and only where they cannot hold a secret.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ManifestFinding {
    /// The file or directory.
    pub file: Arc<Path>,
    /// The line in the file, from 1.
    pub line: Option<u32>,
    /// Which document of the file, from 1; documents without content don't count.
    pub document: Option<u32>,
    /// `KIND/NAME` of the document, as far as it could be read.
    pub subject: Option<Arc<str>>,
    /// The field's path, such as `spec.inbounds[0].port`; empty where no field is meant.
    pub path: String,
    /// What was found, what is allowed, what to do next.
    pub message: String,
}

impl ManifestFinding {
    /// A finding about a whole file or directory.
    pub fn about_file(file: &Path, message: impl Into<String>) -> Self {
        Self {
            file: file.into(),
            line: None,
            document: None,
            subject: None,
            path: String::new(),
            message: message.into(),
        }
    }
}

impl fmt::Display for ManifestFinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        match (self.document, &self.subject) {
            (Some(number), Some(subject)) => write!(f, " (document {number}, {subject})")?,
            (Some(number), None) => write!(f, " (document {number})")?,
            (None, _) => {}
        }
        if !self.path.is_empty() {
            write!(f, ": {}", self.path)?;
        }
        write!(f, ": {}", self.message)
    }
}

impl std::error::Error for ManifestFinding {}

/// The known name that the unknown one was most likely meant to be.
pub(super) fn nearest<'a>(found: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let known: Vec<&str> = known.into_iter().collect();
    // What all end with makes none of them likelier.
    let alike = common_suffix(&known);
    let found = found.to_lowercase();
    let (found, alike) = match found.strip_suffix(alike) {
        Some(front) => (front, alike),
        None => (&*found, ""),
    };
    let front = |name: &str| name.strip_suffix(alike).unwrap_or(name).to_lowercase();
    known
        .into_iter()
        .map(|name| (strsim::normalized_damerau_levenshtein(found, &front(name)), name))
        .filter(|(likeness, _)| *likeness >= 0.5)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, name)| name)
}

/// From a `-` on what all names end with; nothing of one alone.
fn common_suffix<'a>(names: &[&'a str]) -> &'a str {
    let [first, others @ ..] = names else { return "" };
    let ends = first.match_indices('-').map(|(at, _)| &first[at..]);
    let alike = ends.into_iter().find(|end| others.iter().all(|name| name.ends_with(end)));
    alike.filter(|_| !others.is_empty()).unwrap_or_default()
}

/// `; did you mean NAME? KNOWN_AS: a, b, c`, for the end of a message about an unknown name.
pub(super) fn suggestion(found: &str, known_as: &str, known: &[&str]) -> String {
    use fmt::Write as _;
    let mut text = String::new();
    // Writing to a String cannot fail.
    if let Some(name) = nearest(found, known.iter().copied()) {
        let _ = write!(text, "; did you mean {name}?");
    } else {
        text.push('.');
    }
    let shown: Vec<&str> = known.iter().copied().take(20).collect();
    let more = if known.len() > shown.len() { ", …" } else { "" };
    if shown.is_empty() {
        let _ = write!(text, " {known_as}: none");
    } else {
        let _ = write!(text, " {known_as}: {}{more}", shown.join(", "));
    }
    text
}

/// The text in quotes, cut to 80 characters, with control characters escaped.
pub(super) fn quoted(text: &str) -> String {
    match text.char_indices().nth(80) {
        Some((cut, _)) => format!("{:?}…", &text[..cut]),
        None => format!("{text:?}"),
    }
}
