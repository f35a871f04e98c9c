//! Reads a source over the network. **What cannot be read is unknown, not absent.**
//!
//! - The manifests of a source change as a whole: once a list is complete, each of its entries is read as it was listed, and
//!   a second list shows the same. Otherwise those of the last complete read stay.
//! - Entries whose version is known are not read again.
//! - Until a first read is complete, the entries that were readable are used, and the source counts as unread.
//! - A read holds a bounded number of bytes: see [`MAX_TOTAL_BYTES`].

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use sha2::{Digest as _, Sha256};
use tokio::task::JoinSet;
use tracing::{debug, info, warn};

use super::file_text::{FileText, MAX_FILE_BYTES, text};
use super::manifest_source::ManifestSource;
use ecs_mesh_api::manifests::ManifestFinding;
use ecs_mesh_controller::{ActiveWarnings, Backoff};

/// Maximum size of all manifests of a source.
const MAX_TOTAL_BYTES: u64 = 16 * 1024 * 1024;
/// Maximum number of entries that a list may have, those that are no manifests included.
const MAX_LISTED: usize = 50_000;
/// Maximum number of pages of a list.
const MAX_PAGES: usize = 2_000;
/// Entries that are read at the same time.
const CONCURRENT_READS: usize = 8;
/// Attempts of a call that may succeed when it is repeated.
const ATTEMPTS: usize = 3;
/// Lists after which a source that keeps changing is left to the next read.
const MAX_ROUNDS: usize = 5;
/// Pause before another list where an entry has changed since the last.
const RELIST_PAUSE: Duration = Duration::from_secs(1);
/// Pauses between the attempts of a call.
const RETRY: Backoff = Backoff { min: Duration::from_millis(200), max: Duration::from_secs(2) };
/// Maximum duration of a read.
const READ_TIMEOUT: Duration = Duration::from_mins(2);

/// A store of manifests that is read over the network. A list must end with an error unless it is complete.
#[async_trait]
pub trait RemoteStore: Send + Sync {
    /// A page of the entries.
    async fn list(&self, page: Option<&str>) -> Result<RemotePage, RemoteError>;

    /// The content of an entry that was listed without; `None` where the entry has changed since.
    async fn read(&self, key: &str, version: &str) -> Result<Option<Vec<u8>>, RemoteError>;
}

/// A page of a list.
#[derive(Clone, Debug, Default)]
pub struct RemotePage {
    /// The entries.
    pub entries: Vec<RemoteEntry>,
    /// The token of the next page; `None` on the last one.
    pub next: Option<String>,
}

/// An object, or a parameter.
#[derive(Clone, Debug)]
pub struct RemoteEntry {
    /// The key.
    pub key: String,
    /// A text that changes with the content: an entity tag, or the number of a version.
    pub version: String,
    /// The size in bytes.
    pub size: u64,
    /// The content, where the list has it.
    pub content: Option<Vec<u8>>,
}

/// Why a call of a store failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct RemoteError {
    /// The cause, and the next step.
    pub message: String,
    /// A label with bounded values.
    pub kind: &'static str,
    /// Whether the same call may succeed a moment later.
    pub is_transient: bool,
}

/// Records the reads of remote sources.
pub trait SourceObserver: Send + Sync {
    /// A read has ended: `success`, or the kind of its failure.
    fn source_read(&self, source: &str, result: &'static str);
}

/// Records nothing.
impl SourceObserver for () {
    fn source_read(&self, _: &str, _: &'static str) {}
}

/// The results of reads that are not those of a call.
pub const SOURCE_RESULTS: [&str; 6] =
    ["success", "empty", "too_large", "unreadable_text", "changing", "timeout"];

/// The entries of a source, as far as it is known.
#[derive(Clone)]
pub(super) struct RemoteReading {
    /// The manifests: those of the last complete read, or what was readable before the first one.
    pub(super) files: Vec<FileText>,
    /// Why the manifests may be others by now; empty after a complete read.
    pub(super) unread: Vec<ManifestFinding>,
    /// Equal where all else is equal.
    pub(super) digest: [u8; 32],
}

/// A source, and what was read of it.
pub struct RemoteSource {
    source: ManifestSource,
    name: String,
    path: Arc<Path>,
    store: Arc<dyn RemoteStore>,
    seed: u64,
    reading: Mutex<Arc<RemoteReading>>,
    cache: tokio::sync::Mutex<RemoteCache>,
}

impl std::fmt::Debug for RemoteSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("RemoteSource").field(&self.name).finish()
    }
}

