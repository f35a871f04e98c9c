//! The life cycle of tasks: the states that follow from time, from containers and from stops.
//!
//! Every change goes through [`Cloud::change_task`], which updates version, history, index and service, and emits the
//! event.

use super::containers::{self, ContainerStatus};
use super::{StopCode, TaskKey, Timer};
use crate::aws::{Cloud, CloudTask, LifeTimes};
use ecs_mesh_model::{DesiredStatus, LastStatus, Timestamp};

/// The visibility of a change of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum TaskChange {
    /// Nothing has changed.
    None,
    /// Only describes show it: no event, and the same version.
    Silent,
    /// The version grows, and an event is emitted.
    WithEvent,
}

impl Cloud {
    /// Begins the stop, once. SIGTERM follows when the task is STOPPING.
    pub(super) fn begin_stop(&mut self, key: &TaskKey, code: StopCode, reason: &str, now: Timestamp) {
        let life = self.config.life.clone();
        self.change_task(key, now, |task| {
            if task.desired_status == DesiredStatus::Stopped {
                return TaskChange::None;
            }
            want_stopped(task, code, reason, now);
            if task.last_status == LastStatus::Running {
                task.status_until = Some(now.plus(life.draining));
            } else {
                stop_containers(task);
                advance(task, &life, now);
            }
            TaskChange::WithEvent
        });
    }

    /// Stops the containers at once, without SIGTERM.
    pub(super) fn end_hard(&mut self, key: &TaskKey, code: StopCode, reason: &str, now: Timestamp) {
        let life = self.config.life.clone();
        self.change_task(key, now, |task| {
            if task.last_status >= LastStatus::Deprovisioning {
                return TaskChange::None;
            }
            want_stopped(task, code, reason, now);
            let exit_code = (code == StopCode::EssentialContainerExited).then_some(137);
            for container in &mut task.containers {
                container.exit(exit_code);
            }
            stop_containers(task);
            advance(task, &life, now);
            TaskChange::WithEvent
        });
    }

    /// Changes one container of a task, with all that follows. Returns whether something changed.
    pub(super) fn change_container(
        &mut self,
        arn: &str,
        name: &str,
        now: Timestamp,
        change: impl FnOnce(&mut CloudTask, usize, &LifeTimes) -> TaskChange,
    ) -> bool {
        let life = self.config.life.clone();
        let Some(task) = self.task(arn) else { return false };
        let Some(index) = task.definition.specs.iter().position(|spec| spec.name == name) else {
            return false;
        };
        self.change_task(&task.arn, now, |task| {
            let changed = change(task, index, &life);
            if changed == TaskChange::None { changed } else { changed.max(advance(task, &life, now)) }
        })
    }

    /// Applies what is due to the task, unless it has changed since the timer was set.
    pub(super) fn advance_task(&mut self, key: &TaskKey, change_number: u64, now: Timestamp) {
        let Some(record) = self.tasks.get(key) else { return };
        if record.current.change_number != change_number || record.gone_at.is_some() {
            return;
        }
        let current = &record.current;
        let lacks_address = current.network.as_ref().is_some_and(|network| network.address.is_none());
        if lacks_address
            && current.last_status == LastStatus::Provisioning
            && current.status_until.is_some_and(|until| until <= now)
        {
            return self.assign_address(key, now);
        }
        let life = self.config.life.clone();
        self.change_task(key, now, |task| advance(task, &life, now));
    }

    fn assign_address(&mut self, key: &TaskKey, now: Timestamp) {
        let Some(address) = self.addresses.take() else {
            self.end_hard(key, StopCode::TaskFailedToStart, "the subnet has no free address", now);
            return;
        };
        let until = now.plus(self.config.life.provisioning / 2);
        self.change_task(key, now, |task| {
            if let Some(network) = &mut task.network {
                network.address = Some(address);
            }
            task.status_until = Some(until);
            TaskChange::WithEvent
        });
    }

    /// The only place that changes a task. Returns whether something changed.
    pub(super) fn change_task(
        &mut self,
        key: &TaskKey,
        now: Timestamp,
        change: impl FnOnce(&mut CloudTask) -> TaskChange,
    ) -> bool {
        let keep = self.config.history;
        let Some(record) = self.tasks.get_mut(key) else { return false };
        if record.gone_at.is_some() {
            return false;
        }
        let before = record.current.clone();
        let mut next = (*before).clone();
        let change = change(&mut next);
        if change == TaskChange::None {
            return false;
        }
        next.change_number += 1;
        if change == TaskChange::WithEvent {
            next.version += 1;
            next.updated_at = now;
        }
        let next = std::sync::Arc::new(next);
        record.replace(next.clone(), now, keep);
        self.task_changed(Some(&before), &next, change, now);
        true
    }

    pub(super) fn task_changed(
        &mut self,
        before: Option<&CloudTask>,
        task: &CloudTask,
        change: TaskChange,
        now: Timestamp,
    ) {
        self.reindex(&task.arn, before, Some(task));
        let reaches =
            |status| task.last_status == status && before.is_some_and(|before| before.last_status < status);
        if reaches(LastStatus::Deprovisioning)
            && let Some(address) = task.address()
        {
            self.addresses.release(address);
        }
        if reaches(LastStatus::Pending) {
            self.place(task);
        }
        if change == TaskChange::WithEvent {
            self.emit_task_event(task, now);
        }
        self.update_service_tasks(task, now);
        if reaches(LastStatus::Stopped) {
            self.at(now.plus(self.config.life.stopped_kept), Timer::Forget(task.arn.clone()));
        } else {
            self.set_timer(task, now);
        }
    }

