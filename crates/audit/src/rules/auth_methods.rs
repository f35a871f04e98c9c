//! The servers and their auth methods: which logins they accept.

use std::collections::BTreeSet;

use super::consul_path;
use super::login::AWS_IAM;
use crate::facts::{AuditedAuthMethod, AuditedControlPlane};
use crate::report::{AuditFinding, FindingLocation};
use crate::rules_catalog::{
    ACLS_OFF, METHOD_FOREIGN, METHOD_MISSING, METHOD_WHOLE_ACCOUNT, METHOD_WILDCARD, SERVER_VERSION,
};
use ecs_mesh_consul::ConsulVersion;
use ecs_mesh_model::ClusterArn;

/// Whether no task can log in, since there is no auth method of type `aws-iam`. Reported by [`check`].
pub(super) fn has_none(plane: &AuditedControlPlane) -> bool {
    let consul = plane.response.as_ref().and_then(|response| response.as_ref().ok());
    let is_known = consul.is_some_and(|consul| consul.auth_methods.is_ok());
    is_known && plane.acls() == Ok(true) && !plane.methods().any(|method| method.kind == AWS_IAM)
}

/// Whether the method has wildcards that never match, since it does not read role details.
pub(super) fn has_dead_wildcards(method: &AuditedAuthMethod) -> bool {
    !method.entity_details && method.principals.iter().any(|principal| principal.contains('*'))
}

/// `type_reported`: a finding reports already that the tasks' method has another type. `logs_in`: a task logs in.
pub(super) fn check(
    name: &str,
    plane: &AuditedControlPlane,
    type_reported: bool,
    logs_in: bool,
) -> Vec<AuditFinding> {
    let mut findings = Vec::new();
    if plane.acls() == Ok(false) {
        let is_declared = plane.declared.as_ref().is_some_and(|declared| !declared.is_empty());
        if is_declared || logs_in {
            let at = FindingLocation::resource(format!("consul/{name}"));
            findings.push(ACLS_OFF.violation(at, "ACLs are off: no login works"));
        }
        return findings;
    }
    let consul = plane.response.as_ref().and_then(|response| response.as_ref().ok());
    if let Some(consul) = consul {
        findings.extend(consul.version.as_ref().ok().and_then(|version| too_old(name, version)));
    }
    let mine: Vec<&AuditedAuthMethod> = plane.methods().filter(|method| method.kind == AWS_IAM).collect();
    if !type_reported && has_none(plane) {
        let at = FindingLocation::resource(format!("consul/{name}/auth-method"));
        findings.push(METHOD_MISSING.violation(at, "ACLs are on, and no auth method is of type aws-iam"));
    }
    let accounts: BTreeSet<&str> = plane.clusters.iter().map(ClusterArn::account).collect();
    for method in mine {
        let at = || {
            FindingLocation::resource(consul_path(name, "auth-method", &method.name))
                .field("Config.BoundIAMPrincipalARNs")
        };
        if has_dead_wildcards(method) {
            let ineffective = method.principals.iter().filter(|principal| principal.contains('*'));
            let ineffective = ineffective.map(String::as_str).collect::<Vec<_>>().join(", ");
            let found = format!("EnableIAMEntityDetails is off, so no wildcard matches: {ineffective}");
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
    (!version.has_iam_logins()).then(|| SERVER_VERSION.violation(at, format!("the server is {version}")))
}

fn wildcard(principal: &str) -> Option<String> {
    let stars = principal.matches('*').count();
    if stars == 0 {
        return None;
    }
    (stars > 1 || !principal.ends_with('*') || principal == "*")
        .then(|| format!("{principal}: only one * at the end of an ARN matches"))
}

/// Whether the wildcard follows directly after `role/`, or earlier.
fn is_whole_account(principal: &str) -> bool {
    let Some(start) = principal.strip_suffix('*') else { return false };
    start.split(':').nth(5).is_none_or(|resource| "role/".starts_with(resource))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dedicated_path_is_not_the_whole_account() {
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
