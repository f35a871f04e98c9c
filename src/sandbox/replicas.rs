//! The replicas of the demo's operator: one, or several that share a lease in the emulated DynamoDB. The leader is killed once,
//! and another one takes over.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::checks::{DemoCheck, DemoCheckStatus, DemoSubject};
use crate::operator::{Operator, Replicas, StandbyReads};
use crate::telemetry::metrics::Metrics;
use ecs_mesh_aws::sdk::SdkDynamoDb;
use ecs_mesh_clock::Clock;
use ecs_mesh_controller::{AlwaysHeld, Heartbeat, Lease};
use ecs_mesh_lease::dynamodb::OPERATOR_ID;
use ecs_mesh_lease::{DynamoDbLeaseStore, Elector, HolderId, LeaseHandle, LeaseTiming};
use ecs_mesh_model::OperatorId;
use ecs_mesh_sandbox::endpoints::Endpoints;
use ecs_mesh_sandbox::world::WorldEvent;

/// The table of the lease.
const TABLE: &str = "ecs-mesh-leases";

/// Creates the lease's table.
pub(super) fn create_table(endpoints: &Endpoints) -> Result<(), String> {
    endpoints.with(|cloud, _, now| {
        let created = cloud.create_table(TABLE, OPERATOR_ID, now).map(drop);
        created.map_err(|error| format!("creating the table of the lease: {}", error.message))
    })
}

/// A replica's part in the election.
pub(super) struct DemoCandidate {
    election: LeaseHandle,
    elector: Elector<DynamoDbLeaseStore<SdkDynamoDb>>,
}

impl DemoCandidate {
    /// A candidate with the shortest lease, so that a takeover fits into a demo.
    pub(super) fn new(dynamodb: SdkDynamoDb, id: &OperatorId, name: &str, seed: u64) -> Result<Self, String> {
        let timing =
            LeaseTiming::new(Duration::from_secs(10), Duration::from_secs(6), Duration::from_millis(500));
        let timing = timing.map_err(|error| error.to_string())?;
        let store = DynamoDbLeaseStore::new(dynamodb, TABLE, id.clone(), Clock::system());
        let elector = Elector::new(store, HolderId::generate(name), timing, Clock::system(), seed);
        Ok(Self { election: elector.handle(), elector })
    }

    /// The lease of the replica, which is the only one without a candidate.
    pub(super) fn lease(candidate: Option<&Self>) -> (Arc<dyn Lease>, Option<Replicas>) {
        let Some(Self { election, .. }) = candidate else { return (Arc::new(AlwaysHeld), None) };
        let replicas = Replicas { election: election.clone(), reads: StandbyReads::default() };
        (Arc::new(election.clone()), Some(replicas))
    }
}

/// A running replica.
pub(super) struct DemoReplica {
    name: String,
    operator: Arc<Operator>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
    running: JoinHandle<()>,
    election: Option<(LeaseHandle, CancellationToken, JoinHandle<()>)>,
}

impl DemoReplica {
    /// Starts a replica: `run` ends at `stop`.
    pub(super) fn start(
        name: String,
        operator: Arc<Operator>,
        metrics: Arc<Metrics>,
        candidate: Option<DemoCandidate>,
        run: impl Future<Output = ()> + Send + 'static,
        stop: CancellationToken,
    ) -> Self {
        let election = candidate.map(|DemoCandidate { election, elector }| {
            let stop = CancellationToken::new();
            (election, stop.clone(), tokio::spawn(elector.run(Heartbeat::default(), stop)))
        });
        Self { name, operator, metrics, stop, running: tokio::spawn(run), election }
    }

    fn leads(&self) -> bool {
        self.election.as_ref().is_none_or(|(election, ..)| election.holds())
    }

    /// Ends the replica as a crash would: nothing is finished, and the lease is not released.
    fn kill(&self) {
        self.running.abort();
        self.election.iter().for_each(|(_, _, elector)| elector.abort());
    }
}

/// The leader that was killed, and its successor.
struct KilledLeader {
    index: usize,
    name: String,
    at: Instant,
    /// The number of processes that had written until then, where it is known.
    writers: Option<usize>,
    /// The name of the next leader, and the time that it needed.
    successor: Option<(String, Duration)>,
}

impl KilledLeader {
    /// Judges the takeover: another replica leads, and has written where writes name their process.
    fn judge(&self, writers: Option<usize>) -> (DemoCheckStatus, String) {
        let Some((successor, after)) = &self.successor else {
            return (
                DemoCheckStatus::Pending,
                format!("{} was killed, and no other replica leads", self.name),
            );
        };
        let led = format!("{successor} led {:.1} s after the crash of {}", after.as_secs_f64(), self.name);
        match (self.writers, writers) {
            (Some(before), Some(now)) if now > before => {
                (DemoCheckStatus::Passed, format!("{led}, and wrote"))
            }
            (Some(_), _) => (DemoCheckStatus::Pending, format!("{led}, and has not written")),
            (None, _) => (DemoCheckStatus::Passed, format!("{led}; writes are not judged")),
        }
    }
}