    /// Schedules the task's next change.
    fn set_timer(&mut self, task: &CloudTask, now: Timestamp) {
        if let Some(next) = next_change(task) {
            let timer = Timer::Task { arn: task.arn.clone(), change_number: task.change_number };
            self.at(next.max(now), timer);
        }
    }
}

/// Time of the next change that follows from the task itself.
fn next_change(task: &CloudTask) -> Option<Timestamp> {
    let counts = task.counts_from.filter(|_| !task.counts_as_healthy);
    let container = task.containers.iter().filter_map(containers::ContainerState::next_change).min();
    [task.status_until, counts, task.protected_until, container].into_iter().flatten().min()
}

fn want_stopped(task: &mut CloudTask, code: StopCode, reason: &str, now: Timestamp) {
    task.stop_code = Some(code);
    task.stopped_reason = Some(reason.to_owned());
    task.desired_status = DesiredStatus::Stopped;
    task.stopping_at.get_or_insert(now);
    (task.protected_until, task.counts_from, task.counts_as_healthy) = (None, None, false);
}

/// Enters STOPPING, in which the containers stop.
fn stop_containers(task: &mut CloudTask) {
    task.last_status = LastStatus::Stopping;
    task.status_until = None;
}

/// Applies all that is due by `now`.
fn advance(task: &mut CloudTask, life: &LifeTimes, now: Timestamp) -> TaskChange {
    let mut total = TaskChange::None;
    loop {
        let mut change = TaskChange::None;
        if task.status_until.is_some_and(|until| until <= now) {
            change = change.max(end_status(task, life, now));
        }
        change = change.max(containers::advance(task, life, now));
        change = change.max(follow_containers(task, life, now));
        if change == TaskChange::None {
            break;
        }
        total = total.max(change);
    }
    if task.protected_until.is_some_and(|until| until <= now) {
        task.protected_until = None;
        total = total.max(TaskChange::Silent);
    }
    let counts = task.last_status == LastStatus::Running
        && task.desired_status == DesiredStatus::Running
        && task.passes_checks().unwrap_or(task.counts_from.is_some_and(|from| from <= now));
    if counts != task.counts_as_healthy {
        task.counts_as_healthy = counts;
        total = total.max(TaskChange::Silent);
    }
    total
}

/// Enters the state that follows a state of limited time.
fn end_status(task: &mut CloudTask, life: &LifeTimes, now: Timestamp) -> TaskChange {
    let (next, lasts) = match task.last_status {
        LastStatus::Provisioning => {
            task.pull_started_at = Some(now);
            (LastStatus::Pending, Some(life.pending))
        }
        LastStatus::Pending => {
            // PENDING until the containers have started.
            task.pull_stopped_at = Some(now);
            task.status_until = None;
            return TaskChange::Silent;
        }
        LastStatus::Activating => {
            task.started_at = Some(now);
            // Nothing depends on the health of other tasks.
            let counts = task.service().is_some() && task.passes_checks().is_none();
            task.counts_from = counts.then(|| now.plus(life.unchecked_healthy));
            (LastStatus::Running, None)
        }
        LastStatus::Running => (LastStatus::Deactivating, Some(life.deactivating)),
        LastStatus::Deactivating => (LastStatus::Stopping, None),
        LastStatus::Stopping | LastStatus::Deprovisioning | LastStatus::Stopped | LastStatus::Deleted => {
            task.stopped_at = Some(now);
            (LastStatus::Stopped, None)
        }
    };
    task.last_status = next;
    task.status_until = lasts.map(|lasts| now.plus(lasts));
    TaskChange::WithEvent
}

/// Enters the state that follows from those of the containers.
fn follow_containers(task: &mut CloudTask, life: &LifeTimes, now: Timestamp) -> TaskChange {
    let runs = task.desired_status == DesiredStatus::Running && task.pull_stopped_at.is_some();
    if runs && task.has_lost_essential() {
        want_stopped(task, StopCode::EssentialContainerExited, "Essential container in task exited", now);
        stop_containers(task);
    } else if runs && let Some(blocked) = task.blocked_container() {
        let reason = format!("a dependency of container {blocked} has failed");
        want_stopped(task, StopCode::TaskFailedToStart, &reason, now);
        stop_containers(task);
    } else if runs
        && task.last_status == LastStatus::Pending
        && task.all_containers(|status| status != ContainerStatus::Pending)
    {
        task.last_status = LastStatus::Activating;
        task.status_until = Some(now.plus(life.activating));
    } else if task.last_status == LastStatus::Stopping
        && task.all_containers(|status| status == ContainerStatus::Stopped)
    {
        task.execution_stopped_at = Some(now);
        task.last_status = LastStatus::Deprovisioning;
        task.status_until = Some(now.plus(life.deprovisioning));
    } else {
        return TaskChange::None;
    }
    TaskChange::WithEvent
}
