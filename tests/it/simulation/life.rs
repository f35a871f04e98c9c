//! A run at Kuma, where the operator registers tasks.

use std::collections::BTreeSet;
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ecs_mesh_api::manifests::ManifestSet;
use ecs_mesh_api::{ZoneProxyForm, ZoneProxyKind};
use ecs_mesh_kuma::{KumaControlPlane, NoObserver};
use ecs_mesh_lease::HolderId;
use ecs_mesh_manifests::ManifestStatus;
use ecs_mesh_model::{DesiredStatus, OperatorId, TaskId, Timestamp};
use ecs_mesh_operator::operator::{ConnectFn, Connected, ReadRates};
use ecs_mesh_sandbox::aws::LifeTimes;
use ecs_mesh_sandbox::control_planes::ControlPlanes;
use ecs_mesh_sandbox::kuma::{EmulatedRelease, KumaConfig, KumaCp, service_of};
use ecs_mesh_sandbox::oracle::{HoldOracle, KumaOracle, OracleConfig};
use ecs_mesh_sandbox::world::{
    ManifestOptions, Naming, Rollouts, ScenarioService, World, WorldConfig, manifests,
};
use tokio::time::Instant;

use super::deleted_cluster;
use super::driver::{Driver, INVALID_DOCUMENT, OPERATOR, Scenario, in_a_while};
use super::env::{START, SimEnv, SimReport, load_whatever, under_paused_clock, violation};
use super::faults::SimFault;
use super::held_deployments::{HeldDeployments, HoldStrike};
use super::kuma_transport::SimKumaTransport;
use super::members::{self, MemberAccess, MemberRegistrations};
use super::owners::Owners;
use super::replicas::{self, RunningReplica, TakeoverHook};
use super::two_operators;

/// `cleanup.settle`.
const SETTLE: Duration = Duration::from_secs(5);

/// How long ListTasks hides tasks: longer than two sweeps and the grace age.
const HIDDEN: Duration = Duration::from_secs(110);

/// Time from RUNNING within which a task is registered where nothing is wrong with its account.
const REGISTERED_WITHIN: Duration = Duration::from_secs(15);
/// How long after an edit or a start of the operator that holds.
const SETTLED: Duration = Duration::from_secs(20);

/// State shared by operator and world.
pub(super) struct KumaShared {
    pub(super) env: Arc<SimEnv>,
    pub(super) kuma: Arc<Mutex<KumaCp>>,
    oracle: Mutex<KumaOracle>,
    /// The second account, in some lives.
    member: Option<MemberRegistrations>,
    /// Violations that no oracle records.
    violations: Mutex<Vec<String>>,
    /// How often the first account was checked while the second one failed.
    confined: AtomicU64,
}

impl Deref for KumaShared {
    type Target = SimEnv;

    fn deref(&self) -> &SimEnv {
        &self.env
    }
}

impl KumaShared {
    /// The state of a life whose registrations these oracles judge.
    fn new(
        env: Arc<SimEnv>,
        kuma: Arc<Mutex<KumaCp>>,
        oracle: KumaOracle,
        member: Option<MemberRegistrations>,
    ) -> Self {
        let (oracle, violations, confined) = (Mutex::new(oracle), Mutex::default(), AtomicU64::new(0));
        Self { env, kuma, oracle, member, violations, confined }
    }

    /// The state of a life without tasks.
    pub(super) fn of_tokens(env: Arc<SimEnv>, kuma: KumaCp) -> Self {
        let oracle = KumaOracle::new(OracleConfig {
            tags_lag: Duration::ZERO,
            ..oracle_config(OPERATOR, env.cluster.to_string(), None)
        });
        Self::new(env, Arc::new(Mutex::new(kuma)), oracle, None)
    }

    /// Records something at the oracles of all accounts.
    fn for_each_oracle(&self, record: impl Fn(&mut KumaOracle)) {
        record(&mut self.oracle.lock().unwrap());
        self.member.iter().for_each(|member| record(&mut member.oracle.lock().unwrap()));
    }

