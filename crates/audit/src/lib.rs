//! Finds misconfigurations that would make Kuma or Consul on ECS fail, or less safe than they could be.
//!
//! [`gather`] reads task definitions (from ECS, or from files before a deployment), roles, manifests and the control
//! planes, and changes nothing. Its result are plain [`AuditFacts`], failures included. [`examine`] applies the rules of
//! [`rules_catalog`] to the facts, without I/O. A fact that is missing is a finding with severity `unknown`: no rule passes
//! for lack of a fact. `docs/reference/audit.md` explains each rule.
//!
//! ```
//! use ecs_mesh_audit::{AuditFacts, examine};
//!
//! let report = examine(&AuditFacts::default());
//! assert_eq!(report.exit_code(), 0);
//! assert!(report.not_checked[0].starts_with("task definitions"));
//! ```

#![forbid(unsafe_code)]

mod facts;
mod gather;
mod line_index;
mod parse;
mod report;
mod rules;
pub mod rules_catalog;
mod sarif;
mod sidecar_report;
#[cfg(test)]
mod tests;

pub use facts::{
    AuditFacts, AuditedAuthMethod, AuditedBindingRule, AuditedControlPlane, AuditedDefinition,
    AuditedKumaPlane, AuditedRole, CheckedWorkloads, ConsulFacts, DefinitionOrigin, DefinitionUse, Fetched,
    InexpressibleWorkload, KumaFacts, KumaUpgrade, PolicyText,
};
pub use gather::{AuditRequest, SourcesAllowed, check_sidecars, check_workloads, gather, member_accounts};
pub use report::{AuditFinding, AuditReport, AuditRule, AuditSummary, FindingLocation, Severity};
pub use rules::examine;
pub use sarif::sarif;
pub use sidecar_report::{SidecarProblem, SidecarReport};
