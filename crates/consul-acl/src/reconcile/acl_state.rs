//! What is remembered of a control plane's identity set-up between two looks: when to look, what was found, what was
//! said of it, and which writes were never answered.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::state::AclStatus;
use crate::desired::ObjectId;
use crate::plan::AclStep;

/// So long after it was sent a write counts as never known, where nobody looks for what it would have done.
const UNACKNOWLEDGED_WRITE_TTL: Duration = Duration::from_hours(1);

/// An object, and Consul's id for it where several have one name.
pub(super) type ObjectKey = (ObjectId, Option<Arc<str>>);

/// The memory of one plane.
pub(super) struct AclState {
    /// How often a look was asked for, and which of these the last look has answered.
    requested: AtomicU64,
    completed: AtomicU64,
    notify: Notify,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    state: AclStatus,
    /// By object, what was last said of it.
    last_warnings: BTreeMap<ObjectKey, String>,
    /// The failed calls that were told of.
    warned_errors: BTreeSet<String>,
    /// The writes that went out, and whose answer has not come.
    unacknowledged: BTreeMap<ObjectKey, UnacknowledgedWrite>,
    /// The auth methods that bore our mark when they were last listed.
    methods: BTreeSet<Arc<str>>,
}

/// A write that may have taken effect or not.
struct UnacknowledgedWrite {
    step: AclStep,
    at: Instant,
    /// It was told that it failed.
    told: bool,
    /// One that went out earlier.
    earlier: Option<Box<UnacknowledgedWrite>>,
}

impl Default for AclState {
    /// A first look is asked for.
    fn default() -> Self {
        Self {
            requested: AtomicU64::new(1),
            completed: AtomicU64::default(),
            notify: Notify::default(),
            inner: Mutex::default(),
        }
    }
}

impl AclState {
    /// Something changed: look again.
    pub(super) fn request_reconcile(&self) {
        self.requested.fetch_add(1, Ordering::AcqRel);
        self.notify.notify_one();
    }

    /// Whether every look that was asked for has ended.
    pub(super) fn is_settled(&self) -> bool {
        self.completed.load(Ordering::Acquire) == self.requested.load(Ordering::Acquire)
    }

    /// For the scrape.
    pub(super) fn state(&self) -> AclStatus {
        self.lock().state.clone()
    }

    /// What a look that begins now answers.
    pub(super) fn begin_reconcile(&self) -> u64 {
        self.requested.load(Ordering::Acquire)
    }

    pub(super) fn ends(&self, requested: u64) {
        self.completed.store(requested, Ordering::Release);
    }

    /// Until somebody asks for a look.
    pub(super) async fn wait_for_request(&self) {
        self.notify.notified().await;
    }

    /// What the last look found; `last_sync` where all of it went well.
    pub(super) fn record_result(
        &self,
        objects: BTreeMap<&'static str, BTreeMap<&'static str, usize>>,
        last_sync: Option<f64>,
    ) {
        let state = &mut self.lock().state;
        state.objects = objects;
        state.last_sync = last_sync.or(state.last_sync);
    }

    /// Whether this is not what was last said of the object.
    pub(super) fn warn_once(&self, key: &ObjectKey, words: &str) -> bool {
        let last_warnings = &mut self.lock().last_warnings;
        let is_news = last_warnings.get(key).is_none_or(|before| before != words);
        if is_news {
            last_warnings.insert(key.clone(), words.to_owned());
        }
        is_news
    }

    /// Of all but these there is nothing to say any more.
    pub(super) fn retain_warnings(&self, keys: &BTreeSet<ObjectKey>) {
        self.lock().last_warnings.retain(|key, _| keys.contains(key));
    }

    /// These calls failed, and no others. Gives those that are news.
    pub(super) fn record_errors(&self, all: BTreeSet<String>) -> BTreeSet<String> {
        let inner = &mut *self.lock();
        let news = all.difference(&inner.warned_errors).cloned().collect();
        inner.warned_errors = all;
        news
    }

    /// A write goes out.
    pub(super) fn begin_write(&self, key: ObjectKey, step: &AclStep) {
        let unacknowledged = &mut self.lock().unacknowledged;
        let earlier = unacknowledged.remove(&key).map(|sent| Box::new(UnacknowledgedWrite { earlier: None, ..sent }));
        let sent = UnacknowledgedWrite { step: step.clone(), at: Instant::now(), told: false, earlier };
        unacknowledged.insert(key, sent);
    }

