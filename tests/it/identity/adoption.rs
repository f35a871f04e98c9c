use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::fixture::{DEMO, IdentityFixture, lines};
use super::{create_everything, everything};

at_both_consuls! {
    legacy_objects_conflict_until_adopted
    objects_of_another_operator_are_never_changed
    only_state_absent_removes_objects
    invalid_manifest_at_start_removes_nothing
}

/// Objects as created by the older controller.
pub(super) async fn create_objects(fixture: &IdentityFixture) {
    let objects: Value =
        serde_json::from_str(include_str!("../../fixtures/consul/older-controller.json")).unwrap();
    let list = |kind: &str| objects[kind].as_array().unwrap().clone();
    let only = |object: &Value, fields: &[&str]| -> Value {
        let kept = fields.iter().filter(|field| !object[**field].is_null());
        kept.map(|field| ((*field).to_owned(), object[*field].clone())).collect()
    };
    for policy in list("policies") {
        fixture.put("/v1/acl/policy", &only(&policy, &["Name", "Description", "Rules"])).await;
    }
    for role in list("roles") {
        let mut made = only(&role, &["Name", "Description"]);
        let names = role["Policies"].as_array().into_iter().flatten().map(|link| only(link, &["Name"]));
        made["Policies"] = names.collect();
        fixture.put("/v1/acl/role", &made).await;
    }
    for method in list("authMethods") {
        fixture.put("/v1/acl/auth-method", &only(&method, &["Name", "Type", "Description", "Config"])).await;
    }
    for rule in list("bindingRules") {
        let fields = ["AuthMethod", "BindName", "BindType", "Description", "Selector"];
        fixture.put("/v1/acl/binding-rule", &only(&rule, &fields)).await;
    }
    let node = json!({"Node": DEMO, "Address": "127.0.0.1", "NodeMeta": {"synthetic-node": "true"}});
    fixture.put("/v1/catalog/register", &node).await;
    let token = json!({"Policies": [{"Name": "anonymous-token-policy"}]});
    fixture.put("/v1/acl/token/00000000-0000-0000-0000-000000000002", &token).await;
}

/// A spec that matches the older controller's objects.
fn older() -> Value {
    json!({
        "controlPlane": "consul",
        "serviceTokens": {
            "boundPrincipals": ["arn:aws:iam::000000000000:role/consul-ecs/*"],
            "gateways": ["mesh-gateway", "terminating-gateway", "api-gateway"],
        },
        "anonymousPolicy": "present",
    })
}

