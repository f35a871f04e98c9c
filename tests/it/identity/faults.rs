use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use ecs_mesh_core::plan::report::{Change, PlanReport};
use ecs_mesh_sandbox::consul::ConsulConfig;
use ecs_mesh_sandbox::consul::http::{ConsulFault, ConsulFaults, NoConsulFaults};

use serde_json::json;

use super::fixture::{DEMO, IdentityFixture, NeverHeld, lines};
use super::{empty_consul, empty_consul_with, everything};

at_both_consuls! {
    unreadable_objects_name_the_missing_permission
    read_only_token_reports_denied_writes
    run_without_the_lease_writes_nothing
}

/// The plan's reasons for unknown objects.
fn reasons(plan: &PlanReport) -> BTreeSet<String> {
    let unknown = plan.changes.iter().filter(|planned| planned.change.change == Change::Unknown);
    unknown.map(|planned| planned.change.reason.clone()).collect()
}

async fn unreadable_objects_name_the_missing_permission(mut fixture: IdentityFixture) {
    fixture.token = Some(fixture.token_with("nodes", "node_prefix \"\" { policy = \"write\" }").await);
    let plan = fixture.plan(Some(&everything())).await;
    assert!(!plan.complete);
    assert!(
        lines(&plan).contains(&format!("create node {DEMO}")),
        "other objects are applied: {:#?}",
        lines(&plan)
    );
    let reasons = reasons(&plan);
    assert!(
        reasons
            .iter()
            .any(|reason| reason.contains("GET /v1/acl/policies") && reason.contains("acl = \"read\"")),
        "{reasons:#?}"
    );
    let ran = fixture.run(Some(&everything())).await;
    assert_eq!((ran.writes(), ran.objects("ok")), (1, 1), "the node: {}", ran.text);
    assert!(ran.objects("unknown") > 10);
}

async fn read_only_token_reports_denied_writes(mut fixture: IdentityFixture) {
    let rules = "acl = \"read\" node_prefix \"\" { policy = \"write\" }";
    fixture.token = Some(fixture.token_with("reader", rules).await);
    let ran = fixture.run(Some(&everything())).await;
    assert_eq!((ran.writes(), ran.objects("ok")), (1, 1), "{}", ran.text);
    assert_eq!(ran.objects("drifted"), 16);
    assert!(ran.metrics.warning_count("forbidden") > 0);
}

#[tokio::test]
async fn disabled_acls_are_reported() {
    let fixture = empty_consul_with(
        ConsulConfig { acls_enabled: false, ..ConsulConfig::default() },
        Arc::new(NoConsulFaults),
    )
    .await;
    let plan = fixture.plan(Some(&everything())).await;
    assert!(reasons(&plan).iter().any(|reason| reason.contains("ACLs are off")), "{:#?}", reasons(&plan));
    // The cluster's node does not depend on it.
    assert_eq!(fixture.run(Some(&everything())).await.objects("ok"), 1);
}

async fn run_without_the_lease_writes_nothing(mut fixture: IdentityFixture) {
    fixture.lease = Arc::new(NeverHeld);
    let before = fixture.everything().await;
    let ran = fixture.run(Some(&everything())).await;
    assert_eq!((ran.writes(), fixture.everything().await), (0, before));
}

#[tokio::test]
async fn widened_role_is_narrowed_and_counted_as_drift() {
    let fixture = empty_consul().await;
    let mut auth = everything();
    auth["serviceTokens"]["terminatingGatewayPolicies"] = json!(["write-db"]);
    let policy = fixture.put("/v1/acl/policy", &json!({"Name": "write-db", "Rules": ""})).await;
    assert_eq!(fixture.run(Some(&auth)).await.objects("ok"), 17);
    let name = "/v1/acl/role/name/consul-ecs-terminating-gateway-role";
    fixture.delete(&format!("/v1/acl/policy/{}", policy["ID"].as_str().unwrap())).await;
    let mut role = fixture.get(name).await;
    role["Policies"] = json!([{"Name": "global-management"}]);
    fixture.put(&format!("/v1/acl/role/{}", role["ID"].as_str().unwrap()), &role).await;

    let ran = fixture.run(Some(&auth)).await;
    assert_eq!((ran.writes(), ran.objects("drifted"), ran.objects("ok")), (1, 1, 16), "{}", ran.text);
    assert_eq!(fixture.get(name).await.get("Policies"), None, "an empty list is no error");
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
    let fixture = empty_consul_with(ConsulConfig::default(), Arc::new(LossyResponses::default())).await;
    // Each run may lose other responses.
    for _ in 0..6 {
        fixture.run(Some(&everything())).await;
    }
    let rules = fixture.get("/v1/acl/binding-rules").await;
    assert_eq!(rules.as_array().unwrap().len(), 5, "{rules:#}");
    assert_eq!(lines(&fixture.plan(Some(&everything())).await), BTreeSet::new());
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
    let fixture = empty_consul_with(ConsulConfig::default(), Arc::new(UnlistableRoles)).await;
    let ran = fixture.run(Some(&everything())).await;
    // Four policies, two auth methods, the service's rule, the node and the anonymous token.
    assert_eq!((ran.writes(), ran.objects("unknown"), ran.objects("held")), (9, 4, 4), "{}", ran.text);
}
