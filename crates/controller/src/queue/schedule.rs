//! Decides which key runs next and when: the queue without lock, waiters and clock.

use std::collections::{BTreeMap, BTreeSet};

use tokio::time::Instant;

use super::{Priority, QueueStats, Requeue, WorkItem};
use crate::backoff::{Backoff, Delays};
use crate::saturating_add;

/// Every n-th take gets the key that has waited longest, regardless of its priority.
const FAIR_TAKE: u64 = 8;

/// A requested run.
#[derive(Clone, Copy, Debug)]
pub(super) struct ScheduledRun {
    pub(super) at: Instant,
    pub(super) priority: Priority,
}

impl ScheduledRun {
    /// Merges two runs: the earlier time and the more urgent priority.
    fn fold(self, other: Option<Self>) -> Self {
        let Some(other) = other else { return self };
        Self { at: self.at.min(other.at), priority: self.priority.min(other.priority) }
    }
}

/// A position in an index: by time, and by order of arrival for equal times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct QueueSlot {
    at: Instant,
    ticket: u64,
}

#[derive(Debug)]
enum KeyState {
    /// In `delayed`. A firm time (backoff, deferral) is not brought forward.
    Delayed { slot: QueueSlot, firm: bool },
    /// In `waiting` and `urgent`.
    Waiting { slot: QueueSlot },
    /// In `running`, with the run requested meanwhile.
    Running { slot: QueueSlot, again: Option<ScheduledRun> },
}

#[derive(Debug)]
struct KeyEntry {
    state: KeyState,
    /// The priority of the pending run or, while running, of the current run.
    priority: Priority,
    /// Present from the first failure to the next success.
    delays: Option<Delays>,
}

#[derive(Debug)]
pub(super) struct Schedule<K> {
    /// Every key that waits or runs. The four fields below are indexes into it.
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
        // A time in the past must not overtake keys that already wait.
        let run = ScheduledRun { at: run.at.max(now), ..run };
        let slot = self.slot(run.at);
        let Some(entry) = self.keys.get_mut(&key) else {
            self.adds += 1;
            let state = if slot.at > now {
                self.delayed.insert(slot, key.clone());
                KeyState::Delayed { slot, firm: false }
            } else {
                self.urgent.insert((run.priority, slot));
                self.waiting.insert(slot, key.clone());
                KeyState::Waiting { slot }
            };
            self.keys.insert(key, KeyEntry { state, priority: run.priority, delays: None });
            return;
        };
        match &mut entry.state {
            // Never concurrently: the run starts when the current one is done.
            KeyState::Running { again, .. } => {
                self.adds += u64::from(again.is_none());
                *again = Some(run.fold(*again));
            }
            // The more urgent priority wins; the position by age stays.
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
        entry.state = KeyState::Running { slot: running, again: None };
        Some(WorkItem { key, cause: entry.priority, waited: now.saturating_duration_since(slot.at) })
    }

    pub(super) fn done(&mut self, now: Instant, key: &K, next: Requeue) {
        self.promote(now);
        let Some(entry) = self.keys.get_mut(key) else { return };
        let KeyState::Running { slot, again } = entry.state else { return };
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
            // Adds during the run fold into the run at the firm time.
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
        entry.state = KeyState::Delayed { slot, firm };
        self.delayed.insert(slot, key.clone());
        self.promote(now);
    }

    /// The instant at which the next delayed key becomes ready.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.delayed.first_key_value().map(|(slot, _)| slot.at)
    }

    pub(super) fn delayed(&mut self, now: Instant) -> Vec<K> {
        self.promote(now);
        self.delayed.values().cloned().collect()
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
        let indexed = self.delayed.len() + self.waiting.len() + self.urgent.len() + self.running.len();
        self.keys.is_empty() && indexed == 0
    }

    /// Moves due keys from `delayed` to `waiting`. Each operation starts with this, so that a key that was due before
    /// another was added also precedes it.
    fn promote(&mut self, now: Instant) {
        while let Some(first) = self.delayed.first_entry() {
            if first.key().at > now {
                return;
            }
            let (slot, key) = first.remove_entry();
            if let Some(entry) = self.keys.get_mut(&key) {
                entry.state = KeyState::Waiting { slot };
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
