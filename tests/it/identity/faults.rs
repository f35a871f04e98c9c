use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use ecs_mesh_core::plan::report::{Change, PlanReport};
use ecs_mesh_sandbox::consul::ConsulConfig;
use ecs_mesh_sandbox::consul::http::{ConsulFault, ConsulFaults, NoConsulFaults};

use serde_json::json;

use super::fixture::{DEMO, IdentityFixture, NeverHeld, lines};
use super::{everything, fresh, fresh_with};

at_both_consuls! {
    unreadable_objects_name_the_missing_permission
    a_token_that_may_look_and_not_write_makes_what_it_may
    without_the_lease_nothing_is_written
}

/// The plan's reasons for unknown objects.
fn reasons(plan: &PlanReport) -> BTreeSet<String> {
    let unknown = plan.changes.iter().filter(|planned| planned.change.change == Change::Unknown);
    unknown.map(|planned| planned.change.reason.clone()).collect()
}

async fn unreadable_objects_name_the_missing_permission(mut desk: IdentityFixture) {
    desk.token = Some(desk.token_with("nodes", "node_prefix \"\" { policy = \"write\" }").await);
    let plan = desk.plan(Some(&everything())).await;
    assert!(!plan.complete);
    assert!(lines(&plan).contains(&format!("create node {DEMO}")), "all else goes on: {:#?}", lines(&plan));
    let reasons = reasons(&plan);
    assert!(
        reasons.iter().any(|why| why.contains("GET /v1/acl/policies") && why.contains("acl = \"read\"")),
        "{reasons:#?}"
    );
    let ran = desk.run(Some(&everything())).await;
    assert_eq!((ran.writes(), ran.objects("ok")), (1, 1), "the node: {}", ran.text);
    assert!(ran.objects("unknown") > 10);
}

async fn a_token_that_may_look_and_not_write_makes_what_it_may(mut desk: IdentityFixture) {
    let rules = "acl = \"read\" node_prefix \"\" { policy = \"write\" }";
    desk.token = Some(desk.token_with("reader", rules).await);
    let ran = desk.run(Some(&everything())).await;
    assert_eq!((ran.writes(), ran.objects("ok")), (1, 1), "{}", ran.text);
    assert_eq!(ran.objects("drifted"), 16);
    assert!(ran.metrics.warning_count("forbidden") > 0);
}

#[tokio::test]
async fn disabled_acls_are_reported() {
    let desk =
        fresh_with(ConsulConfig { acls_enabled: false, ..ConsulConfig::default() }, Arc::new(NoConsulFaults))
            .await;
    let plan = desk.plan(Some(&everything())).await;
    assert!(reasons(&plan).iter().any(|why| why.contains("ACLs are off")), "{:#?}", reasons(&plan));
    // The cluster's node does not depend on it.
    assert_eq!(desk.run(Some(&everything())).await.objects("ok"), 1);
}

async fn without_the_lease_nothing_is_written(mut desk: IdentityFixture) {
    desk.lease = Arc::new(NeverHeld);
    let before = desk.everything().await;
    let ran = desk.run(Some(&everything())).await;
    assert_eq!((ran.writes(), desk.everything().await), (0, before));
}

#[tokio::test]
async fn widened_role_is_narrowed_and_counted_as_drift() {
    let desk = fresh().await;
    let mut auth = everything();
    auth["serviceTokens"]["terminatingGatewayPolicies"] = json!(["write-db"]);
    let policy = desk.put("/v1/acl/policy", &json!({"Name": "write-db", "Rules": ""})).await;
    assert_eq!(desk.run(Some(&auth)).await.objects("ok"), 17);
    let name = "/v1/acl/role/name/consul-ecs-terminating-gateway-role";
    desk.delete(&format!("/v1/acl/policy/{}", policy["ID"].as_str().unwrap())).await;
    let mut role = desk.get(name).await;
    role["Policies"] = json!([{"Name": "global-management"}]);
    desk.put(&format!("/v1/acl/role/{}", role["ID"].as_str().unwrap()), &role).await;

    let ran = desk.run(Some(&auth)).await;
    assert_eq!((ran.writes(), ran.objects("drifted"), ran.objects("ok")), (1, 1, 16), "{}", ran.text);
    assert_eq!(desk.get(name).await.get("Policies"), None, "an empty list is not said");
}

/// Drops some responses after the write took effect.
#[derive(Default)]
struct LossyResponses(AtomicU32);

impl ConsulFaults for LossyResponses {
    fn decide(&self, method: &str, path: &str) -> ConsulFault {
        let is_rule = method == "PUT" && path == "/v1/acl/binding-rule";
        if is_rule && self.0.fetch_add(1, Ordering::Relaxed).is_multiple_of(2) {
            return ConsulFault::DropAfterEffect;
        }
        ConsulFault::None
    }
}

#[tokio::test]
async fn lost_create_response_makes_no_duplicate_rule() {
    let desk = fresh_with(ConsulConfig::default(), Arc::new(LossyResponses::default())).await;
    // Each run may lose other responses.
    for _ in 0..6 {
        desk.run(Some(&everything())).await;
    }
    let rules = desk.get("/v1/acl/binding-rules").await;
    assert_eq!(rules.as_array().unwrap().len(), 5, "{rules:#}");
    assert_eq!(lines(&desk.plan(Some(&everything())).await), BTreeSet::new());
}

/// Fails the list of one kind of object.
struct UnlistableRoles;

impl ConsulFaults for UnlistableRoles {
    fn decide(&self, _method: &str, path: &str) -> ConsulFault {
        if path == "/v1/acl/roles" { ConsulFault::Status(500) } else { ConsulFault::None }
    }
}

#[tokio::test]
async fn failed_list_blocks_only_dependent_objects() {
    let desk = fresh_with(ConsulConfig::default(), Arc::new(UnlistableRoles)).await;
    let ran = desk.run(Some(&everything())).await;
    // Four policies, two auth methods, the service's rule, the node and the anonymous token.
    assert_eq!((ran.writes(), ran.objects("unknown"), ran.objects("held")), (9, 4, 4), "{}", ran.text);
}
