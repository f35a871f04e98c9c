//! The report of a plan: the changes that a run would make or withhold, with reasons. Text for people ([`render`]), JSON for
//! machines; the JSON's schema is generated from these types.

mod creates;
mod groups;
mod object;
mod render;
mod upgrade;
mod verdict;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::FieldChange;
use ecs_mesh_model::{Reason, TaskArn, Timestamp};

pub use object::{ObjectKind, PlannedKind, StoredKind};
pub use render::{PlanDetail, render};
pub use upgrade::{PlannedUpgrade, UpgradeBlocker, UpgradeBlockerKind, UpgradeCheck};
pub use verdict::TaskVerdict;

/// The change that a run would make to a registration or an object, or the kind of reason for none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Change {
    /// Register the task, or create the object.
    Create,
    /// Change the fields that differ.
    Update,
    /// Take the registration out of load balancing. It stays registered for a while.
    Drain,
    /// Remove the registration or the object.
    Remove,
    /// Protect the task from deployments and scale-in, at ECS, until its replacements are ready in the mesh.
    Protect,
    /// The task role does not allow the task in the mesh.
    Reject,
    /// No change: manifests contradict each other, or a precondition is not met.
    Hold,
    /// The name belongs to another owner.
    NameConflict,
    /// No change: an owned object that is no longer declared, or an object of another owner.
    Unmanaged,
    /// The change could not be determined.
    Unknown,
    /// The task is outside the operator's bindings and workloads.
    Ignore,
    /// The registration or object is as declared.
    Unchanged,
}

impl Change {
    /// All kinds, in the order of a plan.
    pub const ALL: [Self; 12] = [
        Self::Create,
        Self::Update,
        Self::Drain,
        Self::Remove,
        Self::Protect,
        Self::Reject,
        Self::Hold,
        Self::NameConflict,
        Self::Unmanaged,
        Self::Unknown,
        Self::Ignore,
        Self::Unchanged,
    ];

    /// The change as text for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Drain => "drain",
            Self::Remove => "remove",
            Self::Protect => "protect",
            Self::Reject => "reject",
            Self::Hold => "hold",
            Self::NameConflict => "name conflict",
            Self::Unmanaged => "unmanaged",
            Self::Unknown => "unknown",
            Self::Ignore => "ignore",
            Self::Unchanged => "unchanged",
        }
    }

    /// Whether the change is a write.
    pub fn writes(self) -> bool {
        matches!(self, Self::Create | Self::Update | Self::Drain | Self::Remove | Self::Protect)
    }
}

/// The reason why a run withholds a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum BlockedBy {
    /// The binding's lifecycle policy.
    Policy,
    /// The binding's removal guard.
    Guard,
    /// The binding is paused.
    Paused,
    /// The control plane's version is not supported, so nothing is written to it.
    UnsupportedControlPlane,
    /// The control plane's version, or the target version of the plan, has no form for what the manifests declare.
    NotExpressible,
    /// The operator does not own the task's Dataplane (`dataplanes: sidecar` or `observe`).
    DataplaneOwner,
}

impl BlockedBy {
    /// The value in the JSON form.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Policy => "policy",
            Self::Guard => "guard",
            Self::Paused => "paused",
            Self::UnsupportedControlPlane => "unsupportedControlPlane",
            Self::NotExpressible => "notExpressible",
            Self::DataplaneOwner => "dataplaneOwner",
        }
    }
}

