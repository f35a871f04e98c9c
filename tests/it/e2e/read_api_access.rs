//! Access to the read API of a running operator: TLS, tokens, and what no answer contains.

use std::collections::BTreeMap;
use std::path::PathBuf;

use aws_sdk_ecs::types::{ContainerDefinition, KeyValuePair, NetworkMode, Secret};
use ecs_mesh_sandbox::aws::{CloudConfig, CreateSecret};
use ecs_mesh_sandbox::endpoints::{EndpointOptions, Endpoints};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;

use super::consul_harness::ConsulHarness;
use super::harness::{Harness, OperatorProcess, eventually};
use super::read_api::{get_with, is_whole};

const TOKEN: &str = "readers-token-0123456789";

/// A CA, which signs certificates for `localhost`.
struct Authority {
    params: CertificateParams,
    key: KeyPair,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self { params, key: KeyPair::generate().unwrap() }
    }

    /// Writes the CA's certificate to a file.
    fn write(&self, harness: &Harness, name: &str) -> String {
        file(harness, name, &self.params.self_signed(&self.key).unwrap().pem())
    }

    /// Writes a certificate that is valid until this year, and its key, to files.
    fn sign(&self, harness: &Harness, name: &str, until: i32) -> [String; 2] {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(until, 1, 1));
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &Issuer::from_params(&self.params, &self.key)).unwrap();
        [
            file(harness, &format!("{name}.pem"), &certificate.pem()),
            file(harness, &format!("{name}.key"), &key.serialize_pem()),
        ]
    }
}

