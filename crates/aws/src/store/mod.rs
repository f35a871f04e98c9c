//! The known state of each task: the newest version that a describe showed wins, and absences are counted until they are
//! evidence. An event adds no state. Synchronous; makes no decision about registrations.

mod record;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use self::record::{Absence, CONFIRM_INTERVAL, MIN_ABSENT_SWEEPS, StopEvent, StopState, TaskRecord};
use ecs_mesh_core::plan::{Sighting, TaskLiveness};
use ecs_mesh_model::{ClusterArn, EcsServiceRef, RoleArn, Task, TaskArn, Timestamp};

pub use self::record::TaskSummary;

/// How long after a describe a task may be registered without another: another task may have the address by then.
pub const FRESH_WINDOW: Duration = Duration::from_mins(1);

/// Most tasks that are kept: several times what one operator can sweep in its interval. Further ones are not registered.
pub const MAX_TASKS: usize = 250_000;

/// How long a stopped task is kept, so that late events of its running time find it stopped.
const STOPPED_TASK_TTL: Duration = Duration::from_mins(15);

/// The change that a describe made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Observation {
    /// The first describe that showed that the task is leaving.
    pub first_leaving: bool,
    /// The first describe that showed that the task has stopped.
    pub first_stop: bool,
}

/// The part of a task's known state that decides whether an event can be news.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownTask {
    /// The version that the newest describe showed.
    pub version: Option<u64>,
    /// Whether the newest describe showed the task wanted and with its address, so that only its stop is news.
    pub is_running: bool,
    /// Whether a describe showed that ECS is stopping the task or has stopped it.
    pub is_leaving: bool,
}

/// A copy of a task's known state.
#[derive(Clone, Debug)]
pub struct TaskSnapshot {
    /// The newest observation; `None` if the task is known from a registration only.
    pub task: Option<Task>,
    /// The task's liveness.
    pub liveness: TaskLiveness,
    /// Time of the last list or describe that showed the task alive and wanted.
    pub alive_at: Option<Timestamp>,
    /// Time of the last describe that showed the task alive and wanted.
    pub described_at: Option<Timestamp>,
    /// Time of the first of the describes, without another answer in between, that showed the task alive and wanted.
    pub running_since: Option<Timestamp>,
    /// Time of a MISSING answer of a describe, without an observation of the task since.
    pub missing_at: Option<Timestamp>,
}

impl TaskSnapshot {
    /// How recently, and how often, describes showed the task alive and wanted: within [`FRESH_WINDOW`], and far enough apart
    /// to be different answers, without another answer in between.
    pub fn sighting(&self, now: Timestamp) -> Sighting {
        let Some(last) = self.described_at.filter(|at| at.age_at(now) < FRESH_WINDOW) else {
            return Sighting::Old;
        };
        let is_confirmed = self.running_since.is_some_and(|first| first.age_at(last) >= CONFIRM_INTERVAL);
        if is_confirmed { Sighting::Confirmed } else { Sighting::Recent }
    }

    /// How long to wait before the next describe can confirm that the task is wanted.
    pub fn confirms_running_in(&self, now: Timestamp) -> Duration {
        self.running_since.map_or(Duration::ZERO, |since| CONFIRM_INTERVAL.saturating_sub(since.age_at(now)))
    }

    /// Whether a describe did not find the task more than [`FRESH_WINDOW`] after the last observation as alive. A new task
    /// is visible by then, so another describe adds nothing; an event or a list shows the task if it exists.
    pub fn is_lost(&self) -> bool {
        let (Some(alive), Some(missing)) = (self.alive_at, self.missing_at) else { return false };
        alive.age_at(missing) >= FRESH_WINDOW
    }
}

/// Every known task, by ARN.
#[derive(Debug, Default)]
pub struct TaskStore {
    // Boxed, since the nodes of the map are a third empty.
    records: Mutex<BTreeMap<TaskArn, Box<TaskRecord>>>,
    /// Observations of tasks beyond the limit.
    dropped: AtomicU64,
}