/// A planned change of one task or one object at one control plane.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlannedChange {
    /// The kind of change.
    pub change: Change,
    /// The reason why a run withholds the change; absent where it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blocked_by: Option<BlockedBy>,
    /// The kind of object; absent where the change is about a task.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<PlannedKind>,
    /// The mesh; absent at Consul, and where the task has no registration and would get none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mesh: Option<String>,
    /// The partition of Consul Enterprise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partition: Option<String>,
    /// The registration's name in the mesh, or the object's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Consul's id of a binding rule (Consul has no names for them).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The task's service, as far as known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// The `MeshBinding` that the change is made for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub binding: Option<String>,
    /// The reason, for people.
    pub reason: String,
    /// The cause, equal for all changes with this cause: the reason without names.
    #[serde(skip)]
    pub key: String,
    /// The evidence of a drain or a removal: `stopping`, `stopped`, `absent`, `role_tags` or `manifests`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evidence: Option<String>,
    /// The confirmation that the change waits for, for people; absent where the next run makes the change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub precondition: Option<String>,
    /// The change that follows without further input, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub follow_up: Option<String>,
    /// The changed fields of an update.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<FieldChange>,
    /// The created registration, in the control plane's form.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registration: Option<Value>,
    /// Side effects of the change, and problems that it does not correct, for people.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

impl PlannedChange {
    /// A change with a constant reason and no further details.
    pub fn new(change: Change, reason: impl Into<String>) -> Self {
        Self::with_reason(change, &Reason::constant(reason))
    }

    /// A change with a reason and no further details.
    pub fn with_reason(change: Change, reason: &Reason) -> Self {
        Self {
            change,
            blocked_by: None,
            kind: None,
            mesh: None,
            partition: None,
            name: None,
            id: None,
            service: None,
            binding: None,
            reason: reason.message.clone(),
            key: reason.key.clone(),
            evidence: None,
            precondition: None,
            follow_up: None,
            fields: Vec::new(),
            registration: None,
            warnings: Vec::new(),
        }
    }

    /// Whether a run would write the change.
    pub fn will_write(&self) -> bool {
        self.change.writes() && self.blocked_by.is_none()
    }
}

/// A [`PlannedChange`] with its control plane and task.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlanEntry {
    /// The `ControlPlane`.
    pub control_plane: Arc<str>,
    /// The task's ARN; absent where the change is about an object.
    #[schemars(with = "Option<String>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskArn>,
    /// The change and its reason.
    #[serde(flatten)]
    pub change: PlannedChange,
}

/// A warning about a task: a valid state that is probably unintended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlanWarning {
    /// The `ControlPlane`.
    pub control_plane: Arc<str>,
    /// The task's ARN.
    pub task: String,
    /// The warning, for people.
    pub message: String,
    /// The cause, equal for all tasks with this cause.
    #[serde(skip)]
    pub key: String,
}

/// An input that could not be read. The plan lacks the changes that depend on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Unresolved {
    /// The input: a control plane, a cluster, or a cluster's tasks.
    pub subject: String,
    /// The failed call, and the next step.
    pub error: String,
}

/// A control plane to which a run writes nothing, removals included.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UnsupportedControlPlane {
    /// The `ControlPlane`.
    pub control_plane: Arc<str>,
    /// Its product and version, those that are supported, and the next step.
    pub reason: String,
}

/// Login tokens of Consul that name no task. The operator does not remove them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UnattributedTokens {
    /// The `ControlPlane`.
    pub control_plane: Arc<str>,
    /// `no_metadata` (the login set no task metadata) or `malformed` (the metadata is unreadable).
    pub reason: &'static str,
    /// The number of tokens.
    pub count: usize,
    /// Accessor ids of some tokens. They are no credentials.
    pub examples: Vec<String>,
}

/// Errors and warnings of the manifests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ManifestsSummary {
    /// The number of files.
    pub files: usize,
    /// Invalid documents. While there are any, nothing is withdrawn because of the manifests.
    pub errors: Vec<String>,
    /// Valid values that are probably unintended.
    pub warnings: Vec<String>,
}

