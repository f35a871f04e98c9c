//! Logins. For tasks: an auth method, a binding rule for services, and a rule, role and policy for each gateway kind.
//! For client agents, of tasks without `consul-dataplane`: an auth method, a rule, a role and a policy.

use super::{DesiredObjectsBuilder, DesiredState, Edition, ObjectId, RuleKey, templates};
use ecs_mesh_api::{ClientTokens, GatewayKind, Presence, ServiceTokens};
use ecs_mesh_core::intent::{GATEWAY_TAG, SERVICE_TAG};
use ecs_mesh_core::plan::report::ObjectKind;

pub(super) const CLIENT_ROLE: &str = "consul-ecs-client-role";
pub(super) const CLIENT_POLICY: &str = "consul-ecs-client-policy";

/// Names and descriptions of a gateway kind, the same as those of the consul-ecs controller.
pub(super) struct GatewayObjects {
    pub(super) role: &'static str,
    role_text: &'static str,
    rule_text: &'static str,
    /// Terminating gateways get policies that users attach.
    pub(super) policy: Option<(&'static str, &'static str)>,
}

pub(super) fn gateway(kind: GatewayKind) -> GatewayObjects {
    match kind {
        GatewayKind::MeshGateway => GatewayObjects {
            role: "consul-ecs-mesh-gateway-role",
            role_text: "Mesh Gateway Role for ECS",
            rule_text: "Bind a Consul role from IAM role tag for ECS based mesh gateways",
            policy: Some(("consul-ecs-mesh-gateway-policy", "Mesh Gateway token Policy")),
        },
        GatewayKind::TerminatingGateway => GatewayObjects {
            role: "consul-ecs-terminating-gateway-role",
            role_text: "Terminating Gateway Role for ECS",
            rule_text: "Bind a Consul role from IAM role tag for ECS based Terminating gateways",
            policy: None,
        },
        GatewayKind::ApiGateway => GatewayObjects {
            role: "consul-ecs-api-gateway-role",
            role_text: "API Gateway Role for ECS",
            rule_text: "Bind a Consul role from IAM role tag for ECS based API gateways",
            policy: Some(("consul-ecs-api-gateway-policy", "API Gateway token Policy")),
        },
    }
}

impl DesiredObjectsBuilder<'_> {
    pub(super) fn service_tokens(&mut self, tokens: &ServiceTokens) {
        let method = self.id(ObjectKind::AuthMethod, &tokens.auth_method);
        let rule = self.rule_id(tokens, "service");
        let key = service_key(&tokens.auth_method);
        if tokens.state == Presence::Absent {
            self.no_rule(&rule, key);
            self.add(method, DesiredState::Absent);
            for kind in GatewayKind::ALL {
                self.no_gateway(tokens, kind);
            }
            return;
        }
        let description = "AWS IAM auth method for ECS service tokens";
        self.method(&method, description, tokens.login(), &templates::ROLE_TAGS);
        self.rule(&rule, key, "");
        for kind in &tokens.gateways {
            self.gateway(tokens, *kind);
        }
        for kind in &tokens.absent_gateways {
            self.no_gateway(tokens, *kind);
        }
    }

    pub(super) fn client_tokens(&mut self, tokens: &ClientTokens) {
        let policy = self.id(ObjectKind::Policy, CLIENT_POLICY);
        let role = self.id(ObjectKind::Role, CLIENT_ROLE);
        let method = self.id(ObjectKind::AuthMethod, &tokens.auth_method);
        let rule = self.id(ObjectKind::BindingRule, &format!("{}/client", tokens.auth_method));
        let key = client_key(&tokens.auth_method);
        if tokens.state == Presence::Absent {
            self.no_rule(&rule, key);
            for id in [method, role, policy] {
                self.add(id, DesiredState::Absent);
            }
            return;
        }
        let rules = templates::client_rules(&self.context.edition);
        self.policy(&policy, "Consul Client Token Policy for ECS", &rules);
        self.role(&role, "Consul Client Token Role for ECS", &[policy]);
        self.method(&method, "AWS IAM auth method for ECS client tokens", tokens.login(), &[]);
        self.rule(&rule, key, "");
    }

    fn rule_id(&self, tokens: &ServiceTokens, what: &str) -> ObjectId {
        self.id(ObjectKind::BindingRule, &format!("{}/{what}", tokens.auth_method))
    }

    fn gateway(&mut self, tokens: &ServiceTokens, kind: GatewayKind) {
        let gateway = gateway(kind);
        let mut policies = Vec::new();
        if let Some((name, text)) = gateway.policy {
            let policy = self.id(ObjectKind::Policy, name);
            let rules = gateway_rules(kind, &self.context.edition);
            self.policy(&policy, text, &rules);
            policies.push(policy);
        } else {
            let names = &tokens.terminating_gateway_policies;
            policies.extend(names.iter().map(|name| self.id(ObjectKind::Policy, name)));
        }
        let role = self.id(ObjectKind::Role, gateway.role);
        self.role(&role, gateway.role_text, &policies);
        let selector = templates::tag_is(GATEWAY_TAG, kind.as_str());
        self.rule(&self.rule_id(tokens, kind.as_str()), gateway.key(&tokens.auth_method), &selector);
    }

    fn no_gateway(&mut self, tokens: &ServiceTokens, kind: GatewayKind) {
        let gateway = gateway(kind);
        self.no_rule(&self.rule_id(tokens, kind.as_str()), gateway.key(&tokens.auth_method));
        self.add(self.id(ObjectKind::Role, gateway.role), DesiredState::Absent);
        if let Some((name, _)) = gateway.policy {
            self.add(self.id(ObjectKind::Policy, name), DesiredState::Absent);
        }
    }
}

pub(super) fn service_key(auth_method: &str) -> RuleKey {
    RuleKey {
        auth_method: auth_method.into(),
        text: "Bind a service identity from IAM role tag for ECS",
        bind: ("service", templates::from_tag(SERVICE_TAG).into()),
    }
}

pub(super) fn client_key(auth_method: &str) -> RuleKey {
    RuleKey {
        auth_method: auth_method.into(),
        text: "Bind the client role for ECS client agents",
        bind: ("role", CLIENT_ROLE.into()),
    }
}

impl GatewayObjects {
    pub(super) fn key(&self, auth_method: &str) -> RuleKey {
        RuleKey { auth_method: auth_method.into(), text: self.rule_text, bind: ("role", self.role.into()) }
    }
}

fn gateway_rules(kind: GatewayKind, edition: &Edition) -> String {
    match kind {
        GatewayKind::MeshGateway => templates::mesh_gateway_rules(edition),
        GatewayKind::ApiGateway => templates::api_gateway_rules(edition),
        GatewayKind::TerminatingGateway => String::new(),
    }
}
