//! A plan for people: a sign a line, the reason below it, a summary at the end.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use anstyle::{AnsiColor, Style};
use serde_json::Value;

use crate::intent::identity::ObjectKind;

use super::{Blocked, Change, Item, Planned, Proposal, by_place};

/// How much of a plan to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// What a person should look at.
    Changes,
    /// What is unchanged or ignored, too.
    All,
}

/// This many tasks with the same gap are named; the rest are counted.
const NAMED: usize = 3;

/// The whole plan as text, with colours; print it through `anstream`, which takes them away where they don't belong.
pub fn render(proposal: &Proposal, detail: Detail) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = write(&mut text, proposal, detail);
    text
}

fn write(out: &mut String, proposal: &Proposal, detail: Detail) -> fmt::Result {
    write_manifests(out, proposal)?;
    for ((control_plane, mesh), items) in by_place(&proposal.items) {
        let (unknown, known): (Vec<&Planned>, Vec<&Planned>) = items
            .into_iter()
            .filter(|planned| {
                detail == Detail::All || !matches!(planned.item.change, Change::Ignore | Change::Unchanged)
            })
            .partition(|planned| planned.item.change == Change::Unknown);
        if unknown.is_empty() && known.is_empty() {
            continue;
        }
        let bold = Style::new().bold();
        match mesh {
            "" => writeln!(out, "{bold}control plane {control_plane}{bold:#}")?,
            mesh => writeln!(out, "{bold}control plane {control_plane}, mesh {mesh}{bold:#}")?,
        }
        for planned in known {
            write_item(out, planned)?;
        }
        write_unknown(out, &unknown)?;
        out.push('\n');
    }
    write_gaps(out, proposal)?;
    write_warnings(out, proposal)?;
    write_summary(out, proposal)
}

fn write_manifests(out: &mut String, proposal: &Proposal) -> fmt::Result {
    let (red, yellow) = (AnsiColor::Red.on_default(), AnsiColor::Yellow.on_default());
    for error in &proposal.manifests.errors {
        writeln!(out, "{red}manifest error:{red:#} {error}")?;
    }
    for warning in &proposal.manifests.warnings {
        writeln!(out, "{yellow}manifest warning:{yellow:#} {warning}")?;
    }
    if !proposal.manifests.errors.is_empty() {
        writeln!(out, "While there are errors, nothing is withdrawn because of the manifests.\n")?;
    }
    Ok(())
}

fn sign(item: &Item) -> (&'static str, Style) {
    if item.blocked_by.is_some() {
        return ("=", AnsiColor::Yellow.on_default());
    }
    match item.change {
        Change::Create => ("+", AnsiColor::Green.on_default()),
        Change::Update => ("~", AnsiColor::Yellow.on_default()),
        Change::Drain => ("v", AnsiColor::Magenta.on_default()),
        Change::Remove => ("-", AnsiColor::Red.on_default()),
        Change::Reject => ("x", AnsiColor::Red.on_default()),
        Change::Hold | Change::NameTaken | Change::LeftAlone => ("=", AnsiColor::Yellow.on_default()),
        Change::Unknown => ("?", AnsiColor::Red.on_default()),
        Change::Ignore | Change::Unchanged => (" ", Style::new().dimmed()),
    }
}

fn headline(item: &Item) -> String {
    let change = item.change.as_str();
    match item.blocked_by {
        Some(Blocked::Policy) => format!("{change}, skipped by policy"),
        Some(Blocked::Guard) => format!("{change}, held back by the guard"),
        Some(Blocked::Paused) => format!("{change}, paused"),
        None if item.after.is_some() => format!("{change}, later"),
        None => change.to_owned(),
    }
}

fn write_item(out: &mut String, planned: &Planned) -> fmt::Result {
    let item = &planned.item;
    let (sign, style) = sign(item);
    write!(out, "  {style}{sign} {}{style:#}", headline(item))?;
    if let Some(kind) = item.object {
        write!(out, "  {}", kind.as_str())?;
    }
    if let Some(name) = &item.name {
        write!(out, "  {name}")?;
    }
    if let Some(service) = item.service.as_deref().filter(|service| !service.is_empty()) {
        write!(out, "  service {service}")?;
    }
    if let Some(task) = &planned.task {
        write!(out, "  task {}/{}", task.cluster().name(), task.id())?;
    }
    out.push('\n');
    if let Some(registration) = &item.registration {
        write_registration(out, registration)?;
    }
    for field in &item.fields {
        writeln!(out, "      {}: {} -> {}", field.path, Short(&field.before), Short(&field.after))?;
    }
    write!(out, "      why: {}", item.reason)?;
    if let Some(binding) = &item.binding {
        write!(out, " (MeshBinding {binding})")?;
    }
    out.push('\n');
    if let Some(after) = &item.after {
        writeln!(out, "      when: {after}")?;
    }
    if let Some(then) = &item.then {
        writeln!(out, "      then: {then}")?;
    }
    for warning in &item.warnings {
        writeln!(out, "      mind: {warning}")?;
    }
    Ok(())
}

/// What the headline says already, and our marks, which are on everything.
const SAID: [&str; 4] = ["type", "mesh", "name", "labels[\"ecs-mesh.dev/"];

