//! A plan for people: a sign a line, the reason below it, a summary at the end.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};

use anstyle::{AnsiColor, Style};
use serde_json::Value;

use crate::plan::report::PlannedKind;

use super::creates::{is_grouped, many_creates, write_creates};
use super::groups::{ChangeGroup, MAX_EXAMPLES, entries};
use super::{
    BlockedBy, Change, PlanEntry, PlanLocationKey, PlanReport, PlannedChange, PlannedUpgrade,
    UnattributedTokens, Unresolved, UnsupportedControlPlane, UpgradeBlocker, by_location,
};

/// The level of detail of a rendered plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlanDetail {
    /// Changes and problems. Many tasks with one cause are one entry.
    Changes,
    /// Unchanged and ignored tasks as well, and each task individually.
    All,
}

/// One change as text with colours, as [`render`] prints it below its location.
pub(super) fn render_change(planned: &PlanEntry) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = write_change(&mut text, planned);
    text
}

/// The plan as text with colours. Print it through `anstream`, which removes them where they are not supported.
pub fn render(report: &PlanReport, detail: PlanDetail) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = write(&mut text, report, detail);
    text
}

fn write(out: &mut String, report: &PlanReport, detail: PlanDetail) -> fmt::Result {
    write_unsupported(out, report)?;
    write_upgrades(out, report)?;
    write_manifests(out, report)?;
    let mut has_more = false;
    for (location, changes) in by_location(&report.changes) {
        let changes: Vec<&PlanEntry> = changes
            .into_iter()
            .filter(|planned| {
                detail == PlanDetail::All
                    || !matches!(planned.change.change, Change::Ignore | Change::Unchanged)
            })
            .collect();
        if changes.is_empty() {
            continue;
        }
        write_location(out, location)?;
        let creates = if detail == PlanDetail::All { Vec::new() } else { many_creates(&changes) };
        let changes: Vec<&PlanEntry> =
            changes.into_iter().filter(|planned| creates.is_empty() || !is_grouped(planned)).collect();
        if !creates.is_empty() {
            write_creates(out, &creates)?;
            has_more = true;
        }
        for entry in entries(&changes, detail) {
            has_more |= write_entry(out, &entry)?;
        }
        out.push('\n');
    }
    if has_more {
        writeln!(out, "Entries of many tasks show examples; --all and --output json show each task.\n")?;
    }
    write_unattributed_tokens(out, report)?;
    write_unresolved(out, report)?;
    write_warnings(out, report)?;
    write_summary(out, report)
}

fn write_unsupported(out: &mut String, report: &PlanReport) -> fmt::Result {
    let red = AnsiColor::Red.on_default();
    for UnsupportedControlPlane { control_plane, reason } in &report.unsupported_control_planes {
        writeln!(out, "{red}control plane {control_plane} is not written to:{red:#} {reason}\n")?;
    }
    Ok(())
}

fn write_upgrades(out: &mut String, report: &PlanReport) -> fmt::Result {
    let (bold, red) = (Style::new().bold(), AnsiColor::Red.on_default());
    for PlannedUpgrade { control_plane, check } in &report.upgrades {
        let (from, to) = (&check.current_version, &check.target_version);
        writeln!(out, "{bold}upgrade of control plane {control_plane}{bold:#} from {from} to {to}")?;
        for UpgradeBlocker { mesh, resource, count, examples, reason, fix, .. } in &check.blockers {
            let mesh = mesh.as_deref().map(|mesh| format!(" in mesh {mesh}")).unwrap_or_default();
            write!(out, "  {red}! blocked{red:#} by {count} {resource}{mesh}: {}", examples.join(", "))?;
            if *count > examples.len() {
                write!(out, " and {} more", count - examples.len())?;
            }
            writeln!(out, "\n      reason: {reason}\n      fix: {fix}")?;
        }
        writeln!(out, "The changes below are those of a run right after the upgrade.\n")?;
    }
    Ok(())
}

fn write_manifests(out: &mut String, report: &PlanReport) -> fmt::Result {
    let (red, yellow) = (AnsiColor::Red.on_default(), AnsiColor::Yellow.on_default());
    for error in &report.manifests.errors {
        writeln!(out, "{red}manifest error:{red:#} {error}")?;
    }
    for warning in &report.manifests.warnings {
        writeln!(out, "{yellow}manifest warning:{yellow:#} {warning}")?;
    }
    if !report.manifests.errors.is_empty() {
        writeln!(out, "While there are errors, nothing is withdrawn because of the manifests.\n")?;
    }
    Ok(())
}