    /// Creates clients of this operator.
    pub(super) fn connect(
        self: &Arc<Self>,
        operator: &'static str,
        replica: Option<&Arc<RunningReplica>>,
    ) -> ConnectFn {
        let (shared, replica) = (Arc::clone(self), replica.cloned());
        Arc::new(move |_, _| {
            let id = OperatorId::parse(operator).unwrap();
            let transport = SimKumaTransport(Arc::clone(&shared), replica.clone());
            let plane = KumaControlPlane::new(transport, id, Arc::new(NoObserver));
            Ok(Connected::kuma(plane))
        })
    }

    /// Records that another process of the operator decides from now on.
    fn record_restart(&self) {
        self.record_kill();
        self.holds.lock().unwrap().oracle.record_restart(self.now());
        self.for_each_oracle(KumaOracle::record_restart);
    }

    /// Records that this replica leads from now on.
    fn record_takeover(&self, holder: &HolderId) {
        self.holds.lock().unwrap().oracle.record_takeover(holder.as_str(), self.now());
        self.for_each_oracle(|oracle| oracle.record_takeover(holder.as_str()));
    }

    /// Counts a kill of the process that may have set protections.
    fn record_kill(&self) {
        if !self.holds.lock().unwrap().oracle.held_services().is_empty() {
            self.faults.count(SimFault::KilledWhileHeld);
        }
    }

    /// Checks the latest writes, which this process of the operator has sent, against the current world.
    pub(super) fn check_writes(&self, process: u64) {
        let mut kuma = self.kuma.lock().unwrap();
        let journal = kuma.take_journal();
        let has_ended = process < self.process();
        let (of_member, own): (Vec<_>, Vec<_>) = journal
            .into_iter()
            .partition(|entry| self.member.as_ref().is_some_and(|member| member.has(entry)));
        if !own.is_empty() {
            let mut cloud = self.cloud.lock().unwrap();
            cloud.step(self.clock.now());
            let mut oracle = self.oracle.lock().unwrap();
            oracle.record_sender(has_ended);
            oracle.check_writes(own, &cloud, &kuma);
        }
        if let Some(member) = self.member.as_ref().filter(|_| !of_member.is_empty()) {
            // A control plane that fails may delay a removal that was decided before.
            if !self.faults.are_enabled() && !self.is_write_disturbed() {
                let objections = of_member.iter().filter_map(|entry| member.objection(entry));
                self.violations.lock().unwrap().extend(objections);
            }
            member.check_writes(of_member, has_ended, &kuma);
        }
    }
}

/// Runs a seed.
pub(super) fn run(seed: u64) -> SimReport {
    run_at(seed, ReadRates::default())
}

/// Runs a seed. An operator without a neighbour has these rates of reads.
pub(super) fn run_at(seed: u64, rates: ReadRates) -> SimReport {
    under_paused_clock(|| async move {
        let kuma = Arc::new(Mutex::new(KumaCp::new(KumaConfig::default(), START)));
        if !two_operators::are_in(seed) {
            return driver(seed, OPERATOR, &kuma).with_rates(rates).run().await;
        }
        let (one, other) = (
            driver(seed, OPERATOR, &kuma),
            driver(two_operators::other_seed(seed), two_operators::OTHER, &kuma),
        );
        let (one, other) = tokio::join!(one.run(), other.run());
        two_operators::merge(one, other)
    })
}

fn driver(seed: u64, operator: &'static str, kuma: &Arc<Mutex<KumaCp>>) -> Driver<KumaScenario> {
    let mut rng = fastrand::Rng::with_seed(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let scenario = KumaScenario::start(seed, &mut rng, operator, kuma);
    Driver::new(seed, rng, scenario)
}

/// How services are deployed.
fn rollouts(rng: &mut fastrand::Rng, env: &SimEnv) -> Rollouts {
    if rng.u8(..3) != 0 {
        return Rollouts::Simple;
    }
    // Stops and health checks take as long as at AWS.
    env.faults.count(SimFault::RollingDeployment);
    let mut cloud = env.cloud.lock().unwrap();
    let life = cloud.config().life.clone();
    let unchecked_healthy = Duration::from_secs([0, 5, 40][rng.usize(..3)]);
    cloud.set_life(LifeTimes { unchecked_healthy, time_scale: 1.0, ..life });
    Rollouts::Mixed
}

/// Sets the first version of the control plane. Listeners of zone proxies need 3.0.
fn start_version(zone_form: Option<ZoneProxyForm>, kuma: &mut KumaCp) -> &'static str {
    if zone_form != Some(ZoneProxyForm::Listener) {
        return "2.14.3";
    }
    kuma.upgrade(EmulatedRelease::V3_0, START);
    kuma.set_version("3.0.1");
    "3.0.1"
}

