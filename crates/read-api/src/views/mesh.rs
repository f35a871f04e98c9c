//! Services, bindings, identities, outbounds, and the graph of them.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::labels::labels;
use crate::{ChangeView, PageItem, ResourceView, TimeView};

/// A service of a mesh.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceView {
    /// The service's name in the mesh.
    pub name: Arc<str>,
    /// The `ControlPlane`.
    pub control_plane: Arc<str>,
    /// The mesh; absent at Consul.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mesh: Option<Arc<str>>,
    /// The state.
    pub state: ServiceStateView,
    /// Its registrations by this operator; Consul's tokens left out.
    pub registrations: RegistrationCountsView,
    /// When the readiness of its registrations was read: the oldest of the readings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub readiness_observed_at: Option<TimeView>,
    /// Its registrations by others; absent where none is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub others: Option<OtherRegistrationsView>,
    /// Its tasks.
    pub tasks: TaskCountsView,
    /// The `Workload`s that declare it.
    pub workloads: Vec<Arc<str>>,
    /// The `MeshBinding`s that own its registrations.
    pub bindings: Vec<Arc<str>>,
    /// The ECS services of its tasks.
    pub ecs_services: Vec<Arc<str>>,
    /// The services that it may call.
    pub outbounds: Vec<Arc<str>>,
    /// The services that may call it.
    pub callers: Vec<Arc<str>>,
    /// Whether a `Workload` declares it.
    pub declared: bool,
}

impl ResourceView for ServiceView {
    const KIND: &'static str = "Service";
}

impl PageItem for ServiceView {
    fn key(&self) -> String {
        format!("{}/{}/{}", self.name, self.control_plane, self.mesh.as_deref().unwrap_or("-"))
    }
}

/// The state of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum ServiceStateView {
    /// The control plane has not been listed since the start, so nothing is known of it.
    NotRead,
    /// All registrations are ready, as far as known, and no task is rejected or held.
    Ok,
    /// A part of it is not ready, or a task is rejected, held or has a warning.
    Degraded,
    /// No registration is ready.
    Down,
    /// Declared or called, and not registered.
    Missing,
    /// In the mesh, and not from the manifests.
    Undeclared,
}

labels!(ServiceStateView {
    NotRead => "notRead",
    Ok => "ok",
    Degraded => "degraded",
    Down => "down",
    Missing => "missing",
    Undeclared => "undeclared",
});

/// The facts that decide the state of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceStateFacts {
    /// Its registrations.
    pub registrations: RegistrationCountsView,
    /// Its tasks.
    pub tasks: TaskCountsView,
    /// A `Workload` declares it, or an outbound names it.
    pub is_expected: bool,
    /// A `Workload` declares it.
    pub is_declared: bool,
    /// Whether the mesh has it, whoever registered it.
    pub presence: ServicePresence,
}

/// Whether a mesh has a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServicePresence {
    /// It has.
    Present,
    /// It has not.
    Absent,
    /// The control plane has not been listed since the start, and nothing else showed the service.
    NotRead,
}

impl ServiceStateView {
    /// The state of a service: the first row that fits.
    ///
    /// | registrations of ours | in the mesh | state |
    /// |---|---|---|
    /// | none, and the control plane was not listed yet | no | not read |
    /// | none | no, declared or called | missing |
    /// | none | yes, no Workload declares it | undeclared |
    /// | none | yes, a Workload declares it | down |
    /// | none ready, all known | | down |
    /// | some not ready, or tasks rejected, held or with warnings | | degraded |
    /// | else | | ok |
    pub fn of(facts: &ServiceStateFacts) -> Self {
        let ServiceStateFacts { registrations, tasks, is_expected, is_declared, presence } = *facts;
        if registrations.total == 0 {
            return match (presence, is_declared) {
                (ServicePresence::NotRead, _) => Self::NotRead,
                (ServicePresence::Absent, _) if is_expected => Self::Missing,
                (_, true) => Self::Down,
                (_, false) => Self::Undeclared,
            };
        }
        if registrations.ready == 0 && registrations.unknown == 0 {
            return Self::Down;
        }
        let has_all = registrations.ready + registrations.unknown == registrations.total;
        if !has_all || tasks.rejected + tasks.held + tasks.warnings > 0 { Self::Degraded } else { Self::Ok }
    }
}

/// Registrations by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RegistrationCountsView {
    /// All.
    pub total: usize,
    /// Those that get traffic.
    pub ready: usize,
    /// Those that this operator took out of load balancing.
    pub drained: usize,
    /// Those whose readiness is not known.
    pub unknown: usize,
}

