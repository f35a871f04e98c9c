//! The guard limits removals without the task's own STOPPED (invariant I5).
//!
//! Per binding and hour, it admits at most `maxFraction` of the owned registrations, once at least `minOwned` are owned. A
//! drain that takes a live task out of load balancing counts as its removal, since the effect is the same. The window is in
//! memory: a restarted operator starts a new hour.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use ecs_mesh_api::GuardPolicy;
use ecs_mesh_model::{TaskArn, Timestamp};

const GUARD_WINDOW: Duration = Duration::from_hours(1);

/// The admitted and held removals of one binding within the last hour.
#[derive(Clone, Debug, Default)]
pub struct RemovalGuard {
    /// Admitted and not executed yet: requested again at each step, counted once.
    in_progress: BTreeMap<TaskArn, AdmittedRemoval>,
    /// Executed. A task that was registered and removed again counts again.
    completed: VecDeque<Timestamp>,
    held: BTreeMap<TaskArn, Timestamp>,
    /// Most confirmed registrations within the hour: the base of `maxFraction`.
    confirmed: HourlyMax,
    /// Most possible registrations within the hour, unconfirmed creates included: compared with `minOwned`, so that a lost
    /// response does not turn the guard off.
    possible: HourlyMax,
}

/// The number of registrations that a binding owns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OwnedCount {
    /// Listed or acknowledged by the control plane.
    pub confirmed: usize,
    /// The confirmed ones, and those whose create was sent and not acknowledged.
    pub possible: usize,
}

impl OwnedCount {
    /// A count of confirmed registrations alone.
    pub fn confirmed(count: usize) -> Self {
        Self { confirmed: count, possible: count }
    }
}

/// The largest number recorded within the last hour. Keeps the numbers that can still become the largest.
#[derive(Clone, Debug, Default)]
struct HourlyMax(VecDeque<(Timestamp, usize)>);

impl HourlyMax {
    fn record(&mut self, number: usize, now: Timestamp) {
        while self.0.back().is_some_and(|(_, smaller)| *smaller <= number) {
            self.0.pop_back();
        }
        self.0.push_back((now, number));
    }

    fn expire(&mut self, now: Timestamp) {
        self.0.retain(|(at, _)| at.age_at(now) < GUARD_WINDOW);
    }

    /// The last number counts at any age: it has not changed since.
    fn at(&self, now: Timestamp) -> usize {
        let recent =
            self.0.iter().filter(|(at, _)| at.age_at(now) < GUARD_WINDOW).map(|(_, number)| *number).max();
        recent.or(self.0.back().map(|(_, number)| *number)).unwrap_or(0)
    }
}

#[derive(Clone, Copy, Debug)]
struct AdmittedRemoval {
    since: Timestamp,
    /// The removal was sent: if the response is lost, it may have succeeded.
    sent: bool,
}

/// The guard's decision on one removal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuardDecision {
    /// The removal is admitted.
    Admitted,
    /// The removal exceeds the limit.
    Held {
        /// Removals admitted within the hour.
        admitted: usize,
        /// Most registrations owned within the hour.
        owned: usize,
    },
}

/// The numbers of a guard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct GuardState {
    /// Removals held.
    pub held: usize,
    /// Removals admitted within the hour.
    pub admitted: usize,
    /// Most registrations owned within the hour.
    pub owned: usize,
    /// Removals that the guard admits within an hour; all owned ones where it is released, or where they are few.
    pub limit: usize,
}

