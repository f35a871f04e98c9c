use serde_json::{Value, json};

use super::super::dataplane::{render, render_drained};
use super::{TASK, demo, demo_rendered, inbound, marks, outbound, registered, registration, stored_by_2x};
use crate::{
    DRAIN_LABEL, DataplaneCapabilities, HealthDiscovery, MeshServiceNaming, ServicesMode, WRITER_LABEL,
    normalise,
};
use ecs_mesh_api::{KumaRelease, Probe};
use ecs_mesh_control_plane::{Registration, RegistrationOwner};
use ecs_mesh_core::intent::{DesiredReach, DesiredRegistration, Outbounds};
use ecs_mesh_core::plan::DrainReason;

const HDS_OFF: DataplaneCapabilities = DataplaneCapabilities {
    release: KumaRelease::new(2, 14),
    health_discovery: HealthDiscovery::Off,
    services: ServicesMode::Disabled,
    service_naming: MeshServiceNaming::ServiceTag,
};
const EXCLUSIVE: DataplaneCapabilities = DataplaneCapabilities {
    services: ServicesMode::Exclusive,
    health_discovery: HealthDiscovery::On,
    ..HDS_OFF
};

/// Compares with the golden file of that name; `INSTA_UPDATE=always` renews it.
fn golden(name: &str, body: &Value) {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/kuma"));
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.set_sort_maps(true);
    settings.bind(|| insta::assert_yaml_snapshot!(name, body));
}

fn inbound_of(body: &Value, at: usize) -> &Value {
    &body["networking"]["inbound"][at]
}

#[test]
fn new_task_is_created_not_ready_with_a_probe() {
    golden("create", &demo_rendered(DataplaneCapabilities::default()));
}

#[test]
fn without_hds_new_task_is_created_ready() {
    golden("create-hds-off", &demo_rendered(HDS_OFF));
}

#[test]
fn outbounds_refer_to_mesh_services_when_exclusive() {
    golden("create-exclusive", &demo_rendered(EXCLUSIVE));
}

#[test]
fn task_without_probe_is_created_not_ready() {
    let mut desired = demo();
    desired.probe = Probe::None;
    let body = render(&desired, None, DataplaneCapabilities::default()).body;
    assert_eq!(inbound_of(&body, 0).get("serviceProbe"), None);
    assert_eq!(inbound_of(&body, 0)["state"], "NotReady");
}

#[test]
fn client_only_task_has_no_inbounds() {
    let mut desired = demo();
    desired.inbounds.clear();
    golden("client-only", &render(&desired, None, DataplaneCapabilities::default()).body);
}

#[test]
fn task_with_all_fields_is_rendered_completely() {
    let mut desired = demo();
    desired.address = "fd00::7".parse().unwrap();
    desired.inbounds.push(inbound(json!({
        "containerPort": 5051, "port": 15001, "serviceAddress": "127.0.0.1", "protocol": "grpc",
        "tags": {"kuma.io/zone": "elsewhere", "kuma.io/service": "not-this", "team": "a"},
    })));
    desired.reach = DesiredReach::Listeners(Outbounds::Exactly(vec![
        outbound("redis", 6379, 6379),
        outbound("kv", 15050, 15050),
        outbound("kv", 15050, 15050),
        outbound("audit", 80, 6380),
    ]));
    golden("everything", &render(&desired, None, DataplaneCapabilities::default()).body);
}

#[test]
fn drained_task_keeps_all_but_its_health() {
    let current = registered(|stored| stored["networking"]["inbound"][0]["health"] = json!({"ready": true}));
    let drained = render_drained(&current, DrainReason::Stopping);
    golden("drained", &drained.body);
    let drained = registration(stored_by_2x(&drained.body, false));
    assert_eq!(drained.drained, Some(DrainReason::Stopping));
    assert_eq!(drained.owner, RegistrationOwner::Owned(marks(TASK)));
    assert_ne!(drained.normal, current.normal);
}

#[test]
fn draining_twice_for_the_same_reason_is_equal() {
    let once =
        registration(stored_by_2x(&render_drained(&registered(|_| ()), DrainReason::Revoked).body, false));
    assert_eq!(render_drained(&once, DrainReason::Revoked).normal, once.normal);
    assert_ne!(render_drained(&once, DrainReason::Stopping).normal, once.normal);
}

#[test]
fn undrained_task_starts_not_ready_without_drain_label() {
    let drained =
        registration(stored_by_2x(&render_drained(&registered(|_| ()), DrainReason::Revoked).body, false));
    let back = render(&demo(), Some(&drained), DataplaneCapabilities::default());
    assert_ne!(back.normal, drained.normal);
    assert_eq!(inbound_of(&back.body, 0)["state"], "NotReady");
    assert_eq!(inbound_of(&back.body, 0).get("health"), None);
    assert_eq!(back.body["labels"].get(DRAIN_LABEL), None);
}

