//! Asks whether a registration may be drained now: the last ready ones of a service wait (invariant I10).

use std::sync::Arc;
use std::time::Duration;

use super::TaskRun;
use ecs_mesh_control_plane::{CallError, OwnedEndpoint, RegistrationOwner};
use ecs_mesh_controller::BatchError;
use ecs_mesh_core::plan::{
    DrainCause, DrainPermit, DrainReason, DrainRequest, Evidence, PlanStep, ServiceEndpoint,
};
use ecs_mesh_model::{Reason, TaskDefinition};

/// Interval at which a held drain is decided on again.
pub(super) const HELD_DRAIN_RECHECK: Duration = Duration::from_secs(2);

/// How long a container may take from SIGKILL until ECS shows it stopped.
const STOP_SLACK: Duration = Duration::from_secs(5);

/// `stopTimeout` where the task definition can't be read: ECS's default.
const UNKNOWN_STOP_TIMEOUT: Duration = Duration::from_secs(30);

impl TaskRun<'_> {
    /// Whether the step's drain may be sent now, and if it is held, whether it was before.
    pub(super) async fn drain_permit(
        &self,
        step: &PlanStep,
        reason: DrainReason,
        evidence: &Evidence,
    ) -> (DrainPermit, bool) {
        let now = |cause| (DrainPermit::Now(cause), false);
        let policy = &step.binding.spec.drain;
        if matches!(evidence, Evidence::Stopped | Evidence::StoppedMissing { .. }) {
            return now(DrainCause::NotServing);
        }
        let service = self.service_of(step);
        if reason == DrainReason::Revoked && policy.revoked_within.0.is_zero() {
            // An identity that was revoked ends, whatever is ready (I4). Nothing is asked first.
            if let Some(service) = service {
                self.worker.drains.mark(&step.id, &service, reason, self.context.now());
            }
            return now(DrainCause::Expired);
        }
        let task = self.context.aws.store.snapshot(self.task, Duration::MAX, self.context.now()).task;
        let definition = match &task {
            Some(task) => self.context.aws.definitions.get(&task.definition).await.ok(),
            None => None,
        };
        let stop_timeout = definition.as_deref().map_or(UNKNOWN_STOP_TIMEOUT, TaskDefinition::stop_timeout);
        let max_hold = match reason {
            DrainReason::Revoked => policy.revoked_within.0,
            _ => policy.max_hold.map_or(stop_timeout + STOP_SLACK, |limit| limit.0),
        };
        if max_hold.is_zero() {
            return now(DrainCause::Expired);
        }
        let stopped =
            |definition: Arc<TaskDefinition>| Some(definition.has_stopped_essential(task.as_ref()?));
        if definition.and_then(stopped) == Some(true) {
            return now(DrainCause::NotServing);
        }
        let Some(service) = service else { return now(DrainCause::NotReady) };
        let endpoints = self.endpoints(step, &service).await;
        let request = DrainRequest {
            id: &step.id,
            service: &service,
            reason,
            endpoints: endpoints.as_deref(),
            keep_ready: policy.keep_ready.get(),
            serving: true,
            max_hold,
            now: self.context.now(),
        };
        self.worker.drains.request(&request)
    }

    /// The service of the step's registration.
    fn service_of(&self, step: &PlanStep) -> Option<Arc<str>> {
        let entries = self.worker.registry.entries(self.task);
        entries.into_iter().find(|entry| entry.id == step.id).and_then(|entry| entry.service)
    }

    /// The registrations of the service; `None` if they could not be read. The limit of the hold counts on either way.
    async fn endpoints(&self, step: &PlanStep, service: &Arc<str>) -> Option<Vec<ServiceEndpoint>> {
        let found = match self.worker.drains.endpoints(&step.id.mesh, service).await {
            Ok(found) => found,
            Err(error) => {
                // A failure of all calls is shown by the circuit.
                if let BatchError::Call(CallError::Failed(error)) = error
                    && !error.kind.affects_all_calls()
                {
                    self.recorder.problem("readiness_unknown", &Reason::constant(error.message));
                }
                return None;
            }
        };
        let clusters = self.context.clusters.by_id();
        let is_leaving = |found: &OwnedEndpoint| match &found.owner {
            RegistrationOwner::Owned(labels) => clusters
                .get(&labels.cluster)
                .is_some_and(|cluster| self.context.aws.store.is_leaving(&cluster.task(labels.task.clone()))),
            RegistrationOwner::Foreign => false,
        };
        let endpoint =
            |found: &OwnedEndpoint| ServiceEndpoint { leaving: is_leaving(found), ..found.endpoint.clone() };
        Some(found.iter().map(endpoint).collect())
    }
}
