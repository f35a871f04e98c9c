//! Items of lists that cannot be read, or placed. Lists come again at every sweep: each item is told of once, and again
//! when it has been away or is left out for another reason; many at a time in one line a reason.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, PoisonError};

/// So many are named in a line, and so much of each name.
const MAX_NAMES_LOGGED: usize = 5;
const MAX_NAME_LEN: usize = 128;
/// Of so many for one reason the names are kept while a list is read; the rest is counted.
const MAX_NAMES_KEPT: usize = 1_000;

/// Why an item is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SkipReason {
    /// What it is: `Dataplane`, `service`, `token`.
    pub what: &'static str,
    /// What is wrong with it.
    pub why: &'static str,
    /// What a person can do about it.
    pub fix: &'static str,
}

/// What was told of, and was there still when last listed.
#[derive(Debug, Default)]
pub struct SkippedItemLog {
    reported: Mutex<HashSet<u64>>,
}

/// What one list leaves out.
#[derive(Debug, Default)]
pub struct SkippedItems {
    found: HashSet<u64>,
    names: BTreeMap<SkipReason, BTreeSet<(u64, String)>>,
}

impl SkippedItems {
    /// Takes in an item that is left out.
    pub fn add(&mut self, name: &str, reason: SkipReason) {
        let mut hasher = DefaultHasher::new();
        (name, reason).hash(&mut hasher);
        let item = hasher.finish();
        if self.found.insert(item) {
            let items = self.names.entry(reason).or_default();
            let keep = if items.len() < MAX_NAMES_KEPT { MAX_NAME_LEN } else { 0 };
            items.insert((item, name.chars().take(keep).collect()));
        }
    }
}

/// What is said of those that are left out for one reason.
#[derive(Debug, PartialEq, Eq)]
struct SkippedSummary {
    reason: SkipReason,
    /// How many are new.
    count: usize,
    /// Some of them.
    names: String,
}

impl SkippedItemLog {
    /// Tells of what this list leaves out and the one before did not. Of what a list lacks that is not `whole`, it is not
    /// known whether it is away.
    pub fn report(&self, pass: SkippedItems, whole: bool) {
        for SkippedSummary { reason, count, names } in self.take_new(pass, whole) {
            let SkipReason { what, why, fix } = reason;
            tracing::warn!(kind = what, count, items = names, reason = why, fix, "skipping unreadable items of a list");
        }
    }

    fn take_new(&self, pass: SkippedItems, whole: bool) -> Vec<SkippedSummary> {
        let mut reported = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
        let line = |(reason, items): (SkipReason, BTreeSet<(u64, String)>)| {
            let mut new: Vec<String> =
                items.into_iter().filter(|(item, _)| !reported.contains(item)).map(|(_, name)| name).collect();
            new.sort_unstable();
            let count = new.len();
            new.retain(|name| !name.is_empty());
            new.truncate(MAX_NAMES_LOGGED);
            (count > 0).then(|| SkippedSummary { reason, count, names: new.join(", ") })
        };
        let lines = pass.names.into_iter().filter_map(line).collect();
        if whole {
            *reported = pass.found;
        } else {
            reported.extend(pass.found);
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNREADABLE: SkipReason = SkipReason { what: "service", why: "it cannot be read", fix: "look" };
    const UNPLACED: SkipReason = SkipReason { why: "it names no task", ..UNREADABLE };

    fn list(items: &[(&str, SkipReason)]) -> SkippedItems {
        let mut pass = SkippedItems::default();
        items.iter().for_each(|(name, reason)| pass.add(name, *reason));
        pass
    }

    fn line(reason: SkipReason, count: usize, names: &str) -> SkippedSummary {
        SkippedSummary { reason, count, names: names.to_owned() }
    }

    #[test]
    fn an_item_is_told_of_once_and_again_after_it_was_away() {
        let skipped_items = SkippedItemLog::default();
        let one = || list(&[("a", UNPLACED), ("a", UNPLACED)]);
        assert_eq!(skipped_items.take_new(one(), true), [line(UNPLACED, 1, "a")]);
        assert_eq!(skipped_items.take_new(one(), true), []);
        assert_eq!(skipped_items.take_new(list(&[("a", UNREADABLE)]), true), [line(UNREADABLE, 1, "a")]);
        assert_eq!(skipped_items.take_new(list(&[]), true), []);
        assert_eq!(skipped_items.take_new(one(), true), [line(UNPLACED, 1, "a")]);
    }

    #[test]
    fn an_item_of_a_part_that_failed_is_not_told_of_again() {
        let skipped_items = SkippedItemLog::default();
        let one = || list(&[("a", UNPLACED)]);
        assert_eq!(skipped_items.take_new(one(), true).len(), 1);
        assert_eq!(skipped_items.take_new(list(&[("b", UNPLACED)]), false), [line(UNPLACED, 1, "b")]);
        assert_eq!(skipped_items.take_new(one(), true), []);
    }

    #[test]
    fn skipped_items_log_one_line_per_reason() {
        let skipped_items = SkippedItemLog::default();
        let names: Vec<String> = (0..7).map(|n| format!("s{n}")).collect();
        let mut all: Vec<(&str, SkipReason)> = names.iter().map(|name| (&**name, UNPLACED)).collect();
        all.push(("x", UNREADABLE));
        let first = skipped_items.take_new(list(&all), true);
        assert_eq!(first, [line(UNREADABLE, 1, "x"), line(UNPLACED, 7, "s0, s1, s2, s3, s4")]);
        all.push(("y", UNPLACED));
        assert_eq!(skipped_items.take_new(list(&all), true), [line(UNPLACED, 1, "y")]);
    }

    #[test]
    fn of_very_many_all_are_counted_and_some_are_named() {
        let names: Vec<String> = (0..MAX_NAMES_KEPT * 2).map(|n| format!("s{n}")).collect();
        let all: Vec<(&str, SkipReason)> = names.iter().map(|name| (&**name, UNPLACED)).collect();
        let (pass, skipped_items) = (list(&all), SkippedItemLog::default());
        let kept = pass.names[&UNPLACED].iter().filter(|(_, name)| !name.is_empty()).count();
        assert_eq!(kept, MAX_NAMES_KEPT);
        let lines = skipped_items.take_new(pass, true);
        assert_eq!(
            (lines.len(), lines[0].count, lines[0].names.split(", ").count()),
            (1, MAX_NAMES_KEPT * 2, MAX_NAMES_LOGGED)
        );
    }
}
