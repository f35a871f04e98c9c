//! Shared validation rules: names, labels, tags, ports and addresses.

use std::net::{IpAddr, Ipv4Addr};

use serde_json::{Map, Value};

use super::problem::FieldViolations;
use super::release::EmulatedRelease;
use ecs_mesh_api::KumaFeature;

/// The tag that names a service.
pub(super) const SERVICE_TAG: &str = "kuma.io/service";
/// The tag that names a protocol.
pub(super) const PROTOCOL_TAG: &str = "kuma.io/protocol";
/// The tag and label that name a zone.
pub(super) const ZONE: &str = "kuma.io/zone";
/// The label with an object's origin, `zone` or `global`.
pub(super) const ORIGIN: &str = "kuma.io/origin";
/// The label of an object's mesh.
pub(super) const MESH: &str = "kuma.io/mesh";
/// The label of the platform.
pub(super) const ENV: &str = "kuma.io/env";
/// The label of the display name.
pub(super) const DISPLAY_NAME: &str = "kuma.io/display-name";
/// The label that binds a Dataplane to a workload.
pub(super) const WORKLOAD: &str = "kuma.io/workload";
/// The label of the kind of proxy.
pub(super) const PROXY_TYPE: &str = "kuma.io/proxy-type";
/// The label of the generator of an object.
pub(super) const MANAGED_BY: &str = "kuma.io/managed-by";

/// Protocols that errors name. 3.0 removed `kafka`.
fn protocols(release: EmulatedRelease) -> &'static [&'static str] {
    if release.has(KumaFeature::KafkaProtocol) {
        &["grpc", "http", "http2", "kafka", "tcp"]
    } else {
        &["grpc", "http", "http2", "tcp"]
    }
}

/// Protocols that are accepted but not named in errors, and the releases that added them.
const QUIET_PROTOCOLS: [(&str, EmulatedRelease); 2] =
    [("tls", EmulatedRelease::V2_8), ("mysql", EmulatedRelease::V2_10)];

/// Whether a server of `release` supports the protocol, ignoring case.
pub(super) fn is_protocol(text: &str, release: EmulatedRelease) -> bool {
    let text = text.to_lowercase();
    protocols(release).contains(&text.as_str())
        || QUIET_PROTOCOLS.iter().any(|(known, since)| *known == text && release >= *since)
}

/// The error text for an unknown protocol.
pub(super) fn protocol_reason(found: &str, release: EmulatedRelease) -> String {
    format!("{found:?} is not a known protocol: use one of {}", protocols(release).join(", "))
}

/// `path["key"]`, the field path of a tag or label.
pub(super) fn keyed(path: &str, key: &str) -> String {
    format!("{path}[{key:?}]")
}

pub(super) fn port(violations: &mut FieldViolations, field: &str, port: u64) {
    if port == 0 || port > 65_535 {
        violations.add(field, "must be a port from 1 to 65535");
    }
}

/// Whether Go's `net.ParseIP` accepts the text.
pub(super) fn is_ip(text: &str) -> bool {
    text.parse::<IpAddr>().is_ok()
}

/// Checks `parent.address`: a required IP address or DNS name, not the wildcard.
pub(super) fn address(violations: &mut FieldViolations, parent: &str, address: &str) {
    let field = format!("{parent}.address");
    if address.is_empty() {
        violations.add(field, "must be given");
        return;
    }
    if address == "0.0.0.0" || address == "::" {
        violations.add(&field, "must be one address, not the wildcard");
    }
    if !is_ip(address) && !is_dns_name(address) {
        violations.add(&field, "must be an IP address or a DNS name");
    }
}

/// Whether Go's `govalidator` accepts the DNS name: labels of letters, digits, `_` and inner `-`, at most 63
/// characters, with an optional trailing dot.
fn is_dns_name(text: &str) -> bool {
    if text.replace('.', "").len() > 255 {
        return false;
    }
    let text = text.strip_suffix('.').unwrap_or(text);
    !text.is_empty()
        && text.split('.').all(|label| {
            let bytes = label.as_bytes();
            !bytes.is_empty()
                && bytes.len() <= 63
                && bytes[0] != b'-'
                && bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'_' || *b == b'-')
        })
}

/// Whether a listener on `address` is reachable at 127.0.0.1.
pub(super) fn covers_loopback(address: &str) -> bool {
    match address.parse::<IpAddr>().map(|ip| ip.to_canonical()) {
        Ok(ip) => ip.is_unspecified() || ip == IpAddr::V4(Ipv4Addr::LOCALHOST),
        Err(_) => false,
    }
}

/// Checks the characters and values of tags under `path`.
pub(super) fn tags(violations: &mut FieldViolations, path: &str, tags: &Map<String, Value>) {
    let allowed =
        |text: &str, more: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c));
    let mut keys: Vec<&String> = tags.keys().collect();
    keys.sort();
    for key in keys {
        if key.is_empty() {
            violations.add(path, "a tag's name must not be empty");
        }
        if !allowed(key, ".-_:/") {
            violations.add(keyed(path, key), "a tag's name has letters, digits and . - _ : / only");
        }
        let value = tags[key].as_str().unwrap_or_default();
        if value.is_empty() {
            violations.add(keyed(path, key), "a tag's value must not be empty");
        }
        if !allowed(value, ".-_:") {
            violations.add(keyed(path, key), "a tag's value has letters, digits and . - _ : only");
        }
    }
}

