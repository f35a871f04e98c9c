//! The feature `sandbox`: a build without it, as in the container image, contains no emulator.
//!
//! A build takes too long for a test. This one checks the dependencies; `.ci/run` builds and runs the program.

use std::process::Command;

/// The sandbox, and crates that no other part of the program needs.
const SANDBOX_CRATES: [&str; 3] = ["ecs-mesh-sandbox", "md-5", "quick-xml"];

/// The names of the crates in the program with these arguments of `cargo tree`.
fn crates(features: &[&str]) -> Vec<String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["tree", "--frozen", "-p", "ecs-mesh-operator", "-e", "normal", "--prefix", "none"])
        .args(features)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

#[test]
fn binary_without_sandbox_has_no_sandbox_command() {
    let (with, without) = (crates(&[]), crates(&["--no-default-features"]));
    for name in SANDBOX_CRATES {
        assert!(with.iter().any(|found| found == name), "{name} is no dependency of the sandbox any more");
        assert!(!without.iter().any(|found| found == name), "{name} is built without the feature `sandbox`");
    }
}
