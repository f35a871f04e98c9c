//! Undeclared objects: remains of a declaration, and objects that grant more than was ever declared.

use serde_json::{Value, json};

use super::fixture::{AclPlanFixture, everything};
use ecs_mesh_core::plan::report::ObjectKind::{BindingRule, Role};

const MESH_ROLE: &str = "consul-ecs-mesh-gateway-role";
const API_ROLE: &str = "consul-ecs-api-gateway-role";
const SERVICE: &str = "${entity_tags.consul.hashicorp.com.service-name}";

fn rule(id: &str, text: &str, bind_name: &str) -> Value {
    json!({
        "ID": id, "AuthMethod": "iam-ecs-service-token", "Description": text, "BindType": "role",
        "BindName": bind_name, "CreateIndex": 500,
    })
}

#[test]
fn undeclared_owned_rule_is_a_warning() {
    let mut world = AclPlanFixture::made(everything());
    world.add(BindingRule, rule("x", "mine [ecs-mesh:op]", "admin"));
    assert_eq!(world.lines(), ["stray binding rule iam-ecs-service-token/admin"]);
    let step = world.step("stray");
    assert!(!step.writes() && step.warnings[0].contains("also get role admin"), "{step:?}");
}

#[test]
fn changed_rules_are_matched_deterministically() {
    let mut world = AclPlanFixture::made(everything());
    for name in [SERVICE, MESH_ROLE] {
        world.edit(BindingRule, name, |rule| {
            rule["Description"] = json!("[ecs-mesh:op]");
            rule["BindName"] = json!("admin");
            rule["BindType"] = json!("role");
        });
    }
    world.add(BindingRule, rule("x", "[ecs-mesh:op]", "admin"));
    let (lines, ids) =
        (world.lines(), world.plan().into_iter().map(|step| step.server_id).collect::<Vec<_>>());
    assert_eq!(
        lines,
        [
            "stray binding rule iam-ecs-service-token/admin",
            "update binding rule iam-ecs-service-token/mesh-gateway (BindName, Description)",
            "update binding rule iam-ecs-service-token/service (BindName, BindType, Description)",
        ]
    );
    world.objects.reverse();
    assert_eq!((world.lines(), world.plan().into_iter().map(|step| step.server_id).collect()), (lines, ids));
    world.run();
    assert_eq!(world.lines(), ["stray binding rule iam-ecs-service-token/admin"]);
}

#[test]
fn undeclared_rule_replaces_no_missing_rule() {
    let mut world = AclPlanFixture::made(everything());
    let mut spec = everything();
    spec["serviceTokens"]["gateways"] = json!(["mesh-gateway", "terminating-gateway"]);
    world.spec = Some(spec);
    let left = [
        "leave policy consul-ecs-api-gateway-policy",
        "leave role consul-ecs-api-gateway-role",
        "leave binding rule iam-ecs-service-token/api-gateway",
    ];
    let is_left = |line: &String| left.iter().any(|left| line.starts_with(left));
    assert!(world.lines().len() == 3 && world.lines().iter().all(is_left), "{:#?}", world.lines());
    world.edit(BindingRule, MESH_ROLE, |rule| *rule = Value::Null);
    let lines: Vec<String> = world.lines().into_iter().filter(|line| !is_left(line)).collect();
    assert_eq!(lines, ["create binding rule iam-ecs-service-token/mesh-gateway"]);

    // The object equals the one that was created.
    world.edit(BindingRule, API_ROLE, |rule| rule["Selector"] = json!(""));
    let step = world.step("stray binding rule iam-ecs-service-token/api-gateway");
    assert!(step.warnings[0].contains("also get role consul-ecs-api-gateway-role"), "{:?}", step.warnings);
}

