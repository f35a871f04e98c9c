//! The decision that follows once a single observation is confirmed. A plan shows it; a run waits.

use std::fmt;
use std::time::Duration;

use super::{Decision, DecisionInput, Settling, decide};
use crate::intent::{Evaluation, RegistrationId, Verdict};
use crate::plan::TaskLiveness;

/// The confirmation that a run waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PendingConfirmation {
    /// A second read of the role's tags must agree with the first.
    SecondRoleRead,
    /// The task must be missing from two complete sweeps for this long, and then from a describe.
    Absence(Duration),
    /// The manifests must be valid for this long without the document that asked for the registration.
    Settle(Duration),
}

impl PendingConfirmation {
    /// The unconfirmed observation, for people.
    pub fn observation(&self) -> &'static str {
        match self {
            Self::SecondRoleRead => "the role's tags, read once, do not allow the registration",
            Self::Absence(_) => "ECS does not list the task",
            Self::Settle(_) => "the manifests no longer ask for the registration",
        }
    }
}

impl fmt::Display for PendingConfirmation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SecondRoleRead => f.write_str("once a second read of the role's tags, 10 s later, agrees"),
            Self::Absence(grace) => write!(
                f,
                "once the task is missing from two complete sweeps, for {}, and from a describe",
                ecs_mesh_api::HumanDuration(*grace)
            ),
            Self::Settle(settle) => write!(
                f,
                "once the manifests have been valid for {} without the document that asked for it (cleanup.settle)",
                ecs_mesh_api::HumanDuration(*settle)
            ),
        }
    }
}

/// The decision once the pending observation is confirmed, and the confirmation; `None` where no observation is pending.
/// `grace` is how long a task must be missing.
pub fn decide_if_confirmed(
    input: &DecisionInput<'_>,
    grace: Duration,
) -> Option<(PendingConfirmation, Decision)> {
    match (&input.liveness, input.evaluation) {
        (TaskLiveness::Missing { due: false }, _) if !input.known.is_empty() => {
            let liveness = TaskLiveness::Absent { sweeps: 2, since: input.now };
            Some((PendingConfirmation::Absence(grace), decide(&DecisionInput { liveness, ..input.clone() })))
        }
        (TaskLiveness::Live, Some(evaluation)) if !input.known.is_empty() => {
            if let Some(settling) = input.settling {
                return decide_if_settled(input, settling);
            }
            let Verdict::Reject { violations, confirmed: false, id } = &evaluation.verdict else {
                return None;
            };
            let confirmed = Evaluation {
                verdict: Verdict::Reject { violations: violations.clone(), confirmed: true, id: id.clone() },
                ..evaluation.clone()
            };
            let decision = decide(&DecisionInput { evaluation: Some(&confirmed), ..input.clone() });
            Some((PendingConfirmation::SecondRoleRead, decision))
        }
        _ => None,
    }
}

/// The withdrawals that wait for `cleanup.settle`.
fn decide_if_settled(
    input: &DecisionInput<'_>,
    settling: Settling<'_>,
) -> Option<(PendingConfirmation, Decision)> {
    let now = decide(input);
    let is_due = |id: &RegistrationId| {
        now.steps.iter().any(|due| due.id == *id) || now.owner_steps.iter().any(|due| due.id == *id)
    };
    let waits = |id: &RegistrationId| now.settling.contains(id) && !is_due(id);
    let mut decision = decide(&DecisionInput { settling: None, ..input.clone() });
    decision.steps.retain(|step| waits(&step.id));
    decision.owner_steps.retain(|step| waits(&step.id));
    (!decision.steps.is_empty() || !decision.owner_steps.is_empty())
        .then_some((PendingConfirmation::Settle(settling.settle), decision))
}
