//! What a set-up needs, and what of it is missing.
//!
//! [`gather`] asks everything that can be asked without changing anything: no message is taken, nothing is written. What
//! it brings together are plain [`DoctorFacts`], failures included; [`examine`] judges them without asking anything, so one
//! failed question never hides another's answer. `docs/reference/doctor.md` explains each check.

#![forbid(unsafe_code)]

pub mod catalogue;
mod checks;
mod event_coverage;
mod event_patterns;
mod facts;
mod gather;
mod iam_policy;
mod scope;
mod report;
mod queue_policy;
mod acl_policy;

pub use checks::examine;
pub use event_patterns::EventPatterns;
pub use facts::{Attributes, AwsFacts, DoctorFacts, AwsUnavailable, ControlPlaneFacts, QueueFacts, ReadAttempt, RuleFacts, AwsObservations};
pub use gather::{DoctorRequest, gather};
pub use iam_policy::{IamPolicy, PolicyPrincipal};
pub use scope::DoctorScope;
pub use report::{CheckResult, CheckKind, DoctorReport, CheckStatus, CheckSummary};
pub use acl_policy::token_policy;

#[cfg(test)]
mod tests;
