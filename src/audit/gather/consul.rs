//! The questions to Consul: GETs alone. What one answer withholds hides no other, and an answer that Consul has filtered
//! proves nothing.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use crate::audit::facts::{AuthMethod, BindingRule, ConsulFacts, Known, PolicyText};
use crate::model::ClusterArn;
use crate::observe::inspect::Hidden;

const ANONYMOUS: &str = "00000000-0000-0000-0000-000000000002";
/// Within a part of a path.
const PART: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// An answer of Consul's HTTP API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// `X-Consul-Results-Filtered-By-ACLs`: what the token may not see was left out.
    pub filtered: bool,
    /// The body; a text where it is no JSON.
    pub body: Value,
}

/// Reads of Consul's HTTP API.
#[async_trait]
pub trait ConsulReads: Send + Sync {
    /// `GET` of a path such as `/v1/acl/roles`. An error says in words why there is no answer at all.
    async fn get(&self, path: &str) -> Result<Answer, String>;
}

/// Finds out everything that the rules look at.
///
/// # Errors
/// In words, where Consul does not answer at all.
pub async fn consul_facts(
    reads: &dyn ConsulReads,
    clusters: &BTreeSet<ClusterArn>,
) -> Result<ConsulFacts, String> {
    let agent = reads.get("/v1/agent/self").await?;
    let version = ok(agent, "/v1/agent/self").and_then(|body| {
        let version = body["Config"]["Version"].as_str().map(str::to_owned);
        version.ok_or_else(|| "/v1/agent/self tells no version: is this Consul?".to_owned())
    });
    let methods = reads.get("/v1/acl/auth-methods").await?;
    let acls = match methods.status {
        // Consul answers so to everything below /v1/acl where ACLs are off.
        401 => Ok(false),
        200..=299 | 403 => Ok(true),
        status => Err(format!("GET /v1/acl/auth-methods answers {status}")),
    };
    if acls == Ok(false) {
        let nodes = nodes(reads, clusters, true).await;
        return Ok(ConsulFacts {
            version,
            acls,
            auth_methods: Ok(Vec::new()),
            binding_rules: Ok(Vec::new()),
            roles: Ok(BTreeSet::new()),
            anonymous: Ok(Vec::new()),
            nodes,
        });
    }
    Ok(ConsulFacts {
        version,
        acls,
        auth_methods: auth_methods(reads, methods).await,
        binding_rules: list(reads, "/v1/acl/binding-rules")
            .await
            .map(|all| all.iter().map(binding_rule).collect()),
        roles: list(reads, "/v1/acl/roles")
            .await
            .map(|all| all.iter().map(|role| text(role, "Name")).collect()),
        anonymous: anonymous(reads).await,
        nodes: nodes(reads, clusters, false).await,
    })
}

async fn auth_methods(reads: &dyn ConsulReads, listed: Answer) -> Known<Vec<AuthMethod>> {
    let mut methods = Vec::new();
    for listed in items(ok(listed, "/v1/acl/auth-methods")?, "/v1/acl/auth-methods")? {
        let name = text(&listed, "Name");
        if text(&listed, "Type") != "aws-iam" {
            methods.push(AuthMethod { name, kind: text(&listed, "Type"), ..AuthMethod::default() });
            continue;
        }
        // The list leaves the configuration out.
        let path = format!("/v1/acl/auth-method/{}", part(&name));
        methods.push(auth_method(&one(reads, &path).await?));
    }
    Ok(methods)
}

fn auth_method(found: &Value) -> AuthMethod {
    let config = &found["Config"];
    let texts = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(|item| Some(item.as_str()?.to_owned())).collect()
    };
    let filled = |name: &str| Some(text(config, name)).filter(|text| !text.is_empty());
    let rules = found["NamespaceRules"].as_array().into_iter().flatten();
    AuthMethod {
        name: text(found, "Name"),
        kind: text(found, "Type"),
        principals: texts(&config["BoundIAMPrincipalARNs"]),
        entity_details: config["EnableIAMEntityDetails"].as_bool().unwrap_or(false),
        entity_tags: texts(&config["IAMEntityTags"]).into_iter().collect(),
        sts_endpoint: filled("STSEndpoint"),
        server_id: filled("ServerIDHeaderValue").map(Hidden::new),
        server_id_is_known: true,
        namespace_rules: rules.map(|rule| (text(rule, "Selector"), text(rule, "BindNamespace"))).collect(),
    }
}

