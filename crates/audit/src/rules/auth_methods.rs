//! The servers and their auth methods: whom they let in.

use std::collections::BTreeSet;

use super::consul_path;
use super::login::AWS_IAM;
use crate::rules_catalog::{
    ACLS_OFF, METHOD_FOREIGN, METHOD_MISSING, METHOD_WHOLE_ACCOUNT, METHOD_WILDCARD, SERVER_VERSION,
};
use crate::facts::{AuditedAuthMethod, AuditedControlPlane};
use crate::report::{AuditFinding, FindingLocation};
use ecs_mesh_consul::ConsulVersion;
use ecs_mesh_model::ClusterArn;

/// Whether no task can log in, whatever it says, which is told of here.
pub(super) fn has_none(plane: &AuditedControlPlane) -> bool {
    let said = plane.response.as_ref().and_then(|said| said.as_ref().ok());
    let is_known = said.is_some_and(|said| said.auth_methods.is_ok());
    is_known && plane.acls() == Ok(true) && !plane.methods().any(|method| method.kind == AWS_IAM)
}

/// Whether wildcards stand there that never match, since the role's details are not asked for.
pub(super) fn has_dead_wildcards(method: &AuditedAuthMethod) -> bool {
    !method.entity_details && method.principals.iter().any(|principal| principal.contains('*'))
}

/// `is_told`: that the tasks' method is of another type has been found already. `logs_in`: a task there does.
pub(super) fn check(name: &str, plane: &AuditedControlPlane, is_told: bool, logs_in: bool) -> Vec<AuditFinding> {
    let mut findings = Vec::new();
    if plane.acls() == Ok(false) {
        let is_declared = plane.declared.as_ref().is_some_and(|declared| !declared.is_empty());
        if is_declared || logs_in {
            let at = FindingLocation::resource(format!("consul/{name}"));
            findings.push(ACLS_OFF.violation(at, "ACLs are off: no login works"));
        }
        return findings;
    }
    let said = plane.response.as_ref().and_then(|said| said.as_ref().ok());
    if let Some(said) = said {
        findings.extend(said.version.as_ref().ok().and_then(|version| too_old(name, version)));
    }
    let mine: Vec<&AuditedAuthMethod> = plane.methods().filter(|method| method.kind == AWS_IAM).collect();
    if !is_told && has_none(plane) {
        let at = FindingLocation::resource(format!("consul/{name}/auth-method"));
        findings.push(METHOD_MISSING.violation(at, "ACLs are on, and no auth method is of type aws-iam"));
    }
    let accounts: BTreeSet<&str> = plane.clusters.iter().map(ClusterArn::account).collect();
    for method in mine {
        let at =
            || FindingLocation::resource(consul_path(name, "auth-method", &method.name)).field("Config.BoundIAMPrincipalARNs");
        if has_dead_wildcards(method) {
            let dead = method.principals.iter().filter(|principal| principal.contains('*'));
            let dead = dead.map(String::as_str).collect::<Vec<_>>().join(", ");
            let found = format!(
                "EnableIAMEntityDetails is off, so no role's details are asked for and no wildcard counts: {dead}"
            );
            findings.push(METHOD_WILDCARD.violation(at(), found));
        }
        for principal in &method.principals {
            findings.extend(wildcard(principal).map(|found| METHOD_WILDCARD.violation(at(), found)));
            if is_whole_account(principal) {
                let found = format!("{principal} is every role of the account");
                findings.push(METHOD_WHOLE_ACCOUNT.violation(at(), found));
            }
            let account = principal.split(':').nth(4).unwrap_or_default();
            if !accounts.is_empty() && !accounts.contains(account) {
                let ours: Vec<&str> = accounts.iter().copied().collect();
                let found = format!("{principal}; bound clusters are in {}", ours.join(", "));
                findings.push(METHOD_FOREIGN.violation(at(), found));
            }
        }
    }
    findings
}

fn too_old(name: &str, version: &ConsulVersion) -> Option<AuditFinding> {
    let at = FindingLocation::resource(format!("consul/{name}"));
    (!version.has_iam_logins()).then(|| SERVER_VERSION.violation(at, format!("it is {version}")))
}

fn wildcard(principal: &str) -> Option<String> {
    let stars = principal.matches('*').count();
    if stars == 0 {
        return None;
    }
    (stars > 1 || !principal.ends_with('*') || principal == "*")
        .then(|| format!("{principal}: one * at the end of an ARN is all that matches"))
}

/// Whether nothing stands between `role/` and the wildcard.
fn is_whole_account(principal: &str) -> bool {
    let Some(start) = principal.strip_suffix('*') else { return false };
    start.split(':').nth(5).is_none_or(|resource| "role/".starts_with(resource))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_of_its_own_is_not_the_whole_account() {
        for (principal, is_whole) in [
            ("arn:aws:iam::111122223333:role/*", true),
            ("arn:aws:iam::111122223333:*", true),
            ("arn:aws:iam::*", true),
            ("arn:aws:iam::111122223333:role/consul-ecs/*", false),
            ("arn:aws:iam::111122223333:role/kv", false),
        ] {
            assert_eq!(is_whole_account(principal), is_whole, "{principal}");
        }
    }
}
