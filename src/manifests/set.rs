//! The manifests in force, after all rules between documents have been checked.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::api::{ControlPlaneSpec, ControlPlaneType, MeshBindingSpec, OutboundListSpec, WorkloadSpec};
use crate::model::{ClusterArn, Timestamp};

/// A `MeshBinding` with what was looked up or parsed for it when the set was made.
#[derive(Clone, Debug, PartialEq)]
pub struct Binding {
    /// `metadata.name`.
    pub name: Arc<str>,
    /// As written.
    pub spec: MeshBindingSpec,
    /// The type of its control plane: a task has at most one binding of each type.
    pub control_plane_type: ControlPlaneType,
    /// `cleanup.guard.releaseUntil`, parsed.
    pub guard_released_until: Option<Timestamp>,
}

impl Binding {
    /// Whether the binding looks at this cluster at all.
    pub fn selects_cluster(&self, cluster: &ClusterArn) -> bool {
        self.spec.selector.clusters.iter().any(|glob| glob.matches(cluster.as_str()))
    }
}

/// All manifests in force, by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ManifestSet {
    /// Grows with every set that comes into force; 0 is the empty set before the first.
    pub generation: u64,
    /// `false` as long as a document of the sources is invalid: then no removal may rest on these manifests.
    pub complete: bool,
    /// `ControlPlane` by name.
    pub control_planes: BTreeMap<Arc<str>, Arc<ControlPlaneSpec>>,
    /// `MeshBinding` by name.
    pub bindings: BTreeMap<Arc<str>, Arc<Binding>>,
    /// `Workload` by name.
    pub workloads: BTreeMap<Arc<str>, Arc<WorkloadSpec>>,
    /// `OutboundList` by name.
    pub outbound_lists: BTreeMap<Arc<str>, Arc<OutboundListSpec>>,
}