/// The last reading, between two reads.
#[derive(Default)]
struct RemoteCache {
    /// The entries that were read, by key.
    texts: BTreeMap<String, CachedText>,
    /// Those of the last complete read.
    accepted: Option<BTreeMap<String, CachedText>>,
    /// Begun reads.
    reads: u64,
    warnings: ActiveWarnings<String, String>,
}

#[derive(Clone)]
struct CachedText {
    version: String,
    text: Arc<str>,
}

impl RemoteCache {
    /// Whether the last complete read found these versions.
    fn has_accepted(&self, versions: &Versions) -> bool {
        let is_same = |(key, version): (&String, &String), (known, cached): (&String, &CachedText)| {
            key == known && *version == cached.version
        };
        self.accepted.as_ref().is_some_and(|accepted| {
            accepted.len() == versions.len()
                && versions.iter().zip(accepted).all(|(listed, known)| is_same(listed, known))
        })
    }
}

/// The versions of listed entries, by key.
type Versions = BTreeMap<String, String>;

/// Why a read is not complete: of each entry, or of the source as a whole.
struct ReadFailure {
    /// The entry's key; `None`: the source.
    key: Option<String>,
    error: RemoteError,
}

impl ReadFailure {
    fn of_source(kind: &'static str, message: String) -> Self {
        Self { key: None, error: RemoteError { message, kind, is_transient: false } }
    }
}

/// How a read has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SourceRefresh {
    /// `success`, or the kind of the failure.
    pub(super) result: &'static str,
    /// Whether the manifests or the failures are others than before.
    pub(super) changed: bool,
}

/// When a change counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ChangeConfirmation {
    /// At once.
    None,
    /// When a second list, this long after the read, shows the same.
    After(Duration),
}

impl RemoteReading {
    fn new(files: Vec<FileText>, unread: Vec<ManifestFinding>) -> Self {
        let mut hash = Sha256::new();
        let mut add = |text: &[u8]| {
            hash.update((text.len() as u64).to_le_bytes());
            hash.update(text);
        };
        for FileText { path, text } in &files {
            add(path.as_os_str().as_encoded_bytes());
            add(text.as_deref().unwrap_or_default().as_bytes());
        }
        unread.iter().for_each(|finding| add(finding.to_string().as_bytes()));
        Self { digest: hash.finalize().into(), files, unread }
    }
}

impl RemoteSource {
    /// A source that is read from the store. The seed is that of pauses.
    pub fn new(source: ManifestSource, store: Arc<dyn RemoteStore>, seed: u64) -> Self {
        let name = source.to_string();
        let path: Arc<Path> = Path::new(&name).into();
        let unread = vec![ManifestFinding::about_file(&path, "has not been read yet")];
        let reading = Mutex::new(Arc::new(RemoteReading::new(Vec::new(), unread)));
        Self { source, name, path, store, seed, reading, cache: tokio::sync::Mutex::default() }
    }

    /// The name, as written.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The name in findings.
    pub(super) fn path(&self) -> &Arc<Path> {
        &self.path
    }

