//! Validation of meshes, zone proxies and `MeshService`s.

use serde_json::{Map, Value, json};

use ecs_mesh_model::GoDuration;

use super::body::{list, number, object, text};
use super::problem::FieldViolations;
use super::proto::mismatch;
use super::release::EmulatedRelease;
use super::rules::{self, SERVICE_TAG, covers_loopback};
use ecs_mesh_api::KumaFeature;

/// The violations of a `ZoneIngress`.
pub(super) fn zone_ingress(spec: &Value) -> FieldViolations {
    let mut violations = FieldViolations::default();
    let networking = spec.get("networking").unwrap_or(&Value::Null);
    let (address, port) = (text(networking, "address"), number(networking, "port"));
    let (advertised, advertised_port) =
        (text(networking, "advertisedAddress"), number(networking, "advertisedPort"));
    if let Some(admin) = networking.get("admin").map(|admin| number(admin, "port"))
        && ((admin == port && covers_loopback(address))
            || (admin == advertised_port && covers_loopback(advertised)))
    {
        violations.add("networking.admin.port", "must not be the port of the ingress");
    }
    if advertised.is_empty() && advertised_port != 0 {
        violations.add("networking.advertisedAddress", "is needed beside advertisedPort");
    }
    if advertised_port == 0 && !advertised.is_empty() {
        violations.add("networking.advertisedPort", "is needed beside advertisedAddress");
    }
    if !address.is_empty() {
        rules::address(&mut violations, "networking.address", address);
    }
    if !advertised.is_empty() {
        rules::address(&mut violations, "networking.advertisedAddress", advertised);
    }
    rules::port(&mut violations, "networking.port", port);
    if advertised_port != 0 {
        rules::port(&mut violations, "networking.advertisedPort", advertised_port);
    }
    for (at, service) in list(spec, "availableServices").iter().enumerate() {
        let path = format!("availableService[{at}].tags");
        let tags = object(service, "tags");
        rules::tags(&mut violations, &path, tags);
        if !tags.contains_key(SERVICE_TAG) {
            violations.add(path, "must have the tag kuma.io/service");
        }
    }
    violations
}

/// The violations of a `ZoneEgress`.
pub(super) fn zone_egress(spec: &Value) -> FieldViolations {
    let mut violations = FieldViolations::default();
    let networking = spec.get("networking").unwrap_or(&Value::Null);
    let (address, port) = (text(networking, "address"), number(networking, "port"));
    if networking.get("admin").is_some_and(|admin| number(admin, "port") == port) && covers_loopback(address)
    {
        violations.add("networking.admin.port", "must not be the port of the egress");
    }
    if !address.is_empty() {
        rules::address(&mut violations, "networking.address", address);
    }
    rules::port(&mut violations, "networking.port", port);
    violations
}

/// The violations of a `Mesh`.
pub(super) fn mesh(spec: &Value) -> FieldViolations {
    let mut violations = FieldViolations::default();
    let section = |name: &str| spec.get(name).unwrap_or(&Value::Null);
    let mtls = section("mtls");
    if list(mtls, "backends").len() > 1 {
        violations.add("mtls.backends", "must have one entry at most");
    }
    let names = unique_names(&mut violations, "mtls", mtls);
    for backend in list(mtls, "backends") {
        let expiration = backend["dpCert"]["rotation"]["expiration"].as_str().unwrap_or_default();
        if !expiration.is_empty() && GoDuration::parse(expiration.trim_end_matches('d')).is_none() {
            violations.add("mtls.dpcert.rotation.expiration", "must be a duration such as 24h");
        }
    }
    chosen(&mut violations, "mtls.enabledBackend", text(mtls, "enabledBackend"), &names);
    for (name, types) in [("logging", ["tcp", "file"]), ("tracing", ["zipkin", "datadog"])] {
        let part = section(name);
        for (at, backend) in list(part, "backends").iter().enumerate() {
            let path = format!("{name}.backends[{at}]");
            if text(backend, "name").is_empty() {
                violations.add(format!("{path}.name"), "must not be empty");
            }
            if !types.contains(&text(backend, "type")) {
                violations.add(format!("{path}.type"), format!("must be one of {}", types.join(", ")));
            }
        }
        let names = unique_names(&mut violations, name, part);
        chosen(&mut violations, &format!("{name}.defaultBackend"), text(part, "defaultBackend"), &names);
    }
    let metrics = section("metrics");
    let names = unique_names(&mut violations, "metrics", metrics);
    for (at, backend) in list(metrics, "backends").iter().enumerate() {
        if text(backend, "type") != "prometheus" {
            violations.add(format!("metrics.backends[{at}].type"), "must be prometheus");
        }
    }
    chosen(&mut violations, "metrics.enabledBackend", text(metrics, "enabledBackend"), &names);
    for part in ["requirements", "restrictions"] {
        for (at, rule) in list(&spec["constraints"]["dataplaneProxy"], part).iter().enumerate() {
            selector(&mut violations, &format!("constraints.dataplaneProxy.{part}[{at}].tags"), rule);
        }
    }
    if section("routing").get("zoneEgress").is_some() && text(mtls, "enabledBackend").is_empty() {
        violations.add("mtls", "is needed where zoneEgress is on");
    }
    violations
}

