//! Writes down for a person what happens: one line each, who did what to whom, and how long it took.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;

use serde_json::Value;

use ecs_mesh_core::plan::diff;
use ecs_mesh_kuma::{DRAIN_LABEL, TASK_LABEL, normalise};
use ecs_mesh_model::Timestamp;
use ecs_mesh_sandbox::aws::{Cloud, CloudTask};
use ecs_mesh_sandbox::consul::ConsulJournalEntry as ConsulEntry;
use ecs_mesh_sandbox::oracle::{InvariantViolation, consul_task_of};
use ecs_mesh_sandbox::kuma::KumaJournalEntry;
use ecs_mesh_sandbox::world::{WorldEvent, short};

/// Tells people, or keeps quiet and only counts.
pub struct EventPrinter {
    out: Option<Box<dyn Write + Send>>,
    colour: bool,
    began: Timestamp,
    cluster: String,
    removals: Vec<Duration>,
    /// What was taken away of a task, while more may follow.
    taken: BTreeMap<String, Vec<ConsulEntry>>,
}

/// What a token is called.
const TOKEN: &str = "token";
/// A task's token and services go one after the other.
const REMOVAL_GROUP_WINDOW: Duration = Duration::from_millis(500);
const DIM: &str = "2";
const GREEN: &str = "32";
const YELLOW: &str = "33";
const RED: &str = "31";
const CYAN: &str = "36";

impl EventPrinter {
    /// A scribe who writes to `out`, if there is one.
    pub fn new(out: Option<Box<dyn Write + Send>>, colour: bool, cluster: &str, began: Timestamp) -> Self {
        Self { out, colour, began, cluster: cluster.to_owned(), removals: Vec::new(), taken: BTreeMap::new() }
    }

    /// From STOPPED to removed, for each that was removed after it.
    pub fn into_removals(self) -> Vec<Duration> {
        self.removals
    }

    fn line(&mut self, at: Timestamp, colour: &str, who: &str, what: &str, message: &str) {
        let Some(out) = &mut self.out else { return };
        let tenths = self.began.age_at(at).as_millis() / 100;
        let (seconds, tenth) = (tenths / 10, tenths % 10);
        let verb = if self.colour { format!("\x1b[{colour}m{what:<8}\x1b[0m") } else { format!("{what:<8}") };
        // A closed pipe is the reader's choice.
        let _ = writeln!(out, "{seconds:>4}.{tenth}s  {who:<8}  {verb}  {message}");
    }

    /// Something happened in the world.
    pub fn happened(&mut self, happening: &WorldEvent, now: Timestamp) {
        let colour = match happening.what {
            "joins" => GREEN,
            "leaves" => YELLOW,
            _ => DIM,
        };
        self.line(now, colour, happening.who, happening.what, &happening.message);
    }

    /// The operator took away at Consul: a line for each task, once nothing more of it has followed for a while.
    pub fn removed(&mut self, entries: &[&ConsulEntry], cloud: &Cloud, now: Timestamp) {
        for entry in entries.iter().filter(|entry| entry.kind != "check") {
            let task = consul_task_of(entry, &self.cluster).unwrap_or_default();
            self.taken.entry(task).or_default().push((*entry).clone());
        }
        self.print_removals(cloud, |last| last.age_at(now) >= REMOVAL_GROUP_WINDOW);
    }

    /// What was taken away and not told of yet.
    pub fn flush_removals(&mut self, cloud: &Cloud) {
        self.print_removals(cloud, |_| true);
    }

    fn print_removals(&mut self, cloud: &Cloud, is_all: impl Fn(Timestamp) -> bool) {
        let is_done = |entries: &Vec<ConsulEntry>| entries.last().is_none_or(|last| is_all(last.at));
        let (done, open) = std::mem::take(&mut self.taken).into_iter().partition(|(_, all)| is_done(all));
        self.taken = open;
        let done: BTreeMap<String, Vec<ConsulEntry>> = done;
        for (id, entries) in done {
            let Some(last) = entries.last() else { continue };
            let task = self.find_task(&id, cloud, last.at);
            let what: Vec<&str> = entries.iter().map(consul_words).collect();
            let stopped = task.as_ref().and_then(|task| task.stopped_at).map(|at| at.age_at(last.at));
            self.removals.extend(stopped);
            let since = match stopped.map(since("after STOPPED")) {
                Some(since) => since,
                None if task.is_none() => "  of a task that ECS does not know any more".to_owned(),
                None => String::new(),
            };
            // The service has the shortest name of all that the task had.
            let family = task.as_ref().map(|task| task.family.as_str());
            let family =
                family.or(what.iter().filter(|what| **what != TOKEN).min_by_key(|what| what.len()).copied());
            let message = format!("{:<10} {:<8}  {}{since}", family.unwrap_or(""), short(&id), what.join(", "));
            self.line(last.at, RED, "operator", "removes", &message);
        }
    }

