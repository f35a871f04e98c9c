//! Reads changes from a log.

use std::collections::{HashMap, VecDeque};
use std::io::{self, Read};

use serde_json::Value;

use super::change::{Entry, entry};
use super::fields::LogFields;
use super::lines::{Line, Lines};
use crate::change_selector::{ChangeSelector, services_of};
use crate::field::text_at;

/// Tasks whose service is remembered: those of a day in a large account, in about 20 MB.
const MAX_TASKS: usize = 50_000;
/// The longest ARN of a task, and name of a service, that are remembered. Longer ones are none.
const MAX_NAME_BYTES: usize = 512;

/// The contents of a log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogSummary {
    /// Lines, empty ones included.
    pub lines: u64,
    /// Changes and warnings, wanted or not.
    pub entries: u64,
    /// Lines that are neither JSON nor logfmt, are cut off or too long, or have no time.
    pub malformed: u64,
    /// The first of them.
    pub first_malformed: Option<u64>,
}

/// Reads the changes of a log that a filter wants, in the order of the log.
///
/// Lines about a task need not name its service: those of a task that an earlier line attributes to a wanted service are
/// wanted, too.
pub struct LogReader<R> {
    lines: Lines<R>,
    filter: ChangeSelector,
    with_warnings: bool,
    tasks: TaskServices,
    summary: LogSummary,
    is_idle: bool,
}

/// A step through a log.
#[derive(Clone, Debug, PartialEq)]
pub enum LogStep {
    /// A wanted change or warning.
    Change(Value),
    /// The next step may wait for the input: a good time to show what was read.
    Idle,
    /// The end.
    End,
}

impl<R: Read> LogReader<R> {
    /// Reads from `input`, whose lines may be those of any log service.
    pub fn new(input: R, filter: ChangeSelector, with_warnings: bool) -> Self {
        let (tasks, summary) = (TaskServices::default(), LogSummary::default());
        Self { lines: Lines::new(input), filter, with_warnings, tasks, summary, is_idle: true }
    }

    /// The next change, or warning where these are wanted; `None` at the end.
    ///
    /// # Errors
    /// If the input cannot be read. A line that cannot be read is no error.
    pub fn next_change(&mut self) -> io::Result<Option<Value>> {
        loop {
            match self.next_step()? {
                LogStep::Change(change) => return Ok(Some(change)),
                LogStep::Idle => {}
                LogStep::End => return Ok(None),
            }
        }
    }

    /// The next step.
    ///
    /// # Errors
    /// As [`Self::next_change`].
    pub fn next_step(&mut self) -> io::Result<LogStep> {
        loop {
            if !self.is_idle && !self.lines.has_next() {
                self.is_idle = true;
                return Ok(LogStep::Idle);
            }
            let Some(line) = self.lines.next()? else { return Ok(LogStep::End) };
            self.is_idle = false;
            self.summary.lines += 1;
            let number = self.summary.lines;
            let found = match &line {
                Line::Text(text) if text.trim().is_empty() => continue,
                Line::Text(text) => LogFields::parse(text).ok().map(|fields| entry(number, &fields)),
                Line::TooLong => None,
            };
            let change = match found {
                Some(Entry::Change(change)) => change,
                Some(Entry::Warning(warning)) if self.with_warnings => warning,
                Some(Entry::Other | Entry::Warning(_)) => continue,
                None | Some(Entry::Undated) => {
                    self.summary.malformed += 1;
                    self.summary.first_malformed.get_or_insert(number);
                    continue;
                }
            };
            self.summary.entries += 1;
            let change = self.tasks.complete(change);
            if self.filter.matches(&change) {
                return Ok(LogStep::Change(change));
            }
        }
    }

    /// The contents read so far.
    pub fn summary(&self) -> LogSummary {
        self.summary
    }
}

/// The services of tasks, as far as earlier lines name them.
#[derive(Default)]
struct TaskServices {
    by_task: HashMap<String, Value>,
    order: VecDeque<String>,
}