/// Whether a service runs in network mode `host`, in some lives. Its tasks share an address, so names are not made of it.
fn has_host_mode(seed: u64, naming: Naming, env: &SimEnv) -> bool {
    let has = naming == Naming::TaskId && !seed.is_multiple_of(3);
    if has {
        env.faults.count(SimFault::HostMode);
    }
    has
}

/// Zone proxies, in some lives. They come and go as other services do, and their roles lose their types.
/// 3.0 has them as listeners of Dataplanes alone: such a life has 3.0 from its start.
fn zone_proxies(seed: u64, env: &SimEnv, may_have: bool) -> Vec<ScenarioService> {
    let mut rng = fastrand::Rng::with_seed(seed ^ 0x20E7_0BE5);
    if !may_have || rng.u8(..3) > 0 {
        return Vec::new();
    }
    let (fault, form) = if rng.bool() {
        (SimFault::ZoneResources, ZoneProxyForm::Resource)
    } else {
        (SimFault::ZoneListeners, ZoneProxyForm::Listener)
    };
    env.faults.count(fault);
    ZoneProxyKind::ALL.into_iter().map(|kind| ScenarioService::of_zone_proxies(kind, form)).collect()
}

fn oracle_config(operator: &str, cluster: String, deleted_cluster: Option<String>) -> OracleConfig {
    OracleConfig {
        operator: operator.to_owned(),
        cluster,
        deleted_cluster,
        tags_lag: Duration::from_secs(100),
        max_fraction: 0.3,
        min_owned: 10,
    }
}

struct KumaScenario {
    shared: Arc<KumaShared>,
    /// The operator's id.
    operator: &'static str,
    world: World,
    /// Options of the manifests.
    care: ManifestOptions,
    /// Number of edits.
    generation: u64,
    /// The manifests in force.
    in_force: Arc<ManifestSet>,
    /// Whether the `OutboundList` from svc-* to kv is applied.
    more_outbounds: bool,
    /// The service that the last complete manifests lack, and since when its registrations may be withdrawn.
    undeclared: Option<(String, Timestamp)>,
    next_hiding: Instant,
    /// When all roles lose their tags, in some lives.
    revocation: Option<Instant>,
    /// When the control plane is upgraded to an unsupported version, and when that is undone, in some lives.
    upgrade: Option<(Instant, Instant)>,
    /// Whether the unsupported version is shown now.
    upgraded: bool,
    /// When the control plane is upgraded to 3.0, in some lives.
    dialect_upgrade: Option<Instant>,
    /// The version of the control plane's release.
    version: &'static str,
    /// Deployments are held, in some lives.
    held: Option<HeldDeployments>,
    /// The owner of the Dataplanes.
    owners: Owners,
    /// The operator is to be killed.
    kill: bool,
    /// The tasks of the second account.
    member_world: Option<World>,
    /// When the manifests were edited last, or the only process was restarted.
    last_change: Instant,
    next_confinement: Instant,
}

