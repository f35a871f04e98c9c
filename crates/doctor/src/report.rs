//! The report: each check with its status, message and fix.

use serde::Serialize;

/// Status of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckStatus {
    /// Passed.
    Ok,
    /// Informational.
    Info,
    /// Could not be checked.
    Unknown,
    /// Works, but something will be lost or late.
    Warning,
    /// The operator cannot work.
    Error,
}

impl CheckStatus {
    /// All statuses, best first.
    pub const ALL: [Self; 5] = [Self::Ok, Self::Info, Self::Unknown, Self::Warning, Self::Error];

    /// The word in text and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Info => "info",
            Self::Unknown => "unknown",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// A kind of check: its stable name and its expectation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckKind {
    /// Name such as `queue.policy`; stable between versions.
    pub name: &'static str,
    /// The expected state.
    pub expected: &'static str,
}

/// The result of one check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CheckResult {
    /// The check's name; `docs/reference/doctor.md` explains each.
    pub id: &'static str,
    /// The checked object: a cluster, a rule, a control plane.
    pub subject: String,
    /// The status.
    pub status: CheckStatus,
    /// The finding; never a secret.
    pub message: String,
    /// The expected state.
    pub expected: &'static str,
    /// How to fix it, if needed: a command or a description.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

impl CheckKind {
    /// Passed.
    pub fn ok(self, subject: impl Into<String>, message: impl Into<String>) -> CheckResult {
        self.check(CheckStatus::Ok, subject.into(), message.into(), None)
    }

    /// Informational.
    pub fn info(self, subject: impl Into<String>, message: impl Into<String>) -> CheckResult {
        self.check(CheckStatus::Info, subject.into(), message.into(), None)
    }

    /// Could not be checked.
    pub fn unknown(
        self,
        subject: impl Into<String>,
        message: impl Into<String>,
        fix: impl Into<String>,
    ) -> CheckResult {
        self.check(CheckStatus::Unknown, subject.into(), message.into(), Some(fix.into()))
    }

    /// Works, but something will be lost or late.
    pub fn warning(
        self,
        subject: impl Into<String>,
        message: impl Into<String>,
        fix: impl Into<String>,
    ) -> CheckResult {
        self.check(CheckStatus::Warning, subject.into(), message.into(), Some(fix.into()))
    }

    /// The operator cannot work.
    pub fn error(
        self,
        subject: impl Into<String>,
        message: impl Into<String>,
        fix: impl Into<String>,
    ) -> CheckResult {
        self.check(CheckStatus::Error, subject.into(), message.into(), Some(fix.into()))
    }

    fn check(
        self,
        status: CheckStatus,
        subject: String,
        message: String,
        fix: Option<String>,
    ) -> CheckResult {
        let fix = fix.filter(|fix| !fix.is_empty());
        CheckResult { id: self.name, subject, status, message, expected: self.expected, fix }
    }
}

/// Number of checks by status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CheckSummary {
    /// Checks with status `ok`.
    pub ok: usize,
    /// Checks with status `info`.
    pub info: usize,
    /// Checks with status `unknown`.
    pub unknown: usize,
    /// Checks with status `warning`.
    pub warning: usize,
    /// Checks with status `error`.
    pub error: usize,
}

/// All checks, in the order in which to fix them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DoctorReport {
    /// The worst status.
    pub status: CheckStatus,
    /// Number of checks by status.
    pub summary: CheckSummary,
    /// The checks.
    pub checks: Vec<CheckResult>,
}

impl DoctorReport {
    /// Builds the report.
    pub fn new(checks: Vec<CheckResult>) -> Self {
        let count = |status| checks.iter().filter(|check| check.status == status).count();
        let summary = CheckSummary {
            ok: count(CheckStatus::Ok),
            info: count(CheckStatus::Info),
            unknown: count(CheckStatus::Unknown),
            warning: count(CheckStatus::Warning),
            error: count(CheckStatus::Error),
        };
        let status = checks.iter().map(|check| check.status).max().unwrap_or(CheckStatus::Ok);
        Self { status, summary, checks }
    }

    /// 0: nothing above `info`; 1: an error; 2: warnings or unknowns.
    pub fn exit_code(&self) -> u8 {
        match self.status {
            CheckStatus::Ok | CheckStatus::Info => 0,
            CheckStatus::Unknown | CheckStatus::Warning => 2,
            CheckStatus::Error => 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_code_follows_the_worst_status() {
        let id = CheckKind { name: "a.b", expected: "x" };
        for (checks, code) in [
            (vec![], 0),
            (vec![id.ok("", ""), id.info("", "")], 0),
            (vec![id.ok("", ""), id.unknown("", "", "")], 2),
            (vec![id.warning("", "", ""), id.unknown("", "", "")], 2),
            (vec![id.error("", "", ""), id.warning("", "", "")], 1),
        ] {
            assert_eq!(DoctorReport::new(checks.clone()).exit_code(), code, "{checks:?}");
        }
    }

    #[test]
    fn statuses_are_ordered_from_good_to_bad() {
        assert!(CheckStatus::ALL.is_sorted());
    }
}
