//! Everything about one object as text, in kubectl's form: names and values, tables of what belongs to it, and events at the end.

use std::io;

use serde_json::Value;

use super::columns::{age, columns};
use super::table::{ColumnHead, Shrink, Table};
use crate::field::{scalar, text_at};
use crate::resource::ResourceKind;
use crate::text::printable;
use ecs_mesh_model::Timestamp;

/// An object with what belongs to it.
#[derive(Clone, Debug, PartialEq)]
pub struct Described {
    /// The object, as the operator answers it.
    pub object: Value,
    /// The tasks of a service, at most 20.
    pub tasks: Vec<Value>,
    /// How many tasks it has.
    pub all_tasks: usize,
    /// The newest changes, at most 20, the oldest first.
    pub changes: Vec<Value>,
    /// The warnings that hold.
    pub warnings: Vec<Value>,
}

/// The width of names.
const NAME_WIDTH: usize = 20;

/// Names and pointers of the values of a kind; what has no value is left out.
fn values(kind: ResourceKind) -> &'static [(&'static str, &'static str)] {
    match kind {
        ResourceKind::Tasks => &[
            ("Name", "/name"),
            ("ARN", "/arn"),
            ("State", "/state"),
            ("Reason", "/reason/message"),
            ("Service", "/service"),
            ("Workloads", "/workloads"),
            ("Binding", "/binding"),
            ("Control Plane", "/controlPlane"),
            ("ECS Service", "/ecsService"),
            ("Task Definition", "/definition"),
            ("Status", "/lastStatus"),
            ("Desired Status", "/desiredStatus"),
            ("Seen", "/evidence/seenAt"),
            ("Seen By", "/evidence/seenBy"),
            ("Created", "/createdAt"),
            ("Address", "/address"),
            ("Role", "/role"),
        ],
        ResourceKind::Services => &[
            ("Name", "/name"),
            ("Control Plane", "/controlPlane"),
            ("Mesh", "/mesh"),
            ("State", "/state"),
            ("Declared", "/declared"),
            ("Workloads", "/workloads"),
            ("Bindings", "/bindings"),
            ("ECS Services", "/ecsServices"),
            ("Calls", "/outbounds"),
            ("Called By", "/callers"),
        ],
        ResourceKind::Bindings => &[
            ("Name", "/name"),
            ("Control Plane", "/controlPlane"),
            ("Mesh", "/mesh"),
            ("Clusters", "/clusters"),
            ("Policy", "/policy"),
            ("Role Tags", "/roleTagsMode"),
            ("Paused", "/paused"),
            ("Tasks", "/tasks"),
            ("Registrations", "/registrations"),
        ],
        ResourceKind::Identities => &[
            ("Name", "/name"),
            ("Kind", "/kind"),
            ("State", "/state"),
            ("Since", "/since"),
            ("Service", "/service"),
            ("Control Plane", "/controlPlane"),
            ("Mesh", "/mesh"),
            ("Task", "/task"),
            ("Role", "/role"),
        ],
        ResourceKind::Outbounds => &[
            ("From", "/from"),
            ("To", "/to"),
            ("State", "/state"),
            ("Reason", "/reason"),
            ("Port", "/port"),
            ("Listen", "/listen"),
            ("Declared By", "/declaredBy"),
            ("Control Plane", "/controlPlane"),
            ("Mesh", "/mesh"),
        ],
        ResourceKind::Warnings => &[
            ("Name", "/id"),
            ("Reason", "/reason"),
            ("Message", "/message"),
            ("Fix", "/fix"),
            ("Since", "/since"),
            ("Control Plane", "/controlPlane"),
            ("Services", "/services"),
            ("Tasks", "/tasks"),
            ("Examples", "/examples"),
        ],
        ResourceKind::Changes => &[
            ("Id", "/id"),
            ("Time", "/time"),
            ("Change", "/kind"),
            ("Object", "/object"),
            ("Name", "/name"),
            ("Result", "/result"),
            ("Error", "/error"),
            ("Reason", "/reason/message"),
            ("Fields", "/fields"),
            ("Service", "/service"),
            ("Task", "/task"),
            ("Role", "/role"),
            ("Binding", "/binding"),
            ("Control Plane", "/controlPlane"),
            ("Mesh", "/mesh"),
        ],
    }
}

