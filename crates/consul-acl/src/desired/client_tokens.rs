//! Logins of client agents, for tasks without `consul-dataplane`.

use super::{DesiredObjectsBuilder, DesiredState, RuleKey, templates};
use ecs_mesh_api::{ClientTokens, Presence};
use ecs_mesh_core::plan::report::ObjectKind;

pub(super) const ROLE: &str = "consul-ecs-client-role";
pub(super) const POLICY: &str = "consul-ecs-client-policy";

impl DesiredObjectsBuilder<'_> {
    pub(super) fn client_tokens(&mut self, tokens: &ClientTokens) {
        let policy = self.id(ObjectKind::Policy, POLICY);
        let role = self.id(ObjectKind::Role, ROLE);
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
}

pub(super) fn client_key(auth_method: &str) -> RuleKey {
    RuleKey {
        auth_method: auth_method.into(),
        text: "Bind the client role for ECS client agents",
        bind: ("role", ROLE.into()),
    }
}
