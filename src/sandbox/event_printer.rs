//! Prints one line for each event: time, actor, action, object and latency.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;

use serde_json::Value;

use ecs_mesh_core::plan::diff;
use ecs_mesh_kuma::{DRAIN_LABEL, TASK_LABEL, normalise};
use ecs_mesh_model::Timestamp;
use ecs_mesh_sandbox::aws::{Cloud, CloudTask};
use ecs_mesh_sandbox::consul::ConsulJournalEntry as ConsulEntry;
use ecs_mesh_sandbox::kuma::{KumaJournalEntry, service_of};
use ecs_mesh_sandbox::oracle::{InvariantViolation, consul_task_of};
use ecs_mesh_sandbox::world::{WorldEvent, short};

/// Prints events, or only records latencies if there is no output.
pub struct EventPrinter {
    out: Option<Box<dyn Write + Send>>,
    colour: bool,
    began: Timestamp,
    cluster: String,
    removals: Vec<Duration>,
    /// Consul removals of each task that are not printed yet.
    pending_removals: BTreeMap<String, Vec<ConsulEntry>>,
}

/// Display name of a token.
const TOKEN: &str = "token";
/// Removals of one task within this time are printed as one line.
const REMOVAL_GROUP_WINDOW: Duration = Duration::from_millis(500);
const DIM: &str = "2";
const GREEN: &str = "32";
const YELLOW: &str = "33";
const RED: &str = "31";
const CYAN: &str = "36";

impl EventPrinter {
    /// A printer to `out`.
    pub fn new(out: Option<Box<dyn Write + Send>>, colour: bool, cluster: &str, began: Timestamp) -> Self {
        Self {
            out,
            colour,
            began,
            cluster: cluster.to_owned(),
            removals: Vec::new(),
            pending_removals: BTreeMap::new(),
        }
    }

    /// Times from STOPPED to removal, of all removed registrations.
    pub fn into_removals(self) -> Vec<Duration> {
        self.removals
    }

    fn line(&mut self, at: Timestamp, colour: &str, actor: &str, action: &str, message: &str) {
        let Some(out) = &mut self.out else { return };
        let tenths = self.began.age_at(at).as_millis() / 100;
        let (seconds, tenth) = (tenths / 10, tenths % 10);
        let verb =
            if self.colour { format!("\x1b[{colour}m{action:<11}\x1b[0m") } else { format!("{action:<11}") };
        // The reader may close the pipe early.
        let _ = writeln!(out, "{seconds:>4}.{tenth}s  {actor:<8}  {verb}  {message}");
    }

    /// Prints an event of the world.
    pub fn print_event(&mut self, event: &WorldEvent, now: Timestamp) {
        let colour = match event.action {
            "registers" => GREEN,
            "deregisters" => YELLOW,
            _ => DIM,
        };
        self.line(now, colour, event.actor, event.action, &event.message);
    }

    /// Records the operator's removals at Consul, and prints those that are complete.
    pub fn print_consul_removals(&mut self, entries: &[&ConsulEntry], cloud: &Cloud, now: Timestamp) {
        for entry in entries.iter().filter(|entry| entry.kind != "check") {
            let task = consul_task_of(entry, &self.cluster).unwrap_or_default();
            self.pending_removals.entry(task).or_default().push((*entry).clone());
        }
        self.print_removals(cloud, |last| last.age_at(now) >= REMOVAL_GROUP_WINDOW);
    }

    /// Prints all recorded removals.
    pub fn flush_removals(&mut self, cloud: &Cloud) {
        self.print_removals(cloud, |_| true);
    }

