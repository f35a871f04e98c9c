//! All that is known of one task, and what of it proves that the task is gone: STOPPED confirmed by a describe, or an
//! absence of enough sweeps, long enough, and of a describe.

use std::time::Duration;

use ecs_mesh_core::plan::TaskLiveness;
use ecs_mesh_model::{DesiredStatus, RoleArn, Task, Timestamp};

/// Complete sweeps that must miss a task before its absence counts.
pub(super) const MIN_ABSENT_SWEEPS: u32 = 2;

/// How long a describe's MISSING confirms an absence. A removal rests on a describe made right before it: an open
/// circuit or a full write queue may delay the removal for minutes, in which ECS may show the task again.
const ABSENCE_CONFIRMED_FOR: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum StopState {
    #[default]
    No,
    /// An event showed STOPPED.
    Unconfirmed,
    /// DescribeTasks showed STOPPED, or MISSING after an event's STOPPED.
    Confirmed,
}

/// The known state of one task.
#[derive(Clone, Debug, Default)]
pub(super) struct TaskRecord {
    pub(super) task: Option<Task>,
    pub(super) role: Option<RoleArn>,
    pub(super) stopped: StopState,
    /// Time of the last observation as alive and wanted: the event's own time, or that of a list or describe.
    pub(super) alive_at: Option<Timestamp>,
    /// Time of the last describe that showed the task alive and wanted.
    pub(super) described_at: Option<Timestamp>,
    /// Time of a MISSING answer of a describe, without an observation of the task since.
    pub(super) missing_at: Option<Timestamp>,
    /// Time of the last change, for expiry.
    pub(super) touched_at: Timestamp,
    pub(super) absence: Option<Absence>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Absence {
    /// The end of the first sweep that missed the task.
    pub(super) since: Timestamp,
    /// The start of the last sweep that missed the task. The age of an absence ends here, since the state after it is
    /// unknown.
    pub(super) last_missed: Timestamp,
    pub(super) sweeps: u32,
    /// Time of the last MISSING answer of a targeted describe after enough sweeps missed the task.
    pub(super) described_at: Option<Timestamp>,
}

/// The fields that a sweep compares with the lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskSummary {
    /// The known desired status.
    pub desired: DesiredStatus,
    /// Whether STOPPED is confirmed.
    pub stopped: bool,
    /// Whether the address is known.
    pub has_address: bool,
}

impl TaskRecord {
    pub(super) fn summary(&self) -> TaskSummary {
        let task = self.task.as_ref();
        TaskSummary {
            desired: task.map_or(DesiredStatus::Running, |task| {
                if task.is_leaving() { DesiredStatus::Stopped } else { DesiredStatus::Running }
            }),
            stopped: self.stopped == StopState::Confirmed,
            has_address: task.is_some_and(|task| task.address.is_some()),
        }
    }

    pub(super) fn liveness(&self, grace: Duration, now: Timestamp) -> TaskLiveness {
        match (self.stopped, self.absence, &self.task) {
            (StopState::Confirmed, _, _) => TaskLiveness::Stopped,
            (StopState::Unconfirmed, _, _) => TaskLiveness::StoppedUnconfirmed,
            (_, Some(absence), _) if absence.is_due(grace) => {
                if absence.is_confirmed(now) {
                    TaskLiveness::Absent { sweeps: absence.sweeps, since: absence.since }
                } else {
                    TaskLiveness::Missing { due: true }
                }
            }
            (_, Some(_), None) => TaskLiveness::Missing { due: false },
            (_, None, None) => TaskLiveness::Unknown,
            (_, _, Some(task)) if task.is_leaving() => TaskLiveness::Leaving,
            (_, _, Some(_)) => TaskLiveness::Live,
        }
    }
}

impl Absence {
    /// Whether enough complete sweeps, over at least `grace`, missed the task.
    pub(super) fn is_due(&self, grace: Duration) -> bool {
        self.sweeps >= MIN_ABSENT_SWEEPS && self.since.age_at(self.last_missed) >= grace
    }

    /// Whether a recent describe confirmed the absence.
    fn is_confirmed(&self, now: Timestamp) -> bool {
        self.described_at.is_some_and(|at| at.age_at(now) <= ABSENCE_CONFIRMED_FOR)
    }
}
