//! `ecs-mesh-operator sandbox`.

use std::fmt::Write as _;
use std::io::IsTerminal;
use std::os::unix::fs::DirBuilderExt as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::broken_pipe::{CancelOnBrokenPipe, PIPE_CLOSED};
use super::common::{ControlPlaneOptions, connect};
use super::duration;
use super::output::print;
use super::terminal;
use crate::sandbox::demo::{Demo, OPERATOR, keep_alive};
use crate::sandbox::{DemoManifests, EventOutput, EventPrinter, MANIFESTS, MeshPlan, first_zone_proxies};
use crate::telemetry::log::LogStats;
use crate::telemetry::server::ListenAddress;
use ecs_mesh_api::{AllowList, KumaFeature};
use ecs_mesh_control_plane::WriterId;
use ecs_mesh_controller::NoSecrets;
use ecs_mesh_controller::Signals;
use ecs_mesh_sandbox::aws::{CloudConfig, LifeTimes, Throttling};
use ecs_mesh_sandbox::control_planes::ControlPlanes;
use ecs_mesh_sandbox::endpoints::{EndpointOptions, Endpoints};
use ecs_mesh_sandbox::fault_injection::{FaultInjector, FaultLevel};
use ecs_mesh_sandbox::kuma::EmulatedRelease;
use ecs_mesh_sandbox::world::{
    ForeignFixture, Naming, Rollouts, ScenarioService, World, WorldConfig, ZoneProxyGeneration, consul_auth,
    deploy_gateway, deploy_zone_proxies, set_mesh_services_mode,
};

/// Number of the cluster's EC2 instances.
const CONTAINER_INSTANCES: usize = 2;

/// Arguments of `sandbox`.
#[derive(clap::Args)]
pub(super) struct SandboxArgs {
    /// Length of the demo; changes stop after 70 % of it
    #[arg(long, default_value = "30s", value_parser = duration)]
    duration: Duration,

    /// Approximate number of initial tasks
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    tasks: u32,

    /// Seed of the simulated events
    #[arg(long, default_value_t = 7)]
    seed: u64,

    /// `demo`: simulated services; `none`: empty account and control plane
    #[arg(long, value_enum, default_value = "demo")]
    world: WorldKind,

