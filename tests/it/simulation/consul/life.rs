//! A run at Consul, where tasks log in and register themselves.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ecs_mesh_api::ConsulConnection;
use ecs_mesh_api::manifests::ManifestSet;
use ecs_mesh_consul::ConsulControlPlane;
use ecs_mesh_control_plane::NoObserver;
use ecs_mesh_lease::HolderId;
use ecs_mesh_manifests::ManifestStatus;
use ecs_mesh_model::{OperatorId, Timestamp};
use ecs_mesh_operator::operator::{ConnectFn, Connected, Operator};
use ecs_mesh_sandbox::aws::{Cloud, LifeTimes};
use ecs_mesh_sandbox::control_planes::ControlPlanes;
use ecs_mesh_sandbox::kuma::{KumaConfig, KumaCp};
use ecs_mesh_sandbox::oracle::{ConsulOracle, OracleConfig};
use ecs_mesh_sandbox::world::{
    ConsulBootstrap, ConsulManifestOptions, ManifestOptions, Naming, Rollouts, World, WorldConfig,
    admin_token, manifests,
};
use tokio::time::Instant;

use super::super::deleted_cluster;
use super::super::driver::{Driver, INVALID_DOCUMENT, OPERATOR, Scenario, in_a_while};
use super::super::env::{
    QUIET_PERIOD, START, SimEnv, SimReport, load_whatever, under_paused_clock, violation,
};
use super::super::faults::SimFault;
use super::super::replicas::{self, RunningReplica, TakeoverHook};
use super::declared::{self, Administrator};
use super::shared::{ConsulShared, OperatorToken};
use super::transport::SimConsulTransport;

/// The address of the account's AWS, for logins.
const AWS: &str = "http://aws.simulated";
/// Time limit from the delivery of a STOPPED event to the removal of the task's objects, without faults.
const WITHIN: Duration = Duration::from_secs(1);
/// Maximum sweeps in the quiet phase.
const SWEEPS: u64 = QUIET_PERIOD.as_secs() / 30 + 1;
/// Calls to ECS of a sweep: two lists, and a second page if more than a hundred tasks have stopped.
const ECS_CALLS: u64 = 3;
/// Calls to Consul of a sweep and an ACL reconcile, and further calls with declared ACL objects.
const CONSUL_CALLS: (u64, u64) = (13, 3);
/// Further calls to ECS and to Consul with a deleted cluster: the list of clusters, the refused lists and describes of two
/// tasks, a describe of the cluster after each, and the services of its node.
const DELETED_CLUSTER_CALLS: (u64, u64) = (8, 3);
/// Grace after a start, a lease or a binding, in which the operator may be busy with other work.
const BEGINS: Duration = Duration::from_secs(10);

/// Runs a seed.
pub(super) fn run(seed: u64) -> SimReport {
    under_paused_clock(|| {
        let mut rng = fastrand::Rng::with_seed(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(1));
        let scenario = ConsulScenario::start(seed, &mut rng);
        Driver::new(seed, rng, scenario).run()
    })
}

#[allow(clippy::struct_excessive_bools)] // each is a die of its own
struct ConsulScenario {
    shared: Arc<ConsulShared>,
    world: World,
    /// Unused Kuma, which the world steps as well.
    kuma: KumaCp,
    /// `onRevoked: withdraw` applies: objects of running tasks are removed with their role tags.
    withdraws: bool,
    /// Sweeps happen at starts alone, so that events must suffice.
    without_sweeps: bool,
    /// A second binding selects by task tags.
    by_tags: bool,
    /// ACL objects are declared; makes foreign changes to them.
    foreign_client: Option<String>,
    next_drift: Instant,
    /// The run has no faults.
    is_fair: bool,
    care: ManifestOptions,
    /// The ARN of a cluster that was deleted before the run.
    deleted_cluster: Option<String>,
    generation: u64,
    bound: bool,
    /// The time since which the operator could act at once.
    undisturbed_since: Timestamp,
    /// Tasks whose STOPPED event was delivered.
    stops_delivered: BTreeSet<String>,
    timed: u64,
    next_token: Instant,
    /// When ListTasks next omits some tasks.
    next_hiding: Instant,
    /// When all roles lose their tags, once in a run.
    revocation: Option<Instant>,
}

