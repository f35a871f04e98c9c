//! Observes calls to control planes, for metrics. All labels have bounded sets of values.

use std::time::Duration;

/// Receives every operation.
pub trait MeshCallObserver: Send + Sync {
    /// An operation (`list_owned`, `list_for_task`, `get`, `put`, `delete`, `list_services`, `list_backends`, `list_sidecars`, `list_members`,
    /// `list_endpoints`, `refresh_capabilities`) ended with `success` or the label of a [`MeshErrorKind`](super::MeshErrorKind).
    fn call(&self, operation: &'static str, outcome: &'static str, took: Duration);

    /// A list of this operation skipped an unreadable item.
    fn skipped(&self, operation: &'static str) {
        let _ = operation;
    }

    /// The number of login tokens that name no task, as of the last complete list. `reason` is `no_metadata` or
    /// `malformed`.
    fn unattributed_tokens(&self, reason: &'static str, count: usize) {
        let _ = (reason, count);
    }
}

/// Observes nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoObserver;

impl MeshCallObserver for NoObserver {
    fn call(&self, _operation: &'static str, _outcome: &'static str, _took: Duration) {}
}
