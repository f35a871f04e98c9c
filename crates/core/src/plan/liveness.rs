//! The liveness of a task: one type for the store that derives it and for the decision that uses it.

use ecs_mesh_model::Timestamp;

/// The liveness of a task, as far as ECS has shown it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskLiveness {
    /// No source has shown the task yet.
    Unknown,
    /// ECS wants the task to run.
    Live,
    /// ECS is stopping the task.
    Leaving,
    /// An event reported that ECS is stopping the task or has stopped it, and describes of the task have failed since.
    StopUnconfirmed,
    /// DescribeTasks reported STOPPED.
    Stopped,
    /// After an event of the stop, DescribeTasks reported MISSING twice, and no answer showed the task alive.
    StoppedMissing {
        /// When this process received the event.
        since: Timestamp,
    },
    /// Complete sweeps do not list the task.
    Missing {
        /// Missing in enough sweeps and for long enough that a targeted describe decides.
        due: bool,
    },
    /// Complete sweeps over the grace age do not list the task, and a targeted describe answers MISSING.
    Absent {
        /// Complete sweeps that missed the task.
        sweeps: u32,
        /// End of the first of these sweeps.
        since: Timestamp,
    },
}
