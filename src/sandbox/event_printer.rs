//! Prints one line for each event: time, actor, action, object and latency.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::time::Duration;

use serde_json::Value;

use crate::terminal::paragraph;

use ecs_mesh_core::plan::diff;
use ecs_mesh_kuma::{DRAIN_LABEL, TASK_LABEL, normalise};
use ecs_mesh_model::Timestamp;
use ecs_mesh_sandbox::aws::{Cloud, CloudTask};
use ecs_mesh_sandbox::consul::ConsulJournalEntry as ConsulEntry;
use ecs_mesh_sandbox::kuma::{KumaJournalEntry, service_of};
use ecs_mesh_sandbox::oracle::{InvariantViolation, consul_task_of};
use ecs_mesh_sandbox::world::{WorldEvent, short};

/// Where events are printed.
pub struct EventOutput {
    /// The output.
    pub out: Box<dyn Write + Send>,
    /// Whether actions are coloured.
    pub colour: bool,
    /// The columns that lines are wrapped to, if they are.
    pub width: Option<usize>,
    /// The columns of the action.
    pub action_width: usize,
}

/// Prints events, or only records latencies if there is no output.
pub struct EventPrinter {
    output: Option<EventOutput>,
    began: Timestamp,
    cluster: String,
    removals: Vec<Duration>,
    /// Consul removals of each task that are not printed yet.
    pending_removals: BTreeMap<String, Vec<ConsulEntry>>,
    /// Updates of the same fields that are not printed yet, by these fields.
    pending_updates: BTreeMap<String, UpdateGroup>,
}

/// Updates of the same fields, which a change of manifests or of the mesh makes at many registrations.
#[derive(Default)]
struct UpdateGroup {
    last: Timestamp,
    /// Service and name of each.
    objects: Vec<(String, String)>,
}

impl UpdateGroup {
    fn message(&self, fields: &str) -> String {
        let fields = if fields.is_empty() { "sent again, without a difference" } else { fields };
        if let [(service, name)] = &self.objects[..] {
            return format!("{service:<10} {:<8} {fields}", short(name));
        }
        let objects: BTreeSet<&(String, String)> = self.objects.iter().collect();
        let services: BTreeSet<&str> = objects.iter().map(|(service, _)| service.as_str()).collect();
        let writes = match self.objects.len() {
            writes if writes > objects.len() => format!(" ({writes} writes)"),
            _ => String::new(),
        };
        match services.first().filter(|_| services.len() == 1) {
            Some(service) => format!("{service:<10} {} Dataplanes {fields}{writes}", objects.len()),
            None => format!("{} Dataplanes of {} services {fields}{writes}", objects.len(), services.len()),
        }
    }
}

/// Display name of a token.
const TOKEN: &str = "token";
/// Removals of one task, and updates of the same fields, within this time are printed as one line.
const GROUP_WINDOW: Duration = Duration::from_millis(500);
const DIM: &str = "2";
const GREEN: &str = "32";
const YELLOW: &str = "33";
const RED: &str = "31";
const CYAN: &str = "36";

impl EventPrinter {
    /// A printer to `out`.
    pub fn new(output: Option<EventOutput>, cluster: &str, began: Timestamp) -> Self {
        Self {
            output,
            began,
            cluster: cluster.to_owned(),
            removals: Vec::new(),
            pending_removals: BTreeMap::new(),
            pending_updates: BTreeMap::new(),
        }
    }

    /// Times from STOPPED to removal, of all removed registrations.
    pub fn into_removals(self) -> Vec<Duration> {
        self.removals
    }

    fn line(&mut self, at: Timestamp, colour: &str, actor: &str, action: &str, message: &str) {
        let Some(EventOutput { out, colour: is_coloured, width, action_width }) = &mut self.output else {
            return;
        };
        let tenths = self.began.age_at(at).as_millis() / 100;
        let (seconds, tenth) = (tenths / 10, tenths % 10);
        let action_width = *action_width;
        let label = format!("{seconds:>4}.{tenth}s {actor:<8} {action:<action_width$} ");
        let mut line = match width {
            Some(width) => paragraph(&label, message, *width),
            None => format!("{label}{message}\n"),
        };
        if *is_coloured {
            line = line.replacen(action, &format!("\x1b[{colour}m{action}\x1b[0m"), 1);
        }
        // The reader may close the pipe early.
        let _ = out.write_all(line.as_bytes());
    }

    /// Prints an event of the world.
    pub fn print_event(&mut self, event: &WorldEvent, now: Timestamp) {
        // The lines before it.
        self.print_updates_if(|_| true);
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
        self.print_removals(cloud, |last| last.age_at(now) >= GROUP_WINDOW);
    }

    /// Prints all that is recorded.
    pub fn flush(&mut self, cloud: &Cloud) {
        self.print_removals(cloud, |_| true);
        self.print_updates_if(|_| true);
    }

    /// Prints the recorded updates that are complete.
    pub fn print_updates(&mut self, now: Timestamp) {
        self.print_updates_if(|last| last.age_at(now) >= GROUP_WINDOW);
    }

