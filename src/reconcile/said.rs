//! What was said of tasks: each thing once and not again at each retry; and what is true of many tasks is said of the
//! first of them, and of their number when that has doubled, never once a task.

use std::collections::BTreeMap;
use std::sync::Arc;

use ecs_mesh_model::TaskArn;

/// What was said and still holds.
#[derive(Debug, Default)]
pub(super) struct Said {
    of_task: BTreeMap<TaskArn, BTreeMap<&'static str, Arc<str>>>,
    groups: BTreeMap<Group, Extent>,
    /// There may be a group that has grown enough to be told of.
    grown: bool,
}

/// Those of whom the same is true for the same cause.
type Group = (&'static str, Arc<str>);

#[derive(Debug)]
struct Extent {
    tasks: usize,
    /// How many there were when it was last said.
    told: usize,
    /// The last one's, ready to be said.
    example: (TaskArn, String),
}

/// How new something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// Nobody had it said of.
    First,
    /// It is said of others already.
    OneMore,
    /// It was said of this task.
    Known,
}

/// Of how many tasks something is true by now.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) reason: &'static str,
    pub(super) tasks: usize,
    /// One of them.
    pub(super) example: TaskArn,
    /// What is said of it.
    pub(super) message: String,
}

impl Said {
    /// Takes in that something is to be said of a task. The cause is the same for all tasks that it is true of, whatever
    /// their roles and services are called.
    pub(super) fn note(&mut self, task: &TaskArn, reason: &'static str, cause: &str, message: &str) -> News {
        // Names are made of task ids.
        let same = cause.replace(task.id().as_str(), "TASK");
        let before = self.of_task.get(task).and_then(|said| said.get(reason)).cloned();
        if before.as_deref() == Some(same.as_str()) {
            return News::Known;
        }
        if let Some(before) = before {
            self.leave(&(reason, before));
        }
        let group = (reason, Arc::from(same));
        self.of_task.entry(task.clone()).or_default().insert(reason, Arc::clone(&group.1));
        let example = (task.clone(), message.to_owned());
        match self.groups.get_mut(&group) {
            None => {
                self.groups.insert(group, Extent { tasks: 1, told: 1, example });
                News::First
            }
            Some(extent) => {
                extent.tasks += 1;
                extent.example = example;
                self.grown |= extent.is_due();
                News::OneMore
            }
        }
    }

    /// This is not so any more of the task.
    pub(super) fn over(&mut self, task: &TaskArn, reason: &'static str) {
        let Some(said) = self.of_task.get_mut(task) else { return };
        let Some(cause) = said.remove(reason) else { return };
        if said.is_empty() {
            self.of_task.remove(task);
        }
        self.leave(&(reason, cause));
    }

    /// Nothing is wrong with the task any more.
    pub(super) fn all_over(&mut self, task: &TaskArn) {
        for group in self.of_task.remove(task).unwrap_or_default() {
            self.leave(&group);
        }
    }

    fn leave(&mut self, group: &Group) {
        let Some(extent) = self.groups.get_mut(group) else { return };
        extent.tasks -= 1;
        extent.told = extent.told.min(extent.tasks);
        // Should it come back, it is news.
        if extent.tasks == 0 {
            self.groups.remove(group);
        }
    }

    /// Whether [`Self::due`] may have something.
    pub(super) fn has_grown(&self) -> bool {
        self.grown
    }

    /// What has become true of twice as many tasks as it was said of, or more. Takes them as said.
    pub(super) fn due(&mut self) -> Vec<Count> {
        self.grown = false;
        let grown = self.groups.iter_mut().filter(|(_, extent)| extent.is_due());
        let count = |((reason, _), extent): (&Group, &mut Extent)| {
            extent.told = extent.tasks;
            let (example, message) = extent.example.clone();
            Count { reason, tasks: extent.tasks, example, message }
        };
        grown.map(count).collect()
    }

    /// Of how many tasks something was said that still holds, by reason.
    pub(super) fn troubles(&self) -> BTreeMap<&'static str, usize> {
        let mut troubles = BTreeMap::new();
        for ((reason, _), extent) in &self.groups {
            *troubles.entry(*reason).or_default() += extent.tasks;
        }
        troubles
    }
}

impl Extent {
    fn is_due(&self) -> bool {
        self.tasks >= self.told * 2
    }
}

