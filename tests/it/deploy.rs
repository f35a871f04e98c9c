//! What `deploy/` holds, checked by cfn-lint, hadolint and moto. `tests/python/deploy.py` does the work.

use std::process::Command;

/// Runs one check. Set `DEPLOY_TEST_PYTHON` to a Python that has `tests/python/requirements-deploy.txt`.
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
fn cfn_lint_finds_nothing_in_the_templates_and_the_policy() {
    check("lint");
}

#[test]
fn hadolint_finds_nothing_and_the_image_has_neither_shell_nor_root() {
    check("images");
}

#[test]
fn a_template_parameter_left_out_is_named_and_a_wrong_one_is_refused() {
    check("parameters");
}

#[test]
fn the_stacks_task_role_may_do_what_the_reference_says_and_nothing_else() {
    check("role");
}

#[test]
fn only_the_stacks_own_rules_send_to_its_queues() {
    check("queue_policy");
}

#[test]
fn the_service_runs_one_copy_with_time_to_drain_and_a_log_that_loses_nothing() {
    check("service");
}

#[test]
fn an_event_goes_through_the_stack_and_the_operator_takes_it_off_the_queue() {
    check("stack");
}
