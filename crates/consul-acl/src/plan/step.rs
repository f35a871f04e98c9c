//! What is to be done with one object, and why; a plan shows it as it shows what is done with a task's registration.

use std::sync::Arc;

use serde_json::Value;

use crate::desired::ObjectId;
use ecs_mesh_core::plan::FieldChange;
use ecs_mesh_core::plan::report::ObjectKind;
use ecs_mesh_core::plan::report::{Change, PlannedChange};

/// One object's part of a plan.
#[derive(Clone, Debug, PartialEq)]
pub struct AclStep {
    /// Which object. Of two binding rules that do the same both have this, and differ in `server_id`.
    pub id: ObjectId,
    /// The id by which Consul knows policies, roles and rules; `None` for what is not there or has none.
    pub server_id: Option<Arc<str>>,
    /// What is to be done.
    pub action: AclAction,
    /// Why, for a person.
    pub reason: String,
    /// What comes with it, or is not mended by it, for a person.
    pub warnings: Vec<String>,
    /// The server's copy that this rests on: a write is right only while it still looks like that.
    pub before: Option<Value>,
}

/// What is to be done with an object.
#[derive(Clone, Debug, PartialEq)]
pub enum AclAction {
    /// It is made.
    Create {
        /// As it is sent.
        body: Value,
    },
    /// Fields are put right.
    Update {
        /// Which.
        fields: Vec<FieldChange>,
        /// As it is sent: the whole object, for Consul replaces it.
        body: Value,
    },
    /// It is removed.
    Remove,
    /// It is in the way and not ours.
    Conflict {
        /// What would be put right if it were.
        difference: Vec<FieldChange>,
    },
    /// It is not as declared, and cannot be put right before something else is.
    Drifted {
        /// What would be put right.
        difference: Vec<FieldChange>,
    },
    /// It is ours and not declared, and gives more than anybody declared: it is reported, and nothing is done.
    Undeclared,
    /// It is reported, and nothing is done.
    Unmanaged,
    /// Something must come first.
    Hold,
    /// It is as it should be.
    Unchanged,
    /// It could not be read.
    Unknown,
}

impl AclStep {
    /// Whether a run would write it.
    pub fn writes(&self) -> bool {
        matches!(
            self.action,
            AclAction::Create { .. } | AclAction::Update { .. } | AclAction::Remove
        )
    }

    /// As a line of a plan.
    pub fn into_plan_entry(self) -> PlannedChange {
        let (change, fields, registration) = match self.action {
            AclAction::Create { body } => (Change::Create, Vec::new(), Some(body)),
            AclAction::Update { fields, .. } => (Change::Update, fields, None),
            AclAction::Remove => (Change::Remove, Vec::new(), None),
            AclAction::Conflict { difference } => (Change::NameConflict, difference, None),
            AclAction::Drifted { difference } => (Change::Hold, difference, None),
            AclAction::Undeclared | AclAction::Unmanaged => (Change::Unmanaged, Vec::new(), None),
            AclAction::Hold => (Change::Hold, Vec::new(), None),
            AclAction::Unchanged => (Change::Unchanged, Vec::new(), None),
            AclAction::Unknown => (Change::Unknown, Vec::new(), None),
        };
        PlannedChange {
            kind: Some(self.id.kind),
            partition: self.id.scope.partition.as_deref().map(str::to_owned),
            id: self.server_id.filter(|_| self.id.kind == ObjectKind::BindingRule).map(|id| id.to_string()),
            name: Some(self.id.name.as_ref().to_owned()),
            fields,
            registration,
            warnings: self.warnings,
            ..PlannedChange::new(change, self.reason)
        }
    }

    /// In the order in which steps work: what others rest on is made first, and removed after all that rests on it.
    pub(super) fn rank(&self) -> (u8, u8, &ObjectId, Option<&str>) {
        let is_last = self.action == AclAction::Remove;
        let kind = match (is_last, self.id.kind) {
            (false, kind) => kind as u8,
            (true, ObjectKind::BindingRule) => 0,
            (true, ObjectKind::AuthMethod) => 1,
            (true, ObjectKind::Role) => 2,
            (true, ObjectKind::Policy) => 3,
            (true, _) => 4,
        };
        (u8::from(is_last), kind, &self.id, self.server_id.as_deref())
    }
}
