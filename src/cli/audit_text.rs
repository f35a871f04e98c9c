//! The report of `audit` as a table: a row for each rule, with its places below.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};

use super::terminal::{count, distinct, paragraph};
use ecs_mesh_audit::{AuditFinding, AuditReport, FindingLocation, Severity, rules_catalog};
use ecs_mesh_model::docs_url;

/// The indent of what stands below a row.
const INDENT: &str = "    ";

/// Renders the report with ANSI colours, for a terminal of this width.
pub(super) fn render_text(report: &AuditReport, width: usize) -> String {
    let rules = rows(&report.findings);
    let widest = rules.iter().map(|row| row[0].rule.len()).max().unwrap_or(0).max("RULE".len());
    let mut text = String::new();
    if !rules.is_empty() {
        let bold = Style::new().bold();
        // Writing to a String cannot fail, here and below.
        let _ = writeln!(text, "{bold}{:<8}  {:<widest$}  COUNT  FINDING{bold:#}", "SEVERITY", "RULE");
    }
    for row in rules {
        let (rule, severity) = (row[0].rule, row[0].severity);
        let title = rules_catalog::by_id(rule).map_or(rule, |rule| rule.title);
        let columns = format!("{:<8}  {rule:<widest$}  {:>5}  ", severity.as_str(), row.len());
        let line = paragraph(&columns, title, width);
        let (word, rest) = line.split_at(severity.as_str().len());
        let style = style(severity);
        let _ = write!(text, "{style}{word}{style:#}{rest}");
        text.push_str(&details(row, width));
    }
    if !report.findings.is_empty() {
        text.push('\n');
    }
    for check in &report.not_checked {
        text.push_str(&paragraph("not checked: ", check, width));
    }
    if !report.not_checked.is_empty() {
        text.push('\n');
    }
    text + &paragraph("", &summary(report), width)
}

fn summary(report: &AuditReport) -> String {
    let summary = report.summary;
    format!(
        "{}: {}, {}, {} unknown, {} info; {} explains each rule",
        count(summary.definitions, "task definition"),
        count(summary.error, "error"),
        count(summary.warning, "warning"),
        summary.unknown,
        summary.info,
        docs_url("reference/audit.md")
    )
}

/// The findings by severity and rule. The report sorts them so.
fn rows(findings: &[AuditFinding]) -> Vec<&[AuditFinding]> {
    findings.chunk_by(|one, next| (one.severity, one.rule) == (next.severity, next.rule)).collect()
}

/// The rationale of a rule, each message with its places, and the fixes.
fn details(row: &[AuditFinding], width: usize) -> String {
    let mut text = String::new();
    for message in distinct(row.iter().map(|finding| finding.message.as_str())) {
        text.push_str(&paragraph(INDENT, message, width));
        let places: Vec<&FindingLocation> = row
            .iter()
            .filter(|finding| finding.message == message)
            .map(|finding| &finding.location)
            .collect();
        text.push_str(&render_places(&places, width));
    }
    text.push_str(&paragraph(&format!("{INDENT}rationale: "), row[0].rationale, width));
    for fix in distinct(row.iter().map(|finding| finding.fix.as_str())) {
        text.push_str(&paragraph(&format!("{INDENT}fix: "), fix, width));
    }
    text
}

/// The places with equal details, then those with a common start, in one paragraph each.
fn render_places(places: &[&FindingLocation], width: usize) -> String {
    let indent = format!("{INDENT}{INDENT}");
    let mut text = String::new();
    let all: Vec<(String, String, String)> = places
        .iter()
        .map(|place| {
            let (start, name) = split(&place.subject());
            (start, place_details(place), name)
        })
        .collect();
    for group in distinct(all.iter().map(|(start, details, _)| (start, details)).collect::<Vec<_>>().iter()) {
        let (start, details) = *group;
        let names = all
            .iter()
            .filter(|(own, with, _)| (own, with) == (start, details))
            .map(|(.., name)| name.as_str());
        let names = distinct(names);
        let at = if details.is_empty() { String::new() } else { format!(" ({details})") };
        match names.as_slice() {
            [name] => text.push_str(&paragraph(&indent, &format!("{start}{name}{at}"), width)),
            names if start.is_empty() => {
                text.push_str(&paragraph(&indent, &format!("{}{at}", names.join(", ")), width));
            }
            names => {
                text.push_str(&paragraph(&indent, &format!("{start}…{at}"), width));
                text.push_str(&paragraph(&format!("{indent}  "), &names.join(", "), width));
            }
        }
    }
    text
}

