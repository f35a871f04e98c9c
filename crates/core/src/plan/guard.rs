//! The guard limits removals without the task's own STOPPED (invariant I5).
//!
//! Per binding and hour, it admits at most `maxFraction` of the owned registrations, once at least `minOwned` are owned. Of
//! fewer, it admits those of one task, except that
//!
//! - a removal by the manifests is admitted once they have asked for it for 10 minutes, and
//! - a removal because of role tags is always admitted (I4).
//!
//! Every admitted removal counts towards the next. A drain that takes a live task out of load balancing counts as its
//! removal, since the effect is the same. The window is in memory: a restarted operator starts a new hour.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::intent::RegistrationId;
use ecs_mesh_api::GuardPolicy;
use ecs_mesh_model::{TaskArn, Timestamp};

const GUARD_WINDOW: Duration = Duration::from_hours(1);

/// Tasks whose removal the guard admits within an hour where fewer than `minOwned` registrations are owned.
const SMALL_BINDING_LIMIT: usize = 1;

/// How long the manifests must have asked for a removal before its binding's small size no longer holds it.
const STABLE_AFTER: Duration = Duration::from_mins(10);

/// The admitted and held removals of one binding within the last hour, of tasks or of other subjects.
#[derive(Clone, Debug)]
pub struct RemovalGuard<S = TaskArn> {
    /// Admitted and not executed yet: requested again at each step, counted once.
    in_progress: BTreeMap<(S, RegistrationId), AdmittedRemoval>,
    /// Executed. A task that was registered and removed again counts again.
    completed: VecDeque<(S, Timestamp)>,
    held: BTreeMap<S, HeldEntry>,
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
struct HeldEntry {
    at: Timestamp,
    /// The guard admits it by itself, once the manifests have asked for it for long enough.
    stabilising: bool,
}

#[derive(Clone, Copy, Debug)]
struct AdmittedRemoval {
    since: Timestamp,
    /// The removal was sent: if the response is lost, it may have succeeded.
    sent: bool,
}

/// The basis of a removal, as far as the guard distinguishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemovalBasis {
    /// The manifests, which have asked for it for this long.
    Manifests {
        /// The time for which the manifests were valid and asked for it.
        asked_for: Duration,
    },
    /// The role's tags.
    RoleTags,
    /// A task that ECS does not show, or a stop that ECS has not confirmed.
    Unconfirmed,
}

impl RemovalBasis {
    /// How much longer the manifests must ask for the removal, so that the size of a small binding does not hold it.
    /// `None` where time does not release it.
    fn stable_in(self) -> Option<Duration> {
        match self {
            Self::Manifests { asked_for } => Some(STABLE_AFTER.saturating_sub(asked_for)),
            Self::RoleTags => Some(Duration::ZERO),
            Self::Unconfirmed => None,
        }
    }
}

/// A removal that needs the guard.
#[derive(Clone, Copy, Debug)]
pub struct RemovalRequest<'a, S = TaskArn> {
    /// The task.
    pub task: &'a S,
    /// Its registration.
    pub id: &'a RegistrationId,
    /// The basis of the removal.
    pub basis: RemovalBasis,
    /// The binding's registrations now.
    pub owned: OwnedCount,
    /// A person has admitted removals (`releaseUntil`).
    pub released: bool,
    /// The current time.
    pub now: Timestamp,
}

/// The guard's decision on one removal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuardDecision {
    /// The removal is admitted.
    Admitted,
    /// The removal exceeds the limit.
    Held(HeldRemoval),
}

/// Why a removal is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldRemoval {
    /// Removals admitted within the hour.
    pub admitted: usize,
    /// Most registrations owned within the hour.
    pub owned: usize,
    /// When the guard admits it by itself: where the binding is small and the manifests ask for it, after they have done
    /// so for this much longer.
    pub stable_in: Option<Duration>,
}

/// The numbers of a guard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct GuardState {
    /// Removals held.
    pub held: usize,
    /// Those of them that the guard admits by itself, once the manifests have asked for them for 10 minutes.
    pub stabilising: usize,
    /// Removals admitted within the hour.
    pub admitted: usize,
    /// Most registrations owned within the hour.
    pub owned: usize,
    /// Removals that the guard admits within an hour: those of one task where few are owned, and all where it is released.
    pub limit: usize,
}

