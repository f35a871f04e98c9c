//! What of an update can be done while something that it would add could not be written: what is too much goes now.

use serde_json::{Value, json};

use super::normal;
use super::ensure::{is_link_to, refers_to};
use super::step::{AclAction, AclStep};
use crate::desired::ObjectId;
use ecs_mesh_core::plan::report::ObjectKind;

impl AclStep {
    /// The step without what it would add of these objects, which are not as they should be: what it refers to already
    /// it may go on to. `None` where nothing is left of it, as of an object that is yet to be made.
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
                fields.extend(normal::difference(self.id.kind, before, &json!({ "Policies": links })));
                put(&mut body, "Policies", (!links.is_empty()).then(|| links.into()));
            }
            // Bound to what it is bound to now, or to a role that is not as it should be, it could let in more than anybody
            // declared.
            _ => return None,
        }
        if fields.is_empty() {
            return None;
        }
        let mut step = self.clone();
        step.action = AclAction::Update { fields, body };
        step.warnings.push(format!(
            "not all of it is put right, for something must come first: {first} could not be written"
        ));
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
