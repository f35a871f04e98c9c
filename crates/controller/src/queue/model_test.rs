//! Thousands of random steps on the queue and on a model too simple to be wrong; every answer must be the same.

use std::collections::BTreeMap;

use super::*;
use crate::backoff::Delays;

/// A key of the model: a line in a list that is searched from end to end each time.
#[derive(Default)]
struct ModelKey {
    running_since: Option<Instant>,
    /// Of the run under way.
    cause: Option<Priority>,
    ahead: Option<PendingRun>,
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
    lines: BTreeMap<u8, ModelKey>,
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
        let line = self.lines.entry(key).or_default();
        let Some(ahead) = &mut line.ahead else {
            self.adds += 1;
            line.ahead = Some(new);
            return;
        };
        ahead.priority = ahead.priority.min(priority);
        let due = line.running_since.is_none() && ahead.at <= now;
        if !ahead.firm && !due && at < ahead.at {
            (ahead.at, ahead.order) = (at, self.order);
        }
    }

    fn ready(&self, now: Instant) -> Vec<(u8, PendingRun)> {
        let idle = self.lines.iter().filter(|(_, line)| line.running_since.is_none());
        idle.filter_map(|(key, line)| Some((*key, line.ahead?)))
            .filter(|(_, ahead)| ahead.at <= now)
            .collect()
    }

    fn take(&mut self, now: Instant) -> Option<WorkItem<u8>> {
        let ready = self.ready(now);
        let fair = (self.takes + 1).is_multiple_of(8);
        let (key, ahead) = ready.into_iter().min_by_key(|(_, ahead)| {
            (if fair { Priority::Removal } else { ahead.priority }, ahead.at, ahead.order)
        })?;
        self.takes += 1;
        let line = self.lines.get_mut(&key)?;
        line.ahead = None;
        line.running_since = Some(now);
        line.cause = Some(ahead.priority);
        Some(WorkItem { key, cause: ahead.priority, waited: now - ahead.at })
    }

    fn done(&mut self, now: Instant, key: u8, next: Requeue) {
        self.order += 1;
        let Some(line) = self.lines.get_mut(&key).filter(|line| line.running_since.is_some()) else { return };
        line.running_since = None;
        let cause = line.cause.take().unwrap();
        let again = line.ahead.take();
        let (at, firm) = match next {
            Requeue::Forget => {
                line.delays = None;
                (again.map(|again| again.at), false)
            }
            Requeue::After(delay) => {
                line.delays = None;
                (Some(again.map_or(now + delay, |again| again.at.min(now + delay))), false)
            }
            Requeue::Backoff => {
                self.retries += 1;
                if line.delays.is_none() {
                    line.delays = Some(self.backoff.start(self.rng.u64(..)));
                }
                (Some(now + line.delays.as_mut().unwrap().after_failure()), true)
            }
            Requeue::DeferUntil(at) => (Some(at), true),
        };
        let Some(at) = at else {
            self.lines.remove(&key);
            return;
        };
        self.adds += u64::from(again.is_none());
        let own = if next == Requeue::Forget { Priority::Sweep } else { cause };
        let priority = again.map_or(own, |again| again.priority.min(own));
        line.ahead = Some(PendingRun { at: at.max(now), priority, firm, order: self.order });
    }

    fn stats(&self, now: Instant) -> QueueStats {
        let ready = self.ready(now);
        let running: Vec<_> = self.lines.values().filter_map(|line| line.running_since).collect();
        QueueStats {
            ready: ready.len(),
            delayed: self.lines.len() - ready.len() - running.len(),
            processing: running.len(),
            oldest_waiting: ready.iter().map(|(_, ahead)| now - ahead.at).max().unwrap_or_default(),
            longest_running: running.iter().map(|since| now - *since).max().unwrap_or_default(),
            adds: self.adds,
            retries: self.retries,
        }
    }
}

#[tokio::test(start_paused = true)]
async fn any_history_of_the_queue_is_a_history_of_the_naive_model() {
    for seed in 0..20 {
        compare(seed, 3_000).await;
    }
}

async fn compare(seed: u64, steps: usize) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let backoff = Backoff { min: Duration::from_millis(200), max: Duration::from_secs(5) };
    let queue = WorkQueue::new(backoff, seed);
    let mut model = Model {
        lines: BTreeMap::new(),
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
                let (taken, expected) = (queue.take(), model.take(now));
                assert_eq!(taken, expected, "seed {seed}, step {step}");
                out.extend(taken.map(|taken| taken.key));
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
