//! Operators that share the ACL objects of one Consul: two copies with one id, and an operator that gets another id.

use std::collections::BTreeMap;
use std::time::Instant;

use serde_json::{Value, json};

use super::consul_harness::{ConsulHarness, bound};
use super::harness::{Harness, OperatorProcess, TIMEOUT, document, eventually};
use super::replicas::{assert_foreign_writer_reported, has_noticed_another_writer};
use crate::consul_real::server::{Acls, ConsulRelease, MANAGEMENT, RealConsul};

const METHOD: &str = "iam-ecs-service-token";

/// Logins with a gateway, whose tokens end after this time.
pub(super) fn auth(harness: &ConsulHarness, token_ttl: &str, more: &str) -> String {
    let aws = harness.0.variable("AWS_ENDPOINT_URL");
    let spec = format!(
        "{{controlPlane: consul, adopt: [\"*\"], serviceTokens: {{boundPrincipals: \
         [\"arn:aws:iam::111122223333:role/consul-ecs/*\"], stsEndpoint: \"{aws}\", iamEndpoint: \"{aws}\", \
         tokenTtl: {token_ttl}{more}}}}}"
    );
    document("ConsulAuth", "logins", &spec)
}

/// Starts an operator with manifests of its own.
fn start(harness: &ConsulHarness, name: &str, manifests: &str, more: &[&str]) -> OperatorProcess {
    let file = harness.0.path(&format!("{name}.yaml"));
    std::fs::write(&file, manifests).unwrap();
    let mut arguments = vec!["run", "--manifests", file.to_str().unwrap(), "--log-format", "json"];
    arguments.extend(more);
    OperatorProcess::start(harness.0.directory.path(), name, &harness.0.environment, &arguments)
}

#[tokio::test]
async fn two_operators_at_consul_notice_each_other() {
    let harness = ConsulHarness::start().await;
    let manifests = |ttl: &str| harness.manifests("") + &auth(&harness, ttl, "");
    let more = ["--operator-id", "harness", "--metrics-address", "127.0.0.1:0"];
    let one = start(&harness, "one", &manifests("1h"), &more);
    one.line(&[("message", "no lease: this must be the only copy with this operator id")]).await;
    one.line(&[("message", "ACL object changed"), ("kind", "auth_method")]).await;
    one.wait_for_sweep(true).await;
    assert!(!has_noticed_another_writer(&one), "alone");
    // A copy with other manifests, as during a deployment. Each corrects what the other has written.
    let other = start(&harness, "other", &manifests("2h"), &more);
    let end = Instant::now() + TIMEOUT;
    while !(has_noticed_another_writer(&one) && has_noticed_another_writer(&other)) {
        assert!(Instant::now() < end, "they do not notice each other:\n{}\n{}", one.stderr(), other.stderr());
        tokio::time::sleep(super::harness::POLL_INTERVAL).await;
    }
    for operator in [&one, &other] {
        assert_foreign_writer_reported(&harness.0, operator, "consul").await;
    }
    drop((one, other));
    // Predecessors do not count.
    let next = start(&harness, "next", &manifests("3h"), &more);
    next.line(&[("message", "ACL object changed"), ("kind", "auth_method")]).await;
    next.wait_for_sweeps(2).await;
    assert!(!has_noticed_another_writer(&next), "{}", next.stderr());
}

/// A real Consul, before logins by AWS IAM: of the declared objects it takes the role and its policy.
#[tokio::test]
async fn two_operators_at_a_real_consul_notice_each_other() {
    let what = "two operators at a real Consul";
    let Some(consul) = RealConsul::start(ConsulRelease::Oldest, what, Acls::On).await else { return };
    let harness = Harness::start().await;
    let token = harness.path("token");
    std::fs::write(&token, MANAGEMENT).unwrap();
    let connection = format!(
        "{{type: consul, consul: {{address: \"{}\", tokenFile: \"{}\"}}}}",
        consul.url(),
        token.display()
    );
    let logins = "{controlPlane: consul, clientTokens: {boundPrincipals: \
                  [\"arn:aws:iam::111122223333:role/agents/*\"]}}";
    let manifests = [
        document("ControlPlane", "consul", &connection),
        bound("harness", "consul", harness.variable("ECS_MESH_CLUSTER_ARN"), ""),
        document("ConsulAuth", "logins", logins),
    ];
    harness.manifest("all.yaml", &manifests.concat());
    let start =
        |name: &str| harness.operator_with(name, &harness.environment, &["--metrics-address", "127.0.0.1:0"]);
    let policy = || async {
        let url = format!("{}/v1/acl/policies", consul.url());
        let listed = harness.http.get(url).header("x-consul-token", MANAGEMENT).send().await.unwrap();
        let listed: Vec<Value> = serde_json::from_str(&listed.text().await.unwrap()).unwrap();
        listed.into_iter().find(|policy| policy["Name"] == "consul-ecs-client-policy")
    };
    let one = start("one");
    let of_policy = [("message", "ACL object changed"), ("name", "consul-ecs-client-policy")];
    one.line(&of_policy).await;
    let other = start("other");
    for operator in [&one, &other] {
        operator.line(&[("message", "ACL object not changed"), ("kind", "auth_method")]).await;
        operator.wait_for_sweep(true).await;
        assert!(!has_noticed_another_writer(operator), "nothing was written since");
    }
    // The first wrote all, so its copy goes first. Of a policy, which is read by name, a new one proves nothing: the writer also
    // gives it to the role again.
    for (writer, reader) in [(&other, &one), (&one, &other)] {
        // The policy is deleted by hand, and one of the two is slow.
        reader.signal("STOP");
        let found = policy().await.unwrap();
        let url = format!("{}/v1/acl/policy/{}", consul.url(), found["ID"].as_str().unwrap());
        let removed = harness.http.delete(url).header("x-consul-token", MANAGEMENT).send().await.unwrap();
        assert!(removed.status().is_success());
        let made = eventually("another policy", || async { policy().await }).await;
        assert!(made["Description"].as_str().unwrap().contains("[ecs-mesh-process:"), "{made}");
        reader.signal("CONT");
        eventually("the write is noticed", || async { has_noticed_another_writer(reader).then_some(()) })
            .await;
        assert!(!writer.lines(&of_policy).is_empty());
        assert_foreign_writer_reported(&harness, reader, "consul").await;
    }
}

