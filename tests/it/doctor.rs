//! `doctor` as a process, against a sandbox with one thing broken.
//!
//! Each test breaks one thing and asserts the finding, the exit code, and that all other checks still run.

mod aws;
mod consul;
mod control_planes;
mod credentials;
mod networks;
mod report;

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ecs_mesh_model::Timestamp;
use ecs_mesh_sandbox::aws::{AwsCall, AwsFault, AwsFaults, Cloud, RuleTarget};
use ecs_mesh_sandbox::control_planes::ControlPlanes;
use ecs_mesh_sandbox::endpoints::{EndpointOptions, Endpoints};
use ecs_mesh_sandbox::kuma::http::{NoKumaFaults, serve};
use ecs_mesh_sandbox::kuma::{KumaConfig, KumaCp};
use ecs_mesh_sandbox::world::{ScenarioService, deploy};
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpListener;

/// Secrets that no output may contain.
const AWS_SECRET: &str = "planted-in-the-aws-key";
const TOKEN: &str = "planted-in-the-token-file";

/// Refuses one operation, and records the access keys of all calls.
#[derive(Default)]
struct RefuseDoctorCall {
    refused: Mutex<Option<&'static str>>,
    keys: Mutex<BTreeSet<String>>,
}

impl AwsFaults for RefuseDoctorCall {
    fn on_call(&self, call: &AwsCall<'_>) {
        self.keys.lock().unwrap().insert(call.access_key_id.to_owned());
    }

    fn decide(&self, service: &str, operation: &str) -> AwsFault {
        let refused = *self.refused.lock().unwrap();
        if refused == Some(&*format!("{service}:{operation}")) {
            AwsFault::AccessDenied
        } else {
            AwsFault::None
        }
    }
}

/// An account with a running service, a control plane, and matching manifests.
struct DoctorSetup {
    endpoints: Endpoints,
    refusing: Arc<RefuseDoctorCall>,
    directory: TempDir,
    environment: BTreeMap<String, String>,
}

/// Exit code and output of a process.
struct DoctorRun {
    code: Option<i32>,
    out: String,
    err: String,
}

impl DoctorRun {
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {}\n{}", self.out, self.err))
    }

    fn ids(&self) -> BTreeSet<String> {
        let report = self.json();
        let checks = report["checks"].as_array().unwrap();
        checks.iter().map(|check| check["id"].as_str().unwrap().to_owned()).collect()
    }

    /// The worst status of the check, with its finding.
    fn worst(&self, id: &str) -> (String, String) {
        let report = self.json();
        let checks = report["checks"].as_array().unwrap().iter().filter(|check| check["id"] == id);
        let rank = |check: &&Value| {
            ["ok", "info", "unknown", "warning", "error"].iter().position(|s| check["status"] == *s)
        };
        let worst = checks.max_by_key(rank).unwrap_or_else(|| panic!("no {id} in {}", self.out));
        (worst["status"].as_str().unwrap().to_owned(), worst.to_string())
    }
}

fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Timestamp(i64::try_from(since.as_millis()).unwrap())
}

fn document(kind: &str, name: &str, spec: &str) -> String {
    format!(
        "apiVersion: ecs-mesh.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {spec}\n---\n"
    )
}

impl DoctorSetup {
    async fn new() -> Self {
        let refusing = Arc::new(RefuseDoctorCall::default());
        let endpoints = Endpoints::start(EndpointOptions {
            aws_faults: Arc::clone(&refusing) as _,
            ..EndpointOptions::default()
        })
        .await
        .unwrap();
        let service = ScenarioService::new("app", 15_000, 8_080, 2);
        endpoints.with(|cloud, _, now| deploy(cloud, &service, ControlPlanes::Kuma, now)).unwrap();
        let directory = TempDir::new().unwrap();
        let mut environment: BTreeMap<String, String> =
            endpoints.environment().into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        environment.insert("AWS_SECRET_ACCESS_KEY".to_owned(), AWS_SECRET.to_owned());
        let setup = Self { endpoints, refusing, directory, environment };
        setup.tasks_run().await;
        setup.manifests(&setup.endpoints.cluster, &setup.kuma_url(), "");
        setup
    }

    fn kuma_url(&self) -> String {
        self.endpoints.kuma_url.clone().unwrap()
    }

