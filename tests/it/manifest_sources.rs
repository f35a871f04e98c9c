//! Manifests in S3 and SSM over the wire: the program's own clients against the sandbox's AWS and against moto.

use std::sync::Arc;
use std::time::Duration;

use ecs_mesh_aws::sdk::{AwsClients, AwsOptions, Credentials};
use ecs_mesh_manifests::{Loaded, ManifestSource, ManifestSources, ManifestStatus, WatchOptions, watch};
use ecs_mesh_operator::manifest_stores::remote_source;
use ecs_mesh_sandbox::aws::{AwsFault, NoAwsFaults};
use serde_json::json;

use crate::conformance::python;
use crate::e2e::harness::{OperatorProcess, binding, control_plane, eventually, workload};
use crate::sandbox_aws::{FaultScript, SandboxServer};

const CLUSTER: &str = "arn:aws:ecs:eu-west-1:111122223333:cluster/prod";
const BUCKET: &str = "manifests";

/// Writes objects and parameters by raw requests, whose signatures the emulators do not check.
pub(crate) struct StoreClient {
    http: reqwest::Client,
    url: String,
}

impl StoreClient {
    pub(crate) fn new(url: &str) -> Self {
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { http, url: url.trim_end_matches('/').to_owned() }
    }

    async fn send(&self, request: reqwest::RequestBuilder, service: &str) {
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential=AKIDTEST/20270101/eu-west-1/{service}/aws4_request, SignedHeaders=host, \
             Signature=0"
        );
        let answer = request.header("authorization", authorization).send().await.unwrap();
        assert!(answer.status().is_success(), "{}: {}", answer.status(), answer.text().await.unwrap());
    }

    pub(crate) async fn create_bucket(&self, bucket: &str) {
        let body = "<CreateBucketConfiguration xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
                    <LocationConstraint>eu-west-1</LocationConstraint></CreateBucketConfiguration>";
        self.send(self.http.put(format!("{}/{bucket}", self.url)).body(body), "s3").await;
    }

    pub(crate) async fn put_object(&self, bucket: &str, key: &str, text: &str) {
        self.send(self.http.put(format!("{}/{bucket}/{key}", self.url)).body(text.to_owned()), "s3").await;
    }

    pub(crate) async fn delete_object(&self, bucket: &str, key: &str) {
        self.send(self.http.delete(format!("{}/{bucket}/{key}", self.url)), "s3").await;
    }

    pub(crate) async fn put_parameter(&self, name: &str, text: &str) {
        let body = json!({"Name": name, "Value": text, "Type": "String", "Overwrite": true});
        let request = self.http.post(&self.url).header("x-amz-target", "AmazonSSM.PutParameter");
        let request = request.header("content-type", "application/x-amz-json-1.1").body(body.to_string());
        self.send(request, "ssm").await;
    }
}

async fn clients(url: &str) -> AwsClients {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let options = AwsOptions {
        region: Some("eu-west-1".to_owned()),
        endpoint_url: Some(url.to_owned()),
        credentials: Some(Credentials::new("AKIDTEST", "secret", None, None, "test")),
        ..AwsOptions::default()
    };
    AwsClients::connect(options).await.unwrap()
}

async fn sources(url: &str, given: &[&str]) -> ManifestSources {
    let aws = Ok(clients(url).await);
    given.iter().fold(ManifestSources::default(), |sources, one| {
        let source: ManifestSource = one.parse().unwrap();
        sources.with_remote(remote_source(source, &aws, 1))
    })
}

/// A load that changes something.
async fn load(sources: &ManifestSources, before: Option<&Loaded>) -> Loaded {
    sources.read_remote().await;
    sources.load(before).into_loaded().unwrap()
}

fn base() -> String {
    control_plane("kuma", "http://127.0.0.1:5681", "") + &binding("prod", "kuma", CLUSTER, "")
}

/// A user's steps with a bucket and a path, at any server.
async fn manifests_follow_the_stores(url: &str) {
    let store = StoreClient::new(url);
    store.create_bucket(BUCKET).await;
    store.put_object(BUCKET, "prod/base.yaml", &base()).await;
    store.put_object(BUCKET, "prod/team%20a/app%2B1.yaml", &workload("app", "app")).await;
    store.put_object(BUCKET, "prod/README.md", "not a manifest").await;
    store.put_object(BUCKET, "prod-old/app.yaml", "kind: [").await;
    for index in 0..12 {
        store.put_parameter(&format!("/mesh/prod/team/w{index}"), &workload(&format!("w{index}"), "x")).await;
    }
    let sources = sources(url, &["s3://manifests/prod/", "ssm:/mesh/prod/"]).await;
    let good = load(&sources, None).await;
    assert!(good.set.complete, "{:?}", good.errors);
    // The parameters are on two pages.
    assert_eq!((good.set.workloads.len(), good.files), (13, 14));

    store.put_object(BUCKET, "prod/base.yaml", "kind: [").await;
    let bad = load(&sources, Some(&good)).await;
    assert_eq!((bad.errors.len(), bad.set.generation), (1, good.set.generation));
    assert_eq!(bad.errors[0].file.to_str(), Some("s3://manifests/prod/base.yaml"));
    // Back to the version before.
    store.put_object(BUCKET, "prod/base.yaml", &base()).await;
    assert!(load(&sources, Some(&bad)).await.errors.is_empty());

    for key in ["prod/base.yaml", "prod/team%20a/app%2B1.yaml"] {
        store.delete_object(BUCKET, key).await;
    }
    let emptied = load(&sources, Some(&good)).await;
    assert_eq!((emptied.set.generation, emptied.unread.len()), (good.set.generation, 1));
}

