//! Steps for Dataplanes that the operator does not own: those of sidecars in template mode, and those that it only observes.

use std::sync::Arc;

use super::{Decision, Evidence, KnownRegistration, SkippedAction};
use crate::intent::{DesiredRegistration, RegistrationId};
use ecs_mesh_api::manifests::Binding;
use ecs_mesh_model::DataplaneOwner;

/// An action of another owner of a Dataplane, or one left out, on behalf of a binding. The operator writes nothing.
#[derive(Clone, Debug, PartialEq)]
pub struct OwnerStep {
    /// The registration.
    pub id: RegistrationId,
    /// The binding that selects the task.
    pub binding: Arc<Binding>,
    /// The owner.
    pub owner: DataplaneOwner,
    /// The action.
    pub action: OwnerAction,
}

/// An action that is left to the owner of a Dataplane.
#[derive(Clone, Debug, PartialEq)]
pub enum OwnerAction {
    /// The Dataplane is compared with the desired one.
    Check(Box<DesiredRegistration>),
    /// An action that the owner does not permit, and its evidence.
    Withhold(SkippedAction, Evidence),
}

impl OwnerStep {
    /// The evidence of a withheld action.
    pub fn evidence(&self) -> Option<&Evidence> {
        match &self.action {
            OwnerAction::Check(_) => None,
            OwnerAction::Withhold(_, evidence) => Some(evidence),
        }
    }
}

impl Decision {
    /// Compares the Dataplane of a live task with the desired one.
    pub(super) fn check(
        &mut self,
        desired: DesiredRegistration,
        owner: DataplaneOwner,
        binding: &Arc<Binding>,
    ) {
        let id = desired.id.clone();
        let action = OwnerAction::Check(Box::new(desired));
        self.owner_steps.push(OwnerStep { id, binding: Arc::clone(binding), owner, action });
    }

    /// Records an action that the owner of the Dataplane does not permit.
    pub(super) fn withhold(
        &mut self,
        registration: &KnownRegistration,
        action: SkippedAction,
        evidence: &Evidence,
    ) {
        let Some(binding) = &registration.binding else { return };
        self.owner_steps.push(OwnerStep {
            id: registration.id.clone(),
            binding: Arc::clone(binding),
            owner: registration.owner,
            action: OwnerAction::Withhold(action, evidence.clone()),
        });
    }
}
