//! `doctor` and `audit` against a real server.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::server::RealKuma;
use crate::e2e::harness::{Harness, OperatorProcess, binding, control_plane, workload};

/// The checks of a control plane with their worst status, and their findings.
fn checks(report: &Value) -> BTreeMap<String, (String, Vec<String>)> {
    let mut found: BTreeMap<String, (String, Vec<String>)> = BTreeMap::new();
    let rank = |status: &str| {
        ["ok", "info", "unknown", "warning", "error"].iter().position(|known| *known == status)
    };
    for check in report["checks"].as_array().unwrap() {
        let text = |field: &str| check[field].as_str().unwrap_or_default().to_owned();
        if !text("id").starts_with("control-plane.") {
            continue;
        }
        let (worst, findings) = found.entry(text("id")).or_default();
        if rank(&text("status")) > rank(worst) {
            *worst = text("status");
        }
        findings.push(check.to_string());
    }
    found
}

#[tokio::test]
async fn doctor_and_audit_read_the_server() {
    let Some(kuma) = RealKuma::start("doctor and audit").await else { return };
    let mut harness = Harness::start().await;
    harness.environment.insert("KUMA_API_URL".to_owned(), kuma.url.clone());
    harness.deploy("app", 1).await;
    harness.running(1).await;
    let base = [
        control_plane("kuma", &kuma.url, ""),
        binding("harness", "kuma", harness.variable("ECS_MESH_CLUSTER_ARN"), ""),
        workload("app", "app"),
    ];
    harness.manifest("base.yaml", &base.concat());

    let (_, out, err) = harness.run_to_end(&["doctor", "--output", "json"]).await;
    let report = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}\n{err}"));
    let checks = checks(&report);
    let is_release = kuma.version.split('.').all(|part| part.parse::<u32>().is_ok());
    for (id, status) in [
        ("control-plane.reached", "ok"),
        ("control-plane.version", if is_release { "ok" } else { "warning" }),
        ("control-plane.mode", "ok"),
        // Sidecars need no tokens here.
        ("control-plane.identity", "warning"),
        ("control-plane.token", "ok"),
        ("control-plane.dataplanes", "ok"),
        ("control-plane.mesh", "ok"),
    ] {
        let (found, findings) = checks.get(id).unwrap_or_else(|| panic!("no {id}: {out}"));
        assert_eq!(found, status, "{id}: {findings:#?}");
        kuma.report("doctor", json!({"id": id, "status": status, "findings": findings}));
    }

    let manifests = harness.path("manifests");
    let arguments = ["audit", "--output", "json", "--manifests", manifests.to_str().unwrap()];
    let mut audit =
        OperatorProcess::start(harness.directory.path(), "audit", &harness.environment, &arguments);
    let code = audit.code().await;
    let (out, err) = (audit.stdout(), audit.stderr());
    let report: Value = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}\n{err}"));
    let findings = report["findings"].as_array().unwrap();
    let found: Vec<String> =
        findings.iter().map(|one| format!("{} {}", one["rule"], one["severity"]).replace('"', "")).collect();
    kuma.report("audit", json!({"code": code, "found": found, "findings": findings}));
    let unread = found.iter().find(|one| one.starts_with("AUDIT-CONTROL-PLANE-NO-ANSWER"));
    assert_eq!(unread, None, "{out}");
}
