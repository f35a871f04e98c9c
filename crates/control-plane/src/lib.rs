//! Control planes: one trait, and a home for each kind. Knows nothing of ECS.
//!
//! A registration's body is a JSON value in a *normal form*: what the control plane adds or changes of its own accord
//! is taken away, so that equal bodies mean that there is nothing to write.

#![forbid(unsafe_code)]

mod halt;
pub mod http;
pub mod skipped_items;
mod partial_list;
mod observer;
mod registration_summary;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;

use ecs_mesh_controller::Lease;
use ecs_mesh_core::intent::{DesiredRegistration, OwnershipLabels, RegistrationId};
use ecs_mesh_core::plan::DrainReason;
use ecs_mesh_model::{ClusterArn, MeshName, TaskArn, Timestamp};

pub use halt::{CallError, call};
pub use partial_list::{FailedSegment, PartialList, ListSegment, list_owned};
pub use observer::{MeshCallObserver, NoObserver};
pub use registration_summary::{ContentHash, RegistrationSummary};

/// Whose a registration is, as its own marks say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegistrationOwner {
    /// It carries all marks.
    Owned(OwnershipLabels),
    /// It carries none, or not all: somebody else's.
    Foreign,
}

/// A registration as the control plane holds it.
#[derive(Clone, Debug, PartialEq)]
pub struct Registration {
    /// Where it is.
    pub id: RegistrationId,
    /// Whose it is.
    pub owner: RegistrationOwner,
    /// The service that it says it is, for reports.
    pub service: Option<Arc<str>>,
    /// When the control plane says that it was created.
    pub created_at: Option<Timestamp>,
    /// Why this operator drained it, if it did.
    pub drained: Option<DrainReason>,
    /// The normal form, for comparison.
    pub normal: Value,
    /// What the control plane holds, as it gave it: for what must be carried forward.
    pub stored: Value,
}

/// A body ready to be sent, with its normal form.
#[derive(Clone, Debug, PartialEq)]
pub struct RenderedRegistration {
    /// What is sent.
    pub body: Value,
    /// Its normal form, for comparison with [`Registration::normal`].
    pub normal: Value,
}

/// Login tokens that name no task, so that nobody removes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnattributedTokenCount {
    /// Why they name none; a bounded label.
    pub reason: &'static str,
    /// How many.
    pub count: usize,
    /// The accessors of some of them, which open nothing.
    pub examples: Vec<Arc<str>>,
}

/// What may be done about a failed call to a control plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MeshErrorKind {
    /// Not reached, timed out, 5xx: try again; the circuit counts these.
    Unreachable,
    /// 500 to a removal, in words that do not say why: it may be over later, and is about this one.
    ServerError,
    /// 429: try again, not before the time it named.
    Throttled,
    /// 409: somebody else wrote; read again, redo.
    Conflict,
    /// 400: the body breaks a rule; the same body never works.
    Invalid,
    /// 401 or 403: our token does not reach.
    Forbidden,
    /// The mesh, or the namespace, does not exist.
    MeshNotFound,
    /// 405: a global or read-only control plane takes no Dataplanes.
    ReadOnly,
    /// An answer that is not from such a control plane, or one that cannot be read.
    UnexpectedResponse,
    /// Another copy of this operator holds the lease: nothing was sent.
    NotLeader,
}

impl MeshErrorKind {
    /// A bounded label for metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::ServerError => "server_error",
            Self::Throttled => "throttled",
            Self::Conflict => "conflict",
            Self::Invalid => "invalid",
            Self::Forbidden => "forbidden",
            Self::MeshNotFound => "mesh_not_found",
            Self::ReadOnly => "read_only",
            Self::UnexpectedResponse => "unexpected_response",
            Self::NotLeader => "not_leader",
        }
    }

    /// Whether the next call would meet the same, whatever it is about.
    pub fn affects_all_calls(self) -> bool {
        matches!(self, Self::Unreachable | Self::Throttled | Self::NotLeader)
    }

    /// Whether it says something of one registration, and nothing of the control plane.
    pub fn affects_one_registration(self) -> bool {
        matches!(self, Self::Invalid | Self::Conflict | Self::ServerError)
    }
}

/// A failed call, in words for a person: what was called, what came back, what to do next.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct MeshError {
    /// What may be done about it.
    pub kind: MeshErrorKind,
    /// Call, resource, answer (field paths included, no secrets) and what to do next.
    pub message: String,
    /// `Retry-After`, where the server gave one.
    pub retry_after: Option<Duration>,
}

impl MeshError {
    /// An error without a time before which it makes no sense to try again.
    pub fn new(kind: MeshErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), retry_after: None }
    }
}

/// A mesh control plane.
#[async_trait]
pub trait ControlPlane: Send + Sync {
    /// All registrations, in all meshes, that carry this operator's mark, or, where tasks register themselves, that a
    /// task of one of these clusters has made. Each is handed over as it is read, perhaps twice, since lists are long;
    /// what was handed over before an error is there, too. What is listed by itself fails by itself, and those parts are
    /// returned; an error where nothing could be listed. A registration may be missing although it exists (pages shift
    /// under deletions): absence here proves nothing.
    async fn list_owned(
        &self,
        clusters: &BTreeSet<ClusterArn>,
        take: &mut (dyn FnMut(RegistrationSummary) + Send),
    ) -> Result<Vec<FailedSegment>, MeshError>;

    /// What this task has made itself; empty where tasks make nothing. Calls that come at the same time share what is
    /// asked of the server, and parts fail by themselves, as of [`Self::owned`].
    async fn list_for_task(&self, task: &TaskArn) -> Result<PartialList, MeshError> {
        let _ = task;
        Ok(PartialList::default())
    }

    /// The server's current copy.
    async fn get(&self, id: &RegistrationId) -> Result<Option<Registration>, MeshError>;

    /// Creates or replaces.
    async fn put(&self, id: &RegistrationId, body: &Value) -> Result<(), MeshError>;

    /// Removes; `false` when it was not there.
    async fn delete(&self, id: &RegistrationId) -> Result<bool, MeshError>;

    /// From now on the lease is asked at each write, where writes wait for others after their caller has asked.
    fn set_lease(&self, lease: Arc<dyn Lease>) {
        let _ = lease;
    }

    /// How many removals like this one may go out in one request: so many count as one write.
    fn delete_batch_size(&self, id: &RegistrationId) -> usize {
        let _ = id;
        1
    }

    /// Login tokens that name no task, as the last whole list showed them.
    fn unattributed_tokens(&self) -> Vec<UnattributedTokenCount> {
        Vec::new()
    }

    /// The services that the mesh knows of.
    async fn list_services(&self, mesh: &MeshName) -> Result<BTreeSet<String>, MeshError>;

    /// Learns what decides the rendering (version, mesh modes, health discovery). Called before the first write and
    /// at each sweep; failures leave the last knowledge in place.
    async fn refresh_capabilities(&self, meshes: &BTreeSet<MeshName>) -> Result<(), MeshError>;

    /// The body that makes `desired` true, carrying forward from `current` what the control plane decides.
    fn render(&self, desired: &DesiredRegistration, current: Option<&Registration>) -> RenderedRegistration;

    /// The body that takes `current` out of service without removing it.
    fn render_drained(&self, current: &Registration, reason: DrainReason) -> RenderedRegistration;
}
