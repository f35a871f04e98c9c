//! How the Dataplane of a sidecar differs from what the manifests declare. Only what callers of the task depend on is compared:
//! address, ports, service and protocol, and of a gateway or zone proxy its type. The template decides the rest.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::capabilities::DataplaneCapabilities;
use super::dataplane::{PROTOCOL_TAG, SERVICE_TAG, WORKLOAD_LABEL};
use super::labels::{self, DRAIN_LABEL};
use super::normalise::normalise;
use ecs_mesh_api::{KumaFeature, Protocol};
use ecs_mesh_core::plan::{FieldChange, diff};

/// The fields in which a stored Dataplane differs from the rendered one.
pub(super) fn drift(
    stored: &Value,
    rendered: &Value,
    capabilities: DataplaneCapabilities,
) -> Vec<FieldChange> {
    let (stored, rendered) = (normalise(stored), normalise(rendered));
    diff(&compared(&stored, &rendered, capabilities), &compared(&rendered, &rendered, capabilities))
}

/// The compared part of a normal form.
fn compared(normal: &Value, rendered: &Value, capabilities: DataplaneCapabilities) -> Value {
    let has_tags = capabilities.has(KumaFeature::InboundTags);
    let mut part_labels = Map::new();
    // In 2.x a template needs no label: the tag names the service.
    let workload = labels::label(normal, WORKLOAD_LABEL)
        .or_else(|| labels::label(rendered, WORKLOAD_LABEL).filter(|_| has_tags))
        // Before 2.13 the label has no meaning, and a template may have it for later releases.
        .filter(|_| capabilities.has(KumaFeature::WorkloadLabel));
    part_labels.extend(workload.map(|workload| (WORKLOAD_LABEL.to_owned(), workload.into())));
    let drain = labels::label(normal, DRAIN_LABEL);
    part_labels.extend(drain.map(|reason| (DRAIN_LABEL.to_owned(), reason.into())));
    let inbounds = normal.pointer("/networking/inbound").and_then(Value::as_array).into_iter().flatten();
    // By port, since the order of a template has no meaning for callers.
    let by_port: BTreeMap<u64, Value> = inbounds
        .map(|inbound| (inbound["port"].as_u64().unwrap_or_default(), compared_inbound(inbound, has_tags)))
        .collect();
    let inbounds: Vec<Value> = by_port.into_values().collect();
    let mut networking = Map::new();
    networking.insert("inbound".to_owned(), inbounds.into());
    // The ports and the advertised address are those of a `ZoneIngress` or `ZoneEgress`.
    for field in ["address", "port", "advertisedAddress", "advertisedPort"] {
        let value = normal.get("networking").and_then(|networking| networking.get(field));
        networking.extend(value.map(|value| (field.to_owned(), value.clone())));
    }
    let gateway = normal.pointer("/networking/gateway");
    networking.extend(gateway.map(|gateway| ("gateway".to_owned(), compared_gateway(gateway))));
    let listeners = compared_listeners(normal);
    networking.extend((!listeners.is_empty()).then(|| ("listeners".to_owned(), listeners.into())));
    json!({"labels": part_labels, "networking": networking})
}

fn compared_gateway(gateway: &Value) -> Value {
    let mut part = json!({"tags": {SERVICE_TAG: gateway["tags"][SERVICE_TAG]}});
    // The normal form has no default type.
    if let Some(kind) = gateway.get("type") {
        part["type"] = kind.clone();
    }
    part
}

/// Type and port of each listener, in the order of their ports.
fn compared_listeners(normal: &Value) -> Vec<Value> {
    let listeners = normal.pointer("/networking/listeners").and_then(Value::as_array).into_iter().flatten();
    let mut parts: Vec<Value> =
        listeners.map(|listener| json!({"type": listener["type"], "port": listener["port"]})).collect();
    parts.sort_by_key(|part| part["port"].as_u64());
    parts
}

fn compared_inbound(inbound: &Value, has_tags: bool) -> Value {
    let tag = |name: &str| inbound["tags"][name].as_str();
    // Where both are given, the field decides.
    let protocol = inbound["protocol"].as_str().or_else(|| tag(PROTOCOL_TAG).filter(|_| has_tags));
    let mut part = json!({
        "port": inbound["port"],
        // Without it, the app listens on the inbound's port.
        "servicePort": inbound.get("servicePort").unwrap_or(&inbound["port"]),
        "protocol": protocol.unwrap_or(Protocol::Tcp.as_str()),
    });
    if has_tags {
        part["tags"] = json!({SERVICE_TAG: tag(SERVICE_TAG)});
    }
    part
}

#[cfg(test)]
mod tests {
    use super::*;
    use ecs_mesh_api::KumaRelease;

    const V2_14: KumaRelease = KumaRelease::new(2, 14);
    const V3_0: KumaRelease = KumaRelease::new(3, 0);

    fn capabilities(release: KumaRelease) -> DataplaneCapabilities {
        DataplaneCapabilities { release, ..DataplaneCapabilities::default() }
    }

    /// As the operator renders it for 2.14.
    fn rendered() -> Value {
        json!({
            "type": "Dataplane", "mesh": "default", "name": "a", "labels": {"kuma.io/workload": "kv", "ecs-mesh.dev/operator": "o"},
            "networking": {"address": "10.0.0.1", "inbound": [{
                "port": 15000, "servicePort": 5050, "protocol": "http", "serviceProbe": {"tcp": {}}, "state": "NotReady",
                "tags": {"kuma.io/service": "kv", "kuma.io/protocol": "http", "version": "v1"},
            }]},
        })
    }

