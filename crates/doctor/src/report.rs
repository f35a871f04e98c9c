//! What was found, how bad it is, and what to do about it.

use serde::Serialize;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
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

impl Status {
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
pub struct Id {
    /// `queue.policy` and its like, stable between versions.
    pub name: &'static str,
    /// What is needed, in a sentence's part.
    pub needs: &'static str,
}

/// One check and what came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Which check; `docs/reference/doctor.md` explains each.
    pub id: &'static str,
    /// What was looked at: a cluster, a rule, a control plane.
    pub about: String,
    /// How bad it is.
    pub status: Status,
    /// What was found. Never holds a secret.
    pub found: String,
    /// What is needed.
    pub needed: &'static str,
    /// What to do about it, where something is to be done: a command, or words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mend: Option<String>,
}

impl Id {
    /// All is well.
    pub fn ok(self, about: impl Into<String>, found: impl Into<String>) -> Check {
        self.check(Status::Ok, about.into(), found.into(), None)
    }

    /// Good to know.
    pub fn info(self, about: impl Into<String>, found: impl Into<String>) -> Check {
        self.check(Status::Info, about.into(), found.into(), None)
    }

    /// It could not be found out.
    pub fn unknown(
        self,
        about: impl Into<String>,
        found: impl Into<String>,
        mend: impl Into<String>,
    ) -> Check {
        self.check(Status::Unknown, about.into(), found.into(), Some(mend.into()))
    }

    /// It works, and something will be lost or late.
    pub fn warning(
        self,
        about: impl Into<String>,
        found: impl Into<String>,
        mend: impl Into<String>,
    ) -> Check {
        self.check(Status::Warning, about.into(), found.into(), Some(mend.into()))
    }

    /// The operator cannot do its work so.
    pub fn error(self, about: impl Into<String>, found: impl Into<String>, mend: impl Into<String>) -> Check {
        self.check(Status::Error, about.into(), found.into(), Some(mend.into()))
    }

    fn check(self, status: Status, about: String, found: String, mend: Option<String>) -> Check {
        let mend = mend.filter(|mend| !mend.is_empty());
        Check { id: self.name, about, status, found, needed: self.needs, mend }
    }
}

/// How many checks have each status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
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
pub struct Report {
    /// The worst status of all.
    pub status: Status,
    /// How many checks have each status.
    pub summary: Summary,
    /// The checks.
    pub checks: Vec<Check>,
}

impl Report {
    /// The report of these checks.
    pub fn new(checks: Vec<Check>) -> Self {
        let count = |status| checks.iter().filter(|check| check.status == status).count();
        let summary = Summary {
            ok: count(Status::Ok),
            info: count(Status::Info),
            unknown: count(Status::Unknown),
            warning: count(Status::Warning),
            error: count(Status::Error),
        };
        let status = checks.iter().map(|check| check.status).max().unwrap_or(Status::Ok);
        Self { status, summary, checks }
    }

    /// 0: nothing to do; 1: an error; 2: only warnings and unknowns.
    pub fn exit_code(&self) -> u8 {
        match self.status {
            Status::Ok | Status::Info => 0,
            Status::Unknown | Status::Warning => 2,
            Status::Error => 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_check_decides_the_exit_code() {
        let id = Id { name: "a.b", needs: "x" };
        for (checks, code) in [
            (vec![], 0),
            (vec![id.ok("", ""), id.info("", "")], 0),
            (vec![id.ok("", ""), id.unknown("", "", "")], 2),
            (vec![id.warning("", "", ""), id.unknown("", "", "")], 2),
            (vec![id.error("", "", ""), id.warning("", "", "")], 1),
        ] {
            assert_eq!(Report::new(checks.clone()).exit_code(), code, "{checks:?}");
        }
    }

    #[test]
    fn statuses_are_ordered_from_good_to_bad() {
        assert!(Status::ALL.is_sorted());
    }
}
