//! Templates: policy rules in HCL, selectors, and role tag names.

use ecs_mesh_core::intent::{GATEWAY_TAG, NAMESPACE_TAG, SERVICE_TAG};
use serde_json::{Value, json};

use super::Edition;

pub(super) const ANONYMOUS_POLICY: &str = "anonymous-token-policy";

/// The role tags that the servers read, in the order of comparison.
pub const ROLE_TAGS: [&str; 3] = [GATEWAY_TAG, NAMESPACE_TAG, SERVICE_TAG];

/// A reference to the value of a role tag.
pub(super) fn from_tag(tag: &str) -> String {
    format!("${{entity_tags.{tag}}}")
}

/// A selector for logins of roles with this tag.
pub(super) fn tag_is(tag: &str, value: &str) -> String {
    format!("entity_tags[\"{tag}\"] == \"{value}\"")
}

/// A rule that creates the token in the namespace of the role's tag.
pub(super) fn namespace_rule() -> Value {
    json!({
        "Selector": format!("entity_tags[\"{NAMESPACE_TAG}\"] != \"\""),
        "BindNamespace": from_tag(NAMESPACE_TAG),
    })
}

const READ_NODES_AND_SERVICES: &str = "\
node_prefix \"\" {
  policy = \"read\"
}
service_prefix \"\" {
  policy = \"read\"
}
";

pub(super) fn mesh_gateway_rules(edition: &Edition) -> String {
    let own = "mesh = \"write\"\npeering = \"read\"\n";
    match edition {
        // Only policies of the default partition may refer to other partitions.
        Edition::Enterprise { partition, .. } if &**partition == "default" => {
            format!("{own}{}", block("partition_prefix \"\"", "peering = \"read\"\n"))
        }
        _ => own.to_owned(),
    }
}

pub(super) fn api_gateway_rules(edition: &Edition) -> String {
    let read = match edition {
        Edition::Community => READ_NODES_AND_SERVICES.to_owned(),
        Edition::Enterprise { .. } => block("namespace_prefix \"\"", READ_NODES_AND_SERVICES),
    };
    format!("mesh = \"read\"\n{read}")
}

pub(super) fn anonymous_rules(edition: &Edition) -> String {
    match edition {
        Edition::Community => READ_NODES_AND_SERVICES.to_owned(),
        Edition::Enterprise { .. } => cross_partition_rules(),
    }
}

pub(super) fn client_rules(edition: &Edition) -> String {
    let nodes = "node_prefix \"\" {\n  policy = \"write\"\n}\n";
    let services = "service_prefix \"\" {\n  policy = \"read\"\n}\n";
    match edition {
        Edition::Community => format!("{nodes}{services}"),
        Edition::Enterprise { partition, .. } => {
            let services = block("namespace_prefix \"\"", services);
            block(&format!("partition \"{partition}\""), &format!("{nodes}{services}"))
        }
    }
}

pub(super) fn cross_namespace_rules(partition: &str) -> String {
    let namespaces = block("namespace_prefix \"\"", READ_NODES_AND_SERVICES);
    block(&format!("partition \"{partition}\""), &namespaces)
}

pub(super) fn cross_partition_rules() -> String {
    block("partition_prefix \"\"", &block("namespace_prefix \"\"", READ_NODES_AND_SERVICES))
}

fn block(head: &str, rules: &str) -> String {
    let lines: Vec<String> = rules.lines().map(|line| format!("  {line}")).collect();
    format!("{head} {{\n{}\n}}\n", lines.join("\n"))
}
