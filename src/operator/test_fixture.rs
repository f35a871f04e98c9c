//! An operator at the Kuma emulator with a fake ECS, under a paused clock.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{
    Connected, DryRunRecorder, OnceReport, Operator, OperatorDeps, PlanOptions, RunOptions, TokenStores,
};
use ecs_mesh_api::KumaRelease;
use ecs_mesh_api::manifests::ManifestSet;
use ecs_mesh_aws::fakes::{FakeEc2, FakeEcs, FakeTokenStore, clock, task};
use ecs_mesh_clock::Clock;
use ecs_mesh_controller::{AlwaysHeld, Lease};
use ecs_mesh_core::plan::report::PlanReport;
use ecs_mesh_kuma::{
    HttpMethod, HttpResponse, KumaControlPlane, NoObserver, Transport, TransportError, TransportErrorKind,
};
use ecs_mesh_manifests::{Loaded, ManifestSources, ManifestStatus};
use ecs_mesh_model::{InterfaceAddresses, LastStatus, OperatorId, Task, TaskGroup, TaskId};
use ecs_mesh_sandbox::kuma::{KumaConfig, KumaCp, KumaRequest};

/// The emulator, and the calls that it refuses or answers in another way.
struct FakeTransport(Arc<Mutex<KumaCp>>, Clock, RefusedCalls);

/// A fault of data plane tokens.
#[derive(Default)]
pub(super) struct TokenFaults {
    /// The lists of revoked tokens may not be read.
    pub(super) lists_forbidden: bool,
    /// Tokens are not bound to the requested workload.
    pub(super) unbound: bool,
    /// How far the control plane's clock is ahead when it issues tokens, in hours.
    pub(super) clock_ahead: i64,
}

type RefusedPaths = Arc<Mutex<BTreeSet<&'static str>>>;

#[derive(Clone, Default)]
struct RefusedCalls {
    /// Beginnings of paths that may not be called.
    all: Vec<&'static str>,
    /// Parts of paths that may not be written.
    writes: RefusedPaths,
    tokens: Arc<Mutex<TokenFaults>>,
    /// No call arrives.
    unreachable: Arc<AtomicBool>,
}

impl RefusedCalls {
    fn refuse(&self, method: HttpMethod, path: &str) -> bool {
        let is_written = method != HttpMethod::Get;
        let is_list = path.contains("revocations") && self.tokens.lock().unwrap().lists_forbidden;
        is_list
            || self.all.iter().any(|beginning| path.starts_with(beginning))
            || is_written && self.writes.lock().unwrap().iter().any(|part| path.contains(part))
    }
}

