//! The guard: removals that no STOPPED backs and that are too many to be true are stopped (invariant I5).
//!
//! Per binding, within an hour: at most `maxFraction` of what was owned, once at least `minOwned` are owned. What takes
//! a live task out of service (the drain before a withdrawal) counts as its removal, since it hurts as much. The window
//! is in memory: a restarted operator starts a new hour.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use ecs_mesh_api::GuardPolicy;
use ecs_mesh_model::{TaskArn, Timestamp};

const GUARD_WINDOW: Duration = Duration::from_hours(1);

/// The removals of one binding within the last hour, let through and stopped.
#[derive(Clone, Debug, Default)]
pub struct RemovalGuard {
    /// Let through and not carried out yet: asked for again at each step, counted once.
    in_progress: BTreeMap<TaskArn, AdmittedRemoval>,
    /// Carried out. A task that came back and is removed again counts again.
    completed: VecDeque<Timestamp>,
    held: BTreeMap<TaskArn, Timestamp>,
    /// The most that were confirmed to be there within the hour: a removal is a part of these.
    confirmed: HourlyMax,
    /// The most that may have been there within the hour, unconfirmed creates included: the floor is compared with
    /// these, so that a lost answer does not turn the guard off.
    possible: HourlyMax,
}

/// How many registrations a binding has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OwnedCount {
    /// The control plane has shown or acknowledged them.
    pub confirmed: usize,
    /// The confirmed ones, and those whose create was sent and not answered.
    pub possible: usize,
}

impl OwnedCount {
    /// All of them confirmed.
    pub fn confirmed(count: usize) -> Self {
        Self { confirmed: count, possible: count }
    }
}

/// The largest of the numbers noted within the last hour. Keeps those that can still be it.
#[derive(Clone, Debug, Default)]
struct HourlyMax(VecDeque<(Timestamp, usize)>);

impl HourlyMax {
    fn note(&mut self, number: usize, now: Timestamp) {
        while self.0.back().is_some_and(|(_, smaller)| *smaller <= number) {
            self.0.pop_back();
        }
        self.0.push_back((now, number));
    }

    fn expire(&mut self, now: Timestamp) {
        self.0.retain(|(at, _)| at.age_at(now) < GUARD_WINDOW);
    }

    /// The last number counts however old it is: nothing has changed since.
    fn at(&self, now: Timestamp) -> usize {
        let recent = self.0.iter().filter(|(at, _)| at.age_at(now) < GUARD_WINDOW).map(|(_, number)| *number).max();
        recent.or(self.0.back().map(|(_, number)| *number)).unwrap_or(0)
    }
}

#[derive(Clone, Copy, Debug)]
struct AdmittedRemoval {
    since: Timestamp,
    /// Its removal was sent: should the answer get lost, it may have happened all the same.
    sent: bool,
}

/// What the guard says to one removal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuardDecision {
    /// It may go on.
    Admitted,
    /// It is one too many.
    Held {
        /// Let through within the hour.
        admitted: usize,
        /// The most that were owned within the hour.
        owned: usize,
    },
}

/// A guard in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct GuardState {
    /// Removals that it holds back.
    pub held: usize,
    /// Removals that it let through within the hour.
    pub admitted: usize,
    /// The most that were owned within the hour.
    pub owned: usize,
    /// How many it lets through within an hour; all that are owned where it is released, or where they are few.
    pub limit: usize,
}

impl RemovalGuard {
    /// Asks for the removal of a task's registration. `owned` are the registrations that the binding has now;
    /// `released` tells that a person let removals through. Asking again for the same task counts once.
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

    /// The admitted removal is about to be sent.
    pub fn record_sent(&mut self, task: &TaskArn) {
        if let Some(entry) = self.in_progress.get_mut(task) {
            entry.sent = true;
        }
    }

    /// The admitted removal has happened.
    pub fn record_completed(&mut self, task: &TaskArn, now: Timestamp) {
        self.held.remove(task);
        if self.in_progress.remove(task).is_some() {
            self.completed.push_back(now);
        }
    }