    fn print_removals(&mut self, cloud: &Cloud, is_complete: impl Fn(Timestamp) -> bool) {
        let is_done = |entries: &Vec<ConsulEntry>| entries.last().is_none_or(|last| is_complete(last.at));
        let (done, open) =
            std::mem::take(&mut self.pending_removals).into_iter().partition(|(_, all)| is_done(all));
        self.pending_removals = open;
        let done: BTreeMap<String, Vec<ConsulEntry>> = done;
        for (id, entries) in done {
            let Some(last) = entries.last() else { continue };
            let task = self.find_task(&id, cloud, last.at);
            let names: Vec<&str> = entries.iter().map(object_name).collect();
            let stopped = task.as_ref().and_then(|task| task.stopped_at).map(|at| at.age_at(last.at));
            self.removals.extend(stopped);
            let since = match stopped.map(since("after STOPPED")) {
                Some(since) => since,
                None if task.is_none() => "  (ECS no longer knows the task)".to_owned(),
                None => String::new(),
            };
            // The service has a shorter name than its proxy.
            let family = task.as_ref().map(|task| task.family.as_str());
            let family =
                family.or(names.iter().filter(|name| **name != TOKEN).min_by_key(|name| name.len()).copied());
            let message =
                format!("{:<10} {:<8}  {}{since}", family.unwrap_or(""), short(&id), names.join(", "));
            self.line(last.at, RED, "operator", "removes", &message);
        }
    }

    /// Prints a write of the operator to Kuma.
    pub fn print_kuma_write(&mut self, entry: &KumaJournalEntry, cloud: &Cloud) {
        let Some(body) = entry.after.as_ref().or(entry.before.as_ref()) else { return };
        let service = service_of(body).unwrap_or(entry.kind);
        let task = self.task(body, cloud, entry.at);
        let object = format!("{service:<10} {:<8}", short(&entry.name));
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
                    &format!("{object}  {address}{}", text(since)),
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
                        &format!("{object}  {reason}{}", text(since)),
                    );
                }
                _ => {
                    let changes = diff(&normalise(before), &normalise(after));
                    let fields: Vec<String> = changes.into_iter().map(|change| change.path).collect();
                    let message = format!("{object}  {}", fields.join(", "));
                    self.line(entry.at, CYAN, "operator", "updates", &message);
                }
            },
            (Some(_), None) => {
                let stopped = task.and_then(|task| task.stopped_at).map(|at| at.age_at(entry.at));
                self.removals.extend(stopped);
                let since = stopped.map(since("after STOPPED"));
                self.line(entry.at, RED, "operator", "removes", &format!("{object}{}", text(since)));
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

    /// Prints a violation.
    pub fn print_violation(&mut self, violation: &InvariantViolation) {
        let message = format!("{}: {}", violation.invariant, violation.message);
        self.line(violation.at, RED, "oracle", "VIOLATED", &message);
    }

    /// Prints that the world stops creating events.
    pub fn print_quiet_begins(&mut self) {
        if let Some(out) = &mut self.out {
            // The reader may close the pipe early.
            let _ = writeln!(out, "         no new events from here on; changes in progress complete");
        }
    }
}

/// Display name of a removed token or service.
fn object_name(entry: &ConsulEntry) -> &str {
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
        let (output, cloud) = (CapturedOutput::default(), Cloud::new(CloudConfig::default(), Timestamp(0)));
        let mut printer = EventPrinter::new(Some(Box::new(output.clone())), false, CLUSTER, Timestamp(0));
        let removal = |name: &str, at: i64| ConsulEntry {
            at: Timestamp(at),
            by: None,
            kind: "service",
            id: format!("{CLUSTER} {name}-{TASK}"),
            before: Some(json!({"Service": name, "Meta": {"task-id": TASK, "source": "consul-ecs"}})),
            after: None,
        };
        for (name, at) in [("web-sidecar-proxy", 0), ("web", 400)] {
            printer.print_consul_removals(&[&removal(name, at)], &cloud, Timestamp(at));
        }
        assert!(output.0.lock().unwrap().is_empty(), "removals of the task may follow");
        printer.print_consul_removals(&[], &cloud, Timestamp(900));
        let text = String::from_utf8(output.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.contains("web-sidecar-proxy, web"), "{text}");
    }
}
