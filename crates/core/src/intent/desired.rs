//! The desired registration of a task, independent of the type of control plane.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use super::CalledWorkloads;
use super::evaluator::workload_label;
use ecs_mesh_api::manifests::{Binding, DeclaredReach, ManifestSet, MergedOutbounds};
use ecs_mesh_api::{
    CalledBackend, GatewayType, Inbound, OutboundListener, Probe, ProxyRole, Reach, ReachableBackend,
    WorkloadSpec, ZoneProxy, ZoneProxyForm,
};
use ecs_mesh_model::{ClusterId, MeshName, OperatorId, Reason, ServiceName, TaskArn, TaskId};

/// The owner of a registration: written on each registration, and checked on the server's copy before each write.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OwnershipLabels {
    /// The operator that owns the registration.
    pub operator: OperatorId,
    /// The task's cluster.
    pub cluster: ClusterId,
    /// The task.
    pub task: TaskId,
}

impl OwnershipLabels {
    /// The ownership labels of this task's registrations.
    pub fn of(operator: &OperatorId, task: &TaskArn) -> Self {
        Self { operator: operator.clone(), cluster: ClusterId::of(task.cluster()), task: task.id().clone() }
    }
}

/// The id of a registration: a name within a mesh of one control plane. [`Self::of_zone_proxy`] is that of a resource of no
/// mesh.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RegistrationId {
    /// The mesh.
    pub mesh: MeshName,
    /// The name in that mesh.
    pub name: Arc<str>,
}

impl fmt::Display for RegistrationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.mesh_scope() {
            Some(mesh) => write!(f, "{mesh}/{}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// The desired registration of a task.
#[derive(Clone, Debug, PartialEq)]
pub struct DesiredRegistration {
    /// The mesh and the name.
    pub id: RegistrationId,
    /// The ownership labels.
    pub marks: OwnershipLabels,
    /// The name of the task's cluster. [`OwnershipLabels`] have only its hash, which does not name a deleted cluster.
    pub cluster_name: Arc<str>,
    /// The binding of the registration.
    pub binding: Arc<str>,
    /// The task's address.
    pub address: IpAddr,
    /// The task's service.
    pub service: ServiceName,
    /// The label `kuma.io/workload`, where the workload has a DNS-1035 label.
    pub workload: Option<Arc<str>>,
    /// The role of the task's proxy.
    pub proxy: DesiredProxy,
    /// The ports that others may call, in the order of the manifest.
    pub inbounds: Vec<Inbound>,
    /// How the control plane determines readiness.
    pub probe: Probe,
    /// The task's outbounds.
    pub reach: DesiredReach,
    /// The workload labels of the services that the outbounds call.
    pub called_workloads: CalledWorkloads,
}

impl DesiredRegistration {
    /// Whether the control plane reports a readiness of the registration: inbounds and listeners have one. A gateway, a client,
    /// a `ZoneIngress` and a `ZoneEgress` have neither.
    pub fn has_readiness(&self) -> bool {
        let is_listener = matches!(self.proxy, DesiredProxy::Zone(_, ZoneProxyForm::Listener));
        is_listener || !self.inbounds.is_empty()
    }

    /// The registration of a task that this workload describes in a binding, as the manifests declare it now. For questions
    /// about the workload, such as whether a version can express it: name and address are no task's.
    pub fn of_workload(
        set: &ManifestSet,
        binding: &Binding,
        (name, workload): (&str, &WorkloadSpec),
        (operator, task): (&OperatorId, &TaskArn),
        zone_proxies: ZoneProxyForm,
    ) -> Self {
        let reach = DesiredReach::of(set, name, workload, false, &mut Vec::new());
        let called = reach.called_services();
        let mesh = &binding.spec.mesh;
        let called_workloads = CalledWorkloads::of(set, &binding.spec.control_plane, mesh, called);
        let proxy = DesiredProxy::of(workload, zone_proxies);
        Self {
            id: proxy.registration_id(mesh, name.into()),
            marks: OwnershipLabels::of(operator, task),
            cluster_name: task.cluster().name().into(),
            binding: Arc::clone(&binding.name),
            address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            service: workload.service.clone(),
            workload: workload_label(workload).map(Into::into),
            proxy,
            inbounds: workload.inbounds.clone(),
            probe: workload.probe,
            reach,
            called_workloads,
        }
    }
}

/// The role of a task's proxy at a control plane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DesiredProxy {
    /// A proxy beside an app.
    Sidecar,
    /// A gateway.
    Gateway(GatewayType),
    /// A proxy of the zone, in the form of the control plane.
    Zone(ZoneProxy, ZoneProxyForm),
}

impl DesiredProxy {
    /// The proxy of a workload at a control plane with this form of zone proxies.
    pub(super) fn of(workload: &WorkloadSpec, zone_proxies: ZoneProxyForm) -> Self {
        match workload.proxy_role() {
            ProxyRole::Sidecar => Self::Sidecar,
            ProxyRole::Gateway(kind) => Self::Gateway(kind),
            ProxyRole::Zone(proxy) => {
                let form = zone_proxies.of(&proxy);
                Self::Zone(proxy, form)
            }
        }
    }