    fn print_updates_if(&mut self, is_complete: impl Fn(Timestamp) -> bool) {
        let (done, open): (BTreeMap<_, _>, _) = std::mem::take(&mut self.pending_updates)
            .into_iter()
            .partition(|(_, group)| is_complete(group.last));
        self.pending_updates = open;
        for (fields, group) in done {
            self.line(group.last, CYAN, "operator", "updates", &group.message(&fields));
        }
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
                None if task.is_none() => " (ECS no longer knows the task)".to_owned(),
                None => String::new(),
            };
            // The service has a shorter name than its proxy.
            let family = task.as_ref().map(|task| task.family.as_str());
            let family =
                family.or(names.iter().filter(|name| **name != TOKEN).min_by_key(|name| name.len()).copied());
            let message =
                format!("{:<10} {:<8} {}{since}", family.unwrap_or(""), short(&id), names.join(", "));
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
                    &format!("{object} {address}{}", text(since)),
                );
            }
            (Some(before), Some(after)) => match drain(after) {
                Some(reason) if drain(before).is_none() => {
                    let began = task.and_then(|task| task.stopping_at).map(|at| at.age_at(entry.at));
                    let since = began.filter(|_| reason == "stopping").map(since("after the stop"));
                    self.line(
                        entry.at,
                        YELLOW,
                        "operator",
                        "drains",
                        &format!("{object} {reason}{}", text(since)),
                    );
                }
                _ => {
                    let changes = diff(&normalise(before), &normalise(after));
                    let fields: BTreeSet<String> =
                        changes.iter().map(|change| without_indices(&change.path)).collect();
                    let fields: Vec<String> = fields.into_iter().collect();
                    let group = self.pending_updates.entry(fields.join(", ")).or_default();
                    group.last = entry.at;
                    group.objects.push((service.to_owned(), entry.name.clone()));
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
        if let Some(EventOutput { out, .. }) = &mut self.output {
            // The reader may close the pipe early.
            let _ = writeln!(out, "        no new events from here on; changes in progress complete");
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

/// A path with `[]` for each index, so that changes of several items are one.
fn without_indices(path: &str) -> String {
    let mut parts = path.split('[');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let is_index = part.split(']').next().is_some_and(|index| index.parse::<usize>().is_ok());
        text.push('[');
        text.push_str(if is_index { part.trim_start_matches(|c: char| c.is_ascii_digit()) } else { part });
    }
    text
}

fn since(what: &'static str) -> impl Fn(Duration) -> String {
    move |time| format!(" {} ms {what}", time.as_millis())
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

    const CLUSTER: &str = "arn:aws:ecs:eu-west-1:111122223333:cluster/c";

    fn printer(output: &CapturedOutput, width: Option<usize>) -> EventPrinter {
        let output = EventOutput { out: Box::new(output.clone()), colour: false, width, action_width: 8 };
        EventPrinter::new(Some(output), CLUSTER, Timestamp(0))
    }

    #[test]
    fn updates_of_the_same_fields_print_as_one_line() {
        let (output, cloud) = (CapturedOutput::default(), Cloud::new(CloudConfig::default(), Timestamp(0)));
        let mut printer = printer(&output, None);
        let update = |service: &str, name: &str, at: i64| {
            let body = |outbound: i64| {
                json!({"type": "Dataplane", "mesh": "default", "name": name,
                    "labels": {"kuma.io/workload": service}, "networking": {"outbound": [{"port": outbound}]}})
            };
            KumaJournalEntry {
                at: Timestamp(at),
                method: "PUT",
                kind: "Dataplane",
                mesh: "default".to_owned(),
                name: name.to_owned(),
                before: Some(body(1)),
                after: Some(body(2)),
                changed: true,
            }
        };
        for (service, name, at) in [("web", "0badc0de00", 0), ("web", "1badc0de00", 300), ("kv", "2b", 400)] {
            printer.print_kuma_write(&update(service, name, at), &cloud);
            printer.print_updates(Timestamp(at));
        }
        assert!(output.0.lock().unwrap().is_empty(), "more updates may follow");
        printer.print_updates(Timestamp(900));
        printer.print_kuma_write(&update("kv", "2badc0de00", 2_000), &cloud);
        printer.flush(&cloud);
        let text = String::from_utf8(output.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert!(lines[0].contains("3 Dataplanes of 2 services networking.outbound"), "{text}");
        assert!(lines[1].contains("kv         2badc0de networking.outbound"), "{text}");
    }

    #[test]
    fn long_messages_continue_below_their_start() {
        let output = CapturedOutput::default();
        let message = "one two three four five six seven eight nine ten eleven twelve".to_owned();
        let event = WorldEvent { actor: "world", action: "edit", message };
        printer(&output, Some(60)).print_event(&event, Timestamp(0));
        let text = String::from_utf8(output.0.lock().unwrap().clone()).unwrap();
        assert!(text.lines().count() > 1 && text.lines().all(|line| line.len() <= 60), "{text}");
        let start = text.find("one").unwrap();
        assert!(text.lines().skip(1).all(|line| line.find(|c: char| c != ' ') == Some(start)), "{text}");
    }

    #[test]
    fn removals_of_one_task_print_as_one_line() {
        const TASK: &str = "0badc0de0badc0de0badc0de0badc0de";
        let (output, cloud) = (CapturedOutput::default(), Cloud::new(CloudConfig::default(), Timestamp(0)));
        let mut printer = printer(&output, None);
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