#[test]
fn without_hds_undrained_task_is_ready() {
    let current = registration(stored_by_2x(&demo_rendered(HDS_OFF), true));
    let drained = registration(stored_by_2x(&render_drained(&current, DrainReason::Revoked).body, false));
    let back = render(&demo(), Some(&drained), HDS_OFF);
    assert_eq!(inbound_of(&back.body, 0)["state"], "Ready");
    assert_eq!(inbound_of(&back.body, 0)["health"], json!({"ready": true}));
}

#[test]
fn drain_for_an_unknown_reason_is_undone() {
    let current = registered(|stored| {
        stored["labels"][DRAIN_LABEL] = "weather".into();
        stored["networking"]["inbound"][0]["health"] = json!({});
        stored["networking"]["inbound"][0].as_object_mut().unwrap().remove("state");
    });
    assert_eq!(current.drained, Some(DrainReason::NotDesired));
    let back = render(&demo(), Some(&current), DataplaneCapabilities::default());
    assert_eq!(inbound_of(&back.body, 0)["state"], "NotReady");
}

#[test]
fn update_carries_readiness_forward_per_inbound() {
    let cases = [
        json!({"health": {"ready": true}}),
        json!({"state": "NotReady", "health": {}}),
        json!({"health": {}}),
        json!({"state": "Ignored"}),
        json!({}),
    ];
    for readiness in cases {
        let current = registered(|stored| {
            let inbound = stored["networking"]["inbound"][0].as_object_mut().unwrap();
            inbound.remove("state");
            inbound.remove("health");
            inbound.extend(readiness.as_object().unwrap().clone());
        });
        let mut desired = demo();
        desired.inbounds.insert(0, inbound(json!({"containerPort": 5051, "port": 15001})));
        let body = render(&desired, Some(&current), DataplaneCapabilities::default()).body;
        assert_eq!(inbound_of(&body, 0)["state"], "NotReady", "a new inbound starts not ready");
        for field in ["state", "health"] {
            assert_eq!(inbound_of(&body, 1).get(field), readiness.get(field), "{field} of {readiness}");
        }
    }
}

#[test]
fn disabling_hds_makes_waiting_inbound_ready() {
    let body = render(&demo(), Some(&registered(|_| ())), HDS_OFF).body;
    assert_eq!(inbound_of(&body, 0).get("serviceProbe"), None);
    assert_eq!(inbound_of(&body, 0)["health"], json!({"ready": true}));
}

#[test]
fn reused_name_does_not_inherit_readiness() {
    let current = registered(|stored| {
        stored["networking"]["inbound"][0]["health"] = json!({"ready": true});
        stored["networking"]["inbound"][0].as_object_mut().unwrap().remove("state");
    });
    let mut desired = demo();
    desired.marks = marks("ffffffffffffffffffffffffffffffff");
    let body = render(&desired, Some(&current), DataplaneCapabilities::default()).body;
    assert_eq!(inbound_of(&body, 0)["state"], "NotReady");
    assert_eq!(inbound_of(&body, 0).get("health"), None);
}

#[test]
fn disputed_outbounds_stay_as_registered() {
    let kept = json!([{"address": "127.0.0.1", "port": 6379, "tags": {"kuma.io/service": "redis"}}]);
    let current = registered(|stored| stored["networking"]["outbound"] = kept.clone());
    let mut desired = demo();
    desired.reach =
        DesiredReach::Listeners(Outbounds::KeepCurrent { fallback: vec![outbound("kv", 15050, 15050)] });
    let update = render(&desired, Some(&current), DataplaneCapabilities::default());
    assert_eq!(update.body["networking"]["outbound"], kept);
    let create = render(&desired, None, DataplaneCapabilities::default());
    assert_eq!(create.body["networking"]["outbound"][0]["tags"]["kuma.io/service"], "kv");
}

