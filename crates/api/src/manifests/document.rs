//! Reads a document's tree as a manifest of a known kind, or reports all of its errors.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};

use super::deserialize::{self, Misread, TypeProblem};
use super::finding::{ManifestFinding, quoted, suggestion};
use super::yaml::{self, PathStep, YamlNode, YamlValue, child, path_text};
use crate::{
    API_VERSION, AwsAccountSpec, ConsulAuthSpec, ControlPlaneSpec, MeshBindingSpec, OutboundListSpec,
    WorkloadSpec,
};

/// The kinds of manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ManifestKind {
    ControlPlane,
    MeshBinding,
    Workload,
    OutboundList,
    ConsulAuth,
    AwsAccount,
}

const KINDS: [(&str, ManifestKind); 6] = [
    ("ControlPlane", ManifestKind::ControlPlane),
    ("MeshBinding", ManifestKind::MeshBinding),
    ("Workload", ManifestKind::Workload),
    ("OutboundList", ManifestKind::OutboundList),
    ("ConsulAuth", ManifestKind::ConsulAuth),
    ("AwsAccount", ManifestKind::AwsAccount),
];

impl ManifestKind {
    fn parse(text: &str) -> Option<Self> {
        KINDS.iter().find(|(name, _)| *name == text).map(|(_, kind)| *kind)
    }
}

impl fmt::Display for ManifestKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(KINDS.iter().find(|(_, kind)| kind == self).map_or("", |(name, _)| name))
    }
}

/// The spec of a manifest, by kind.
pub(super) enum ManifestSpec {
    ControlPlane(ControlPlaneSpec),
    MeshBinding(MeshBindingSpec),
    Workload(WorkloadSpec),
    OutboundList(OutboundListSpec),
    ConsulAuth(ConsulAuthSpec),
    AwsAccount(AwsAccountSpec),
}

/// A document whose kind and name are known.
pub struct Manifest {
    pub(super) kind: ManifestKind,
    pub(super) name: Arc<str>,
    pub(super) origin: DocumentOrigin,
    /// `None` where the document is invalid, which has been reported.
    pub(super) spec: Option<ManifestSpec>,
    /// The readable part of an invalid document.
    pub(super) draft: Option<ManifestDraft>,
}

impl Manifest {
    /// Makes the manifest invalid. Its rules are still checked.
    pub(super) fn invalidate(&mut self) {
        if let Some(spec) = self.spec.take() {
            self.draft = Some(ManifestDraft { readings: vec![spec], repaired: Vec::new() });
        }
    }
}

/// An invalid document as far as it is readable: what its rules find in it does not wait for the other corrections.
pub(super) struct ManifestDraft {
    /// The document with each kind of stand-in for its invalid values.
    readings: Vec<ManifestSpec>,
    /// The fields with stand-ins.
    repaired: Vec<String>,
}

impl ManifestDraft {
    /// Errors that `check` finds in every reading and in no repaired field, so that they stand in the file.
    pub(super) fn findings(
        &self,
        check: impl Fn(&ManifestSpec) -> Vec<ManifestFinding>,
    ) -> Vec<ManifestFinding> {
        let mut readings = self.readings.iter();
        let Some(first) = readings.next() else { return Vec::new() };
        let mut found = check(first);
        found.retain(|finding| !self.repaired.iter().any(|path| overlap(path, &finding.path)));
        for reading in readings {
            let other: BTreeSet<ManifestFinding> = check(reading).into_iter().collect();
            found.retain(|finding| other.contains(finding));
        }
        found
    }
}

/// Whether one path is the other, or leads into it.
fn overlap(one: &str, other: &str) -> bool {
    let (short, long) = if one.len() <= other.len() { (one, other) } else { (other, one) };
    long.strip_prefix(short)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']) || short.is_empty())
}

/// The location of a document and its fields.
#[derive(Clone)]
pub(super) struct DocumentOrigin {
    file: Arc<Path>,
    document: u32,
    subject: Option<Arc<str>>,
    first_line: u32,
    lines: BTreeMap<String, u32>,
}

impl DocumentOrigin {
    /// The origin of a description that is in no file.
    pub(super) fn of_task() -> Self {
        let (subject, lines) = (None, BTreeMap::new());
        Self { file: Path::new("").into(), document: 0, subject, first_line: 0, lines }
    }

    /// A finding about a field of this document, by its path.
    pub(super) fn finding(&self, path: impl Into<String>, message: impl Into<String>) -> ManifestFinding {
        let path = path.into();
        ManifestFinding { line: Some(self.line(&path)), ..self.bare(path, message.into()) }
    }

