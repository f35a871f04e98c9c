//! The trait of all control planes, with the HTTP transport that their clients share. Knows nothing of ECS.
//!
//! A registration's body is compared in a *normal form*, without the fields that the control plane adds or changes on its
//! own: equal normal forms mean that no write is needed.
//!
//! ```
//! use ecs_mesh_control_plane::ContentHash;
//! use serde_json::json;
//!
//! // Summaries of long lists keep a hash of the normal form instead of the body.
//! let hash = ContentHash::of(&json!({"address": "10.0.0.1", "port": 8080}));
//! assert_eq!(hash, ContentHash::of(&json!({"port": 8080, "address": "10.0.0.1"})));
//! ```

#![forbid(unsafe_code)]

mod call_error;
mod error_source;
pub mod http;
mod observer;
mod partial_list;
mod registration_summary;
pub mod skipped_items;
mod support;
mod writers;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;

use ecs_mesh_api::ZoneProxyForm;
use ecs_mesh_controller::{Lease, WriteObstacle};
use ecs_mesh_core::intent::{DesiredRegistration, MeshServices, OwnershipLabels, RegistrationId};
use ecs_mesh_core::plan::report::UpgradeCheck;
use ecs_mesh_core::plan::{DrainReason, FieldChange, ServiceEndpoint};
use ecs_mesh_model::{ClusterArn, MeshName, SidecarOutbounds, TaskArn, Timestamp};

pub use call_error::{CallError, call};
pub use error_source::ErrorSource;
pub use observer::{MeshCallObserver, NoObserver};
pub use partial_list::{FailedSegment, ListSegment, PartialList, list_owned};
pub use registration_summary::{ContentHash, RegistrationSummary};
pub use support::{SupportGate, SupportedLease};
pub use writers::{FOREIGN_WRITER_WINDOW, WriterId, WriterLog, WrittenObject};

/// The owner of a registration, as its ownership labels show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegistrationOwner {
    /// The registration has all ownership labels.
    Owned(OwnershipLabels),
    /// The registration lacks at least one ownership label and belongs to another writer.
    Foreign,
}

/// A registration as the control plane holds it.
#[derive(Clone, Debug, PartialEq)]
pub struct Registration {
    /// Mesh and name.
    pub id: RegistrationId,
    /// The owner.
    pub owner: RegistrationOwner,
    /// The name of its task's cluster, where it carries one.
    pub cluster_name: Option<Arc<str>>,
    /// The service that it registers, for reports.
    pub service: Option<Arc<str>>,
    /// The creation time, as the control plane reports it.
    pub created_at: Option<Timestamp>,
    /// The reason if this operator drained the registration.
    pub drained: Option<DrainReason>,
    /// Whether it gets traffic; `None` where the registration does not say so.
    pub ready: Option<bool>,
    /// Whether the copy carries the mark of the operator as its writer. Without the mark, the task registers itself.
    pub has_writer_mark: bool,
    /// The normal form, for comparison.
    pub normal: Value,
    /// The body as the control plane returned it, for fields that a write must carry forward.
    pub stored: Value,
}

/// A body ready to be sent, with its normal form.
#[derive(Clone, Debug, PartialEq)]
pub struct RenderedRegistration {
    /// The request body.
    pub body: Value,
    /// The normal form of `body`, for comparison with [`Registration::normal`].
    pub normal: Value,
}

/// Login tokens that name no task, which no control plane client removes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnattributedTokenCount {
    /// The reason why their task is unknown; a bounded label.
    pub reason: &'static str,
    /// The number of tokens.
    pub count: usize,
    /// The accessors of some of them. An accessor grants nothing.
    pub examples: Vec<Arc<str>>,
}

/// A registration of a service with its owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedEndpoint {
    /// The registration and its readiness.
    pub endpoint: ServiceEndpoint,
    /// Its owner.
    pub owner: RegistrationOwner,
}

