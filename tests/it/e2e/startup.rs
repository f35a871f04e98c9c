//! Wrong arguments, a taken port, no credentials, no Region.

use std::collections::BTreeMap;
use std::net::TcpListener;

use tempfile::TempDir;

use super::harness::{Harness, OperatorProcess};

/// What the program says to these arguments, and its exit code.
async fn run(environment: &[(&str, &str)], arguments: &[&str]) -> (Option<i32>, String) {
    let directory = TempDir::new().unwrap();
    let environment: BTreeMap<String, String> =
        environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let mut process = OperatorProcess::start(directory.path(), "program", &environment, arguments);
    (process.code().await, process.stderr())
}

#[tokio::test]
async fn wrong_arguments_are_refused_with_what_is_allowed() {
    let manifests = ["run", "--operator-id", "house", "--manifests", "."];
    let with = |more: &[&'static str]| [&manifests, more].concat();
    let cases: [(Vec<&str>, &[&str]); 10] = [
        (vec!["sandbox", "--duration", "5"], &["--duration", "unit", "5s"]),
        (vec!["sandbox", "--duration", "soon"], &["--duration", "soon"]),
        (vec!["sandbox", "--subnet", "nonsense"], &["--subnet", "nonsense", "10.0.0.0/16"]),
        (vec!["sandbox", "--subnet", "10.0.0.0/33"], &["/8 to /28"]),
        (vec!["sandbox", "--world", "flat"], &["demo", "none"]),
        (vec!["sandbox", "--tasks", "0"], &["1..=20000"]),
        (vec!["run", "--operator-id", "house"], &["--manifests"]),
        (vec!["run", "--operator-id", "No Name!", "--manifests", "."], &["--operator-id", "No Name!"]),
        (with(&["--poison", "eat"]), &["delete", "redrive"]),
        (with(&["--graceful-shutdown-timeout", "20"]), &["--graceful-shutdown-timeout", "unit"]),
    ];
    for (arguments, words) in cases {
        let (code, said) = run(&[], &arguments).await;
        assert_eq!(code, Some(1), "{arguments:?}: {said}");
        for word in words {
            assert!(said.contains(word), "{arguments:?} does not say {word:?}: {said}");
        }
    }
}

#[tokio::test]
async fn a_taken_port_is_named_with_what_to_do() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    for (option, server) in [("--aws-port", "AWS"), ("--kuma-port", "Kuma")] {
        let (code, said) = run(&[], &["sandbox", "--serve", "--world", "none", option, &port]).await;
        assert_eq!(code, Some(1), "{said}");
        for word in [server, port.as_str()] {
            assert!(said.contains(word), "{said}");
        }
        assert!(said.starts_with("error: ") && !said.contains("panicked"), "{said}");
    }
}

#[tokio::test]
async fn a_queue_url_that_is_none_is_refused() {
    let arguments = ["run", "--operator-id", "house", "--manifests", ".", "--queue-url", "my-queue"];
    let (code, said) = run(&[("AWS_REGION", "eu-west-1")], &arguments).await;
    assert_eq!(code, Some(1));
    assert!(said.contains("my-queue") && said.contains("https://sqs."), "{said}");
}

#[tokio::test]
async fn a_password_in_the_queue_url_is_refused_and_not_repeated() {
    let url = "https://somebody:planted-password@sqs.eu-west-1.amazonaws.com/111122223333/events";
    let arguments = ["run", "--operator-id", "house", "--manifests", ".", "--queue-url", url];
    let (code, said) = run(&[("AWS_REGION", "eu-west-1")], &arguments).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("queue") && !said.contains("planted-password"), "{said}");
}

#[tokio::test]
async fn without_a_region_the_start_is_refused() {
    let (code, said) =
        run(&[("AWS_EC2_METADATA_DISABLED", "true")], &["run", "--operator-id", "house", "--manifests", "."])
            .await;
    assert_eq!(code, Some(1));
    assert!(said.contains("AWS_REGION"), "{said}");
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
    let arguments = ["plan", "--operator-id", "house", "--manifests", "nowhere.yaml"];
    let (code, said) = run(&environment, &arguments).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("ca-certificates") && !said.contains("panicked"), "{said}");
    environment.push(("AWS_ENDPOINT_URL", "http://127.0.0.1:9"));
    let (code, said) = run(&environment, &arguments).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("nowhere.yaml") && !said.contains("panicked"), "{said}");
    assert_eq!(said.matches("nowhere.yaml").count(), 1, "said twice: {said}");
}

#[tokio::test]
async fn missing_credentials_are_logged_with_a_fix() {
    let house = Harness::open().await;
    house.manifest("all.yaml", &house.usual());
    let mut environment = house.environment.clone();
    environment.remove("AWS_ACCESS_KEY_ID");
    environment.remove("AWS_SECRET_ACCESS_KEY");
    environment.insert("AWS_EC2_METADATA_DISABLED".to_owned(), "true".to_owned());
    let queue = house.variable("ECS_MESH_QUEUE_URL").to_owned();
    let mut operator = house.operator_with("operator", &environment, &["--queue-url", &queue]);
    operator.line(&[("level", "WARN"), ("error", "AWS_ACCESS_KEY_ID")]).await;
    operator.wait_for_sweep(false).await;
    assert!(operator.is_running());
    operator.signal("TERM");
    assert_eq!(operator.code().await, Some(0));
}
