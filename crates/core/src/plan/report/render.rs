//! A plan for people: a sign a line, the reason below it, a summary at the end.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};

use anstyle::{AnsiColor, Style};
use serde_json::Value;

use crate::plan::report::ObjectKind;

use super::groups::{ChangeGroup, NAMED, entries};
use super::{BlockedBy, Change, PlannedChange, PlaceKey, PlanEntry, PlanReport, UnattributedTokens, by_place};

/// How much of a plan to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlanDetail {
    /// What a person should look at; many tasks that one cause hits are one entry.
    Changes,
    /// What is unchanged or ignored, too, and each task by itself.
    All,
}

/// The whole plan as text, with colours; print it through `anstream`, which takes them away where they don't belong.
pub fn render(proposal: &PlanReport, detail: PlanDetail) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = write(&mut text, proposal, detail);
    text
}

fn write(out: &mut String, proposal: &PlanReport, detail: PlanDetail) -> fmt::Result {
    write_manifests(out, proposal)?;
    let mut has_more = false;
    for (place, changes) in by_place(&proposal.changes) {
        let changes: Vec<&PlanEntry> = changes
            .into_iter()
            .filter(|planned| {
                detail == PlanDetail::All || !matches!(planned.change.change, Change::Ignore | Change::Unchanged)
            })
            .collect();
        if changes.is_empty() {
            continue;
        }
        write_place(out, place)?;
        for entry in entries(&changes, detail) {
            has_more |= write_entry(out, &entry)?;
        }
        out.push('\n');
    }
    if has_more {
        writeln!(
            out,
            "Entries of many tasks name some of them; --all shows each, and so does --output json.\n"
        )?;
    }
    write_unattributed_tokens(out, proposal)?;
    write_unresolved(out, proposal)?;
    write_warnings(out, proposal)?;
    write_summary(out, proposal)
}

