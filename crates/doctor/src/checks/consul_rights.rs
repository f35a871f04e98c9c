//! Consul: whether the operator's own token may write what the operator is to write there, by the servers' own word.

use super::consul::PRINT;
use crate::catalogue::{CONSUL_NAMESPACES, CONSUL_NODE, CONSUL_SERVICES};
use crate::report::{CheckResult, CheckKind, CheckStatus};
use ecs_mesh_consul::{ConsulProbes, AclPermission};
use ecs_mesh_model::ClusterArn;

const WHY_UNKNOWN: &str = "consul.token says why that is not known";

fn what(right: &AclPermission) -> &'static str {
    match right {
        AclPermission::Acls => "remove tokens, or keep an identity set-up",
        AclPermission::Operator => "keep what all tokens of a namespace get",
        AclPermission::Services | AclPermission::Service(_) => "remove services",
        AclPermission::Node(_) | AclPermission::Nodes(_) => "keep the node",
    }
}

/// The check, which is no better than what the token may do: what nobody knows is not well.
pub(super) fn with(right: &AclPermission, id: CheckKind, check: CheckResult, answers: &ConsulProbes) -> CheckResult {
    if answers.acls_are_off {
        return check;
    }
    let is_well = check.status <= CheckStatus::Info;
    let what = what(right);
    match &answers.permissions {
        Err(_) if is_well => {
            let found = format!("{}; whether the token may {what} is not known", check.message);
            id.unknown(check.subject, found, WHY_UNKNOWN)
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

/// Of the services of all clusters together.
pub(super) fn services(subject: &str, answers: &ConsulProbes) -> Option<CheckResult> {
    let rights = match &answers.permissions {
        _ if answers.acls_are_off => return None,
        Err(_) => {
            let found = "whether the token may remove services is not known";
            return Some(CONSUL_SERVICES.unknown(subject, found, WHY_UNKNOWN));
        }
        Ok(rights) => rights,
    };
    let of_any_name = *rights.get(&AclPermission::Services)?;
    let (may, may_not): (Vec<_>, Vec<_>) =
        rights.iter().filter(|(right, _)| matches!(right, AclPermission::Service(_))).partition(|(_, may)| **may);
    Some(match (of_any_name, may_not.first()) {
        (true, None) => CONSUL_SERVICES.ok(subject, "the token may remove services of any name"),
        (false, None) if !may.is_empty() => CONSUL_SERVICES.warning(
            subject,
            "the token may remove the services that are there now, and none of another name",
            lacks(&AclPermission::Services),
        ),
        (true, Some((right, _))) => {
            let found = format!("the token may not remove {} of the services that are there", may_not.len());
            CONSUL_SERVICES.error(
                subject,
                found,
                format!("another rule forbids it: add `{right}`, and so on; {PRINT}"),
            )
        }
        (false, _) => {
            CONSUL_SERVICES.error(subject, "the token may not remove services", lacks(&AclPermission::Services))
        }
    })
}

/// The node of a cluster that is named in full.
pub(super) fn node(check: CheckResult, cluster: &ClusterArn, answers: &ConsulProbes) -> CheckResult {
    with(&AclPermission::Node(cluster.as_str().into()), CONSUL_NODE, check, answers)
}

/// The nodes of clusters that a pattern selects, for those prefixes that the token does not reach: whether it reaches
/// each that there will be is not said.
pub(super) fn nodes_by_pattern(subject: &str, answers: &ConsulProbes) -> Vec<CheckResult> {
    let rights = answers.permissions.iter().flatten();
    let lacking = rights.filter(|(right, may)| matches!(right, AclPermission::Nodes(_)) && !**may);
    let check = |(right, _): (&AclPermission, &bool)| {
        let found = "the token may not keep the node of every cluster that a binding selects by a pattern";
        CONSUL_NODE.warning(subject, found, lacks(right))
    };
    lacking.map(check).collect()
}

/// What all tokens of a namespace get.
pub(super) fn operator(subject: &str, answers: &ConsulProbes) -> Option<CheckResult> {
    let may = *answers.permissions.as_ref().ok()?.get(&AclPermission::Operator)?;
    let found = "the token may not keep what all tokens of a namespace get";
    (!may).then(|| CONSUL_NAMESPACES.error(subject, found, lacks(&AclPermission::Operator)))
}
