//! The report as SARIF 2.1.0 for code scanning: each result has a file (or a path made of its resource), a line, a rule and
//! a fingerprint that does not depend on the line.

use std::fmt::Write as _;
use std::path::{Component, Path};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::report::{AuditFinding, AuditReport, AuditRule, FindingLocation, Severity, sentence};
use super::rules_catalog;

const SCHEMA: &str = "https://json.schemastore.org/sarif-2.1.0.json";
/// Characters that are not escaped in the path of a URI.
const PATH: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'/').remove(b':');

/// The report as a SARIF log. Files below `root` are relative to it.
pub fn sarif(report: &AuditReport, root: &Path) -> Value {
    let not_checked: Vec<Value> = report
        .not_checked
        .iter()
        .map(|check| json!({"level": "note", "message": {"text": format!("Not checked: {check}.")}}))
        .collect();
    json!({
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {
                "name": "ecs-mesh-operator audit",
                "semanticVersion": env!("CARGO_PKG_VERSION"),
                "rules": rules_catalog::ALL.iter().map(rule).collect::<Vec<_>>(),
            }},
            "automationDetails": {"id": "ecs-mesh-operator/audit/"},
            "invocations": [{"executionSuccessful": true, "toolExecutionNotifications": not_checked}],
            "columnKind": "utf16CodeUnits",
            "results": report.findings.iter().map(|finding| result(finding, root)).collect::<Vec<_>>(),
        }],
    })
}

fn rule(rule: &AuditRule) -> Value {
    let markdown = format!(
        "{}\n\n**Fix:** {}\n\n[Source]({})",
        sentence(rule.rationale),
        sentence(rule.fix),
        rule.source
    );
    json!({
        "id": rule.id,
        "shortDescription": {"text": sentence(rule.title)},
        "fullDescription": {"text": sentence(rule.rationale)},
        "help": {
            "text": format!("{} Fix: {}", sentence(rule.rationale), sentence(rule.fix)),
            "markdown": markdown,
        },
        "helpUri": rule.source,
        "defaultConfiguration": {"level": level(rule.severity)},
        "properties": {"tags": tags(rule.id)},
    })
}

/// The control planes that a rule is about: its own, or both.
fn tags(rule: &str) -> &'static [&'static str] {
    match rule.split('-').next() {
        Some("CONSUL") => &["consul", "ecs"],
        Some("KUMA") => &["kuma", "ecs"],
        _ => &["consul", "kuma", "ecs"],
    }
}

fn result(finding: &AuditFinding, root: &Path) -> Value {
    let index = rules_catalog::ALL.iter().position(|rule| rule.id == finding.rule);
    let mut message = format!(
        "{} {} Fix: {}",
        sentence(&finding.message),
        sentence(finding.rationale),
        sentence(&finding.fix)
    );
    let at = &finding.location;
    let place: Vec<&str> = [&at.container, &at.field].into_iter().flatten().map(String::as_str).collect();
    if !place.is_empty() {
        message = format!("{}: {message}", place.join(", "));
    }
    let fingerprint = fingerprint(finding);
    let mut result = json!({
        "ruleId": finding.rule,
        "level": level(finding.severity),
        "message": {"text": message},
        "locations": [location(at, root)],
        "partialFingerprints": {"primaryLocationLineHash": format!("{fingerprint}:1"), "ecsMeshAudit/v1": fingerprint},
        "properties": {"severity": finding.severity.as_str()},
    });
    if let Some(index) = index {
        result["ruleIndex"] = json!(index);
    }
    if finding.severity == Severity::Unknown {
        // SARIF allows no level for an evaluation that could not be completed.
        result["kind"] = json!("open");
    }
    result
}

fn level(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Info => "note",
        Severity::Unknown => "none",
    }
}

fn location(at: &FindingLocation, root: &Path) -> Value {
    let (uri, is_relative) = uri(at, root);
    let mut artifact = json!({"uri": uri});
    if is_relative {
        artifact["uriBaseId"] = json!("%SRCROOT%");
    }
    let mut location = json!({
        "physicalLocation": {"artifactLocation": artifact, "region": {"startLine": at.line.unwrap_or(1)}},
    });
    let mut logical = Vec::new();
    if let Some(resource) = &at.resource {
        logical.push(json!({"fullyQualifiedName": resource, "kind": "resource"}));
    }
    if let Some(container) = &at.container {
        logical.push(json!({"name": container, "kind": "module"}));
    }
    if let Some(field) = &at.field {
        logical.push(json!({"fullyQualifiedName": field, "kind": "member"}));
    }
    if !logical.is_empty() {
        location["logicalLocations"] = json!(logical);
    }
    location
}

