//! Many creates at one location, for people: a row for each service, and the fields that all have in common once.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};

use super::groups::MAX_EXAMPLES;
use super::render::{leaves, short_name, sign};
use super::{BlockedBy, Change, PlanEntry};

/// The fields of a registration, by path.
type Fields = BTreeMap<String, String>;

/// The tasks of one service that are registered for one binding.
struct ServiceCreates<'a> {
    entries: Vec<(&'a PlanEntry, Fields)>,
    /// The fields that all of its tasks have.
    common: Fields,
}

/// The creates among the changes, if they are too many to show each.
pub(super) fn many_creates<'a>(changes: &[&'a PlanEntry]) -> Vec<&'a PlanEntry> {
    let creates = changes.iter().copied().filter(|planned| is_grouped(planned));
    let creates: Vec<&PlanEntry> = creates.collect();
    if creates.len() > MAX_EXAMPLES { creates } else { Vec::new() }
}

/// Whether the change is a task's create without anything that only it has.
pub(super) fn is_grouped(planned: &PlanEntry) -> bool {
    let change = &planned.change;
    change.change == Change::Create
        && planned.task.is_some()
        && change.registration.is_some()
        && change.precondition.is_none()
        && change.warnings.is_empty()
}

/// Writes a head with what all creates have in common, and two lines for each service.
pub(super) fn write_creates(out: &mut String, creates: &[&PlanEntry]) -> fmt::Result {
    let services = by_service(creates);
    let everywhere = intersection(services.iter().map(|service| &service.common));
    let by_task: BTreeSet<&str> = services.iter().flat_map(differing).collect();
    let reasons: BTreeSet<(&str, Option<&str>)> = creates
        .iter()
        .map(|planned| (planned.change.reason.as_str(), planned.change.binding.as_deref()))
        .collect();
    let (mark, style) = sign(&creates[0].change);
    let word = if services.len() == 1 { "service" } else { "services" };
    writeln!(out, "  {style}{mark} create{style:#}  {} tasks of {} {word}", creates.len(), services.len())?;
    for (path, value) in &everywhere {
        writeln!(out, "      {path}: {value}")?;
    }
    if !by_task.is_empty() {
        let by_task: Vec<&str> = by_task.into_iter().collect();
        writeln!(out, "      for each task its own: {}", by_task.join(", "))?;
    }
    for (reason, binding) in reasons {
        let binding = binding.map(|binding| format!(" (MeshBinding {binding})")).unwrap_or_default();
        writeln!(out, "      reason: {reason}{binding}")?;
    }
    for service in &services {
        write_service(out, service, &everywhere)?;
    }
    Ok(())
}

fn write_service(out: &mut String, service: &ServiceCreates<'_>, everywhere: &Fields) -> fmt::Result {
    let (first, _) = &service.entries[0];
    let (mark, style) = sign(&first.change);
    let count = service.entries.len();
    let word = if count == 1 { "task" } else { "tasks" };
    let blocked = match first.change.blocked_by {
        Some(BlockedBy::Policy) => ", skipped by policy",
        Some(BlockedBy::Guard) => ", held by the guard",
        Some(BlockedBy::Paused) => ", paused",
        Some(BlockedBy::UnsupportedControlPlane) => ", control plane not supported",
        Some(BlockedBy::NotExpressible) => ", not expressible",
        Some(BlockedBy::DataplaneOwner) => ", not the operator's Dataplane",
        None => "",
    };
    let name = first.change.service.as_deref().unwrap_or_default();
    let examples: Vec<String> =
        service.entries.iter().take(MAX_EXAMPLES).map(|(planned, _)| short_name(planned)).collect();
    write!(out, "  {style}{mark}{style:#} service {name}  {count} {word}{blocked}: {}", examples.join(", "))?;
    if count > MAX_EXAMPLES {
        write!(out, " and {} more", count - MAX_EXAMPLES)?;
    }
    out.push('\n');
    let own: Vec<String> = service
        .common
        .iter()
        .filter(|(path, _)| !everywhere.contains_key(*path))
        .map(|(path, value)| format!("{path}: {value}"))
        .collect();
    if own.is_empty() { Ok(()) } else { writeln!(out, "      {}", own.join(", ")) }
}

fn by_service<'a>(creates: &[&'a PlanEntry]) -> Vec<ServiceCreates<'a>> {
    let mut groups: BTreeMap<_, Vec<(&PlanEntry, Fields)>> = BTreeMap::new();
    for planned in creates {
        let change = &planned.change;
        let key = (change.service.as_deref(), change.binding.as_deref(), change.blocked_by);
        let fields = change.registration.as_ref().map(leaves).unwrap_or_default();
        groups.entry(key).or_default().push((planned, fields.into_iter().collect()));
    }
    groups
        .into_values()
        .map(|entries| ServiceCreates {
            common: intersection(entries.iter().map(|(_, fields)| fields)),
            entries,
        })
        .collect()
}

/// The fields that are equal in all.
fn intersection<'a>(all: impl Iterator<Item = &'a Fields>) -> Fields {
    let mut all = all;
    let Some(first) = all.next() else { return Fields::new() };
    let mut common = first.clone();
    for fields in all {
        common.retain(|path, value| fields.get(path) == Some(value));
    }
    common
}

/// The fields that differ between the tasks of one service.
fn differing<'s>(service: &'s ServiceCreates<'_>) -> impl Iterator<Item = &'s str> {
    let all = service.entries.iter().flat_map(|(_, fields)| fields.keys());
    all.filter(|path| !service.common.contains_key(*path)).map(String::as_str)
}
