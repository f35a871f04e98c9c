//! Start-up errors: invalid arguments, a port in use, missing credentials, a missing Region.

use std::collections::BTreeMap;
use std::net::TcpListener;

use tempfile::TempDir;

use super::harness::{Harness, OperatorProcess};

/// Runs the program and returns exit code and standard error.
async fn run(environment: &[(&str, &str)], arguments: &[&str]) -> (Option<i32>, String) {
    let directory = TempDir::new().unwrap();
    let environment: BTreeMap<String, String> =
        environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let mut process = OperatorProcess::start(directory.path(), "program", &environment, arguments);
    (process.code().await, process.stderr())
}

#[tokio::test]
async fn invalid_arguments_are_rejected_with_allowed_values() {
    let manifests = ["run", "--operator-id", "harness", "--manifests", "."];
    let with = |more: &[&'static str]| [&manifests, more].concat();
    let cases: [(Vec<&str>, &[&str]); 10] = [
        (vec!["sandbox", "--duration", "5"], &["--duration", "unit", "5s"]),
        (vec!["sandbox", "--duration", "soon"], &["--duration", "soon"]),
        (vec!["sandbox", "--subnet", "nonsense"], &["--subnet", "nonsense", "10.0.0.0/16"]),
        (vec!["sandbox", "--subnet", "10.0.0.0/33"], &["/8 to /28"]),
        (vec!["sandbox", "--world", "flat"], &["demo", "none"]),
        (vec!["sandbox", "--tasks", "0"], &["1..=20000"]),
        (vec!["run", "--operator-id", "harness"], &["--manifests"]),
        (vec!["run", "--operator-id", "No Name!", "--manifests", "."], &["--operator-id", "No Name!"]),
        (with(&["--poison", "eat"]), &["delete", "redrive"]),
        (with(&["--graceful-shutdown-timeout", "20"]), &["--graceful-shutdown-timeout", "unit"]),
    ];
    for (arguments, parts) in cases {
        let (code, stderr) = run(&[], &arguments).await;
        assert_eq!(code, Some(1), "{arguments:?}: {stderr}");
        for part in parts {
            assert!(stderr.contains(part), "{arguments:?} does not contain {part:?}: {stderr}");
        }
    }
}

#[tokio::test]
async fn port_in_use_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    for (option, server) in [("--aws-port", "AWS"), ("--kuma-port", "Kuma")] {
        let (code, stderr) = run(&[], &["sandbox", "--serve", "--world", "none", option, &port]).await;
        assert_eq!(code, Some(1), "{stderr}");
        for part in [server, port.as_str()] {
            assert!(stderr.contains(part), "{stderr}");
        }
        assert!(stderr.starts_with("error: ") && !stderr.contains("panicked"), "{stderr}");
    }
}

#[tokio::test]
async fn invalid_queue_url_is_rejected() {
    let arguments = ["run", "--operator-id", "harness", "--manifests", ".", "--queue-url", "my-queue"];
    let (code, stderr) = run(&[("AWS_REGION", "eu-west-1")], &arguments).await;
    assert_eq!(code, Some(1));
    assert!(stderr.contains("my-queue") && stderr.contains("https://sqs."), "{stderr}");
}

#[tokio::test]
async fn queue_url_with_password_is_rejected_and_not_printed() {
    let url = "https://user:planted-password@sqs.eu-west-1.amazonaws.com/111122223333/events";
    let arguments = ["run", "--operator-id", "harness", "--manifests", ".", "--queue-url", url];
    let (code, stderr) = run(&[("AWS_REGION", "eu-west-1")], &arguments).await;
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("queue") && !stderr.contains("planted-password"), "{stderr}");
}

#[tokio::test]
async fn start_fails_without_a_region() {
    let (code, stderr) = run(
        &[("AWS_EC2_METADATA_DISABLED", "true")],
        &["run", "--operator-id", "harness", "--manifests", "."],
    )
    .await;
    assert_eq!(code, Some(1));
    assert!(stderr.contains("AWS_REGION"), "{stderr}");
}

#[tokio::test]
async fn start_without_ca_fails_when_tls_is_needed() {
    let nothing = TempDir::new().unwrap();
    let (file, directory) = (nothing.path().join("none.pem"), nothing.path());
    std::fs::write(&file, "").unwrap();
    let mut environment = vec![
        ("AWS_REGION", "eu-west-1"),
        ("SSL_CERT_FILE", file.to_str().unwrap()),
        ("SSL_CERT_DIR", directory.to_str().unwrap()),
    ];
    let arguments = ["plan", "--operator-id", "harness", "--manifests", "nowhere.yaml"];
    let (code, stderr) = run(&environment, &arguments).await;
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("ca-certificates") && !stderr.contains("panicked"), "{stderr}");
    environment.push(("AWS_ENDPOINT_URL", "http://127.0.0.1:9"));
    let (code, stderr) = run(&environment, &arguments).await;
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("nowhere.yaml") && !stderr.contains("panicked"), "{stderr}");
    assert_eq!(stderr.matches("nowhere.yaml").count(), 1, "repeated: {stderr}");
}

#[tokio::test]
async fn missing_credentials_are_logged_with_a_fix() {
    let harness = Harness::start().await;
    harness.manifest("all.yaml", &harness.base_manifests());
    let mut environment = harness.environment.clone();
    environment.remove("AWS_ACCESS_KEY_ID");
    environment.remove("AWS_SECRET_ACCESS_KEY");
    environment.insert("AWS_EC2_METADATA_DISABLED".to_owned(), "true".to_owned());
    let queue = harness.variable("ECS_MESH_QUEUE_URL").to_owned();
    let mut operator = harness.operator_with("operator", &environment, &["--queue-url", &queue]);
    operator.line(&[("level", "WARN"), ("error", "AWS_ACCESS_KEY_ID")]).await;
    operator.wait_for_sweep(false).await;
    assert!(operator.is_running());
    operator.signal("TERM");
    assert_eq!(operator.code().await, Some(0));
}

#[tokio::test]
async fn consul_of_the_lease_in_an_unread_source_is_explained() {
    let harness = Harness::start().await;
    let arguments =
        ["run", "--operator-id", "harness", "--manifests", "s3://no-bucket/prod/", "--lease", "consul"];
    let mut process =
        OperatorProcess::start(harness.directory.path(), "unread", &harness.environment, &arguments);
    assert_eq!(process.code().await, Some(1), "the service starts it again");
    let stderr = process.stderr();
    for part in ["no ControlPlane of type consul", "not read: ", "s3://no-bucket/prod/"] {
        assert!(stderr.contains(part), "{stderr}");
    }
}
