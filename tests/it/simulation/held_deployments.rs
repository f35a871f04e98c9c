//! Lives whose binding holds deployments by task protection, with apps that exit at once on SIGTERM.
//!
//! Others protect tasks, too; revisions never get ready; deployment events are lost; and while a deployment is held, the
//! operator is killed, roles lose their tags, and the control plane is down or of an unsupported version.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use ecs_mesh_model::{DesiredStatus, EcsServiceState, LastStatus, Timestamp};
use ecs_mesh_sandbox::aws::{Cloud, CloudTask, LifeTimes, TaskProtections, UpdateTaskProtection};
use ecs_mesh_sandbox::kuma::KumaCp;
use ecs_mesh_sandbox::oracle::HoldOracle;
use ecs_mesh_sandbox::world::{CLUSTER, World, route_deployments, short};
use tokio::time::Instant;

use super::driver::in_a_while;
use super::env::{START, SimEnv};
use super::faults::SimFault;

/// How long a protection may outlive its reason where nothing disturbs the operator.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long it may after the end of faults: the longest backoff, and a sweep.
const PATIENCE_AFTER_FAULTS: Duration = Duration::from_mins(2);
/// How old an answer of DescribeServices may be.
pub(super) const STALE: Duration = Duration::from_secs(3);
/// How long a service may lack its `Workload` after an edit: the next edit restores it.
const UNDECLARED: Duration = Duration::from_mins(3);
/// `deployments.maxHold`, one for each life.
const MAX_HOLDS: [(&str, Duration); 2] = [
    ("2m", Duration::from_mins(2)),
    // The default.
    ("15m", Duration::from_mins(15)),
];

/// One in this many lives holds deployments.
pub(super) const ONE_IN: usize = 5;

/// Whether a life holds deployments. Not by a draw, so that other lives do not depend on it.
pub(super) fn are_in(seed: u64) -> bool {
    seed % ONE_IN as u64 == 1
}

/// The protections of tasks as the oracle saw them, and how services were.
pub(super) struct SimHolds {
    pub(super) oracle: HoldOracle,
    /// The services by name, oldest first, for stale answers.
    past: VecDeque<(Timestamp, BTreeMap<String, EcsServiceState>)>,
}

impl SimHolds {
    /// No deployment is to be held.
    pub(super) fn new() -> Self {
        Self { oracle: HoldOracle::new(START), past: VecDeque::new() }
    }

    /// The service as DescribeServices may show it; `None` if it is unknown.
    pub(super) fn service(&self, name: &str, as_of: Timestamp, cloud: &Cloud) -> Option<EcsServiceState> {
        let past = self.past.iter().rev().find(|(at, _)| *at <= as_of);
        past.and_then(|(_, services)| services.get(name).cloned()).or_else(|| describe(cloud, name))
    }

    /// Carries out an update of the operator, and checks it. `is_lost`: the operator gets no answer.
    pub(super) fn update(
        &mut self,
        request: &UpdateTaskProtection,
        is_lost: bool,
        cloud: &mut Cloud,
        now: Timestamp,
    ) -> TaskProtections {
        cloud.step(now);
        let protection = |task: &Arc<CloudTask>| Some((Arc::clone(&task.arn), task.protected_until?));
        let before = cloud.all_tasks().filter_map(protection).collect();
        let answer = cloud.update_task_protection(request, now).unwrap();
        self.oracle.check_update(&before, &answer, is_lost, cloud, now);
        answer
    }
}

fn describe(cloud: &Cloud, service: &str) -> Option<EcsServiceState> {
    let (found, _) = cloud.describe_services(CLUSTER, &[service]).unwrap();
    found.first().map(|service| service.to_model())
}

/// The faults that strike while a deployment is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HoldStrike {
    /// The operator is killed.
    Kill,
    /// The role of a held service loses its tag, so that its replacements are rejected.
    Revocation,
    /// The control plane is unreachable.
    MeshOutage,
    /// The control plane shows a version that is not supported, for this time.
    Unsupported(Duration),
    /// The machine's clock is set to another time.
    ClockStep,
}

