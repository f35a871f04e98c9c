//! Decoding of JSON bodies by the rules of Go's `jsonpb`, which the control plane uses for all but the newer
//! policies.
//!
//! Fields are read by their JSON or proto name, unknown fields are dropped, numbers may be strings, `null` counts as
//! absent, and zero values are not printed. An integer with a fraction (`15000.0`) is rejected, as by Go. Fields that a
//! release does not have are unknown to it.

use serde_json::{Map, Value};

use ecs_mesh_model::GoDuration;

use super::release::EmulatedRelease;
use ecs_mesh_api::KumaFeature;

/// The type of one field of a message.
pub(super) enum ProtoKind {
    Text,
    /// `uint32`
    Number,
    Bool,
    /// An enum by its value names, in the order of their numbers.
    Enum(&'static [&'static str]),
    /// `map<string, string>`
    Texts,
    Message(&'static ProtoMessage),
    Duration,
    /// `google.protobuf.UInt32Value`: printed even when zero.
    NumberValue,
    /// `google.protobuf.BoolValue`
    BoolValue,
    /// `google.protobuf.DoubleValue`
    DoubleValue,
    /// `google.protobuf.Struct`: any JSON object.
    Struct,
}

/// One field of a message.
pub(super) struct ProtoField {
    json: &'static str,
    proto: &'static str,
    kind: ProtoKind,
    repeated: bool,
    since: EmulatedRelease,
    before: Option<EmulatedRelease>,
    feature: Option<KumaFeature>,
}

impl ProtoField {
    /// The same field, in the releases that have the feature.
    pub(super) const fn of(self, feature: KumaFeature) -> Self {
        Self { feature: Some(feature), ..self }
    }

    /// The same field, from this release on.
    pub(super) const fn since(self, since: EmulatedRelease) -> Self {
        Self { since, ..self }
    }

    /// The same field, in the releases before this one.
    pub(super) const fn before(self, release: EmulatedRelease) -> Self {
        Self { before: Some(release), ..self }
    }

    fn is_known(&self, release: EmulatedRelease) -> bool {
        release >= self.since
            && self.before.is_none_or(|before| release < before)
            && self.feature.is_none_or(|feature| release.has(feature))
    }
}

