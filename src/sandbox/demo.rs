//! The show: the world lives, the operator runs against it through the same clients as in production, the judge looks
//! on.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::event_printer::EventPrinter;
use super::summary::{Latencies, DemoSummary};
use crate::operator::{ConnectFn, Operator, OperatorDeps, ReadRates, RunOptions};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::server::{ListenAddress, MetricsServer};
use ecs_mesh_aws::aws::EventQueue;
use ecs_mesh_aws::sdk::{AwsClients, AwsOptions, Credentials};
use ecs_mesh_clock::Clock;
use ecs_mesh_controller::AlwaysHeld;
use ecs_mesh_manifests::{ManifestSources, WatchOptions, watch};
use ecs_mesh_model::{OperatorId, Timestamp};
use ecs_mesh_sandbox::aws::Cloud;
use ecs_mesh_sandbox::consul::ConsulServer;
use ecs_mesh_sandbox::endpoints::{ACCESS_KEY, Endpoints};
use ecs_mesh_sandbox::oracle::{ConsulOracle, Invariant, KumaOracle, OracleConfig, InvariantViolation};
use ecs_mesh_sandbox::kuma::KumaCp;
use ecs_mesh_sandbox::fault_injection::FaultInjector;
use ecs_mesh_sandbox::world::{
    ManifestOptions, Census, ConsulManifestOptions, ConsulBootstrap, WorldEvent, MANAGEMENT_TOKEN, ForeignFixture, SECRET, ScenarioService, World,
    manifests,
};

/// How often the world moves and the judge looks.
const STEP: Duration = Duration::from_millis(50);
/// How much longer than asked for it may take until everything is as it should be.
const PATIENCE: Duration = Duration::from_mins(1);
/// The file with the manifests.
const MANIFESTS: &str = "manifests.yaml";
/// The file with Consul's token.
const TOKEN: &str = "consul-token";
/// The operator's name in the sandbox.
const OPERATOR: &str = "sandbox";