/// One life's held deployments.
pub(super) struct HeldDeployments {
    rng: fastrand::Rng,
    max_hold: &'static str,
    /// Whether the manifests ask for the hold now.
    wanted: bool,
    next_foreign: Instant,
    next_unready: Instant,
    next_loss: Instant,
    next_strike: Instant,
    /// When deployment events are routed again.
    routed_from: Option<Instant>,
}

impl HeldDeployments {
    /// The held deployments of a life, if it has any.
    pub(super) fn of_life(seed: u64, env: &SimEnv) -> Option<Self> {
        if !are_in(seed) {
            return None;
        }
        env.faults.count(SimFault::HeldDeployment);
        let mut rng = fastrand::Rng::with_seed(seed ^ 0x401D);
        let (max_hold, lasts) = MAX_HOLDS[rng.usize(..MAX_HOLDS.len())];
        let patience = (!env.faults.are_enabled()).then_some(PATIENCE);
        env.holds.lock().unwrap().oracle = HoldOracle::holding(lasts, patience, START);
        let mut cloud = env.cloud.lock().unwrap();
        let life = cloud.config().life.clone();
        // Without this time ECS stops old tasks before an event of their deployment arrives.
        let unchecked_healthy = Duration::from_secs([0, 10, 30][rng.usize(..3)]);
        cloud.set_life(LifeTimes { unchecked_healthy, time_scale: 1.0, ..life });
        Some(Self {
            max_hold,
            wanted: true,
            next_foreign: in_a_while(&mut rng, 8..30),
            next_unready: in_a_while(&mut rng, 20..120),
            next_loss: in_a_while(&mut rng, 20..120),
            next_strike: in_a_while(&mut rng, 15..60),
            routed_from: None,
            rng,
        })
    }