impl KumaScenario {
    fn start(seed: u64, rng: &mut fastrand::Rng, operator: &'static str, kuma: &Arc<Mutex<KumaCp>>) -> Self {
        let is_alone = !two_operators::are_in(seed);
        let has_member = is_alone && members::are_in(seed);
        // Half of the lives with a second account have faults of that one alone.
        let level = (has_member && seed.is_multiple_of(2)).then_some(0.0);
        let env = SimEnv::of_account(seed, rng, false, level, |config| config)
            .with_replicas(replicas::of_life(seed));
        // Accounts of two operators may have the same addresses, and then the same host names. Tasks of a second account are
        // named by their ids, and one control plane has one template of names.
        let naming = if rng.bool() || !is_alone || has_member { Naming::TaskId } else { Naming::Hostname };
        let shared_kuma = Arc::clone(kuma);
        let mut kuma = kuma.lock().unwrap();
        let cluster = env.cluster.to_string();
        // A source of its own, so that the rest of a life does not depend on it.
        let mut own = fastrand::Rng::with_seed(seed ^ 0x41D3);
        let rollouts = rollouts(&mut own, &env);
        let held = HeldDeployments::of_life(seed, &env);
        let rollouts = if held.is_some() { Rollouts::Abrupt } else { rollouts };
        let tasks = rng.usize(8..40);
        let world = WorldConfig {
            // A second account has about as many.
            tasks: if has_member { tasks / 2 } else { tasks },
            seed,
            interval: (Duration::from_millis(500), Duration::from_secs(8)),
            naming,
            control_planes: ControlPlanes::Kuma,
            revoked_for: (Duration::from_secs(10), Duration::from_secs(90)),
            rollouts,
            host_mode: has_host_mode(seed, naming, &env),
        };
        let owners = Owners::of_life(seed, &env, held.is_some() || !is_alone);
        let mut further = owners.further_services();
        further.extend(zone_proxies(seed, &env, is_alone && held.is_none()));
        let world =
            World::start_with(world, further, &mut env.cloud.lock().unwrap(), &mut kuma, START).unwrap();
        let member = has_member.then(|| {
            MemberRegistrations::start(seed, &env, &mut kuma, |cluster| {
                oracle_config(operator, cluster, None)
            })
        });
        let (member, member_world) = member.unzip();
        let deleted = (is_alone && !has_member && deleted_cluster::is_in(seed, &env))
            .then(|| deleted_cluster::delete(&mut env.cloud.lock().unwrap()));
        deleted.iter().for_each(|cluster| deleted_cluster::leave_dataplanes(cluster, &mut kuma));
        let care = ManifestOptions {
            kuma: Some("http://kuma:5681".to_owned()),
            consul: None,
            cluster: deleted
                .as_ref()
                .map_or_else(|| cluster.clone(), |_| deleted_cluster::PATTERN.to_owned()),
            sweep_interval: "30s",
            grace_age: "1m",
            drain: "2s",
            settle: "5s",
            recheck: "1m",
            hold: held.as_ref().and_then(HeldDeployments::manifest),
            dataplane_name: if naming == Naming::TaskId { "{taskId}" } else { "{hostname}" },
        };
        let deleted = deleted.map(|cluster| cluster.to_string());
        let mut oracle = KumaOracle::new(oracle_config(operator, cluster.clone(), deleted));
        if let Some(member) = &member {
            oracle = oracle.without_cluster(member.cluster_id.as_str());
        }
        let revocation =
            (env.faults.are_enabled() && own.u8(..3) == 0).then(|| in_a_while(&mut own, 40..110));
        let next_hiding = in_a_while(&mut own, 20..120);
        // One of two operators at a control plane would not know what the other's life does to it.
        let upgrade = (is_alone && env.faults.are_enabled() && own.u8(..3) == 0).then(|| {
            let from = in_a_while(&mut own, 30..150);
            (from, from + Duration::from_secs(own.u64(20..90)))
        });
        let zone_form = world.services().iter().find_map(|service| service.zone_proxy).map(|(_, form)| form);
        let dialect_upgrade = (is_alone && own.u8(..4) == 0).then(|| in_a_while(&mut own, 30..150));
        let dialect_upgrade = dialect_upgrade.filter(|_| zone_form.is_none());
        let version = start_version(zone_form, &mut kuma);
        drop(kuma);
        Self {
            shared: Arc::new(KumaShared::new(Arc::new(env), shared_kuma, oracle, member)),
            operator,
            world,
            care,
            generation: 1,
            in_force: Arc::default(),
            more_outbounds: false,
            undeclared: None,
            next_hiding,
            revocation,
            upgrade,
            upgraded: false,
            dialect_upgrade,
            version,
            held,
            owners,
            kill: false,
            member_world,
            last_change: Instant::now(),
            next_confinement: Instant::now(),
        }
    }

