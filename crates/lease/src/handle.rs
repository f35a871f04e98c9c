//! The election as the rest of the process sees it: whether it may write, and until when.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::sync::watch;

use ecs_mesh_clock::Clock;
use ecs_mesh_controller::{FencingToken, HeldTerm, Lease, LeaseTerm};
use ecs_mesh_model::Timestamp;

use crate::election::ElectionRole;
use crate::record::HolderId;
use crate::store::LeaseStoreErrorKind;

/// How often a release looks whether the last write has ended.
const IN_FLIGHT_CHECK_INTERVAL: Duration = Duration::from_millis(20);

/// The state of the election, for readiness, metrics and the loops that only a leader runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ElectionStatus {
    /// This process's role.
    pub role: ElectionRole,
    /// The holder in the record, as far as this process knows.
    pub leader: Option<HolderId>,
    /// The epoch of the own term; zero without one.
    pub epoch: u64,
    /// How often this process has become leader.
    pub acquired: u64,
    /// How often it has lost the lease.
    pub lost: u64,
    /// The store's last failure, if no call has succeeded since.
    pub store_error: Option<LeaseStoreErrorKind>,
}

impl ElectionStatus {
    /// Whether this process leads.
    pub fn is_leader(&self) -> bool {
        self.role == ElectionRole::Leader
    }
}

impl Default for ElectionStatus {
    fn default() -> Self {
        Self { role: ElectionRole::Follower, leader: None, epoch: 0, acquired: 0, lost: 0, store_error: None }
    }
}

/// The lease of this process, for all that write. Clones share it.
#[derive(Clone)]
pub struct LeaseHandle(Arc<HandleState>);

struct HandleState {
    clock: Clock,
    term: ArcSwapOption<OwnedTerm>,
    status: watch::Sender<ElectionStatus>,
}

/// One term, whose end renewals move.
struct OwnedTerm {
    clock: Clock,
    until: AtomicI64,
    fence: Option<FencingToken>,
}

impl HeldTerm for OwnedTerm {
    fn left(&self) -> Duration {
        self.clock.now().age_at(Timestamp(self.until.load(Ordering::Acquire)))
    }

    fn fencing_token(&self) -> Option<FencingToken> {
        self.fence.clone()
    }
}

impl LeaseHandle {
    /// A lease that this process does not hold yet. `clock` must be the elector's.
    pub(crate) fn new(clock: Clock) -> Self {
        let status = watch::Sender::new(ElectionStatus::default());
        Self(Arc::new(HandleState { clock, term: ArcSwapOption::empty(), status }))
    }

    /// Follows the state of the election.
    pub fn subscribe(&self) -> watch::Receiver<ElectionStatus> {
        self.0.status.subscribe()
    }

    /// The state of the election.
    pub fn status(&self) -> ElectionStatus {
        self.0.status.borrow().clone()
    }

    pub(crate) fn update(&self, change: impl FnOnce(&mut ElectionStatus)) {
        self.0.status.send_if_modified(|status| {
            let before = status.clone();
            change(status);
            *status != before
        });
    }

    /// Moves the end of the term, or begins one.
    pub(crate) fn extend(&self, until: Timestamp, fence: Option<FencingToken>) {
        match &*self.0.term.load() {
            Some(term) => term.until.store(until.0, Ordering::Release),
            None => {
                let term = OwnedTerm { clock: self.0.clock.clone(), until: AtomicI64::new(until.0), fence };
                self.0.term.store(Some(Arc::new(term)));
            }
        }
    }

    /// Ends the term now. Writes in flight are aborted.
    pub(crate) fn end(&self) {
        if let Some(term) = self.0.term.swap(None) {
            term.until.store(i64::MIN, Ordering::Release);
        }
    }