impl<S> Default for RemovalGuard<S> {
    fn default() -> Self {
        Self {
            in_progress: BTreeMap::new(),
            completed: VecDeque::new(),
            held: BTreeMap::new(),
            confirmed: HourlyMax::default(),
            possible: HourlyMax::default(),
        }
    }
}

impl<S: Clone + Ord> RemovalGuard<S> {
    /// Decides on a removal. Repeated requests for one registration count once.
    pub fn admit(&mut self, request: &RemovalRequest<'_, S>, policy: &GuardPolicy) -> GuardDecision {
        let RemovalRequest { task, id, basis, owned, released, now } = *request;
        self.expire(now);
        self.record_owned(owned, now);
        let key = (task.clone(), id.clone());
        if self.in_progress.contains_key(&key) {
            return GuardDecision::Admitted;
        }
        let (owned, possible) = (self.confirmed.at(now), self.possible.at(now));
        let admitted = self.in_progress.len() + self.completed.len();
        let is_small = is_small(possible, policy);
        let stable_in = basis.stable_in().filter(|_| is_small);
        // A task may have several registrations, which go together.
        let counted = if is_small { self.tasks_beside(task) } else { admitted };
        let exceeds = counted >= limit(is_small, owned, policy) && stable_in != Some(Duration::ZERO);
        if exceeds && !released {
            self.held.insert(task.clone(), HeldEntry { at: now, stabilising: stable_in.is_some() });
            return GuardDecision::Held(HeldRemoval { admitted, owned, stable_in });
        }
        self.held.remove(task);
        self.in_progress.insert(key, AdmittedRemoval { since: now, sent: false });
        GuardDecision::Admitted
    }

    /// The number of other tasks of which a removal was admitted within the hour.
    fn tasks_beside(&self, task: &S) -> usize {
        let in_progress = self.in_progress.keys().map(|(task, _)| task);
        let admitted = in_progress.chain(self.completed.iter().map(|(completed, _)| completed));
        admitted.filter(|other| *other != task).collect::<BTreeSet<_>>().len()
    }

    /// Records that the admitted removal is about to be sent.
    pub fn record_sent(&mut self, task: &S, id: &RegistrationId) {
        if let Some(entry) = self.in_progress.get_mut(&(task.clone(), id.clone())) {
            entry.sent = true;
        }
    }

    /// Records that the admitted removal was executed.
    pub fn record_completed(&mut self, task: &S, id: &RegistrationId, now: Timestamp) {
        self.held.remove(task);
        if self.in_progress.remove(&(task.clone(), id.clone())).is_some() {
            self.completed.push_back((task.clone(), now));
        }
    }

    /// Takes back a task's removals that are no longer needed, or that its own STOPPED now allows. A removal that was sent
    /// stays counted.
    pub fn release(&mut self, task: &S) {
        self.held.remove(task);
        self.in_progress.retain(|(admitted, _), entry| admitted != task || entry.sent);
    }

    fn expire(&mut self, now: Timestamp) {
        let expired = |at: &Timestamp| at.age_at(now) >= GUARD_WINDOW;
        self.in_progress.retain(|_, entry| !expired(&entry.since));
        self.held.retain(|_, entry| !expired(&entry.at));
        self.completed.retain(|(_, at)| !expired(at));
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
        let limit = limit(is_small(self.possible.at(now), policy), owned, policy);
        let held = || self.held.values().filter(|entry| recent(&&entry.at));
        GuardState {
            held: held().count(),
            stabilising: held().filter(|entry| entry.stabilising).count(),
            admitted: in_progress + self.completed.iter().map(|(_, at)| at).filter(recent).count(),
            owned,
            limit: if released { owned } else { limit },
        }
    }

    /// The number of held removals.
    pub fn held_count(&self) -> usize {
        self.held.len()
    }

    /// The tasks whose removals are held.
    pub fn held(&self) -> impl Iterator<Item = &S> {
        self.held.keys()
    }
}

fn is_small(possible: usize, policy: &GuardPolicy) -> bool {
    possible < policy.min_owned as usize
}

/// The removals that are admitted within an hour.
fn limit(is_small: bool, owned: usize, policy: &GuardPolicy) -> usize {
    if is_small {
        return SMALL_BINDING_LIMIT;
    }
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    // far below 2^52 registrations
    let part = (policy.max_fraction * owned as f64).max(0.0) as usize;
    part
}