/// Registrations of a service that are not this operator's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OtherRegistrationsView {
    /// All.
    pub total: usize,
    /// Those that serve, as far as the control plane can tell.
    pub ready: usize,
}

/// Tasks by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TaskCountsView {
    /// All but ignored and stopped ones.
    pub total: usize,
    /// Those whose role does not allow them.
    pub rejected: usize,
    /// Those that are held.
    pub held: usize,
    /// Those for which a fact or a write is outstanding.
    pub pending: usize,
    /// Those with an active warning.
    pub warnings: usize,
    /// Those that are rejected, held or have a warning, each once.
    #[serde(default)]
    pub attention: usize,
}

/// A service with its tasks and history.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceDetailView {
    /// The service.
    #[serde(flatten)]
    pub service: ServiceView,
    /// The ids of its tasks, at most 200; `/tasks?service=` has all.
    pub task_names: Vec<Arc<str>>,
    /// The newest changes, at most 100, the newest first.
    pub history: Vec<ChangeView>,
}

impl ResourceView for ServiceDetailView {
    const KIND: &'static str = "Service";
}

/// A `MeshBinding`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BindingView {
    /// The binding's name.
    pub name: Arc<str>,
    /// Its `ControlPlane`.
    pub control_plane: Arc<str>,
    /// Its mesh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mesh: Option<Arc<str>>,
    /// The names and patterns of its clusters.
    pub clusters: Vec<Arc<str>>,
    /// `spec.policy`.
    pub policy: Arc<str>,
    /// `spec.roleTags.mode`.
    pub role_tags_mode: Arc<str>,
    /// Whether it is paused.
    pub paused: bool,
    /// The number of its tasks.
    pub tasks: usize,
    /// The number of registrations that it owns.
    pub registrations: usize,
    /// Its guard, once it guards something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guard: Option<GuardView>,
}

impl ResourceView for BindingView {
    const KIND: &'static str = "Binding";
}

impl PageItem for BindingView {
    fn key(&self) -> String {
        self.name.to_string()
    }
}

/// The guard of a binding: its limit on removals without the task's own STOPPED, within an hour.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GuardView {
    /// The `ControlPlane`.
    pub control_plane: Arc<str>,
    /// The `MeshBinding`.
    pub binding: Arc<str>,
    /// Whether it holds a removal.
    pub tripped: bool,
    /// Removals within the hour.
    pub withdrawn: usize,
    /// Most removals within an hour.
    pub limit: usize,
    /// Held removals.
    pub held: usize,
    /// Until when a person has released it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release_until: Option<TimeView>,
}

/// An object that stands for a task at a control plane.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IdentityView {
    /// The name of the Dataplane or zone proxy, the id of the catalog service, or the accessor of the token.
    pub name: Arc<str>,
    /// The kind.
    pub kind: IdentityKindView,
    /// The `ControlPlane`.
    pub control_plane: Arc<str>,
    /// The mesh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mesh: Option<Arc<str>>,
    /// The mesh service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<Arc<str>>,
    /// The ARN of the task.
    pub task: Arc<str>,
    /// The ARN of its cluster.
    pub cluster: Arc<str>,
    /// The task role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Arc<str>>,
    /// The state.
    pub state: IdentityStateView,
    /// Since when it is drained, as far as this process knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<TimeView>,
}

impl ResourceView for IdentityView {
    const KIND: &'static str = "Identity";
}

impl PageItem for IdentityView {
    fn key(&self) -> String {
        format!("{}/{}/{}/{}", self.control_plane, self.mesh.as_deref().unwrap_or("-"), self.kind, self.name)
    }
}

/// The kind of an identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum IdentityKindView {
    /// A Dataplane.
    Dataplane,
    /// A zone ingress.
    ZoneIngress,
    /// A zone egress.
    ZoneEgress,
    /// A service in Consul's catalog.
    CatalogService,
    /// A login token of Consul.
    Token,
}

labels!(IdentityKindView {
    Dataplane => "dataplane",
    ZoneIngress => "zoneIngress",
    ZoneEgress => "zoneEgress",
    CatalogService => "catalogService",
    Token => "token",
});

/// The state of an identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum IdentityStateView {
    /// Its task lives.
    Active,
    /// This operator took it out of load balancing.
    Drained,
    /// Its task is gone, or ECS does not show it.
    Orphan,
}

labels!(IdentityStateView { Active => "active", Drained => "drained", Orphan => "orphan", });

