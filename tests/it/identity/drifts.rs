use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;

use serde_json::json;

use super::fixture::{DEMO, IdentityFixture, PROD, lines};
use super::{create_everything, everything};

at_both_consuls! {
    first_run_applies_the_plan_and_second_is_a_no_op
    cluster_selected_by_pattern_gets_a_node
    each_drift_is_planned_and_corrected
    deleted_auth_method_is_recreated_with_warning
    undeclared_settings_are_kept
}

const METHOD: &str = "/v1/acl/auth-method/iam-ecs-service-token";
const SERVICE: &str = "${entity_tags.consul.hashicorp.com.service-name}";

fn set(expected: &[&str]) -> BTreeSet<String> {
    expected.iter().map(|line| (*line).to_owned()).collect()
}

async fn first_run_applies_the_plan_and_second_is_a_no_op(fixture: IdentityFixture) {
    let auth = everything();
    let plan = fixture.plan(Some(&auth)).await;
    assert!(plan.complete && plan.will_write(), "{plan:?}");
    let planned = lines(&plan);
    assert_eq!(planned.len(), 17, "{planned:#?}");
    assert!(planned.contains("update anonymous token 00000000-0000-0000-0000-000000000002: Policies"));
    assert!(planned.contains(&format!("create node {DEMO}")));
    let before = fixture.everything().await;
    assert_eq!(before["roles"], json!([]), "a plan writes nothing");

    let first = fixture.run(Some(&auth)).await;
    assert_eq!((first.writes(), first.objects("ok")), (17, 17), "{}", first.text);
    let made = fixture.everything().await;
    let counts = ["roles", "methods", "rules"].map(|kind| made[kind].as_array().unwrap().len());
    assert_eq!(counts, [4, 2, 5]);

    let plan = fixture.plan(Some(&auth)).await;
    assert!(plan.complete && !plan.will_write(), "{:?}", lines(&plan));
    assert_eq!(lines(&plan), BTreeSet::new());
    let second = fixture.run(Some(&auth)).await;
    assert_eq!(second.writes(), 0);
    assert_eq!(fixture.everything().await, made, "not even an index has moved");
}

async fn cluster_selected_by_pattern_gets_a_node(mut fixture: IdentityFixture) {
    fixture.pattern = Some("arn:aws:ecs:us-east-1:000000000000:cluster/prod-*");
    let auth = json!({"controlPlane": "consul"});
    let expected = set(&[&format!("create node {DEMO}"), &format!("create node {PROD}")]);
    assert_eq!(lines(&fixture.plan(Some(&auth)).await), expected);
    fixture.run(Some(&auth)).await;
    assert_eq!(lines(&fixture.plan(Some(&auth)).await), BTreeSet::new());
}

type ConsulMutation = for<'a> fn(&'a IdentityFixture) -> Pin<Box<dyn Future<Output = ()> + 'a>>;

