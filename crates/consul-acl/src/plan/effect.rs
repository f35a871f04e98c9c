//! Whether a step took effect whose answer was lost, as what is there now shows.

use serde_json::Value;

use super::actual::{ActualObjects, Read};
use super::matching::{name, text};
use super::normal;
use super::step::{ObjectAction, ObjectStep};
use ecs_mesh_core::plan::proposal::ObjectKind;

impl ActualObjects {
    /// `None` where what is there could not be read.
    pub fn shows(&self, step: &ObjectStep) -> Option<bool> {
        let id = &step.id;
        if self.unread(id).is_some() {
            return None;
        }
        let Read::Listed(bodies) = self.of(id.kind, &id.scope) else { return None };
        let mut there = bodies.iter().filter(|body| is_it(step, body));
        Some(match &step.action {
            ObjectAction::Remove => there.next().is_none(),
            ObjectAction::Create { body } | ObjectAction::Update { body, .. } => {
                there.any(|found| normal::difference(id.kind, found, body).is_empty())
            }
            _ => false,
        })
    }
}

/// Whether the object may be the step's.
fn is_it(step: &ObjectStep, body: &Value) -> bool {
    match (&step.server_id, step.id.kind) {
        (Some(id), _) => text(body, "ID") == &**id,
        // A rule that was made is known by what was sent.
        (None, ObjectKind::BindingRule) => true,
        (None, kind) => step.id.name.eq_ignore_ascii_case(name(kind, body)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::desired::{ObjectId, Scope};

    fn step(kind: ObjectKind, server_id: Option<&str>, action: ObjectAction) -> ObjectStep {
        let id = ObjectId { kind, scope: Scope::default(), name: "x".into() };
        let server_id = server_id.map(Into::into);
        ObjectStep { id, server_id, action, reason: String::new(), warnings: Vec::new(), before: None }
    }

    fn shows(step: &ObjectStep, there: Vec<Value>) -> Option<bool> {
        let mut actual = ActualObjects::default();
        actual.listed(step.id.kind, Scope::default(), there);
        actual.shows(step)
    }

    #[test]
    fn what_is_there_tells_whether_a_write_took_effect() {
        use ObjectKind::{BindingRule, Namespace, Policy, Role};
        let create = |body| ObjectAction::Create { body };
        let update = |body| ObjectAction::Update { fields: Vec::new(), body };
        let role = json!({"Name": "x", "Policies": [{"Name": "a"}]});
        let stored = json!({"ID": "1", "Name": "X", "Policies": [{"ID": "9", "Name": "A"}], "Hash": "h"});
        let namespace = json!({"Name": "x", "ACLs": {"PolicyDefaults": [{"Name": "a"}]}});
        let of_namespace = json!({"Name": "x", "ACLs": {"PolicyDefaults": [{"ID": "9", "Name": "a"}]}});
        let rule = json!({"AuthMethod": "m", "Description": "d"});
        for (what, step, there, expected) in [
            ("made", step(Role, None, create(role.clone())), vec![stored.clone()], true),
            ("never made", step(Role, None, create(role.clone())), vec![], false),
            ("changed", step(Role, Some("1"), update(role.clone())), vec![stored.clone()], true),
            ("another", step(Role, Some("2"), update(role)), vec![stored], false),
            (
                "otherwise",
                step(Policy, Some("1"), update(json!({"Rules": "a"}))),
                vec![json!({"ID": "1", "Name": "x", "Rules": "b"})],
                false,
            ),
            ("a rule", step(BindingRule, None, create(rule.clone())), vec![rule.clone()], true),
            ("another rule", step(BindingRule, None, create(rule)), vec![json!({"AuthMethod": "n"})], false),
            ("linked", step(Namespace, None, update(namespace)), vec![of_namespace], true),
            ("gone", step(Policy, Some("1"), ObjectAction::Remove), vec![], true),
            (
                "still there",
                step(Policy, Some("1"), ObjectAction::Remove),
                vec![json!({"ID": "1", "Name": "x"})],
                false,
            ),
        ] {
            assert_eq!(shows(&step, there), Some(expected), "{what}");
        }
    }

    #[test]
    fn what_could_not_be_read_tells_nothing() {
        let removal = step(ObjectKind::Policy, Some("1"), ObjectAction::Remove);
        let mut actual = ActualObjects::default();
        actual.unlisted(ObjectKind::Policy, Scope::default(), "403");
        assert_eq!(actual.shows(&removal), None);
        actual.listed(ObjectKind::Policy, Scope::default(), Vec::new());
        actual.could_not_read(removal.id.clone(), "403");
        assert_eq!(actual.shows(&removal), None);
    }
}
