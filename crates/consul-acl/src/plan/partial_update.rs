//! The part of an update that is possible while an addition is blocked: excess is removed now.

use serde_json::{Value, json};

use super::ensure::{is_link_to, refers_to};
use super::step::{AclAction, AclStep};
use crate::desired::ObjectId;
use crate::normalise;
use ecs_mesh_core::plan::report::ObjectKind;

impl AclStep {
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
}

fn put(body: &mut Value, field: &str, value: Option<Value>) {
    match (body.as_object_mut(), value) {
        (Some(fields), Some(value)) => drop(fields.insert(field.to_owned(), value)),
        (Some(fields), None) => drop(fields.remove(field)),
        (None, _) => {}
    }
}
