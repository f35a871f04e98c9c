//! Deduplicates warnings of tasks: each is logged once and not at each retry. A warning that many tasks share is logged for
//! the first task, and then with a count each time the count has doubled.

use std::collections::BTreeMap;
use std::sync::Arc;

use ecs_mesh_model::TaskArn;

/// The active warnings of one control plane.
#[derive(Debug, Default)]
pub(super) struct WarningDeduper {
    by_task: BTreeMap<TaskArn, BTreeMap<&'static str, Arc<str>>>,
    groups: BTreeMap<WarningGroupKey, WarningGroup>,
    /// A group may have grown enough to be logged again.
    may_be_due: bool,
}

/// Tasks with the same reason and cause.
type WarningGroupKey = (&'static str, Arc<str>);

#[derive(Debug)]
struct WarningGroup {
    tasks: usize,
    /// The number of tasks when the group was last logged.
    told: usize,
    /// The latest task and its message.
    example: (TaskArn, String),
}

/// How new a warning is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Novelty {
    /// No task had it.
    New,
    /// Other tasks have it.
    Grouped,
    /// This task has it.
    Known,
}

/// How many tasks a group has.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct GroupCount {
    pub(super) reason: &'static str,
    pub(super) tasks: usize,
    /// One of the tasks.
    pub(super) example: TaskArn,
    /// Its message.
    pub(super) message: String,
}

impl WarningDeduper {
    /// Records a warning of a task. The key is the same for all tasks with the same cause, whatever their roles and services
    /// are called.
    pub(super) fn record(
        &mut self,
        task: &TaskArn,
        reason: &'static str,
        cause: &str,
        message: &str,
    ) -> Novelty {
        // Names contain task ids.
        let same = cause.replace(task.id().as_str(), "TASK");
        let before = self.by_task.get(task).and_then(|last_warnings| last_warnings.get(reason)).cloned();
        if before.as_deref() == Some(same.as_str()) {
            return Novelty::Known;
        }
        if let Some(before) = before {
            self.leave_group(&(reason, before));
        }
        let group = (reason, Arc::from(same));
        self.by_task.entry(task.clone()).or_default().insert(reason, Arc::clone(&group.1));
        let example = (task.clone(), message.to_owned());
        match self.groups.get_mut(&group) {
            None => {
                self.groups.insert(group, WarningGroup { tasks: 1, told: 1, example });
                Novelty::New
            }
            Some(extent) => {
                extent.tasks += 1;
                extent.example = example;
                self.may_be_due |= extent.is_due();
                Novelty::Grouped
            }
        }
    }

    /// A warning of the task is over. Whether the task had it.
    pub(super) fn resolve(&mut self, task: &TaskArn, reason: &'static str) -> bool {
        let Some(last_warnings) = self.by_task.get_mut(task) else { return false };
        let Some(cause) = last_warnings.remove(reason) else { return false };
        if last_warnings.is_empty() {
            self.by_task.remove(task);
        }
        self.leave_group(&(reason, cause));
        true
    }

    /// All warnings of the task are over. Returns their reasons.
    pub(super) fn resolve_all(&mut self, task: &TaskArn) -> Vec<&'static str> {
        let groups = self.by_task.remove(task).unwrap_or_default();
        groups.iter().for_each(|(reason, cause)| self.leave_group(&(reason, Arc::clone(cause))));
        groups.into_keys().collect()
    }

    fn leave_group(&mut self, group: &WarningGroupKey) {
        let Some(extent) = self.groups.get_mut(group) else { return };
        extent.tasks -= 1;
        extent.told = extent.told.min(extent.tasks);
        // If it returns, it is new.
        if extent.tasks == 0 {
            self.groups.remove(group);
        }
    }

    /// Whether [`Self::take_due`] may return a group.
    pub(super) fn has_due(&self) -> bool {
        self.may_be_due
    }

    /// Returns the groups that have at least doubled since they were last logged, and marks them as logged.
    pub(super) fn take_due(&mut self) -> Vec<GroupCount> {
        self.may_be_due = false;
        let grown = self.groups.iter_mut().filter(|(_, extent)| extent.is_due());
        let count = |((reason, _), extent): (&WarningGroupKey, &mut WarningGroup)| {
            extent.told = extent.tasks;
            let (example, message) = extent.example.clone();
            GroupCount { reason, tasks: extent.tasks, example, message }
        };
        grown.map(count).collect()
    }

    /// The reasons of the task's active warnings.
    pub(super) fn reasons_of(&self, task: &TaskArn) -> Vec<&'static str> {
        self.by_task.get(task).into_iter().flat_map(|reasons| reasons.keys().copied()).collect()
    }

    /// The number of tasks with an active warning, by reason.
    pub(super) fn counts_by_reason(&self) -> BTreeMap<&'static str, usize> {
        let mut troubles = BTreeMap::new();
        for ((reason, _), extent) in &self.groups {
            *troubles.entry(*reason).or_default() += extent.tasks;
        }
        troubles
    }
}

impl WarningGroup {
    fn is_due(&self) -> bool {
        self.tasks >= self.told * 2
    }
}

