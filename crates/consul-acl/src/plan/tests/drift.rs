//! Changes by others.

use serde_json::{Value, json};

use super::fixture::{AclPlanFixture, DEMO, everything};
use crate::desired::ObjectScope;
use crate::plan::AclAction;
use ecs_mesh_core::plan::report::ObjectKind::{AuthMethod, BindingRule, Node, Policy, Role};

const METHOD: &str = "iam-ecs-service-token";
const MESH_ROLE: &str = "consul-ecs-mesh-gateway-role";

#[test]
fn created_objects_need_no_change() {
    let mut world = AclPlanFixture::empty(everything());
    let made = world.lines();
    assert!(
        made.iter().all(|line| line.starts_with("create") || line.starts_with("update the anonymous")),
        "{made:#?}"
    );
    world.run();
    assert_eq!(world.lines(), Vec::<String>::new());
}

#[test]
fn deleted_auth_method_is_recreated_with_a_warning() {
    let mut world = AclPlanFixture::made(everything());
    world.objects.retain(|(_, _, body)| body["Name"] != METHOD && body["AuthMethod"] != METHOD);
    assert_eq!(
        world.lines(),
        [
            "create auth method iam-ecs-service-token",
            "create binding rule iam-ecs-service-token/api-gateway",
            "create binding rule iam-ecs-service-token/mesh-gateway",
            "create binding rule iam-ecs-service-token/service",
            "create binding rule iam-ecs-service-token/terminating-gateway",
        ]
    );
    let warnings = world.step("create auth method").warnings.join("\n");
    assert!(warnings.contains("all tokens that it issued were removed with it"), "{warnings}");
    let first = AclPlanFixture::empty(everything()).step("create auth method iam-ecs-service-token");
    assert_eq!(first.warnings, Vec::<String>::new(), "a method that never was has lost no tokens");
    world.run();
    assert_eq!(world.lines(), Vec::<String>::new());
}

#[test]
fn repaired_rule_warns_about_issued_tokens() {
    let mut world = AclPlanFixture::made(everything());
    world.edit(BindingRule, MESH_ROLE, |rule| rule["Selector"] = json!(""));
    let warnings = world.step("update binding rule").warnings.join("\n");
    assert!(warnings.contains("tokens keep the permissions"), "{warnings}");
}

#[test]
fn equivalent_spelling_is_no_drift() {
    let mut world = AclPlanFixture::made(everything());
    world.edit(AuthMethod, METHOD, |method| {
        method["MaxTokenTTL"] = json!("1440m");
        method["TokenLocality"] = json!("local");
        method["NamespaceRules"] = Value::Null;
        let tags = method["Config"]["IAMEntityTags"].as_array_mut().unwrap();
        tags.reverse();
    });
    world.edit(Policy, "consul-ecs-mesh-gateway-policy", |policy| {
        policy["Rules"] = json!("# gateways\nmesh=\"write\"\n\tpeering = \"read\"");
        policy["Datacenters"] = Value::Null;
    });
    world.edit(Role, MESH_ROLE, |role| {
        role["Policies"] = json!([{ "ID": "7", "Name": "consul-ecs-mesh-gateway-policy" }]);
        role["Hash"] = json!("another");
    });
    assert_eq!(world.lines(), Vec::<String>::new());
}

#[test]
fn undeclared_fields_are_kept() {
    let mut world = AclPlanFixture::made(everything());
    world.edit(AuthMethod, METHOD, |method| {
        method["DisplayName"] = json!("Tasks");
        method["Config"]["MaxRetries"] = json!(3);
        method["Config"]["ServerIDHeaderValue"] = json!("consul.internal");
        method["MaxTokenTTL"] = json!("1h0m0s");
    });
    world.edit(Node, DEMO, |node| {
        node["Address"] = json!("10.0.0.7");
        node["Meta"] = json!({ "ecs-mesh-operator": "op", "team": "a" });
    });
    world.run();
    let method = world.object(AuthMethod, METHOD).clone();
    assert_eq!((&method["DisplayName"], &method["MaxTokenTTL"]), (&json!("Tasks"), &json!("24h0m0s")));
    assert_eq!(method["Config"]["MaxRetries"], 3);
    assert_eq!(method["Config"]["ServerIDHeaderValue"], "consul.internal", "the tighter of both is kept");
    let node = world.object(Node, DEMO);
    assert_eq!(
        (&node["Address"], &node["Meta"]["team"], &node["Meta"]["synthetic-node"]),
        (&json!("10.0.0.7"), &json!("a"), &json!("true"))
    );
}

