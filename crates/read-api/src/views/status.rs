//! The operator itself.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::labels::labels;
use crate::{GuardView, ResourceView, TimeView};

/// The state of the operator.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StatusView {
    /// The operator's id.
    pub operator: Arc<str>,
    /// The program's version.
    pub version: Arc<str>,
    /// When this process started.
    pub started_at: TimeView,
    /// The time of this answer.
    pub now: TimeView,
    /// This process's part.
    pub role: LeaseRoleView,
    /// The copy that leads, as far as this one knows; absent without a lease.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader: Option<Arc<str>>,
    /// The epoch of this copy's own term; absent without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
    /// Whether the operator is ready.
    pub ready: bool,
    /// Unmet readiness conditions.
    pub pending: Vec<String>,
    /// The control planes.
    pub control_planes: Vec<ControlPlaneView>,
    /// The guards of all bindings.
    pub guards: Vec<GuardView>,
    /// The clusters that bindings select.
    pub clusters: Vec<ClusterView>,
    /// The manifests.
    pub manifests: ManifestsView,
    /// The number of objects in each list; absent until the first sweep has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counts: Option<CountsView>,
    /// The history in memory.
    pub history: HistoryView,
}

impl ResourceView for StatusView {
    const KIND: &'static str = "Status";
}

/// This process's part among its copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum LeaseRoleView {
    /// There is no lease: it is the only copy.
    Single,
    /// It writes.
    Leader,
    /// Another copy writes.
    Standby,
}

labels!(LeaseRoleView { Single => "single", Leader => "leader", Standby => "standby", });

/// A control plane.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ControlPlaneView {
    /// The name of the `ControlPlane`.
    pub name: Arc<str>,
    /// Its type.
    #[serde(rename = "type")]
    pub kind: ControlPlaneTypeView,
    /// Product and version, as of the last answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<Arc<str>>,
    /// Whether the version is supported. Otherwise nothing is written.
    pub supported: bool,
    /// Why it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unsupported_reason: Option<String>,
    /// Whether all registrations were listed since the start.
    pub synced: bool,
    /// The circuit.
    pub circuit: CircuitView,
    /// Registrations of this operator.
    pub registrations: usize,
    /// Those that are drained.
    pub drained: usize,
    /// Tasks with an active warning.
    pub tasks_with_warnings: usize,
}

/// The type of a control plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum ControlPlaneTypeView {
    /// Kuma or Kong Mesh.
    Kuma,
    /// Consul.
    Consul,
}

labels!(ControlPlaneTypeView { Kuma => "kuma", Consul => "consul", });

/// The state of a circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum CircuitView {
    /// Calls pass.
    Closed,
    /// The control plane cannot be reached, and no call is sent.
    Open,
    /// One call probes the control plane.
    HalfOpen,
}

labels!(CircuitView { Closed => "closed", Open => "open", HalfOpen => "halfOpen", });

/// A cluster that bindings select.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClusterView {
    /// The cluster's ARN.
    pub arn: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// The AWS account.
    pub account: Arc<str>,
    /// The AWS region.
    pub region: Arc<str>,
    /// The last complete sweep.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_full_sweep: Option<TimeView>,
}

/// The manifests.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ManifestsView {
    /// Documents in force.
    pub documents: usize,
    /// Whether the set was loaded without an error and without an unread source.
    pub complete: bool,
    /// Errors in the sources. While there are any, nothing is withdrawn because of the manifests.
    pub errors: Vec<String>,
    /// Warnings in the sources.
    pub warnings: Vec<String>,
    /// The sources that could not be read.
    pub unread: Vec<String>,
}

/// Numbers of objects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CountsView {
    /// Tasks, ignored ones left out.
    pub tasks: usize,
    /// Services.
    pub services: usize,
    /// Bindings.
    pub bindings: usize,
    /// Identities.
    pub identities: usize,
    /// Outbounds.
    pub outbounds: usize,
    /// Active warnings, by cause.
    pub warnings: usize,
    /// Changes in the history.
    pub changes: usize,
}

/// The history in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HistoryView {
    /// Changes in it.
    pub changes: usize,
    /// Most entries: changes and warnings together.
    pub capacity: usize,
    /// The time of the oldest entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest: Option<TimeView>,
}
