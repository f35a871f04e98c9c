//! What a set-up needs, and what of it is missing.
//!
//! [`gather`] asks everything that can be asked without changing anything: no message is taken, nothing is written. What
//! it brings together are plain [`Facts`], failures included; [`examine`] judges them without asking anything, so one
//! failed question never hides another's answer. `docs/reference/doctor.md` explains each check.

#![forbid(unsafe_code)]

pub mod catalogue;
mod checks;
mod event_coverage;
mod event_patterns;
mod facts;
mod gather;
mod iam_policy;
mod place;
mod report;
mod send_policy;
mod token_policy;

pub use checks::examine;
pub use event_patterns::EventPatterns;
pub use facts::{Attributes, Aws, Facts, NoAws, PlaneSeen, QueueSeen, Read, RuleSeen, Seen};
pub use gather::{Question, gather};
pub use iam_policy::{Policy, Reader};
pub use place::Place;
pub use report::{Check, Id, Report, Status, Summary};
pub use token_policy::token_policy;

#[cfg(test)]
mod tests;
