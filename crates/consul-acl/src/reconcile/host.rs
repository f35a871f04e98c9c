//! What looking after a control plane's objects needs of the program around it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ecs_mesh_api::manifests::ManifestSet;
use ecs_mesh_core::plan::report::{ObjectKind, PlannedChange};
use ecs_mesh_model::ClusterArn;

/// What is in force, and what follows from what a look found.
pub trait AclHost: Send + Sync {
    /// The manifests in force.
    fn manifests(&self) -> Arc<ManifestSet>;

    /// The clusters that this control plane's bindings select: those named in full, and those that patterns have been
    /// found to stand for.
    fn clusters_at(&self, set: &ManifestSet, control_plane: &str) -> BTreeSet<ClusterArn>;

    /// How long a set-up that is as declared is left alone.
    fn sweep_interval(&self) -> Duration;

    /// There is more to list than the last sweep, or one under way, has asked for.
    fn invalidate_sweep(&self);
}

/// Told of writes, for metrics. All labels have bounded sets of values.
pub trait AclMetrics: Send + Sync {
    /// An object was changed (`create`, `update`, `adopt`, `remove`), or could not be.
    fn record_acl_change(&self, kind: ObjectKind, change: &'static str, ok: bool);

    /// Something waits, for this reason.
    fn record_warning(&self, reason: &'static str);
}

/// Takes in what a dry run would do.
pub trait AclDryRun: Send + Sync {
    /// What would be done with the objects of a control plane, in place of what was said before.
    fn record(&self, control_plane: &Arc<str>, changes: Vec<PlannedChange>);

    /// Something could not be found out, for this reason; or was, now.
    fn record_unresolved(&self, subject: &str, error: Option<String>);
}
