//! The lease of `run`: where it is kept, and its durations.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::duration;
use crate::operator::{ConnectFn, Replicas, StandbyReads};
use ecs_mesh_aws::sdk::ATTEMPT_TIMEOUT;
use ecs_mesh_clock::Clock;
use ecs_mesh_controller::{Health, Lease as _};
use ecs_mesh_lease::{
    ElectionStatus, Elector, HolderId, LeaseClients, LeaseHandle, LeaseLocation, LeaseStore, LeaseTiming,
};
use ecs_mesh_model::OperatorId;

/// How long a stop waits for the release of the lease, which otherwise expires by itself.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(5);

/// Arguments of the lease.
#[derive(clap::Args)]
pub(super) struct LeaseArgs {
    /// Where the copies of this operator elect the one that writes: `dynamodb:TABLE`, `consul`, `consul:CONTROL-PLANE`, or
    /// `none` for a single copy
    #[arg(long, default_value = "none")]
    lease: LeaseLocation,

    /// How long the other copies wait for a leader that has fallen silent
    #[arg(long, default_value = "15s", value_parser = duration)]
    lease_duration: Duration,

    /// How long a leader tries to renew the lease before it steps down
    #[arg(long, default_value = "10s", value_parser = duration)]
    lease_renew_deadline: Duration,

    /// Longest wait between two renewals, and between two looks of a standby
    #[arg(long, default_value = "2s", value_parser = duration)]
    lease_retry_period: Duration,

    /// Part of the read rates, in percent, that all standbys together use; the leader uses the rest
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u8).range(1..=90))]
    standby_reads_percent: u8,

    /// Most standbys at once, which share that part: one, and two more while a deployment replaces both copies
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=100))]
    max_standbys: u16,
}

/// A configured lease, for which this process has not stood yet.
pub(super) struct LeaseCandidate {
    lease: ConfiguredLease,
    elector: Elector<Box<dyn LeaseStore>>,
}

/// A lease, for those that write.
#[derive(Clone)]
pub(super) struct ConfiguredLease {
    timing: LeaseTiming,
    replicas: Replicas,
}

impl LeaseArgs {
    /// The candidate; `None` without a lease.
    pub(super) fn candidate(
        &self,
        operator: &OperatorId,
        clients: &LeaseClients<'_>,
    ) -> Result<Option<LeaseCandidate>, String> {
        let timing = self.timing()?;
        let Some(store) = self.lease.store(operator, clients, timing)? else {
            info!("no lease: this must be the only copy with this operator id");
            return Ok(None);
        };
        let holder = HolderId::generate(&process_name());
        info!(lease = %self.lease, %holder, duration = ?timing.lease_duration(), "standing for the lease");
        let elector = Elector::new(store, holder, timing, Clock::system(), fastrand::u64(..));
        let reads = StandbyReads { percent: self.standby_reads_percent, standbys: self.max_standbys };
        let replicas = Replicas { election: elector.handle(), reads };
        Ok(Some(LeaseCandidate { lease: ConfiguredLease { timing, replicas }, elector }))
    }

    fn timing(&self) -> Result<LeaseTiming, String> {
        let timing =
            LeaseTiming::new(self.lease_duration, self.lease_renew_deadline, self.lease_retry_period)
                .map_err(|error| error.to_string())?;
        if timing.longest_write() < ATTEMPT_TIMEOUT {
            return Err(format!(
                "the lease leaves {:?} for a write, and a call to AWS takes up to {ATTEMPT_TIMEOUT:?}; help: raise \
                 --lease-duration or lower --lease-retry-period",
                timing.longest_write()
            ));
        }
        Ok(timing)
    }
}

