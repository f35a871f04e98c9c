//! Asks whether a registration may be drained now: the last ready ones of a service wait (invariant I10).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::super::mesh_members::owner_task;
use super::TaskRun;
use ecs_mesh_control_plane::{CallError, OwnedEndpoint};
use ecs_mesh_controller::BatchError;
use ecs_mesh_core::intent::RegistrationId;
use ecs_mesh_core::plan::{
    DrainCause, DrainPermit, DrainReason, DrainRequest, Evidence, PlanStep, ServiceEndpoint,
};
use ecs_mesh_model::{ClusterArn, ClusterId, Reason, TaskDefinition, Timestamp};

/// Interval at which a held drain is decided on again.
pub(super) const HELD_DRAIN_RECHECK: Duration = Duration::from_secs(2);

/// How long a container may take from SIGKILL until ECS shows it stopped.
const STOP_SLACK: Duration = Duration::from_secs(5);

/// `stopTimeout` where the task definition can't be read: ECS's default.
const UNKNOWN_STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a permit counts that rests on a list of the service: the write may wait for its rate, and for slow calls.
const PERMIT_LIFETIME: Duration = Duration::from_secs(10);

/// Whether a drain that is due may be sent now.
pub(super) enum DueDrain {
    /// Now, with the registrations that the permit rests on, if any.
    Now(Option<Replacements>),
    /// Not yet: too few others are ready.
    Held {
        /// Ready registrations of the service that stay.
        ready: usize,
        /// Ready registrations that must stay.
        needed: usize,
        /// It was held before.
        before: bool,
    },
}

/// The registrations that permit a drain.
pub(super) struct Replacements {
    service: Arc<str>,
    /// All registrations of the service.
    listed: Arc<[OwnedEndpoint]>,
    /// Those of them that this process knew at that time.
    known: BTreeSet<RegistrationId>,
    listed_at: Timestamp,
    reason: DrainReason,
    max_hold: Duration,
}

