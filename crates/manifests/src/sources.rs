//! Decides which set of manifests is in force. **A bad manifest never removes anything.**
//!
//! - A first load with errors results in a set of the valid manifests, marked as incomplete.
//! - A complete set stays in force, unchanged, until the sources are free of errors again. Errors are reported.
//! - A missing source, a directory without a manifest file and an emptied file are errors. To withdraw everything on
//!   purpose, leave a file with only a comment in it.
//! - A load that equals the set in force does not replace it.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::snapshot::{FileText, SourceFailure, SourceSnapshot, read_text};
use ecs_mesh_api::AllowList;
use ecs_mesh_api::manifests::{
    Assembled, Manifest, ManifestFinding, ManifestScope, ManifestSet, assemble, read_file, refused_sources,
};

/// The files and directories that hold the manifests.
#[derive(Clone, Debug)]
pub struct ManifestSources {
    paths: Vec<PathBuf>,
}

/// The result of a load, with which the next load is compared.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The set in force.
    pub set: Arc<ManifestSet>,
    /// The errors of the sources as they are now, in the order of files and lines. While there are any, the set in force
    /// differs from the sources.
    pub errors: Vec<ManifestFinding>,
    /// Warnings: valid values that are probably unintended. Empty while there are errors.
    pub warnings: Vec<ManifestFinding>,
    /// The number of files.
    pub files: usize,
    digest: [u8; 32],
    /// The number of manifests in each file when the set in force was read.
    manifests_by_file: BTreeMap<Arc<Path>, usize>,
}

/// Manifests that are in no file, such as those of standard input.
#[derive(Clone, Debug)]
pub struct ManifestText {
    name: Arc<Path>,
    /// The text, or why there is none.
    text: Result<String, String>,
}

impl ManifestText {
    /// Reads the text to its end, within the limit of a manifest file. Findings call it by this name.
    pub fn read(name: &str, reader: impl Read) -> Self {
        Self { name: Path::new(name).into(), text: read_text(reader) }
    }
}

/// The result of a check of the sources, independent of the set in force.
#[derive(Clone, Debug)]
pub struct ValidationResult {
    /// Errors of a load, in the order of files and lines.
    pub errors: Vec<ManifestFinding>,
    /// Warnings: valid values that are probably unintended, files without content and sources without manifests.
    pub warnings: Vec<ManifestFinding>,
    /// The number of files.
    pub files: usize,
    /// The number of manifests of a known kind.
    pub manifests: usize,
}

/// The outcome of a load.
#[derive(Clone, Debug)]
pub enum LoadOutcome {
    /// The sources are byte for byte unchanged.
    Unchanged,
    /// The sources changed, and the set in force stays: the sources are equivalent, or have errors.
    Kept(Loaded),
    /// A set with a higher generation is in force.
    Replaced(Loaded),
}

impl LoadOutcome {
    /// The result of the load; `None` where nothing changed.
    pub fn into_loaded(self) -> Option<Loaded> {
        match self {
            Self::Unchanged => None,
            Self::Kept(loaded) | Self::Replaced(loaded) => Some(loaded),
        }
    }
}

impl ManifestSources {
    /// Sources: files, and directories whose files are read.
    pub fn new(paths: impl IntoIterator<Item = PathBuf>) -> Self {
        Self { paths: paths.into_iter().collect() }
    }

    /// The paths as given.
    pub fn paths(&self) -> &[PathBuf] {
        &self.paths
    }

    /// Reads the sources and decides what is in force. Blocks on the file system.
    pub fn load(&self, previous: Option<&Loaded>) -> LoadOutcome {
        evaluate(self.read(), previous)
    }

