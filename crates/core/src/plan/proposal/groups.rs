//! Items that read alike are one entry for people: what one task has at a control plane, and what befalls many tasks for
//! one cause. What is made or changed stays by itself, since each shows what it comes to.

use std::collections::{BTreeMap, BTreeSet};

use super::render::Detail;
use super::{Blocked, Change, Planned};
use ecs_mesh_model::TaskArn;

/// So many are named, or shown; the rest is counted.
pub(super) const NAMED: usize = 3;

/// What is written as one.
pub(super) struct Entry<'a> {
    /// At least one.
    pub(super) items: Vec<&'a Planned>,
}

/// Those of whom the same is to be said.
type Cause<'a> = (Change, Option<Blocked>, Option<&'a str>, &'a str, bool, bool);

fn cause(planned: &Planned) -> Cause<'_> {
    let item = &planned.item;
    let (binding, is_of_object) = (item.binding.as_deref(), item.object.is_some());
    (item.change, item.blocked_by, binding, &item.cause, item.after.is_some(), is_of_object)
}

fn is_alone(planned: &Planned) -> bool {
    let item = &planned.item;
    let is_shown = matches!(item.change, Change::Create | Change::Update) || !item.fields.is_empty();
    is_shown || (item.object.is_some() && item.change != Change::Unknown)
}

/// In the order in which the first of each comes; what is unknown last.
pub(super) fn entries<'a>(items: &[&'a Planned], detail: Detail) -> Vec<Entry<'a>> {
    let mut entries: Vec<Entry<'a>> = Vec::new();
    let mut of_task: BTreeMap<(Cause<'a>, &'a TaskArn), usize> = BTreeMap::new();
    for planned in items {
        let key = planned.task.as_ref().filter(|_| !is_alone(planned)).map(|task| (cause(planned), task));
        match key.as_ref().and_then(|key| of_task.get(key)) {
            Some(at) => entries[*at].items.push(planned),
            None => {
                if let Some(key) = key {
                    of_task.insert(key, entries.len());
                }
                entries.push(Entry { items: vec![planned] });
            }
        }
    }
    if detail == Detail::Changes {
        entries = by_cause(entries);
    }
    entries.sort_by_key(|entry| entry.first().item.change == Change::Unknown);
    entries
}

fn by_cause(entries: Vec<Entry<'_>>) -> Vec<Entry<'_>> {
    let mut alike: BTreeMap<Cause<'_>, usize> = BTreeMap::new();
    for entry in entries.iter().filter(|entry| !is_alone(entry.first())) {
        *alike.entry(cause(entry.first())).or_default() += 1;
    }
    let mut begun: BTreeMap<Cause<'_>, usize> = BTreeMap::new();
    let mut all: Vec<Entry<'_>> = Vec::new();
    for entry in entries {
        let first = entry.first();
        let key = cause(first);
        let few = if first.item.change == Change::Unknown { 1 } else { NAMED };
        let are_many = !is_alone(first) && alike.get(&key).is_some_and(|count| *count > few);
        match begun.get(&key).filter(|_| are_many) {
            Some(at) => all[*at].items.extend(entry.items),
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

impl<'a> Entry<'a> {
    pub(super) fn first(&self) -> &'a Planned {
        self.items[0]
    }

    /// The tasks, each once.
    pub(super) fn tasks(&self) -> BTreeSet<&'a TaskArn> {
        self.items.iter().filter_map(|planned| planned.task.as_ref()).collect()
    }

    /// Why: each reason with one that it is the reason for and how many there are, the most frequent first.
    pub(super) fn reasons(&self) -> Vec<(&'a str, &'a Planned, usize)> {
        let mut reasons: BTreeMap<&'a str, (&'a Planned, BTreeSet<Option<&'a TaskArn>>)> = BTreeMap::new();
        for planned in &self.items {
            let (_, tasks) =
                reasons.entry(&planned.item.reason).or_insert_with(|| (planned, BTreeSet::new()));
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
        for name in self.items.iter().filter_map(|planned| planned.item.name.as_deref()) {
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
