//! The known state of each task: the newest version wins, and absences are counted until they are evidence. Synchronous;
//! makes no decision about registrations.

mod record;

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use self::record::{Absence, MIN_ABSENT_SWEEPS, StopState, TaskRecord};
use ecs_mesh_core::plan::TaskLiveness;
use ecs_mesh_model::{ClusterArn, RoleArn, Task, TaskArn, Timestamp};

pub use self::record::TaskSummary;

/// How long after an observation a task may be registered without a describe: messages may be days old, and another task
/// may have the address by now.
pub const FRESH_WINDOW: Duration = Duration::from_mins(1);

/// How long a stopped task is kept, so that late events of its running time find it stopped. Longer than [`FRESH_WINDOW`],
/// after which such an event registers nothing without a describe.
const STOPPED_TASK_TTL: Duration = Duration::from_mins(15);

/// Source of an observation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObservationSource {
    /// A task state change event: may be late, repeated, or out of order.
    Event,
    /// DescribeTasks: may lag behind for a moment.
    Describe,
}

/// The change that an observation made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Observation {
    /// The observation is newer than the known state, or adds to it.
    pub changed: bool,
    /// The first observation, by an event or a describe, that the task is leaving.
    pub first_leaving: bool,
    /// The first observation, by an event or a describe, that the task has stopped.
    pub first_stop: bool,
}

/// A copy of a task's known state.
#[derive(Clone, Debug)]
pub struct TaskSnapshot {
    /// The newest observation; `None` if the task is known from a registration only.
    pub task: Option<Task>,
    /// The task's liveness.
    pub liveness: TaskLiveness,
    /// Time of the last observation as alive and wanted.
    pub alive_at: Option<Timestamp>,
    /// Time of the last describe that showed the task alive and wanted.
    pub described_at: Option<Timestamp>,
    /// Time of a MISSING answer of a describe, without an observation of the task since.
    pub missing_at: Option<Timestamp>,
}

impl TaskSnapshot {
    /// Whether the task was observed alive within [`FRESH_WINDOW`]: by a describe, or by any source after `since`, the time of
    /// this process's first complete sweep of the cluster. An event from before may belong to a task whose STOPPED an
    /// earlier process already handled.
    pub fn is_fresh(&self, since: Option<Timestamp>, now: Timestamp) -> bool {
        let young = |at: &Timestamp| at.age_at(now) < FRESH_WINDOW;
        self.described_at.as_ref().is_some_and(young)
            || self.alive_at.is_some_and(|at| young(&at) && since.is_some_and(|since| at >= since))
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
}

impl TaskStore {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<TaskArn, Box<TaskRecord>>> {
        // Every change leaves the map consistent, so the lock may be used after a panic.
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records an observation.
    pub fn observe(&self, task: Task, source: ObservationSource, now: Timestamp) -> Observation {
        let mut records = self.lock();
        let record = records.entry(task.arn.clone()).or_default();
        let before = record.stopped;
        let was_leaving = record.task.as_ref().is_some_and(Task::is_leaving);
        if task.last_status.is_stopped() {
            match source {
                ObservationSource::Describe => record.stopped = StopState::Confirmed,
                ObservationSource::Event if record.stopped == StopState::No => {
                    record.stopped = StopState::Unconfirmed;
                }
                ObservationSource::Event => {}
            }
        }
        let known = record.task.as_ref();
        let newer = known.is_none_or(|known| task.version > known.version);
        let adds_tags = known.is_some_and(|known| {
            task.version == known.version && known.tags != task.tags && task.tags.is_some()
        });
        let seen_at = match source {
            // The sender's clock may be ahead; nothing is fresher than now.
            ObservationSource::Event => task.updated_at.map(|at| at.min(now)),
            ObservationSource::Describe => Some(now),
        };
        if newer || source == ObservationSource::Describe {
            // A late observation resets the absence too: in doubt, registrations are kept.
            record.absence = None;
            record.missing_at = None;
            if !task.is_leaving() {
                record.alive_at = record.alive_at.max(seen_at);
                if source == ObservationSource::Describe {
                    record.described_at = Some(now);
                }
            }
        }
        if newer {
            let tags = task.tags.clone().or_else(|| record.task.take().and_then(|old| old.tags));
            record.task = Some(Task { tags, ..task });
            record.touched_at = now;
        } else if adds_tags && let Some(known) = &mut record.task {
            known.tags = task.tags;
        }
        let is_leaving = record.task.as_ref().is_some_and(Task::is_leaving);
        Observation {
            changed: newer || adds_tags || before != record.stopped,
            first_leaving: is_leaving && !was_leaving,
            first_stop: before == StopState::No && record.stopped != StopState::No,
        }
    }

    /// Records MISSING from DescribeTasks: long gone, or not visible yet. Evidence only after a STOPPED event, or after
    /// enough complete sweeps.
    pub fn record_missing(&self, task: &TaskArn, grace: Duration, now: Timestamp) {
        let mut records = self.lock();
        let Some(record) = records.get_mut(task) else { return };
        record.missing_at = Some(now);
        if record.stopped == StopState::Unconfirmed {
            record.stopped = StopState::Confirmed;
            record.touched_at = now;
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
            record.absence = None;
            record.missing_at = None;
            if record.stopped == StopState::No && record.task.as_ref().is_some_and(|task| !task.is_leaving())
            {
                record.alive_at = record.alive_at.max(Some(now));
            }
        }
    }

    /// Records that a list showed the task with desired status STOPPED: the task exists, so it is not absent.
    pub fn record_listed_stopped(&self, task: &TaskArn) {
        if let Some(record) = self.lock().get_mut(task) {
            record.absence = None;
            record.missing_at = None;
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
        self.lock().values().filter(|r| r.stopped == StopState::No).filter_map(|r| r.role.clone()).collect()
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
                missing_at: None,
            };
        };
        TaskSnapshot {
            task: record.task.clone(),
            liveness: record.liveness(grace, now),
            alive_at: record.alive_at,
            described_at: record.described_at,
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

    /// Removes tasks that stopped long ago, and absent tasks without a registration.
    pub fn expire(&self, registered: impl Fn(&TaskArn) -> bool, now: Timestamp) {
        self.lock().retain(|arn, record| {
            let over = record.stopped == StopState::Confirmed
                || record.absence.is_some_and(|a| a.sweeps >= MIN_ABSENT_SWEEPS);
            !over || record.touched_at.age_at(now) < STOPPED_TASK_TTL || registered(arn)
        });
    }
}

#[cfg(test)]
mod tests;
