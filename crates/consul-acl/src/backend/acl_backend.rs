//! The objects of a control plane by which tasks get their identity: looked at as a whole, written one by one.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;

use crate::desired::{DatacenterRole, DesiredObjects, AclContext};
use crate::plan::{ActualObjects, AclStep};
use ecs_mesh_control_plane::{MeshError, MeshErrorKind};

/// What a look found.
#[derive(Clone, Debug, Default)]
pub struct AclSnapshot {
    /// The objects; what could not be read is in there as unknown.
    pub actual: ActualObjects,
    /// Why something could not be read, each failed call once.
    pub errors: Vec<MeshError>,
}

impl AclSnapshot {
    /// The failure that says that nobody answers, if there was one.
    pub fn unreachable(&self) -> Option<&MeshError> {
        self.errors.iter().find(|error| error.kind == MeshErrorKind::Unreachable)
    }

    /// The failure that says that the servers have too much to do, if there was one: the one that waits longest.
    pub fn throttled(&self) -> Option<&MeshError> {
        let busy = self.errors.iter().filter(|error| error.kind == MeshErrorKind::Throttled);
        busy.max_by_key(|error| error.retry_after)
    }
}

/// Whether a write may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteGate {
    /// It may.
    Allowed,
    /// This is a dry run.
    Dry,
    /// This process does not hold the lease.
    NoLease,
    /// What it rests on was replaced meanwhile, in these words.
    Outdated(&'static str),
}

/// What a step came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WriteResult {
    /// It was written.
    Done,
    /// It would have been.
    Dry,
    /// Without the lease nothing was sent.
    NoLease,
    /// What is there is no longer what the step rests on, in these words: look again. Nothing was sent.
    Stale(String),
    /// These servers cannot have it, in these words. Nothing was sent.
    Unsupported(String),
}

/// The objects by which tasks get their identity.
#[async_trait]
pub trait AclBackend: Send + Sync {
    /// From now on the tokens of logins by these auth methods are looked after.
    fn watch_auth_methods(&self, methods: BTreeSet<Arc<str>>);

    /// All namespaces of the partition. Enterprise only.
    async fn namespaces(&self) -> Result<BTreeSet<Arc<str>>, MeshError>;

    /// Which datacenter the objects are in.
    async fn datacenter(&self) -> DatacenterRole;

    /// Lists what there is in these surroundings, and reads each object by itself that a plan for `desired` compares
    /// or removes. What fails is unknown, and holds up nothing else.
    async fn snapshot(&self, around: &AclContext<'_>, desired: &DesiredObjects) -> AclSnapshot;

    /// Carries out one step: reads what is there, checks that it is what the step rests on and whose it is, asks
    /// `may_send`, and writes. After an error that leaves it open whether the write took effect, only another look
    /// tells.
    async fn apply(
        &self,
        step: &AclStep,
        may_send: &(dyn Fn() -> WriteGate + Sync),
    ) -> Result<WriteResult, MeshError>;
}
