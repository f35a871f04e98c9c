//! Differences between releases, and upgrades from one to another.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::EmulatedRelease::{self, V2_7, V2_9, V2_10, V2_12, V2_13, V2_14, V3_0};

use super::tests::{START, at, get, send};
use super::{KumaConfig, KumaCp, service_of};

const PATH: &str = "/meshes/default/dataplanes/a";

fn cp(release: EmulatedRelease) -> KumaCp {
    KumaCp::new(KumaConfig { release, ..KumaConfig::default() }, START)
}

fn body(labels: &Value, networking: &Value) -> String {
    let mut body = json!({"type": "Dataplane", "mesh": "default", "name": "a", "labels": labels,
        "networking": {"address": "10.0.0.1"}});
    body["networking"].as_object_mut().unwrap().extend(networking.as_object().unwrap().clone());
    body.to_string()
}

/// A Dataplane that every release accepts, of the tag and the workload `web`.
fn web() -> String {
    let inbound = json!({"port": 15_000, "servicePort": 5_000, "name": "main", "protocol": "http",
        "tags": {"kuma.io/service": "web", "kuma.io/protocol": "http"}});
    let outbound = json!({"port": 1, "backendRef": {"kind": "MeshService", "name": "redis", "port": 1}});
    body(&json!({"kuma.io/workload": "web"}), &json!({"inbound": [inbound], "outbound": [outbound]}))
}

fn put(cp: &mut KumaCp, second: u64, body: &str) -> (u16, Vec<String>) {
    let (status, answer) = send(cp, at(second), "PUT", PATH, body);
    let listed = answer["invalid_parameters"].as_array().into_iter().flatten();
    (status, listed.map(|violation| violation["field"].as_str().unwrap().to_owned()).collect())
}

fn inbound(cp: &mut KumaCp, second: u64) -> Value {
    get(cp, at(second), PATH)["networking"]["inbound"][0].clone()
}

#[test]
fn dataplane_rules_follow_the_release() {
    let service_tag = "networking.inbound[0].tags[\"kuma.io/service\"]";
    let no_inbound = body(&json!({}), &json!({}));
    let untagged = body(&json!({}), &json!({"inbound": [{"port": 1}]}));
    let kafka = body(
        &json!({}),
        &json!({"inbound": [{"port": 1, "protocol": "kafka", "tags": {"kuma.io/service": "a"}}]}),
    );
    let tag_outbound = body(
        &json!({}),
        &json!({"inbound": [{"port": 1, "tags": {"kuma.io/service": "a"}}],
            "outbound": [{"port": 2, "tags": {"kuma.io/service": "b"}}]}),
    );
    let external = body(
        &json!({}),
        &json!({"inbound": [{"port": 1, "tags": {"kuma.io/service": "a"}}],
            "outbound": [{"port": 2, "backendRef": {"kind": "MeshExternalService", "name": "b"}}]}),
    );
    let workload = body(
        &json!({"kuma.io/workload": "No_Label"}),
        &json!({"inbound": [{"port": 1, "tags": {"kuma.io/service": "a"}}]}),
    );
    let external_fields =
        ["networking.outbound[0].backendRef.kind", "networking.outbound[0].backendRef.port"];
    let backend = "networking.outbound[0].backendRef";
    let cases: [(&str, EmulatedRelease, u16, &[&str]); 15] = [
        (&no_inbound, V2_13, 400, &["networking"]),
        (&no_inbound, V2_14, 201, &[]),
        (&no_inbound, V3_0, 201, &[]),
        (&untagged, V2_7, 400, &[service_tag]),
        (&untagged, V2_13, 400, &[service_tag]),
        (&untagged, V2_14, 201, &[]),
        // Dropped where inbounds have no protocol yet.
        (&kafka, V2_13, 201, &[]),
        (&kafka, V2_14, 201, &[]),
        (&kafka, V3_0, 400, &["networking.inbound[0].protocol"]),
        (&tag_outbound, V2_14, 201, &[]),
        (&tag_outbound, V3_0, 400, &[backend]),
        (&external, V2_7, 400, &external_fields),
        (&external, V2_9, 201, &[]),
        (&workload, V2_12, 201, &[]),
        (&workload, V2_13, 400, &[]),
    ];
    for (body, release, status, fields) in cases {
        let found = put(&mut cp(release), 0, body);
        assert_eq!(
            found,
            (status, fields.iter().map(|field| (*field).to_owned()).collect()),
            "{release} {body}"
        );
    }
}