/// A declared call from a workload to a service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OutboundView {
    /// The `Workload` that calls.
    pub from: Arc<str>,
    /// The service that is called.
    pub to: Arc<str>,
    /// The `ControlPlane`.
    pub control_plane: Arc<str>,
    /// The mesh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mesh: Option<Arc<str>>,
    /// The port of the destination, where the outbound names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The address on which the sidecar listens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listen: Option<Arc<str>>,
    /// `Workload/NAME` or `OutboundList/NAME`.
    pub declared_by: Arc<str>,
    /// The state.
    pub state: OutboundStateView,
    /// Why it is not `ok`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl ResourceView for OutboundView {
    const KIND: &'static str = "Outbound";
}

impl PageItem for OutboundView {
    fn key(&self) -> String {
        let (mesh, listen) = (self.mesh.as_deref().unwrap_or("-"), self.listen.as_deref().unwrap_or("-"));
        format!("{}/{}/{}/{mesh}/{listen}/{:?}", self.from, self.to, self.control_plane, self.port)
    }
}

/// The state of an outbound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum OutboundStateView {
    /// The services of the mesh have not been read since the start, or the mesh lacks the service for less than a minute.
    NotRead,
    /// The destination has ready registrations, as far as known.
    Ok,
    /// The mesh has no such service.
    UnknownTarget,
    /// The destination has no ready registration.
    NoReadyTarget,
    /// Another outbound with the same listener takes its place.
    Discarded,
}

labels!(OutboundStateView {
    NotRead => "notRead",
    Ok => "ok",
    UnknownTarget => "unknownTarget",
    NoReadyTarget => "noReadyTarget",
    Discarded => "discarded",
});

/// All services and calls.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TopologyView {
    /// The services.
    pub services: Vec<TopologyServiceView>,
    /// The calls between them.
    pub edges: Vec<EdgeView>,
    /// Whether services or calls beyond the limits are left out.
    pub truncated: bool,
}

impl ResourceView for TopologyView {
    const KIND: &'static str = "Topology";
}

/// A service in the graph.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TopologyServiceView {
    /// The service's name in the mesh.
    pub name: Arc<str>,
    /// The `ControlPlane`.
    pub control_plane: Arc<str>,
    /// The mesh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mesh: Option<Arc<str>>,
    /// The state.
    pub state: ServiceStateView,
    /// Its ready registrations.
    pub ready: usize,
    /// Those whose readiness is not known.
    #[serde(default)]
    pub unknown: usize,
    /// All its registrations.
    pub total: usize,
    /// Its registrations by others.
    #[serde(default)]
    pub others: usize,
    /// Its tasks that are rejected, held or have a warning.
    pub trouble: usize,
    /// The first `MeshBinding` of its registrations or workloads, for grouping.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binding: Option<Arc<str>>,
}

/// A call between two services: the index of each in `services`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EdgeView {
    /// The caller.
    pub from: usize,
    /// The service that is called.
    pub to: usize,
    /// The state of the outbound; of several, the worst.
    pub state: OutboundStateView,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn service_state_follows_the_table() {
        use ServiceStateView as S;
        // Total, ready, unknown; troubled tasks; expected, declared, in the mesh.
        for (counts, trouble, expected, declared, in_mesh, state) in [
            ((0, 0, 0), 0, true, true, false, S::Missing),
            ((0, 0, 0), 1, true, true, false, S::Missing),
            ((0, 0, 0), 0, true, false, false, S::Missing),
            ((0, 0, 0), 0, true, false, true, S::Undeclared),
            ((0, 0, 0), 0, false, false, true, S::Undeclared),
            ((0, 0, 0), 0, true, true, true, S::Down),
            ((2, 0, 0), 0, true, true, true, S::Down),
            ((2, 0, 2), 0, true, true, true, S::Ok),
            ((2, 1, 0), 0, true, true, true, S::Degraded),
            ((2, 2, 0), 1, true, true, true, S::Degraded),
            ((2, 2, 0), 0, true, true, true, S::Ok),
        ] {
            let facts = ServiceStateFacts {
                registrations: RegistrationCountsView {
                    total: counts.0,
                    ready: counts.1,
                    drained: 0,
                    unknown: counts.2,
                },
                tasks: TaskCountsView { rejected: trouble, ..TaskCountsView::default() },
                is_expected: expected,
                is_declared: declared,
                presence: if in_mesh { ServicePresence::Present } else { ServicePresence::Absent },
            };
            assert_eq!(ServiceStateView::of(&facts), state, "{facts:?}");
            let unread =
                ServiceStateView::of(&ServiceStateFacts { presence: ServicePresence::NotRead, ..facts });
            assert_eq!(unread, if counts.0 == 0 { S::NotRead } else { state }, "{facts:?}");
        }
    }
}
