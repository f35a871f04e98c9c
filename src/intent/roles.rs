//! Whether a task role's tags let a task into a mesh as a service: the rules that `aws-iam` authentication of
//! Kong Mesh, or an auth method of Consul, will apply when the sidecar starts, applied before.
//!
//! Sources: <https://developer.konghq.com/mesh/iam-authentication/> (role tags `kuma.io/type`, `kuma.io/mesh`,
//! `kuma.io/service`, `kuma.io/workload`; authorised accounts) and
//! <https://developer.hashicorp.com/consul/docs/secure/acl/auth-method/aws-iam> (tags that binding rules use; Consul on
//! ECS names them `consul.hashicorp.com.…`).

use std::fmt;

use super::BoundPrincipals;
use crate::api::RoleTagPolicy;
use crate::model::{MeshName, RoleArn, ServiceName, Tags};

/// Which rule was broken; the label of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// The task has no task role at all.
    NoTaskRole,
    /// The role does not exist.
    NoSuchRole,
    /// The role is of an account that is not authorised.
    Account,
    /// `kuma.io/type` is not `dataplane`.
    Type,
    /// `kuma.io/mesh` is not the mesh.
    Mesh,
    /// `kuma.io/service` names another service.
    Service,
    /// `kuma.io/workload` names another workload.
    Workload,
    /// The role is outside the principals that Consul's auth method lets in.
    BoundPrincipals,
    /// `consul.hashicorp.com.service-name` is missing, or names another service.
    ConsulService,
    /// `consul.hashicorp.com.gateway-kind` is no kind of gateway.
    ConsulGateway,
}

impl Rule {
    /// A bounded label for metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::NoTaskRole => "no_task_role",
            Self::NoSuchRole => "no_such_role",
            Self::Account => "account",
            Self::Type => "kuma.io/type",
            Self::Mesh => "kuma.io/mesh",
            Self::Service => "kuma.io/service",
            Self::Workload => "kuma.io/workload",
            Self::BoundPrincipals => "bound_principals",
            Self::ConsulService => "consul.hashicorp.com.service-name",
            Self::ConsulGateway => "consul.hashicorp.com.gateway-kind",
        }
    }
}

/// What a violation is read from, and so what must have changed where the task was let in before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Basis {
    /// The role's tags alone: no manifest makes them good.
    Tags,
    /// The role's tags beside what the manifests want: either may have changed.
    TagsAndManifests,
    /// The manifests alone: a task keeps the role that it was started with, and a role its account and path.
    Manifests,
}

/// A rule that a role breaks: what was found, what is needed, what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which rule.
    pub rule: Rule,
    /// The role; `None` where the task has none.
    pub role: Option<RoleArn>,
    /// What was found; `None` where the tag is missing.
    pub found: Option<String>,
    /// What is needed; empty where the tag may not be there at all.
    pub needed: String,
}

