//! How far a control plane's registrations have been listed.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::lock;
use ecs_mesh_control_plane::FailedSegment;
use ecs_mesh_controller::ActiveWarnings;
use ecs_mesh_model::MeshName;

/// Bounds of a sweep's wait for a list. With the minimum alone, lists that always take longer would leave no sweep
/// complete, and ECS would be listed again and again.
const MIN_WAIT: Duration = Duration::from_secs(2);
const MAX_WAIT: Duration = Duration::from_secs(30);

#[derive(Default)]
pub(super) struct ListState {
    /// Held while a list is in progress.
    in_progress: Arc<tokio::sync::Mutex<()>>,
    /// Duration of the last complete list.
    last_duration: Mutex<Duration>,
    /// At least one segment has been listed.
    synced: AtomicBool,
    /// All segments have been listed.
    fully_synced: AtomicBool,
    /// The segments that could not be listed, with the reason.
    unlisted: ActiveWarnings<String, &'static str>,
    /// Meshes whose settings are known.
    capabilities: Mutex<BTreeSet<MeshName>>,
    /// The format of registrations at the last list.
    format: Mutex<Option<Arc<str>>>,
    /// Registrations of this operator whose cluster no binding selects, as of the last list.
    unattributed: AtomicUsize,
}

impl ListState {
    /// Twice the duration of the last complete list, within bounds.
    pub(super) fn wait(&self) -> Duration {
        (*lock(&self.last_duration) * 2).clamp(MIN_WAIT, MAX_WAIT)
    }

    pub(super) fn record_duration(&self, took: Duration) {
        *lock(&self.last_duration) = took;
    }

    pub(super) fn try_lock(&self) -> Option<tokio::sync::OwnedMutexGuard<()>> {
        Arc::clone(&self.in_progress).try_lock_owned().ok()
    }

    pub(super) fn record_result(&self, failed: &[FailedSegment]) -> (bool, Vec<String>) {
        let failing: BTreeSet<String> = failed.iter().map(|failed| failed.segment.to_string()).collect();
        let over = self.unlisted.retain(|segment| failing.contains(segment));
        if failed.is_empty() {
            self.fully_synced.store(true, Ordering::Release);
        }
        (!self.synced.swap(true, Ordering::AcqRel), over)
    }

    /// A segment could not be listed. Whether that is new.
    pub(super) fn raise_unlisted(&self, segment: String, reason: &'static str) -> bool {
        self.unlisted.raise(segment, reason)
    }

    pub(super) fn unlisted(&self) -> Vec<String> {
        self.unlisted.keys()
    }

    pub(super) fn is_synced(&self) -> bool {
        self.synced.load(Ordering::Acquire)
    }

    pub(super) fn is_fully_synced(&self) -> bool {
        self.fully_synced.load(Ordering::Acquire)
    }

    /// Whether the settings of the mesh are known; for no mesh, those of the control plane itself.
    pub(super) fn has_capabilities(&self, mesh: Option<&MeshName>) -> bool {
        let known = lock(&self.capabilities);
        mesh.map_or(!known.is_empty(), |mesh| known.contains(mesh))
    }

    pub(super) fn record_capabilities(&self, meshes: BTreeSet<MeshName>) {
        lock(&self.capabilities).extend(meshes);
    }

    pub(super) fn record_format(&self, format: Option<Arc<str>>) {
        *lock(&self.format) = format;
    }

    pub(super) fn is_format(&self, format: Option<&str>) -> bool {
        lock(&self.format).as_deref() == format
    }

    pub(super) fn record_unattributed(&self, count: usize) {
        self.unattributed.store(count, Ordering::Relaxed);
    }

    pub(super) fn unattributed(&self) -> usize {
        self.unattributed.load(Ordering::Relaxed)
    }
}
