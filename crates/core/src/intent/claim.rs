//! The services that a task may claim in its own tags.
//!
//! The person who deploys a task writes its tags and docker labels, so they prove nothing. The task's account, its role
//! and its ECS service are what its deployer was given.

use ecs_mesh_api::{ServiceClaim, WorkloadSpec};
use ecs_mesh_model::{RoleArn, Task};

use super::violation::{RoleRule, RoleViolation};

/// The facts about a task by which its claims are judged.
#[derive(Clone, Copy, Debug)]
pub struct ClaimingTask<'a> {
    /// Its account.
    pub account: &'a str,
    /// Its ECS service; `None` for a task without one.
    pub service: Option<&'a str>,
    /// Its role, if it has one.
    pub role: Option<&'a RoleArn>,
}

impl<'a> ClaimingTask<'a> {
    /// The facts of a running task.
    pub(super) fn of(task: &'a Task, role: Option<&'a RoleArn>) -> Self {
        Self { account: task.arn.cluster().account(), service: task.group.service(), role }
    }

    fn is_meant_by(&self, claim: &ServiceClaim) -> bool {
        let has_account = claim.accounts.is_empty() || claim.accounts.iter().any(|one| one == self.account);
        let has_role = claim.role_path.as_ref().is_none_or(|pattern| {
            self.role
                .is_some_and(|role| role.account() == self.account && pattern.matches(role.path_and_name()))
        });
        has_account && has_role
    }
}

/// Whether the task may not have the names that its description gives it: the service, and the label that names the service in
/// Kuma 3.x. The name of its ECS service needs no claim, unless a claim of others names it: whoever may create ECS services in one
/// of the binding's clusters chooses their names. A claim to all services (`*`) reserves none.
#[must_use]
pub fn service_claim_violation(
    claims: &[ServiceClaim],
    workload: &WorkloadSpec,
    task: ClaimingTask<'_>,
) -> Option<RoleViolation> {
    let globs = || claims.iter().filter(|claim| task.is_meant_by(claim)).flat_map(|claim| &claim.services);
    let of_others =
        || claims.iter().filter(|claim| !task.is_meant_by(claim)).flat_map(|claim| &claim.services);
    let is_reserved = |name: &str| of_others().any(|glob| glob.as_str() != "*" && glob.matches(name));
    let own = task.service.filter(|name| !is_reserved(name));
    let may_claim = |name: &str| own == Some(name) || globs().any(|glob| glob.matches(name));
    let names = [Some(workload.service.as_str()), workload.workload.as_deref()];
    let refused = names.into_iter().flatten().find(|name| !may_claim(name))?;
    let own = own.map(|name| format!("{name} (its ECS service)"));
    let allowed: Vec<String> = own.into_iter().chain(globs().map(|glob| glob.as_str().to_owned())).collect();
    let needed = if allowed.is_empty() { "no service".to_owned() } else { allowed.join(", ") };
    let (rule, role) = (RoleRule::ServiceClaim, task.role.cloned());
    Some(RoleViolation { rule, role, found: Some(format!("service {refused:?}")), needed })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::intent::discovered_workload;
    use ecs_mesh_model::{Glob, Tags};

    fn claim(role_path: Option<&str>, accounts: &[&str], services: &[&str]) -> ServiceClaim {
        ServiceClaim {
            role_path: role_path.map(Glob::new),
            accounts: accounts.iter().map(|one| (*one).to_owned()).collect(),
            services: services.iter().map(|one| Glob::new(*one)).collect(),
        }
    }

    /// The names that are refused to a task of the ECS service `web` in account 111122223333.
    fn refused(claims: &[ServiceClaim], role: &str, keys: &[(&str, &str)]) -> Option<String> {
        let keys = keys.iter().map(|(key, value)| (format!("ecs-mesh.dev/{key}"), (*value).to_owned()));
        let workload = discovered_workload(&[], &keys.collect::<Tags>());
        let role = RoleArn::parse(role).unwrap();
        let task = ClaimingTask { account: "111122223333", service: Some("web"), role: Some(&role) };
        service_claim_violation(claims, &workload.unwrap().unwrap(), task)?.found
    }

    const TEAM_A: &str = "arn:aws:iam::111122223333:role/team-a/web";

    #[test]
    fn task_may_claim_its_ecs_service_and_what_the_binding_allows() {
        let of_team_a = [claim(Some("/team-a/*"), &[], &["a-*"])];
        let other_account = "arn:aws:iam::999988887777:role/team-a/web";
        let no_path = "arn:aws:iam::111122223333:role/team-a";
        for (claims, role, service, is_refused) in [
            (&[][..], TEAM_A, "web", false),
            (&[], TEAM_A, "payments", true),
            (&of_team_a, TEAM_A, "a-api", false),
            (&of_team_a, TEAM_A, "web", false),
            (&of_team_a, TEAM_A, "b-api", true),
            (&of_team_a, no_path, "a-api", true),
            // A role of another account has a path that says nothing here.
            (&of_team_a, other_account, "a-api", true),
            (&[claim(None, &["111122223333"], &["*"])], other_account, "payments", false),
            (&[claim(None, &["999988887777"], &["*"])], TEAM_A, "payments", true),
            (&[claim(Some("*"), &["111122223333"], &["payments"])], TEAM_A, "payments", false),
            // The ECS service of this task has the name of another team's service.
            (&[claim(Some("/team-b/*"), &[], &["web"])], TEAM_A, "web", true),
            (&[claim(None, &["999988887777"], &["w*"])], TEAM_A, "web", true),
            (&[claim(None, &["999988887777"], &["*"])], TEAM_A, "web", false),
            (
                &[claim(Some("/team-b/*"), &[], &["web"]), claim(Some("/team-a/*"), &[], &["web"])],
                TEAM_A,
                "web",
                false,
            ),
        ] {
            let found = refused(claims, role, &[("service", service)]);
            assert_eq!(found.is_some(), is_refused, "{claims:?} {role} {service}: {found:?}");
        }
    }

    /// In Kuma 3.x the label names the service.
    #[test]
    fn workload_label_is_a_claim() {
        let keys = [("service", "web"), ("workload", "payments")];
        assert_eq!(refused(&[], TEAM_A, &keys).as_deref(), Some("service \"payments\""));
        assert_eq!(refused(&[], TEAM_A, &[("service", "web"), ("workload", "web")]), None);
    }
}
