//! Keeps the manifests in force current while the operator runs.
//!
//! Notifications of the file system make it quick; reading everything at an interval makes it certain, since remote
//! file systems send none. A change counts once two reads, a debounce apart, found the same bytes, so that a file
//! that is just being written is not read by halves.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::{Notify, watch};
use tracing::{debug, error, info, warn};

use super::snapshot::SourceSnapshot;
use super::sources::{LoadOutcome, Loaded, ManifestSources, judge};
use ecs_mesh_api::manifests::{ManifestFinding, ManifestSet};
use ecs_mesh_controller::health::Heartbeat;

/// After so many reads that all differ, the change is left to the next poll.
const MAX_READS: u32 = 25;

/// Most findings that one load writes to the log, so that a file of another kind cannot flood it.
const MAX_LOGGED: usize = 50;

/// Reading and judging everything takes less than this, unless the file system hangs.
const READ_TIMEOUT: Duration = Duration::from_mins(2);

/// How the sources are watched.
#[derive(Clone, Copy, Debug)]
pub struct WatchOptions {
    /// How long the sources must stay the same before a change counts (default 200 ms).
    pub debounce: Duration,
    /// How often everything is read, notified or not (default 10 s).
    pub poll_interval: Duration,
    /// Whether to ask the file system for notifications (default yes).
    pub notifications: bool,
}

impl Default for WatchOptions {
    fn default() -> Self {
        Self {
            debounce: Duration::from_millis(200),
            poll_interval: Duration::from_secs(10),
            notifications: true,
        }
    }
}

/// What is in force, and what is wrong with the sources.
#[derive(Clone, Debug)]
pub struct ManifestStatus {
    /// The set in force; `set.generation` grows with each.
    pub set: Arc<ManifestSet>,
    /// What keeps the sources, as they are now, from being in force.
    pub errors: Vec<ManifestFinding>,
    /// What is valid and most likely not meant.
    pub warnings: Vec<ManifestFinding>,
    /// How many files the sources hold.
    pub files: usize,
}

impl From<&Loaded> for ManifestStatus {
    fn from(loaded: &Loaded) -> Self {
        Self {
            set: Arc::clone(&loaded.set),
            errors: loaded.errors.clone(),
            warnings: loaded.warnings.clone(),
            files: loaded.files,
        }
    }
}

/// Loads the sources, then keeps them loaded for as long as a receiver is there.
///
/// Returns once the first load is done, with or without errors. The receiver changes when the set in force, the
/// errors or the warnings do.
pub async fn watch(sources: ManifestSources, options: WatchOptions) -> watch::Receiver<Arc<ManifestStatus>> {
    watch_with_heartbeat(sources, options, Heartbeat::default()).await
}

/// As [`watch()`], telling by `pulse` that it makes progress.
pub async fn watch_with_heartbeat(
    sources: ManifestSources,
    options: WatchOptions,
    pulse: Heartbeat,
) -> watch::Receiver<Arc<ManifestStatus>> {
    pulse.expect_within(READ_TIMEOUT);
    let changed = Arc::new(Notify::new());
    let reader = SourceReader { sources, bell: ChangeNotifier::new(options, &changed) };
    let (reader, snapshot) = read(reader).await;
    let loaded = match snapshot {
        Some(snapshot) => evaluate_blocking(snapshot, None).await,
        None => None,
    };
    let loaded = loaded.unwrap_or_else(|| Loaded::unread(&reader.sources));
    log_change(None, &loaded);
    let (sender, receiver) = watch::channel(Arc::new(ManifestStatus::from(&loaded)));
    tokio::spawn(follow(reader, options, changed, loaded, sender, pulse));
    receiver
}

async fn follow(
    mut reader: SourceReader,
    options: WatchOptions,
    changed: Arc<Notify>,
    mut loaded: Loaded,
    sender: watch::Sender<Arc<ManifestStatus>>,
    pulse: Heartbeat,
) {
    loop {
        pulse.expect_within(options.poll_interval + READ_TIMEOUT);
        tokio::select! {
            biased;
            () = sender.closed() => return,
            // What else happens at once is read along; and a busy directory is not read without pause.
            () = changed.notified() => tokio::time::sleep(options.debounce).await,
            () = tokio::time::sleep(options.poll_interval) => {}
        }
        let settled;
        (reader, settled) = settle(reader, &loaded, options.debounce).await;
        let Some(snapshot) = settled else { continue };
        let Some(next) = evaluate_blocking(snapshot, Some(&loaded)).await else { continue };
        log_change(Some(&loaded), &next);
        let is_news = !Arc::ptr_eq(&loaded.set, &next.set)
            || loaded.errors != next.errors
            || loaded.warnings != next.warnings
            || loaded.files != next.files;
        loaded = next;
        if is_news {
            sender.send_replace(Arc::new(ManifestStatus::from(&loaded)));
        }
    }
}

