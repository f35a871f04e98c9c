//! What would fail, be refused or never work for Consul on ECS.
//!
//! [`gather`] reads task definitions (of ECS, or of files before a deploy), roles, manifests and the Consul control plane,
//! and changes nothing. What it brings together are plain [`Facts`], failures included; [`examine`] judges them without
//! asking anything, by the rules of [`catalogue`]. A fact that could not be had is a finding of its own, of severity
//! `unknown`: no rule passes silently for want of one. `docs/reference/audit.md` explains each rule.

#![forbid(unsafe_code)]

pub mod catalogue;
mod facts;
mod gather;
mod parse;
mod report;
mod rules;
mod sarif;
mod table;
#[cfg(test)]
mod tests;

pub use facts::{
    AuthMethod, BindingRule, ConsulFacts, Definition, Facts, Known, Origin, Plane, PolicyText, RoleSeen, Use,
};
pub use gather::{Asking, Question, gather};
pub use report::{Finding, Place, Report, Rule, Severity, Summary};
pub use rules::examine;
pub use sarif::sarif;
pub use table::table;
