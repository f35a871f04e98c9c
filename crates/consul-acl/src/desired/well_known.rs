//! Owned objects that a manifest may have declared earlier. Distinguishes remains of a removed part from changed objects, and
//! names the manifest change that removes them.

use serde_json::Value;

use super::logins::{CLIENT_POLICY, CLIENT_ROLE, client_key, gateway, service_key};
use super::{ObjectId, RuleKey, enterprise, strip_marks, templates};
use ecs_mesh_api::GatewayKind;
use ecs_mesh_core::intent::GATEWAY_TAG;
use ecs_mesh_core::plan::report::ObjectKind;

/// A binding rule that the operator creates for an auth method.
pub struct WellKnownRule {
    /// The purpose: `service`, `client` or a gateway kind.
    pub what: &'static str,
    /// The key.
    pub key: RuleKey,
    /// The selector.
    pub selector: String,
}

impl RuleKey {
    /// All binding rules that the operator creates for an auth method.
    pub fn all_well_known(auth_method: &str) -> Vec<WellKnownRule> {
        let gateways = GatewayKind::ALL.into_iter().map(|kind| WellKnownRule {
            what: kind.as_str(),
            key: gateway(kind).key(auth_method),
            selector: templates::tag_is(GATEWAY_TAG, kind.as_str()),
        });
        let others = [("service", service_key(auth_method)), ("client", client_key(auth_method))];
        let others = others.map(|(what, key)| WellKnownRule { what, key, selector: String::new() });
        others.into_iter().chain(gateways).collect()
    }

    /// Whether the rule has this description.
    pub fn matches_text(&self, rule: &Value) -> bool {
        strip_marks(text(rule, "Description")) == self.text
    }

    /// Whether the rule has the same binding.
    pub fn binds(&self, rule: &Value) -> bool {
        (text(rule, "BindType"), text(rule, "BindName")) == (self.bind.0, &*self.bind.1)
    }
}

fn text<'v>(rule: &'v Value, field: &str) -> &'v str {
    rule.get(field).and_then(Value::as_str).unwrap_or_default()
}

/// The name of an existing binding rule: the declared name, or else the bound name.
pub fn rule_name(rule: &Value) -> String {
    let method = text(rule, "AuthMethod");
    let made = RuleKey::all_well_known(method);
    let is = |how: fn(&RuleKey, &Value) -> bool| made.iter().find(move |made| how(&made.key, rule));
    let what = is(RuleKey::matches_text).or_else(|| is(RuleKey::binds)).map(|made| made.what);
    format!("{method}/{}", what.unwrap_or_else(|| text(rule, "BindName")))
}

/// The field and value of a `ConsulAuth` that declares the object absent; `None` if no field covers it alone.
pub fn absent_by(id: &ObjectId) -> Option<String> {
    let absent_gateway = |kind: GatewayKind| format!("serviceTokens.absentGateways: [{}]", kind.as_str());
    let of_gateway = || {
        GatewayKind::ALL.into_iter().find(|kind| {
            let made = gateway(*kind);
            match id.kind {
                ObjectKind::Role => *id.name == *made.role,
                ObjectKind::Policy => made.policy.is_some_and(|(name, _)| *id.name == *name),
                ObjectKind::BindingRule => id.name.ends_with(&format!("/{}", kind.as_str())),
                _ => false,
            }
        })
    };
    match (id.kind, &*id.name) {
        (ObjectKind::Role, CLIENT_ROLE) | (ObjectKind::Policy, CLIENT_POLICY) => {
            Some("clientTokens.state: absent".to_owned())
        }
        (ObjectKind::Policy, templates::ANONYMOUS_POLICY) => Some("anonymousPolicy: absent".to_owned()),
        (ObjectKind::Policy, enterprise::CROSS_NAMESPACE) => {
            Some("enterprise.crossNamespace: absent".to_owned())
        }
        (ObjectKind::Policy, enterprise::CROSS_PARTITION) => {
            Some("enterprise.crossPartition: absent".to_owned())
        }
        _ => of_gateway().map(absent_gateway),
    }
}

/// Whether users attach their own policies to this role.
pub fn allows_extra_policies(role: &str) -> bool {
    GatewayKind::ALL.into_iter().map(gateway).any(|kind| kind.policy.is_none() && kind.role == role)
}
