//! Items that read alike are one entry for people: what one task has at a control plane, and what befalls many tasks for
//! one cause. What is made or changed stays by itself, since each shows what it comes to.

use std::collections::{BTreeMap, BTreeSet};

use super::render::PlanDetail;
use super::{BlockedBy, Change, PlanEntry};
use ecs_mesh_model::TaskArn;

/// So many are named, or shown; the rest is counted.
pub(super) const NAMED: usize = 3;

/// What is written as one.
pub(super) struct ChangeGroup<'a> {
    /// At least one.
    pub(super) changes: Vec<&'a PlanEntry>,
}

/// Those of whom the same is to be said.
type ChangeGroupKey<'a> = (Change, Option<BlockedBy>, Option<&'a str>, &'a str, bool, bool);

fn cause(planned: &PlanEntry) -> ChangeGroupKey<'_> {
    let item = &planned.change;
    let (binding, is_of_object) = (item.binding.as_deref(), item.kind.is_some());
    (item.change, item.blocked_by, binding, &item.key, item.precondition.is_some(), is_of_object)
}

fn is_alone(planned: &PlanEntry) -> bool {
    let item = &planned.change;
    let is_shown = matches!(item.change, Change::Create | Change::Update) || !item.fields.is_empty();
    is_shown || (item.kind.is_some() && item.change != Change::Unknown)
}

/// In the order in which the first of each comes; what is unknown last.
pub(super) fn entries<'a>(changes: &[&'a PlanEntry], detail: PlanDetail) -> Vec<ChangeGroup<'a>> {
    let mut entries: Vec<ChangeGroup<'a>> = Vec::new();
    let mut of_task: BTreeMap<(ChangeGroupKey<'a>, &'a TaskArn), usize> = BTreeMap::new();
    for planned in changes {
        let key = planned.task.as_ref().filter(|_| !is_alone(planned)).map(|task| (cause(planned), task));
        match key.as_ref().and_then(|key| of_task.get(key)) {
            Some(at) => entries[*at].changes.push(planned),
            None => {
                if let Some(key) = key {
                    of_task.insert(key, entries.len());
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
    let mut alike: BTreeMap<ChangeGroupKey<'_>, usize> = BTreeMap::new();
    for entry in entries.iter().filter(|entry| !is_alone(entry.first())) {
        *alike.entry(cause(entry.first())).or_default() += 1;
    }
    let mut begun: BTreeMap<ChangeGroupKey<'_>, usize> = BTreeMap::new();
    let mut all: Vec<ChangeGroup<'_>> = Vec::new();
    for entry in entries {
        let first = entry.first();
        let key = cause(first);
        let few = if first.change.change == Change::Unknown { 1 } else { NAMED };
        let are_many = !is_alone(first) && alike.get(&key).is_some_and(|count| *count > few);
        match begun.get(&key).filter(|_| are_many) {
            Some(at) => all[*at].changes.extend(entry.changes),
            None => {
                if are_many {
                    begun.insert(key, all.len());
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

    /// Why: each reason with one that it is the reason for and how many there are, the most frequent first.
    pub(super) fn reasons(&self) -> Vec<(&'a str, &'a PlanEntry, usize)> {
        let mut reasons: BTreeMap<&'a str, (&'a PlanEntry, BTreeSet<Option<&'a TaskArn>>)> = BTreeMap::new();
        for planned in &self.changes {
            let (_, tasks) =
                reasons.entry(&planned.change.reason).or_insert_with(|| (planned, BTreeSet::new()));
            tasks.insert(planned.task.as_ref());
        }
        let mut reasons: Vec<_> =
            reasons.into_iter().map(|(reason, (one, tasks))| (reason, one, tasks.len())).collect();
        reasons.sort_by_key(|(_, _, tasks)| std::cmp::Reverse(*tasks));
        reasons
    }

    /// How many of what, where the names tell: `2 tokens, 4 services`.
    pub(super) fn things(&self) -> String {
        let mut things: BTreeMap<&str, usize> = BTreeMap::new();
        for name in self.changes.iter().filter_map(|planned| planned.change.name.as_deref()) {
            let kind = name.split_once('/').map_or("registration", |(kind, _)| kind);
            *things.entry(kind).or_default() += 1;
        }
        let counted = things.iter().map(|(kind, count)| {
            let plural = if *count == 1 { "" } else { "s" };
            format!("{count} {kind}{plural}")
        });
        counted.collect::<Vec<_>>().join(", ")
    }
}