    /// The operator wrote.
    pub fn wrote(&mut self, entry: &KumaJournalEntry, cloud: &Cloud) {
        let Some(body) = entry.after.as_ref().or(entry.before.as_ref()) else { return };
        let service = body["networking"]["inbound"][0]["tags"]["kuma.io/service"].as_str().unwrap_or("");
        let task = self.task(body, cloud, entry.at);
        let whom = format!("{service:<10} {:<8}", short(&entry.name));
        let drain = |body: &Value| body["labels"][DRAIN_LABEL].as_str().map(str::to_owned);
        match (&entry.before, &entry.after) {
            (None, Some(after)) => {
                let address = after["networking"]["address"].as_str().unwrap_or("?");
                let since = task.map(|task| task.created_at.age_at(entry.at)).map(since("after RunTask"));
                self.line(
                    entry.at,
                    GREEN,
                    "operator",
                    "creates",
                    &format!("{whom}  {address}{}", text(since)),
                );
            }
            (Some(before), Some(after)) => match drain(after) {
                Some(reason) if drain(before).is_none() => {
                    let began = task.and_then(|task| task.stopping_at).map(|at| at.age_at(entry.at));
                    let since = began.filter(|_| reason == "stopping").map(since("after the stop began"));
                    self.line(
                        entry.at,
                        YELLOW,
                        "operator",
                        "drains",
                        &format!("{whom}  {reason}{}", text(since)),
                    );
                }
                _ => {
                    let changes = diff(&normalise(before), &normalise(after));
                    let fields: Vec<String> = changes.into_iter().map(|change| change.path).collect();
                    let message = format!("{whom}  {}", fields.join(", "));
                    self.line(entry.at, CYAN, "operator", "updates", &message);
                }
            },
            (Some(_), None) => {
                let stopped = task.and_then(|task| task.stopped_at).map(|at| at.age_at(entry.at));
                self.removals.extend(stopped);
                let since = stopped.map(since("after STOPPED"));
                self.line(entry.at, RED, "operator", "removes", &format!("{whom}{}", text(since)));
            }
            (None, None) => {}
        }
    }

    fn task(&self, body: &Value, cloud: &Cloud, at: Timestamp) -> Option<std::sync::Arc<CloudTask>> {
        self.find_task(body["labels"][TASK_LABEL].as_str()?, cloud, at)
    }

    fn find_task(&self, id: &str, cloud: &Cloud, at: Timestamp) -> Option<std::sync::Arc<CloudTask>> {
        cloud.task_as_of(&format!("{}/{id}", self.cluster.replacen(":cluster/", ":task/", 1)), at)
    }

    /// A promise was broken.
    pub fn violation(&mut self, violation: &InvariantViolation) {
        let message = format!("{}: {}", violation.invariant, violation.message);
        self.line(violation.at, RED, "judge", "BROKEN", &message);
    }

    /// Nothing new happens any more.
    pub fn quiet_begins(&mut self) {
        if let Some(out) = &mut self.out {
            // As above.
            let _ = writeln!(out, "         nothing new happens from here on; what is under way may finish");
        }
    }
}

/// What was taken away.
fn consul_words(entry: &ConsulEntry) -> &str {
    match (entry.kind, &entry.before) {
        ("service", Some(before)) => before["Service"].as_str().unwrap_or("a service"),
        _ => TOKEN,
    }
}

fn since(what: &'static str) -> impl Fn(Duration) -> String {
    move |time| format!("  {} ms {what}", time.as_millis())
}

fn text(message: Option<String>) -> String {
    message.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use serde_json::json;

    use super::*;
    use ecs_mesh_sandbox::aws::CloudConfig;

    #[derive(Clone, Default)]
    struct CapturedOutput(Arc<Mutex<Vec<u8>>>);

    impl Write for CapturedOutput {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn removals_of_one_task_print_as_one_line() {
        const CLUSTER: &str = "arn:aws:ecs:eu-west-1:111122223333:cluster/c";
        const TASK: &str = "0badc0de0badc0de0badc0de0badc0de";
        let (page, cloud) = (CapturedOutput::default(), Cloud::new(CloudConfig::default(), Timestamp(0)));
        let mut printer = EventPrinter::new(Some(Box::new(page.clone())), false, CLUSTER, Timestamp(0));
        let gone = |name: &str, at: i64| ConsulEntry {
            at: Timestamp(at),
            by: None,
            kind: "service",
            id: format!("{CLUSTER} {name}-{TASK}"),
            before: Some(json!({"Service": name, "Meta": {"task-id": TASK, "source": "consul-ecs"}})),
            after: None,
        };
        for (name, at) in [("web-sidecar-proxy", 0), ("web", 400)] {
            printer.removed(&[&gone(name, at)], &cloud, Timestamp(at));
        }
        assert!(page.0.lock().unwrap().is_empty(), "more may follow");
        printer.removed(&[], &cloud, Timestamp(900));
        let text = String::from_utf8(page.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.contains("web-sidecar-proxy, web"), "{text}");
    }
}