#[test]
fn outbounds_of_a_list_that_may_be_missing_are_kept() {
    let current = registered(|stored| {
        stored["networking"]["outbound"] = json!([
            {"port": 6379, "tags": {"kuma.io/service": "redis"}},
            {"address": "127.0.0.1", "port": 15050, "tags": {"kuma.io/service": "old-kv"}},
            {"address": "10.0.0.1", "port": 15050, "tags": {"kuma.io/service": "other"}},
        ]);
    });
    let mut desired = demo();
    let outbounds = vec![outbound("kv", 15050, 15050), outbound("new", 1, 9)];
    desired.reach = DesiredReach::Listeners(Outbounds::AtLeast(outbounds));
    let services = |desired: &DesiredRegistration, current: Option<&Registration>| -> Vec<String> {
        let body = render(desired, current, DataplaneCapabilities::default()).body;
        let outbounds = body["networking"]["outbound"].as_array().unwrap();
        outbounds.iter().map(|o| o["tags"]["kuma.io/service"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(services(&desired, Some(&current)), ["other", "new", "redis", "kv"]);
    assert_eq!(services(&desired, None), ["new", "kv"]);
    desired.reach = desired.reach.settled();
    assert_eq!(services(&desired, Some(&current)), ["new", "kv"]);
}

#[test]
fn stored_body_equals_sent_body_in_normal_form() {
    let everything = || {
        let mut desired = demo();
        desired.workload = None;
        desired.inbounds.push(inbound(json!({"containerPort": 1, "port": 2, "serviceAddress": "127.0.0.1"})));
        desired.reach =
            DesiredReach::Listeners(Outbounds::Exactly(vec![outbound("b", 1, 9), outbound("a", 1, 10)]));
        desired
    };
    for capabilities in [
        DataplaneCapabilities::default(),
        HDS_OFF,
        EXCLUSIVE,
        DataplaneCapabilities { release: KumaRelease::new(2, 7), ..HDS_OFF },
        DataplaneCapabilities { release: KumaRelease::new(3, 0), ..EXCLUSIVE },
    ] {
        for desired in [demo(), everything()] {
            let sent = render(&desired, None, capabilities);
            let stored = registration(stored_by_2x(&sent.body, true));
            assert_eq!(stored.normal, sent.normal);
            let again = render(&desired, Some(&stored), capabilities);
            assert_eq!(again.normal, stored.normal, "a second render differs from the stored body");
        }
    }
}

#[test]
fn removed_probe_is_a_difference() {
    let with = render(&demo(), None, DataplaneCapabilities::default());
    let mut desired = demo();
    desired.probe = Probe::None;
    assert_ne!(render(&desired, None, DataplaneCapabilities::default()).normal, with.normal);
}

#[test]
fn normalising_is_idempotent() {
    for body in [
        json!(null),
        json!([1.0, null]),
        json!({"networking": 7, "labels": []}),
        json!({"networking": {"inbound": {"a": 1}, "outbound": "x"}}),
        json!({"networking": {"inbound": [null, "x", {"port": "15000", "tags": [], "serviceProbe": {}}]}}),
        json!({"networking": {"outbound": [{"port": "2"}, {"port": 1.0}, {}], "gateway": {"type": "DELEGATED"}}}),
        json!({"networking": {"admin": {}, "transparentProxying": {"redirectPortInbound": 0}}}),
        stored_by_2x(&demo_rendered(EXCLUSIVE), true),
    ] {
        let once = normalise(&body);
        assert_eq!(normalise(&once), once, "{body}");
    }
}

#[test]
fn normal_form_unifies_numbers_and_outbound_order() {
    let one = json!({"networking": {"inbound": [{"port": "15000"}], "outbound": [{"port": 2}, {"port": 1}]}});
    let other =
        json!({"networking": {"inbound": [{"port": 15000.0}], "outbound": [{"port": 1}, {"port": 2.0}]}});
    assert_eq!(normalise(&one), normalise(&other));
    let swapped = json!({"networking": {"inbound": [{"port": 1}, {"port": 2}]}});
    let straight = json!({"networking": {"inbound": [{"port": 2}, {"port": 1}]}});
    assert_ne!(normalise(&swapped), normalise(&straight), "the first inbound names the service");
}

#[test]
fn registration_is_foreign_when_a_label_is_invalid() {
    for label in ["ecs-mesh.dev/operator", "ecs-mesh.dev/cluster-id", "ecs-mesh.dev/task-id"] {
        for broken in [Value::Null, json!(7), json!(""), json!("a/b")] {
            let current = registered(|stored| stored["labels"][label] = broken.clone());
            assert_eq!(current.owner, RegistrationOwner::Foreign, "{label}: {broken}");
        }
    }
}

#[test]
fn writer_mark_is_that_of_one_task_and_lost_with_a_template() {
    let change =
        |changed: &dyn Fn(&mut Value)| registered(|stored| changed(&mut stored["labels"])).has_writer_mark;
    assert!(change(&|_| {}));
    // A template that was copied from a Dataplane has the task's id as a variable.
    assert!(!change(&|labels| labels["ecs-mesh.dev/task-id"] = "other".into()));
    assert!(!change(&|labels| labels["ecs-mesh.dev/operator"] = "other".into()));
    let mark = |labels: &mut Value| labels.as_object_mut().unwrap().remove(WRITER_LABEL);
    assert!(!change(&|labels| drop(mark(labels))));
    let unmarked = registered(|stored| drop(mark(&mut stored["labels"])));
    let drained = render_drained(&unmarked, DrainReason::Stopping);
    assert!(registration(drained.body).has_writer_mark, "the operator has written it");
}