/// The violations of a `Mesh` that the server finds only when it stores it: its certificate authorities.
pub(super) fn certificate_authorities(spec: &Value) -> FieldViolations {
    let mut violations = FieldViolations::default();
    for (at, backend) in list(spec.get("mtls").unwrap_or(&Value::Null), "backends").iter().enumerate() {
        if !["builtin", "provided"].contains(&text(backend, "type")) {
            violations.add(format!("mtls.backends[{at}].type"), "must be builtin or provided");
            break;
        }
    }
    violations
}

fn unique_names<'a>(violations: &mut FieldViolations, part: &str, holder: &'a Value) -> Vec<&'a str> {
    let mut names: Vec<&str> = Vec::new();
    for (at, backend) in list(holder, "backends").iter().enumerate() {
        let name = text(backend, "name");
        if names.contains(&name) {
            violations.add(format!("{part}.backends[{at}].name"), "is the name of another backend");
        }
        names.push(name);
    }
    names
}

fn chosen(violations: &mut FieldViolations, field: &str, chosen: &str, names: &[&str]) {
    if !chosen.is_empty() && !names.contains(&chosen) {
        violations.add(field, "must be the name of one of the backends");
    }
}

fn selector(violations: &mut FieldViolations, path: &str, rule: &Value) {
    let allowed = |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || ".-_:/".contains(c));
    let tags = object(rule, "tags");
    if tags.is_empty() {
        violations.add(path, "must have at least one tag");
    }
    for (key, value) in tags {
        let value = value.as_str().unwrap_or_default();
        if key.is_empty() {
            violations.add(path, "a tag's name must not be empty");
        }
        if !allowed(key) {
            violations.add(rules::keyed(path, key), "a tag's name has letters, digits and . - _ : / only");
        }
        if value.is_empty() {
            violations.add(rules::keyed(path, key), "a tag's value must not be empty");
        }
        if value != "*" && !allowed(value) {
            violations.add(rules::keyed(path, key), "a tag's value has letters, digits and . - _ : / only");
        }
    }
}

/// Decodes a `MeshService`'s `spec`, or returns the violations of its schema.
pub(super) fn mesh_service(
    body: &Map<String, Value>,
    release: EmulatedRelease,
) -> Result<Value, FieldViolations> {
    let mut violations = FieldViolations::default();
    for needed in ["type", "name", "spec"] {
        if !body.contains_key(needed) {
            violations.add("", format!("{needed} is needed"));
        }
    }
    if body.get("type").is_some_and(|kind| kind != "MeshService") {
        violations.add("", "type must be MeshService");
    }
    let empty = json!({});
    let raw = body.get("spec").filter(|spec| !spec.is_null()).unwrap_or(&empty);
    if !raw.is_object() {
        violations.add("", mismatch(raw, "an object for spec"));
        return Err(violations);
    }
    let state = raw.get("state").filter(|state| !state.is_null()).cloned().unwrap_or(json!("Unavailable"));
    if !["Available", "Unavailable"].iter().any(|known| state == *known) {
        violations.add("spec.state", "must be Available or Unavailable");
    }
    let selector = mesh_service_selector(&mut violations, raw.get("selector"), release);
    let ports = mesh_service_ports(&mut violations, raw.get("ports"));
    if !violations.0.is_empty() {
        return Err(violations);
    }
    if release >= EmulatedRelease::V3_0 {
        app_protocols(&mut violations, &ports, release);
    }
    if selector.len() > 1 {
        violations.add("spec.selector", "must have one of dataplaneTags, dataplaneRef and dataplaneLabels");
    }
    if !violations.0.is_empty() {
        return Err(violations);
    }
    let mut spec = json!({"state": state, "selector": selector});
    if !ports.is_empty() {
        spec["ports"] = Value::Array(ports);
    }
    if let Some(identities) = raw.get("identities").filter(|identities| identities.is_array()) {
        spec["identities"] = identities.clone();
    }
    Ok(spec)
}