/// What somebody adds while the show runs.
const MORE_OUTBOUNDS: &str = "---
apiVersion: ecs-mesh.dev/v1alpha1
kind: OutboundList
metadata: {name: kv-users}
spec:
  workloads: [\"svc-*\"]
  outbounds:
    - {service: kv, targetPort: 15050, listen: {port: 15051}}
";

/// How the operator treats the sandbox's world: like production, only faster. `token` is the field of `spec.consul`
/// that says where the token is.
pub fn manifest_options(endpoints: &Endpoints, token: &str) -> ManifestOptions {
    let consul =
        |url: &String| ConsulManifestOptions { address: url.clone(), token: token.to_owned(), on_revoked: None };
    ManifestOptions {
        kuma: endpoints.kuma_url.clone(),
        consul: endpoints.consul.as_ref().map(|consul| &consul.url).map(consul),
        cluster: endpoints.cluster.clone(),
        sweep_interval: "10s",
        grace_age: "20s",
        drain: "1s",
        recheck: "30s",
        dataplane_name: "{taskId}",
    }
}

/// A show that is about to begin.
pub struct Demo {
    /// The servers.
    pub endpoints: Arc<Endpoints>,
    /// The world, if there is one.
    pub world: Option<World>,
    /// What others have left at Consul.
    pub fixtures: Vec<ForeignFixture>,
    /// What goes wrong.
    pub faults: Arc<FaultInjector>,
    /// Tells people.
    pub printer: EventPrinter,
    /// How long things happen, and the quiet after that; more only if that does not suffice.
    pub duration: Duration,
    /// Feeds the operator's jitter.
    pub seed: u64,
    /// Makes control plane clients.
    pub connect: Box<dyn Fn(OperatorId, Arc<Metrics>) -> ConnectFn>,
    /// Where the operator's metrics are served.
    pub metrics_address: ListenAddress,
}

/// What is shared between the show and the one who moves the world.
struct DemoState {
    world: Option<World>,
    /// Of Kuma, if there is one.
    judge: Option<KumaOracle>,
    /// Of Consul, if there is one.
    consul: Option<ConsulOracle>,
    printer: EventPrinter,
}

impl Demo {
    /// Plays. `stop` ends it early.
    ///
    /// # Errors
    /// In words, when the operator cannot begin.
    pub async fn run(self, directory: &Path, stop: CancellationToken) -> Result<DemoSummary, String> {
        let services = self.world.as_ref().map(|world| world.services().to_vec()).unwrap_or_default();
        let token = directory.join(TOKEN);
        let care = manifest_options(&self.endpoints, &format!("tokenFile: \"{}\"", token.display()));
        std::fs::write(&token, MANAGEMENT_TOKEN)
            .and_then(|()| std::fs::write(directory.join(MANIFESTS), manifests(&care, &services)))
            .map_err(|error| format!("{} cannot be written: {error}", directory.display()))?;
        let metrics = Arc::new(Metrics::default());
        let (tap, latencies) = mpsc::unbounded_channel();
        metrics.tap_latency(tap);
        let server = MetricsServer::start(self.metrics_address, Arc::clone(&metrics), self.seed);
        let operator = self.operator(&metrics).await?;
        let end = CancellationToken::new();
        let running =
            tokio::spawn(self.run_operator(Arc::clone(&operator), &metrics, directory, end.clone()).await?);
        let rules = OracleConfig {
            operator: OPERATOR.to_owned(),
            cluster: self.endpoints.cluster.clone(),
            tags_lag: Duration::from_secs(45),
            max_fraction: 0.3,
            min_owned: 10,
        };
        let began = Instant::now();
        let Self { endpoints, world, fixtures, faults, printer, duration, .. } = self;
        let consul = endpoints.consul.as_ref().map(|consul| {
            let operator = consul.front.with(ConsulBootstrap::operator);
            ConsulOracle::new(OracleConfig { operator, ..rules.clone() }, false, fixtures)
        });
        let judge = endpoints.kuma_url.as_ref().map(|_| KumaOracle::new(rules));
        let mut scene = DemoState { world, judge, consul, printer };
        let eventful = duration.mul_f64(0.7);
        scene.pass(&endpoints, began + eventful.mul_f64(0.4), &stop, |_| false).await;
        scene.edit_outbounds(&endpoints, &care, directory, &services);
        scene.pass(&endpoints, began + eventful, &stop, |_| false).await;
        faults.end();
        endpoints.with(|cloud, _, now| {
            if let Some(world) = &mut scene.world {
                world.stop_events(cloud, now);
            }
        });
        scene.printer.quiet_begins();
        let settled = |scene: &DemoState| scene.pending_work(&endpoints, &services, &operator).is_empty();
        scene.pass(&endpoints, began + duration, &stop, |_| false).await;
        scene.pass(&endpoints, began + duration + PATIENCE, &stop, settled).await;
        let interrupted = stop.is_cancelled();
        endpoints.with(|cloud, _, _| scene.printer.flush_removals(cloud));
        let left =
            if interrupted { Vec::new() } else { scene.pending_work(&endpoints, &services, &operator) };
        end.cancel();
        // The operator ends by its own deadline.
        let _ = running.await;
        server.stop().await;
        Ok(scene.summary(&endpoints, &metrics, latencies, left, began.elapsed(), interrupted))
    }

    async fn operator(&self, metrics: &Arc<Metrics>) -> Result<Arc<Operator>, String> {
        let aws = self.aws(metrics).await?;
        let id = OperatorId::parse(OPERATOR).map_err(|error| error.to_string())?;
        Ok(Operator::new(OperatorDeps {
            connect: (self.connect)(id.clone(), Arc::clone(metrics)),
            id,
            ecs: Arc::new(aws.ecs.clone()),
            iam: Arc::new(aws.iam.clone()),
            lease: Arc::new(AlwaysHeld),
            clock: Clock::system(),
            metrics: Arc::clone(metrics),
            rates: ReadRates::default(),
            seed: self.seed,
            recorder: None,
        }))
    }

    async fn aws(&self, metrics: &Arc<Metrics>) -> Result<AwsClients, String> {
        let options = AwsOptions {
            region: Some(self.endpoints.region().to_owned()),
            endpoint_url: Some(self.endpoints.aws_url.clone()),
            credentials: Some(Credentials::new(ACCESS_KEY, ACCESS_KEY, None, None, "sandbox")),
            observer: Arc::clone(metrics) as _,
        };
        AwsClients::connect(options).await.map_err(|error| error.to_string())
    }

    async fn run_operator(
        &self,
        operator: Arc<Operator>,
        metrics: &Arc<Metrics>,
        directory: &Path,
        stop: CancellationToken,
    ) -> Result<impl Future<Output = ()> + use<>, String> {
        let aws = self.aws(metrics).await?;
        let queue = aws.queue(&self.endpoints.queue_url()).map_err(|error| error.to_string())?;
        let manifests = watch(ManifestSources::new([directory.to_owned()]), WatchOptions::default()).await;
        if let Some(error) = manifests.borrow().errors.first() {
            return Err(format!("the sandbox's own manifests cannot be used: {error}"));
        }
        let queue: Arc<dyn EventQueue> = Arc::new(queue);
        Ok(async move {
            // Told of in the log; what did not happen because of it the judge sees.
            let _ = operator.run(Some(queue), manifests, RunOptions::default(), stop).await;
        })
    }
}

impl DemoState {
    /// Lets time pass until `end`, or `enough`.
    async fn pass(
        &mut self,
        endpoints: &Endpoints,
        end: Instant,
        stop: &CancellationToken,
        enough: impl Fn(&Self) -> bool,
    ) {
        let mut tick = tokio::time::interval(STEP);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while Instant::now() < end && !enough(self) {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                _ = tick.tick() => self.step(endpoints),
            }
        }
        self.step(endpoints);
    }

    /// Somebody edits an outbound list; the tasks that it names hear of it without being touched.
    fn edit_outbounds(&mut self, endpoints: &Endpoints, care: &ManifestOptions, directory: &Path, services: &[ScenarioService]) {
        if self.world.is_none() || care.kuma.is_none() {
            return;
        }
        let now = endpoints.with(|_, _, now| now);
        let text = format!("{}{MORE_OUTBOUNDS}", manifests(care, services));
        let message = match std::fs::write(directory.join(MANIFESTS), text) {
            Ok(()) => "an OutboundList lets every svc-* call kv on 127.0.0.1:15051".to_owned(),
            Err(error) => format!("the manifests cannot be written: {error}"),
        };
        self.printer.happened(&WorldEvent { who: "world", what: "edit", message }, now);
    }

    fn step(&mut self, endpoints: &Endpoints) {
        endpoints.with_all(|cloud, kuma, mut consul, now| {
            if let Some(world) = &mut self.world {
                world.step(cloud, kuma, consul.as_deref_mut(), now);
                for happening in world.take_events() {
                    self.printer.happened(&happening, now);
                }
            }
            self.look_at_kuma(cloud, kuma);
            if let Some(consul) = consul {
                self.look_at_consul(cloud, consul, now);
            }
        });
    }

    fn look_at_kuma(&mut self, cloud: &Cloud, kuma: &mut KumaCp) {
        let Some(judge) = &mut self.judge else { return };
        let journal = kuma.take_journal();
        for entry in &journal {
            self.printer.wrote(entry, cloud);
        }
        let before = judge.violations().len();
        judge.writes(journal, cloud, kuma);
        for violation in &judge.violations()[before..] {
            self.printer.violation(violation);
        }
    }

    fn look_at_consul(&mut self, cloud: &Cloud, consul: &mut ConsulServer, now: Timestamp) {
        let Some(judge) = &mut self.consul else { return };
        let journal = consul.take_journal();
        let ours: Vec<_> = journal.iter().filter(|entry| judge.is_by_operator(entry)).collect();
        self.printer.removed(&ours, cloud, now);
        let before = judge.violations().len();
        judge.writes(&journal, cloud, consul);
        for violation in &judge.violations()[before..] {
            self.printer.violation(violation);
        }
    }

    /// What is not yet as it should be.
    fn pending_work(
        &self,
        endpoints: &Endpoints,
        services: &[ScenarioService],
        operator: &Operator,
    ) -> Vec<(Invariant, String)> {
        let planes = operator.workers();
        let held: Vec<String> =
            planes.values().flat_map(|p| p.tasks_held_by_guard()).map(|task| task.id().to_string()).collect();
        endpoints.with_all(|cloud, kuma, consul, now| {
            let is_held = |id: &str| held.iter().any(|held| held == id);
            let mut open = Vec::new();
            let mut add = |invariant, message: Vec<String>| {
                open.extend(message.into_iter().map(|message| (invariant, message)));
            };
            // A live task that is nowhere means that something is stuck.
            if let Some(judge) = &self.judge {
                add(Invariant::I1, judge.check_secret_leaks(cloud, kuma, &is_held, now));
                add(Invariant::I8, judge.check_missing(cloud, kuma, services, &is_held));
            }
            if let (Some(judge), Some(consul)) = (&self.consul, consul) {
                add(Invariant::I1, judge.check_secret_leaks(cloud, consul, &is_held, now));
                add(Invariant::I3, judge.modified_fixtures(consul));
                let joined = self.world.is_none();
                add(Invariant::I8, judge.check_missing(cloud, consul, &|_| joined, now));
            }
            open
        })
    }

    fn summary(
        self,
        endpoints: &Endpoints,
        metrics: &Metrics,
        mut latencies: mpsc::UnboundedReceiver<Duration>,
        left: Vec<(Invariant, String)>,
        took: Duration,
        interrupted: bool,
    ) -> DemoSummary {
        let mut samples = Vec::new();
        while let Ok(sample) = latencies.try_recv() {
            samples.push(sample);
        }
        let now = endpoints.with(|_, _, now| now);
        let census = self.world.as_ref().map_or(Census::default(), World::census);
        let mut left = left;
        if census.sidecars_lost > 0 {
            let message = format!("{} sidecars gave up waiting for their Dataplane", census.sidecars_lost);
            left.push((Invariant::I8, message));
        }
        if metrics.render().contains(SECRET) {
            left.push((Invariant::I9, "the metrics show a secret of a task's environment".to_owned()));
        }
        let late = left.into_iter().map(|(invariant, message)| InvariantViolation { invariant, at: now, message });
        let mut violations: Vec<InvariantViolation> = Vec::new();
        violations.extend(self.judge.iter().flat_map(|judge| judge.violations().iter().cloned()));
        violations.extend(self.consul.iter().flat_map(|judge| judge.violations().iter().cloned()));
        DemoSummary {
            took,
            interrupted,
            census,
            kuma: self.judge.as_ref().map(KumaOracle::tally),
            consul: self
                .consul
                .as_ref()
                .map(|judge| (self.world.as_ref().map(World::membership).unwrap_or_default(), judge.tally())),
            rejected: metrics.rejected_tasks(),
            violations: violations.into_iter().chain(late).collect(),
            event_to_write: Latencies::of(samples),
            removed_after_stop: Latencies::of(self.printer.into_removals()),
            aws_calls: endpoints.front.calls(),
        }
    }
}

/// Keeps the world alive with no operator inside, until `stop`.
pub async fn keep_alive(endpoints: Arc<Endpoints>, world: Option<World>, stop: CancellationToken) {
    let world = Mutex::new(world);
    let mut tick = tokio::time::interval(STEP);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            _ = tick.tick() => endpoints.with_all(|cloud, kuma, mut consul, now| {
                match &mut *world.lock().unwrap_or_else(PoisonError::into_inner) {
                    Some(world) => {
                        world.step(cloud, kuma, consul.as_deref_mut(), now);
                        world.take_events();
                    }
                    None => kuma.tick(now),
                }
                // Nobody judges here; unread it would grow for ever.
                kuma.take_journal();
                consul.map(ConsulServer::take_journal);
            }),
        }
    }
}
