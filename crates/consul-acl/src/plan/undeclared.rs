//! What is there and no declaration spoke of. It stays; and a person is told where it gives logins, or tokens that have
//! it, more than anybody declared.

use serde_json::Value;

use super::actual::ListedKind;
use super::matching::{is_of, name, text};
use super::ensure::linked;
use super::{AclAction, AclPlanner, normal};
use crate::desired::{ObjectId, ObjectOwner, RuleKey, DesiredState, absent_by, allows_extra_policies};
use ecs_mesh_core::plan::report::ObjectKind;

/// The policy that every Consul has, and that lets do everything.
const EVERYTHING: &str = "global-management";

impl<'a> AclPlanner<'a> {
    /// Of ours, and not in the manifest any more; or somebody has made something else of it.
    pub(super) fn undeclared(&mut self, id: &ObjectId, body: &'a Value) {
        let gives = match id.kind {
            ObjectKind::BindingRule => self.rule_gives(body),
            ObjectKind::Role => self.role_gives(id, body),
            _ => None,
        };
        let (action, subject) = match &gives {
            Some(_) => (
                AclAction::Undeclared,
                "it has our mark, and gives what nobody declared: delete it by hand, or",
            ),
            None => (AclAction::Unmanaged, "owned and no longer declared: to have it removed,"),
        };
        let reason = if self.desired.manifests_incomplete {
            // Whoever followed advice by what does not load would cut off every task.
            "it has our mark, and whether it is declared is not known: correct the manifests that are in error"
                .to_owned()
        } else {
            format!("{subject} {}", self.declare_absent(id))
        };
        self.push_found(id, body, action, reason).warnings.extend(gives);
    }

    /// What to write for an object of ours to be removed.
    fn declare_absent(&self, id: &ObjectId) -> String {
        let auth = self.declaring_manifest();
        match (id.kind, absent_by(id)) {
            // A manifest speaks of the rules of its own methods alone.
            (ObjectKind::BindingRule, Some(field)) if self.is_of_a_declared_method(id) => {
                format!("write `{field}` in {auth}")
            }
            (ObjectKind::BindingRule, _) => "delete it by hand (consul acl binding-rule delete)".to_owned(),
            (_, Some(field)) => format!("write `{field}` in {auth}"),
            (ObjectKind::AuthMethod, None) => {
                "delete it by hand (consul acl auth-method delete); all tokens that it gave out go with it"
                    .to_owned()
            }
            (_, None) => format!("delete it by hand; `state: absent` in {auth} removes all of the set-up"),
        }
    }

    fn is_of_a_declared_method(&self, rule: &ObjectId) -> bool {
        self.desired.objects.iter().any(|object| {
            object.id.kind == ObjectKind::AuthMethod
                && rule.name.strip_prefix(&*object.id.name).is_some_and(|subject| subject.starts_with('/'))
        })
    }

    /// The manifest that speaks of the set-up.
    pub(super) fn declaring_manifest(&self) -> String {
        self.desired.declared_by.as_ref().map_or_else(
            || "a ConsulAuth of this control plane".to_owned(),
            |name| format!("ConsulAuth {name}"),
        )
    }

    /// A rule that others made on a method of ours lets in whom it lets in: a person should know of it.
    pub(super) fn foreign_rule(&mut self, id: &ObjectId, body: &'a Value) {
        if id.kind == ObjectKind::BindingRule && self.is_on_a_declared_method(body) {
            let reason = "it is not ours, and not declared";
            self.push_found(id, body, AclAction::Unmanaged, reason).warnings.push(also_get(body));
        }
    }

    fn rule_gives(&self, rule: &Value) -> Option<String> {
        let as_it_was_made = RuleKey::all_well_known(text(rule, "AuthMethod"))
            .iter()
            .any(|made| made.key.binds(rule) && text(rule, "Selector").trim() == made.selector);
        (self.is_on_a_declared_method(rule) && !as_it_was_made).then(|| also_get(rule))
    }

    fn is_on_a_declared_method(&self, rule: &Value) -> bool {
        self.desired.objects.iter().any(|object| {
            object.id.kind == ObjectKind::AuthMethod
                && is_of(rule, &object.id.name)
                && matches!(object.state, DesiredState::Present { .. })
        })
    }

    /// A role of ours has policies of ours, and those that the manifest names.
    fn role_gives(&self, id: &ObjectId, role: &Value) -> Option<String> {
        let is_free = allows_extra_policies(name(id.kind, role));
        let policies = linked(id.kind, role);
        let policies = policies.iter().map(|link| text(link, "Name")).filter(|policy| {
            policy.eq_ignore_ascii_case(EVERYTHING) || !(is_free || self.may_be_on_roles(id, policy))
        });
        let mut gives: Vec<String> = policies.map(|policy| format!("policy {policy}")).collect();
        for field in ["ServiceIdentities", "NodeIdentities", "TemplatedPolicies"] {
            if role.get(field).and_then(Value::as_array).is_some_and(|changes| !changes.is_empty()) {
                gives.push(field.to_owned());
            }
        }
        let given = gives.join(", ");
        (!gives.is_empty()).then(|| {
            format!(
                "tokens that have this role keep it whatever it is called, and get {given}; take that off it"
            )
        })
    }

    fn may_be_on_roles(&self, role: &ObjectId, policy: &str) -> bool {
        let is_named = self.desired.objects.iter().any(|object| match &object.state {
            DesiredState::Present { needs, .. } => needs
                .iter()
                .any(|need| need.kind == ObjectKind::Policy && need.name.eq_ignore_ascii_case(policy)),
            _ => false,
        });
        is_named
            || match self.actual.of(ObjectKind::Policy, &role.scope) {
                ListedKind::Listed(bodies) => bodies.iter().any(|body| {
                    name(ObjectKind::Policy, body).eq_ignore_ascii_case(policy)
                        && self.owner(ObjectKind::Policy, body) == ObjectOwner::Ours
                }),
                // Whose it is is not known, and that is told of by itself.
                ListedKind::Unknown(_) => true,
            }
    }

    /// A rule that is not ours, beside the one of ours that it resembles.
    pub(super) fn foreign_duplicate(&mut self, id: &ObjectId, declared: &Value, body: &'a Value, whose: &str) {
        let does_the_same = normal::does_the_same(id.kind, body, declared);
        let subject = if does_the_same { "it does the same as one of ours" } else { "it resembles one of ours" };
        let warning = (id.kind == ObjectKind::BindingRule && !does_the_same).then(|| also_get(body));
        let step = self.push_found(id, body, AclAction::Unmanaged, format!("{subject}, and {whose}"));
        step.warnings.extend(warning);
    }
}

fn also_get(rule: &Value) -> String {
    format!(
        "logins by auth method {} also get {} {} by this rule; delete it if nobody meant it",
        text(rule, "AuthMethod"),
        text(rule, "BindType"),
        text(rule, "BindName")
    )
}
