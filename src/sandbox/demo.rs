//! Runs the demo: the world changes, the operator runs with its production clients, and the oracle checks its writes.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::checks::{DemoCheck, DemoCheckStatus};
use super::demo_manifests::{DemoManifests, first_zone_proxies};
use super::deployed_endpoints::DeployedEndpoints;
use super::event_printer::EventPrinter;
use super::mesh_changes::{MeshChanges, MeshPlan, Scene};
use super::replicas::{self, DemoCandidate, DemoReplica, DemoReplicas};
use super::summary::{DemoSummary, Latencies};
use crate::operator::{ConnectFn, Operator, OperatorDeps, ReadRates, RunOptions, TokenStores};
use crate::read_api::{DEFAULT_HISTORY_ENTRIES, ReadApiOptions, ReadServer};
use crate::telemetry::log::LogStats;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::server::{ListenAddress, MetricsServer};
use ecs_mesh_aws::aws::EventQueue;
use ecs_mesh_aws::sdk::{AwsClients, AwsOptions, Credentials};
use ecs_mesh_clock::Clock;
use ecs_mesh_controller::NoSecrets;
use ecs_mesh_manifests::{ManifestSources, WatchOptions, watch};
use ecs_mesh_model::{OperatorId, Timestamp};
use ecs_mesh_sandbox::aws::Cloud;
use ecs_mesh_sandbox::consul::ConsulServer;
use ecs_mesh_sandbox::endpoints::{ACCESS_KEY, Endpoints};
use ecs_mesh_sandbox::fault_injection::FaultInjector;
use ecs_mesh_sandbox::kuma::KumaCp;
use ecs_mesh_sandbox::oracle::{ConsulOracle, Invariant, InvariantViolation, KumaOracle, OracleConfig};
use ecs_mesh_sandbox::world::{
    ConsulBootstrap, ForeignFixture, MANAGEMENT_TOKEN, SECRET, TaskCounts, World, WorldEvent,
};

/// Interval at which the world advances and the oracle checks writes.
const STEP: Duration = Duration::from_millis(50);
/// Time after `--duration` within which all pending work must complete.
const SETTLE_TIMEOUT: Duration = Duration::from_mins(1);
/// The part of the time with events after which the leader of several replicas is killed.
const LEADER_KILLED_AT: f64 = 0.4;
/// Name of the file with Consul's token.
const TOKEN: &str = "consul-token";
/// The operator's id in the sandbox.
pub const OPERATOR: &str = "sandbox";

/// A demo that is ready to run.
pub struct Demo {
    /// The emulated servers.
    pub endpoints: Arc<Endpoints>,
    /// The world; `None` for an empty account.
    pub world: Option<World>,
    /// How the mesh changes, where there are a world and Kuma.
    pub mesh: Option<MeshPlan>,
    /// Objects at Consul that the operator must not modify.
    pub fixtures: Vec<ForeignFixture>,
    /// Faults between the operator and the servers.
    pub faults: Arc<FaultInjector>,
    /// Prints the events.
    pub printer: EventPrinter,
    /// Length of the demo: events for 70 % of it, then a quiet period.
    pub duration: Duration,
    /// Seed of the operator's jitter.
    pub seed: u64,
    /// Copies of the operator. With several, the leader is killed once it has written, and another one must take over.
    pub replicas: u8,
    /// Creates control-plane clients.
    pub connect: Box<dyn Fn(OperatorId, Arc<Metrics>) -> ConnectFn>,
    /// Listen address of the operator's metrics.
    pub metrics_address: ListenAddress,
    /// The listener of the read API, of the first copy of the operator.
    pub api: Option<TcpListener>,
    /// The counts of the log's lines.
    pub log: Arc<LogStats>,
}

