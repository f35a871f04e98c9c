//! Since when an event of a run's task is unanswered. However the run ends (it returns, panics, or is cut off), an event
//! that it did not answer is unanswered still, and the next run finds it so.

use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

use super::super::plane::Plane;
use ecs_mesh_model::TaskArn;

/// The task's unanswered event, while a run has it.
pub(super) struct Heard<'a> {
    plane: &'a Plane,
    task: &'a TaskArn,
    since: Mutex<Option<Instant>>,
}

impl<'a> Heard<'a> {
    /// Takes it from the plane, where there is one.
    pub(super) fn of(plane: &'a Plane, task: &'a TaskArn) -> Self {
        Self { plane, task, since: Mutex::new(plane.answered(task)) }
    }

    /// Since when there is one.
    pub(super) fn since(&self) -> Option<Instant> {
        *self.since.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It is answered. Gives since when it was not.
    pub(super) fn answer(&self) -> Option<Instant> {
        self.since.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Drop for Heard<'_> {
    fn drop(&mut self) {
        if let Some(since) = self.answer() {
            self.plane.heard_of(self.task, since);
        }
    }
}