    /// It was answered. Where it was refused, an earlier one may be why.
    pub(super) fn acknowledge(&self, key: &ObjectKey, is_done: bool) {
        let unacknowledged = &mut self.lock().unacknowledged;
        let earlier = unacknowledged.remove(key).and_then(|sent| sent.earlier);
        if let (false, Some(earlier)) = (is_done, earlier) {
            unacknowledged.insert(key.clone(), *earlier);
        }
    }

    /// Whether it is open what came of a write. That it failed is told of now.
    pub(super) fn is_unacknowledged(&self, key: &ObjectKey) -> bool {
        self.lock().unacknowledged.get_mut(key).is_some_and(|sent| {
            sent.told = true;
            true
        })
    }

    /// The writes of which nothing was told, since whoever waited for the answer was cut off. They are told of now.
    pub(super) fn take_unreported(&self) -> Vec<AclStep> {
        let unacknowledged = &mut self.lock().unacknowledged;
        let untold = unacknowledged.values_mut().filter(|sent| !sent.told);
        untold
            .map(|sent| {
                sent.told = true;
                sent.step.clone()
            })
            .collect()
    }

    /// The writes that took effect, as `shows` says of each where that is known. What has not shown for `long_enough`
    /// never did.
    pub(super) fn take_confirmed(
        &self,
        long_enough: Duration,
        shows: impl Fn(&AclStep) -> Option<bool>,
    ) -> Vec<AclStep> {
        let mut done = Vec::new();
        self.lock().unacknowledged.retain(|_, sent| match shows(&sent.step) {
            Some(true) => {
                done.push(sent.step.clone());
                false
            }
            Some(false) => sent.at.elapsed() <= long_enough,
            // Where nobody looks any more nobody will ever know.
            None => sent.at.elapsed() <= UNACKNOWLEDGED_WRITE_TTL,
        });
        done
    }

    /// The auth methods that bear our mark, as of the last list.
    pub(super) fn auth_methods(&self) -> BTreeSet<Arc<str>> {
        self.lock().methods.clone()
    }

    pub(super) fn set_auth_methods(&self, methods: BTreeSet<Arc<str>>) {
        self.lock().methods = methods;
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every change above leaves it whole.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desired::ObjectScope;
    use crate::plan::AclAction;
    use ecs_mesh_core::plan::report::ObjectKind;

    #[test]
    fn reconcile_completes_only_earlier_requests() {
        let keeping = AclState::default();
        assert!(!keeping.is_settled(), "nobody has looked yet");
        let requested = keeping.begin_reconcile();
        keeping.request_reconcile();
        keeping.ends(requested);
        assert!(!keeping.is_settled());
        keeping.ends(keeping.begin_reconcile());
        assert!(keeping.is_settled());
    }

    #[tokio::test(start_paused = true)]
    async fn unacknowledged_write_expires() {
        let keeping = AclState::default();
        let id = ObjectId { kind: ObjectKind::Role, scope: ObjectScope::default(), name: "r".into() };
        let key: ObjectKey = (id.clone(), None);
        let action = AclAction::Remove;
        let step = AclStep {
            id,
            server_id: None,
            action,
            reason: "r".into(),
            warnings: Vec::new(),
            before: None,
        };
        keeping.begin_write(key.clone(), &step);
        tokio::time::advance(UNACKNOWLEDGED_WRITE_TTL).await;
        assert!(keeping.take_confirmed(Duration::ZERO, |_| None).is_empty() && keeping.is_unacknowledged(&key));
        tokio::time::advance(Duration::from_secs(1)).await;
        keeping.take_confirmed(Duration::ZERO, |_| None);
        assert!(!keeping.is_unacknowledged(&key));
    }

    #[test]
    fn warning_is_repeated_after_it_was_cleared() {
        let keeping = AclState::default();
        let id = ObjectId { kind: ObjectKind::Role, scope: ObjectScope::default(), name: "r".into() };
        let key: ObjectKey = (id, None);
        assert!(keeping.warn_once(&key, "in the way") && !keeping.warn_once(&key, "in the way"));
        keeping.retain_warnings(&[key.clone()].into());
        assert!(!keeping.warn_once(&key, "in the way") && keeping.warn_once(&key, "gone"));
        keeping.retain_warnings(&BTreeSet::new());
        assert!(keeping.warn_once(&key, "gone"));
    }
}
