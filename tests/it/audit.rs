//! `audit` as a process: checks files, or a sandbox and a Consul on loopback.

mod files;
mod kuma;
mod running;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// The secret in `tests/fixtures/audit/described.json` that no output may contain.
const PLANTED: &str = "3f2a9c0d-5e6b-4a71-8293-a4b5c6d7e8f9";

/// Exit code and output of a process.
struct AuditRun {
    code: Option<i32>,
    out: String,
    err: String,
}

impl AuditRun {
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {}\n{}", self.out, self.err))
    }

    /// Rule and severity of each finding.
    fn found(&self) -> Vec<(String, String)> {
        let report = self.json();
        let text = |finding: &Value, field: &str| finding[field].as_str().unwrap().to_owned();
        let findings = report["findings"].as_array().unwrap().iter();
        findings.map(|one| (text(one, "rule"), text(one, "severity"))).collect()
    }

    fn has(&self, rule: &str, severity: &str) -> bool {
        self.found().contains(&(rule.to_owned(), severity.to_owned()))
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

async fn audit(environment: &BTreeMap<String, String>, directory: &Path, arguments: &[&str]) -> AuditRun {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ecs-mesh-operator"));
    command.arg("audit").args(arguments).current_dir(directory);
    command.env_clear().env("HOME", directory).env("AWS_EC2_METADATA_DISABLED", "true");
    command.env("ECS_MESH_ALLOW_DIR", "/").envs(environment);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    AuditRun { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}