#[async_trait]
impl Transport for FakeTransport {
    async fn send(
        &self,
        method: HttpMethod,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<HttpResponse, TransportError> {
        if self.2.unreachable.load(Ordering::Relaxed) {
            return Err(TransportError::new(TransportErrorKind::Connect, "connection refused"));
        }
        if self.2.refuse(method, path) {
            let body = br#"{"type": "/std-errors", "status": 403, "title": "Access Denied"}"#.to_vec();
            return Ok(HttpResponse { status: 403, retry_after: None, body });
        }
        let (mut now, mut body) = (self.1.now(), body.unwrap_or_default());
        if path.starts_with("/tokens/") {
            let faults = self.2.tokens.lock().unwrap();
            now.0 += faults.clock_ahead * 3_600_000;
            if faults.unbound {
                let mut wanted: Value = serde_json::from_slice(&body).unwrap();
                wanted.as_object_mut().unwrap().remove("workload");
                body = wanted.to_string().into_bytes();
            }
        }
        let request = KumaRequest::json(method.as_str(), path, body);
        let answer = self.0.lock().unwrap().handle(now, &request);
        Ok(HttpResponse { status: answer.status, retry_after: None, body: answer.body })
    }
}

/// An operator at Kuma with tasks of several services. Its manifests are one file.
pub(super) struct OperatorFixture {
    pub(super) kuma: Arc<Mutex<KumaCp>>,
    pub(super) ecs: Arc<FakeEcs>,
    pub(super) ec2: Arc<FakeEc2>,
    pub(super) clock: Clock,
    /// The operator's id, and the one that it had before.
    pub(super) ids: (&'static str, Option<&'static str>),
    /// Starts of paths that the control plane forbids.
    pub(super) forbidden: Vec<&'static str>,
    directory: tempfile::TempDir,
    /// `cleanup` of the binding.
    pub(super) cleanup: String,
    /// `roleTags.mode` of the binding.
    pub(super) role_tags: &'static str,
    /// `tokens` of the binding.
    pub(super) tokens: String,
    /// More fields of the binding, after a comma.
    pub(super) binding: String,
    /// More fields of the connection to the control plane, after a comma.
    pub(super) connection: &'static str,
    /// The secrets of the tokens.
    pub(super) secrets: Arc<FakeTokenStore>,
    /// The parameters of the tokens.
    pub(super) parameters: Arc<FakeTokenStore>,
    /// Parts of the control plane's paths that the operator may not write.
    pub(super) refused_paths: RefusedPaths,
    pub(super) token_faults: Arc<Mutex<TokenFaults>>,
    /// Whether the operator's calls do not arrive at the control plane.
    pub(super) unreachable: Arc<AtomicBool>,
    /// The lease; by default, it is always held.
    pub(super) lease: Arc<dyn Lease>,
    loaded: Option<Loaded>,
    manifests: Option<watch::Sender<Arc<ManifestStatus>>>,
    running: Option<JoinHandle<()>>,
    /// The operator that was started last.
    pub(super) operator: Option<Arc<Operator>>,
}

impl OperatorFixture {
    /// Tasks of these services, none of them registered.
    pub(super) fn new(services: &[(&str, usize)]) -> Self {
        let ecs = FakeEcs::default();
        let names = services.iter().flat_map(|(service, count)| std::iter::repeat_n(*service, *count));
        for (n, service) in names.enumerate() {
            let address = format!("10.0.{}.{}", n / 250, n % 250 + 1).parse().unwrap();
            let addresses = InterfaceAddresses::new(Some(address), None).unwrap();
            let group = TaskGroup::parse(&format!("service:{service}"));
            let task = Task { addresses, group, ..task(n, LastStatus::Running) };
            ecs.tasks.lock().unwrap().insert(TaskId::parse(&n.to_string()).unwrap(), task);
        }
        let clock = clock();
        Self {
            kuma: Arc::new(Mutex::new(KumaCp::new(KumaConfig::default(), clock.now()))),
            ecs: Arc::new(ecs),
            ec2: Arc::default(),
            clock,
            ids: ("op", None),
            forbidden: Vec::new(),
            directory: tempfile::tempdir().unwrap(),
            cleanup: "{sweepInterval: 24h, drain: 1s}".to_owned(),
            role_tags: "off",
            tokens: String::new(),
            binding: String::new(),
            connection: "",
            secrets: Arc::default(),
            parameters: Arc::default(),
            refused_paths: Arc::default(),
            token_faults: Arc::default(),
            unreachable: Arc::default(),
            lease: Arc::new(AlwaysHeld),
            loaded: None,
            manifests: None,
            running: None,
            operator: None,
        }
    }

    /// Writes the manifests, which a running operator applies.
    pub(super) fn edit(&mut self, documents: &str) {
        let binding = "controlPlane: kuma, mesh: default, \
                       selector: {clusters: [\"arn:aws:ecs:eu-west-1:111122223333:cluster/*\"]}";
        let role_tags = format!("roleTags: {{mode: {}}}", self.role_tags);
        let connection = format!("type: kuma, kuma: {{address: \"http://kuma:5681\"{}}}", self.connection);
        let mut text = document("ControlPlane", "kuma", &connection);
        text += &document(
            "MeshBinding",
            "prod",
            &format!(
                "{binding}, {role_tags}, cleanup: {}, tokens: {{{}}}{}",
                self.cleanup, self.tokens, self.binding
            ),
        );
        text += documents;
        std::fs::write(self.directory.path().join("all.yaml"), text).unwrap();
        let sources = ManifestSources::new([self.directory.path().to_owned()]);
        if let Some(loaded) = sources.load(self.loaded.as_ref()).into_loaded() {
            let status = Arc::new(ManifestStatus::from(&loaded));
            if let Some(manifests) = &self.manifests {
                manifests.send_replace(status);
            }
            self.loaded = Some(loaded);
        }
    }

    /// Starts an operator, and another one after that ends the first.
    pub(super) fn start(&mut self) {
        if let Some(running) = self.running.take() {
            running.abort();
        }
        // Another process has no set in force.
        let sources = ManifestSources::new([self.directory.path().to_owned()]);
        self.loaded = sources.load(None).into_loaded();
        let status = Arc::new(ManifestStatus::from(self.loaded.as_ref().unwrap()));
        let (sender, receiver) = watch::channel(status);
        self.manifests = Some(sender);
        let operator = Operator::new(self.deps(None));
        self.operator = Some(Arc::clone(&operator));
        self.running = Some(tokio::spawn(async move {
            operator.run(None, receiver, RunOptions::default(), CancellationToken::new()).await.unwrap();
        }));
    }

    /// Ends the operator that runs, and runs one until nothing is left to do, for at most `timeout`.
    pub(super) async fn run_once(&mut self, timeout: Duration) -> OnceReport {
        if let Some(running) = self.running.take() {
            running.abort();
        }
        let sources = ManifestSources::new([self.directory.path().to_owned()]);
        self.loaded = sources.load(None).into_loaded();
        let status = Arc::new(ManifestStatus::from(self.loaded.as_ref().unwrap()));
        let (_sender, receiver) = watch::channel(status);
        let stop = CancellationToken::new();
        let ran = Operator::new(self.deps(None)).run_once(receiver, RunOptions::default(), timeout, stop);
        ran.await.unwrap()
    }