/// A message: its fields.
pub(super) struct ProtoMessage(pub(super) &'static [ProtoField]);

/// A field whose proto name is its JSON name.
pub(super) const fn field(name: &'static str, kind: ProtoKind) -> ProtoField {
    snake(name, name, kind)
}

/// A field whose proto name has underscores.
pub(super) const fn snake(json: &'static str, proto: &'static str, kind: ProtoKind) -> ProtoField {
    ProtoField {
        json,
        proto,
        kind,
        repeated: false,
        since: EmulatedRelease::V2_7,
        before: None,
        feature: None,
    }
}

/// The same field as a list.
pub(super) const fn repeated(field: ProtoField) -> ProtoField {
    ProtoField { repeated: true, ..field }
}

/// Decodes `body` as the `message` of a release, and returns the object in its response form.
pub(super) fn decode(
    message: &ProtoMessage,
    release: EmulatedRelease,
    body: &Value,
) -> Result<Map<String, Value>, String> {
    let mut known = Map::new();
    let object = match body {
        Value::Null => return Ok(known),
        Value::Object(object) => object,
        other => return Err(mismatch(other, "an object")),
    };
    for field in message.0.iter().filter(|field| field.is_known(release)) {
        let Some(raw) = object.get(field.json).or_else(|| object.get(field.proto)) else { continue };
        if raw.is_null() {
            continue;
        }
        let value = if field.repeated {
            decode_list(field, release, raw)
        } else {
            decode_one(&field.kind, release, raw)
        };
        if let Some(value) = value.map_err(|what| format!("{}: {what}", field.json))? {
            known.insert(field.json.to_owned(), value);
        }
    }
    Ok(known)
}

fn decode_list(field: &ProtoField, release: EmulatedRelease, raw: &Value) -> Result<Option<Value>, String> {
    let Value::Array(items) = raw else { return Err(mismatch(raw, "a list")) };
    let items: Vec<Value> = items
        .iter()
        .map(|item| Ok(decode_one(&field.kind, release, item)?.unwrap_or_else(|| zero(&field.kind))))
        .collect::<Result<_, String>>()?;
    Ok((!items.is_empty()).then_some(Value::Array(items)))
}

/// The value to store, or `None` for a zero value, which is not printed.
fn decode_one(kind: &ProtoKind, release: EmulatedRelease, raw: &Value) -> Result<Option<Value>, String> {
    match kind {
        ProtoKind::Text => Ok(text(raw)?.filter(|text| !text.is_empty()).map(Value::from)),
        ProtoKind::Number => Ok(Some(number(raw)?).filter(|number| *number != 0).map(Value::from)),
        ProtoKind::Bool => Ok(boolean(raw)?.then_some(Value::Bool(true))),
        ProtoKind::Enum(names) => enumerated(names, raw),
        ProtoKind::Texts => texts(raw),
        ProtoKind::Message(message) => Ok(Some(Value::Object(decode(message, release, raw)?))),
        ProtoKind::Duration => match raw {
            Value::String(text) => GoDuration::parse(text)
                .map(|duration| Some(Value::from(print_duration(duration))))
                .ok_or_else(|| format!("{text:?} is not a duration such as 10s or 1m30s")),
            other => Err(mismatch(other, "a duration in a string")),
        },
        ProtoKind::NumberValue => Ok(Some(Value::from(number(raw)?))),
        ProtoKind::BoolValue => Ok(Some(Value::from(boolean(raw)?))),
        ProtoKind::DoubleValue => match raw {
            Value::Number(_) => Ok(Some(raw.clone())),
            Value::String(text) => text
                .parse::<f64>()
                .map(|number| Some(Value::from(number)))
                .map_err(|_| mismatch(raw, "a number")),
            other => Err(mismatch(other, "a number")),
        },
        ProtoKind::Struct => match raw {
            Value::Object(_) => Ok(Some(raw.clone())),
            other => Err(mismatch(other, "an object")),
        },
    }
}

fn zero(kind: &ProtoKind) -> Value {
    match kind {
        ProtoKind::Text => Value::from(""),
        ProtoKind::Bool => Value::Bool(false),
        ProtoKind::Enum(names) => Value::from(names[0]),
        ProtoKind::Number => Value::from(0),
        _ => Value::Object(Map::new()),
    }
}

fn text(raw: &Value) -> Result<Option<String>, String> {
    match raw {
        Value::String(text) => Ok(Some(text.clone())),
        Value::Null => Ok(None),
        other => Err(mismatch(other, "a string")),
    }
}

fn boolean(raw: &Value) -> Result<bool, String> {
    match raw {
        Value::Bool(value) => Ok(*value),
        Value::Null => Ok(false),
        other => Err(mismatch(other, "true or false")),
    }
}

fn number(raw: &Value) -> Result<u32, String> {
    let wrong = || mismatch(raw, "a whole number from 0 to 4294967295");
    match raw {
        Value::Null => Ok(0),
        Value::Number(number) => number.as_u64().and_then(|n| u32::try_from(n).ok()).ok_or_else(wrong),
        Value::String(text) => match serde_json::from_str::<Value>(text) {
            Ok(Value::Null) => Ok(0),
            Ok(Value::Number(number)) => {
                number.as_u64().and_then(|n| u32::try_from(n).ok()).ok_or_else(wrong)
            }
            _ => Err(wrong()),
        },
        _ => Err(wrong()),
    }
}

fn enumerated(names: &[&str], raw: &Value) -> Result<Option<Value>, String> {
    let at = match raw {
        Value::String(name) => names
            .iter()
            .position(|known| known == name)
            .ok_or_else(|| format!("{name:?} is none of {}", names.join(", ")))?,
        Value::Number(number) => {
            let Some(number) = number.as_i64().and_then(|n| i32::try_from(n).ok()) else {
                return Err(mismatch(raw, "an enum value"));
            };
            match usize::try_from(number) {
                Ok(at) if at < names.len() => at,
                _ => return Ok(Some(Value::from(number))),
            }
        }
        other => return Err(mismatch(other, "an enum value")),
    };
    Ok((at != 0).then(|| Value::from(names[at])))
}

/// The JSON form of `google.protobuf.Duration`: seconds with zero, three, six or nine decimals (`90s`, `0.500s`).
fn print_duration(GoDuration(nanos): GoDuration) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let (seconds, part) = (nanos.unsigned_abs() / 1_000_000_000, nanos.unsigned_abs() % 1_000_000_000);
    let decimals = format!("{part:09}");
    let decimals = decimals.strip_suffix("000").unwrap_or(&decimals);
    let decimals = decimals.strip_suffix("000").unwrap_or(decimals);
    match decimals {
        "000" => format!("{sign}{seconds}s"),
        decimals => format!("{sign}{seconds}.{decimals}s"),
    }
}

