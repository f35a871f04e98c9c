//! The loop over a store, with a paused clock.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use ecs_mesh_clock::Clock;
use ecs_mesh_controller::{Heartbeat, Lease as _, WritePermit};
use ecs_mesh_model::Timestamp;

use crate::handle::ElectionStatus;
use crate::{
    ElectionRole, Elector, ExpiryJudge, HolderId, LeaseHandle, LeaseStore, LeaseStoreError,
    LeaseStoreErrorKind, LeaseTiming, LeaseWrite, StoredRecord,
};

const ANSWERS: u8 = 0;
const FAILS: u8 = 1;
const HANGS: u8 = 2;

/// A record that several candidates share, and the state of one candidate's connection to it.
#[derive(Clone, Default)]
struct MemoryStore {
    record: Arc<Mutex<Option<StoredRecord>>>,
    connection: Arc<AtomicU8>,
    kind: Option<LeaseStoreErrorKind>,
}

impl MemoryStore {
    /// Another candidate's connection to the same record.
    fn other(&self) -> Self {
        Self { connection: Arc::default(), ..self.clone() }
    }

    fn set(&self, connection: u8) {
        self.connection.store(connection, Ordering::Relaxed);
    }

    async fn call(&self) -> Result<(), LeaseStoreError> {
        tokio::time::sleep(Duration::from_millis(10)).await;
        match self.connection.load(Ordering::Relaxed) {
            ANSWERS => Ok(()),
            FAILS => Err(LeaseStoreError::new(
                self.kind.unwrap_or(LeaseStoreErrorKind::Unreachable),
                "for a reason",
            )),
            _ => std::future::pending().await,
        }
    }
}

#[async_trait]
impl LeaseStore for MemoryStore {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn judge(&self) -> ExpiryJudge {
        ExpiryJudge::Observer
    }

    async fn read(&self) -> Result<Option<StoredRecord>, LeaseStoreError> {
        self.call().await?;
        Ok(self.record.lock().unwrap().clone())
    }

    async fn write(&self, write: &LeaseWrite) -> Result<Option<u64>, LeaseStoreError> {
        self.call().await?;
        let mut record = self.record.lock().unwrap();
        if record.as_ref().map(|stored| stored.version) != write.expected {
            return Ok(None);
        }
        let version = write.expected.unwrap_or(0) + 1;
        *record = Some(StoredRecord { record: write.record.clone(), version });
        Ok(Some(version))
    }
}

struct RunningCandidate {
    lease: LeaseHandle,
    stop: CancellationToken,
    ended: JoinHandle<()>,
}

fn start(store: &MemoryStore, name: &str, clock: &Clock) -> RunningCandidate {
    let holder = HolderId::recorded(name);
    let elector = Elector::new(store.clone(), holder, LeaseTiming::default(), clock.clone(), 7);
    let (lease, stop) = (elector.handle(), CancellationToken::new());
    RunningCandidate { lease, ended: tokio::spawn(elector.run(Heartbeat::default(), stop.clone())), stop }
}

fn clock() -> Clock {
    Clock::simulated(Timestamp(1_000_000_000))
}

/// Waits until the candidate leads, and returns for how long.
async fn until_leader(candidate: &RunningCandidate, clock: &Clock) -> Duration {
    let start = clock.now();
    let mut status = candidate.lease.subscribe();
    status.wait_for(ElectionStatus::is_leader).await.unwrap();
    start.age_at(clock.now())
}