impl TaskServices {
    /// The change with its task's service, if it has none of its own.
    fn complete(&mut self, mut change: Value) -> Value {
        let task = text_at(&change, "/task");
        if task.is_empty() {
            return change;
        }
        if services_of(&change).is_empty() {
            if let Some(service) = self.by_task.get(&task) {
                change["service"] = service.clone();
            }
        } else if change["service"].as_str().is_some_and(|name| name.len() <= MAX_NAME_BYTES)
            && task.len() <= MAX_NAME_BYTES
            && !self.by_task.contains_key(&task)
        {
            if self.order.len() == MAX_TASKS
                && let Some(oldest) = self.order.pop_front()
            {
                self.by_task.remove(&oldest);
            }
            self.by_task.insert(task.clone(), change["service"].clone());
            self.order.push_back(task);
        }
        change
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ecs_mesh_model::Glob;

    const TASK: &str = "arn:aws:ecs:eu-west-1:111122223333:task/demo/0123456789abcdef0123456789abcdef";

    fn read(log: &str, filter: ChangeSelector, with_warnings: bool) -> (Vec<Value>, LogSummary) {
        let mut reader = LogReader::new(log.as_bytes(), filter, with_warnings);
        let mut found = Vec::new();
        while let Some(change) = reader.next_change().unwrap() {
            found.push(change);
        }
        (found, reader.summary())
    }

    fn line(fields: &str) -> String {
        format!(r#"{{"timestamp":"2026-11-30T01:00:00.5Z","level":"INFO","target":"audit",{fields}}}"#)
    }

    #[test]
    fn change_has_the_fields_of_its_line() {
        let log = line(&format!(
            r#""message":"registration removed","operator":"prod","control_plane":"kuma","mesh":"default","name":"0a",
            "binding":"demo","task":"{TASK}","role":"arn:aws:iam::1:role/kv","service":"kv","change":"remove",
            "reason":"the task is STOPPED","result":"success_response_lost""#
        ))
        .replace('\n', " ");
        let (found, summary) = read(&log, ChangeSelector::default(), false);
        let expected = serde_json::json!({
            "id": 1, "time": "2026-11-30T01:00:00.5Z", "kind": "remove", "object": "registration", "controlPlane": "kuma", "mesh": "default",
            "name": "0a", "binding": "demo", "task": TASK, "cluster": "arn:aws:ecs:eu-west-1:111122223333:cluster/demo", "role": "arn:aws:iam::1:role/kv",
            "service": "kv", "reason": {"message": "the task is STOPPED"},
            "result": "successResponseLost",
        });
        assert_eq!(found, [expected]);
        assert_eq!(summary, LogSummary { lines: 1, entries: 1, ..LogSummary::default() });
    }

    #[test]
    fn updates_acl_objects_and_tokens_keep_their_fields() {
        let log = [
            r#""change":"update","result":"success","reason":"differs in a.b, c","name":"x""#,
            r#""change":"update","result":"error","kind":"role","name":"kv","fields":"Policies","reason":"drift","error":"403""#,
            r#""change":"rotate","result":"success","store":"secretsManager","name":"kv","reason":"due","workload":"kv""#,
        ]
        .map(line)
        .join("\n");
        let (found, _) = read(&log, ChangeSelector::default(), false);
        assert_eq!(found[0]["fields"], serde_json::json!(["a.b", "c"]));
        assert_eq!((&found[1]["object"], &found[1]["name"]), (&"role".into(), &"kv".into()));
        assert_eq!((&found[1]["fields"][0], &found[1]["error"]), (&"Policies".into(), &"403".into()));
        assert_eq!((&found[2]["object"], &found[2]["workload"]), (&"data_plane_token".into(), &"kv".into()));
        assert_eq!((&found[2]["kind"], &found[2]["reason"]["message"]), (&"rotate".into(), &"due".into()));
    }

    #[test]
    fn objects_have_the_names_of_the_read_api() {
        for (fields, key, expected) in [
            (r#""kind":"binding_rule","name":"logins/service","id":"1dd1""#, "name", "logins/service (1dd1)"),
            (r#""kind":"binding_rule","name":"logins/service""#, "name", "logins/service"),
            (r#""kind":"policy","name":"logins","id":"1dd1""#, "name", "logins"),
            (r#""name":"zoneingress/0a""#, "name", "0a"),
            (r#""name":"zoneegress/0a""#, "name", "0a"),
            (r#""name":"service/kv-0a@demo""#, "name", "service/kv-0a@demo"),
            (r#""ecs_service":"demo/kv-service""#, "ecsService", "kv-service"),
            (r#""ecs_service":"kv-service""#, "ecsService", "kv-service"),
        ] {
            let log = line(&format!(r#""change":"create","result":"success",{fields}"#));
            let (found, _) = read(&log, ChangeSelector::default(), false);
            assert_eq!(found[0][key], expected, "{fields}");
        }
    }

    #[test]
    fn malformed_lines_are_counted_and_the_rest_is_read() {
        let good = line(r#""change":"create","result":"success","service":"kv""#);
        let undated = good.replace("2026-11-30T01:00:00.5Z", "yesterday");
        let log = format!("{good}\n\nhello\n{}\n{undated}\n{good}\n", &good[..good.len() - 9]);
        let (found, summary) = read(&log, ChangeSelector::default(), false);
        assert_eq!(found.len(), 2);
        assert_eq!(summary, LogSummary { lines: 6, entries: 2, malformed: 3, first_malformed: Some(3) });
    }

    #[test]
    fn other_lines_and_planned_changes_are_no_changes() {
        let log = [
            r#""message":"sweep finished","tasks":7"#,
            r#""message":"planned","change":"create","name":"a""#,
            r#""message":"task needs attention","reason":"rejected","error":"tag is absent""#,
        ]
        .map(line)
        .join("\n");
        let (found, summary) = read(&log, ChangeSelector::default(), false);
        assert!(found.is_empty() && summary.malformed == 0, "{found:?}");
        let (found, _) = read(&log, ChangeSelector::default(), true);
        assert_eq!(found[0]["kind"], "warning");
        assert_eq!(found[0]["reason"], serde_json::json!({"key": "rejected", "message": "tag is absent"}));
    }

    #[test]
    fn lines_of_a_task_are_found_by_its_service() {
        let log = [
            format!(r#""change":"create","result":"success","service":"kv","task":"{TASK}""#),
            format!(r#""change":"drain","result":"success","service":"","task":"{TASK}""#),
            format!(r#""message":"task needs attention","reason":"rejected","task":"{TASK}""#),
            r#""change":"create","result":"success","service":"web","task":"other""#.to_owned(),
        ]
        .map(|fields| line(&fields))
        .join("\n");
        let filter = ChangeSelector { services: vec![Glob::new("kv")], ..ChangeSelector::default() };
        let (found, _) = read(&log, filter, true);
        let kinds: Vec<_> = found.iter().map(|change| change["kind"].as_str().unwrap()).collect();
        assert_eq!(kinds, ["create", "drain", "warning"]);
    }

    #[test]
    fn reader_is_idle_before_it_waits() {
        let wanted = line(r#""change":"create","result":"success","service":"kv""#);
        let other = line(r#""message":"sweep finished""#);
        let (first, rest) = (format!("{wanted}\n{other}\n"), format!("{wanted}\n"));
        let mut reader =
            LogReader::new(first.as_bytes().chain(rest.as_bytes()), ChangeSelector::default(), false);
        let steps: Vec<LogStep> = (0..5).map(|_| reader.next_step().unwrap()).collect();
        assert!(
            matches!(
                steps.as_slice(),
                [LogStep::Change(_), LogStep::Idle, LogStep::Change(_), LogStep::Idle, LogStep::End]
            ),
            "{steps:?}"
        );
    }

    #[test]
    fn remembered_tasks_are_bounded() {
        let mut tasks = TaskServices::default();
        for number in 0..=MAX_TASKS {
            tasks.complete(serde_json::json!({"task": number.to_string(), "service": "kv"}));
        }
        assert_eq!((tasks.by_task.len(), tasks.order.len()), (MAX_TASKS, MAX_TASKS));
        let long = "x".repeat(1_000);
        tasks.complete(serde_json::json!({"task": long, "service": "kv"}));
        tasks.complete(serde_json::json!({"task": "short", "service": long}));
        assert!(!tasks.by_task.contains_key("short") && !tasks.by_task.contains_key(&long));
        assert_eq!(tasks.complete(serde_json::json!({"task": "0"}))["service"], Value::Null);
    }
}