/// All replicas.
#[derive(Default)]
pub(super) struct DemoReplicas {
    all: Vec<DemoReplica>,
    /// Whether one can take over from another.
    are_several: bool,
    leader: Option<usize>,
    killed: Option<KilledLeader>,
}

impl DemoReplicas {
    pub(super) fn new(all: Vec<DemoReplica>) -> Self {
        Self { are_several: all.len() > 1, all, leader: None, killed: None }
    }

    /// The operator that leads, or led last.
    pub(super) fn operator(&self) -> Option<&Arc<Operator>> {
        Some(&self.all.get(self.leader.unwrap_or_default())?.operator)
    }

    /// The metrics of all replicas.
    pub(super) fn metrics(&self) -> impl Iterator<Item = &Arc<Metrics>> {
        self.all.iter().map(|replica| &replica.metrics)
    }

    /// Kills the leader once, if another replica can take over. `writers` is the number of processes that have written, where
    /// it is known: a leader that has not written yet stays alive, since the second writer shows the takeover.
    pub(super) fn kill_leader(&mut self, writers: Option<usize>) -> Option<WorldEvent> {
        if !self.are_several || self.killed.is_some() || writers == Some(0) {
            return None;
        }
        let index = self.leader?;
        let replica = self.all.get(index).filter(|replica| replica.leads())?;
        replica.kill();
        let (name, at) = (replica.name.clone(), Instant::now());
        let message = format!("{name}, which leads; its lease is not released");
        self.killed = Some(KilledLeader { index, name, at, writers, successor: None });
        Some(WorldEvent { actor: "world", action: "kill", message })
    }

    /// A change of the leader since the last call.
    pub(super) fn take_event(&mut self) -> Option<WorldEvent> {
        let killed = self.killed.as_ref().map(|killed| killed.index);
        let is_new = |(index, replica): &(usize, &DemoReplica)| {
            Some(*index) != killed && Some(*index) != self.leader && replica.leads()
        };
        let (index, replica) = self.all.iter().enumerate().find(is_new)?;
        self.leader = Some(index);
        if !self.are_several {
            return None;
        }
        let message = match &mut self.killed {
            Some(killed) => {
                let after = killed.at.elapsed();
                killed.successor.get_or_insert_with(|| (replica.name.clone(), after));
                format!("{} takes over, {:.1} s after the crash", replica.name, after.as_secs_f64())
            }
            None => format!("{} leads; the others stand by", replica.name),
        };
        Some(WorldEvent { actor: "operator", action: "lead", message })
    }

    /// Judges the takeover, if one replica can take over from another. `writers` is as in [`DemoReplicas::kill_leader`].
    pub(super) fn takeover(&self, writers: Option<usize>) -> Option<DemoCheck> {
        let not_killed = || (DemoCheckStatus::Pending, "no replica has led and was killed".to_owned());
        let judge = || self.killed.as_ref().map_or_else(not_killed, |killed| killed.judge(writers));
        let (status, message) = self.are_several.then(judge)?;
        Some(DemoCheck::new(DemoSubject::Takeover, status, message))
    }

    /// Stops all replicas, and releases the lease.
    pub(super) async fn stop(&mut self) {
        self.all.iter().for_each(|replica| replica.stop.cancel());
        for replica in std::mem::take(&mut self.all) {
            // The operator has its own shutdown timeout; a killed one has ended.
            let _ = replica.running.await;
            if let Some((_, stop, elector)) = replica.election {
                stop.cancel();
                let _ = elector.await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takeover_passes_when_a_successor_has_written() {
        use DemoCheckStatus::{Passed, Pending};
        for (has_successor, before, now, expected) in [
            (false, Some(1), Some(1), Pending),
            (false, Some(1), Some(2), Pending),
            (true, Some(1), Some(1), Pending),
            (true, Some(1), Some(2), Passed),
            (true, Some(2), Some(2), Pending),
            (false, None, None, Pending),
            (true, None, None, Passed),
        ] {
            let successor = has_successor.then(|| ("replica-2".to_owned(), Duration::from_secs(10)));
            let (name, at) = ("replica-1".to_owned(), Instant::now());
            let killed = KilledLeader { index: 0, name, at, writers: before, successor };
            let (status, message) = killed.judge(now);
            assert_eq!(status, expected, "{has_successor} {before:?} {now:?}: {message}");
        }
    }

    #[test]
    fn takeover_is_pending_while_no_leader_was_killed() {
        let several = DemoReplicas { are_several: true, ..DemoReplicas::default() };
        let status = |replicas: &DemoReplicas| replicas.takeover(Some(1)).map(|check| check.status);
        assert_eq!(status(&several), Some(DemoCheckStatus::Pending));
        assert_eq!(status(&DemoReplicas::default()), None);
    }
}
