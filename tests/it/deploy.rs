//! Checks `deploy/` with cfn-lint, hadolint and moto, through `tests/python/deploy.py`.

use std::process::Command;

/// Runs one check with the Python of `DEPLOY_TEST_PYTHON`, which has the packages of
/// `tests/python/requirements-deploy.txt`.
fn check(name: &str) {
    let Some(python) = std::env::var_os("DEPLOY_TEST_PYTHON") else {
        println!("skipped: DEPLOY_TEST_PYTHON does not name a Python with cfn-lint, moto and hadolint");
        return;
    };
    let output = Command::new(python)
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python/deploy.py"))
        .arg(name)
        .env("OPERATOR", env!("CARGO_BIN_EXE_ecs-mesh-operator"))
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{out}");
    assert!(output.status.success(), "{out}\n{err}");
}

#[test]
fn cfn_lint_accepts_templates_and_policy() {
    check("lint");
}

#[test]
fn image_has_no_shell_and_no_root() {
    check("images");
}

#[test]
fn template_rejects_missing_and_wrong_parameters() {
    check("parameters");
}

#[test]
fn stack_task_role_matches_the_reference() {
    check("role");
}

#[test]
fn member_role_reads_its_clusters_alone() {
    check("member");
}

#[test]
fn queue_policies_allow_only_the_stacks_rules() {
    check("queue_policy");
}

#[test]
fn stack_service_runs_one_copy_with_stop_timeout() {
    check("service");
}

#[test]
fn event_flows_through_the_stack() {
    check("stack");
}

#[test]
fn cloudwatch_dashboard_shows_metrics_that_exist() {
    check("dashboard");
}

/// The app starts after its sidecar is ready and stops before it, and each has the time that it needs.
#[test]
fn example_task_definition_stops_the_app_first() {
    let text = include_str!("../../examples/task-definitions/demo-app.json");
    let definition: serde_json::Value = serde_json::from_str(text).unwrap();
    let containers = definition["containerDefinitions"].as_array().unwrap();
    let named = |name: &str| containers.iter().find(|container| container["name"] == name).unwrap();
    let (app, sidecar) = (named("workload"), named("sidecar"));
    assert_eq!(app["dependsOn"], serde_json::json!([{"containerName": "sidecar", "condition": "HEALTHY"}]));
    assert!(sidecar["healthCheck"]["command"].to_string().contains(":9902/ready"));
    assert!(containers.iter().all(|container| container["essential"] == true));
    assert!(sidecar["stopTimeout"].as_u64() > app["stopTimeout"].as_u64());
}