impl Violation {
    /// What it is read from.
    pub fn basis(&self) -> Basis {
        let is_tagged = self.found.as_ref().is_some_and(|value| !value.is_empty());
        match self.rule {
            Rule::NoTaskRole | Rule::Account | Rule::BoundPrincipals => Basis::Manifests,
            // The role itself is gone, and its tags with it.
            Rule::NoSuchRole | Rule::Type | Rule::ConsulGateway => Basis::Tags,
            Rule::Mesh | Rule::Service | Rule::Workload | Rule::ConsulService if is_tagged => {
                Basis::TagsAndManifests
            }
            Rule::Mesh | Rule::Service | Rule::Workload | Rule::ConsulService => Basis::Tags,
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let role = self.role.as_ref().map_or("", RoleArn::as_str);
        let name = self.role.as_ref().map_or("", RoleArn::name);
        let needed = &self.needed;
        match self.rule {
            Rule::NoTaskRole => write!(
                f,
                "the task has no task role, so it can prove no identity; set taskRoleArn in the task definition \
                 to a role tagged {needed}"
            ),
            Rule::NoSuchRole => {
                write!(f, "role {role} does not exist; create it with tags {needed}, or correct taskRoleArn")
            }
            Rule::Account => write!(
                f,
                "role {role} is of account {}, needed is one of {needed}; add the account to \
                 spec.roleTags.authorizedAccounts of the MeshBinding, or use a role of an authorised account",
                self.found.as_deref().unwrap_or("")
            ),
            Rule::BoundPrincipals => write!(
                f,
                "role {role} is outside what may log in to Consul, {needed}; make the role below such a path, or add it \
                 to spec.serviceTokens.boundPrincipals of the ConsulAuth"
            ),
            Rule::ConsulGateway => {
                let (tag, found) = (self.rule.label(), self.found.as_deref().unwrap_or(""));
                write!(
                    f,
                    "role {role}: tag {tag} is {found:?}, needed is {needed}, or none where the task is no gateway; aws \
                     iam tag-role --role-name {name} --tags Key={tag},Value=KIND, or aws iam untag-role --role-name \
                     {name} --tag-keys {tag}"
                )
            }
            Rule::Type | Rule::Mesh | Rule::Service | Rule::Workload | Rule::ConsulService => {
                let tag = self.rule.label();
                if self.needed.is_empty() {
                    let found = self.found.as_deref().unwrap_or("");
                    return write!(
                        f,
                        "role {role}: tag {tag} is {found:?}, and the task has no workload label; set spec.workload in \
                         its Workload, or aws iam untag-role --role-name {name} --tag-keys {tag}"
                    );
                }
                match &self.found {
                    Some(found) => write!(f, "role {role}: tag {tag} is {found:?}, needed is {needed:?}")?,
                    None => write!(f, "role {role}: tag {tag} is missing, needed is {needed:?}")?,
                }
                write!(f, "; aws iam tag-role --role-name {name} --tags Key={tag},Value={needed}")
            }
        }
    }
}

/// What a task wants to be in a mesh.
#[derive(Clone, Copy)]
pub(super) enum Claim<'a> {
    /// A Dataplane of a service in a mesh.
    Kuma { mesh: &'a MeshName, service: &'a ServiceName, workload: Option<&'a str> },
    /// A service of Consul, of this name where the manifests name one; a gateway, too, where the role says so. The
    /// principals are those that the manifests let in, where they declare any.
    Consul { service: Option<&'a ServiceName>, bound: Option<BoundPrincipals<'a>> },
}

/// The kinds of gateway that Consul on ECS knows.
const GATEWAYS: [&str; 3] = ["api-gateway", "mesh-gateway", "terminating-gateway"];

/// What a role must allow.
pub(super) struct RoleRules<'a> {
    pub claim: Claim<'a>,
    pub policy: &'a RoleTagPolicy,
    /// The account that the task runs in: the one that counts where none is named.
    pub task_account: &'a str,
}

