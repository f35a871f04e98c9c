//! The interfaces that reconciling ACL objects needs from the program.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ecs_mesh_api::manifests::ManifestSet;
use ecs_mesh_core::plan::report::{ObjectKind, PlannedChange};
use ecs_mesh_model::ClusterArn;

/// The manifests in force and the effects of a reconcile on other parts.
pub trait AclHost: Send + Sync {
    /// The manifests in force.
    fn manifests(&self) -> Arc<ManifestSet>;

    /// The clusters that the control plane's bindings select: literal ones, and known ones that patterns match.
    fn clusters_at(&self, set: &ManifestSet, control_plane: &str) -> BTreeSet<ClusterArn>;

    /// Time between reconciles when nothing changed.
    fn sweep_interval(&self) -> Duration;

    /// Invalidates the last sweep and one in progress, since more must be listed.
    fn invalidate_sweep(&self);

    /// Takes a change that was made, or was to be, in the order of the audit log. Called right after the write, so it does not
    /// wait.
    fn record_change(&self, change: AclChange<'_>);
}

/// A change of an ACL object, as the audit log names it. It has no secret: neither bodies nor values of fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AclChange<'a> {
    /// The `ControlPlane`.
    pub control_plane: &'a Arc<str>,
    /// The kind of object.
    pub kind: ObjectKind,
    /// Its name.
    pub name: &'a str,
    /// The id of a binding rule, which has no name at Consul.
    pub id: Option<&'a str>,
    /// `create`, `update`, `adopt` or `remove`.
    pub change: &'static str,
    /// Why, for a person.
    pub reason: &'a str,
    /// The paths of the fields that an update changes.
    pub fields: Vec<String>,
    /// How it ended.
    pub result: AclChangeResult<'a>,
}

/// How a write of an ACL object ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AclChangeResult<'a> {
    /// It took effect.
    Success,
    /// It took effect, and its response was lost.
    ResponseLost,
    /// It failed, or its result is unknown.
    Error(&'a str),
}

impl AclChangeResult<'_> {
    /// The value of the log field `result`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::ResponseLost => "success_response_lost",
            Self::Error(_) => "error",
        }
    }

    /// The error.
    pub(super) fn error(&self) -> Option<&str> {
        match self {
            Self::Error(error) => Some(error),
            Self::Success | Self::ResponseLost => None,
        }
    }
}

/// Records metrics of writes. All labels have bounded sets of values.
pub trait AclMetrics: Send + Sync {
    /// Counts a change of an object (`create`, `update`, `adopt`, `remove`) and whether it succeeded.
    fn record_acl_change(&self, kind: ObjectKind, change: &'static str, ok: bool);

    /// Counts a warning by reason.
    fn record_warning(&self, reason: &'static str);
}

/// Records the changes of a dry run.
pub trait AclDryRun: Send + Sync {
    /// Replaces the planned changes of a control plane's objects.
    fn record(&self, control_plane: &Arc<str>, changes: Vec<PlannedChange>);

    /// Records that a subject could not be read, or, with `None`, that it could.
    fn record_unresolved(&self, subject: &str, error: Option<String>);
}
