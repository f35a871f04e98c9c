//! A task's verdict as text: what `explain` prints of a running operator.

use std::fmt::Write as _;

use serde_json::Value;

use crate::field::text_at;
use crate::text::printable;

/// Most changes of the history.
const MAX_CHANGES: usize = 10;

/// Renders the answer of `/api/v1/tasks/ID`.
pub fn render_task(task: &Value) -> String {
    let mut text = Explanation(String::new());
    let cluster = text_at(task, "/cluster");
    let cluster = cluster.rsplit('/').next().unwrap_or_default();
    text.line(0, &format!("task {cluster}/{}", text_at(task, "/name")));
    let (state, reason) = (text_at(task, "/state"), text_at(task, "/reason/message"));
    // A sentence is the reason of the state, a warning, and a part of the verdict at once.
    let verdicts: Vec<String> = items(task, "verdict").map(|verdict| text_at(verdict, "/text")).collect();
    let is_in_verdict = |part: &str| verdicts.iter().any(|verdict| verdict.contains(part));
    let is_warned = |part: &str| items(task, "warnings").any(|one| text_at(one, "/message").contains(part));
    let is_said = is_in_verdict(&reason) || is_warned(&reason);
    text.line(1, &joined("state", &state, if is_said { "" } else { &reason }));
    text.evidence(task);
    for (name, pointer) in [("workload", "/workloads"), ("binding", "/binding")] {
        let value = text_at(task, pointer);
        text.line(1, &format!("{name}: {}", if value.is_empty() { "none" } else { &value }));
    }
    text.registrations(task);
    for tag in items(task, "roleTags").filter(|tag| tag["ok"] == false) {
        let at = |pointer: &str| Some(text_at(tag, pointer)).filter(|text| !text.is_empty());
        let found = at("/value").map_or_else(|| "absent".to_owned(), |value| format!("{value:?}"));
        let expected = at("/expected").map(|value| format!(", expected {value:?}")).unwrap_or_default();
        text.line(1, &format!("role tag {}: {found}{expected}", text_at(tag, "/key")));
    }
    for warning in items(task, "warnings") {
        let (message, fix) = (text_at(warning, "/message"), text_at(warning, "/fix"));
        // The message of a warning may have the sentence after words of its own.
        let is_repeated = is_in_verdict(&message)
            || (!reason.is_empty() && is_in_verdict(&reason) && message.contains(&*reason));
        let fix = if is_in_verdict(&fix) { "" } else { &fix };
        if is_repeated && fix.is_empty() {
            continue;
        }
        let message = if is_repeated { "" } else { &message };
        text.line(1, &joined("warning", &text_at(warning, "/reason"), message));
        if !fix.is_empty() {
            text.line(2, &format!("fix: {fix}"));
        }
    }
    text.verdict(task);
    text.history(task);
    text.0.push('\n');
    text.0
}

fn items<'a>(object: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    object[key].as_array().into_iter().flatten()
}

fn joined(name: &str, label: &str, message: &str) -> String {
    if message.is_empty() { format!("{name}: {label}") } else { format!("{name}: {label}: {message}") }
}

struct Explanation(String);

impl Explanation {
    fn line(&mut self, depth: usize, text: &str) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "{}{}", "  ".repeat(depth), printable(text));
    }

    fn evidence(&mut self, task: &Value) {
        let at = |pointer: &str| text_at(task, pointer);
        let last = at("/lastStatus");
        if last.is_empty() {
            return self.line(1, "ecs: does not show the task");
        }
        let version = at("/evidence/version");
        let version = if version.is_empty() { version } else { format!(", version {version}") };
        let (seen_at, seen_by) = (at("/evidence/seenAt"), at("/evidence/seenBy"));
        let seen = if seen_at.is_empty() { seen_at } else { format!(", seen {seen_at} by {seen_by}") };
        self.line(1, &format!("ecs: {last}, desired {}{version}{seen}", at("/desiredStatus")));
        for (name, pointer) in [
            ("service", "/ecsService"),
            ("task definition", "/definition"),
            ("role", "/role"),
            ("address", "/address"),
            ("created", "/createdAt"),
        ] {
            let value = at(pointer);
            if !value.is_empty() {
                self.line(2, &format!("{name}: {value}"));
            }
        }
    }

    fn registrations(&mut self, task: &Value) {
        if items(task, "registrations").next().is_none() {
            return self.line(1, "registration: none");
        }
        for known in items(task, "registrations") {
            let at = |pointer: &str| text_at(known, pointer);
            let mesh = at("/mesh");
            let name = if mesh.is_empty() { at("/name") } else { format!("{mesh}/{}", at("/name")) };
            let mut text = format!("registration: {name} at {}", at("/controlPlane"));
            for (word, value) in [("service", at("/service")), ("drained", at("/drained"))] {
                if !value.is_empty() {
                    let _ = write!(text, ", {word} {value}");
                }
            }
            match known["ready"].as_bool() {
                Some(true) => text.push_str(", ready"),
                Some(false) => text.push_str(", not ready"),
                None => {}
            }
            self.line(1, &text);
        }
    }

    fn verdict(&mut self, task: &Value) {
        for verdict in items(task, "verdict") {
            self.line(1, &format!("verdict at control plane {}:", text_at(verdict, "/controlPlane")));
            for line in text_at(verdict, "/text").lines() {
                self.line(1, line);
            }
        }
        if items(task, "verdict").next().is_none() {
            self.line(1, "verdict: nothing is due");
        }
    }

    /// The newest changes, the oldest of them first.
    fn history(&mut self, task: &Value) {
        let mut changes: Vec<&Value> = items(task, "history").take(MAX_CHANGES).collect();
        if changes.is_empty() {
            return;
        }
        changes.reverse();
        self.line(1, "history:");
        for change in changes {
            let at = |pointer: &str| text_at(change, pointer);
            let error = at("/error");
            let error = if error.is_empty() { error } else { format!(": {error}") };
            let outcome = format!("{} {} {}{error}", at("/time"), at("/kind"), at("/result"));
            self.line(2, &format!("{outcome} ({})", at("/reason/message")));
        }
    }
}
