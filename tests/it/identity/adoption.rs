use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::fixture::{DEMO, IdentityFixture, lines};
use super::{everything, make_everything};

at_both_consuls! {
    legacy_objects_conflict_until_adopted
    what_another_operator_has_marked_is_never_touched
    only_state_absent_removes_objects
    invalid_manifest_at_start_removes_nothing
}

/// Objects as created by the older controller.
async fn furnish(desk: &IdentityFixture) {
    let objects: Value =
        serde_json::from_str(include_str!("../../fixtures/consul/older-controller.json")).unwrap();
    let list = |kind: &str| objects[kind].as_array().unwrap().clone();
    let only = |object: &Value, fields: &[&str]| -> Value {
        let kept = fields.iter().filter(|field| !object[**field].is_null());
        kept.map(|field| ((*field).to_owned(), object[*field].clone())).collect()
    };
    for policy in list("policies") {
        desk.put("/v1/acl/policy", &only(&policy, &["Name", "Description", "Rules"])).await;
    }
    for role in list("roles") {
        let mut made = only(&role, &["Name", "Description"]);
        let names = role["Policies"].as_array().into_iter().flatten().map(|link| only(link, &["Name"]));
        made["Policies"] = names.collect();
        desk.put("/v1/acl/role", &made).await;
    }
    for method in list("authMethods") {
        desk.put("/v1/acl/auth-method", &only(&method, &["Name", "Type", "Description", "Config"])).await;
    }
    for rule in list("bindingRules") {
        let fields = ["AuthMethod", "BindName", "BindType", "Description", "Selector"];
        desk.put("/v1/acl/binding-rule", &only(&rule, &fields)).await;
    }
    let node = json!({"Node": DEMO, "Address": "127.0.0.1", "NodeMeta": {"synthetic-node": "true"}});
    desk.put("/v1/catalog/register", &node).await;
    let token = json!({"Policies": [{"Name": "anonymous-token-policy"}]});
    desk.put("/v1/acl/token/00000000-0000-0000-0000-000000000002", &token).await;
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

async fn legacy_objects_conflict_until_adopted(desk: IdentityFixture) {
    let auth = older();
    furnish(&desk).await;
    let before = desk.everything().await;
    let plan = desk.plan(Some(&auth)).await;
    let found = lines(&plan);
    assert_eq!(found.len(), 12, "{found:#?}");
    assert!(found.contains("name conflict auth method iam-ecs-service-token: Description"), "{found:#?}");
    assert!(found.iter().all(|line| line.starts_with("name conflict ")), "{found:#?}");
    let ran = desk.run(Some(&auth)).await;
    assert_eq!((ran.writes(), ran.objects("conflict"), ran.objects("ok")), (0, 12, 1), "{}", ran.text);
    assert_eq!(desk.everything().await, before, "untouched, byte for byte");

    let mut adopting = auth.clone();
    adopting["adopt"] = json!(["*"]);
    let plan = desk.plan(Some(&adopting)).await;
    assert!(lines(&plan).iter().all(|line| line.starts_with("update ")), "{:#?}", lines(&plan));
    assert_eq!(desk.run(Some(&adopting)).await.writes(), 12);
    let after = desk.everything().await;
    let ids = |all: &Value| -> BTreeSet<String> {
        let of = |kind: &str| all[kind].as_array().unwrap().clone();
        let all = ["policies", "roles", "rules"].into_iter().flat_map(of);
        all.map(|object| object["ID"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(ids(&after), ids(&before), "the same objects");
    assert_eq!(after["methods"][0]["CreateIndex"], before["methods"][0]["CreateIndex"], "no token went");
    assert_eq!(lines(&desk.plan(Some(&auth)).await), BTreeSet::new(), "`adopt` can be taken out again");
    assert_eq!(desk.run(Some(&auth)).await.writes(), 0);
}

async fn what_another_operator_has_marked_is_never_touched(desk: IdentityFixture) {
    let mut auth = everything();
    auth["adopt"] = json!(["*"]);
    for name in ["consul-ecs-mesh-gateway-policy", "anonymous-token-policy"] {
        let body = json!({"Name": name, "Description": "theirs [ecs-mesh:other]", "Rules": "acl = \"read\""});
        desk.put("/v1/acl/policy", &body).await;
    }
    let role = json!({"Name": "consul-ecs-client-role", "Description": "theirs [ecs-mesh:other]"});
    desk.put("/v1/acl/role", &role).await;
    let node = json!({"Node": DEMO, "Address": "10.0.0.1", "NodeMeta": {"ecs-mesh-operator": "other"}});
    desk.put("/v1/catalog/register", &node).await;
    let theirs = |all: Value| -> Vec<Value> {
        let of = |kind: &str| all[kind].as_array().unwrap().clone();
        let all = ["policies", "roles", "nodes"].into_iter().flat_map(of);
        all.filter(|one| one.to_string().contains("ecs-mesh:other") || one["Address"] == "10.0.0.1").collect()
    };
    let before = theirs(desk.everything().await);
    assert_eq!(before.len(), 4);
    let ran = desk.run(Some(&auth)).await;
    assert_eq!(ran.objects("conflict"), 4, "{}", ran.text);
    let mut absent = auth.clone();
    absent["state"] = "absent".into();
    desk.run(Some(&absent)).await;
    assert_eq!(theirs(desk.everything().await), before, "byte for byte, indexes included");
}

async fn only_state_absent_removes_objects(desk: IdentityFixture) {
    make_everything(&desk).await;
    let auth = everything();
    let made = desk.everything().await;
    let plan = desk.plan(None).await;
    assert!(!plan.will_write());
    // The anonymous token has no owner.
    assert_eq!(plan.summary.unmanaged, 16, "{:#?}", lines(&plan));
    assert_eq!(desk.run(None).await.writes(), 0);
    assert_eq!(desk.everything().await, made);

    let service = json!({
        "Node": DEMO, "Address": "127.0.0.1", "SkipNodeUpdate": true,
        "Service": {"ID": "web-1", "Service": "web", "Port": 9090},
    });
    desk.put("/v1/catalog/register", &service).await;
    let mut absent = auth.clone();
    absent["state"] = "absent".into();
    let plan = desk.plan(Some(&absent)).await;
    assert_eq!(
        (plan.summary.remove, plan.summary.update, plan.summary.hold),
        (15, 1, 1),
        "{:#?}",
        lines(&plan)
    );
    assert!(lines(&plan).contains(&format!("hold node {DEMO}")));
    assert_eq!(desk.run(Some(&absent)).await.writes(), 16);
    let left = desk.everything().await;
    let ours = left.to_string().matches("ecs-mesh:op").count();
    assert_eq!((ours, left["methods"].as_array().unwrap().len()), (0, 0), "{left:#}");
    assert_eq!(left["anonymous"]["Policies"].as_array().map_or(0, Vec::len), 0);

    desk.put("/v1/catalog/deregister", &json!({"Node": DEMO, "ServiceID": "web-1"})).await;
    assert_eq!(desk.run(Some(&absent)).await.writes(), 1);
    let nodes = desk.get("/v1/catalog/nodes").await;
    assert!(nodes.as_array().unwrap().iter().all(|node| node["Node"] != DEMO), "{nodes}");
}

async fn invalid_manifest_at_start_removes_nothing(mut desk: IdentityFixture) {
    make_everything(&desk).await;
    let auth = everything();
    let made = desk.everything().await;
    desk.broken = true;
    let mut absent = auth.clone();
    absent["state"] = "absent".into();
    let ran = desk.run(Some(&absent)).await;
    assert_eq!((ran.writes(), desk.everything().await), (0, made));
    desk.broken = false;
    assert!(desk.run(Some(&absent)).await.writes() > 10);
}
