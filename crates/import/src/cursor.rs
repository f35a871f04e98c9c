//! Reads a resource and records which of its fields were read, so that none is lost without a line in the report.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::num::NonZeroU16;
use std::sync::Arc;

use crate::cloudformation::is_of_stack;
use crate::place::DocumentPlace;
use crate::report::{FieldFate, FieldRule, ImportEntry};
use crate::tree::{SourceNode, child, without_indexes};

/// The reason for a field that no rule knows.
const UNKNOWN: &str = "this importer does not know the field";
/// The reason for a list or mapping without content.
const EMPTY: &str = "it is empty";
/// The reason for a field whose rule did not get to read it.
const UNREAD: &str = "the importer did not use the value";
/// The reason for a value that a template leaves to its stack.
const OF_STACK: &str = "only a stack knows the value: write it into the input, or into the manifest";

/// Makes the key of a resource of a key as it is written.
type KeyFunction = fn(&str) -> String;

/// A resource of a document, and what was read of it.
#[derive(Debug)]
pub(crate) struct TrackedResource {
    pub(crate) place: DocumentPlace,
    /// The path of the resource in the document; empty if the document is the resource.
    pub(crate) prefix: String,
    pub(crate) subject: Arc<str>,
    pub(crate) root: SourceNode,
    /// The resource with the keys as they are written, where the root's keys differ.
    written: Option<(SourceNode, KeyFunction)>,
    used: RefCell<BTreeSet<String>>,
    notes: RefCell<Vec<(String, ImportEntry)>>,
}

impl TrackedResource {
    pub(crate) fn new(place: &DocumentPlace, prefix: &str, subject: &str, root: SourceNode) -> Self {
        Self {
            place: place.clone(),
            prefix: prefix.to_owned(),
            subject: subject.into(),
            root,
            written: None,
            used: RefCell::default(),
            notes: RefCell::default(),
        }
    }

    /// The resource whose keys are written otherwise: the function makes the root's keys of them.
    pub(crate) fn with_written(mut self, written: SourceNode, key: KeyFunction) -> Self {
        self.written = Some((written, key));
        self
    }

    /// The path as it is written.
    fn spelled(&self, path: &str) -> String {
        let Some((written, key_of)) = &self.written else { return path.to_owned() };
        let (mut node, mut text) = (Some(written), String::new());
        for step in steps(path) {
            match step {
                Step::Key(key) => {
                    let entry =
                        node.and_then(|node| node.entries().iter().find(|entry| key_of(&entry.key) == key));
                    text = child(&text, entry.map_or(&key, |entry| &entry.key));
                    node = entry.map(|entry| &entry.node);
                }
                Step::Index(index) => {
                    text = format!("{text}[{index}]");
                    node = node.and_then(|node| node.items().get(index));
                }
            }
        }
        text
    }

    /// The whole resource.
    pub(crate) fn cursor(&self) -> Cursor<'_> {
        Cursor { resource: self, node: &self.root, path: String::new() }
    }

    /// `FILE:LINE`.
    pub(crate) fn location(&self) -> String {
        format!("{}:{}", self.place.file, self.root.line)
    }

    /// An entry about the field at this path of the resource.
    pub(crate) fn entry(&self, path: &str, line: u32) -> ImportEntry {
        let field = without_indexes(path);
        let path = self.spelled(path);
        let path = match (self.prefix.is_empty(), path.is_empty() || path.starts_with('[')) {
            (true, _) => path,
            (false, true) => format!("{}{path}", self.prefix),
            (false, false) => format!("{}.{path}", self.prefix),
        };
        ImportEntry { field, ..ImportEntry::new(&self.place, line, &self.subject, path) }
    }

    /// The fate of every field: notes of the fields themselves, else the longest rule, else unknown.
    pub(crate) fn entries(&self, rules: &[FieldRule]) -> Vec<ImportEntry> {
        let (notes, used) = (self.notes.borrow(), self.used.borrow());
        let mut found: Vec<ImportEntry> = notes.iter().map(|(_, entry)| entry.clone()).collect();
        let noted: BTreeSet<&str> = notes.iter().map(|(path, _)| path.as_str()).collect();
        for (path, line) in self.root.leaves() {
            if ancestors(&path).any(|path| noted.contains(path)) {
                continue;
            }
            let is_used = ancestors(&path).any(|path| used.contains(path));
            let field = without_indexes(&path);
            let rule =
                rules.iter().filter(|rule| covers(rule.path, &field)).max_by_key(|rule| rule.path.len());
            found.push(match rule {
                Some(rule) if rule.fate == FieldFate::NoCounterpart || is_used => {
                    let path =
                        if rule.fate == FieldFate::NoCounterpart { cut(&path, rule.path) } else { &path };
                    ImportEntry {
                        fate: rule.fate,
                        target: rule.target.to_owned(),
                        reason: rule.reason.to_owned(),
                        action: rule.action,
                        // All lines of a dropped block are one entry.
                        ..self.entry(path, self.line_of(path).unwrap_or(line))
                    }
                }
                None if self.is_empty(&path) && rules.iter().any(|rule| covers(&field, rule.path)) => {
                    ImportEntry { reason: EMPTY.to_owned(), ..self.entry(&path, line) }
                }
                rule => {
                    let text = self.node_at(&path).and_then(SourceNode::as_text).unwrap_or_default();
                    let reason = match rule {
                        _ if is_of_stack(&text) => OF_STACK,
                        Some(_) => UNREAD,
                        None => UNKNOWN,
                    };
                    ImportEntry { reason: reason.to_owned(), action: true, ..self.entry(&path, line) }
                }
            });
        }
        found
    }

    fn line_of(&self, path: &str) -> Option<u32> {
        self.node_at(path).map(|node| node.line)
    }

    fn is_empty(&self, path: &str) -> bool {
        self.node_at(path).is_some_and(|node| node.as_text().is_none())
    }

    fn node_at(&self, path: &str) -> Option<&SourceNode> {
        steps(path).into_iter().try_fold(&self.root, |node, step| match step {
            Step::Key(key) => node.get(&key),
            Step::Index(index) => node.items().get(index),
        })
    }
}

