//! Since when an event of a run's task is unanswered. However the run ends (it returns, panics, or is cut off), an event
//! that it did not answer is unanswered still, and the next run finds it so.

use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

use super::super::control_plane_worker::ControlPlaneWorker;
use ecs_mesh_model::TaskArn;

/// The task's unanswered event, while a run has it.
pub(super) struct PendingEvent<'a> {
    worker: &'a ControlPlaneWorker,
    task: &'a TaskArn,
    since: Mutex<Option<Instant>>,
}

impl<'a> PendingEvent<'a> {
    /// Takes it from the plane, where there is one.
    pub(super) fn take(worker: &'a ControlPlaneWorker, task: &'a TaskArn) -> Self {
        Self { worker, task, since: Mutex::new(worker.take_pending_event(task)) }
    }

    /// Since when there is one.
    pub(super) fn since(&self) -> Option<Instant> {
        *self.since.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It is answered. Gives since when it was not.
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
