//! Documents that leave the manifests: when an operator withdraws what only they asked for, and how many of few at a time.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{Connected, Operator, OperatorDeps, RunOptions};
use ecs_mesh_aws::fakes::{FakeEcs, clock, task};
use ecs_mesh_clock::Clock;
use ecs_mesh_kuma::{HttpMethod, HttpResponse, KumaControlPlane, NoObserver, Transport, TransportError};
use ecs_mesh_manifests::{Loaded, ManifestSources, ManifestStatus};
use ecs_mesh_model::{LastStatus, OperatorId, Task, TaskGroup, TaskId};
use ecs_mesh_sandbox::kuma::{KumaConfig, KumaCp, KumaRequest};

const MINUTE: Duration = Duration::from_mins(1);

/// `cleanup.settle`.
const SETTLE: Duration = Duration::from_mins(1);

/// Longer than calls, sweeps and drains take.
const SOON: Duration = Duration::from_secs(12);

struct FakeTransport(Arc<Mutex<KumaCp>>, Clock);

#[async_trait]
impl Transport for FakeTransport {
    async fn send(
        &self,
        method: HttpMethod,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<HttpResponse, TransportError> {
        let request = KumaRequest::json(method.as_str(), path, body.unwrap_or_default());
        let answer = self.0.lock().unwrap().handle(self.1.now(), &request);
        Ok(HttpResponse { status: answer.status, retry_after: None, body: answer.body })
    }
}

/// An operator at Kuma with tasks of several services. Its manifests are one file.
struct SettleFixture {
    kuma: Arc<Mutex<KumaCp>>,
    ecs: Arc<FakeEcs>,
    clock: Clock,
    directory: tempfile::TempDir,
    loaded: Option<Loaded>,
    manifests: Option<watch::Sender<Arc<ManifestStatus>>>,
    running: Option<JoinHandle<()>>,
}

impl SettleFixture {
    /// Tasks of these services, none of them registered.
    fn new(services: &[(&str, usize)]) -> Self {
        let ecs = FakeEcs::default();
        let names = services.iter().flat_map(|(service, count)| std::iter::repeat_n(*service, *count));
        for (n, service) in names.enumerate() {
            let address = Some(format!("10.0.0.{}", n + 1).parse().unwrap());
            let group = TaskGroup::parse(&format!("service:{service}"));
            let task = Task { address, group, ..task(n, LastStatus::Running) };
            ecs.tasks.lock().unwrap().insert(TaskId::parse(&n.to_string()).unwrap(), task);
        }
        let clock = clock();
        Self {
            kuma: Arc::new(Mutex::new(KumaCp::new(KumaConfig::default(), clock.now()))),
            ecs: Arc::new(ecs),
            clock,
            directory: tempfile::tempdir().unwrap(),
            loaded: None,
            manifests: None,
            running: None,
        }
    }

