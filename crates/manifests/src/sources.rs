//! Decides which set of manifests is in force: **a bad manifest never takes anything away**.
//!
//! - The first load with an error gives a set of what is valid, marked as not complete.
//! - Once a set was whole, it stays in force, unchanged, until the sources are whole again; errors are reported.
//! - A source that vanished, a directory in which no manifest file is left and a file that was emptied to nothing are
//!   errors. To withdraw everything on purpose, leave a file with only a comment in it.
//! - A load that says the same as the set in force does not replace it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::snapshot::{SourceFailure, FileText, SourceSnapshot};
use ecs_mesh_api::manifests::{Assembled, ManifestScope, ManifestFinding, Manifest, ManifestSet, assemble, read_file};

/// The files and directories that hold the manifests.
#[derive(Clone, Debug)]
pub struct ManifestSources {
    paths: Vec<PathBuf>,
}

/// What the sources have come to, and what the next load is compared with.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The set in force.
    pub set: Arc<ManifestSet>,
    /// What is wrong with the sources as they are now, in the order of files and lines. While this is not empty, the
    /// set in force is not what the sources say.
    pub errors: Vec<ManifestFinding>,
    /// What is valid and most likely not meant. Not given while there are errors.
    pub warnings: Vec<ManifestFinding>,
    /// How many files the sources hold now.
    pub files: usize,
    digest: [u8; 32],
    /// How many manifests each file had when the set in force was read.
    held: BTreeMap<Arc<Path>, usize>,
}

/// What is to be said about the sources by themselves, whatever is in force.
#[derive(Clone, Debug)]
pub struct ValidationResult {
    /// What a load would refuse, in the order of files and lines.
    pub errors: Vec<ManifestFinding>,
    /// What is valid and most likely not meant. Not given while there are errors.
    pub warnings: Vec<ManifestFinding>,
    /// How many files there are.
    pub files: usize,
    /// How many manifests are in them, of those whose kind and name can be read.
    pub manifests: usize,
}

/// What a load led to.
#[derive(Clone, Debug)]
pub enum LoadOutcome {
    /// The sources hold, byte for byte, what they held before.
    Unchanged,
    /// The sources changed, and the set in force stays: they say the same in other words, or have errors.
    Kept(Loaded),
    /// A set with a higher generation is in force.
    Replaced(Loaded),
}

impl LoadOutcome {
    /// What the sources have come to; `None` where nothing changed.
    pub fn into_loaded(self) -> Option<Loaded> {
        match self {
            Self::Unchanged => None,
            Self::Kept(loaded) | Self::Replaced(loaded) => Some(loaded),
        }
    }
}

impl ManifestSources {
    /// Files, and directories of which the files are read.
    pub fn new(paths: impl IntoIterator<Item = PathBuf>) -> Self {
        Self { paths: paths.into_iter().collect() }
    }

    /// The paths as given.
    pub fn paths(&self) -> &[PathBuf] {
        &self.paths
    }

    /// Reads the sources and decides what is in force. Blocks on the file system.
    pub fn load(&self, previous: Option<&Loaded>) -> LoadOutcome {
        judge(self.read(), previous)
    }

    /// Reads the sources and says what a first load would say. Blocks on the file system.
    pub fn check(&self, extent: ManifestScope) -> ValidationResult {
        let SourceSnapshot { files, failures, .. } = self.read();
        let nothing = BTreeMap::new();
        let mut errors: Vec<ManifestFinding> =
            failures.iter().map(|(path, failure)| explain(path, failure, &nothing)).collect();
        let count = files.len();
        let (manifests, _) = read_all(files, &nothing, &mut errors);
        let found = manifests.len();
        let Assembled { errors: broken_rules, warnings, .. } = assemble(manifests, extent);
        errors.extend(broken_rules);
        errors.sort();
        errors.dedup();
        let warnings = if errors.is_empty() { warnings } else { Vec::new() };
        ValidationResult { errors, warnings, files: count, manifests: found }
    }

    pub(super) fn read(&self) -> SourceSnapshot {
        SourceSnapshot::take(&self.paths)
    }
}

impl Loaded {
    /// What is in force where reading itself broke off: nothing, and nothing may be concluded from it.
    pub(super) fn unread(sources: &ManifestSources) -> Self {
        let because = "reading it broke off; trying again";
        Self {
            set: Arc::default(),
            errors: sources.paths.iter().map(|path| ManifestFinding::about_file(path, because)).collect(),
            warnings: Vec::new(),
            files: 0,
            digest: [0; 32],
            held: BTreeMap::new(),
        }
    }