#[test]
fn unknown_fields_are_dropped_without_an_error() {
    let names: [(EmulatedRelease, Value, Value, Value); 4] = [
        (V2_7, json!(null), json!(null), json!("web")),
        (V2_9, json!("main"), json!(null), json!("web")),
        (V2_14, json!("main"), json!("http"), json!("web")),
        (V3_0, json!("main"), json!("http"), json!(null)),
    ];
    for (release, name, protocol, service) in names {
        let mut cp = cp(release);
        assert_eq!(put(&mut cp, 0, &web()).0, 201);
        let found = inbound(&mut cp, 1);
        assert_eq!((&found["name"], &found["protocol"]), (&name, &protocol), "{release}");
        assert_eq!(found["tags"]["kuma.io/service"], service, "{release}");
    }
}

#[test]
fn labels_of_the_server_follow_the_release() {
    for (release, wanted) in [
        (V2_7, &["origin"][..]),
        (V2_9, &["env", "mesh", "origin", "zone"]),
        (V2_10, &["env", "mesh", "origin", "proxy-type", "zone"]),
        (V2_14, &["env", "mesh", "origin", "proxy-type", "zone"]),
        (V3_0, &["display-name", "env", "mesh", "origin", "zone"]),
    ] {
        let mut cp = cp(release);
        put(&mut cp, 0, &web());
        let found = get(&mut cp, at(1), PATH);
        let labels: BTreeSet<&str> = found["labels"]
            .as_object()
            .unwrap()
            .keys()
            .filter(|name| *name != "kuma.io/workload")
            .map(|name| name.trim_start_matches("kuma.io/"))
            .collect();
        assert_eq!(labels.into_iter().collect::<Vec<_>>(), wanted, "{release}");
    }
}

#[test]
fn types_exist_in_their_releases_only() {
    for (path, release, status) in [
        ("/meshes/default/meshmultizoneservices", V2_7, 404),
        ("/meshes/default/meshmultizoneservices", V2_9, 200),
        ("/meshes/default/meshidentities", V2_10, 404),
        ("/meshes/default/meshidentities", V2_12, 200),
        ("/zoneingresses", V2_10, 404),
        ("/zone-ingresses", V2_10, 200),
        ("/zoneingresses", V2_14, 200),
        ("/zone-ingresses", V3_0, 404),
        ("/zoneingresses", V3_0, 404),
        ("/meshes/default/traffic-permissions", V3_0, 404),
    ] {
        assert_eq!(send(&mut cp(release), at(0), "GET", path, "").0, status, "{release} {path}");
        let listed = get(&mut cp(release), at(0), "/_resources")["resources"].clone();
        let segment = path.rsplit('/').next().unwrap();
        let is_listed = listed.as_array().unwrap().iter().any(|kind| kind["path"] == segment);
        assert_eq!(is_listed, status == 200, "{release} {path}");
    }
}

#[test]
fn zone_proxies_keep_their_labels() {
    for (release, path) in
        [(V2_7, "/zone-ingresses/zi"), (V2_14, "/zone-ingresses/zi"), (V2_14, "/zoneingresses/zi")]
    {
        let mut cp = cp(release);
        let body = json!({"type": "ZoneIngress", "name": "zi", "labels": {"ecs-mesh.dev/operator": "op"},
            "networking": {"address": "10.0.5.1", "port": 10001}});
        for status in [201, 200] {
            let sent = send(&mut cp, at(0), "PUT", path, &body.to_string());
            assert_eq!(sent.0, status, "{release} {path}");
            let labels = get(&mut cp, at(1), path)["labels"].clone();
            assert_eq!(labels["ecs-mesh.dev/operator"], "op", "{release} {path}");
        }
        assert_eq!(send(&mut cp, at(2), "DELETE", path, "").0, 200, "{release} {path}");
    }
}

