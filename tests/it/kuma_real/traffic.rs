//! Requests through real sidecars follow what the operator writes: as tasks start and stop, and as manifests change.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use ecs_mesh_model::DesiredStatus;
use ecs_mesh_sandbox::aws::{
    CloudConfig, CreateRole, CreateService, LifeTimes, RegisterTaskDefinition, UpdateService,
};
use ecs_mesh_sandbox::control_planes::ControlPlanes;
use ecs_mesh_sandbox::endpoints::{EndpointOptions, Endpoints};
use ecs_mesh_sandbox::world::{CLUSTER, role_name, role_tags};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::network;
use super::server::RealKuma;
use super::sidecars::{
    APP, APP_PORT, RealTaskProcesses, RequestSender, SIDECAR, SIDECAR_COMMAND, SidecarPrograms, now,
};
use crate::e2e::harness::{Harness, OperatorProcess, binding, control_plane, document, eventually};

/// Set in the namespaces in which the test runs.
const ISOLATED: &str = "KUMA_REAL_ISOLATED";
/// Longest time of the test in its namespaces, in seconds.
const LIMIT: &str = "540";
const TEST: &str = "kuma_real::traffic::requests_follow_the_registrations";

/// Tasks of the called service.
const TASKS: usize = 3;
/// The called service's port at its sidecars.
const PORT: u16 = 15_050;
/// The listeners of the service that calls through listeners, with the called services.
const LISTENERS: [(&str, u16); 3] = [(CALLED, 15_051), (BINDING, 15_052), (CALLED, 15_054)];
/// Requests that show a state.
const ENOUGH: usize = 20;
/// Time in which a change reaches clients.
const REACHED: u64 = 1_500;

/// The services: called, calling through listeners, calling through bound outbounds.
const CALLED: &str = "kv";
const LISTENING: &str = "web";
const BINDING: &str = "batch";
/// The bound outbounds at first.
const BOUND: &str = "[{service: kv}]";

/// An emulated account whose tasks have real apps and sidecars, a real control plane, and the operator.
struct TrafficTest {
    // Dropped in this order: processes before their servers and files.
    processes: RealTaskProcesses,
    operator: OperatorProcess,
    kuma: RealKuma,
    endpoints: Endpoints,
    harness: Harness,
}

fn manifests(harness: &Harness, listeners: &[(&str, u16)], bound: Option<&str>) -> String {
    let inbound =
        format!("inbounds: [{{name: main, containerPort: {APP_PORT}, port: {PORT}, protocol: http}}]");
    let workload = |service: &str, more: &str| {
        let spec = format!("{{selector: {{services: [{service}]}}, service: {service}, {inbound}{more}}}");
        document("Workload", service, &spec)
    };
    let listeners: Vec<String> = listeners
        .iter()
        .map(|(service, port)| {
            format!("{{service: {service}, targetPort: {PORT}, listen: {{port: {port}}}}}")
        })
        .collect();
    let bound = bound.map(|outbounds| format!(", outbounds: {outbounds}")).unwrap_or_default();
    [
        control_plane("kuma", harness.variable("KUMA_API_URL"), ""),
        binding("harness", "kuma", harness.variable("ECS_MESH_CLUSTER_ARN"), ""),
        workload(CALLED, ""),
        workload(LISTENING, &format!(", outbounds: [{}]", listeners.join(", "))),
        workload(BINDING, &format!(", reach: bindOutbounds{bound}")),
    ]
    .concat()
}

/// Creates a service whose sidecars have more arguments.
fn create_service(endpoints: &Endpoints, service: &str, tasks: usize, more: &[&str]) {
    let command = [&SIDECAR_COMMAND, more].concat();
    endpoints
        .with(|cloud, _, now| {
            let tags = role_tags(service, ControlPlanes::Kuma);
            let role = cloud.create_role(CreateRole::for_tasks(&role_name(service), tags), now)?;
            let mut definition = RegisterTaskDefinition::fargate(service, Some(&role.arn), APP_PORT);
            let app = &mut definition.container_definitions[0];
            app["essential"] = json!(true);
            app["dependsOn"] = json!([{"containerName": SIDECAR, "condition": "START"}]);
            assert_eq!(app["name"], APP);
            definition
                .container_definitions
                .push(json!({"name": SIDECAR, "image": "kuma-dp", "essential": true, "command": command}));
            let definition = cloud.register_task_definition(definition, now)?;
            cloud.create_service(CreateService::awsvpc(CLUSTER, service, &definition.arn, tasks), now)
        })
        .unwrap();
}

