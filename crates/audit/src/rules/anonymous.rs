//! The anonymous token, which is anybody: it may read nodes and services, and nothing more that matters.

use super::held;
use crate::catalogue::ANONYMOUS;
use crate::facts::{ConsulFacts, PolicyText};
use crate::report::{Finding, Place};
use ecs_mesh_consul_acl::hcl::Block;

pub(super) fn check(name: &str, said: &ConsulFacts) -> Vec<Finding> {
    let policies = said.anonymous.as_deref().unwrap_or_default();
    let finding = |policy: &PolicyText| {
        let powers = powers(policy);
        let place = Place::resource(held(name, "policy", &policy.name)).field("Rules");
        (!powers.is_empty()).then(|| ANONYMOUS.broken(place, format!("it gives {}", powers.join(", "))))
    };
    policies.iter().filter_map(finding).collect()
}

fn powers(policy: &PolicyText) -> Vec<String> {
    if policy.name == "global-management" {
        return vec!["everything".to_owned()];
    }
    let mut found = Vec::new();
    Block::read(&policy.rules).walk(&mut |path, text| {
        let resource: Vec<&str> =
            path.iter().copied().filter(|part| *part != "policy" && !part.is_empty()).collect();
        let resource = resource.join(" ");
        let reads_secrets =
            text == "read" && path.last().is_some_and(|last| ["acl", "operator"].contains(last));
        if text == "write" || reads_secrets {
            found.push(format!("{resource} = {text}"));
        }
    });
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_and_service_read_is_no_power_and_write_anywhere_is() {
        for (rules, found) in [
            ("node_prefix \"\" { policy = \"read\" }\nservice_prefix \"\" { policy = \"read\" }", vec![]),
            ("service_prefix \"\" { policy = \"write\" }", vec!["service_prefix = write"]),
            (
                "service \"web\" {\n  policy = \"read\"\n  intentions = \"write\"\n}",
                vec!["service web intentions = write"],
            ),
            ("acl = \"read\"", vec!["acl = read"]),
            ("operator = \"read\"", vec!["operator = read"]),
            (
                "partition_prefix \"\" { namespace_prefix \"\" { acl = \"read\" } }",
                vec!["partition_prefix namespace_prefix acl = read"],
            ),
            (r#"{"key_prefix": {"": {"policy": "write"}}}"#, vec!["key_prefix = write"]),
        ] {
            let policy = PolicyText { name: "anonymous-token-policy".to_owned(), rules: rules.to_owned() };
            assert_eq!(powers(&policy), found, "{rules}");
        }
    }
}