/// Checks a name by RFC 1123, with dots, at most 253 characters.
pub(super) fn name(violations: &mut FieldViolations, field: &str, name: &str) {
    if name.is_empty() {
        violations.add(field, "must not be empty");
    } else if name.len() > 253 {
        violations.add(field, "must have at most 253 characters");
    } else if !name.split('.').all(is_dns_1123_label) {
        violations.add(
            field,
            "has lower-case letters, digits, '-' and '.' only, and none of the last two at an end",
        );
    }
}

/// Checks a mesh name by the older rule for objects in it.
pub(super) fn mesh_name(violations: &mut FieldViolations, mesh: &str) {
    if mesh.is_empty() {
        violations.add("mesh", "must not be empty");
    } else if mesh.len() > 253 {
        violations.add("mesh", "must have at most 253 characters");
    } else if !mesh.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c)) {
        violations.add("mesh", "has lower-case letters, digits, '-', '_' and '.' only");
    }
}

fn is_dns_1123_label(label: &str) -> bool {
    let bytes = label.as_bytes();
    let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    edge(bytes.first())
        && edge(bytes.last())
        && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
}

/// Whether the text is a DNS-1035 label: a letter first, at most 63 characters.
pub(super) fn is_dns_1035_label(label: &str) -> bool {
    label.len() <= 63 && is_dns_1123_label(label) && label.as_bytes()[0].is_ascii_lowercase()
}

/// Checks labels by Kubernetes's rules, with a violation for each broken rule.
pub(super) fn labels<'a>(violations: &mut FieldViolations, labels: impl Iterator<Item = (&'a str, &'a str)>) {
    for (key, value) in labels {
        for reason in qualified_name(key) {
            violations.add(keyed("labels", key), reason);
        }
        for reason in label_value(value) {
            violations.add(keyed("labels", key), reason);
        }
    }
}

fn qualified_name(key: &str) -> Vec<&'static str> {
    let mut broken = Vec::new();
    let parts: Vec<&str> = key.split('/').collect();
    let name = match parts[..] {
        [name] => name,
        [prefix, name] => {
            if prefix.is_empty() {
                broken.push("the part before '/' must not be empty");
            } else {
                if prefix.len() > 253 {
                    broken.push("the part before '/' has at most 253 characters");
                }
                if !prefix.split('.').all(is_dns_1123_label) {
                    broken.push("the part before '/' is a lower-case DNS name");
                }
            }
            name
        }
        _ => return vec!["a label's name has at most one '/'"],
    };
    if name.is_empty() {
        broken.push("the name must not be empty");
    } else if name.len() > 63 {
        broken.push("the name has at most 63 characters");
    }
    if !word(name) {
        broken
            .push("the name has letters, digits, '-', '_' and '.' only, with a letter or digit at each end");
    }
    broken
}

fn label_value(value: &str) -> Vec<&'static str> {
    let mut broken = Vec::new();
    if value.len() > 63 {
        broken.push("the value has at most 63 characters");
    }
    if !value.is_empty() && !word(value) {
        broken
            .push("the value has letters, digits, '-', '_' and '.' only, with a letter or digit at each end");
    }
    broken
}

fn word(text: &str) -> bool {
    let bytes = text.as_bytes();
    let edge = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    edge(bytes.first())
        && edge(bytes.last())
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn violation_count(check: impl FnOnce(&mut FieldViolations)) -> Vec<String> {
        let mut violations = FieldViolations::default();
        check(&mut violations);
        violations.0.into_iter().map(|v| v.field).collect()
    }

    #[test]
    fn dataplane_address_is_an_ip_or_a_dns_name() {
        for good in ["10.0.0.1", "fd00::1", "a.b_c", "localhost", "ip-1.ec2.internal.", "256.1.1.1"] {
            assert!(violation_count(|v| address(v, "n", good)).is_empty(), "{good}");
        }
        for bad in ["", "0.0.0.0", "::", "a..b", "-a", "a b", "10.0.0.1:80", "*"] {
            assert_eq!(violation_count(|v| address(v, "n", bad)), ["n.address"], "{bad}");
        }
    }

    #[test]
    fn each_broken_label_rule_is_a_violation() {
        let one = |key, value| violation_count(|v| labels(v, [(key, value)].into_iter()));
        assert!(one("a.b/c", "").is_empty());
        assert_eq!(one("a/b/c", "x").len(), 1);
        assert_eq!(one("/b", "x").len(), 1);
        assert_eq!(one("", "x").len(), 2);
        let long = "a:".repeat(32);
        assert_eq!(one("k", &long).len(), 2);
    }

    #[test]
    fn names_must_be_lower_case_dns_names() {
        for bad in ["", "A", "a_b", "-a", "a-", "a..b", ".a", "a b"] {
            assert_eq!(violation_count(|v| name(v, "name", bad)), ["name"], "{bad}");
        }
        assert!(violation_count(|v| name(v, "name", "1.a-b.c")).is_empty());
    }
}
