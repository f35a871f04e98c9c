//! The interface to ACL objects: read as one snapshot, written one by one.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;

use crate::desired::{AclContext, DatacenterRole, DesiredObjects, OperatorIds};
use crate::plan::{AclStep, ActualObjects};
use ecs_mesh_control_plane::{MeshError, MeshErrorKind, WriterId};
use ecs_mesh_controller::WriteObstacle;

/// A snapshot of the actual objects.
#[derive(Clone, Debug, Default)]
pub struct AclSnapshot {
    /// The objects; unreadable ones are marked as unknown.
    pub actual: ActualObjects,
    /// Failed calls, each once.
    pub errors: Vec<MeshError>,
}

impl AclSnapshot {
    /// The first failure to reach the control plane, if any.
    pub fn unreachable(&self) -> Option<&MeshError> {
        self.errors.iter().find(|error| error.kind == MeshErrorKind::Unreachable)
    }

    /// The throttling response with the longest delay, if any.
    pub fn throttled(&self) -> Option<&MeshError> {
        let throttled = self.errors.iter().filter(|error| error.kind == MeshErrorKind::Throttled);
        throttled.max_by_key(|error| error.retry_after)
    }
}

/// Whether a write may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteGate {
    /// Send.
    Allowed,
    /// Dry run: do not send.
    Dry,
    /// This process may not write.
    Obstructed(WriteObstacle),
    /// The plan is outdated, for this reason.
    Outdated(&'static str),
}

/// The result of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WriteResult {
    /// Written.
    Done,
    /// Dry run: would have been written.
    Dry,
    /// Not sent: this process may not write.
    Obstructed(WriteObstacle),
    /// Not sent: the server's copy differs from the plan, for this reason.
    Stale(String),
    /// Not sent: the servers do not support it, for this reason.
    Unsupported(String),
}

/// Access to the ACL objects of a control plane.
#[async_trait]
pub trait AclBackend: Send + Sync {
    /// The operator ids whose objects are owned.
    fn operators(&self) -> &OperatorIds;

    /// This process, which each write names; `None` where nothing is written.
    fn writer(&self) -> Option<&WriterId>;

    /// Sets the auth methods whose login tokens the operator removes.
    fn watch_auth_methods(&self, methods: BTreeSet<Arc<str>>);

    /// All namespaces of the partition. Enterprise only.
    async fn namespaces(&self) -> Result<BTreeSet<Arc<str>>, MeshError>;

    /// The role of the datacenter.
    async fn datacenter(&self) -> DatacenterRole;

    /// Lists all objects in the context, and reads individually those that a plan for `desired` compares or removes. A
    /// failed read affects that object or kind alone.
    async fn snapshot(&self, context: &AclContext<'_>, desired: &DesiredObjects) -> AclSnapshot;

    /// Applies one step: reads the server's copy, compares it with the step and checks its owner, calls `may_send`, and
    /// writes. After an error with an unknown outcome, only another snapshot shows the result.
    async fn apply(
        &self,
        step: &AclStep,
        may_send: &(dyn Fn() -> WriteGate + Sync),
    ) -> Result<WriteResult, MeshError>;
}