    /// The proxy of a workload; `None` if it depends on a form that is not known.
    pub(super) fn known(workload: &WorkloadSpec, zone_proxies: Option<ZoneProxyForm>) -> Option<Self> {
        let is_decided = match workload.proxy_role() {
            ProxyRole::Sidecar | ProxyRole::Gateway(_) => true,
            ProxyRole::Zone(proxy) => proxy.scope.is_some(),
        };
        let form = zone_proxies.or(is_decided.then(ZoneProxyForm::default))?;
        Some(Self::of(workload, form))
    }

    /// The id of the proxy's registration.
    pub(super) fn registration_id(&self, mesh: &MeshName, name: Arc<str>) -> RegistrationId {
        match self {
            Self::Zone(proxy, ZoneProxyForm::Resource) => RegistrationId::of_zone_proxy(proxy.kind(), &name),
            Self::Zone(_, ZoneProxyForm::Listener) | Self::Sidecar | Self::Gateway(_) => {
                RegistrationId { mesh: mesh.clone(), name }
            }
        }
    }

    /// The proxy as the manifests declare it.
    pub fn role(&self) -> ProxyRole {
        match self {
            Self::Sidecar => ProxyRole::Sidecar,
            Self::Gateway(kind) => ProxyRole::Gateway(*kind),
            Self::Zone(proxy, _) => ProxyRole::Zone(proxy.clone()),
        }
    }
}

/// How a task's sidecar gets its outbounds, and which.
#[derive(Clone, Debug, PartialEq)]
pub enum DesiredReach {
    /// The sidecar listens within the task.
    Listeners(Outbounds<OutboundListener>),
    /// The sidecar binds these backends.
    Backends(Outbounds<ReachableBackend>),
    /// The sidecar binds every backend of the mesh.
    EveryBackend(RegisteredBackends),
}

/// The backends of an existing registration for which the manifests declare none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegisteredBackends {
    /// They are removed, so that every backend is bound.
    Remove,
    /// They are kept: the list that declared them may have left the manifests less than `cleanup.settle` ago.
    RemoveOnceSettled,
    /// They are kept, since the manifests are incomplete.
    Keep,
}

/// The desired outbounds of a task.
#[derive(Clone, Debug, PartialEq)]
pub enum Outbounds<T> {
    /// Exactly these, in a stable order.
    Exactly(Vec<T>),
    /// These, and others that an existing registration has: the list that declared them may have left the manifests less
    /// than `cleanup.settle` ago.
    AtLeast(Vec<T>),
    /// The manifests contradict each other or are incomplete. An existing registration keeps its outbounds; a new one gets
    /// `fallback`, the outbounds without a conflict.
    KeepCurrent {
        /// The outbounds of a task that is not registered yet.
        fallback: Vec<T>,
    },
}

impl<T> Outbounds<T> {
    /// Outbounds without a conflict.
    fn without_conflicts(outbounds: Vec<T>, is_complete: bool, may_lack_lists: bool) -> Self {
        // An invalid document may declare further outbounds, so incomplete manifests remove none.
        if !is_complete {
            return Self::KeepCurrent { fallback: outbounds };
        }
        if may_lack_lists { Self::AtLeast(outbounds) } else { Self::Exactly(outbounds) }
    }

    /// The outbounds that the manifests declare without a conflict.
    pub fn declared(&self) -> &[T] {
        match self {
            Self::Exactly(outbounds)
            | Self::AtLeast(outbounds)
            | Self::KeepCurrent { fallback: outbounds } => outbounds,
        }
    }