/// The number of changes by kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlanSummary {
    /// Registrations to create.
    pub create: usize,
    /// Registrations to update.
    pub update: usize,
    /// Registrations to drain.
    pub drain: usize,
    /// Registrations to remove.
    pub remove: usize,
    /// Tasks to protect while a deployment replaces them.
    pub protect: usize,
    /// Tasks that are not allowed in the mesh.
    pub reject: usize,
    /// Tasks whose registrations are held.
    pub hold: usize,
    /// Names that belong to another owner.
    pub name_conflict: usize,
    /// Objects that the operator does not manage.
    pub unmanaged: usize,
    /// Tasks whose changes could not be determined.
    pub unknown: usize,
    /// Changes that the policy skips.
    pub skipped_by_policy: usize,
    /// Changes held by a guard.
    pub held_by_guard: usize,
    /// Changes that wait because their binding is paused.
    pub paused: usize,
    /// Changes at control planes that are not supported.
    pub unsupported_control_plane: usize,
    /// Registrations that the control plane's version, or the target version of the plan, cannot express.
    pub not_expressible: usize,
    /// Changes of Dataplanes that the operator does not own.
    pub dataplane_owner: usize,
    /// Tasks outside the operator's bindings and workloads.
    pub ignore: usize,
    /// Registrations that are as declared.
    pub unchanged: usize,
}

/// The report of a plan: the changes that a run would make.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlanReport {
    /// Version of this form; increases when a field changes its meaning or is removed.
    pub schema_version: u32,
    /// The operator's id.
    pub operator: String,
    /// The operator's version.
    pub version: String,
    /// Time of the plan (RFC 3339).
    pub created_at: String,
    /// Whether all inputs were read, all manifests are valid, and all control planes are supported.
    pub complete: bool,
    /// The control planes that are not supported.
    pub unsupported_control_planes: Vec<UnsupportedControlPlane>,
    /// The upgrades that the plan is made for (`--target-version`); absent otherwise.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub upgrades: Vec<PlannedUpgrade>,
    /// The number of changes by kind.
    pub summary: PlanSummary,
    /// The manifests of the plan.
    pub manifests: ManifestsSummary,
    /// Inputs that could not be read.
    pub unresolved: Vec<Unresolved>,
    /// Warnings by task: valid states that are probably unintended.
    pub warnings: Vec<PlanWarning>,
    /// Login tokens that name no task.
    pub unattributed_tokens: Vec<UnattributedTokens>,
    /// All changes, by control plane and task. Unchanged and ignored ones only with `--all`.
    pub changes: Vec<PlanEntry>,
}

/// The version of the JSON form.
pub const SCHEMA_VERSION: u32 = 1;

impl PlanReport {
    /// A report with the changes counted.
    pub fn new(
        operator: &str,
        created_at: Timestamp,
        manifests: ManifestsSummary,
        unresolved: Vec<Unresolved>,
        warnings: Vec<PlanWarning>,
        changes: Vec<PlanEntry>,
    ) -> Self {
        let summary = PlanSummary::of(changes.iter().map(|planned| &planned.change));
        let complete = unresolved.is_empty() && manifests.errors.is_empty() && summary.unknown == 0;
        Self {
            schema_version: SCHEMA_VERSION,
            operator: operator.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            created_at: created_at.to_string(),
            complete,
            unsupported_control_planes: Vec::new(),
            upgrades: Vec::new(),
            summary,
            manifests,
            unresolved,
            warnings,
            unattributed_tokens: Vec::new(),
            changes,
        }
    }

    /// The report with the control planes that are not supported, which make it incomplete.
    #[must_use]
    pub fn with_unsupported(mut self, control_planes: Vec<UnsupportedControlPlane>) -> Self {
        self.complete &= control_planes.is_empty();
        self.unsupported_control_planes = control_planes;
        self
    }

    /// Whether something blocks an upgrade that the plan is made for.
    pub fn blocks_upgrade(&self) -> bool {
        let has_blockers = self.upgrades.iter().any(|upgrade| !upgrade.check.blockers.is_empty());
        has_blockers || (!self.upgrades.is_empty() && self.summary.not_expressible > 0)
    }

    /// The report without unchanged and ignored entries, which stay counted.
    #[must_use]
    pub fn without_unchanged(mut self) -> Self {
        self.changes.retain(|planned| !matches!(planned.change.change, Change::Unchanged | Change::Ignore));
        self
    }