#[test]
fn label_filters_are_ignored_before_2_10() {
    for (release, total) in [(V2_9, 1), (V2_10, 0)] {
        let mut cp = cp(release);
        put(&mut cp, 0, &web());
        let found = get(&mut cp, at(1), "/meshes/default/dataplanes?filter[labels.kuma.io/workload]=other");
        assert_eq!(found["total"], total, "{release}");
    }
}

#[test]
fn names_with_host_names_are_dns_labels_since_3_0() {
    let mesh = json!({"type": "Mesh", "name": "1.a"}).to_string();
    for (release, status) in [(V2_14, 201), (V3_0, 400)] {
        assert_eq!(send(&mut cp(release), at(0), "PUT", "/meshes/1.a", &mesh).0, status, "{release}");
    }
}

#[test]
fn mesh_of_3_0_has_no_mtls_and_no_mode() {
    let mesh = json!({"type": "Mesh", "name": "m", "meshServices": {"mode": "Everywhere"},
        "mtls": {"enabledBackend": "ca", "backends": [{"name": "ca", "type": "builtin"}]}});
    let mut cp = cp(V3_0);
    assert_eq!(send(&mut cp, at(0), "PUT", "/meshes/m", &mesh.to_string()).0, 201);
    let found = get(&mut cp, at(1), "/meshes/m");
    assert_eq!((&found["mtls"], &found["meshServices"]), (&Value::Null, &Value::Null));
}

#[test]
fn tokens_of_3_0_name_no_kind_of_zone_proxy() {
    for (path, body, old, new) in [
        ("/tokens/zone", json!({"zone": "default"}), 400, 200),
        ("/tokens/dataplane", json!({"mesh": "default", "type": "ingress"}), 200, 400),
        ("/tokens/dataplane", json!({"mesh": "default", "type": "dataplane"}), 200, 200),
    ] {
        for (release, status) in [(V2_14, old), (V3_0, new)] {
            let request = super::KumaRequest::json("POST", path, body.to_string().into_bytes());
            assert_eq!(cp(release).handle(at(0), &request).status, status, "{release} {path} {body}");
        }
    }
}

#[test]
fn zone_proxy_of_3_0_is_a_dataplane_with_listeners() {
    let mut cp = cp(V3_0);
    let listener = json!({"type": "ZoneEgress", "address": "10.0.0.1", "port": 10_002, "name": "ze"});
    assert_eq!(put(&mut cp, 0, &body(&json!({}), &json!({"listeners": [listener]}))).0, 201);
    let found = get(&mut cp, at(1), PATH);
    assert_eq!(found["networking"]["listeners"][0]["type"], "ZoneEgress");
    assert_eq!(found["labels"]["kuma.io/listener-zoneegress"], "enabled");
}

#[test]
fn sidecar_connects_and_becomes_ready_at_3_0() {
    let mut cp = cp(V3_0);
    let inbound_body =
        json!({"port": 15_000, "servicePort": 5_000, "state": "NotReady", "serviceProbe": {"tcp": {}}});
    put(&mut cp, 0, &body(&json!({"kuma.io/workload": "web"}), &json!({"inbound": [inbound_body]})));
    assert!(cp.connect_sidecar("default", "a", "10.0.0.1", at(1)));
    cp.set_app_up("default", "a", 5_000, true, at(2));
    cp.tick(at(10));
    assert!(cp.is_online("default", "a"));
    assert_eq!(inbound(&mut cp, 10)["health"], json!({"ready": true}));
    let overview = get(&mut cp, at(11), &format!("{PATH}/_overview"));
    assert_eq!(overview["dataplaneInsight"]["subscriptions"].as_array().map(Vec::len), Some(1));
    // Counts by service are gone.
    assert_eq!(get(&mut cp, at(11), "/meshes/default/service-insights")["total"], 0);
}

