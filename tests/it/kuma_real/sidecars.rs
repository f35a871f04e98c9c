//! The processes of tasks: app and sidecar in a network namespace, which follow the containers of the emulated ECS.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use ecs_mesh_model::LastStatus;
use ecs_mesh_sandbox::aws::{AwsFront, CloudTask, ContainerStatus};
use serde::{Deserialize, Serialize};

use super::network::{self, Namespace};
use super::process::OwnedProcess;
use super::server::{self, KUMA_CP, RealKuma};

/// The port of each app.
pub(super) const APP_PORT: u16 = 5_050;
pub(super) const APP: &str = "app";
pub(super) const SIDECAR: &str = "sidecar";
/// How the definition of a sidecar starts it, before further arguments. Names and addresses differ here.
pub(super) const SIDECAR_COMMAND: [&str; 2] = ["run", "--cp-address=https://kuma-cp.internal:5678"];

/// Interval at which processes follow their containers.
const FOLLOW: Duration = Duration::from_millis(50);
/// Interval between a client's requests.
const REQUEST: Duration = Duration::from_millis(50);
/// Long enough for a busy machine.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// The answer of an app.
const ANSWER: &str = "KUMA_REAL_ANSWER";
/// The request of a client.
const URL: &str = "KUMA_REAL_URL";
/// Where a client writes its results.
const RESULTS: &str = "KUMA_REAL_RESULTS";

/// The programs of a sidecar.
#[derive(Clone)]
pub(super) struct SidecarPrograms {
    kuma_dp: PathBuf,
    envoy: PathBuf,
}

impl SidecarPrograms {
    /// `None`, which is printed, if a program of the mesh is not named.
    pub(super) fn from_environment(what: &str) -> Option<Self> {
        let [cp, kuma_dp, envoy] =
            [KUMA_CP, "KUMA_DP_BIN", "ENVOY_BIN"].map(|variable| server::program(variable, what));
        cp?;
        Some(Self { kuma_dp: kuma_dp?, envoy: envoy? })
    }

    /// kuma-dp with Envoy. The name of its Dataplane is the task's id.
    fn command(&self, network: &Namespace, task: &CloudTask, cp_address: &str, directory: &Path) -> Command {
        let mut command = network.command(&self.kuma_dp);
        command
            .args(["run", "--mesh", "default", "--name", task.id(), "--cp-address", cp_address])
            .args(["--dns-enabled=false", "--concurrency", "1", "--drain-time", "1s"])
            .arg("--binary-path")
            .arg(&self.envoy)
            .arg("--work-dir")
            .arg(directory)
            // The server makes its certificate at its start.
            .env("KUMA_CONTROL_PLANE_TLS_SKIP_VERIFY", "true")
            .env("HOME", directory);
        let definition = task.definition.containers.iter().find(|container| container["name"] == SIDECAR);
        let arguments =
            definition.and_then(|container| container["command"].as_array()).into_iter().flatten();
        command.args(arguments.skip(SIDECAR_COMMAND.len()).filter_map(|argument| argument.as_str()));
        command
    }
}

/// Dropped in this order: processes before their network.
struct RunningTask {
    service: String,
    app: Option<OwnedProcess>,
    sidecar: Option<OwnedProcess>,
    network: Namespace,
}

/// The processes of all tasks, which end with it.
pub(super) struct RealTaskProcesses {
    tasks: Arc<Mutex<BTreeMap<Arc<str>, RunningTask>>>,
    stop: Arc<AtomicBool>,
    follower: Option<JoinHandle<()>>,
    directory: PathBuf,
}

impl Drop for RealTaskProcesses {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let ended = self.follower.take().map(JoinHandle::join);
        if std::thread::panicking() {
            println!("the follower of containers ended: {ended:?}");
        }
    }
}

impl RealTaskProcesses {
    /// Starts and ends processes as containers do.
    pub(super) fn follow(
        aws: AwsFront,
        kuma: &RealKuma,
        programs: SidecarPrograms,
        directory: &Path,
    ) -> Self {
        let tasks: Arc<Mutex<BTreeMap<Arc<str>, RunningTask>>> = Arc::default();
        let stop: Arc<AtomicBool> = Arc::default();
        let cp_address = format!("https://{}:{}", network::GATEWAY, kuma.sidecar_port);
        let (followed, stopped, files) = (Arc::clone(&tasks), Arc::clone(&stop), directory.to_owned());
        let follower = std::thread::spawn(move || {
            while !stopped.load(Ordering::SeqCst) {
                let all: Vec<Arc<CloudTask>> = aws.with(|cloud, _| cloud.all_tasks().cloned().collect());
                let mut running = followed.lock().unwrap();
                for task in all {
                    follow_task(&mut running, &task, &programs, &cp_address, &files);
                }
                drop(running);
                std::thread::sleep(FOLLOW);
            }
        });
        Self { tasks, stop, follower: Some(follower), directory: directory.to_owned() }
    }