/// The grouping key of a server's message: the message without names, paths and ids.
pub(super) fn group_key(words: &str) -> String {
    let is_name = |word: &str| {
        let digits = word.bytes().filter(u8::is_ascii_digit).count();
        let is_status = digits == 3 && word.len() == 3;
        // A field path such as `networking.inbound[0].port` is part of the cause.
        word.contains(['/', '@']) || (digits > 0 && !is_status && !word.contains('['))
    };
    // Names are in double quotes.
    let words: String = words.split('"').step_by(2).collect();
    let words = words.split(|c: char| c.is_whitespace() || matches!(c, '\'' | '(' | ')' | ',' | ';'));
    let words = words.map(|word| word.trim_matches([':', '.']));
    words.filter(|word| !word.is_empty() && !is_name(word)).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGE: &str = "role a: tag x is missing";

    fn task(n: usize) -> TaskArn {
        TaskArn::parse(&format!("arn:aws:ecs:eu-west-1:111122223333:task/c/{n:032x}")).unwrap()
    }

    fn note(deduper: &mut WarningDeduper, n: usize) -> Novelty {
        deduper.record(&task(n), "rejected", MESSAGE, MESSAGE)
    }

    #[test]
    fn warnings_of_one_role_log_one_line_and_a_count() {
        let mut deduper = WarningDeduper::default();
        let firsts = (0..500).filter(|n| note(&mut deduper, *n) == Novelty::New).count();
        assert_eq!(firsts, 1);
        assert!(deduper.has_due());
        let due = deduper.take_due();
        assert_eq!(due.len(), 1);
        assert_eq!((due[0].tasks, due[0].message.as_str()), (500, MESSAGE));
        assert!(deduper.take_due().is_empty());
        assert_eq!(deduper.counts_by_reason(), [("rejected", 500)].into());
    }

    #[test]
    fn resolved_warning_is_new_again() {
        let mut deduper = WarningDeduper::default();
        assert_eq!(deduper.record(&task(1), "removal_failed", MESSAGE, MESSAGE), Novelty::New);
        assert_eq!(note(&mut deduper, 1), Novelty::New);
        deduper.resolve(&task(1), "removal_failed");
        assert_eq!(deduper.counts_by_reason(), [("rejected", 1)].into());
        assert_eq!(deduper.record(&task(2), "removal_failed", MESSAGE, MESSAGE), Novelty::New);
        deduper.resolve(&task(3), "removal_failed");
    }

    #[test]
    fn group_key_drops_quoted_names() {
        let words = |name: &str| format!("Permission denied: lacks permission 'service:write' on \"{name}\"");
        assert_eq!(group_key(&words("kv")), group_key(&words("web")));
        assert_ne!(group_key(&words("kv")), group_key("Permission denied: lacks permission 'acl:write'"));
    }

    #[test]
    fn group_count_is_logged_on_doubling() {
        let mut deduper = WarningDeduper::default();
        let mut lines = 0;
        for n in 0..500 {
            lines += usize::from(note(&mut deduper, n) == Novelty::New);
            lines += deduper.take_due().len();
        }
        assert_eq!(lines, 9);
    }

    #[test]
    fn warning_is_logged_again_when_it_changes() {
        let mut deduper = WarningDeduper::default();
        assert_eq!(note(&mut deduper, 1), Novelty::New);
        assert_eq!(note(&mut deduper, 1), Novelty::Known);
        assert_eq!(deduper.record(&task(1), "rejected", "another", "another"), Novelty::New);
        assert_eq!(deduper.record(&task(2), "rejected", "another", "another"), Novelty::Grouped);
        assert_eq!(deduper.counts_by_reason(), [("rejected", 2)].into());
    }

    #[test]
    fn group_resolved_for_all_tasks_is_new_again() {
        let mut deduper = WarningDeduper::default();
        note(&mut deduper, 1);
        note(&mut deduper, 2);
        deduper.resolve_all(&task(1));
        assert_eq!(note(&mut deduper, 1), Novelty::Grouped);
        deduper.resolve_all(&task(1));
        deduper.resolve_all(&task(2));
        assert!(deduper.counts_by_reason().is_empty());
        assert_eq!(note(&mut deduper, 1), Novelty::New);
    }

    #[test]
    fn warnings_of_many_roles_group_by_cause() {
        let mut deduper = WarningDeduper::default();
        let words = |n: usize| format!("role service-{n}-task: tag x is missing");
        let firsts = (0..1_000)
            .filter(|n| deduper.record(&task(*n), "rejected", "tag x missing", &words(*n)) == Novelty::New)
            .count();
        let due = deduper.take_due();
        assert_eq!((firsts, due.len(), due[0].tasks), (1, 1, 1_000));
        assert_eq!(due[0].message, words(999), "the words are those of one of them");
    }

    #[test]
    fn group_key_ignores_names_in_server_errors() {
        let of = |service: &str, id: usize| {
            group_key(&format!(
                "PUT /v1/txn: the service {service}-{id:032x} on arn:aws:ecs:eu-west-1:111122223333:cluster/c was not \
                 removed (Permission denied: token with AccessorID 'a1b2c3d4-0000-{id:04x}' lacks permission \
                 'service:write' on \"{service}-{id:032x}\"); it needs `service_prefix \"\" {{ policy = \"write\" }}`"
            ))
        };
        assert_eq!(of("kv", 1), of("demo-app", 999));
        let kuma = |id: usize, field: &str| {
            group_key(&format!(
                "PUT /meshes/default/dataplanes/{id:032x}: Kuma answered 400 ({field}: is not a port)"
            ))
        };
        let field = "networking.inbound[0].port";
        assert_eq!(kuma(1, field), kuma(2, field));
        assert_ne!(kuma(1, field), kuma(1, "networking.outbound[0].port"));
        assert_ne!(
            group_key("DELETE /v1/x: Consul answered 403"),
            group_key("DELETE /v1/x: Consul answered 500")
        );
    }

    #[test]
    fn group_key_ignores_the_task_id() {
        let mut deduper = WarningDeduper::default();
        let words = |n: usize| format!("remove of default/{} skipped", task(n).id());
        assert_eq!(deduper.record(&task(1), "skipped", &words(1), &words(1)), Novelty::New);
        assert_eq!(deduper.record(&task(2), "skipped", &words(2), &words(2)), Novelty::Grouped);
        assert_eq!(deduper.take_due()[0].message, words(2));
    }
}
