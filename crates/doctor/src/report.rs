//! What was found, how bad it is, and what to do about it.

use serde::Serialize;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckStatus {
    /// As it should be.
    Ok,
    /// Good to know; nothing to do.
    Info,
    /// It could not be found out.
    Unknown,
    /// It works, and something will be lost or late.
    Warning,
    /// The operator cannot do its work so.
    Error,
}

impl CheckStatus {
    /// All, from the best to the worst.
    pub const ALL: [Self; 5] = [Self::Ok, Self::Info, Self::Unknown, Self::Warning, Self::Error];

    /// The word in tables and JSON.
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

/// A kind of check: its stable name, and what it asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckKind {
    /// `queue.policy` and its like, stable between versions.
    pub name: &'static str,
    /// What is needed, in a sentence's part.
    pub expected: &'static str,
}

/// One check and what came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CheckResult {
    /// Which check; `docs/reference/doctor.md` explains each.
    pub id: &'static str,
    /// What was looked at: a cluster, a rule, a control plane.
    pub subject: String,
    /// How bad it is.
    pub status: CheckStatus,
    /// What was found. Never holds a secret.
    pub message: String,
    /// What is needed.
    pub expected: &'static str,
    /// What to do about it, where something is to be done: a command, or words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

impl CheckKind {
    /// All is well.
    pub fn ok(self, subject: impl Into<String>, message: impl Into<String>) -> CheckResult {
        self.check(CheckStatus::Ok, subject.into(), message.into(), None)
    }

    /// Good to know.
    pub fn info(self, subject: impl Into<String>, message: impl Into<String>) -> CheckResult {
        self.check(CheckStatus::Info, subject.into(), message.into(), None)
    }

    /// It could not be found out.
    pub fn unknown(
        self,
        subject: impl Into<String>,
        message: impl Into<String>,
        fix: impl Into<String>,
    ) -> CheckResult {
        self.check(CheckStatus::Unknown, subject.into(), message.into(), Some(fix.into()))
    }

    /// It works, and something will be lost or late.
    pub fn warning(
        self,
        subject: impl Into<String>,
        message: impl Into<String>,
        fix: impl Into<String>,
    ) -> CheckResult {
        self.check(CheckStatus::Warning, subject.into(), message.into(), Some(fix.into()))
    }

    /// The operator cannot do its work so.
    pub fn error(self, subject: impl Into<String>, message: impl Into<String>, fix: impl Into<String>) -> CheckResult {
        self.check(CheckStatus::Error, subject.into(), message.into(), Some(fix.into()))
    }

    fn check(self, status: CheckStatus, subject: String, message: String, fix: Option<String>) -> CheckResult {
        let fix = fix.filter(|fix| !fix.is_empty());
        CheckResult { id: self.name, subject, status, message, expected: self.expected, fix }
    }
}

/// How many checks have each status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CheckSummary {
    /// As it should be.
    pub ok: usize,
    /// Good to know.
    pub info: usize,
    /// Not found out.
    pub unknown: usize,
    /// Lost or late.
    pub warning: usize,
    /// Cannot work.
    pub error: usize,
}

/// All checks, in the order in which a person would mend things.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DoctorReport {
    /// The worst status of all.
    pub status: CheckStatus,
    /// How many checks have each status.
    pub summary: CheckSummary,
    /// The checks.
    pub checks: Vec<CheckResult>,
}

impl DoctorReport {
    /// The report of these checks.
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

    /// 0: nothing to do; 1: an error; 2: only warnings and unknowns.
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
    fn the_worst_check_decides_the_exit_code() {
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
