//! Calls through a control plane's circuit, and why work at it cannot go on.

use std::time::Duration;

use tokio::time::Instant;

use crate::{MeshError, MeshErrorKind};
use ecs_mesh_controller::{Circuit, Next};

/// How long to wait before the next try where nothing but a person's act will help.
const SLOWLY: Duration = Duration::from_mins(1);

/// Why a reconcile cannot go on now.
#[derive(Clone, Debug)]
pub enum Halt {
    /// The circuit is open until then.
    Until(Instant),
    /// A call failed.
    Failed(MeshError),
}

impl Halt {
    /// When to try again, by what may be done about the failure.
    pub fn next(&self) -> Next {
        match self {
            Self::Until(at) => Next::HoldUntil(*at),
            Self::Failed(error) => match error.kind {
                MeshErrorKind::Busy => match error.retry_after {
                    Some(wait) => Next::HoldUntil(Instant::now() + wait.min(SLOWLY)),
                    None => Next::Backoff,
                },
                MeshErrorKind::Unreachable
                | MeshErrorKind::Failed
                | MeshErrorKind::Conflict
                | MeshErrorKind::NoLease => Next::Backoff,
                // The same body never works: a change of the task or of the manifests brings the key back.
                MeshErrorKind::Invalid => Next::Forget,
                MeshErrorKind::Forbidden
                | MeshErrorKind::NoSuchMesh
                | MeshErrorKind::ReadOnly
                | MeshErrorKind::Unexpected => Next::HoldUntil(Instant::now() + SLOWLY),
            },
        }
    }

    /// Whether the call that failed may have taken effect all the same.
    pub fn may_have_happened(&self) -> bool {
        match self {
            Self::Until(_) => false,
            Self::Failed(error) => matches!(
                error.kind,
                MeshErrorKind::Unreachable
                    | MeshErrorKind::Unexpected
                    | MeshErrorKind::Failed
                    | MeshErrorKind::Conflict
            ),
        }
    }
}

/// Calls a control plane, unless its circuit is open, and tells the circuit how it went.
pub async fn call<T>(circuit: &Circuit, call: impl Future<Output = Result<T, MeshError>>) -> Result<T, Halt> {
    let permit = circuit.admit().map_err(|open| Halt::Until(open.0))?;
    let answer = call.await;
    match &answer {
        Err(error) if error.kind == MeshErrorKind::Unreachable => permit.failure(),
        _ => permit.success(),
    }
    answer.map_err(Halt::Failed)
}