impl TaskStore {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<TaskArn, Box<TaskRecord>>> {
        // Every change leaves the map consistent, so the lock may be used after a panic.
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records what a describe showed.
    pub fn observe(&self, task: Task, now: Timestamp) -> Observation {
        let mut records = self.lock();
        if records.len() >= MAX_TASKS && !records.contains_key(&task.arn) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return Observation::default();
        }
        let record = records.entry(task.arn.clone()).or_default();
        let before = record.stop;
        record.record_seen();
        // A stop is final: a later answer with desired status RUNNING is an old one.
        if task.last_status.is_stopped() {
            record.stop = StopState::Stopped;
        } else if task.is_leaving() && record.stop != StopState::Stopped {
            record.stop = StopState::Leaving;
        }
        if record.stop == StopState::None {
            record.alive_at = Some(now);
            record.described_at = Some(now);
            record.running_since.get_or_insert(now);
        } else {
            record.running_since = None;
        }
        let known = record.task.as_ref();
        let adds_tags = |known: &Task| task.version == known.version && task.tags.is_some();
        if known.is_none_or(|known| task.version > known.version) {
            let tags = task.tags.clone().or_else(|| record.task.take().and_then(|old| old.tags));
            record.task = Some(Task { tags, ..task });
            record.touched_at = now;
        } else if known.is_some_and(adds_tags)
            && let Some(known) = &mut record.task
        {
            known.tags = task.tags;
        }
        let was_over = matches!(before, StopState::Stopped | StopState::Missing { .. });
        Observation {
            first_leaving: record.is_leaving() && before != StopState::Leaving && !was_over,
            first_stop: record.stop == StopState::Stopped && !was_over,
        }
    }

    /// The ECS service that started the task, where a describe has shown one.
    pub fn service_of(&self, task: &TaskArn) -> Option<EcsServiceRef> {
        let records = self.lock();
        let service = records.get(task)?.task.as_ref()?.group.service()?;
        Some(EcsServiceRef::new(task.cluster(), service))
    }

    /// The version that the newest describe showed.
    pub fn version(&self, task: &TaskArn) -> Option<u64> {
        self.lock().get(task)?.task.as_ref().map(|task| task.version)
    }

    /// The known state of a task that an event names; `None` if no describe, list or registration has shown the task.
    pub fn known(&self, task: &TaskArn) -> Option<KnownTask> {
        let records = self.lock();
        let record = records.get(task)?;
        let shown = record.task.as_ref();
        Some(KnownTask {
            version: shown.map(|task| task.version),
            is_running: record.stop == StopState::None && shown.is_some_and(Task::is_located),
            is_leaving: record.is_leaving(),
        })
    }

    /// Whether a describe showed that ECS is stopping the task or has stopped it.
    pub fn is_leaving(&self, task: &TaskArn) -> bool {
        self.lock().get(task).is_some_and(|record| record.is_leaving())
    }

    /// Whether the task's stop is confirmed.
    pub fn is_over(&self, task: &TaskArn) -> bool {
        self.lock().get(task).is_some_and(|record| record.is_over())
    }

    /// Whether a describe, a list or a registration has shown the task.
    pub fn contains(&self, task: &TaskArn) -> bool {
        self.lock().contains_key(task)
    }

    /// Records an event of the stop of a known task, unless a describe has shown the stop. `undescribed`: describes of the
    /// task have failed for so long that the event alone may drain.
    pub fn record_stop_event(&self, task: &TaskArn, undescribed: bool, now: Timestamp) {
        let mut records = self.lock();
        let record = records.entry(task.clone()).or_default();
        match &mut record.stop {
            StopState::None => {
                let event = StopEvent { received: now, undescribed, missing_since: None };
                record.stop = StopState::Event(event);
                record.touched_at = now;
            }
            StopState::Event(event) => event.undescribed |= undescribed,
            StopState::Missing { .. } | StopState::Leaving | StopState::Stopped => {}
        }
    }

    /// Records MISSING from DescribeTasks: long gone, or not visible yet. Evidence only twice after an event of the stop, or
    /// after enough complete sweeps.
    pub fn record_missing(&self, task: &TaskArn, grace: Duration, now: Timestamp) {
        let mut records = self.lock();
        let Some(record) = records.get_mut(task) else { return };
        record.missing_at = Some(now);
        record.running_since = None;
        if let StopState::Event(event) = &mut record.stop {
            let since = *event.missing_since.get_or_insert(now);
            // ECS answers again, so the event alone drains nothing more.
            event.undescribed = false;
            if since.age_at(now) >= CONFIRM_INTERVAL {
                record.stop = StopState::Missing { since: event.received };
                record.touched_at = now;
            }
        }
        if let Some(absence) = &mut record.absence
            && absence.is_due(grace)
        {
            absence.described_at = Some(now);
        }
    }

