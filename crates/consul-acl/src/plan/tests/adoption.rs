//! Objects of others: adopted if declared, otherwise not changed.

use serde_json::{Value, json};

use super::fixture::{AclPlanFixture, everything};
use crate::desired::{ExistingObject, ObjectScope, OperatorIds, is_ours};
use crate::plan::{AclAction, AclStep};
use ecs_mesh_core::plan::report::ObjectKind::{AnonymousToken, AuthMethod, BindingRule, Node, Policy, Role};
use ecs_mesh_model::OperatorId;

/// A manifest that declares the older controller's objects.
fn as_before(adopt: &[&str]) -> Value {
    json!({
        "controlPlane": "consul",
        "adopt": adopt,
        "serviceTokens": {
            "boundPrincipals": ["arn:aws:iam::000000000000:role/consul-ecs/*"],
            "gateways": ["mesh-gateway", "terminating-gateway", "api-gateway"],
        },
        "anonymousPolicy": "present",
    })
}

/// Objects of the older controller, read from a real server.
fn older(adopt: &[&str]) -> AclPlanFixture {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/fixtures/consul/older-controller.json");
    let left: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let mut world = AclPlanFixture::empty(as_before(adopt));
    world.objects.clear();
    world.add(AnonymousToken, left["anonymousToken"].clone());
    for (kind, list) in [
        (AuthMethod, "authMethods"),
        (BindingRule, "bindingRules"),
        (Policy, "policies"),
        (Role, "roles"),
        (Node, "nodes"),
    ] {
        for body in left[list].as_array().unwrap() {
            world.add(kind, body.clone());
        }
    }
    world
}

#[test]
fn adoption_changes_only_the_mark() {
    let mut world = older(&["*"]);
    assert_eq!(
        world.lines(),
        [
            "update policy anonymous-token-policy (Description)",
            "update policy consul-ecs-api-gateway-policy (Description)",
            "update policy consul-ecs-mesh-gateway-policy (Description)",
            "update role consul-ecs-api-gateway-role (Description)",
            "update role consul-ecs-mesh-gateway-role (Description)",
            "update role consul-ecs-terminating-gateway-role (Description)",
            "update auth method iam-ecs-service-token (Description)",
            "update binding rule iam-ecs-service-token/api-gateway (Description)",
            "update binding rule iam-ecs-service-token/mesh-gateway (Description)",
            "update binding rule iam-ecs-service-token/service (Description)",
            "update binding rule iam-ecs-service-token/terminating-gateway (Description)",
            "update node arn:aws:ecs:us-east-1:000000000000:cluster/anchor (NodeMeta.ecs-mesh-operator)",
        ]
    );
    world.run();
    assert_eq!(world.lines(), Vec::<String>::new());
    world.spec = Some(as_before(&[]));
    assert_eq!(world.lines(), Vec::<String>::new(), "`adopt` is not needed after the adoption");
}

#[test]
fn unadopted_objects_are_conflicts_with_diffs() {
    let world = older(&[]);
    let steps = world.plan();
    assert!(steps.iter().all(|step| !step.writes()), "{:#?}", world.lines());
    let conflicts = steps.iter().filter(|step| matches!(step.action, AclAction::Conflict { .. })).count();
    assert_eq!(conflicts, 12);
    let method = world.step("conflict auth method");
    assert!(
        method.reason.contains("adopt: [\"iam-ecs-service-token\"]` in ConsulAuth house"),
        "{}",
        method.reason
    );

    let mut widened = older(&[]);
    widened.edit(AuthMethod, "iam-ecs-service-token", |method| {
        method["Config"]["BoundIAMPrincipalARNs"] = json!(["arn:aws:iam::000000000000:role/*"]);
    });
    let lines = widened.lines();
    let line = "conflict auth method iam-ecs-service-token (Config.BoundIAMPrincipalARNs[0], Description)";
    assert!(lines.contains(&line.to_owned()), "{lines:#?}");
}

#[test]
fn only_listed_objects_are_adopted() {
    let mut world = older(&["iam-ecs-service-token", "iam-ecs-service-token/*"]);
    let written = |world: &AclPlanFixture| world.plan().iter().filter(|step| step.writes()).count();
    assert_eq!(written(&world), 5, "{:#?}", world.lines());
    world.run();
    assert_eq!(written(&world), 0, "{:#?}", world.lines());
}