fn binding_rule(found: &Value) -> BindingRule {
    BindingRule {
        id: text(found, "ID"),
        method: text(found, "AuthMethod"),
        bind_type: text(found, "BindType"),
        bind_name: text(found, "BindName"),
        selector: text(found, "Selector"),
    }
}

/// The policies of the anonymous token, those of its roles included.
async fn anonymous(reads: &dyn ConsulReads) -> Known<Vec<PolicyText>> {
    let token = one(reads, &format!("/v1/acl/token/{ANONYMOUS}")).await?;
    let linked = |value: &Value, field: &str| -> Vec<(String, String)> {
        let all = value[field].as_array().into_iter().flatten();
        all.map(|link| (text(link, "ID"), text(link, "Name"))).collect()
    };
    let mut policies: BTreeSet<(String, String)> = linked(&token, "Policies").into_iter().collect();
    for (id, _) in linked(&token, "Roles") {
        let role = one(reads, &format!("/v1/acl/role/{}", part(&id))).await?;
        policies.extend(linked(&role, "Policies"));
    }
    let mut found = Vec::new();
    for (id, name) in policies {
        let policy = one(reads, &format!("/v1/acl/policy/{}", part(&id))).await?;
        found.push(PolicyText { name, rules: text(&policy, "Rules") });
    }
    Ok(found)
}

/// Whether each cluster has its node. Whom Consul shows no node at all it would not show this one either.
async fn nodes(
    reads: &dyn ConsulReads,
    clusters: &BTreeSet<ClusterArn>,
    acls_are_off: bool,
) -> BTreeMap<ClusterArn, Known<bool>> {
    let mut found = BTreeMap::new();
    if clusters.is_empty() {
        return found;
    }
    let sees = acls_are_off || sees_nodes(reads).await;
    for cluster in clusters {
        let path = format!("/v1/catalog/node/{}", part(cluster.as_str()));
        let known = match reads.get(&path).await {
            Ok(answer) if answer.status == 200 && !answer.body["Node"].is_null() => Ok(true),
            Ok(answer) if answer.status == 200 && !answer.filtered && sees => Ok(false),
            Ok(answer) if answer.status == 200 => {
                Err("the token may not read nodes, so that none is shown proves nothing".to_owned())
            }
            Ok(answer) => Err(format!("GET {path} answers {}", answer.status)),
            Err(why) => Err(why),
        };
        found.insert(cluster.clone(), known);
    }
    found
}

async fn sees_nodes(reads: &dyn ConsulReads) -> bool {
    // Servers are nodes themselves, so there is always one to see.
    match reads.get("/v1/catalog/nodes").await {
        Ok(answer) => {
            answer.status == 200
                && !answer.filtered
                && answer.body.as_array().is_some_and(|all| !all.is_empty())
        }
        Err(_) => false,
    }
}

async fn list(reads: &dyn ConsulReads, path: &str) -> Known<Vec<Value>> {
    items(ok(reads.get(path).await?, path)?, path)
}

async fn one(reads: &dyn ConsulReads, path: &str) -> Known<Value> {
    ok(reads.get(path).await?, path)
}

fn items(body: Value, path: &str) -> Known<Vec<Value>> {
    match body {
        Value::Array(items) => Ok(items),
        Value::Null => Ok(Vec::new()),
        _ => Err(format!("GET {path} answers no list: is this Consul?")),
    }
}

fn ok(answer: Answer, path: &str) -> Known<Value> {
    match answer.status {
        200..=299 if answer.filtered => {
            Err(format!("GET {path} leaves out what the token may not see, so it proves nothing"))
        }
        200..=299 => Ok(answer.body),
        401 | 403 => Err(format!("GET {path} answers {}: the token may not read it", answer.status)),
        status => Err(format!("GET {path} answers {status}")),
    }
}

fn text(value: &Value, field: &str) -> String {
    value[field].as_str().unwrap_or_default().to_owned()
}