/// The world and the oracles of a running demo.
struct DemoState {
    world: Option<World>,
    /// Changes the mesh, and judges what clients reach.
    changes: Option<MeshChanges>,
    manifests: DemoManifests,
    directory: PathBuf,
    began: Instant,
    /// The time with events.
    active: Duration,
    replicas: DemoReplicas,
    /// Checks the writes to Kuma, if it is emulated.
    kuma_oracle: Option<KumaOracle>,
    /// Checks the writes to Consul, if it is emulated.
    consul_oracle: Option<ConsulOracle>,
    /// Counts endpoints at Kuma; tasks leave Consul by themselves.
    deployed: DeployedEndpoints,
    printer: EventPrinter,
}

impl Demo {
    /// Runs the demo until its end or until `stop` is cancelled.
    ///
    /// # Errors
    /// Describes why the operator cannot start.
    pub async fn run(mut self, directory: &Path, stop: CancellationToken) -> Result<DemoSummary, String> {
        let services = self.world.as_ref().map(|world| world.services().to_vec()).unwrap_or_default();
        let token = directory.join(TOKEN);
        std::fs::write(&token, MANAGEMENT_TOKEN)
            .map_err(|error| format!("writing to {}: {error}", directory.display()))?;
        let proxies = self.mesh.filter(|mesh| mesh.is_kuma_alone).map(|mesh| first_zone_proxies(mesh.from));
        let token = format!("tokenFile: \"{}\"", token.display());
        let manifests = DemoManifests::new(&self.endpoints, &token, proxies);
        manifests.write(directory, &services)?;
        let metrics = Arc::new(Metrics::new(Arc::clone(&self.log)));
        let (tap, latencies) = mpsc::unbounded_channel();
        let server = MetricsServer::start(self.metrics_address, Arc::clone(&metrics), self.seed);
        let api = self.api.take();
        let (replicas, api) = self.start_replicas(&metrics, &tap, directory, api).await?;
        drop(tap);
        let config = OracleConfig {
            operator: OPERATOR.to_owned(),
            cluster: self.endpoints.cluster.clone(),
            deleted_cluster: None,
            tags_lag: Duration::from_secs(45),
            max_fraction: 0.3,
            min_owned: 10,
        };
        let began = Instant::now();
        let Self { endpoints, world, mesh, fixtures, faults, printer, duration, .. } = self;
        let consul_oracle = endpoints.consul.as_ref().map(|consul| {
            let operator = consul.front.with(ConsulBootstrap::operator);
            ConsulOracle::new(OracleConfig { operator, ..config.clone() }, false, fixtures)
        });
        let kuma_oracle = endpoints.kuma_url.as_ref().map(|_| KumaOracle::new(config));
        let active = duration.mul_f64(0.7);
        let mut state = DemoState {
            world,
            replicas,
            changes: mesh.map(|plan| MeshChanges::new(plan, OPERATOR)),
            manifests,
            directory: directory.to_owned(),
            began,
            active,
            kuma_oracle,
            consul_oracle,
            deployed: DeployedEndpoints::default(),
            printer,
        };
        state.advance(&endpoints, began + active, &stop, |_| false).await;
        faults.stop();
        endpoints.with(|cloud, _, now| {
            if let Some(world) = &mut state.world {
                world.stop_events(cloud, now);
            }
        });
        state.printer.print_quiet_begins();
        let settled = |state: &DemoState| {
            let is_pending = |check: &DemoCheck| check.status == DemoCheckStatus::Pending;
            state.pending_work(&endpoints).is_empty() && !state.checks(&endpoints).iter().any(is_pending)
        };
        state.advance(&endpoints, began + duration, &stop, |_| false).await;
        state.advance(&endpoints, began + duration + SETTLE_TIMEOUT, &stop, settled).await;
        let interrupted = stop.is_cancelled();
        endpoints.with(|cloud, _, _| state.printer.flush(cloud));
        let left = if interrupted { Vec::new() } else { state.pending_work(&endpoints) };
        let metrics: Vec<Arc<Metrics>> = state.replicas.metrics().cloned().collect();
        state.replicas.stop().await;
        if let Some(api) = api {
            api.stop().await;
        }
        server.stop().await;
        Ok(state.summary(&endpoints, &metrics, latencies, left, began.elapsed(), interrupted))
    }