    async fn tasks_run(&self) {
        let end = std::time::Instant::now() + Duration::from_mins(1);
        while self.endpoints.with(|cloud, _, _| cloud.all_tasks().count()) < 2 {
            assert!(std::time::Instant::now() < end, "the service has no tasks");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// `more` are further fields of `spec.kuma`.
    fn manifests(&self, cluster: &str, kuma: &str, more: &str) {
        let text = [
            document("ControlPlane", "kuma", &format!("{{type: kuma, kuma: {{address: '{kuma}'{more}}}}}")),
            document(
                "MeshBinding",
                "here",
                &format!(
                    "{{controlPlane: kuma, mesh: default, selector: {{clusters: ['{cluster}', '*:cluster/other-*']}}, deployments: {{hold: true}}}}"
                ),
            ),
        ];
        std::fs::write(self.directory.path().join("all.yaml"), text.concat()).unwrap();
    }

    fn cloud(&self, change: impl FnOnce(&mut Cloud, Timestamp)) {
        self.endpoints.with(|cloud, _, now| change(cloud, now));
    }

    fn attribute(&self, queue: &str, name: &str, value: &str) {
        let attributes = BTreeMap::from([(name.to_owned(), value.to_owned())]);
        self.cloud(|cloud, now| cloud.set_queue_attributes(queue, attributes, now).unwrap());
    }

    fn target(&self, change: impl FnOnce(&mut RuleTarget)) {
        self.cloud(|cloud, _| {
            let mut target = cloud.describe_rule("ecs-mesh-tasks").unwrap().targets["queue"].clone();
            change(&mut target);
            cloud.put_targets("ecs-mesh-tasks", vec![target]).unwrap();
        });
    }

    async fn doctor(&self, more: &[&str]) -> DoctorRun {
        run_doctor(&self.environment, self.directory.path(), more).await
    }

    async fn report(&self) -> DoctorRun {
        self.doctor(&["--operator-id", "x", "--output", "json"]).await
    }

    /// The checks of a healthy setup.
    async fn healthy(&self) -> BTreeSet<String> {
        let run = self.report().await;
        assert_eq!(run.code, Some(0), "{}\n{}", run.out, run.err);
        run.ids()
    }
}

async fn run_doctor(
    environment: &BTreeMap<String, String>,
    directory: &std::path::Path,
    more: &[&str],
) -> DoctorRun {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ecs-mesh-operator"));
    command.arg("doctor").arg("--manifests").arg(directory).args(more);
    command.env_clear().env("HOME", directory).env("AWS_EC2_METADATA_DISABLED", "true");
    command.env("ECS_MESH_ALLOW_DIR", "/").envs(environment);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    DoctorRun {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Checks of what no set-up here has: other accounts, data plane tokens, a lease, manifests outside files, and events to
/// teams.
const UNUSED: [&str; 8] = [
    "aws.assume-role",
    "lease.store",
    "manifests.source",
    "permissions.list-tokens",
    "permissions.read-token-tags",
    "permissions.store-tokens",
    "control-plane.tokens",
    "team-events.bus",
];

/// The names of all checks.
fn catalogue() -> impl Iterator<Item = String> {
    ecs_mesh_doctor::catalogue::ALL.iter().map(|id| id.name.to_owned())
}

/// Asserts the status and text of a check, and that all other checks ran.
fn assert_found(
    run: &DoctorRun,
    healthy: &BTreeSet<String>,
    id: &str,
    status: &str,
    parts: &[&str],
    without: &[&str],
) {
    let (worst, finding) = run.worst(id);
    assert_eq!(worst, status, "{finding}");
    assert!(parts.iter().all(|part| finding.contains(part)), "{parts:?} in {finding}");
    let missing: Vec<_> = healthy
        .difference(&run.ids())
        .filter(|id| !without.iter().any(|w| id.starts_with(w)))
        .cloned()
        .collect();
    assert_eq!(missing, Vec::<String>::new(), "missing checks");
}

/// A further control plane in this process.
async fn kuma(config: KumaConfig) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let cp = Arc::new(Mutex::new(KumaCp::new(config, now())));
    tokio::spawn(serve(listener, cp, Arc::new(NoKumaFaults), Arc::new(now), std::future::pending()));
    url
}

/// Accepts connections and never responds.
async fn silent() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            kept.push(stream);
        }
    });
    url
}

/// Answers an HTML page for each path.
async fn website() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let page = || async { axum::response::Html("<html>Welcome</html>") };
    tokio::spawn(async move { axum::serve(listener, axum::Router::new().fallback(page)).await });
    url
}
