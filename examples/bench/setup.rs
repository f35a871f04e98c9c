//! One sandbox and one client: the operator or the bare loop.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::consul::MANAGEMENT;
use crate::control::{AccountSize, Order, SandboxSnapshot};
use crate::process::{ChildProcess, SandboxProcess};
use crate::world::services;

/// Receivers of the queue: the operator's default, and the bare loop's number.
pub(crate) const RECEIVERS: &str = "4";
/// Interval of snapshots.
const LOOK: Duration = Duration::from_millis(200);

/// Settings of the operator that differ from the defaults.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BenchManifestOptions {
    /// The binding selects by an ECS tag, which requires a describe of each new task.
    pub by_tag: bool,
    /// The control plane is Consul.
    pub consul: bool,
    /// Between sweeps, and between readings of a role's tags.
    pub interval: Duration,
    /// The listen address of the read API; none by default, as in the image.
    pub api_address: Option<SocketAddr>,
}

/// The defaults of `cleanup.sweepInterval` and `roleTags.recheck`.
pub(crate) const INTERVAL: Duration = Duration::from_mins(10);

impl Default for BenchManifestOptions {
    fn default() -> Self {
        Self { by_tag: false, consul: false, interval: INTERVAL, api_address: None }
    }
}

/// A sandbox and its client.
pub(crate) struct BenchSetup {
    pub sandbox: SandboxProcess,
    directory: PathBuf,
    size: AccountSize,
    client: Option<ChildProcess>,
}

impl BenchSetup {
    /// Starts a sandbox without a client.
    ///
    /// # Errors
    /// Describes the failure.
    pub(crate) fn new(directory: &Path, size: AccountSize) -> Result<Self, String> {
        let sandbox = SandboxProcess::start(directory, None, size)?;
        Ok(Self { sandbox, directory: directory.to_owned(), size, client: None })
    }

    /// Starts a sandbox with a Consul and without a client.
    ///
    /// # Errors
    /// Describes the failure.
    pub(crate) fn with_consul(directory: &Path, consul: Option<&Path>) -> Result<Self, String> {
        let size = AccountSize::default();
        let sandbox = SandboxProcess::start(directory, consul, size)?;
        Ok(Self { sandbox, directory: directory.to_owned(), size, client: None })
    }

    /// Starts the operator and waits until it has swept and receives messages.
    ///
    /// # Errors
    /// Describes the failure.
    pub(crate) fn start_operator(
        &mut self,
        operator: &Path,
        options: BenchManifestOptions,
    ) -> Result<(), String> {
        self.launch_operator(operator, options)?;
        // Two lists of the cluster, RUNNING and STOPPED, show a sweep; receivers start before it.
        self.wait(Duration::from_mins(1), "the first sweep", |seen| seen.calls_of("ecs.ListTasks") >= 2)?;
        sleep(Duration::from_secs(1));
        Ok(())
    }

    /// Starts the operator.
    ///
    /// # Errors
    /// Describes the failure.
    pub(crate) fn launch_operator(
        &mut self,
        operator: &Path,
        options: BenchManifestOptions,
    ) -> Result<(), String> {
        let manifests = self.write_manifests(options)?;
        let mut command = Command::new(operator);
        command.envs(of_the_image());
        let address = options.api_address;
        command.envs(address.map(|address| ("ECS_MESH_API_ADDRESS", address.to_string())));
        command.args(["run", "--operator-id", "bench", "--receivers", RECEIVERS, "--manifests"]);
        command.arg(&manifests).args(["--queue-url", &self.sandbox.place.queue_url]);
        self.start(&mut command)
    }

    /// Writes the manifests, and returns their file.
    ///
    /// # Errors
    /// Describes the failure.
    pub(crate) fn write_manifests(&self, options: BenchManifestOptions) -> Result<PathBuf, String> {
        let manifests = self.directory.join("manifests.yaml");
        let text = if options.consul { self.consul_manifests(options)? } else { self.manifests(options) };
        std::fs::write(&manifests, text).map_err(|error| error.to_string())?;
        Ok(manifests)
    }

    /// Ends the client, without time to clean up.
    pub(crate) fn kill_client(&mut self) {
        self.client = None;
    }

    /// Starts the bare loop.
    ///
    /// # Errors
    /// Describes the failure.
    pub(crate) fn start_bare(&mut self) -> Result<(), String> {
        let own = std::env::current_exe().map_err(|error| error.to_string())?;
        let mut command = Command::new(own);
        command.args(["bare", "--receivers", RECEIVERS, "--queue-url", &self.sandbox.place.queue_url]);
        self.start(&mut command)?;
        self.wait(Duration::from_mins(1), "the bare loop", |seen| seen.calls_of("sqs.ReceiveMessage") > 0)?;
        sleep(Duration::from_secs(1));
        Ok(())
    }

