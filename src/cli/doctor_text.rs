//! The report of `doctor` as text: problems first, and a summary of the rest.

use std::cmp::Reverse;
use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};

use super::terminal::{count, distinct, paragraph};
use ecs_mesh_doctor::{CheckResult, CheckStatus, DoctorReport};
use ecs_mesh_model::docs_url;

/// The indent of what stands below a check.
const INDENT: &str = "         ";

/// Which checks have a line of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DoctorDetail {
    /// Those that did not pass.
    Problems,
    /// All.
    All,
}

/// Renders the report with ANSI colours, for a terminal of this width: the worst status first.
pub(super) fn render_text(report: &DoctorReport, detail: DoctorDetail, width: usize) -> String {
    let mut checks: Vec<&CheckResult> = report.checks.iter().collect();
    // Within a status, the order in which to fix them.
    checks.sort_by_key(|check| Reverse(check.status));
    let (shown, passed): (Vec<&CheckResult>, Vec<&CheckResult>) =
        checks.into_iter().partition(|check| detail == DoctorDetail::All || check.status > CheckStatus::Ok);
    let mut text = String::new();
    for check in shown {
        text.push_str(&render_check(check, width));
    }
    if !passed.is_empty() {
        let style = style(CheckStatus::Ok);
        let line = paragraph("ok       ", &passed_by_id(&passed), width);
        // Writing to a String cannot fail, here and below.
        let _ = write!(text, "{style}ok{style:#}{}", line.strip_prefix("ok").unwrap_or(&line));
    }
    text.push('\n');
    text + &paragraph("", &summary(report), width)
}

fn render_check(check: &CheckResult, width: usize) -> String {
    let style = style(check.status);
    let word = check.status.as_str();
    let what = format!("{}  {}: {}", check.id, check.subject, check.message);
    let line = paragraph(&format!("{word:<7}  "), &what, width);
    let mut text = format!("{style}{word}{style:#}{}", line.strip_prefix(word).unwrap_or(&line));
    if check.status > CheckStatus::Info {
        text.push_str(&paragraph(&format!("{INDENT}expected: "), check.expected, width));
    }
    if let Some(fix) = &check.fix {
        text.push_str(&paragraph(&format!("{INDENT}fix:      "), fix, width));
    }
    text
}

/// The names of the checks, each once, with the number of objects where there are several.
fn passed_by_id(passed: &[&CheckResult]) -> String {
    let ids: Vec<String> = distinct(passed.iter().map(|check| check.id))
        .into_iter()
        .map(|id| match passed.iter().filter(|check| check.id == id).count() {
            1 => id.to_owned(),
            several => format!("{id} ({several})"),
        })
        .collect();
    format!("{}: {}", count(passed.len(), "check"), ids.join(", "))
}

fn summary(report: &DoctorReport) -> String {
    let summary = report.summary;
    format!(
        "{}, {}, {} unknown, {} info, {} ok; {} explains each check",
        count(summary.error, "error"),
        count(summary.warning, "warning"),
        summary.unknown,
        summary.info,
        summary.ok,
        docs_url("reference/doctor.md")
    )
}

fn style(status: CheckStatus) -> Style {
    let colour = match status {
        CheckStatus::Ok => AnsiColor::Green,
        CheckStatus::Info => AnsiColor::Cyan,
        CheckStatus::Unknown => AnsiColor::Magenta,
        CheckStatus::Warning => AnsiColor::Yellow,
        CheckStatus::Error => AnsiColor::Red,
    };
    colour.on_default().bold()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ecs_mesh_doctor::CheckKind;

    const QUEUE: CheckKind = CheckKind { name: "queue.policy", expected: "the rules may send" };
    const ROLE: CheckKind = CheckKind { name: "permissions.get-role", expected: "tags are readable" };

    fn report() -> DoctorReport {
        DoctorReport::new(vec![
            QUEUE.ok("rule/a", "this rule may send"),
            ROLE.info("role/a", "no task uses it"),
            ROLE.ok("role/b", "4 tags were read"),
            ROLE.ok("role/c", "4 tags were read"),
            QUEUE.warning(
                "rule/b",
                "an unrelated sender may send as well, and a lot of words more",
                "remove it",
            ),
            ROLE.error(
                "role/d",
                "access denied",
                "aws iam put-role-policy --role-name operator --policy-name read",
            ),
        ])
    }

    fn plain(detail: DoctorDetail, width: usize) -> String {
        anstream::adapter::strip_str(&render_text(&report(), detail, width)).to_string()
    }

    #[test]
    fn errors_come_first_and_passed_checks_are_summarised() {
        let text = plain(DoctorDetail::Problems, 110);
        let words: Vec<&str> = text
            .lines()
            .filter(|line| !line.starts_with(' '))
            .filter_map(|line| line.split_whitespace().next())
            .take(4)
            .collect();
        assert_eq!(words, ["error", "warning", "info", "ok"], "{text}");
        assert!(text.contains("ok       3 checks: queue.policy, permissions.get-role (2)\n"), "{text}");
        assert!(!text.contains("4 tags were read"), "{text}");
        assert_eq!(plain(DoctorDetail::All, 110).matches("4 tags were read").count(), 2);
    }

    #[test]
    fn report_fits_the_width_and_keeps_commands_whole() {
        let text = plain(DoctorDetail::Problems, 60);
        let wide: Vec<&str> =
            text.lines().filter(|line| line.chars().count() > 60 && line.trim().contains(' ')).collect();
        assert_eq!(
            wide,
            ["         fix:      aws iam put-role-policy --role-name operator --policy-name read"]
        );
    }
}
