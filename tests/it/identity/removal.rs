use std::collections::BTreeSet;

use ecs_mesh_core::plan::report::PlanReport;
use serde_json::{Value, json};

use super::fixture::{IdentityFixture, lines};
use super::{create_everything, everything};

at_both_consuls! {
    manual_token_grants_are_kept
    omitted_gateways_are_unchanged
}

pub(crate) const ROLE: &str = "consul-ecs-mesh-gateway-role";
const POLICY: &str = "consul-ecs-mesh-gateway-policy";

/// A spec without mesh gateways.
pub(crate) fn without_mesh_gateways() -> Value {
    let mut auth = everything();
    auth["serviceTokens"]["gateways"] = json!(["terminating-gateway", "api-gateway"]);
    auth["serviceTokens"]["absentGateways"] = json!(["mesh-gateway"]);
    auth
}

pub(crate) fn reason(plan: &PlanReport, name: &str) -> String {
    let mut changes = plan.changes.iter().map(|planned| &planned.change);
    changes
        .find(|item| item.name.as_deref() == Some(name))
        .map(|item| item.reason.clone())
        .unwrap_or_default()
}

/// Manually created tokens keep their permissions at each server.
pub(crate) async fn assert_manual_tokens_are_kept(fixture: &IdentityFixture) {
    let auth = without_mesh_gateways();
    let token = |body: Value| async move {
        let token = fixture.put("/v1/acl/token", &body).await;
        token["AccessorID"].as_str().unwrap().to_owned()
    };
    let with_role = token(json!({"Roles": [{"Name": ROLE}]})).await;
    let with_policy = token(json!({"Policies": [{"Name": POLICY}]})).await;
    token(json!({"Policies": [{"Name": "consul-ecs-client-policy"}]})).await;
    let plan = fixture.plan(Some(&auth)).await;
    let held: BTreeSet<String> =
        lines(&plan).into_iter().filter(|line| line.starts_with("hold") && line.contains("mesh")).collect();
    assert_eq!(held, [format!("hold role {ROLE}"), format!("hold policy {POLICY}")].into(), "{plan:#?}");
    for (name, accessor) in [(ROLE, &with_role), (POLICY, &with_policy)] {
        let reason = reason(&plan, name);
        assert!(reason.contains(&format!("1 created manually ({accessor})")), "{reason}");
    }
    fixture.run(Some(&auth)).await;
    assert_eq!(fixture.get(&format!("/v1/acl/token/{with_role}")).await["Roles"][0]["Name"], ROLE);
    assert_eq!(fixture.get(&format!("/v1/acl/token/{with_policy}")).await["Policies"][0]["Name"], POLICY);

    fixture.delete(&format!("/v1/acl/token/{with_role}")).await;
    fixture.delete(&format!("/v1/acl/token/{with_policy}")).await;
    let plan = fixture.plan(Some(&auth)).await;
    assert_eq!(plan.summary.remove, 2, "{:#?}", lines(&plan));
    assert_eq!(fixture.run(Some(&auth)).await.writes(), 2);
    assert!(fixture.ask("GET", &format!("/v1/acl/role/name/{ROLE}"), None).await.is_none());
}

async fn manual_token_grants_are_kept(fixture: IdentityFixture) {
    create_everything(&fixture).await;
    assert_manual_tokens_are_kept(&fixture).await;
}

async fn omitted_gateways_are_unchanged(fixture: IdentityFixture) {
    create_everything(&fixture).await;
    let mut auth = everything();
    let before = fixture.everything().await;
    auth["serviceTokens"].as_object_mut().unwrap().remove("gateways");
    let plan = fixture.plan(Some(&auth)).await;
    assert!(!plan.will_write(), "{:#?}", lines(&plan));
    assert_eq!(plan.summary.unmanaged, 8, "each is reported: {:#?}", lines(&plan));
    assert_eq!(fixture.run(Some(&auth)).await.writes(), 0);
    assert_eq!(fixture.everything().await, before);
}