#[cfg(test)]
mod tests {
    use super::*;
    use ecs_mesh_model::{ClusterArn, TaskId};

    const MINUTE: Duration = Duration::from_mins(1);
    const NEW: RemovalBasis = RemovalBasis::Manifests { asked_for: Duration::ZERO };

    fn is_admitted(
        guard: &mut RemovalGuard,
        n: usize,
        basis: RemovalBasis,
        owned: usize,
        now: Timestamp,
    ) -> bool {
        let owned = OwnedCount::confirmed(owned);
        admit(guard, n, &id(0), basis, owned, now) == GuardDecision::Admitted
    }

    fn admit(
        guard: &mut RemovalGuard,
        n: usize,
        id: &RegistrationId,
        basis: RemovalBasis,
        owned: OwnedCount,
        now: Timestamp,
    ) -> GuardDecision {
        let request = RemovalRequest { task: &task(n), id, basis, owned, released: false, now };
        guard.admit(&request, &GuardPolicy::default())
    }

    fn id(n: usize) -> RegistrationId {
        RegistrationId { mesh: ecs_mesh_model::MeshName::default(), name: format!("r{n}").into() }
    }

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
            if is_admitted(guard, n, RemovalBasis::Unconfirmed, owned, now) {
                guard.record_completed(&task(n), &id(0), now);
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
        assert_eq!(state, GuardState { held: 14, stabilising: 0, admitted: 6, owned: 20, limit: 6 });
        assert_eq!(guard.state(&policy, true, Timestamp(1)).limit, 20);
        let later = guard.state(&policy, false, Timestamp(3_600_000));
        assert_eq!((later.held, later.admitted), (0, 0));
    }

    #[test]
    fn guard_admits_one_an_hour_of_few_owned() {
        for basis in [RemovalBasis::Unconfirmed, NEW] {
            let mut guard = RemovalGuard::default();
            let admitted = |guard: &mut RemovalGuard, now| {
                (0..9).filter(|n| is_admitted(guard, *n, basis, 9, now)).collect::<Vec<_>>()
            };
            // A repeated request counts once.
            assert_eq!(admitted(&mut guard, Timestamp(0)), [0]);
            assert_eq!(admitted(&mut guard, Timestamp(3_599_999)), [0]);
            guard.record_completed(&task(0), &id(0), Timestamp(3_599_999));
            assert_eq!(guard.state(&GuardPolicy::default(), false, Timestamp(3_599_999)).limit, 1);
            assert_eq!(admitted(&mut guard, Timestamp(7_200_000)), [0]);
        }
    }

    #[test]
    fn stable_manifests_remove_all_of_few_owned() {
        let mut guard = RemovalGuard::default();
        assert!(is_admitted(&mut guard, 0, NEW, 9, Timestamp(0)));
        let asked = |minutes: u32| RemovalBasis::Manifests { asked_for: MINUTE * minutes };
        let held = admit(&mut guard, 1, &id(0), asked(9), OwnedCount::confirmed(9), Timestamp(0));
        let expected = HeldRemoval { admitted: 1, owned: 9, stable_in: Some(MINUTE) };
        assert_eq!(held, GuardDecision::Held(expected));
        assert!(!is_admitted(&mut guard, 2, RemovalBasis::Unconfirmed, 9, Timestamp(0)));
        let state = guard.state(&GuardPolicy::default(), false, Timestamp(0));
        assert_eq!((state.held, state.stabilising), (2, 1));
        assert!((1..9).all(|n| is_admitted(&mut guard, n, asked(10), 9, Timestamp(60_000))));
        assert_eq!(guard.held_count(), 0);
        // They count for others.
        assert!(!is_admitted(&mut guard, 9, RemovalBasis::Unconfirmed, 9, Timestamp(60_000)));
        // Of many, the fraction applies, however long the manifests have asked for it.
        let mut guard = RemovalGuard::default();
        let admitted = (0..10).filter(|n| is_admitted(&mut guard, *n, asked(60), 10, Timestamp(0))).count();
        assert_eq!(admitted, 3);
    }