    /// Starts the replicas. The first one has the metrics and the read API that are served.
    async fn start_replicas(
        &self,
        first: &Arc<Metrics>,
        tap: &mpsc::UnboundedSender<Duration>,
        directory: &Path,
        mut api: Option<TcpListener>,
    ) -> Result<(DemoReplicas, Option<ReadServer>), String> {
        if self.replicas > 1 {
            replicas::create_table(&self.endpoints)?;
        }
        let (mut all, mut server) = (Vec::new(), None);
        for index in 0..self.replicas {
            let further = || Arc::new(Metrics::new(Arc::clone(&self.log)));
            let metrics = if index == 0 { Arc::clone(first) } else { further() };
            metrics.changes.tap_latency(tap.clone());
            let name = format!("replica-{}", index + 1);
            let seed = self.seed.wrapping_add(index.into());
            let candidate = if self.replicas > 1 {
                let id = OperatorId::parse(OPERATOR).map_err(|error| error.to_string())?;
                Some(DemoCandidate::new(self.aws(&metrics).await?.dynamodb, &id, &name, seed)?)
            } else {
                None
            };
            let operator = self.operator(&metrics, candidate.as_ref(), seed).await?;
            if let Some(listener) = api.take() {
                server = Some(serve_reads(listener, &operator).await?);
            }
            let stop = CancellationToken::new();
            let run = self.run_operator(Arc::clone(&operator), &metrics, directory, stop.clone()).await?;
            all.push(DemoReplica::start(name, operator, metrics, candidate, run, stop));
        }
        Ok((DemoReplicas::new(all), server))
    }

    async fn operator(
        &self,
        metrics: &Arc<Metrics>,
        candidate: Option<&DemoCandidate>,
        seed: u64,
    ) -> Result<Arc<Operator>, String> {
        let aws = self.aws(metrics).await?;
        let id = OperatorId::parse(OPERATOR).map_err(|error| error.to_string())?;
        let (lease, replicas) = DemoCandidate::lease(candidate);
        Ok(Operator::new(OperatorDeps {
            connect: (self.connect)(id.clone(), Arc::clone(metrics)),
            id,
            previous_id: None,
            ecs: Arc::new(aws.ecs.clone()),
            ec2: Arc::new(aws.ec2.clone()),
            iam: Arc::new(aws.iam.clone()),
            accounts: Arc::new(()),
            token_stores: TokenStores::of_aws(&aws),
            lease,
            replicas,
            clock: Clock::system(),
            metrics: Arc::clone(metrics),
            rates: ReadRates::default(),
            seed,
            recorder: None,
        }))
    }

    async fn aws(&self, metrics: &Arc<Metrics>) -> Result<AwsClients, String> {
        let options = AwsOptions {
            region: Some(self.endpoints.region().to_owned()),
            endpoint_url: Some(self.endpoints.aws_url.clone()),
            credentials: Some(Credentials::new(ACCESS_KEY, ACCESS_KEY, None, None, "sandbox")),
            proxy: None,
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
            return Err(format!("loading the sandbox's manifests: {error}"));
        }
        let queue: Arc<dyn EventQueue> = Arc::new(queue);
        Ok(async move {
            // The operator logs its errors, and the oracle reports missing writes.
            let _ = operator.run(Some(queue), manifests, RunOptions::default(), stop).await;
        })
    }
}

/// Serves the read API of this operator.
async fn serve_reads(listener: TcpListener, operator: &Operator) -> Result<ReadServer, String> {
    let address =
        listener.local_addr().map_err(|error| format!("reading the address of the API: {error}"))?;
    let metrics = operator.metrics().api.clone();
    let options = ReadApiOptions { address, token: None, tls: None, metrics };
    let reads = operator.reads(DEFAULT_HISTORY_ENTRIES);
    let server = ReadServer::serve(listener, options, Arc::new(NoSecrets), reads).await;
    server.map_err(|error| error.to_string())
}

