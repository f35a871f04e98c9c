//! The verdict on one task at one control plane: one form for `explain`, by a plan or of a running operator, the read API and
//! its page.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use super::render::render_change;
use super::{Change, PlanEntry, PlanWarning, PlannedChange};

/// The changes that a run would make for a task now, or the reason for none.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskVerdict {
    /// The `ControlPlane`.
    pub control_plane: Arc<str>,
    /// The changes of the task, in the order of its steps; none where nothing is due.
    pub changes: Vec<PlanEntry>,
    /// Valid states that are probably unintended, for people.
    pub warnings: Vec<String>,
}

impl TaskVerdict {
    /// The verdicts on the task that these changes and warnings are of, by control plane.
    pub fn by_control_plane(changes: &[PlanEntry], warnings: &[PlanWarning]) -> Vec<Self> {
        let mut verdicts: BTreeMap<Arc<str>, Self> = BTreeMap::new();
        let at = |control_plane: &Arc<str>| Self {
            control_plane: Arc::clone(control_plane),
            changes: Vec::new(),
            warnings: Vec::new(),
        };
        for entry in changes {
            let name = &entry.control_plane;
            let verdict = verdicts.entry(Arc::clone(name)).or_insert_with(|| at(name));
            verdict.changes.push(entry.clone());
        }
        for warning in warnings {
            let name = &warning.control_plane;
            let verdict = verdicts.entry(Arc::clone(name)).or_insert_with(|| at(name));
            verdict.warnings.push(warning.message.clone());
        }
        verdicts.into_values().collect()
    }

    /// The first change that is due or that something is in the way of.
    pub fn due(&self) -> Option<&PlannedChange> {
        self.changes.iter().map(|entry| &entry.change).find(|change| change.change != Change::Unchanged)
    }

    /// The verdict as text with colours, a line for each part.
    pub fn render(&self) -> String {
        let mut text: String = self.changes.iter().map(render_change).collect();
        if self.changes.is_empty() {
            text.push_str("    nothing is due\n");
        }
        for warning in &self.warnings {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "      warning: {warning}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(control_plane: &str, change: Change, reason: &str) -> PlanEntry {
        PlanEntry {
            control_plane: control_plane.into(),
            task: None,
            change: PlannedChange::new(change, reason),
        }
    }

    #[test]
    fn verdict_is_of_one_control_plane_with_its_warnings() {
        let changes = [
            entry("kuma", Change::Unchanged, "as desired"),
            entry("consul", Change::Reject, "no tag"),
            entry("kuma", Change::Drain, "no longer declared"),
        ];
        let warning = PlanWarning {
            control_plane: "kuma".into(),
            task: String::new(),
            message: "no probe".into(),
            key: String::new(),
        };
        let verdicts = TaskVerdict::by_control_plane(&changes, &[warning]);
        let names: Vec<&str> = verdicts.iter().map(|verdict| &*verdict.control_plane).collect();
        assert_eq!(names, ["consul", "kuma"]);
        assert_eq!(verdicts[1].due().map(|change| change.change), Some(Change::Drain));
        assert_eq!((verdicts[1].changes.len(), &verdicts[1].warnings[..]), (2, &["no probe".to_owned()][..]));
    }

    #[test]
    fn verdict_without_changes_is_no_empty_text() {
        let verdict = TaskVerdict { control_plane: "kuma".into(), changes: Vec::new(), warnings: Vec::new() };
        assert_eq!((verdict.due(), verdict.render().lines().count()), (None, 1));
    }
}
