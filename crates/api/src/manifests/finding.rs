//! Errors and warnings about manifests, with location and fix.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use ecs_mesh_model::printable;

/// An error or warning about the sources, with its location.
///
/// Prints as `FILE:LINE (document N, KIND/NAME): FIELD: MESSAGE`, without the parts that are unknown. Values are truncated,
/// and shown only where they cannot be a secret.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ManifestFinding {
    /// The file or directory.
    pub file: Arc<Path>,
    /// The line in the file, from 1.
    pub line: Option<u32>,
    /// The document's number in the file, from 1; documents without content do not count.
    pub document: Option<u32>,
    /// `KIND/NAME` of the document, as far as readable.
    pub subject: Option<Arc<str>>,
    /// The field's path, such as `spec.inbounds[0].port`; empty for a finding about a document or file.
    pub path: String,
    /// The found value, the allowed values and the fix.
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
        // The key of an object in a bucket may have any characters.
        f.write_str(&printable(&self.file.to_string_lossy()))?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        match (self.document, &self.subject) {
            (Some(number), Some(subject)) => write!(f, " (document {number}, {})", printable(subject))?,
            (Some(number), None) => write!(f, " (document {number})")?,
            (None, _) => {}
        }
        if !self.path.is_empty() {
            write!(f, ": {}", printable(&self.path))?;
        }
        write!(f, ": {}", self.message)
    }
}

impl std::error::Error for ManifestFinding {}

/// The known name that is most similar to the unknown one.
pub fn nearest<'a>(found: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let known: Vec<&str> = known.into_iter().collect();
    // A common suffix distinguishes none of them.
    let suffix = common_suffix(&known);
    let found = found.to_lowercase();
    let (found, suffix) = match found.strip_suffix(suffix) {
        Some(front) => (front, suffix),
        None => (&*found, ""),
    };
    let front = |name: &str| name.strip_suffix(suffix).unwrap_or(name).to_lowercase();
    known
        .into_iter()
        .map(|name| (strsim::normalized_damerau_levenshtein(found, &front(name)), name))
        .filter(|(likeness, _)| *likeness >= 0.5)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, name)| name)
}

/// The common suffix of several names, from a `-` on.
fn common_suffix<'a>(names: &[&'a str]) -> &'a str {
    let [first, others @ ..] = names else { return "" };
    let ends = first.match_indices('-').map(|(at, _)| &first[at..]);
    let common = ends.into_iter().find(|end| others.iter().all(|name| name.ends_with(end)));
    common.filter(|_| !others.is_empty()).unwrap_or_default()
}

/// `; did you mean NAME? KNOWN_AS: a, b, c`, as the end of a message about an unknown name.
pub fn suggestion(found: &str, known_as: &str, known: &[&str]) -> String {
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

/// The text in quotes, truncated to 80 characters, with control characters escaped.
pub(super) fn quoted(text: &str) -> String {
    match text.char_indices().nth(80) {
        Some((cut, _)) => format!("{:?}…", &text[..cut]),
        None => format!("{text:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn location_is_printable_whatever_an_object_is_called() {
        let file = Path::new("s3://bucket/mesh/a\u{1b}[2J\n\u{202e}.yaml");
        let finding = ManifestFinding {
            subject: Some("Workload/\u{9b}31m".into()),
            document: Some(1),
            path: "spec.\u{7}".to_owned(),
            ..ManifestFinding::about_file(file, "is empty")
        };
        let text = finding.to_string();
        assert!(!text.chars().any(ecs_mesh_model::is_unsafe), "{text:?}");
    }
}
