//! The state of a control plane's ACL objects between two reconciles: requests, status, reported warnings, and writes
//! without a response.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use crate::desired::ObjectId;
use crate::plan::AclStep;
use ecs_mesh_controller::PassRequests;

/// How long an unacknowledged write is kept while its object is not listed.
const UNACKNOWLEDGED_WRITE_TTL: Duration = Duration::from_hours(1);

/// The status of ACL objects as of the last reconcile, for metrics and `/readyz`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct AclStatus {
    /// Number of objects by kind and state: see [`OBJECT_STATES`].
    pub objects: BTreeMap<&'static str, BTreeMap<&'static str, usize>>,
    /// Time of the last reconcile after which all objects were as declared, in seconds since 1970.
    pub last_sync: Option<f64>,
}

/// States of objects: as declared; not as declared; waiting for a dependency; in the way and not owned; unreadable; reported
/// and not changed.
pub const OBJECT_STATES: [&str; 6] = ["ok", "drifted", "held", "conflict", "unknown", "unmanaged"];

/// An object, with Consul's id if several have the same name.
pub(super) type ObjectKey = (ObjectId, Option<Arc<str>>);

/// The state of one control plane's objects. Starts with one requested reconcile.
#[derive(Default)]
pub(super) struct AclState {
    requests: PassRequests,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    status: AclStatus,
    /// The last warning of each object.
    last_warnings: BTreeMap<ObjectKey, String>,
    /// Failed calls that were logged.
    warned_errors: BTreeSet<String>,
    /// Writes that were sent and have no response yet.
    unacknowledged: BTreeMap<ObjectKey, UnacknowledgedWrite>,
    /// Owned auth methods as of the last list.
    methods: BTreeSet<Arc<str>>,
}

/// A write that may or may not have taken effect.
struct UnacknowledgedWrite {
    step: AclStep,
    at: Instant,
    /// Whether its failure was reported.
    is_reported: bool,
    /// An earlier write of the same object.
    earlier: Option<Box<UnacknowledgedWrite>>,
}

impl AclState {
    /// Requests a reconcile.
    pub(super) fn request_reconcile(&self) {
        self.requests.request();
    }

    /// Whether every requested reconcile has ended.
    pub(super) fn is_settled(&self) -> bool {
        self.requests.is_settled()
    }

    /// The status, for metrics.
    pub(super) fn status(&self) -> AclStatus {
        self.lock().status.clone()
    }

    /// The requests that a reconcile beginning now completes.
    pub(super) fn begin_reconcile(&self) -> u64 {
        self.requests.begin()
    }

    /// Marks these requests as completed.
    pub(super) fn complete_reconcile(&self, requested: u64) {
        self.requests.complete(requested);
    }

    /// Waits for a request.
    pub(super) async fn wait_for_request(&self) {
        self.requests.wait().await;
    }

    /// Records the objects' states; `last_sync` if all are as declared.
    pub(super) fn record_result(
        &self,
        objects: BTreeMap<&'static str, BTreeMap<&'static str, usize>>,
        last_sync: Option<f64>,
    ) {
        let status = &mut self.lock().status;
        status.objects = objects;
        status.last_sync = last_sync.or(status.last_sync);
    }

    /// Records the object's warning; `true` if it differs from the last one.
    pub(super) fn warn_once(&self, key: &ObjectKey, warning: &str) -> bool {
        let last_warnings = &mut self.lock().last_warnings;
        let is_new = last_warnings.get(key).is_none_or(|before| before != warning);
        if is_new {
            last_warnings.insert(key.clone(), warning.to_owned());
        }
        is_new
    }

    /// Clears the warnings of all other objects.
    pub(super) fn retain_warnings(&self, keys: &BTreeSet<ObjectKey>) {
        self.lock().last_warnings.retain(|key, _| keys.contains(key));
    }

    /// Records the failed calls of a reconcile and returns the new ones.
    pub(super) fn record_errors(&self, all: BTreeSet<String>) -> BTreeSet<String> {
        let inner = &mut *self.lock();
        let new = all.difference(&inner.warned_errors).cloned().collect();
        inner.warned_errors = all;
        new
    }

