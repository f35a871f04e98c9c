//! Removal: only if declared, only owned objects, and without effect on objects of others.

use serde_json::json;

use super::fixture::{AclPlanFixture, DEMO, everything};
use crate::desired::{DatacenterRole, Edition, ObjectScope};
use crate::plan::{AclAction, AclStep};
use ecs_mesh_core::plan::report::ObjectKind::{
    AnonymousToken, AuthMethod, BindingRule, Namespace, Node, Policy, Role,
};

#[test]
fn dropped_part_is_unmanaged_and_reported() {
    let mut spec = everything();
    let mut world = AclPlanFixture::made(spec.clone());
    spec.as_object_mut().unwrap().remove("clientTokens");
    world.spec = Some(spec);
    assert_eq!(
        world.lines(),
        [
            "leave policy consul-ecs-client-policy",
            "leave role consul-ecs-client-role",
            "leave auth method iam-ecs-client-token",
            // The name while it was declared.
            "leave binding rule iam-ecs-client-token/client",
        ]
    );
    let says = |line: &str, subject: &str| {
        let reason = world.step(line).reason;
        assert!(reason.starts_with("owned and no longer declared") && reason.contains(subject), "{reason}");
    };
    says("leave policy", "`clientTokens.state: absent` in ConsulAuth house");
    says("leave auth method", "consul acl auth-method delete");

    world.spec = None;
    let steps = world.plan();
    assert!(steps.iter().all(|step| step.action == AclAction::Unmanaged), "{:#?}", world.lines());
    assert_eq!(steps.len(), 4 + 4 + 2 + 5 + 1, "all but the anonymous token, which has no owner");

    // An invalid manifest does not delete the objects that it declares.
    world.manifests_incomplete = true;
    for step in world.plan() {
        assert_eq!(step.action, AclAction::Unmanaged);
        let reason = &step.reason;
        assert!(reason.contains("in error") && !reason.contains("delete"), "{reason}");
    }
    world.edit(Role, MESH_ROLE, |role| role["Policies"] = json!([{ "Name": "global-management" }]));
    let stray = world.step("stray role");
    assert!(stray.reason.contains("in error") && !stray.reason.contains("delete"), "{}", stray.reason);
}

#[test]
fn part_is_removed_rules_first_policies_last() {
    let mut spec = everything();
    let mut world = AclPlanFixture::made(spec.clone());
    world.tokens = Some(12);
    spec["clientTokens"] = json!({ "state": "absent" });
    world.spec = Some(spec);
    assert_eq!(
        world.lines(),
        [
            "remove binding rule iam-ecs-client-token/client",
            "remove auth method iam-ecs-client-token",
            "remove role consul-ecs-client-role",
            "remove policy consul-ecs-client-policy",
        ]
    );
    let warnings = world.step("remove auth method").warnings.join("\n");
    assert!(warnings.contains("all 12 tokens that it issued"), "{warnings}");
    world.tokens = None;
    let warnings = world.step("remove auth method").warnings.join("\n");
    assert!(warnings.contains("number unknown"), "{warnings}");
    world.run();
    assert_eq!(world.lines(), Vec::<String>::new());
}

#[test]
fn gateway_kind_is_removed_alone() {
    let mut spec = everything();
    let mut world = AclPlanFixture::made(spec.clone());
    spec["serviceTokens"]["gateways"] = json!(["mesh-gateway", "terminating-gateway"]);
    world.spec = Some(spec.clone());
    assert!(world.lines().iter().all(|line| line.starts_with("leave")), "{:#?}", world.lines());
    spec["serviceTokens"]["absentGateways"] = json!(["api-gateway"]);
    world.spec = Some(spec);
    assert_eq!(
        world.lines(),
        [
            "remove binding rule iam-ecs-service-token/api-gateway",
            "remove role consul-ecs-api-gateway-role",
            "remove policy consul-ecs-api-gateway-policy",
        ]
    );
}

#[test]
fn absent_consul_auth_removes_all_objects() {
    let mut world = AclPlanFixture::made(everything());
    let others = json!({ "ID": "1", "Name": "dns", "Rules": "" });
    world.add(Policy, others.clone());
    world.edit(AnonymousToken, "00000000-0000-0000-0000-000000000002", |token| {
        token["Policies"].as_array_mut().unwrap().push(json!({ "ID": "1", "Name": "dns" }));
    });
    world.services = Some(0);
    world.spec = Some(json!({ "controlPlane": "consul", "state": "absent" }));
    let lines = world.lines();
    assert_eq!(lines[0], "update the anonymous token (Policies)");
    assert_eq!(lines.iter().filter(|line| line.starts_with("remove")).count(), 16, "{lines:#?}");
    world.run();
    assert_eq!(world.lines(), Vec::<String>::new());
    let left: Vec<_> = world.objects.iter().map(|object| object.0).collect();
    assert_eq!(left, [AnonymousToken, Node, Policy, Policy], "what was there before us stays");
    let token = world.object(AnonymousToken, "00000000-0000-0000-0000-000000000002");
    assert_eq!(token["Policies"], json!([{ "ID": "1", "Name": "dns" }]));
}

