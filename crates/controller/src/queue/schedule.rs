//! Decides which key runs next, and when: the queue without its lock, its waiters and its clock.

use std::collections::{BTreeMap, BTreeSet};

use tokio::time::Instant;

use super::{Requeue, Priority, QueueStats, WorkItem};
use crate::backoff::{Backoff, Delays};
use crate::saturating_add;

/// Every so many takes, the key that has waited longest is taken, whatever its priority.
const FAIR_TAKE: u64 = 8;

/// A run still to come.
#[derive(Clone, Copy, Debug)]
pub(super) struct ScheduledRun {
    pub(super) at: Instant,
    pub(super) priority: Priority,
}

impl ScheduledRun {
    /// One run that does for both: the earlier time, the more urgent priority.
    fn fold(self, other: Option<Self>) -> Self {
        let Some(other) = other else { return self };
        Self { at: self.at.min(other.at), priority: self.priority.min(other.priority) }
    }
}

/// A place in a line: by time, and for equal times by who came first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct QueueSlot {
    at: Instant,
    ticket: u64,
}

#[derive(Debug)]
enum KeyState {
    /// In `delayed`. A firm time (backoff, hold) is not brought forward.
    Delayed { slot: QueueSlot, firm: bool },
    /// In `waiting` and `urgent`.
    Waiting { slot: QueueSlot },
    /// In `running`, with the run asked for meanwhile.
    Running { slot: QueueSlot, again: Option<ScheduledRun> },
}

#[derive(Debug)]
struct KeyEntry {
    place: KeyState,
    /// Of the run ahead or, while running, of the run under way.
    priority: Priority,
    /// Present from the first failure to the next success.
    delays: Option<Delays>,
}

#[derive(Debug)]
pub(super) struct Schedule<K> {
    /// Canonical: every key that waits or runs. The four lines below are indexes into it.
    keys: BTreeMap<K, KeyEntry>,
    delayed: BTreeMap<QueueSlot, K>,
    waiting: BTreeMap<QueueSlot, K>,
    urgent: BTreeSet<(Priority, QueueSlot)>,
    running: BTreeSet<QueueSlot>,
    backoff: Backoff,
    rng: fastrand::Rng,
    tickets: u64,
    takes: u64,
    adds: u64,
    retries: u64,
}

impl<K: Clone + Ord> Schedule<K> {
    pub(super) fn new(backoff: Backoff, seed: u64) -> Self {
        Self {
            keys: BTreeMap::new(),
            delayed: BTreeMap::new(),
            waiting: BTreeMap::new(),
            urgent: BTreeSet::new(),
            running: BTreeSet::new(),
            backoff,
            rng: fastrand::Rng::with_seed(seed),
            tickets: 0,
            takes: 0,
            adds: 0,
            retries: 0,
        }
    }

    pub(super) fn add(&mut self, now: Instant, key: K, run: ScheduledRun) {
        self.promote(now);
        // Nobody jumps the line by asking for a time that has passed.
        let run = ScheduledRun { at: run.at.max(now), ..run };
        let slot = self.slot(run.at);
        let Some(entry) = self.keys.get_mut(&key) else {
            self.adds += 1;
            self.delayed.insert(slot, key.clone());
            let place = KeyState::Delayed { slot, firm: false };
            self.keys.insert(key, KeyEntry { place, priority: run.priority, delays: None });
            return self.promote(now);
        };
        match &mut entry.place {
            // Never twice at once: remembered for when the run under way is done.
            KeyState::Running { again, .. } => {
                self.adds += u64::from(again.is_none());
                *again = Some(run.fold(*again));
            }
            // The more urgent priority wins; the place by age stays.
            KeyState::Waiting { slot } => {
                if run.priority < entry.priority {
                    self.urgent.remove(&(entry.priority, *slot));
                    self.urgent.insert((run.priority, *slot));
                    entry.priority = run.priority;
                }
            }
            KeyState::Delayed { slot: old, firm } => {
                entry.priority = entry.priority.min(run.priority);
                // The earlier run wins, unless the time is firm.
                if !*firm && slot.at < old.at {
                    self.delayed.remove(old);
                    self.delayed.insert(slot, key);
                    *old = slot;
                    self.promote(now);
                }
            }
        }
    }