    /// Permits no further write, and waits until those in flight have ended; at the latest until the term has.
    pub(crate) async fn retire(&self) {
        let Some(term) = self.0.term.swap(None) else { return };
        while Arc::strong_count(&term) > 1 && term.left() > Duration::ZERO {
            tokio::time::sleep(IN_FLIGHT_CHECK_INTERVAL).await;
        }
        term.until.store(i64::MIN, Ordering::Release);
    }
}

impl Lease for LeaseHandle {
    fn term(&self) -> LeaseTerm {
        match self.0.term.load_full() {
            Some(term) => LeaseTerm::Held(term),
            None => LeaseTerm::NotHeld,
        }
    }
}

#[cfg(test)]
mod tests {
    use ecs_mesh_controller::{WriteObstacle, WritePermit};
    use tokio::time::advance;

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(5);

    fn handle() -> (LeaseHandle, Clock) {
        let clock = Clock::simulated(Timestamp(1_000_000));
        (LeaseHandle::new(clock.clone()), clock)
    }

    #[tokio::test(start_paused = true)]
    async fn permit_sees_time_that_passed_while_frozen() {
        let (lease, clock) = handle();
        assert_eq!(WritePermit::request(&lease, TIMEOUT).err(), Some(WriteObstacle::NotLeader));
        lease.extend(clock.now().plus(Duration::from_secs(15)), None);
        let permit = WritePermit::request(&lease, TIMEOUT).unwrap();
        // Frozen in between: the steady clock goes on, and nothing of this process has run.
        advance(Duration::from_secs(11)).await;
        assert_eq!(permit.check(), Err(WriteObstacle::LeaseEnds));
        advance(Duration::from_secs(5)).await;
        assert_eq!(permit.check(), Err(WriteObstacle::NotLeader));
        assert!(!lease.holds());
    }

    #[tokio::test(start_paused = true)]
    async fn wall_clock_steps_do_not_move_the_end() {
        let (lease, clock) = handle();
        lease.extend(clock.now().plus(Duration::from_secs(15)), None);
        for step in [-86_400_000, 2 * 86_400_000] {
            clock.step_wall(step);
            assert_eq!(lease.term().left(), Duration::from_secs(15));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn renewal_extends_permits_and_a_new_term_does_not() {
        let (lease, clock) = handle();
        lease.extend(clock.now().plus(Duration::from_secs(15)), None);
        let permit = WritePermit::request(&lease, TIMEOUT).unwrap();
        advance(Duration::from_secs(12)).await;
        lease.extend(clock.now().plus(Duration::from_secs(15)), None);
        assert_eq!(permit.check(), Ok(()));
        lease.end();
        lease.extend(clock.now().plus(Duration::from_secs(15)), None);
        assert_eq!(permit.check(), Err(WriteObstacle::NotLeader));
        assert!(WritePermit::request(&lease, TIMEOUT).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn release_waits_for_the_write_in_flight() {
        let (lease, clock) = handle();
        lease.extend(clock.now().plus(Duration::from_secs(15)), None);
        let permit = WritePermit::request(&lease, TIMEOUT).unwrap();
        let write = async {
            permit.run(tokio::time::sleep(Duration::from_secs(3))).await.expect("was aborted");
            drop(permit);
        };
        let start = clock.now();
        let ((), ()) = tokio::join!(lease.retire(), write);
        let waited = start.age_at(clock.now());
        assert!((3_000..3_100).contains(&waited.as_millis()), "{waited:?}");
        assert_eq!(WritePermit::request(&lease, TIMEOUT).err(), Some(WriteObstacle::NotLeader));
    }

    #[tokio::test(start_paused = true)]
    async fn release_does_not_wait_beyond_the_term() {
        let (lease, clock) = handle();
        lease.extend(clock.now().plus(Duration::from_secs(15)), None);
        let _hangs = WritePermit::request(&lease, TIMEOUT).unwrap();
        let start = clock.now();
        lease.retire().await;
        assert_eq!(start.age_at(clock.now()).as_secs(), 15);
    }
}