    /// `FILE:LINE`, to refer to this document in a finding about another.
    pub(super) fn location(&self) -> String {
        format!("{}:{}", self.file.display(), self.first_line)
    }

    /// The line of the field, or of the innermost enclosing field in the file.
    fn line(&self, path: &str) -> u32 {
        let mut path = path;
        loop {
            if let Some(line) = self.lines.get(path) {
                return *line;
            }
            match path.rfind(['.', '[']) {
                Some(cut) => path = &path[..cut],
                None => return self.first_line,
            }
        }
    }

    fn bare(&self, path: String, message: String) -> ManifestFinding {
        ManifestFinding {
            file: Arc::clone(&self.file),
            line: None,
            document: Some(self.document),
            subject: self.subject.clone(),
            path,
            message,
        }
    }

    fn problem(&self, prefix: &[PathStep], problem: TypeProblem) -> ManifestFinding {
        let path: Vec<PathStep> = prefix.iter().cloned().chain(problem.path).collect();
        let line = problem.line.or(Some(self.first_line));
        ManifestFinding { line, ..self.bare(path_text(&path), problem.message) }
    }
}

/// The fields around the `spec` of every document. Values are checked one by one, so that an invalid one does not prevent
/// the check of the others.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DocumentEnvelope {
    #[serde(rename = "apiVersion")]
    _api_version: String,
    #[serde(rename = "kind")]
    _kind: String,
    #[serde(rename = "metadata")]
    _metadata: Metadata,
    #[serde(rename = "spec")]
    _spec: IgnoredAny,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Metadata {
    #[serde(rename = "name")]
    _name: String,
    #[serde(default, rename = "labels")]
    _labels: BTreeMap<String, String>,
    #[serde(default, rename = "annotations")]
    _annotations: BTreeMap<String, String>,
}

/// Reads all manifests of a file's text, and reports its errors.
pub fn read_file(file: &Arc<Path>, text: &str) -> (Vec<Manifest>, Vec<ManifestFinding>) {
    let (mut manifests, mut findings) = (Vec::new(), Vec::new());
    for document in yaml::documents(text) {
        manifests.extend(read(file, document, &mut findings));
    }
    (manifests, findings)
}

fn read(
    file: &Arc<Path>,
    document: yaml::YamlDocument,
    findings: &mut Vec<ManifestFinding>,
) -> Option<Manifest> {
    let mut origin = DocumentOrigin {
        file: Arc::clone(file),
        document: document.number,
        subject: None,
        first_line: 1,
        lines: BTreeMap::new(),
    };
    let root = match document.root {
        Ok(root) => root,
        Err(error) => {
            findings.push(ManifestFinding {
                line: Some(error.line),
                ..origin.bare(path_text(&error.path), error.message)
            });
            return None;
        }
    };
    origin.first_line = root.line;
    index_lines(&root, "", &mut origin.lines);
    let kind_text = root.get("kind").and_then(YamlNode::as_text);
    let name = root.get("metadata").and_then(|metadata| metadata.get("name")).and_then(YamlNode::as_text);
    origin.subject = subject(kind_text, name);

    let mut own: Vec<ManifestFinding> = document
        .duplicates
        .into_iter()
        .map(|error| ManifestFinding {
            line: Some(error.line),
            ..origin.bare(path_text(&error.path), error.message)
        })
        .collect();
    check_envelope(&root, &origin, &mut own);
    let kind = kind_text.and_then(ManifestKind::parse);
    let draft = match (kind, root.get("spec")) {
        (Some(kind), Some(spec)) => Some(read_spec(kind, spec, &origin, &mut own)),
        _ => None,
    };
    own.sort_by_key(|finding| finding.line);
    let (spec, draft) = match draft {
        Some(mut draft) if own.is_empty() => (draft.readings.pop(), None),
        draft => (None, draft),
    };
    findings.append(&mut own);
    // Without a name the rules still apply, and no reference can mean it.
    Some(Manifest { kind: kind?, name: name.unwrap_or_default().into(), origin, spec, draft })
}

/// `KIND/NAME` as far as present, truncated.
fn subject(kind: Option<&str>, name: Option<&str>) -> Option<Arc<str>> {
    let short = |text: &str| -> String { text.chars().filter(|c| !c.is_control()).take(63).collect() };
    match (kind, name) {
        (Some(kind), Some(name)) => Some(format!("{}/{}", short(kind), short(name)).into()),
        (Some(kind), None) => Some(short(kind).into()),
        (None, Some(name)) => Some(format!("?/{}", short(name)).into()),
        (None, None) => None,
    }
}

