//! The nodes of bound clusters, on which tasks register.

use super::held;
use crate::catalogue::NODE_MISSING;
use crate::facts::ConsulFacts;
use crate::report::{Finding, Place};

pub(super) fn check(name: &str, said: &ConsulFacts) -> Vec<Finding> {
    let missing = said.nodes.iter().filter(|(_, known)| **known == Ok(false));
    missing
        .map(|(cluster, _)| {
            let place = Place::resource(held(name, "node", cluster.as_str()));
            NODE_MISSING.broken(place, "the catalog has no such node")
        })
        .collect()
}
