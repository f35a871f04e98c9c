//! The guard: removals that no STOPPED backs and that are too many to be true are stopped (invariant I5).
//!
//! Per binding, within an hour: at most `maxFraction` of what was owned, once at least `minOwned` are owned. What takes
//! a live task out of service (the drain before a withdrawal) counts as its removal, since it hurts as much. The window
//! is in memory: a restarted operator starts a new hour.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use ecs_mesh_api::GuardPolicy;
use ecs_mesh_model::{TaskArn, Timestamp};

const WINDOW: Duration = Duration::from_hours(1);

/// The removals of one binding within the last hour, let through and stopped.
#[derive(Clone, Debug, Default)]
pub struct Guard {
    /// Let through and not carried out yet: asked for again at each step, counted once.
    under_way: BTreeMap<TaskArn, UnderWay>,
    /// Carried out. A task that came back and is removed again counts again.
    carried_out: VecDeque<Timestamp>,
    stopped: BTreeMap<TaskArn, Timestamp>,
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

    fn forget_old(&mut self, now: Timestamp) {
        self.0.retain(|(at, _)| at.age_at(now) < WINDOW);
    }

    /// The last number counts however old it is: nothing has changed since.
    fn at(&self, now: Timestamp) -> usize {
        let recent = self.0.iter().filter(|(at, _)| at.age_at(now) < WINDOW).map(|(_, number)| *number).max();
        recent.or(self.0.back().map(|(_, number)| *number)).unwrap_or(0)
    }
}

#[derive(Clone, Copy, Debug)]
struct UnderWay {
    since: Timestamp,
    /// Its removal was sent: should the answer get lost, it may have happened all the same.
    sent: bool,
}