    /// Whether a run would write.
    pub fn will_write(&self) -> bool {
        let PlanSummary { create, update, drain, remove, protect, .. } = self.summary;
        create + update + drain + remove + protect > 0
    }
}

impl PlanSummary {
    fn of<'a>(changes: impl Iterator<Item = &'a PlannedChange>) -> Self {
        let mut summary = Self::default();
        for change in changes {
            *summary.count(change.change, change.blocked_by) += 1;
        }
        summary
    }

    fn count(&mut self, change: Change, blocked_by: Option<BlockedBy>) -> &mut usize {
        match (blocked_by, change) {
            (Some(BlockedBy::Policy), _) => &mut self.skipped_by_policy,
            (Some(BlockedBy::Guard), _) => &mut self.held_by_guard,
            (Some(BlockedBy::Paused), _) => &mut self.paused,
            (Some(BlockedBy::UnsupportedControlPlane), _) => &mut self.unsupported_control_plane,
            (Some(BlockedBy::NotExpressible), _) => &mut self.not_expressible,
            (Some(BlockedBy::DataplaneOwner), _) => &mut self.dataplane_owner,
            (None, Change::Create) => &mut self.create,
            (None, Change::Update) => &mut self.update,
            (None, Change::Drain) => &mut self.drain,
            (None, Change::Remove) => &mut self.remove,
            (None, Change::Protect) => &mut self.protect,
            (None, Change::Reject) => &mut self.reject,
            (None, Change::Hold) => &mut self.hold,
            (None, Change::NameConflict) => &mut self.name_conflict,
            (None, Change::Unmanaged) => &mut self.unmanaged,
            (None, Change::Unknown) => &mut self.unknown,
            (None, Change::Ignore) => &mut self.ignore,
            (None, Change::Unchanged) => &mut self.unchanged,
        }
    }
}

/// The value of a metric label: the change, or the reason why it is withheld.
pub fn label(change: &PlannedChange) -> &'static str {
    match change.blocked_by {
        Some(BlockedBy::Policy) => "skipped_by_policy",
        Some(BlockedBy::Guard) => "held_by_guard",
        Some(BlockedBy::Paused) => "paused",
        Some(BlockedBy::UnsupportedControlPlane) => "unsupported_control_plane",
        Some(BlockedBy::NotExpressible) => "not_expressible",
        Some(BlockedBy::DataplaneOwner) => "dataplane_owner",
        None if change.change == Change::NameConflict => "name_conflict",
        None => change.change.as_str(),
    }
}

/// All values of [`label`].
pub fn labels() -> impl Iterator<Item = &'static str> {
    let blocked = [
        BlockedBy::Policy,
        BlockedBy::Guard,
        BlockedBy::Paused,
        BlockedBy::UnsupportedControlPlane,
        BlockedBy::NotExpressible,
        BlockedBy::DataplaneOwner,
    ];
    let blocked = blocked
        .map(|by| label(&PlannedChange { blocked_by: Some(by), ..PlannedChange::new(Change::Remove, "") }));
    let plain = Change::ALL.map(|change| label(&PlannedChange::new(change, "")));
    plain.into_iter().chain(blocked)
}

/// Control plane, mesh and partition; empty where there is none.
type PlanLocationKey<'a> = (&'a str, &'a str, &'a str);

/// The entries by location.
fn by_location(changes: &[PlanEntry]) -> BTreeMap<PlanLocationKey<'_>, Vec<&PlanEntry>> {
    let mut locations: BTreeMap<PlanLocationKey<'_>, Vec<&PlanEntry>> = BTreeMap::new();
    for planned in changes {
        let mesh = planned.change.mesh.as_deref().unwrap_or_default();
        let partition = planned.change.partition.as_deref().unwrap_or_default();
        locations.entry((&planned.control_plane, mesh, partition)).or_default().push(planned);
    }
    locations
}
