//! The status of the operator for readers.

use std::sync::Arc;
use std::sync::Mutex;

use super::OperatorReads;
use crate::read_api::SnapshotLists;
use crate::telemetry::state::{ControlPlaneState, LeaseState, OperatorState, StateSource as _};
use ecs_mesh_api::ControlPlaneType;
use ecs_mesh_controller::CircuitState;
use ecs_mesh_model::{ClusterArn, intern};
use ecs_mesh_read_api::{
    CircuitView, ClusterView, ControlPlaneTypeView, ControlPlaneView, CountsView, LeaseRoleView,
    ManifestsView, StatusView, TaskStateView,
};

/// Most findings of the manifests that a status names.
const MAX_FINDINGS: usize = 50;

/// The numbers of a snapshot.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct StatusParts(Option<CountsView>);

impl StatusParts {
    /// The numbers of these lists; none where no sweep had ended before they were made.
    pub(super) fn of(lists: &SnapshotLists, is_swept: bool) -> Self {
        Self(is_swept.then(|| CountsView {
            tasks: lists.tasks.iter().filter(|task| task.state != TaskStateView::Ignored).count(),
            services: lists.services.len(),
            bindings: lists.bindings.len(),
            identities: lists.identities.len(),
            outbounds: lists.outbounds.len(),
            warnings: lists.warnings.len(),
            changes: 0,
        }))
    }
}

/// The numbers of the last snapshot, for a status between two.
#[derive(Debug, Default)]
pub(super) struct LastParts(Mutex<StatusParts>);

impl LastParts {
    fn lock(&self) -> std::sync::MutexGuard<'_, StatusParts> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl OperatorReads {
    /// The status now, with the numbers of this snapshot or else of the last one.
    pub(super) fn status_view(&self, parts: Option<StatusParts>) -> StatusView {
        let StatusParts(counts) = {
            let mut last = self.last_parts.lock();
            if let Some(parts) = parts {
                *last = parts;
            }
            *last
        };
        let state = self.status.state();
        let (workers, manifests) = (self.context.workers.load(), self.context.manifests.load());
        let history = self.journal.history().view();
        let control_planes = workers.iter().filter_map(|(name, worker)| {
            Some(control_plane(name, worker.kind, state.control_planes.get(name)?))
        });
        let is_stopping = self.context.metrics().health().is_stopping();
        let pending =
            if is_stopping { vec!["the operator is stopping".to_owned()] } else { state.pending.clone() };
        StatusView {
            operator: Arc::clone(&state.operator),
            version: intern(env!("CARGO_PKG_VERSION")),
            started_at: self.started_at.into(),
            now: self.context.wall().into(),
            role: role(&state),
            leader: state.lease.as_ref().and_then(|lease| lease.leader.as_deref().map(intern)),
            epoch: state.lease.as_ref().map(|lease: &LeaseState| lease.epoch).filter(|epoch| *epoch > 0),
            ready: pending.is_empty(),
            pending,
            control_planes: control_planes.collect(),
            guards: self.guards(&workers, &manifests),
            clusters: self.clusters(),
            manifests: self.manifests(),
            counts: counts.map(|counts| CountsView { changes: history.changes, ..counts }),
            history,
        }
    }

    fn clusters(&self) -> Vec<ClusterView> {
        let view = |(cluster, at): (ClusterArn, Option<ecs_mesh_model::Timestamp>)| ClusterView {
            arn: intern(cluster.as_str()),
            name: intern(cluster.name()),
            account: intern(cluster.account()),
            region: intern(cluster.region()),
            last_full_sweep: at.map(Into::into),
        };
        self.context.status.sweeps_of_clusters().into_iter().map(view).collect()
    }

    fn manifests(&self) -> ManifestsView {
        let Some(status) = self.context.status.manifests() else { return ManifestsView::default() };
        let set = &status.set;
        let documents = set.control_planes.len()
            + set.bindings.len()
            + set.workloads.len()
            + set.outbound_lists.len()
            + set.consul_auths.len()
            + set.aws_accounts.len();
        let texts = |findings: &[ecs_mesh_api::manifests::ManifestFinding]| {
            findings.iter().take(MAX_FINDINGS).map(ToString::to_string).collect()
        };
        ManifestsView {
            documents,
            complete: set.complete,
            errors: texts(&status.errors),
            warnings: texts(&status.warnings),
            unread: texts(&status.unread),
        }
    }
}

fn role(state: &OperatorState) -> LeaseRoleView {
    match &state.lease {
        None => LeaseRoleView::Single,
        Some(_) if state.leader => LeaseRoleView::Leader,
        Some(_) => LeaseRoleView::Standby,
    }
}

fn control_plane(name: &Arc<str>, kind: ControlPlaneType, state: &ControlPlaneState) -> ControlPlaneView {
    ControlPlaneView {
        name: Arc::clone(name),
        kind: match kind {
            ControlPlaneType::Kuma => ControlPlaneTypeView::Kuma,
            ControlPlaneType::Consul => ControlPlaneTypeView::Consul,
        },
        version: state.version.clone(),
        supported: state.unsupported.is_none(),
        unsupported_reason: state.unsupported.clone(),
        synced: state.synced,
        circuit: match state.circuit {
            CircuitState::Closed => CircuitView::Closed,
            CircuitState::Open => CircuitView::Open,
            CircuitState::HalfOpen => CircuitView::HalfOpen,
        },
        registrations: state.owned.ready + state.owned.drained + state.owned.unconfirmed,
        drained: state.owned.drained,
        tasks_with_warnings: state.tasks_with_warnings.values().sum(),
    }
}
