//! Items of lists that cannot be read, or placed. Lists come again at every sweep: each item is told of once, and again
//! when it has been away or is left out for another reason; many at a time in one line a reason.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, PoisonError};

/// So many are named in a line, and so much of each name.
const NAMED: usize = 5;
const LONGEST_NAME: usize = 128;
/// Of so many for one reason the names are kept while a list is read; the rest is counted.
const MOST_NAMES: usize = 1_000;

/// Why an item is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reason {
    /// What it is: `Dataplane`, `service`, `token`.
    pub what: &'static str,
    /// What is wrong with it.
    pub why: &'static str,
    /// What a person can do about it.
    pub next: &'static str,
}

/// What was told of, and was there still when last listed.
#[derive(Debug, Default)]
pub struct LeftOut {
    told: Mutex<HashSet<u64>>,
}

/// What one list leaves out.
#[derive(Debug, Default)]
pub struct Pass {
    found: HashSet<u64>,
    names: BTreeMap<Reason, BTreeSet<(u64, String)>>,
}

impl Pass {
    /// Takes in an item that is left out.
    pub fn note(&mut self, name: &str, reason: Reason) {
        let mut hasher = DefaultHasher::new();
        (name, reason).hash(&mut hasher);
        let item = hasher.finish();
        if self.found.insert(item) {
            let items = self.names.entry(reason).or_default();
            let keep = if items.len() < MOST_NAMES { LONGEST_NAME } else { 0 };
            items.insert((item, name.chars().take(keep).collect()));
        }
    }
}

/// What is said of those that are left out for one reason.
#[derive(Debug, PartialEq, Eq)]
struct Line {
    reason: Reason,
    /// How many are new.
    count: usize,
    /// Some of them.
    names: String,
}

impl LeftOut {
    /// Tells of what this list leaves out and the one before did not. Of what a list lacks that is not `whole`, it is not
    /// known whether it is away.
    pub fn tell(&self, pass: Pass, whole: bool) {
        for Line { reason, count, names } in self.news(pass, whole) {
            let Reason { what, why, next } = reason;
            tracing::warn!(count, names, why, "a {what} in the list is left out: {next}");
        }
    }

    fn news(&self, pass: Pass, whole: bool) -> Vec<Line> {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let line = |(reason, items): (Reason, BTreeSet<(u64, String)>)| {
            let mut new: Vec<String> =
                items.into_iter().filter(|(item, _)| !told.contains(item)).map(|(_, name)| name).collect();
            new.sort_unstable();
            let count = new.len();
            new.retain(|name| !name.is_empty());
            new.truncate(NAMED);
            (count > 0).then(|| Line { reason, count, names: new.join(", ") })
        };
        let lines = pass.names.into_iter().filter_map(line).collect();
        if whole {
            *told = pass.found;
        } else {
            told.extend(pass.found);
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNREADABLE: Reason = Reason { what: "service", why: "it cannot be read", next: "look" };
    const UNPLACED: Reason = Reason { why: "it names no task", ..UNREADABLE };

    fn list(items: &[(&str, Reason)]) -> Pass {
        let mut pass = Pass::default();
        items.iter().for_each(|(name, reason)| pass.note(name, *reason));
        pass
    }

    fn line(reason: Reason, count: usize, names: &str) -> Line {
        Line { reason, count, names: names.to_owned() }
    }

    #[test]
    fn an_item_is_told_of_once_and_again_after_it_was_away() {
        let left_out = LeftOut::default();
        let one = || list(&[("a", UNPLACED), ("a", UNPLACED)]);
        assert_eq!(left_out.news(one(), true), [line(UNPLACED, 1, "a")]);
        assert_eq!(left_out.news(one(), true), []);
        assert_eq!(left_out.news(list(&[("a", UNREADABLE)]), true), [line(UNREADABLE, 1, "a")]);
        assert_eq!(left_out.news(list(&[]), true), []);
        assert_eq!(left_out.news(one(), true), [line(UNPLACED, 1, "a")]);
    }

    #[test]
    fn an_item_of_a_part_that_failed_is_not_told_of_again() {
        let left_out = LeftOut::default();
        let one = || list(&[("a", UNPLACED)]);
        assert_eq!(left_out.news(one(), true).len(), 1);
        assert_eq!(left_out.news(list(&[("b", UNPLACED)]), false), [line(UNPLACED, 1, "b")]);
        assert_eq!(left_out.news(one(), true), []);
    }

    #[test]
    fn many_items_are_a_line_a_reason_and_only_the_new_ones_count() {
        let left_out = LeftOut::default();
        let names: Vec<String> = (0..7).map(|n| format!("s{n}")).collect();
        let mut all: Vec<(&str, Reason)> = names.iter().map(|name| (&**name, UNPLACED)).collect();
        all.push(("x", UNREADABLE));
        let first = left_out.news(list(&all), true);
        assert_eq!(first, [line(UNREADABLE, 1, "x"), line(UNPLACED, 7, "s0, s1, s2, s3, s4")]);
        all.push(("y", UNPLACED));
        assert_eq!(left_out.news(list(&all), true), [line(UNPLACED, 1, "y")]);
    }

    #[test]
    fn of_very_many_all_are_counted_and_some_are_named() {
        let names: Vec<String> = (0..MOST_NAMES * 2).map(|n| format!("s{n}")).collect();
        let all: Vec<(&str, Reason)> = names.iter().map(|name| (&**name, UNPLACED)).collect();
        let (pass, left_out) = (list(&all), LeftOut::default());
        let kept = pass.names[&UNPLACED].iter().filter(|(_, name)| !name.is_empty()).count();
        assert_eq!(kept, MOST_NAMES);
        let lines = left_out.news(pass, true);
        assert_eq!(
            (lines.len(), lines[0].count, lines[0].names.split(", ").count()),
            (1, MOST_NAMES * 2, NAMED)
        );
    }
}