/// What the guard says to one removal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It may go on.
    Admitted,
    /// It is one too many.
    Stopped {
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

impl Guard {
    /// Asks for the removal of a task's registration. `owned` are the registrations that the binding has now;
    /// `released` tells that a person let removals through. Asking again for the same task counts once.
    pub fn admit(
        &mut self,
        task: &TaskArn,
        owned: OwnedCount,
        policy: &GuardPolicy,
        released: bool,
        now: Timestamp,
    ) -> Admission {
        self.forget_old(now);
        self.note_owned(owned, now);
        if self.under_way.contains_key(task) {
            return Admission::Admitted;
        }
        let (owned, possible) = (self.confirmed.at(now), self.possible.at(now));
        let admitted = self.under_way.len() + self.carried_out.len();
        #[allow(clippy::cast_precision_loss)] // far fewer than 2^52 registrations
        let too_many = (admitted + 1) as f64 > policy.max_fraction * owned as f64;
        if too_many && possible >= policy.min_owned as usize && !released {
            self.stopped.insert(task.clone(), now);
            return Admission::Stopped { admitted, owned };
        }
        self.stopped.remove(task);
        self.under_way.insert(task.clone(), UnderWay { since: now, sent: false });
        Admission::Admitted
    }

    /// The admitted removal is about to be sent.
    pub fn sent(&mut self, task: &TaskArn) {
        if let Some(entry) = self.under_way.get_mut(task) {
            entry.sent = true;
        }
    }

    /// The admitted removal has happened.
    pub fn carried_out(&mut self, task: &TaskArn, now: Timestamp) {
        self.stopped.remove(task);
        if self.under_way.remove(task).is_some() {
            self.carried_out.push_back(now);
        }
    }

    /// The removal is no longer wanted, or its own STOPPED backs it now: it does not count any more, unless it was sent.
    pub fn no_longer_needed(&mut self, task: &TaskArn) {
        self.stopped.remove(task);
        if self.under_way.get(task).is_some_and(|entry| !entry.sent) {
            self.under_way.remove(task);
        }
    }

    fn forget_old(&mut self, now: Timestamp) {
        let old = |at: &Timestamp| at.age_at(now) >= WINDOW;
        self.under_way.retain(|_, entry| !old(&entry.since));
        self.stopped.retain(|_, at| !old(at));
        self.carried_out.retain(|at| !old(at));
        self.confirmed.forget_old(now);
        self.possible.forget_old(now);
    }

    /// Notes how many are owned now.
    pub fn note_owned(&mut self, owned: OwnedCount, now: Timestamp) {
        self.confirmed.note(owned.confirmed, now);
        self.possible.note(owned.possible, now);
    }

    /// What it has done within the last hour, and what it may do still.
    pub fn state(&self, policy: &GuardPolicy, released: bool, now: Timestamp) -> GuardState {
        let recent = |at: &&Timestamp| at.age_at(now) < WINDOW;
        let owned = self.confirmed.at(now);
        let under_way = self.under_way.values().filter(|entry| recent(&&entry.since)).count();
        #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        // far below 2^52
        let part = (policy.max_fraction * owned as f64).max(0.0) as usize;
        let all = released || self.possible.at(now) < policy.min_owned as usize;
        GuardState {
            held: self.stopped.values().filter(recent).count(),
            admitted: under_way + self.carried_out.iter().filter(recent).count(),
            owned,
            limit: if all { owned } else { part },
        }
    }

    /// How many removals it is holding back.
    pub fn holding(&self) -> usize {
        self.stopped.len()
    }

    /// The tasks whose removals it is holding back.
    pub fn held(&self) -> impl Iterator<Item = &TaskArn> {
        self.stopped.keys()
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

    fn remove(guard: &mut Guard, numbers: std::ops::Range<usize>, total: usize, now: Timestamp) -> usize {
        let mut owned = total;
        for n in numbers {
            let count = OwnedCount::confirmed(owned);
            if guard.admit(&task(n), count, &GuardPolicy::default(), false, now) == Admission::Admitted {
                guard.carried_out(&task(n), now);
                owned -= 1;
            }
        }
        total - owned
    }

    #[test]
    fn thirty_percent_go_and_not_one_more() {
        assert_eq!(remove(&mut Guard::default(), 0..20, 20, Timestamp(0)), 6);
    }

    #[test]
    fn its_numbers_tell_what_it_did_within_the_hour_and_what_it_may_do() {
        let (mut guard, policy) = (Guard::default(), GuardPolicy::default());
        remove(&mut guard, 0..20, 20, Timestamp(0));
        let state = guard.state(&policy, false, Timestamp(1));
        assert_eq!(state, GuardState { held: 14, admitted: 6, owned: 20, limit: 6 });
        assert_eq!(guard.state(&policy, true, Timestamp(1)).limit, 20);
        let later = guard.state(&policy, false, Timestamp(3_600_000));
        assert_eq!((later.held, later.admitted), (0, 0));
    }

    #[test]
    fn below_ten_owned_everything_goes() {
        assert_eq!(remove(&mut Guard::default(), 0..9, 9, Timestamp(0)), 9);
    }

    #[test]
    fn unconfirmed_creates_count_for_the_floor_and_not_for_the_limit() {
        let mut guard = Guard::default();
        let owned = OwnedCount { confirmed: 9, possible: 10 };
        let admitted = (0..9).filter(|n| {
            guard.admit(&task(*n), owned, &GuardPolicy::default(), false, Timestamp(0)) == Admission::Admitted
        });
        assert_eq!(admitted.count(), 2);
        assert_eq!(guard.state(&GuardPolicy::default(), false, Timestamp(0)).limit, 2);
    }

    #[test]
    fn a_guard_that_began_at_ten_still_counts_when_fewer_are_left() {
        assert_eq!(remove(&mut Guard::default(), 0..10, 10, Timestamp(0)), 3);
    }

    #[test]
    fn after_an_hour_more_may_go() {
        let mut guard = Guard::default();
        assert_eq!(remove(&mut guard, 0..20, 20, Timestamp(0)), 6);
        assert_eq!(remove(&mut guard, 6..20, 14, Timestamp(3_600_000)), 4);
    }

    #[test]
    fn asking_twice_for_one_task_counts_once() {
        let mut guard = Guard::default();
        for _ in 0..10 {
            let answer = guard.admit(
                &task(1),
                OwnedCount::confirmed(10),
                &GuardPolicy::default(),
                false,
                Timestamp(0),
            );
            assert_eq!(answer, Admission::Admitted);
        }
        assert_eq!(guard.holding(), 0);
    }

    #[test]
    fn a_task_that_came_back_and_goes_again_counts_again() {
        let mut guard = Guard::default();
        let gone: usize = (0..10)
            .map(|_| {
                let answer = guard.admit(
                    &task(1),
                    OwnedCount::confirmed(10),
                    &GuardPolicy::default(),
                    false,
                    Timestamp(0),
                );
                guard.carried_out(&task(1), Timestamp(0));
                usize::from(answer == Admission::Admitted)
            })
            .sum();
        assert_eq!(gone, 3);
    }

    #[test]
    fn a_removal_whose_answer_was_lost_counts_although_it_is_no_longer_wanted() {
        let mut guard = Guard::default();
        let policy = GuardPolicy::default();
        for n in 0..3 {
            guard.admit(&task(n), OwnedCount::confirmed(10), &policy, false, Timestamp(0));
            guard.sent(&task(n));
            guard.no_longer_needed(&task(n));
        }
        let answer = guard.admit(&task(3), OwnedCount::confirmed(10), &policy, false, Timestamp(0));
        assert_eq!(answer, Admission::Stopped { admitted: 3, owned: 10 });
    }

    #[test]
    fn a_release_lets_the_held_ones_through() {
        let mut guard = Guard::default();
        remove(&mut guard, 0..20, 20, Timestamp(0));
        assert_eq!(guard.holding(), 14);
        let answer =
            guard.admit(&task(19), OwnedCount::confirmed(14), &GuardPolicy::default(), true, Timestamp(1));
        assert_eq!((answer, guard.holding()), (Admission::Admitted, 13));
    }
}