#[test]
fn adoption_narrows_widened_object_with_a_warning() {
    let mut world = older(&["*"]);
    world.edit(Role, "consul-ecs-api-gateway-role", |role| {
        role["Policies"] = json!([{ "ID": "1", "Name": "global-management" }]);
    });
    let lines = world.lines();
    let line = "update role consul-ecs-api-gateway-role (Description, Policies[0].Name)";
    assert!(lines.contains(&line.to_owned()), "{lines:#?}");
    world.run();
    assert_eq!(world.lines(), Vec::<String>::new());
}

#[test]
fn adopted_policy_keeps_its_case_and_converges() {
    let mut spec = as_before(&["*"]);
    spec["serviceTokens"]["terminatingGatewayPolicies"] = json!(["Write-DB", "write-queue"]);
    let mut world = older(&["*"]);
    world.spec = Some(spec);
    world.edit(Policy, "consul-ecs-mesh-gateway-policy", |policy| {
        policy["Name"] = json!("Consul-ECS-Mesh-Gateway-Policy");
    });
    for name in ["write-db", "Write-Queue"] {
        world.add(Policy, json!({ "ID": name, "Name": name, "Rules": "" }));
    }
    world.run();
    assert_eq!(world.lines(), Vec::<String>::new());
    assert_eq!(
        world.object(Role, "consul-ecs-terminating-gateway-role")["Policies"],
        json!([{ "Name": "write-db" }, { "Name": "Write-Queue" }])
    );
}

#[test]
fn duplicate_unmarked_rules_are_merged_on_adoption() {
    let mut world = older(&["*"]);
    let mut twin = world.object(BindingRule, "consul-ecs-mesh-gateway-role").clone();
    twin["ID"] = json!("twin");
    world.add(BindingRule, twin);
    world.run();
    assert_eq!(world.lines(), ["remove binding rule iam-ecs-service-token/mesh-gateway"]);
    world.run();
    assert_eq!(world.lines(), Vec::<String>::new());
}

#[test]
fn object_of_another_operator_is_never_changed() {
    let mut spec = everything();
    spec["adopt"] = json!(["*"]);
    let mut world = AclPlanFixture::made(spec.clone());
    for (_, _, body) in &mut world.objects {
        if let Some(text) = body["Description"].as_str() {
            body["Description"] = json!(text.replace("[ecs-mesh:op]", "[ecs-mesh:other]"));
        }
        if body["Meta"].get("ecs-mesh-operator").is_some() {
            body["Meta"]["ecs-mesh-operator"] = json!("other");
        }
        // All fields differ.
        if body.get("Selector").is_some() || body.get("BindName").is_some() {
            body["Selector"] = json!("1 == 1");
        }
        if body.get("MaxTokenTTL").is_some() {
            body["MaxTokenTTL"] = json!("1m0s");
        }
    }
    for state in ["present", "absent"] {
        spec["state"] = json!(state);
        world.spec = Some(spec.clone());
        let writing: Vec<_> = world.plan().into_iter().filter(AclStep::writes).collect();
        assert_eq!(writing, [], "{state}");
    }
    world.spec = None;
    assert!(world.plan().iter().all(|step| !step.writes()));
}

fn of_previous_id() -> OperatorIds {
    let [new, old] = ["op-2", "op"].map(|id| OperatorId::parse(id).unwrap());
    OperatorIds::new(new).with_previous(Some(old))
}

#[test]
fn objects_of_the_previous_id_get_the_current_one() {
    let mut spec = everything();
    let mut world = AclPlanFixture::made(spec.clone());
    let ids = of_previous_id();
    let owned = world.objects.iter().filter(|(kind, _, body)| is_ours(*kind, body, &ids)).count();
    // One gateway is not declared any more.
    spec["serviceTokens"]["gateways"] = json!(["mesh-gateway"]);
    for declared in [Some(spec), None] {
        world.spec = declared;
        let steps: Vec<_> = world.plan_as(&ids).into_iter().filter(AclStep::writes).collect();
        assert_eq!(steps.len(), owned);
        for step in &steps {
            let AclAction::Update { fields, body } = &step.action else { panic!("{step:?}") };
            let paths: Vec<&str> = fields.iter().map(|change| change.path.as_str()).collect();
            assert!(paths == ["Description"] || paths == ["NodeMeta.ecs-mesh-operator"], "{step:?}");
            assert!(body.to_string().contains("op-2"), "{step:?}");
        }
    }
}