pub(super) fn sign(change: &PlannedChange) -> (&'static str, Style) {
    if change.blocked_by.is_some() {
        return ("=", AnsiColor::Yellow.on_default());
    }
    match change.change {
        Change::Create => ("+", AnsiColor::Green.on_default()),
        Change::Update => ("~", AnsiColor::Yellow.on_default()),
        Change::Drain => ("v", AnsiColor::Magenta.on_default()),
        Change::Remove => ("-", AnsiColor::Red.on_default()),
        Change::Protect => ("#", AnsiColor::Cyan.on_default()),
        Change::Reject => ("x", AnsiColor::Red.on_default()),
        Change::Hold | Change::NameConflict | Change::Unmanaged => ("=", AnsiColor::Yellow.on_default()),
        Change::Unknown => ("?", AnsiColor::Red.on_default()),
        Change::Ignore | Change::Unchanged => (" ", Style::new().dimmed()),
    }
}

fn headline(change: &PlannedChange) -> String {
    let kind = change.change.as_str();
    match change.blocked_by {
        Some(BlockedBy::Policy) => format!("{kind}, skipped by policy"),
        Some(BlockedBy::Guard) => format!("{kind}, held by the guard"),
        Some(BlockedBy::Paused) => format!("{kind}, paused"),
        Some(BlockedBy::UnsupportedControlPlane) => format!("{kind}, control plane not supported"),
        Some(BlockedBy::NotExpressible) => format!("{kind}, not expressible"),
        Some(BlockedBy::DataplaneOwner) => format!("{kind}, not the operator's Dataplane"),
        None if change.precondition.is_some() => format!("{kind}, later"),
        None => kind.to_owned(),
    }
}

fn write_location(out: &mut String, (control_plane, mesh, partition): PlanLocationKey<'_>) -> fmt::Result {
    let bold = Style::new().bold();
    write!(out, "{bold}control plane {control_plane}")?;
    for (word, name) in [("mesh", mesh), ("partition", partition)] {
        if !name.is_empty() {
            write!(out, ", {word} {name}")?;
        }
    }
    writeln!(out, "{bold:#}")
}

/// Writes an entry, and returns whether it stands for more than it shows.
fn write_entry(out: &mut String, entry: &ChangeGroup<'_>) -> Result<bool, fmt::Error> {
    match entry.changes.as_slice() {
        [one] => write_change(out, one).map(|()| false),
        _ if entry.tasks().len() == 1 => write_task(out, entry).map(|()| false),
        _ => write_many(out, entry),
    }
}

fn write_head(out: &mut String, planned: &PlanEntry) -> fmt::Result {
    let (sign, style) = sign(&planned.change);
    write!(out, "  {style}{sign} {}{style:#}", headline(&planned.change))
}

fn write_change(out: &mut String, planned: &PlanEntry) -> fmt::Result {
    let change = &planned.change;
    write_head(out, planned)?;
    if let Some(kind) = change.kind {
        write!(out, "  {}", kind.as_str())?;
    }
    if let Some(name) = &change.name {
        write!(out, "  {name}")?;
    }
    if let Some(id) = &change.id {
        write!(out, "  id {id}")?;
    }
    write_owner(out, planned)?;
    if let Some(registration) = &change.registration {
        write_registration(out, registration)?;
    }
    for field in &change.fields {
        writeln!(out, "      {}: {} -> {}", field.path, ShortValue(&field.before), ShortValue(&field.after))?;
    }
    write_reason(out, change, &change.reason)?;
    write_details(out, change)
}

