//! The upgrade of a control plane that a plan is made for, and what blocks it.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Serialize;

/// The upgrade of a control plane that a plan is made for: its changes are those of a run right after the upgrade.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlannedUpgrade {
    /// The `ControlPlane`.
    pub control_plane: Arc<str>,
    /// The upgrade and its blockers.
    #[serde(flatten)]
    pub check: UpgradeCheck,
}

/// An upgrade to another version, and what blocks it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UpgradeCheck {
    /// Product and version of the server now.
    pub current_version: String,
    /// The version of the plan.
    pub target_version: String,
    /// Objects that break or lose traffic if the upgrade is made now. Registrations that the target cannot express are not here
    /// but among the changes, as `hold` that is blocked by `notExpressible`.
    pub blockers: Vec<UpgradeBlocker>,
}

/// Resources of one kind that block an upgrade for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UpgradeBlocker {
    /// The kind of reason.
    pub kind: UpgradeBlockerKind,
    /// The mesh; absent where the resources belong to none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mesh: Option<String>,
    /// The type of the resources.
    pub resource: &'static str,
    /// The number of resources.
    pub count: usize,
    /// The names of some of them.
    pub examples: Vec<String>,
    /// The effect on them, for people.
    pub reason: String,
    /// The remedy before the upgrade, for people.
    pub fix: String,
}

/// Kinds of reasons that block an upgrade.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum UpgradeBlockerKind {
    /// A built-in gateway: the target cannot parse it, nor any list that has it.
    BuiltinGateway,
    /// A zone ingress or egress of a type that the target does not have.
    ZoneProxy,
    /// A name that the target refuses.
    Name,
    /// The services of the mesh are tags alone, which the target does not have.
    MeshServicesMode,
    /// A MeshService whose selector the target drops.
    MeshServiceSelector,
    /// The mutual TLS of the mesh, which the target ignores.
    MeshMtls,
    /// A Dataplane of another owner without the label that names its service in the target.
    NoWorkloadLabel,
    /// An inbound whose protocol only a tag names, which the target ignores.
    TagProtocol,
    /// A field of a Dataplane of another owner that the target drops.
    RemovedField,
    /// A value of a Dataplane of another owner that the target refuses: its sidecar cannot register it again.
    RefusedField,
    /// Listeners of one destination, of which the target opens one.
    LostListener,
}
