//! Operations of the world that no API has: failures of tasks, lost events, chosen addresses.

use std::net::Ipv4Addr;

use super::StopCode;
use crate::aws::{Cloud, LifeTimes};
use ecs_mesh_model::Timestamp;

impl Cloud {
    /// Ends an essential container of the task, which goes to STOPPED without a drain. Returns whether the task
    /// changed.
    pub fn kill_hard(&mut self, arn: &str, now: Timestamp) -> bool {
        self.end(arn, StopCode::EssentialContainerExited, "an essential container exited", now)
    }

    /// Makes a task fail before it runs. Returns whether the task changed.
    pub fn fail_to_start(&mut self, arn: &str, reason: &str, now: Timestamp) -> bool {
        let started = self.task(arn).is_none_or(|task| task.started_at.is_some());
        !started && self.end(arn, StopCode::TaskFailedToStart, reason, now)
    }

    /// Sets the duration of the states that tasks enter from now on.
    pub fn set_life(&mut self, life: LifeTimes) {
        self.config.life = life;
    }

    /// Drops all events until `until`.
    pub fn lose_events_until(&mut self, until: Timestamp) {
        self.events_lost_until = Some(until);
    }

    /// Gives this address to the next task, even if another task has it. Several calls queue up.
    pub fn force_address(&mut self, address: Ipv4Addr) {
        self.addresses.force(address);
    }

    fn end(&mut self, arn: &str, code: StopCode, reason: &str, now: Timestamp) -> bool {
        let Some(task) = self.task(arn) else { return false };
        self.end_hard(&task.arn, code, reason, now);
        self.task(arn).is_some_and(|after| after.version > task.version)
    }
}
