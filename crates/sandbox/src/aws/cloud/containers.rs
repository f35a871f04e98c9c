//! The containers of a task: the order in which they start and stop, their health, and their exits.
//!
//! Containers start when those that they depend on have reached their condition, and get SIGTERM when all that depend
//! on them have exited. Source:
//! <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_ContainerDependency.html>.

use std::sync::Arc;
use std::time::Duration;

use super::container_spec::{ContainerSpec, HealthCheckSpec};
use super::life_cycle::TaskChange;
use crate::aws::{CloudTask, LifeTimes};
use ecs_mesh_model::{LastStatus, Timestamp};

/// `lastStatus` of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContainerStatus {
    /// It does not run yet.
    Pending,
    /// It runs.
    Running,
    /// It has exited, or its task stopped before it ran.
    Stopped,
}

impl ContainerStatus {
    /// The API's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::Running => "RUNNING",
            Self::Stopped => "STOPPED",
        }
    }
}

/// `healthStatus` of a container or a task.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HealthStatus {
    /// The check has no result yet, or there is no check.
    #[default]
    Unknown,
    /// The check has passed.
    Healthy,
    /// The check has failed as often as its retries.
    Unhealthy,
}

impl HealthStatus {
    /// The API's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "UNKNOWN",
            Self::Healthy => "HEALTHY",
            Self::Unhealthy => "UNHEALTHY",
        }
    }
}

/// The state of a container, with its next changes.
#[derive(Clone, Debug)]
pub struct ContainerState {
    /// `lastStatus`.
    pub status: ContainerStatus,
    /// `healthStatus`.
    pub health: HealthStatus,
    /// `exitCode`, if it ran.
    pub exit_code: Option<i32>,
    /// Time of RUNNING.
    pub started_at: Option<Timestamp>,
    /// Time of SIGTERM.
    pub sigterm_at: Option<Timestamp>,
    answers_from: Timestamp,
    answers_until: Option<Timestamp>,
    /// The next status, with its time and, for STOPPED, the exit code.
    next_status: Option<(Timestamp, i32)>,
    next_health: Option<(Timestamp, HealthStatus)>,
}

impl ContainerState {
    pub(super) fn new(created_at: Timestamp) -> Self {
        Self {
            status: ContainerStatus::Pending,
            health: HealthStatus::Unknown,
            exit_code: None,
            started_at: None,
            sigterm_at: None,
            answers_from: created_at,
            answers_until: None,
            next_status: None,
            next_health: None,
        }
    }

    /// Whether it works at `at`, at or after the time of this state: it runs, and has not stopped serving.
    pub fn is_up(&self, at: Timestamp) -> bool {
        self.status == ContainerStatus::Running && self.answers_until.is_none_or(|until| at < until)
    }

    /// Whether it answers on its port at `at`, at or after the time of this state.
    pub fn answers(&self, at: Timestamp) -> bool {
        self.is_up(at) && self.answers_from <= at
    }

    pub(super) fn next_change(&self) -> Option<Timestamp> {
        let health = self.next_health.map(|(at, _)| at);
        self.next_status.map(|(at, _)| at).into_iter().chain(health).min()
    }

    /// Starts or stops to answer now, while it runs.
    pub(super) fn set_answering(
        &mut self,
        spec: &ContainerSpec,
        scale: f64,
        answers: bool,
        now: Timestamp,
    ) -> bool {
        if self.status != ContainerStatus::Running
            || self.sigterm_at.is_some()
            || self.answers(now) == answers
        {
            return false;
        }
        if answers {
            (self.answers_from, self.answers_until) = (now, None);
        } else {
            self.answers_until = Some(now);
        }
        self.schedule_health(spec, scale, now);
        true
    }

    /// Exits now. Returns whether it had not before.
    pub(super) fn exit(&mut self, code: Option<i32>) -> bool {
        let exits = self.status != ContainerStatus::Stopped;
        if exits {
            self.exit_code = code.filter(|_| self.status == ContainerStatus::Running);
            self.status = ContainerStatus::Stopped;
            (self.next_status, self.next_health) = (None, None);
        }
        exits
    }

    fn run(&mut self, spec: &ContainerSpec, life: &LifeTimes, now: Timestamp) {
        self.status = ContainerStatus::Running;
        self.started_at = Some(now);
        self.answers_from = now.plus(spec.ready(life));
        self.next_status = spec.exits.map(|(after, code)| (now.plus(after), code));
        self.schedule_health(spec, life.time_scale, now);
    }

    fn terminate(&mut self, spec: &ContainerSpec, life: &LifeTimes, now: Timestamp) {
        if self.status == ContainerStatus::Pending {
            self.exit(None);
            return;
        }
        let (serving, gone, code) = spec.stops(life);
        let until = now.plus(serving);
        self.sigterm_at = Some(now);
        self.answers_until = Some(self.answers_until.map_or(until, |before| before.min(until)));
        self.next_health = None;
        let gone = now.plus(gone);
        self.next_status = Some(self.next_status.filter(|(at, _)| *at <= gone).unwrap_or((gone, code)));
    }