/// The cause that a control plane's words tell of: what is left of them without names, paths and ids.
pub(super) fn cause_of(words: &str) -> String {
    let is_name = |word: &str| {
        let digits = word.bytes().filter(u8::is_ascii_digit).count();
        let is_status = digits == 3 && word.len() == 3;
        // A field's path tells what is wrong, as `networking.inbound[0].port` does.
        word.contains(['/', '@']) || (digits > 0 && !is_status && !word.contains('['))
    };
    // Between double quotes are names.
    let words: String = words.split('"').step_by(2).collect();
    let words = words.split(|c: char| c.is_whitespace() || matches!(c, '\'' | '(' | ')' | ',' | ';'));
    let words = words.map(|word| word.trim_matches([':', '.']));
    words.filter(|word| !word.is_empty() && !is_name(word)).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORDS: &str = "role a: tag x is missing";

    fn task(n: usize) -> TaskArn {
        TaskArn::parse(&format!("arn:aws:ecs:eu-west-1:111122223333:task/c/{n:032x}")).unwrap()
    }

    fn note(said: &mut Said, n: usize) -> News {
        said.note(&task(n), "rejected", WORDS, WORDS)
    }

    #[test]
    fn five_hundred_tasks_of_one_role_are_a_line_and_a_count() {
        let mut said = Said::default();
        let firsts = (0..500).filter(|n| note(&mut said, *n) == News::First).count();
        assert_eq!(firsts, 1);
        assert!(said.has_grown());
        let due = said.due();
        assert_eq!(due.len(), 1);
        assert_eq!((due[0].tasks, due[0].message.as_str()), (500, WORDS));
        assert!(said.due().is_empty());
        assert_eq!(said.troubles(), [("rejected", 500)].into());
    }

    #[test]
    fn what_is_over_for_a_reason_is_news_when_it_comes_back_and_the_rest_stays() {
        let mut said = Said::default();
        assert_eq!(said.note(&task(1), "not_removed", WORDS, WORDS), News::First);
        assert_eq!(note(&mut said, 1), News::First);
        said.over(&task(1), "not_removed");
        assert_eq!(said.troubles(), [("rejected", 1)].into());
        assert_eq!(said.note(&task(2), "not_removed", WORDS, WORDS), News::First);
        said.over(&task(3), "not_removed");
    }

    #[test]
    fn a_cause_has_no_names_between_quotes() {
        let words = |name: &str| format!("Permission denied: lacks permission 'service:write' on \"{name}\"");
        assert_eq!(cause_of(&words("kv")), cause_of(&words("web")));
        assert_ne!(cause_of(&words("kv")), cause_of("Permission denied: lacks permission 'acl:write'"));
    }

    #[test]
    fn tasks_that_come_one_by_one_are_counted_ever_more_seldom() {
        let mut said = Said::default();
        let mut lines = 0;
        for n in 0..500 {
            lines += usize::from(note(&mut said, n) == News::First);
            lines += said.due().len();
        }
        assert_eq!(lines, 9);
    }

    #[test]
    fn what_is_true_of_a_task_is_said_once_and_again_when_it_changes() {
        let mut said = Said::default();
        assert_eq!(note(&mut said, 1), News::First);
        assert_eq!(note(&mut said, 1), News::Known);
        assert_eq!(said.note(&task(1), "rejected", "another", "another"), News::First);
        assert_eq!(said.note(&task(2), "rejected", "another", "another"), News::OneMore);
        assert_eq!(said.troubles(), [("rejected", 2)].into());
    }

    #[test]
    fn what_was_over_for_all_is_news_again() {
        let mut said = Said::default();
        note(&mut said, 1);
        note(&mut said, 2);
        said.all_over(&task(1));
        assert_eq!(note(&mut said, 1), News::OneMore);
        said.all_over(&task(1));
        said.all_over(&task(2));
        assert!(said.troubles().is_empty());
        assert_eq!(note(&mut said, 1), News::First);
    }

    #[test]
    fn a_thousand_tasks_of_a_thousand_roles_hit_by_one_cause_are_a_line_and_a_count() {
        let mut said = Said::default();
        let words = |n: usize| format!("role service-{n}-task: tag x is missing");
        let firsts = (0..1_000)
            .filter(|n| said.note(&task(*n), "rejected", "tag x missing", &words(*n)) == News::First)
            .count();
        let due = said.due();
        assert_eq!((firsts, due.len(), due[0].tasks), (1, 1, 1_000));
        assert_eq!(due[0].message, words(999), "the words are those of one of them");
    }

    #[test]
    fn what_a_control_plane_says_of_one_and_of_another_has_one_cause() {
        let of = |service: &str, id: usize| {
            cause_of(&format!(
                "PUT /v1/txn: the service {service}-{id:032x} on arn:aws:ecs:eu-west-1:111122223333:cluster/c was not \
                 removed (Permission denied: token with AccessorID 'a1b2c3d4-0000-{id:04x}' lacks permission \
                 'service:write' on \"{service}-{id:032x}\"); it needs `service_prefix \"\" {{ policy = \"write\" }}`"
            ))
        };
        assert_eq!(of("kv", 1), of("demo-app", 999));
        let kuma = |id: usize, field: &str| {
            cause_of(&format!(
                "PUT /meshes/default/dataplanes/{id:032x}: Kuma answered 400 ({field}: is not a port)"
            ))
        };
        let field = "networking.inbound[0].port";
        assert_eq!(kuma(1, field), kuma(2, field));
        assert_ne!(kuma(1, field), kuma(1, "networking.outbound[0].port"));
        assert_ne!(
            cause_of("DELETE /v1/x: Consul answered 403"),
            cause_of("DELETE /v1/x: Consul answered 500")
        );
    }

    #[test]
    fn words_that_differ_by_the_tasks_id_alone_are_the_same() {
        let mut said = Said::default();
        let words = |n: usize| format!("remove of default/{} skipped", task(n).id());
        assert_eq!(said.note(&task(1), "skipped", &words(1), &words(1)), News::First);
        assert_eq!(said.note(&task(2), "skipped", &words(2), &words(2)), News::OneMore);
        assert_eq!(said.due()[0].message, words(2));
    }
}