    /// Records a write before it is sent.
    pub(super) fn begin_write(&self, key: ObjectKey, step: &AclStep) {
        let unacknowledged = &mut self.lock().unacknowledged;
        let earlier =
            unacknowledged.remove(&key).map(|sent| Box::new(UnacknowledgedWrite { earlier: None, ..sent }));
        let sent =
            UnacknowledgedWrite { step: step.clone(), at: Instant::now(), is_reported: false, earlier };
        unacknowledged.insert(key, sent);
    }

    /// Records the response to a write. After a rejection an earlier write stays unacknowledged, since it may be the cause.
    pub(super) fn acknowledge(&self, key: &ObjectKey, is_done: bool) {
        let unacknowledged = &mut self.lock().unacknowledged;
        let earlier = unacknowledged.remove(key).and_then(|sent| sent.earlier);
        if let (false, Some(earlier)) = (is_done, earlier) {
            unacknowledged.insert(key.clone(), *earlier);
        }
    }

    /// Whether a write of the object is unacknowledged. Marks it as reported.
    pub(super) fn is_unacknowledged(&self, key: &ObjectKey) -> bool {
        self.lock().unacknowledged.get_mut(key).is_some_and(|sent| {
            sent.is_reported = true;
            true
        })
    }

    /// Takes the writes whose reconcile was cancelled before their failure was reported.
    pub(super) fn take_unreported(&self) -> Vec<AclStep> {
        let unacknowledged = &mut self.lock().unacknowledged;
        let unreported = unacknowledged.values_mut().filter(|sent| !sent.is_reported);
        unreported
            .map(|sent| {
                sent.is_reported = true;
                sent.step.clone()
            })
            .collect()
    }

    /// Takes the writes that took effect, by `shows` (`None`: unknown). A write that has not shown for `long_enough` never
    /// took effect.
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
            // The object is not listed any more, so the result stays unknown.
            None => sent.at.elapsed() <= UNACKNOWLEDGED_WRITE_TTL,
        });
        done
    }

    /// Owned auth methods as of the last list.
    pub(super) fn auth_methods(&self) -> BTreeSet<Arc<str>> {
        self.lock().methods.clone()
    }

    pub(super) fn set_auth_methods(&self, methods: BTreeSet<Arc<str>>) {
        self.lock().methods = methods;
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every change leaves the state consistent, so the lock may be used after a panic.
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
        let state = AclState::default();
        assert!(!state.is_settled(), "no reconcile has ended yet");
        let requested = state.begin_reconcile();
        state.request_reconcile();
        state.complete_reconcile(requested);
        assert!(!state.is_settled());
        state.complete_reconcile(state.begin_reconcile());
        assert!(state.is_settled());
    }

    #[tokio::test(start_paused = true)]
    async fn unacknowledged_write_expires() {
        let state = AclState::default();
        let id = ObjectId { kind: ObjectKind::Role, scope: ObjectScope::default(), name: "r".into() };
        let key: ObjectKey = (id.clone(), None);
        let action = AclAction::Remove;
        let step =
            AclStep { id, server_id: None, action, reason: "r".into(), warnings: Vec::new(), before: None };
        state.begin_write(key.clone(), &step);
        tokio::time::advance(UNACKNOWLEDGED_WRITE_TTL).await;
        assert!(state.take_confirmed(Duration::ZERO, |_| None).is_empty() && state.is_unacknowledged(&key));
        tokio::time::advance(Duration::from_secs(1)).await;
        state.take_confirmed(Duration::ZERO, |_| None);
        assert!(!state.is_unacknowledged(&key));
    }

    #[test]
    fn warning_is_repeated_after_it_was_cleared() {
        let state = AclState::default();
        let id = ObjectId { kind: ObjectKind::Role, scope: ObjectScope::default(), name: "r".into() };
        let key: ObjectKey = (id, None);
        assert!(state.warn_once(&key, "in the way") && !state.warn_once(&key, "in the way"));
        state.retain_warnings(&[key.clone()].into());
        assert!(!state.warn_once(&key, "in the way") && state.warn_once(&key, "gone"));
        state.retain_warnings(&BTreeSet::new());
        assert!(state.warn_once(&key, "gone"));
    }
}
