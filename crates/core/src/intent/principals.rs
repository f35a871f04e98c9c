//! Whom an auth method of type `aws-iam` lets log in: the roles within its bound principals, as Consul decides it.
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
    /// Whether one of them is the role; or, with the role's details, the role's beginning and then `*`. Without details
    /// Consul knows the role by its name alone, without its path, and takes `*` for a letter.
    pub fn allows(&self, role: &RoleArn) -> bool {
        let known_as = self.login_arn(role);
        self.arns.iter().any(|arn| {
            let begins = || arn.strip_suffix('*').is_some_and(|start| known_as.starts_with(start));
            *arn == known_as || (self.entity_details && arn.len() > 1 && begins())
        })
    }

    /// The ARN by which the auth method knows the role.
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
    fn a_role_is_let_in_as_consul_does_it() {
        for (principal, details, role, is_in) in [
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
            assert_eq!(bound.allows(&role), is_in, "{principal} {details} {role}");
        }
    }
}