/// The fields of what would be created, each leaf in a line.
fn write_registration(out: &mut String, registration: &Value) -> fmt::Result {
    for field in super::super::diff(&Value::Object(serde_json::Map::new()), registration) {
        let mut leaves = Vec::new();
        collect(&field.path, field.after.as_ref().unwrap_or(&Value::Null), &mut leaves);
        leaves.retain(|(path, _)| {
            !SAID.iter().any(|said| path == said || (said.contains('[') && path.starts_with(said)))
        });
        for (path, value) in leaves {
            writeln!(out, "      {path}: {value}")?;
        }
    }
    Ok(())
}

fn collect(path: &str, value: &Value, leaves: &mut Vec<(String, String)>) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (key, value) in fields {
                let dotted = key.contains(['.', '/']);
                let below = if dotted { format!("{path}[{key:?}]") } else { format!("{path}.{key}") };
                collect(&below, value, leaves);
            }
        }
        Value::Array(items) if items.iter().any(Value::is_object) => {
            for (index, item) in items.iter().enumerate() {
                collect(&format!("{path}[{index}]"), item, leaves);
            }
        }
        other => leaves.push((path.to_owned(), other.to_string())),
    }
}

/// A value in one line.
struct Short<'a>(&'a Option<Value>);

impl fmt::Display for Short<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => f.write_str("(none)"),
            Some(value) => write!(f, "{value}"),
        }
    }
}

/// What could not be found out of many tasks for one reason is said once.
fn write_unknown(out: &mut String, items: &[&Planned]) -> fmt::Result {
    let mut by_reason: BTreeMap<&str, Vec<&Planned>> = BTreeMap::new();
    for planned in items {
        by_reason.entry(&planned.item.reason).or_default().push(planned);
    }
    let red = AnsiColor::Red.on_default();
    for (reason, tasks) in by_reason {
        let named: Vec<String> = tasks.iter().take(NAMED).map(|planned| short_name(planned)).collect();
        let more = match tasks.len().saturating_sub(NAMED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let word = match (tasks.iter().any(|planned| planned.task.is_some()), tasks.len()) {
            (false, _) => "",
            (true, 1) => "task ",
            (true, _) => "tasks ",
        };
        writeln!(out, "  {red}? unknown{red:#}  {word}{}{more}", named.join(", "))?;
        writeln!(out, "      why: {reason}")?;
    }
    Ok(())
}

/// A task's, or an object's.
fn short_name(planned: &Planned) -> String {
    match (&planned.task, planned.item.object) {
        (Some(task), _) => format!("{}/{}", task.cluster().name(), task.id()),
        (None, kind) => {
            let kind = kind.map(ObjectKind::as_str).unwrap_or_default();
            format!("{kind} {}", planned.item.name.as_deref().unwrap_or_default())
        }
    }
}

fn write_gaps(out: &mut String, proposal: &Proposal) -> fmt::Result {
    if proposal.gaps.is_empty() {
        return Ok(());
    }
    let red = AnsiColor::Red.on_default();
    writeln!(out, "{red}Not found out, so that a part of this plan is missing:{red:#}")?;
    for gap in &proposal.gaps {
        writeln!(out, "  ? {}: {}", gap.what, gap.why)?;
    }
    out.push('\n');
    Ok(())
}

fn write_warnings(out: &mut String, proposal: &Proposal) -> fmt::Result {
    let mut tasks: BTreeMap<&str, usize> = BTreeMap::new();
    for warning in &proposal.warnings {
        *tasks.entry(&warning.message).or_default() += 1;
    }
    let yellow = AnsiColor::Yellow.on_default();
    for (message, tasks) in &tasks {
        let word = if *tasks == 1 { "task" } else { "tasks" };
        writeln!(out, "{yellow}warning{yellow:#} ({tasks} {word}): {message}")?;
    }
    if !tasks.is_empty() {
        out.push('\n');
    }
    Ok(())
}

fn write_summary(out: &mut String, proposal: &Proposal) -> fmt::Result {
    let s = &proposal.summary;
    let bold = Style::new().bold();
    if proposal.will_write() {
        write!(
            out,
            "{bold}Plan:{bold:#} {} to create, {} to update, {} to drain, {} to remove",
            s.create, s.update, s.drain, s.remove
        )?;
    } else {
        let known = if proposal.complete { "" } else { ", as far as is known" };
        write!(out, "{bold}Plan:{bold:#} nothing to do{known}")?;
    }
    let asides = [
        (s.reject, "rejected"),
        (s.hold, "held"),
        (s.name_taken, "names taken"),
        (s.left_alone, "left alone"),
        (s.skipped_by_policy, "skipped by policy"),
        (s.held_back_by_guard, "held back by the guard"),
        (s.paused, "paused"),
        (s.unknown, "unknown"),
    ];
    let asides: Vec<String> = asides
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, word)| format!("{count} {word}"))
        .collect();
    if !asides.is_empty() {
        write!(out, "; {}", asides.join(", "))?;
    }
    writeln!(out, "; {} unchanged, {} ignored.", s.unchanged, s.ignore)?;
    if !proposal.complete {
        let red = AnsiColor::Red.on_default();
        writeln!(out, "{red}This plan is not complete;{red:#} see above.")?;
    }
    Ok(())
}
