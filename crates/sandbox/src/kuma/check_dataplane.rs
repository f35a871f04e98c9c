//! Validation of a Dataplane's networking.

use serde_json::{Map, Value};

use super::body::{list, number, object, section, tag, text};
use super::problem::FieldViolations;
use super::release::EmulatedRelease;
use super::rules::{self, PROTOCOL_TAG, SERVICE_TAG, covers_loopback, is_ip, is_protocol, keyed};
use ecs_mesh_api::KumaFeature;

const BACKEND_KINDS: [&str; 3] = ["MeshExternalService", "MeshMultiZoneService", "MeshService"];

/// The violations of a Dataplane that a server of `release` has decoded.
pub(super) fn check(spec: &Value, release: EmulatedRelease) -> FieldViolations {
    let mut violations = FieldViolations::default();
    let Some(networking) = spec.get("networking") else {
        violations.add("networking", "must be given");
        return violations;
    };
    admin(&mut violations, networking);
    if let Some(gateway) = networking.get("gateway") {
        let builtin = text(gateway, "type") == "BUILTIN";
        not_beside_a_gateway(&mut violations, spec, builtin);
        self::gateway(&mut violations, gateway, release);
        self::networking(&mut violations, networking, release);
        if !builtin {
            probes(&mut violations, spec);
        }
    } else {
        if list(networking, "inbound").is_empty() && !release.has(KumaFeature::OptionalInbounds) {
            violations.add("networking", "must have an inbound or a gateway");
        }
        self::networking(&mut violations, networking, release);
        probes(&mut violations, spec);
        metrics(&mut violations, spec);
        listeners(&mut violations, networking);
    }
    violations
}

fn admin(violations: &mut FieldViolations, networking: &Value) {
    let Some(admin) = networking.get("admin") else { return };
    let admin = number(admin, "port");
    let own = text(networking, "address");
    let or = |address: &'_ str, fallback: &'_ str| -> String {
        if address.is_empty() { fallback.to_owned() } else { address.to_owned() }
    };
    let inbound = list(networking, "inbound").iter().any(|inbound| {
        let bound = or(text(inbound, "address"), own);
        let workload = or(text(inbound, "serviceAddress"), &bound);
        (admin == number(inbound, "port") && covers_loopback(&bound))
            || (admin == super::body::workload_port(inbound) && covers_loopback(&workload))
    });
    if inbound {
        violations.add("networking.admin.port", "must not be the port of an inbound");
    }
    let outbound = list(networking, "outbound").iter().any(|outbound| {
        admin == number(outbound, "port") && covers_loopback(&or(text(outbound, "address"), "127.0.0.1"))
    });
    if outbound {
        violations.add("networking.admin.port", "must not be the port of an outbound");
    }
}

fn not_beside_a_gateway(violations: &mut FieldViolations, spec: &Value, builtin: bool) {
    let networking = &spec["networking"];
    let mut refuse = |field: &str| {
        violations.add(format!("networking.{field}"), "must not be given beside a gateway");
    };
    if !list(networking, "inbound").is_empty() {
        refuse("inbound");
    }
    if builtin && !list(networking, "outbound").is_empty() {
        refuse("outbound");
    }
    if !list(networking, "listeners").is_empty() {
        refuse("listeners");
    }
    if builtin && spec.get("probes").is_some() {
        refuse("probes");
    }
}

fn gateway(violations: &mut FieldViolations, gateway: &Value, release: EmulatedRelease) {
    let tags = object(gateway, "tags");
    if let Some(protocol) = tags.get(PROTOCOL_TAG).and_then(Value::as_str)
        && !protocol.eq_ignore_ascii_case("tcp")
    {
        violations.add(keyed("networking.gateway.tags", PROTOCOL_TAG), "a gateway speaks tcp only");
    }
    rules::tags(violations, "networking.gateway.tags", tags);
    if needs_service_tag(tags, release) {
        violations.add("networking.gateway.tags", "must have the tag kuma.io/service");
    }
}

fn networking(violations: &mut FieldViolations, networking: &Value, release: EmulatedRelease) {
    let address = text(networking, "address");
    rules::address(violations, "networking", address);
    for (at, inbound) in list(networking, "inbound").iter().enumerate() {
        self::inbound(violations, &format!("networking.inbound[{at}]"), inbound, address, release);
    }
    for (at, outbound) in list(networking, "outbound").iter().enumerate() {
        self::outbound(violations, &format!("networking.outbound[{at}]"), outbound, release);
    }
    if let Some(proxying) = networking.get("transparentProxying") {
        reachable_backends(violations, proxying);
    }
}