/// The name by which people find this process: the task and container id that ECS gives, or the host's name.
///
/// Source: <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-metadata-endpoint-v4-fargate.html>.
fn process_name() -> String {
    let of_ecs = std::env::var("ECS_CONTAINER_METADATA_URI_V4").ok();
    let id = of_ecs.as_deref().and_then(|uri| uri.rsplit('/').next()).filter(|id| !id.is_empty());
    let host = || std::env::var("HOSTNAME").unwrap_or_else(|_| format!("process-{}", std::process::id()));
    id.map_or_else(host, str::to_owned)
}

impl ConfiguredLease {
    /// This process's part in the election.
    pub(super) fn handle(&self) -> LeaseHandle {
        self.replicas.election.clone()
    }

    /// The other copies.
    pub(super) fn replicas(&self) -> Replicas {
        self.replicas.clone()
    }

    /// A function that also rejects control planes whose calls may take longer than the lease permits.
    pub(super) fn limit(&self, connect: ConnectFn) -> ConnectFn {
        let longest = self.timing.longest_write();
        Arc::new(move |name, spec| {
            let timeouts = [
                ("kuma", spec.kuma.as_ref().map(|kuma| kuma.timeout.0)),
                ("consul", spec.consul.as_ref().map(|consul| consul.timeout.0)),
            ];
            for (block, timeout) in timeouts {
                if let Some(timeout) = timeout.filter(|timeout| *timeout > longest) {
                    let message = format!(
                        "spec.{block}.timeout is {timeout:?}; with this lease a write may take {longest:?}; help: lower it, \
                         or raise --lease-duration"
                    );
                    return Err(message.into());
                }
            }
            connect(name, spec)
        })
    }
}

impl LeaseCandidate {
    /// The lease.
    pub(super) fn lease(&self) -> ConfiguredLease {
        self.lease.clone()
    }

    /// Stands for the lease until the returned guard is released.
    pub(super) fn stand(self, health: &Health) -> StandingCandidate {
        let (stop, election) = (CancellationToken::new(), self.lease.handle());
        let task = tokio::spawn(self.elector.run(health.register("lease"), stop.clone()));
        StandingCandidate { stop, task, election }
    }
}

/// A candidate or leader.
pub(super) struct StandingCandidate {
    stop: CancellationToken,
    task: JoinHandle<()>,
    election: LeaseHandle,
}

impl StandingCandidate {
    /// Waits until this process leads.
    pub(super) async fn lead_within(&self, limit: Duration, stop: &CancellationToken) -> Result<(), String> {
        let mut status = self.election.subscribe();
        let leads = tokio::select! {
            biased;
            () = stop.cancelled() => return Err("stopped before it could take the lease".to_owned()),
            leads = tokio::time::timeout(limit, status.wait_for(ElectionStatus::is_leader)) => leads,
        };
        if leads.is_ok_and(|leads| leads.is_ok()) {
            return Ok(());
        }
        let leader =
            self.election.status().leader.map_or_else(|| "unknown".to_owned(), |leader| leader.to_string());
        Err(format!(
            "another copy holds the lease (leader: {leader}), and this one did not get it within {limit:?}; help: stop the \
             running operator, or let it do the work"
        ))
    }

    /// Releases the lease, so that another copy leads at once. Call it when nothing is written any more.
    pub(super) async fn release(self) {
        self.stop.cancel();
        if tokio::time::timeout(RELEASE_TIMEOUT, self.task).await.is_err() {
            info!(leads = self.election.holds(), "lease not released in time; it expires by itself");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_must_leave_time_for_a_call_to_aws() {
        let args = |lease, deadline, retry| LeaseArgs {
            lease: LeaseLocation::None,
            lease_duration: Duration::from_secs(lease),
            lease_renew_deadline: Duration::from_secs(deadline),
            lease_retry_period: Duration::from_secs(retry),
            standby_reads_percent: 20,
            max_standbys: 3,
        };
        assert!(args(15, 10, 2).timing().is_ok());
        assert!(args(10, 9, 3).timing().unwrap_err().contains("raise --lease-duration"));
        assert!(args(5, 3, 1).timing().unwrap_err().contains("allowed are 10s to 1h"));
    }
}
