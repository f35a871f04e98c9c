//! Groups the changes of a plan for people: all changes of one task at a control plane, and many tasks' changes with one
//! cause. Creates and updates stay separate, since each shows its fields.

use std::collections::{BTreeMap, BTreeSet};

use super::render::PlanDetail;
use super::{BlockedBy, Change, PlanEntry};
use ecs_mesh_model::TaskArn;

/// Examples shown of a group; the others are counted.
pub(super) const MAX_EXAMPLES: usize = 3;

/// Changes that are printed as one entry.
pub(super) struct ChangeGroup<'a> {
    /// At least one.
    pub(super) changes: Vec<&'a PlanEntry>,
}

/// The key that the changes of one entry have in common.
type ChangeGroupKey<'a> = (Change, Option<BlockedBy>, Option<&'a str>, &'a str, bool, bool);

fn group_key(planned: &PlanEntry) -> ChangeGroupKey<'_> {
    let change = &planned.change;
    let (binding, is_of_object) = (change.binding.as_deref(), change.kind.is_some());
    (change.change, change.blocked_by, binding, &change.key, change.precondition.is_some(), is_of_object)
}

fn is_separate(planned: &PlanEntry) -> bool {
    let change = &planned.change;
    let is_shown = matches!(change.change, Change::Create | Change::Update) || !change.fields.is_empty();
    is_shown || (change.kind.is_some() && change.change != Change::Unknown)
}

/// The entries in the order of their first changes; unknown ones last.
pub(super) fn entries<'a>(changes: &[&'a PlanEntry], detail: PlanDetail) -> Vec<ChangeGroup<'a>> {
    let mut entries: Vec<ChangeGroup<'a>> = Vec::new();
    let mut by_task: BTreeMap<(ChangeGroupKey<'a>, &'a TaskArn), usize> = BTreeMap::new();
    for planned in changes {
        let key =
            planned.task.as_ref().filter(|_| !is_separate(planned)).map(|task| (group_key(planned), task));
        match key.as_ref().and_then(|key| by_task.get(key)) {
            Some(at) => entries[*at].changes.push(planned),
            None => {
                if let Some(key) = key {
                    by_task.insert(key, entries.len());
                }
                entries.push(ChangeGroup { changes: vec![planned] });
            }
        }
    }
    if detail == PlanDetail::Changes {
        entries = by_cause(entries);
    }
    entries.sort_by_key(|entry| entry.first().change.change == Change::Unknown);
    entries
}

fn by_cause(entries: Vec<ChangeGroup<'_>>) -> Vec<ChangeGroup<'_>> {
    let mut counts: BTreeMap<ChangeGroupKey<'_>, usize> = BTreeMap::new();
    for entry in entries.iter().filter(|entry| !is_separate(entry.first())) {
        *counts.entry(group_key(entry.first())).or_default() += 1;
    }
    let mut started: BTreeMap<ChangeGroupKey<'_>, usize> = BTreeMap::new();
    let mut all: Vec<ChangeGroup<'_>> = Vec::new();
    for entry in entries {
        let first = entry.first();
        let key = group_key(first);
        let limit = if first.change.change == Change::Unknown { 1 } else { MAX_EXAMPLES };
        let is_grouped = !is_separate(first) && counts.get(&key).is_some_and(|count| *count > limit);
        match started.get(&key).filter(|_| is_grouped) {
            Some(at) => all[*at].changes.extend(entry.changes),
            None => {
                if is_grouped {
                    started.insert(key, all.len());
                }
                all.push(entry);
            }
        }
    }
    all
}

impl<'a> ChangeGroup<'a> {
    pub(super) fn first(&self) -> &'a PlanEntry {
        self.changes[0]
    }

    /// The tasks, each once.
    pub(super) fn tasks(&self) -> BTreeSet<&'a TaskArn> {
        self.changes.iter().filter_map(|planned| planned.task.as_ref()).collect()
    }

    /// Each reason with an example and its number of tasks, the most frequent first.
    pub(super) fn reasons(&self) -> Vec<(&'a str, &'a PlanEntry, usize)> {
        let mut reasons: BTreeMap<&'a str, (&'a PlanEntry, BTreeSet<Option<&'a TaskArn>>)> = BTreeMap::new();
        for planned in &self.changes {
            let (_, tasks) =
                reasons.entry(&planned.change.reason).or_insert_with(|| (planned, BTreeSet::new()));
            tasks.insert(planned.task.as_ref());
        }
        let mut reasons: Vec<_> =
            reasons.into_iter().map(|(reason, (example, tasks))| (reason, example, tasks.len())).collect();
        reasons.sort_by_key(|(_, _, tasks)| std::cmp::Reverse(*tasks));
        reasons
    }

    /// The number of registrations by kind: `2 tokens, 4 services`.
    pub(super) fn registration_counts(&self) -> String {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for name in self.changes.iter().filter_map(|planned| planned.change.name.as_deref()) {
            let kind = name.split_once('/').map_or("registration", |(kind, _)| kind);
            *counts.entry(kind).or_default() += 1;
        }
        let counted = counts.iter().map(|(kind, count)| {
            let plural = if *count == 1 { "" } else { "s" };
            format!("{count} {kind}{plural}")
        });
        counted.collect::<Vec<_>>().join(", ")
    }
}