enum Step {
    Key(String),
    Index(usize),
}

/// The steps of a path that [`child`] made.
fn steps(path: &str) -> Vec<Step> {
    let mut found = Vec::new();
    let mut rest = path;
    while !rest.is_empty() {
        if let Some(from) = rest.strip_prefix("[\"") {
            let end = from.find("\"]").unwrap_or(from.len());
            found.push(Step::Key(from[..end].to_owned()));
            rest = from.get(end + 2..).unwrap_or_default();
        } else if let Some(from) = rest.strip_prefix('[') {
            let end = from.find(']').unwrap_or(from.len());
            found.push(Step::Index(from[..end].parse().unwrap_or(usize::MAX)));
            rest = from.get(end + 1..).unwrap_or_default();
        } else {
            let from = rest.strip_prefix('.').unwrap_or(rest);
            let end = from.find(['.', '[']).unwrap_or(from.len());
            found.push(Step::Key(from[..end].to_owned()));
            rest = &from[end..];
        }
    }
    found
}

/// The path itself, the paths around it, and the empty path.
fn ancestors(path: &str) -> impl Iterator<Item = &str> {
    let ends = path.match_indices(['.', '[']).map(|(at, _)| at).chain([path.len()]);
    ends.map(|end| &path[..end]).chain(std::iter::once(""))
}

/// Whether the rule's path is the path or leads to it.
fn covers(rule: &str, path: &str) -> bool {
    path.strip_prefix(rule).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// The start of the path that the rule's path describes.
fn cut<'a>(path: &'a str, rule: &str) -> &'a str {
    ancestors(path).find(|start| without_indexes(start) == rule).unwrap_or(path)
}

/// A place in a resource. Reading marks the place as used.
#[derive(Clone)]
pub(crate) struct Cursor<'a> {
    pub(crate) resource: &'a TrackedResource,
    pub(crate) node: &'a SourceNode,
    pub(crate) path: String,
}

impl<'a> Cursor<'a> {
    /// The value of a key.
    pub(crate) fn get(&self, key: &str) -> Option<Self> {
        let node = self.node.get(key)?;
        Some(Self { resource: self.resource, node, path: child(&self.path, key) })
    }

    /// The value at the end of a path of keys.
    pub(crate) fn at(&self, keys: &[&str]) -> Option<Self> {
        keys.iter().try_fold(self.clone(), |cursor, key| cursor.get(key))
    }

    /// The items of the list at a key; none of another value.
    pub(crate) fn list(&self, key: &str) -> Vec<Self> {
        let Some(list) = self.get(key) else { return Vec::new() };
        let items = list.node.items().iter().enumerate();
        items
            .map(|(index, node)| Self {
                resource: self.resource,
                node,
                path: format!("{}[{index}]", list.path),
            })
            .collect()
    }