    /// Sends requests from the task of a service.
    pub(super) fn send_requests(&self, service: &str, url: &str) -> RequestSender {
        let tasks = self.tasks.lock().unwrap();
        let task = tasks.values().find(|task| task.service == service);
        let task = task.unwrap_or_else(|| panic!("no task of {service}"));
        let results = self.directory.join(format!("requests-{}", url.replace(['/', ':'], "-")));
        std::fs::write(&results, "").unwrap();
        let mut command = role(&task.network, "client_of_a_task");
        command.env(URL, url).env(RESULTS, &results);
        let process = OwnedProcess::start_logged(&mut command, &results.with_extension("log")).unwrap();
        RequestSender { _process: process, results }
    }
}

fn follow_task(
    running: &mut BTreeMap<Arc<str>, RunningTask>,
    task: &CloudTask,
    programs: &SidecarPrograms,
    cp_address: &str,
    directory: &Path,
) {
    if task.last_status == LastStatus::Stopped {
        running.remove(&task.arn);
        return;
    }
    let Some(address) = task.address() else { return };
    let name = &task.id()[..8];
    let status = |container: &str| task.container(container).unwrap().status;
    let processes = running.entry(Arc::clone(&task.arn)).or_insert_with(|| RunningTask {
        service: task.family.clone(),
        app: None,
        sidecar: None,
        network: Namespace::create(name, address).unwrap(),
    });
    let network = &processes.network;
    match status(SIDECAR) {
        ContainerStatus::Running if processes.sidecar.is_none() => {
            let files = directory.join(name);
            std::fs::create_dir_all(&files).unwrap();
            let mut command = programs.command(network, task, cp_address, &files);
            let log = directory.join(format!("{}-{name}-sidecar.log", task.family));
            processes.sidecar = Some(OwnedProcess::start_logged(&mut command, &log).unwrap());
        }
        // Envoy is a child of kuma-dp.
        ContainerStatus::Stopped => network.kill_all().unwrap(),
        _ => {}
    }
    match status(APP) {
        ContainerStatus::Running if processes.app.is_none() => {
            let mut command = role(network, "app_of_a_task");
            command.env(ANSWER, task.id());
            let log = directory.join(format!("{}-{name}-app.log", task.family));
            processes.app = Some(OwnedProcess::start_logged(&mut command, &log).unwrap());
        }
        ContainerStatus::Stopped => processes.app.iter_mut().for_each(OwnedProcess::kill),
        _ => {}
    }
}

/// This program in a task's network, as one of the tests below.
fn role(network: &Namespace, test: &str) -> Command {
    let mut command = network.command(&std::env::current_exe().unwrap());
    command.args(["--ignored", "--exact", &format!("kuma_real::sidecars::{test}")]);
    command
}

#[tokio::test]
#[ignore = "the app of a task, which other tests start"]
async fn app_of_a_task() {
    let Ok(answer) = std::env::var(ANSWER) else { return };
    let listener = tokio::net::TcpListener::bind(("0.0.0.0", APP_PORT)).await.unwrap();
    let router = axum::Router::new().fallback(move || std::future::ready(answer.clone()));
    axum::serve(listener, router).await.unwrap();
}

/// The result of a request.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct MeshRequest {
    /// When it was sent, in milliseconds of Unix time.
    pub(super) at: u64,
    /// The task that answered.
    pub(super) answer: Option<String>,
    pub(super) failure: Option<String>,
}

#[tokio::test]
#[ignore = "a client in a task's network, which other tests start"]
async fn client_of_a_task() {
    use std::io::Write as _;

    let (Ok(url), Ok(results)) = (std::env::var(URL), std::env::var(RESULTS)) else { return };
    let _ = rustls::crypto::ring::default_provider().install_default();
    let http = reqwest::Client::builder().no_proxy().timeout(REQUEST_TIMEOUT).build().unwrap();
    let mut file = std::fs::OpenOptions::new().append(true).open(results).unwrap();
    let mut ticks = tokio::time::interval(REQUEST);
    loop {
        ticks.tick().await;
        let at = now();
        let (answer, failure) = match send(&http, &url).await {
            Ok(answer) => (Some(answer), None),
            Err(failure) => (None, Some(failure)),
        };
        let line = serde_json::to_string(&MeshRequest { at, answer, failure }).unwrap();
        writeln!(file, "{line}").unwrap();
    }
}

/// The body of a response of 200, or the innermost cause of a failure.
async fn send(http: &reqwest::Client, url: &str) -> Result<String, String> {
    let innermost = |error: reqwest::Error| {
        let mut cause: &dyn std::error::Error = &error;
        while let Some(inner) = cause.source() {
            cause = inner;
        }
        cause.to_string()
    };
    let response = http.get(url).send().await.map_err(innermost)?;
    let status = response.status().as_u16();
    let body = response.text().await.map_err(innermost)?;
    if status == 200 { Ok(body) } else { Err(format!("{status}: {body}")) }
}

/// Milliseconds of Unix time.
pub(super) fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    u64::try_from(since.as_millis()).unwrap()
}

/// A client that sends requests until it is dropped.
pub(super) struct RequestSender {
    _process: OwnedProcess,
    results: PathBuf,
}

impl RequestSender {
    /// The requests that were sent since a time and have ended.
    pub(super) fn since(&self, from: u64) -> Vec<MeshRequest> {
        let text = std::fs::read_to_string(&self.results).unwrap();
        let all = text.lines().filter_map(|line| serde_json::from_str::<MeshRequest>(line).ok());
        all.filter(|sent| sent.at >= from).collect()
    }
}
