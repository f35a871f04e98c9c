//! Consul: whether the operator's own token may write what the operator is to write there, by the servers' own word.

use super::consul::PRINT;
use crate::catalogue::{CONSUL_NAMESPACES, CONSUL_NODE, CONSUL_SERVICES};
use crate::report::{Check, Id, Status};
use ecs_mesh_consul::{Answers, Right};
use ecs_mesh_model::ClusterArn;

const WHY_UNKNOWN: &str = "consul.token says why that is not known";

fn what(right: &Right) -> &'static str {
    match right {
        Right::Acls => "remove tokens, or keep an identity set-up",
        Right::Operator => "keep what all tokens of a namespace get",
        Right::Services | Right::Service(_) => "remove services",
        Right::Node(_) | Right::Nodes(_) => "keep the node",
    }
}

/// The check, which is no better than what the token may do: what nobody knows is not well.
pub(super) fn with(right: &Right, id: Id, check: Check, answers: &Answers) -> Check {
    if answers.acls_are_off {
        return check;
    }
    let is_well = check.status <= Status::Info;
    let what = what(right);
    match &answers.rights {
        Err(_) if is_well => {
            let found = format!("{}; whether the token may {what} is not known", check.found);
            id.unknown(check.about, found, WHY_UNKNOWN)
        }
        Ok(rights) if rights.get(right) == Some(&false) => {
            let found = format!("{}; the token may not {what}", check.found);
            id.error(check.about, found, lacks(right))
        }
        _ => check,
    }
}

fn lacks(right: &Right) -> String {
    format!("add `{right}` to one of the token's policies; {PRINT}")
}

/// Of the services of all clusters together.
pub(super) fn services(about: &str, answers: &Answers) -> Option<Check> {
    let rights = match &answers.rights {
        _ if answers.acls_are_off => return None,
        Err(_) => {
            let found = "whether the token may remove services is not known";
            return Some(CONSUL_SERVICES.unknown(about, found, WHY_UNKNOWN));
        }
        Ok(rights) => rights,
    };
    let of_any_name = *rights.get(&Right::Services)?;
    let (may, may_not): (Vec<_>, Vec<_>) =
        rights.iter().filter(|(right, _)| matches!(right, Right::Service(_))).partition(|(_, may)| **may);
    Some(match (of_any_name, may_not.first()) {
        (true, None) => CONSUL_SERVICES.ok(about, "the token may remove services of any name"),
        (false, None) if !may.is_empty() => CONSUL_SERVICES.warning(
            about,
            "the token may remove the services that are there now, and none of another name",
            lacks(&Right::Services),
        ),
        (true, Some((right, _))) => {
            let found = format!("the token may not remove {} of the services that are there", may_not.len());
            CONSUL_SERVICES.error(
                about,
                found,
                format!("another rule forbids it: add `{right}`, and so on; {PRINT}"),
            )
        }
        (false, _) => {
            CONSUL_SERVICES.error(about, "the token may not remove services", lacks(&Right::Services))
        }
    })
}

/// The node of a cluster that is named in full.
pub(super) fn node(check: Check, cluster: &ClusterArn, answers: &Answers) -> Check {
    with(&Right::Node(cluster.as_str().into()), CONSUL_NODE, check, answers)
}

/// The nodes of clusters that a pattern selects, for those prefixes that the token does not reach: whether it reaches
/// each that there will be is not said.
pub(super) fn nodes_by_pattern(about: &str, answers: &Answers) -> Vec<Check> {
    let rights = answers.rights.iter().flatten();
    let lacking = rights.filter(|(right, may)| matches!(right, Right::Nodes(_)) && !**may);
    let check = |(right, _): (&Right, &bool)| {
        let found = "the token may not keep the node of every cluster that a binding selects by a pattern";
        CONSUL_NODE.warning(about, found, lacks(right))
    };
    lacking.map(check).collect()
}

/// What all tokens of a namespace get.
pub(super) fn operator(about: &str, answers: &Answers) -> Option<Check> {
    let may = *answers.rights.as_ref().ok()?.get(&Right::Operator)?;
    let found = "the token may not keep what all tokens of a namespace get";
    (!may).then(|| CONSUL_NAMESPACES.error(about, found, lacks(&Right::Operator)))
}
