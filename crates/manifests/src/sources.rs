//! Decides which set of manifests is in force. **A bad manifest never removes anything.**
//!
//! - A first load with errors results in a set of the valid manifests, marked as incomplete.
//! - A complete set stays in force, unchanged, until the sources are free of errors again. Errors are reported.
//! - A missing source, a directory without a manifest file and an emptied file are errors. To withdraw everything on
//!   purpose, leave a file with only a comment in it.
//! - A remote source that cannot be read keeps its last manifests. Changes of other sources come into force, in a set that
//!   is marked as incomplete: it adds and updates, and removes nothing.
//! - A load that equals the set in force does not replace it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::task::JoinSet;

use super::file_text::{FileText, ManifestText, SourceFailure};
use super::remote::{ChangeConfirmation, RemoteSource, SourceObserver};
use super::snapshot::SourceSnapshot;
use ecs_mesh_api::AllowList;
use ecs_mesh_api::manifests::{
    Manifest, ManifestFinding, ManifestScope, ManifestSet, assemble, read_file, refused_sources,
};

/// The places that hold the manifests: files and directories, texts, and sources that are read over the network.
#[derive(Clone, Debug, Default)]
pub struct ManifestSources {
    paths: Vec<PathBuf>,
    texts: Vec<ManifestText>,
    remote: Vec<Arc<RemoteSource>>,
}

/// The result of a load, with which the next load is compared.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The set in force.
    pub set: Arc<ManifestSet>,
    /// The errors of the sources as they are now, in the order of files and lines. While there are any, the set in force
    /// differs from the sources.
    pub errors: Vec<ManifestFinding>,
    /// Those of the errors that are about remote sources: what is unread is unknown. Changes of the other sources come into
    /// force meanwhile, in a set that removes nothing.
    pub unread: Vec<ManifestFinding>,
    /// Warnings: valid values that are probably unintended. Empty while manifests have errors.
    pub warnings: Vec<ManifestFinding>,
    /// The number of files.
    pub files: usize,
    /// Whether a complete set has been in force.
    was_complete: bool,
    digest: [u8; 32],
    /// The number of manifests in each file when the set in force was read.
    manifests_by_file: BTreeMap<Arc<Path>, usize>,
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
        Self { paths: paths.into_iter().collect(), ..Self::default() }
    }

    /// These sources and a text.
    #[must_use]
    pub fn with_text(mut self, text: ManifestText) -> Self {
        self.texts.push(text);
        self
    }

    /// These sources and one that is read over the network.
    #[must_use]
    pub fn with_remote(mut self, source: RemoteSource) -> Self {
        // A source that is named twice is one.
        if self.remote.iter().all(|known| known.name() != source.name()) {
            self.remote.push(Arc::new(source));
        }
        self
    }

    /// The paths as given.
    pub fn paths(&self) -> &[PathBuf] {
        &self.paths
    }

    /// The sources that are read over the network.
    pub(super) fn remote(&self) -> &[Arc<RemoteSource>] {
        &self.remote
    }

    /// Reads the remote sources once, at the same time. Each read ends: see [`RemoteSource`].
    pub async fn read_remote(&self) {
        self.refresh_remote(ChangeConfirmation::None, Arc::new(())).await;
    }

    pub(super) async fn refresh_remote(
        &self,
        confirmation: ChangeConfirmation,
        observer: Arc<dyn SourceObserver>,
    ) {
        let mut reads = JoinSet::new();
        for source in &self.remote {
            let (source, observer) = (Arc::clone(source), Arc::clone(&observer));
            reads.spawn(async move {
                let refresh = source.refresh(confirmation).await;
                observer.source_read(source.name(), refresh.result);
            });
        }
        while reads.join_next().await.is_some() {}
    }

    /// Decides what is in force, by the files as they are and by the last reads of the remote sources. Blocks on the file
    /// system.
    pub fn load(&self, previous: Option<&Loaded>) -> LoadOutcome {
        evaluate(self.read(), previous)
    }

    /// Checks the sources as a first load does, with the last reads of the remote ones, and whether the files and environment
    /// variables that they name are `allowed`. Blocks on the file system.
    pub fn check(&self, scope: ManifestScope, allowed: &AllowList) -> ValidationResult {
        let SourceSnapshot { files, failures, unread, sources, .. } = self.read();
        let none = BTreeMap::new();
        let mut errors: Vec<ManifestFinding> =
            failures.iter().map(|(path, failure)| explain(path, failure, &none)).collect();
        errors.extend(unread);
        let mut warnings = blank_files(&files);
        let count = files.len();
        let (manifests, counts) = read_all(files, &none, &mut errors);
        warnings.extend(without_manifests(&sources, &counts, [&errors, &warnings]));
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
        let remote: Vec<_> = self.remote.iter().map(|source| source.reading()).collect();
        SourceSnapshot { sources: self.names(), ..SourceSnapshot::read(&self.paths, &self.texts, &remote) }
    }

    /// The names of all sources in findings.
    fn names(&self) -> Vec<Arc<Path>> {
        let paths = self.paths.iter().map(|path| path.as_path().into());
        let texts = self.texts.iter().map(ManifestText::path);
        paths.chain(texts).chain(self.remote.iter().map(|source| Arc::clone(source.path()))).collect()
    }
}

