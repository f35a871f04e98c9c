//! The real control plane, its API, and the sidecars.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use ecs_mesh_api::HumanDuration;
use ecs_mesh_sandbox::world::MESH;
use serde_json::{Value, json};

use crate::ecs::{SERVICE, TASKS};
use crate::network::{CLIENT, GATEWAY, Namespace};
use crate::process::OwnedProcess;
use crate::programs::Programs;
use crate::timeline::Timeline;

/// Address of the API for processes outside the tasks' namespaces.
pub(crate) const API: &str = "http://127.0.0.1:5681";
/// The client's Dataplane.
pub(crate) const CLIENT_NAME: &str = "client";
/// The client's listener for the service.
pub(crate) const OUTBOUND_PORT: u16 = 15_051;

/// Time limit of the start.
const TIMEOUT: Duration = Duration::from_mins(1);
const LOOK: Duration = Duration::from_millis(200);
/// Time limit of a request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// kuma-cp in zone mode with a memory store and its default policies.
pub(crate) struct ControlPlaneProcess {
    process: OwnedProcess,
    http: reqwest::Client,
}

impl ControlPlaneProcess {
    /// Starts the server, waits for its default mesh, and registers the client.
    ///
    /// # Errors
    /// Describes the failure.
    pub(crate) async fn start(programs: &Programs, directory: &Path) -> Result<Self, String> {
        let files = directory.join("kuma-cp");
        std::fs::create_dir_all(&files).map_err(|error| format!("{}: {error}", files.display()))?;
        let mut command = Command::new(&programs.kuma_cp);
        command.arg("run").current_dir(&files).env("HOME", &files).env("KUMA_GENERAL_WORK_DIR", &files).envs(
            [
                ("KUMA_ENVIRONMENT", "universal"),
                ("KUMA_MODE", "zone"),
                ("KUMA_STORE_TYPE", "memory"),
                ("KUMA_REPORTS_ENABLED", "false"),
                // Sidecars need no tokens. Identities are not what is measured.
                ("KUMA_DP_SERVER_AUTHN_DP_PROXY_TYPE", "none"),
            ],
        );
        let process = OwnedProcess::start_logged(&mut command, &directory.join("kuma-cp.log"))?;
        let http = reqwest::Client::builder().no_proxy().timeout(REQUEST_TIMEOUT).build();
        let mut server = Self { process, http: http.map_err(|error| error.to_string())? };
        let until = Instant::now() + TIMEOUT;
        while server.get(&format!("/meshes/{MESH}")).await.is_err() {
            server.must_run()?;
            if Instant::now() > until {
                return Err(format!("kuma-cp has no mesh {MESH} after {TIMEOUT:?}"));
            }
            tokio::time::sleep(LOOK).await;
        }
        server.register_client().await?;
        Ok(server)
    }

    /// Fails if the server has exited.
    ///
    /// # Errors
    /// Names the server.
    pub(crate) fn must_run(&mut self) -> Result<(), String> {
        self.process.must_run("kuma-cp")
    }

    /// Whether clients are routed to all tasks of the service. Records the states of all its Dataplanes.
    ///
    /// # Errors
    /// Describes the failure.
    pub(crate) async fn is_complete(&self, timeline: &mut Timeline) -> Result<bool, String> {
        let list = self.get(&format!("/meshes/{MESH}/dataplanes/_overview?size=1000")).await?;
        let mut ready = 0;
        for overview in list["items"].as_array().into_iter().flatten() {
            let name = overview["name"].as_str().unwrap_or_default();
            if name == CLIENT_NAME {
                continue;
            }
            let (is_ready, state) = describe(overview);
            ready += usize::from(is_ready);
            timeline.observe(&format!("Dataplane {}", short(name)), state);
        }
        timeline
            .observe("Dataplanes", format!("{ready} ready of {}", list["total"].as_u64().unwrap_or(1) - 1));
        Ok(ready == TASKS)
    }

    async fn get(&self, path: &str) -> Result<Value, String> {
        let response = self.http.get(format!("{API}{path}")).send().await;
        let response = response.and_then(reqwest::Response::error_for_status);
        let body = response.map_err(|error| error.to_string())?.json().await;
        body.map_err(|error| format!("{path}: {error}"))
    }

    /// The client belongs to no task, so it is not the operator's to register.
    async fn register_client(&self) -> Result<(), String> {
        let body = json!({
            "type": "Dataplane", "mesh": MESH, "name": CLIENT_NAME,
            "networking": {
                "address": CLIENT,
                "inbound": [{"port": 15_060, "servicePort": 5_060, "tags": {"kuma.io/service": CLIENT_NAME}}],
                "outbound": [{"port": OUTBOUND_PORT, "tags": {"kuma.io/service": SERVICE}}],
            },
        });
        let url = format!("{API}/meshes/{MESH}/dataplanes/{CLIENT_NAME}");
        let response =
            self.http.put(url).json(&body).send().await.and_then(reqwest::Response::error_for_status);
        response.map(drop).map_err(|error| format!("registering the client: {error}"))
    }
}

/// Whether clients are routed to a Dataplane whose sidecar is connected, and its state for people.
fn describe(overview: &Value) -> (bool, String) {
    let inbound = &overview["dataplane"]["networking"]["inbound"][0];
    let subscriptions = overview["dataplaneInsight"]["subscriptions"].as_array();
    let is_connected = subscriptions.into_iter().flatten().any(|subscription| {
        !subscription["connectTime"].is_null() && subscription["disconnectTime"].is_null()
    });
    let state = inbound["state"].as_str().unwrap_or("Ready");
    let is_healthy = inbound["health"].is_null() || inbound["health"]["ready"] == true;
    let is_routed = state == "Ready" && is_healthy;
    let drain = overview["labels"]["ecs-mesh.dev/drain"].as_str().unwrap_or("no");
    let routed = if is_routed { "routed" } else { "not routed" };
    let connected = if is_connected { "connected" } else { "not connected" };
    (is_routed && is_connected, format!("{routed}, {connected}, state {state}, drain {drain}"))
}

/// kuma-dp with Envoy, in a task's namespace.
pub(crate) fn sidecar(
    network: &Namespace,
    programs: &Programs,
    name: &str,
    directory: &Path,
    drain_time: Duration,
) -> Command {
    let mut command = network.command(&programs.kuma_dp);
    command
        .args(["run", "--mesh", MESH, "--name", name])
        .args(["--cp-address", &format!("https://{GATEWAY}:5678")])
        .args(["--dns-enabled=false", "--concurrency", "1"])
        .args(["--drain-time", &HumanDuration(drain_time).to_string()])
        .arg("--binary-path")
        .arg(&programs.envoy)
        .arg("--work-dir")
        .arg(directory)
        // The server makes its certificate at its start.
        .env("KUMA_CONTROL_PLANE_TLS_SKIP_VERIFY", "true")
        .env("HOME", directory);
    command
}

/// The first characters of a task id, which is also the name of its Dataplane.
pub(crate) fn short(name: &str) -> &str {
    name.get(..8).unwrap_or(name)
}
