//! Every drift is found, shown and mended by one run, and what is not ours is left as it is.

mod adoption;
mod config;
mod drift;
mod drifts;
mod enterprise;
mod removal;
mod strays;
mod waiting;
mod fixture;

use serde_json::json;

use ecs_mesh_core::plan::report::ObjectKind;
use ecs_mesh_core::plan::report::{PlanDetail, ManifestsSummary, PlanEntry, PlanReport, render};
use ecs_mesh_model::Timestamp;
use fixture::{AclPlanFixture, everything};

#[test]
fn a_plan_shows_objects_as_it_shows_registrations() {
    let mut world = AclPlanFixture::made(everything());
    world
        .edit(ObjectKind::BindingRule, "consul-ecs-mesh-gateway-role", |rule| rule["Selector"] = json!(""));
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
    let proposal = PlanReport::new("op", Timestamp(0), ManifestsSummary::default(), Vec::new(), Vec::new(), changes);
    let text = anstream::adapter::strip_str(&render(&proposal, PlanDetail::Changes)).to_string();
    insta::assert_snapshot!(text, @r#"
    control plane consul
      = name taken  policy  consul-ecs-client-policy
          Description: "mine" -> "Consul Client Token Policy for ECS [ecs-mesh:op]"
          why: it is there without our mark: `adopt: ["consul-ecs-client-policy"]` in ConsulAuth house takes it over, with these changes
      ~ update  role  consul-ecs-api-gateway-role
          Policies[0].Name: "global-management" -> "consul-ecs-api-gateway-policy"
          why: it is not as declared
      ~ update  binding rule  iam-ecs-service-token/mesh-gateway  id id-113
          Selector: (none) -> "entity_tags[\"consul.hashicorp.com.gateway-kind\"] == \"mesh-gateway\""
          why: it is not as declared
          mind: tokens keep what this rule gave them until now: look through them with `consul acl token list`
      + create  binding rule  iam-ecs-service-token/terminating-gateway
          AuthMethod: "iam-ecs-service-token"
          BindName: "consul-ecs-terminating-gateway-role"
          BindType: "role"
          Description: "Bind a Consul role from IAM role tag for ECS based Terminating gateways [ecs-mesh:op]"
          Selector: "entity_tags[\"consul.hashicorp.com.gateway-kind\"] == \"terminating-gateway\""
          why: it is declared, and not there

    Plan: 1 to create, 2 to update, 0 to drain, 0 to remove; 1 names taken; 13 unchanged, 0 ignored.
    "#);
    let first = &serde_json::to_value(&proposal).unwrap()["items"][0];
    assert_eq!((&first["object"], first.get("task")), (&json!("policy"), None));
}