impl TrafficTest {
    async fn start(kuma: RealKuma, programs: SidecarPrograms, directory: &TempDir) -> Self {
        let life = LifeTimes {
            provisioning: Duration::from_secs(1),
            // An app serves for as long after SIGTERM.
            stopping: Duration::from_secs(3),
            deprovisioning: Duration::from_secs(2),
            time_scale: 1.0,
            ..LifeTimes::default()
        };
        let cloud = CloudConfig { subnet: network::SUBNET.to_owned(), life, ..CloudConfig::default() };
        let endpoints =
            Endpoints::start(EndpointOptions { cloud, ..EndpointOptions::default() }).await.unwrap();
        let mut harness = Harness::with_endpoints(endpoints.environment());
        harness.environment.insert("KUMA_API_URL".to_owned(), kuma.url.clone());
        kuma.use_mesh_services().await;
        harness.manifest("all.yaml", &manifests(&harness, &LISTENERS[..1], Some(BOUND)));
        create_service(&endpoints, CALLED, TASKS, &[]);
        create_service(&endpoints, LISTENING, 1, &[]);
        create_service(&endpoints, BINDING, 1, &["--bind-outbounds"]);
        let processes = RealTaskProcesses::follow(endpoints.front.clone(), &kuma, programs, directory.path());
        let queue = endpoints.queue_url();
        let operator = harness.operator_with("operator", &harness.environment, &["--queue-url", &queue]);
        Self { processes, operator, kuma, endpoints, harness }
    }

    /// Ids of the tasks of a service that shall run.
    fn tasks_of(&self, service: &str) -> BTreeSet<String> {
        self.endpoints.with(|cloud, _, _| {
            let tasks = cloud
                .all_tasks()
                .filter(|task| task.family == service && task.desired_status == DesiredStatus::Running);
            tasks.map(|task| task.id().to_owned()).collect()
        })
    }

    fn scale(&self, desired_count: usize) {
        let (cluster, service) = (CLUSTER.to_owned(), CALLED.to_owned());
        let request = UpdateService {
            cluster,
            service,
            desired_count: Some(desired_count),
            ..UpdateService::default()
        };
        self.endpoints.with(|cloud, _, now| cloud.update_service(&request, now)).unwrap();
    }
}

/// Tasks that answered, and failures by text.
fn summary(sender: &RequestSender, from: u64) -> (BTreeSet<String>, Vec<String>, usize) {
    let sent = sender.since(from);
    let answers = sent.iter().filter_map(|request| request.answer.clone()).collect();
    let failures = sent.iter().filter_map(|request| request.failure.clone()).collect();
    (answers, failures, sent.len())
}

/// Waits until the last requests were all answered, and by just these tasks. Returns the milliseconds until the last failure,
/// and in all.
async fn answered_by(sender: &RequestSender, tasks: &BTreeSet<String>) -> [u64; 2] {
    let began = now();
    eventually("answers of all tasks and no failure", || async {
        let sent = sender.since(began);
        let last = sent.len().checked_sub(ENOUGH).map(|first| &sent[first..])?;
        let answers: Option<BTreeSet<String>> = last.iter().map(|request| request.answer.clone()).collect();
        (answers? == *tasks).then_some(())
    })
    .await;
    let failed = sender.since(began).into_iter().filter(|request| request.failure.is_some());
    [failed.map(|request| request.at - began).max().unwrap_or_default(), now() - began]
}

