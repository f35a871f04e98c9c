//! Parses the text of a file into one tree for each document, with the line of every value.
//!
//! An invalid document does not hide the others of its file. Parsing is bounded: aliases cannot expand a small file into a
//! large tree. JSON is a subset of YAML and uses the same parser.

use serde_saphyr::{DuplicateKeyPolicy, NonFiniteFloatPolicy, Spanned, Tagged};

use super::finding::quoted;
use crate::yaml::{ParsedNode, ParsedValue, chunks, line_number, written};

/// Maximum number of values in a document, with aliases expanded.
const MAX_NODES: usize = 100_000;
/// Maximum number of values from aliases in a document.
const MAX_FROM_ALIASES: usize = 10_000;
/// Maximum nesting of lists and mappings.
const MAX_DEPTH: usize = 64;

/// A document with content.
pub(super) struct YamlDocument {
    /// From 1; documents without content do not count.
    pub(super) number: u32,
    /// The tree, or the parse error.
    pub(super) root: Result<YamlNode, YamlError>,
    /// Duplicate keys. Their first values are in the tree.
    pub(super) duplicates: Vec<YamlError>,
}

/// A parse error.
pub(super) struct YamlError {
    /// From 1, in the file.
    pub(super) line: u32,
    /// The field's path, where known.
    pub(super) path: Vec<PathStep>,
    /// The found value and the allowed values.
    pub(super) message: String,
}

/// One step from a value to a value in it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum PathStep {
    /// Into a mapping.
    Key(String),
    /// Into a list.
    Index(usize),
}

/// A path as text: `spec.inbounds[0].tags["kuma.io/team"]`.
pub(super) fn path_text(path: &[PathStep]) -> String {
    path.iter().fold(String::new(), |text, step| match step {
        PathStep::Key(key) => child(&text, key),
        PathStep::Index(index) => format!("{text}[{index}]"),
    })
}

/// The path of a field within the value at `path`.
pub(super) fn child(path: &str, key: &str) -> String {
    let plain = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    match (plain, path.is_empty()) {
        (true, true) => key.to_owned(),
        (true, false) => format!("{path}.{key}"),
        (false, _) => format!("{path}[{}]", quoted(key)),
    }
}

/// A value and its line.
#[derive(Clone, Debug)]
pub(super) struct YamlNode {
    /// From 1, in the file.
    pub(super) line: u32,
    /// Of a scalar: the text as written, so that `1.10` stays `1.10` where a text is expected.
    pub(super) text: String,
    /// The value by YAML's rules.
    pub(super) value: YamlValue,
}

/// A value by YAML's rules.
#[derive(Clone, Debug)]
pub(super) enum YamlValue {
    /// Empty, or `null`.
    Null,
    /// `true` or `false`; `yes` and `off` are texts.
    Bool(bool),
    /// A whole number from 0.
    Unsigned(u64),
    /// Any other number.
    Float(f64),
    /// Any other scalar.
    Text,
    /// A list; items keep their indexes when others are removed.
    List(Vec<(usize, YamlNode)>),
    /// A mapping, in the order of the file.
    Map(Vec<YamlEntry>),
    /// Never in a file: replaces a missing or invalid value, so that the others can be read.
    Anything(StandIn),
}

/// The value that a stand-in reads as. A rule that holds for both readings does not depend on the stand-in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StandIn {
    /// `x`, 1, `false`, or the first name allowed.
    First,
    /// `y`, 2, `true`, or the last name allowed.
    Second,
}

impl StandIn {
    fn text(self) -> &'static str {
        match self {
            Self::First => "x",
            Self::Second => "y",
        }
    }
}

/// A key and its value.
#[derive(Clone, Debug)]
pub(super) struct YamlEntry {
    /// The key.
    pub(super) key: String,
    /// The key's line.
    pub(super) line: u32,
    /// The value.
    pub(super) node: YamlNode,
}