#[test]
fn workloads_of_3_0_have_mesh_services() {
    let mut cp = cp(V3_0);
    put(&mut cp, 0, &web());
    let found = get(&mut cp, at(5), "/meshes/default/meshservices/web");
    assert_eq!(
        found["spec"]["selector"]["dataplaneLabels"]["matchLabels"],
        json!({"kuma.io/workload": "web"})
    );
    assert_eq!(found["spec"]["ports"][0]["name"], "main");
    assert_eq!(found["spec"]["ports"][0]["appProtocol"], "http");
    assert_eq!(found["status"]["dataplaneProxies"]["total"], 1);
}

#[test]
fn upgrade_hides_removed_fields_until_a_rollback() {
    let mut cp = cp(V2_14);
    put(&mut cp, 0, &web());
    cp.upgrade(V3_0, at(10));
    assert_eq!(get(&mut cp, at(11), "/")["version"], "3.0.1");
    let found = get(&mut cp, at(11), PATH);
    assert_eq!(found["networking"]["inbound"][0]["tags"], Value::Null);
    assert_eq!(found["networking"]["outbound"][0]["backendRef"]["name"], "redis");
    // The labels are those that 2.14 stored, until 3.0 writes the object.
    assert_eq!(found["labels"]["kuma.io/proxy-type"], "sidecar");
    assert_eq!(found["labels"]["kuma.io/display-name"], Value::Null);
    cp.upgrade(V2_14, at(20));
    assert_eq!(inbound(&mut cp, 21)["tags"]["kuma.io/service"], "web");
}

#[test]
fn write_after_an_upgrade_removes_fields_from_the_store() {
    let not_ready = web().replace("\"port\":15000", "\"port\":15000,\"state\":\"NotReady\"");
    let by_client = |cp: &mut KumaCp| drop(put(cp, 11, &not_ready));
    let by_health_discovery = |cp: &mut KumaCp| {
        cp.connect_sidecar("default", "a", "10.0.0.1", at(11));
        cp.tick(at(20));
    };
    let writes: [&dyn Fn(&mut KumaCp); 2] = [&by_client, &by_health_discovery];
    for write in writes {
        let mut cp = cp(V2_14);
        put(&mut cp, 0, &not_ready);
        cp.upgrade(V3_0, at(10));
        write(&mut cp);
        let labels = get(&mut cp, at(21), PATH)["labels"].clone();
        assert_eq!(
            (&labels["kuma.io/proxy-type"], &labels["kuma.io/display-name"]),
            (&Value::Null, &json!("a"))
        );
        assert_eq!(labels["kuma.io/workload"], "web");
        cp.upgrade(V2_14, at(30));
        let found = inbound(&mut cp, 31);
        assert_eq!((&found["tags"], &found["protocol"]), (&Value::Null, &json!("http")));
    }
}

#[test]
fn dataplane_without_workload_has_no_service_after_an_upgrade() {
    let mut cp = cp(V2_14);
    put(
        &mut cp,
        0,
        &body(&json!({}), &json!({"inbound": [{"port": 1, "tags": {"kuma.io/service": "web"}}]})),
    );
    let service =
        |cp: &KumaCp| cp.dataplanes().next().and_then(|(_, _, body)| service_of(body).map(str::to_owned));
    assert_eq!(service(&cp).as_deref(), Some("web"));
    cp.upgrade(V3_0, at(10));
    assert_eq!(service(&cp), None);
    put(&mut cp, 11, &web());
    assert_eq!(service(&cp).as_deref(), Some("web"));
}

