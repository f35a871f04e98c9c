//! One cell of the table: a mesh with its service, the operator and a client, and the replacement of the service's tasks.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ecs_mesh_sandbox::world::MESH;
use tokio::runtime::Runtime;

use crate::DeploymentArgs;
use crate::client::{self, LoadClient, SentRequest};
use crate::ecs::{APP_PORT, EmulatedEcs, SERVICE, SIDECAR_PORT, TASKS};
use crate::mesh::{self, API, CLIENT_NAME, ControlPlaneProcess, OUTBOUND_PORT};
use crate::network::{CLIENT, Namespace};
use crate::process::OwnedProcess;
use crate::programs::Programs;
use crate::report::CellOutcome;
use crate::row::{Reaction, Replacement, Row, RowTimes};
use crate::tasks::TaskProcesses;
use crate::timeline::Timeline;

/// Interval at which processes follow their containers.
const TICK: Duration = Duration::from_millis(20);
/// Interval at which Dataplanes are read.
const LOOK: Duration = Duration::from_millis(250);
/// Time limit of the start, and of a deployment beyond the times that its row asks for.
const TIMEOUT: Duration = Duration::from_mins(2);
/// How long no request may fail before a measurement begins; and how long clients take to be configured. Until a service
/// has ready endpoints, Kuma configures its clients' listeners for plain TCP. A connection that is made then stays with one
/// endpoint, without retries, until the listener is drained.
const QUIET: Duration = Duration::from_secs(3);

/// A running mesh. Fields are dropped in this order: clients before servers, processes before their networks.
pub(crate) struct MeshRun<'a> {
    load: Option<LoadClient>,
    _client_sidecar: OwnedProcess,
    operator: OwnedProcess,
    tasks: TaskProcesses,
    control_plane: ControlPlaneProcess,
    client_network: Namespace,
    ecs: EmulatedEcs,
    timeline: Timeline,
    start: Instant,
    next_look: Instant,
    is_complete: bool,
    row: Row,
    times: &'a RowTimes,
    /// Serves the emulated AWS.
    runtime: Runtime,
}

impl<'a> MeshRun<'a> {
    /// Starts everything, and waits until all tasks serve through the mesh.
    ///
    /// # Errors
    /// Describes the failure.
    pub(crate) fn start(
        programs: &Programs,
        column: Reaction,
        row: Row,
        args: &'a DeploymentArgs,
        directory: &Path,
    ) -> Result<Self, String> {
        std::fs::create_dir_all(directory).map_err(|error| format!("{}: {error}", directory.display()))?;
        let times = &args.times;
        let runtime = Runtime::new().map_err(|error| error.to_string())?;
        let control_plane = runtime.block_on(ControlPlaneProcess::start(programs, directory))?;
        let ecs = runtime.block_on(EmulatedEcs::start(times.deprovisioning))?;
        let operator = start_operator(programs, column, &ecs, directory)?;
        let client_network = Namespace::create(CLIENT_NAME, CLIENT)?;
        let client_files = directory.join("client");
        std::fs::create_dir_all(&client_files).map_err(|error| error.to_string())?;
        let mut sidecar =
            mesh::sidecar(&client_network, programs, CLIENT_NAME, &client_files, times.drain_time);
        let client_sidecar = OwnedProcess::start_logged(&mut sidecar, &directory.join("client-sidecar.log"))?;
        let mut run = Self {
            load: None,
            _client_sidecar: client_sidecar,
            operator,
            tasks: TaskProcesses::new(programs, directory, row.serving(times), times.drain_time),
            control_plane,
            client_network,
            ecs,
            timeline: Timeline::create(&directory.join("timeline.log"))?,
            start: Instant::now(),
            next_look: Instant::now(),
            is_complete: false,
            row,
            times,
            runtime,
        };
        run.pass_until(TIMEOUT, "the start", |run| run.is_complete)?;
        run.pass(QUIET)?;
        let url = format!("http://127.0.0.1:{OUTBOUND_PORT}/");
        let log = directory.join("client.log");
        run.load = Some(LoadClient::start(&run.client_network, &url, args.rate, &log)?);
        run.pass_until(TIMEOUT, "the first requests", Self::is_quiet)?;
        Ok(run)
    }

    /// Replaces the tasks as the row asks, and counts the requests from the beginning until a while after the last task
    /// is replaced.
    ///
    /// # Errors
    /// Describes the failure.
    pub(crate) fn measure(mut self) -> Result<CellOutcome, String> {
        let start = Instant::now();
        self.timeline.begin(start);
        match self.row.replacement(self.times) {
            Replacement::Deployments { number, stop_after } => {
                let ends = self.times.drain_time + self.times.deprovisioning;
                let limit = TIMEOUT + stop_after + self.row.serving(self.times) + ends;
                for _ in 0..number {
                    let before = self.running();
                    self.timeline.record("deployment begins");
                    self.ecs.deploy(stop_after)?;
                    self.pass_until(limit, "the deployment", |run| run.has_replaced(&before))?;
                    self.pass(self.times.settle)?;
                }
            }
            Replacement::Kills { number, interval, detected_after } => {
                for _ in 0..number {
                    let begin = Instant::now();
                    self.kill_one(detected_after)?;
                    self.pass(interval.saturating_sub(begin.elapsed()))?;
                }
                self.pass(self.times.settle)?;
            }
        }
        let end = Instant::now();
        // Until the last request has been answered, or has failed.
        self.pass(client::TIMEOUT + LOOK)?;
        let mut requests = self.requests(start, end);
        requests.sort_by_key(|request| request.at);
        for failed in requests.iter().filter(|request| request.failure.is_some()) {
            let failure = failed.failure.as_deref().unwrap_or_default();
            self.timeline.record_at(failed.at, &format!("request failed: {failure}"));
        }
        Ok(CellOutcome::of(start, &requests))
    }