impl Loaded {
    /// The result where reading itself was interrupted: an empty, incomplete set.
    pub(super) fn unread(sources: &ManifestSources) -> Self {
        let message = "reading was interrupted; retrying";
        Self {
            set: Arc::default(),
            errors: sources.names().iter().map(|path| ManifestFinding::about_file(path, message)).collect(),
            unread: Vec::new(),
            warnings: Vec::new(),
            files: 0,
            was_complete: false,
            digest: [0; 32],
            manifests_by_file: BTreeMap::new(),
        }
    }

    /// Whether a manifest or a file has an error, beside what is unread.
    pub(super) fn has_rejected(&self) -> bool {
        self.errors.len() > self.unread.len()
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
    let SourceSnapshot { sources, files, failures, unread, digest } = snapshot;
    let none = BTreeMap::new();
    let counts_before = previous.map_or(&none, |loaded| &loaded.manifests_by_file);
    let mut errors: Vec<ManifestFinding> =
        failures.iter().map(|(path, failure)| explain(path, failure, counts_before)).collect();
    let count = files.len();
    let mut warnings = blank_files(&files);
    let (manifests, counts) = read_all(files, counts_before, &mut errors);
    warnings.extend(without_manifests(&sources, &counts, [&errors, &warnings]));
    let assembled = assemble(manifests, ManifestScope::Complete);
    errors.extend(assembled.errors);
    warnings.extend(assembled.warnings);

    let is_valid = errors.is_empty();
    let set = ManifestSet { complete: is_valid && unread.is_empty(), ..assembled.set };
    let warnings = if is_valid { warnings } else { Vec::new() };
    errors.extend(unread.iter().cloned());
    errors.sort();
    errors.dedup();
    let was_complete = set.complete || previous.is_some_and(|before| before.was_complete);
    let (outcome, set, manifests_by_file): (fn(Loaded) -> LoadOutcome, _, _) = match previous {
        Some(before) if !replaces(&set, is_valid, before) => {
            let manifests_by_file = if is_valid { counts } else { before.manifests_by_file.clone() };
            (LoadOutcome::Kept, Arc::clone(&before.set), manifests_by_file)
        }
        _ => {
            let generation = previous.map_or(0, |before| before.set.generation) + 1;
            (LoadOutcome::Replaced, Arc::new(ManifestSet { generation, ..set }), counts)
        }
    };
    outcome(Loaded { set, errors, unread, warnings, files: count, was_complete, digest, manifests_by_file })
}

/// Whether the new set comes into force. It is valid if no manifest and no file has an error; it is incomplete if it has no
/// error but what is unread.
///
/// A valid set comes into force, complete or not. Before the first complete set, a set with errors may replace another that
/// it includes, so that a person who corrects a broken start file by file sees each step.
fn replaces(new: &ManifestSet, is_valid: bool, before: &Loaded) -> bool {
    let allowed = is_valid || (!before.was_complete && new.contains_all(&before.set));
    let is_better = new.complete && !before.set.complete;
    allowed && (is_better || !new.has_same_documents(&before.set))
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

/// Warns of files without content.
fn blank_files(files: &[FileText]) -> Vec<ManifestFinding> {
    let message = "is empty: if that is on purpose, leave a comment in it (a line with #)";
    let blank = files.iter().filter(|file| file.is_blank());
    blank.map(|file| ManifestFinding::about_file(&file.path, message)).collect()
}

/// Warns of sources whose files hold nothing but comments, where nothing else was found about them.
fn without_manifests(
    sources: &[Arc<Path>],
    counts: &BTreeMap<Arc<Path>, usize>,
    found: [&Vec<ManifestFinding>; 2],
) -> Vec<ManifestFinding> {
    let [errors, warnings] = found;
    let has_none = |source: &&Arc<Path>| {
        let mut own = counts.iter().filter(|(file, _)| file.starts_with(source)).peekable();
        own.peek().is_some()
            && own.all(|(_, count)| *count == 0)
            && !errors.iter().any(|finding| finding.file.starts_with(source))
            && !warnings.iter().any(|finding| finding.file == **source)
    };
    let message = "holds no manifest: an operator with this source alone does nothing";
    let bare = sources.iter().filter(has_none);
    bare.map(|source| ManifestFinding::about_file(source, message)).collect()
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
        SourceFailure::Blank if before > 0 => {
            format!("was emptied, and held {}: {on_purpose}", manifest_count(before))
        }
        SourceFailure::Blank => "is empty: if no manifests are intended, leave a comment in it (a line with #)".to_owned(),
        SourceFailure::Unreadable(message) => message.clone(),
    };
    ManifestFinding::about_file(path, message)
}

fn manifest_count(count: usize) -> String {
    if count == 1 { "1 manifest".to_owned() } else { format!("{count} manifests") }
}
