//! Checks `deploy/terraform` with its tools, through `tests/python/terraform.py`.

use std::process::Command;

/// Runs one check with the Python of `DEPLOY_TEST_PYTHON`, if the tools that these variables name are there.
fn check(name: &str, needed: &[&str]) {
    for variable in ["DEPLOY_TEST_PYTHON"].iter().chain(needed) {
        if std::env::var_os(variable).is_none() {
            println!("skipped: {variable} is not set");
            return;
        }
    }
    let output = Command::new(std::env::var_os("DEPLOY_TEST_PYTHON").unwrap())
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python/terraform.py"))
        .arg(name)
        .env("OPERATOR", env!("CARGO_BIN_EXE_ecs-mesh-operator"))
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{out}");
    assert!(output.status.success(), "{out}\n{err}");
}

const PLUGINS: &[&str] = &["TERRAFORM_TEST_PLUGINS"];

#[test]
fn modules_use_what_is_declared_and_what_the_provider_has() {
    check("wiring", &["TERRAFORM_TEST_SCHEMA"]);
}

#[test]
fn terraforms_parser_accepts_format_of_all_files() {
    check("parser", &["HCLFMT_TEST_BIN"]);
}

#[test]
fn readme_of_each_module_has_its_inputs_and_outputs() {
    check("readmes", &[]);
}

#[test]
fn checkov_accepts_modules_and_templates() {
    check("checkov", &["CHECKOV_TEST_BIN"]);
}

#[test]
fn protect_role_tags_covers_every_path_of_roles() {
    check("role_tags", &[]);
}

#[test]
fn terraform_accepts_examples_and_format() {
    check("validate", PLUGINS);
}

#[test]
fn operator_module_rejects_what_the_template_rejects() {
    check("inputs", &[]);
}

#[test]
fn operator_module_refuses_contradictions() {
    check("preconditions", PLUGINS);
}

#[test]
fn operator_module_creates_what_the_template_creates() {
    check("cloudformation", PLUGINS);
}

#[test]
fn team_events_module_creates_what_the_template_creates() {
    check("team_events", PLUGINS);
}

#[test]
fn member_module_creates_what_the_template_creates() {
    check("member", PLUGINS);
}

#[test]
fn operator_accepts_the_workload_modules_output() {
    check("workload", PLUGINS);
}

#[test]
fn examples_leave_no_changes_when_applied_in_order() {
    check("examples", PLUGINS);
}