    /// Writes the manifests, which a running operator applies.
    fn edit(&mut self, documents: &str) {
        let binding = "controlPlane: kuma, mesh: default, roleTags: {mode: off}, \
                       selector: {clusters: [\"*:cluster/c\"]}, cleanup: {sweepInterval: 24h, drain: 1s}";
        let mut text = document("ControlPlane", "kuma", "type: kuma, kuma: {address: \"http://kuma:5681\"}");
        text += &document("MeshBinding", "prod", binding);
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
    fn start(&mut self) {
        if let Some(running) = self.running.take() {
            running.abort();
        }
        // Another process has no set in force.
        let sources = ManifestSources::new([self.directory.path().to_owned()]);
        self.loaded = sources.load(None).into_loaded();
        let status = Arc::new(ManifestStatus::from(self.loaded.as_ref().unwrap()));
        let (sender, receiver) = watch::channel(status);
        self.manifests = Some(sender);
        let (kuma, clock) = (Arc::clone(&self.kuma), self.clock.clone());
        let operator = Operator::new(OperatorDeps {
            clock: self.clock.clone(),
            connect: Arc::new(move |_, _| {
                let transport = FakeTransport(Arc::clone(&kuma), clock.clone());
                let id = OperatorId::parse("op").unwrap();
                let client = KumaControlPlane::new(transport, id, Arc::new(NoObserver));
                Ok(Connected::new(Arc::new(client)))
            }),
            ..OperatorDeps::for_tests(Arc::clone(&self.ecs) as _)
        });
        self.running = Some(tokio::spawn(async move {
            operator.run(None, receiver, RunOptions::default(), CancellationToken::new()).await.unwrap();
        }));
    }

    /// The number of registrations of each service that are in load balancing.
    fn serving(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for (_, _, body) in self.kuma.lock().unwrap().dataplanes() {
            if body["labels"]["ecs-mesh.dev/drain"].is_null() {
                *counts.entry(service_of(body)).or_default() += 1;
            }
        }
        counts
    }

    fn outbound_ports(&self) -> Vec<u64> {
        let kuma = self.kuma.lock().unwrap();
        let (_, _, body) = kuma.dataplanes().next().unwrap();
        let outbounds = body["networking"]["outbound"].as_array().cloned().unwrap_or_default();
        outbounds.iter().filter_map(|outbound| outbound["port"].as_u64()).collect()
    }
}

fn service_of(body: &Value) -> String {
    body["networking"]["inbound"][0]["tags"]["kuma.io/service"].as_str().unwrap_or_default().to_owned()
}

fn document(kind: &str, name: &str, spec: &str) -> String {
    format!(
        "apiVersion: ecs-mesh.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n---\n"
    )
}

/// A workload of this name for the tasks of an ECS service, which is its service, too.
fn workload(name: &str, service: &str) -> String {
    let inbound = "{name: http, containerPort: 8080, port: 15000, protocol: http}";
    let spec = format!("selector: {{services: [{service}]}}, service: {service}, inbounds: [{inbound}]");
    document("Workload", name, &spec)
}

fn workloads(names: &[&str]) -> String {
    names.iter().map(|name| workload(name, name)).collect()
}

/// A list of outbounds of every workload, by their ports.
fn outbound_list(name: &str, ports: &[u16]) -> String {
    let mut outbounds = String::new();
    for port in ports {
        write!(outbounds, "{{service: kv, targetPort: 1, listen: {{port: {port}}}}}, ").unwrap();
    }
    document("OutboundList", name, &format!("workloads: [\"*\"], outbounds: [{outbounds}]"))
}

/// Sleeps for almost this time.
async fn sleep_short_of(time: Duration, by: Duration) {
    sleep(time.saturating_sub(by)).await;
}

fn counts(expected: &[(&str, usize)]) -> BTreeMap<String, usize> {
    expected.iter().map(|(service, count)| ((*service).to_owned(), *count)).collect()
}

/// A running operator that has registered every task longer ago than anything settles.
async fn settled(services: &[(&str, usize)]) -> SettleFixture {
    let mut fixture = SettleFixture::new(services);
    let names: Vec<&str> = services.iter().map(|(name, _)| *name).collect();
    fixture.edit(&workloads(&names));
    fixture.start();
    sleep(SETTLE * 2).await;
    assert_eq!(fixture.serving(), counts(services));
    fixture
}

#[tokio::test(start_paused = true)]
async fn absent_workload_is_withdrawn_after_the_settle_time() {
    let mut fixture = settled(&[("a", 2), ("b", 1)]).await;
    fixture.edit(&workloads(&["a"]));
    sleep(SETTLE / 2).await;
    // A change of another document restarts nothing.
    fixture.edit(&(workloads(&["a"]) + &outbound_list("users", &[9000])));
    sleep_short_of(SETTLE / 2, Duration::from_secs(1)).await;
    assert_eq!(fixture.serving(), counts(&[("a", 2), ("b", 1)]));
    sleep(SOON).await;
    assert_eq!(fixture.serving(), counts(&[("a", 2)]));
    sleep(SOON).await;
    assert_eq!(fixture.kuma.lock().unwrap().dataplanes().count(), 2, "removed after its drain");
}

#[tokio::test(start_paused = true)]
async fn renamed_workload_withdraws_nothing() {
    let mut fixture = settled(&[("a", 2)]).await;
    fixture.kuma.lock().unwrap().take_journal();
    fixture.edit(&workload("renamed", "a"));
    sleep(SETTLE * 20).await;
    let writes = fixture.kuma.lock().unwrap().take_journal().len();
    assert_eq!((fixture.serving(), writes), (counts(&[("a", 2)]), 0));
}

#[tokio::test(start_paused = true)]
async fn edit_of_a_present_workload_acts_at_once() {
    let mut fixture = settled(&[("a", 1), ("b", 1)]).await;
    fixture.edit(&(workload("a", "a") + &workload("b", "other")));
    sleep(SOON).await;
    assert_eq!(fixture.serving(), counts(&[("a", 1)]));
}

#[tokio::test(start_paused = true)]
async fn errors_delay_what_an_absence_withdraws() {
    let mut fixture = settled(&[("a", 2), ("b", 1)]).await;
    fixture.edit(&workloads(&["a"]));
    sleep(SETTLE / 2).await;
    fixture.edit(&(workloads(&["a"]) + "kind: Wor\n"));
    sleep(SETTLE * 20).await;
    assert_eq!(fixture.serving(), counts(&[("a", 2), ("b", 1)]), "the file in error may hold the workload");
    fixture.edit(&(workloads(&["a"]) + "# corrected\n"));
    sleep_short_of(SETTLE / 2, SOON).await;
    assert_eq!(fixture.serving(), counts(&[("a", 2), ("b", 1)]));
    sleep(SOON * 2).await;
    assert_eq!(fixture.serving(), counts(&[("a", 2)]));
}

#[tokio::test(start_paused = true)]
async fn registration_without_document_waits_after_a_start() {
    let mut fixture = settled(&[("a", 2), ("b", 1)]).await;
    fixture.edit(&workloads(&["a"]));
    fixture.start();
    sleep_short_of(SETTLE, Duration::from_secs(5)).await;
    assert_eq!(fixture.serving(), counts(&[("a", 2), ("b", 1)]));
    sleep(SOON).await;
    assert_eq!(fixture.serving(), counts(&[("a", 2)]));
    // Documents that this process has read are edited.
    fixture.edit(&workloads(&["a", "b"]));
    fixture.start();
    sleep(SOON).await;
    assert_eq!(fixture.serving(), counts(&[("a", 2), ("b", 1)]));
    fixture.edit(&(workload("a", "a") + &workload("b", "other")));
    sleep(SOON).await;
    assert_eq!(fixture.serving(), counts(&[("a", 2)]));
}

#[tokio::test(start_paused = true)]
async fn outbounds_of_an_absent_list_stay_for_the_settle_time() {
    let mut fixture = settled(&[("a", 1)]).await;
    let both =
        |more: &[u16]| workloads(&["a"]) + &outbound_list("one", &[9001]) + &outbound_list("two", more);
    fixture.edit(&both(&[9002]));
    sleep(SOON).await;
    assert_eq!(fixture.outbound_ports(), [9001, 9002]);
    // An edit of a list that stays.
    fixture.edit(&both(&[]));
    sleep(SOON).await;
    assert_eq!(fixture.outbound_ports(), [9001]);
    // A list leaves, and the other one adds to what is there.
    fixture.edit(&(workloads(&["a"]) + &outbound_list("two", &[9003])));
    sleep_short_of(SETTLE, Duration::from_secs(1)).await;
    assert_eq!(fixture.outbound_ports(), [9001, 9003]);
    sleep(SOON).await;
    assert_eq!(fixture.outbound_ports(), [9003]);
    // After a start, any list may be missing.
    fixture.edit(&workloads(&["a"]));
    fixture.start();
    sleep_short_of(SETTLE, Duration::from_secs(5)).await;
    assert_eq!(fixture.outbound_ports(), [9003]);
    sleep(SOON).await;
    assert_eq!(fixture.outbound_ports(), Vec::<u64>::new());
}

#[tokio::test(start_paused = true)]
async fn outbounds_follow_an_edit_soon_after_a_start() {
    let mut fixture = SettleFixture::new(&[("a", 1)]);
    fixture.edit(&(workloads(&["a"]) + &outbound_list("one", &[9001, 9002])));
    fixture.start();
    sleep(SOON).await;
    fixture.edit(&(workloads(&["a"]) + &outbound_list("one", &[9001])));
    sleep(SOON).await;
    assert_eq!(fixture.outbound_ports(), [9001]);
    fixture.start();
    sleep(SOON).await;
    fixture.edit(&(workloads(&["a"]) + &outbound_list("one", &[])));
    sleep(SOON).await;
    assert_eq!(fixture.outbound_ports(), Vec::<u64>::new());
}

#[tokio::test(start_paused = true)]
async fn few_registrations_are_withdrawn_once_the_edit_is_stable() {
    let mut fixture = settled(&[("a", 4), ("b", 4)]).await;
    fixture.edit(&(workload("a", "a") + &workload("b", "other")));
    sleep(SOON).await;
    assert_eq!(fixture.serving(), counts(&[("a", 4), ("b", 3)]), "one an hour");
    // Another document changes.
    fixture.edit(&(workload("a", "a") + &workload("b", "other") + &outbound_list("users", &[9000])));
    sleep_short_of(MINUTE * 10, SOON + Duration::from_secs(5)).await;
    assert_eq!(fixture.serving(), counts(&[("a", 4), ("b", 3)]));
    sleep(SOON).await;
    assert_eq!(fixture.serving(), counts(&[("a", 4)]));
}

#[tokio::test(start_paused = true)]
async fn stable_time_starts_with_the_absence_and_ends_with_its_end() {
    let mut fixture = settled(&[("a", 4), ("b", 4)]).await;
    fixture.edit(&workloads(&["a"]));
    sleep(SETTLE + SOON).await;
    assert_eq!(fixture.serving(), counts(&[("a", 4), ("b", 3)]));
    // Back, and absent again: from zero.
    fixture.edit(&workloads(&["a", "b"]));
    sleep(SOON).await;
    assert_eq!(fixture.serving(), counts(&[("a", 4), ("b", 4)]));
    fixture.edit(&workloads(&["a"]));
    sleep_short_of(MINUTE * 10, Duration::from_secs(5)).await;
    let serving = fixture.serving()["b"];
    assert!(serving >= 3, "{serving}");
    sleep(SOON).await;
    assert_eq!(fixture.serving(), counts(&[("a", 4)]));
}