fn texts(raw: &Value) -> Result<Option<Value>, String> {
    let Value::Object(object) = raw else { return Err(mismatch(raw, "an object of strings")) };
    let entries = object
        .iter()
        .map(|(key, value)| Ok((key.clone(), Value::from(text(value)?.unwrap_or_default()))))
        .collect::<Result<Map<_, _>, String>>()?;
    Ok((!entries.is_empty()).then_some(Value::Object(entries)))
}

/// The error text for a value of a wrong type.
pub(super) fn mismatch(found: &Value, wanted: &str) -> String {
    let found = match found {
        Value::Null => "null".to_owned(),
        Value::Bool(value) => format!("{value}"),
        Value::Number(number) => format!("number {number}"),
        Value::String(text) => format!("string {text:?}"),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    };
    format!("found {found} where {wanted} is needed")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::schema::DATAPLANE;
    use super::*;

    fn inbound(inbound: &Value) -> Result<Value, String> {
        let body = json!({"networking": {"inbound": [inbound]}});
        Ok(decode(&DATAPLANE, EmulatedRelease::V2_14, &body)?["networking"]["inbound"][0].clone())
    }

    #[test]
    fn number_may_be_a_string_but_not_a_fraction() {
        assert_eq!(inbound(&json!({"port": "15000"})), Ok(json!({"port": 15000})));
        assert!(inbound(&json!({"port": 15000.0})).is_err());
        assert!(inbound(&json!({"port": 1e3})).is_err());
        assert!(inbound(&json!({"port": -1})).is_err());
        assert!(inbound(&json!({"port": ""})).is_err());
        assert!(inbound(&json!({"port": 4_294_967_296_u64})).is_err());
    }

    #[test]
    fn proto_names_are_accepted_and_json_names_printed() {
        let body = json!({"networking": {"transparent_proxying": {"reachable_services": ["a"], "redirect_port_inbound": 5}}});
        assert_eq!(
            Value::Object(decode(&DATAPLANE, EmulatedRelease::V2_14, &body).unwrap()),
            json!({"networking": {"transparentProxying": {"reachableServices": ["a"], "redirectPortInbound": 5}}})
        );
    }

    #[test]
    fn zero_values_are_dropped_and_set_messages_kept() {
        let found = inbound(
            &json!({"port": 0, "state": "Ready", "name": "", "tags": {}, "health": {"ready": false}}),
        );
        assert_eq!(found, Ok(json!({"health": {}})));
        assert_eq!(inbound(&json!({"state": 1, "port": null})), Ok(json!({"state": "NotReady"})));
    }

    #[test]
    fn durations_are_printed_in_seconds() {
        let found = inbound(
            &json!({"serviceProbe": {"interval": "1m30s", "timeout": "500ms", "healthy_threshold": 0}}),
        );
        assert_eq!(
            found,
            Ok(json!({"serviceProbe": {"interval": "90s", "timeout": "0.500s", "healthyThreshold": 0}}))
        );
        assert!(inbound(&json!({"serviceProbe": {"interval": "10"}})).is_err());
        assert_eq!(print_duration(GoDuration(-1_000_000_000)), "-1s");
        assert_eq!(print_duration(GoDuration(1_000_001_000)), "1.000001s");
    }

    #[test]
    fn fields_of_other_releases_are_dropped() {
        let body = json!({"networking": {
            "advertisedAddress": "192.0.2.1",
            "inbound": [{"port": 1, "name": "main", "protocol": "http", "tags": {"kuma.io/service": "a"}}],
            "gateway": {"type": "BUILTIN"},
        }});
        let read = |release| decode(&DATAPLANE, release, &body).map(|spec| spec["networking"].clone());
        let old = read(EmulatedRelease::V2_7).unwrap();
        assert_eq!(old["inbound"], json!([{"port": 1, "tags": {"kuma.io/service": "a"}}]));
        assert_eq!(old["advertisedAddress"], "192.0.2.1");
        let current = read(EmulatedRelease::V2_14).unwrap();
        assert_eq!(current["inbound"][0]["protocol"], "http");
        assert!(read(EmulatedRelease::V3_0).unwrap_err().contains("BUILTIN"));
    }

    #[test]
    fn wrong_type_is_malformed() {
        for wrong in [json!({"tags": {"a": 1}}), json!({"name": 1}), json!({"state": "Sleeping"}), json!([])]
        {
            assert!(inbound(&wrong).is_err(), "{wrong}");
        }
        assert_eq!(inbound(&json!({"tags": {"a": null}})), Ok(json!({"tags": {"a": ""}})));
    }
}