fn part(text: &str) -> String {
    utf8_percent_encode(text, PART).to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Answers by path.
    struct Script(BTreeMap<String, Answer>);

    #[async_trait]
    impl ConsulReads for Script {
        async fn get(&self, path: &str) -> Result<Answer, String> {
            let missing = || Answer { status: 404, filtered: false, body: Value::Null };
            Ok(self.0.get(path).cloned().unwrap_or_else(missing))
        }
    }

    const CLUSTER: &str = "arn:aws:ecs:eu-west-1:111122223333:cluster/prod";
    const NODE: &str = "/v1/catalog/node/arn%3Aaws%3Aecs%3Aeu-west-1%3A111122223333%3Acluster%2Fprod";

    fn script(more: &[(&str, u16, bool, Value)]) -> Script {
        let method = json!({"Name": "m", "Type": "aws-iam", "Config": {
            "BoundIAMPrincipalARNs": ["arn:aws:iam::111122223333:role/consul-ecs/*"],
            "EnableIAMEntityDetails": true, "IAMEntityTags": ["t"], "ServerIDHeaderValue": "planted"}});
        let answers = [
            ("/v1/agent/self", 200, false, json!({"Config": {"Version": "1.21.4"}})),
            ("/v1/acl/auth-methods", 200, false, json!([{"Name": "m", "Type": "aws-iam"}])),
            ("/v1/acl/auth-method/m", 200, false, method),
            ("/v1/acl/binding-rules", 200, false, json!([])),
            ("/v1/acl/roles", 200, false, json!([{"Name": "r"}])),
            (
                "/v1/acl/token/00000000-0000-0000-0000-000000000002",
                200,
                false,
                json!({"Policies": [{"ID": "p", "Name": "n"}]}),
            ),
            ("/v1/acl/policy/p", 200, false, json!({"Rules": "acl = \"read\""})),
            ("/v1/catalog/nodes", 200, false, json!([{"Node": "server-1"}])),
            (NODE, 200, false, json!({"Node": {"Node": CLUSTER}, "Services": {}})),
        ];
        let all = answers.iter().chain(more);
        let answer = |(path, status, filtered, body): &(&str, u16, bool, Value)| {
            ((*path).to_owned(), Answer { status: *status, filtered: *filtered, body: body.clone() })
        };
        Script(all.map(answer).collect())
    }

    async fn facts(more: &[(&str, u16, bool, Value)]) -> ConsulFacts {
        let clusters = BTreeSet::from([ClusterArn::parse(CLUSTER).unwrap()]);
        consul_facts(&script(more), &clusters).await.unwrap()
    }

    #[tokio::test]
    async fn all_is_read_and_no_secret_is_in_what_debug_shows() {
        let facts = facts(&[]).await;
        assert_eq!((facts.version.clone(), facts.acls.clone()), (Ok("1.21.4".to_owned()), Ok(true)));
        let methods = facts.auth_methods.as_ref().unwrap();
        assert!(methods[0].entity_details && methods[0].entity_tags.contains("t"));
        assert_eq!(facts.anonymous.as_ref().unwrap()[0].rules, "acl = \"read\"");
        assert_eq!(facts.nodes.values().cloned().collect::<Vec<_>>(), [Ok(true)]);
        assert!(!format!("{facts:?}").contains("planted"));
    }

    #[tokio::test]
    async fn acls_that_are_off_are_told_apart_from_acls_that_may_not_be_read() {
        let off = facts(&[("/v1/acl/auth-methods", 401, false, json!("ACL support disabled"))]).await;
        assert_eq!((off.acls, off.auth_methods), (Ok(false), Ok(vec![])));
        let denied = facts(&[("/v1/acl/auth-methods", 403, false, json!("Permission denied"))]).await;
        assert_eq!(denied.acls, Ok(true));
        assert!(denied.auth_methods.unwrap_err().contains("may not read it"));
        assert!(denied.roles.is_ok(), "one refusal hides no other answer");
    }

    #[tokio::test]
    async fn a_node_is_missing_only_to_whom_nodes_are_shown() {
        let none = json!(null);
        for (filtered, nodes, known) in [
            (false, json!([{"Node": "server-1"}]), Some(false)),
            (true, json!([{"Node": "server-1"}]), None),
            (false, json!([]), None),
        ] {
            let more = [(NODE, 200, filtered, none.clone()), ("/v1/catalog/nodes", 200, false, nodes)];
            let facts = facts(&more).await;
            assert_eq!(facts.nodes.values().next().unwrap().clone().ok(), known);
        }
    }

    #[tokio::test]
    async fn a_filtered_list_proves_nothing() {
        let facts = facts(&[("/v1/acl/binding-rules", 200, true, json!([]))]).await;
        assert!(facts.binding_rules.is_err());
    }
}