    /// While calls to the second account fail and nothing else is wrong, tasks of the first one are registered in time.
    fn check_confinement(&mut self) {
        let Some(member) = &self.shared.member else { return };
        let now = self.shared.now();
        let is_quiet = self.last_change.elapsed() >= SETTLED
            && self.undeclared.is_none()
            && self.in_force.complete
            && !self.shared.faults.are_enabled();
        if !is_quiet || self.shared.is_write_disturbed() || Instant::now() < self.next_confinement {
            return;
        }
        self.next_confinement = Instant::now() + Duration::from_secs(1);
        if member.access.failing_since().is_none_or(|since| since.age_at(now) < REGISTERED_WITHIN) {
            return;
        }
        let (cloud, kuma) = (self.shared.cloud.lock().unwrap(), self.shared.kuma.lock().unwrap());
        let oracle = self.shared.oracle.lock().unwrap();
        let services = self.world.services().iter().filter(|service| !self.owners.is_observed(&service.name));
        let late = oracle.find_late(&cloud, &kuma, services, REGISTERED_WITHIN, now);
        self.shared.confined.fetch_add(1, Ordering::Relaxed);
        let late = late.into_iter().map(|message| format!("while another account fails: {message}"));
        self.shared.violations.lock().unwrap().extend(late);
    }

    /// Changes protections, and lets faults strike while a deployment is held.
    fn strike_holds(&mut self) {
        let Some(held) = &mut self.held else { return };
        match held.busy_step(&self.shared, &mut self.world) {
            Some(HoldStrike::Kill) => self.kill = true,
            Some(HoldStrike::Unsupported(lasts)) if !self.upgraded => {
                self.shared.faults.count(SimFault::UnsupportedWhileHeld);
                self.upgrade = Some((Instant::now(), Instant::now() + lasts));
            }
            _ => {}
        }
    }

    /// Upgrades the control plane to 3.0, while tasks come and go.
    fn upgrade_dialect(&mut self) {
        if self.dialect_upgrade.is_none_or(|at| Instant::now() < at) || self.upgraded {
            return;
        }
        self.dialect_upgrade = None;
        self.version = "3.0.1";
        let now = self.shared.now();
        let mut kuma = self.shared.kuma.lock().unwrap();
        kuma.upgrade(EmulatedRelease::V3_0, now);
        kuma.set_version(self.version);
        drop(kuma);
        self.shared.for_each_oracle(|oracle| oracle.record_dialect_upgrade(now));
        self.shared.holds.lock().unwrap().oracle.record_disturbance(now);
        self.shared.faults.count(SimFault::DialectUpgrade);
        self.shared.record(|| "the control plane is upgraded to 3.0".to_owned());
    }

    /// Upgrades the control plane to an unsupported version, or undoes that.
    fn switch_version(&mut self) {
        let Some((from, until)) = self.upgrade else { return };
        let now = self.shared.now();
        let is_on = Instant::now() >= from && Instant::now() < until;
        let mut kuma = self.shared.kuma.lock().unwrap();
        let mut holds = self.shared.holds.lock().unwrap();
        match (is_on, self.upgraded) {
            (true, false) => {
                kuma.set_version("4.0.1");
                self.shared.for_each_oracle(|oracle| oracle.record_unsupported(Some(now)));
                holds.oracle.record_unsupported(Some(now));
                self.shared.faults.count(SimFault::UnsupportedVersion);
            }
            (false, true) => {
                kuma.set_version(self.version);
                self.shared.for_each_oracle(|oracle| oracle.record_unsupported(None));
                holds.oracle.record_unsupported(None);
            }
            _ => return,
        }
        self.upgraded = is_on;
        drop((kuma, holds));
        self.shared.record(|| format!("the control plane is upgraded: {is_on}"));
    }

