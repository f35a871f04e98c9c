use std::collections::BTreeSet;

use serde_json::json;

use super::server::{Acls, ConsulRelease, MANAGEMENT, RealConsul};
use crate::identity::everything;
use crate::identity::fixture::{DEMO, IdentityFixture, lines};
use crate::identity::removal::{ROLE, assert_manual_tokens_are_kept, reason, without_mesh_gateways};

at_real_consuls! {
    limited_token_creates_what_it_may(Acls::On)
    disabled_acls_are_a_reason_and_the_node_is_created(Acls::Off)
    role_and_policy_are_removed_only_when_unused(Acls::On)
}

/// For 1.8 alone; `tests/it/identity` covers newer versions.
#[tokio::test]
async fn acl_objects_converge_on_real_consul() {
    let what = "an identity set-up at the oldest Consul";
    let Some(server) = RealConsul::start(ConsulRelease::Oldest, what, Acls::On).await else { return };
    let (fixture, auth) = (IdentityFixture::at(server.url(), MANAGEMENT), everything());
    let plan = fixture.plan(Some(&auth)).await;
    assert!(plan.complete, "{plan:#?}");
    assert_eq!(
        (plan.summary.create, plan.summary.update, plan.summary.hold),
        (9, 1, 7),
        "{:#?}",
        lines(&plan)
    );
    let of_old_servers =
        plan.changes.iter().filter(|planned| planned.change.reason.contains("auth method's type"));
    assert_eq!(of_old_servers.count(), 2, "{plan:#?}");

    let first = fixture.run(Some(&auth)).await;
    assert_eq!(
        (first.writes(), first.objects("ok"), first.objects("drifted")),
        (10, 10, 7),
        "{}",
        first.text
    );
    let made = fixture.everything().await;
    let second = fixture.run(Some(&auth)).await;
    assert_eq!(second.writes(), 0);
    assert_eq!(fixture.everything().await, made, "not even an index has moved");

    let good = fixture.content().await;
    let mut role = fixture.get("/v1/acl/role/name/consul-ecs-mesh-gateway-role").await;
    role["Policies"] = json!([{"Name": "consul-ecs-mesh-gateway-policy"}, {"Name": "global-management"}]);
    fixture.put(&format!("/v1/acl/role/{}", role["ID"].as_str().unwrap()), &role).await;
    let mut policy = fixture.get("/v1/acl/policy/name/consul-ecs-client-policy").await;
    policy["Rules"] = "acl = \"write\"".into();
    fixture.put(&format!("/v1/acl/policy/{}", policy["ID"].as_str().unwrap()), &policy).await;
    fixture.put("/v1/catalog/deregister", &json!({"Node": DEMO})).await;
    fixture
        .put("/v1/acl/token/00000000-0000-0000-0000-000000000002", &json!({"Description": "Anonymous Token"}))
        .await;
    let plan = fixture.plan(Some(&auth)).await;
    let changes: BTreeSet<String> =
        lines(&plan).into_iter().filter(|line| !line.starts_with("hold")).collect();
    assert_eq!(
        changes,
        [
            format!("create node {DEMO}"),
            "update anonymous token 00000000-0000-0000-0000-000000000002: Policies".to_owned(),
            "update policy consul-ecs-client-policy: Rules".to_owned(),
            "update role consul-ecs-mesh-gateway-role: Policies".to_owned(),
        ]
        .into()
    );
    assert_eq!(fixture.run(Some(&auth)).await.writes(), 4);
    assert_eq!(fixture.content().await, good);

    let mut absent = auth.clone();
    absent["state"] = "absent".into();
    assert_eq!(fixture.run(Some(&absent)).await.writes(), 10);
    assert!(!fixture.everything().await.to_string().contains("ecs-mesh"));
}

async fn limited_token_creates_what_it_may(server: &RealConsul) {
    let mut fixture = IdentityFixture::at(server.url(), MANAGEMENT);
    let rules = "acl = \"read\" node_prefix \"\" { policy = \"write\" }";
    fixture.token = Some(fixture.token_with("reader", rules).await);
    let ran = fixture.run(Some(&everything())).await;
    assert_eq!((ran.writes(), ran.objects("ok")), (1, 1), "the node: {}", ran.text);
    assert!(ran.metrics.warning_count("forbidden") > 0);
}

async fn disabled_acls_are_a_reason_and_the_node_is_created(server: &RealConsul) {
    let mut fixture = IdentityFixture::at(server.url(), MANAGEMENT);
    fixture.token = None;
    let plan = fixture.plan(Some(&everything())).await;
    let reasons = plan.changes.iter().filter(|planned| planned.change.reason.contains("ACLs are off"));
    assert_eq!((reasons.count(), plan.summary.create), (16, 1), "{:#?}", lines(&plan));
    assert_eq!(fixture.run(Some(&everything())).await.writes(), 1);
    assert_eq!(fixture.run(Some(&everything())).await.writes(), 0);
}

async fn role_and_policy_are_removed_only_when_unused(server: &RealConsul) {
    let fixture = IdentityFixture::at(server.url(), MANAGEMENT);
    fixture.run(Some(&everything())).await;
    let (auth, sso) = (without_mesh_gateways(), "sso");
    // A foreign auth method that grants the gateways' role.
    server.create_auth_method(sso).await;
    let rule = json!({"AuthMethod": sso, "BindType": "role", "BindName": ROLE});
    let rule = server.put("/v1/acl/binding-rule", &rule).await;
    let held = fixture.plan(Some(&auth)).await;
    let id = rule["ID"].as_str().unwrap();
    assert!(reason(&held, ROLE).contains(&format!("({id} of {sso})")), "{}", reason(&held, ROLE));

    let accessor = server.log_in(sso, json!({})).await;
    fixture.delete(&format!("/v1/acl/binding-rule/{id}")).await;
    let held = fixture.plan(Some(&auth)).await;
    let held = reason(&held, ROLE);
    assert!(held.contains(sso) && !held.contains(id), "{held}");
    fixture.delete(&format!("/v1/acl/token/{accessor}")).await;

    assert_manual_tokens_are_kept(&fixture).await;
}
