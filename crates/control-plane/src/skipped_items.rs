//! Logs list items that cannot be read or attributed. Each item is logged once, and again after it was absent or for
//! another reason, although every sweep lists it. Items with the same reason share one line.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, PoisonError};

use super::http::quote_name;

/// Names in one log line.
const MAX_NAMES_LOGGED: usize = 5;
/// Names kept for one reason while a list is read; further items are only counted.
const MAX_NAMES_KEPT: usize = 1_000;

/// The reason for skipping an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SkipReason {
    /// The kind of item: `Dataplane`, `service`, `token`.
    pub kind: &'static str,
    /// The problem.
    pub problem: &'static str,
    /// The next step for the user.
    pub fix: &'static str,
}

/// Remembers the items that were logged and still existed in the last list.
#[derive(Debug, Default)]
pub struct SkippedItemLog {
    reported: Mutex<HashSet<u64>>,
}

/// The items that one list skipped.
#[derive(Debug, Default)]
pub struct SkippedItems {
    found: HashSet<u64>,
    names: BTreeMap<SkipReason, BTreeSet<(u64, String)>>,
}

impl SkippedItems {
    /// Adds a skipped item.
    pub fn add(&mut self, name: &str, reason: SkipReason) {
        let mut hasher = DefaultHasher::new();
        (name, reason).hash(&mut hasher);
        let item = hasher.finish();
        if self.found.insert(item) {
            let items = self.names.entry(reason).or_default();
            let kept = if items.len() < MAX_NAMES_KEPT { quote_name(name) } else { String::new() };
            items.insert((item, kept));
        }
    }
}

/// The log line of one reason.
#[derive(Debug, PartialEq, Eq)]
struct SkippedSummary {
    reason: SkipReason,
    /// The number of new items.
    count: usize,
    /// The names of some of them.
    names: String,
}

impl SkippedItemLog {
    /// Logs the items that this list skipped and the one before did not. Absence from a list that is not `complete` does
    /// not show that an item is gone.
    pub fn report(&self, skipped: SkippedItems, complete: bool) {
        for SkippedSummary { reason, count, names } in self.take_new(skipped, complete) {
            let SkipReason { kind, problem, fix } = reason;
            tracing::warn!(
                kind,
                count,
                items = names,
                reason = problem,
                fix,
                "skipping unreadable list items"
            );
        }
    }

    fn take_new(&self, skipped: SkippedItems, complete: bool) -> Vec<SkippedSummary> {
        let mut reported = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
        let line = |(reason, items): (SkipReason, BTreeSet<(u64, String)>)| {
            let mut new: Vec<String> = items
                .into_iter()
                .filter(|(item, _)| !reported.contains(item))
                .map(|(_, name)| name)
                .collect();
            new.sort_unstable();
            let count = new.len();
            new.retain(|name| !name.is_empty());
            new.truncate(MAX_NAMES_LOGGED);
            (count > 0).then(|| SkippedSummary { reason, count, names: new.join(", ") })
        };
        let lines = skipped.names.into_iter().filter_map(line).collect();
        if complete {
            *reported = skipped.found;
        } else {
            reported.extend(skipped.found);
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNREADABLE: SkipReason = SkipReason { kind: "service", problem: "unreadable", fix: "inspect" };
    const UNATTRIBUTED: SkipReason = SkipReason { problem: "without a task", ..UNREADABLE };

    fn list(items: &[(&str, SkipReason)]) -> SkippedItems {
        let mut skipped = SkippedItems::default();
        items.iter().for_each(|(name, reason)| skipped.add(name, *reason));
        skipped
    }

    fn line(reason: SkipReason, count: usize, names: &str) -> SkippedSummary {
        SkippedSummary { reason, count, names: names.to_owned() }
    }

    #[test]
    fn skipped_item_is_logged_again_after_an_absence() {
        let log = SkippedItemLog::default();
        let one = || list(&[("a", UNATTRIBUTED), ("a", UNATTRIBUTED)]);
        assert_eq!(log.take_new(one(), true), [line(UNATTRIBUTED, 1, "a")]);
        assert_eq!(log.take_new(one(), true), []);
        assert_eq!(log.take_new(list(&[("a", UNREADABLE)]), true), [line(UNREADABLE, 1, "a")]);
        assert_eq!(log.take_new(list(&[]), true), []);
        assert_eq!(log.take_new(one(), true), [line(UNATTRIBUTED, 1, "a")]);
    }

    #[test]
    fn skipped_item_is_remembered_when_list_is_incomplete() {
        let log = SkippedItemLog::default();
        let one = || list(&[("a", UNATTRIBUTED)]);
        assert_eq!(log.take_new(one(), true).len(), 1);
        assert_eq!(log.take_new(list(&[("b", UNATTRIBUTED)]), false), [line(UNATTRIBUTED, 1, "b")]);
        assert_eq!(log.take_new(one(), true), []);
    }

    #[test]
    fn skipped_items_log_one_line_per_reason() {
        let log = SkippedItemLog::default();
        let names: Vec<String> = (0..7).map(|n| format!("s{n}")).collect();
        let mut all: Vec<(&str, SkipReason)> = names.iter().map(|name| (&**name, UNATTRIBUTED)).collect();
        all.push(("x", UNREADABLE));
        let first = log.take_new(list(&all), true);
        assert_eq!(first, [line(UNREADABLE, 1, "x"), line(UNATTRIBUTED, 7, "s0, s1, s2, s3, s4")]);
        all.push(("y", UNATTRIBUTED));
        assert_eq!(log.take_new(list(&all), true), [line(UNATTRIBUTED, 1, "y")]);
    }

    #[test]
    fn skipped_items_beyond_the_limit_are_only_counted() {
        let names: Vec<String> = (0..MAX_NAMES_KEPT * 2).map(|n| format!("s{n}")).collect();
        let all: Vec<(&str, SkipReason)> = names.iter().map(|name| (&**name, UNATTRIBUTED)).collect();
        let (skipped, log) = (list(&all), SkippedItemLog::default());
        let kept = skipped.names[&UNATTRIBUTED].iter().filter(|(_, name)| !name.is_empty()).count();
        assert_eq!(kept, MAX_NAMES_KEPT);
        let lines = log.take_new(skipped, true);
        assert_eq!(
            (lines.len(), lines[0].count, lines[0].names.split(", ").count()),
            (1, MAX_NAMES_KEPT * 2, MAX_NAMES_LOGGED)
        );
    }
}
