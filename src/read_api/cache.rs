//! Snapshots that readers share, so that their number costs the operator nothing.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use super::source::{ReadSource, Snapshot};

/// The shortest age at which a snapshot is replaced.
const MIN_AGE: Duration = Duration::from_millis(250);

/// A snapshot is kept for this many times as long as it took: all readers together cost at most a twentieth of one core.
const AGE_PER_COST: u32 = 20;

/// The last snapshot.
#[derive(Clone)]
pub(super) struct SnapshotCache {
    source: Arc<dyn ReadSource>,
    last: Arc<Mutex<Option<CachedSnapshot>>>,
}

struct CachedSnapshot {
    snapshot: Arc<Snapshot>,
    fresh_until: Instant,
}

impl SnapshotCache {
    pub(super) fn new(source: Arc<dyn ReadSource>) -> Self {
        Self { source, last: Arc::default() }
    }

    /// A snapshot that is fresh enough. Concurrent callers wait for one; `None` if it failed, which is a defect.
    pub(super) async fn get(&self) -> Option<Arc<Snapshot>> {
        if let Some(fresh) = fresh(self.last.lock().await.as_ref()) {
            return Some(fresh);
        }
        // A caller whose client goes away stops waiting. The snapshot is finished all the same: otherwise the next caller would
        // begin another one beside it, and clients that come and go would have many made at once.
        tokio::spawn(self.clone().make()).await.ok().flatten()
    }

    async fn make(self) -> Option<Arc<Snapshot>> {
        let mut last = self.last.lock().await;
        if let Some(fresh) = fresh(last.as_ref()) {
            return Some(fresh);
        }
        let source = Arc::clone(&self.source);
        let began = Instant::now();
        let snapshot = tokio::task::spawn_blocking(move || source.snapshot()).await.ok()?;
        let snapshot = Arc::new(snapshot);
        let age = began.elapsed().saturating_mul(AGE_PER_COST).max(MIN_AGE);
        *last = Some(CachedSnapshot { snapshot: Arc::clone(&snapshot), fresh_until: Instant::now() + age });
        Some(snapshot)
    }
}

fn fresh(last: Option<&CachedSnapshot>) -> Option<Arc<Snapshot>> {
    last.filter(|cached| Instant::now() < cached.fresh_until).map(|cached| Arc::clone(&cached.snapshot))
}