/// Waits until the last requests were all refused. Returns the failure.
async fn refused(sender: &RequestSender) -> String {
    let began = now();
    eventually("refused connections", || async {
        let sent = sender.since(began);
        let last = sent.len().checked_sub(ENOUGH).map(|first| &sent[first..])?;
        let failures: Option<BTreeSet<String>> = last.iter().map(|request| request.failure.clone()).collect();
        let failure = failures?.into_iter().next()?;
        failure.contains("refused").then_some(failure)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_follow_the_registrations() {
    let what = "requests through sidecars";
    let Some(programs) = SidecarPrograms::from_environment(what) else { return };
    if std::env::var_os(ISOLATED).is_none() {
        return run_in_namespaces();
    }
    network::create_bridge().unwrap();
    let directory = TempDir::new().unwrap();
    let kuma = RealKuma::start(what).await.unwrap();
    let test = TrafficTest::start(kuma, programs, &directory).await;
    let all = eventually("the called tasks", || async {
        let tasks = test.tasks_of(CALLED);
        (tasks.len() == TASKS).then_some(tasks)
    })
    .await;
    test.harness.wait_for_dataplanes("all Dataplanes", |found| found.len() == TASKS + 2).await;
    let address = test.kuma.mesh_service(CALLED).await["status"]["vips"][0]["ip"].clone();
    let [first, second, third] = LISTENERS.map(|(_, port)| format!("http://127.0.0.1:{port}/"));
    let listening = test.processes.send_requests(LISTENING, &first);
    let bound =
        test.processes.send_requests(BINDING, &format!("http://{}:{PORT}/", address.as_str().unwrap()));
    let ready = [answered_by(&listening, &all).await, answered_by(&bound, &all).await];
    test.kuma.report("all tasks answer", json!({"after_ms": ready, "address": address}));
    assert_bound_is_shown(&test).await;

    assert_stopped_task_gets_no_request(&test, &all, [&listening, &bound]).await;
    let rest = test.tasks_of(CALLED);

    // A new listener opens in the running sidecar, and the old one stays.
    let began = now();
    test.harness.manifest("all.yaml", &manifests(&test.harness, &LISTENERS[..2], Some(BOUND)));
    let second = test.processes.send_requests(LISTENING, &second);
    let opened = answered_by(&second, &test.tasks_of(BINDING)).await;
    assert_eq!(summary(&listening, began).1, Vec::<String>::new());
    test.kuma.report("a new listener answers", json!({"after_ms": opened}));

    // An empty list binds none, and no list binds every service.
    test.harness.manifest("all.yaml", &manifests(&test.harness, &LISTENERS[..2], Some("[]")));
    let failure = refused(&bound).await;
    test.kuma.report("an empty list of backends", json!({"failure": failure}));
    test.harness.manifest("all.yaml", &manifests(&test.harness, &LISTENERS[..2], None));
    let bound_again = answered_by(&bound, &rest).await;
    assert_eq!(summary(&listening, began).1, Vec::<String>::new());
    test.kuma.report("every backend", json!({"after_ms": bound_again}));

    // 3.x names listeners by their backends, so it opens the last of two listeners for one port of a backend alone. The
    // effect at 2.x depends on how it names them.
    if test.kuma.is_v3() {
        test.harness.manifest("all.yaml", &manifests(&test.harness, &LISTENERS, None));
        let third = test.processes.send_requests(LISTENING, &third);
        answered_by(&third, &rest).await;
        let first = refused(&listening).await;
        test.kuma.report("two listeners of one backend", json!({"first": first, "second": "answered"}));
    }
    assert_eq!(test.operator.lines(&[("level", "ERROR")]), Vec::<Value>::new());
}

/// The server shows that a sidecar binds its outbounds.
async fn assert_bound_is_shown(test: &TrafficTest) {
    let found = test.harness.dataplanes().await;
    for (service, expected) in [(LISTENING, false), (BINDING, true)] {
        let (name, _) = found.iter().find(|(_, body)| body["labels"]["kuma.io/workload"] == service).unwrap();
        let insight = test.kuma.get(&format!("/meshes/default/dataplanes/{name}/_overview")).await;
        let binds = insight.to_string().contains("feature-bind-outbounds");
        assert_eq!(binds, expected, "{service}: {insight}");
    }
}

/// A task that stops leaves the mesh before its app ends, and no request fails.
async fn assert_stopped_task_gets_no_request(
    test: &TrafficTest,
    all: &BTreeSet<String>,
    senders: [&RequestSender; 2],
) {
    let began = now();
    test.scale(TASKS - 1);
    test.harness.wait_for_dataplanes("removal of the stopped task", |found| found.len() == TASKS + 1).await;
    let (rest, removed_at) = (test.tasks_of(CALLED), now());
    assert_eq!((rest.len(), rest.is_subset(all)), (TASKS - 1, true));
    for sender in senders {
        eventually("requests after the removal", || async {
            (sender.since(removed_at + REACHED).len() >= ENOUGH).then_some(())
        })
        .await;
        let (answers, _, _) = summary(sender, removed_at + REACHED);
        assert_eq!(answers, rest, "a removed task answers");
        let (_, failures, sent) = summary(sender, began);
        let last = sender
            .since(began)
            .into_iter()
            .rfind(|request| request.answer.as_ref().is_some_and(|answer| !rest.contains(answer)));
        let last = last.map_or(0, |request| request.at - began);
        test.kuma.report(
            "a task stops",
            json!({
                "requests": sent, "failed": failures.len(), "removed_after_ms": removed_at - began,
                "last_answer_of_the_stopped_ms": last,
            }),
        );
        assert_eq!(failures, Vec::<String>::new());
    }
}

/// Runs this test in namespaces of its own: network, processes and mounts. The kernel ends all of it with the test.
fn run_in_namespaces() {
    let directory = TempDir::new().unwrap();
    let mut command = Command::new("timeout");
    command
        .args(["--signal=KILL", LIMIT])
        .args(["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"])
        .arg(std::env::current_exe().unwrap())
        .args([TEST, "--exact", "--nocapture"])
        .env(ISOLATED, "1")
        .env("TMPDIR", directory.path());
    let output = command.output().unwrap();
    println!("{}", String::from_utf8_lossy(&output.stdout));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{TEST} in namespaces of its own (needs root): {error}");
}
