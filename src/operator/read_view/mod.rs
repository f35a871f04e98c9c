//! The operator as a source of the read API: one pass over what its parts know, without a call and without a decision.
//!
//! Verdicts are those that reconciles recorded ([`EvaluatedTask`](super::evaluated_tasks::EvaluatedTask)), warnings and changes
//! those of the journal. Each part is copied under its own lock for as long as the copy takes.

mod mesh_view;
mod readers_journal;
mod status_view;
mod task_view;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use self::mesh_view::MeshViews;
use self::readers_journal::ReadersJournal;
use self::status_view::{LastParts, StatusParts};
use self::task_view::TaskViews;
use super::Operator;
use super::context::Context;
use super::control_plane_worker::ControlPlaneWorker;
use super::status::OperatorStatus;
use crate::read_api::{History, ReadSource, ReadTaskFacts, Snapshot, SnapshotLists};
use ecs_mesh_api::ControlPlaneType;
use ecs_mesh_control_plane::CallError;
use ecs_mesh_core::intent::RegistrationId;
use ecs_mesh_model::{TaskArn, Timestamp};
use ecs_mesh_read_api::{
    ErrorCodeView, ErrorView, IdentityKindView, RegistrationBodyView, StatusView, TaskRegistrationsView,
    TaskView,
};

/// The views of one operator.
pub struct OperatorReads {
    context: Arc<Context>,
    status: Arc<OperatorStatus>,
    journal: Arc<ReadersJournal>,
    started_at: Timestamp,
    last_parts: LastParts,
}

impl Operator {
    /// The source of the read API, with a history of this many entries. To be called before the run, so that the history lacks
    /// nothing.
    pub fn reads(&self, history_entries: usize) -> Arc<OperatorReads> {
        let journal = Arc::new(ReadersJournal::new(History::new(history_entries)));
        self.journal().subscribe(Arc::clone(&journal) as _);
        Arc::new(OperatorReads {
            context: Arc::clone(&self.context),
            status: Arc::clone(&self.status),
            journal,
            started_at: self.context.wall(),
            last_parts: LastParts::default(),
        })
    }
}

impl OperatorReads {
    /// The wall-clock time of a steady time.
    fn wall_of(&self, at: Timestamp) -> Timestamp {
        let age = self.context.now().0.saturating_sub(at.0);
        Timestamp(self.context.wall().0.saturating_sub(age))
    }
}

#[async_trait]
impl ReadSource for OperatorReads {
    fn snapshot(&self) -> Snapshot {
        self.context.readers.record();
        // Asked first: what a sweep finds later may be in the lists or not.
        let is_swept = self.context.sweeps.has_ended();
        let workers = self.context.workers.load();
        let manifests = self.context.manifests.load();
        let warnings = self.journal.active();
        let tasks = TaskViews { reads: self, workers: &workers, warnings: &warnings };
        let (tasks, identities) = tasks.collect();
        let mut views = MeshViews::new(&workers, &manifests, self.context.now());
        views.add_tasks(&tasks);
        let (services, outbounds) = views.finish();
        let bindings = self.bindings(&workers, &manifests, &tasks);
        let lists = SnapshotLists {
            services,
            outbounds,
            bindings,
            identities,
            warnings: warnings.grouped(&tasks),
            tasks,
        };
        let parts = StatusParts::of(&lists, is_swept);
        Snapshot::new(self.status_view(Some(parts)), lists)
    }

    fn task_facts(&self, task: &TaskView) -> ReadTaskFacts {
        TaskArn::parse(&task.arn).map(|arn| self.facts_of(&arn)).unwrap_or_default()
    }

    fn now(&self) -> Timestamp {
        self.context.wall()
    }

    fn status(&self) -> StatusView {
        self.status_view(None)
    }

    fn history(&self) -> &Arc<History> {
        self.journal.history()
    }

    async fn registrations(&self, task: &TaskView) -> Result<TaskRegistrationsView, ErrorView> {
        let not_found = |_| ErrorView::new(ErrorCodeView::NotFound, "no such task");
        let arn = TaskArn::parse(&task.arn).map_err(not_found)?;
        let mut registrations = Vec::new();
        for worker in self.context.workers.load().values() {
            for entry in worker.registry.entries(&arn) {
                registrations.push(read_registration(worker, &entry.id).await);
            }
        }
        Ok(TaskRegistrationsView { name: Arc::clone(&task.name), registrations })
    }
}

/// How long a reader waits for a control plane.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// Reads one registration through the circuit. Bodies of tokens and catalog services are not shown.
async fn read_registration(worker: &ControlPlaneWorker, id: &RegistrationId) -> RegistrationBodyView {
    let (name, kind) = identity_of(worker, id);
    let mut view = RegistrationBodyView {
        control_plane: Arc::clone(&worker.name),
        mesh: worker.mesh_label(id).map(Into::into),
        name,
        body: None,
        error: None,
    };
    if matches!(kind, IdentityKindView::Token | IdentityKindView::CatalogService) {
        view.error = Some("tokens and catalog services are not shown".to_owned());
        return view;
    }
    let read = tokio::time::timeout(READ_TIMEOUT, worker.call(worker.client.get(id))).await;
    match read {
        Ok(Ok(Some(found))) => view.body = Some(found.stored),
        Ok(Ok(None)) => view.error = Some("the control plane does not have it".to_owned()),
        Ok(Err(CallError::Failed(error))) => view.error = Some(error.message),
        Ok(Err(CallError::CircuitOpen(_))) => {
            view.error = Some("the control plane cannot be reached; its circuit is open".to_owned());
        }
        Err(_) => view.error = Some("the control plane did not answer in time".to_owned()),
    }
    view
}

/// The name and kind of a registration, for people.
fn identity_of(worker: &ControlPlaneWorker, id: &RegistrationId) -> (Arc<str>, IdentityKindView) {
    if worker.kind == ControlPlaneType::Consul {
        let is_token = id.name.starts_with("token/");
        let kind = if is_token { IdentityKindView::Token } else { IdentityKindView::CatalogService };
        return (Arc::clone(&id.name), kind);
    }
    match id.zone_proxy() {
        Some((ecs_mesh_api::ZoneProxyKind::Ingress, name)) => (name.into(), IdentityKindView::ZoneIngress),
        Some((ecs_mesh_api::ZoneProxyKind::Egress, name)) => (name.into(), IdentityKindView::ZoneEgress),
        None => (Arc::clone(&id.name), IdentityKindView::Dataplane),
    }
}
