//! Three validators of a manifest: the loader, the JSON Schema for editors in a published validator, and the code of the
//! Kubernetes API server with the CRDs. Each returns the invalid fields.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use ecs_mesh_api::manifests::ManifestScope;
use ecs_mesh_manifests::ManifestSources;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{root, schemas};

/// Documents as YAML by name.
pub(super) type NamedManifests = BTreeMap<String, String>;

/// Findings of each document by name; empty if it is accepted.
pub(super) type ReportedErrors = BTreeMap<String, Vec<ReportedError>>;

#[derive(Debug, Deserialize)]
pub(super) struct ReportedError {
    pub(super) at: String,
    pub(super) reason: String,
}

impl ReportedError {
    /// Whether the finding is about this field or one within. For rules between fields the API server names the field in
    /// the message.
    pub(super) fn names(&self, field: &str) -> bool {
        let within = self
            .at
            .strip_prefix(field)
            .is_some_and(|rest| matches!(rest.chars().next(), None | Some('.' | '[')));
        within || self.reason.contains(&format!("\"{field}\""))
    }
}

/// Loads each manifest alone, without checks of references.
pub(super) fn loading(manifests: &NamedManifests) -> ReportedErrors {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("a.yaml");
    let validator = |(name, text): (&String, &String)| {
        fs::write(&file, text).unwrap();
        let sources = ManifestSources::new([file.clone()]);
        let errors = sources.check(ManifestScope::Partial, &crate::allow_all()).errors;
        let faults = errors.into_iter().map(|error| ReportedError { at: error.path, reason: error.message });
        (name.clone(), faults.collect())
    };
    manifests.iter().map(validator).collect()
}

/// `None` without a validator, which is printed.
pub(super) fn editor(manifests: &NamedManifests) -> Option<ReportedErrors> {
    let Some(python) = std::env::var_os("SCHEMA_TEST_PYTHON") else {
        skipped("JSON Schema", "SCHEMA_TEST_PYTHON does not name a Python with jsonschema");
        return None;
    };
    let mut validator = Command::new(python);
    validator.arg(root().join("tests/python/editor_schema.py"));
    let schema = schemas().join(ecs_mesh_api::schema::EDITOR_SCHEMA);
    Some(
        serde_json::from_value(ask(validator, &json!({ "schema": schema, "manifests": manifests }))).unwrap(),
    )
}

/// Findings of the API server.
#[derive(Debug, Deserialize)]
pub(super) struct ApiServerReply {
    /// Findings about the CRDs.
    pub(super) definitions: Vec<String>,
    pub(super) manifests: ReportedErrors,
}

/// `None` if its code is not available, which is printed.
pub(super) fn server(definitions: &[String], manifests: &NamedManifests) -> Option<ApiServerReply> {
    static JUDGE: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    match JUDGE.get_or_init(build) {
        Ok(validator) => {
            let question = json!({ "definitions": definitions, "manifests": manifests });
            Some(serde_json::from_value(ask(Command::new(validator), &question)).unwrap())
        }
        Err(reason) => {
            skipped("API server", reason);
            None
        }
    }
}

/// The committed CRDs.
pub(super) fn definitions() -> Vec<String> {
    let mut paths: Vec<PathBuf> = fs::read_dir(schemas()).unwrap().map(|file| file.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    paths.sort();
    paths.iter().map(|path| fs::read_to_string(path).unwrap()).collect()
}

/// Builds the validator; an error is the reason why its modules are not available. A failed build fails the test.
fn build() -> Result<PathBuf, String> {
    let source = root().join("tests/crds");
    let go = |arguments: &[&str]| Command::new("go").current_dir(&source).args(arguments).output();
    let modules = go(&["list", "-mod=readonly", "-deps", "-f", "{{.ImportPath}}", "."]).map_err(|error| {
        format!("go cannot be run ({error}); it builds the API server's code, see tests/crds")
    })?;
    if !modules.status.success() {
        return Err(format!("Go modules cannot be had: {}", last_line(&modules.stderr)));
    }
    let validator = Path::new(env!("CARGO_TARGET_TMPDIR")).join("crds-validator");
    let built = go(&["build", "-mod=readonly", "-o", validator.to_str().unwrap(), "."]).unwrap();
    assert!(built.status.success(), "tests/crds: {}", String::from_utf8_lossy(&built.stderr));
    Ok(validator)
}

fn last_line(text: &[u8]) -> String {
    String::from_utf8_lossy(text).trim().lines().last().unwrap_or_default().to_owned()
}

/// Sends JSON to standard input, which both validators read to the end before they respond.
fn ask(mut validator: Command, question: &Value) -> Value {
    let mut running =
        validator.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    running.stdin.take().unwrap().write_all(question.to_string().as_bytes()).unwrap();
    let answer = running.wait_with_output().unwrap();
    assert!(answer.status.success(), "{}", String::from_utf8_lossy(&answer.stderr));
    serde_json::from_slice(&answer.stdout).unwrap()
}

/// Prints a line that the test harness does not capture.
fn skipped(validator: &str, reason: &str) {
    let _ = writeln!(std::io::stderr(), "judging by {validator} skipped: {reason}");
}