/// A registration of a mesh, of any owner, for those who look at the mesh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeshMember {
    /// Mesh and name.
    pub id: RegistrationId,
    /// Its owner.
    pub owner: RegistrationOwner,
    /// Its services; a Dataplane may have several.
    pub services: Vec<Arc<str>>,
    /// Whether it serves, as far as the control plane can tell.
    pub ready: bool,
}

/// The kind of a failed call to a control plane, which decides about retries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MeshErrorKind {
    /// Not connected, timed out, or 5xx: retry. The circuit counts these.
    Unreachable,
    /// 500 for a removal without a cause: retry later. The error concerns only this registration.
    ServerError,
    /// 429: retry after the time in the response.
    Throttled,
    /// 409: another writer was faster; read again and retry.
    Conflict,
    /// 400: the body breaks a rule; the same body never succeeds.
    Invalid,
    /// The control plane's version has no form for what the manifests declare; nothing was sent.
    NotExpressible,
    /// 401 or 403: the operator's token lacks permissions.
    Forbidden,
    /// The mesh or the namespace does not exist.
    MeshNotFound,
    /// 405: a global or read-only control plane accepts no Dataplanes.
    ReadOnly,
    /// A response that is unreadable or not from such a control plane.
    UnexpectedResponse,
    /// This process may not write; the call was not sent.
    Obstructed(WriteObstacle),
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
            Self::NotExpressible => "not_expressible",
            Self::Forbidden => "forbidden",
            Self::MeshNotFound => "mesh_not_found",
            Self::ReadOnly => "read_only",
            Self::UnexpectedResponse => "unexpected_response",
            Self::Obstructed(obstacle) => obstacle.label(),
        }
    }

    /// Whether any other call would fail the same way.
    pub fn affects_all_calls(self) -> bool {
        matches!(self, Self::Unreachable | Self::Throttled | Self::Obstructed(_))
    }

    /// Whether the error concerns one registration and not the control plane.
    pub fn affects_one_registration(self) -> bool {
        matches!(self, Self::Invalid | Self::NotExpressible | Self::Conflict | Self::ServerError)
    }
}

/// Why a control plane refuses all calls of one kind, where callers act on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The servers do not know the operator's own token, so every call fails.
    OwnTokenUnknown,
    /// The servers have no ACLs, so every ACL call fails.
    AclsDisabled,
}

/// In an error's message: the next step follows.
const HELP_MARKER: &str = "; help: ";

/// A failed call. The message contains the call, the response and the next step.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct MeshError {
    /// The kind, which decides about retries.
    pub kind: MeshErrorKind,
    /// Call, resource, response (with field paths, without secrets) and the next step.
    pub message: String,
    /// `Retry-After`, if the server sent it.
    pub retry_after: Option<Duration>,
    /// Why the call was refused, where callers act on it.
    pub refusal: Option<Refusal>,
    /// The cause, which the message contains.
    pub source: Option<ErrorSource>,
}

impl MeshError {
    /// Creates an error without `Retry-After`, refusal and cause.
    pub fn new(kind: MeshErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), retry_after: None, refusal: None, source: None }
    }

    /// The same error with a cause, which the message contains.
    #[must_use]
    pub fn with_source(self, source: impl Into<ErrorSource>) -> Self {
        Self { source: Some(source.into()), ..self }
    }

    /// The same error with the server's `Retry-After`.
    #[must_use]
    pub fn with_retry_after(self, retry_after: Option<Duration>) -> Self {
        Self { retry_after, ..self }
    }

    /// The same error with the reason of a refusal.
    #[must_use]
    pub fn with_refusal(self, refusal: Option<Refusal>) -> Self {
        Self { refusal, ..self }
    }

    /// Splits the message into the problem and the next step, which follows `; help: `.
    pub fn split_help(&self) -> (&str, Option<&str>) {
        match self.message.split_once(HELP_MARKER) {
            Some((problem, help)) => (problem, Some(help)),
            None => (&self.message, None),
        }
    }
}

