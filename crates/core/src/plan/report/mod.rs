//! A plan as a value: what a run would do, what it would leave, and why. For people ([`render`]) and for machines (its
//! JSON form, whose schema is generated from these types).

mod groups;
mod object;
mod render;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::FieldChange;
use ecs_mesh_model::{TaskArn, Timestamp, Reason};

pub use object::ObjectKind;
pub use render::{PlanDetail, render};

/// What a run would do with a registration of a task or an object of the control plane, or why it would do nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Change {
    /// It is not registered, and would be.
    Create,
    /// It is registered, and differs in some fields.
    Update,
    /// It would be taken out of service, and stay registered for a while.
    Drain,
    /// It would be removed.
    Remove,
    /// The task is not allowed in the mesh: the tags of its role forbid it.
    Reject,
    /// Nothing changes: manifests contradict each other, or something must come first.
    Hold,
    /// The name in the mesh belongs to somebody else.
    NameConflict,
    /// It is the operator's own and no longer declared, or not its own: nothing is done to it.
    Unmanaged,
    /// It could not be found out what would be done.
    Unknown,
    /// The task is not the operator's business.
    Ignore,
    /// It is as it should be.
    Unchanged,
}

impl Change {
    /// Every kind, in the order of a plan.
    pub const ALL: [Self; 11] = [
        Self::Create,
        Self::Update,
        Self::Drain,
        Self::Remove,
        Self::Reject,
        Self::Hold,
        Self::NameConflict,
        Self::Unmanaged,
        Self::Unknown,
        Self::Ignore,
        Self::Unchanged,
    ];

    /// The word for people, also the label of a metric.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Drain => "drain",
            Self::Remove => "remove",
            Self::Reject => "reject",
            Self::Hold => "hold",
            Self::NameConflict => "name taken",
            Self::Unmanaged => "left alone",
            Self::Unknown => "unknown",
            Self::Ignore => "ignore",
            Self::Unchanged => "unchanged",
        }
    }

    /// Whether it is a write.
    pub fn writes(self) -> bool {
        matches!(self, Self::Create | Self::Update | Self::Drain | Self::Remove)
    }
}

/// What keeps a run from a change that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum BlockedBy {
    /// The binding's lifecycle policy.
    Policy,
    /// The binding's guard: too much would go at once.
    Guard,
    /// The binding is paused.
    Paused,
}

impl BlockedBy {
    /// The name as the JSON form has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Policy => "policy",
            Self::Guard => "guard",
            Self::Paused => "paused",
        }
    }
}

/// One line of a plan, about one task or one object at one control plane.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlannedChange {
    /// What would be done.
    pub change: Change,
    /// What keeps a run from doing it; absent where nothing does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blocked_by: Option<BlockedBy>,
    /// Which kind of object of the control plane's configuration it is about; absent where it is about a task.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<ObjectKind>,
    /// The mesh; absent where the task has no registration and would get none, and at Consul, which has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mesh: Option<String>,
    /// The partition of Consul Enterprise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partition: Option<String>,
    /// The registration's name in the mesh, or the object's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Consul's id of a binding rule, whose name is the operator's and not Consul's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The service that it is, as far as known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// The `MeshBinding` in whose name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub binding: Option<String>,
    /// Why, for a person.
    pub reason: String,
    /// The same for all items that are so for one cause: what the reason says beside names.
    #[serde(skip)]
    pub key: String,
    /// What a drain or a removal rests on: `stopping`, `stopped`, `absent`, `role_tags` or `manifests`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evidence: Option<String>,
    /// What must come first, for a person; absent where the next run does it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub precondition: Option<String>,
    /// What would follow by itself, for a person.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub follow_up: Option<String>,
    /// The fields of an update.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<FieldChange>,
    /// What would be created, as the control plane would hold it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registration: Option<Value>,
    /// What comes with it, or is not mended by it, for a person.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

impl PlannedChange {
    /// With nothing but what and why.
    pub fn new(change: Change, reason: impl Into<String>) -> Self {
        Self::with_reason(change, &Reason::constant(reason))
    }

    /// With nothing but what and why.
    pub fn with_reason(change: Change, error: &Reason) -> Self {
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
            reason: error.message.clone(),
            key: error.key.clone(),
            evidence: None,
            precondition: None,
            follow_up: None,
            fields: Vec::new(),
            registration: None,
            warnings: Vec::new(),
        }
    }

    /// Whether a run would write it.
    pub fn will_write(&self) -> bool {
        self.change.writes() && self.blocked_by.is_none()
    }
}

/// An [`PlannedChange`] with its place.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlanEntry {
    /// The `ControlPlane`.
    pub control_plane: Arc<str>,
    /// The task's ARN; absent where the item is about an object.
    #[schemars(with = "Option<String>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskArn>,
    /// What and why.
    #[serde(flatten)]
    pub change: PlannedChange,
}

/// Something about a task that is allowed and most likely not meant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlanWarning {
    /// The `ControlPlane`.
    pub control_plane: Arc<str>,
    /// The task's ARN.
    pub task: String,
    /// For a person.
    pub message: String,
    /// The same for all tasks that it is true of for one cause.
    #[serde(skip)]
    pub key: String,
}

/// Something that could not be found out, so that a part of the plan is missing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Unresolved {
    /// What: a control plane, a cluster, or the tasks of one.
    pub subject: String,
    /// The failed call, and what to do about it.
    pub error: String,
}