/// The ACL objects and the node with an operator's marker: by name, Consul's id or the index of the creation, and owner.
async fn owned(harness: &ConsulHarness) -> BTreeMap<String, (String, String)> {
    let mut all = BTreeMap::new();
    for (path, name, identity) in [
        ("acl/policies", "Name", "ID"),
        ("acl/roles", "Name", "ID"),
        ("acl/auth-methods", "Name", "CreateIndex"),
        ("acl/binding-rules", "ID", "ID"),
        ("catalog/nodes", "Node", "CreateIndex"),
    ] {
        let found = harness.call_as_admin("GET", &format!("/v1/{path}"), &Value::Null).await;
        for object in found.as_array().unwrap() {
            let text = |field: &str| object[field].as_str().unwrap_or_default().to_owned();
            let in_description = text("Description");
            let mark = in_description.split("[ecs-mesh:").nth(1).and_then(|rest| rest.split(']').next());
            let mark = mark.or_else(|| object["Meta"]["ecs-mesh-operator"].as_str());
            if let Some(mark) = mark {
                let key = format!("{path} {}", text(name));
                all.insert(key, (object[identity].to_string(), mark.to_owned()));
            }
        }
    }
    all
}

#[tokio::test]
async fn operator_with_a_new_id_takes_over_acl_objects() {
    let harness = ConsulHarness::start().await;
    let tasks = harness.deploy("web", 2).await;
    let base = harness.manifests("");
    let full = base.clone() + &auth(&harness, "1h", ", gateways: [mesh-gateway]");
    let mut old = start(&harness, "old", &full, &["--operator-id", "harness"]);
    let count = eventually("the old operator owns the objects", || async {
        let found = owned(&harness).await;
        let done = found.keys().filter(|key| key.contains("mesh-gateway")).count() >= 2;
        (done && found.keys().any(|key| key.starts_with("catalog"))).then_some(found.len())
    })
    .await;
    let joined = harness.join("web", &tasks[0]).await;
    old.signal("TERM");
    assert_eq!(old.code().await, Some(0));
    let before = owned(&harness).await;
    assert!(count >= 5 && before.values().all(|(_, owner)| owner == "harness"), "{before:?}");

    // The gateway is no longer declared: its objects stay, and get the new id, too.
    let fewer = base + &auth(&harness, "1h", "");
    harness.0.manifest("all.yaml", &fewer);
    let ids = ["--operator-id", "harness-2", "--previous-operator-id", "harness"];
    let manifests = harness.0.path("manifests");
    let mut arguments = vec!["plan", "--output", "json", "--manifests", manifests.to_str().unwrap()];
    arguments.extend(ids);
    let directory = harness.0.directory.path();
    let mut plan = OperatorProcess::start(directory, "plan", &harness.0.environment, &arguments);
    assert_eq!(plan.code().await, Some(2), "{}", plan.stderr());
    let planned: Value = serde_json::from_str(&plan.stdout()).unwrap();
    let of_objects = planned["changes"].as_array().unwrap().iter().filter(|change| !change["kind"].is_null());
    let mut updates = 0;
    for change in of_objects {
        assert_eq!(change["change"], "update", "{change}");
        for field in change["fields"].as_array().unwrap() {
            let path = field["path"].as_str().unwrap();
            assert!(["Description", "NodeMeta.ecs-mesh-operator"].contains(&path), "{change}");
        }
        updates += 1;
    }
    assert_eq!(updates, before.len(), "{planned:#}");

    let with_owner = |owner: &str| -> BTreeMap<String, (String, String)> {
        before.iter().map(|(name, (id, _))| (name.clone(), (id.clone(), owner.to_owned()))).collect()
    };
    let mut new = start(&harness, "new", &fewer, &ids);
    let taken = with_owner("harness-2");
    eventually("the new operator owns the same objects", || async {
        (owned(&harness).await == taken).then_some(())
    })
    .await;
    // Tasks keep their tokens, and others log in.
    let own = harness.call("GET", "/v1/acl/token/self", Some(&joined.secret), &Value::Null).await;
    assert_eq!((own.0, &own.1["AuthMethod"]), (200, &json!(METHOD)));
    harness.join("web", &tasks[1]).await;
    harness.stop(&joined.id).await;
    harness.wait_until_gone(&joined).await;
    new.signal("TERM");
    assert_eq!(new.code().await, Some(0));

    // Back again, and without the flag nothing is left to do.
    let back = ["--operator-id", "harness", "--previous-operator-id", "harness-2"];
    let mut old = start(&harness, "back", &full, &back);
    let expected = with_owner("harness");
    eventually("the old operator owns the same objects", || async {
        (owned(&harness).await == expected).then_some(())
    })
    .await;
    old.signal("TERM");
    assert_eq!(old.code().await, Some(0));
    harness.0.manifest("all.yaml", &full);
    let (_, plan) = harness.0.plan().await;
    let changes = plan["changes"].as_array().unwrap().iter();
    let left: Vec<&Value> = changes.filter(|change| !change["kind"].is_null()).collect();
    assert_eq!(left, Vec::<&Value>::new());
}