fn index_lines(node: &YamlNode, path: &str, lines: &mut BTreeMap<String, u32>) {
    match &node.value {
        YamlValue::Map(entries) => {
            for entry in entries {
                let path = child(path, &entry.key);
                index_lines(&entry.node, &path, lines);
                lines.insert(path, entry.line);
            }
        }
        YamlValue::List(items) => {
            for (index, item) in items {
                let path = format!("{path}[{index}]");
                index_lines(item, &path, lines);
                lines.insert(path, item.line);
            }
        }
        _ => {}
    }
}

fn check_envelope(root: &YamlNode, origin: &DocumentOrigin, findings: &mut Vec<ManifestFinding>) {
    if !matches!(root.value, YamlValue::Map(_)) {
        let message = "expected a mapping with apiVersion, kind, metadata and spec (one manifest a document)";
        findings.push(origin.finding("", message));
        return;
    }
    if let Err(misread) = deserialize::read::<DocumentEnvelope>(root) {
        findings.extend(misread.problems.into_iter().map(|problem| origin.problem(&[], problem)));
    }
    if let Some(version) = root.get("apiVersion").and_then(YamlNode::as_text)
        && version != API_VERSION
    {
        findings.push(
            origin.finding("apiVersion", format!("{} is not known: write {API_VERSION}", quoted(version))),
        );
    }
    if let Some(name) =
        root.get("metadata").and_then(|metadata| metadata.get("name")).and_then(YamlNode::as_text)
        && let Some(rule) = broken_name_rule(name)
    {
        findings.push(origin.finding("metadata.name", format!("{} is not allowed: {rule}", quoted(name))));
    }
    if let Some(kind) = root.get("kind").and_then(YamlNode::as_text)
        && ManifestKind::parse(kind).is_none()
    {
        let known: Vec<&str> = KINDS.iter().map(|(name, _)| *name).collect();
        let message =
            format!("{} is not a kind of manifest{}", quoted(kind), suggestion(kind, "Allowed", &known));
        findings.push(origin.finding("kind", message));
    }
}

/// The rule that the name breaks. Names are values of metrics and matched by patterns, so special characters are excluded.
fn broken_name_rule(name: &str) -> Option<&'static str> {
    let fits = (1..=63).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.')
        && name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
        && name.bytes().last().is_some_and(|b| b.is_ascii_alphanumeric());
    (!fits).then_some(
        "lower-case letters, digits, '-' and '.', starting and ending with a letter or digit, at most 63 characters",
    )
}

fn read_spec(
    kind: ManifestKind,
    node: &YamlNode,
    origin: &DocumentOrigin,
    findings: &mut Vec<ManifestFinding>,
) -> ManifestDraft {
    match kind {
        ManifestKind::ControlPlane => read_as(node, ManifestSpec::ControlPlane, origin, findings),
        ManifestKind::MeshBinding => read_as(node, ManifestSpec::MeshBinding, origin, findings),
        ManifestKind::Workload => read_as(node, ManifestSpec::Workload, origin, findings),
        ManifestKind::OutboundList => read_as(node, ManifestSpec::OutboundList, origin, findings),
        ManifestKind::ConsulAuth => read_as(node, ManifestSpec::ConsulAuth, origin, findings),
        ManifestKind::AwsAccount => read_as(node, ManifestSpec::AwsAccount, origin, findings),
    }
}

fn read_as<T: DeserializeOwned>(
    node: &YamlNode,
    of_kind: impl Fn(T) -> ManifestSpec,
    origin: &DocumentOrigin,
    findings: &mut Vec<ManifestFinding>,
) -> ManifestDraft {
    let Misread { problems, readings, repaired } = match deserialize::read(node) {
        Ok(spec) => return ManifestDraft { readings: vec![of_kind(spec)], repaired: Vec::new() },
        Err(misread) => misread,
    };
    let prefix = [PathStep::Key("spec".to_owned())];
    let line = origin.line("spec");
    findings.extend(problems.into_iter().map(|mut problem| {
        // A field that the spec lacks is reported at the line of `spec`, not at that of its first field.
        if problem.path.len() <= 1 && problem.is_missing() {
            problem.line = Some(line);
        }
        origin.problem(&prefix, problem)
    }));
    let repaired = repaired.iter().map(|path| path_text(&[&prefix, path.as_slice()].concat())).collect();
    ManifestDraft { readings: readings.into_iter().map(of_kind).collect(), repaired }
}

/// The message for a reference to a missing manifest, with the most similar name.
pub(super) fn not_found(kind: ManifestKind, found: &str, known: &[&str]) -> String {
    let hint = match known {
        [] => format!("; no valid {kind} exists"),
        _ => suggestion(found, "There are", known),
    };
    format!("no {kind} is named {}{hint}", quoted(found))
}