impl RoleRules<'_> {
    /// The tags that satisfy the claim, as `KEY=VALUE` text for a person.
    pub(super) fn needed_tags(&self) -> String {
        match self.claim {
            Claim::Kuma { mesh, .. } => format!("kuma.io/type=dataplane, kuma.io/mesh={mesh}"),
            Claim::Consul { service, .. } => {
                let service = service.map_or("SERVICE", ServiceName::as_str);
                format!("{}={service}", Rule::ConsulService.label())
            }
        }
    }

    /// All rules that the role breaks; none means that the task may be in the mesh.
    pub(super) fn violations(&self, role: &RoleArn, tags: &Tags) -> Vec<Violation> {
        let mut found: Vec<Violation> =
            self.account_violation(role).into_iter().chain(self.outside(role)).collect();
        let mut broken = |rule: Rule, needed: String| {
            let value = tags.get(rule.label()).cloned();
            found.push(Violation { rule, role: Some(role.clone()), found: value, needed });
        };
        let tag = |rule: Rule| tags.get(rule.label()).map(String::as_str);
        match self.claim {
            Claim::Kuma { mesh, service, workload } => {
                // (rule, needed value, whether the tag must be there at all)
                let tag_rules = [
                    (Rule::Type, Some("dataplane"), true),
                    (Rule::Mesh, Some(mesh.as_str()), true),
                    (Rule::Service, Some(service.as_str()), false),
                    (Rule::Workload, workload, false),
                ];
                for (rule, needed, must_exist) in tag_rules {
                    if tag(rule).map_or(must_exist, |value| Some(value) != needed) {
                        broken(rule, needed.unwrap_or_default().to_owned());
                    }
                }
            }
            Claim::Consul { service, .. } => {
                if tag(Rule::ConsulGateway).is_some_and(|kind| !GATEWAYS.contains(&kind)) {
                    broken(Rule::ConsulGateway, format!("one of {}", GATEWAYS.join(", ")));
                }
                // Consul makes tags lower case before it binds them to a name. Gateways need one as well: a login that
                // some rule binds to no name is refused whole.
                let wanted = service.map(|service| service.as_str().to_ascii_lowercase());
                let fits = tag(Rule::ConsulService).is_some_and(|named| {
                    wanted.as_ref().map_or(!named.is_empty(), |wanted| named.eq_ignore_ascii_case(wanted))
                });
                if !fits {
                    broken(Rule::ConsulService, wanted.unwrap_or_else(|| "SERVICE".to_owned()));
                }
            }
        }
        found
    }

    fn outside(&self, role: &RoleArn) -> Option<Violation> {
        let Claim::Consul { bound: Some(bound), .. } = self.claim else { return None };
        (!bound.admit(role)).then(|| Violation {
            rule: Rule::BoundPrincipals,
            role: Some(role.clone()),
            found: Some(bound.known_as(role)),
            needed: bound.arns.join(" or "),
        })
    }

    fn account_violation(&self, role: &RoleArn) -> Option<Violation> {
        let accounts = &self.policy.authorized_accounts;
        let needed = if accounts.is_empty() { self.task_account.to_owned() } else { accounts.join(", ") };
        let authorised = if accounts.is_empty() {
            role.account() == self.task_account
        } else {
            accounts.iter().any(|account| account == role.account())
        };
        let found = Some(role.account().to_owned());
        (!authorised).then(|| Violation { rule: Rule::Account, role: Some(role.clone()), found, needed })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(tags: &[(&str, &str)], accounts: &[&str]) -> Vec<Rule> {
        let policy = RoleTagPolicy {
            authorized_accounts: accounts.iter().map(|a| (*a).to_owned()).collect(),
            ..RoleTagPolicy::default()
        };
        let (mesh, service) = (MeshName::default(), ServiceName::parse("kv").unwrap());
        let claim = Claim::Kuma { mesh: &mesh, service: &service, workload: Some("kv") };
        broken(claim, &policy, tags)
    }

    fn broken(claim: Claim<'_>, policy: &RoleTagPolicy, tags: &[(&str, &str)]) -> Vec<Rule> {
        let rules = RoleRules { claim, policy, task_account: "111122223333" };
        let role = RoleArn::parse("arn:aws:iam::111122223333:role/mesh/kv-task").unwrap();
        let tags = tags.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        rules.violations(&role, &tags).into_iter().map(|v| v.rule).collect()
    }

    #[test]
    fn a_consul_role_names_its_service_and_a_gateway_its_kind_as_well() {
        const SERVICE: &str = "consul.hashicorp.com.service-name";
        const GATEWAY: &str = "consul.hashicorp.com.gateway-kind";
        type Row = (&'static [(&'static str, &'static str)], Option<&'static str>, &'static [Rule]);
        let table: [Row; 11] = [
            (&[], None, &[Rule::ConsulService]),
            (&[(SERVICE, "web")], None, &[]),
            (&[(SERVICE, "Web")], Some("web"), &[]),
            (&[(SERVICE, "web")], Some("kv"), &[Rule::ConsulService]),
            (&[(SERVICE, "")], None, &[Rule::ConsulService]),
            (&[(GATEWAY, "mesh-gateway")], None, &[Rule::ConsulService]),
            (&[(SERVICE, "edge"), (GATEWAY, "mesh-gateway")], None, &[]),
            (&[(SERVICE, "edge"), (GATEWAY, "api-gateway")], Some("edge"), &[]),
            (&[(SERVICE, "edge"), (GATEWAY, "terminating-gateway")], Some("edge"), &[]),
            (&[(SERVICE, "edge"), (GATEWAY, "ingress")], None, &[Rule::ConsulGateway]),
            (&[("kuma.io/type", "dataplane")], Some("web"), &[Rule::ConsulService]),
        ];
        for (tags, service, expected) in table {
            let service = service.map(|name| ServiceName::parse(name).unwrap());
            let claim = Claim::Consul { service: service.as_ref(), bound: None };
            assert_eq!(broken(claim, &RoleTagPolicy::default(), tags), expected, "{tags:?} {service:?}");
        }
    }

    #[test]
    fn a_consul_role_is_within_the_bound_principals_where_any_are_declared() {
        // The role is arn:aws:iam::111122223333:role/mesh/kv-task.
        for (principals, details, expected) in [
            (&["arn:aws:iam::111122223333:role/mesh/*"][..], true, &[][..]),
            (&["arn:aws:iam::111122223333:role/mesh/kv-task"], true, &[]),
            (&["arn:aws:iam::111122223333:role/a/*", "arn:aws:iam::111122223333:role/mesh/kv-*"], true, &[]),
            (&["arn:aws:iam::111122223333:role/consul-ecs/*"], true, &[Rule::BoundPrincipals]),
            (&["arn:aws:iam::999988887777:role/mesh/*"], true, &[Rule::BoundPrincipals]),
            (&["arn:aws-cn:iam::111122223333:role/mesh/*"], true, &[Rule::BoundPrincipals]),
            (&["arn:aws:iam::*:role/mesh/*"], true, &[Rule::BoundPrincipals]),
            (&["arn:aws:iam::111122223333:role/kv-task"], true, &[Rule::BoundPrincipals]),
            (&["arn:aws:iam::111122223333:role/kv-task"], false, &[]),
            (&["arn:aws:iam::111122223333:role/mesh/*"], false, &[Rule::BoundPrincipals]),
            (&[], true, &[Rule::BoundPrincipals]),
        ] {
            let arns: Vec<String> = principals.iter().map(|arn| (*arn).to_owned()).collect();
            let bound = Some(BoundPrincipals { arns: &arns, entity_details: details });
            let claim = Claim::Consul { service: None, bound };
            let tags = [("consul.hashicorp.com.service-name", "kv")];
            assert_eq!(broken(claim, &RoleTagPolicy::default(), &tags), expected, "{principals:?} {details}");
        }
    }

    const TYPE: (&str, &str) = ("kuma.io/type", "dataplane");
    const MESH: (&str, &str) = ("kuma.io/mesh", "default");

    #[test]
    fn type_and_mesh_are_enough() {
        assert_eq!(check(&[TYPE, MESH], &[]), []);
    }

    #[test]
    fn each_rule_is_found_broken() {
        type Row = (&'static [(&'static str, &'static str)], &'static [&'static str], &'static [Rule]);
        let table: [Row; 8] = [
            (&[], &[], &[Rule::Type, Rule::Mesh]),
            (&[MESH], &[], &[Rule::Type]),
            (&[("kuma.io/type", "ingress"), MESH], &[], &[Rule::Type]),
            (&[TYPE, ("kuma.io/mesh", "other")], &[], &[Rule::Mesh]),
            (&[TYPE, MESH, ("kuma.io/service", "kv")], &[], &[]),
            (&[TYPE, MESH, ("kuma.io/service", "web")], &[], &[Rule::Service]),
            (&[TYPE, MESH, ("kuma.io/workload", "web")], &[], &[Rule::Workload]),
            (&[TYPE, MESH], &["999988887777"], &[Rule::Account]),
        ];
        for (tags, accounts, expected) in table {
            assert_eq!(check(tags, accounts), expected, "{tags:?} {accounts:?}");
        }
    }

    #[test]
    fn a_violation_names_role_tag_found_needed_and_what_to_do() {
        let violation = Violation {
            rule: Rule::Mesh,
            role: Some(RoleArn::parse("arn:aws:iam::111122223333:role/kv-task").unwrap()),
            found: Some("other".to_owned()),
            needed: "default".to_owned(),
        };
        insta::assert_snapshot!(violation, @r#"role arn:aws:iam::111122223333:role/kv-task: tag kuma.io/mesh is "other", needed is "default"; aws iam tag-role --role-name kv-task --tags Key=kuma.io/mesh,Value=default"#);
    }
}
