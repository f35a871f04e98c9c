//! The replicas of the demo's operator: one, or several that share a lease in the emulated DynamoDB. The leader is killed once,
//! and another one takes over.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

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

/// All replicas.
#[derive(Default)]
pub(super) struct DemoReplicas {
    all: Vec<DemoReplica>,
    leader: Option<usize>,
    killed: Option<(usize, Instant)>,
}

impl DemoReplicas {
    pub(super) fn new(all: Vec<DemoReplica>) -> Self {
        Self { all, leader: None, killed: None }
    }

    /// The operator that leads, or led last.
    pub(super) fn operator(&self) -> Option<&Arc<Operator>> {
        Some(&self.all.get(self.leader.unwrap_or_default())?.operator)
    }

    /// The metrics of all replicas.
    pub(super) fn metrics(&self) -> impl Iterator<Item = &Arc<Metrics>> {
        self.all.iter().map(|replica| &replica.metrics)
    }

    /// Kills the leader, if another replica can take over.
    pub(super) fn kill_leader(&mut self) -> Option<WorldEvent> {
        let index = self.leader.filter(|_| self.all.len() > 1)?;
        let replica = self.all.get(index)?;
        replica.kill();
        self.killed = Some((index, Instant::now()));
        let message = format!("{}, which leads; its lease is not released", replica.name);
        Some(WorldEvent { actor: "world", action: "kill", message })
    }

    /// A change of the leader since the last call.
    pub(super) fn take_event(&mut self) -> Option<WorldEvent> {
        let killed = self.killed.map(|(index, _)| index);
        let is_new = |(index, replica): &(usize, &DemoReplica)| {
            Some(*index) != killed && Some(*index) != self.leader && replica.leads()
        };
        let (index, replica) = self.all.iter().enumerate().find(is_new)?;
        self.leader = Some(index);
        if self.all.len() == 1 {
            return None;
        }
        let message = match self.killed {
            Some((_, at)) => {
                format!("{} takes over, {:.1} s after the crash", replica.name, at.elapsed().as_secs_f64())
            }
            None => format!("{} leads; the others stand by", replica.name),
        };
        Some(WorldEvent { actor: "operator", action: "lead", message })
    }

    /// Stops all replicas, and releases the lease.
    pub(super) async fn stop(self) {
        self.all.iter().for_each(|replica| replica.stop.cancel());
        for replica in self.all {
            // The operator has its own shutdown timeout; a killed one has ended.
            let _ = replica.running.await;
            if let Some((_, stop, elector)) = replica.election {
                stop.cancel();
                let _ = elector.await;
            }
        }
    }
}
