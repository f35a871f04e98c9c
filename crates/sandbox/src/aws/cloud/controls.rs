//! Operations of the world that no API has: failures of tasks, lost events, chosen addresses.

use std::net::Ipv4Addr;

use super::life_cycle::TaskChange;
use super::{ContainerStatus, StopCode};
use crate::aws::{Cloud, LifeTimes};
use ecs_mesh_model::Timestamp;

impl Cloud {
    /// Ends all containers of the task at once, as the loss of its host does: it goes to STOPPED without a drain.
    /// Returns whether the task changed.
    pub fn kill_hard(&mut self, arn: &str, now: Timestamp) -> bool {
        self.end(arn, StopCode::EssentialContainerExited, "an essential container exited", now)
    }

    /// Makes one container of the task exit. An essential one stops the task: the other containers get SIGTERM in the
    /// reverse order of their dependencies. Returns whether something changed.
    pub fn exit_container(&mut self, arn: &str, container: &str, exit_code: i32, now: Timestamp) -> bool {
        self.change_container(arn, container, now, |task, index, _| {
            let runs = task.containers[index].status == ContainerStatus::Running;
            let exits = runs && task.containers[index].exit(Some(exit_code));
            if exits { TaskChange::WithEvent } else { TaskChange::None }
        })
    }

    /// Makes a running container answer on its port, or no longer answer, and so pass or fail its health check. Returns
    /// whether something changed.
    pub fn set_answering(&mut self, arn: &str, container: &str, answers: bool, now: Timestamp) -> bool {
        self.change_container(arn, container, now, |task, index, life| {
            let spec = &task.definition.specs[index];
            let changed = task.containers[index].set_answering(spec, life.time_scale, answers, now);
            if changed { TaskChange::Silent } else { TaskChange::None }
        })
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