impl YamlNode {
    /// The value of a field of this mapping.
    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        match &self.value {
            YamlValue::Map(entries) => entries.iter().find(|entry| entry.key == key).map(|entry| &entry.node),
            _ => None,
        }
    }

    /// The text of a scalar that is not null.
    pub(super) fn as_text(&self) -> Option<&str> {
        match self.value {
            YamlValue::Null | YamlValue::List(_) | YamlValue::Map(_) => None,
            _ => Some(&self.text),
        }
    }

    /// Sets [`YamlValue::Anything`] at the end of the path.
    pub(super) fn put_anything(&mut self, path: &[PathStep]) {
        let Some((step, rest)) = path.split_first() else {
            self.value = YamlValue::Anything(StandIn::First);
            StandIn::First.text().clone_into(&mut self.text);
            return;
        };
        if matches!(self.value, YamlValue::Anything(_)) {
            self.value = YamlValue::Map(Vec::new());
        }
        match (&mut self.value, step) {
            (YamlValue::Map(entries), PathStep::Key(key)) => {
                let line = self.line;
                let place = entries.iter().position(|entry| entry.key == *key).unwrap_or_else(|| {
                    let node = Self { line, text: String::new(), value: YamlValue::Anything(StandIn::First) };
                    entries.push(YamlEntry { key: key.clone(), line, node });
                    entries.len() - 1
                });
                entries[place].node.put_anything(rest);
            }
            (YamlValue::List(items), PathStep::Index(index)) => {
                if let Some((_, item)) = items.iter_mut().find(|(place, _)| place == index) {
                    item.put_anything(rest);
                }
            }
            _ => {}
        }
    }

    /// Gives every [`YamlValue::Anything`] another reading.
    pub(super) fn read_stand_ins_as(&mut self, reading: StandIn) {
        match &mut self.value {
            YamlValue::Anything(stand_in) => {
                *stand_in = reading;
                reading.text().clone_into(&mut self.text);
            }
            YamlValue::List(items) => {
                items.iter_mut().for_each(|(_, item)| item.read_stand_ins_as(reading));
            }
            YamlValue::Map(entries) => {
                entries.iter_mut().for_each(|entry| entry.node.read_stand_ins_as(reading));
            }
            _ => {}
        }
    }

    /// Renames the key at the end of the path, unless its mapping has the new key already. Whether it did.
    pub(super) fn rename(&mut self, path: &[PathStep], key: &str) -> bool {
        let Some((step, rest)) = path.split_first() else { return false };
        match (&mut self.value, step) {
            (YamlValue::Map(entries), PathStep::Key(found)) if rest.is_empty() => {
                if entries.iter().any(|entry| entry.key == key) {
                    return false;
                }
                let Some(entry) = entries.iter_mut().find(|entry| entry.key == *found) else { return false };
                key.clone_into(&mut entry.key);
                true
            }
            (YamlValue::Map(entries), PathStep::Key(found)) => {
                let entry = entries.iter_mut().find(|entry| entry.key == *found);
                entry.is_some_and(|entry| entry.node.rename(rest, key))
            }
            (YamlValue::List(items), PathStep::Index(index)) => {
                let item = items.iter_mut().find(|(place, _)| place == index);
                item.is_some_and(|(_, item)| item.rename(rest, key))
            }
            _ => false,
        }
    }

    /// Removes the value at the end of the path.
    pub(super) fn remove(&mut self, path: &[PathStep]) {
        let Some((step, rest)) = path.split_first() else { return };
        match (&mut self.value, step) {
            (YamlValue::Map(entries), PathStep::Key(key)) if rest.is_empty() => {
                entries.retain(|entry| entry.key != *key);
            }
            (YamlValue::List(items), PathStep::Index(index)) if rest.is_empty() => {
                items.retain(|(place, _)| place != index);
            }
            (YamlValue::Map(entries), PathStep::Key(key)) => {
                if let Some(entry) = entries.iter_mut().find(|entry| entry.key == *key) {
                    entry.node.remove(rest);
                }
            }
            (YamlValue::List(items), PathStep::Index(index)) => {
                if let Some((_, item)) = items.iter_mut().find(|(place, _)| place == index) {
                    item.remove(rest);
                }
            }
            _ => {}
        }
    }
}

/// The documents of a file that have content.
pub(super) fn documents(text: &str) -> Vec<YamlDocument> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut found = Vec::new();
    for (lines_before, chunk) in chunks(text) {
        let mut duplicates = Vec::new();
        let root = parse(chunk, lines_before, &mut duplicates);
        if matches!(root, Ok(YamlNode { value: YamlValue::Null, .. })) {
            continue;
        }
        let number = u32::try_from(found.len() + 1).unwrap_or(u32::MAX);
        found.push(YamlDocument { number, root, duplicates });
    }
    found
}

