//! The report for people.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};

use super::report::{Finding, Report, Severity};

/// The report as text, with colours.
pub fn table(report: &Report) -> String {
    let widest = report.findings.iter().map(|finding| finding.rule.len()).max().unwrap_or(0);
    let mut text = String::new();
    for finding in &report.findings {
        let style = style(finding.severity);
        // Writing to a String cannot fail, here and below.
        let _ = writeln!(
            text,
            "{style}{:<7}{style:#}  {:<widest$}  {}: {}",
            finding.severity.as_str(),
            finding.rule,
            place(finding),
            finding.found
        );
        let _ = writeln!(text, "         why: {}", finding.why);
        let _ = writeln!(text, "         fix: {}", finding.fix);
    }
    let summary = report.summary;
    let plural = |count: usize, word: &str| format!("{count} {word}{}", if count == 1 { "" } else { "s" });
    if !report.findings.is_empty() {
        text.push('\n');
    }
    let _ = writeln!(
        text,
        "{}: {}, {}, {} unknown, {}; docs/reference/audit.md explains each rule",
        plural(summary.definitions, "task definition"),
        plural(summary.error, "error"),
        plural(summary.warning, "warning"),
        summary.unknown,
        plural(summary.note, "note")
    );
    text
}

fn place(finding: &Finding) -> String {
    let at = &finding.at;
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
        Severity::Note => AnsiColor::Cyan,
        Severity::Unknown => AnsiColor::Magenta,
        Severity::Warning => AnsiColor::Yellow,
        Severity::Error => AnsiColor::Red,
    };
    colour.on_default().bold()
}
