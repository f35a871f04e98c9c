//! What there is to tell at one moment: taken anew for each scrape and each probe, never kept up by hand.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Serialize, Serializer};

use ecs_mesh_consul_acl::reconcile::AclStatus;
use ecs_mesh_controller::health::StuckLoop;
use ecs_mesh_controller::{CircuitState, QueueStats};
use ecs_mesh_core::plan::GuardState;

/// A controller takes what is ready at once where it has a place; whoever leaves it lying for so long is stuck.
const READY_WORK_TIMEOUT: Duration = Duration::from_mins(1);

/// How much later than its time limit a run may be seen to end.
const RECONCILE_TIMEOUT_SLACK: Duration = Duration::from_secs(30);

/// Whoever can be asked for the state.
pub trait StateSource: Send + Sync {
    /// The state now. Cheap enough for every scrape.
    fn state(&self) -> OperatorState;
}

/// An operator at one moment. Names are those of manifests and clusters; nothing in it is a secret.
#[derive(Clone, Debug, Default, Serialize)]
pub struct OperatorState {
    /// The operator's identity.
    pub operator: Arc<str>,
    /// Whether this process may write.
    pub leader: bool,
    /// Why the operator is not ready; empty once it has been, for as long as it runs.
    pub pending: Vec<String>,
    /// The manifests.
    pub manifests: ManifestState,
    /// The clusters that bindings select, by name: when a sweep saw each whole for the last time, in seconds since 1970.
    pub clusters: BTreeMap<String, Option<f64>>,
    /// The control planes under care.
    pub control_planes: BTreeMap<Arc<str>, ControlPlaneState>,
    /// Tasks that are known.
    pub known_tasks: usize,
}

/// The manifests at one moment.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ManifestState {
    /// Grows with each set that comes into force; 0: none is yet.
    pub generation: u64,
    /// Whether the sources were once loaded without an error: before, nothing is taken away for want of a manifest.
    pub complete: bool,
    /// Documents in force, by kind.
    pub loaded: BTreeMap<&'static str, usize>,
    /// Errors in the sources as they are now, by kind; `unknown` where that could not be read.
    pub errors: BTreeMap<&'static str, usize>,
    /// What is valid and most likely not meant.
    pub warnings: usize,
}

/// One control plane at one moment.
#[derive(Clone, Debug, Serialize)]
pub struct ControlPlaneState {
    /// Whether it is called.
    #[serde(serialize_with = "circuit")]
    pub circuit: CircuitState,
    /// Whether all that is registered there was listed since the start: before, work is done on those parts alone that
    /// were.
    pub synced: bool,
    /// The parts that the last list failed at.
    pub unlisted_segments: Vec<String>,
    /// The tasks to look at.
    #[serde(serialize_with = "queue")]
    pub queue: QueueStats,
    /// How many runs may be under way at once.
    #[serde(skip)]
    pub workers: usize,
    /// After how long a run is cut off.
    #[serde(skip)]
    pub reconcile_timeout: Duration,
    /// What this operator has registered there.
    pub owned: OwnedCounts,
    /// Registrations with this operator's mark, and a cluster that no binding names.
    pub unattributed_registrations: usize,
    /// Services that outbounds go to and the mesh does not know, by mesh.
    pub unknown_outbound_services: BTreeMap<Arc<str>, usize>,
    /// Tasks of which something was said that still holds, by reason.
    pub tasks_with_warnings: BTreeMap<&'static str, usize>,
    /// The guards, by binding.
    pub guards: BTreeMap<Arc<str>, GuardState>,
    /// The objects by which tasks get their identity; `None` where the control plane has no such.
    pub identity: Option<AclStatus>,
}

/// Registrations by what they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct OwnedCounts {
    /// In service.
    pub ready: usize,
    /// Out of service, and to be removed or put back.
    pub drained: usize,
    /// Sent, and the answer is lost: it may be there or not.
    pub unconfirmed: usize,
}

impl OperatorState {
    /// Whether it is ready.
    pub fn is_ready(&self) -> bool {
        self.pending.is_empty()
    }

    /// The controllers that take no work or do not end their runs.
    pub fn stuck(&self) -> Vec<StuckLoop> {
        self.control_planes.iter().filter_map(|(name, plane)| plane.stuck(name)).collect()
    }
}

impl ControlPlaneState {
    fn stuck(&self, name: &str) -> Option<StuckLoop> {
        let name = || format!("controller of {name}");
        let QueueStats { ready, processing, oldest_waiting, longest_running, .. } = self.queue;
        let run_limit = self.reconcile_timeout.saturating_add(RECONCILE_TIMEOUT_SLACK);
        if longest_running > run_limit {
            return Some(StuckLoop { name: name(), last_progress: longest_running, within: Some(run_limit) });
        }
        let has_place = processing < self.workers;
        (ready > 0 && has_place && oldest_waiting > READY_WORK_TIMEOUT).then(|| StuckLoop {
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

    pub(in crate::telemetry) fn plane() -> ControlPlaneState {
        ControlPlaneState {
            circuit: CircuitState::Closed,
            synced: true,
            unlisted_segments: vec!["tokens".to_owned()],
            queue: QueueStats::default(),
            workers: 2,
            reconcile_timeout: 120 * SECOND,
            owned: OwnedCounts { ready: 3, drained: 2, unconfirmed: 1 },
            unattributed_registrations: 4,
            unknown_outbound_services: [("default".into(), 5)].into(),
            tasks_with_warnings: [("rejected", 6)].into(),
            guards: [("demo".into(), GuardState { held: 7, admitted: 3, owned: 10, limit: 3 })].into(),
            identity: Some(AclStatus {
                objects: [("policy", [("drifted", 2)].into())].into(),
                checked_at: Some(1_500.0),
            }),
        }
    }

    pub(in crate::telemetry) fn state() -> OperatorState {
        OperatorState {
            operator: "op".into(),
            leader: true,
            clusters: [("one".to_owned(), Some(1_000.0)), ("two".to_owned(), None)].into(),
            control_planes: [("kuma".into(), plane())].into(),
            ..OperatorState::default()
        }
    }

    #[test]
    fn idle_controller_with_ready_work_is_stuck() {
        let mut plane = plane();
        plane.queue = QueueStats { ready: 9, processing: 2, oldest_waiting: 500 * SECOND, ..plane.queue };
        assert_eq!(plane.stuck("kuma"), None, "all places are taken");
        plane.queue.processing = 1;
        let stuck = plane.stuck("kuma").unwrap().to_string();
        assert_eq!(stuck, "controller of kuma has made no progress for 500 s, and should within 60 s");
        plane.queue.oldest_waiting = 60 * SECOND;
        assert_eq!(plane.stuck("kuma"), None);
    }

    #[test]
    fn a_run_that_outlives_its_time_limit_is_stuck() {
        let mut state = state();
        let plane = state.control_planes.get_mut("kuma").unwrap();
        plane.queue = QueueStats { processing: 1, longest_running: 150 * SECOND, ..plane.queue };
        assert_eq!(state.stuck(), []);
        state.control_planes.get_mut("kuma").unwrap().queue.longest_running = 151 * SECOND;
        assert_eq!(state.stuck().len(), 1);
    }
}
