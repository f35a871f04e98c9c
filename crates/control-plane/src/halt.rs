//! Calls through a control plane's circuit, and why work at it cannot go on.

use std::time::Duration;

use tokio::time::Instant;

use crate::{MeshError, MeshErrorKind};
use ecs_mesh_controller::{Circuit, Requeue};

/// How long to wait before the next try where nothing but a person's act will help.
const MANUAL_FIX_RETRY: Duration = Duration::from_mins(1);

/// Why a reconcile cannot go on now.
#[derive(Clone, Debug)]
pub enum CallError {
    /// The circuit is open until then.
    Until(Instant),
    /// A call failed.
    Failed(MeshError),
}

impl CallError {
    /// When to try again, by what may be done about the failure.
    pub fn requeue(&self) -> Requeue {
        match self {
            Self::Until(at) => Requeue::DeferUntil(*at),
            Self::Failed(error) => match error.kind {
                MeshErrorKind::Throttled => match error.retry_after {
                    Some(wait) => Requeue::DeferUntil(Instant::now() + wait.min(MANUAL_FIX_RETRY)),
                    None => Requeue::Backoff,
                },
                MeshErrorKind::Unreachable
                | MeshErrorKind::ServerError
                | MeshErrorKind::Conflict
                | MeshErrorKind::NotLeader => Requeue::Backoff,
                // The same body never works: a change of the task or of the manifests brings the key back.
                MeshErrorKind::Invalid => Requeue::Forget,
                MeshErrorKind::Forbidden
                | MeshErrorKind::MeshNotFound
                | MeshErrorKind::ReadOnly
                | MeshErrorKind::UnexpectedResponse => Requeue::DeferUntil(Instant::now() + MANUAL_FIX_RETRY),
            },
        }
    }

    /// Whether the call that failed may have taken effect all the same.
    pub fn may_have_taken_effect(&self) -> bool {
        match self {
            Self::Until(_) => false,
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

/// Calls a control plane, unless its circuit is open, and tells the circuit how it went.
pub async fn call<T>(circuit: &Circuit, call: impl Future<Output = Result<T, MeshError>>) -> Result<T, CallError> {
    let permit = circuit.admit().map_err(|open| CallError::Until(open.0))?;
    let answer = call.await;
    match &answer {
        Err(error) if error.kind == MeshErrorKind::Unreachable => permit.failure(),
        _ => permit.success(),
    }
    answer.map_err(CallError::Failed)
}