    /// Sets the next change of the health. Checks are made after each interval, and those that fail within the start
    /// period do not count.
    fn schedule_health(&mut self, spec: &ContainerSpec, scale: f64, now: Timestamp) {
        let (Some(check), Some(started)) = (spec.health_check, self.started_at) else { return };
        let HealthCheckSpec { interval, retries, start_period } = check.scaled(scale);
        let check_from = |at: Timestamp| {
            let (elapsed, step) = (started.age_at(at).as_millis(), interval.as_millis().max(1));
            let number = u32::try_from(elapsed.div_ceil(step)).unwrap_or(u32::MAX).max(1);
            started.plus(interval.saturating_mul(number))
        };
        let passes = match self.answers_until {
            Some(until) if until <= now => None,
            _ => Some(check_from(self.answers_from.max(now))),
        };
        let counted = now.max(started.plus(start_period)).plus(Duration::from_millis(1));
        let fails = check_from(counted).plus(interval.saturating_mul(retries - 1));
        let is_next = |health: HealthStatus| self.health != health;
        self.next_health = match passes {
            Some(at) if at <= fails || !is_next(HealthStatus::Unhealthy) => Some((at, HealthStatus::Healthy)),
            _ => Some((fails, HealthStatus::Unhealthy)),
        }
        .filter(|(_, health)| is_next(*health));
    }
}

/// Applies what is due to the containers by `now`, until nothing is left.
pub(super) fn advance(task: &mut CloudTask, life: &LifeTimes, now: Timestamp) -> TaskChange {
    let definition = Arc::clone(&task.definition);
    let mut change = TaskChange::None;
    loop {
        let mut again = false;
        for (index, spec) in definition.specs.iter().enumerate() {
            if starts_containers(task) && may_start(task, spec, index) {
                task.containers[index].next_status = Some((now.plus(life.container_start), 0));
                again = true;
            }
            if task.last_status == LastStatus::Stopping && may_stop(task, &definition.specs, index) {
                task.containers[index].terminate(spec, life, now);
                again = true;
            }
            // Neither has an event of its own.
            change = change.max(if again { TaskChange::Silent } else { TaskChange::None });
            let container = &mut task.containers[index];
            if let Some((_, code)) = container.next_status.filter(|(at, _)| *at <= now) {
                match container.status {
                    ContainerStatus::Pending => container.run(spec, life, now),
                    _ => drop(container.exit(Some(code))),
                }
                change = TaskChange::WithEvent;
                again = true;
            }
            if let Some((_, health)) = container.next_health.filter(|(at, _)| *at <= now) {
                container.health = health;
                container.schedule_health(spec, life.time_scale, now);
                change = change.max(TaskChange::Silent);
                again = true;
            }
        }
        if !again {
            return change;
        }
    }
}

/// Whether the images are pulled and not all containers have started.
fn starts_containers(task: &CloudTask) -> bool {
    task.last_status == LastStatus::Pending && task.pull_stopped_at.is_some()
}

fn may_start(task: &CloudTask, spec: &ContainerSpec, index: usize) -> bool {
    let container = &task.containers[index];
    container.status == ContainerStatus::Pending
        && container.next_status.is_none()
        && spec.depends_on.iter().all(|(on, condition)| condition.is_met(&task.containers[*on]) == Some(true))
}

/// Whether all containers that depend on this one have exited.
fn may_stop(task: &CloudTask, specs: &[ContainerSpec], index: usize) -> bool {
    let container = &task.containers[index];
    let depends = |spec: &ContainerSpec| spec.depends_on.iter().any(|(on, _)| *on == index);
    container.status != ContainerStatus::Stopped
        && container.sigterm_at.is_none()
        && specs
            .iter()
            .zip(&task.containers)
            .all(|(spec, other)| !depends(spec) || other.status == ContainerStatus::Stopped)
}

impl CloudTask {
    /// The state of the container with this name.
    pub fn container(&self, name: &str) -> Option<&ContainerState> {
        let index = self.definition.specs.iter().position(|spec| spec.name == name)?;
        self.containers.get(index)
    }

    /// `healthStatus`: that of its essential containers, UNHEALTHY before UNKNOWN before HEALTHY.
    pub fn health(&self) -> HealthStatus {
        let has = |health| self.essential().any(|(_, container)| container.health == health);
        match (has(HealthStatus::Unhealthy), has(HealthStatus::Unknown)) {
            (true, _) => HealthStatus::Unhealthy,
            (false, true) => HealthStatus::Unknown,
            (false, false) => HealthStatus::Healthy,
        }
    }

    /// Whether all essential containers with a health check have passed it; `None` if there is no such container.
    pub(super) fn passes_checks(&self) -> Option<bool> {
        let mut checked = self.essential().filter(|(spec, _)| spec.health_check.is_some()).peekable();
        checked.peek()?;
        Some(checked.all(|(_, container)| container.health == HealthStatus::Healthy))
    }

    /// The name of a container that can never start, since a dependency has exited without meeting its condition.
    pub(super) fn blocked_container(&self) -> Option<&str> {
        let waits = |container: &ContainerState| container.status == ContainerStatus::Pending;
        let never = |spec: &ContainerSpec| {
            spec.depends_on.iter().any(|(on, condition)| condition.is_met(&self.containers[*on]).is_none())
        };
        let mut both = self.definition.specs.iter().zip(&self.containers);
        both.find(|(spec, container)| waits(container) && never(spec)).map(|(spec, _)| spec.name.as_str())
    }

    /// Whether an essential container, or each container, has exited.
    pub(super) fn has_lost_essential(&self) -> bool {
        let stopped = |container: &ContainerState| container.status == ContainerStatus::Stopped;
        self.essential().any(|(_, container)| stopped(container)) || self.containers.iter().all(stopped)
    }

    /// Whether each container has this status.
    pub(super) fn all_containers(&self, is: impl Fn(ContainerStatus) -> bool) -> bool {
        self.containers.iter().all(|container| is(container.status))
    }

    fn essential(&self) -> impl Iterator<Item = (&ContainerSpec, &ContainerState)> {
        self.definition.specs.iter().zip(&self.containers).filter(|(spec, _)| spec.essential)
    }
}
