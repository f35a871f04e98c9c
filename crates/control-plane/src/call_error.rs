//! Calls a control plane through its circuit, and decides when to retry after an error.

use std::time::Duration;

use tokio::time::Instant;

use crate::{MeshError, MeshErrorKind};
use ecs_mesh_controller::{Circuit, Requeue};

/// The retry interval for errors that only a user can fix.
const MANUAL_FIX_RETRY: Duration = Duration::from_mins(1);

/// The reason why a reconcile cannot continue now.
#[derive(Clone, Debug)]
pub enum CallError {
    /// The circuit is open until this instant.
    CircuitOpen(Instant),
    /// A call failed.
    Failed(MeshError),
}

impl CallError {
    /// The time of the next attempt, by kind of error.
    pub fn requeue(&self) -> Requeue {
        match self {
            Self::CircuitOpen(at) => Requeue::DeferUntil(*at),
            Self::Failed(error) => match error.kind {
                MeshErrorKind::Throttled => match error.retry_after {
                    Some(wait) => Requeue::DeferUntil(Instant::now() + wait.min(MANUAL_FIX_RETRY)),
                    None => Requeue::Backoff,
                },
                MeshErrorKind::Unreachable
                | MeshErrorKind::ServerError
                | MeshErrorKind::Conflict
                | MeshErrorKind::Obstructed(_) => Requeue::Backoff,
                // The same body never succeeds: a change of the task or of the manifests adds the key again.
                MeshErrorKind::Invalid | MeshErrorKind::NotExpressible => Requeue::Forget,
                MeshErrorKind::Forbidden
                | MeshErrorKind::MeshNotFound
                | MeshErrorKind::ReadOnly
                | MeshErrorKind::UnexpectedResponse => Requeue::DeferUntil(Instant::now() + MANUAL_FIX_RETRY),
            },
        }
    }

    /// Whether the failed call may have taken effect.
    pub fn may_have_taken_effect(&self) -> bool {
        match self {
            Self::CircuitOpen(_) => false,
            Self::Failed(error) => matches!(
                error.kind,
                MeshErrorKind::Unreachable
                    | MeshErrorKind::UnexpectedResponse
                    | MeshErrorKind::ServerError
                    | MeshErrorKind::Conflict
            ),
        }
    }
}

/// Calls a control plane unless its circuit is open, and reports the result to the circuit.
pub async fn call<T>(
    circuit: &Circuit,
    call: impl Future<Output = Result<T, MeshError>>,
) -> Result<T, CallError> {
    let permit = circuit.admit().map_err(|open| CallError::CircuitOpen(open.0))?;
    let response = call.await;
    match &response {
        Err(error) if error.kind == MeshErrorKind::Unreachable => permit.failure(),
        _ => permit.success(),
    }
    response.map_err(CallError::Failed)
}
