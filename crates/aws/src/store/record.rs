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
    /// An event said STOPPED.
    Unconfirmed,
    /// DescribeTasks said STOPPED, or MISSING after an event's STOPPED.
    Confirmed,
}

/// All that is known of one task.
#[derive(Clone, Debug, Default)]
pub(super) struct TaskRecord {
    pub(super) task: Option<Task>,
    pub(super) role: Option<RoleArn>,
    pub(super) stopped: StopState,
    /// When it was last seen wanted and alive: the event's own time, or the time of a list or describe.
    pub(super) alive_at: Option<Timestamp>,
    /// When a describe last found it wanted and alive.
    pub(super) described_at: Option<Timestamp>,
    /// When a describe answered MISSING, if nothing has shown the task since.
    pub(super) missing_at: Option<Timestamp>,
    /// When this record last changed, for forgetting it.
    pub(super) touched_at: Timestamp,
    pub(super) absence: Option<Absence>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Absence {
    /// The end of the first sweep that missed the task.
    pub(super) since: Timestamp,
    /// The start of the last sweep that missed the task. Later than this nothing is known, so the age of an absence
    /// ends here and not now.
    pub(super) last_missed: Timestamp,
    pub(super) sweeps: u32,
    /// When a targeted describe last answered MISSING after enough sweeps had missed the task.
    pub(super) described_at: Option<Timestamp>,
}

/// What a sweep compares with the lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskSummary {
    /// What ECS wants of the task, as far as known.
    pub desired: DesiredStatus,
    /// It has stopped for sure.
    pub stopped: bool,
    /// It has an address, or never will need one.
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

    /// Whether a describe has just confirmed it.
    fn is_confirmed(&self, now: Timestamp) -> bool {
        self.described_at.is_some_and(|at| at.age_at(now) <= ABSENCE_CONFIRMED_FOR)
    }
}
