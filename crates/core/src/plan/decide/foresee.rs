//! What will be decided once that is confirmed which was seen only once: a plan should tell of it, though a run waits.

use std::fmt;
use std::time::Duration;

use super::{Decision, Evidence, Situation, Standing, decide};
use crate::intent::{Judgement, Verdict};

/// What a run waits for before it does what is foreseen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Awaited {
    /// The role's tags must read the same a second time.
    SecondRead,
    /// The task must be missing from two complete sweeps for so long, and then from a describe.
    Absence(Duration),
}

impl Awaited {
    /// What was seen, for a person.
    pub fn seen(&self) -> &'static str {
        match self {
            Self::SecondRead => "the role's tags, read once, do not allow it",
            Self::Absence(_) => "ECS does not list the task",
        }
    }
}

impl fmt::Display for Awaited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SecondRead => f.write_str("once the role's tags read the same a second time, 10 s later"),
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
pub fn foresee(situation: &Situation<'_>, grace: Duration) -> Option<(Awaited, Decision)> {
    match (&situation.standing, situation.judgement) {
        (Standing::Missing { due: false }, _) if !situation.known.is_empty() => {
            let absent = Evidence::Absent { sweeps: 2, since: situation.now, after_stop: false };
            let standing = Standing::Gone(absent);
            Some((Awaited::Absence(grace), decide(&Situation { standing, ..situation.clone() })))
        }
        (Standing::Live, Some(judgement)) if !situation.known.is_empty() => {
            let Verdict::Reject { violations, confirmed: false } = &judgement.verdict else { return None };
            let confirmed = Judgement {
                verdict: Verdict::Reject { violations: violations.clone(), confirmed: true },
                ..judgement.clone()
            };
            let decision = decide(&Situation { judgement: Some(&confirmed), ..situation.clone() });
            Some((Awaited::SecondRead, decision))
        }
        _ => None,
    }
}
