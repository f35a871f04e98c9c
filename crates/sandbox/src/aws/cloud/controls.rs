//! What only the world can do to an account: deaths, lost events, chosen addresses, forgotten tasks.

use std::net::Ipv4Addr;

use super::StopCode;
use crate::aws::{Cloud, Delivery, LifeTimes};
use ecs_mesh_model::Timestamp;

impl Cloud {
    /// An essential container of the task ends by itself: it goes to STOPPED without a drain. Whether it did.
    pub fn kill_hard(&mut self, arn: &str, now: Timestamp) -> bool {
        self.end(arn, StopCode::EssentialContainerExited, "an essential container exited", now)
    }

    /// The task, which must not run yet, never will. Whether it was so.
    pub fn fail_to_start(&mut self, arn: &str, reason: &str, now: Timestamp) -> bool {
        let started = self.task(arn).is_none_or(|task| task.started_at.is_some());
        !started && self.end(arn, StopCode::TaskFailedToStart, reason, now)
    }

    /// Spot capacity is taken back: the task gets the usual drain, with its own stop code. Whether it did.
    pub fn interrupt_spot(&mut self, arn: &str, now: Timestamp) -> bool {
        let Some(task) = self.task(arn) else { return false };
        self.begin_stop(&task.arn, StopCode::SpotInterruption, "spot capacity was taken back", now);
        true
    }

    /// Changes how events are delivered from now on; what is under way stays so.
    pub fn set_delivery(&mut self, delivery: Delivery) {
        self.config.delivery = delivery;
    }

    /// Changes how long tasks stay in the states that they enter from now on.
    pub fn set_life(&mut self, life: LifeTimes) {
        self.config.life = life;
    }

    /// No event reaches any target until `until`.
    pub fn lose_events_until(&mut self, until: Timestamp) {
        self.events_lost_until = Some(until);
    }

    /// The next task that gets an address gets this one, even if another has it. Calls add up, in order.
    pub fn force_address(&mut self, address: Ipv4Addr) {
        self.addresses.force(address);
    }

    /// ECS forgets the task from one moment to the next, without an event: it is MISSING. Whether it was known.
    pub fn delete_task_record(&mut self, arn: &str, now: Timestamp) -> bool {
        let Some(task) = self.task(arn) else { return false };
        if !task.last_status.is_stopped()
            && task.last_status != ecs_mesh_model::LastStatus::Deprovisioning
            && let Some(address) = task.address()
        {
            self.addresses.release(address);
        }
        self.forget_task(&task.arn, now);
        true
    }

    fn end(&mut self, arn: &str, code: StopCode, reason: &str, now: Timestamp) -> bool {
        let Some(task) = self.task(arn) else { return false };
        self.end_hard(&task.arn, code, reason, now);
        self.task(arn).is_some_and(|after| after.version > task.version)
    }
}