    /// The manifests without the workloads of some services, optionally with an invalid document.
    fn written_down(&self, without: &[&str], broken: bool) -> ManifestStatus {
        let mut services: Vec<ScenarioService> = self.world.services().to_vec();
        for service in self.member_world.iter().flat_map(World::services) {
            if services.iter().all(|known| known.name != service.name) {
                services.push(service.clone());
            }
        }
        services.retain(|service| !without.contains(&service.name.as_str()));
        let mut text = self.owners.apply_to(&manifests(&self.care, &services));
        if let Some(member) = &self.shared.member {
            let cluster = member.access.env.cluster.as_str();
            text = format!("{text}---\n{}", members::manifest(&text, &self.care.cluster, cluster));
        }
        if self.more_outbounds {
            text.push_str(MORE_OUTBOUNDS);
        }
        if broken {
            text.push_str(INVALID_DOCUMENT);
        }
        let (set, errors) = load_whatever(&text);
        assert_eq!(set.complete, !broken);
        let set = Arc::new(ManifestSet { generation: self.generation, ..(*set).clone() });
        ManifestStatus { set, errors, unread: Vec::new(), warnings: Vec::new(), files: 1 }
    }

    fn rewritten(&mut self, without: &[&str], broken: bool) -> ManifestStatus {
        self.generation += 1;
        self.last_change = Instant::now();
        // Before the operator writes by these manifests.
        let untouchable = self.owners.untouchable(self.shared.now());
        self.shared.for_each_oracle(|oracle| oracle.set_untouchable(untouchable));
        self.shared
            .record(|| format!("edit without {without:?}, broken {broken}, more {}", self.more_outbounds));
        let status = self.written_down(without, broken);
        // As the loader does: an incomplete set replaces another only if it has all its documents.
        if broken && !self.in_force.complete && !status.set.contains_all(&self.in_force) {
            return ManifestStatus { set: Arc::clone(&self.in_force), ..status };
        }
        self.in_force = Arc::clone(&status.set);
        status
    }

    fn a_service(&self, rng: &mut fastrand::Rng) -> String {
        let services = self.world.services();
        services[rng.usize(..services.len())].name.clone()
    }

    /// Checks that running tasks have the outbounds of the manifests. Stopped tasks that the guard holds keep theirs.
    fn wrong_outbounds(&self, held: &BTreeSet<String>) -> Vec<String> {
        let mut wrong = Vec::new();
        let (cloud, kuma) = (self.shared.cloud.lock().unwrap(), self.shared.kuma.lock().unwrap());
        for (_, name, body) in kuma.dataplanes() {
            if body["labels"]["ecs-mesh.dev/operator"] != self.operator {
                continue;
            }
            let id = body["labels"]["ecs-mesh.dev/task-id"].as_str().unwrap_or("");
            let task =
                TaskId::parse(id).ok().and_then(|id| cloud.task(&self.shared.cluster.task(id).to_string()));
            if task.is_none_or(|task| task.desired_status == DesiredStatus::Stopped) {
                // A guard may hold the registration of a stopped task.
                continue;
            }
            let service = service_of(body).unwrap_or_default();
            let outbounds = body["networking"]["outbound"].as_array().cloned().unwrap_or_default();
            let has = outbounds.iter().any(|outbound| outbound["port"] == 15_052);
            let task = body["labels"]["ecs-mesh.dev/task-id"].as_str().unwrap_or("");
            if service.starts_with("svc-") && !held.contains(task) && has != self.more_outbounds {
                wrong.push(format!("after quiet: {name} of {service} has the outbounds {outbounds:?}"));
            }
        }
        wrong
    }
}

impl Scenario for KumaScenario {
    fn env(&self) -> &Arc<SimEnv> {
        &self.shared.env
    }

