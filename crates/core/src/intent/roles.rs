//! Checks whether a task role's tags allow a task in a mesh as a service: the rules that `aws-iam` authentication of Kong
//! Mesh, or an auth method of Consul, applies at the start of the sidecar, applied in advance.
//!
//! Sources: <https://developer.konghq.com/mesh/iam-authentication/> (role tags `kuma.io/type`, `kuma.io/mesh`,
//! `kuma.io/service`, `kuma.io/workload`; authorised accounts) and
//! <https://developer.hashicorp.com/consul/docs/secure/acl/auth-method/aws-iam> (tags that binding rules use; Consul on
//! ECS names them `consul.hashicorp.com.…`).

use super::consul::{self, ConsulClaim};
use super::evaluator::workload_label;
use super::violation::{RoleRule, RoleViolation, SERVICE_PLACEHOLDER};
use ecs_mesh_api::manifests::Binding;
use ecs_mesh_api::{RoleTagPolicy, WorkloadSpec};
use ecs_mesh_model::{MeshName, RoleArn, ServiceName, Tags};

/// The identity that a task claims in a mesh.
#[derive(Clone, Copy)]
pub(super) enum RoleClaim<'a> {
    /// A Dataplane of a service in a mesh.
    Kuma { mesh: &'a MeshName, service: &'a ServiceName, workload: Option<&'a str> },
    /// A task at Consul.
    Consul(ConsulClaim<'a>),
}

/// The rules that a role breaks for tasks of a workload at Kuma, whatever the binding's `roleTags.mode` is.
pub fn dataplane_role_violations(
    binding: &Binding,
    workload: &WorkloadSpec,
    task_account: &str,
    role: &RoleArn,
    tags: &Tags,
) -> Vec<RoleViolation> {
    let claim = RoleClaim::Kuma {
        mesh: &binding.spec.mesh,
        service: &workload.service,
        workload: workload_label(workload),
    };
    RoleRules { claim, policy: &binding.spec.role_tags, task_account }.violations(role, tags, None)
}

/// The rules for a role.
pub(super) struct RoleRules<'a> {
    pub claim: RoleClaim<'a>,
    pub policy: &'a RoleTagPolicy,
    /// The task's account: the authorised account where the policy names none.
    pub task_account: &'a str,
}

impl RoleRules<'_> {
    /// The tags that satisfy the claim, as `KEY=VALUE` text for people.
    pub(super) fn needed_tags(&self) -> String {
        match self.claim {
            RoleClaim::Kuma { mesh, .. } => format!("kuma.io/type=dataplane, kuma.io/mesh={mesh}"),
            RoleClaim::Consul(claim) => {
                let service = claim.service.map_or(SERVICE_PLACEHOLDER, ServiceName::as_str);
                format!("{}={service}", RoleRule::ConsulService.label())
            }
        }
    }

    /// The rules that the role breaks, and those that the task's own tags break where they are known. None: the task is
    /// allowed in the mesh.
    pub(super) fn violations(
        &self,
        role: &RoleArn,
        tags: &Tags,
        of_task: Option<&Tags>,
    ) -> Vec<RoleViolation> {
        let mut found: Vec<RoleViolation> = self.account_violation(role).into_iter().collect();
        match self.claim {
            RoleClaim::Kuma { mesh, service, workload } => {
                // (rule, needed value, whether the tag is required)
                let tag_rules = [
                    (RoleRule::Type, Some("dataplane"), true),
                    (RoleRule::Mesh, Some(mesh.as_str()), true),
                    (RoleRule::Service, Some(service.as_str()), false),
                    (RoleRule::Workload, workload, false),
                ];
                for (rule, needed, must_exist) in tag_rules {
                    let value = tags.get(rule.label());
                    if value.map_or(must_exist, |value| Some(value.as_str()) != needed) {
                        let (found_value, needed) = (value.cloned(), needed.unwrap_or_default().to_owned());
                        found.push(RoleViolation {
                            rule,
                            role: Some(role.clone()),
                            found: found_value,
                            needed,
                        });
                    }
                }
            }
            RoleClaim::Consul(claim) => found.extend(consul::violations(&claim, role, tags, of_task)),
        }
        found
    }

    fn account_violation(&self, role: &RoleArn) -> Option<RoleViolation> {
        let accounts = &self.policy.authorized_accounts;
        let needed = if accounts.is_empty() { self.task_account.to_owned() } else { accounts.join(", ") };
        let authorised = if accounts.is_empty() {
            role.account() == self.task_account
        } else {
            accounts.iter().any(|account| account == role.account())
        };
        let found = Some(role.account().to_owned());
        (!authorised).then(|| RoleViolation {
            rule: RoleRule::Account,
            role: Some(role.clone()),
            found,
            needed,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(tags: &[(&str, &str)], accounts: &[&str]) -> Vec<RoleRule> {
        let policy = RoleTagPolicy {
            authorized_accounts: accounts.iter().map(|a| (*a).to_owned()).collect(),
            ..RoleTagPolicy::default()
        };
        let (mesh, service) = (MeshName::default(), ServiceName::parse("kv").unwrap());
        let claim = RoleClaim::Kuma { mesh: &mesh, service: &service, workload: Some("kv") };
        let rules = RoleRules { claim, policy: &policy, task_account: "111122223333" };
        let role = RoleArn::parse("arn:aws:iam::111122223333:role/mesh/kv-task").unwrap();
        let tags = tags.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        rules.violations(&role, &tags, None).into_iter().map(|v| v.rule).collect()
    }

    const TYPE: (&str, &str) = ("kuma.io/type", "dataplane");
    const MESH: (&str, &str) = ("kuma.io/mesh", "default");

    #[test]
    fn tags_type_and_mesh_suffice() {
        assert_eq!(check(&[TYPE, MESH], &[]), []);
    }

    #[test]
    fn each_broken_rule_is_found() {
        type Row = (&'static [(&'static str, &'static str)], &'static [&'static str], &'static [RoleRule]);
        let table: [Row; 8] = [
            (&[], &[], &[RoleRule::Type, RoleRule::Mesh]),
            (&[MESH], &[], &[RoleRule::Type]),
            (&[("kuma.io/type", "ingress"), MESH], &[], &[RoleRule::Type]),
            (&[TYPE, ("kuma.io/mesh", "other")], &[], &[RoleRule::Mesh]),
            (&[TYPE, MESH, ("kuma.io/service", "kv")], &[], &[]),
            (&[TYPE, MESH, ("kuma.io/service", "web")], &[], &[RoleRule::Service]),
            (&[TYPE, MESH, ("kuma.io/workload", "web")], &[], &[RoleRule::Workload]),
            (&[TYPE, MESH], &["999988887777"], &[RoleRule::Account]),
        ];
        for (tags, accounts, expected) in table {
            assert_eq!(check(tags, accounts), expected, "{tags:?} {accounts:?}");
        }
    }
}