pub(super) fn file(harness: &Harness, name: &str, text: &str) -> String {
    let path: PathBuf = harness.path(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

/// The address of the API, once the operator listens.
pub(super) async fn address(operator: &OperatorProcess) -> String {
    let line = operator.line(&[("server", "api"), ("address", "")]).await;
    line["address"].as_str().unwrap().to_owned()
}

/// Runs a command that reads the operator, and returns exit code, standard output and standard error.
async fn read(harness: &Harness, name: &str, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut process = OperatorProcess::start(harness.directory.path(), name, &BTreeMap::new(), arguments);
    (process.code().await, process.stdout(), process.stderr())
}

#[tokio::test]
async fn client_reads_by_tls_with_the_ca_and_the_token() {
    let harness = Harness::start().await;
    harness.manifest("all.yaml", &harness.base_manifests());
    let (authority, another) = (Authority::new(), Authority::new());
    let (ca, other_ca) = (authority.write(&harness, "ca.pem"), another.write(&harness, "other-ca.pem"));
    let token = file(&harness, "token", &format!("{TOKEN}\n"));
    let wrong = file(&harness, "wrong-token", "readers-token-of-another-operator");
    let serve = |name: &'static str, until| {
        let [certificate, key] = authority.sign(&harness, name, until);
        let tls = ["--api-tls-cert-file", &certificate, "--api-tls-key-file", &key];
        let api = ["--api-address", "127.0.0.1:0", "--api-token-file", &token];
        harness.operator_with(name, &harness.environment, &[&tls[..], &api[..]].concat())
    };
    let (operator, expired) = (serve("valid", 2120), serve("expired", 2021));
    let url = |address: &str| format!("https://localhost:{}", address.rsplit_once(':').unwrap().1);
    let (valid_url, expired_url) = (url(&address(&operator).await), url(&address(&expired).await));
    let read = async |name: &str, url: &str, ca: &str, token: &str| {
        let arguments = ["get", "bindings", "--api-address", url, "--api-ca-file", ca];
        let token: &[&str] = if token.is_empty() { &[] } else { &["--api-token-file", token] };
        read(&harness, name, &[&arguments, token].concat()).await
    };
    let (code, out, err) = read("with-all", &valid_url, &ca, &token).await;
    assert!(code == Some(0) && out.contains("harness"), "{out}{err}");
    for (name, url, ca, token, cause) in [
        ("without-token", &valid_url, &ca, "", "--api-token-file"),
        ("with-wrong-token", &valid_url, &ca, wrong.as_str(), "rejects the token"),
        ("with-other-ca", &valid_url, &other_ca, &token, "invalid peer certificate"),
        ("with-expired", &expired_url, &ca, &token, "expired"),
        ("without-tls", &valid_url.replace("https", "http"), &String::new(), &token, "http"),
    ] {
        let (code, out, err) = if ca.is_empty() {
            let arguments = ["get", "bindings", "--api-address", url, "--api-token-file", token];
            self::read(&harness, name, &arguments).await
        } else {
            read(name, url, ca, token).await
        };
        assert!(code == Some(1) && out.is_empty() && err.contains(cause), "{name}: {code:?} {out}{err}");
        assert!(!err.contains(TOKEN), "{err}");
    }
    let log = operator.stderr() + &expired.stderr();
    assert!(!log.contains("readers-token"), "tokens are not logged");
}

#[tokio::test]
async fn clients_that_finish_no_handshake_keep_no_reader_out() {
    let harness = Harness::start().await;
    harness.manifest("all.yaml", &harness.base_manifests());
    let authority = Authority::new();
    let ca = authority.write(&harness, "ca.pem");
    let [certificate, key] = authority.sign(&harness, "valid", 2120);
    let tls = ["--api-tls-cert-file", &certificate, "--api-tls-key-file", &key];
    let listeners = ["--api-address", "127.0.0.1:0", "--metrics-address", "127.0.0.1:0"];
    let operator = harness.operator(&[&tls[..], &listeners[..]].concat());
    let address = address(&operator).await;
    let metrics = operator.line(&[("server", "metrics"), ("address", "")]).await;
    let metrics = format!("http://{}/metrics", metrics["address"].as_str().unwrap());
    // Another address of the same host begins handshakes as fast as it can.
    let hung = eventually("handshakes are refused", || async {
        let mut some = Vec::new();
        for _ in 0..500 {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
            let mut stream = socket.connect(address.parse().unwrap()).await.unwrap();
            // The record's header, and no more. A refused connection may be closed by now.
            let _ = stream.write_all(&[22, 3, 1, 2, 0]).await;
            some.push(stream);
        }
        let text = harness.http.get(&metrics).send().await.unwrap().text().await.unwrap();
        let refused = "ecs_mesh_api_handshakes_total{result=\"refused\"} ";
        let count = text.lines().find_map(|line| line.strip_prefix(refused)).unwrap().to_owned();
        (count != "0").then_some(some)
    })
    .await;
    let url = format!("https://localhost:{}", address.rsplit_once(':').unwrap().1);
    let arguments = ["get", "bindings", "--api-address", &url, "--api-ca-file", &ca];
    let (code, out, err) = read(&harness, "beside-them", &arguments).await;
    assert!(code == Some(0) && out.contains("harness"), "{out}{err}");
    drop(hung);
}

/// The HTTP status of a list, asked for with this token.
async fn status_with(address: &str, token: Option<&str>) -> String {
    let line = token.map(|token| format!("authorization: Bearer {token}\r\n")).unwrap_or_default();
    let answer = get_with(address, "/api/v1/bindings", &line, is_whole).await;
    answer.split(' ').nth(1).unwrap_or_default().to_owned()
}

#[tokio::test]
async fn token_of_a_secret_is_accepted_after_its_rotation() {
    const NEXT: &str = "readers-token-after-the-rotation";
    let cloud = CloudConfig { accept_aws_sources: true, ..CloudConfig::default() };
    let endpoints = Endpoints::start(EndpointOptions { cloud, ..EndpointOptions::default() }).await.unwrap();
    let harness = Harness::with_endpoints(endpoints.environment());
    harness.manifest("all.yaml", &harness.base_manifests());
    let text = |token: &str| format!(r#"{{"readers": "{token}"}}"#);
    let arn = endpoints.front.with(|cloud, now| {
        let (kms_key, tags) = (None, BTreeMap::new());
        let new = CreateSecret { name: "mesh/api".to_owned(), text: text(TOKEN), kms_key, tags };
        cloud.create_secret(new, now).unwrap().arn.clone()
    });
    let secret = format!("{arn}:readers::");
    let operator = harness.operator(&["--api-address", "127.0.0.1:0", "--api-token-secret", &secret]);
    let address = address(&operator).await;
    for (token, status) in [(None, "401"), (Some(NEXT), "401"), (Some(TOKEN), "200")] {
        assert_eq!(status_with(&address, token).await, status, "{token:?}");
    }
    endpoints.front.with(|cloud, now| cloud.put_secret_value(&arn, &text(NEXT), now).map(drop).unwrap());
    eventually("the next token is accepted", || async {
        (status_with(&address, Some(NEXT)).await == "200").then_some(())
    })
    .await;
    assert_eq!(status_with(&address, Some(TOKEN)).await, "401", "it was replaced");
    // A secret without the key keeps the token that was read.
    endpoints.front.with(|cloud, now| cloud.put_secret_value(&arn, "{}", now).map(drop).unwrap());
    let failed = "cannot read the token of the API; keeping the last one";
    eventually("the secret is read again", || async {
        assert_eq!(status_with(&address, Some(TOKEN)).await, "401");
        (!operator.lines(&[("message", failed)]).is_empty()).then_some(())
    })
    .await;
    assert_eq!(status_with(&address, Some(NEXT)).await, "200");
    assert!(!operator.stderr().contains("readers-token"), "tokens are not logged");
}

#[tokio::test]
async fn address_of_others_needs_a_token_at_the_start() {
    let harness = Harness::start().await;
    harness.manifest("all.yaml", &harness.base_manifests());
    for (name, address) in
        [("v4", "0.0.0.0:0"), ("v6", "[::]:0"), ("mapped", "[::ffff:0.0.0.0]:0"), ("own", "10.1.2.3:9103")]
    {
        let mut operator = harness.operator_with(name, &harness.environment, &["--api-address", address]);
        assert_eq!(operator.code().await, Some(1), "{address}");
        assert!(operator.stderr().contains("--api-token-file"), "{}", operator.stderr());
    }
    for (name, text) in
        [("empty", ""), ("short", "hunter2"), ("lines", "one-token-of-readers\nanother-token")]
    {
        let token = file(&harness, name, text);
        let flags = ["--api-address", "127.0.0.1:0", "--api-token-file", &token];
        let mut operator = harness.operator_with(name, &harness.environment, &flags);
        assert_eq!(operator.code().await, Some(1), "{name}");
        let log = operator.stderr();
        assert!(
            log.contains("printable ASCII") && !log.contains("hunter2") && !log.contains("one-token"),
            "{log}"
        );
    }
}

/// The answers of all paths, once this many tasks are shown.
async fn all_answers(address: &str, count: usize) -> String {
    let tasks = eventually("the tasks are shown", || async {
        let tasks = get_with(address, "/api/v1/tasks?all=true", "", is_whole).await;
        let body: Value = serde_json::from_str(tasks.split_once("\r\n\r\n")?.1).ok()?;
        (body["total"] == count).then_some(body)
    })
    .await;
    let mut paths: Vec<String> = [
        "status",
        "topology",
        "services",
        "bindings",
        "identities",
        "outbounds",
        "warnings",
        "changes",
        "tasks",
    ]
    .map(str::to_owned)
    .to_vec();
    for task in tasks["items"].as_array().unwrap() {
        let name = task["name"].as_str().unwrap();
        paths.extend([format!("tasks/{name}"), format!("tasks/{name}/registrations")]);
    }
    let mut text = String::new();
    for path in &paths {
        text += &get_with(address, &format!("/api/v1/{path}"), "", is_whole).await;
    }
    let stream = |text: &str| text.contains("event: status");
    text + &get_with(address, "/api/v1/stream", "last-event-id: 0\r\n", stream).await
}

#[tokio::test]
async fn answers_about_consul_contain_no_token() {
    let consul = ConsulHarness::start().await;
    consul.0.manifest("all.yaml", &consul.manifests(""));
    let ids = consul.deploy("web", 1).await;
    let joined = consul.join("web", &ids[0]).await;
    let operator = consul.0.operator(&["--api-address", "127.0.0.1:0", "--log", "debug"]);
    let address = address(&operator).await;
    eventually("the token is shown", || async {
        let identities = get_with(&address, "/api/v1/identities", "", is_whole).await;
        identities.contains(&joined.accessor).then_some(())
    })
    .await;
    let text = all_answers(&address, 1).await;
    assert!(text.contains("are not shown"), "{text}");
    for secret in [joined.secret.as_str(), consul.management()] {
        assert!(!text.contains(secret) && !operator.stderr().contains(secret));
    }
    // Bodies of catalog services are the tasks' own.
    assert!(!text.contains("synthetic-node"), "{text}");
}

#[tokio::test]
async fn answers_contain_no_secret_of_a_task_or_the_operator() {
    let harness = Harness::start().await;
    let secrets = harness.base_manifests().replace("kuma: {", "kuma: {tokenEnv: KUMA_USER_TOKEN, ");
    harness.manifest("all.yaml", &secrets);
    harness.role("app").await;
    let app = ContainerDefinition::builder()
        .name("app")
        .image("app:1")
        .memory(128)
        .environment(KeyValuePair::builder().name("DB_PASSWORD").value("hunter2-of-the-app").build())
        .secrets(
            Secret::builder().name("KEY").value_from("arn:aws:ssm:x:1:parameter/hunter2").build().unwrap(),
        )
        .docker_labels("note", "hunter2-in-a-label")
        .command("--password=hunter2-in-a-command")
        .build();
    let definition = harness.ecs().register_task_definition().family("app").network_mode(NetworkMode::Awsvpc);
    let role = "arn:aws:iam::111122223333:role/app-task";
    definition.task_role_arn(role).container_definitions(app).send().await.unwrap();
    harness.serve("sandbox", "app", 2).await;
    let mut environment = harness.environment.clone();
    environment.insert("KUMA_USER_TOKEN".to_owned(), "hunter2-of-the-operator".to_owned());
    environment.insert("AWS_SECRET_ACCESS_KEY".to_owned(), "hunter2-of-aws".to_owned());
    environment.insert("ECS_MESH_ALLOW_ENV".to_owned(), "KUMA_USER_TOKEN".to_owned());
    let operator = harness.operator_with("operator", &environment, &["--api-address", "127.0.0.1:0"]);
    let address = address(&operator).await;
    harness.wait_for_dataplanes("both are registered", |all| all.len() == 2).await;
    let text = all_answers(&address, 2).await;
    assert!(text.contains("\"kind\":\"create\"") && text.contains("\"networking\""), "{text}");
    for secret in ["hunter2", "DB_PASSWORD"] {
        assert!(!text.contains(secret), "{secret}");
        assert!(!operator.stderr().contains(secret), "{secret} in the log");
    }
}
