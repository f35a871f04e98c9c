//! The anonymous token, which any client can use: it may read nodes and services, and no more.

use super::consul_path;
use crate::facts::{ConsulFacts, PolicyText};
use crate::report::{AuditFinding, FindingLocation};
use crate::rules_catalog::ANONYMOUS;
use ecs_mesh_consul_acl::hcl::HclBlock;

pub(super) fn check(name: &str, response: &ConsulFacts) -> Vec<AuditFinding> {
    let policies = response.anonymous.as_deref().unwrap_or_default();
    let finding = |policy: &PolicyText| {
        let powers = powers(policy);
        let place = FindingLocation::resource(consul_path(name, "policy", &policy.name)).field("Rules");
        (!powers.is_empty())
            .then(|| ANONYMOUS.violation(place, format!("the policy grants {}", powers.join(", "))))
    };
    policies.iter().filter_map(finding).collect()
}

fn powers(policy: &PolicyText) -> Vec<String> {
    if policy.name == "global-management" {
        return vec!["everything".to_owned()];
    }
    let mut found = Vec::new();
    HclBlock::read(&policy.rules).walk(&mut |path, text| {
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
    fn anonymous_read_is_allowed_and_write_is_reported() {
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
