//! Steps for Dataplanes that the operator does not own: those of sidecars in template mode, and those that it only observes.

use std::sync::Arc;

use super::{Action, Decision, Evidence, KnownRegistration, PlanStep, SkippedAction};
use crate::intent::DesiredRegistration;
use ecs_mesh_api::manifests::Binding;
use ecs_mesh_model::DataplaneOwner;

impl Decision {
    /// Compares the Dataplane of a live task with the desired one.
    pub(super) fn check(
        &mut self,
        desired: DesiredRegistration,
        owner: DataplaneOwner,
        binding: &Arc<Binding>,
    ) {
        let id = desired.id.clone();
        let action = Action::Check { desired: Box::new(desired), owner };
        self.steps.push(PlanStep { id, binding: Arc::clone(binding), action });
    }

    /// Records an action that the owner of the Dataplane does not permit.
    pub(super) fn withhold(
        &mut self,
        registration: &KnownRegistration,
        action: SkippedAction,
        evidence: &Evidence,
    ) {
        let Some(binding) = &registration.binding else { return };
        let action = Action::Withhold { action, evidence: evidence.clone(), owner: registration.owner };
        self.step(registration, binding, action);
    }
}