/// Whether the tag `kuma.io/service` is missing: on every inbound and gateway up to 2.13, then only beside other tags.
fn needs_service_tag(tags: &Map<String, Value>, release: EmulatedRelease) -> bool {
    let applies = !tags.is_empty() || release.has(KumaFeature::ServiceTagRequired);
    applies && !tags.contains_key(SERVICE_TAG)
}

fn inbound(
    violations: &mut FieldViolations,
    path: &str,
    inbound: &Value,
    dataplane: &str,
    release: EmulatedRelease,
) {
    rules::port(violations, &format!("{path}.port"), number(inbound, "port"));
    if number(inbound, "servicePort") != 0 {
        rules::port(violations, &format!("{path}.servicePort"), number(inbound, "servicePort"));
    }
    let (address, service) = (text(inbound, "address"), text(inbound, "serviceAddress"));
    let service_field = format!("{path}.serviceAddress");
    let loops = matches!(number(inbound, "servicePort"), 0)
        || number(inbound, "servicePort") == number(inbound, "port");
    if !service.is_empty() {
        if !is_ip(service) {
            violations.add(&service_field, "must be an IP address");
        }
        if service == dataplane && loops {
            violations.add(&service_field, "would send traffic back to the inbound itself");
        }
    }
    if !address.is_empty() {
        if !is_ip(address) {
            violations.add(format!("{path}.address"), "must be an IP address");
        }
        if address == service && loops {
            violations.add(&service_field, "would send traffic back to the inbound itself");
        }
    }
    inbound_tags(violations, path, inbound, release);
    let protocol = text(inbound, "protocol");
    if !protocol.is_empty() && !is_protocol(protocol, release) {
        violations.add(format!("{path}.protocol"), rules::protocol_reason(protocol, release));
    }
    if let Some(probe) = inbound.get("serviceProbe") {
        service_probe(violations, &format!("{path}.serviceProbe"), probe);
    }
    if needs_service_tag(object(inbound, "tags"), release) {
        violations.add(keyed(&format!("{path}.tags"), SERVICE_TAG), "is needed");
    }
}

fn inbound_tags(violations: &mut FieldViolations, path: &str, inbound: &Value, release: EmulatedRelease) {
    let tags_path = format!("{path}.tags");
    let tags = object(inbound, "tags");
    let protocol = tag(inbound, PROTOCOL_TAG);
    if tags.contains_key(PROTOCOL_TAG) && !is_protocol(protocol, release) {
        violations.add(keyed(&tags_path, PROTOCOL_TAG), rules::protocol_reason(protocol, release));
    }
    rules::tags(violations, &tags_path, tags);
}

fn service_probe(violations: &mut FieldViolations, path: &str, probe: &Value) {
    for field in ["interval", "timeout"] {
        if probe.get(field).and_then(Value::as_str) == Some("0s") {
            violations.add(format!("{path}.{field}"), "must not be zero");
        }
    }
    for field in ["unhealthyThreshold", "healthyThreshold"] {
        if probe.get(field).and_then(Value::as_u64) == Some(0) {
            violations.add(format!("{path}.{field}"), "must not be zero");
        }
    }
}

fn outbound(violations: &mut FieldViolations, path: &str, outbound: &Value, release: EmulatedRelease) {
    rules::port(violations, &format!("{path}.port"), number(outbound, "port"));
    let address = text(outbound, "address");
    if !address.is_empty() && !is_ip(address) {
        violations.add(format!("{path}.address"), "must be an IP address");
    }
    let tags = object(outbound, "tags");
    let Some(backend) = outbound.get("backendRef") else {
        if !release.has(KumaFeature::OutboundTags) {
            violations.add(format!("{path}.backendRef"), "must be given");
            return;
        }
        rules::tags(violations, &format!("{path}.tags"), tags);
        if !tags.contains_key(SERVICE_TAG) {
            violations.add(format!("{path}.tags"), "must have the tag kuma.io/service");
        }
        return;
    };
    let kind = text(backend, "kind");
    let has_more_kinds = release.has(KumaFeature::ReachableBackends);
    let kinds = if has_more_kinds { &BACKEND_KINDS[..] } else { &["MeshService"] };
    if !kinds.contains(&kind) {
        violations.add(format!("{path}.backendRef.kind"), kind_reason(kind));
    }
    if text(backend, "name").is_empty() && object(backend, "labels").is_empty() {
        let field = if has_more_kinds { "backendRef" } else { "backendRef.name" };
        violations.add(format!("{path}.{field}"), "needs a name or labels");
    }
    // An external service has the ports of its endpoints.
    if kind != "MeshExternalService" || !has_more_kinds {
        rules::port(violations, &format!("{path}.backendRef.port"), number(backend, "port"));
    }
    if !tags.is_empty() {
        violations.add(format!("{path}.backendRef"), "must not be given beside tags");
    }
}

