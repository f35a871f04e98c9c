//! What is remembered of a control plane's identity set-up between two looks: when to look, what was found, what was
//! said of it, and which writes were never answered.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::state::IdentityState;
use crate::desired::ObjectId;
use crate::plan::ObjectStep;

/// So long after it was sent a write counts as never known, where nobody looks for what it would have done.
const NEVER_KNOWN_AFTER: Duration = Duration::from_hours(1);

/// An object, and Consul's id for it where several have one name.
pub(super) type Key = (ObjectId, Option<Arc<str>>);

/// The memory of one plane.
pub(super) struct Keeping {
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
    /// The writes that went out, and whose answer has not come.
    unanswered: BTreeMap<Key, Unanswered>,
    /// The auth methods that bore our mark when they were last listed.
    methods: BTreeSet<Arc<str>>,
}

/// A write that may have taken effect or not.
struct Unanswered {
    step: ObjectStep,
    at: Instant,
    /// It was told that it failed.
    told: bool,
    /// One that went out earlier.
    earlier: Option<Box<Unanswered>>,
}

impl Default for Keeping {
    /// A first look is asked for.
    fn default() -> Self {
        Self {
            asked: AtomicU64::new(1),
            answered: AtomicU64::default(),
            soon: Notify::default(),
            inner: Mutex::default(),
        }
    }
}

impl Keeping {
    /// Something changed: look again.
    pub(super) fn soon(&self) {
        self.asked.fetch_add(1, Ordering::AcqRel);
        self.soon.notify_one();
    }

    /// Whether every look that was asked for has ended.
    pub(super) fn is_settled(&self) -> bool {
        self.answered.load(Ordering::Acquire) == self.asked.load(Ordering::Acquire)
    }

    /// For the scrape.
    pub(super) fn state(&self) -> IdentityState {
        self.lock().state.clone()
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

    /// A write goes out.
    pub(super) fn sends(&self, key: Key, step: &ObjectStep) {
        let unanswered = &mut self.lock().unanswered;
        let earlier = unanswered.remove(&key).map(|sent| Box::new(Unanswered { earlier: None, ..sent }));
        let sent = Unanswered { step: step.clone(), at: Instant::now(), told: false, earlier };
        unanswered.insert(key, sent);
    }

    /// It was answered. Where it was refused, an earlier one may be why.
    pub(super) fn was_answered(&self, key: &Key, is_done: bool) {
        let unanswered = &mut self.lock().unanswered;
        let earlier = unanswered.remove(key).and_then(|sent| sent.earlier);
        if let (false, Some(earlier)) = (is_done, earlier) {
            unanswered.insert(key.clone(), *earlier);
        }
    }

    /// Whether it is open what came of a write. That it failed is told of now.
    pub(super) fn is_open(&self, key: &Key) -> bool {
        self.lock().unanswered.get_mut(key).is_some_and(|sent| {
            sent.told = true;
            true
        })
    }

    /// The writes of which nothing was told, since whoever waited for the answer was cut off. They are told of now.
    pub(super) fn cut_off(&self) -> Vec<ObjectStep> {
        let unanswered = &mut self.lock().unanswered;
        let untold = unanswered.values_mut().filter(|sent| !sent.told);
        untold
            .map(|sent| {
                sent.told = true;
                sent.step.clone()
            })
            .collect()
    }

    /// The writes that took effect, as `shows` says of each where that is known. What has not shown for `long_enough`
    /// never did.
    pub(super) fn took_effect(
        &self,
        long_enough: Duration,
        shows: impl Fn(&ObjectStep) -> Option<bool>,
    ) -> Vec<ObjectStep> {
        let mut done = Vec::new();
        self.lock().unanswered.retain(|_, sent| match shows(&sent.step) {
            Some(true) => {
                done.push(sent.step.clone());
                false
            }
            Some(false) => sent.at.elapsed() <= long_enough,
            // Where nobody looks any more nobody will ever know.
            None => sent.at.elapsed() <= NEVER_KNOWN_AFTER,
        });
        done
    }

    /// The auth methods that bear our mark, as of the last list.
    pub(super) fn methods(&self) -> BTreeSet<Arc<str>> {
        self.lock().methods.clone()
    }

    pub(super) fn methods_are(&self, methods: BTreeSet<Arc<str>>) {
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
    use crate::desired::Scope;
    use crate::plan::ObjectAction;
    use ecs_mesh_core::plan::proposal::ObjectKind;

    #[test]
    fn a_look_answers_only_what_was_asked_before_it_began() {
        let keeping = Keeping::default();
        assert!(!keeping.is_settled(), "nobody has looked yet");
        let asked = keeping.begins();
        keeping.soon();
        keeping.ends(asked);
        assert!(!keeping.is_settled());
        keeping.ends(keeping.begins());
        assert!(keeping.is_settled());
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_that_nobody_looks_for_is_forgotten_in_the_end() {
        let keeping = Keeping::default();
        let id = ObjectId { kind: ObjectKind::Role, scope: Scope::default(), name: "r".into() };
        let key: Key = (id.clone(), None);
        let action = ObjectAction::Remove;
        let step = ObjectStep {
            id,
            server_id: None,
            action,
            reason: "r".into(),
            warnings: Vec::new(),
            before: None,
        };
        keeping.sends(key.clone(), &step);
        tokio::time::advance(NEVER_KNOWN_AFTER).await;
        assert!(keeping.took_effect(Duration::ZERO, |_| None).is_empty() && keeping.is_open(&key));
        tokio::time::advance(Duration::from_secs(1)).await;
        keeping.took_effect(Duration::ZERO, |_| None);
        assert!(!keeping.is_open(&key));
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
