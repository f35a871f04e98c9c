//! Behaviour of the control plane towards clients and sidecars.

use std::time::Duration;

use serde_json::{Value, json};

use ecs_mesh_model::Timestamp;

use super::{KumaConfig, KumaCp, KumaRequest};

pub(super) const START: Timestamp = Timestamp(1_800_000_000_000);

pub(super) fn at(seconds: u64) -> Timestamp {
    START.plus(Duration::from_secs(seconds))
}

fn cp() -> KumaCp {
    KumaCp::new(KumaConfig::default(), START)
}

pub(super) fn send(cp: &mut KumaCp, now: Timestamp, method: &str, path: &str, body: &str) -> (u16, Value) {
    let response = cp.handle(
        now,
        &KumaRequest {
            method: method.to_owned(),
            path_and_query: path.to_owned(),
            content_type: (method == "PUT").then(|| "application/json".to_owned()),
            host: "cp:5681".to_owned(),
            bearer: None,
            body: body.as_bytes().to_vec(),
        },
    );
    (response.status, serde_json::from_slice(&response.body).unwrap_or_default())
}

fn put(cp: &mut KumaCp, now: Timestamp, name: &str, inbound: &Value) -> u16 {
    let body = json!({"type": "Dataplane", "mesh": "default", "name": name,
        "networking": {"address": "10.0.0.1", "inbound": [inbound]}});
    send(cp, now, "PUT", &format!("/meshes/default/dataplanes/{name}"), &body.to_string()).0
}

pub(super) fn get(cp: &mut KumaCp, now: Timestamp, path: &str) -> Value {
    send(cp, now, "GET", path, "").1
}

fn inbound(cp: &KumaCp) -> Value {
    let (_, _, body) = cp.dataplanes().next().unwrap();
    let inbound = &body["networking"]["inbound"][0];
    json!({"state": inbound["state"], "health": inbound["health"]})
}

/// The Dataplanes that take traffic: name, address and port.
fn routable(cp: &KumaCp) -> Vec<(String, String, u64)> {
    let endpoint = |(_, name, body): (&str, &str, &Value)| {
        let (networking, inbound) = (&body["networking"], &body["networking"]["inbound"][0]);
        let address = networking["address"].as_str().unwrap().to_owned();
        super::takes_traffic(body).then(|| (name.to_owned(), address, inbound["port"].as_u64().unwrap()))
    };
    cp.dataplanes().filter_map(endpoint).collect()
}

fn web(more: &Value) -> Value {
    let mut inbound = json!({"port": 15000, "servicePort": 5000, "tags": {"kuma.io/service": "web"}});
    inbound.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    inbound
}

const READY: &str = r#"{"health":{"ready":true},"state":null}"#;
const NOT_READY: &str = r#"{"health":{},"state":"NotReady"}"#;
const DRAINED: &str = r#"{"health":{},"state":null}"#;

#[test]
fn sidecar_connects_once_its_dataplane_exists() {
    let mut cp = cp();
    assert!(!cp.connect_sidecar("default", "a", "10.0.0.1", at(0)));
    put(&mut cp, at(1), "a", &web(&json!({})));
    assert!(cp.connect_sidecar("default", "a", "10.0.0.1", at(3)));
}

#[test]
fn inbound_without_probe_is_ready_when_sidecar_connects() {
    let mut cp = cp();
    put(&mut cp, at(0), "a", &web(&json!({"state": "NotReady"})));
    cp.tick(at(60));
    assert!(routable(&cp).is_empty());
    cp.connect_sidecar("default", "a", "10.0.0.1", at(60));
    let due = cp.next_deadline().unwrap();
    assert!(due > at(60) && due <= at(62));
    cp.tick(due);
    assert_eq!(inbound(&cp).to_string(), READY);
    assert_eq!(routable(&cp), [("a".to_owned(), "10.0.0.1".to_owned(), 15000)]);
    // Without a probe, the control plane does not notice that the application stops.
    cp.set_app_up("default", "a", 5000, false, at(70));
    cp.tick(at(100));
    assert_eq!(inbound(&cp).to_string(), READY);
}

#[test]
fn probed_inbound_follows_the_application() {
    let mut cp = cp();
    put(&mut cp, at(0), "a", &web(&json!({"serviceProbe": {"tcp": {}}})));
    cp.connect_sidecar("default", "a", "10.0.0.1", at(1));
    cp.tick(at(30));
    assert_eq!(inbound(&cp).to_string(), NOT_READY);
    cp.set_app_up("default", "a", 5000, true, at(30));
    cp.tick(at(34));
    assert_eq!(inbound(&cp).to_string(), NOT_READY);
    cp.tick(at(36));
    assert_eq!(inbound(&cp).to_string(), READY);
    cp.set_app_up("default", "a", 5000, false, at(40));
    cp.tick(at(46));
    assert_eq!(inbound(&cp).to_string(), NOT_READY);
}

