//! The step for one object. A plan shows steps like changes of a task's registration.

use std::sync::Arc;

use serde_json::{Value, json};

use super::ensure::{is_link_to, refers_to};
use crate::desired::ObjectId;
use crate::normalise;
use ecs_mesh_core::plan::FieldChange;
use ecs_mesh_core::plan::report::ObjectKind;
use ecs_mesh_core::plan::report::{Change, PlannedChange};

/// The planned step for one object.
#[derive(Clone, Debug, PartialEq)]
pub struct AclStep {
    /// The object. Two binding rules that do the same have the same id and differ in `server_id`.
    pub id: ObjectId,
    /// Consul's id of a policy, role or rule; `None` for a missing object or one without an id.
    pub server_id: Option<Arc<str>>,
    /// The action.
    pub action: AclAction,
    /// The reason, for people.
    pub reason: String,
    /// Side effects, and effects that the step does not undo, for people.
    pub warnings: Vec<String>,
    /// The server's copy on which the step is based. The write is valid only while the copy is unchanged.
    pub before: Option<Value>,
}

/// The action for an object.
#[derive(Clone, Debug, PartialEq)]
pub enum AclAction {
    /// Create.
    Create {
        /// The request body.
        body: Value,
    },
    /// Correct fields.
    Update {
        /// The differing fields.
        fields: Vec<FieldChange>,
        /// The request body: the complete object, since Consul replaces it.
        body: Value,
    },
    /// Remove.
    Remove,
    /// In the way and not owned: no write.
    Conflict {
        /// The fields that would be corrected if it were owned.
        difference: Vec<FieldChange>,
    },
    /// Not as declared, and blocked by a dependency: no write.
    Drifted {
        /// The fields that will be corrected.
        difference: Vec<FieldChange>,
    },
    /// Owned, not declared, and grants more than was ever declared: reported, no write.
    Undeclared,
    /// Reported, no write.
    Unmanaged,
    /// Blocked by a dependency: no write.
    Hold,
    /// As declared.
    Unchanged,
    /// Unreadable.
    Unknown,
}

impl AclStep {
    /// Whether the step writes.
    pub fn writes(&self) -> bool {
        matches!(self.action, AclAction::Create { .. } | AclAction::Update { .. } | AclAction::Remove)
    }

    /// Converts the step to an entry of the plan report.
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
            kind: Some(self.id.kind.into()),
            partition: self.id.scope.partition.as_deref().map(str::to_owned),
            id: self.server_id.filter(|_| self.id.kind == ObjectKind::BindingRule).map(|id| id.to_string()),
            name: Some(self.id.name.as_ref().to_owned()),
            fields,
            registration,
            warnings: self.warnings,
            ..PlannedChange::new(change, self.reason)
        }
    }

    /// The step without new references to these objects, which are not as declared. Existing references stay. `None` if
    /// nothing is left, as for a create.
    pub fn without_references(&self, missing: &[&ObjectId]) -> Option<Self> {
        let (AclAction::Update { fields, body }, Some(before)) = (&self.action, &self.before) else {
            return None;
        };
        let new: Vec<&ObjectId> = missing.iter().copied().filter(|need| !refers_to(before, need)).collect();
        let Some(first) = new.first() else { return Some(self.clone()) };
        let (mut fields, mut body) = (fields.clone(), body.clone());
        match self.id.kind {
            ObjectKind::Role => {
                let links: Vec<Value> = body["Policies"].as_array().cloned().unwrap_or_default();
                let is_new = |link: &Value| new.iter().any(|policy| is_link_to(link, policy));
                let links: Vec<Value> = links.into_iter().filter(|link| !is_new(link)).collect();
                fields.retain(|change| !change.path.starts_with("Policies"));
                fields.extend(normalise::difference(self.id.kind, before, &json!({ "Policies": links })));
                put(&mut body, "Policies", (!links.is_empty()).then(|| links.into()));
            }
            // A rule with its current binding, or bound to a role that is not as declared, could grant undeclared
            // permissions.
            _ => return None,
        }
        if fields.is_empty() {
            return None;
        }
        let mut step = self.clone();
        step.action = AclAction::Update { fields, body };
        step.warnings.push(format!("only partly applied; blocked by {first}, which could not be written"));
        Some(step)
    }

    /// Sort key: dependencies are written first and removed last.
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

fn put(body: &mut Value, field: &str, value: Option<Value>) {
    match (body.as_object_mut(), value) {
        (Some(fields), Some(value)) => drop(fields.insert(field.to_owned(), value)),
        (Some(fields), None) => drop(fields.remove(field)),
        (None, _) => {}
    }
}
