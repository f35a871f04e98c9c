//! Checks whether a task role's tags allow a task in a mesh as a service: the rules that `aws-iam` authentication of Kong
//! Mesh, or an auth method of Consul, applies at the start of the sidecar, applied in advance.
//!
//! Sources: <https://developer.konghq.com/mesh/iam-authentication/> (role tags `kuma.io/type`, `kuma.io/mesh`,
//! `kuma.io/service`, `kuma.io/workload`; authorised accounts) and
//! <https://developer.hashicorp.com/consul/docs/secure/acl/auth-method/aws-iam> (tags that binding rules use; Consul on
//! ECS names them `consul.hashicorp.com.…`).

use super::DesiredProxy;
use super::consul::{self, ConsulClaim};
use super::evaluator::workload_label;
use super::violation::{RoleRule, RoleViolation, SERVICE_PLACEHOLDER};
use ecs_mesh_api::manifests::Binding;
use ecs_mesh_api::{RoleTagPolicy, WorkloadSpec, ZoneProxyForm, ZoneProxyKind};
use ecs_mesh_model::{MeshName, RoleArn, ServiceName, Tags};

/// The identity that a task claims in a mesh.
#[derive(Clone, Copy)]
pub(super) enum RoleClaim<'a> {
    /// A Dataplane of a service in a mesh.
    Kuma { mesh: &'a MeshName, service: &'a ServiceName, workload: Option<&'a str> },
    /// A `ZoneIngress` or `ZoneEgress`, which is of no mesh.
    KumaZone(ZoneProxyKind),
    /// A task at Consul.
    Consul(ConsulClaim<'a>),
}

impl<'a> RoleClaim<'a> {
    /// The identity that a proxy claims. A zone proxy with a listener is a Dataplane, as any other.
    pub(super) fn of_proxy(
        proxy: &DesiredProxy,
        mesh: &'a MeshName,
        service: &'a ServiceName,
        workload: Option<&'a str>,
    ) -> Self {
        match proxy {
            DesiredProxy::Zone(proxy, ZoneProxyForm::Resource) => Self::KumaZone(proxy.kind()),
            DesiredProxy::Zone(_, ZoneProxyForm::Listener)
            | DesiredProxy::Sidecar
            | DesiredProxy::Gateway(_) => Self::Kuma { mesh, service, workload },
        }
    }
}

/// The rules that a role breaks for tasks of a workload at Kuma, whatever the binding's `roleTags.mode` is. Where the version
/// of the control plane decides the form of a zone proxy, a role that is right for either form breaks none.
pub fn dataplane_role_violations(
    binding: &Binding,
    workload: &WorkloadSpec,
    task_account: &str,
    role: &RoleArn,
    tags: &Tags,
) -> Vec<RoleViolation> {
    let violations = |form| {
        let proxy = DesiredProxy::of(workload, form);
        let (mesh, label) = (&binding.spec.mesh, workload_label(workload));
        let claim = RoleClaim::of_proxy(&proxy, mesh, &workload.service, label);
        RoleRules { claim, policy: &binding.spec.role_tags, task_account }.violations(role, tags, None)
    };
    if violations(ZoneProxyForm::Listener).is_empty() {
        return Vec::new();
    }
    violations(ZoneProxyForm::Resource)
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
            RoleClaim::KumaZone(kind) => format!("kuma.io/type={}", kind.role_type()),
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
                let tag_rules = [
                    (RoleRule::Type, Some("dataplane"), true),
                    (RoleRule::Mesh, Some(mesh.as_str()), true),
                    (RoleRule::Service, Some(service.as_str()), false),
                    (RoleRule::Workload, workload, false),
                ];
                found.extend(tag_rules.into_iter().filter_map(|rule| tag_violation(rule, role, tags)));
            }
            RoleClaim::KumaZone(kind) => {
                found.extend(tag_violation((RoleRule::Type, Some(kind.role_type()), true), role, tags));
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

/// The violation of a rule: its tag, the needed value, and whether the tag is required.
fn tag_violation(
    (rule, needed, must_exist): (RoleRule, Option<&str>, bool),
    role: &RoleArn,
    tags: &Tags,
) -> Option<RoleViolation> {
    let value = tags.get(rule.label());
    value.map_or(must_exist, |value| Some(value.as_str()) != needed).then(|| RoleViolation {
        rule,
        role: Some(role.clone()),
        found: value.cloned(),
        needed: needed.unwrap_or_default().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(tags: &[(&str, &str)], accounts: &[&str]) -> Vec<RoleRule> {
        let (mesh, service) = (MeshName::default(), ServiceName::parse("kv").unwrap());
        let claim = RoleClaim::Kuma { mesh: &mesh, service: &service, workload: Some("kv") };
        check_claim(claim, tags, accounts)
    }

    fn check_claim(claim: RoleClaim<'_>, tags: &[(&str, &str)], accounts: &[&str]) -> Vec<RoleRule> {
        let policy = RoleTagPolicy {
            authorized_accounts: accounts.iter().map(|a| (*a).to_owned()).collect(),
            ..RoleTagPolicy::default()
        };
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
    fn zone_proxy_needs_its_type_and_no_mesh() {
        for kind in ZoneProxyKind::ALL {
            let check = |tags: &[(&str, &str)]| check_claim(RoleClaim::KumaZone(kind), tags, &[]);
            assert_eq!(check(&[("kuma.io/type", kind.role_type())]), []);
            assert_eq!(check(&[("kuma.io/type", kind.role_type()), ("kuma.io/mesh", "other")]), []);
            assert_eq!(check(&[TYPE, MESH]), [RoleRule::Type]);
            assert_eq!(check(&[]), [RoleRule::Type]);
        }
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