/// Renders an object as it was at `now`, for a line of this width.
///
/// # Errors
/// Never in practice: a buffer in memory takes all.
pub fn render_description(
    kind: ResourceKind,
    described: &Described,
    now: Timestamp,
    limit: Option<usize>,
) -> io::Result<String> {
    let mut text = Description { out: String::new(), limit, now };
    let object = &described.object;
    for (name, pointer) in values(kind) {
        text.value(name, &listed(object.pointer(pointer).unwrap_or(&Value::Null)));
    }
    match kind {
        ResourceKind::Tasks => text.task(object)?,
        ResourceKind::Services => text.service(described)?,
        ResourceKind::Bindings => text.guard(&object["guard"]),
        ResourceKind::Identities
        | ResourceKind::Outbounds
        | ResourceKind::Warnings
        | ResourceKind::Changes => {}
    }
    if !matches!(kind, ResourceKind::Outbounds | ResourceKind::Warnings | ResourceKind::Changes) {
        text.events(described)?;
    }
    Ok(text.out)
}

/// A value on one line, the items of a list apart.
fn listed(value: &Value) -> String {
    match value {
        Value::Array(items) => items.iter().map(scalar).collect::<Vec<_>>().join(", "),
        other => scalar(other),
    }
}

struct Description {
    out: String,
    limit: Option<usize>,
    now: Timestamp,
}

const fn fixed(name: &'static str) -> ColumnHead {
    ColumnHead { name, shrink: Shrink::Never }
}

const fn named(name: &'static str) -> ColumnHead {
    ColumnHead { name, shrink: Shrink::Name }
}

const fn free(name: &'static str) -> ColumnHead {
    ColumnHead { name, shrink: Shrink::Text }
}

const REGISTRATIONS: [ColumnHead; 6] =
    [fixed("KIND"), named("NAME"), named("SERVICE"), named("CONTROL-PLANE"), fixed("STATE"), fixed("READ")];
const ROLE_TAGS: [ColumnHead; 4] = [named("TAG"), free("VALUE"), free("EXPECTED"), fixed("OK")];
const EVENTS: [ColumnHead; 4] = [fixed("TYPE"), fixed("REASON"), fixed("AGE"), free("MESSAGE")];

impl Description {
    fn line(&mut self, text: &str) {
        self.out.push_str(text);
        self.out.push('\n');
    }

    fn value(&mut self, name: &str, value: &str) {
        if !value.is_empty() {
            let name = format!("{name}:");
            self.line(&format!("{name:<NAME_WIDTH$}{}", printable(value)));
        }
    }

    /// A table below its title; `none` in its place where it is empty.
    fn table(&mut self, title: &str, heads: &[ColumnHead], rows: &[Vec<String>]) -> io::Result<()> {
        if rows.is_empty() {
            self.value(title, "<none>");
            return Ok(());
        }
        self.line(&format!("{title}:"));
        let mut out = Vec::new();
        let limit = self.limit.map(|limit| limit.saturating_sub(2));
        Table::new(heads.to_vec(), true, limit).print(rows, &mut out)?;
        for line in String::from_utf8_lossy(&out).lines() {
            self.line(&format!("  {line}"));
        }
        Ok(())
    }

    fn age(&self, time: &str) -> String {
        Timestamp::parse(time).map(|at| age(at, self.now)).unwrap_or_default()
    }

    fn task(&mut self, task: &Value) -> io::Result<()> {
        let rows: Vec<Vec<String>> = items(task, "registrations").map(|one| self.registration(one)).collect();
        self.table("Registrations", &REGISTRATIONS, &rows)?;
        let tag = |tag: &Value| {
            let value = if tag["value"].is_null() { "<unset>".to_owned() } else { text_at(tag, "/value") };
            vec![text_at(tag, "/key"), value, text_at(tag, "/expected"), text_at(tag, "/ok")]
        };
        let tags: Vec<Vec<String>> = items(task, "roleTags").map(tag).collect();
        if !tags.is_empty() {
            self.table("Role Tags", &ROLE_TAGS, &tags)?;
        }
        for verdict in items(task, "verdict") {
            self.line(&format!("Verdict at {}:", printable(&text_at(verdict, "/controlPlane"))));
            for line in text_at(verdict, "/text").lines() {
                self.line(&printable(line));
            }
        }
        Ok(())
    }