/// A mesh control plane.
#[async_trait]
pub trait ControlPlane: Send + Sync {
    /// Lists all registrations, in all meshes, that have this operator's ownership labels or, where tasks register
    /// themselves, that a task of one of these clusters has created.
    ///
    /// Lists are long, so `sink` receives each registration as it is read, possibly twice. Registrations received before
    /// an error are valid. Segments fail independently; the failed ones are returned. An existing registration may be
    /// missing from the list (pages shift under deletions), so absence here is no evidence.
    ///
    /// # Errors
    /// If no segment could be listed.
    async fn list_owned(
        &self,
        clusters: &BTreeSet<ClusterArn>,
        sink: &mut (dyn FnMut(RegistrationSummary) + Send),
    ) -> Result<Vec<FailedSegment>, MeshError>;

    /// Lists the clusters that registrations name in full, also those that do not exist any more. Only called where tasks
    /// register themselves; other registrations have a [`RegistrationSummary::cluster_name`].
    ///
    /// # Errors
    /// If they could not be listed.
    async fn list_clusters(&self) -> Result<BTreeSet<ClusterArn>, MeshError> {
        Ok(BTreeSet::new())
    }

    /// Lists the registrations that this task has created itself; empty where tasks do not register themselves.
    /// Concurrent calls share requests, and segments fail independently, as in [`Self::list_owned`].
    async fn list_for_task(&self, task: &TaskArn) -> Result<PartialList, MeshError> {
        let _ = task;
        Ok(PartialList::default())
    }

    /// Reads the server's current copy.
    async fn get(&self, id: &RegistrationId) -> Result<Option<Registration>, MeshError>;

    /// Creates or replaces a registration.
    async fn put(&self, id: &RegistrationId, body: &Value) -> Result<(), MeshError>;

    /// Removes a registration; `false` if it did not exist.
    async fn delete(&self, id: &RegistrationId) -> Result<bool, MeshError>;

    /// Sets the lease that is checked right before each write, where writes may wait after their caller's check.
    fn set_lease(&self, lease: Arc<dyn Lease>) {
        let _ = lease;
    }

    /// The maximum number of such removals in one request, which counts as one write.
    fn delete_batch_size(&self, id: &RegistrationId) -> usize {
        let _ = id;
        1
    }

    /// Login tokens that name no task, as of the last complete list.
    fn unattributed_tokens(&self) -> Vec<UnattributedTokenCount> {
        Vec::new()
    }

    /// When the operator's own token expires, as of the last call; `None` if that is not known.
    fn token_expiry(&self) -> Option<Timestamp> {
        None
    }

    /// Product and version of the server, as of the last answer; `None` if that is not known.
    fn server_version(&self) -> Option<Arc<str>> {
        None
    }

    /// Another process that has recently written with this operator's id, while this one may write.
    fn foreign_writer(&self) -> Option<Arc<str>> {
        None
    }

    /// Lists the registrations of a service, of any owner, with their readiness. Only called where the operator drains.
    /// Nothing is known of the tasks: [`ServiceEndpoint::leaving`] is unset, and `owner` says whose task it may be.
    async fn list_endpoints(&self, mesh: &MeshName, service: &str) -> Result<Vec<OwnedEndpoint>, MeshError> {
        let _ = (mesh, service);
        Ok(Vec::new())
    }

    /// Lists the registrations of the mesh, of any owner, with their readiness. Decides nothing: only called for readers of the
    /// operator. `sink` receives each as it is read, possibly twice. Registrations that are unreadable, or have no readiness in
    /// this list, are absent.
    ///
    /// # Errors
    /// If the list could not be read to its end; registrations received before are valid.
    async fn list_members(
        &self,
        mesh: &MeshName,
        sink: &mut (dyn FnMut(MeshMember) + Send),
    ) -> Result<(), MeshError> {
        let _ = (mesh, sink);
        Ok(())
    }

    /// Lists how the sidecars of this operator's registrations in the mesh get their outbounds, as they have reported it.
    /// Registrations whose sidecar never connected, or reported nothing of it, are absent.
    async fn list_sidecar_outbounds(
        &self,
        mesh: &MeshName,
    ) -> Result<Vec<(RegistrationId, SidecarOutbounds)>, MeshError> {
        let _ = mesh;
        Ok(Vec::new())
    }

