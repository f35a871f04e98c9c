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

/// How far apart two answers of ECS must be to confirm each other: a wrong answer may be repeated for seconds.
pub(super) const CONFIRM_INTERVAL: Duration = Duration::from_secs(10);

/// The evidence of a task's stop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum StopState {
    /// Nothing.
    #[default]
    None,
    /// An event reported that ECS is stopping the task or has stopped it.
    Event(StopEvent),
    /// MISSING answers, at least [`CONFIRM_INTERVAL`] apart, after an event that was received at `since`.
    Missing { since: Timestamp },
    /// DescribeTasks showed desired status STOPPED, which is final.
    Leaving,
    /// DescribeTasks showed STOPPED.
    Stopped,
}

/// An event of a stop that no describe has confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StopEvent {
    /// When this process received it.
    pub(super) received: Timestamp,
    /// Whether describes have failed for so long that the event alone may drain.
    pub(super) undescribed: bool,
    /// Time of the first MISSING answer since.
    pub(super) missing_since: Option<Timestamp>,
}

/// The known state of one task.
#[derive(Clone, Debug, Default)]
pub(super) struct TaskRecord {
    /// The newest state that a describe showed.
    pub(super) task: Option<Task>,
    pub(super) role: Option<RoleArn>,
    pub(super) stop: StopState,
    /// Time of the last list or describe that showed the task alive and wanted.
    pub(super) alive_at: Option<Timestamp>,
    /// Time of the last describe that showed the task alive and wanted.
    pub(super) described_at: Option<Timestamp>,
    /// Time of the first of the describes, without another answer in between, that showed the task alive and wanted.
    pub(super) running_since: Option<Timestamp>,
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
    /// Whether a describe showed all about the task's address.
    pub is_located: bool,
}

impl TaskRecord {
    pub(super) fn summary(&self) -> TaskSummary {
        let task = self.task.as_ref();
        let desired = if self.is_leaving() { DesiredStatus::Stopped } else { DesiredStatus::Running };
        TaskSummary { desired, stopped: self.is_over(), is_located: task.is_some_and(Task::is_located) }
    }

    /// Whether a describe showed that ECS is stopping the task or has stopped it.
    pub(super) fn is_leaving(&self) -> bool {
        matches!(self.stop, StopState::Leaving | StopState::Stopped)
    }

    /// Whether the stop is confirmed.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.stop, StopState::Stopped | StopState::Missing { .. })
    }

    /// A list or a describe showed the task: it is not absent, and an event that said otherwise was wrong or early.
    pub(super) fn record_seen(&mut self) {
        self.absence = None;
        self.missing_at = None;
        if matches!(self.stop, StopState::Event(_) | StopState::Missing { .. }) {
            self.stop = StopState::None;
        }
    }

    /// A list showed the task with desired status STOPPED: it is not absent, and an event of its stop may be right.
    pub(super) fn record_listed_stopped(&mut self) {
        self.absence = None;
        self.missing_at = None;
        if let StopState::Event(event) = &mut self.stop {
            event.missing_since = None;
        }
    }

    pub(super) fn liveness(&self, grace: Duration, now: Timestamp) -> TaskLiveness {
        match (self.stop, self.absence, &self.task) {
            (StopState::Stopped, _, _) => TaskLiveness::Stopped,
            (StopState::Missing { since }, _, _) => TaskLiveness::StoppedMissing { since },
            (_, Some(absence), _) if absence.is_due(grace) => {
                if absence.is_confirmed(now) {
                    TaskLiveness::Absent { sweeps: absence.sweeps, since: absence.since }
                } else {
                    TaskLiveness::Missing { due: true }
                }
            }
            (StopState::Leaving, _, _) => TaskLiveness::Leaving,
            (StopState::Event(StopEvent { undescribed: true, .. }), _, _) => TaskLiveness::StopUnconfirmed,
            // Once confirmed, an absence stays one until ECS shows the task, whatever grace age applies later.
            (_, Some(Absence { described_at: Some(_), .. }), _) | (_, Some(_), None) => {
                TaskLiveness::Missing { due: false }
            }
            (_, None, None) => TaskLiveness::Unknown,
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