/// Seconds for which ListTasks omits tasks: longer than the grace age and two sweeps.
const HIDDEN: std::ops::Range<u64> = 70..150;

/// A second binding that selects no task. Its tag selector makes the operator describe each task. It has the run's sweep
/// interval, since the shortest interval of all bindings applies.
const BY_TAGS: &str = "---
apiVersion: ecs-mesh.dev/v1alpha1
kind: MeshBinding
metadata: {name: tagged}
spec:
  controlPlane: consul
  selector: {clusters: [\"CLUSTER\"], tags: {team: another}}
  cleanup: {sweepInterval: SWEEP_INTERVAL}
";

/// Slows down stops, so that other events happen during them.
fn slow(cloud: &mut Cloud, rng: &mut fastrand::Rng, stopped_kept: Option<Duration>) {
    let life = cloud.config().life.clone();
    cloud.set_life(LifeTimes {
        draining: Duration::from_millis(rng.u64(100..15_000)),
        stopping: Duration::from_millis(rng.u64(300..5_000)),
        stopped_kept: stopped_kept.unwrap_or(life.stopped_kept),
        ..life
    });
}

impl ConsulScenario {
    fn start(seed: u64, rng: &mut fastrand::Rng) -> Self {
        let env = SimEnv::new(seed, rng, true).with_replicas(replicas::of_life(seed));
        let (withdraws, without_sweeps) = (rng.bool(), rng.u8(..3) == 0);
        let cluster = env.cluster.to_string();
        let mut kuma = KumaCp::new(KumaConfig::default(), START);
        let home =
            ConsulBootstrap { cluster: cluster.clone(), aws: AWS.to_owned(), region: "eu-west-1".to_owned() };
        let mut consul = ConsulBootstrap::server(seed, START);
        home.configure(&mut consul, START).unwrap();
        // Without sweeps the operator does not look for drift.
        let foreign_client = (!without_sweeps && rng.bool()).then(|| {
            declared::administrator(&mut consul, START).hand_over();
            admin_token(&mut consul, START).unwrap()
        });
        let world = WorldConfig {
            tasks: rng.usize(8..40),
            seed,
            interval: (Duration::from_millis(500), Duration::from_secs(8)),
            naming: Naming::TaskId,
            control_planes: ControlPlanes::Consul,
            revoked_for: (Duration::from_secs(10), Duration::from_secs(90)),
            rollouts: Rollouts::Simple,
            host_mode: false,
        };
        let (world, fixtures) = {
            let mut cloud = env.cloud.lock().unwrap();
            // Only sweeps find tasks that ECS has forgotten.
            slow(&mut cloud, rng, without_sweeps.then_some(Duration::from_hours(1)));
            let mut world = World::start(world, &mut cloud, &mut kuma, START).unwrap();
            let fixtures = world.join_consul(&home, &mut cloud, &mut consul, START).unwrap();
            (world, fixtures)
        };
        // Only sweeps find what a deleted cluster has left.
        let deleted = (!without_sweeps && deleted_cluster::is_in(seed, &env))
            .then(|| deleted_cluster::delete(&mut env.cloud.lock().unwrap()));
        deleted.iter().for_each(|cluster| deleted_cluster::leave_services(cluster, &mut consul));
        let deleted = deleted.map(|cluster| cluster.to_string());
        let care = ManifestOptions {
            kuma: None,
            consul: Some(ConsulManifestOptions {
                address: "http://consul:8500".to_owned(),
                // The transport sends the token.
                token: "timeout: 5s".to_owned(),
                on_revoked: withdraws.then_some("withdraw"),
            }),
            cluster: deleted
                .as_ref()
                .map_or_else(|| cluster.clone(), |_| deleted_cluster::PATTERN.to_owned()),
            sweep_interval: if without_sweeps { "24h" } else { "30s" },
            grace_age: "1m",
            drain: "2s",
            settle: "5s",
            recheck: "1m",
            hold: None,
            dataplane_name: "{taskId}",
        };
        let oracle = |consul: &mut _| {
            let rules = OracleConfig {
                operator: ConsulBootstrap::operator(consul, START),
                cluster,
                deleted_cluster: deleted.clone(),
                tags_lag: Duration::from_secs(100),
                max_fraction: 0.3,
                min_owned: 10,
            };
            let oracle = ConsulOracle::new(rules, withdraws, fixtures);
            if foreign_client.is_some() { oracle.with_ownership_marker(declared::mark()) } else { oracle }
        };
        let is_fair = !env.faults.are_enabled();
        if without_sweeps {
            // Tasks that the only sweep misses would not be found.
            env.faults.lists_are_honest();
        }
        Self {
            shared: ConsulShared::new(env, consul, home, oracle),
            world,
            kuma,
            withdraws,
            without_sweeps,
            by_tags: rng.bool(),
            foreign_client,
            next_drift: in_a_while(rng, 20..90),
            care,
            deleted_cluster: deleted,
            generation: 1,
            bound: true,
            undisturbed_since: START,
            stops_delivered: BTreeSet::new(),
            timed: 0,
            next_token: in_a_while(rng, 40..160),
            next_hiding: in_a_while(rng, 20..120),
            revocation: (!is_fair).then(|| in_a_while(rng, 40..110)),
            is_fair,
        }
    }

    /// The manifests with or without the binding, optionally with an invalid document.
    fn written_down(&self, broken: bool) -> ManifestStatus {
        let mut text = manifests(&self.care, &[]);
        if !self.bound {
            text.truncate(text.find("---").unwrap());
        }
        if self.by_tags && self.bound {
            let by_tags = BY_TAGS.replace("CLUSTER", &self.care.cluster);
            text.push_str(&by_tags.replace("SWEEP_INTERVAL", self.care.sweep_interval));
        }
        if self.foreign_client.is_some() {
            text.push_str(&declared::manifest(AWS));
        }
        if broken {
            text.push_str(INVALID_DOCUMENT);
        }
        let (set, errors) = load_whatever(&text);
        assert_eq!(set.complete, !broken);
        let intervals = set.bindings.values().map(|binding| binding.spec.cleanup.sweep_interval.0);
        assert!(intervals.collect::<BTreeSet<_>>().len() <= 1, "a life has one sweep interval");
        let set = Arc::new(ManifestSet { generation: self.generation, ..(*set).clone() });
        ManifestStatus { set, errors, unread: Vec::new(), warnings: Vec::new(), files: 1 }
    }

    fn rewritten(&mut self, bound: bool, broken: bool) -> Option<ManifestStatus> {
        if self.without_sweeps {
            // A manifest change triggers a sweep.
            return None;
        }
        self.generation += 1;
        self.bound = bound;
        self.shared.record(|| format!("edit: bound {bound}, broken {broken}"));
        Some(self.written_down(broken))
    }

    /// Makes a foreign change to a declared object.
    fn drift(&self, rng: &mut fastrand::Rng) {
        let Some(secret) = &self.foreign_client else { return };
        let now = self.shared.now();
        let done = {
            let mut consul = self.shared.consul.lock().unwrap();
            Administrator { consul: &mut consul, secret, now }.edit(rng)
        };
        if let Some(message) = done {
            self.shared.faults.count(SimFault::Drift);
            self.shared.record(|| message.to_owned());
        }
    }

    /// Starts the deadline of each delivered STOPPED event, unless the operator is impaired.
    fn check_timers(&mut self) {
        let now = self.shared.now();
        let stops_delivered = self.shared.take_stops_delivered();
        let consul = self.shared.consul.lock().unwrap();
        let mut oracle = self.shared.oracle.lock().unwrap();
        if !(self.is_fair && self.bound) || self.shared.is_write_disturbed() {
            self.undisturbed_since = now;
            oracle.record_disturbance();
        }
        for (task, at) in stops_delivered {
            if self.undisturbed_since.plus(BEGINS) < at {
                oracle.record_stop_delivered(&task, at);
                self.timed += 1;
            }
            self.stops_delivered.insert(task);
        }
        oracle.check_deadlines(&consul, WITHIN, now);
    }
}

impl Scenario for ConsulScenario {
    fn env(&self) -> &Arc<SimEnv> {
        &self.shared.env
    }

    fn connect(&self, replica: Option<&Arc<RunningReplica>>) -> ConnectFn {
        let (shared, replica) = (Arc::clone(&self.shared), replica.cloned());
        Arc::new(move |_, spec| {
            let id = OperatorId::parse(OPERATOR).unwrap();
            let connection: &ConsulConnection = spec.consul.as_ref().ok_or("no Consul")?;
            let transport = SimConsulTransport(Arc::clone(&shared), replica.clone());
            let plane = ConsulControlPlane::new(transport, connection, id, Arc::new(NoObserver));
            Ok(Connected::consul(plane))
        })
    }

    fn manifests(&self) -> ManifestStatus {
        self.written_down(false)
    }

    fn step(&mut self) {
        {
            let mut cloud = self.shared.cloud.lock().unwrap();
            let mut consul = self.shared.consul.lock().unwrap();
            self.world.step(&mut cloud, &mut self.kuma, Some(&mut consul), self.shared.now());
        }
        self.shared.check_writes(self.shared.process());
        self.check_timers();
        for event in self.world.take_events() {
            self.shared.record(|| format!("{} {} {}", event.actor, event.action, event.message));
        }
    }

    /// Checks that objects that the operator has forgotten are gone, whatever responses its token got.
    fn observe(&mut self, operator: &Operator) {
        let mut known = Vec::new();
        for worker in operator.workers().values() {
            worker.registry.visit(|entry| known.push(Arc::clone(&entry.id.name)));
        }
        let consul = self.shared.consul.lock().unwrap();
        self.shared.oracle.lock().unwrap().record_known(known.into_iter(), &consul, self.shared.now());
    }

    /// Makes the operator's token unknown or limited for some time, hides live tasks from lists, and removes all role tags
    /// once.
    fn on_busy_step(&mut self, rng: &mut fastrand::Rng) {
        if Instant::now() >= self.next_token {
            let tokens = [OperatorToken::Unknown, OperatorToken::CannotRead, OperatorToken::CannotReadAll];
            let (token, time) = (tokens[rng.usize(..3)], Duration::from_secs(rng.u64(5..40)));
            if !self.is_fair {
                self.shared.spoil_token(token, time);
            }
            self.next_token = in_a_while(rng, 40..160);
        }
        let now = self.shared.now();
        if !self.without_sweeps && Instant::now() >= self.next_hiding {
            let seconds = Duration::from_secs(rng.u64(HIDDEN));
            self.shared.record(|| format!("ListTasks hides some tasks for {seconds:?}"));
            self.shared.faults.hide_tasks(now.plus(seconds));
            self.next_hiding = Instant::now() + seconds + Duration::from_secs(rng.u64(20..120));
        }
        if self.revocation.is_some_and(|at| Instant::now() >= at) {
            self.revocation = None;
            self.shared.faults.count(SimFault::MassRevocation);
            self.world.revoke_all(&mut self.shared.cloud.lock().unwrap(), now);
        }
        if Instant::now() >= self.next_drift {
            self.drift(rng);
            self.next_drift = in_a_while(rng, 20..90);
        }
    }

    /// Removes and restores the binding, and at times adds an invalid document. Neither may remove an object.
    fn edit(&mut self, rng: &mut fastrand::Rng) -> Option<ManifestStatus> {
        let (unbound, broken) = (rng.u8(..4) == 0, rng.u8(..4) == 0);
        self.rewritten(!unbound, broken)
    }

    fn fix(&mut self) -> Option<ManifestStatus> {
        self.rewritten(true, false)
    }

    fn on_restart(&mut self) {
        self.undisturbed_since = self.shared.now();
        self.shared.oracle.lock().unwrap().record_restart();
    }

    fn on_replica_start(&mut self, holder: &HolderId) {
        self.shared.oracle.lock().unwrap().record_start(holder.as_str());
    }

    fn takeover_hook(&self) -> TakeoverHook {
        let shared = Arc::downgrade(&self.shared);
        Box::new(move |holder| {
            if let Some(shared) = shared.upgrade() {
                shared.record_other_process(|| format!("takeover by {holder}"));
                shared.disturb_until(shared.now().plus(BEGINS));
                shared.oracle.lock().unwrap().record_takeover(holder.as_str());
            }
        })
    }

    fn stop_faults(&mut self) {
        self.shared.token_is_good();
        self.world.stop_events(&mut self.shared.cloud.lock().unwrap(), self.shared.now());
    }

    fn check_after_quiet(&mut self, held: &BTreeSet<String>) -> Vec<String> {
        let (cloud, mut consul) = (self.shared.cloud.lock().unwrap(), self.shared.consul.lock().unwrap());
        let (oracle, now) = (self.shared.oracle.lock().unwrap(), self.shared.now());
        let unheard_of = |id: &str| self.without_sweeps && !self.stops_delivered.contains(id);
        let leaks = oracle.find_leaks(&cloud, &consul, &|id| held.contains(id) || unheard_of(id), now);
        let leaks = leaks.into_iter().map(|message| format!("I1 after quiet: {message}"));
        let touched =
            oracle.modified_fixtures(&consul).into_iter().map(|message| format!("I3 after quiet: {message}"));
        let missing = oracle.find_missing(&cloud, &consul, &|_| self.withdraws, now);
        let missing = missing.into_iter().map(|message| format!("after quiet: {message}"));
        let mut violations: Vec<String> = leaks.chain(touched).chain(missing).collect();
        let of_deleted = self.deleted_cluster.iter();
        let of_deleted = of_deleted.flat_map(|cluster| deleted_cluster::services_left(cluster, &consul));
        let of_deleted = of_deleted.filter(|task| !held.contains(task));
        violations
            .extend(of_deleted.map(|task| format!("I1 after quiet: {task} of the deleted cluster is left")));
        if self.foreign_client.is_some() {
            violations.extend(declared::administrator(&mut consul, now).differences(AWS));
        }
        violations
    }

    fn write_summary(&self) -> String {
        format!("{:?}", self.shared.oracle.lock().unwrap().tally())
    }

    fn finish(self, report: &mut SimReport) {
        let oracle = self.shared.oracle.lock().unwrap();
        report.violations.extend(oracle.violations().iter().map(violation));
        // At Consul, nothing is protected.
        let holds = self.shared.holds.lock().unwrap();
        report.violations.extend(holds.oracle.violations().iter().map(violation));
        let (ecs, mesh) = report.silent_calls;
        let more = if self.foreign_client.is_some() { CONSUL_CALLS.1 } else { 0 };
        let deleted = if self.deleted_cluster.is_some() { DELETED_CLUSTER_CALLS } else { (0, 0) };
        let sweeps = SWEEPS * if self.shared.lease_record.is_some() { replicas::COUNT } else { 1 };
        if ecs > sweeps * (ECS_CALLS + deleted.0) || mesh > sweeps * (CONSUL_CALLS.0 + more + deleted.1) {
            let message = format!("{ecs} calls to ECS and {mesh} to Consul in the quiet phase");
            report.violations.push(format!("more than {sweeps} sweeps need: {message}"));
        }
        report.created = self.world.agent_counts().logins;
        report.removed = oracle.tally().tokens + oracle.tally().services;
        report.tasks = self.world.task_counts().started;
        report.timed = self.timed;
        report.fixture_observations = self.shared.fixture_observations.lock().unwrap().clone();
    }
}