#[test]
fn absent_consul_auth_keeps_foreign_objects() {
    let mut world = AclPlanFixture::made(everything());
    for (_, _, body) in &mut world.objects {
        if let Some(text) = body["Description"].as_str() {
            body["Description"] = json!(text.replace(" [ecs-mesh:op]", ""));
        }
    }
    world.spec = Some(json!({ "controlPlane": "consul", "state": "absent", "adopt": ["*"] }));
    world.services = Some(0);
    let written: Vec<_> = world.plan().into_iter().filter(AclStep::writes).map(|step| step.id.kind).collect();
    assert_eq!(written, [Node]);
}

#[test]
fn removal_never_cascades_to_foreign_objects() {
    let mut spec = everything();
    let mut world = AclPlanFixture::made(spec.clone());
    world.add(
        BindingRule,
        json!({ "ID": "x", "AuthMethod": "iam-ecs-client-token", "BindType": "role", "BindName": "dns" }),
    );
    world.add(
        Role,
        json!({ "ID": "y", "Name": "agents", "Policies": [{ "Name": "consul-ecs-client-policy" }] }),
    );
    spec["clientTokens"] = json!({ "state": "absent" });
    world.spec = Some(spec);
    let method = world.step("hold auth method iam-ecs-client-token");
    assert!(method.reason.contains("would be removed (x of iam-ecs-client-token)"), "{}", method.reason);
    let policy = world.step("hold policy consul-ecs-client-policy");
    assert!(policy.reason.contains("would lose it (agents)"), "{}", policy.reason);
}

#[test]
fn node_is_removed_only_when_known_to_be_empty() {
    let mut world = AclPlanFixture::made(everything());
    world.spec = Some(json!({ "controlPlane": "consul", "state": "absent" }));
    assert!(world.step("hold node").reason.contains("not known"));
    world.services = Some(3);
    assert!(world.step("hold node").reason.contains("3 services"));
    world.services = Some(0);
    world.step("remove node");
}

#[test]
fn unlisted_objects_are_unknown() {
    let mut world = AclPlanFixture::made(everything());
    world.spec = Some(json!({ "controlPlane": "consul", "state": "absent" }));
    world.unlisted.insert(BindingRule);
    world.step("unknown binding rule *");
    let method = world.step("hold auth method iam-ecs-service-token");
    assert!(method.reason.contains("could not be listed"), "{}", method.reason);
}

#[test]
fn unbound_cluster_keeps_its_node() {
    let mut world = AclPlanFixture::made(everything());
    world.clusters.clear();
    assert_eq!(world.lines(), [format!("leave node {DEMO}")]);
}

#[test]
fn anonymous_token_is_changed_in_primary_only() {
    for datacenter in [DatacenterRole::Secondary, DatacenterRole::Unknown("403".to_owned())] {
        let mut world = AclPlanFixture::empty(everything());
        world.datacenter = datacenter.clone();
        world.run();
        assert_eq!(
            world.lines(),
            ["hold policy anonymous-token-policy", "hold the anonymous token"],
            "{datacenter:?}"
        );
    }
}

/// Two control planes of one operator, for the partitions `default` and `ecs` of one Consul.
#[test]
fn partitions_keep_each_others_objects() {
    let partition =
        |name: &str| Edition::Enterprise { partition: name.into(), namespaces: ["default".into()].into() };
    let mut spec = everything();
    spec["enterprise"] = json!({ "crossNamespace": "present" });
    let mut world = AclPlanFixture::empty(spec.clone());
    world.objects.clear();
    let anonymous = json!({ "AccessorID": "00000000-0000-0000-0000-000000000002" });
    world.objects.push((AnonymousToken, ObjectScope::new("default", Some("default")), anonymous));
    for name in ["default", "ecs"] {
        world.objects.push((
            Namespace,
            ObjectScope::new(name, None),
            json!({ "Name": "default", "Description": "" }),
        ));
    }
    for name in ["default", "ecs"] {
        world.edition = partition(name);
        world.run();
        assert_eq!(world.lines(), Vec::<String>::new(), "{name}");
    }
    let of_default = |world: &AclPlanFixture| {
        let is_default = |scope: &ObjectScope| scope.partition.as_deref() == Some("default");
        world.objects.iter().filter(|object| is_default(&object.1) && object.0 != AnonymousToken).count()
    };
    let before = of_default(&world);
    world.spec = Some(json!({ "controlPlane": "consul", "state": "absent" }));
    world.services = Some(0);
    world.run();
    assert_eq!(before, of_default(&world));
    assert!(
        world
            .objects
            .iter()
            .all(|object| object.0 != AuthMethod || object.1.partition.as_deref() == Some("default"))
    );
}

