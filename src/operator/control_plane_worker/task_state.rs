//! Task state that a worker keeps between reconciles, and the locks of registrations.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::time::Instant;

use super::lock;
use ecs_mesh_core::intent::RegistrationId;
use ecs_mesh_model::TaskArn;

#[derive(Default)]
pub(super) struct TaskState {
    /// Stopped tasks that have not been searched for what they registered since.
    unsearched: Mutex<BTreeSet<TaskArn>>,
    /// When the oldest event of a task was received that no reconcile has acknowledged.
    pending_events: Mutex<BTreeMap<TaskArn, Instant>>,
    registration_locks: Mutex<BTreeMap<RegistrationId, Arc<tokio::sync::Mutex<()>>>>,
    /// Reconciles in flight.
    in_flight: AtomicUsize,
}

impl TaskState {
    pub(super) fn record_stop(&self, task: &TaskArn) {
        lock(&self.unsearched).insert(task.clone());
    }

    pub(super) fn is_unsearched(&self, task: &TaskArn) -> bool {
        lock(&self.unsearched).contains(task)
    }

    pub(super) fn record_search(&self, task: &TaskArn) {
        lock(&self.unsearched).remove(task);
    }

    pub(super) fn record_event(&self, task: &TaskArn, at: Instant) {
        let mut pending = lock(&self.pending_events);
        let oldest = pending.entry(task.clone()).or_insert(at);
        *oldest = at.min(*oldest);
    }

    pub(super) fn take_pending_event(&self, task: &TaskArn) -> Option<Instant> {
        lock(&self.pending_events).remove(task)
    }

    pub(super) fn begin_run(&self) {
        self.in_flight.fetch_add(1, Ordering::AcqRel);
    }

    /// Whether that was the last one in flight.
    pub(super) fn end_run(&self) -> bool {
        self.in_flight.fetch_sub(1, Ordering::AcqRel) == 1
    }

    pub(super) async fn lock_registration(&self, id: &RegistrationId) -> RegistrationLock<'_> {
        let gate = Arc::clone(lock(&self.registration_locks).entry(id.clone()).or_default());
        let held = Arc::clone(&gate).lock_owned().await;
        RegistrationLock { tasks: self, id: id.clone(), held: Some(held) }
    }
}

/// The lock of a registration, released when dropped.
pub(in crate::operator) struct RegistrationLock<'a> {
    tasks: &'a TaskState,
    id: RegistrationId,
    held: Option<tokio::sync::OwnedMutexGuard<()>>,
}

impl Drop for RegistrationLock<'_> {
    fn drop(&mut self) {
        let mut locks = lock(&self.tasks.registration_locks);
        self.held = None;
        // No other holder or waiter: the next one creates the lock anew.
        if locks.get(&self.id).is_some_and(|gate| Arc::strong_count(gate) == 1) {
            locks.remove(&self.id);
        }
    }
}
