//! What is remembered of a control plane's identity set-up between two looks: when to look, what was found, and what
//! was said of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::intent::identity::ObjectId;
use crate::mesh::ControlPlane;
use crate::telemetry::state::IdentityState;

/// An object, and Consul's id for it where several have one name.
pub(super) type Key = (ObjectId, Option<Arc<str>>);

/// The memory of one plane.
#[derive(Default)]
pub(in crate::reconcile) struct Keeping {
    /// The control plane has such objects.
    has_any: bool,
    /// How often a look was asked for, and which of these the last look has answered.
    asked: AtomicU64,
    answered: AtomicU64,
    soon: Notify,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    state: IdentityState,
    /// By object, what was last said of it.
    said: BTreeMap<Key, String>,
    /// The failed calls that were told of.
    failures: BTreeSet<String>,
}

impl Keeping {
    pub(in crate::reconcile) fn of(mesh: &dyn ControlPlane) -> Self {
        let has_any = mesh.identities().is_some();
        Self { has_any, asked: AtomicU64::new(has_any.into()), ..Self::default() }
    }

    /// Something changed: look again.
    pub(in crate::reconcile) fn soon(&self) {
        if self.has_any {
            self.asked.fetch_add(1, Ordering::AcqRel);
            self.soon.notify_one();
        }
    }

    /// Whether every look that was asked for has ended.
    pub(in crate::reconcile) fn is_settled(&self) -> bool {
        self.answered.load(Ordering::Acquire) == self.asked.load(Ordering::Acquire)
    }

    /// For the scrape.
    pub(in crate::reconcile) fn state(&self) -> Option<IdentityState> {
        self.has_any.then(|| self.lock().state.clone())
    }

    /// What a look that begins now answers.
    pub(super) fn begins(&self) -> u64 {
        self.asked.load(Ordering::Acquire)
    }

    pub(super) fn ends(&self, asked: u64) {
        self.answered.store(asked, Ordering::Release);
    }

    /// Until somebody asks for a look.
    pub(super) async fn asked_for(&self) {
        self.soon.notified().await;
    }

    /// What the last look found; `checked_at` where all of it went well.
    pub(super) fn found(
        &self,
        objects: BTreeMap<&'static str, BTreeMap<&'static str, usize>>,
        checked_at: Option<f64>,
    ) {
        let state = &mut self.lock().state;
        state.objects = objects;
        state.checked_at = checked_at.or(state.checked_at);
    }

    /// Whether this is not what was last said of the object.
    pub(super) fn is_news(&self, key: &Key, words: &str) -> bool {
        let said = &mut self.lock().said;
        let is_news = said.get(key).is_none_or(|before| before != words);
        if is_news {
            said.insert(key.clone(), words.to_owned());
        }
        is_news
    }

    /// Of all but these there is nothing to say any more.
    pub(super) fn only_said_of(&self, keys: &BTreeSet<Key>) {
        self.lock().said.retain(|key, _| keys.contains(key));
    }

    /// These calls failed, and no others. Gives those that are news.
    pub(super) fn failed(&self, all: BTreeSet<String>) -> BTreeSet<String> {
        let inner = &mut *self.lock();
        let news = all.difference(&inner.failures).cloned().collect();
        inner.failures = all;
        news
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every change above leaves it whole.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::intent::identity::{ObjectKind, Scope};

    #[test]
    fn a_look_answers_only_what_was_asked_before_it_began() {
        let keeping = Keeping { has_any: true, asked: AtomicU64::new(1), ..Keeping::default() };
        assert!(!keeping.is_settled(), "nobody has looked yet");
        let asked = keeping.begins();
        keeping.soon();
        keeping.ends(asked);
        assert!(!keeping.is_settled());
        keeping.ends(keeping.begins());
        assert!(keeping.is_settled());
    }

    #[test]
    fn a_thing_is_news_once_and_again_when_it_was_over() {
        let keeping = Keeping::default();
        let id = ObjectId { kind: ObjectKind::Role, scope: Scope::default(), name: "r".into() };
        let key: Key = (id, None);
        assert!(keeping.is_news(&key, "in the way") && !keeping.is_news(&key, "in the way"));
        keeping.only_said_of(&[key.clone()].into());
        assert!(!keeping.is_news(&key, "in the way") && keeping.is_news(&key, "gone"));
        keeping.only_said_of(&BTreeSet::new());
        assert!(keeping.is_news(&key, "gone"));
    }
}
