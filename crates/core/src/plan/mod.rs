//! From what a task should be and what is registered to what is to be done: pure, so that a plan shows exactly what a
//! run does.

mod decide;
mod diff;
mod drain;
mod guard;
mod liveness;
pub mod report;

pub use decide::{Action, PendingConfirmation, Decision, Evidence, KnownRegistration, DecisionInput, PlanStep, SkippedAction, decide, decide_if_confirmed};
pub use diff::{FieldChange, diff};
pub use drain::DrainReason;
pub use guard::{GuardDecision, RemovalGuard, GuardState, OwnedCount};
pub use liveness::TaskLiveness;
