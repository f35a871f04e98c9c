//! Plans undeclared objects. They stay; those that grant logins or tokens undeclared permissions are reported.

use serde_json::Value;

use super::actual::ListedKind;
use super::ensure::{linked, missing_part};
use super::matching::{is_of, name, text};
use super::{AclAction, AclPlanner};
use crate::desired::{
    DesiredState, ObjectId, ObjectOwner, RuleKey, absent_by, allows_extra_policies, taken_over,
};
use crate::normalise;
use ecs_mesh_core::plan::report::ObjectKind;

/// Consul's built-in policy with all permissions.
const EVERYTHING: &str = "global-management";

impl<'a> AclPlanner<'a> {
    /// An owned object that is no longer declared, or was changed so that it does not match.
    pub(super) fn undeclared(&mut self, id: &ObjectId, body: &'a Value) {
        let gives = match id.kind {
            ObjectKind::BindingRule => self.rule_gives(body),
            ObjectKind::Role => self.role_gives(id, body),
            _ => None,
        };
        let (action, subject) = match &gives {
            Some(_) => (
                AclAction::Undeclared,
                "owned by this operator but grants undeclared permissions: delete it manually, or",
            ),
            None => (AclAction::Unmanaged, "owned and no longer declared: to remove it,"),
        };
        let reason = if self.desired.manifests_incomplete {
            // Advice based on manifests that do not load could cut off every task.
            "owned, but it is unknown whether it is declared: correct the manifests that are in error"
                .to_owned()
        } else {
            format!("{subject} {}", self.declare_absent(id))
        };
        self.push_found(id, body, action, reason).warnings.extend(gives);
    }

    /// An object of the operator's previous id that is no longer declared. It gets the current id and stays.
    pub(super) fn take_over(&mut self, id: &ObjectId, body: &'a Value) {
        if let Some(field) = missing_part(id.kind, body) {
            return self.unknown(id, &format!("only its list entry is known, which has no {field}"));
        }
        let after = taken_over(id.kind, body, self.operators);
        let fields = normalise::difference(id.kind, body, &after);
        let body_to_send = normalise::sendable(id.kind, &after);
        let action = AclAction::Update { fields, body: body_to_send };
        self.push_found(id, body, action, "owned by the previous operator id");
    }

    /// The manifest change that removes an owned object.
    fn declare_absent(&self, id: &ObjectId) -> String {
        let auth = self.declaring_manifest();
        match (id.kind, absent_by(id)) {
            // A manifest covers only rules of its own auth methods.
            (ObjectKind::BindingRule, Some(field)) if self.is_of_a_declared_method(id) => {
                format!("set `{field}` in {auth}")
            }
            (ObjectKind::BindingRule, _) => "delete it manually (consul acl binding-rule delete)".to_owned(),
            (_, Some(field)) => format!("set `{field}` in {auth}"),
            (ObjectKind::AuthMethod, None) => {
                "delete it manually (consul acl auth-method delete), which also removes all tokens that it issued"
                    .to_owned()
            }
            (_, None) => format!("delete it manually; `state: absent` in {auth} removes all objects"),
        }
    }

    fn is_of_a_declared_method(&self, rule: &ObjectId) -> bool {
        self.desired.objects.iter().any(|object| {
            object.id.kind == ObjectKind::AuthMethod
                && rule.name.strip_prefix(&*object.id.name).is_some_and(|subject| subject.starts_with('/'))
        })
    }

    /// The name of the declaring manifest.
    pub(super) fn declaring_manifest(&self) -> String {
        self.desired.declared_by.as_ref().map_or_else(
            || "a ConsulAuth of this control plane".to_owned(),
            |name| format!("ConsulAuth {name}"),
        )
    }

    /// A foreign rule of an owned auth method grants logins, so it is reported.
    pub(super) fn foreign_rule(&mut self, id: &ObjectId, body: &'a Value) {
        if id.kind == ObjectKind::BindingRule && self.is_on_a_declared_method(body) {
            let reason = "neither owned nor declared";
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

    /// An owned role should have owned policies and those that the manifest names.
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
        (!gives.is_empty())
            .then(|| format!("tokens with this role keep it and get {given}; remove that from the role"))
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
                // The owner is unknown, which is reported separately.
                ListedKind::Unknown(_) => true,
            }
    }

    /// A foreign object that resembles an owned one.
    pub(super) fn foreign_duplicate(
        &mut self,
        id: &ObjectId,
        declared: &Value,
        body: &'a Value,
        owner: &str,
    ) {
        let does_the_same = normalise::does_the_same(id.kind, body, declared);
        let subject =
            if does_the_same { "does the same as an owned object" } else { "resembles an owned object" };
        let warning = (id.kind == ObjectKind::BindingRule && !does_the_same).then(|| also_get(body));
        let step = self.push_found(id, body, AclAction::Unmanaged, format!("{subject}, but {owner}"));
        step.warnings.extend(warning);
    }
}

fn also_get(rule: &Value) -> String {
    format!(
        "logins by auth method {} also get {} {} by this rule; delete it unless intended",
        text(rule, "AuthMethod"),
        text(rule, "BindType"),
        text(rule, "BindName")
    )
}
