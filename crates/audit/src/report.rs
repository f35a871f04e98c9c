//! What was found, where, how bad it is, why it matters and what to do about it.

use std::cmp::Reverse;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::Serialize;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Good to know; nothing breaks.
    Note,
    /// The rule could not be judged: a fact is missing.
    Unknown,
    /// It works for now, or less safely than it could.
    Warning,
    /// It fails, is refused, or never works.
    Error,
}

impl Severity {
    /// All, from the best to the worst.
    pub const ALL: [Self; 4] = [Self::Note, Self::Unknown, Self::Warning, Self::Error];

    /// The word in tables and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Unknown => "unknown",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// A rule: what it forbids, why, and what to do where it is broken.
#[derive(Debug, PartialEq, Eq)]
pub struct Rule {
    /// `CONSUL-LOGIN-DISABLED` and its like, stable between versions.
    pub id: &'static str,
    /// How bad it is to break it; a finding may be milder.
    pub severity: Severity,
    /// What is wrong where it is broken.
    pub title: &'static str,
    /// Why that matters.
    pub why: &'static str,
    /// What to do.
    pub fix: &'static str,
    /// The public page that the rule follows from.
    pub source: &'static str,
}

/// Where something was found. At least one of file and resource is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
pub struct Place {
    /// The file, as it was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<Arc<str>>,
    /// The line in it, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// An ARN, or for what Consul holds `consul/CONTROL-PLANE/KIND/NAME`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// The container of the task definition.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// The field, such as `networkMode` or `CONSUL_ECS_CONFIG_JSON.consulLogin.enabled`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
}

impl Place {
    /// Something that has a name of its own.
    pub fn resource(name: impl Into<String>) -> Self {
        Self { resource: Some(name.into()), ..Self::default() }
    }

    /// The same, at a field of it.
    #[must_use]
    pub fn field(self, field: impl Into<String>) -> Self {
        Self { field: Some(field.into()), ..self }
    }

    /// For a person: `FILE:LINE` or the resource's name.
    pub fn subject(&self) -> String {
        match (&self.file, self.line, &self.resource) {
            (Some(file), Some(line), _) => format!("{file}:{line}"),
            (Some(file), None, _) => file.to_string(),
            (None, _, Some(resource)) => resource.clone(),
            (None, _, None) => "this audit".to_owned(),
        }
    }
}

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Finding {
    /// The rule's id; `docs/reference/audit.md` explains each.
    pub rule: &'static str,
    /// How bad it is here.
    pub severity: Severity,
    /// Where.
    pub at: Place,
    /// What was found. Never holds a secret.
    pub found: String,
    /// Why it matters.
    pub why: &'static str,
    /// What to do.
    pub fix: String,
}

impl Rule {
    /// The rule is broken here.
    pub fn broken(&self, at: Place, found: impl Into<String>) -> Finding {
        let fix = self.fix.to_owned();
        Finding { rule: self.id, severity: self.severity, at, found: found.into(), why: self.why, fix }
    }

    /// Whether it is broken could not be found out.
    pub fn unknown(&self, at: Place, reason: impl Into<String>) -> Finding {
        Finding { severity: Severity::Unknown, ..self.broken(at, reason) }
    }
}

impl Finding {
    /// The same, as bad as this.
    #[must_use]
    pub fn but(self, severity: Severity) -> Self {
        Self { severity, ..self }
    }

    /// The same, with a fix that fits better.
    #[must_use]
    pub fn fix(self, fix: impl Into<String>) -> Self {
        Self { fix: fix.into(), ..self }
    }
}

/// How many findings have each severity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Summary {
    /// Fails or never works.
    pub error: usize,
    /// Works less safely.
    pub warning: usize,
    /// Could not be judged.
    pub unknown: usize,
    /// Good to know.
    pub note: usize,
    /// Task definitions that were judged.
    pub definitions: usize,
}

/// All findings, the worst first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(title = "What ecs-mesh-operator audit found")]
pub struct Report {
    /// The worst severity; absent where nothing was found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worst: Option<Severity>,
    /// How many there are.
    pub summary: Summary,
    /// The findings.
    pub findings: Vec<Finding>,
    /// What was not looked at since nobody asked for it, and what to give so that it is. Nothing is wrong with that.
    #[serde(rename = "notChecked")]
    pub not_checked: Vec<String>,
}

impl Report {
    /// The report of these findings: each once, the worst first, then by rule and place.
    pub fn new(mut findings: Vec<Finding>, definitions: usize) -> Self {
        findings.sort_by(|a, b| {
            let key = |one: &Finding| (Reverse(one.severity), one.rule);
            key(a).cmp(&key(b)).then_with(|| a.at.cmp(&b.at)).then_with(|| a.found.cmp(&b.found))
        });
        findings.dedup();
        let count = |severity| findings.iter().filter(|one| one.severity == severity).count();
        let summary = Summary {
            error: count(Severity::Error),
            warning: count(Severity::Warning),
            unknown: count(Severity::Unknown),
            note: count(Severity::Note),
            definitions,
        };
        let worst = findings.iter().map(|one| one.severity).max();
        Self { worst, summary, findings, not_checked: Vec::new() }
    }

    /// The same, which says that this was not looked at.
    #[must_use]
    pub fn without(self, not_checked: Vec<String>) -> Self {
        Self { not_checked, ..self }
    }

    /// 0: nothing to do; 1: an error; 2: only warnings and unknowns.
    pub fn exit_code(&self) -> u8 {
        match self.worst {
            None | Some(Severity::Note) => 0,
            Some(Severity::Unknown | Severity::Warning) => 2,
            Some(Severity::Error) => 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: Rule =
        Rule { id: "A-B", severity: Severity::Error, title: "", why: "", fix: "mend it", source: "" };

    #[test]
    fn the_worst_finding_decides_the_exit_code() {
        let found = |severity| RULE.broken(Place::default(), "x").but(severity);
        for (severities, code) in [
            (vec![], 0),
            (vec![Severity::Note], 0),
            (vec![Severity::Note, Severity::Unknown], 2),
            (vec![Severity::Warning], 2),
            (vec![Severity::Warning, Severity::Error], 1),
        ] {
            let report = Report::new(severities.iter().copied().map(found).collect(), 1);
            assert_eq!(report.exit_code(), code, "{severities:?}");
        }
    }

    #[test]
    fn what_is_found_twice_is_told_once_and_the_worst_first() {
        let one = RULE.broken(Place::resource("a"), "x");
        let milder = one.clone().but(Severity::Note);
        let report = Report::new(vec![milder.clone(), one.clone(), one.clone()], 0);
        assert_eq!(report.findings, [one, milder]);
    }
}
