//! Each drift is found, planned and corrected by one run; foreign objects stay unchanged.

mod adoption;
mod config;
mod drift;
mod drifts;
mod enterprise;
mod fixture;
mod removal;
mod strays;
mod waiting;

use serde_json::json;

use ecs_mesh_core::plan::report::ObjectKind;
use ecs_mesh_core::plan::report::{ManifestsSummary, PlanDetail, PlanEntry, PlanReport, render};
use ecs_mesh_model::Timestamp;
use fixture::{AclPlanFixture, everything};

#[test]
fn plan_report_shows_acl_objects() {
    let mut world = AclPlanFixture::made(everything());
    world.edit(ObjectKind::BindingRule, "consul-ecs-mesh-gateway-role", |rule| rule["Selector"] = json!(""));
    world.edit(ObjectKind::Role, "consul-ecs-api-gateway-role", |role| {
        role["Policies"] = json!([{ "ID": "1", "Name": "global-management" }]);
    });
    world.edit(ObjectKind::Policy, "consul-ecs-client-policy", |policy| {
        policy["Description"] = json!("mine");
    });
    world.edit(ObjectKind::BindingRule, "consul-ecs-terminating-gateway-role", |rule| *rule = json!(null));
    let changes = world
        .plan()
        .into_iter()
        .map(|step| PlanEntry { control_plane: "consul".into(), task: None, change: step.into_plan_entry() })
        .collect();
    let proposal =
        PlanReport::new("op", Timestamp(0), ManifestsSummary::default(), Vec::new(), Vec::new(), changes);
    let text = anstream::adapter::strip_str(&render(&proposal, PlanDetail::Changes)).to_string();
    insta::assert_snapshot!(text, @r#"
    control plane consul
      = name conflict  policy  consul-ecs-client-policy
          Description: "mine" -> "Consul Client Token Policy for ECS [ecs-mesh:op]"
          reason: exists without an ownership marker: `adopt: ["consul-ecs-client-policy"]` in ConsulAuth house adopts it, with these changes
      ~ update  role  consul-ecs-api-gateway-role
          Policies[0].Name: "global-management" -> "consul-ecs-api-gateway-policy"
          reason: not as declared
      ~ update  binding rule  iam-ecs-service-token/mesh-gateway  id id-113
          Selector: (none) -> "entity_tags[\"consul.hashicorp.com.gateway-kind\"] == \"mesh-gateway\""
          reason: not as declared
          warning: tokens keep the permissions that this rule granted until now: review them with `consul acl token list`
      + create  binding rule  iam-ecs-service-token/terminating-gateway
          AuthMethod: "iam-ecs-service-token"
          BindName: "consul-ecs-terminating-gateway-role"
          BindType: "role"
          Description: "Bind a Consul role from IAM role tag for ECS based Terminating gateways [ecs-mesh:op]"
          Selector: "entity_tags[\"consul.hashicorp.com.gateway-kind\"] == \"terminating-gateway\""
          reason: declared and missing

    Plan: 1 to create, 2 to update, 0 to drain, 0 to remove; 1 name conflicts; 13 unchanged, 0 ignored.
    "#);
    let first = &serde_json::to_value(&proposal).unwrap()["changes"][0];
    assert_eq!((&first["kind"], first.get("task")), (&json!("policy"), None));
}