fn parse(chunk: &str, lines_before: u32, duplicates: &mut Vec<YamlError>) -> Result<YamlNode, YamlError> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_nodes: MAX_NODES,
            max_depth: MAX_DEPTH,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: MAX_FROM_ALIASES,
        },
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        non_finite_float_policy: NonFiniteFloatPolicy::AsString,
        strict_booleans: true,
        reject_unsupported_tags: true,
        // A snippet could show a secret next to the error.
        with_snippet: false,
    };
    match serde_saphyr::from_str_with_options::<ParsedNode>(chunk, options) {
        Ok(raw) => Ok(YamlReader { chunk, lines_before, duplicates }.node(raw, &mut Vec::new())),
        Err(error) => Err(YamlError {
            line: lines_before + error.location().map_or(1, |at| line_number(at.line())),
            path: Vec::new(),
            message: describe_error(&error),
        }),
    }
}

fn describe_error(error: &serde_saphyr::Error) -> String {
    let mut error = error;
    while let serde_saphyr::Error::AliasError { error: within, .. } = error {
        error = within;
    }
    match error {
        serde_saphyr::Error::Budget { .. }
        | serde_saphyr::Error::AliasReplayLimitExceeded { .. }
        | serde_saphyr::Error::AliasReplayStackDepthExceeded { .. } => {
            format!(
                "too large: at most {MAX_NODES} values, {MAX_FROM_ALIASES} of them from aliases, and {MAX_DEPTH} levels in a document"
            )
        }
        serde_saphyr::Error::MultipleDocuments { .. } => {
            "a second document without a line `---` before it".to_owned()
        }
        serde_saphyr::Error::RecursiveReferencesRequireWeakTypes { .. } => {
            "an alias is used within the value that it refers to".to_owned()
        }
        other => {
            let text = other.to_string();
            let what = text.split(" at line ").next().unwrap_or_default();
            format!("not valid YAML: {what}")
        }
    }
}

/// Converts parser output to [`YamlNode`]s, with lines counted from the start of the file.
struct YamlReader<'a> {
    chunk: &'a str,
    lines_before: u32,
    duplicates: &'a mut Vec<YamlError>,
}

impl YamlReader<'_> {
    fn node(&mut self, raw: ParsedNode, path: &mut Vec<PathStep>) -> YamlNode {
        let Spanned { value: Tagged(value, _), referenced, defined } = raw;
        let line = self.lines_before + line_number(referenced.line());
        let mut text = String::new();
        let value = match value {
            ParsedValue::Null => YamlValue::Null,
            ParsedValue::Text(found) => {
                text = found;
                YamlValue::Text
            }
            ParsedValue::Bool(value) => {
                text = value.to_string();
                YamlValue::Bool(value)
            }
            ParsedValue::Unsigned(value) => {
                text = written(self.chunk, defined).unwrap_or_else(|| value.to_string());
                YamlValue::Unsigned(value)
            }
            ParsedValue::Float(value) => {
                text = written(self.chunk, defined).unwrap_or_else(|| value.to_string());
                YamlValue::Float(value)
            }
            ParsedValue::List(items) => {
                let mut list = Vec::with_capacity(items.len());
                for (index, item) in items.into_iter().enumerate() {
                    path.push(PathStep::Index(index));
                    list.push((index, self.node(item, path)));
                    path.pop();
                }
                YamlValue::List(list)
            }
            ParsedValue::Map(entries) => YamlValue::Map(self.entries(entries, path)),
        };
        YamlNode { line, text, value }
    }

    fn entries(
        &mut self,
        raw: Vec<(Spanned<String>, ParsedNode)>,
        path: &mut Vec<PathStep>,
    ) -> Vec<YamlEntry> {
        let mut lines = std::collections::BTreeMap::new();
        let mut entries = Vec::with_capacity(raw.len());
        for (key, value) in raw {
            let line = self.lines_before + line_number(key.referenced.line());
            path.push(PathStep::Key(key.value.clone()));
            if let Some(first) = lines.get(&key.value) {
                let message = format!("given twice, first on line {first}: keep one of them");
                self.duplicates.push(YamlError { line, path: path.clone(), message });
            } else {
                lines.insert(key.value.clone(), line);
                entries.push(YamlEntry { key: key.value, line, node: self.node(value, path) });
            }
            path.pop();
        }
        entries
    }
}