    /// The entries of this mapping.
    pub(crate) fn entries(&self) -> Vec<(&'a str, Self)> {
        let entry = |entry: &'a crate::tree::SourceEntry| {
            let path = child(&self.path, &entry.key);
            (entry.key.as_str(), Self { resource: self.resource, node: &entry.node, path })
        };
        self.node.entries().iter().map(entry).collect()
    }

    /// The text of the scalar here. Another value is noted.
    pub(crate) fn text(&self) -> Option<String> {
        let text = self.node.as_text();
        if text.is_some() {
            self.mark_used();
        } else {
            self.lost("", "is not a text");
        }
        text
    }

    /// The text of the scalar at a key.
    pub(crate) fn text_of(&self, key: &str) -> Option<String> {
        self.get(key)?.text()
    }

    /// The port here. Another value is noted.
    pub(crate) fn port(&self) -> Option<NonZeroU16> {
        let text = self.text()?;
        let port = text.trim().parse().ok();
        if port.is_none() {
            self.lost("", format!("{text:?} is not a port from 1 to 65535"));
        }
        port
    }

    /// Marks the value and all below it as used.
    pub(crate) fn mark_used(&self) {
        self.resource.used.borrow_mut().insert(self.path.clone());
    }

    /// Notes that a manifest has something else instead.
    pub(crate) fn changed(&self, target: impl Into<String>, reason: impl Into<String>, action: bool) {
        self.note(FieldFate::Changed, target.into(), reason.into(), action);
    }

    /// Notes that a manifest has it.
    pub(crate) fn carried(&self, target: impl Into<String>) {
        self.note(FieldFate::CarriedOver, target.into(), String::new(), false);
    }

    /// Notes that no manifest has it, and a person has to act.
    pub(crate) fn lost(&self, target: impl Into<String>, reason: impl Into<String>) {
        self.note(FieldFate::NoCounterpart, target.into(), reason.into(), true);
    }

    /// Notes that no manifest has it, and none needs it.
    pub(crate) fn needless(&self, reason: impl Into<String>) {
        self.note(FieldFate::NoCounterpart, String::new(), reason.into(), false);
    }

    fn note(&self, fate: FieldFate, target: String, reason: String, action: bool) {
        let entry =
            ImportEntry { fate, target, reason, action, ..self.resource.entry(&self.path, self.node.line) };
        self.resource.notes.borrow_mut().push((self.path.clone(), entry));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml;

    const RULES: &[FieldRule] = &[
        FieldRule::carried("name", "metadata.name"),
        FieldRule::carried("list[].port", "port"),
        FieldRule::instead("list[].tls", "MeshTLS", "certificates"),
        FieldRule::needless("meta", "AWS's record"),
    ];

    fn entries(read: impl FnOnce(&Cursor<'_>)) -> Vec<(FieldFate, String, u32, bool)> {
        let text = "name: a\nlist:\n- port: 1\n  tls:\n    mode: STRICT\n    cert: x\n- port: no\nmeta: {uid: 1}\nodd: {x: 1}\n";
        let root = yaml::documents(text).remove(0).unwrap();
        let place = DocumentPlace { file: "a.yaml".into(), document: 1 };
        let resource = TrackedResource::new(&place, "", "Thing a", root);
        read(&resource.cursor());
        resource.entries(RULES).into_iter().map(|e| (e.fate, e.path, e.line, e.action)).collect()
    }

    #[test]
    fn every_field_has_a_fate() {
        let found = entries(|cursor| {
            cursor.text_of("name");
            for item in cursor.list("list") {
                item.get("port").and_then(|port| port.port());
            }
        });
        assert_eq!(
            found,
            [
                (FieldFate::NoCounterpart, "list[1].port".into(), 7, true),
                (FieldFate::CarriedOver, "name".into(), 1, false),
                (FieldFate::CarriedOver, "list[0].port".into(), 3, false),
                (FieldFate::NoCounterpart, "list[0].tls".into(), 5, true),
                (FieldFate::NoCounterpart, "list[0].tls".into(), 5, true),
                (FieldFate::NoCounterpart, "meta".into(), 8, false),
                (FieldFate::NoCounterpart, "odd.x".into(), 9, true),
            ]
        );
    }

    #[test]
    fn unread_field_is_not_reported_as_carried_over() {
        let found = entries(|_| {});
        let name = found.iter().find(|(_, path, ..)| path == "name").unwrap();
        assert_eq!((name.0, name.3), (FieldFate::NoCounterpart, true));
    }
}
