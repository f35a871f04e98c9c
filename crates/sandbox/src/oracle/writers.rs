//! Judges that one process writes at a time, by the label in which each process of the operator names itself. Removals name
//! none.

use std::collections::BTreeSet;

use serde_json::Value;

use super::label;
use crate::kuma::KumaJournalEntry;

/// The process that wrote the body.
const PROCESS_LABEL: &str = "ecs-mesh.dev/process";

/// The processes that have written.
#[derive(Clone, Debug, Default)]
pub(super) struct WritingProcesses {
    current: Option<String>,
    former: BTreeSet<String>,
}

impl WritingProcesses {
    /// Records a write. Returns whether its process wrote although another one had written since.
    pub(super) fn record(&mut self, entry: &KumaJournalEntry) -> bool {
        let Some(process) = entry.after.as_ref().and_then(|body| label(body, PROCESS_LABEL)) else {
            return false;
        };
        if self.current.as_deref() != Some(process) {
            self.former.extend(self.current.replace(process.to_owned()));
        }
        self.former.contains(process)
    }

    /// The number of processes.
    pub(super) fn count(&self) -> usize {
        let is_new = |current: &String| !self.former.contains(current);
        self.former.len() + usize::from(self.current.as_ref().is_some_and(is_new))
    }
}

/// Whether the write has changed something beside the process that it names.
pub(super) fn has_changed(entry: &KumaJournalEntry) -> bool {
    let (Some(before), Some(after)) = (&entry.before, &entry.after) else { return entry.changed };
    if label(before, PROCESS_LABEL) == label(after, PROCESS_LABEL) {
        return entry.changed;
    }
    let plain = |body: &Value| {
        let mut body = body.clone();
        if let Some(labels) = body["labels"].as_object_mut() {
            labels.remove(PROCESS_LABEL);
        }
        if let Some(fields) = body.as_object_mut() {
            fields.remove("modificationTime");
        }
        body
    };
    plain(before) != plain(after)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use ecs_mesh_model::Timestamp;

    fn written(before: Option<&str>, after: &str, address: &str) -> KumaJournalEntry {
        let body = |process: &str, address: &str| json!({"labels": {PROCESS_LABEL: process}, "networking": {"address": address}});
        KumaJournalEntry {
            at: Timestamp(0),
            method: "PUT",
            kind: "Dataplane",
            mesh: "default".to_owned(),
            name: "a".to_owned(),
            before: before.map(|process| body(process, "10.0.0.1")),
            after: Some(body(after, address)),
            changed: true,
        }
    }

    #[test]
    fn process_that_was_replaced_must_not_write() {
        let mut processes = WritingProcesses::default();
        for (process, expected) in [("a", false), ("a", false), ("b", false), ("b", false), ("a", true)] {
            assert_eq!(processes.record(&written(None, process, "10.0.0.1")), expected, "{process}");
        }
        let unnamed = KumaJournalEntry { after: Some(json!({})), ..written(None, "a", "") };
        assert!(!processes.record(&unnamed));
        assert_eq!(processes.count(), 2);
    }

    #[test]
    fn another_process_alone_is_no_change() {
        assert!(!has_changed(&written(Some("a"), "b", "10.0.0.1")));
        assert!(has_changed(&written(Some("a"), "b", "10.0.0.2")));
        let equal = KumaJournalEntry { changed: false, ..written(Some("a"), "a", "10.0.0.1") };
        assert!(!has_changed(&equal));
    }
}