/// Checks the protocols of a `MeshService`'s ports.
fn app_protocols(violations: &mut FieldViolations, ports: &[Value], release: EmulatedRelease) {
    for (at, port) in ports.iter().enumerate() {
        let protocol = text(port, "appProtocol");
        if !rules::is_protocol(protocol, release) {
            let field = format!("spec.ports[{at}].appProtocol");
            violations.add(field, rules::protocol_reason(protocol, release));
        }
    }
}

fn mesh_service_selector(
    violations: &mut FieldViolations,
    raw: Option<&Value>,
    release: EmulatedRelease,
) -> Map<String, Value> {
    let mut selector = Map::new();
    let Some(raw) = raw.filter(|raw| !raw.is_null()) else { return selector };
    let strings = |map: &Value| map.as_object().is_some_and(|map| map.values().all(Value::is_string));
    let mut keep = |name: &str, valid: bool, value: &Value| {
        if valid {
            selector.insert(name.to_owned(), value.clone());
        } else {
            violations.add(format!("spec.selector.{name}"), mismatch(value, "an object of strings"));
        }
    };
    for name in ["dataplaneTags", "dataplaneRef"] {
        if name == "dataplaneTags" && !release.has(KumaFeature::TagServices) {
            continue;
        }
        if let Some(value) = raw.get(name).filter(|value| !value.is_null()) {
            keep(name, strings(value), value);
        }
    }
    if let Some(labels) = raw.get("dataplaneLabels").filter(|value| !value.is_null()) {
        keep("dataplaneLabels", labels.get("matchLabels").is_none_or(strings), labels);
    }
    selector
}

fn mesh_service_ports(violations: &mut FieldViolations, raw: Option<&Value>) -> Vec<Value> {
    let Some(raw) = raw.filter(|raw| !raw.is_null()) else { return Vec::new() };
    let Some(raw) = raw.as_array() else {
        violations.add("spec.ports", mismatch(raw, "a list"));
        return Vec::new();
    };
    let mut ports = Vec::new();
    for (at, port) in raw.iter().enumerate() {
        let path = format!("spec.ports[{at}]");
        let mut kept = Map::new();
        match port.get("port") {
            None => violations.add(format!("{path}.port"), "is needed"),
            Some(number) if number.as_i64().is_none() => {
                violations.add(format!("{path}.port"), mismatch(number, "a whole number"));
            }
            Some(number) => drop(kept.insert("port".to_owned(), number.clone())),
        }
        for (field, numbers) in [("name", false), ("targetPort", true), ("appProtocol", false)] {
            let Some(value) = port.get(field).filter(|value| !value.is_null()) else { continue };
            if value.is_string() || (numbers && value.is_i64()) {
                kept.insert(field.to_owned(), value.clone());
            } else {
                violations.add(format!("{path}.{field}"), mismatch(value, "a string"));
            }
        }
        kept.entry("appProtocol").or_insert_with(|| json!("tcp"));
        ports.push(Value::Object(kept));
    }
    ports
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(violations: FieldViolations) -> Vec<String> {
        violations.0.into_iter().map(|v| v.field).collect()
    }

    #[test]
    fn zone_ingress_advertises_address_and_port_or_neither() {
        let check = |networking: Value| fields(zone_ingress(&json!({"networking": networking})));
        assert!(check(json!({"port": 1})).is_empty());
        assert_eq!(check(json!({"port": 1, "advertisedPort": 1})), ["networking.advertisedAddress"]);
        assert_eq!(check(json!({"port": 1, "address": "::"})), ["networking.address.address"]);
        assert_eq!(fields(zone_ingress(&json!({}))), ["networking.port"]);
    }

    #[test]
    fn mesh_enables_only_a_declared_backend() {
        let spec = json!({"mtls": {"enabledBackend": "b", "backends": [{"name": "a", "type": "builtin"}]}});
        assert_eq!(fields(mesh(&spec)), ["mtls.enabledBackend"]);
    }

    #[test]
    fn mesh_service_has_exactly_one_selector() {
        let body = |spec: Value| json!({"type": "MeshService", "name": "a", "spec": spec});
        let read = |spec: Value| mesh_service(body(spec).as_object().unwrap(), EmulatedRelease::V2_14);
        let both = json!({"selector": {"dataplaneTags": {"a": "b"}, "dataplaneRef": {"name": "c"}}});
        assert_eq!(fields(read(both).unwrap_err()), ["spec.selector"]);
        assert_eq!(
            read(json!({"ports": [{"port": 1}]})).unwrap()["ports"],
            json!([{"port": 1, "appProtocol": "tcp"}])
        );
        assert_eq!(fields(read(json!({"ports": [{}]})).unwrap_err()), ["spec.ports[0].port"]);
    }
}
