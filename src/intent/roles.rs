//! Whether a task role's tags let a task into a mesh as a service: the rules that `aws-iam` authentication of
//! Kong Mesh will apply when the sidecar starts, applied before.
//!
//! Source: <https://developer.konghq.com/mesh/iam-authentication/> (role tags `kuma.io/type`, `kuma.io/mesh`,
//! `kuma.io/service`, `kuma.io/workload`; authorised accounts).

use std::fmt;

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
        }
    }
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
            Rule::Type | Rule::Mesh | Rule::Service | Rule::Workload => {
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

/// What a role must allow.
pub(super) struct Claim<'a> {
    pub mesh: &'a MeshName,
    pub service: &'a ServiceName,
    pub workload: Option<&'a str>,
    pub policy: &'a RoleTagPolicy,
    /// The account that the task runs in: the one that counts where none is named.
    pub task_account: &'a str,
}

impl Claim<'_> {
    /// The tags that satisfy the claim, as `KEY=VALUE` text for a person.
    pub(super) fn needed_tags(&self) -> String {
        format!("kuma.io/type=dataplane, kuma.io/mesh={}", self.mesh)
    }

    /// All rules that the role breaks; none means that the task may be registered.
    pub(super) fn violations(&self, role: &RoleArn, tags: &Tags) -> Vec<Violation> {
        let mut found = Vec::new();
        let mut broken = |rule, value: Option<&str>, needed: String| {
            found.push(Violation { rule, role: Some(role.clone()), found: value.map(str::to_owned), needed });
        };
        let accounts = &self.policy.authorized_accounts;
        let authorised = if accounts.is_empty() {
            role.account() == self.task_account
        } else {
            accounts.iter().any(|account| account == role.account())
        };
        if !authorised {
            let allowed =
                if accounts.is_empty() { self.task_account.to_owned() } else { accounts.join(", ") };
            broken(Rule::Account, Some(role.account()), allowed);
        }
        // (rule, needed value, whether the tag must be there at all)
        let tag_rules = [
            (Rule::Type, Some("dataplane"), true),
            (Rule::Mesh, Some(self.mesh.as_str()), true),
            (Rule::Service, Some(self.service.as_str()), false),
            (Rule::Workload, self.workload, false),
        ];
        for (rule, needed, must_exist) in tag_rules {
            let value = tags.get(rule.label()).map(String::as_str);
            let wrong = match value {
                Some(value) => Some(value) != needed,
                None => must_exist,
            };
            if wrong {
                broken(rule, value, needed.unwrap_or_default().to_owned());
            }
        }
        found
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
        let claim = Claim {
            mesh: &MeshName::parse("default").unwrap(),
            service: &ServiceName::parse("kv").unwrap(),
            workload: Some("kv"),
            policy: &policy,
            task_account: "111122223333",
        };
        let role = RoleArn::parse("arn:aws:iam::111122223333:role/mesh/kv-task").unwrap();
        let tags = tags.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        claim.violations(&role, &tags).into_iter().map(|v| v.rule).collect()
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
