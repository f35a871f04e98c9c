//! The report: each finding with its location, severity, rationale and fix.

use std::cmp::Reverse;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::Serialize;

/// Severity of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Informational; nothing breaks.
    Info,
    /// The rule could not be evaluated: a fact is missing.
    Unknown,
    /// Works for now, or less safely than possible.
    Warning,
    /// Fails, is refused, or never works.
    Error,
}

impl Severity {
    /// All severities, lowest first.
    pub const ALL: [Self; 4] = [Self::Info, Self::Unknown, Self::Warning, Self::Error];

    /// The word in text and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Unknown => "unknown",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// A rule of the catalogue.
#[derive(Debug, PartialEq, Eq)]
pub struct AuditRule {
    /// Id such as `CONSUL-LOGIN-DISABLED`; stable between versions.
    pub id: &'static str,
    /// Heading of the rule's group in the reference.
    pub group: &'static str,
    /// Severity of a violation; a finding may have a lower one.
    pub severity: Severity,
    /// The misconfiguration.
    pub title: &'static str,
    /// Why the rule matters.
    pub rationale: &'static str,
    /// How to fix a violation.
    pub fix: &'static str,
    /// The public page on which the rule is based.
    pub source: &'static str,
}

/// Location of a finding. At least one of `file` and `resource` is set.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
pub struct FindingLocation {
    /// The file, as given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<Arc<str>>,
    /// The line in the file, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// An ARN, `Workload/NAME`, or `consul/CONTROL-PLANE/KIND/NAME` or `kuma/CONTROL-PLANE/MESH/KIND` for an object there.
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
    /// The location of a named resource.
    pub fn resource(name: impl Into<String>) -> Self {
        Self { resource: Some(name.into()), ..Self::default() }
    }

    /// The same location, at a field.
    #[must_use]
    pub fn field(self, field: impl Into<String>) -> Self {
        Self { field: Some(field.into()), ..self }
    }

    /// `FILE:LINE`, or the resource's name.
    pub fn subject(&self) -> String {
        match (&self.file, self.line, &self.resource) {
            (Some(file), Some(line), _) => format!("{file}:{line}"),
            (Some(file), None, _) => file.to_string(),
            (None, _, Some(resource)) => resource.clone(),
            (None, _, None) => "this audit".to_owned(),
        }
    }
}

/// A finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct AuditFinding {
    /// The rule's id; `docs/reference/audit.md` explains each.
    pub rule: &'static str,
    /// The severity here.
    pub severity: Severity,
    /// The location.
    pub location: FindingLocation,
    /// The finding; never a secret.
    pub message: String,
    /// Why the rule matters.
    pub rationale: &'static str,
    /// How to fix the finding.
    pub fix: String,
}

impl AuditRule {
    /// A violation of the rule.
    pub fn violation(&self, location: FindingLocation, message: impl Into<String>) -> AuditFinding {
        let fix = self.fix.to_owned();
        AuditFinding {
            rule: self.id,
            severity: self.severity,
            location,
            message: message.into(),
            rationale: self.rationale,
            fix,
        }
    }

    /// The rule could not be evaluated.
    pub fn unknown(&self, location: FindingLocation, reason: impl Into<String>) -> AuditFinding {
        AuditFinding { severity: Severity::Unknown, ..self.violation(location, reason) }
    }
}

impl AuditFinding {
    /// The same finding with another severity.
    #[must_use]
    pub fn with_severity(self, severity: Severity) -> Self {
        Self { severity, ..self }
    }

    /// The same finding with a more specific fix.
    #[must_use]
    pub fn with_fix(self, fix: impl Into<String>) -> Self {
        Self { fix: fix.into(), ..self }
    }
}

/// Number of findings by severity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct AuditSummary {
    /// Findings with severity `error`.
    pub error: usize,
    /// Findings with severity `warning`.
    pub warning: usize,
    /// Findings with severity `unknown`.
    pub unknown: usize,
    /// Findings with severity `info`.
    pub info: usize,
    /// Number of checked task definitions.
    pub definitions: usize,
}

/// All findings, highest severity first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(title = "Report of ecs-mesh-operator audit")]
pub struct AuditReport {
    /// The highest severity; absent without findings.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub highest_severity: Option<Severity>,
    /// Number of findings by severity.
    pub summary: AuditSummary,
    /// The findings.
    pub findings: Vec<AuditFinding>,
    /// Checks that were not requested, with the flag that adds each. Without effect on the exit code.
    pub not_checked: Vec<String>,
}

/// The text as a sentence: with a capital letter, unless it begins with an identifier, and a full stop.
pub(crate) fn sentence(text: &str) -> String {
    let first_word = text.split_whitespace().next().unwrap_or_default();
    let is_identifier = !first_word.trim_end_matches([',', ':', ';']).bytes().all(|b| b.is_ascii_lowercase());
    let mut letters = text.chars();
    let first: String = match letters.next() {
        Some(letter) if !is_identifier => letter.to_uppercase().collect(),
        letter => letter.into_iter().collect(),
    };
    let end = if text.ends_with(['.', '?', '!']) { "" } else { "." };
    format!("{first}{}{end}", letters.as_str())
}

impl AuditReport {
    /// Builds the report: duplicates removed, highest severity first, then by rule and location.
    pub fn new(mut findings: Vec<AuditFinding>, definitions: usize) -> Self {
        findings.sort_by(|a, b| {
            let key = |one: &AuditFinding| (Reverse(one.severity), one.rule);
            key(a)
                .cmp(&key(b))
                .then_with(|| a.location.cmp(&b.location))
                .then_with(|| a.message.cmp(&b.message))
        });
        findings.dedup();
        let count = |severity| findings.iter().filter(|one| one.severity == severity).count();
        let summary = AuditSummary {
            error: count(Severity::Error),
            warning: count(Severity::Warning),
            unknown: count(Severity::Unknown),
            info: count(Severity::Info),
            definitions,
        };
        let highest_severity = findings.iter().map(|one| one.severity).max();
        Self { highest_severity, summary, findings, not_checked: Vec::new() }
    }

    /// The same report with checks that were not requested.
    #[must_use]
    pub fn with_not_checked(self, not_checked: Vec<String>) -> Self {
        Self { not_checked, ..self }
    }

    /// 0: no finding above `info`; 1: an error; 2: warnings or unknowns.
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

    const RULE: AuditRule = AuditRule {
        id: "A-B",
        group: "",
        severity: Severity::Error,
        title: "",
        rationale: "",
        fix: "fix",
        source: "",
    };

    #[test]
    fn exit_code_follows_the_highest_severity() {
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
