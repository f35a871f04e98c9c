//! Compares the queue with a naive model over thousands of random steps.

use std::collections::BTreeMap;

use super::*;
use crate::backoff::Delays;

/// A key of the model, which scans all keys at each step.
#[derive(Default)]
struct ModelKey {
    running_since: Option<Instant>,
    /// The cause of the current run.
    cause: Option<Priority>,
    pending: Option<PendingRun>,
    delays: Option<Delays>,
}

#[derive(Clone, Copy)]
struct PendingRun {
    at: Instant,
    priority: Priority,
    firm: bool,
    order: u64,
}

struct Model {
    keys: BTreeMap<u8, ModelKey>,
    backoff: Backoff,
    rng: fastrand::Rng,
    order: u64,
    takes: u64,
    adds: u64,
    retries: u64,
}

impl Model {
    fn add(&mut self, now: Instant, key: u8, priority: Priority, at: Instant) {
        self.order += 1;
        let at = at.max(now);
        let new = PendingRun { at, priority, firm: false, order: self.order };
        let entry = self.keys.entry(key).or_default();
        let Some(pending) = &mut entry.pending else {
            self.adds += 1;
            entry.pending = Some(new);
            return;
        };
        pending.priority = pending.priority.min(priority);
        let due = entry.running_since.is_none() && pending.at <= now;
        if !pending.firm && !due && at < pending.at {
            (pending.at, pending.order) = (at, self.order);
        }
    }

    fn ready(&self, now: Instant) -> Vec<(u8, PendingRun)> {
        let idle = self.keys.iter().filter(|(_, entry)| entry.running_since.is_none());
        idle.filter_map(|(key, entry)| Some((*key, entry.pending?)))
            .filter(|(_, pending)| pending.at <= now)
            .collect()
    }

    fn take(&mut self, now: Instant) -> Option<WorkItem<u8>> {
        let ready = self.ready(now);
        let fair = (self.takes + 1).is_multiple_of(8);
        let (key, pending) = ready.into_iter().min_by_key(|(_, pending)| {
            (if fair { Priority::Removal } else { pending.priority }, pending.at, pending.order)
        })?;
        self.takes += 1;
        let entry = self.keys.get_mut(&key)?;
        entry.pending = None;
        entry.running_since = Some(now);
        entry.cause = Some(pending.priority);
        Some(WorkItem { key, cause: pending.priority, waited: now - pending.at })
    }

    fn done(&mut self, now: Instant, key: u8, next: Requeue) {
        self.order += 1;
        let Some(entry) = self.keys.get_mut(&key).filter(|entry| entry.running_since.is_some()) else {
            return;
        };
        entry.running_since = None;
        let cause = entry.cause.take().unwrap();
        let again = entry.pending.take();
        let (at, firm) = match next {
            Requeue::Forget => {
                entry.delays = None;
                (again.map(|again| again.at), false)
            }
            Requeue::After(delay) => {
                entry.delays = None;
                (Some(again.map_or(now + delay, |again| again.at.min(now + delay))), false)
            }
            Requeue::Backoff => {
                self.retries += 1;
                if entry.delays.is_none() {
                    entry.delays = Some(self.backoff.start(self.rng.u64(..)));
                }
                (Some(now + entry.delays.as_mut().unwrap().after_failure()), true)
            }
            Requeue::DeferUntil(at) => (Some(at), true),
        };
        let Some(at) = at else {
            self.keys.remove(&key);
            return;
        };
        self.adds += u64::from(again.is_none());
        let own = if next == Requeue::Forget { Priority::Sweep } else { cause };
        let priority = again.map_or(own, |again| again.priority.min(own));
        entry.pending = Some(PendingRun { at: at.max(now), priority, firm, order: self.order });
    }

    fn stats(&self, now: Instant) -> QueueStats {
        let ready = self.ready(now);
        let running: Vec<_> = self.keys.values().filter_map(|entry| entry.running_since).collect();
        QueueStats {
            ready: ready.len(),
            delayed: self.keys.len() - ready.len() - running.len(),
            processing: running.len(),
            oldest_waiting: ready.iter().map(|(_, pending)| now - pending.at).max().unwrap_or_default(),
            longest_running: running.iter().map(|since| now - *since).max().unwrap_or_default(),
            adds: self.adds,
            retries: self.retries,
        }
    }
}

#[tokio::test(start_paused = true)]
async fn queue_matches_the_naive_model() {
    for seed in 0..20 {
        compare(seed, 3_000).await;
    }
}

async fn compare(seed: u64, steps: usize) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let backoff = Backoff { min: Duration::from_millis(200), max: Duration::from_secs(5) };
    let queue = WorkQueue::new(backoff, seed);
    let mut model = Model {
        keys: BTreeMap::new(),
        backoff,
        rng: fastrand::Rng::with_seed(seed),
        order: 0,
        takes: 0,
        adds: 0,
        retries: 0,
    };
    let mut out: Vec<u8> = Vec::new();
    for step in 0..steps {
        let now = Instant::now();
        let soon = now + Duration::from_millis(rng.u64(..3_000));
        match rng.u8(..10) {
            0..3 => {
                let (key, priority) = (rng.u8(..40), Priority::ALL[rng.usize(..4)]);
                let past = now.checked_sub(Duration::from_secs(1)).unwrap_or(now);
                let at = [now, soon, past][rng.usize(..3)];
                queue.add_at(key, priority, at);
                model.add(now, key, priority, at);
            }
            3..6 => {
                let (item, expected) = (queue.take(), model.take(now));
                assert_eq!(item, expected, "seed {seed}, step {step}");
                out.extend(item.map(|item| item.key));
            }
            6..9 if !out.is_empty() => {
                let key = out.swap_remove(rng.usize(..out.len()));
                let next = match rng.u8(..5) {
                    0 => Requeue::Forget,
                    1 => Requeue::After(soon - now),
                    2 => Requeue::DeferUntil(soon),
                    _ => Requeue::Backoff,
                };
                queue.done(&key, next);
                model.done(now, key, next);
            }
            _ => tokio::time::advance(Duration::from_millis(rng.u64(..400))).await,
        }
        assert_eq!(queue.stats(), model.stats(Instant::now()), "seed {seed}, step {step}");
    }
}