    fn operator(&self) -> &'static str {
        self.operator
    }

    fn connect(&self, replica: Option<&Arc<RunningReplica>>) -> ConnectFn {
        self.shared.connect(self.operator, replica)
    }

    fn manifests(&self) -> ManifestStatus {
        self.written_down(&[], false)
    }

    fn step(&mut self) {
        {
            let mut cloud = self.shared.cloud.lock().unwrap();
            let mut kuma = self.shared.kuma.lock().unwrap();
            self.world.step(&mut cloud, &mut kuma, None, self.shared.now());
            if let (Some(world), Some(member)) = (&mut self.member_world, &self.shared.member) {
                member.step(world, &mut kuma, self.shared.now());
            }
            let (now, untouchable) = (self.shared.now(), self.owners.untouchable(self.shared.now()));
            self.shared.for_each_oracle(|oracle| {
                oracle.record_ready(&kuma, now);
                oracle.set_untouchable(untouchable);
            });
            if self.held.is_some() {
                HeldDeployments::observe(&self.shared, &self.world, &cloud, &kuma);
            }
        }
        for event in self.world.take_events() {
            self.shared.record(|| format!("world {}", event.message));
        }
        for event in self.member_world.iter_mut().flat_map(World::take_events) {
            self.shared.record(|| format!("member's world {}", event.message));
        }
        self.check_confinement();
    }

    /// Hides live tasks from lists, and removes all role tags once.
    fn on_busy_step(&mut self, _: &mut fastrand::Rng) {
        let now = self.shared.now();
        if Instant::now() >= self.next_hiding {
            self.shared.record(|| format!("ListTasks hides some tasks for {HIDDEN:?}"));
            self.shared.faults.hide_tasks(now.plus(HIDDEN));
            self.next_hiding = Instant::now() + HIDDEN + Duration::from_secs(40);
        }
        if let Some(fault) = self.shared.member.as_ref().and_then(|member| member.access.busy_step()) {
            self.shared.faults.count(fault);
        }
        self.strike_holds();
        self.switch_version();
        self.upgrade_dialect();
        if self.revocation.is_some_and(|at| Instant::now() >= at) {
            self.revocation = None;
            self.shared.faults.count(SimFault::MassRevocation);
            self.shared.record(|| "all roles lose their tags".to_owned());
            self.world.revoke_all(&mut self.shared.cloud.lock().unwrap(), now);
        }
    }

    /// Toggles the `OutboundList`, deletes and restores workloads, and at times adds an invalid document.
    fn edit(&mut self, rng: &mut fastrand::Rng) -> Option<ManifestStatus> {
        let kind = rng.u8(..10);
        // Holds of an incomplete set are not checked.
        if let Some(held) = self.held.as_mut().filter(|_| !(7..9).contains(&kind)) {
            held.edit(&self.shared);
            self.care.hold = held.manifest();
        }
        // Owners of an incomplete set are not checked.
        if !(7..9).contains(&kind) && self.held.is_none() {
            self.owners.edit(&self.shared, &mut self.world, self.shared.now());
        }
        Some(match kind {
            0..5 => {
                self.undeclared = None;
                self.more_outbounds = !self.more_outbounds;
                self.rewritten(&[], false)
            }
            5..7 => {
                let service = self.a_service(rng);
                let now = self.shared.now();
                // Undeclared until the next edit and its effects, and withdrawn after the settle time.
                let before = self.undeclared.take().filter(|(before, _)| *before == service);
                let from = before.map_or(now.plus(SETTLE), |(_, from)| from);
                let until = now.plus(Duration::from_mins(3));
                self.shared.for_each_oracle(|oracle| oracle.record_undeclared(&service, from, until));
                self.undeclared = Some((service.clone(), from));
                self.owners.forget(&service);
                HeldDeployments::record_undeclared(&self.shared, &service);
                self.rewritten(&[&service], false)
            }
            7..9 => {
                // An incomplete manifest set removes nothing.
                let service = self.a_service(rng);
                self.owners.forget(&service);
                HeldDeployments::record_undeclared(&self.shared, &service);
                self.rewritten(&[&service], true)
            }
            _ => {
                self.undeclared = None;
                self.rewritten(&[], false)
            }
        })
    }

    fn wants_restart(&mut self) -> bool {
        std::mem::take(&mut self.kill)
    }

    fn fix(&mut self) -> Option<ManifestStatus> {
        if let Some(held) = &mut self.held {
            held.fix(&self.shared);
            self.care.hold = held.manifest();
        }
        self.owners.fix();
        Some(self.rewritten(&[], false))
    }

    fn member(&self) -> Option<&Arc<MemberAccess>> {
        self.shared.member.as_ref().map(|member| &member.access)
    }

    fn on_restart(&mut self) {
        self.last_change = Instant::now();
        self.shared.record_restart();
    }

    fn on_replica_start(&mut self, holder: &HolderId) {
        self.shared.for_each_oracle(|oracle| oracle.record_start(holder.as_str()));
    }

    fn on_kill(&mut self) {
        self.shared.record_kill();
    }

    fn takeover_hook(&self) -> TakeoverHook {
        let shared = Arc::downgrade(&self.shared);
        Box::new(move |holder| {
            if let Some(shared) = shared.upgrade() {
                shared.record_other_process(|| format!("takeover by {holder}"));
                shared.record_takeover(holder);
            }
        })
    }

    fn stop_faults(&mut self) {
        self.upgrade = self.upgrade.map(|(from, _)| (from, from));
        self.switch_version();
        if let Some(held) = &mut self.held {
            held.end(&self.shared);
        }
        let now = self.shared.now();
        self.world.stop_events(&mut self.shared.cloud.lock().unwrap(), now);
        if let (Some(world), Some(member)) = (&mut self.member_world, &self.shared.member) {
            member.end(world, now);
        }
    }

    fn settles_at(&self) -> Option<Timestamp> {
        HoldOracle::settles_at(&self.shared.cloud.lock().unwrap())
    }

    fn check_after_quiet(&mut self, held: &BTreeSet<String>) -> Vec<String> {
        let mut wrong = self.wrong_outbounds(held);
        let (cloud, kuma) = (self.shared.cloud.lock().unwrap(), self.shared.kuma.lock().unwrap());
        let mut oracle = self.shared.oracle.lock().unwrap();
        let (services, now) = (self.world.services(), self.shared.now());
        let left = oracle.check_after_quiet(&cloud, &kuma, services, &|id| held.contains(id), now);
        wrong.extend(left.into_iter().map(|message| format!("after quiet: {message}")));
        if let (Some(world), Some(member)) = (&self.member_world, &self.shared.member) {
            wrong.extend(member.check_after_quiet(world, &kuma, held, now));
        }
        if self.held.is_some() {
            let left = HoldOracle::check_after_quiet(services, &cloud);
            wrong.extend(left.into_iter().map(|message| format!("I1 after quiet: {message}")));
        }
        wrong
    }

    fn write_summary(&self) -> String {
        let of_member = self.shared.member.as_ref().map(|member| member.oracle.lock().unwrap().tally());
        format!("{:?} {of_member:?}", self.shared.oracle.lock().unwrap().tally())
    }

    fn finish(self, report: &mut SimReport) {
        let oracle = self.shared.oracle.lock().unwrap();
        report.violations.extend(oracle.violations().iter().map(violation));
        let holds = self.shared.holds.lock().unwrap();
        report.violations.extend(holds.oracle.violations().iter().map(violation));
        report.holds = holds.oracle.tally();
        report.created = oracle.tally().created;
        report.removed = oracle.tally().removed;
        report.tasks = self.world.task_counts().started;
        report.violations.append(&mut self.shared.violations.lock().unwrap());
        report.confined = self.shared.confined.load(Ordering::Relaxed);
        if let (Some(world), Some(member)) = (&self.member_world, &self.shared.member) {
            let oracle = member.oracle.lock().unwrap();
            let found = oracle.violations().iter().map(|found| format!("member: {}", violation(found)));
            report.violations.extend(found);
            report.created += oracle.tally().created;
            report.removed += oracle.tally().removed;
            report.tasks += world.task_counts().started;
        }
    }
}

const MORE_OUTBOUNDS: &str = "---
apiVersion: ecs-mesh.dev/v1alpha1
kind: OutboundList
metadata: {name: kv-users}
spec:
  workloads: [\"svc-*\"]
  outbounds:
    - {service: kv, targetPort: 15050, listen: {port: 15052}}
";