fn write_manifests(out: &mut String, proposal: &PlanReport) -> fmt::Result {
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

fn sign(item: &PlannedChange) -> (&'static str, Style) {
    if item.blocked_by.is_some() {
        return ("=", AnsiColor::Yellow.on_default());
    }
    match item.change {
        Change::Create => ("+", AnsiColor::Green.on_default()),
        Change::Update => ("~", AnsiColor::Yellow.on_default()),
        Change::Drain => ("v", AnsiColor::Magenta.on_default()),
        Change::Remove => ("-", AnsiColor::Red.on_default()),
        Change::Reject => ("x", AnsiColor::Red.on_default()),
        Change::Hold | Change::NameConflict | Change::Unmanaged => ("=", AnsiColor::Yellow.on_default()),
        Change::Unknown => ("?", AnsiColor::Red.on_default()),
        Change::Ignore | Change::Unchanged => (" ", Style::new().dimmed()),
    }
}

fn headline(item: &PlannedChange) -> String {
    let change = item.change.as_str();
    match item.blocked_by {
        Some(BlockedBy::Policy) => format!("{change}, skipped by policy"),
        Some(BlockedBy::Guard) => format!("{change}, held back by the guard"),
        Some(BlockedBy::Paused) => format!("{change}, paused"),
        None if item.precondition.is_some() => format!("{change}, later"),
        None => change.to_owned(),
    }
}

fn write_place(out: &mut String, (control_plane, mesh, partition): PlaceKey<'_>) -> fmt::Result {
    let bold = Style::new().bold();
    write!(out, "{bold}control plane {control_plane}")?;
    for (word, name) in [("mesh", mesh), ("partition", partition)] {
        if !name.is_empty() {
            write!(out, ", {word} {name}")?;
        }
    }
    writeln!(out, "{bold:#}")
}

/// Whether it stands for more than it names.
fn write_entry(out: &mut String, entry: &ChangeGroup<'_>) -> Result<bool, fmt::Error> {
    match entry.changes.as_slice() {
        [one] => write_item(out, one).map(|()| false),
        _ if entry.tasks().len() == 1 => write_task(out, entry).map(|()| false),
        _ => write_many(out, entry),
    }
}

fn write_head(out: &mut String, planned: &PlanEntry) -> fmt::Result {
    let (sign, style) = sign(&planned.change);
    write!(out, "  {style}{sign} {}{style:#}", headline(&planned.change))
}

fn write_item(out: &mut String, planned: &PlanEntry) -> fmt::Result {
    let item = &planned.change;
    write_head(out, planned)?;
    if let Some(kind) = item.kind {
        write!(out, "  {}", kind.as_str())?;
    }
    if let Some(name) = &item.name {
        write!(out, "  {name}")?;
    }
    if let Some(id) = &item.id {
        write!(out, "  id {id}")?;
    }
    write_owner(out, planned)?;
    if let Some(registration) = &item.registration {
        write_registration(out, registration)?;
    }
    for field in &item.fields {
        writeln!(out, "      {}: {} -> {}", field.path, ShortValue(&field.before), ShortValue(&field.after))?;
    }
    write_reason(out, item, &item.reason)?;
    write_rest(out, item)
}

/// All that one task has there, and that goes the same way.
fn write_task(out: &mut String, entry: &ChangeGroup<'_>) -> fmt::Result {
    let first = entry.first();
    write_head(out, first)?;
    // A proxy's service has a longer name than the one that it stands before.
    let length = |planned: &&&PlanEntry| planned.change.service.as_deref().map_or(usize::MAX, str::len);
    write_owner(out, entry.changes.iter().min_by_key(length).copied().unwrap_or(first))?;
    // The task tells its cluster.
    let names = entry.changes.iter().filter_map(|planned| planned.change.name.as_deref());
    let names: Vec<&str> = names.map(|name| name.split("@arn:").next().unwrap_or(name)).collect();
    if !names.is_empty() {
        writeln!(out, "      what: {}", names.join(", "))?;
    }
    write_reasons(out, entry)?;
    write_rest(out, &first.change)
}

fn write_many(out: &mut String, entry: &ChangeGroup<'_>) -> Result<bool, fmt::Error> {
    let first = entry.first();
    write_head(out, first)?;
    let mut names: Vec<String> = Vec::new();
    for planned in &entry.changes {
        let name = short_name(planned);
        if names.last() != Some(&name) {
            names.push(name);
        }
    }
    let count = names.len();
    let word = if first.task.is_some() { "tasks" } else { "objects" };
    names.truncate(NAMED);
    write!(out, "  {count} {word}: {}", names.join(", "))?;
    if count > NAMED {
        write!(out, " and {} more", count - NAMED)?;
    }
    out.push('\n');
    let is_withdrawn = matches!(first.change.change, Change::Drain | Change::Remove);
    if is_withdrawn {
        writeln!(out, "      what: {}", entry.things())?;
    }
    let has_more = write_reasons(out, entry)?;
    write_rest(out, &first.change)?;
    Ok(has_more || count > NAMED)
}

fn write_owner(out: &mut String, planned: &PlanEntry) -> fmt::Result {
    if let Some(service) = planned.change.service.as_deref().filter(|service| !service.is_empty()) {
        write!(out, "  service {service}")?;
    }
    if let Some(task) = &planned.task {
        write!(out, "  task {}/{}", task.cluster().name(), task.id())?;
    }
    out.push('\n');
    Ok(())
}

fn write_reason(out: &mut String, item: &PlannedChange, reason: &str) -> fmt::Result {
    write!(out, "      why: {reason}")?;
    if let Some(binding) = &item.binding {
        write!(out, " (MeshBinding {binding})")?;
    }
    out.push('\n');
    Ok(())
}

/// One cause may be another role's for each. Whether there are more than are shown.
fn write_reasons(out: &mut String, entry: &ChangeGroup<'_>) -> Result<bool, fmt::Error> {
    let reasons = entry.reasons();
    if let [(reason, one, _)] = reasons.as_slice() {
        write_reason(out, &one.change, reason)?;
        return Ok(false);
    }
    for (reason, one, tasks) in reasons.iter().take(NAMED) {
        let word = if *tasks == 1 { "task" } else { "tasks" };
        writeln!(out, "      why, for {tasks} {word} such as {}: {reason}", short_name(one))?;
    }
    let more = reasons.len().saturating_sub(NAMED);
    if more > 0 {
        writeln!(out, "      and {more} more of the same kind")?;
    }
    Ok(more > 0)
}

fn write_rest(out: &mut String, item: &PlannedChange) -> fmt::Result {
    if let Some(after) = &item.precondition {
        writeln!(out, "      when: {after}")?;
    }
    if let Some(then) = &item.follow_up {
        writeln!(out, "      then: {then}")?;
    }
    for warning in &item.warnings {
        writeln!(out, "      mind: {warning}")?;
    }
    Ok(())
}

/// What the headline says already, and our marks, which are on everything.
const OMITTED_FIELDS: [&str; 4] = ["type", "mesh", "name", "labels[\"ecs-mesh.dev/"];

/// The fields of what would be created, each leaf in a line.
fn write_registration(out: &mut String, registration: &Value) -> fmt::Result {
    for field in super::super::diff(&Value::Object(serde_json::Map::new()), registration) {
        let mut leaves = Vec::new();
        collect(&field.path, field.after.as_ref().unwrap_or(&Value::Null), &mut leaves);
        leaves.retain(|(path, _)| {
            !OMITTED_FIELDS.iter().any(|said| path == said || (said.contains('[') && path.starts_with(said)))
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
        Value::Array(changes) if changes.iter().any(Value::is_object) => {
            for (index, item) in changes.iter().enumerate() {
                collect(&format!("{path}[{index}]"), item, leaves);
            }
        }
        other => leaves.push((path.to_owned(), other.to_string())),
    }
}

/// A value in one line.
struct ShortValue<'a>(&'a Option<Value>);

impl fmt::Display for ShortValue<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => f.write_str("(none)"),
            Some(value) => write!(f, "{value}"),
        }
    }
}