#[test]
fn builtin_gateway_breaks_its_mesh_after_an_upgrade() {
    let mut cp = cp(V2_14);
    let gateway = json!({"gateway": {"type": "BUILTIN", "tags": {"kuma.io/service": "edge"}}});
    assert_eq!(put(&mut cp, 0, &body(&json!({}), &gateway)).0, 201);
    assert_eq!(put(&mut self::cp(V3_0), 0, &body(&json!({}), &gateway)).0, 400);
    cp.upgrade(V3_0, at(10));
    for (method, path) in
        [("GET", PATH), ("GET", "/meshes/default/dataplanes"), ("GET", "/dataplanes"), ("DELETE", PATH)]
    {
        assert_eq!(send(&mut cp, at(11), method, path, "").0, 500, "{method} {path}");
    }
    cp.upgrade(V2_14, at(20));
    assert_eq!(get(&mut cp, at(21), "/meshes/default/dataplanes")["total"], 1);
}

#[test]
fn instances_of_a_rolling_upgrade_answer_in_turn() {
    let mut cp = cp(V2_14);
    put(&mut cp, 0, &web());
    cp.begin_rolling_upgrade(V3_0);
    let answers: Vec<Value> = (0..4).map(|_| get(&mut cp, at(1), "/")).collect();
    let versions: Vec<&str> = answers.iter().filter_map(|answer| answer["version"].as_str()).collect();
    assert_eq!(versions, ["3.0.1", "2.14.3", "3.0.1", "2.14.3"]);
    assert_ne!(answers[0]["instanceId"], answers[1]["instanceId"]);
    assert_eq!(answers[0]["instanceId"], answers[2]["instanceId"]);
    assert_eq!(answers[0]["clusterId"], answers[1]["clusterId"]);
    // The new instance reads no tags, and the old one does, until the new one writes.
    assert_eq!(inbound(&mut cp, 2)["tags"], Value::Null);
    assert_eq!(inbound(&mut cp, 2)["tags"]["kuma.io/service"], "web");
    assert_eq!(put(&mut cp, 3, &web()).0, 200);
    assert_eq!(inbound(&mut cp, 4)["tags"], Value::Null);
    cp.upgrade(V3_0, at(5));
    assert_eq!(get(&mut cp, at(6), "/")["instanceId"], answers[0]["instanceId"]);
    assert_eq!(get(&mut cp, at(6), "/")["version"], "3.0.1");
}

#[test]
fn health_report_to_a_new_instance_drops_tags() {
    let mut cp = cp(V2_14);
    let not_ready = web().replace("\"name\":\"main\"", "\"name\":\"main\",\"state\":\"NotReady\"");
    put(&mut cp, 0, &not_ready);
    cp.begin_rolling_upgrade(V3_0);
    cp.connect_sidecar("default", "a", "10.0.0.1", at(1));
    cp.tick(at(10));
    for _ in 0..2 {
        let found = inbound(&mut cp, 10);
        assert_eq!((&found["tags"], &found["health"]), (&Value::Null, &json!({"ready": true})));
    }
    assert!(cp.is_online("default", "a"));
}

#[test]
fn mesh_service_keeps_no_selector_after_an_upgrade_with_equal_ports() {
    let mut cp = cp(V2_14);
    let mesh = json!({"type": "Mesh", "name": "default", "meshServices": {"mode": "Exclusive"}});
    send(&mut cp, at(0), "PUT", "/meshes/default", &mesh.to_string());
    put(&mut cp, 1, &web());
    let services = "/meshes/default/meshservices/web";
    let vip = get(&mut cp, at(5), services)["status"]["vips"].clone();
    cp.upgrade(V3_0, at(10));
    let found = get(&mut cp, at(15), services);
    assert_eq!(found["spec"]["selector"], json!({}));
    assert_eq!(found["status"]["dataplaneProxies"], json!({}));
    // A changed port makes the generator write the MeshService again.
    put(&mut cp, 20, &web().replace("15000", "15001"));
    let found = get(&mut cp, at(25), services);
    assert_eq!(
        found["spec"]["selector"]["dataplaneLabels"]["matchLabels"],
        json!({"kuma.io/workload": "web"})
    );
    assert_eq!((&found["status"]["vips"], &found["status"]["dataplaneProxies"]["total"]), (&vip, &json!(1)));
}