async fn legacy_objects_conflict_until_adopted(fixture: IdentityFixture) {
    let auth = older();
    create_objects(&fixture).await;
    let before = fixture.everything().await;
    let plan = fixture.plan(Some(&auth)).await;
    let found = lines(&plan);
    assert_eq!(found.len(), 12, "{found:#?}");
    assert!(found.contains("name conflict auth method iam-ecs-service-token: Description"), "{found:#?}");
    assert!(found.iter().all(|line| line.starts_with("name conflict ")), "{found:#?}");
    let ran = fixture.run(Some(&auth)).await;
    assert_eq!((ran.writes(), ran.objects("conflict"), ran.objects("ok")), (0, 12, 1), "{}", ran.text);
    assert_eq!(fixture.everything().await, before, "untouched, byte for byte");

    let mut adopting = auth.clone();
    adopting["adopt"] = json!(["*"]);
    let plan = fixture.plan(Some(&adopting)).await;
    assert!(lines(&plan).iter().all(|line| line.starts_with("update ")), "{:#?}", lines(&plan));
    assert_eq!(fixture.run(Some(&adopting)).await.writes(), 12);
    let after = fixture.everything().await;
    let ids = |all: &Value| -> BTreeSet<String> {
        let of = |kind: &str| all[kind].as_array().unwrap().clone();
        let all = ["policies", "roles", "rules"].into_iter().flat_map(of);
        all.map(|object| object["ID"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(ids(&after), ids(&before), "the same objects");
    assert_eq!(
        after["methods"][0]["CreateIndex"], before["methods"][0]["CreateIndex"],
        "no token was removed"
    );
    assert_eq!(lines(&fixture.plan(Some(&auth)).await), BTreeSet::new(), "`adopt` can be taken out again");
    assert_eq!(fixture.run(Some(&auth)).await.writes(), 0);
}

async fn objects_of_another_operator_are_never_changed(fixture: IdentityFixture) {
    let mut auth = everything();
    auth["adopt"] = json!(["*"]);
    for name in ["consul-ecs-mesh-gateway-policy", "anonymous-token-policy"] {
        let body = json!({"Name": name, "Description": "theirs [ecs-mesh:other]", "Rules": "acl = \"read\""});
        fixture.put("/v1/acl/policy", &body).await;
    }
    let role = json!({"Name": "consul-ecs-client-role", "Description": "theirs [ecs-mesh:other]"});
    fixture.put("/v1/acl/role", &role).await;
    let node = json!({"Node": DEMO, "Address": "10.0.0.1", "NodeMeta": {"ecs-mesh-operator": "other"}});
    fixture.put("/v1/catalog/register", &node).await;
    let theirs = |all: Value| -> Vec<Value> {
        let of = |kind: &str| all[kind].as_array().unwrap().clone();
        let all = ["policies", "roles", "nodes"].into_iter().flat_map(of);
        all.filter(|one| one.to_string().contains("ecs-mesh:other") || one["Address"] == "10.0.0.1").collect()
    };
    let before = theirs(fixture.everything().await);
    assert_eq!(before.len(), 4);
    let ran = fixture.run(Some(&auth)).await;
    assert_eq!(ran.objects("conflict"), 4, "{}", ran.text);
    let mut absent = auth.clone();
    absent["state"] = "absent".into();
    fixture.run(Some(&absent)).await;
    assert_eq!(theirs(fixture.everything().await), before, "byte for byte, indexes included");
}

async fn only_state_absent_removes_objects(fixture: IdentityFixture) {
    create_everything(&fixture).await;
    let auth = everything();
    let made = fixture.everything().await;
    let plan = fixture.plan(None).await;
    assert!(!plan.will_write());
    // The anonymous token has no owner.
    assert_eq!(plan.summary.unmanaged, 16, "{:#?}", lines(&plan));
    assert_eq!(fixture.run(None).await.writes(), 0);
    assert_eq!(fixture.everything().await, made);

    let service = json!({
        "Node": DEMO, "Address": "127.0.0.1", "SkipNodeUpdate": true,
        "Service": {"ID": "web-1", "Service": "web", "Port": 9090},
    });
    fixture.put("/v1/catalog/register", &service).await;
    let mut absent = auth.clone();
    absent["state"] = "absent".into();
    let plan = fixture.plan(Some(&absent)).await;
    assert_eq!(
        (plan.summary.remove, plan.summary.update, plan.summary.hold),
        (15, 1, 1),
        "{:#?}",
        lines(&plan)
    );
    assert!(lines(&plan).contains(&format!("hold node {DEMO}")));
    assert_eq!(fixture.run(Some(&absent)).await.writes(), 16);
    let left = fixture.everything().await;
    let ours = left.to_string().matches("ecs-mesh:op").count();
    assert_eq!((ours, left["methods"].as_array().unwrap().len()), (0, 0), "{left:#}");
    assert_eq!(left["anonymous"]["Policies"].as_array().map_or(0, Vec::len), 0);

    fixture.put("/v1/catalog/deregister", &json!({"Node": DEMO, "ServiceID": "web-1"})).await;
    assert_eq!(fixture.run(Some(&absent)).await.writes(), 1);
    let nodes = fixture.get("/v1/catalog/nodes").await;
    assert!(nodes.as_array().unwrap().iter().all(|node| node["Node"] != DEMO), "{nodes}");
}

async fn invalid_manifest_at_start_removes_nothing(mut fixture: IdentityFixture) {
    create_everything(&fixture).await;
    let auth = everything();
    let made = fixture.everything().await;
    fixture.broken = true;
    let mut absent = auth.clone();
    absent["state"] = "absent".into();
    let ran = fixture.run(Some(&absent)).await;
    assert_eq!((ran.writes(), fixture.everything().await), (0, made));
    fixture.broken = false;
    assert!(fixture.run(Some(&absent)).await.writes() > 10);
}