/// The start of an ARN or of an object's path, up to the last `/`, and the name. A file has no start.
fn split(subject: &str) -> (String, String) {
    let is_resource =
        ["arn:", "consul/", "kuma/", "Workload/"].iter().any(|start| subject.starts_with(start));
    match subject.rfind('/').filter(|_| is_resource) {
        Some(at) => (subject[..=at].to_owned(), subject[at + 1..].to_owned()),
        None => (String::new(), subject.to_owned()),
    }
}

fn place_details(at: &FindingLocation) -> String {
    let mut details: Vec<&str> = Vec::new();
    if at.file.is_some() {
        details.extend(at.resource.as_deref());
    }
    details.extend(at.container.as_deref());
    details.extend(at.field.as_deref());
    details.join(", ")
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
    use ecs_mesh_audit::rules_catalog::{NETWORK_MODE, ROLE_GET_ROLE};

    const ACCOUNT: &str = "arn:aws:ecs:eu-west-1:111122223333:task-definition";

    fn plain(report: &AuditReport, width: usize) -> String {
        anstream::adapter::strip_str(&render_text(report, width)).to_string()
    }

    fn of_file(file: &str, resource: Option<&str>) -> FindingLocation {
        FindingLocation {
            file: Some(file.into()),
            resource: resource.map(str::to_owned),
            ..FindingLocation::default()
        }
    }

    #[test]
    fn table_has_one_row_for_each_rule() {
        let findings = (1..=30)
            .map(|n| {
                let at = FindingLocation::resource(format!("{ACCOUNT}/svc-{n:02}:1")).field("networkMode");
                NETWORK_MODE.violation(at, "the mode is bridge")
            })
            .chain([
                ROLE_GET_ROLE.violation(FindingLocation::resource("arn:aws:iam::1:role/a"), "denied by IAM")
            ]);
        let text = plain(&AuditReport::new(findings.collect(), 30), 100);
        let rows: Vec<Vec<&str>> = text
            .lines()
            .filter(|line| line.starts_with("error"))
            .map(|line| line.split_whitespace().take(3).collect())
            .collect();
        assert_eq!(rows, [["error", ROLE_GET_ROLE.id, "1"], ["error", NETWORK_MODE.id, "30"]], "{text}");
        assert_eq!(text.matches("the mode is bridge").count(), 1, "{text}");
        assert_eq!(text.matches(ACCOUNT).count(), 1, "the common start is printed once: {text}");
        assert!((1..=30).all(|n| text.contains(&format!("svc-{n:02}:1"))), "{text}");
    }

    #[test]
    fn table_fits_the_width() {
        let findings = (1..=9).map(|n| {
            let at = FindingLocation::resource(format!("{ACCOUNT}/svc-{n}:1")).field("networkMode");
            NETWORK_MODE.violation(
                at,
                "a message of several words that does not fit into one line of the table at all",
            )
        });
        let report = AuditReport::new(findings.collect(), 9).with_not_checked(vec!["a word ".repeat(30)]);
        for width in [60, 80, 132] {
            let text = plain(&report, width);
            let is_word = |line: &str| !line.trim().contains(' ');
            let wide: Vec<&str> =
                text.lines().filter(|line| line.chars().count() > width && !is_word(line)).collect();
            assert!(wide.is_empty(), "{width}: {wide:#?}");
        }
    }

    #[test]
    fn each_fix_is_printed_once() {
        let findings = vec![
            ROLE_GET_ROLE.violation(of_file("a.json", Some("arn:role")), "denied by IAM"),
            ROLE_GET_ROLE.violation(of_file("b.json", Some("arn:role")), "denied by IAM"),
            ROLE_GET_ROLE
                .violation(of_file("b.json", Some("arn:other")), "denied by IAM")
                .with_fix("aws iam x"),
        ];
        let text = plain(&AuditReport::new(findings, 2), 100);
        assert!(text.contains("a.json, b.json (arn:role)"), "{text}");
        assert_eq!(text.matches("    fix: ").count(), 2, "{text}");
        assert!(text.lines().any(|line| line == "    fix: aws iam x"), "{text}");
    }
}
