//! The manifests in force, with all rules between documents checked.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::outbounds::{self, DeclaredReach, MergedOutbounds, OutboundSource};
use crate::{
    AwsAccountSpec, ConsulAuthSpec, ControlPlaneSpec, ControlPlaneType, MeshBindingSpec, OutboundListSpec,
    Reach, WorkloadSpec,
};
use ecs_mesh_model::{ClusterArn, Timestamp};

/// A `MeshBinding` with the values that were resolved when the set was assembled.
#[derive(Clone, Debug, PartialEq)]
pub struct Binding {
    /// `metadata.name`.
    pub name: Arc<str>,
    /// The declared spec.
    pub spec: MeshBindingSpec,
    /// The type of its control plane: a task has at most one binding of each type.
    pub control_plane_type: ControlPlaneType,
    /// `cleanup.guard.releaseUntil`, parsed.
    pub guard_released_until: Option<Timestamp>,
}

impl Binding {
    /// Whether the binding selects this cluster.
    pub fn selects_cluster(&self, cluster: &ClusterArn) -> bool {
        self.spec.selector.clusters.iter().any(|glob| glob.matches(cluster.as_str()))
    }
}

/// All manifests in force, by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ManifestSet {
    /// Increases with every set that comes into force; 0 is the empty set before the first.
    pub generation: u64,
    /// `false` until the sources have been loaded once without an error. Until then declared documents may be missing, and
    /// no registration or outbound is removed because these manifests lack it. A complete set stays complete when a later
    /// edit is rejected.
    pub complete: bool,
    /// `ControlPlane` by name.
    pub control_planes: BTreeMap<Arc<str>, Arc<ControlPlaneSpec>>,
    /// `MeshBinding` by name.
    pub bindings: BTreeMap<Arc<str>, Arc<Binding>>,
    /// `Workload` by name.
    pub workloads: BTreeMap<Arc<str>, Arc<WorkloadSpec>>,
    /// `OutboundList` by name.
    pub outbound_lists: BTreeMap<Arc<str>, Arc<OutboundListSpec>>,
    /// `ConsulAuth` by name.
    pub consul_auths: BTreeMap<Arc<str>, Arc<ConsulAuthSpec>>,
    /// `AwsAccount` by name. No two have the same account.
    pub aws_accounts: BTreeMap<Arc<str>, Arc<AwsAccountSpec>>,
}

impl ManifestSet {
    /// All outbounds of the workload of this name: those of the lists that select it, in name order, and its own. Tasks that
    /// are described by tags count under their service's name.
    ///
    /// A proxy that cannot have outbounds has none.
    pub fn declared_reach(&self, name: &str, workload: &WorkloadSpec) -> DeclaredReach {
        if !workload.proxy_role().may_have_outbounds() {
            return DeclaredReach::Listeners(MergedOutbounds::default());
        }
        let lists = self.outbound_lists.iter().filter(|(_, l)| l.workloads.iter().any(|g| g.matches(name)));
        let lists = lists.map(|(list, spec)| OutboundSource { list: Some(list), outbounds: &spec.outbounds });
        let inline = workload.outbounds.iter().map(|outbounds| OutboundSource { list: None, outbounds });
        let sources: Vec<OutboundSource<'_>> = lists.chain(inline).collect();
        match workload.reach {
            Reach::Outbounds => DeclaredReach::Listeners(outbounds::merge_listeners(workload, &sources)),
            Reach::BindOutbounds if sources.is_empty() => DeclaredReach::EveryBackend,
            Reach::BindOutbounds => DeclaredReach::Backends(outbounds::merge_backends(&sources)),
        }
    }

    /// The `AwsAccount` of this account, with its name.
    pub fn aws_account(&self, account: &str) -> Option<(&Arc<str>, &Arc<AwsAccountSpec>)> {
        self.aws_accounts.iter().find(|(_, spec)| spec.account == account)
    }

    /// Whether both have the same documents, at any generation, complete or not.
    pub fn has_same_documents(&self, other: &Self) -> bool {
        let Self {
            generation: _,
            complete: _,
            control_planes,
            bindings,
            workloads,
            outbound_lists,
            consul_auths,
            aws_accounts,
        } = self;
        *control_planes == other.control_planes
            && *bindings == other.bindings
            && *workloads == other.workloads
            && *outbound_lists == other.outbound_lists
            && *consul_auths == other.consul_auths
            && *aws_accounts == other.aws_accounts
    }

    /// Whether this set has every document of the other, possibly changed.
    pub fn contains_all(&self, other: &Self) -> bool {
        fn within<T>(all: &BTreeMap<Arc<str>, T>, some: &BTreeMap<Arc<str>, T>) -> bool {
            some.keys().all(|name| all.contains_key(name))
        }
        within(&self.control_planes, &other.control_planes)
            && within(&self.bindings, &other.bindings)
            && within(&self.workloads, &other.workloads)
            && within(&self.outbound_lists, &other.outbound_lists)
            && within(&self.consul_auths, &other.consul_auths)
            && within(&self.aws_accounts, &other.aws_accounts)
    }
}
