//! The lease over the wire: candidates elect a leader and hand over at DynamoDB (the sandbox's, moto's) and at the sandbox's
//! Consul. `consul_real` does the same at a real one.

use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ecs_mesh_aws::sdk::{AwsClients, AwsOptions, Credentials, SdkDynamoDb};
use ecs_mesh_clock::Clock;
use ecs_mesh_consul::{ConsulSessionLock, settings};
use ecs_mesh_control_plane::http::HttpTransport;
use ecs_mesh_controller::{Heartbeat, Lease as _, NoSecrets};
use ecs_mesh_lease::{
    ConsulLeaseStore, DynamoDbLeaseStore, ElectionRole, ElectionStatus, Elector, HolderId, LeaseHandle,
    LeaseStore, LeaseStoreErrorKind, LeaseTiming,
};
use ecs_mesh_model::OperatorId;
use ecs_mesh_sandbox::aws::{AwsFront, Cloud, CloudConfig, NoAwsFaults, serve};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::conformance::python;
use crate::{allow_all, identity};

/// The shortest lease.
fn timing() -> LeaseTiming {
    LeaseTiming::new(Duration::from_secs(10), Duration::from_secs(6), Duration::from_millis(500)).unwrap()
}

pub(crate) struct Candidate {
    lease: LeaseHandle,
    stop: CancellationToken,
    run: tokio::task::JoinHandle<()>,
}

fn start(store: impl LeaseStore + 'static, name: &str) -> Candidate {
    let elector = Elector::new(store, HolderId::generate(name), timing(), Clock::system(), 1);
    let (lease, stop) = (elector.handle(), CancellationToken::new());
    Candidate { lease, run: tokio::spawn(elector.run(Heartbeat::default(), stop.clone())), stop }
}

impl Candidate {
    /// Waits until the candidate leads, and returns for how long.
    async fn leads(&self) -> Duration {
        let (start, mut status) = (Instant::now(), self.lease.subscribe());
        let leads = status.wait_for(ElectionStatus::is_leader);
        tokio::time::timeout(Duration::from_secs(40), leads).await.expect("does not lead").unwrap();
        start.elapsed()
    }
}

/// Elects one of two candidates, and hands over by a clean stop.
pub(crate) async fn hands_over(
    first: impl LeaseStore + 'static,
    second: impl LeaseStore + 'static,
) -> Candidate {
    let first = start(first, "first");
    first.leads().await;
    let second = start(second, "second");
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(first.lease.holds() && !second.lease.holds());
    let leader = second.lease.status().leader.expect("no leader seen");
    assert!(leader.as_str().starts_with("first_"), "{leader}");
    first.stop.cancel();
    first.run.await.unwrap();
    assert_eq!(first.lease.status().role, ElectionRole::Released);
    let waited = second.leads().await;
    assert!(waited < Duration::from_secs(2), "{waited:?}");
    assert_eq!(second.lease.status().epoch, 2);
    second
}

async fn dynamodb(url: &str) -> SdkDynamoDb {
    // Another test may have installed the provider already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let options = AwsOptions {
        region: Some("eu-west-1".to_owned()),
        endpoint_url: Some(url.to_owned()),
        credentials: Some(Credentials::new("AKIDTEST", "secret", None, None, "test")),
        ..AwsOptions::default()
    };
    AwsClients::connect(options).await.unwrap().dynamodb
}

pub(crate) async fn create_table(url: &str) {
    let body = json!({
        "TableName": "leases",
        "KeySchema": [{"AttributeName": "operatorId", "KeyType": "HASH"}],
        "AttributeDefinitions": [{"AttributeName": "operatorId", "AttributeType": "S"}],
        "BillingMode": "PAY_PER_REQUEST",
    });
    let request = reqwest::Client::builder().no_proxy().build().unwrap().post(url);
    let authorization = "AWS4-HMAC-SHA256 Credential=AKIDTEST/20261129/eu-west-1/dynamodb/aws4_request, \
                         SignedHeaders=host, Signature=0";
    let request = request
        .header("x-amz-target", "DynamoDB_20120810.CreateTable")
        .header("content-type", "application/x-amz-json-1.0")
        .header("authorization", authorization)
        .body(body.to_string());
    let answer = request.send().await.unwrap();
    let (status, text) = (answer.status(), answer.text().await.unwrap());
    assert!(status.is_success(), "{text}");
    let created: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(created["TableDescription"]["TableName"], "leases");
}