/// The changes of one task that have the same key.
fn write_task(out: &mut String, entry: &ChangeGroup<'_>) -> fmt::Result {
    let first = entry.first();
    write_head(out, first)?;
    // A sidecar's service has a longer name than its parent.
    let length = |planned: &&&PlanEntry| planned.change.service.as_deref().map_or(usize::MAX, str::len);
    write_owner(out, entry.changes.iter().min_by_key(length).copied().unwrap_or(first))?;
    // The cluster is in the task's line.
    let names = entry.changes.iter().filter_map(|planned| planned.change.name.as_deref());
    let names: Vec<&str> = names.map(|name| name.split("@arn:").next().unwrap_or(name)).collect();
    if !names.is_empty() {
        writeln!(out, "      registrations: {}", names.join(", "))?;
    }
    write_reasons(out, entry)?;
    write_details(out, &first.change)
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
    names.truncate(MAX_EXAMPLES);
    write!(out, "  {count} {word}: {}", names.join(", "))?;
    if count > MAX_EXAMPLES {
        write!(out, " and {} more", count - MAX_EXAMPLES)?;
    }
    out.push('\n');
    let is_withdrawn = matches!(first.change.change, Change::Drain | Change::Remove);
    if is_withdrawn {
        writeln!(out, "      registrations: {}", entry.registration_counts())?;
    }
    let has_more = write_reasons(out, entry)?;
    write_details(out, &first.change)?;
    Ok(has_more || count > MAX_EXAMPLES)
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

fn write_reason(out: &mut String, change: &PlannedChange, reason: &str) -> fmt::Result {
    write!(out, "      reason: {reason}")?;
    if let Some(binding) = &change.binding {
        write!(out, " (MeshBinding {binding})")?;
    }
    out.push('\n');
    Ok(())
}

/// Writes the reasons, which may name another role for each task. Returns whether there are more than are shown.
fn write_reasons(out: &mut String, entry: &ChangeGroup<'_>) -> Result<bool, fmt::Error> {
    let reasons = entry.reasons();
    if let [(reason, one, _)] = reasons.as_slice() {
        write_reason(out, &one.change, reason)?;
        return Ok(false);
    }
    for (reason, example, tasks) in reasons.iter().take(MAX_EXAMPLES) {
        let word = if *tasks == 1 { "task" } else { "tasks" };
        writeln!(out, "      reason, for {tasks} {word} such as {}: {reason}", short_name(example))?;
    }
    let more = reasons.len().saturating_sub(MAX_EXAMPLES);
    if more > 0 {
        writeln!(out, "      and {more} more of the same kind")?;
    }
    Ok(more > 0)
}

fn write_details(out: &mut String, change: &PlannedChange) -> fmt::Result {
    if let Some(precondition) = &change.precondition {
        writeln!(out, "      precondition: {precondition}")?;
    }
    if let Some(follow_up) = &change.follow_up {
        writeln!(out, "      follow-up: {follow_up}")?;
    }
    for warning in &change.warnings {
        writeln!(out, "      warning: {warning}")?;
    }
    Ok(())
}

/// Fields that the headline shows, and ownership labels, which every registration has.
const OMITTED_FIELDS: [&str; 4] = ["type", "mesh", "name", "labels[\"ecs-mesh.dev/"];

/// Writes the fields of a created registration, one leaf a line.
fn write_registration(out: &mut String, registration: &Value) -> fmt::Result {
    for (path, value) in leaves(registration) {
        writeln!(out, "      {path}: {value}")?;
    }
    Ok(())
}

/// The fields of a registration with their values.
pub(super) fn leaves(registration: &Value) -> Vec<(String, String)> {
    let mut leaves = Vec::new();
    for field in super::super::diff(&Value::Object(serde_json::Map::new()), registration) {
        collect(&field.path, field.after.as_ref().unwrap_or(&Value::Null), &mut leaves);
    }
    leaves.retain(|(path, _)| {
        !OMITTED_FIELDS.iter().any(|field| path == field || (field.contains('[') && path.starts_with(field)))
    });
    leaves
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

/// A value on one line.
struct ShortValue<'a>(&'a Option<Value>);

impl fmt::Display for ShortValue<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => f.write_str("(none)"),
            Some(value) => write!(f, "{value}"),
        }
    }
}

/// The short name of a task or an object.
pub(super) fn short_name(planned: &PlanEntry) -> String {
    match (&planned.task, planned.change.kind) {
        (Some(task), _) => format!("{}/{}", task.cluster().name(), task.id()),
        (None, kind) => {
            let kind = kind.map(PlannedKind::as_str).unwrap_or_default();
            format!("{kind} {}", planned.change.name.as_deref().unwrap_or_default())
        }
    }
}

