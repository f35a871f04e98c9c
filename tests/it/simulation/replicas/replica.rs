//! One replica: its lease, its clock, and the faults of its process and of its way to the lease's store.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use ecs_mesh_clock::Clock;
use ecs_mesh_controller::{Lease, LeaseTerm, WriteObstacle, WritePermit};
use ecs_mesh_lease::{
    ExpiryJudge, HolderId, LeaseHandle, LeaseStore, LeaseStoreError, LeaseStoreErrorKind, LeaseWrite,
    StoredRecord,
};
use ecs_mesh_model::Timestamp;
use tokio::time::sleep;

use super::super::env::SimEnv;
use super::super::faults::SimFault;
use super::lease_record::SharedLeaseRecord;
use super::reads::ReplicaReads;

/// How long a replica needs after a start, a hang or an interruption to read the record again.
const RECOVERY: Duration = Duration::from_secs(5);

/// How long after the loss of its lease a process may begin to receive.
const RECEIVE_LAG: Duration = Duration::from_secs(2);

/// One process of the operator.
pub(in super::super) struct SimReplica {
    pub(in super::super) holder: HolderId,
    env: Arc<SimEnv>,
    lease_record: Arc<SharedLeaseRecord>,
    /// The machine's clock.
    pub(in super::super) clock: Clock,
    state: Mutex<ReplicaState>,
    /// Writes whose bytes are on their way.
    in_flight: AtomicUsize,
    pub(in super::super) reads: ReplicaReads,
}

struct ReplicaState {
    /// No call goes out and no answer comes in before.
    hangs_until: Timestamp,
    /// The store is out of reach before; calls hang, or fail at once.
    cut_off_until: Timestamp,
    cut_hangs: bool,
    healthy_since: Timestamp,
    /// Messages that it received while it did not lead.
    received_as_standby: BTreeSet<String>,
}

impl SimReplica {
    pub(in super::super) fn new(
        name: &str,
        env: &Arc<SimEnv>,
        lease_record: &Arc<SharedLeaseRecord>,
    ) -> Arc<Self> {
        let now = env.now();
        let state = ReplicaState {
            hangs_until: now,
            cut_off_until: now,
            cut_hangs: false,
            healthy_since: now.plus(RECOVERY),
            received_as_standby: BTreeSet::new(),
        };
        Arc::new(Self {
            holder: HolderId::recorded(name),
            env: Arc::clone(env),
            lease_record: Arc::clone(lease_record),
            clock: Clock::simulated(now),
            state: Mutex::new(state),
            in_flight: AtomicUsize::new(0),
            reads: ReplicaReads::default(),
        })
    }

    /// Stops the process's calls until then, and with them all that waits for an answer.
    pub(in super::super) fn hang_until(&self, until: Timestamp) {
        let mut state = self.state.lock().unwrap();
        state.hangs_until = until;
        state.healthy_since = until.plus(RECOVERY);
    }

    /// Cuts the process off from the store until then.
    pub(in super::super) fn cut_off_until(&self, until: Timestamp, hangs: bool) {
        let mut state = self.state.lock().unwrap();
        (state.cut_off_until, state.cut_hangs) = (until, hangs);
        state.healthy_since = until.plus(RECOVERY);
    }

    /// Ends its faults.
    pub(in super::super) fn recover(&self) {
        let now = self.env.now();
        let mut state = self.state.lock().unwrap();
        (state.hangs_until, state.cut_off_until) = (now, now);
    }

    /// Whether bytes of its writes are on their way.
    pub(in super::super) fn is_writing(&self) -> bool {
        self.in_flight.load(Ordering::Relaxed) > 0
    }

    /// Waits while the process hangs.
    pub(in super::super) async fn resumed(&self) {
        loop {
            let (now, until) = (self.env.now(), self.state.lock().unwrap().hangs_until);
            if now >= until {
                return;
            }
            sleep(now.age_at(until)).await;
        }
    }

    /// Counts a call to its own account: each account has rates of its own.
    pub(in super::super) fn record_read(&self, operation: &str, account: &SimEnv) {
        if account.cluster == self.env.cluster {
            self.reads.record(operation, self.env.now());
        }
    }

    /// Judges a write that reaches its receiver now.
    pub(in super::super) fn judge(&self, what: &dyn fmt::Display) {
        self.lease_record.judge(&self.holder, what, self.env.now());
    }

    /// Whether the lease is this process's now, by the judge.
    fn leads(&self) -> bool {
        self.lease_record.leader(self.env.now()).as_ref() == Some(&self.holder)
    }