#[test]
fn drained_and_ignored_inbounds_are_not_changed() {
    for (given, wanted) in [
        (json!({"health": {}}), DRAINED),
        (json!({"health": {}, "serviceProbe": {"tcp": {}}}), DRAINED),
        (json!({"state": "Ignored"}), r#"{"health":null,"state":"Ignored"}"#),
    ] {
        let mut cp = cp();
        put(&mut cp, at(0), "a", &web(&json!({})));
        cp.set_app_up("default", "a", 5000, true, at(0));
        cp.connect_sidecar("default", "a", "10.0.0.1", at(1));
        put(&mut cp, at(2), "a", &web(&given));
        cp.tick(at(60));
        assert_eq!(inbound(&cp).to_string(), wanted);
        assert!(routable(&cp).is_empty());
    }
}

#[test]
fn not_ready_does_not_drain_a_connected_sidecar() {
    let mut cp = cp();
    put(&mut cp, at(0), "a", &web(&json!({})));
    cp.connect_sidecar("default", "a", "10.0.0.1", at(1));
    put(&mut cp, at(10), "a", &web(&json!({"state": "NotReady"})));
    cp.tick(at(12));
    assert!(routable(&cp).is_empty());
    cp.tick(at(14));
    assert_eq!(routable(&cp).len(), 1);
}

#[test]
fn disconnected_sidecar_is_routable_until_cleanup() {
    let mut cp = cp();
    put(&mut cp, at(0), "a", &web(&json!({})));
    put(&mut cp, at(0), "never-connected", &web(&json!({})));
    cp.connect_sidecar("default", "a", "10.0.0.1", at(1));
    cp.disconnect_sidecar("default", "a", at(2));
    cp.tick(at(72 * 3600));
    assert_eq!(routable(&cp).len(), 2);
    cp.tick(at(72 * 3600 + 2));
    let left: Vec<&str> = cp.dataplanes().map(|(_, name, _)| name).collect();
    assert_eq!(left, ["never-connected"]);
}

#[test]
fn sidecar_stays_connected_when_dataplane_is_recreated() {
    let mut cp = cp();
    put(&mut cp, at(0), "a", &web(&json!({})));
    cp.connect_sidecar("default", "a", "10.0.0.1", at(1));
    send(&mut cp, at(2), "DELETE", "/meshes/default/dataplanes/a", "");
    put(&mut cp, at(3), "a", &web(&json!({"state": "NotReady"})));
    cp.tick(at(7));
    assert_eq!(inbound(&cp).to_string(), READY);
}

#[test]
fn application_state_outlives_the_dataplane() {
    let mut cp = cp();
    cp.set_app_up("default", "a", 5000, true, at(0));
    put(&mut cp, at(1), "a", &web(&json!({"serviceProbe": {"tcp": {}}})));
    send(&mut cp, at(2), "DELETE", "/meshes/default/dataplanes/a", "");
    put(&mut cp, at(3), "a", &web(&json!({"serviceProbe": {"tcp": {}}})));
    cp.connect_sidecar("default", "a", "10.0.0.1", at(4));
    cp.tick(at(10));
    assert_eq!(inbound(&cp).to_string(), READY);
}

#[test]
fn invalid_bodies_name_their_fields() {
    let long = "a".repeat(254);
    let dataplane = |more: Value| {
        let mut body = json!({"type": "Dataplane", "mesh": "default", "name": "a", "networking": {"address": "10.0.0.1"}});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let own = "/meshes/default/dataplanes/a";
    let cases: [(&str, Value, &[&str]); 7] = [
        (&format!("/meshes/default/dataplanes/{long}"), dataplane(json!({"name": long})), &["name"]),
        (own, dataplane(json!({"labels": {"k": "v".repeat(64)}})), &["labels[\"k\"]"]),
        (own, dataplane(json!({"labels": {"kuma.io/zone": "z9"}})), &["labels[\"kuma.io/zone\"]"]),
        (own, dataplane(json!({"labels": {"kuma.io/origin": "moon"}})), &["labels[\"kuma.io/origin\"]"]),
        (own, dataplane(json!({"name": "", "type": "Mesh", "mesh": "m"})), &["name", "type", "mesh", "name"]),
        ("/zoneingresses/a", json!({"type": "ZoneIngress", "name": "a"}), &["networking.port"]),
        (
            "/meshes/default/meshservices/a",
            json!({"type": "MeshService", "name": "b", "spec": {}}),
            &["name"],
        ),
    ];
    for (path, body, wanted) in cases {
        let (status, answer) = send(&mut cp(), at(0), "PUT", path, &body.to_string());
        let found: Vec<_> =
            answer["invalid_parameters"].as_array().unwrap().iter().map(|p| p["field"].clone()).collect();
        assert_eq!((status, found), (400, wanted.iter().map(|field| json!(field)).collect()), "{body}");
    }
}

#[test]
fn journal_records_changes() {
    let mut cp = cp();
    put(&mut cp, at(0), "a", &web(&json!({})));
    put(&mut cp, at(1), "a", &web(&json!({})));
    put(&mut cp, at(2), "a", &web(&json!({"health": {}})));
    put(&mut cp, at(3), "A", &web(&json!({})));
    send(&mut cp, at(4), "DELETE", "/meshes/default/dataplanes/a", "");
    let foreign =
        json!({"type": "Dataplane", "mesh": "default", "name": "f", "networking": {"address": "10.0.0.2"}});
    cp.insert_foreign("default", "f", &foreign, at(5)).unwrap();
    let journal: Vec<_> = cp.take_journal().into_iter().map(|e| (e.method, e.at, e.changed)).collect();
    assert_eq!(
        journal,
        [("PUT", at(0), true), ("PUT", at(1), false), ("PUT", at(2), true), ("DELETE", at(4), true)]
    );
    assert!(cp.take_journal().is_empty());
    assert_eq!(cp.dataplanes().count(), 1);
}

#[test]
fn injected_conflict_is_returned_once() {
    let mut cp = cp();
    cp.inject_conflict("default", "a");
    assert_eq!(put(&mut cp, at(0), "a", &web(&json!({}))), 409);
    assert_eq!(cp.dataplanes().count(), 0);
    assert_eq!(put(&mut cp, at(0), "a", &web(&json!({}))), 201);
}

#[test]
fn origin_labels_are_immutable() {
    let mut cp = cp();
    let body = |labels: Value| {
        json!({"type": "Dataplane", "mesh": "default", "name": "a", "labels": labels,
            "networking": {"address": "10.0.0.1"}})
        .to_string()
    };
    let path = "/meshes/default/dataplanes/a";
    send(&mut cp, at(0), "PUT", path, &body(json!({"kuma.io/display-name": "x"})));
    let (status, answer) = send(&mut cp, at(1), "PUT", path, &body(json!({"kuma.io/origin": "global"})));
    let fields: Vec<&Value> =
        answer["invalid_parameters"].as_array().unwrap().iter().map(|p| &p["field"]).collect();
    assert_eq!(status, 400);
    assert_eq!(
        fields,
        ["labels[\"kuma.io/origin\"]", "labels[\"kuma.io/zone\"]", "labels[\"kuma.io/display-name\"]"]
    );
}

#[test]
fn generated_services_follow_dataplanes() {
    let mut cp = cp();
    let mesh = json!({"type": "Mesh", "name": "default", "meshServices": {"mode": "Exclusive"}});
    send(&mut cp, at(0), "PUT", "/meshes/default", &mesh.to_string());
    cp.tick(at(5));
    put(&mut cp, at(10), "a", &web(&json!({"name": "main"})));
    let found = get(&mut cp, at(12), "/meshes/default/meshservices/web");
    assert_eq!(found["spec"]["ports"][0]["name"], "main");
    assert_eq!(found["spec"]["ports"][0]["port"], 15000);
    assert_eq!(found["status"]["dataplaneProxies"], json!({"healthy": 1, "total": 1}));
    send(&mut cp, at(20), "DELETE", "/meshes/default/dataplanes/a", "");
    assert_eq!(get(&mut cp, at(30), "/meshes/default/meshservices")["total"], 1);
    assert_eq!(get(&mut cp, at(30 + 3700), "/meshes/default/meshservices")["total"], 0);
}

#[test]
fn service_insights_count_connected_dataplanes() {
    let mut cp = cp();
    put(&mut cp, at(0), "a", &web(&json!({})));
    put(&mut cp, at(0), "b", &web(&json!({})));
    cp.connect_sidecar("default", "a", "10.0.0.1", at(1));
    let found = get(&mut cp, at(2), "/meshes/default/service-insights");
    assert_eq!(found["items"][0]["name"], "web");
    assert_eq!(found["items"][0]["status"], "partially_degraded");
    assert_eq!(found["items"][0]["dataplanes"], json!({"total": 2, "online": 1, "offline": 1}));
    assert_eq!(send(&mut cp, at(2), "PUT", "/meshes/default/service-insights/web", "{}").0, 405);
}

#[test]
fn insight_has_the_last_disconnect() {
    let mut cp = cp();
    put(&mut cp, at(0), "a", &web(&json!({})));
    cp.connect_sidecar("default", "a", "10.0.0.1", at(1));
    cp.disconnect_sidecar("default", "a", at(2));
    let overview = get(&mut cp, at(3), "/meshes/default/dataplanes/a/_overview");
    let subscription = &overview["dataplaneInsight"]["subscriptions"][0];
    assert_eq!(subscription["disconnectTime"], at(2).to_string());
    assert_eq!(get(&mut cp, at(3), "/meshes/default/dataplane-insights")["total"], 1);
}

#[test]
fn router_rejects_before_any_handler() {
    let mut cp = cp();
    for (method, path, status) in [
        ("GET", "/meshes/default/dataplanes/", 200),
        ("GET", "/dataplanes/a", 404),
        ("GET", "/nothing", 404),
        ("HEAD", "/meshes", 405),
        ("DELETE", "/meshes/default/dataplanes", 405),
        ("POST", "/who-am-i", 405),
        ("GET", "/meshes/default/dataplanes/%zz", 400),
        ("GET", "/meshes/default/dataplanes/a%2Fb", 404),
        ("GET", "/meshes/default/dataplanes?filter[name]=a", 400),
        ("GET", "/meshes/default/dataplanes?offset=-1", 400),
        ("GET", "/meshes/default/dataplanes?offset=7", 200),
        ("GET", "/meshes/nope/dataplanes?size=0", 400),
        ("GET", "/meshes/default/meshexternalservices", 200),
        ("PUT", "/meshes/default/dataplane-insights/a", 405),
    ] {
        assert_eq!(send(&mut cp, at(0), method, path, "").0, status, "{method} {path}");
    }
}

#[test]
fn pages_link_to_the_next_with_a_sorted_query() {
    let mut cp = cp();
    for name in ["a", "b", "c"] {
        put(&mut cp, at(0), name, &web(&json!({})));
    }
    let page = get(&mut cp, at(0), "/dataplanes?tag=kuma.io/service:we&size=1&offset=1");
    assert_eq!(page["total"], 3);
    assert_eq!(page["items"][0]["name"], "b");
    assert_eq!(page["next"], "http://cp:5681/dataplanes?offset=2&size=1&tag=kuma.io%2Fservice%3Awe");
}

#[test]
fn mesh_with_dataplanes_is_not_deleted() {
    let mut cp = cp();
    put(&mut cp, at(0), "a", &web(&json!({})));
    assert_eq!(send(&mut cp, at(0), "DELETE", "/meshes/default", "").0, 400);
    send(&mut cp, at(0), "DELETE", "/meshes/default/dataplanes/a", "");
    assert_eq!(send(&mut cp, at(0), "DELETE", "/meshes/default", "").0, 200);
    assert_eq!(send(&mut cp, at(0), "GET", "/meshes/default/dataplanes", "").0, 404);
}

#[test]
fn dataplanes_are_listed_by_label_in_pages() {
    let mut cp = cp();
    for at_name in 0..3_000 {
        let name = format!("task-{at_name:05}");
        let body = json!({"type": "Dataplane", "mesh": "default", "name": name, "labels": {"o": "op"},
            "networking": {"address": "10.0.0.1", "inbound": [web(&json!({}))]}});
        send(&mut cp, at(0), "PUT", &format!("/meshes/default/dataplanes/{name}"), &body.to_string());
    }
    let mut seen = 0;
    for page in 0..3 {
        let path = format!("/meshes/default/dataplanes?filter[labels.o]=op&size=1000&offset={}", page * 1000);
        seen += get(&mut cp, at(1), &path)["items"].as_array().unwrap().len();
    }
    assert_eq!(seen, 3_000);
}

#[test]
fn no_dataplane_goes_on_or_offline_without_a_counted_change() {
    let mut cp = cp();
    let mut seen: Vec<(bool, u64)> = Vec::new();
    let mut look = |cp: &KumaCp| seen.push((cp.is_online("default", "a"), cp.changes()));
    put(&mut cp, at(0), "a", &web(&json!({"serviceProbe": {"tcp": {}}})));
    cp.set_app_up("default", "a", 5000, true, at(0));
    look(&cp);
    cp.connect_sidecar("default", "a", "10.0.0.1", at(1));
    for second in 2..10 {
        cp.tick(at(second));
        look(&cp);
    }
    cp.disconnect_sidecar("default", "a", at(20));
    look(&cp);
    cp.connect_sidecar("default", "a", "10.0.0.1", at(21));
    look(&cp);
    send(&mut cp, at(22), "DELETE", "/meshes/default/dataplanes/a", "");
    look(&cp);
    let count = cp.changes();
    get(&mut cp, at(23), "/meshes/default/dataplanes");
    assert_eq!(cp.changes(), count);
    let turns: Vec<_> = seen.windows(2).filter(|pair| pair[0].0 != pair[1].0).collect();
    assert_eq!(turns.len(), 4);
    assert!(turns.iter().all(|pair| pair[0].1 < pair[1].1), "{seen:?}");
}