    fn registration(&self, one: &Value) -> Vec<String> {
        let at = |pointer: &str| text_at(one, pointer);
        let mesh = at("/mesh");
        let place =
            if mesh.is_empty() { at("/controlPlane") } else { format!("{}/{mesh}", at("/controlPlane")) };
        let drained = at("/drained");
        let state = match one["ready"].as_bool() {
            _ if !drained.is_empty() => format!("drained ({drained})"),
            Some(true) => "ready".to_owned(),
            Some(false) => "not ready".to_owned(),
            None => String::new(),
        };
        vec![at("/kind"), at("/name"), at("/service"), place, state, self.age(&at("/readinessObservedAt"))]
    }

    fn service(&mut self, described: &Described) -> io::Result<()> {
        let service = &described.object;
        let count = |name: &str| text_at(service, &format!("/registrations/{name}"));
        let mut ready = format!("{} of {} ready", count("ready"), count("total"));
        for (name, word) in [("drained", "drained"), ("unknown", "not read yet")] {
            if !matches!(&*count(name), "" | "0") {
                ready = format!("{ready}, {} {word}", count(name));
            }
        }
        self.value("Registrations", &ready);
        let observed = self.age(&text_at(service, "/readinessObservedAt"));
        if !observed.is_empty() {
            self.value("Readiness Read", &format!("{observed} ago"));
        }
        if !service["others"].is_null() {
            let (ready, total) = (text_at(service, "/others/ready"), text_at(service, "/others/total"));
            self.value("Of Others", &format!("{ready} of {total} ready"));
        }
        let columns = columns(ResourceKind::Tasks, false);
        let heads: Vec<ColumnHead> = columns.iter().map(|column| column.head).collect();
        let row = |task: &Value| columns.iter().map(|column| column.cell(task, self.now)).collect();
        let rows: Vec<Vec<String>> = described.tasks.iter().map(row).collect();
        let title = match described.all_tasks.saturating_sub(described.tasks.len()) {
            0 => "Tasks".to_owned(),
            _ => format!("Tasks ({} of {})", described.tasks.len(), described.all_tasks),
        };
        self.table(&title, &heads, &rows)
    }

    fn guard(&mut self, guard: &Value) {
        if guard.is_null() {
            return self.value("Guard", "nothing to guard yet");
        }
        let at = |pointer: &str| text_at(guard, pointer);
        let state = if guard["tripped"] == true { "tripped" } else { "within limits" };
        let text = format!(
            "{state}: {} of {} withdrawn within the hour, {} held",
            at("/withdrawn"),
            at("/limit"),
            at("/held")
        );
        self.value("Guard", &text);
        self.value("Guard Released", &at("/releaseUntil"));
    }

    /// The changes in their order, and the warnings that hold.
    fn events(&mut self, described: &Described) -> io::Result<()> {
        let change = |change: &Value| {
            let (error, reason) = (text_at(change, "/error"), text_at(change, "/reason/message"));
            let name = text_at(change, "/name");
            let kind = if error.is_empty() { "Normal" } else { "Warning" };
            let message = if error.is_empty() { reason } else { format!("failed: {error} ({reason})") };
            let message = if name.is_empty() { message } else { format!("{name}: {message}") };
            vec![kind.to_owned(), text_at(change, "/kind"), self.age(&text_at(change, "/time")), message]
        };
        let warning = |warning: &Value| {
            let (message, fix) = (text_at(warning, "/message"), text_at(warning, "/fix"));
            let message = if fix.is_empty() { message } else { format!("{message}; fix: {fix}") };
            vec![
                "Warning".to_owned(),
                text_at(warning, "/reason"),
                self.age(&text_at(warning, "/since")),
                message,
            ]
        };
        let changes = described.changes.iter().map(change);
        let rows: Vec<Vec<String>> = changes.chain(described.warnings.iter().map(warning)).collect();
        self.table("Events", &EVENTS, &rows)
    }
}

fn items<'a>(object: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    object[key].as_array().into_iter().flatten()
}
