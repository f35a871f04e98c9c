//! What would fail, be refused or never work for Consul on ECS.
//!
//! [`gather`] reads task definitions (of ECS, or of files before a deploy), roles, manifests and the Consul control plane,
//! and changes nothing. What it brings together are plain [`AuditFacts`], failures included; [`examine`] judges them without
//! asking anything, by the rules of [`catalogue`]. A fact that could not be had is a finding of its own, of severity
//! `unknown`: no rule passes silently for want of one. `docs/reference/audit.md` explains each rule.

#![forbid(unsafe_code)]

pub mod rules_catalog;
mod facts;
mod gather;
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
