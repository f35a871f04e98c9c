//! Reads Consul's auth configuration as facts. A failed answer affects that fact alone, and an object that old servers may
//! have filtered out is unknown, not absent.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::facts::{AuditedAuthMethod, AuditedBindingRule, ConsulFacts, Fetched, PolicyText};
use ecs_mesh_api::{AllowList, ConsulConnection, HumanDuration};
use ecs_mesh_aws::inspect::Redacted;
use ecs_mesh_consul as consul;
use ecs_mesh_consul::{AuthConfig, ConsulControlPlane};
use ecs_mesh_control_plane::{MeshError, NoObserver};
use ecs_mesh_controller::{BlockingLane, Secrets};
use ecs_mesh_model::{ClusterArn, OperatorId};

/// Longest wait for one answer.
const MAX_TIMEOUT: Duration = Duration::from_secs(5);

/// Reads the facts. An error is the reason why Consul does not answer at all.
pub(super) async fn ask(
    spec: &ConsulConnection,
    allowed: AllowList,
    clusters: &BTreeSet<ClusterArn>,
    secrets: Arc<dyn Secrets>,
) -> Fetched<ConsulFacts> {
    let timeout = HumanDuration(spec.timeout.0.min(MAX_TIMEOUT));
    let spec = ConsulConnection { timeout, ..spec.clone() };
    // Ownership is not evaluated here.
    let operator = OperatorId::parse("audit").map_err(|error| error.to_string())?;
    // Reads the CA's file, and file systems can hang.
    let connect =
        move || ConsulControlPlane::connect(&spec, &allowed, operator, Arc::new(NoObserver), secrets);
    let connected = BlockingLane::default().run(MAX_TIMEOUT, connect).await;
    let plane = connected
        .ok_or_else(|| format!("reading spec.consul.caFile: no end within {MAX_TIMEOUT:?}"))?
        .map_err(|error| error.to_string())?;
    let config = plane.read_auth_config(clusters).await.map_err(|error| error.message)?;
    Ok(facts(config, clusters))
}

fn facts(config: AuthConfig, clusters: &BTreeSet<ClusterArn>) -> ConsulFacts {
    let AuthConfig { version, acls, methods, rules, roles, anonymous, nodes } = config;
    let version = known(version).and_then(|version| {
        version
            .ok_or_else(|| "the token may not read it (agent_prefix \"\" { policy = \"read\" })".to_owned())
    });
    // Older servers do not report that they filtered an answer.
    let may_filter = version.as_ref().is_ok_and(|version| !version.has_iam_logins());
    let node = |cluster: &ClusterArn| match &nodes {
        Ok(there) if there.contains(cluster) => Ok(true),
        Ok(_) if may_filter => {
            Err("these servers do not report filtered answers, so the node may exist".to_owned())
        }
        Ok(_) => Ok(false),
        Err(error) => Err(error.message.clone()),
    };
    ConsulFacts {
        acls: known(acls),
        auth_methods: each(methods, auth_method),
        binding_rules: each(rules, binding_rule),
        roles: known(roles).map(|roles| roles.into_iter().map(|role| role.name).collect()),
        anonymous: each(anonymous, |policy| PolicyText { name: policy.name, rules: policy.rules }),
        nodes: clusters.iter().map(|cluster| (cluster.clone(), node(cluster))).collect::<BTreeMap<_, _>>(),
        version,
    }
}

fn known<F>(response: Result<F, MeshError>) -> Fetched<F> {
    response.map_err(|error| error.message)
}

fn each<F, R>(response: Result<Vec<F>, MeshError>, of: fn(F) -> R) -> Fetched<Vec<R>> {
    known(response).map(|all| all.into_iter().map(of).collect())
}

fn auth_method(method: consul::AuthMethod) -> AuditedAuthMethod {
    let setting = |name: &str| method.setting(name).unwrap_or(&Value::Null);
    let filled = |name: &str| text(setting(name)).filter(|text| !text.is_empty());
    let field = |rule: &Value, name: &str| rule[name].as_str().unwrap_or_default().to_owned();
    let rules = method.other.get("NamespaceRules").and_then(Value::as_array).into_iter().flatten();
    AuditedAuthMethod {
        principals: texts(setting("BoundIAMPrincipalARNs")),
        entity_details: is_true(setting("EnableIAMEntityDetails")),
        entity_tags: texts(setting("IAMEntityTags")).into_iter().collect(),
        sts_endpoint: filled("STSEndpoint"),
        server_id: filled("ServerIDHeaderValue").map(Redacted::new),
        server_id_is_known: true,
        namespace_rules: rules.map(|rule| (field(rule, "Selector"), field(rule, "BindNamespace"))).collect(),
        name: method.name,
        kind: method.kind,
    }
}

