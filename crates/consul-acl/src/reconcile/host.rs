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
