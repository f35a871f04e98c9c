//! The report as text.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};

use super::report::{AuditFinding, AuditReport, FindingLocation, Severity};

/// Renders the report with ANSI colours.
pub fn render_text(report: &AuditReport) -> String {
    let widest = report.findings.iter().map(|finding| finding.rule.len()).max().unwrap_or(0);
    let mut text = String::new();
    for (finding, others) in group_by_role(&report.findings) {
        let style = style(finding.severity);
        // Writing to a String cannot fail, here and below.
        let _ = writeln!(
            text,
            "{style}{:<7}{style:#}  {:<widest$}  {}: {}",
            finding.severity.as_str(),
            finding.rule,
            place(finding),
            finding.message
        );
        if !others.is_empty() {
            let others: Vec<String> = others.iter().map(|one| one.location.subject()).collect();
            let _ = writeln!(text, "         also: {}", others.join(", "));
        }
        let _ = writeln!(text, "         rationale: {}", finding.rationale);
        let _ = writeln!(text, "         fix: {}", finding.fix);
    }
    for check in &report.not_checked {
        let _ = writeln!(text, "not checked: {check}");
    }
    let summary = report.summary;
    let plural = |count: usize, word: &str| format!("{count} {word}{}", if count == 1 { "" } else { "s" });
    if !report.findings.is_empty() || !report.not_checked.is_empty() {
        text.push('\n');
    }
    let _ = writeln!(
        text,
        "{}: {}, {}, {} unknown, {} info; docs/reference/audit.md explains each rule",
        plural(summary.definitions, "task definition"),
        plural(summary.error, "error"),
        plural(summary.warning, "warning"),
        summary.unknown,
        summary.info
    );
    text
}

/// Groups findings of one role, which several files may name.
fn group_by_role(findings: &[AuditFinding]) -> Vec<(&AuditFinding, Vec<&AuditFinding>)> {
    let mut groups: Vec<(&AuditFinding, Vec<&AuditFinding>)> = Vec::new();
    for finding in findings {
        let is_same = |(first, _): &&mut (&AuditFinding, Vec<&AuditFinding>)| {
            finding.location.file.is_some()
                && finding.location.resource.is_some()
                && FindingLocation { file: None, line: None, ..first.location.clone() }
                    == FindingLocation { file: None, line: None, ..finding.location.clone() }
                && (first.rule, first.severity, &first.message, &first.fix)
                    == (finding.rule, finding.severity, &finding.message, &finding.fix)
        };
        match groups.iter_mut().find(is_same) {
            Some((_, others)) => others.push(finding),
            None => groups.push((finding, Vec::new())),
        }
    }
    groups
}

fn place(finding: &AuditFinding) -> String {
    let at = &finding.location;
    let mut details: Vec<&str> = Vec::new();
    if at.file.is_some() {
        details.extend(at.resource.as_deref());
    }
    details.extend(at.container.as_deref());
    details.extend(at.field.as_deref());
    let subject = at.subject();
    if details.is_empty() { subject } else { format!("{subject} ({})", details.join(", ")) }
}

fn style(severity: Severity) -> Style {
    let colour = match severity {
        Severity::Info => AnsiColor::Cyan,
        Severity::Unknown => AnsiColor::Magenta,
        Severity::Warning => AnsiColor::Yellow,
        Severity::Error => AnsiColor::Red,
    };
    colour.on_default().bold()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules_catalog::{NETWORK_MODE, ROLE_GET_ROLE};

    #[test]
    fn text_groups_role_findings_of_several_files() {
        let at = |file: &str, resource: Option<&str>| FindingLocation {
            file: Some(file.into()),
            resource: resource.map(str::to_owned),
            ..FindingLocation::default()
        };
        let of_role = |file| ROLE_GET_ROLE.violation(at(file, Some("arn:role")), "denied by IAM");
        let of_file = |file| NETWORK_MODE.violation(at(file, None), "bridge mode");
        let findings = vec![of_role("a.json"), of_role("b.json"), of_file("a.json"), of_file("b.json")];
        let text = render_text(&AuditReport::new(findings, 2));
        assert_eq!(text.matches("denied by IAM").count(), 1, "{text}");
        assert!(text.contains("also: b.json"), "{text}");
        assert_eq!(text.matches("bridge mode").count(), 2, "each needs its own fix: {text}");
    }
}