#[test]
fn objects_of_a_previous_operator_that_runs_are_left() {
    let world = AclPlanFixture::made(everything());
    let left = world.objects.iter().map(|(kind, _, body)| ExistingObject::of(*kind, body)).collect();
    let writing = |ids: &OperatorIds| world.plan_as(ids).into_iter().filter(AclStep::writes).count();
    assert!(writing(&of_previous_id()) > 0);
    assert_eq!(writing(&of_previous_id().without(left)), 0);
}

#[test]
fn policy_that_is_known_by_its_list_entry_is_not_taken_over() {
    let mut world = AclPlanFixture::made(everything());
    world.spec = None;
    for (kind, _, body) in &mut world.objects {
        if *kind == Policy {
            body.as_object_mut().unwrap().remove("Rules");
        }
    }
    let steps = world.plan_as(&of_previous_id());
    let of_policies = || steps.iter().filter(|step| step.id.kind == Policy);
    assert!(of_policies().count() > 0 && of_policies().all(|step| step.action == AclAction::Unknown));
}

#[test]
fn owned_objects_do_not_depend_on_foreign_ones() {
    // A policy with the declared name that allows everything.
    let mut world = AclPlanFixture::empty(everything());
    world.add(
        Policy,
        json!({ "ID": "7", "Name": "consul-ecs-mesh-gateway-policy", "Description": "", "Rules": "acl = \"write\"" }),
    );
    world.step("conflict policy consul-ecs-mesh-gateway-policy (Description, Rules)");
    world.step("hold role consul-ecs-mesh-gateway-role");
    let rule = world.step("hold binding rule iam-ecs-service-token/mesh-gateway");
    assert!(rule.reason.contains("role consul-ecs-mesh-gateway-role is blocked"), "{}", rule.reason);

    // A foreign auth method gets no rules of this operator.
    let mut world = AclPlanFixture::empty(everything());
    world.add(
        AuthMethod,
        json!({ "Name": "iam-ecs-service-token", "Type": "jwt", "Description": "SSO", "Config": { "JWKSURL": "x" } }),
    );
    let lines = world.lines();
    assert_eq!(
        lines.iter().filter(|line| line.starts_with("hold binding rule iam-ecs-service-token/")).count(),
        4
    );
    assert!(
        !lines.iter().any(|line| line.starts_with("create binding rule iam-ecs-service-token/")),
        "{lines:#?}"
    );
}

#[test]
fn auth_method_of_other_type_is_not_owned() {
    let mut world = AclPlanFixture::made(everything());
    world.edit(AuthMethod, "iam-ecs-service-token", |method| method["Type"] = json!("jwt"));
    let step = world.step("conflict auth method");
    assert!(step.reason.contains("never changes"), "{}", step.reason);
}

#[test]
fn foreign_rule_of_owned_auth_method_is_reported() {
    let mut world = AclPlanFixture::made(everything());
    world.add(
        BindingRule,
        json!({ "ID": "x", "AuthMethod": "iam-ecs-service-token", "BindType": "role", "BindName": "admin", "Description": "" }),
    );
    let step = world.step("leave binding rule iam-ecs-service-token/admin");
    assert!(step.warnings[0].contains("also get role admin"), "{:?}", step.warnings);
    assert_eq!(world.lines().len(), 1);
}

#[test]
fn anonymous_token_keeps_other_policies() {
    let mut world = AclPlanFixture::made(everything());
    let links = json!([{ "ID": "1", "Name": "dns" }, { "ID": "2", "Name": "anonymous-token-policy" }]);
    world.edit(AnonymousToken, "00000000-0000-0000-0000-000000000002", |token| token["Policies"] = links);
    assert_eq!(world.lines(), Vec::<String>::new());
    world.edit(AnonymousToken, "00000000-0000-0000-0000-000000000002", |token| {
        token["Policies"] = json!([{ "ID": "1", "Name": "dns" }]);
    });
    world.run();
    let token = world.object(AnonymousToken, "00000000-0000-0000-0000-000000000002");
    assert_eq!(
        token["Policies"],
        json!([{ "ID": "1", "Name": "dns" }, { "Name": "anonymous-token-policy" }])
    );
}

#[test]
fn step_debug_shows_no_secret() {
    let mut world = older(&["*"]);
    world.edit(AnonymousToken, "00000000-0000-0000-0000-000000000002", |token| {
        token["SecretID"] = json!("hunter2");
        token["Policies"] = json!([]);
    });
    assert!(!format!("{:?}", world.plan()).contains("hunter2"));
    assert_eq!(world.objects[0].1, ObjectScope::default());
}