/// A task's, or an object's.
fn short_name(planned: &PlanEntry) -> String {
    match (&planned.task, planned.change.kind) {
        (Some(task), _) => format!("{}/{}", task.cluster().name(), task.id()),
        (None, kind) => {
            let kind = kind.map(ObjectKind::as_str).unwrap_or_default();
            format!("{kind} {}", planned.change.name.as_deref().unwrap_or_default())
        }
    }
}

fn write_unresolved(out: &mut String, proposal: &PlanReport) -> fmt::Result {
    if proposal.unresolved.is_empty() {
        return Ok(());
    }
    let red = AnsiColor::Red.on_default();
    writeln!(out, "{red}Not found out, so that a part of this plan is missing:{red:#}")?;
    for gap in &proposal.unresolved {
        writeln!(out, "  ? {}: {}", gap.subject, gap.error)?;
    }
    out.push('\n');
    Ok(())
}

/// Tokens that nobody looks after, since they name no task.
fn write_unattributed_tokens(out: &mut String, proposal: &PlanReport) -> fmt::Result {
    let yellow = AnsiColor::Yellow.on_default();
    for UnattributedTokens { control_plane, reason, count, examples } in &proposal.unattributed_tokens {
        let (tokens, name) = if *count == 1 { ("login token", "names") } else { ("login tokens", "name") };
        writeln!(
            out,
            "{yellow}not looked after:{yellow:#} {count} {tokens} at control plane {control_plane} {name} no task \
             ({reason}), so nobody removes them; such as {}",
            examples.join(", ")
        )?;
        writeln!(
            out,
            "      look: consul acl token read -accessor-id {}; delete those whose tasks are gone, and have tasks log \
             in with both -meta that consul-ecs gives",
            examples.first().map_or("ID", String::as_str)
        )?;
    }
    if !proposal.unattributed_tokens.is_empty() {
        out.push('\n');
    }
    Ok(())
}

fn write_warnings(out: &mut String, proposal: &PlanReport) -> fmt::Result {
    let mut causes: BTreeMap<&str, (usize, BTreeSet<&str>)> = BTreeMap::new();
    for warning in &proposal.warnings {
        let (tasks, messages) = causes.entry(&warning.key).or_default();
        *tasks += 1;
        messages.insert(&warning.message);
    }
    let yellow = AnsiColor::Yellow.on_default();
    for (tasks, messages) in causes.values() {
        let word = if *tasks == 1 { "task" } else { "tasks" };
        let mut shown = messages.iter().take(NAMED);
        write!(out, "{yellow}warning{yellow:#} ({tasks} {word}): ")?;
        writeln!(out, "{}", shown.next().copied().unwrap_or_default())?;
        for message in shown {
            writeln!(out, "  also: {message}")?;
        }
        if messages.len() > NAMED {
            writeln!(out, "  and {} more of the same kind; --output json has all", messages.len() - NAMED)?;
        }
    }
    if !causes.is_empty() {
        out.push('\n');
    }
    Ok(())
}

fn write_summary(out: &mut String, proposal: &PlanReport) -> fmt::Result {
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
        (s.name_conflict, "names taken"),
        (s.unmanaged, "left alone"),
        (s.skipped_by_policy, "skipped by policy"),
        (s.held_by_guard, "held back by the guard"),
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