    /// Records received messages. Returns whether this process leads.
    pub(in super::super) fn record_received<'a>(&self, receipts: impl Iterator<Item = &'a str>) -> bool {
        let leads = self.leads();
        if !leads {
            self.state.lock().unwrap().received_as_standby.extend(receipts.map(str::to_owned));
        }
        leads
    }

    /// Records that a message is deleted: one that came to a standby is for the leader.
    pub(in super::super) fn record_deleted(&self, receipt: &str) {
        if self.state.lock().unwrap().received_as_standby.contains(receipt) {
            let holder = &self.holder;
            self.lease_record.record_violation(format!(
                "a standby, {holder}, deletes an event that only the leader acts on"
            ));
        }
    }

    /// Records that a receive begins. A process that has led may take a moment to stop, also after a freeze.
    pub(in super::super) fn record_receive(&self, lease: &dyn Lease) {
        let now = self.env.now();
        if lease.holds() {
            return;
        }
        if let Some(ended) = self.lease_record.ended(&self.holder, now)
            && ended.max(self.lease_record.frozen_until()).age_at(now) > RECEIVE_LAG
        {
            self.lease_record.record_violation(format!("a standby, {}, receives events", self.holder));
        }
    }

    /// Waits for the answer to bytes that are sent now. They arrive also if the process ends or hangs meanwhile.
    pub(in super::super) async fn deliver<T: Send + 'static>(
        self: &Arc<Self>,
        exchange: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        let (replica, flight) = (Arc::clone(self), InFlight::begin(self));
        let sent = tokio::spawn(async move {
            let answer = exchange.await;
            drop(flight);
            replica.resumed().await;
            answer
        });
        sent.await.ok()
    }

    /// Sends a write as the HTTP client does: with a permit, which ends with the term and, where there is a body, is checked
    /// again when the connection is ready.
    pub(in super::super) async fn send_write<T: Send + 'static>(
        self: &Arc<Self>,
        lease: &dyn Lease,
        timeout: Duration,
        has_body: bool,
        exchange: impl Future<Output = T> + Send + 'static,
    ) -> Result<Option<T>, WriteObstacle> {
        let permit = WritePermit::request(lease, timeout)?;
        let sending = async {
            sleep(self.env.faults.latency()).await;
            self.resumed().await;
            if has_body {
                permit.check()?;
            }
            Ok::<_, WriteObstacle>(self.deliver(exchange).await)
        };
        permit.run(sending).await.unwrap_or(Ok(None))
    }
}

/// Counts a write on its way.
struct InFlight(Arc<SimReplica>);

impl InFlight {
    fn begin(replica: &Arc<SimReplica>) -> Self {
        replica.in_flight.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(replica))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The elected lease of a replica, with the audit log that is blocked at times.
pub(in super::super) struct ReplicaLease {
    pub(in super::super) election: LeaseHandle,
    pub(in super::super) env: Arc<SimEnv>,
}

impl Lease for ReplicaLease {
    fn term(&self) -> LeaseTerm {
        self.election.term()
    }

    fn obstacle(&self) -> Option<WriteObstacle> {
        self.election.obstacle().or_else(|| self.env.lease.audit_obstacle())
    }
}

/// A replica's way to the shared record.
pub(in super::super) struct SimLeaseStore(pub(in super::super) Arc<SimReplica>);

fn unreachable(message: &str) -> LeaseStoreError {
    LeaseStoreError::new(LeaseStoreErrorKind::Unreachable, message)
}

impl SimLeaseStore {
    /// Waits as a message does, or fails.
    async fn pass(&self) -> Result<(), LeaseStoreError> {
        let replica = &self.0;
        replica.resumed().await;
        let (cut_off_until, hangs) = {
            let state = replica.state.lock().unwrap();
            (state.cut_off_until, state.cut_hangs)
        };
        if replica.env.now() < cut_off_until {
            if hangs {
                std::future::pending::<()>().await;
            }
            return Err(unreachable("cut off"));
        }
        sleep(replica.env.faults.latency()).await;
        Ok(())
    }

    /// Whether a fault of the store strikes, so that a takeover may take longer.
    fn strikes(&self, fault: SimFault, chance: f64) -> bool {
        let strikes = self.0.env.faults.fires(fault, chance);
        if strikes {
            self.0.lease_record.record_failed_call(&self.0.holder);
        }
        strikes
    }
}

#[async_trait]
impl LeaseStore for SimLeaseStore {
    fn name(&self) -> &'static str {
        "simulated"
    }

    fn judge(&self) -> ExpiryJudge {
        ExpiryJudge::Observer
    }

    async fn read(&self) -> Result<Option<StoredRecord>, LeaseStoreError> {
        self.pass().await?;
        if self.strikes(SimFault::LeaseStoreError, 0.02) {
            return Err(unreachable("failed"));
        }
        let stored = self.0.lease_record.read();
        self.pass().await?;
        Ok(stored)
    }

    async fn write(&self, write: &LeaseWrite) -> Result<Option<u64>, LeaseStoreError> {
        self.pass().await?;
        if self.strikes(SimFault::LeaseStoreError, 0.02) {
            return Err(unreachable("failed before the write"));
        }
        let (env, replica) = (&self.0.env, &self.0);
        let healthy_since = replica.state.lock().unwrap().healthy_since;
        let written = replica.lease_record.write(write, healthy_since, env.now());
        let LeaseWrite { kind, writer, record, .. } = write;
        env.record(|| format!("lease: {kind:?} of {writer} in epoch {}: {written:?}", record.epoch));
        if self.strikes(SimFault::LeaseStoreLostAnswer, 0.03) {
            std::future::pending::<()>().await;
        }
        self.pass().await?;
        if self.strikes(SimFault::LeaseStoreError, 0.01) {
            return Err(unreachable("failed after the write"));
        }
        Ok(written)
    }
}
