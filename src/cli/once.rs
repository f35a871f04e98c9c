//! The summary and the exit code of `run --once`.

use std::fmt::Write as _;
use std::process::ExitCode;

use crate::operator::OnceReport;

/// Nothing is left, but a person must decide or correct something.
const EXIT_ATTENTION: u8 = 3;

/// The report as text.
pub(super) fn summary(report: &OnceReport) -> String {
    let mut text = String::new();
    let changes = &report.changes;
    let count = |change: &str| changes.get(change).copied().unwrap_or_default();
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "{} created, {} updated, {} drained, {} removed",
        count("create"),
        count("update"),
        count("drain"),
        count("remove")
    );
    for (control_plane, owned) in &report.owned {
        let _ = writeln!(
            text,
            "control plane {control_plane}: {} registrations ready, {} drained",
            owned.ready, owned.drained
        );
    }
    for ((control_plane, what), count) in &report.attention {
        let _ = writeln!(text, "needs attention at {control_plane}: {count} {what}");
    }
    for reason in &report.unfinished {
        let _ = writeln!(text, "unfinished: {reason}");
    }
    text
}

/// A run that did not finish is an error in any case, so that it is not mistaken for one that did.
pub(super) fn exit_code(report: &OnceReport) -> ExitCode {
    match (report.unfinished.is_empty(), report.attention.is_empty()) {
        (false, _) => ExitCode::FAILURE,
        (true, false) => ExitCode::from(EXIT_ATTENTION),
        (true, true) => ExitCode::SUCCESS,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_code_tells_unfinished_from_attention() {
        let done = OnceReport::default();
        let attention =
            OnceReport { attention: [(("kuma".into(), "rejected".to_owned()), 2)].into(), ..done.clone() };
        let unfinished =
            OnceReport { unfinished: vec!["stopped by a signal".to_owned()], ..attention.clone() };
        for (report, code) in [(&done, 0), (&attention, 3), (&unfinished, 1)] {
            assert_eq!(format!("{:?}", exit_code(report)), format!("{:?}", ExitCode::from(code)));
        }
        let text = summary(&unfinished);
        assert!(
            text.contains("needs attention at kuma: 2 rejected\nunfinished: stopped by a signal\n"),
            "{text}"
        );
    }
}