    /// The removal is no longer wanted, or its own STOPPED backs it now: it does not count any more, unless it was sent.
    pub fn release(&mut self, task: &TaskArn) {
        self.held.remove(task);
        if self.in_progress.get(task).is_some_and(|entry| !entry.sent) {
            self.in_progress.remove(task);
        }
    }

    fn expire(&mut self, now: Timestamp) {
        let old = |created_at: &Timestamp| created_at.age_at(now) >= GUARD_WINDOW;
        self.in_progress.retain(|_, entry| !old(&entry.since));
        self.held.retain(|_, at| !old(at));
        self.completed.retain(|at| !old(at));
        self.confirmed.expire(now);
        self.possible.expire(now);
    }

    /// Notes how many are owned now.
    pub fn record_owned(&mut self, owned: OwnedCount, now: Timestamp) {
        self.confirmed.note(owned.confirmed, now);
        self.possible.note(owned.possible, now);
    }

    /// What it has done within the last hour, and what it may do still.
    pub fn state(&self, policy: &GuardPolicy, released: bool, now: Timestamp) -> GuardState {
        let recent = |created_at: &&Timestamp| created_at.age_at(now) < GUARD_WINDOW;
        let owned = self.confirmed.at(now);
        let in_progress = self.in_progress.values().filter(|entry| recent(&&entry.since)).count();
        #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        // far below 2^52
        let part = (policy.max_fraction * owned as f64).max(0.0) as usize;
        let all = released || self.possible.at(now) < policy.min_owned as usize;
        GuardState {
            held: self.held.values().filter(recent).count(),
            admitted: in_progress + self.completed.iter().filter(recent).count(),
            owned,
            limit: if all { owned } else { part },
        }
    }

    /// How many removals it is holding back.
    pub fn held_count(&self) -> usize {
        self.held.len()
    }

    /// The tasks whose removals it is holding back.
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

    fn remove(guard: &mut RemovalGuard, numbers: std::ops::Range<usize>, total: usize, now: Timestamp) -> usize {
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
    fn below_ten_owned_everything_goes() {
        assert_eq!(remove(&mut RemovalGuard::default(), 0..9, 9, Timestamp(0)), 9);
    }

    #[test]
    fn unconfirmed_creates_count_for_the_guard_floor_only() {
        let mut guard = RemovalGuard::default();
        let owned = OwnedCount { confirmed: 9, possible: 10 };
        let admitted = (0..9).filter(|n| {
            guard.admit(&task(*n), owned, &GuardPolicy::default(), false, Timestamp(0)) == GuardDecision::Admitted
        });
        assert_eq!(admitted.count(), 2);
        assert_eq!(guard.state(&GuardPolicy::default(), false, Timestamp(0)).limit, 2);
    }

    #[test]
    fn guard_counts_the_hourly_maximum_owned() {
        assert_eq!(remove(&mut RemovalGuard::default(), 0..10, 10, Timestamp(0)), 3);
    }

    #[test]
    fn after_an_hour_more_may_go() {
        let mut guard = RemovalGuard::default();
        assert_eq!(remove(&mut guard, 0..20, 20, Timestamp(0)), 6);
        assert_eq!(remove(&mut guard, 6..20, 14, Timestamp(3_600_000)), 4);
    }

    #[test]
    fn asking_twice_for_one_task_counts_once() {
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
    fn a_task_that_came_back_and_goes_again_counts_again() {
        let mut guard = RemovalGuard::default();
        let gone: usize = (0..10)
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
        assert_eq!(gone, 3);
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
    fn a_release_lets_the_held_ones_through() {
        let mut guard = RemovalGuard::default();
        remove(&mut guard, 0..20, 20, Timestamp(0));
        assert_eq!(guard.held_count(), 14);
        let answer =
            guard.admit(&task(19), OwnedCount::confirmed(14), &GuardPolicy::default(), true, Timestamp(1));
        assert_eq!((answer, guard.held_count()), (GuardDecision::Admitted, 13));
    }
}
