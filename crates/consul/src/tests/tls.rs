//! Trusted CAs: from a file, the environment or a secret.

use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use ecs_mesh_control_plane::http::HttpTransport;
use ecs_mesh_control_plane::http::testing::{tls_fixture, tls_server};
use ecs_mesh_control_plane::{ControlPlane, MeshErrorKind};
use ecs_mesh_controller::{SecretError, SecretRequest, Secrets};

const ARN: &str = "arn:aws:secretsmanager:eu-west-1:111122223333:secret:ca";
const TRUSTED: &str = "ECS_MESH_TEST_CA";
const OTHER: &str = "ECS_MESH_TEST_OTHER_CA";

fn pem(name: &str) -> String {
    std::fs::read_to_string(tls_fixture(name)).unwrap()
}

/// Returns a CA, as the previous version within JSON.
struct FixedSecrets(&'static str);

#[async_trait]
impl Secrets for FixedSecrets {
    async fn read(&self, secret: SecretRequest<'_>) -> Result<String, SecretError> {
        assert_eq!(secret.arn, ARN);
        let pem = pem(self.0);
        Ok(if secret.version_stage == Some("AWSPREVIOUS") { json!({"ca": pem}).to_string() } else { pem })
    }
}

/// Calls a server whose certificate is signed by `ca.pem`.
async fn call(ca: &Value, secret: &'static str) -> Result<BTreeSet<String>, MeshErrorKind> {
    let mut settings = json!({"address": format!("https://localhost:{}", tls_server().port())});
    settings.as_object_mut().unwrap().extend(ca.as_object().unwrap().clone());
    let secrets = Arc::new(FixedSecrets(secret));
    let consul: ConsulControlPlane<HttpTransport> = ConsulControlPlane::connect(
        &spec(&settings),
        &allow_all(),
        operator(),
        Arc::new(NoObserver),
        secrets,
    )
    .unwrap();
    let called = consul.list_services(&MeshName::default()).await;
    called.map_err(|error| {
        assert!(error.message.contains("to the CA that signed it"), "{error}");
        error.kind
    })
}

#[tokio::test]
async fn ca_file_is_trusted() {
    assert_eq!(call(&json!({"caFile": tls_fixture("ca.pem")}), "none").await, Ok(BTreeSet::new()));
    let other = call(&json!({"caFile": tls_fixture("other-ca.pem")}), "none").await;
    assert_eq!(other, Err(MeshErrorKind::Unreachable));
}

#[tokio::test]
async fn server_is_checked_for_the_tls_server_name() {
    let address = format!("https://127.0.0.1:{}", tls_server().port());
    let ca = tls_fixture("ca.pem");
    let named = json!({"address": address, "caFile": ca, "tlsServerName": "localhost"});
    assert_eq!(call(&named, "none").await, Ok(BTreeSet::new()));
}

#[tokio::test]
async fn ca_secret_is_trusted() {
    assert_eq!(call(&json!({"caSecret": ARN}), "ca.pem").await, Ok(BTreeSet::new()));
    assert_eq!(call(&json!({"caSecret": ARN}), "other-ca.pem").await, Err(MeshErrorKind::Unreachable));
    let previous = format!("{ARN}:ca:AWSPREVIOUS:");
    assert_eq!(call(&json!({"caSecret": previous}), "ca.pem").await, Ok(BTreeSet::new()));
}

/// A secret that returns the CA of the server from the second read on.
#[derive(Default)]
struct RotatedSecret(AtomicUsize);

#[async_trait]
impl Secrets for RotatedSecret {
    async fn read(&self, _: SecretRequest<'_>) -> Result<String, SecretError> {
        let first = self.0.fetch_add(1, Ordering::Relaxed) == 0;
        Ok(pem(if first { "other-ca.pem" } else { "ca.pem" }))
    }
}

#[tokio::test]
async fn rotated_ca_secret_is_read_again_a_minute_later() {
    let address = format!("https://localhost:{}", tls_server().port());
    let secrets = Arc::new(RotatedSecret::default());
    let consul: ConsulControlPlane<HttpTransport> = ConsulControlPlane::connect(
        &spec(&json!({"address": address, "caSecret": ARN})),
        &allow_all(),
        operator(),
        Arc::new(NoObserver),
        Arc::clone(&secrets) as Arc<dyn Secrets>,
    )
    .unwrap();
    let mesh = MeshName::default();
    let list = || consul.list_services(&mesh);
    for reads in [1, 1] {
        assert_eq!(list().await.unwrap_err().kind, MeshErrorKind::Unreachable);
        assert_eq!(secrets.0.load(Ordering::Relaxed), reads, "not before a minute has passed");
    }
    tokio::time::pause();
    tokio::time::advance(std::time::Duration::from_mins(1)).await;
    tokio::time::resume();
    assert_eq!(list().await.unwrap_err().kind, MeshErrorKind::Unreachable);
    assert_eq!(list().await, Ok(BTreeSet::new()));
    assert_eq!(secrets.0.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn ca_environment_variable_is_trusted() {
    if std::env::var_os(TRUSTED).is_none() {
        // Only a process of its own can be given variables.
        let (_, module) = module_path!().split_once("::").unwrap();
        let test = format!("{module}::ca_environment_variable_is_trusted");
        let mut itself = Command::new(std::env::current_exe().unwrap());
        itself.args(["--exact", &test]).env(TRUSTED, pem("ca.pem")).env(OTHER, pem("other-ca.pem"));
        let output = String::from_utf8(itself.output().unwrap().stdout).unwrap();
        assert!(output.contains("1 passed"), "{output}");
        return;
    }
    assert_eq!(call(&json!({"caEnv": TRUSTED}), "none").await, Ok(BTreeSet::new()));
    assert_eq!(call(&json!({"caEnv": OTHER}), "none").await, Err(MeshErrorKind::Unreachable));
}
