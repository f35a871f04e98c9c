//! From what a task should be and what is registered to what is to be done: pure, so that a plan shows exactly what a
//! run does.

mod decide;
mod diff;
mod guard;

pub use decide::{Action, Decision, Evidence, Known, Situation, Standing, Step, decide};
pub use diff::{FieldChange, diff};
pub use guard::{Admission, Guard, GuardState};
