//! Finds misconfigurations that would make Consul on ECS fail.
//!
//! [`gather`] reads task definitions (from ECS, or from files before a deployment), roles, manifests and the Consul control
//! plane, and changes nothing. Its result are plain [`AuditFacts`], failures included. [`examine`] applies the rules of
//! [`rules_catalog`] to the facts, without I/O. A fact that is missing is a finding with severity `unknown`: no rule passes
//! for lack of a fact. `docs/reference/audit.md` explains each rule.
//!
//! ```
//! use ecs_mesh_audit::{AuditFacts, examine, render_text};
//!
//! let report = examine(&AuditFacts::default());
//! assert_eq!(report.exit_code(), 0);
//! assert!(render_text(&report).contains("not checked: task definitions"));
//! ```

#![forbid(unsafe_code)]

pub mod rules_catalog;
mod facts;
mod gather;
mod line_index;
mod parse;
mod report;
mod rules;
mod sarif;
mod text;
#[cfg(test)]
mod tests;

pub use facts::{
    AuditedAuthMethod, AuditedBindingRule, ConsulFacts, AuditedDefinition, AuditFacts, Fetched, DefinitionOrigin, AuditedControlPlane, PolicyText, AuditedRole, DefinitionUse,
};
pub use gather::{SourcesAllowed, AuditRequest, gather};
pub use report::{AuditFinding, FindingLocation, AuditReport, AuditRule, Severity, AuditSummary};
pub use rules::examine;
pub use sarif::sarif;
pub use text::render_text;
