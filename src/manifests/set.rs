//! The manifests in force, after all rules between documents have been checked.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::outbounds::{self, OutboundClaim, OutboundConflict};
use crate::api::{
    ControlPlaneSpec, ControlPlaneType, MeshBindingSpec, Outbound, OutboundListSpec, WorkloadSpec,
};
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
    /// `false` until the sources have been loaded once without an error: then documents may be absent that a person
    /// has written, and nothing may be taken away (a registration, an outbound) because it is not in these
    /// manifests. A set that was whole stays whole when a later edit is refused.
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

impl ManifestSet {
    /// The `OutboundList`s that select the workload, in name order. Tasks that are described by tags count under
    /// their service's name.
    pub fn lists_for(&self, workload_name: &str) -> Vec<(&Arc<str>, &OutboundListSpec)> {
        self.outbound_lists
            .iter()
            .filter(|(_, list)| list.workloads.iter().any(|glob| glob.matches(workload_name)))
            .map(|(name, list)| (name, list.as_ref()))
            .collect()
    }

    /// All that the workload calls: the lists that select it, in name order, and the outbounds given inline. Sorted,
    /// each listener once.
    pub fn merged_outbounds(
        &self,
        workload_name: &str,
        inline: &[Outbound],
    ) -> Result<Vec<Outbound>, OutboundConflict> {
        let listed = self.lists_for(workload_name).into_iter().flat_map(|(name, list)| {
            list.outbounds
                .iter()
                .map(|outbound| OutboundClaim { list: Some(Arc::clone(name)), outbound: outbound.clone() })
        });
        let inline = inline.iter().map(|outbound| OutboundClaim { list: None, outbound: outbound.clone() });
        outbounds::merge(listed.chain(inline))
    }

    /// Whether both say the same, whatever their generations.
    pub(super) fn says_the_same(&self, other: &Self) -> bool {
        let Self { generation: _, complete, control_planes, bindings, workloads, outbound_lists } = self;
        *complete == other.complete
            && *control_planes == other.control_planes
            && *bindings == other.bindings
            && *workloads == other.workloads
            && *outbound_lists == other.outbound_lists
    }

    /// Whether every document of the other is here too, perhaps changed.
    pub(super) fn has_all_of(&self, other: &Self) -> bool {
        fn within<T>(all: &BTreeMap<Arc<str>, T>, some: &BTreeMap<Arc<str>, T>) -> bool {
            some.keys().all(|name| all.contains_key(name))
        }
        within(&self.control_planes, &other.control_planes)
            && within(&self.bindings, &other.bindings)
            && within(&self.workloads, &other.workloads)
            && within(&self.outbound_lists, &other.outbound_lists)
    }
}