/// Reads until two reads in a row find the same; `None` where that is what is loaded already.
async fn settle(mut reader: SourceReader, loaded: &Loaded, debounce: Duration) -> (SourceReader, Option<SourceSnapshot>) {
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
    debug!("the manifests change faster than they can be read; trying again at the next poll");
    (reader, None)
}

/// File systems can hang, so they are read where nothing else waits.
async fn read(mut reader: SourceReader) -> (SourceReader, Option<SourceSnapshot>) {
    let spare = SourceReader { sources: reader.sources.clone(), bell: None };
    let work = tokio::task::spawn_blocking(move || {
        if let Some(bell) = &mut reader.bell {
            bell.watch(&reader.sources);
        }
        let snapshot = reader.sources.read();
        (reader, snapshot)
    });
    match work.await {
        Ok((reader, snapshot)) => (reader, Some(snapshot)),
        // Only a panic or the runtime's end leads here; polling goes on.
        Err(_) => (spare, None),
    }
}

async fn evaluate_blocking(snapshot: SourceSnapshot, before: Option<&Loaded>) -> Option<Loaded> {
    let before = before.cloned();
    let work = tokio::task::spawn_blocking(move || judge(snapshot, before.as_ref()));
    work.await.ok().and_then(LoadOutcome::into_loaded)
}

struct SourceReader {
    sources: ManifestSources,
    bell: Option<ChangeNotifier>,
}

/// Rings when something happens in the sources.
struct ChangeNotifier {
    watcher: RecommendedWatcher,
    has_warned: bool,
}

impl ChangeNotifier {
    fn new(options: WatchOptions, changed: &Arc<Notify>) -> Option<Self> {
        if !options.notifications {
            return None;
        }
        let changed = Arc::clone(changed);
        let ring = move |event: notify::Result<notify::Event>| {
            if event.map_or(true, |event| is_change(event.kind)) {
                changed.notify_one();
            }
        };
        match notify::recommended_watcher(ring) {
            Ok(watcher) => Some(Self { watcher, has_warned: false }),
            Err(error) => {
                warn!(%error, "no file system notifications for the manifests: changes are found by polling alone");
                None
            }
        }
    }

    /// Asks for notifications anew: a directory that was replaced by another of its name is a new one.
    fn watch(&mut self, sources: &ManifestSources) {
        for directory in directories(sources.paths()) {
            if let Err(error) = self.watcher.watch(&directory, RecursiveMode::NonRecursive)
                && !self.has_warned
            {
                self.has_warned = true;
                let path = directory.display();
                warn!(%path, %error, "no file system notifications for these manifests: changes are found by polling");
            }
        }
    }
}

/// Reading is an access too, and must not ring for itself.
fn is_change(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(access) => access == AccessKind::Close(AccessMode::Write),
        _ => true,
    }
}

/// The directories in which something happens when a source changes: a file's own tells of its replacement too.
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

fn log_change(before: Option<&Loaded>, now: &Loaded) {
    let is_known = |known: fn(&Loaded) -> &Vec<ManifestFinding>, finding: &ManifestFinding| {
        before.is_some_and(|before| known(before).contains(finding))
    };
    let new: Vec<&ManifestFinding> =
        now.errors.iter().filter(|finding| !is_known(|loaded| &loaded.errors, finding)).collect();
    for finding in new.iter().take(MAX_LOGGED) {
        error!(manifest_error = %finding, "manifest refused");
    }
    if new.len() > MAX_LOGGED {
        error!(more = new.len() - MAX_LOGGED, "further errors in the manifests");
    }
    let new = now.warnings.iter().filter(|finding| !is_known(|loaded| &loaded.warnings, finding));
    for finding in new.take(MAX_LOGGED) {
        warn!(manifest_warning = %finding, "manifest looks wrong");
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
            "manifests in force"
        );
    } else if before.is_some_and(|before| before.errors.is_empty()) && !now.errors.is_empty() {
        warn!(
            generation = set.generation,
            errors = now.errors.len(),
            "the last good manifests stay in force"
        );
    } else if before.is_some_and(|before| !before.errors.is_empty()) && now.errors.is_empty() {
        info!(generation = set.generation, "the manifests are mended, and say what was in force all along");
    }
}
