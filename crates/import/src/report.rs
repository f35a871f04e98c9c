//! The report of an import: the fate of each field, and the rules that decide it.

use std::sync::Arc;

use serde::Serialize;
use serde::ser::SerializeMap as _;

use crate::place::DocumentPlace;
use crate::tree::without_indexes;

/// The fate of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FieldFate {
    /// A manifest has the same.
    CarriedOver,
    /// A manifest has something else instead, for the reason that the entry gives.
    Changed,
    /// No manifest has it.
    NoCounterpart,
}

impl FieldFate {
    /// All fates, in the order of the report.
    pub const ALL: [Self; 3] = [Self::CarriedOver, Self::Changed, Self::NoCounterpart];

    /// The heading of its group.
    pub fn title(self) -> &'static str {
        match self {
            Self::CarriedOver => "carried over",
            Self::Changed => "changed",
            Self::NoCounterpart => "no counterpart",
        }
    }
}

/// One field of the input, or several below one path, and their fate.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ImportEntry {
    /// The fate.
    pub fate: FieldFate,
    /// The file's name as given.
    pub file: Arc<str>,
    /// The document's number in the file, from 1.
    pub document: u32,
    /// The line in the file, from 1.
    pub line: u32,
    /// The resource, such as `VirtualNode demo/kv`.
    pub subject: Arc<str>,
    /// The field's path in the document.
    pub path: String,
    /// The field's path in a resource of this kind, without indexes, as in the reference.
    pub field: String,
    /// The manifest's field, or the resource that does it instead; empty if there is none.
    pub target: String,
    /// Why it is changed or has no counterpart; empty if carried over.
    pub reason: String,
    /// Whether a person has to act on it.
    pub action: bool,
}

/// The fate of the fields at a path, unless what a field says decides it.
#[derive(Clone, Copy, Debug)]
pub struct FieldRule {
    /// The path in the resource: `[]` is any item of a list, and what is below the path belongs to it.
    pub path: &'static str,
    /// The fate.
    pub fate: FieldFate,
    /// As in [`ImportEntry`].
    pub target: &'static str,
    /// As in [`ImportEntry`].
    pub reason: &'static str,
    /// As in [`ImportEntry`].
    pub action: bool,
}

impl FieldRule {
    /// The field becomes that of a manifest.
    pub(crate) const fn carried(path: &'static str, target: &'static str) -> Self {
        Self { path, fate: FieldFate::CarriedOver, target, reason: "", action: false }
    }

    /// A manifest's field is derived from the field.
    pub(crate) const fn changed(path: &'static str, target: &'static str, reason: &'static str) -> Self {
        Self { path, fate: FieldFate::Changed, target, reason, action: false }
    }

    /// A resource that is no manifest does the same.
    pub(crate) const fn instead(path: &'static str, target: &'static str, reason: &'static str) -> Self {
        Self { path, fate: FieldFate::NoCounterpart, target, reason, action: true }
    }

    /// Nothing has to do the same.
    pub(crate) const fn needless(path: &'static str, reason: &'static str) -> Self {
        Self { path, fate: FieldFate::NoCounterpart, target: "", reason, action: false }
    }
}

/// The fields of one kind of resource, for the reference.
#[derive(Clone, Copy, Debug)]
pub struct ResourceRules {
    /// The kind, as in [`ImportEntry::subject`].
    pub kind: &'static str,
    /// The rules.
    pub rules: &'static [FieldRule],
}

/// An entry in the list of its fate.
struct GroupedEntry<'a>(&'a ImportEntry);

impl Serialize for GroupedEntry<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let ImportEntry { fate: _, file, document, line, subject, path, field, target, reason, action } =
            self.0;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("file", file)?;
        map.serialize_entry("document", document)?;
        map.serialize_entry("line", line)?;
        map.serialize_entry("subject", subject)?;
        map.serialize_entry("path", path)?;
        map.serialize_entry("field", field)?;
        map.serialize_entry("target", target)?;
        map.serialize_entry("reason", reason)?;
        map.serialize_entry("action", action)?;
        map.end()
    }
}

/// The report of an import.
#[derive(Clone, Debug, Default)]
pub struct ImportReport {
    /// The fields, by fate, place and path.
    pub entries: Vec<ImportEntry>,
    /// Warnings of the manifests' validation, and of files that were not read.
    pub warnings: Vec<String>,
}

impl ImportReport {
    /// The report of these entries.
    pub(crate) fn of(mut entries: Vec<ImportEntry>) -> Self {
        entries.sort();
        entries.dedup();
        Self { entries, warnings: Vec::new() }
    }

    /// The entries of a fate.
    pub fn of_fate(&self, fate: FieldFate) -> impl Iterator<Item = &ImportEntry> {
        self.entries.iter().filter(move |entry| entry.fate == fate)
    }

    /// The report as JSON, with a list for each fate.
    pub fn to_json(&self) -> serde_json::Value {
        let group = |fate| self.of_fate(fate).map(GroupedEntry).collect::<Vec<_>>();
        serde_json::json!({
            "carriedOver": group(FieldFate::CarriedOver),
            "changed": group(FieldFate::Changed),
            "noCounterpart": group(FieldFate::NoCounterpart),
            "warnings": self.warnings,
        })
    }

    /// Whether a person has to act on an entry.
    pub fn needs_action(&self) -> bool {
        self.entries.iter().any(|entry| entry.action)
    }
}

impl ImportEntry {
    /// An entry without a target and a reason.
    pub(crate) fn new(place: &DocumentPlace, line: u32, subject: &Arc<str>, path: String) -> Self {
        Self {
            fate: FieldFate::NoCounterpart,
            file: Arc::clone(&place.file),
            document: place.document,
            line,
            subject: Arc::clone(subject),
            field: without_indexes(&path),
            path,
            target: String::new(),
            reason: String::new(),
            action: false,
        }
    }
}
