//! The state of the operator at one moment, read for each scrape and each probe.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Serialize, Serializer};

use ecs_mesh_consul_acl::reconcile::AclStatus;
use ecs_mesh_controller::health::StuckLoop;
use ecs_mesh_controller::{CircuitState, QueueStats};
use ecs_mesh_core::plan::GuardState;

/// A controller with a free worker starts ready work at once. One that leaves it for this long is stuck.
const READY_WORK_TIMEOUT: Duration = Duration::from_mins(1);

/// How long after its time limit a reconcile may end.
const RECONCILE_TIMEOUT_SLACK: Duration = Duration::from_secs(30);

/// The name of the controller of deployments. No control plane has a name with a slash.
pub const DEPLOYMENTS_CONTROLLER: &str = "ecs/deployments";

/// A source of the state: the operator, or a fixed state in tests.
pub trait StateSource: Send + Sync {
    /// The current state. Called at each scrape and probe.
    fn state(&self) -> OperatorState;
}

/// The state of an operator. Names are those of manifests and clusters; nothing in it is a secret.
#[derive(Clone, Debug, Default, Serialize)]
pub struct OperatorState {
    /// The operator's identity.
    pub operator: Arc<str>,
    /// Whether this process may write.
    pub leader: bool,
    /// This process's part in the election; `None` if it is the only copy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease: Option<LeaseState>,
    /// Unmet readiness conditions; once the operator has been ready, only that writes are suspended.
    pub pending: Vec<String>,
    /// Why this copy has not started: unmet conditions; empty from the moment on when it has been ready once, or has led.
    pub startup_pending: Vec<String>,
    /// The manifests.
    pub manifests: ManifestState,
    /// The clusters that bindings select, by name, with the time of the last complete sweep in seconds since 1970. Clusters of
    /// the same name are `ACCOUNT/REGION/NAME`.
    pub clusters: BTreeMap<String, Option<f64>>,
    /// The accounts and Regions that the last sweep has read, or has failed to read.
    pub accounts: Vec<AccountState>,
    /// The control planes, by name.
    pub control_planes: BTreeMap<Arc<str>, ControlPlaneState>,
    /// The controller that looks at services whose bindings hold deployments.
    pub deployments: ControllerState,
    /// Number of known tasks.
    pub known_tasks: usize,
}

/// Whether an account can be read in a Region.
#[derive(Clone, Debug, Serialize)]
pub struct AccountState {
    /// The account's id.
    pub account: Arc<str>,
    /// The Region.
    pub region: Arc<str>,
    /// The failed operation and AWS's code, where nothing could be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A copy's part in the election.
#[derive(Clone, Debug, Default, Serialize)]
pub struct LeaseState {
    /// `leader` or `standby`.
    pub role: &'static str,
    /// The copy that leads, as far as this one knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leader: Option<String>,
    /// The epoch of this copy's own term; 0 without one.
    pub epoch: u64,
    /// How often this copy has become leader.
    pub acquired: u64,
    /// How often it has lost the lease without releasing it.
    pub lost: u64,
    /// Why the lease's store cannot be used: the kind of the last call's failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store_error: Option<&'static str>,
}

/// The state of the manifests.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ManifestState {
    /// Increases with each set that comes into force; 0: none yet.
    pub generation: u64,
    /// Whether the set in force was loaded without an error and without an unread source. Otherwise, a missing manifest removes
    /// nothing.
    pub complete: bool,
    /// Documents in force, by kind.
    pub loaded: BTreeMap<&'static str, usize>,
    /// Errors in the current sources, by kind; `unknown` where the kind could not be read.
    pub errors: BTreeMap<&'static str, usize>,
    /// Warnings in the current sources.
    pub warnings: usize,
}

/// The state of one controller: its work queue, and those who work on it.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct ControllerState {
    /// The work queue.
    #[serde(serialize_with = "queue")]
    pub queue: QueueStats,
    /// Limit of reconciles in flight.
    #[serde(skip)]
    pub workers: usize,
    /// Time limit of a reconcile.
    #[serde(skip)]
    pub reconcile_timeout: Duration,
}

