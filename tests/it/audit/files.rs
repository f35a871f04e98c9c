//! Audits of files alone, as in a pipeline before a deployment.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::{AuditRun, PLANTED, audit, root};

const FILES: [&str; 4] = ["--task-definition", "good.json", "described.json", "broken.json"];

async fn of_files(more: &[&str]) -> AuditRun {
    let arguments: Vec<&str> = FILES.iter().chain(more).copied().collect();
    audit(&BTreeMap::new(), &root().join("tests/fixtures/audit"), &arguments).await
}

/// Compares with the file in `tests/golden/audit`; `UPDATE_GOLDEN=1` writes it.
fn golden(name: &str, found: &str) {
    let path = root().join("tests/golden/audit").join(name);
    let found = found.replace(env!("CARGO_PKG_VERSION"), "VERSION");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &found).unwrap();
    }
    let wanted = std::fs::read_to_string(&path).unwrap();
    assert_eq!(found, wanted, "{name} differs: UPDATE_GOLDEN=1 renews it, then read the diff");
}

/// The violations of a JSON Schema; `None` without a validator, which is printed.
fn schema_violations(schema: &str, documents: &Value) -> Option<Value> {
    let Some(python) = std::env::var_os("SCHEMA_TEST_PYTHON") else {
        println!(
            "skipped: audit's output in a JSON Schema validator: SCHEMA_TEST_PYTHON names no Python with jsonschema"
        );
        return None;
    };
    let mut validator = Command::new(python)
        .arg(root().join("tests/python/schema.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let question = json!({"schema": schema, "documents": documents});
    validator.stdin.take().unwrap().write_all(question.to_string().as_bytes()).unwrap();
    let output = validator.wait_with_output().unwrap();
    Some(serde_json::from_slice(&output.stdout).unwrap())
}

#[tokio::test]
async fn output_formats_match_their_golden_files() {
    for (form, name) in [("text", "report.txt"), ("json", "report.json"), ("sarif", "report.sarif")] {
        let run = of_files(&["--output", form]).await;
        assert_eq!((run.code, run.err.as_str()), (Some(1), ""));
        assert!(!run.out.contains(PLANTED), "{}", run.out);
        golden(name, &run.out);
    }
}

#[tokio::test]
async fn offline_audit_uses_declared_auth_methods() {
    let directory = tempfile::tempdir().unwrap();
    let fixture =
        |name: &str| std::fs::read_to_string(root().join("tests/fixtures/audit").join(name)).unwrap();
    std::fs::write(directory.path().join("kv.json"), fixture("good.json")).unwrap();
    for (bound, is_trusted) in [("role/consul-ecs/*", true), ("role/elsewhere/*", false)] {
        let manifests = fixture("mesh.yaml").replace("role/consul-ecs/*", bound);
        std::fs::write(directory.path().join("mesh.yaml"), manifests).unwrap();
        let arguments =
            ["--task-definition", "kv.json", "--manifests", "mesh.yaml", "--offline", "--output", "json"];
        let run = audit(&BTreeMap::new(), directory.path(), &arguments).await;
        assert_eq!(run.has("CONSUL-ROLE-PATH", "error"), !is_trusted, "{bound}: {}", run.out);
        let left = run.json()["notChecked"].to_string();
        assert!(left.contains("consul-prod") && left.contains("checked against the manifests"), "{left}");
        assert_eq!(run.code, Some(i32::from(!is_trusted)), "{}", run.out);
    }
}

#[tokio::test]
async fn valid_file_has_no_finding_and_lists_unchecked() {
    let directory = root().join("tests/fixtures/audit");
    let arguments = ["--task-definition", "good.json", "--output", "json"];
    let run = audit(&BTreeMap::new(), &directory, &arguments).await;
    assert_eq!((run.code, run.found()), (Some(0), Vec::new()), "{}", run.out);
    let left = run.json()["notChecked"].clone();
    assert_eq!(left.as_array().unwrap().len(), 2, "{left}");
    let run = audit(&BTreeMap::new(), &directory, &arguments[..2]).await;
    assert_eq!(run.out.matches("not checked: ").count(), 2, "{}", run.out);
}

#[tokio::test]
async fn audit_of_nothing_lists_the_possible_inputs() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("mesh.yaml"), "").unwrap();
    let run = audit(&BTreeMap::new(), directory.path(), &["--manifests", "mesh.yaml", "--offline"]).await;
    assert!(run.out.contains("not checked: task definitions: none was given"), "{}", run.out);
    assert!(run.out.contains("--task-definition FILE"), "{}", run.out);
}

#[tokio::test]
async fn audit_without_input_is_a_usage_error() {
    for with in [&[][..], &["--offline"], &["--region", "eu-west-1"], &["--output", "json"]] {
        let run = audit(&BTreeMap::new(), &root(), with).await;
        assert_eq!(run.code, Some(1), "{with:?}");
        assert!(run.err.contains("--task-definition") && run.out.is_empty(), "{}", run.err);
    }
}

#[tokio::test]
async fn sarif_fits_the_sarif_schema() {
    let Some(schema) = std::env::var("SARIF_SCHEMA").ok() else {
        println!("skipped: audit's SARIF against SARIF's own schema: SARIF_SCHEMA names no file");
        return;
    };
    let log = of_files(&["--output", "sarif"]).await.json();
    let mut worse = log.clone();
    worse["runs"][0]["results"][0]["level"] = json!("terrible");
    let Some(found) = schema_violations(&schema, &json!({"log": log, "worse": worse})) else { return };
    assert_eq!(found["log"], json!([]));
    assert_ne!(found["worse"], json!([]), "the validator accepts everything");
}

#[tokio::test]
async fn sarif_has_the_fields_for_code_scanning() {
    let log = of_files(&["--output", "sarif"]).await.json();
    let run = &log["runs"][0];
    let rules = run["tool"]["driver"]["rules"].as_array().unwrap();
    let results = run["results"].as_array().unwrap();
    assert!(!results.is_empty());
    for result in results {
        let rule = &rules[usize::try_from(result["ruleIndex"].as_u64().unwrap()).unwrap()];
        assert_eq!(rule["id"], result["ruleId"]);
        assert!(rule["helpUri"].as_str().unwrap().starts_with("https://"));
        assert!(!result["message"]["text"].as_str().unwrap().is_empty());
        assert!(result["partialFingerprints"]["primaryLocationLineHash"].is_string());
        let place = &result["locations"][0]["physicalLocation"];
        assert!(!place["artifactLocation"]["uri"].as_str().unwrap().is_empty(), "{result}");
        assert!(place["region"]["startLine"].as_u64().unwrap() > 0, "{result}");
    }
    // A finding about a field has the field's line.
    let bridge = results.iter().find(|one| one["ruleId"] == "NETWORK-MODE").unwrap();
    assert_eq!(bridge["locations"][0]["physicalLocation"]["region"]["startLine"], 8);
}

#[tokio::test]
async fn json_fits_the_published_schema() {
    let report = of_files(&["--output", "json"]).await.json();
    let schema = root().join("docs/reference/audit.schema.json");
    let Some(found) = schema_violations(schema.to_str().unwrap(), &json!({"report": report, "worse": {}}))
    else {
        return;
    };
    assert_eq!(found["report"], json!([]));
    assert_ne!(found["worse"], json!([]));
}