impl RemovalGuard {
    /// Requests the removal of a task's registration. `owned` are the binding's registrations now; with `released`, a person
    /// has admitted removals (`releaseUntil`). Repeated requests for one task count once.
    pub fn admit(
        &mut self,
        task: &TaskArn,
        owned: OwnedCount,
        policy: &GuardPolicy,
        released: bool,
        now: Timestamp,
    ) -> GuardDecision {
        self.expire(now);
        self.record_owned(owned, now);
        if self.in_progress.contains_key(task) {
            return GuardDecision::Admitted;
        }
        let (owned, possible) = (self.confirmed.at(now), self.possible.at(now));
        let admitted = self.in_progress.len() + self.completed.len();
        #[allow(clippy::cast_precision_loss)] // far fewer than 2^52 registrations
        let too_many = (admitted + 1) as f64 > policy.max_fraction * owned as f64;
        if too_many && possible >= policy.min_owned as usize && !released {
            self.held.insert(task.clone(), now);
            return GuardDecision::Held { admitted, owned };
        }
        self.held.remove(task);
        self.in_progress.insert(task.clone(), AdmittedRemoval { since: now, sent: false });
        GuardDecision::Admitted
    }

    /// Records that the admitted removal is about to be sent.
    pub fn record_sent(&mut self, task: &TaskArn) {
        if let Some(entry) = self.in_progress.get_mut(task) {
            entry.sent = true;
        }
    }

    /// Records that the admitted removal was executed.
    pub fn record_completed(&mut self, task: &TaskArn, now: Timestamp) {
        self.held.remove(task);
        if self.in_progress.remove(task).is_some() {
            self.completed.push_back(now);
        }
    }

    /// Takes back a removal that is no longer needed, or that the task's own STOPPED now allows. A removal that was sent
    /// stays counted.
    pub fn release(&mut self, task: &TaskArn) {
        self.held.remove(task);
        if self.in_progress.get(task).is_some_and(|entry| !entry.sent) {
            self.in_progress.remove(task);
        }
    }

    fn expire(&mut self, now: Timestamp) {
        let expired = |at: &Timestamp| at.age_at(now) >= GUARD_WINDOW;
        self.in_progress.retain(|_, entry| !expired(&entry.since));
        self.held.retain(|_, at| !expired(at));
        self.completed.retain(|at| !expired(at));
        self.confirmed.expire(now);
        self.possible.expire(now);
    }

    /// Records the number of registrations owned now.
    pub fn record_owned(&mut self, owned: OwnedCount, now: Timestamp) {
        self.confirmed.record(owned.confirmed, now);
        self.possible.record(owned.possible, now);
    }

    /// The admissions of the last hour, and the limit.
    pub fn state(&self, policy: &GuardPolicy, released: bool, now: Timestamp) -> GuardState {
        let recent = |at: &&Timestamp| at.age_at(now) < GUARD_WINDOW;
        let owned = self.confirmed.at(now);
        let in_progress = self.in_progress.values().filter(|entry| recent(&&entry.since)).count();
        #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        // far below 2^52
        let part = (policy.max_fraction * owned as f64).max(0.0) as usize;
        let unlimited = released || self.possible.at(now) < policy.min_owned as usize;
        GuardState {
            held: self.held.values().filter(recent).count(),
            admitted: in_progress + self.completed.iter().filter(recent).count(),
            owned,
            limit: if unlimited { owned } else { part },
        }
    }

    /// The number of held removals.
    pub fn held_count(&self) -> usize {
        self.held.len()
    }