/// Code scanning shows no result without a path, so a resource gets one that is made of its name.
fn uri(location: &FindingLocation, root: &Path) -> (String, bool) {
    let encoded = |text: &str| utf8_percent_encode(text, PATH).to_string();
    let Some(file) = &location.file else {
        let resource = location.resource.as_deref().unwrap_or("audit");
        let is_named = ["consul", "kuma", "Workload/"].iter().any(|start| resource.starts_with(start));
        let base = if is_named { "" } else { "aws/" };
        return (format!("{base}{}", encoded(resource)), true);
    };
    let path = Path::new(&**file);
    let path = path.strip_prefix(root).unwrap_or(path);
    let parts: Vec<String> = path
        .components()
        .filter(|part| !matches!(part, Component::CurDir | Component::RootDir))
        .map(|part| encoded(&part.as_os_str().to_string_lossy()).replace(':', "%3A"))
        .collect();
    let joined = parts.join("/");
    if path.is_absolute() { (format!("file:///{joined}"), false) } else { (joined, true) }
}

/// A hash of everything that identifies the finding except the line.
fn fingerprint(finding: &AuditFinding) -> String {
    let FindingLocation { file, line: _, resource, container, field } = &finding.location;
    let parts = [
        Some(finding.rule),
        file.as_deref(),
        resource.as_deref(),
        container.as_deref(),
        field.as_deref(),
        Some(finding.message.as_str()),
    ];
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part.unwrap_or_default().as_bytes());
        hasher.update([0]);
    }
    let mut hex = String::new();
    for byte in &hasher.finalize()[..16] {
        // Writing to a String cannot fail.
        let _ = write!(hex, "{byte:02x}");
    }
    hex
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules_catalog::{LOGIN_DISABLED, NODE_MISSING};

    fn at(file: &str, line: u32) -> FindingLocation {
        FindingLocation { file: Some(file.into()), line: Some(line), ..FindingLocation::default() }
    }

    fn only(finding: AuditFinding) -> Value {
        sarif(&AuditReport::new(vec![finding], 1), Path::new("/work tree"))["runs"][0]["results"][0].clone()
    }

    #[test]
    fn sarif_paths_are_relative_only_below_the_root() {
        for (file, uri, base) in [
            ("deploy/a b.json", "deploy/a%20b.json", Some("%SRCROOT%")),
            ("./deploy/a.json", "deploy/a.json", Some("%SRCROOT%")),
            ("/work tree/a.json", "a.json", Some("%SRCROOT%")),
            ("/elsewhere/a.json", "file:///elsewhere/a.json", None),
        ] {
            let result = only(LOGIN_DISABLED.violation(at(file, 7), "x"));
            let place = &result["locations"][0]["physicalLocation"];
            assert_eq!(place["artifactLocation"]["uri"], uri);
            assert_eq!(place["artifactLocation"]["uriBaseId"].as_str(), base);
            assert_eq!(place["region"]["startLine"], 7);
        }
    }

    #[test]
    fn sarif_resource_has_logical_location_and_path() {
        let arn = "arn:aws:ecs:eu-west-1:111122223333:task-definition/kv:7";
        let result = only(LOGIN_DISABLED.violation(FindingLocation::resource(arn), "x"));
        let location = &result["locations"][0];
        assert_eq!(location["logicalLocations"][0]["fullyQualifiedName"], arn);
        assert_eq!(location["physicalLocation"]["artifactLocation"]["uri"], format!("aws/{arn}"));
        let node = only(NODE_MISSING.violation(FindingLocation::resource("consul/prod/node/a"), "x"));
        assert_eq!(node["locations"][0]["physicalLocation"]["artifactLocation"]["uri"], "consul/prod/node/a");
    }

    #[test]
    fn sarif_fingerprint_ignores_the_line() {
        let print = |line, message: &str| {
            only(LOGIN_DISABLED.violation(at("a.json", line), message))["partialFingerprints"].clone()
        };
        assert_eq!(print(1, "x"), print(9, "x"));
        assert_ne!(print(1, "x"), print(1, "y"));
    }

    #[test]
    fn unknown_finding_is_open_without_level() {
        let result = only(LOGIN_DISABLED.unknown(at("a.json", 1), "x"));
        assert_eq!((result["kind"].as_str(), result["level"].as_str()), (Some("open"), Some("none")));
    }
}
