//! Logins of client agents, as set-ups without `consul-dataplane` had them.

use super::{ObjectKind, Objects, RuleKey, Want, texts};
use crate::api::{ClientTokens, Presence};

const ROLE: &str = "consul-ecs-client-role";
const POLICY: &str = "consul-ecs-client-policy";

impl Objects<'_> {
    pub(super) fn client_tokens(&mut self, tokens: &ClientTokens) {
        let policy = self.id(ObjectKind::Policy, POLICY);
        let role = self.id(ObjectKind::Role, ROLE);
        let method = self.id(ObjectKind::AuthMethod, &tokens.auth_method);
        let rule = self.id(ObjectKind::BindingRule, &format!("{}/client", tokens.auth_method));
        let key = RuleKey {
            auth_method: tokens.auth_method.as_str().into(),
            text: "Bind the client role for ECS client agents",
            bind: ("role", ROLE.into()),
        };
        if tokens.state == Presence::Absent {
            self.no_rule(&rule, key);
            for id in [method, role, policy] {
                self.add(id, Want::Absent);
            }
            return;
        }
        let rules = texts::client_rules(&self.around.edition);
        self.policy(&policy, "Consul Client Token Policy for ECS", &rules);
        self.role(&role, "Consul Client Token Role for ECS", &[policy]);
        self.method(&method, "AWS IAM auth method for ECS client tokens", tokens.login(), &[]);
        self.rule(&rule, key, "");
    }
}