    /// Lists the services of the mesh.
    async fn list_services(&self, mesh: &MeshName) -> Result<BTreeSet<String>, MeshError>;

    /// Lists what Dataplanes of the mesh can call.
    async fn list_callable(&self, mesh: &MeshName) -> Result<MeshServices, MeshError> {
        Ok(MeshServices { names: Some(self.list_services(mesh).await?), resources: Vec::new() })
    }

    /// Whether the control plane is supported, as of the last answer. One that is not is not written to.
    fn support(&self) -> Arc<SupportGate>;

    /// Reads what blocks the upgrade that this client plans; `None` where it plans none. `unmanaged`: registrations with the
    /// operator's labels that it does not write, such as those of sidecars, whose owner has to change them; `None`: of no
    /// registration is known whether the operator writes it.
    ///
    /// # Errors
    /// If a part could not be read.
    async fn check_upgrade(
        &self,
        unmanaged: Option<&BTreeSet<RegistrationId>>,
    ) -> Result<Option<UpgradeCheck>, MeshError> {
        let _ = unmanaged;
        Ok(None)
    }

    /// Finds out whether the control plane is supported, unless that was done within the last seconds: a server may be
    /// upgraded under a running operator. Called before each write.
    ///
    /// # Errors
    /// Of the kind [`MeshErrorKind::Obstructed`] if it is not supported; of other kinds if that could not be found out.
    async fn ensure_supported(&self) -> Result<(), MeshError> {
        self.support().check()
    }

    /// Reads the capabilities that rendering depends on (version, mesh modes, health discovery). Called before the first
    /// write and at each sweep. A failure keeps the previous capabilities.
    async fn refresh_capabilities(&self, meshes: &BTreeSet<MeshName>) -> Result<(), MeshError>;

    /// The format in which registrations are rendered, as of the last answer; `None` where there is only one. After a change
    /// all registrations are compared again.
    fn registration_format(&self) -> Option<Arc<str>> {
        None
    }

    /// Whether instances of several releases answer, as of the last answer. Each may drop what another one needs, also without
    /// a call, so registrations are compared again until one release is left.
    fn has_several_releases(&self) -> bool {
        false
    }

    /// How zone proxies are registered, as of the last answer; `None` if that is not known yet.
    fn zone_proxy_form(&self) -> Option<ZoneProxyForm> {
        Some(ZoneProxyForm::default())
    }

    /// Checks that the control plane's version can express the registration, which it may otherwise accept in part. Called
    /// before each create and update.
    ///
    /// # Errors
    /// Of the kind [`MeshErrorKind::NotExpressible`], with the rule and the version.
    fn check_desired(&self, desired: &DesiredRegistration) -> Result<(), MeshError> {
        let _ = desired;
        Ok(())
    }

    /// The service of `desired` as [`Registration::service`] returns it, and as [`Self::list_endpoints`] expects it.
    fn registered_service<'a>(&self, desired: &'a DesiredRegistration) -> &'a str {
        desired.service.as_str()
    }

    /// Whether the control plane routes requests to a registration of this form by its readiness, so that
    /// [`Self::list_endpoints`] has it.
    fn has_readiness(&self, current: &Registration) -> bool {
        let _ = current;
        true
    }

    /// Renders the body of `desired`, with the fields of `current` that the control plane decides.
    fn render(&self, desired: &DesiredRegistration, current: Option<&Registration>) -> RenderedRegistration;

    /// The fields in which `current`, which the task's sidecar has registered, differs from `desired`: those that callers of the
    /// task depend on.
    fn drift(&self, desired: &DesiredRegistration, current: &Registration) -> Vec<FieldChange> {
        let _ = (desired, current);
        Vec::new()
    }

    /// Renders the body that drains `current`.
    fn render_drained(&self, current: &Registration, reason: DrainReason) -> RenderedRegistration;
}
