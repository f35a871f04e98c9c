//! Nodes of bound clusters, on which tasks register.

use super::consul_path;
use crate::facts::ConsulFacts;
use crate::report::{AuditFinding, FindingLocation};
use crate::rules_catalog::NODE_MISSING;

pub(super) fn check(name: &str, response: &ConsulFacts) -> Vec<AuditFinding> {
    let missing = response.nodes.iter().filter(|(_, known)| **known == Ok(false));
    missing
        .map(|(cluster, _)| {
            let place = FindingLocation::resource(consul_path(name, "node", cluster.as_str()));
            NODE_MISSING.violation(place, "the catalog has no such node")
        })
        .collect()
}
