//! From what a task should be and what is registered to what is to be done: pure, so that a plan shows exactly what a
//! run does.

mod decide;
mod diff;
mod drain;
mod guard;
pub mod proposal;

pub use decide::{Action, Awaited, Decision, Evidence, Known, Situation, Standing, Step, decide, foresee};
pub use diff::{FieldChange, diff};
pub use drain::DrainReason;
pub use guard::{Admission, Guard, GuardState, OwnedCount};
