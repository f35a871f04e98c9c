//! When a copy has started: at a standby, once it has been ready and has read a control plane; at a leader, at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::sleep;

use super::test_fixture::{OperatorFixture, workloads};
use crate::telemetry::state::{OperatorState, StateSource as _};
use ecs_mesh_controller::{Lease, LeaseTerm};

/// Longer than a circuit needs to open, and two of its probes.
const WHILE: Duration = Duration::from_mins(5);

/// A lease that this copy holds or not.
#[derive(Default)]
struct GivenLease(AtomicBool);

impl Lease for GivenLease {
    fn term(&self) -> LeaseTerm {
        if self.0.load(Ordering::Relaxed) { LeaseTerm::Unlimited } else { LeaseTerm::NotHeld }
    }
}

/// A copy whose lease another one holds.
fn standby() -> (OperatorFixture, Arc<GivenLease>) {
    let mut fixture = OperatorFixture::new(&[("a", 2)]);
    let lease = Arc::<GivenLease>::default();
    fixture.lease = Arc::clone(&lease) as _;
    fixture.edit(&workloads(&["a"]));
    (fixture, lease)
}

fn state(fixture: &OperatorFixture) -> OperatorState {
    fixture.operator.as_ref().unwrap().status.state()
}

#[tokio::test(start_paused = true)]
async fn standby_starts_once_it_is_ready_and_stays_started() {
    let (mut fixture, lease) = standby();
    fixture.start();
    let early = state(&fixture);
    assert!(!early.pending.is_empty() && !early.startup_pending.is_empty());
    sleep(WHILE).await;
    let started = state(&fixture);
    assert_eq!((started.pending, started.startup_pending), (vec![], vec![]));
    // It leads, and loses the lease and the control plane.
    lease.0.store(true, Ordering::Relaxed);
    sleep(WHILE).await;
    lease.0.store(false, Ordering::Relaxed);
    fixture.unreachable.store(true, Ordering::Relaxed);
    sleep(WHILE).await;
    assert_eq!(state(&fixture).startup_pending, [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn standby_waits_for_a_control_plane_that_readiness_leaves_out() {
    let (mut fixture, _lease) = standby();
    fixture.unreachable.store(true, Ordering::Relaxed);
    fixture.start();
    sleep(WHILE).await;
    let waiting = state(&fixture);
    assert_eq!(waiting.pending, [""; 0], "it waits behind its circuit");
    assert_eq!(waiting.startup_pending, ["no control plane was listed yet: kuma"]);
    fixture.unreachable.store(false, Ordering::Relaxed);
    sleep(WHILE).await;
    assert_eq!(state(&fixture).startup_pending, [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn leader_has_started_though_it_is_not_ready() {
    let (mut fixture, lease) = standby();
    fixture.forbidden.push("/");
    fixture.start();
    sleep(WHILE).await;
    let waiting = state(&fixture);
    assert!(waiting.pending[0].contains("control plane kuma"), "{:?}", waiting.pending);
    assert!(!waiting.startup_pending.is_empty());
    lease.0.store(true, Ordering::Relaxed);
    sleep(Duration::from_secs(1)).await;
    let leading = state(&fixture);
    assert!(!leading.pending.is_empty());
    assert_eq!(leading.startup_pending, [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn standby_starts_while_a_long_first_sweep_goes_on() {
    let (mut fixture, _lease) = standby();
    // Pages without end: they take longer than a deployment waits.
    *fixture.ecs.list_ends_after.lock().unwrap() = Some(usize::MAX);
    fixture.start();
    sleep(WHILE / 2).await;
    let early = state(&fixture);
    assert_eq!(early.pending.len(), 1, "{:?}", early.pending);
    assert_eq!(early.startup_pending, early.pending);
    sleep(WHILE).await;
    let later = state(&fixture);
    assert_eq!(later.pending, early.pending, "it is not ready");
    assert_eq!(later.startup_pending, [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn standby_starts_while_later_sweeps_go_on() {
    let (mut fixture, _lease) = standby();
    // The second page of the first sweep fails.
    *fixture.ecs.list_ends_after.lock().unwrap() = Some(1);
    fixture.start();
    sleep(WHILE / 2).await;
    *fixture.ecs.list_ends_after.lock().unwrap() = Some(usize::MAX);
    sleep(WHILE).await;
    let late = state(&fixture);
    assert_eq!((late.pending.len(), late.startup_pending), (1, vec![]));
}

#[tokio::test(start_paused = true)]
async fn standby_that_reads_no_page_does_not_start() {
    let (mut fixture, _lease) = standby();
    *fixture.ecs.lists_hang.lock().unwrap() = true;
    fixture.start();
    sleep(2 * WHILE).await;
    let waiting = state(&fixture);
    assert!(!waiting.startup_pending.is_empty());
    assert_eq!(waiting.startup_pending, waiting.pending);
}

#[tokio::test(start_paused = true)]
async fn standby_whose_lists_fail_does_not_start() {
    let (mut fixture, _lease) = standby();
    // The first page is read each time, and the second one fails.
    *fixture.ecs.list_ends_after.lock().unwrap() = Some(1);
    fixture.start();
    sleep(2 * WHILE).await;
    let waiting = state(&fixture);
    assert!(!waiting.startup_pending.is_empty());
    assert_eq!(waiting.startup_pending, waiting.pending);
}
