//! Views that readers share, so that making them costs the same for one reader and for hundreds.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use tokio::sync::OwnedMutexGuard;
use tokio::time::Instant;

use super::read_thread::ReadThread;
use super::source::{ReadSource, Snapshot};
use ecs_mesh_read_api::{CountsView, ErrorView, StatusView};

/// The shortest age at which a view is replaced.
const MIN_AGE: Duration = Duration::from_millis(250);

/// The longest age, so that a view which took long on a busy machine is not shown as the present for minutes.
const MAX_AGE: Duration = Duration::from_secs(3);

/// A view is kept for this many times as long as it took: all readers together cost at most a fortieth of one core, as long as
/// one view takes less than 75 ms.
const AGE_PER_COST: u32 = 40;

/// Most bytes of the answers that are kept with a snapshot.
const MAX_RENDERED: usize = 8 * 1024 * 1024;

/// A view that is made when a reader asks and the last one is too old.
///
/// A view that is a little too old is still answered while the next one is made, so that readers neither wait for it together
/// nor pile up.
pub(super) struct SharedView<T> {
    make: Arc<dyn Fn() -> T + Send + Sync>,
    thread: ReadThread,
    last: ArcSwapOption<KeptView<T>>,
    turn: Arc<tokio::sync::Mutex<()>>,
}

struct KeptView<T> {
    view: Arc<T>,
    fresh_until: Instant,
    usable_until: Instant,
}

impl<T: Send + Sync + 'static> SharedView<T> {
    fn new(thread: ReadThread, make: impl Fn() -> T + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { make: Arc::new(make), thread, last: ArcSwapOption::empty(), turn: Arc::default() })
    }

    /// A view that is fresh enough; `None` if making one failed, which is a defect.
    pub(super) async fn get(self: &Arc<Self>) -> Option<Arc<T>> {
        if let Some(kept) = self.last.load_full() {
            let now = Instant::now();
            if now < kept.fresh_until {
                return Some(Arc::clone(&kept.view));
            }
            if now < kept.usable_until {
                if let Ok(turn) = Arc::clone(&self.turn).try_lock_owned() {
                    let this = Arc::clone(self);
                    tokio::spawn(async move { this.renew(turn).await });
                }
                return Some(Arc::clone(&kept.view));
            }
        }
        let this = Arc::clone(self);
        let make = async move {
            let turn = Arc::clone(&this.turn).lock_owned().await;
            match this.last.load_full() {
                // Made while this reader waited.
                Some(kept) if Instant::now() < kept.fresh_until => Some(Arc::clone(&kept.view)),
                _ => this.renew(turn).await,
            }
        };
        // A reader whose client goes away stops waiting. The view is finished all the same: otherwise clients that come and go
        // would have one begun after the other, and none would be kept.
        tokio::spawn(make).await.ok().flatten()
    }

    async fn renew(&self, _turn: OwnedMutexGuard<()>) -> Option<Arc<T>> {
        let make = Arc::clone(&self.make);
        let timed = move || {
            let began = std::time::Instant::now();
            (make(), began.elapsed())
        };
        let (view, cost) = self.thread.collect(timed).await?;
        let (view, age) = (Arc::new(view), cost.saturating_mul(AGE_PER_COST).clamp(MIN_AGE, MAX_AGE));
        let fresh_until = Instant::now() + age;
        let kept = KeptView { view: Arc::clone(&view), fresh_until, usable_until: fresh_until + age };
        self.last.store(Some(Arc::new(kept)));
        Some(view)
    }
}

/// The views that readers share.
#[derive(Clone)]
pub(super) struct SharedViews {
    source: Arc<dyn ReadSource>,
    pub(super) thread: ReadThread,
    pub(super) snapshot: Arc<SharedView<AnsweredSnapshot>>,
    status: Arc<SharedView<StatusView>>,
}

impl SharedViews {
    pub(super) fn new(source: &Arc<dyn ReadSource>, thread: ReadThread) -> Self {
        let (of_snapshot, of_status) = (Arc::clone(source), Arc::clone(source));
        let snapshot = move || AnsweredSnapshot::from(of_snapshot.snapshot());
        Self {
            snapshot: SharedView::new(thread.clone(), snapshot),
            status: SharedView::new(thread.clone(), move || of_status.status()),
            source: Arc::clone(source),
            thread,
        }
    }

    /// The status. Numbers that take a pass over all tasks are those of the snapshot. `None` for a defect, as of each view.
    pub(super) async fn status(&self) -> Option<StatusView> {
        let (status, known) = (self.status.get().await?, self.snapshot.get().await?);
        let changes = status.history.changes;
        let counts = known.snapshot.status.counts.map(|counts| CountsView { changes, ..counts });
        Some(StatusView { now: self.source.now().into(), counts, ..StatusView::clone(&status) })
    }
}

/// A snapshot with the answers that were made of it.
pub(super) struct AnsweredSnapshot {
    pub(super) snapshot: Snapshot,
    answers: Mutex<RenderedAnswers>,
}

#[derive(Default)]
struct RenderedAnswers {
    /// By path and query.
    bodies: BTreeMap<Box<str>, Bytes>,
    size: usize,
}

impl From<Snapshot> for AnsweredSnapshot {
    fn from(snapshot: Snapshot) -> Self {
        Self { snapshot, answers: Mutex::default() }
    }
}

impl AnsweredSnapshot {
    /// The answer to this path and query, if it was made before.
    pub(super) fn answer(&self, target: &str) -> Option<Bytes> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).bodies.get(target).cloned()
    }

    /// Makes the answer, unless it was made before, and keeps it while there is room. An error is not kept.
    ///
    /// # Errors
    /// Those of `make`.
    pub(super) fn answer_or_make(
        &self,
        target: &str,
        make: impl FnOnce(&Snapshot) -> Result<Bytes, ErrorView>,
    ) -> Result<Bytes, ErrorView> {
        if let Some(body) = self.answer(target) {
            return Ok(body);
        }
        let body = make(&self.snapshot)?;
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let size = answers.size + target.len() + body.len();
        if size <= MAX_RENDERED {
            answers.size = size;
            answers.bodies.insert(target.into(), body.clone());
        }
        Ok(body)
    }
}