fn binding_rule(rule: consul::BindingRule) -> AuditedBindingRule {
    AuditedBindingRule {
        id: rule.id,
        method: rule.auth_method,
        bind_type: rule.bind_type,
        bind_name: rule.bind_name,
        selector: rule.selector,
    }
}

/// Consul accepts a text for a list of one, a list of one for its item, and words and numbers for flags.
fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::Array(items) => items.iter().filter_map(text).collect(),
        one => text(one).filter(|text| !text.is_empty()).into_iter().collect(),
    }
}

fn text(value: &Value) -> Option<String> {
    the_only(value).as_str().map(str::to_owned)
}

fn is_true(value: &Value) -> bool {
    match the_only(value) {
        Value::Bool(flag) => *flag,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(word) => ["1", "t", "T", "true", "True", "TRUE"].contains(&word.as_str()),
        _ => false,
    }
}

fn the_only(value: &Value) -> &Value {
    match value.as_array().map(Vec::as_slice) {
        Some([one]) => one,
        _ => value,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use ecs_mesh_consul::ConsulVersion;
    use ecs_mesh_control_plane::MeshErrorKind;

    fn method(config: &Value) -> AuditedAuthMethod {
        let response = json!({"Name": "m", "Type": "aws-iam", "Config": config});
        auth_method(serde_json::from_value(response).unwrap())
    }

    fn nodes(version: &str, there: bool) -> Fetched<bool> {
        let cluster = ClusterArn::parse("arn:aws:ecs:eu-west-1:111122223333:cluster/prod").unwrap();
        let clusters = BTreeSet::from([cluster.clone()]);
        let refused = MeshError::new(MeshErrorKind::Forbidden, "no");
        let config = AuthConfig {
            version: Ok(ConsulVersion::parse(version)),
            acls: Ok(true),
            methods: Err(refused.clone()),
            rules: Ok(Vec::new()),
            roles: Err(refused.clone()),
            anonymous: Err(refused),
            nodes: Ok(if there { clusters.clone() } else { BTreeSet::new() }),
        };
        let facts = facts(config, &clusters);
        assert_eq!((facts.auth_methods, facts.binding_rules), (Err("no".to_owned()), Ok(Vec::new())));
        facts.nodes[&cluster].clone()
    }

    #[test]
    fn missing_node_needs_server_that_reports_filtering() {
        assert_eq!((nodes("1.21.4", true), nodes("1.21.4", false)), (Ok(true), Ok(false)));
        assert_eq!(nodes("1.8.7", true), Ok(true));
        assert!(nodes("1.8.7", false).is_err());
    }

    #[test]
    fn settings_are_read_like_consul_in_any_case() {
        for config in [
            json!({"BoundIAMPrincipalARNs": ["a"], "EnableIAMEntityDetails": true, "IAMEntityTags": ["t"],
                "STSEndpoint": "https://sts", "ServerIDHeaderValue": "planted"}),
            json!({"boundiamprincipalarns": "a", "enableIamEntityDetails": "true", "iamentitytags": ["t"],
                "stsendpoint": ["https://sts"], "SERVERIDHEADERVALUE": "planted"}),
        ] {
            let method = method(&config);
            assert_eq!((method.principals.as_slice(), method.entity_details), (&["a".to_owned()][..], true));
            assert_eq!(method.entity_tags, BTreeSet::from(["t".to_owned()]));
            assert_eq!(method.sts_endpoint.as_deref(), Some("https://sts"));
            assert_eq!(method.server_id.as_ref().map(Redacted::expose), Some("planted"));
            assert!(!format!("{method:?}").contains("planted"));
        }
        let none = method(&json!({"EnableIAMEntityDetails": 0, "STSEndpoint": ""}));
        assert_eq!((none.entity_details, none.sts_endpoint), (false, None));
    }
}