#[test]
fn undeclared_owned_role_with_grants_is_a_warning() {
    let mut world = AclPlanFixture::made(everything());
    world.edit(Role, MESH_ROLE, |role| role["Name"] = json!("renamed"));
    assert_eq!(world.lines(), ["create role consul-ecs-mesh-gateway-role", "leave role renamed"]);
    for (field, value) in [
        ("Policies", json!([{ "ID": "1", "Name": "global-management" }])),
        ("ServiceIdentities", json!([{ "ServiceName": "web" }])),
    ] {
        let mut world = AclPlanFixture::made(everything());
        world.edit(Role, MESH_ROLE, |role| {
            role["Name"] = json!("renamed");
            role[field] = value;
        });
        assert_eq!(world.lines(), ["create role consul-ecs-mesh-gateway-role", "stray role renamed"]);
        let warning = world.step("stray").warnings.join("");
        assert!(warning.contains("tokens with this role keep it"), "{warning}");
    }
}

#[test]
fn undeclared_gateway_role_keeps_attached_policies() {
    let mut world = AclPlanFixture::made(everything());
    let mut spec = everything();
    spec["serviceTokens"]["gateways"] = json!([]);
    world.spec = Some(spec);
    let role = "consul-ecs-terminating-gateway-role";
    world.edit(Role, role, |role| role["Policies"] = json!([{ "Name": "write-db" }]));
    world.step("leave role consul-ecs-terminating-gateway-role");
    world.edit(Role, role, |role| role["Policies"] = json!([{ "Name": "global-management" }]));
    world.step("stray role consul-ecs-terminating-gateway-role");
}

#[test]
fn foreign_rule_matches_method_ignoring_case() {
    let mut world = AclPlanFixture::made(everything());
    let mut foreign = rule("x", "", "admin");
    foreign["AuthMethod"] = json!("IAM-ECS-SERVICE-TOKEN");
    world.add(BindingRule, foreign);
    let step = world.step("leave binding rule IAM-ECS-SERVICE-TOKEN/admin");
    assert!(step.warnings[0].contains("also get role admin"), "{:?}", step.warnings);

    // An owned rule keeps its spelling, which never changes in a rule.
    let mut world = AclPlanFixture::made(everything());
    world.edit(BindingRule, MESH_ROLE, |rule| {
        rule["AuthMethod"] = json!("IAM-ECS-SERVICE-TOKEN");
        rule["Selector"] = json!("");
    });
    let step = world.step("update binding rule iam-ecs-service-token/mesh-gateway (Selector)");
    let crate::plan::AclAction::Update { body, .. } = step.action else { panic!() };
    assert_eq!(body["AuthMethod"], "IAM-ECS-SERVICE-TOKEN");
    assert_eq!(world.lines().len(), 1);
}

#[test]
fn ambiguous_foreign_rule_is_one_conflict() {
    let mut world = AclPlanFixture::made(everything());
    let words = "Bind a Consul role from IAM role tag for ECS based mesh gateways";
    world.edit(BindingRule, MESH_ROLE, |rule| *rule = Value::Null);
    world.edit(BindingRule, API_ROLE, |rule| *rule = Value::Null);
    world.add(BindingRule, rule("x", words, API_ROLE));
    assert_eq!(
        world.lines(),
        [
            "create binding rule iam-ecs-service-token/api-gateway",
            "conflict binding rule iam-ecs-service-token/mesh-gateway (BindName, Description, Selector)",
        ]
    );
    world.run();
    assert_eq!(world.lines().len(), 1, "{:#?}", world.lines());
}

#[test]
fn similar_foreign_rule_is_a_warning() {
    let mut world = AclPlanFixture::made(everything());
    let words = "Bind a Consul role from IAM role tag for ECS based mesh gateways";
    world.add(BindingRule, rule("x", words, "admin"));
    let step = world.step("leave binding rule iam-ecs-service-token/mesh-gateway");
    assert!(step.reason.starts_with("resembles an owned object"), "{}", step.reason);
    assert!(step.warnings[0].contains("also get role admin"), "{:?}", step.warnings);

    let mut world = AclPlanFixture::made(everything());
    let mut same = world.object(BindingRule, MESH_ROLE).clone();
    (same["ID"], same["Description"]) = (json!("x"), json!(""));
    world.add(BindingRule, same);
    assert_eq!(world.step("leave binding rule").warnings, Vec::<String>::new());
}
