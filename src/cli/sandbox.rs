//! `ecs-mesh-operator sandbox`.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write};
use std::os::unix::fs::DirBuilderExt as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use tokio_util::sync::CancellationToken;

use super::broken_pipe::{CancelOnBrokenPipe, PIPE_CLOSED};
use super::common::connect;
use super::duration;
use super::output::print;
use crate::sandbox::EventPrinter;
use crate::sandbox::demo::{Demo, OPERATOR, keep_alive, manifest_options};
use crate::telemetry::log::LogStats;
use crate::telemetry::server::ListenAddress;
use ecs_mesh_api::AllowList;
use ecs_mesh_controller::NoSecrets;
use ecs_mesh_controller::Signals;
use ecs_mesh_sandbox::aws::{CloudConfig, LifeTimes, Throttling};
use ecs_mesh_sandbox::control_planes::ControlPlanes;
use ecs_mesh_sandbox::endpoints::{EndpointOptions, Endpoints};
use ecs_mesh_sandbox::fault_injection::{FaultInjector, FaultLevel};
use ecs_mesh_sandbox::kuma::EmulatedRelease;
use ecs_mesh_sandbox::world::{
    ForeignFixture, Naming, PROXY_MANIFESTS, Rollouts, ScenarioService, World, WorldConfig, consul_auth,
    deploy_proxies, manifests,
};

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

    /// Control planes to emulate
    #[arg(long, value_enum, default_value = "kuma")]
    control_plane: ControlPlanes,

    /// Version of the emulated Kuma
    #[arg(long, value_name = "VERSION", default_value = "2.14", value_parser = kuma_release())]
    kuma: EmulatedRelease,

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

    /// Listen address of the operator's status page, /metrics, /healthz and /readyz: IP:PORT, or none
    #[arg(long, default_value = "none", conflicts_with = "serve")]
    metrics_address: ListenAddress,
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
        let signals = Signals::listen().map_err(|error| format!("installing signal handlers: {error}"))?;
        let faults = Arc::new(FaultInjector::new(self.faults, self.seed));
        let endpoints = Arc::new(
            Endpoints::start(EndpointOptions {
                cloud: CloudConfig {
                    subnet: self.subnet.clone(),
                    seed: self.seed,
                    delivery: self.faults.delivery(),
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
            let scenario = (world, fixtures.unwrap_or_default());
            Box::pin(self.run_demo(&endpoints, scenario, faults, &directory, &signals, log)).await?
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
            let further = template.into_iter().collect();
            let mut world = World::start_with(config, further, cloud, kuma, now)?;
            if self.control_plane == ControlPlanes::Kuma {
                deploy_proxies(cloud, now)?;
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

    async fn serve(
        &self,
        endpoints: &Arc<Endpoints>,
        world: Option<World>,
        directory: &TempDirectory,
        signals: &Signals,
    ) -> Result<ExitCode, String> {
        let mut text = String::new();
        if let Some(world) = &world {
            let path = directory.0.join("manifests.yaml");
            let mut all =
                manifests(&manifest_options(endpoints, "tokenEnv: CONSUL_HTTP_TOKEN"), world.services());
            if self.control_plane == ControlPlanes::Kuma {
                all += PROXY_MANIFESTS;
            }
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

    async fn run_demo(
        &self,
        endpoints: &Arc<Endpoints>,
        (world, fixtures): (Option<World>, Vec<ForeignFixture>),
        faults: Arc<FaultInjector>,
        directory: &TempDirectory,
        signals: &Signals,
        log: Arc<LogStats>,
    ) -> Result<ExitCode, String> {
        let text = self.output == SandboxOutput::Text;
        if text {
            let services = world.as_ref().map_or(0, |world| world.services().len());
            let mut servers = vec![format!("AWS at {}", endpoints.aws_url)];
            servers.extend(endpoints.kuma_url.iter().map(|url| format!("Kuma at {url}")));
            servers.extend(endpoints.consul.iter().map(|consul| format!("Consul at {}", consul.url)));
            print(&format!(
                "sandbox: {}; {services} services, about {} tasks, seed {}\n\n",
                servers.join(", "),
                self.tasks,
                self.seed
            ))?;
        }
        let (stop, cancelled) = (signals.stop.clone(), CancellationToken::new());
        let out = text.then(|| {
            Box::new(CancelOnBrokenPipe::new(std::io::stdout(), cancelled.clone())) as Box<dyn Write + Send>
        });
        let pipe_closed = cancelled.clone();
        tokio::spawn(async move {
            pipe_closed.cancelled().await;
            stop.cancel();
        });
        let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        let began = endpoints.with(|_, _, now| now);
        // The manifests name the token's file.
        let allowed = AllowList::new(AllowList::DEFAULT_VARIABLES, [&directory.0]);
        let demo = Demo {
            endpoints: Arc::clone(endpoints),
            world,
            fixtures,
            faults,
            printer: EventPrinter::new(out, colour, &endpoints.cluster, began),
            duration: self.duration,
            seed: self.seed,
            connect: Box::new(move |operator, metrics| {
                connect(operator, allowed.clone(), metrics, Arc::new(NoSecrets), None)
            }),
            metrics_address: self.metrics_address,
            log,
        };
        let summary = demo.run(&directory.0, signals.stop.clone()).await?;
        if cancelled.is_cancelled() {
            return Ok(ExitCode::from(PIPE_CLOSED));
        }
        if text {
            let ended = if summary.interrupted { "interrupted after" } else { "after" };
            print(&format!("\n{ended} {:.1} s\n{}", summary.took.as_secs_f64(), summary.table()))?;
        } else {
            print(&format!("{}\n", summary.json()))?;
        }
        Ok(if summary.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
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
