//! Checks permissions, queue, event rules and control planes of an installation.
//!
//! [`gather`] reads everything without changing anything: no message is received, nothing is written. Its result are plain
//! [`DoctorFacts`], failures included. [`examine`] evaluates the facts without I/O, so that one failed read never hides
//! another result. `docs/reference/doctor.md` explains each check.
//!
//! ```
//! use ecs_mesh_doctor::{CheckStatus, DoctorReport, catalogue};
//!
//! let checks = vec![catalogue::REGION.ok("AWS", "eu-west-1")];
//! let report = DoctorReport::new(checks);
//! assert_eq!((report.status, report.exit_code()), (CheckStatus::Ok, 0));
//! ```

#![forbid(unsafe_code)]

mod acl_policy;
pub mod catalogue;
mod checks;
mod event_coverage;
mod event_patterns;
mod facts;
mod gather;
mod iam_policy;
mod queue_policy;
mod report;
mod scope;

pub use acl_policy::token_policy;
pub use checks::examine;
pub use event_patterns::EventPatterns;
pub use facts::{
    Attributes, AwsFacts, AwsObservations, AwsUnavailable, ControlPlaneFacts, DoctorFacts, MemberFacts,
    QueueFacts, ReadAttempt, RuleFacts, TeamEventFacts,
};
pub use gather::{DoctorRequest, gather};
pub use iam_policy::{IamPolicy, PolicyPrincipal};
pub use report::{CheckKind, CheckResult, CheckStatus, CheckSummary, DoctorReport};
pub use scope::{DoctorScope, QueueLocation};

#[cfg(test)]
mod tests;
