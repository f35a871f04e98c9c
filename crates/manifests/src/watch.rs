//! Watches the sources and keeps the manifests in force current.
//!
//! File system notifications make changes visible at once. Periodic reads find the others, since remote file systems send no
//! notifications. A change counts once two reads, a debounce apart, found the same bytes, so that half-written files are not
//! loaded.

use std::collections::{BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tracing::{debug, error, info, warn};

use super::remote::{ChangeConfirmation, RemoteSource, SourceObserver};
use super::snapshot::SourceSnapshot;
use super::sources::{LoadOutcome, Loaded, ManifestSources, evaluate};
use ecs_mesh_api::manifests::{ManifestFinding, ManifestSet};
use ecs_mesh_controller::health::Heartbeat;
use ecs_mesh_controller::{ActiveWarnings, Backoff};

/// Maximum number of differing reads before the change is left to the next poll.
const MAX_READS: u32 = 25;

/// Maximum number of findings that one load logs, so that a foreign file cannot flood the log.
const MAX_LOGGED: usize = 50;

/// Maximum duration of a load, unless the file system hangs.
const READ_TIMEOUT: Duration = Duration::from_mins(2);

/// How long a start waits for remote sources.
const FIRST_READ_TIMEOUT: Duration = Duration::from_secs(30);

/// First pause before a failed read of a remote source is repeated.
const FAILED_READ_RETRY: Duration = Duration::from_secs(5);

/// How the sources are watched.
#[derive(Clone, Copy, Debug)]
pub struct WatchOptions {
    /// How long the sources must stay the same before a change counts (default 200 ms).
    pub debounce: Duration,
    /// Interval of full reads, notified or not (default 10 s).
    pub poll_interval: Duration,
    /// Whether to use file system notifications (default true).
    pub notifications: bool,
    /// Interval of the reads of remote sources (default 30 s), with a tenth as jitter.
    pub remote_interval: Duration,
    /// How long a change in a remote source must last before it counts (default 2 s).
    pub remote_debounce: Duration,
    /// Seed of the jitter.
    pub seed: u64,
}

impl Default for WatchOptions {
    fn default() -> Self {
        Self {
            debounce: Duration::from_millis(200),
            poll_interval: Duration::from_secs(10),
            notifications: true,
            remote_interval: Duration::from_secs(30),
            remote_debounce: Duration::from_secs(2),
            seed: 0,
        }
    }
}

/// The set in force, and the findings of the sources.
#[derive(Clone, Debug)]
pub struct ManifestStatus {
    /// The set in force; `set.generation` increases with each.
    pub set: Arc<ManifestSet>,
    /// The errors of the sources as they are now, with those of unread sources.
    pub errors: Vec<ManifestFinding>,
    /// Those of the errors that are about remote sources.
    pub unread: Vec<ManifestFinding>,
    /// Warnings: valid values that are probably unintended.
    pub warnings: Vec<ManifestFinding>,
    /// The number of files.
    pub files: usize,
}

impl From<&Loaded> for ManifestStatus {
    fn from(loaded: &Loaded) -> Self {
        Self {
            set: Arc::clone(&loaded.set),
            errors: loaded.errors.clone(),
            unread: loaded.unread.clone(),
            warnings: loaded.warnings.clone(),
            files: loaded.files,
        }
    }
}

/// Loads the sources, and watches them until all receivers are dropped.
///
/// Returns after the first load, with or without errors. Sources that are slow are read on while others are in force. The
/// receiver changes when the set in force, the errors, the warnings or the number of files change.
pub async fn watch(sources: ManifestSources, options: WatchOptions) -> watch::Receiver<Arc<ManifestStatus>> {
    watch_observed(sources, options, WatchObservers::default()).await
}

/// The observers of a watch's progress.
pub struct WatchObservers {
    /// Shows progress.
    pub heartbeat: Heartbeat,
    /// Records the reads of remote sources.
    pub sources: Arc<dyn SourceObserver>,
}

impl Default for WatchObservers {
    fn default() -> Self {
        Self { heartbeat: Heartbeat::default(), sources: Arc::new(()) }
    }
}

/// As [`watch()`], observed.
pub async fn watch_observed(
    sources: ManifestSources,
    options: WatchOptions,
    observers: WatchObservers,
) -> watch::Receiver<Arc<ManifestStatus>> {
    let WatchObservers { heartbeat, sources: observer } = observers;
    heartbeat.expect_within(READ_TIMEOUT);
    let changed = Arc::new(Notify::new());
    let confirmation = ChangeConfirmation::After(options.remote_debounce);
    let first = sources.refresh_remote(confirmation, Arc::clone(&observer));
    if tokio::time::timeout(FIRST_READ_TIMEOUT, first).await.is_err() {
        warn!("a manifest source does not answer; starting without it");
    }
    let mut pollers = JoinSet::new();
    for (index, source) in (0..).zip(sources.remote()) {
        let (source, observer) = (Arc::clone(source), Arc::clone(&observer));
        let seed = options.seed.wrapping_add(index);
        pollers.spawn(poll_remote(source, WatchOptions { seed, ..options }, observer, Arc::clone(&changed)));
    }
    let reader = SourceReader { sources, notifier: ChangeNotifier::new(options, &changed) };
    let (reader, snapshot) = read(reader).await;
    let loaded = match snapshot {
        Some(snapshot) => evaluate_blocking(snapshot, None).await,
        None => None,
    };
    let loaded = loaded.unwrap_or_else(|| Loaded::unread(&reader.sources));
    log_change(None, &loaded);
    let (sender, receiver) = watch::channel(Arc::new(ManifestStatus::from(&loaded)));
    let follower = follow(reader, options, changed, loaded, sender, heartbeat);
    tokio::spawn(async move {
        follower.await;
        // Polls end with the follower.
        drop(pollers);
    });
    receiver
}

/// Reads a remote source at each interval, sooner after a failure, and notifies of changes.
async fn poll_remote(
    source: Arc<RemoteSource>,
    options: WatchOptions,
    observer: Arc<dyn SourceObserver>,
    changed: Arc<Notify>,
) {
    let WatchOptions { remote_interval, remote_debounce, seed, .. } = options;
    let backoff = Backoff { min: FAILED_READ_RETRY.min(remote_interval), max: remote_interval };
    let mut jitter = fastrand::Rng::with_seed(seed);
    let mut delays = None;
    let mut is_read = source.reading().unread.is_empty();
    loop {
        let pause = if is_read {
            delays = None;
            remote_interval.mul_f64(1.0 + 0.1 * jitter.f64())
        } else {
            delays.get_or_insert_with(|| backoff.start(seed)).after_failure()
        };
        tokio::time::sleep(pause).await;
        let refresh = source.refresh(ChangeConfirmation::After(remote_debounce)).await;
        observer.source_read(source.name(), refresh.result);
        is_read = refresh.result == "success";
        if refresh.changed {
            changed.notify_one();
        }
    }
}

async fn follow(
    mut reader: SourceReader,
    options: WatchOptions,
    changed: Arc<Notify>,
    mut loaded: Loaded,
    sender: watch::Sender<Arc<ManifestStatus>>,
    heartbeat: Heartbeat,
) {
    loop {
        heartbeat.expect_within(options.poll_interval + READ_TIMEOUT);
        tokio::select! {
            biased;
            () = sender.closed() => return,
            // The pause collects further changes, and limits the reads of a busy directory.
            () = changed.notified() => tokio::time::sleep(options.debounce).await,
            () = tokio::time::sleep(options.poll_interval) => {}
        }
        let settled;
        (reader, settled) = settle(reader, &loaded, options.debounce).await;
        let Some(snapshot) = settled else { continue };
        let Some(next) = evaluate_blocking(snapshot, Some(&loaded)).await else { continue };
        log_change(Some(&loaded), &next);
        let changed_status = !Arc::ptr_eq(&loaded.set, &next.set)
            || loaded.errors != next.errors
            || loaded.unread != next.unread
            || loaded.warnings != next.warnings
            || loaded.files != next.files;
        loaded = next;
        if changed_status {
            sender.send_replace(Arc::new(ManifestStatus::from(&loaded)));
        }
    }
}

/// Reads until two consecutive reads are equal; `None` where they equal the loaded state.
async fn settle(
    mut reader: SourceReader,
    loaded: &Loaded,
    debounce: Duration,
) -> (SourceReader, Option<SourceSnapshot>) {
    let mut last: Option<[u8; 32]> = None;
    for _ in 0..MAX_READS {
        let snapshot;
        (reader, snapshot) = read(reader).await;
        let Some(snapshot) = snapshot else { break };
        if loaded.is_of(&snapshot) {
            return (reader, None);
        }
        if last == Some(snapshot.digest) {
            return (reader, Some(snapshot));
        }
        last = Some(snapshot.digest);
        tokio::time::sleep(debounce).await;
    }
    debug!("manifests change faster than they are read; retrying at the next poll");
    (reader, None)
}

/// Reads the sources on a blocking thread, since file systems can hang.
async fn read(mut reader: SourceReader) -> (SourceReader, Option<SourceSnapshot>) {
    let spare = SourceReader { sources: reader.sources.clone(), notifier: None };
    let work = tokio::task::spawn_blocking(move || {
        if let Some(notifier) = &mut reader.notifier {
            notifier.watch(&reader.sources);
        }
        let snapshot = reader.sources.read();
        (reader, snapshot)
    });
    match work.await {
        Ok((reader, snapshot)) => (reader, Some(snapshot)),
        // The read panicked, or the runtime is shutting down. Polling continues.
        Err(_) => (spare, None),
    }
}

async fn evaluate_blocking(snapshot: SourceSnapshot, before: Option<&Loaded>) -> Option<Loaded> {
    let before = before.cloned();
    let work = tokio::task::spawn_blocking(move || evaluate(snapshot, before.as_ref()));
    work.await.ok().and_then(LoadOutcome::into_loaded)
}

struct SourceReader {
    sources: ManifestSources,
    notifier: Option<ChangeNotifier>,
}

/// Notifies of changes in the sources.
struct ChangeNotifier {
    watcher: RecommendedWatcher,
    warnings: ActiveWarnings<PathBuf>,
}

impl ChangeNotifier {
    fn new(options: WatchOptions, changed: &Arc<Notify>) -> Option<Self> {
        if !options.notifications {
            return None;
        }
        let changed = Arc::clone(changed);
        let notify = move |event: notify::Result<notify::Event>| {
            if event.map_or(true, |event| is_change(event.kind)) {
                changed.notify_one();
            }
        };
        match notify::recommended_watcher(notify) {
            Ok(watcher) => Some(Self { watcher, warnings: ActiveWarnings::default() }),
            Err(error) => {
                warn!(%error, "file system notifications unavailable; polling the manifests");
                None
            }
        }
    }

    /// Subscribes again, since a directory that was replaced is another one.
    fn watch(&mut self, sources: &ManifestSources) {
        for directory in directories(sources.paths()) {
            match self.watcher.watch(&directory, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    self.warnings.clear(&directory);
                }
                Err(error) if self.warnings.raise(directory.clone(), ()) => {
                    let path = directory.display();
                    warn!(%path, %error, "file system notifications unavailable for a directory; polling it");
                }
                Err(_) => {}
            }
        }
    }
}