fn kind_reason(found: &str) -> String {
    format!("{found:?} is not a valid kind: use one of {}", BACKEND_KINDS.join(", "))
}

fn reachable_backends(violations: &mut FieldViolations, proxying: &Value) {
    let Some(backends) = proxying.get("reachableBackends") else { return };
    for (at, backend) in list(backends, "refs").iter().enumerate() {
        // The server uses this spelling.
        let path = format!("networking.transparentProxing.reachableBackends.refs[{at}]");
        let kind = text(backend, "kind");
        if !BACKEND_KINDS.contains(&kind) {
            violations.add(format!("{path}.kind"), kind_reason(kind));
        }
        let (name, namespace) = (text(backend, "name"), text(backend, "namespace"));
        let labels = !object(backend, "labels").is_empty();
        let name_field = format!("{path}.name");
        if !name.is_empty() {
            rules::name(violations, &name_field, name);
        }
        if name.is_empty() && namespace.is_empty() && !labels {
            violations.add(&name_field, "a name or labels are needed");
        }
        if name.is_empty() && !namespace.is_empty() {
            violations.add(&name_field, "is needed beside a namespace");
        }
        if (!name.is_empty() || !namespace.is_empty()) && labels {
            violations.add(format!("{path}.labels"), "must not be given beside a name");
        }
    }
}

fn probes(violations: &mut FieldViolations, spec: &Value) {
    let Some(probes) = spec.get("probes") else { return };
    rules::port(violations, "probes.port", number(probes, "port"));
    for (at, endpoint) in list(probes, "endpoints").iter().enumerate() {
        let path = format!("probes.endpoints[{at}]");
        rules::port(violations, &format!("{path}.inboundPort"), number(endpoint, "inboundPort"));
        for field in ["inboundPath", "path"] {
            if !is_request_uri(text(endpoint, field)) {
                violations.add(format!("{path}.{field}"), "must be the path of a URL");
            }
        }
    }
}

/// Whether the text is an absolute path or URL without blanks or control characters.
fn is_request_uri(text: &str) -> bool {
    let rooted = text.starts_with('/')
        || text.split_once(':').is_some_and(|(scheme, _)| {
            scheme.starts_with(|c: char| c.is_ascii_alphabetic())
                && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
        });
    rooted && !text.chars().any(|c| c.is_ascii_control())
}

fn metrics(violations: &mut FieldViolations, spec: &Value) {
    let Some(metrics) = spec.get("metrics") else { return };
    if text(metrics, "type") != "prometheus" {
        violations.add("metrics.type", "must be prometheus");
    }
}