    /// Copies of the operator that share a lease; with several, the leader is killed once
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=3), conflicts_with = "serve")]
    replicas: u8,

    /// Control planes to emulate
    #[arg(long, value_enum, default_value = "kuma")]
    control_plane: ControlPlanes,

    /// Version of the emulated Kuma
    #[arg(long, value_name = "VERSION", default_value = "2.14", value_parser = kuma_release())]
    kuma: EmulatedRelease,

    /// Version that Kuma is upgraded to during the demo, or `none` [default: 3.0 from 2.14, 2.14 from older ones]
    #[arg(long, value_name = "VERSION", conflicts_with = "serve", value_parser = upgrade_target())]
    upgrade_to: Option<UpgradeTarget>,

    /// Fault injection between the operator and the servers
    #[arg(long, value_enum, default_value = "none")]
    faults: FaultLevel,

    /// IPv4 range of task addresses
    #[arg(long, default_value = "10.0.0.0/16", value_parser = subnet)]
    subnet: String,

    /// Output format: `text` or `json`
    #[arg(long, value_enum, default_value = "text")]
    output: SandboxOutput,

    /// Serve the emulated endpoints without running the operator, until Ctrl-C
    #[arg(long, conflicts_with_all = ["duration", "output"])]
    serve: bool,

    /// Port of the AWS endpoint on 127.0.0.1 [default: any free port]
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    aws_port: u16,

    /// Port of the Kuma API on 127.0.0.1 [default: any free port]
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    kuma_port: u16,

    /// Port of the Consul API on 127.0.0.1 [default: any free port]
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    consul_port: u16,

    /// Listen address of the operator's status page, /metrics, /healthz, /readyz and /startupz: IP:PORT, or none
    #[arg(long, default_value = "none", conflicts_with = "serve")]
    metrics_address: ListenAddress,

    /// Listen address of the operator's read API and its page: IP:PORT on loopback, or none
    #[arg(long, default_value = "127.0.0.1:0", conflicts_with = "serve")]
    api_address: ListenAddress,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum WorldKind {
    Demo,
    None,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum SandboxOutput {
    Text,
    Json,
}

/// Parses a release of Kuma, and lists all of them in the help.
fn kuma_release() -> impl TypedValueParser<Value = EmulatedRelease> {
    PossibleValuesParser::new(EmulatedRelease::ALL.map(EmulatedRelease::text)).try_map(|text| text.parse())
}

/// The value of `--upgrade-to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct UpgradeTarget(Option<EmulatedRelease>);

/// Parses a release to which Kuma can be upgraded, or `none`.
fn upgrade_target() -> impl TypedValueParser<Value = UpgradeTarget> {
    let allowed = ["none", EmulatedRelease::V2_14.text(), EmulatedRelease::V3_0.text()];
    PossibleValuesParser::new(allowed).map(|text| UpgradeTarget(text.parse().ok()))
}

/// Parses an IPv4 range from /8 to /28.
fn subnet(text: &str) -> Result<String, String> {
    let prefix = || {
        let (address, bits) = text.split_once('/')?;
        address.parse::<std::net::Ipv4Addr>().ok()?;
        bits.parse::<u8>().ok().filter(|bits| (8..=28).contains(bits))
    };
    match prefix() {
        Some(_) => Ok(text.to_owned()),
        None => Err(format!("{text:?} is not an IPv4 range from /8 to /28, such as 10.0.0.0/16")),
    }
}

impl SandboxArgs {
    pub(super) async fn run(self, log: Arc<LogStats>) -> Result<ExitCode, String> {
        let mesh = self.mesh_plan()?;
        let signals = Signals::listen().map_err(|error| format!("installing signal handlers: {error}"))?;
        let faults = Arc::new(FaultInjector::new(self.faults, self.seed));
        let endpoints = Arc::new(
            Endpoints::start(EndpointOptions {
                cloud: CloudConfig {
                    subnet: self.subnet.clone(),
                    seed: self.seed,
                    delivery: self.faults.delivery(),
                    container_instances: CONTAINER_INSTANCES,
                    throttling: Some(Throttling::published()),
                    // Tests send ECS events through PutEvents.
                    accept_aws_sources: true,
                    life: self.life_times(),
                    ..CloudConfig::default()
                },
                control_planes: self.control_plane,
                kuma_release: self.kuma,
                aws_port: self.aws_port,
                kuma_port: self.kuma_port,
                consul_port: self.consul_port,
                aws_faults: Arc::clone(&faults) as _,
                kuma_faults: Arc::clone(&faults) as _,
                consul_faults: Arc::clone(&faults) as _,
            })
            .await?,
        );
        let world = (self.world == WorldKind::Demo).then(|| self.begin_world(&endpoints)).transpose()?;
        let (world, fixtures) = world.unzip();
        let directory = TempDirectory::new()?;
        let code = if self.serve {
            self.serve(&endpoints, world, &directory, &signals).await?
        } else {
            let scenario = Scenario { world, mesh, fixtures: fixtures.unwrap_or_default(), faults };
            Box::pin(self.run_demo(&endpoints, scenario, &directory, &signals, log)).await?
        };
        if let Some(endpoints) = Arc::into_inner(endpoints) {
            endpoints.stop().await;
        }
        Ok(code)
    }

    /// In the demo, a new task counts as healthy after 10 s instead of 40, which is still later than it is ready in the
    /// mesh: deployments keep the order that they have on ECS. Users' own tasks are as fast as they can be.
    fn life_times(&self) -> LifeTimes {
        match self.world {
            WorldKind::None => LifeTimes::default(),
            WorldKind::Demo => LifeTimes {
                unchecked_healthy: Duration::from_secs(10),
                time_scale: 1.0,
                ..LifeTimes::default()
            },
        }
    }

    /// How the mesh changes during the demo, if there is one with a mesh.
    fn mesh_plan(&self) -> Result<Option<MeshPlan>, String> {
        let has_mesh = self.world == WorldKind::Demo && self.control_plane.has_kuma() && !self.serve;
        let to = match self.upgrade_to {
            Some(UpgradeTarget(Some(_))) if !has_mesh => {
                return Err("--upgrade-to needs --world demo with Kuma".to_owned());
            }
            Some(UpgradeTarget(to)) => to,
            None => MeshPlan::next_release(self.kuma),
        };
        if let Some(to) = to.filter(|to| *to <= self.kuma) {
            return Err(format!("--upgrade-to {to} is no upgrade of --kuma {}", self.kuma));
        }
        if to == Some(EmulatedRelease::V3_0) && self.kuma < EmulatedRelease::V2_14 {
            return Err(format!(
                "--upgrade-to 3.0 needs --kuma 2.14: 2.14 is the one version with both formats, so {} is upgraded to it first",
                self.kuma
            ));
        }
        let is_kuma_alone = self.control_plane == ControlPlanes::Kuma;
        Ok(has_mesh.then_some(MeshPlan { from: self.kuma, to, is_kuma_alone }))
    }

    /// The form of the zone proxies that the world has at the beginning, beside Kuma alone.
    fn zone_proxies(&self) -> Option<ZoneProxyGeneration> {
        (self.control_plane == ControlPlanes::Kuma).then(|| first_zone_proxies(self.kuma))
    }

    fn begin_world(&self, endpoints: &Endpoints) -> Result<(World, Vec<ForeignFixture>), String> {
        // About one event a second in a demo of 30 s.
        let interval =
            self.duration.mul_f64(0.7 / 25.0).clamp(Duration::from_millis(200), Duration::from_secs(5));
        let config = WorldConfig {
            tasks: self.tasks as usize,
            seed: self.seed,
            interval: (interval / 2, interval * 2),
            naming: Naming::TaskId,
            control_planes: self.control_plane,
            revoked_for: (Duration::from_secs(14), Duration::from_secs(25)),
            rollouts: Rollouts::Ordered,
            host_mode: false,
        };
        endpoints.with_all(|cloud, kuma, consul, now| {
            let template = self.control_plane.has_kuma().then(|| ScenarioService::in_template_mode(OPERATOR));
            let is_kuma_alone = self.control_plane == ControlPlanes::Kuma;
            let on_hosts = is_kuma_alone.then(|| ScenarioService::on_each_instance(CONTAINER_INSTANCES));
            // A demo deploys it once its mesh has MeshServices alone.
            let is_bound = self.serve && is_kuma_alone && !self.kuma.has(KumaFeature::TagServices);
            let bound = is_bound.then(ScenarioService::with_bound_outbounds);
            let further = template.into_iter().chain(on_hosts).chain(bound).collect();
            let mut world = World::start_with(config, further, cloud, kuma, now)?;
            if let Some(kind) = self.zone_proxies() {
                deploy_gateway(cloud, now)?;
                deploy_zone_proxies(kind, cloud, kuma, now)?;
            }
            // The first step of a mesh towards MeshServices alone.
            if !self.serve && self.control_plane.has_kuma() && self.kuma.has(KumaFeature::MeshServicesMode) {
                set_mesh_services_mode(kuma, "Everywhere", now)?;
            }
            let fixtures = match (&endpoints.consul, consul) {
                (Some(endpoint), Some(consul)) => {
                    world.join_consul(&endpoint.bootstrap, cloud, consul, now)?
                }
                _ => Vec::new(),
            };
            Ok((world, fixtures))
        })
    }

    /// The next thing to show.
    fn introduction(&self, endpoints: &Endpoints, world: Option<&World>, mesh: Option<MeshPlan>) -> String {
        let mut servers = vec![format!("AWS at {}", endpoints.aws_url)];
        servers.extend(endpoints.kuma_url.iter().map(|url| format!("Kuma {} at {url}", self.kuma)));
        servers.extend(endpoints.consul.iter().map(|consul| format!("Consul at {}", consul.url)));
        let services = world.map_or(0, |world| world.services().len());
        let seconds = self.duration.as_secs_f64();
        let mut text = terminal::paragraph("sandbox: ", &servers.join(", "), terminal::width());
        let size = format!("{services} services, about {} tasks, seed {}", self.tasks, self.seed);
        let course = format!("{size}; events for {:.0} s, then a summary", seconds * 0.7);
        text += &terminal::paragraph("         ", &course, terminal::width());
        if let Some(to) = mesh.and_then(|mesh| mesh.to) {
            let upgrade = format!("Kuma is upgraded from {} to {to} on the way", self.kuma);
            text += &terminal::paragraph("         ", &upgrade, terminal::width());
        }
        text + "\n"
    }

    async fn serve(
        &self,
        endpoints: &Arc<Endpoints>,
        world: Option<World>,
        directory: &TempDirectory,
        signals: &Signals,
    ) -> Result<ExitCode, String> {
        let mut text = String::new();
        if let Some(world) = &world {
            let path = directory.0.join(MANIFESTS);
            let all = DemoManifests::new(endpoints, "tokenEnv: CONSUL_HTTP_TOKEN", self.zone_proxies());
            let mut all = all.text(world.services());
            if endpoints.consul.is_some() {
                all += &consul_auth(&endpoints.cluster, &endpoints.aws_url);
            }
            std::fs::write(&path, all).map_err(|error| format!("writing {}: {error}", path.display()))?;
            // Writing to a String cannot fail, here and below.
            let _ = writeln!(text, "# manifests for this sandbox: {}", path.display());
        }
        for (name, value) in endpoints.environment() {
            let _ = writeln!(text, "export {name}={value}");
        }
        text.push_str("ready\n");
        print(&text)?;
        keep_alive(Arc::clone(endpoints), world, signals.stop.clone()).await;
        Ok(ExitCode::SUCCESS)
    }

    /// Binds the read API before the demo begins, so that its first lines can name the address.
    async fn bind_api(&self) -> Result<Option<TcpListener>, String> {
        let ListenAddress::At(address) = self.api_address else { return Ok(None) };
        let bound = TcpListener::bind(address).await;
        let help = "help: choose another --api-address, or none";
        bound.map(Some).map_err(|error| format!("binding the read API at {address}: {error}; {help}"))
    }

    async fn run_demo(
        &self,
        endpoints: &Arc<Endpoints>,
        Scenario { world, mesh, fixtures, faults }: Scenario,
        directory: &TempDirectory,
        signals: &Signals,
        log: Arc<LogStats>,
    ) -> Result<ExitCode, String> {
        let text = self.output == SandboxOutput::Text;
        let api = self.bind_api().await?;
        if text {
            let mut introduction = self.introduction(endpoints, world.as_ref(), mesh);
            if let Some(address) = api.as_ref().and_then(|listener| listener.local_addr().ok()) {
                introduction = format!("page: http://{address}/\n{introduction}");
            }
            print(&introduction)?;
        }
        let (stop, cancelled) = (signals.stop.clone(), CancellationToken::new());
        let is_terminal = std::io::stdout().is_terminal();
        let output = text.then(|| EventOutput {
            out: Box::new(CancelOnBrokenPipe::new(std::io::stdout(), cancelled.clone())),
            colour: is_terminal && std::env::var_os("NO_COLOR").is_none(),
            // One line for each event where a program reads them.
            width: is_terminal.then(terminal::width),
            // `deregisters`, which tasks do at Consul.
            action_width: if self.control_plane.has_consul() { 11 } else { 8 },
        });
        let pipe_closed = cancelled.clone();
        tokio::spawn(async move {
            pipe_closed.cancelled().await;
            stop.cancel();
        });
        let began = endpoints.with(|_, _, now| now);
        // The manifests name the token's file.
        let allowed = AllowList::new(AllowList::DEFAULT_VARIABLES, [&directory.0]);
        let demo = Demo {
            endpoints: Arc::clone(endpoints),
            world,
            mesh,
            fixtures,
            faults,
            printer: EventPrinter::new(output, &endpoints.cluster, began),
            duration: self.duration,
            seed: self.seed,
            replicas: self.replicas,
            connect: Box::new(move |operator, metrics| {
                // Each replica has a client of its own.
                let writer = Some(WriterId::generate());
                let options = ControlPlaneOptions { writer, ..ControlPlaneOptions::default() };
                connect(operator, allowed.clone(), metrics, Arc::new(NoSecrets), options)
            }),
            metrics_address: self.metrics_address,
            api,
            log,
        };
        let summary = Box::pin(demo.run(&directory.0, signals.stop.clone())).await?;
        if cancelled.is_cancelled() {
            return Ok(ExitCode::from(PIPE_CLOSED));
        }
        if text {
            let ended = if summary.interrupted { "interrupted after" } else { "after" };
            print(&format!(
                "\n{ended} {:.1} s\n{}",
                summary.took.as_secs_f64(),
                summary.table(terminal::width())
            ))?;
        } else {
            print(&format!("{}\n", summary.json()))?;
        }
        Ok(if summary.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// The settings of a demo.
struct Scenario {
    world: Option<World>,
    mesh: Option<MeshPlan>,
    fixtures: Vec<ForeignFixture>,
    faults: Arc<FaultInjector>,
}

/// A private directory that is removed on drop.
struct TempDirectory(std::path::PathBuf);

impl TempDirectory {
    fn new() -> Result<Self, String> {
        // The file must be new, and readable by this user only.
        let name = format!("ecs-mesh-sandbox-{}-{:08x}", std::process::id(), fastrand::u32(..));
        let path = std::env::temp_dir().join(name);
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .map_err(|error| format!("creating {}: {error}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for TempDirectory {
    fn drop(&mut self) {
        // The files are small and in the system's directory for temporary files.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