/// A foreign change, and the resulting plan.
struct DriftScenario(&'static str, ConsulMutation, &'static [&'static str]);

macro_rules! drift {
    ($what:literal, |$fixture:ident| $meddle:block, $($line:expr),+) => {
        DriftScenario($what, |$fixture| Box::pin(async move $meddle), &[$($line),+])
    };
}

/// A changed auth method.
async fn change_method(fixture: &IdentityFixture, path: &[&str], value: serde_json::Value) {
    let mut method = fixture.get(METHOD).await;
    let mut at = &mut method;
    for field in path {
        at = &mut at[*field];
    }
    *at = value;
    fixture.put(METHOD, &method).await;
}

async fn change_named(
    fixture: &IdentityFixture,
    kind: &str,
    name: &str,
    field: &str,
    value: serde_json::Value,
) {
    let mut object = fixture.get(&format!("/v1/acl/{kind}/name/{name}")).await;
    object[field] = value;
    fixture.put(&format!("/v1/acl/{kind}/{}", object["ID"].as_str().unwrap()), &object).await;
}

const DRIFTS: &[DriftScenario] = &[
    drift!(
        "a rule is deleted",
        |fixture| {
            let rule = fixture.rule_for("consul-ecs-mesh-gateway-role").await;
            fixture.delete(&format!("/v1/acl/binding-rule/{}", rule["ID"].as_str().unwrap())).await;
        },
        "create binding rule iam-ecs-service-token/mesh-gateway"
    ),
    drift!(
        "a selector is emptied",
        |fixture| {
            let mut rule = fixture.rule_for("consul-ecs-api-gateway-role").await;
            rule["Selector"] = "".into();
            fixture.put(&format!("/v1/acl/binding-rule/{}", rule["ID"].as_str().unwrap()), &rule).await;
        },
        "update binding rule iam-ecs-service-token/api-gateway: Selector"
    ),
    drift!(
        "a foreign account is let in",
        |fixture| {
            let arns =
                json!(["arn:aws:iam::000000000000:role/consul-ecs/*", "arn:aws:iam::666666666666:role/*"]);
            change_method(fixture, &["Config", "BoundIAMPrincipalARNs"], arns).await;
        },
        "update auth method iam-ecs-service-token: Config.BoundIAMPrincipalARNs"
    ),
    drift!(
        "a longer token TTL",
        |fixture| {
            change_method(fixture, &["MaxTokenTTL"], json!("12h")).await;
        },
        "update auth method iam-ecs-service-token: MaxTokenTTL"
    ),
    drift!(
        "another STS endpoint",
        |fixture| {
            change_method(fixture, &["Config", "STSEndpoint"], json!("https://sts.example.org")).await;
        },
        "update auth method iam-ecs-service-token: Config.STSEndpoint"
    ),
    drift!(
        "another IAM endpoint",
        |fixture| {
            change_method(fixture, &["Config", "IAMEndpoint"], json!("https://iam.example.org")).await;
        },
        "update auth method iam-ecs-service-token: Config.IAMEndpoint"
    ),
    drift!(
        "a policy is weakened",
        |fixture| {
            change_named(
                fixture,
                "policy",
                "consul-ecs-mesh-gateway-policy",
                "Rules",
                json!("mesh = \"read\""),
            )
            .await;
        },
        "update policy consul-ecs-mesh-gateway-policy: Rules"
    ),
    drift!(
        "a role may do everything",
        |fixture| {
            let policies = json!([{"Name": "consul-ecs-mesh-gateway-policy"}, {"Name": "global-management"}]);
            change_named(fixture, "role", "consul-ecs-mesh-gateway-role", "Policies", policies).await;
        },
        "update role consul-ecs-mesh-gateway-role: Policies"
    ),
    drift!(
        "the anonymous token lost its policy",
        |fixture| {
            fixture
                .put(
                    "/v1/acl/token/00000000-0000-0000-0000-000000000002",
                    &json!({"Description": "Anonymous Token"}),
                )
                .await;
        },
        "update anonymous token 00000000-0000-0000-0000-000000000002: Policies"
    ),
    drift!(
        "the cluster's node is gone",
        |fixture| {
            fixture.put("/v1/catalog/deregister", &json!({"Node": DEMO})).await;
        },
        "create node arn:aws:ecs:us-east-1:000000000000:cluster/anchor"
    ),
    drift!(
        "the auth method is deleted",
        |fixture| {
            fixture.delete(METHOD).await;
        },
        "create auth method iam-ecs-service-token",
        "create binding rule iam-ecs-service-token/service",
        "create binding rule iam-ecs-service-token/api-gateway",
        "create binding rule iam-ecs-service-token/mesh-gateway",
        "create binding rule iam-ecs-service-token/terminating-gateway"
    ),
    drift!(
        "a policy is deleted, and so taken off its role",
        |fixture| {
            let policy = fixture.get("/v1/acl/policy/name/consul-ecs-api-gateway-policy").await;
            fixture.delete(&format!("/v1/acl/policy/{}", policy["ID"].as_str().unwrap())).await;
        },
        "create policy consul-ecs-api-gateway-policy",
        "update role consul-ecs-api-gateway-role: Policies"
    ),
    drift!(
        "a duplicate rule of the operator",
        |fixture| {
            let mut rule = fixture.rule_for(SERVICE).await;
            rule.as_object_mut().unwrap().remove("ID");
            fixture.put("/v1/acl/binding-rule", &rule).await;
        },
        "remove binding rule iam-ecs-service-token/service"
    ),
];

async fn each_drift_is_planned_and_corrected(fixture: IdentityFixture) {
    create_everything(&fixture).await;
    let auth = everything();
    let good = fixture.content().await;
    for DriftScenario(what, meddle, expected) in DRIFTS {
        meddle(&fixture).await;
        assert_ne!(fixture.content().await, good, "{what}: nothing was done");
        let plan = fixture.plan(Some(&auth)).await;
        assert_eq!(lines(&plan), set(expected), "{what}");
        let ran = fixture.run(Some(&auth)).await;
        assert_eq!(ran.writes(), expected.len() as u64, "{what}: just what was planned");
        assert_eq!(fixture.content().await, good, "{what}: it is as it was");
        assert_eq!(lines(&fixture.plan(Some(&auth)).await), BTreeSet::new(), "{what}");
    }
}

async fn deleted_auth_method_is_recreated_with_warning(fixture: IdentityFixture) {
    create_everything(&fixture).await;
    let auth = everything();
    fixture.delete(METHOD).await;
    let plan = fixture.plan(Some(&auth)).await;
    let method =
        plan.changes.iter().find(|planned| planned.change.name.as_deref() == Some("iam-ecs-service-token"));
    let warnings = &method.unwrap().change.warnings;
    assert!(warnings.iter().any(|warning| warning.contains("tokens")), "{warnings:?}");
}

async fn undeclared_settings_are_kept(fixture: IdentityFixture) {
    create_everything(&fixture).await;
    let auth = everything();
    change_method(&fixture, &["DisplayName"], json!("Tasks")).await;
    let before = fixture.everything().await;
    assert_eq!(lines(&fixture.plan(Some(&auth)).await), BTreeSet::new());
    change_method(&fixture, &["MaxTokenTTL"], json!("12h")).await;
    fixture.run(Some(&auth)).await;
    let method = fixture.get(METHOD).await;
    assert_eq!((&method["DisplayName"], &method["MaxTokenTTL"]), (&json!("Tasks"), &json!("24h0m0s")));
    assert_eq!(fixture.everything().await["roles"], before["roles"]);
}
