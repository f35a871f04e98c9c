//! The drains of one control plane: which wait, and the readiness that decides it (invariant I10).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use ecs_mesh_control_plane::{CallError, ControlPlane, OwnedEndpoint};
use ecs_mesh_controller::{BatchCall, BatchError, Batcher, Circuit};
use ecs_mesh_core::intent::RegistrationId;
use ecs_mesh_core::plan::{DrainHolds, DrainPermit, DrainReason, DrainRequest};
use ecs_mesh_model::{MeshName, Timestamp};

/// The drains of one control plane.
pub(super) struct DrainGate {
    holds: Mutex<DrainHolds>,
    /// Concurrent reads of a service share a list.
    endpoints: Batcher<EndpointsOfService>,
}

struct EndpointsOfService {
    client: Arc<dyn ControlPlane>,
    circuit: Circuit,
}

#[async_trait]
impl BatchCall for EndpointsOfService {
    type Group = (MeshName, Arc<str>);
    type Request = ();
    type Response = Arc<[OwnedEndpoint]>;
    type Error = CallError;

    async fn call(
        &self,
        (mesh, service): &Self::Group,
        _requests: Vec<()>,
    ) -> Result<BTreeMap<(), Self::Response>, CallError> {
        let listed = ecs_mesh_control_plane::call(&self.circuit, self.client.list_endpoints(mesh, service));
        Ok(BTreeMap::from([((), listed.await?.into())]))
    }
}

impl DrainGate {
    pub(super) fn new(client: Arc<dyn ControlPlane>, circuit: Circuit) -> Self {
        let endpoints = Batcher::new(EndpointsOfService { client, circuit }, 1, None);
        Self { holds: Mutex::default(), endpoints }
    }

    fn lock(&self) -> MutexGuard<'_, DrainHolds> {
        // Every change leaves the waves consistent, so the lock may be used after a panic.
        self.holds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The registrations of a service, by a list that starts after this.
    pub(super) async fn endpoints(
        &self,
        mesh: &MeshName,
        service: &Arc<str>,
    ) -> Result<Arc<[OwnedEndpoint]>, BatchError<CallError>> {
        self.endpoints.ask((mesh.clone(), Arc::clone(service)), ()).await
    }

    /// Decides on a drain. The second value is whether the drain was held before.
    pub(super) fn request(&self, request: &DrainRequest<'_>) -> (DrainPermit, bool) {
        let mut holds = self.lock();
        let was_held = holds.is_held(request.id);
        (holds.request(request), was_held)
    }

    /// Whether the drain is still permitted: see [`DrainHolds::still_permits`].
    pub(super) fn still_permits(&self, request: &DrainRequest<'_>) -> bool {
        self.lock().still_permits(request)
    }

    /// Marks a registration whose drain asks for nothing: see [`DrainHolds::mark`].
    pub(super) fn mark(&self, id: &RegistrationId, service: &str, reason: DrainReason, now: Timestamp) {
        self.lock().mark(id, service, reason, now);
    }

    /// The registration is not to be drained any more, or is gone.
    pub(super) fn release(&self, id: &RegistrationId) {
        self.lock().release(id);
    }

    /// Whether nothing is to be drained.
    pub(super) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// Forgets the registrations that do not exist any more.
    pub(super) fn retain(&self, exists: impl Fn(&RegistrationId) -> bool) {
        self.lock().retain(exists);
    }

    /// Whether a drain of the registration is held.
    pub(super) fn is_held(&self, id: &RegistrationId) -> bool {
        self.lock().is_held(id)
    }

    /// The number of held drains.
    pub(super) fn held_count(&self) -> usize {
        self.lock().held_count()
    }
}