async fn table_store(url: &str, table: &str) -> DynamoDbLeaseStore<SdkDynamoDb> {
    let operator = OperatorId::parse("mesh").unwrap();
    DynamoDbLeaseStore::new(dynamodb(url).await, table, operator, Clock::system())
}

async fn sandbox_aws() -> String {
    let clock = Clock::system();
    let cloud = Arc::new(Mutex::new(Cloud::new(CloudConfig::default(), clock.now())));
    let front = AwsFront::new(cloud, Arc::new(NoAwsFaults), move || clock.now());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(serve(listener, front, std::future::pending()));
    url
}

#[tokio::test]
async fn dynamodb_item_elects_and_hands_over() {
    let url = sandbox_aws().await;
    create_table(&url).await;
    let leader = hands_over(table_store(&url, "leases").await, table_store(&url, "leases").await).await;
    // The leader crashes: the next one waits for the lease.
    let standby = start(table_store(&url, "leases").await, "third");
    tokio::time::sleep(Duration::from_secs(2)).await;
    leader.run.abort();
    let waited = standby.leads().await;
    assert!((9_000..11_500).contains(&waited.as_millis()), "{waited:?}");
    assert_eq!(standby.lease.status().epoch, 3);
}

#[tokio::test]
async fn missing_lease_table_is_reported() {
    let url = sandbox_aws().await;
    let error = table_store(&url, "none").await.read().await.unwrap_err();
    assert_eq!(error.kind, LeaseStoreErrorKind::TableMissing);
    assert!(
        error.message.contains("dynamodb:GetItem on none") && error.message.contains("help: create"),
        "{error}"
    );
}

/// moto, until the end of the test.
pub(crate) struct Moto {
    child: Child,
    pub(crate) url: String,
}

impl Drop for Moto {
    fn drop(&mut self) {
        // The process may have exited already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Moto {
    pub(crate) fn start(python: &std::ffi::OsStr) -> Self {
        use std::io::BufRead as _;
        let mut child = Command::new(python)
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python/moto_server.py"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut url = String::new();
        std::io::BufReader::new(child.stdout.take().unwrap()).read_line(&mut url).unwrap();
        Self { child, url: url.trim().to_owned() }
    }
}

#[tokio::test]
async fn moto_item_elects_and_hands_over() {
    let Some(python) = python("the lease over moto's DynamoDB") else { return };
    let moto = Moto::start(&python);
    create_table(&moto.url).await;
    hands_over(table_store(&moto.url, "leases").await, table_store(&moto.url, "leases").await).await;
    let error = table_store(&moto.url, "none").await.read().await.unwrap_err();
    assert_eq!(error.kind, LeaseStoreErrorKind::TableMissing);
}

pub(crate) fn lock_store(url: &str, token: &str) -> ConsulLeaseStore<HttpTransport> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), token).unwrap();
    let (_, path) = file.keep().unwrap();
    let spec = serde_json::from_value(json!({"address": url, "tokenFile": path})).unwrap();
    let transport = HttpTransport::new(settings(&spec, &allow_all()), Arc::new(NoSecrets)).unwrap();
    ConsulLeaseStore::new(ConsulSessionLock::new(transport, &spec, "ecs-mesh/mesh/lease"), timing())
}

#[tokio::test]
async fn sandbox_lock_elects_and_hands_over() {
    let consul = identity::empty_consul().await;
    let store = || lock_store(&consul.url, identity::MANAGEMENT);
    hands_over(store(), store()).await;
}
