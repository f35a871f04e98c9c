//! Whether a control plane is supported. One that is not is not written to at all (invariant I11): it may accept a body and
//! drop what it does not know, and what is removed there could not be created again.

use std::sync::Arc;

use arc_swap::ArcSwapOption;

use ecs_mesh_controller::{Lease, LeaseTerm, WriteObstacle};

use crate::{MeshError, MeshErrorKind};

/// The reason why a control plane is not supported, if its client found one. Shared by the client, which finds it, and all
/// that write.
#[derive(Debug, Default)]
pub struct SupportGate(ArcSwapOption<String>);

impl SupportGate {
    /// Records what the client found out last. `refusal`: product, version and what is supported.
    pub fn record(&self, refusal: Option<String>) {
        self.0.store(refusal.map(Arc::new));
    }

    /// Why nothing is written, if the control plane is not supported.
    pub fn refusal(&self) -> Option<Arc<String>> {
        self.0.load_full()
    }

    /// Fails if the control plane is not supported.
    ///
    /// # Errors
    /// Of the kind [`MeshErrorKind::Obstructed`], with the reason.
    pub fn check(&self) -> Result<(), MeshError> {
        let kind = MeshErrorKind::Obstructed(WriteObstacle::UnsupportedControlPlane);
        self.refusal().map_or(Ok(()), |reason| Err(MeshError::new(kind, reason.as_str())))
    }
}

/// Another lease, with the obstacle of a control plane that is not supported.
#[derive(Clone)]
pub struct SupportedLease {
    lease: Arc<dyn Lease>,
    support: Arc<SupportGate>,
}

impl SupportedLease {
    /// Adds the obstacle of one control plane to `lease`.
    pub fn new(lease: Arc<dyn Lease>, support: Arc<SupportGate>) -> Self {
        Self { lease, support }
    }
}

impl Lease for SupportedLease {
    fn term(&self) -> LeaseTerm {
        self.lease.term()
    }

    fn obstacle(&self) -> Option<WriteObstacle> {
        let unsupported = || self.support.refusal().map(|_| WriteObstacle::UnsupportedControlPlane);
        self.lease.obstacle().or_else(unsupported)
    }
}

#[cfg(test)]
mod tests {
    use ecs_mesh_controller::AlwaysHeld;

    use super::*;

    #[test]
    fn lease_permits_no_write_while_the_gate_is_closed() {
        let support = Arc::new(SupportGate::default());
        let lease = SupportedLease::new(Arc::new(AlwaysHeld), Arc::clone(&support));
        assert_eq!(lease.obstacle(), None);
        support.record(Some("Kuma 3.0.1 is not supported".to_owned()));
        assert_eq!(lease.obstacle(), Some(WriteObstacle::UnsupportedControlPlane));
        let error = support.check().unwrap_err();
        let kind = MeshErrorKind::Obstructed(WriteObstacle::UnsupportedControlPlane);
        assert_eq!((error.kind, error.message.as_str()), (kind, "Kuma 3.0.1 is not supported"));
        support.record(None);
        assert_eq!((lease.obstacle(), support.check().is_ok()), (None, true));
    }
}
