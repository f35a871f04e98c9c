//! Determines from a snapshot whether a write with a lost response took effect.

use serde_json::Value;

use super::actual::{ActualObjects, ListedKind};
use super::matching::{name, text};
use super::step::{AclAction, AclStep};
use crate::normalise;
use ecs_mesh_core::plan::report::ObjectKind;

impl ActualObjects {
    /// Whether the step took effect; `None` if the object is unreadable.
    pub fn has_taken_effect(&self, step: &AclStep) -> Option<bool> {
        let id = &step.id;
        if self.unread(id).is_some() {
            return None;
        }
        let ListedKind::Listed(bodies) = self.of(id.kind, &id.scope) else { return None };
        let mut matching = bodies.iter().filter(|body| matches_step(step, body));
        Some(match &step.action {
            AclAction::Remove => matching.next().is_none(),
            AclAction::Create { body } | AclAction::Update { body, .. } => {
                matching.any(|found| normalise::difference(id.kind, found, body).is_empty())
            }
            _ => false,
        })
    }
}

/// Whether the object may be that of the step.
fn matches_step(step: &AclStep, body: &Value) -> bool {
    match (&step.server_id, step.id.kind) {
        (Some(id), _) => text(body, "ID") == &**id,
        // A created rule is recognised by its content.
        (None, ObjectKind::BindingRule) => true,
        (None, kind) => step.id.name.eq_ignore_ascii_case(name(kind, body)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::desired::{ObjectId, ObjectScope};

    fn step(kind: ObjectKind, server_id: Option<&str>, action: AclAction) -> AclStep {
        let id = ObjectId { kind, scope: ObjectScope::default(), name: "x".into() };
        let server_id = server_id.map(Into::into);
        AclStep { id, server_id, action, reason: String::new(), warnings: Vec::new(), before: None }
    }

    fn has_taken_effect(step: &AclStep, there: Vec<Value>) -> Option<bool> {
        let mut actual = ActualObjects::default();
        actual.set_listed(step.id.kind, ObjectScope::default(), there);
        actual.has_taken_effect(step)
    }

    #[test]
    fn snapshot_shows_whether_a_write_took_effect() {
        use ObjectKind::{BindingRule, Namespace, Policy, Role};
        let create = |body| AclAction::Create { body };
        let update = |body| AclAction::Update { fields: Vec::new(), body };
        let role = json!({"Name": "x", "Policies": [{"Name": "a"}]});
        let stored = json!({"ID": "1", "Name": "X", "Policies": [{"ID": "9", "Name": "A"}], "Hash": "h"});
        let namespace = json!({"Name": "x", "ACLs": {"PolicyDefaults": [{"Name": "a"}]}});
        let of_namespace = json!({"Name": "x", "ACLs": {"PolicyDefaults": [{"ID": "9", "Name": "a"}]}});
        let rule = json!({"AuthMethod": "m", "Description": "d"});
        for (subject, step, there, expected) in [
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
            ("gone", step(Policy, Some("1"), AclAction::Remove), vec![], true),
            (
                "still there",
                step(Policy, Some("1"), AclAction::Remove),
                vec![json!({"ID": "1", "Name": "x"})],
                false,
            ),
        ] {
            assert_eq!(has_taken_effect(&step, there), Some(expected), "{subject}");
        }
    }

    #[test]
    fn unreadable_object_leaves_the_result_unknown() {
        let removal = step(ObjectKind::Policy, Some("1"), AclAction::Remove);
        let mut actual = ActualObjects::default();
        actual.mark_unlisted(ObjectKind::Policy, ObjectScope::default(), "403");
        assert_eq!(actual.has_taken_effect(&removal), None);
        actual.set_listed(ObjectKind::Policy, ObjectScope::default(), Vec::new());
        actual.mark_unreadable(removal.id.clone(), "403");
        assert_eq!(actual.has_taken_effect(&removal), None);
    }
}