    pub(super) fn take(&mut self, now: Instant) -> Option<WorkItem<K>> {
        self.promote(now);
        let most_urgent = self.urgent.first()?.1;
        let longest_waiting = *self.waiting.first_key_value()?.0;
        self.takes += 1;
        let slot = if self.takes.is_multiple_of(FAIR_TAKE) { longest_waiting } else { most_urgent };

        let running = self.slot(now);
        let key = self.waiting.remove(&slot)?;
        let entry = self.keys.get_mut(&key)?;
        self.urgent.remove(&(entry.priority, slot));
        self.running.insert(running);
        entry.place = KeyState::Running { slot: running, again: None };
        Some(WorkItem { key, cause: entry.priority, waited: now.saturating_duration_since(slot.at) })
    }

    pub(super) fn done(&mut self, now: Instant, key: &K, next: Requeue) {
        self.promote(now);
        let Some(entry) = self.keys.get_mut(key) else { return };
        let KeyState::Running { slot, again } = entry.place else { return };
        self.running.remove(&slot);
        if matches!(next, Requeue::Forget | Requeue::After(_)) {
            entry.delays = None;
        }

        let (own, firm) = match next {
            Requeue::Forget => (None, false),
            Requeue::After(delay) => (Some(saturating_add(now, delay)), false),
            Requeue::Backoff => {
                self.retries += 1;
                let rng = &mut self.rng;
                let delays = entry.delays.get_or_insert_with(|| self.backoff.start(rng.u64(..)));
                (Some(saturating_add(now, delays.after_failure())), true)
            }
            Requeue::DeferUntil(at) => (Some(at), true),
        };
        let run = match own.map(|at| ScheduledRun { at, priority: entry.priority }) {
            None => again,
            // What was added meanwhile is done by the run at the firm time.
            Some(own) if firm => Some(ScheduledRun { at: own.at, ..own.fold(again) }),
            Some(own) => Some(own.fold(again)),
        };
        let Some(run) = run else {
            self.keys.remove(key);
            return;
        };
        self.adds += u64::from(again.is_none());
        entry.priority = run.priority;
        self.tickets += 1;
        let slot = QueueSlot { at: run.at.max(now), ticket: self.tickets };
        entry.place = KeyState::Delayed { slot, firm };
        self.delayed.insert(slot, key.clone());
        self.promote(now);
    }

    /// When the next delayed key becomes ready.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.delayed.first_key_value().map(|(slot, _)| slot.at)
    }

    pub(super) fn stats(&mut self, now: Instant) -> QueueStats {
        self.promote(now);
        let age = |slot: Option<&QueueSlot>| slot.map(|slot| now.saturating_duration_since(slot.at));
        QueueStats {
            ready: self.waiting.len(),
            delayed: self.delayed.len(),
            processing: self.running.len(),
            oldest_waiting: age(self.waiting.keys().next()).unwrap_or_default(),
            longest_running: age(self.running.first()).unwrap_or_default(),
            adds: self.adds,
            retries: self.retries,
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        let lines = self.delayed.len() + self.waiting.len() + self.urgent.len() + self.running.len();
        self.keys.is_empty() && lines == 0
    }

    /// Moves what has become due into the line. Each operation begins with this, so that a key that was due before
    /// another was added also stands before it.
    fn promote(&mut self, now: Instant) {
        while let Some(first) = self.delayed.first_entry() {
            if first.key().at > now {
                return;
            }
            let (slot, key) = first.remove_entry();
            if let Some(entry) = self.keys.get_mut(&key) {
                entry.place = KeyState::Waiting { slot };
                self.urgent.insert((entry.priority, slot));
                self.waiting.insert(slot, key);
            }
        }
    }

    fn slot(&mut self, at: Instant) -> QueueSlot {
        self.tickets += 1;
        QueueSlot { at, ticket: self.tickets }
    }
}