#[tokio::test]
async fn manifests_are_read_from_the_sandbox() {
    let server = SandboxServer::start().await;
    manifests_follow_the_stores(&server.url()).await;
    server.stop().await;
}

#[tokio::test]
async fn manifests_are_read_from_moto() {
    let Some(python) = python("the reads of manifests from moto") else { return };
    let directory = tempfile::tempdir().unwrap();
    let mut command = std::process::Command::new(python);
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python/moto_server.py"));
    let environment = [("MOTO_ACCOUNT_ID".to_owned(), "111122223333".to_owned())].into();
    let moto = OperatorProcess::launch(&mut command, directory.path(), "moto", &environment);
    let url =
        eventually("moto's endpoint", || async { moto.stdout().lines().next().map(str::to_owned) }).await;
    manifests_follow_the_stores(&url).await;
}

#[tokio::test]
async fn failing_store_changes_nothing() {
    let faults = Arc::new(FaultScript::default());
    let server =
        SandboxServer::with(ecs_mesh_sandbox::aws::CloudConfig::default(), Arc::clone(&faults) as _).await;
    let url = server.url();
    let store = StoreClient::new(&url);
    store.create_bucket(BUCKET).await;
    store.put_object(BUCKET, "prod/base.yaml", &base()).await;
    store.put_parameter("/mesh/prod/app", &workload("app", "app")).await;
    let sources = sources(&url, &["s3://manifests/prod/", "ssm:/mesh/prod/"]).await;
    let good = load(&sources, None).await;
    assert!(good.set.complete);

    let repeated = |fault| [fault; 3];
    for (call, faults_of_call, words) in [
        ("s3.ListObjectsV2", repeated(AwsFault::Throttle).as_slice(), "SlowDown"),
        ("s3.ListObjectsV2", &repeated(AwsFault::InternalError), "InternalError"),
        ("s3.ListObjectsV2", &repeated(AwsFault::Drop), "s3:ListObjectsV2"),
        ("s3.ListObjectsV2", &[AwsFault::AccessDenied], "s3:ListBucket"),
        ("s3.ListObjectsV2", &[AwsFault::EmptyList], "has no manifest"),
        ("ssm.GetParametersByPath", &repeated(AwsFault::Throttle), "ThrottlingException"),
        ("ssm.GetParametersByPath", &[AwsFault::AccessDenied], "kms:Decrypt"),
        ("ssm.GetParametersByPath", &[AwsFault::EmptyList], "has no manifest"),
    ] {
        faults_of_call.iter().for_each(|fault| faults.add(call, *fault));
        let failed = load(&sources, Some(&good)).await;
        assert_eq!((failed.set.generation, failed.set.complete, failed.unread.len()), (1, true, 1), "{call}");
        let text = failed.unread[0].to_string();
        assert!(text.contains(words), "{call}: {text}");
    }
    // Two failures are repeated within one read.
    repeated(AwsFault::Throttle)[..2].iter().for_each(|fault| faults.add("s3.ListObjectsV2", *fault));
    sources.read_remote().await;
    assert!(matches!(sources.load(Some(&good)), ecs_mesh_manifests::LoadOutcome::Unchanged));

    server.front.with(|cloud, now| {
        cloud.put_object(BUCKET, "prod/base.yaml", b"# emptied", now).unwrap();
        cloud.set_object_denied(BUCKET, "prod/base.yaml", true);
    });
    let denied = load(&sources, Some(&good)).await;
    assert_eq!((denied.set.generation, denied.unread.len()), (1, 1));
    let text = denied.unread[0].to_string();
    assert!(text.starts_with("s3://manifests/prod/base.yaml: ") && text.contains("s3:GetObject"), "{text}");
    server.stop().await;
}

#[tokio::test]
async fn bucket_of_another_region_and_missing_bucket_are_told_apart() {
    let server =
        SandboxServer::with(ecs_mesh_sandbox::aws::CloudConfig::default(), Arc::new(NoAwsFaults)).await;
    server.front.with(|cloud, now| {
        cloud.create_bucket("elsewhere", "eu-central-1").unwrap();
        cloud.put_object("elsewhere", "prod/base.yaml", base().as_bytes(), now).unwrap();
    });
    let url = server.url();
    let found = load(&sources(&url, &["s3://elsewhere/prod/"]).await, None).await;
    assert!(found.set.complete, "{:?}", found.errors);
    let missing = load(&sources(&url, &["s3://missing/prod/"]).await, None).await;
    assert!(!missing.set.complete);
    assert!(missing.errors[0].to_string().contains("NoSuchBucket"), "{:?}", missing.errors);
    server.stop().await;
}

#[tokio::test]
async fn change_comes_into_force_without_a_restart() {
    let server = SandboxServer::start().await;
    let url = server.url();
    let store = StoreClient::new(&url);
    store.create_bucket(BUCKET).await;
    store.put_object(BUCKET, "prod/base.yaml", &base()).await;
    let options = WatchOptions {
        remote_interval: Duration::from_millis(200),
        remote_debounce: Duration::from_millis(50),
        ..WatchOptions::default()
    };
    let mut status = watch(sources(&url, &["s3://manifests/prod/"]).await, options).await;
    let has_app = |status: &Arc<ManifestStatus>| status.set.workloads.contains_key("app");
    assert!(!has_app(&status.borrow_and_update()));
    store.put_object(BUCKET, "prod/app.yaml", &workload("app", "app")).await;
    while !has_app(&status.borrow_and_update()) {
        status.changed().await.unwrap();
    }
    server.stop().await;
}