async fn pause(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn standby_takes_over_within_a_retry_after_a_clean_stop() {
    let (store, clock) = (MemoryStore::default(), clock());
    let first = start(&store, "first", &clock);
    until_leader(&first, &clock).await;
    let second = start(&store.other(), "second", &clock);
    pause(60).await;
    assert!(first.lease.holds() && !second.lease.holds());
    assert_eq!(second.lease.status().leader, Some(HolderId::recorded("first")));
    first.stop.cancel();
    first.ended.await.unwrap();
    assert_eq!(first.lease.status().role, ElectionRole::Released);
    let waited = until_leader(&second, &clock).await;
    assert!(waited <= Duration::from_millis(2_050), "{waited:?}");
    assert_eq!(second.lease.status().epoch, 2);
}

#[tokio::test(start_paused = true)]
async fn standby_takes_over_within_lease_and_retry_after_a_crash() {
    let (store, clock) = (MemoryStore::default(), clock());
    let first = start(&store, "first", &clock);
    until_leader(&first, &clock).await;
    let second = start(&store.other(), "second", &clock);
    pause(61).await;
    first.ended.abort();
    let waited = until_leader(&second, &clock).await;
    assert!((13_000..17_100).contains(&waited.as_millis()), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn leader_cut_off_from_the_store_stops_before_its_lease_ends() {
    for connection in [FAILS, HANGS] {
        let (store, clock) = (MemoryStore::default(), clock());
        let first = start(&store, "first", &clock);
        until_leader(&first, &clock).await;
        let other = store.other();
        let second = start(&other, "second", &clock);
        pause(30).await;
        store.set(connection);
        let cut = clock.now();
        let mut status = first.lease.subscribe();
        status.wait_for(|status| !status.is_leader()).await.unwrap();
        let waited = cut.age_at(clock.now());
        assert!(waited <= Duration::from_secs(10), "{waited:?}");
        assert!(!first.lease.holds());
        assert_eq!(first.lease.status().store_error, Some(LeaseStoreErrorKind::Unreachable));
        until_leader(&second, &clock).await;
        // Back again, as a standby.
        store.set(ANSWERS);
        pause(60).await;
        assert!(!first.lease.holds() && second.lease.holds());
        assert_eq!(first.lease.status().store_error, None);
    }
}

#[tokio::test(start_paused = true)]
async fn one_of_several_candidates_leads_from_the_start() {
    let (store, clock) = (MemoryStore::default(), clock());
    let all: Vec<_> = (0..5).map(|n| start(&store.other(), &format!("c{n}"), &clock)).collect();
    for _ in 0..200 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let leaders = all.iter().filter(|one| one.lease.holds()).count();
        assert!(leaders <= 1, "{leaders} leaders");
    }
    let leaders = all.iter().filter(|one| one.lease.status().is_leader()).count();
    assert_eq!(leaders, 1);
}

#[tokio::test(start_paused = true)]
async fn release_waits_for_writes_and_permits_no_other() {
    let (store, clock) = (MemoryStore::default(), clock());
    let first = start(&store, "first", &clock);
    until_leader(&first, &clock).await;
    let permit = WritePermit::request(&first.lease, Duration::from_secs(5)).unwrap();
    let holder = || store.record.lock().unwrap().as_ref().unwrap().record.holder.clone();
    first.stop.cancel();
    pause(3).await;
    assert!(WritePermit::request(&first.lease, Duration::from_secs(5)).is_err());
    assert_eq!(holder(), Some(HolderId::recorded("first")), "released with a write in flight");
    drop(permit);
    first.ended.await.unwrap();
    assert_eq!(holder(), None);
}

#[tokio::test(start_paused = true)]
async fn stop_of_a_standby_ends_at_once() {
    let (store, clock) = (MemoryStore::default(), clock());
    store.set(HANGS);
    let standby = start(&store, "standby", &clock);
    pause(1).await;
    let start = clock.now();
    standby.stop.cancel();
    standby.ended.await.unwrap();
    assert_eq!(start.age_at(clock.now()), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn wall_clock_steps_change_no_leader() {
    let (store, clock) = (MemoryStore::default(), clock());
    let first = start(&store, "first", &clock);
    until_leader(&first, &clock).await;
    let second = start(&store.other(), "second", &clock);
    for step in [-3_600_000, 7_200_000, -86_400_000] {
        clock.step_wall(step);
        pause(20).await;
        assert!(first.lease.holds() && !second.lease.holds());
    }
    assert_eq!(first.lease.status().acquired, 1);
}

#[tokio::test(start_paused = true)]
async fn error_of_the_store_is_shown_and_not_fatal() {
    let kind = LeaseStoreErrorKind::TableMissing;
    let (store, clock) = (MemoryStore { kind: Some(kind), ..MemoryStore::default() }, clock());
    store.set(FAILS);
    let candidate = start(&store, "one", &clock);
    pause(10).await;
    assert_eq!(candidate.lease.status().store_error, Some(kind));
    store.set(ANSWERS);
    let waited = until_leader(&candidate, &clock).await;
    assert!(waited < Duration::from_secs(3), "{waited:?}");
    assert_eq!(candidate.lease.status().store_error, None);
}