    /// Whether the snapshot is of the same bytes.
    pub(super) fn is_of(&self, snapshot: &SourceSnapshot) -> bool {
        self.digest == snapshot.digest
    }
}

/// Decides what is in force once the sources hold what the snapshot shows.
pub(super) fn judge(snapshot: SourceSnapshot, previous: Option<&Loaded>) -> LoadOutcome {
    if previous.is_some_and(|loaded| loaded.is_of(&snapshot)) {
        return LoadOutcome::Unchanged;
    }
    let SourceSnapshot { files, failures, digest } = snapshot;
    let nothing = BTreeMap::new();
    let held_before = previous.map_or(&nothing, |loaded| &loaded.held);
    let mut errors: Vec<ManifestFinding> =
        failures.iter().map(|(path, failure)| explain(path, failure, held_before)).collect();
    let count = files.len();
    let (manifests, held) = read_all(files, held_before, &mut errors);
    let Assembled { set, errors: broken_rules, warnings } = assemble(manifests, ManifestScope::Complete);
    errors.extend(broken_rules);
    errors.sort();
    errors.dedup();

    let is_whole = errors.is_empty();
    let set = ManifestSet { complete: is_whole, ..set };
    let warnings = if is_whole { warnings } else { Vec::new() };
    match previous {
        Some(before) if !replaces(&set, before) => {
            let held = if is_whole { held } else { before.held.clone() };
            let set = Arc::clone(&before.set);
            LoadOutcome::Kept(Loaded { set, errors, warnings, files: count, digest, held })
        }
        _ => {
            let generation = previous.map_or(0, |before| before.set.generation) + 1;
            let set = Arc::new(ManifestSet { generation, ..set });
            LoadOutcome::Replaced(Loaded { set, errors, warnings, files: count, digest, held })
        }
    }
}

/// Whether the new set comes into force.
///
/// Before any set was whole, one with errors may take the place of another as long as it lacks nothing of it: so a
/// person who mends a broken start file by file sees each step.
fn replaces(new: &ManifestSet, before: &Loaded) -> bool {
    let allowed = new.complete || (!before.set.complete && new.contains_all(&before.set));
    allowed && !new.is_equivalent(&before.set)
}

fn read_all(
    files: Vec<FileText>,
    held_before: &BTreeMap<Arc<Path>, usize>,
    errors: &mut Vec<ManifestFinding>,
) -> (Vec<Manifest>, BTreeMap<Arc<Path>, usize>) {
    let (mut manifests, mut held) = (Vec::new(), BTreeMap::new());
    for FileText { path, text } in files {
        let text = match text {
            Ok(text) => text,
            Err(why) => {
                errors.push(ManifestFinding::about_file(&path, why));
                continue;
            }
        };
        let before = held_before.get(&path).copied().unwrap_or_default();
        if before > 0 && text.trim().is_empty() {
            let message = format!(
                "was emptied, and held {}: if that is on purpose, leave a comment in it (a line with #), or delete \
                 the file",
                manifests_in_words(before)
            );
            errors.push(ManifestFinding::about_file(&path, message));
            continue;
        }
        let (found, findings) = read_file(&path, &text);
        held.insert(path, found.len());
        manifests.extend(found);
        errors.extend(findings);
    }
    (manifests, held)
}

fn explain(path: &Path, failure: &SourceFailure, held_before: &BTreeMap<Arc<Path>, usize>) -> ManifestFinding {
    let before: usize =
        held_before.iter().filter(|(file, _)| file.starts_with(path)).map(|(_, count)| count).sum();
    let on_purpose = "to withdraw all on purpose, leave a file with only a comment in it";
    let message = match failure {
        SourceFailure::Missing if before > 0 => {
            format!("vanished, and held {}: put it back; {on_purpose}", manifests_in_words(before))
        }
        SourceFailure::Empty if before > 0 => {
            format!("no manifest file is left in it, and it held {}: put them back; {on_purpose}", manifests_in_words(before))
        }
        SourceFailure::Missing => "does not exist: check the path, or wait for what mounts it".to_owned(),
        SourceFailure::Empty => {
            "no manifest file in it (*.yaml, *.yml, *.json): an empty directory looks like a mount that failed; if \
             there are to be no manifests, put a file with only a comment in it"
                .to_owned()
        }
        SourceFailure::Unreadable(why) => why.clone(),
    };
    ManifestFinding::about_file(path, message)
}

fn manifests_in_words(count: usize) -> String {
    if count == 1 { "1 manifest".to_owned() } else { format!("{count} manifests") }
}