    /// Reads the sources and checks them, with these texts, as a first load does, and whether the files and environment
    /// variables that they name are `allowed`. Blocks on the file system.
    pub fn check(
        &self,
        texts: Vec<ManifestText>,
        scope: ManifestScope,
        allowed: &AllowList,
    ) -> ValidationResult {
        let SourceSnapshot { mut files, failures, .. } = self.read();
        let sources: Vec<Arc<Path>> = self.paths.iter().map(|path| path.as_path().into()).collect();
        let texts = texts.into_iter().map(|ManifestText { name, text }| FileText { path: name, text });
        let texts: Vec<FileText> = texts.collect();
        let sources: Vec<Arc<Path>> =
            sources.into_iter().chain(texts.iter().map(|text| Arc::clone(&text.path))).collect();
        files.extend(texts);

        let none = BTreeMap::new();
        let mut errors: Vec<ManifestFinding> =
            failures.iter().map(|(path, failure)| explain(path, failure, &none)).collect();
        let mut warnings = without_manifests(&files, &sources);
        let count = files.len();
        let (manifests, _) = read_all(files, &none, &mut errors);
        let found = manifests.len();
        errors.extend(refused_sources(&manifests, allowed));
        let assembled = assemble(manifests, scope);
        errors.extend(assembled.errors);
        errors.sort();
        errors.dedup();
        warnings.extend(assembled.warnings);
        warnings.sort();
        warnings.dedup();
        ValidationResult { errors, warnings, files: count, manifests: found }
    }

    pub(super) fn read(&self) -> SourceSnapshot {
        SourceSnapshot::read(&self.paths)
    }
}

impl Loaded {
    /// The result where reading itself was interrupted: an empty, incomplete set.
    pub(super) fn unread(sources: &ManifestSources) -> Self {
        let message = "reading was interrupted; retrying";
        Self {
            set: Arc::default(),
            errors: sources.paths.iter().map(|path| ManifestFinding::about_file(path, message)).collect(),
            warnings: Vec::new(),
            files: 0,
            digest: [0; 32],
            manifests_by_file: BTreeMap::new(),
        }
    }

    /// Whether the snapshot has the same bytes.
    pub(super) fn is_of(&self, snapshot: &SourceSnapshot) -> bool {
        self.digest == snapshot.digest
    }
}

/// Decides which set is in force for this snapshot of the sources.
pub(super) fn evaluate(snapshot: SourceSnapshot, previous: Option<&Loaded>) -> LoadOutcome {
    if previous.is_some_and(|loaded| loaded.is_of(&snapshot)) {
        return LoadOutcome::Unchanged;
    }
    let SourceSnapshot { files, failures, digest } = snapshot;
    let none = BTreeMap::new();
    let counts_before = previous.map_or(&none, |loaded| &loaded.manifests_by_file);
    let mut errors: Vec<ManifestFinding> =
        failures.iter().map(|(path, failure)| explain(path, failure, counts_before)).collect();
    let count = files.len();
    let (manifests, counts) = read_all(files, counts_before, &mut errors);
    let Assembled { set, errors: broken_rules, warnings } = assemble(manifests, ManifestScope::Complete);
    errors.extend(broken_rules);
    errors.sort();
    errors.dedup();

    let is_complete = errors.is_empty();
    let set = ManifestSet { complete: is_complete, ..set };
    let warnings = if is_complete { warnings } else { Vec::new() };
    match previous {
        Some(before) if !replaces(&set, before) => {
            let manifests_by_file = if is_complete { counts } else { before.manifests_by_file.clone() };
            let set = Arc::clone(&before.set);
            LoadOutcome::Kept(Loaded { set, errors, warnings, files: count, digest, manifests_by_file })
        }
        _ => {
            let generation = previous.map_or(0, |before| before.set.generation) + 1;
            let set = Arc::new(ManifestSet { generation, ..set });
            LoadOutcome::Replaced(Loaded {
                set,
                errors,
                warnings,
                files: count,
                digest,
                manifests_by_file: counts,
            })
        }
    }
}