/// Removes the mesh gateways, whose role or policy these tokens have.
fn without_mesh_gateways(holders: &[(&'static str, &'static str, &'static str)]) -> AclPlanFixture {
    let mut spec = everything();
    let mut world = AclPlanFixture::made(spec.clone());
    spec["serviceTokens"]["gateways"] = json!(["terminating-gateway", "api-gateway"]);
    spec["serviceTokens"]["absentGateways"] = json!(["mesh-gateway"]);
    world.spec = Some(spec);
    world.holders = Some(holders.to_vec());
    world
}

const MESH_ROLE: &str = "consul-ecs-mesh-gateway-role";
const MESH_POLICY: &str = "consul-ecs-mesh-gateway-policy";
const METHOD: &str = "iam-ecs-service-token";

#[test]
fn removing_gateway_role_warns_with_token_count() {
    let world = without_mesh_gateways(&[(MESH_ROLE, "a", METHOD), (MESH_ROLE, "b", METHOD)]);
    let step = world.step("remove role");
    assert!(step.warnings[0].contains("2 login tokens lose it"), "{:?}", step.warnings);
    assert!(world.step("remove policy").warnings.is_empty(), "they have it through the role");

    // The removal of the auth method deletes its tokens and reports that.
    let mut world = AclPlanFixture::made(everything());
    world.holders = Some(vec![(MESH_ROLE, "a", METHOD)]);
    world.spec = Some(json!({ "controlPlane": "consul", "state": "absent" }));
    assert!(world.step("remove role consul-ecs-mesh").warnings.is_empty());
}

#[test]
fn manual_token_keeps_its_role_and_policy() {
    let world = without_mesh_gateways(&[(MESH_ROLE, "4fa6e11c", ""), (MESH_POLICY, "77d1", "")]);
    let role = world.step("hold role");
    assert!(role.reason.contains("1 created manually (4fa6e11c)"), "{}", role.reason);
    let policy = world.step("hold policy");
    assert!(policy.reason.contains("1 created manually (77d1)"), "{}", policy.reason);
    // Removing the rule does not affect issued tokens.
    world.step("remove binding rule");
}

#[test]
fn foreign_and_anonymous_tokens_block_removal() {
    let world = without_mesh_gateways(&[
        (MESH_ROLE, "a", "sso"),
        (MESH_ROLE, "b", "sso"),
        (MESH_POLICY, "00000000-0000-0000-0000-000000000002", ""),
    ]);
    let role = world.step("hold role");
    assert!(role.reason.contains("2 of logins by the unowned auth method sso"), "{}", role.reason);
    let policy = world.step("hold policy");
    assert!(policy.reason.contains("the anonymous token"), "{}", policy.reason);
}

#[test]
fn anonymous_policy_is_removed_after_detaching() {
    let mut world = AclPlanFixture::made(everything());
    let anonymous = "00000000-0000-0000-0000-000000000002";
    let policy = "anonymous-token-policy";
    let mut spec = everything();
    spec["anonymousPolicy"] = json!("absent");
    world.spec = Some(spec);
    world.holders = Some(vec![(policy, anonymous, "")]);
    assert_eq!(
        world.lines(),
        ["update the anonymous token (Policies)", "remove policy anonymous-token-policy"]
    );
    world.holders = Some(vec![(policy, anonymous, ""), (policy, "77d1", "")]);
    world.step("hold policy anonymous-token-policy");
}

#[test]
fn role_bound_by_foreign_rule_is_kept() {
    let mut world = without_mesh_gateways(&[]);
    let rule = json!({ "ID": "x", "AuthMethod": "sso", "BindType": "role", "BindName": MESH_ROLE });
    world.add(BindingRule, rule);
    let role = world.step("hold role");
    assert!(role.reason.contains("binding rules of other owners bind it"), "{}", role.reason);
    assert!(role.reason.contains("(x of sso)"), "{}", role.reason);
}

#[test]
fn object_with_unknown_use_is_kept() {
    let mut world = without_mesh_gateways(&[]);
    world.holders = None;
    assert!(world.step("hold role").reason.contains("not known which tokens"));
    world.step("hold policy");
    world.holders = Some(vec![(MESH_ROLE, "a", METHOD)]);
    world.unlisted.insert(AuthMethod);
    assert!(world.step("hold role").reason.contains("could not be listed"));
}

#[test]
fn omitted_gateway_list_changes_no_gateway() {
    let mut spec = everything();
    spec["serviceTokens"].as_object_mut().unwrap().remove("gateways");
    let world = AclPlanFixture::empty(spec.clone());
    assert!(!world.lines().iter().any(|line| line.contains("gateway")), "{:#?}", world.lines());
    let mut world = AclPlanFixture::made(everything());
    world.spec = Some(spec);
    let lines = world.lines();
    assert_eq!(lines.len(), 3 + 3 + 2, "{lines:#?}");
    assert!(lines.iter().all(|line| line.starts_with("leave ") && line.contains("gateway")), "{lines:#?}");
}