/// Whether the event is a change. Reads are accesses, too, and must not notify.
fn is_change(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(access) => access == AccessKind::Close(AccessMode::Write),
        _ => true,
    }
}

/// The directories to watch: a file's directory, since a file may be replaced.
fn directories(paths: &[PathBuf]) -> BTreeSet<PathBuf> {
    let directory_of = |path: &PathBuf| {
        if path.is_dir() {
            return path.clone();
        }
        match path.parent() {
            Some(parent) if parent != Path::new("") => parent.to_owned(),
            _ => PathBuf::from("."),
        }
    };
    paths.iter().map(directory_of).collect()
}

/// Logs a finding with its parts as fields.
macro_rules! log_finding {
    ($level:ident, $finding:expr, $field:ident = $message:literal) => {{
        let ManifestFinding { file, line, document, subject, path, message } = $finding;
        $level!(
            file = %file.display(),
            line,
            document,
            subject = subject.as_deref(),
            path = (!path.is_empty()).then_some(path.as_str()),
            $field = message.as_str(),
            $message
        );
    }};
}

fn log_change(before: Option<&Loaded>, now: &Loaded) {
    // Sets, since thousands of findings may be compared at each load.
    let known = |findings: fn(&Loaded) -> &Vec<ManifestFinding>| {
        before.into_iter().flat_map(findings).collect::<HashSet<&ManifestFinding>>()
    };
    let (known_errors, known_warnings) = (known(|loaded| &loaded.errors), known(|loaded| &loaded.warnings));
    // The reads of remote sources log why these are unread.
    let is_new =
        |finding: &&ManifestFinding| !known_errors.contains(finding) && !now.unread.contains(finding);
    let new: Vec<&ManifestFinding> = now.errors.iter().filter(is_new).collect();
    for finding in new.iter().take(MAX_LOGGED) {
        log_finding!(error, finding, error = "manifest rejected");
    }
    if new.len() > MAX_LOGGED {
        error!(omitted = new.len() - MAX_LOGGED, "further manifest errors");
    }
    let new = now.warnings.iter().filter(|finding| !known_warnings.contains(finding));
    for finding in new.take(MAX_LOGGED) {
        log_finding!(warn, finding, warning = "manifest warning");
    }
    let set = &now.set;
    if before.is_none_or(|before| !Arc::ptr_eq(&before.set, set)) {
        info!(
            generation = set.generation,
            complete = set.complete,
            control_planes = set.control_planes.len(),
            bindings = set.bindings.len(),
            workloads = set.workloads.len(),
            outbound_lists = set.outbound_lists.len(),
            consul_auths = set.consul_auths.len(),
            aws_accounts = set.aws_accounts.len(),
            "manifests in force"
        );
    } else if before.is_some_and(|before| !before.has_rejected()) && now.has_rejected() {
        warn!(
            generation = set.generation,
            errors = now.errors.len(),
            "manifests invalid; keeping the last valid set"
        );
    } else if before.is_some_and(Loaded::has_rejected) && !now.has_rejected() {
        info!(generation = set.generation, "manifests valid again; no effective change");
    }
}