    /// The dependencies of an operator at the emulators, which plans for a target version if there is one.
    fn deps(&self, target: Option<KumaRelease>) -> OperatorDeps {
        let (kuma, clock) = (Arc::clone(&self.kuma), self.clock.clone());
        let refused = RefusedCalls {
            all: self.forbidden.clone(),
            writes: Arc::clone(&self.refused_paths),
            tokens: Arc::clone(&self.token_faults),
            unreachable: Arc::clone(&self.unreachable),
        };
        let ids = self.ids;
        OperatorDeps {
            id: OperatorId::parse(ids.0).unwrap(),
            previous_id: ids.1.map(|id| OperatorId::parse(id).unwrap()),
            clock: self.clock.clone(),
            lease: Arc::clone(&self.lease),
            ec2: Arc::clone(&self.ec2) as _,
            accounts: Arc::new(()),
            token_stores: TokenStores::new(Arc::clone(&self.secrets) as _, Arc::clone(&self.parameters) as _),
            connect: Arc::new(move |_, _| {
                let client = client(ids.0, Arc::clone(&kuma), clock.clone(), refused.clone());
                let previous = ids.1.map(|id| OperatorId::parse(id).unwrap());
                Ok(Connected::kuma(client.with_target(target).with_previous_operator(previous)))
            }),
            ..OperatorDeps::for_tests(Arc::clone(&self.ecs) as _)
        }
    }

    /// The manifests as they were loaded last.
    pub(super) fn loaded_set(&self) -> Arc<ManifestSet> {
        Arc::clone(&self.loaded.as_ref().unwrap().set)
    }

    /// A client of the control plane beside the operator's.
    pub(super) fn client(&self) -> KumaControlPlane<impl Transport + use<>> {
        client(self.ids.0, Arc::clone(&self.kuma), self.clock.clone(), RefusedCalls::default())
    }

    /// The warnings of the manifests as they were loaded last.
    pub(super) fn manifest_warnings(&self) -> Vec<String> {
        self.loaded.as_ref().unwrap().warnings.iter().map(ToString::to_string).collect()
    }

    /// The errors of the manifests as they were loaded last, which keep the set before them in force.
    pub(super) fn manifest_errors(&self) -> Vec<String> {
        self.loaded.as_ref().unwrap().errors.iter().map(ToString::to_string).collect()
    }

    /// The plan by the manifests as they are.
    pub(super) async fn plan(&self) -> PlanReport {
        self.plan_for(None).await
    }

    /// The plan of an upgrade to the target version.
    pub(super) async fn plan_for(&self, target: Option<KumaRelease>) -> PlanReport {
        let status = Arc::new(ManifestStatus::from(self.loaded.as_ref().unwrap()));
        let (_sender, receiver) = watch::channel(status);
        let mut deps = self.deps(target);
        let recorder = Arc::new(DryRunRecorder::new(Arc::clone(&deps.metrics)));
        deps.recorder = Some(Arc::clone(&recorder) as _);
        Operator::new(deps).plan(&recorder, receiver, PlanOptions::default(), &Arc::default()).await.unwrap()
    }

    /// The number of registrations of each service that are in load balancing.
    pub(super) fn serving(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for (_, _, body) in self.kuma.lock().unwrap().dataplanes() {
            if body["labels"]["ecs-mesh.dev/drain"].is_null() {
                *counts.entry(service_of(body)).or_default() += 1;
            }
        }
        counts
    }
}

fn client(
    id: &str,
    kuma: Arc<Mutex<KumaCp>>,
    clock: Clock,
    refused: RefusedCalls,
) -> KumaControlPlane<FakeTransport> {
    let id = OperatorId::parse(id).unwrap();
    KumaControlPlane::new(FakeTransport(kuma, clock, refused), id, Arc::new(NoObserver))
}

pub(super) fn service_of(body: &Value) -> String {
    body["networking"]["inbound"][0]["tags"]["kuma.io/service"].as_str().unwrap_or_default().to_owned()
}

pub(super) fn document(kind: &str, name: &str, spec: &str) -> String {
    format!(
        "apiVersion: ecs-mesh.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n---\n"
    )
}

/// A workload of this name for the tasks of an ECS service, which is its service, too.
pub(super) fn workload(name: &str, service: &str) -> String {
    let inbound = "{name: http, containerPort: 8080, port: 15000, protocol: http}";
    let spec = format!("selector: {{services: [{service}]}}, service: {service}, inbounds: [{inbound}]");
    document("Workload", name, &spec)
}

pub(super) fn workloads(names: &[&str]) -> String {
    names.iter().map(|name| workload(name, name)).collect()
}