    /// Whether requests have been sent for a while, and none has failed.
    fn is_quiet(&self) -> bool {
        let now = Instant::now();
        let Some(begin) = now.checked_sub(QUIET) else { return false };
        let (earlier, recent) = (self.requests(self.start, begin), self.requests(begin, now));
        !earlier.is_empty() && recent.iter().all(|request| request.failure.is_none())
    }

    fn requests(&self, from: Instant, until: Instant) -> Vec<SentRequest> {
        self.load.as_ref().map(|load| load.between(from, until)).unwrap_or_default()
    }

    fn running(&self) -> Vec<Arc<str>> {
        let running = self.ecs.tasks().into_iter().filter(|task| task.is_running);
        running.map(|task| task.arn).collect()
    }

    /// Whether these tasks are STOPPED, and as many others run.
    fn has_replaced(&self, before: &[Arc<str>]) -> bool {
        let tasks = self.ecs.tasks();
        let mut old = tasks.iter().filter(|task| before.contains(&task.arn));
        let new = tasks.iter().filter(|task| task.is_running && !before.contains(&task.arn));
        old.all(|task| task.is_stopped) && new.count() == TASKS
    }

    /// Kills the task that started first. ECS detects it later, and replaces it.
    fn kill_one(&mut self, detected_after: Duration) -> Result<(), String> {
        let running = self.ecs.tasks().into_iter().filter(|task| task.is_running);
        let oldest = running.min_by_key(|task| task.app.started_at).ok_or("no task is running")?;
        self.timeline.record(&format!("task {} killed", mesh::short(&oldest.id)));
        self.tasks.kill(&oldest.arn)?;
        self.pass(detected_after)?;
        self.ecs.lose(&oldest.arn);
        Ok(())
    }

    /// Lets time pass.
    fn pass(&mut self, time: Duration) -> Result<(), String> {
        let until = Instant::now() + time;
        while Instant::now() < until {
            self.tick()?;
        }
        Ok(())
    }

    fn pass_until(
        &mut self,
        timeout: Duration,
        what: &str,
        is_done: impl Fn(&Self) -> bool,
    ) -> Result<(), String> {
        let until = Instant::now() + timeout;
        while !is_done(self) {
            if Instant::now() > until {
                return Err(format!("{what} did not end within {timeout:?}"));
            }
            self.tick()?;
        }
        Ok(())
    }

    fn tick(&mut self) -> Result<(), String> {
        let next = Instant::now() + TICK;
        self.tasks.follow(&self.ecs, &mut self.timeline)?;
        if Instant::now() >= self.next_look {
            self.next_look = Instant::now() + LOOK;
            self.control_plane.must_run()?;
            self.operator.must_run("the operator")?;
            self.load.as_mut().map_or(Ok(()), LoadClient::must_run)?;
            let read = self.control_plane.is_complete(&mut self.timeline);
            self.is_complete = self.runtime.block_on(read)?;
        }
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
        Ok(())
    }
}

fn start_operator(
    programs: &Programs,
    column: Reaction,
    ecs: &EmulatedEcs,
    directory: &Path,
) -> Result<OwnedProcess, String> {
    let manifests = directory.join("manifests.yaml");
    std::fs::write(&manifests, manifest_text(column, &ecs.endpoints.cluster))
        .map_err(|error| format!("{}: {error}", manifests.display()))?;
    let mut command = Command::new(&programs.operator);
    command.args(["run", "--operator-id", "deployments", "--queue-url", &ecs.endpoints.queue_url()]);
    command.arg("--manifests").arg(&manifests).envs(ecs.endpoints.environment());
    OwnedProcess::start_logged(&mut command, &directory.join("operator.log"))
}

/// The defaults, apart from the policy that tells the columns apart.
fn manifest_text(column: Reaction, cluster: &str) -> String {
    let policy = column.policy();
    format!(
        "apiVersion: ecs-mesh.dev/v1alpha1
kind: ControlPlane
metadata: {{name: kuma}}
spec: {{type: kuma, kuma: {{address: \"{API}\"}}}}
---
apiVersion: ecs-mesh.dev/v1alpha1
kind: MeshBinding
metadata: {{name: deployments}}
spec:
  controlPlane: kuma
  mesh: {MESH}
  policy: {policy}
  selector: {{clusters: [\"{cluster}\"]}}
---
apiVersion: ecs-mesh.dev/v1alpha1
kind: Workload
metadata: {{name: {SERVICE}}}
spec:
  selector: {{services: [{SERVICE}]}}
  service: {SERVICE}
  inbounds: [{{name: main, containerPort: {APP_PORT}, port: {SIDECAR_PORT}, protocol: http}}]
"
    )
}