    /// `deployments.maxHold` of the manifests now.
    pub(super) fn manifest(&self) -> Option<&'static str> {
        self.wanted.then_some(self.max_hold)
    }

    /// Switches the hold on, or at times off.
    pub(super) fn edit(&mut self, env: &SimEnv) {
        let wanted = self.rng.u8(..6) > 0;
        self.set_wanted(wanted, env);
    }

    /// Switches the hold on.
    pub(super) fn fix(&mut self, env: &SimEnv) {
        self.set_wanted(true, env);
    }

    fn set_wanted(&mut self, wanted: bool, env: &SimEnv) {
        if std::mem::replace(&mut self.wanted, wanted) != wanted {
            env.holds.lock().unwrap().oracle.record_wanted(wanted, env.now());
        }
    }

    /// Changes the protection of tasks as others do, deploys revisions that never get ready, and loses deployment events.
    /// Returns what else strikes now.
    pub(super) fn busy_step(&mut self, env: &SimEnv, world: &mut World) -> Option<HoldStrike> {
        let now = Instant::now();
        if now >= self.next_foreign {
            self.next_foreign = in_a_while(&mut self.rng, 8..30);
            self.update_by_others(env);
        }
        if now >= self.next_unready {
            self.next_unready = in_a_while(&mut self.rng, 40..160);
            let pick = self.rng.usize(..64);
            let deployed = world.deploy_unready(&mut env.cloud.lock().unwrap(), pick, env.now());
            if let Some(service) = deployed {
                env.faults.count(SimFault::NeverReady);
                env.record(|| format!("{service} deploys a revision that never gets ready"));
            }
        }
        if now >= self.next_loss && env.faults.are_enabled() {
            self.next_loss = in_a_while(&mut self.rng, 60..200);
            self.routed_from = Some(in_a_while(&mut self.rng, 10..60));
            route_deployments(&mut env.cloud.lock().unwrap(), false).unwrap();
            env.faults.count(SimFault::LostDeploymentEvents);
            env.record(|| "deployment events are lost".to_owned());
        }
        if self.routed_from.is_some_and(|at| now >= at) {
            self.route(env);
        }
        let held =
            env.holds.lock().unwrap().oracle.held_services().first().map(|service| (*service).to_owned());
        let service = held.filter(|_| now >= self.next_strike)?;
        self.next_strike = in_a_while(&mut self.rng, 15..60);
        let strikes = [
            HoldStrike::Kill,
            HoldStrike::Revocation,
            HoldStrike::MeshOutage,
            HoldStrike::Unsupported(Duration::from_secs(self.rng.u64(20..60))),
            HoldStrike::ClockStep,
        ];
        // Those of the world alone, where there are no faults.
        let kinds = if env.faults.are_enabled() { strikes.len() } else { 2 };
        let strike = strikes[self.rng.usize(..kinds)];
        env.record(|| format!("while {service} is held: {strike:?}"));
        match strike {
            HoldStrike::Kill | HoldStrike::Unsupported(_) => {}
            HoldStrike::ClockStep => env.step_clock(&mut self.rng),
            HoldStrike::Revocation => {
                env.faults.count(SimFault::RejectedWhileHeld);
                world.revoke_service(&mut env.cloud.lock().unwrap(), &service, env.now());
            }
            HoldStrike::MeshOutage => {
                env.faults.count(SimFault::UnreachableWhileHeld);
                env.faults.outage(true, env.now().plus(Duration::from_secs(self.rng.u64(10..60))));
            }
        }
        Some(strike)
    }

    fn route(&mut self, env: &SimEnv) {
        if self.routed_from.take().is_some() {
            route_deployments(&mut env.cloud.lock().unwrap(), true).unwrap();
        }
    }

    /// Someone else protects a task, sets the protection of one anew, or clears it.
    fn update_by_others(&mut self, env: &SimEnv) {
        let now = env.now();
        let mut cloud = env.cloud.lock().unwrap();
        cloud.step(now);
        let action = self.rng.u8(..10);
        let tasks: Vec<Arc<str>> = cloud
            .all_tasks()
            .filter(|task| {
                let runs =
                    task.last_status == LastStatus::Running && task.desired_status == DesiredStatus::Running;
                let is_protected = task.protected_until.is_some();
                task.service().is_some() && runs && (action < 6 || is_protected)
            })
            .map(|task| Arc::clone(&task.arn))
            .collect();
        if tasks.is_empty() {
            return;
        }
        let task = &tasks[self.rng.usize(..tasks.len())];
        let request = UpdateTaskProtection {
            cluster: CLUSTER.to_owned(),
            tasks: vec![task.to_string()],
            protection_enabled: Some(action < 9),
            expires_in_minutes: Some(self.rng.i64(1..=3)),
        };
        let answer = cloud.update_task_protection(&request, now).unwrap();
        env.holds.lock().unwrap().oracle.record_foreign_update(&answer, &cloud, now);
        env.faults.count(SimFault::ForeignProtection);
        env.record(|| format!("others protect: {}", shown(&answer)));
    }

    /// Checks how things stand, and keeps the services for stale answers.
    pub(super) fn observe(env: &SimEnv, world: &World, cloud: &Cloud, kuma: &KumaCp) {
        let now = env.now();
        let is_disturbed =
            env.is_write_disturbed() || env.faults.aws_is_down(now) || env.faults.mesh_is_down(now);
        let mut holds = env.holds.lock().unwrap();
        let services = world.services();
        holds.oracle.step(services, cloud, kuma, is_disturbed, now);
        let states = services
            .iter()
            .filter_map(|service| Some((service.name.clone(), describe(cloud, &service.name)?)));
        holds.past.push_back((now, states.collect()));
        while holds.past.get(1).is_some_and(|(at, _)| at.age_at(now) > STALE) {
            holds.past.pop_front();
        }
    }

    /// Ends all faults.
    pub(super) fn end(&mut self, env: &SimEnv) {
        self.route(env);
        env.holds.lock().unwrap().oracle.record_end_of_faults(PATIENCE_AFTER_FAULTS, env.now());
    }

    /// Records that an edit leaves this service out.
    pub(super) fn record_undeclared(env: &SimEnv, service: &str) {
        env.holds.lock().unwrap().oracle.record_undeclared(service, env.now().plus(UNDECLARED));
    }
}

/// The answer for the history.
pub(super) fn shown(answer: &TaskProtections) -> String {
    let tasks = answer.tasks.iter().map(|task| {
        let until = task.until.map_or("none".to_owned(), |until| (until.0 - START.0).to_string());
        format!("{} {until}", short(task.arn.rsplit('/').next().unwrap_or_default()))
    });
    let failed = answer.failures.iter().map(|failure| failure.reason.to_owned());
    tasks.chain(failed).collect::<Vec<_>>().join(", ")
}