/// Whether the new set comes into force.
///
/// Before the first complete set, a set with errors may replace another that it includes, so that a person who corrects a
/// broken start file by file sees each step.
fn replaces(new: &ManifestSet, before: &Loaded) -> bool {
    let allowed = new.complete || (!before.set.complete && new.contains_all(&before.set));
    allowed && !new.is_equivalent(&before.set)
}

fn read_all(
    files: Vec<FileText>,
    counts_before: &BTreeMap<Arc<Path>, usize>,
    errors: &mut Vec<ManifestFinding>,
) -> (Vec<Manifest>, BTreeMap<Arc<Path>, usize>) {
    let (mut manifests, mut counts) = (Vec::new(), BTreeMap::new());
    for FileText { path, text } in files {
        let text = match text {
            Ok(text) => text,
            Err(message) => {
                errors.push(ManifestFinding::about_file(&path, message));
                continue;
            }
        };
        let before = counts_before.get(&path).copied().unwrap_or_default();
        if before > 0 && text.trim().is_empty() {
            let message = format!(
                "was emptied, and held {}: if that is on purpose, leave a comment in it (a line with #), or delete \
                 the file",
                manifest_count(before)
            );
            errors.push(ManifestFinding::about_file(&path, message));
            continue;
        }
        let (found, findings) = read_file(&path, &text);
        counts.insert(path, found.len());
        manifests.extend(found);
        errors.extend(findings);
    }
    (manifests, counts)
}

/// Warns of files without content, and of sources whose files hold nothing but comments.
fn without_manifests(files: &[FileText], sources: &[Arc<Path>]) -> Vec<ManifestFinding> {
    let is_empty = |text: &Result<String, String>| text.as_ref().is_ok_and(|text| text.trim().is_empty());
    let has_none = |file: &FileText| {
        file.text.as_ref().is_ok_and(|text| {
            let (manifests, findings) = read_file(&file.path, text);
            manifests.is_empty() && findings.is_empty()
        })
    };
    let empty = files.iter().filter(|file| is_empty(&file.text)).map(|file| {
        ManifestFinding::about_file(
            &file.path,
            "is empty: if that is on purpose, leave a comment in it (a line with #)",
        )
    });
    let bare = sources.iter().filter(|source| {
        let mut own = files.iter().filter(|file| file.path.starts_with(source)).peekable();
        own.peek().is_some()
            && own.all(has_none)
            && !files.iter().any(|file| file.path == **source && is_empty(&file.text))
    });
    let bare = bare.map(|source| {
        ManifestFinding::about_file(
            source,
            "holds no manifest: an operator with this source alone does nothing",
        )
    });
    empty.chain(bare).collect()
}

fn explain(
    path: &Path,
    failure: &SourceFailure,
    counts_before: &BTreeMap<Arc<Path>, usize>,
) -> ManifestFinding {
    let before: usize =
        counts_before.iter().filter(|(file, _)| file.starts_with(path)).map(|(_, count)| count).sum();
    let on_purpose = "to withdraw all on purpose, leave a file with only a comment in it";
    let message = match failure {
        SourceFailure::Missing if before > 0 => {
            format!("vanished, and held {}: put it back; {on_purpose}", manifest_count(before))
        }
        SourceFailure::Empty if before > 0 => {
            format!("no manifest file is left in it, and it held {}: put them back; {on_purpose}", manifest_count(before))
        }
        SourceFailure::Missing => "does not exist: check the path, or wait for the mount".to_owned(),
        SourceFailure::Empty => {
            "no manifest file in it (*.yaml, *.yml, *.json): an empty directory looks like a failed mount; if no \
             manifests are intended, put a file with only a comment in it"
                .to_owned()
        }
        SourceFailure::Unreadable(message) => message.clone(),
    };
    ManifestFinding::about_file(path, message)
}

fn manifest_count(count: usize) -> String {
    if count == 1 { "1 manifest".to_owned() } else { format!("{count} manifests") }
}
