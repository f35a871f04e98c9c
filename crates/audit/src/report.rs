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
    Info,
    /// The rule could not be judged: a fact is missing.
    Unknown,
    /// It works for now, or less safely than it could.
    Warning,
    /// It fails, is refused, or never works.
    Error,
}

impl Severity {
    /// All, from the best to the worst.
    pub const ALL: [Self; 4] = [Self::Info, Self::Unknown, Self::Warning, Self::Error];

    /// The word in tables and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Info => "note",
            Self::Unknown => "unknown",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// A rule: what it forbids, why, and what to do where it is broken.
#[derive(Debug, PartialEq, Eq)]
pub struct AuditRule {
    /// `CONSUL-LOGIN-DISABLED` and its like, stable between versions.
    pub id: &'static str,
    /// How bad it is to break it; a finding may be milder.
    pub severity: Severity,
    /// What is wrong where it is broken.
    pub title: &'static str,
    /// Why that matters.
    pub rationale: &'static str,
    /// What to do.
    pub fix: &'static str,
    /// The public page that the rule follows from.
    pub source: &'static str,
}

/// Where something was found. At least one of file and resource is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
pub struct FindingLocation {
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

impl FindingLocation {
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
pub struct AuditFinding {
    /// The rule's id; `docs/reference/audit.md` explains each.
    pub rule: &'static str,
    /// How bad it is here.
    pub severity: Severity,
    /// Where.
    pub location: FindingLocation,
    /// What was found. Never holds a secret.
    pub message: String,
    /// Why it matters.
    pub rationale: &'static str,
    /// What to do.
    pub fix: String,
}

impl AuditRule {
    /// The rule is broken here.
    pub fn violation(&self, location: FindingLocation, message: impl Into<String>) -> AuditFinding {
        let fix = self.fix.to_owned();
        AuditFinding { rule: self.id, severity: self.severity, location, message: message.into(), rationale: self.rationale, fix }
    }

    /// Whether it is broken could not be found out.
    pub fn unknown(&self, location: FindingLocation, reason: impl Into<String>) -> AuditFinding {
        AuditFinding { severity: Severity::Unknown, ..self.violation(location, reason) }
    }
}

impl AuditFinding {
    /// The same, as bad as this.
    #[must_use]
    pub fn with_severity(self, severity: Severity) -> Self {
        Self { severity, ..self }
    }

    /// The same, with a fix that fits better.
    #[must_use]
    pub fn with_fix(self, fix: impl Into<String>) -> Self {
        Self { fix: fix.into(), ..self }
    }
}

/// How many findings have each severity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct AuditSummary {
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
pub struct AuditReport {
    /// The worst severity; absent where nothing was found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub highest_severity: Option<Severity>,
    /// How many there are.
    pub summary: AuditSummary,
    /// The findings.
    pub findings: Vec<AuditFinding>,
    /// What was not looked at since nobody asked for it, and what to give so that it is. Nothing is wrong with that.
    #[serde(rename = "notChecked")]
    pub not_checked: Vec<String>,
}

impl AuditReport {
    /// The report of these findings: each once, the worst first, then by rule and place.
    pub fn new(mut findings: Vec<AuditFinding>, definitions: usize) -> Self {
        findings.sort_by(|a, b| {
            let key = |one: &AuditFinding| (Reverse(one.severity), one.rule);
            key(a).cmp(&key(b)).then_with(|| a.location.cmp(&b.location)).then_with(|| a.message.cmp(&b.message))
        });
        findings.dedup();
        let count = |severity| findings.iter().filter(|one| one.severity == severity).count();
        let summary = AuditSummary {
            error: count(Severity::Error),
            warning: count(Severity::Warning),
            unknown: count(Severity::Unknown),
            note: count(Severity::Info),
            definitions,
        };
        let highest_severity = findings.iter().map(|one| one.severity).max();
        Self { highest_severity, summary, findings, not_checked: Vec::new() }
    }

    /// The same, which says that this was not looked at.
    #[must_use]
    pub fn with_not_checked(self, not_checked: Vec<String>) -> Self {
        Self { not_checked, ..self }
    }

    /// 0: nothing to do; 1: an error; 2: only warnings and unknowns.
    pub fn exit_code(&self) -> u8 {
        match self.highest_severity {
            None | Some(Severity::Info) => 0,
            Some(Severity::Unknown | Severity::Warning) => 2,
            Some(Severity::Error) => 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: AuditRule =
        AuditRule { id: "A-B", severity: Severity::Error, title: "", rationale: "", fix: "mend it", source: "" };

    #[test]
    fn the_worst_finding_decides_the_exit_code() {
        let found = |severity| RULE.violation(FindingLocation::default(), "x").with_severity(severity);
        for (severities, code) in [
            (vec![], 0),
            (vec![Severity::Info], 0),
            (vec![Severity::Info, Severity::Unknown], 2),
            (vec![Severity::Warning], 2),
            (vec![Severity::Warning, Severity::Error], 1),
        ] {
            let report = AuditReport::new(severities.iter().copied().map(found).collect(), 1);
            assert_eq!(report.exit_code(), code, "{severities:?}");
        }
    }

    #[test]
    fn report_dedups_findings_and_sorts_by_severity() {
        let one = RULE.violation(FindingLocation::resource("a"), "x");
        let milder = one.clone().with_severity(Severity::Info);
        let report = AuditReport::new(vec![milder.clone(), one.clone(), one.clone()], 0);
        assert_eq!(report.findings, [one, milder]);
    }
}
