//! Accessors for stored bodies, where an absent field has the type's zero value.

use std::sync::LazyLock;

use serde_json::{Map, Value};

/// A string field; empty if absent.
pub(super) fn text<'a>(body: &'a Value, field: &str) -> &'a str {
    body.get(field).and_then(Value::as_str).unwrap_or_default()
}

/// A number field; zero if absent.
pub(super) fn number(body: &Value, field: &str) -> u64 {
    body.get(field).and_then(Value::as_u64).unwrap_or_default()
}

/// A list field; empty if absent.
pub(super) fn list<'a>(body: &'a Value, field: &str) -> &'a [Value] {
    body.get(field).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

static NOTHING: LazyLock<Map<String, Value>> = LazyLock::new(Map::new);

/// An object field; empty if absent.
pub(super) fn object<'a>(body: &'a Value, field: &str) -> &'a Map<String, Value> {
    body.get(field).and_then(Value::as_object).unwrap_or(&NOTHING)
}

/// The inbounds of a stored Dataplane.
pub(super) fn inbounds(dataplane: &Value) -> &[Value] {
    list(&dataplane["networking"], "inbound")
}

/// The port of the application behind an inbound.
pub(super) fn workload_port(inbound: &Value) -> u64 {
    match number(inbound, "servicePort") {
        0 => number(inbound, "port"),
        port => port,
    }
}

/// The name of an inbound, or its port.
pub(super) fn section(inbound: &Value) -> String {
    match text(inbound, "name") {
        "" => number(inbound, "port").to_string(),
        name => name.to_owned(),
    }
}

/// The state of an inbound. `Ready` is the zero value, which is not printed.
pub(super) fn state(inbound: &Value) -> &str {
    match text(inbound, "state") {
        "" => "Ready",
        state => state,
    }
}

/// Whether clients are routed to an inbound: ready, and not marked as unhealthy.
pub(super) fn is_routed(inbound: &Value) -> bool {
    state(inbound) == "Ready" && inbound.get("health").is_none_or(|health| health["ready"] == true)
}

/// Whether clients are routed to a stored Dataplane: to any of its inbounds. Whether its sidecar is connected makes no
/// difference to them.
pub fn takes_traffic(dataplane: &Value) -> bool {
    inbounds(dataplane).iter().any(is_routed)
}

/// The service of a Dataplane as its control plane reads it: the tag `kuma.io/service` of the first inbound or the gateway,
/// or else the label `kuma.io/workload`, which is all that a 3.0 control plane has of a sidecar.
pub fn service_of(dataplane: &Value) -> Option<&str> {
    let networking = &dataplane["networking"];
    [&networking["inbound"][0], &networking["gateway"]]
        .into_iter()
        .find_map(|holder| holder["tags"][super::rules::SERVICE_TAG].as_str())
        .or_else(|| dataplane["labels"][super::rules::WORKLOAD].as_str())
}

/// The protocol of an inbound, from its field or its tag; empty if both are absent.
pub(super) fn protocol(inbound: &Value) -> &str {
    match text(inbound, "protocol") {
        "" => tag(inbound, super::rules::PROTOCOL_TAG),
        protocol => protocol,
    }
}

/// A tag of an inbound or gateway; empty if absent.
pub(super) fn tag<'a>(holder: &'a Value, name: &str) -> &'a str {
    object(holder, "tags").get(name).and_then(Value::as_str).unwrap_or_default()
}

/// A label of a stored object; empty if absent.
pub(super) fn label<'a>(body: &'a Value, name: &str) -> &'a str {
    object(body, "labels").get(name).and_then(Value::as_str).unwrap_or_default()
}