fn listeners(violations: &mut FieldViolations, networking: &Value) {
    let mut names: Vec<String> = list(networking, "inbound").iter().map(section).collect();
    let bound = |address: &str, port: u64| format!("{address}:{port}");
    let inbounds: Vec<String> = list(networking, "inbound")
        .iter()
        .map(|inbound| match text(inbound, "address") {
            "" => bound(text(networking, "address"), number(inbound, "port")),
            address => bound(address, number(inbound, "port")),
        })
        .collect();
    let mut addresses: Vec<String> = Vec::new();
    for (at, listener) in list(networking, "listeners").iter().enumerate() {
        let path = format!("networking.listeners[{at}]");
        if text(listener, "type").is_empty() {
            violations.add(format!("{path}.type"), "must be ZoneIngress or ZoneEgress");
        }
        rules::address(violations, &path, text(listener, "address"));
        rules::port(violations, &format!("{path}.port"), number(listener, "port"));
        let name = text(listener, "name").to_owned();
        if !name.is_empty() {
            if names.contains(&name) {
                violations.add(format!("{path}.name"), "is the name of another inbound or listener");
            }
            names.push(name);
        }
        let own = bound(text(listener, "address"), number(listener, "port"));
        if addresses.contains(&own) {
            violations.add(&path, format!("{own} is taken by another listener"));
        }
        if inbounds.contains(&own) {
            violations.add(&path, format!("{own} is taken by an inbound"));
        }
        addresses.push(own);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fields(networking: &Value) -> Vec<String> {
        fields_in(EmulatedRelease::V2_14, networking)
    }

    fn fields_in(release: EmulatedRelease, networking: &Value) -> Vec<String> {
        check(&json!({"networking": networking}), release).0.into_iter().map(|v| v.field).collect()
    }

    fn of_outbound(outbound: &Value) -> Vec<String> {
        fields(&json!({"address": "10.0.0.1", "outbound": [outbound]}))
    }

    #[test]
    fn outbound_has_either_tags_or_a_backend() {
        let backend = json!({"kind": "MeshService", "name": "r", "port": 1});
        assert!(of_outbound(&json!({"port": 1, "backendRef": backend})).is_empty());
        assert_eq!(
            of_outbound(&json!({"port": 1, "backendRef": backend, "tags": {"kuma.io/service": "r"}})),
            ["networking.outbound[0].backendRef"]
        );
        assert_eq!(of_outbound(&json!({"port": 1})), ["networking.outbound[0].tags"]);
        assert!(
            of_outbound(&json!({"port": 1, "backendRef": {"kind": "MeshExternalService", "name": "r"}}))
                .is_empty()
        );
        assert_eq!(
            of_outbound(&json!({"port": 1, "backendRef": {"kind": "MeshService", "name": "r"}})),
            ["networking.outbound[0].backendRef.port"]
        );
    }

    #[test]
    fn admin_port_must_be_free_on_loopback() {
        let dataplane = |inbound: Value| {
            fields(&json!({"address": "10.0.0.1", "admin": {"port": 9901}, "inbound": [inbound]}))
        };
        assert!(dataplane(json!({"port": 9901})).is_empty());
        assert_eq!(dataplane(json!({"port": 9901, "address": "127.0.0.1"})), ["networking.admin.port"]);
        assert_eq!(
            dataplane(json!({"port": 1, "servicePort": 9901, "serviceAddress": "127.0.0.1"})),
            ["networking.admin.port"]
        );
        assert_eq!(dataplane(json!({"port": 9901, "address": "0.0.0.0"})), ["networking.admin.port"]);
    }

    #[test]
    fn listeners_must_not_collide() {
        let clash = json!({"type": "ZoneIngress", "address": "10.0.0.1", "port": 10001});
        assert_eq!(
            fields(&json!({"address": "10.0.0.1", "listeners": [clash, clash]})),
            ["networking.listeners[1]"]
        );
        assert_eq!(
            fields(&json!({"address": "10.0.0.1", "inbound": [{"port": 10001}], "listeners": [clash]})),
            ["networking.listeners[0]"]
        );
        assert_eq!(
            fields(
                &json!({"address": "10.0.0.1", "inbound": [{"port": 80}], "listeners": [{"port": 0, "name": "80"}]})
            ),
            [
                "networking.listeners[0].type",
                "networking.listeners[0].address",
                "networking.listeners[0].port",
                "networking.listeners[0].name"
            ]
        );
    }

    #[test]
    fn builtin_gateway_excludes_other_fields() {
        let body = json!({
            "address": "10.0.0.1",
            "gateway": {"type": "BUILTIN", "tags": {"kuma.io/service": "g", "kuma.io/protocol": "http"}},
            "inbound": [{"port": 1}],
            "outbound": [{"port": 1, "tags": {"kuma.io/service": "r"}}],
        });
        assert_eq!(
            fields(&body),
            ["networking.inbound", "networking.outbound", "networking.gateway.tags[\"kuma.io/protocol\"]"]
        );
    }

    #[test]
    fn probe_duration_must_not_be_zero() {
        let probe = |probe: Value| {
            fields(&json!({"address": "10.0.0.1", "inbound": [{"port": 1, "serviceProbe": probe}]}))
        };
        assert!(probe(json!({"interval": "-1s"})).is_empty());
        assert_eq!(
            probe(json!({"interval": "0s", "healthyThreshold": 0})),
            [
                "networking.inbound[0].serviceProbe.interval",
                "networking.inbound[0].serviceProbe.healthyThreshold"
            ]
        );
    }
}
