//! The changes that a reader asks for. The read API filters lists itself; its stream and the log are filtered here, by the same rules.

use serde_json::Value;

use crate::field::text_at;
use ecs_mesh_model::{Glob, Timestamp};

/// The shortest beginning of a task's id that stands for the task, as in the filters of the read API.
pub(crate) const MIN_PREFIX: usize = 6;

/// Conditions of changes; all must hold, and one of each list.
#[derive(Clone, Debug, Default)]
pub struct ChangeSelector {
    /// Not before this time.
    pub since: Option<Timestamp>,
    /// Before this time.
    pub until: Option<Timestamp>,
    /// Services in the mesh or in ECS, or Workloads.
    pub services: Vec<Glob>,
    /// Tasks: ids, beginnings of ids, or ARNs.
    pub tasks: Vec<String>,
    /// The `MeshBinding`.
    pub binding: Option<String>,
    /// Kinds of changes or of objects.
    pub kinds: Vec<String>,
    /// Text within name, service, workload, task or role, in any case of letters.
    pub search: Option<String>,
}

impl ChangeSelector {
    /// Whether the change is wanted.
    pub fn matches(&self, change: &Value) -> bool {
        self.matches_time(Timestamp::parse(&text_at(change, "/time")))
            && self.binding.as_ref().is_none_or(|binding| text_at(change, "/binding") == *binding)
            && self.matches_kind(&[text_at(change, "/kind"), text_at(change, "/object")])
            && self.matches_task(&text_at(change, "/task"))
            && self.matches_service(services_of(change).iter().map(String::as_str))
            && self.matches_search(change)
    }

    fn matches_search(&self, change: &Value) -> bool {
        let Some(search) = self.search.as_deref().map(str::to_lowercase) else { return true };
        let texts = ["/name", "/service", "/workload", "/task", "/role"];
        texts.into_iter().any(|pointer| text_at(change, pointer).to_lowercase().contains(&search))
    }

    /// Whether the time is in the span. An unknown time is outside of a bound.
    pub fn matches_time(&self, at: Option<Timestamp>) -> bool {
        self.since.is_none_or(|since| at.is_some_and(|at| at >= since))
            && self.until.is_none_or(|until| at.is_some_and(|at| at < until))
    }

    fn matches_kind(&self, found: &[String]) -> bool {
        self.kinds.is_empty()
            || self.kinds.iter().any(|wanted| found.iter().any(|kind| wanted.eq_ignore_ascii_case(kind)))
    }

    fn matches_task(&self, task: &str) -> bool {
        self.tasks.is_empty() || self.tasks.iter().any(|wanted| is_task(task, wanted))
    }

    fn matches_service<'a>(&self, names: impl Iterator<Item = &'a str>) -> bool {
        self.services.is_empty()
            || names.into_iter().any(|name| self.services.iter().any(|wanted| wanted.matches(name)))
    }
}

/// The names by which people know the service of a change.
pub(crate) fn services_of(change: &Value) -> Vec<String> {
    let ecs_service = text_at(change, "/ecsService");
    let short = ecs_service.rsplit('/').next().unwrap_or_default().to_owned();
    [text_at(change, "/service"), text_at(change, "/workload"), short, ecs_service]
        .into_iter()
        .filter(|name| !name.is_empty())
        .collect()
}

/// Whether a task's id or ARN is meant by an id, the beginning of one, or an ARN.
pub(crate) fn is_task(task: &str, wanted: &str) -> bool {
    let id = |text: &str| text.rsplit('/').next().unwrap_or_default().to_owned();
    let (task_id, wanted_id) = (id(task), id(wanted));
    task == wanted || task_id == wanted_id || (wanted.len() >= MIN_PREFIX && task_id.starts_with(wanted))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const TASK: &str = "arn:aws:ecs:eu-west-1:111122223333:task/demo/0123456789abcdef0123456789abcdef";

    #[test]
    fn change_matches_by_each_name_of_its_service() {
        let change = json!({"service": "kv_demo_svc_80", "workload": "kv", "ecsService": "demo/kv-service"});
        for (wanted, expected) in [
            ("kv_demo_svc_80", true),
            ("kv", true),
            ("kv-service", true),
            ("demo/kv-service", true),
            ("kv*", true),
            ("k", false),
            ("web", false),
        ] {
            let filter = ChangeSelector { services: vec![Glob::new(wanted)], ..ChangeSelector::default() };
            assert_eq!(filter.matches(&change), expected, "{wanted}");
        }
    }

    #[test]
    fn change_matches_by_id_beginning_or_arn_of_its_task() {
        for (wanted, expected) in [
            (TASK, true),
            ("0123456789abcdef0123456789abcdef", true),
            ("0123456789ab", true),
            ("0123", false),
            ("abcdef0123456789", false),
        ] {
            for task in [TASK, "0123456789abcdef0123456789abcdef"] {
                let filter = ChangeSelector { tasks: vec![wanted.to_owned()], ..ChangeSelector::default() };
                assert_eq!(filter.matches(&json!({"task": task})), expected, "{wanted} {task}");
            }
        }
    }

    #[test]
    fn change_matches_within_its_time_and_kind() {
        let at = |text: &str| Timestamp::parse(text);
        let filter = ChangeSelector {
            since: at("2026-11-30T01:00:00Z"),
            until: at("2026-11-30T02:00:00Z"),
            kinds: vec!["Drain".to_owned()],
            ..ChangeSelector::default()
        };
        for (time, kind, expected) in [
            ("2026-11-30T01:00:00Z", "drain", true),
            ("2026-11-30T02:00:00Z", "drain", false),
            ("2026-11-30T00:59:59Z", "drain", false),
            ("2026-11-30T01:30:00Z", "create", false),
            ("", "drain", false),
        ] {
            assert_eq!(filter.matches(&json!({"time": time, "kind": kind})), expected, "{time} {kind}");
        }
    }
}