    fn start(&mut self, command: &mut Command) -> Result<(), String> {
        command.envs(&self.sandbox.place.environment).env("CONSUL_BENCH_TOKEN", MANAGEMENT);
        self.client = Some(ChildProcess::start(command, &self.log())?);
        Ok(())
    }

    fn log(&self) -> PathBuf {
        self.directory.join("client.log")
    }

    /// The client's process.
    ///
    /// # Errors
    /// If the client was not started.
    pub(crate) fn client(&self) -> Result<&ChildProcess, String> {
        self.client.as_ref().ok_or_else(|| "no client was started".to_owned())
    }

    /// Polls snapshots until one fits.
    ///
    /// # Errors
    /// If `timeout` has passed or the client has exited.
    pub(crate) fn wait(
        &mut self,
        timeout: Duration,
        what: &str,
        is_so: impl Fn(&SandboxSnapshot) -> bool,
    ) -> Result<SandboxSnapshot, String> {
        let until = Instant::now() + timeout;
        let log = self.log();
        loop {
            let seen = self.sandbox.order(&Order::Snapshot)?;
            if is_so(&seen) {
                return Ok(seen);
            }
            if let Some(client) = &mut self.client {
                client.must_run(&log)?;
            }
            if Instant::now() >= until {
                return Err(format!("{what} did not finish within {timeout:?}; last snapshot: {seen:?}"));
            }
            sleep(LOOK);
        }
    }

    /// Waits while the client runs.
    ///
    /// # Errors
    /// If the client has exited.
    pub(crate) fn pass(&mut self, time: Duration) -> Result<(), String> {
        sleep(time);
        let log = self.log();
        self.client.as_mut().map_or(Ok(()), |client| client.must_run(&log))
    }

    fn consul_manifests(&self, options: BenchManifestOptions) -> Result<String, String> {
        let place = &self.sandbox.place;
        let url = place.consul_url.as_ref().ok_or("Consul is not running")?;
        let interval = options.interval.as_secs();
        Ok(format!(
            "apiVersion: ecs-mesh.dev/v1alpha1
kind: ControlPlane
metadata: {{name: consul}}
spec: {{type: consul, consul: {{address: \"{url}\", tokenEnv: CONSUL_BENCH_TOKEN}}}}
---
apiVersion: ecs-mesh.dev/v1alpha1
kind: MeshBinding
metadata: {{name: bench}}
spec:
  controlPlane: consul
  selector: {{clusters: {:?}}}
  roleTags: {{mode: \"off\"}}
  cleanup: {{sweepInterval: {interval}s}}
",
            place.clusters
        ))
    }

    fn manifests(&self, options: BenchManifestOptions) -> String {
        let place = &self.sandbox.place;
        let tags = if options.by_tag { ", tags: {mesh: \"yes\"}" } else { "" };
        let interval = options.interval.as_secs();
        let mut text = format!(
            "apiVersion: ecs-mesh.dev/v1alpha1
kind: ControlPlane
metadata: {{name: kuma}}
spec: {{type: kuma, kuma: {{address: \"{}\"}}}}
---
apiVersion: ecs-mesh.dev/v1alpha1
kind: MeshBinding
metadata: {{name: bench}}
spec:
  controlPlane: kuma
  mesh: default
  selector: {{clusters: {:?}{tags}}}
  roleTags: {{recheck: {interval}s}}
  cleanup: {{sweepInterval: {interval}s}}
",
            place.kuma_url, place.clusters
        );
        let services = services(self.size.services);
        for (index, service) in services.iter().enumerate() {
            let called = &services[(index + 1) % services.len()];
            // Writing to a String cannot fail.
            let _ = write!(
                text,
                "---
apiVersion: ecs-mesh.dev/v1alpha1
kind: Workload
metadata: {{name: {name}}}
spec:
  selector: {{services: [{name}]}}
  service: {name}
  inbounds: [{{name: main, containerPort: {app_port}, port: {port}, protocol: http}}]
  outbounds: [{{service: {called}, targetPort: {called_port}, listen: {{port: {called_port}}}}}]
",
                name = service.name,
                app_port = service.app_port,
                port = service.port,
                called = called.name,
                called_port = called.port,
            );
        }
        text
    }
}

/// The environment variables of the container image, so that the measured operator runs as shipped.
pub(crate) fn of_the_image() -> impl Iterator<Item = (&'static str, &'static str)> {
    let lines = include_str!("../../deploy/Dockerfile").lines();
    lines.filter_map(|line| line.strip_prefix("ENV ")?.split_once('='))
}
