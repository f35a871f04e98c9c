//! A blocked object blocks only itself: excess is removed at once, and an object that is not as declared is not reported as
//! unchanged.

use serde_json::json;

use super::fixture::{AclPlanFixture, everything};
use crate::plan::AclAction;
use ecs_mesh_core::plan::report::ObjectKind::{BindingRule, Policy, Role};

const ROLE: &str = "consul-ecs-terminating-gateway-role";

/// A terminating gateway with two policies of the user's.
fn with_policies() -> AclPlanFixture {
    let mut spec = everything();
    spec["serviceTokens"]["terminatingGatewayPolicies"] = json!(["write-db", "write-queue"]);
    let mut world = AclPlanFixture::empty(spec);
    for name in ["write-db", "write-queue"] {
        world.add(Policy, json!({ "ID": name, "Name": name, "Rules": "" }));
    }
    world.run();
    assert_eq!(world.lines(), Vec::<String>::new());
    world
}

/// Another client deletes a policy with its links, and gives the role all permissions.
fn widen(world: &mut AclPlanFixture) {
    world.edit(Policy, "write-db", |policy| *policy = json!(null));
    world.edit(Role, ROLE, |role| {
        role["Policies"] = json!([{ "ID": "1", "Name": "global-management" }, { "Name": "write-queue" }]);
    });
}

#[test]
fn widened_role_is_narrowed_despite_missing_policy() {
    let mut world = with_policies();
    widen(&mut world);
    let step = world.step("update role consul-ecs-terminating-gateway-role (Policies)");
    assert!(step.warnings.join("").contains("policy write-db does not exist"), "{:?}", step.warnings);
    let AclAction::Update { fields, .. } = &step.action else { panic!("{step:?}") };
    assert_eq!(fields[0].after, Some(json!([{ "Name": "write-queue" }])));
    assert_eq!(world.lines().len(), 1, "{:#?}", world.lines());

    world.run();
    assert_eq!(world.object(Role, ROLE)["Policies"], json!([{ "Name": "write-queue" }]));
    let lines = world.lines();
    assert_eq!(
        lines,
        ["drifted role consul-ecs-terminating-gateway-role (Policies)"],
        "it is not passed off as well"
    );
    world.run();
    assert_eq!(world.lines(), lines, "and not written again and again");

    world.add(Policy, json!({ "ID": "9", "Name": "write-db", "Rules": "" }));
    world.run();
    assert_eq!(world.lines(), Vec::<String>::new());
}

#[test]
fn role_waiting_for_policy_blocks_no_rule() {
    let mut world = with_policies();
    widen(&mut world);
    world.edit(BindingRule, ROLE, |rule| rule["BindName"] = json!("admin"));
    assert_eq!(
        world.lines(),
        [
            "update role consul-ecs-terminating-gateway-role (Policies)",
            "update binding rule iam-ecs-service-token/terminating-gateway (BindName)",
        ]
    );
    world.run();
    assert_eq!(world.lines(), ["drifted role consul-ecs-terminating-gateway-role (Policies)"]);
}

#[test]
fn rule_of_blocked_role_grants_nothing_else() {
    let mut world = with_policies();
    world.edit(Policy, "write-db", |policy| *policy = json!(null));
    world.edit(Role, ROLE, |role| *role = json!(null));
    world.edit(BindingRule, ROLE, |rule| rule["BindName"] = json!("admin"));
    assert_eq!(
        world.lines(),
        [
            "hold role consul-ecs-terminating-gateway-role",
            "update binding rule iam-ecs-service-token/terminating-gateway (BindName)",
        ]
    );
}

#[test]
fn rule_is_repaired_without_binding_a_foreign_role() {
    let mut world = AclPlanFixture::made(everything());
    world.edit(Role, ROLE, |role| {
        role["Description"] = json!("mine");
        role["Policies"] = json!([{ "ID": "1", "Name": "global-management" }]);
    });
    world.edit(BindingRule, ROLE, |rule| {
        rule["BindName"] = json!("admin");
        rule["Selector"] = json!("");
    });
    let step = world.step("update binding rule iam-ecs-service-token/terminating-gateway (Selector)");
    assert!(step.warnings.join("").contains("role consul-ecs-terminating-gateway-role is not owned"));
    world.run();
    world.step("drifted binding rule iam-ecs-service-token/terminating-gateway (BindName)");
    world.step("conflict role consul-ecs-terminating-gateway-role");
}
