//! The columns of each kind of resource.

use serde_json::Value;

use super::table::{ColumnHead, Shrink};
use crate::field::text_at;
use crate::resource::ResourceKind;
use ecs_mesh_model::Timestamp;

/// The digits of a task's id in tables of other objects. `get task` accepts them.
const SHORT_ID: usize = 12;

/// A column of a table.
#[derive(Clone, Copy)]
pub struct TableColumn {
    /// Its head.
    pub head: ColumnHead,
    /// Whether only `-o wide` shows it.
    pub is_wide: bool,
    cell: Cell,
}

#[derive(Clone, Copy)]
enum Cell {
    /// The text at a pointer.
    At(&'static str),
    /// The time since the one at a pointer.
    Age(&'static str),
    /// A time to the second.
    Time(&'static str),
    /// Something made of several fields.
    Of(fn(&Value) -> String),
}

const fn column(name: &'static str, shrink: Shrink, cell: Cell) -> TableColumn {
    TableColumn { head: ColumnHead { name, shrink }, is_wide: false, cell }
}

const fn wide(name: &'static str, shrink: Shrink, cell: Cell) -> TableColumn {
    TableColumn { head: ColumnHead { name, shrink }, is_wide: true, cell }
}

use Cell::{Age, At, Of, Time};
use Shrink::{Name, Never, Text};

const TASKS: &[TableColumn] = &[
    column("NAME", Name, At("/name")),
    column("STATE", Never, At("/state")),
    column("READY", Never, Of(registrations_ready)),
    column("SERVICE", Name, Of(task_service)),
    column("AGE", Never, Age("/createdAt")),
    column("REASON", Text, Of(task_reason)),
    wide("READ", Never, Of(oldest_reading)),
    wide("LAST-STATUS", Never, At("/lastStatus")),
    wide("CLUSTER", Name, Of(|task| last_segment(&text_at(task, "/cluster")))),
    wide("ECS-SERVICE", Name, Of(|task| last_segment(&text_at(task, "/ecsService")))),
    wide("BINDING", Name, At("/binding")),
    wide("ADDRESS", Never, At("/address")),
    wide("ROLE", Name, Of(|task| last_segment(&text_at(task, "/role")))),
];

const SERVICES: &[TableColumn] = &[
    column("NAME", Name, At("/name")),
    column("STATE", Never, At("/state")),
    column("READY", Never, Of(service_ready)),
    column("TASKS", Never, At("/tasks/total")),
    column("CONTROL-PLANE", Name, At("/controlPlane")),
    column("MESH", Name, At("/mesh")),
    wide("READ", Never, Time("/readinessObservedAt")),
    wide("OTHERS", Never, At("/others/total")),
    wide("DRAINED", Never, At("/registrations/drained")),
    wide("REJECTED", Never, At("/tasks/rejected")),
    wide("HELD", Never, At("/tasks/held")),
    wide("PENDING", Never, At("/tasks/pending")),
    wide("WARNINGS", Never, At("/tasks/warnings")),
    wide("WORKLOADS", Text, At("/workloads")),
    wide("CALLS", Text, At("/outbounds")),
    wide("CALLED-BY", Text, At("/callers")),
];

const BINDINGS: &[TableColumn] = &[
    column("NAME", Name, At("/name")),
    column("CONTROL-PLANE", Name, At("/controlPlane")),
    column("MESH", Name, At("/mesh")),
    column("POLICY", Never, At("/policy")),
    column("TASKS", Never, At("/tasks")),
    column("REGISTERED", Never, At("/registrations")),
    column("GUARD", Never, Of(guard)),
    wide("PAUSED", Never, At("/paused")),
    wide("ROLE-TAGS", Never, At("/roleTagsMode")),
    wide("CLUSTERS", Text, At("/clusters")),
];

const IDENTITIES: &[TableColumn] = &[
    column("NAME", Name, At("/name")),
    column("KIND", Never, At("/kind")),
    column("STATE", Never, At("/state")),
    column("SERVICE", Name, At("/service")),
    column("TASK", Never, Of(short_task)),
    column("AGE", Never, Age("/since")),
    wide("CONTROL-PLANE", Name, At("/controlPlane")),
    wide("MESH", Name, At("/mesh")),
    wide("CLUSTER", Name, Of(|identity| last_segment(&text_at(identity, "/cluster")))),
    wide("ROLE", Name, Of(|identity| last_segment(&text_at(identity, "/role")))),
];

const OUTBOUNDS: &[TableColumn] = &[
    column("FROM", Name, At("/from")),
    column("TO", Name, At("/to")),
    column("STATE", Never, At("/state")),
    column("PORT", Never, At("/port")),
    column("DECLARED-BY", Name, At("/declaredBy")),
    column("REASON", Text, At("/reason")),
    wide("CONTROL-PLANE", Name, At("/controlPlane")),
    wide("MESH", Name, At("/mesh")),
    wide("LISTEN", Never, At("/listen")),
];

const WARNINGS: &[TableColumn] = &[
    column("NAME", Name, At("/id")),
    column("REASON", Never, At("/reason")),
    column("TASKS", Never, At("/tasks")),
    column("AGE", Never, Age("/since")),
    column("SERVICES", Name, At("/services")),
    column("MESSAGE", Text, At("/message")),
    wide("CONTROL-PLANE", Name, At("/controlPlane")),
    wide("FIX", Text, At("/fix")),
    wide("EXAMPLES", Text, At("/examples")),
];

const CHANGES: &[TableColumn] = &[
    column("TIME", Never, Time("/time")),
    column("CHANGE", Never, At("/kind")),
    column("SERVICE", Name, Of(change_service)),
    column("TASK", Never, Of(short_task)),
    column("REASON", Text, Of(change_reason)),
    wide("RESULT", Never, At("/result")),
    wide("OBJECT", Never, At("/object")),
    wide("NAME", Name, At("/name")),
    wide("CONTROL-PLANE", Name, At("/controlPlane")),
    wide("MESH", Name, At("/mesh")),
    wide("CLUSTER", Name, Of(|change| last_segment(&text_at(change, "/cluster")))),
    wide("ECS-SERVICE", Name, Of(|change| last_segment(&text_at(change, "/ecsService")))),
    wide("BINDING", Name, At("/binding")),
    wide("ROLE", Name, Of(|change| last_segment(&text_at(change, "/role")))),
];

/// The columns of a kind, those of `-o wide` last.
pub fn columns(kind: ResourceKind, with_wide: bool) -> Vec<TableColumn> {
    let all = match kind {
        ResourceKind::Tasks => TASKS,
        ResourceKind::Services => SERVICES,
        ResourceKind::Bindings => BINDINGS,
        ResourceKind::Identities => IDENTITIES,
        ResourceKind::Outbounds => OUTBOUNDS,
        ResourceKind::Warnings => WARNINGS,
        ResourceKind::Changes => CHANGES,
    };
    all.iter().filter(|column| with_wide || !column.is_wide).copied().collect()
}

impl TableColumn {
    /// The cell of an object, as it was at `now`.
    pub fn cell(&self, object: &Value, now: Timestamp) -> String {
        match self.cell {
            At(pointer) => text_at(object, pointer),
            Of(make) => make(object),
            Time(pointer) => seconds(&text_at(object, pointer)),
            Age(pointer) => {
                let since = Timestamp::parse(&text_at(object, pointer));
                since.map(|since| age(since, now)).unwrap_or_default()
            }
        }
    }
}

/// The time without its fraction, so that a column has one width.
fn seconds(time: &str) -> String {
    match (time.find('.'), time.ends_with('Z')) {
        (Some(at), true) => format!("{}Z", &time[..at]),
        _ => time.to_owned(),
    }
}

/// The age as kubectl prints it: the two largest units while they tell something.
pub fn age(since: Timestamp, now: Timestamp) -> String {
    let seconds = since.age_at(now).as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    let pair = |large: u64, unit: char, small: u64, small_unit: char| {
        if small == 0 { format!("{large}{unit}") } else { format!("{large}{unit}{small}{small_unit}") }
    };
    match () {
        () if seconds < 120 => format!("{seconds}s"),
        () if minutes < 10 => pair(minutes, 'm', seconds % 60, 's'),
        () if minutes < 180 => format!("{minutes}m"),
        () if hours < 8 => pair(hours, 'h', minutes % 60, 'm'),
        () if hours < 48 => format!("{hours}h"),
        () if days < 8 => pair(days, 'd', hours % 24, 'h'),
        () if days < 730 => format!("{days}d"),
        () => pair(days / 365, 'y', days % 365, 'd'),
    }
}

/// The end of an ARN, of a path, or the text.
fn last_segment(text: &str) -> String {
    text.rsplit('/').next().unwrap_or(text).to_owned()
}

fn short_task(object: &Value) -> String {
    let id = last_segment(&text_at(object, "/task"));
    id.chars().take(SHORT_ID).collect()
}

fn registrations_ready(task: &Value) -> String {
    let Some(all) = task["registrations"].as_array() else { return String::new() };
    // A token has no readiness.
    let all: Vec<&Value> = all.iter().filter(|one| one["kind"] != "token").collect();
    let in_service = all.iter().copied().filter(|one| one["drained"].is_null());
    let (known, unknown): (Vec<&Value>, Vec<&Value>) = in_service.partition(|one| one["ready"].is_boolean());
    let ready = known.iter().filter(|one| one["ready"] == true).count();
    ready_of(ready, unknown.len(), all.len())
}

/// When the readiness of the registrations was read: the oldest of the readings.
fn oldest_reading(task: &Value) -> String {
    let all = task["registrations"].as_array().into_iter().flatten();
    let times = all.filter_map(|one| Timestamp::parse(one["readinessObservedAt"].as_str()?));
    times.min().map(|at| seconds(&at.to_string())).unwrap_or_default()
}

fn service_ready(service: &Value) -> String {
    let count = |name: &str| {
        let count = service["registrations"][name].as_u64();
        count.and_then(|count| usize::try_from(count).ok()).unwrap_or_default()
    };
    ready_of(count("ready"), count("unknown"), count("total"))
}

/// `READY/TOTAL`. `?` stands for registrations whose readiness has not been read since they were written.
fn ready_of(ready: usize, unknown: usize, total: usize) -> String {
    match (ready, unknown) {
        (ready, 0) => format!("{ready}/{total}"),
        (0, _) => format!("?/{total}"),
        (ready, unknown) => format!("{ready}+{unknown}?/{total}"),
    }
}

fn task_service(task: &Value) -> String {
    let service = text_at(task, "/service");
    if service.is_empty() { last_segment(&text_at(task, "/ecsService")) } else { service }
}

/// The reason of the state, or else the first warning.
fn task_reason(task: &Value) -> String {
    let reason = text_at(task, "/reason/message");
    if reason.is_empty() { text_at(task, "/warnings/0/message") } else { reason }
}

fn guard(binding: &Value) -> String {
    match &binding["guard"] {
        Value::Null => String::new(),
        guard if guard["tripped"] == true => "tripped".to_owned(),
        _ => "ok".to_owned(),
    }
}

fn change_service(change: &Value) -> String {
    ["/service", "/workload", "/name"]
        .into_iter()
        .map(|pointer| text_at(change, pointer))
        .find(|text| !text.is_empty())
        .unwrap_or_default()
}

/// The reason, or the error of a failed change with its reason.
fn change_reason(change: &Value) -> String {
    let (error, reason) = (text_at(change, "/error"), text_at(change, "/reason/message"));
    match (error.is_empty(), reason.is_empty()) {
        (true, _) => reason,
        (false, true) => format!("failed: {error}"),
        (false, false) => format!("failed: {error} ({reason})"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn cells(kind: ResourceKind, object: &Value) -> Vec<(&'static str, String)> {
        let now = Timestamp::parse("2026-11-30T03:00:00Z").unwrap();
        columns(kind, false).iter().map(|column| (column.head.name, column.cell(object, now))).collect()
    }

    fn cell(kind: ResourceKind, object: &Value, name: &str) -> String {
        cells(kind, object).into_iter().find(|(head, _)| *head == name).unwrap().1
    }

    #[test]
    fn age_is_printed_as_kubectl_does() {
        for (seconds, expected) in [
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (125, "2m5s"),
            (600, "10m"),
            (10_800, "3h"),
            (11_100, "3h5m"),
            (100_000, "27h"),
            (180_000, "2d2h"),
            (864_000, "10d"),
            (86_400 * 731, "2y1d"),
        ] {
            assert_eq!(age(Timestamp(0), Timestamp(seconds * 1_000)), expected, "{seconds}");
        }
        assert_eq!(age(Timestamp(5_000), Timestamp(0)), "0s", "clocks differ");
    }

    #[test]
    fn task_shows_ready_registrations_and_its_reason() {
        let task = json!({
            "name": "0a", "state": "held", "createdAt": "2026-11-30T02:55:00Z", "ecsService": "demo/kv",
            "registrations": [{"ready": true}, {"ready": false}, {"ready": true, "drained": "stopping"}],
            "warnings": [{"reason": "degraded", "message": "no probe"}],
        });
        assert_eq!(cell(ResourceKind::Tasks, &task, "READY"), "1/3");
        assert_eq!(cell(ResourceKind::Tasks, &task, "AGE"), "5m");
        assert_eq!(cell(ResourceKind::Tasks, &task, "SERVICE"), "kv");
        assert_eq!(cell(ResourceKind::Tasks, &task, "REASON"), "no probe");
        let rejected =
            json!({"reason": {"key": "k", "message": "tag is absent"}, "warnings": [{"message": "w"}]});
        assert_eq!(cell(ResourceKind::Tasks, &rejected, "REASON"), "tag is absent");
    }

    #[test]
    fn ready_marks_what_was_not_read_since_a_write() {
        let task = json!({"registrations": [{"ready": true}, {}, {"drained": "stopping"}]});
        assert_eq!(cell(ResourceKind::Tasks, &task, "READY"), "1+1?/3");
        for (ready, unknown, expected) in [(0, 0, "0/3"), (0, 3, "?/3"), (2, 0, "2/3"), (1, 2, "1+2?/3")] {
            let service = json!({"registrations": {"ready": ready, "unknown": unknown, "total": 3}});
            assert_eq!(cell(ResourceKind::Services, &service, "READY"), expected);
        }
    }

    #[test]
    fn change_shows_time_to_the_second_and_its_error() {
        let change = json!({
            "time": "2026-11-30T02:59:59.123Z", "kind": "remove", "result": "error", "error": "503",
            "task": "arn:aws:ecs:eu-west-1:111122223333:task/demo/0123456789abcdef0123456789abcdef",
            "reason": {"key": "stopped", "message": "the task is STOPPED"},
        });
        assert_eq!(cell(ResourceKind::Changes, &change, "TIME"), "2026-11-30T02:59:59Z");
        assert_eq!(cell(ResourceKind::Changes, &change, "TASK"), "0123456789ab");
        assert_eq!(cell(ResourceKind::Changes, &change, "REASON"), "failed: 503 (the task is STOPPED)");
    }

    #[test]
    fn wide_columns_follow_the_others() {
        for kind in ResourceKind::ALL {
            let (narrow, all) = (columns(kind, false), columns(kind, true));
            assert!(narrow.len() < all.len() && all.iter().zip(&narrow).all(|(a, n)| a.head == n.head));
        }
    }
}