fn write_unresolved(out: &mut String, report: &PlanReport) -> fmt::Result {
    if report.unresolved.is_empty() {
        return Ok(());
    }
    let red = AnsiColor::Red.on_default();
    writeln!(out, "{red}unknown, so this plan lacks the changes that depend on these inputs:{red:#}")?;
    // Hundreds of reads fail for one cause, such as a quota. Their errors differ by the subject alone.
    let mut causes: Vec<(String, Vec<&Unresolved>)> = Vec::new();
    for input in &report.unresolved {
        let cause = cause_of(input);
        match causes.iter_mut().find(|(known, _)| *known == cause) {
            Some((_, inputs)) => inputs.push(input),
            None => causes.push((cause, vec![input])),
        }
    }
    for (_, inputs) in causes {
        let Some(first) = inputs.first() else { continue };
        let subjects: Vec<&str> =
            inputs.iter().take(MAX_EXAMPLES).map(|input| input.subject.as_str()).collect();
        let more = match inputs.len() - subjects.len() {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        writeln!(out, "  ? {}{more}: {}", subjects.join(", "), first.error)?;
    }
    out.push('\n');
    Ok(())
}

/// The error without the words of the subject, which name one of many objects.
fn cause_of(input: &Unresolved) -> String {
    let is_of_subject = |word: &&str| input.subject.split_whitespace().any(|of| of == *word);
    input.error.split_whitespace().filter(|word| !is_of_subject(word)).collect::<Vec<_>>().join(" ")
}

fn write_unattributed_tokens(out: &mut String, report: &PlanReport) -> fmt::Result {
    let yellow = AnsiColor::Yellow.on_default();
    for UnattributedTokens { control_plane, reason, count, examples } in &report.unattributed_tokens {
        let (tokens, name) = if *count == 1 { ("login token", "names") } else { ("login tokens", "name") };
        writeln!(
            out,
            "{yellow}unattributed tokens:{yellow:#} {count} {tokens} at control plane {control_plane} {name} no task \
             ({reason}) and are not removed; such as {}",
            examples.join(", ")
        )?;
        writeln!(
            out,
            "      help: consul acl token read -accessor-id {}; delete tokens whose tasks are gone, and let tasks log in \
             with both -meta values of consul-ecs",
            examples.first().map_or("ID", String::as_str)
        )?;
    }
    if !report.unattributed_tokens.is_empty() {
        out.push('\n');
    }
    Ok(())
}

fn write_warnings(out: &mut String, report: &PlanReport) -> fmt::Result {
    let mut causes: BTreeMap<&str, (usize, BTreeSet<&str>)> = BTreeMap::new();
    for warning in &report.warnings {
        let (tasks, messages) = causes.entry(&warning.key).or_default();
        *tasks += 1;
        messages.insert(&warning.message);
    }
    let yellow = AnsiColor::Yellow.on_default();
    for (tasks, messages) in causes.values() {
        let word = if *tasks == 1 { "task" } else { "tasks" };
        let mut shown = messages.iter().take(MAX_EXAMPLES);
        write!(out, "{yellow}warning{yellow:#} ({tasks} {word}): ")?;
        writeln!(out, "{}", shown.next().copied().unwrap_or_default())?;
        for message in shown {
            writeln!(out, "  also: {message}")?;
        }
        if messages.len() > MAX_EXAMPLES {
            writeln!(
                out,
                "  and {} more of the same kind; --output json has all",
                messages.len() - MAX_EXAMPLES
            )?;
        }
    }
    if !causes.is_empty() {
        out.push('\n');
    }
    Ok(())
}

fn write_summary(out: &mut String, report: &PlanReport) -> fmt::Result {
    let s = &report.summary;
    let bold = Style::new().bold();
    if report.will_write() {
        write!(
            out,
            "{bold}Plan:{bold:#} {} to create, {} to update, {} to drain, {} to remove",
            s.create, s.update, s.drain, s.remove
        )?;
        if s.protect > 0 {
            write!(out, ", {} to protect", s.protect)?;
        }
    } else {
        let known = if report.complete { "" } else { ", as far as is known" };
        write!(out, "{bold}Plan:{bold:#} nothing to do{known}")?;
    }
    let others = [
        (s.reject, "rejected"),
        (s.hold, "held"),
        (s.name_conflict, "name conflicts"),
        (s.unmanaged, "unmanaged"),
        (s.skipped_by_policy, "skipped by policy"),
        (s.held_by_guard, "held by the guard"),
        (s.paused, "paused"),
        (s.unsupported_control_plane, "at an unsupported control plane"),
        (s.not_expressible, "not expressible"),
        (s.dataplane_owner, "not the operator's Dataplane"),
        (s.unknown, "unknown"),
    ];
    let others: Vec<String> = others
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, word)| format!("{count} {word}"))
        .collect();
    if !others.is_empty() {
        write!(out, "; {}", others.join(", "))?;
    }
    writeln!(out, "; {} unchanged, {} ignored.", s.unchanged, s.ignore)?;
    if !report.complete {
        let red = AnsiColor::Red.on_default();
        writeln!(out, "{red}This plan is incomplete;{red:#} see above.")?;
    }
    if report.blocks_upgrade() {
        let red = AnsiColor::Red.on_default();
        writeln!(out, "{red}The upgrade is blocked;{red:#} see above.")?;
    }
    Ok(())
}
