//! The roles that an auth method of type `aws-iam` admits: those within its bound principals, by Consul's rules.
//!
//! Source: <https://developer.hashicorp.com/consul/docs/secure/acl/auth-method/aws-iam> (`BoundIAMPrincipalARNs`,
//! `EnableIAMEntityDetails`).

use ecs_mesh_model::RoleArn;

/// The bound principals of an auth method.
#[derive(Clone, Copy, Debug)]
pub struct BoundPrincipals<'a> {
    /// `BoundIAMPrincipalARNs`.
    pub arns: &'a [String],
    /// `EnableIAMEntityDetails`.
    pub entity_details: bool,
}

impl BoundPrincipals<'_> {
    /// Whether the principals include the role. With entity details, a trailing `*` matches any rest. Without them, Consul knows
    /// the role by its name without its path, and `*` is an ordinary character.
    pub fn allows(&self, role: &RoleArn) -> bool {
        let login_arn = self.login_arn(role);
        self.arns.iter().any(|arn| {
            let has_prefix = || arn.strip_suffix('*').is_some_and(|start| login_arn.starts_with(start));
            *arn == login_arn || (self.entity_details && arn.len() > 1 && has_prefix())
        })
    }

    /// The ARN of the role as the auth method sees it.
    pub fn login_arn(&self, role: &RoleArn) -> String {
        if self.entity_details {
            return role.to_string();
        }
        format!("arn:{}:iam::{}:role/{}", role.partition(), role.account(), role.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bound_principals_match_as_in_consul() {
        for (principal, details, role, allowed) in [
            ("arn:aws:iam::111122223333:role/consul-ecs/*", true, "consul-ecs/kv", true),
            ("arn:aws:iam::111122223333:role/consul-ecs/*", true, "consul-ecs/team/kv", true),
            ("arn:aws:iam::111122223333:role/consul-ecs/*", true, "kv", false),
            ("arn:aws:iam::111122223333:role/consul-ecs/*", false, "consul-ecs/kv", false),
            ("arn:aws:iam::111122223333:role/consul-ecs/kv", true, "consul-ecs/kv", true),
            ("arn:aws:iam::111122223333:role/*/kv", true, "consul-ecs/kv", false),
            ("arn:aws:iam::111122223333:role/kv", false, "consul-ecs/kv", true),
            ("arn:aws:iam::111122223333:role/kv", true, "consul-ecs/kv", false),
            ("arn:aws:iam::999988887777:role/*", true, "consul-ecs/kv", false),
            ("arn:aws-us-gov:iam::111122223333:role/*", true, "consul-ecs/kv", false),
            ("*", true, "kv", false),
        ] {
            let arns = [principal.to_owned()];
            let bound = BoundPrincipals { arns: &arns, entity_details: details };
            let role = RoleArn::parse(&format!("arn:aws:iam::111122223333:role/{role}")).unwrap();
            assert_eq!(bound.allows(&role), allowed, "{principal} {details} {role}");
        }
    }
}
