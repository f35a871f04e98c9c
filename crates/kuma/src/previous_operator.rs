//! The id that an operator had before: its registrations are owned, until each is written with the new id.
//!
//! Two operators must not own the same registrations at once. An operator with the previous id that still runs shows itself by
//! registrations that are younger than all of the first list: those are left to it.

use std::sync::{Mutex, PoisonError};

use ecs_mesh_control_plane::{Registration, RegistrationOwner};
use ecs_mesh_core::intent::OwnershipLabels;
use ecs_mesh_model::{OperatorId, Timestamp};

/// The previous id, and what was registered under it when this process began.
#[derive(Debug)]
pub(super) struct PreviousOperator {
    pub(super) id: OperatorId,
    inherited: Mutex<Inheritance>,
}

#[derive(Debug, Default)]
struct Inheritance {
    /// The creation time of the youngest registration of the first list, by the server's clock.
    youngest: Timestamp,
    is_complete: bool,
}

impl PreviousOperator {
    pub(super) fn new(id: OperatorId) -> Self {
        Self { id, inherited: Mutex::default() }
    }

    /// The first list has ended: what is created under the previous id from now on is another process's.
    pub(super) fn complete(&self) {
        self.inherited.lock().unwrap_or_else(PoisonError::into_inner).is_complete = true;
    }

    /// The registration as one of `operator`, if the previous id owned it when this process began.
    pub(super) fn claim(&self, registration: Registration, operator: &OperatorId) -> Registration {
        let is_previous =
            matches!(&registration.owner, RegistrationOwner::Owned(labels) if labels.operator == self.id);
        if !is_previous || !self.is_inherited(registration.created_at) {
            return registration;
        }
        Registration { owner: claimed(registration.owner, operator), ..registration }
    }

    /// The owner of an endpoint, whose readiness alone counts.
    pub(super) fn claim_owner(&self, owner: RegistrationOwner, operator: &OperatorId) -> RegistrationOwner {
        match &owner {
            RegistrationOwner::Owned(labels) if labels.operator == self.id => claimed(owner, operator),
            _ => owner,
        }
    }

    fn is_inherited(&self, created_at: Option<Timestamp>) -> bool {
        let mut inherited = self.inherited.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(created_at) = created_at else { return true };
        if !inherited.is_complete {
            inherited.youngest = inherited.youngest.max(created_at);
        }
        created_at <= inherited.youngest
    }
}

fn claimed(owner: RegistrationOwner, operator: &OperatorId) -> RegistrationOwner {
    match owner {
        RegistrationOwner::Owned(labels) => {
            RegistrationOwner::Owned(OwnershipLabels { operator: operator.clone(), ..labels })
        }
        RegistrationOwner::Foreign => RegistrationOwner::Foreign,
    }
}