    fn settled(self) -> Self {
        match self {
            Self::AtLeast(outbounds) => Self::Exactly(outbounds),
            other => other,
        }
    }
}

impl DesiredReach {
    /// The outbounds of the workload `name`. Conflicts are added to `warnings`, with both sources.
    pub(super) fn of(
        set: &ManifestSet,
        name: &str,
        workload: &WorkloadSpec,
        may_lack_lists: bool,
        warnings: &mut Vec<Reason>,
    ) -> Self {
        if !workload.proxy_role().may_have_outbounds() {
            return Self::Listeners(Outbounds::Exactly(Vec::new()));
        }
        match set.declared_reach(name, workload) {
            DeclaredReach::Listeners(MergedOutbounds { resolved, conflicts }) if conflicts.is_empty() => {
                Self::Listeners(Outbounds::without_conflicts(resolved, set.complete, may_lack_lists))
            }
            DeclaredReach::Listeners(MergedOutbounds { resolved, conflicts }) => {
                let until = "until then the task keeps the outbounds that it has";
                let warning = |conflict| Reason::constant(format!("Workload {name}: {conflict}; {until}"));
                warnings.extend(conflicts.iter().map(warning));
                Self::Listeners(Outbounds::KeepCurrent { fallback: resolved })
            }
            DeclaredReach::Backends(backends) => {
                Self::Backends(Outbounds::without_conflicts(backends, set.complete, may_lack_lists))
            }
            DeclaredReach::EveryBackend => Self::EveryBackend(match (set.complete, may_lack_lists) {
                (false, _) => RegisteredBackends::Keep,
                (true, true) => RegisteredBackends::RemoveOnceSettled,
                (true, false) => RegisteredBackends::Remove,
            }),
        }
    }

    /// The outbounds of the workload `name` for a task whose sidecar does not bind the declared backends: they are listeners
    /// where they can be. Otherwise, and where every backend is meant, the task keeps the listeners that it has.
    pub(super) fn as_listeners(
        set: &ManifestSet,
        name: &str,
        workload: &WorkloadSpec,
        may_lack_lists: bool,
        warnings: &mut Vec<Reason>,
    ) -> Self {
        let listening = WorkloadSpec { reach: Reach::Outbounds, ..workload.clone() };
        match Self::of(set, name, &listening, may_lack_lists, warnings) {
            Self::Listeners(outbounds) if outbounds.declared().is_empty() => {
                Self::Listeners(Outbounds::KeepCurrent { fallback: Vec::new() })
            }
            reach => reach,
        }
    }

    /// The services of workloads that the outbounds call.
    pub fn called_services(&self) -> BTreeSet<&ServiceName> {
        match self {
            Self::Listeners(outbounds) => {
                outbounds.declared().iter().filter_map(|outbound| outbound.backend.service()).collect()
            }
            Self::Backends(outbounds) => {
                let named = outbounds.declared().iter().filter_map(ReachableBackend::one);
                named.filter_map(CalledBackend::service).collect()
            }
            Self::EveryBackend(_) => BTreeSet::new(),
        }
    }

    /// Whether the registration has more than is declared only because a list may have left the manifests recently.
    pub fn awaits_settling(&self) -> bool {
        matches!(
            self,
            Self::Listeners(Outbounds::AtLeast(_))
                | Self::Backends(Outbounds::AtLeast(_))
                | Self::EveryBackend(RegisteredBackends::RemoveOnceSettled)
        )
    }

    /// Whether the outbounds of an existing registration stay, whatever they are.
    pub fn keeps_current(&self) -> bool {
        matches!(
            self,
            Self::Listeners(Outbounds::KeepCurrent { .. })
                | Self::Backends(Outbounds::KeepCurrent { .. })
                | Self::EveryBackend(RegisteredBackends::Keep)
        )
    }

    /// The outbounds once no list can have left the manifests recently.
    #[must_use]
    pub fn settled(self) -> Self {
        match self {
            Self::Listeners(outbounds) => Self::Listeners(outbounds.settled()),
            Self::Backends(outbounds) => Self::Backends(outbounds.settled()),
            Self::EveryBackend(RegisteredBackends::RemoveOnceSettled) => {
                Self::EveryBackend(RegisteredBackends::Remove)
            }
            other @ Self::EveryBackend(_) => other,
        }
    }
}
