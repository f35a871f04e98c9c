//! Runs the election of one process over a store.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use ecs_mesh_clock::Clock;
use ecs_mesh_controller::Heartbeat;
use ecs_mesh_model::Timestamp;

use crate::election::{Election, ElectionChange, ElectionRole, ElectionStep};
use crate::handle::LeaseHandle;
use crate::record::{HolderId, LeaseWrite, LeaseWriteKind};
use crate::store::{LeaseStore, LeaseStoreError, LeaseStoreErrorKind};
use crate::timing::LeaseTiming;

/// The longest sleep. Tokio's timers stand still while the machine is suspended, and the lease does not.
const MAX_SLEEP: Duration = Duration::from_secs(1);
/// How much later than its steps need the loop counts as stuck.
const HEARTBEAT_SLACK: Duration = Duration::from_secs(30);

/// Elects one of the processes that share a record.
pub struct Elector<S> {
    store: S,
    election: Election,
    handle: LeaseHandle,
    clock: Clock,
    /// The time limit of one call to the store.
    call_timeout: Duration,
    random: fastrand::Rng,
}

impl<S: LeaseStore> Elector<S> {
    /// A candidate. `seed` is for the jitter.
    pub fn new(store: S, holder: HolderId, timing: LeaseTiming, clock: Clock, seed: u64) -> Self {
        Self {
            election: Election::new(holder, timing, store.judge()),
            store,
            handle: LeaseHandle::new(clock.clone()),
            clock,
            // A call that hangs leaves time for a second one.
            call_timeout: timing.renew_deadline() / 2,
            random: fastrand::Rng::with_seed(seed),
        }
    }

    /// The lease, for all that write.
    pub fn handle(&self) -> LeaseHandle {
        self.handle.clone()
    }

    /// Takes part in the election until `stop`. Then permits no further write, waits for those in flight, releases the lease,
    /// and returns.
    pub async fn run(mut self, heartbeat: Heartbeat, stop: CancellationToken) {
        let mut stopping = false;
        loop {
            heartbeat.expect_within(self.call_timeout + MAX_SLEEP + HEARTBEAT_SLACK);
            if stop.is_cancelled() && !stopping {
                stopping = true;
                self.handle.retire().await;
                self.election.release();
                self.publish();
            }
            let now = self.clock.now();
            let change = self.election.tick(now);
            self.apply(change);
            match self.election.next_step(now) {
                ElectionStep::Done => return heartbeat.unregister(),
                ElectionStep::Wait(pause) => {
                    // Not zero, even if the clock's milliseconds say so: the loop must yield.
                    let pause = pause.clamp(Duration::from_millis(1), MAX_SLEEP);
                    tokio::select! {
                        biased;
                        () = stop.cancelled(), if !stopping => {}
                        () = tokio::time::sleep(pause) => {}
                    }
                }
                ElectionStep::Read => self.read(&stop, stopping).await,
                ElectionStep::Write(write) => self.write(&write).await,
            }
        }
    }

    async fn read(&mut self, stop: &CancellationToken, stopping: bool) {
        let limit = self.time_limit();
        let call = tokio::time::timeout(limit, self.store.read());
        let result = tokio::select! {
            biased;
            () = stop.cancelled(), if !stopping => return,
            result = call => result.unwrap_or_else(|_| Err(timed_out("reading", limit))),
        };
        self.record_call(result.as_ref().err());
        let random = self.random.f64();
        let change = self.election.on_read(self.clock.now(), result.ok(), random);
        self.apply(change);
    }

    async fn write(&mut self, write: &LeaseWrite) {
        let (sent, limit) = (self.clock.now(), self.time_limit());
        let result = tokio::time::timeout(limit, self.store.write(write)).await;
        let result = result.unwrap_or_else(|_| Err(timed_out("writing", limit)));
        self.record_call(result.as_ref().err());
        let random = self.random.f64();
        let change = self.election.on_write(write, (sent, self.clock.now()), result.ok(), random);
        if let (Some(ElectionChange::Released), LeaseWriteKind::Release) = (&change, write.kind) {
            tracing::info!(store = self.store.name(), "lease released");
        }
        self.apply(change);
    }

    /// A leader's call ends when the leader would step down.
    fn time_limit(&self) -> Duration {
        let now = self.clock.now();
        let left = self.election.renew_by().map(|by: Timestamp| now.age_at(by));
        left.map_or(self.call_timeout, |left| left.min(self.call_timeout))
    }

    /// Logs a failure of the store once, and its end.
    fn record_call(&self, error: Option<&LeaseStoreError>) {
        let (kind, before) = (error.map(|error| error.kind), self.handle.status().store_error);
        let store = self.store.name();
        match (error, before) {
            (Some(error), before) if before != Some(error.kind) => {
                let (reason, error) = (error.kind.label(), error.message.as_str());
                tracing::warn!(store, reason, error, "cannot use the lease store; retrying");
            }
            (None, Some(_)) => tracing::info!(store, "lease store answers again"),
            _ => {}
        }
        self.handle.update(|status| status.store_error = kind);
    }

    fn apply(&self, change: Option<ElectionChange>) {
        self.publish();
        let Some(change) = change else { return };
        let (holder, store) = (self.election.holder(), self.store.name());
        match change {
            ElectionChange::Acquired { epoch } => {
                tracing::info!(store, %holder, epoch, "acquired the lease; this copy leads");
                self.handle.update(|status| {
                    status.acquired += 1;
                    status.epoch = epoch;
                    status.leader = Some(holder.clone());
                });
            }
            ElectionChange::Lost(loss) => {
                tracing::warn!(store, %holder, reason = loss.label(), "lost the lease; standing by");
                self.handle.update(|status| {
                    status.lost += 1;
                    status.epoch = 0;
                    status.leader = None;
                });
            }
            ElectionChange::LeaderSeen(leader) => {
                match &leader {
                    Some(leader) => tracing::info!(store, %leader, "another copy leads; standing by"),
                    None => tracing::info!(store, "the lease is free"),
                }
                self.handle.update(|status| status.leader = leader);
            }
            ElectionChange::Released => self.handle.update(|status| {
                status.epoch = 0;
                status.leader = None;
            }),
        }
    }

    /// Makes the term and the role known.
    fn publish(&self) {
        match self.election.valid_until() {
            Some(until) => self.handle.extend(until, self.store.fencing_token()),
            None => self.handle.end(),
        }
        let role: ElectionRole = self.election.role();
        self.handle.update(|status| status.role = role);
    }
}

fn timed_out(what: &str, limit: Duration) -> LeaseStoreError {
    let message = format!("{what} the lease: no answer within {limit:?}");
    LeaseStoreError::new(LeaseStoreErrorKind::Unreachable, message)
}
