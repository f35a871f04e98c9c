//! The normal form of a Dataplane: the body without everything that the control plane adds, reorders or writes
//! differently. Bodies with equal normal forms need no write.
//!
//! Readiness (`state`, `health`) belongs to the control plane's health discovery and is not part of the normal form. The
//! drain label is, so that a drained copy differs from one in service. The label of the process is not. Normalising is
//! idempotent.

use serde_json::{Map, Number, Value};

use super::labels::PROCESS_LABEL;

/// Fields that the control plane adds to the resource.
const ADDED_FIELDS: [&str; 3] = ["creationTime", "modificationTime", "kri"];

/// Fields that the control plane adds to zone proxies, and that updates must carry forward, since a PUT replaces all.
pub(super) const CARRIED_FIELDS: [&str; 2] = ["zone", "availableServices"];

/// Labels that the control plane computes and overwrites.
const ADDED_LABELS: [&str; 6] = [
    "kuma.io/mesh",
    "kuma.io/origin",
    "kuma.io/zone",
    "kuma.io/env",
    "kuma.io/display-name",
    "kuma.io/proxy-type",
];

/// The prefix of the labels that the control plane computes from listeners.
const ADDED_LABEL_PREFIX: &str = "kuma.io/listener-";

/// The tag that the control plane sets on every inbound and gateway.
const ZONE_TAG: &str = "kuma.io/zone";

/// Fields whose presence matters even if empty: they declare a probe, or that no backend is reachable.
const PRESENCE_COUNTS: [&str; 3] = ["serviceProbe", "tcp", "reachableBackends"];

/// Fields that are numbers even if they are written as text.
const NUMERIC: [&str; 5] =
    ["port", "servicePort", "advertisedPort", "healthyThreshold", "unhealthyThreshold"];

/// The references to reachable backends in a Dataplane.
const REFS: &str = "/networking/transparentProxying/reachableBackends/refs";

/// The normal form of a Dataplane's body, sent or stored.
pub fn normalise(body: &Value) -> Value {
    let mut normal = without_additions(body);
    for inbound in inbounds_mut(&mut normal) {
        inbound.remove("state");
        inbound.remove("health");
    }
    for listener in listeners_mut(&mut normal) {
        // The API omits the default state of a listener.
        if listener.get("state").and_then(Value::as_str) == Some("Ready") {
            listener.remove("state");
        }
    }
    if let Some(labels) = normal.get_mut("labels").and_then(Value::as_object_mut) {
        labels.remove(PROCESS_LABEL);
    }
    if let Some(top) = normal.as_object_mut() {
        CARRIED_FIELDS.iter().for_each(|field| drop(top.remove(*field)));
    }
    tidy(&mut normal);
    if let Some(outbounds) = normal.pointer_mut("/networking/outbound").and_then(Value::as_array_mut) {
        // The order of outbounds has no meaning; that of inbounds does (the first names the service).
        outbounds.sort_by_cached_key(outbound_key);
    }
    if let Some(refs) = normal.pointer_mut(REFS).and_then(Value::as_array_mut) {
        refs.sort_by_cached_key(ref_key);
    }
    normal
}

/// Removes the fields that the control plane computes at each write, so that the body can be sent back.
pub(super) fn without_additions(body: &Value) -> Value {
    let mut body = body.clone();
    if let Some(top) = body.as_object_mut() {
        for field in ADDED_FIELDS {
            top.remove(field);
        }
        if let Some(labels) = top.get_mut("labels").and_then(Value::as_object_mut) {
            labels.retain(|name, _| {
                !ADDED_LABELS.contains(&name.as_str()) && !name.starts_with(ADDED_LABEL_PREFIX)
            });
        }
    }
    for inbound in inbounds_mut(&mut body) {
        remove_zone_tag(inbound);
    }
    if let Some(gateway) = body.pointer_mut("/networking/gateway").and_then(Value::as_object_mut) {
        remove_zone_tag(gateway);
        // The API omits the default type of a gateway.
        if gateway.get("type").and_then(Value::as_str) == Some("DELEGATED") {
            gateway.remove("type");
        }
    }
    body
}

/// The inbounds of a body that are objects.
pub(super) fn inbounds_mut(body: &mut Value) -> impl Iterator<Item = &mut Map<String, Value>> {
    body.pointer_mut("/networking/inbound")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
        .filter_map(Value::as_object_mut)
}

/// The listeners of a body that are objects.
pub(super) fn listeners_mut(body: &mut Value) -> impl Iterator<Item = &mut Map<String, Value>> {
    let listeners = body.pointer_mut("/networking/listeners").and_then(Value::as_array_mut);
    listeners.into_iter().flatten().filter_map(Value::as_object_mut)
}

fn remove_zone_tag(tagged: &mut Map<String, Value>) {
    if let Some(tags) = tagged.get_mut("tags").and_then(Value::as_object_mut) {
        tags.remove(ZONE_TAG);
    }
}

/// Unifies numbers and removes zero values from objects, which the API omits.
fn tidy(value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (name, inner) in map.iter_mut() {
                if NUMERIC.contains(&name.as_str()) {
                    number_from_text(inner);
                }
                tidy(inner);
            }
            map.retain(|name, inner| !is_zero(inner) || keeps_presence(name, inner));
        }
        Value::Array(items) => items.iter_mut().for_each(tidy),
        Value::Number(number) => {
            if let Some(integer) = as_integer(number) {
                *number = integer;
            }
        }
        _ => {}
    }
}

fn keeps_presence(name: &str, inner: &Value) -> bool {
    inner.is_object() && PRESENCE_COUNTS.contains(&name)
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(on) => !on,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
    }
}

fn number_from_text(value: &mut Value) {
    if let Some(number) = value.as_str().and_then(|text| text.parse::<u64>().ok()) {
        *value = number.into();
    }
}

/// Converts an integral float such as `15000.0` to an integer.
fn as_integer(number: &Number) -> Option<Number> {
    // Ports and thresholds are small; beyond 2^53 a float is not exact and is kept.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let float = number.as_f64().filter(|_| number.is_f64())?;
    if float.fract() != 0.0 || float.abs() > EXACT {
        return None;
    }
    #[expect(clippy::cast_possible_truncation, reason = "integral and within 2^53, checked above")]
    Some(Number::from(float as i64))
}

/// The sort key of an outbound: listen address, then target.
fn outbound_key(outbound: &Value) -> (String, u64, String) {
    let address = outbound.get("address").and_then(Value::as_str).unwrap_or_default().to_owned();
    let port = outbound.get("port").and_then(Value::as_u64).unwrap_or_default();
    (address, port, outbound.to_string())
}

/// The sort key of a reference: type and name, then port and labels. The order has no meaning.
pub(super) fn ref_key(target: &Value) -> (String, String, u64, String) {
    let text = |field: &str| target[field].as_str().unwrap_or_default().to_owned();
    (text("kind"), text("name"), target["port"].as_u64().unwrap_or_default(), target.to_string())
}
