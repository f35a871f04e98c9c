//! The state of an operator as text.

use std::fmt::Write as _;
use std::io;

use serde_json::Value;

use super::columns::age;
use super::table::{ColumnHead, Shrink, Table};
use crate::field::text_at;
use crate::text::printable;
use ecs_mesh_model::Timestamp;

/// Most entries of a list of texts.
const MAX_LISTED: usize = 10;

/// Renders the answer of `/api/v1/status` for a line of this width.
pub fn render_status(status: &Value, limit: Option<usize>) -> io::Result<String> {
    let mut text = String::new();
    head(&mut text, status);
    let mut out = text.into_bytes();
    let sections = [
        (control_planes(status), &CONTROL_PLANES[..]),
        (guards(status), &GUARDS[..]),
        (clusters(status), &CLUSTERS[..]),
    ];
    for (rows, heads) in sections.into_iter().filter(|(rows, _)| !rows.is_empty()) {
        out.push(b'\n');
        Table::new(heads.to_vec(), true, limit).print(&rows, &mut out)?;
    }
    let mut text = String::from_utf8_lossy(&out).into_owned();
    list(&mut text, "not ready", &status["pending"]);
    list(&mut text, "manifest errors", &status["manifests"]["errors"]);
    list(&mut text, "manifest warnings", &status["manifests"]["warnings"]);
    list(&mut text, "unread manifests", &status["manifests"]["unread"]);
    Ok(text)
}

fn now(status: &Value) -> Timestamp {
    Timestamp::parse(&text_at(status, "/now")).unwrap_or_default()
}

fn since(status: &Value, pointer: &str) -> String {
    Timestamp::parse(&text_at(status, pointer)).map(|at| age(at, now(status))).unwrap_or_default()
}

/// A number with its noun.
fn counted(number: &str, one: &str, many: &str) -> String {
    format!("{number} {}", if number == "1" { one } else { many })
}

fn head(text: &mut String, status: &Value) {
    let at = |pointer: &str| text_at(status, pointer);
    let ready = if status["ready"] == true { "ready" } else { "not ready" };
    let leader = at("/leader");
    let leader = if leader.is_empty() { leader } else { format!(", leader {leader}") };
    let changes = counted(&at("/history/changes"), "change", "changes");
    let history = format!("{changes} of at most {}", at("/history/capacity"));
    let oldest = since(status, "/history/oldest");
    let counts = [
        ("task", "tasks"),
        ("service", "services"),
        ("binding", "bindings"),
        ("identity", "identities"),
        ("outbound", "outbounds"),
        ("warning", "warnings"),
    ];
    let counts = counts.map(|(one, many)| counted(&at(&format!("/counts/{many}")), one, many));
    for (name, value) in [
        ("operator", format!("{} {}, {ready}", at("/operator"), at("/version"))),
        ("role", format!("{}{leader}", at("/role"))),
        ("running", since(status, "/startedAt")),
        ("manifests", counted(&at("/manifests/documents"), "document", "documents")),
        ("objects", if status["counts"].is_null() { "not read yet".to_owned() } else { counts.join(", ") }),
        ("history", if oldest.is_empty() { history } else { format!("{history}, of the last {oldest}") }),
    ] {
        // Writing to a String cannot fail, here and below.
        let _ = writeln!(text, "{:<11}{}", format!("{name}:"), printable(&value));
    }
}

fn list(text: &mut String, title: &str, items: &Value) {
    let items = items.as_array().map(Vec::as_slice).unwrap_or_default();
    if items.is_empty() {
        return;
    }
    let _ = writeln!(text, "\n{title}:");
    for item in items.iter().take(MAX_LISTED) {
        let _ = writeln!(text, "  {}", printable(item.as_str().unwrap_or_default()));
    }
    if items.len() > MAX_LISTED {
        let _ = writeln!(text, "  … {} more; -o json has all", items.len() - MAX_LISTED);
    }
}

const fn fixed(name: &'static str) -> ColumnHead {
    ColumnHead { name, shrink: Shrink::Never }
}

const fn named(name: &'static str) -> ColumnHead {
    ColumnHead { name, shrink: Shrink::Name }
}

const CONTROL_PLANES: [ColumnHead; 7] = [
    named("CONTROL-PLANE"),
    fixed("TYPE"),
    named("VERSION"),
    fixed("STATE"),
    fixed("REGISTERED"),
    fixed("DRAINED"),
    fixed("WARNINGS"),
];

const GUARDS: [ColumnHead; 5] =
    [named("GUARD"), named("CONTROL-PLANE"), fixed("STATE"), fixed("WITHDRAWN"), fixed("HELD")];

const CLUSTERS: [ColumnHead; 4] = [named("CLUSTER"), fixed("ACCOUNT"), fixed("REGION"), fixed("LAST-SWEEP")];

fn rows(items: &Value, row: impl Fn(&Value) -> Vec<String>) -> Vec<Vec<String>> {
    items.as_array().into_iter().flatten().map(row).collect()
}

/// An open circuit explains why nothing is in sync, so it goes first.
fn control_planes(status: &Value) -> Vec<Vec<String>> {
    rows(&status["controlPlanes"], |one| {
        let at = |pointer: &str| text_at(one, pointer);
        let state = match (&one["supported"], &one["synced"]) {
            (Value::Bool(false), _) => "unsupported",
            _ if one["circuit"] == "open" => "unreachable",
            _ if one["circuit"] == "halfOpen" => "probing",
            (_, Value::Bool(true)) => "synced",
            _ => "notSynced",
        };
        let counts = ["/registrations", "/drained", "/tasksWithWarnings"].map(at);
        let head = [at("/name"), at("/type"), at("/version"), state.to_owned()];
        head.into_iter().chain(counts).collect()
    })
}

fn guards(status: &Value) -> Vec<Vec<String>> {
    rows(&status["guards"], |guard| {
        let at = |pointer: &str| text_at(guard, pointer);
        let state = if guard["tripped"] == true { "tripped" } else { "ok" };
        let withdrawn = format!("{}/{}", at("/withdrawn"), at("/limit"));
        vec![at("/binding"), at("/controlPlane"), state.to_owned(), withdrawn, at("/held")]
    })
}

fn clusters(status: &Value) -> Vec<Vec<String>> {
    rows(&status["clusters"], |cluster| {
        let at = |pointer: &str| text_at(cluster, pointer);
        let swept = Timestamp::parse(&at("/lastFullSweep"));
        let swept = swept.map_or_else(|| "never".to_owned(), |at| age(at, now(status)));
        vec![at("/name"), at("/account"), at("/region"), swept]
    })
}