    /// As a template of kong-mesh-ecs gives it, with ports as text, changed by `change`.
    fn paths(release: KumaRelease, change: impl FnOnce(&mut Value)) -> Vec<String> {
        let mut stored = json!({
            "type": "Dataplane", "mesh": "default", "name": "ip-10-0-0-1", "labels": {"kuma.io/zone": "z"},
            "networking": {"address": "10.0.0.1", "outbound": [{"port": 6379}], "inbound": [{
                "port": "15000", "servicePort": 5050, "tags": {"kuma.io/service": "kv", "kuma.io/protocol": "http"},
            }]},
        });
        change(&mut stored);
        drift(&stored, &rendered(), capabilities(release)).into_iter().map(|change| change.path).collect()
    }

    #[test]
    fn template_that_declares_the_same_has_no_drift() {
        assert_eq!(paths(V2_14, |_| {}), [""; 0]);
    }

    #[test]
    fn template_may_have_the_label_of_later_releases() {
        let labelled = |stored: &mut Value| stored["labels"]["kuma.io/workload"] = "web".into();
        let changes = |release| paths(release, labelled);
        assert_eq!(changes(KumaRelease::new(2, 9)), [""; 0]);
        assert_eq!(changes(V2_14).len(), 1);
    }

    #[test]
    fn each_field_that_callers_depend_on_is_compared() {
        type Change = fn(&mut Value);
        let cases: [(Change, &[&str]); 8] = [
            (|stored| stored["networking"]["address"] = "10.0.0.2".into(), &["networking.address"]),
            (
                |stored| stored["networking"]["inbound"][0]["port"] = 15001.into(),
                &["networking.inbound[0].port"],
            ),
            (
                |stored| stored["networking"]["inbound"][0]["servicePort"] = 80.into(),
                &["networking.inbound[0].servicePort"],
            ),
            (
                |stored| stored["networking"]["inbound"][0]["tags"]["kuma.io/service"] = "web".into(),
                &["networking.inbound[0].tags[\"kuma.io/service\"]"],
            ),
            (
                |stored| stored["networking"]["inbound"][0]["tags"]["kuma.io/protocol"] = "tcp".into(),
                &["networking.inbound[0].protocol"],
            ),
            (|stored| stored["networking"]["inbound"] = json!([]), &["networking.inbound"]),
            (|stored| stored["labels"]["kuma.io/workload"] = "web".into(), &["labels[\"kuma.io/workload\"]"]),
            (
                |stored| stored["labels"]["ecs-mesh.dev/drain"] = "revoked".into(),
                &["labels[\"ecs-mesh.dev/drain\"]"],
            ),
        ];
        for (change, expected) in cases {
            assert_eq!(paths(V2_14, change), expected);
        }
    }

    #[test]
    fn gateways_and_zone_proxies_are_compared() {
        let gateway = |kind: &str, service: &str| json!({"address": "10.0.0.1", "gateway": {"type": kind, "tags": {"kuma.io/service": service, "kuma.io/zone": "z"}}});
        let listeners = |kind: &str, port: Value| {
            json!({"address": "10.0.0.1", "listeners": [
                {"type": kind, "port": port, "address": "10.0.0.1", "state": "Ready"},
            ]})
        };
        let ingress = |port: u16, advertised: u16| json!({"address": "10.0.0.1", "port": port, "advertisedAddress": "nlb", "advertisedPort": advertised});
        let cases: [(Value, Value, &[&str]); 8] = [
            (gateway("DELEGATED", "a"), gateway("DELEGATED", "a"), &[]),
            (gateway("BUILTIN", "a"), gateway("DELEGATED", "a"), &["networking.gateway.type"]),
            (
                gateway("DELEGATED", "b"),
                gateway("DELEGATED", "a"),
                &["networking.gateway.tags[\"kuma.io/service\"]"],
            ),
            (json!({"address": "10.0.0.1"}), gateway("DELEGATED", "a"), &["networking.gateway"]),
            (listeners("ZoneEgress", json!("10002")), listeners("ZoneEgress", json!(10002)), &[]),
            (
                listeners("ZoneIngress", json!(1)),
                listeners("ZoneEgress", json!(2)),
                &["networking.listeners[0].port", "networking.listeners[0].type"],
            ),
            (ingress(10001, 443), ingress(10001, 443), &[]),
            (ingress(1, 2), ingress(3, 4), &["networking.advertisedPort", "networking.port"]),
        ];
        for (stored, rendered, expected) in cases {
            let body = |networking: &Value| json!({"networking": networking});
            let changes = drift(&body(&stored), &body(&rendered), capabilities(V2_14));
            let found: Vec<String> = changes.into_iter().map(|change| change.path).collect();
            assert_eq!(found, expected, "{stored} {rendered}");
        }
    }

    #[test]
    fn label_names_the_service_in_3_x() {
        let label = "labels[\"kuma.io/workload\"]";
        assert_eq!(paths(V3_0, |_| {}), [label, "networking.inbound[0].protocol"]);
        let current = |stored: &mut Value| {
            stored["labels"]["kuma.io/workload"] = "kv".into();
            stored["networking"]["inbound"][0]["protocol"] = "http".into();
        };
        assert_eq!(paths(V3_0, current), [""; 0]);
    }
}
