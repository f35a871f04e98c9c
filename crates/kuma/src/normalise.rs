//! The normal form of a Dataplane: what is left when everything is taken away that the control plane adds, moves or
//! spells otherwise. Two bodies with equal normal forms need no write between them.
//!
//! Readiness (`state`, `health`) belongs to the control plane's health discovery and is not part of it; the drain
//! mark is, so that a drained copy differs from one in service. The form is idempotent.

use serde_json::{Map, Number, Value};

/// What the control plane puts beside the resource.
const ADDED_FIELDS: [&str; 3] = ["creationTime", "modificationTime", "kri"];

/// Labels that the control plane computes, whatever was sent.
const ADDED_LABELS: [&str; 6] = [
    "kuma.io/mesh",
    "kuma.io/origin",
    "kuma.io/zone",
    "kuma.io/env",
    "kuma.io/display-name",
    "kuma.io/proxy-type",
];

/// Start of the labels that it computes from listeners.
const ADDED_LABEL_PREFIX: &str = "kuma.io/listener-";

/// The tag that it sets on every inbound and gateway.
pub(super) const ZONE_TAG: &str = "kuma.io/zone";

/// Fields in which an empty object means something: that there is a probe.
const PRESENCE_COUNTS: [&str; 2] = ["serviceProbe", "tcp"];

/// Fields that are numbers even where they came as text.
const NUMERIC: [&str; 4] = ["port", "servicePort", "healthyThreshold", "unhealthyThreshold"];

/// The normal form of a Dataplane's body, sent or stored.
pub fn normalise(body: &Value) -> Value {
    let mut normal = without_additions(body);
    for inbound in inbounds_mut(&mut normal) {
        inbound.remove("state");
        inbound.remove("health");
    }
    tidy(&mut normal);
    if let Some(outbounds) = normal.pointer_mut("/networking/outbound").and_then(Value::as_array_mut) {
        // Their order means nothing to the control plane; that of inbounds does (the first names the service).
        outbounds.sort_by_cached_key(outbound_key);
    }
    normal
}

/// The body without what the control plane computes anew at each write: what may be sent back to it.
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
        // The default kind of gateway is not printed.
        if gateway.get("type").and_then(Value::as_str) == Some("DELEGATED") {
            gateway.remove("type");
        }
    }
    body
}

/// The inbounds of a body, those that are objects.
pub(super) fn inbounds_mut(body: &mut Value) -> impl Iterator<Item = &mut Map<String, Value>> {
    body.pointer_mut("/networking/inbound")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
        .filter_map(Value::as_object_mut)
}

fn remove_zone_tag(of: &mut Map<String, Value>) {
    if let Some(tags) = of.get_mut("tags").and_then(Value::as_object_mut) {
        tags.remove(ZONE_TAG);
    }
}

/// Numbers in one spelling, and no zero values in objects (the control plane does not print them).
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
            if let Some(whole) = whole(number) {
                *number = whole;
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

/// `15000.0` as `15000`.
fn whole(number: &Number) -> Option<Number> {
    // Ports and thresholds are small: beyond 2^53 a float is not exact and stays as it is.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let float = number.as_f64().filter(|_| number.is_f64())?;
    if float.fract() != 0.0 || float.abs() > EXACT {
        return None;
    }
    #[expect(clippy::cast_possible_truncation, reason = "whole and within 2^53, checked above")]
    Some(Number::from(float as i64))
}

/// Sorts outbounds by where they listen, then by whom they call.
fn outbound_key(outbound: &Value) -> (String, u64, String) {
    let address = outbound.get("address").and_then(Value::as_str).unwrap_or_default().to_owned();
    let port = outbound.get("port").and_then(Value::as_u64).unwrap_or_default();
    (address, port, outbound.to_string())
}
