//! What will be decided once that is confirmed which was seen only once: a plan should tell of it, though a run waits.

use std::fmt;
use std::time::Duration;

use super::{Decision, DecisionInput, decide};
use crate::intent::{Evaluation, Verdict};
use crate::plan::TaskLiveness;

/// What a run waits for before it does what is foreseen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PendingConfirmation {
    /// The role's tags must read the same a second time.
    SecondRoleRead,
    /// The task must be missing from two complete sweeps for so long, and then from a describe.
    Absence(Duration),
}

impl PendingConfirmation {
    /// What was seen, for a person.
    pub fn observation(&self) -> &'static str {
        match self {
            Self::SecondRoleRead => "the role's tags, read once, do not allow it",
            Self::Absence(_) => "ECS does not list the task",
        }
    }
}

impl fmt::Display for PendingConfirmation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SecondRoleRead => f.write_str("once the role's tags read the same a second time, 10 s later"),
            Self::Absence(grace) => write!(
                f,
                "once the task is missing from two complete sweeps, for {}, and from a describe",
                ecs_mesh_api::HumanDuration(*grace)
            ),
        }
    }
}

/// What follows from the situation if what it hangs on is confirmed; `None` where nothing hangs. `grace` is how long a
/// task must be missing.
pub fn decide_if_confirmed(situation: &DecisionInput<'_>, grace: Duration) -> Option<(PendingConfirmation, Decision)> {
    match (&situation.liveness, situation.evaluation) {
        (TaskLiveness::Missing { due: false }, _) if !situation.known.is_empty() => {
            let liveness = TaskLiveness::Absent { sweeps: 2, since: situation.now };
            Some((PendingConfirmation::Absence(grace), decide(&DecisionInput { liveness, ..situation.clone() })))
        }
        (TaskLiveness::Live, Some(evaluation)) if !situation.known.is_empty() => {
            let Verdict::Reject { violations, confirmed: false } = &evaluation.verdict else { return None };
            let confirmed = Evaluation {
                verdict: Verdict::Reject { violations: violations.clone(), confirmed: true },
                ..evaluation.clone()
            };
            let decision = decide(&DecisionInput { evaluation: Some(&confirmed), ..situation.clone() });
            Some((PendingConfirmation::SecondRoleRead, decision))
        }
        _ => None,
    }
}