/// Login tokens of Consul that name no task: nobody removes them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UnattributedTokens {
    /// The `ControlPlane`.
    pub control_plane: Arc<str>,
    /// `no_metadata` (the login said nothing of its task) or `malformed` (what it said cannot be read).
    pub reason: &'static str,
    /// How many there are.
    pub count: usize,
    /// The accessor ids of some of them, which open nothing.
    pub examples: Vec<String>,
}

/// What stands in the way in the manifests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ManifestsSummary {
    /// Files read.
    pub files: usize,
    /// What keeps documents from being in force. While there are any, nothing is withdrawn because of the manifests.
    pub errors: Vec<String>,
    /// What is valid and most likely not meant.
    pub warnings: Vec<String>,
}

/// How many of what.
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
    /// Tasks that are not allowed in the mesh.
    pub reject: usize,
    /// Tasks that are held as they are.
    pub hold: usize,
    /// Names that belong to somebody else.
    pub name_conflict: usize,
    /// Objects that nothing is done to, and a person should know of.
    pub unmanaged: usize,
    /// Tasks of which it could not be found out.
    pub unknown: usize,
    /// Changes that the policy skips.
    pub skipped_by_policy: usize,
    /// Changes that a guard holds back.
    pub held_by_guard: usize,
    /// Changes that wait because their binding is paused.
    pub paused: usize,
    /// Tasks that are not the operator's business.
    pub ignore: usize,
    /// Registrations that are as they should be.
    pub unchanged: usize,
}

/// What a run would do.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlanReport {
    /// Of this form; grows when a field changes its meaning or goes.
    pub schema_version: u32,
    /// The operator's id.
    pub operator: String,
    /// The operator's version.
    pub version: String,
    /// When it was made (RFC 3339).
    pub created_at: String,
    /// Whether everything could be found out and all manifests are valid.
    pub complete: bool,
    /// How many of what.
    pub summary: PlanSummary,
    /// The manifests that it was made by.
    pub manifests: ManifestsSummary,
    /// What could not be found out.
    pub unresolved: Vec<Unresolved>,
    /// What is allowed and most likely not meant, by task.
    pub warnings: Vec<PlanWarning>,
    /// Login tokens that nobody looks after, since they name no task.
    pub unattributed_tokens: Vec<UnattributedTokens>,
    /// All items, by control plane and task; those that are unchanged or ignored only where asked for.
    pub changes: Vec<PlanEntry>,
}

/// The version of the JSON form.
pub const SCHEMA_VERSION: u32 = 1;

impl PlanReport {
    /// Adds up.
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
            summary,
            manifests,
            unresolved,
            warnings,
            unattributed_tokens: Vec::new(),
            changes,
        }
    }

    /// Without the items that nobody need look at; they stay counted.
    #[must_use]
    pub fn without_unchanged(mut self) -> Self {
        self.changes.retain(|planned| !matches!(planned.change.change, Change::Unchanged | Change::Ignore));
        self
    }

    /// Whether a run would write anything.
    pub fn will_write(&self) -> bool {
        let PlanSummary { create, update, drain, remove, .. } = self.summary;
        create + update + drain + remove > 0
    }
}

impl PlanSummary {
    fn of<'a>(changes: impl Iterator<Item = &'a PlannedChange>) -> Self {
        let mut summary = Self::default();
        for item in changes {
            *summary.count(item.change, item.blocked_by) += 1;
        }
        summary
    }

    fn count(&mut self, change: Change, blocked_by: Option<BlockedBy>) -> &mut usize {
        match (blocked_by, change) {
            (Some(BlockedBy::Policy), _) => &mut self.skipped_by_policy,
            (Some(BlockedBy::Guard), _) => &mut self.held_by_guard,
            (Some(BlockedBy::Paused), _) => &mut self.paused,
            (None, Change::Create) => &mut self.create,
            (None, Change::Update) => &mut self.update,
            (None, Change::Drain) => &mut self.drain,
            (None, Change::Remove) => &mut self.remove,
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

/// A label for metrics: the change, or what blocks it.
pub fn label(change: &PlannedChange) -> &'static str {
    match change.blocked_by {
        Some(BlockedBy::Policy) => "skipped_by_policy",
        Some(BlockedBy::Guard) => "held_by_guard",
        Some(BlockedBy::Paused) => "paused",
        None if change.change == Change::NameConflict => "name_conflict",
        None if change.change == Change::Unmanaged => "unmanaged",
        None => change.change.as_str(),
    }
}

/// Every value of [`label`].
pub fn labels() -> impl Iterator<Item = &'static str> {
    let blocked = [BlockedBy::Policy, BlockedBy::Guard, BlockedBy::Paused]
        .map(|by| label(&PlannedChange { blocked_by: Some(by), ..PlannedChange::new(Change::Remove, "") }));
    let plain = Change::ALL.map(|change| label(&PlannedChange::new(change, "")));
    plain.into_iter().chain(blocked)
}

/// Control plane, mesh and partition, as far as there are any.
type PlaceKey<'a> = (&'a str, &'a str, &'a str);

/// Items by their place.
fn by_place(changes: &[PlanEntry]) -> BTreeMap<PlaceKey<'_>, Vec<&PlanEntry>> {
    let mut places: BTreeMap<PlaceKey<'_>, Vec<&PlanEntry>> = BTreeMap::new();
    for planned in changes {
        let mesh = planned.change.mesh.as_deref().unwrap_or_default();
        let partition = planned.change.partition.as_deref().unwrap_or_default();
        places.entry((&planned.control_plane, mesh, partition)).or_default().push(planned);
    }
    places
}