/// The state of one control plane.
#[derive(Clone, Debug, Serialize)]
pub struct ControlPlaneState {
    /// Product and version, as of the last answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<Arc<str>>,
    /// The circuit.
    #[serde(serialize_with = "circuit")]
    pub circuit: CircuitState,
    /// Whether all registrations were listed since the start. Before that, only the listed segments are reconciled.
    pub synced: bool,
    /// Another process that has recently written here with this operator's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub foreign_writer: Option<Arc<str>>,
    /// Why nothing is written to the control plane: its version is not supported.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unsupported: Option<String>,
    /// When the operator's own token expires, in seconds since 1970; `None` if it does not say so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_expiry: Option<f64>,
    /// The segments at which the last list failed.
    pub unlisted_segments: Vec<String>,
    /// The controller of its tasks.
    #[serde(flatten)]
    pub controller: ControllerState,
    /// Registrations of this operator.
    pub owned: OwnedCounts,
    /// Owned registrations in clusters that no binding names.
    pub unattributed_registrations: usize,
    /// Number of services that outbounds name and the mesh does not know, by mesh.
    pub unknown_outbound_services: BTreeMap<Arc<str>, usize>,
    /// Tasks with active warnings, by reason.
    pub tasks_with_warnings: BTreeMap<&'static str, usize>,
    /// The guards, by binding.
    pub guards: BTreeMap<Arc<str>, GuardState>,
    /// Drains that wait until enough other registrations of their service are ready.
    pub held_drains: usize,
    /// Old tasks of deployments that this operator has protected from ECS.
    pub protected_tasks: usize,
    /// Dataplanes that the operator does not own.
    pub checked_dataplanes: Vec<CheckedDataplanes>,
    /// The ACL objects; `None` where the control plane has none.
    pub acl: Option<AclStatus>,
    /// The data plane tokens; `None` where the control plane has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens: Option<TokenStatus>,
}

/// The data plane tokens of a control plane, as of the last pass.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct TokenStatus {
    /// Number of tokens by state.
    pub tokens: BTreeMap<&'static str, usize>,
    /// When the first of the declared tokens expires, in seconds since 1970.
    pub next_expiry: Option<f64>,
}

/// Dataplanes that the operator does not own, by owner and state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct CheckedDataplanes {
    /// `sidecar`, or `observe` where the operator would be the owner.
    pub owner: &'static str,
    /// The state.
    pub state: &'static str,
    /// Their number.
    pub count: usize,
}

/// Registrations by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct OwnedCounts {
    /// In service.
    pub ready: usize,
    /// Out of service; to be removed or put back into service.
    pub drained: usize,
    /// Sent without a response: the registration may exist or not.
    pub unconfirmed: usize,
}

impl OperatorState {
    /// Whether the operator is ready.
    pub fn is_ready(&self) -> bool {
        self.pending.is_empty()
    }

    /// The controllers, by name.
    pub fn controllers(&self) -> impl Iterator<Item = (&str, &ControllerState)> {
        let of_control_planes = self.control_planes.iter().map(|(name, state)| (&**name, &state.controller));
        of_control_planes.chain([(DEPLOYMENTS_CONTROLLER, &self.deployments)])
    }

    /// The controllers that start no ready work or have an overdue reconcile.
    pub fn stuck(&self) -> Vec<StuckLoop> {
        self.controllers().filter_map(|(name, state)| state.stuck(name)).collect()
    }
}