    /// Records that a list showed the task with desired status RUNNING.
    pub fn record_listed_running(&self, task: &TaskArn, now: Timestamp) {
        if let Some(record) = self.lock().get_mut(task) {
            record.record_seen();
            if record.stop == StopState::None && record.task.is_some() {
                record.alive_at = Some(now);
            }
        }
    }

    /// Records that a list showed the task with desired status STOPPED: the task exists, so it is not absent.
    pub fn record_listed_stopped(&self, task: &TaskArn) {
        if let Some(record) = self.lock().get_mut(task) {
            record.record_listed_stopped();
        }
    }

    /// Records that a complete sweep of the cluster did not show the task. The sweep began at `began`, after the task was
    /// known or registered, and ended at `ended`.
    pub fn record_absence(&self, task: &TaskArn, began: Timestamp, ended: Timestamp) {
        let mut records = self.lock();
        let record = records
            .entry(task.clone())
            .or_insert_with(|| Box::new(TaskRecord { touched_at: ended, ..TaskRecord::default() }));
        let first = Absence { since: ended, last_missed: ended, sweeps: 0, described_at: None };
        let absence = record.absence.get_or_insert(first);
        absence.sweeps += 1;
        absence.last_missed = absence.last_missed.max(began);
    }

    /// Sets the task's role, by which [`Self::tasks_of_role`] finds the task.
    pub fn set_role(&self, task: &TaskArn, role: &RoleArn) {
        if let Some(record) = self.lock().get_mut(task)
            && record.role.as_ref() != Some(role)
        {
            record.role = Some(role.clone());
        }
    }

    /// The task's role, if known.
    pub fn role_of(&self, task: &TaskArn) -> Option<RoleArn> {
        let records = self.lock();
        let record = records.get(task)?;
        record.role.clone().or_else(|| record.task.as_ref()?.role_override.clone())
    }

    /// All tasks with this role.
    pub fn tasks_of_role(&self, role: &RoleArn) -> Vec<TaskArn> {
        self.lock()
            .iter()
            .filter(|(_, r)| r.role.as_ref() == Some(role))
            .map(|(arn, _)| arn.clone())
            .collect()
    }

    /// The roles of all tasks that have not stopped.
    pub fn roles(&self) -> std::collections::BTreeSet<RoleArn> {
        self.lock().values().filter(|r| !r.is_over()).filter_map(|r| r.role.clone()).collect()
    }

    /// The known state of a task.
    pub fn snapshot(&self, task: &TaskArn, grace: Duration, now: Timestamp) -> TaskSnapshot {
        let records = self.lock();
        let Some(record) = records.get(task) else {
            return TaskSnapshot {
                task: None,
                liveness: TaskLiveness::Unknown,
                alive_at: None,
                described_at: None,
                running_since: None,
                missing_at: None,
            };
        };
        TaskSnapshot {
            task: record.task.clone(),
            liveness: record.liveness(grace, now),
            alive_at: record.alive_at,
            described_at: record.described_at,
            running_since: record.running_since,
            missing_at: record.missing_at,
        }
    }

    /// The known tasks of a cluster, with the fields that a sweep compares.
    pub fn of_cluster(&self, cluster: &ClusterArn) -> BTreeMap<TaskArn, TaskSummary> {
        let records = self.lock();
        records
            .iter()
            .filter(|(arn, record)| arn.cluster() == cluster && record.task.is_some())
            .map(|(arn, record)| (arn.clone(), record.summary()))
            .collect()
    }

    /// The number of observations that were dropped because [`MAX_TASKS`] other tasks are known.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Number of known tasks.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether no task is known.
    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// All known tasks.
    pub fn all(&self) -> Vec<TaskArn> {
        self.lock().keys().cloned().collect()
    }

    /// Removes tasks that stopped long ago, and tasks without a registration that are absent or that no describe has shown.
    pub fn expire(&self, registered: impl Fn(&TaskArn) -> bool, now: Timestamp) {
        self.lock().retain(|arn, record| {
            let over = record.is_over()
                || record.task.is_none()
                || record.absence.is_some_and(|a| a.sweeps >= MIN_ABSENT_SWEEPS);
            !over || record.touched_at.age_at(now) < STOPPED_TASK_TTL || registered(arn)
        });
    }
}

#[cfg(test)]
mod tests;
