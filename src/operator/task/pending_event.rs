//! The oldest event of a task that no reconcile has acknowledged. However a reconcile ends (it returns, panics, or is
//! cancelled), an event that it did not acknowledge stays pending for the next one.

use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

use super::super::control_plane_worker::ControlPlaneWorker;
use ecs_mesh_model::TaskArn;

/// A task's pending event, held by one reconcile.
pub(super) struct PendingEvent<'a> {
    worker: &'a ControlPlaneWorker,
    task: &'a TaskArn,
    since: Mutex<Option<Instant>>,
}

impl<'a> PendingEvent<'a> {
    /// Takes the pending event from the worker, if there is one.
    pub(super) fn take(worker: &'a ControlPlaneWorker, task: &'a TaskArn) -> Self {
        Self { worker, task, since: Mutex::new(worker.take_pending_event(task)) }
    }

    /// When the event was received.
    pub(super) fn since(&self) -> Option<Instant> {
        *self.since.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Acknowledges the event. Returns when it was received.
    pub(super) fn acknowledge(&self) -> Option<Instant> {
        self.since.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Drop for PendingEvent<'_> {
    fn drop(&mut self) {
        if let Some(since) = self.acknowledge() {
            self.worker.record_event(self.task, since);
        }
    }
}