impl ControllerState {
    fn stuck(&self, name: &str) -> Option<StuckLoop> {
        let name = || format!("controller {name}");
        let QueueStats { ready, processing, oldest_waiting, longest_running, .. } = self.queue;
        let run_limit = self.reconcile_timeout.saturating_add(RECONCILE_TIMEOUT_SLACK);
        if longest_running > run_limit {
            return Some(StuckLoop { name: name(), last_progress: longest_running, within: Some(run_limit) });
        }
        let has_free_worker = processing < self.workers;
        (ready > 0 && has_free_worker && oldest_waiting > READY_WORK_TIMEOUT).then(|| StuckLoop {
            name: name(),
            last_progress: oldest_waiting,
            within: Some(READY_WORK_TIMEOUT),
        })
    }
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde's signature
fn circuit<S: Serializer>(state: &CircuitState, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(state.as_str())
}

fn queue<S: Serializer>(stats: &QueueStats, to: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct WorkQueueJson {
        ready: usize,
        delayed: usize,
        processing: usize,
        oldest_waiting_seconds: u64,
    }
    WorkQueueJson {
        ready: stats.ready,
        delayed: stats.delayed,
        processing: stats.processing,
        oldest_waiting_seconds: stats.oldest_waiting.as_secs(),
    }
    .serialize(to)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn controller() -> ControllerState {
        ControllerState { queue: QueueStats::default(), workers: 2, reconcile_timeout: 120 * SECOND }
    }

    pub(in crate::telemetry) fn control_plane() -> ControlPlaneState {
        ControlPlaneState {
            version: Some("Kuma 2.14.1".into()),
            circuit: CircuitState::Closed,
            synced: true,
            unsupported: None,
            foreign_writer: Some("0a1b".into()),
            unlisted_segments: vec!["tokens".to_owned()],
            controller: controller(),
            owned: OwnedCounts { ready: 3, drained: 2, unconfirmed: 1 },
            token_expiry: Some(2_000.0),
            unattributed_registrations: 4,
            unknown_outbound_services: [("default".into(), 5)].into(),
            tasks_with_warnings: [("rejected", 6)].into(),
            guards: [(
                "demo".into(),
                GuardState { held: 7, stabilising: 0, admitted: 3, owned: 10, limit: 3 },
            )]
            .into(),
            held_drains: 8,
            protected_tasks: 9,
            checked_dataplanes: vec![CheckedDataplanes { owner: "sidecar", state: "missing", count: 10 }],
            acl: Some(AclStatus {
                objects: [("policy", [("drifted", 2)].into())].into(),
                last_sync: Some(1_500.0),
            }),
            tokens: Some(TokenStatus { tokens: [("held", 2)].into(), next_expiry: Some(2_500.0) }),
        }
    }

    pub(in crate::telemetry) fn state() -> OperatorState {
        OperatorState {
            operator: "op".into(),
            leader: true,
            lease: Some(LeaseState {
                role: "leader",
                epoch: 3,
                acquired: 2,
                lost: 1,
                ..LeaseState::default()
            }),
            clusters: [("one".to_owned(), Some(1_000.0)), ("two".to_owned(), None)].into(),
            accounts: vec![AccountState {
                account: "111122223333".into(),
                region: "eu-west-1".into(),
                error: None,
            }],
            control_planes: [("kuma".into(), control_plane())].into(),
            ..OperatorState::default()
        }
    }

    #[test]
    fn idle_controller_with_ready_work_is_stuck() {
        let mut state = controller();
        state.queue = QueueStats { ready: 9, processing: 2, oldest_waiting: 500 * SECOND, ..state.queue };
        assert_eq!(state.stuck("kuma"), None, "no worker is free");
        state.queue.processing = 1;
        let stuck = state.stuck("kuma").unwrap().to_string();
        assert_eq!(stuck, "controller kuma: no progress for 500 s (limit 60 s)");
        state.queue.oldest_waiting = 60 * SECOND;
        assert_eq!(state.stuck("kuma"), None);
    }

    #[test]
    fn controller_with_overdue_reconcile_is_stuck() {
        let mut state = state();
        let busy = |seconds| QueueStats {
            processing: 1,
            longest_running: seconds * SECOND,
            ..QueueStats::default()
        };
        state.control_planes.get_mut("kuma").unwrap().controller.queue = busy(150);
        assert_eq!(state.stuck(), []);
        state.control_planes.get_mut("kuma").unwrap().controller.queue = busy(151);
        state.deployments = ControllerState { queue: busy(151), ..controller() };
        let stuck: Vec<String> = state.stuck().iter().map(|stuck| stuck.name.clone()).collect();
        assert_eq!(stuck, ["controller kuma", "controller ecs/deployments"]);
    }
}