    #[test]
    fn role_tags_withdraw_all_of_few_owned() {
        let mut guard = RemovalGuard::default();
        assert!((0..9).all(|n| is_admitted(&mut guard, n, RemovalBasis::RoleTags, 9, Timestamp(0))));
        assert!(!is_admitted(&mut guard, 9, RemovalBasis::Unconfirmed, 9, Timestamp(0)), "they count");
        let mut guard = RemovalGuard::default();
        let of_many =
            (0..10).filter(|n| is_admitted(&mut guard, *n, RemovalBasis::RoleTags, 10, Timestamp(0)));
        assert_eq!(of_many.count(), 3);
    }

    #[test]
    fn unconfirmed_creates_count_for_the_guard_floor_only() {
        let mut guard = RemovalGuard::default();
        let owned = OwnedCount { confirmed: 9, possible: 10 };
        let admitted = (0..9).filter(|n| {
            admit(&mut guard, *n, &id(0), RemovalBasis::Unconfirmed, owned, Timestamp(0))
                == GuardDecision::Admitted
        });
        assert_eq!(admitted.count(), 2);
        assert_eq!(guard.state(&GuardPolicy::default(), false, Timestamp(0)).limit, 2);
    }

    /// A token, a service and its proxy.
    #[test]
    fn registrations_of_one_task_go_together_where_few_are_owned() {
        let mut guard = RemovalGuard::default();
        for owned in [6, 5, 4] {
            assert!(is_admitted(&mut guard, 1, RemovalBasis::Unconfirmed, owned, Timestamp(0)), "{owned}");
            guard.record_completed(&task(1), &id(0), Timestamp(0));
        }
        assert!(!is_admitted(&mut guard, 2, RemovalBasis::Unconfirmed, 3, Timestamp(0)));
    }

    /// The second removal of a task is requested while the first is under way, or after its response was lost.
    #[test]
    fn each_registration_of_a_task_counts() {
        let mut guard = RemovalGuard::default();
        let mut is_admitted = |n, id: &RegistrationId| {
            let (owned, basis) = (OwnedCount::confirmed(10), RemovalBasis::Unconfirmed);
            admit(&mut guard, n, id, basis, owned, Timestamp(0)) == GuardDecision::Admitted
        };
        assert!(is_admitted(0, &id(0)) && is_admitted(0, &id(1)) && is_admitted(0, &id(2)));
        assert!(is_admitted(0, &id(1)), "a repeated request");
        assert!(!is_admitted(1, &id(0)), "the guard admits 3 of 10");
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
            assert!(is_admitted(&mut guard, 1, RemovalBasis::Unconfirmed, 10, Timestamp(0)));
        }
        assert_eq!(guard.held_count(), 0);
    }

    #[test]
    fn guard_counts_each_removal_of_a_task() {
        let mut guard = RemovalGuard::default();
        let removed: usize = (0..10)
            .map(|_| {
                let admitted = is_admitted(&mut guard, 1, RemovalBasis::Unconfirmed, 10, Timestamp(0));
                guard.record_completed(&task(1), &id(0), Timestamp(0));
                usize::from(admitted)
            })
            .sum();
        assert_eq!(removed, 3);
    }

    #[test]
    fn sent_removal_counts_after_it_is_cancelled() {
        let mut guard = RemovalGuard::default();
        for n in 0..3 {
            assert!(is_admitted(&mut guard, n, RemovalBasis::Unconfirmed, 10, Timestamp(0)));
            guard.record_sent(&task(n), &id(0));
            guard.release(&task(n));
        }
        assert!(!is_admitted(&mut guard, 3, RemovalBasis::Unconfirmed, 10, Timestamp(0)));
    }

    #[test]
    fn release_admits_held_removals() {
        for (owned, held) in [(20, 14), (9, 8)] {
            let mut guard = RemovalGuard::default();
            remove(&mut guard, 0..owned, owned, Timestamp(0));
            assert_eq!(guard.held_count(), held);
            let request = RemovalRequest {
                task: &task(owned - 1),
                id: &id(0),
                basis: RemovalBasis::Unconfirmed,
                owned: OwnedCount::confirmed(held),
                released: true,
                now: Timestamp(1),
            };
            let answer = guard.admit(&request, &GuardPolicy::default());
            assert_eq!((answer, guard.held_count()), (GuardDecision::Admitted, held - 1));
        }
    }
}