    /// The tasks whose removals are held.
    pub fn held(&self) -> impl Iterator<Item = &TaskArn> {
        self.held.keys()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ecs_mesh_model::{ClusterArn, TaskId};

    fn task(n: usize) -> TaskArn {
        let cluster = ClusterArn::parse("arn:aws:ecs:eu-west-1:111122223333:cluster/c").unwrap();
        cluster.task(TaskId::parse(&format!("{n:032x}")).unwrap())
    }

    fn remove(
        guard: &mut RemovalGuard,
        numbers: std::ops::Range<usize>,
        total: usize,
        now: Timestamp,
    ) -> usize {
        let mut owned = total;
        for n in numbers {
            let count = OwnedCount::confirmed(owned);
            if guard.admit(&task(n), count, &GuardPolicy::default(), false, now) == GuardDecision::Admitted {
                guard.record_completed(&task(n), now);
                owned -= 1;
            }
        }
        total - owned
    }

    #[test]
    fn guard_admits_thirty_percent() {
        assert_eq!(remove(&mut RemovalGuard::default(), 0..20, 20, Timestamp(0)), 6);
    }

    #[test]
    fn guard_state_reports_the_last_hour() {
        let (mut guard, policy) = (RemovalGuard::default(), GuardPolicy::default());
        remove(&mut guard, 0..20, 20, Timestamp(0));
        let state = guard.state(&policy, false, Timestamp(1));
        assert_eq!(state, GuardState { held: 14, admitted: 6, owned: 20, limit: 6 });
        assert_eq!(guard.state(&policy, true, Timestamp(1)).limit, 20);
        let later = guard.state(&policy, false, Timestamp(3_600_000));
        assert_eq!((later.held, later.admitted), (0, 0));
    }

    #[test]
    fn guard_admits_all_below_ten_owned() {
        assert_eq!(remove(&mut RemovalGuard::default(), 0..9, 9, Timestamp(0)), 9);
    }

    #[test]
    fn unconfirmed_creates_count_for_the_guard_floor_only() {
        let mut guard = RemovalGuard::default();
        let owned = OwnedCount { confirmed: 9, possible: 10 };
        let admitted = (0..9).filter(|n| {
            guard.admit(&task(*n), owned, &GuardPolicy::default(), false, Timestamp(0))
                == GuardDecision::Admitted
        });
        assert_eq!(admitted.count(), 2);
        assert_eq!(guard.state(&GuardPolicy::default(), false, Timestamp(0)).limit, 2);
    }

    #[test]
    fn guard_counts_the_hourly_maximum_owned() {
        assert_eq!(remove(&mut RemovalGuard::default(), 0..10, 10, Timestamp(0)), 3);
    }

    #[test]
    fn guard_admits_more_after_an_hour() {
        let mut guard = RemovalGuard::default();
        assert_eq!(remove(&mut guard, 0..20, 20, Timestamp(0)), 6);
        assert_eq!(remove(&mut guard, 6..20, 14, Timestamp(3_600_000)), 4);
    }

    #[test]
    fn guard_counts_repeated_requests_once() {
        let mut guard = RemovalGuard::default();
        for _ in 0..10 {
            let answer = guard.admit(
                &task(1),
                OwnedCount::confirmed(10),
                &GuardPolicy::default(),
                false,
                Timestamp(0),
            );
            assert_eq!(answer, GuardDecision::Admitted);
        }
        assert_eq!(guard.held_count(), 0);
    }

    #[test]
    fn guard_counts_each_removal_of_a_task() {
        let mut guard = RemovalGuard::default();
        let removed: usize = (0..10)
            .map(|_| {
                let answer = guard.admit(
                    &task(1),
                    OwnedCount::confirmed(10),
                    &GuardPolicy::default(),
                    false,
                    Timestamp(0),
                );
                guard.record_completed(&task(1), Timestamp(0));
                usize::from(answer == GuardDecision::Admitted)
            })
            .sum();
        assert_eq!(removed, 3);
    }

    #[test]
    fn sent_removal_counts_after_it_is_cancelled() {
        let mut guard = RemovalGuard::default();
        let policy = GuardPolicy::default();
        for n in 0..3 {
            guard.admit(&task(n), OwnedCount::confirmed(10), &policy, false, Timestamp(0));
            guard.record_sent(&task(n));
            guard.release(&task(n));
        }
        let answer = guard.admit(&task(3), OwnedCount::confirmed(10), &policy, false, Timestamp(0));
        assert_eq!(answer, GuardDecision::Held { admitted: 3, owned: 10 });
    }

    #[test]
    fn release_admits_held_removals() {
        let mut guard = RemovalGuard::default();
        remove(&mut guard, 0..20, 20, Timestamp(0));
        assert_eq!(guard.held_count(), 14);
        let answer =
            guard.admit(&task(19), OwnedCount::confirmed(14), &GuardPolicy::default(), true, Timestamp(1));
        assert_eq!((answer, guard.held_count()), (GuardDecision::Admitted, 13));
    }
}