#[test]
fn omitted_ttl_keeps_the_current_one() {
    let mut spec = everything();
    spec["serviceTokens"].as_object_mut().unwrap().remove("tokenTtl");
    let mut world = AclPlanFixture::made(everything());
    world.spec = Some(spec.clone());
    assert_eq!(world.lines(), Vec::<String>::new(), "tokens would never expire");
    spec["serviceTokens"]["tokenTtl"] = json!("0s");
    world.spec = Some(spec);
    assert_eq!(world.lines(), ["update auth method iam-ecs-service-token (MaxTokenTTL)"]);
}

#[test]
fn duplicate_owned_rule_is_removed() {
    let mut world = AclPlanFixture::made(everything());
    let mut twin = world.object(BindingRule, MESH_ROLE).clone();
    twin["ID"] = json!("twin");
    twin["Selector"] = json!("");
    world.objects.insert(0, (BindingRule, ObjectScope::default(), twin));
    assert_eq!(world.lines(), ["remove binding rule iam-ecs-service-token/mesh-gateway"]);
    assert_eq!(
        world.step("remove").server_id.as_deref(),
        Some("twin"),
        "the one with the right selector stays"
    );
    world.run();
    assert_eq!(world.lines(), Vec::<String>::new());
}

#[test]
fn unreadable_object_is_neither_absent_nor_changed() {
    let mut world = AclPlanFixture::made(everything());
    world.objects.retain(|object| object.0 != BindingRule);
    world.unlisted.insert(BindingRule);
    world.unlisted.insert(Role);
    let lines = world.lines();
    assert!(
        lines.iter().all(|line| line.starts_with("unknown role") || line.starts_with("unknown binding rule")),
        "{lines:#?}"
    );
    assert_eq!(lines.len(), 4 + 5);

    // Objects that depend on unknown ones wait; the others are created.
    let mut world = AclPlanFixture::empty(everything());
    world.unlisted.insert(Policy);
    let steps = world.plan();
    let hold = |step: &&crate::plan::AclStep| step.action == AclAction::Hold;
    let held: Vec<String> = steps.iter().filter(hold).map(|step| step.id.to_string()).collect();
    assert!(held.contains(&format!("role {MESH_ROLE}")), "{held:?}");
    assert!(held.contains(&"binding rule iam-ecs-service-token/mesh-gateway".to_owned()), "{held:?}");
    assert!(held.contains(&"the anonymous token".to_owned()), "{held:?}");
    assert!(!held.contains(&"role consul-ecs-terminating-gateway-role".to_owned()), "{held:?}");
}

#[test]
fn list_entry_is_not_a_complete_object() {
    let mut world = AclPlanFixture::made(everything());
    world.edit(AuthMethod, METHOD, |method| drop(method.as_object_mut().unwrap().remove("Config")));
    world.edit(Policy, "consul-ecs-mesh-gateway-policy", |policy| {
        drop(policy.as_object_mut().unwrap().remove("Rules"));
    });
    assert_eq!(
        world.lines(),
        ["unknown policy consul-ecs-mesh-gateway-policy", "unknown auth method iam-ecs-service-token"]
    );
}

#[test]
fn terminating_gateway_gets_only_listed_policies() {
    let mut spec = everything();
    spec["serviceTokens"]["terminatingGatewayPolicies"] = json!(["write-db"]);
    let mut world = AclPlanFixture::made(everything());
    world.spec = Some(spec);
    let lacks = world.step("drifted role consul-ecs-terminating-gateway-role (Policies)");
    assert!(lacks.reason.contains("policy write-db does not exist"), "{}", lacks.reason);
    world.add(
        Policy,
        json!({ "ID": "9", "Name": "write-db", "Rules": "service \"db\" { policy = \"write\" }" }),
    );
    assert_eq!(world.lines(), ["update role consul-ecs-terminating-gateway-role (Policies)"]);
    world.run();
    assert_eq!(world.lines(), Vec::<String>::new());
}