impl DemoState {
    /// Advances the world until `end`, or until `is_done`.
    async fn advance(
        &mut self,
        endpoints: &Endpoints,
        end: Instant,
        stop: &CancellationToken,
        is_done: impl Fn(&Self) -> bool,
    ) {
        let mut tick = tokio::time::interval(STEP);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while Instant::now() < end && !is_done(self) {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                _ = tick.tick() => self.step(endpoints),
            }
        }
        self.step(endpoints);
    }

    /// The number of processes that have written, if writes are due and name theirs.
    fn writers(&self) -> Option<usize> {
        self.kuma_oracle.as_ref().filter(|_| self.world.is_some()).map(KumaOracle::writing_processes)
    }

    fn step(&mut self, endpoints: &Endpoints) {
        let is_due = self.began.elapsed() >= self.active.mul_f64(LEADER_KILLED_AT);
        let writers = self.writers();
        let killed = if is_due { self.replicas.kill_leader(writers) } else { None };
        for event in killed.into_iter().chain(self.replicas.take_event()) {
            self.printer.print_event(&event, endpoints.with(|_, _, now| now));
        }
        endpoints.with_all(|cloud, kuma, mut consul, now| {
            if let Some(world) = &mut self.world {
                world.step(cloud, kuma, consul.as_deref_mut(), now);
            }
            // The writes so far, before anything changes.
            self.check_kuma_writes(cloud, kuma, now);
            if let Some(consul) = consul {
                self.check_consul_writes(cloud, consul, now);
            }
            for event in self.events(cloud, kuma, now) {
                self.printer.print_event(&event, now);
            }
        });
    }

    /// The events of the world since the last step, after the changes of its mesh that are due.
    fn events(&mut self, cloud: &mut Cloud, kuma: &mut KumaCp, now: Timestamp) -> Vec<WorldEvent> {
        let Some(world) = &mut self.world else { return Vec::new() };
        let mut events = world.take_events();
        if let Some(changes) = &mut self.changes {
            let elapsed = self.began.elapsed().div_duration_f64(self.active);
            let before = changes.upgraded_at();
            let mut scene = Scene { world, cloud, kuma, now };
            events.extend(changes.step(&mut scene, &mut self.manifests, &self.directory, elapsed));
            if let Some(at) = changes.upgraded_at().filter(|at| before != Some(*at)) {
                self.kuma_oracle.iter_mut().for_each(|oracle| oracle.record_dialect_upgrade(at));
            }
        }
        if self.kuma_oracle.is_some() {
            events.extend(self.deployed.step(cloud, kuma, world.services()));
        }
        events
    }

    fn check_kuma_writes(&mut self, cloud: &Cloud, kuma: &mut KumaCp, now: Timestamp) {
        let Some(oracle) = &mut self.kuma_oracle else { return };
        let journal = kuma.take_journal();
        for entry in &journal {
            self.printer.print_kuma_write(entry, cloud);
        }
        self.printer.print_updates(now);
        let before = oracle.violations().len();
        oracle.record_ready(kuma, now);
        oracle.check_writes(journal, cloud, kuma);
        for violation in &oracle.violations()[before..] {
            self.printer.print_violation(violation);
        }
    }

    fn check_consul_writes(&mut self, cloud: &Cloud, consul: &mut ConsulServer, now: Timestamp) {
        let Some(oracle) = &mut self.consul_oracle else { return };
        let journal = consul.take_journal();
        let ours: Vec<_> = journal.iter().filter(|entry| oracle.is_by_operator(entry)).collect();
        self.printer.print_consul_removals(&ours, cloud, now);
        let before = oracle.violations().len();
        oracle.check_writes(&journal, cloud, consul);
        for violation in &oracle.violations()[before..] {
            self.printer.print_violation(violation);
        }
    }

    /// Differences from the desired state, with the invariant that each violates if it remains.
    fn pending_work(&self, endpoints: &Endpoints) -> Vec<(Invariant, String)> {
        let services = self.world.as_ref().map(World::services).unwrap_or_default();
        let workers = self.replicas.operator().map(|operator| operator.workers()).unwrap_or_default();
        let held: Vec<String> = workers
            .values()
            .flat_map(|p| p.tasks_held_by_guard())
            .map(|task| task.id().to_string())
            .collect();
        endpoints.with_all(|cloud, kuma, consul, now| {
            let is_held = |id: &str| held.iter().any(|held| held == id);
            let mut open = Vec::new();
            let mut add = |invariant, message: Vec<String>| {
                open.extend(message.into_iter().map(|message| (invariant, message)));
            };
            // A live task without a registration means that its reconciliation is blocked.
            if let Some(oracle) = &self.kuma_oracle {
                add(Invariant::I1, oracle.find_leaks(cloud, kuma, &is_held, now));
                add(Invariant::I8, oracle.find_missing(cloud, kuma, services, &is_held));
            }
            if let (Some(oracle), Some(consul)) = (&self.consul_oracle, consul) {
                add(Invariant::I1, oracle.find_leaks(cloud, consul, &is_held, now));
                add(Invariant::I3, oracle.modified_fixtures(consul));
                let is_exempt = self.world.is_none();
                add(Invariant::I8, oracle.find_missing(cloud, consul, &|_| is_exempt, now));
            }
            open
        })
    }

    /// The judged parts of the demo beside the invariants.
    fn checks(&self, endpoints: &Endpoints) -> Vec<DemoCheck> {
        let mesh =
            self.changes.as_ref().map(|changes| endpoints.with(|cloud, kuma, _| changes.checks(cloud, kuma)));
        mesh.into_iter().flatten().chain(self.replicas.takeover(self.writers())).collect()
    }

    fn summary(
        self,
        endpoints: &Endpoints,
        metrics: &[Arc<Metrics>],
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
        let checks = self.checks(endpoints);
        let task_counts = self.world.as_ref().map_or(TaskCounts::default(), World::task_counts);
        let mut left = left;
        if task_counts.sidecars_lost > 0 {
            let message =
                format!("{} sidecars timed out waiting for their Dataplane", task_counts.sidecars_lost);
            left.push((Invariant::I8, message));
        }
        if metrics.iter().any(|metrics| metrics.render().contains(SECRET)) {
            left.push((Invariant::I9, "the metrics contain a secret of a task's environment".to_owned()));
        }
        let late =
            left.into_iter().map(|(invariant, message)| InvariantViolation { invariant, at: now, message });
        let mut violations: Vec<InvariantViolation> = Vec::new();
        violations.extend(self.kuma_oracle.iter().flat_map(|oracle| oracle.violations().iter().cloned()));
        violations.extend(self.consul_oracle.iter().flat_map(|oracle| oracle.violations().iter().cloned()));
        DemoSummary {
            took,
            interrupted,
            task_counts,
            writing_processes: self.kuma_oracle.as_ref().map_or(0, KumaOracle::writing_processes),
            kuma: self.kuma_oracle.as_ref().map(KumaOracle::tally),
            consul: self.consul_oracle.as_ref().map(|oracle| {
                (self.world.as_ref().map(World::agent_counts).unwrap_or_default(), oracle.tally())
            }),
            rejected: metrics.iter().map(|metrics| metrics.evaluations.rejected_tasks()).sum(),
            checks: if interrupted { checks } else { checks.into_iter().map(DemoCheck::at_end).collect() },
            violations: violations.into_iter().chain(late).collect(),
            event_to_write: Latencies::of(samples),
            removed_after_stop: Latencies::of(self.printer.into_removals()),
            aws_calls: endpoints.front.calls(),
        }
    }
}

/// Advances the world without an operator, until `stop` is cancelled.
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
                // The journals are dropped, since no oracle reads them.
                kuma.take_journal();
                consul.map(ConsulServer::take_journal);
            }),
        }
    }
}