    /// The entries of the source.
    pub(super) fn reading(&self) -> Arc<RemoteReading> {
        Arc::clone(&self.reading.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads the source.
    pub(super) async fn refresh(&self, confirmation: ChangeConfirmation) -> SourceRefresh {
        let mut cache = self.cache.lock().await;
        cache.reads = cache.reads.wrapping_add(1);
        let read = tokio::time::timeout(READ_TIMEOUT, self.read(&mut cache, confirmation)).await;
        let failures = match read {
            Ok(Ok(())) => Vec::new(),
            Ok(Err(failures)) => failures,
            Err(_) => {
                let message = format!("cannot be read: no end within {} s", READ_TIMEOUT.as_secs());
                vec![ReadFailure::of_source("timeout", message)]
            }
        };
        self.log(&cache, &failures);
        let result = failures.first().map_or("success", |failure| failure.error.kind);
        let is_known = cache.accepted.is_some();
        let unread = failures.iter().map(|failure| self.finding(failure, is_known)).collect();
        let reading = Arc::new(RemoteReading::new(self.files(&cache), unread));
        let mut known = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = known.digest != reading.digest;
        *known = reading;
        SourceRefresh { result, changed }
    }

    /// One read. Fills the cache; `Ok` where it is complete.
    async fn read(
        &self,
        cache: &mut RemoteCache,
        confirmation: ChangeConfirmation,
    ) -> Result<(), Vec<ReadFailure>> {
        let seed = self.seed.wrapping_add(cache.reads);
        let mut entries = self.list(seed).await.map_err(|failure| vec![failure])?;
        for _ in 0..MAX_ROUNDS {
            let versions = versions(&entries);
            // Entries that come and go while others are unreadable must not fill the memory.
            cache.texts.retain(|key, _| versions.contains_key(key));
            if cache.has_accepted(&versions) {
                return Ok(());
            }
            let is_as_listed = self.read_entries(cache, entries, seed).await?;
            let pause = match confirmation {
                ChangeConfirmation::None if is_as_listed => None,
                ChangeConfirmation::None => Some(RELIST_PAUSE),
                ChangeConfirmation::After(pause) => Some(pause),
            };
            let Some(pause) = pause else {
                self.accept(cache);
                return Ok(());
            };
            tokio::time::sleep(pause).await;
            entries = self.list(seed).await.map_err(|failure| vec![failure])?;
            if is_as_listed && self::versions(&entries) == versions {
                self.accept(cache);
                return Ok(());
            }
        }
        let message = "changes faster than it is read; the next read follows".to_owned();
        Err(vec![ReadFailure::of_source("changing", message)])
    }

    /// The read is complete: the cache has the listed entries, and no others.
    fn accept(&self, cache: &mut RemoteCache) {
        info!(source = self.name, manifests = cache.texts.len(), "manifest source read");
        cache.accepted = Some(cache.texts.clone());
    }

    /// All manifests of a complete list.
    async fn list(&self, seed: u64) -> Result<Vec<RemoteEntry>, ReadFailure> {
        let (mut entries, mut page, mut listed) = (Vec::new(), None, 0);
        for _ in 0..MAX_PAGES {
            let found = retry(seed, || self.store.list(page.as_deref())).await;
            let found: RemotePage = found.map_err(|error| ReadFailure { key: None, error })?;
            listed += found.entries.len();
            let manifests = found.entries.into_iter().filter(|entry| self.source.has_manifest(&entry.key));
            entries.extend(manifests.map(with_digest));
            let size: u64 = entries.iter().map(|entry: &RemoteEntry| entry.size).sum();
            if size > MAX_TOTAL_BYTES {
                let message = "has more than 16 MiB of manifests: split it into several sources".to_owned();
                return Err(ReadFailure::of_source("too_large", message));
            }
            page = found.next;
            if page.is_none() {
                debug!(source = self.name, listed, manifests = entries.len(), "manifest source listed");
                return if entries.is_empty() { Err(empty(listed)) } else { Ok(entries) };
            }
            if listed > MAX_LISTED {
                break;
            }
        }
        let message = format!("has more than {MAX_LISTED} entries: give the manifests a prefix of their own");
        Err(ReadFailure::of_source("too_large", message))
    }

    /// Reads the entries whose version is not known. `false` where one has changed since it was listed.
    async fn read_entries(
        &self,
        cache: &mut RemoteCache,
        entries: Vec<RemoteEntry>,
        seed: u64,
    ) -> Result<bool, Vec<ReadFailure>> {
        let is_unknown = |entry: &RemoteEntry| {
            cache.texts.get(&entry.key).is_none_or(|known| known.version != entry.version)
        };
        let mut unknown: Vec<RemoteEntry> = entries.into_iter().filter(is_unknown).collect();
        let (mut failures, mut is_as_listed) = (Vec::new(), true);
        let mut reads = JoinSet::new();
        loop {
            while reads.len() < CONCURRENT_READS
                && let Some(entry) = unknown.pop()
            {
                let store = Arc::clone(&self.store);
                reads.spawn(async move { read_entry(&*store, entry, seed).await });
            }
            match reads.join_next().await {
                None => break,
                Some(Ok(Ok(Some((key, text))))) => drop(cache.texts.insert(key, text)),
                Some(Ok(Err(failure))) => failures.push(failure),
                // Changed, or the read panicked: both have read nothing.
                Some(Ok(Ok(None)) | Err(_)) => is_as_listed = false,
            }
        }
        failures.sort_by(|one: &ReadFailure, other| one.key.cmp(&other.key));
        if failures.is_empty() { Ok(is_as_listed) } else { Err(failures) }
    }

    /// The manifests: of the last complete read, or before the first one, what was readable.
    fn files(&self, cache: &RemoteCache) -> Vec<FileText> {
        let texts = cache.accepted.as_ref().unwrap_or(&cache.texts);
        let file = |(key, cached): (&String, &CachedText)| FileText {
            path: self.source.entry_path(key).into(),
            text: Ok(Arc::clone(&cached.text)),
        };
        texts.iter().map(file).collect()
    }

    fn finding(&self, failure: &ReadFailure, is_known: bool) -> ManifestFinding {
        let path = failure.key.as_ref().map(|key| self.source.entry_path(key));
        let rest = if is_known {
            "the last manifests of the source stay in force"
        } else {
            "nothing is removed meanwhile"
        };
        let message = format!("{}; {rest}", failure.error.message);
        ManifestFinding::about_file(path.as_deref().unwrap_or(&self.path), message)
    }

    fn log(&self, cache: &RemoteCache, failures: &[ReadFailure]) {
        let source = self.name.as_str();
        for ReadFailure { key, error } in failures {
            if cache.warnings.raise(key.clone().unwrap_or_default(), error.message.clone()) {
                warn!(source, key, result = error.kind, %error, "manifest source unreadable; keeping what was read");
            }
        }
        let is_failing =
            |key: &String| failures.iter().any(|one| one.key.as_ref().unwrap_or(&String::new()) == key);
        let over = cache.warnings.retain(is_failing);
        if failures.is_empty() && !over.is_empty() {
            info!(source, "manifest source readable again");
        }
    }
}

/// A version that changes with the content: a parameter that is deleted and created again starts at 1.
fn with_digest(entry: RemoteEntry) -> RemoteEntry {
    let Some(content) = &entry.content else { return entry };
    let digest: [u8; 32] = Sha256::digest(content).into();
    RemoteEntry { version: format!("{} {digest:?}", entry.version), ..entry }
}

fn versions(entries: &[RemoteEntry]) -> Versions {
    entries.iter().map(|entry| (entry.key.clone(), entry.version.clone())).collect()
}

fn empty(listed: usize) -> ReadFailure {
    let message = if listed == 0 {
        "has no manifest: an empty source looks like a failed upload; to withdraw all on purpose, put a manifest with only \
         a comment in it"
            .to_owned()
    } else {
        format!("has {listed} entries, and none is a manifest (*.yaml, *.yml, *.json)")
    };
    ReadFailure::of_source("empty", message)
}

/// Reads an entry as it was listed; `None` where it has changed since.
async fn read_entry(
    store: &dyn RemoteStore,
    entry: RemoteEntry,
    seed: u64,
) -> Result<Option<(String, CachedText)>, ReadFailure> {
    let RemoteEntry { key, version, size, content } = entry;
    let failure = |key: &str, kind, message| {
        let error = RemoteError { message, kind, is_transient: false };
        ReadFailure { key: Some(key.to_owned()), error }
    };
    if size > MAX_FILE_BYTES {
        let message = "is larger than 1 MiB: split it into several manifests".to_owned();
        return Err(failure(&key, "too_large", message));
    }
    let content = match content {
        Some(content) => Some(content),
        None => {
            let read = retry(seed, || store.read(&key, &version)).await;
            read.map_err(|error| ReadFailure { key: Some(key.clone()), error })?
        }
    };
    let Some(content) = content else { return Ok(None) };
    match text(content) {
        Ok(text) => Ok(Some((key, CachedText { version, text: text.into() }))),
        Err(message) => Err(failure(&key, "unreadable_text", message)),
    }
}

/// Calls the store, and again where that may help.
async fn retry<T, F>(seed: u64, call: impl Fn() -> F) -> Result<T, RemoteError>
where
    F: Future<Output = Result<T, RemoteError>>,
{
    let mut delays = RETRY.start(seed);
    for _ in 1..ATTEMPTS {
        match call().await {
            Err(error) if error.is_transient => tokio::time::sleep(delays.after_failure()).await,
            answer => return answer,
        }
    }
    call().await
}
