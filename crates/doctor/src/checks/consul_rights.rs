//! Consul: the write permissions of the operator's own token, as evaluated by the servers.

use super::consul::PRINT;
use crate::catalogue::{CONSUL_NAMESPACES, CONSUL_NODE, CONSUL_SERVICES};
use crate::report::{CheckKind, CheckResult, CheckStatus};
use ecs_mesh_consul::{AclPermission, ConsulProbes};
use ecs_mesh_model::ClusterArn;

const UNKNOWN_FIX: &str = "see consul.token for the reason";

fn what(right: &AclPermission) -> &'static str {
    match right {
        AclPermission::Acls => "remove tokens or write ACL objects",
        AclPermission::Operator => "attach default policies to namespaces",
        AclPermission::Services | AclPermission::Service(_) => "remove services",
        AclPermission::Node(_) | AclPermission::Nodes(_) => "register the node",
    }
}

/// Lowers the check's status if the token lacks the permission, or if that is unknown.
pub(super) fn with(
    right: &AclPermission,
    id: CheckKind,
    check: CheckResult,
    answers: &ConsulProbes,
) -> CheckResult {
    if answers.acls_are_off {
        return check;
    }
    let is_ok = check.status <= CheckStatus::Info;
    let what = what(right);
    match &answers.permissions {
        Err(_) if is_ok => {
            let found = format!("{}; it is unknown whether the token may {what}", check.message);
            id.unknown(check.subject, found, UNKNOWN_FIX)
        }
        Ok(rights) if rights.get(right) == Some(&false) => {
            let found = format!("{}; the token may not {what}", check.message);
            id.error(check.subject, found, lacks(right))
        }
        _ => check,
    }
}

fn lacks(right: &AclPermission) -> String {
    format!("add `{right}` to one of the token's policies; {PRINT}")
}

/// The permission to remove services of all clusters.
pub(super) fn services(subject: &str, answers: &ConsulProbes) -> Option<CheckResult> {
    let rights = match &answers.permissions {
        _ if answers.acls_are_off => return None,
        Err(_) => {
            let found = "it is unknown whether the token may remove services";
            return Some(CONSUL_SERVICES.unknown(subject, found, UNKNOWN_FIX));
        }
        Ok(rights) => rights,
    };
    let of_any_name = *rights.get(&AclPermission::Services)?;
    let (may, may_not): (Vec<_>, Vec<_>) = rights
        .iter()
        .filter(|(right, _)| matches!(right, AclPermission::Service(_)))
        .partition(|(_, may)| **may);
    Some(match (of_any_name, may_not.first()) {
        (true, None) => CONSUL_SERVICES.ok(subject, "the token may remove services of any name"),
        (false, None) if !may.is_empty() => CONSUL_SERVICES.warning(
            subject,
            "the token may remove the existing services, but none with another name",
            lacks(&AclPermission::Services),
        ),
        (true, Some((right, _))) => {
            let found = format!("the token may not remove {} of the existing services", may_not.len());
            CONSUL_SERVICES.error(
                subject,
                found,
                format!("another rule forbids it: add `{right}`, and so on; {PRINT}"),
            )
        }
        (false, _) => CONSUL_SERVICES.error(
            subject,
            "the token may not remove services",
            lacks(&AclPermission::Services),
        ),
    })
}

/// The permission for the node of a literal cluster.
pub(super) fn node(check: CheckResult, cluster: &ClusterArn, answers: &ConsulProbes) -> CheckResult {
    with(&AclPermission::Node(cluster.as_str().into()), CONSUL_NODE, check, answers)
}

/// Missing permissions for the nodes of clusters that a pattern selects. Not reported as passed, since later clusters may
/// not be covered.
pub(super) fn nodes_by_pattern(subject: &str, answers: &ConsulProbes) -> Vec<CheckResult> {
    let rights = answers.permissions.iter().flatten();
    let lacking = rights.filter(|(right, may)| matches!(right, AclPermission::Nodes(_)) && !**may);
    let check = |(right, _): (&AclPermission, &bool)| {
        let found = "the token may not register the node of every cluster that a pattern selects";
        CONSUL_NODE.warning(subject, found, lacks(right))
    };
    lacking.map(check).collect()
}

/// The permission to attach default policies to namespaces.
pub(super) fn operator(subject: &str, answers: &ConsulProbes) -> Option<CheckResult> {
    let may = *answers.permissions.as_ref().ok()?.get(&AclPermission::Operator)?;
    let found = "the token may not attach default policies to namespaces";
    (!may).then(|| CONSUL_NAMESPACES.error(subject, found, lacks(&AclPermission::Operator)))
}