impl TaskRun<'_> {
    /// Whether the step's drain may be sent now.
    pub(super) async fn drain_permit(
        &self,
        step: &PlanStep,
        reason: DrainReason,
        evidence: &Evidence,
    ) -> DueDrain {
        let policy = &step.binding.spec.drain;
        let service = self.service_of(step);
        let now = || {
            if let Some(service) = &service {
                self.worker.drains.mark(&step.id, service, reason, self.context.now());
            }
            DueDrain::Now(None)
        };
        if matches!(evidence, Evidence::Stopped | Evidence::StoppedMissing { .. }) {
            return now();
        }
        if reason == DrainReason::Revoked && policy.revoked_within.0.is_zero() {
            // An identity that was revoked ends, whatever is ready (I4). Nothing is asked first.
            return now();
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
            return now();
        }
        let stopped =
            |definition: Arc<TaskDefinition>| Some(definition.has_stopped_essential(task.as_ref()?));
        if definition.and_then(stopped) == Some(true) {
            return now();
        }
        let Some(service) = &service else { return DueDrain::Now(None) };
        let listed_at = self.context.now();
        let listed = self.listed(step, service).await;
        let endpoints = listed.as_deref().map(|listed| self.endpoints(listed, None));
        let listed = listed.unwrap_or_default();
        let clusters = self.context.clusters.by_id();
        let is_known = |found: &&OwnedEndpoint| self.withdrawn(found, &clusters).is_some();
        let known = listed.iter().filter(is_known).map(|found| found.endpoint.id.clone()).collect();
        let replacements =
            Replacements { service: Arc::clone(service), listed, known, listed_at, reason, max_hold };
        match self.worker.drains.request(&self.drain_request(step, &replacements, endpoints.as_deref())) {
            (DrainPermit::Now(DrainCause::EnoughReady), _) => DueDrain::Now(Some(replacements)),
            (DrainPermit::Now(_), _) => DueDrain::Now(None),
            (DrainPermit::Held { ready, needed }, before) => DueDrain::Held { ready, needed, before },
        }
    }

    /// Whether the drain is still permitted, right before it is sent: others may have been drained since.
    pub(super) fn is_still_permitted(&self, step: &PlanStep, replacements: &Replacements) -> bool {
        if replacements.listed_at.age_at(self.context.now()) > PERMIT_LIFETIME {
            return false;
        }
        let endpoints = self.endpoints(&replacements.listed, Some(&replacements.known));
        self.worker.drains.still_permits(&self.drain_request(step, replacements, Some(&endpoints)))
    }

    fn drain_request<'a>(
        &self,
        step: &'a PlanStep,
        replacements: &'a Replacements,
        endpoints: Option<&'a [ServiceEndpoint]>,
    ) -> DrainRequest<'a> {
        DrainRequest {
            id: &step.id,
            service: &replacements.service,
            reason: replacements.reason,
            endpoints,
            keep_ready: step.binding.spec.drain.keep_ready.get(),
            serving: true,
            max_hold: replacements.max_hold,
            now: self.context.now(),
        }
    }

    /// The service of the step's registration. A resource of the zone has none: its drain changes no routing.
    fn service_of(&self, step: &PlanStep) -> Option<Arc<str>> {
        step.id.mesh_scope()?;
        let entries = self.worker.registry.entries(self.task);
        entries.into_iter().find(|entry| entry.id == step.id).and_then(|entry| entry.service)
    }

    /// The registrations of the service; `None` if they could not be read. The limit of the hold counts either way.
    async fn listed(&self, step: &PlanStep, service: &Arc<str>) -> Option<Arc<[OwnedEndpoint]>> {
        match self.worker.drains.endpoints(&step.id.mesh, service).await {
            Ok(listed) if listed.iter().any(|found| found.endpoint.id == step.id) => {
                self.record_readiness(&listed);
                Some(listed)
            }
            // Another release of the control plane may know the service by another name. A registration without a readiness,
            // such as a gateway, is in no such list: nothing is to be waited for.
            Ok(listed) => self.lacks_readiness(&step.id).await.then_some(listed),
            Err(error) => {
                // A failure of all calls is shown by the circuit.
                if let BatchError::Call(CallError::Failed(error)) = error
                    && !error.kind.affects_all_calls()
                {
                    self.recorder.problem("readiness_unknown", &Reason::constant(error.message));
                }
                None
            }
        }
    }

    /// Records the readiness of the listed registrations for readers.
    fn record_readiness(&self, listed: &[OwnedEndpoint]) {
        let (clusters, now) = (self.context.clusters.by_id(), self.context.now());
        for OwnedEndpoint { endpoint, owner } in listed {
            if let Some(task) = owner_task(owner, &clusters) {
                self.worker.registry.record_readiness(&task, &endpoint.id, endpoint.is_ready(), now);
            }
        }
    }

    /// Whether the registration is known to get no requests by its readiness.
    async fn lacks_readiness(&self, id: &RegistrationId) -> bool {
        match self.worker.call(self.worker.client.get(id)).await {
            Ok(current) => current.is_none_or(|current| !self.worker.client.has_readiness(&current)),
            Err(_) => false,
        }
    }

    /// The listed registrations, with the tasks that are leaving now. `known`: those that this process knew when they were
    /// listed; what it has withdrawn since then is not routed any more.
    fn endpoints(
        &self,
        listed: &[OwnedEndpoint],
        known: Option<&BTreeSet<RegistrationId>>,
    ) -> Vec<ServiceEndpoint> {
        let clusters = self.context.clusters.by_id();
        let endpoint = |found: &OwnedEndpoint| {
            let mut endpoint = found.endpoint.clone();
            if let Some(task) = owner_task(&found.owner, &clusters) {
                endpoint.leaving = self.context.aws.store.is_leaving(&task);
            }
            if let Some(known) = known {
                let is_gone = || known.contains(&endpoint.id);
                endpoint.routed &= !self.withdrawn(found, &clusters).unwrap_or_else(is_gone);
            }
            endpoint
        };
        listed.iter().map(endpoint).collect()
    }

    /// Whether this process has withdrawn the registration; `None` if it does not know it.
    fn withdrawn(&self, found: &OwnedEndpoint, clusters: &BTreeMap<ClusterId, ClusterArn>) -> Option<bool> {
        self.worker.registry.is_withdrawn(&owner_task(&found.owner, clusters)?, &found.endpoint.id)
    }
}
