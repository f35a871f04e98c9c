//! An operator that had another id before.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{
    ScriptedKumaTransport, TASK, demo, demo_rendered, id, kuma, operator, page, responds, stored_by_2x,
};
use crate::DataplaneCapabilities;
use crate::labels::{OPERATOR_LABEL, has_writer_mark, read_owner, writer_mark};
use ecs_mesh_control_plane::{ControlPlane, RegistrationOwner, list_owned};
use ecs_mesh_core::plan::{DrainReason, diff};
use ecs_mesh_model::OperatorId;

fn previous() -> OperatorId {
    OperatorId::parse("op-0").unwrap()
}

/// A Dataplane of this name and operator, created at this second.
fn dataplane(name: &str, operator: &str, second: u8) -> Value {
    let mut stored = stored_by_2x(&demo_rendered(DataplaneCapabilities::default()), true);
    stored["name"] = name.into();
    stored["labels"][OPERATOR_LABEL] = operator.into();
    // That operator wrote this copy.
    let (mark, value) = writer_mark(&read_owner(&stored)).unwrap();
    stored["labels"][mark] = value;
    stored["creationTime"] = format!("2026-11-22T03:26:{second:02}Z").into();
    stored
}

fn owner_of(owner: &RegistrationOwner) -> &str {
    match owner {
        RegistrationOwner::Owned(labels) => labels.operator.as_str(),
        RegistrationOwner::Foreign => "foreign",
    }
}

#[tokio::test]
async fn registrations_of_the_previous_id_are_owned_and_get_the_new_one() {
    let script = ScriptedKumaTransport::of(vec![
        page(&[], None),
        page(&[dataplane(TASK, "op-0", 10)], None),
        responds(200, &dataplane(TASK, "op-0", 10)),
    ]);
    let kuma = kuma(&script).with_previous_operator(Some(previous()));
    let owned = list_owned(&kuma, &BTreeSet::new()).await.unwrap().seen;
    let owners: Vec<&str> = owned.iter().map(|seen| owner_of(&seen.owner)).collect();
    assert_eq!(owners, [operator().as_str()]);
    let lists = script.paths();
    assert!(lists[0].contains("operator%5D=op-1") && lists[1].contains("operator%5D=op-0"), "{lists:?}");
    let current = kuma.get(&id("default", TASK)).await.unwrap().unwrap();
    assert_eq!(owner_of(&current.owner), operator().as_str());
    // The differences are the label and the mark made from it, which the next write corrects.
    let rendered = kuma.render(&demo(), Some(&current));
    let changes = diff(&current.normal, &rendered.normal);
    let paths: Vec<&str> = changes.iter().map(|change| change.path.as_str()).collect();
    assert_eq!(paths, ["labels[\"ecs-mesh.dev/operator\"]", "labels[\"ecs-mesh.dev/writer\"]"]);
    let drained = kuma.render_drained(&current, DrainReason::Stopping);
    for body in [&rendered.body, &drained.body] {
        assert_eq!(body["labels"][OPERATOR_LABEL], operator().as_str());
        assert!(has_writer_mark(body), "{body}");
    }
}

#[tokio::test]
async fn registrations_that_the_previous_operator_still_creates_are_left_to_it() {
    let script = ScriptedKumaTransport::of(vec![
        page(&[], None),
        page(&[dataplane(TASK, "op-0", 10)], None),
        page(&[], None),
        page(&[dataplane(TASK, "op-0", 10), dataplane("b", "op-0", 11)], None),
    ]);
    let kuma = kuma(&script).with_previous_operator(Some(previous()));
    list_owned(&kuma, &BTreeSet::new()).await.unwrap();
    let second = list_owned(&kuma, &BTreeSet::new()).await.unwrap().seen;
    let owners: Vec<&str> = second.iter().map(|seen| owner_of(&seen.owner)).collect();
    assert_eq!(owners, ["op-1", "op-0"]);
}

#[tokio::test]
async fn registrations_of_other_ids_stay_foreign() {
    let script = ScriptedKumaTransport::of(vec![responds(200, &dataplane(TASK, "op-2", 10))]);
    let kuma = kuma(&script).with_previous_operator(Some(previous()));
    let current = kuma.get(&id("default", TASK)).await.unwrap().unwrap();
    assert_eq!(owner_of(&current.owner), "op-2");
}
