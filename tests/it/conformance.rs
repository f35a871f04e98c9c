//! Compares the sandbox's AWS with other emulators: the same Python test functions run against all of them.

use std::ffi::OsString;
use std::io::Write as _;
use std::process::Command;

/// A Python with the packages of `tests/python/requirements.txt`; without one, prints that `what` is skipped.
pub(crate) fn python(what: &str) -> Option<OsString> {
    let python = std::env::var_os("SANDBOX_TEST_PYTHON");
    if python.is_none() {
        print_uncaptured(&format!(
            "skipped: {what}: SANDBOX_TEST_PYTHON names no Python with boto3, moto and ministack"
        ));
    }
    python
}

/// Prints a line that the test harness does not capture.
fn print_uncaptured(text: &str) {
    std::io::stdout().write_all(format!("{text}\n").as_bytes()).unwrap();
}

/// Skipped functions and their reasons are in `docs/reference/sandbox-conformance.md`.
#[test]
fn emulators_agree_except_known_deviations() {
    let Some(python) = python("the comparison of the sandbox with moto and ministack") else { return };
    let output = Command::new(python)
        .args([
            "-m",
            "pytest",
            "-q",
            "-rs",
            "--tb=short",
            "-p",
            "no:cacheprovider",
            "tests/python/conformance",
        ])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("ECS_MESH_OPERATOR", env!("CARGO_BIN_EXE_ecs-mesh-operator"))
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    print_uncaptured(&out);
    assert!(output.status.success(), "{out}\n{err}");
}
