//! The members of a datacenter, for readers.

use serde_json::{Value, json};

use crate::testing::*;
use ecs_mesh_control_plane::{ControlPlane as _, MeshErrorKind, MeshMember, RegistrationOwner};
use ecs_mesh_model::MeshName;

fn entry(node: &str, service: &Value, statuses: &[&str]) -> Value {
    let checks: Vec<Value> = statuses.iter().map(|status| json!({"Status": status})).collect();
    json!({"Node": {"Node": node}, "Service": service, "Checks": checks})
}

#[tokio::test(start_paused = true)]
async fn instance_is_ready_unless_a_check_is_critical() {
    let foreign = json!({"ID": "web-vm", "Service": "web", "Meta": null, "ModifyIndex": 1});
    let web = [
        entry(CLUSTER, &service(1, 7), &["passing", "passing"]),
        entry(CLUSTER, &service(2, 8), &["passing", "critical"]),
        entry("vm", &foreign, &["warning"]),
        json!({"Node": {}}),
    ];
    let script = ScriptedConsulTransport::of(vec![
        responds(200, &json!({"web": [], "consul": []})),
        responds(200, &json!([])),
        responds(200, &web.as_slice().into()),
    ]);
    let (consul, reported) = observed(&script);
    let mut found: Vec<MeshMember> = Vec::new();
    consul.list_members(&MeshName::default(), &mut |member| found.push(member)).await.unwrap();
    let seen: Vec<(&str, bool, bool)> = found
        .iter()
        .map(|member| (&*member.id.name, member.ready, member.owner != RegistrationOwner::Foreign))
        .collect();
    let [one, two] = [service_id("web-1"), service_id("web-2")];
    assert_eq!(
        seen,
        [(&*one.name, true, true), (&*two.name, false, true), ("service/web-vm@vm", true, false)]
    );
    assert!(found.iter().all(|member| *member.services == ["web".into()]));
    assert_eq!(reported.all(), ["list_members skipped", "list_members success"]);
}

#[tokio::test(start_paused = true)]
async fn filtered_members_are_an_error() {
    let script = ScriptedConsulTransport::of(vec![responds(200, &json!({"web": []})), filtered(&json!([]))]);
    let listed = consul(&script).list_members(&MeshName::default(), &mut |_| ()).await;
    assert_eq!(listed.unwrap_err().kind, MeshErrorKind::Forbidden);
}
