//! The phases of a simulated run: a busy phase with operator restarts, the end of all faults, a settle phase, and a
//! quiet phase in which nothing may be written.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ecs_mesh_aws::aws::{Ecs, EventQueue, Iam, MemberAccounts};
use ecs_mesh_controller::Lease;
use ecs_mesh_lease::HolderId;
use ecs_mesh_manifests::ManifestStatus;
use ecs_mesh_model::{OperatorId, Timestamp};
use ecs_mesh_operator::operator::{ConnectFn, Operator, OperatorDeps, ReadRates, RunOptions};
use ecs_mesh_operator::telemetry::metrics::Metrics;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::aws::SimAws;
use super::env::{QUIET_PERIOD, SETTLE_TIME, SLOW_STEP, STEP, SimEnv, SimReport};
use super::faults::SimFault;
use super::members::{MemberAccess, SimAccounts};
use super::replicas::{ReplicaFaults, RunningCandidate, RunningReplica, TakeoverHook};

/// The operator's id.
pub(super) const OPERATOR: &str = "simulated";
/// How often the settle phase is extended at most.
const MAX_EXTENSIONS: usize = 3;
/// An invalid manifest document.
pub(super) const INVALID_DOCUMENT: &str =
    "---\napiVersion: ecs-mesh.dev/v1alpha1\nkind: Workload\nmetadata: {name: slip}\nspec: {}\n";

/// The part of a run that depends on the kind of control plane.
pub(super) trait Scenario {
    fn env(&self) -> &Arc<SimEnv>;

    /// The operator's id.
    fn operator(&self) -> &'static str {
        OPERATOR
    }

    /// Creates control plane clients of a process: of one of several replicas, or of the only one.
    fn connect(&self, replica: Option<&Arc<RunningReplica>>) -> ConnectFn;

    /// The account that the operator reads beside its own, if there is one.
    fn member(&self) -> Option<&Arc<MemberAccess>> {
        None
    }

    /// The first manifests.
    fn manifests(&self) -> ManifestStatus;

    /// Advances the world and checks the writes.
    fn step(&mut self);

    /// Checks the operator's state.
    fn observe(&mut self, _operator: &Operator) {}

    /// Injects further events in the busy phase.
    fn on_busy_step(&mut self, _rng: &mut fastrand::Rng) {}

    /// Edits the manifests, if the scenario has edits.
    fn edit(&mut self, rng: &mut fastrand::Rng) -> Option<ManifestStatus>;

    /// Whether the operator is to be killed now.
    fn wants_restart(&mut self) -> bool {
        false
    }

    /// Restores complete manifests.
    fn fix(&mut self) -> Option<ManifestStatus>;

    /// Records a restart of the operator.
    fn on_restart(&mut self);

    /// Records that a replica starts, as a standby.
    fn on_replica_start(&mut self, _holder: &HolderId) {}

    /// Records that the process that acts is killed.
    fn on_kill(&mut self) {}

    /// Records that this replica leads, before it knows.
    fn takeover_hook(&self) -> TakeoverHook;

    /// Ends all faults.
    fn stop_faults(&mut self);

    /// When the world settles, if after the settle phase.
    fn settles_at(&self) -> Option<Timestamp> {
        None
    }

    /// Violations after the settle phase. `held` are the tasks that a guard holds.
    fn check_after_quiet(&mut self, held: &BTreeSet<String>) -> Vec<String>;

    /// The operator's writes as counts.
    fn write_summary(&self) -> String;

    /// Fills in the report.
    fn finish(self, report: &mut SimReport);
}

/// A process of the operator.
pub(super) struct RunningOperator {
    operator: Arc<Operator>,
    /// Of its own: a channel that processes share would wake them in any order.
    manifests: watch::Sender<Arc<ManifestStatus>>,
    pub(super) task: JoinHandle<()>,
    pub(super) stop: CancellationToken,
    /// Its part in the election, if it is one of several replicas.
    pub(super) candidate: Option<RunningCandidate>,
}

/// A run in progress.
pub(super) struct Driver<S> {
    pub(super) seed: u64,
    rng: fastrand::Rng,
    pub(super) scenario: S,
    manifests: Arc<ManifestStatus>,
    pub(super) operators: Vec<RunningOperator>,
    pub(super) replicas: Option<ReplicaFaults>,
    pub(super) rates: ReadRates,
    pub(super) report: SimReport,
}

impl<S: Scenario> Driver<S> {
    pub(super) fn new(seed: u64, rng: fastrand::Rng, scenario: S) -> Self {
        let manifests = Arc::new(scenario.manifests());
        let replicas = ReplicaFaults::of_life(seed, scenario.env());
        let operators = Vec::new();
        let (rates, report) = (ReadRates::default(), SimReport::default());
        Self { seed, rng, scenario, manifests, operators, replicas, rates, report }
    }

    /// The same run, of operators with these rates of reads.
    pub(super) fn with_rates(self, rates: ReadRates) -> Self {
        Self { rates, ..self }
    }

    pub(super) async fn run(mut self) -> SimReport {
        self.start_operators();
        self.run_events().await;
        let fixed = self.scenario.fix();
        self.publish(fixed);
        self.scenario.env().lease.acquire();
        self.scenario.env().faults.end();
        self.end_replica_faults();
        self.scenario.stop_faults();
        self.advance(SETTLE_TIME).await;
        for _ in 0..MAX_EXTENSIONS {
            let Some(at) = self.scenario.settles_at() else { break };
            self.advance(self.scenario.env().now().age_at(at)).await;
        }
        let held = self.held();
        let left = self.scenario.check_after_quiet(&held);
        self.report.violations.extend(left);
        let calls = |env: &SimEnv| (env.calls_to("ecs:"), env.calls_to("mesh"));
        let (before, called) = (self.scenario.write_summary(), calls(self.scenario.env()));
        self.advance(QUIET_PERIOD).await;
        let (after, calls) = (self.scenario.write_summary(), calls(self.scenario.env()));
        self.report.silent_calls = (calls.0 - called.0, calls.1 - called.1);
        if before != after {
            let message = format!("I6: writes in the quiet phase: {before} then {after}");
            self.report.violations.push(message);
        }
        self.finish()
    }

    async fn run_events(&mut self) {
        let end = Instant::now() + Duration::from_secs(self.rng.u64(120..330));
        let mut next_restart = self.random_instant(40..200);
        let mut next_outage = self.random_instant(60..200);
        let mut next_ghost = self.random_instant(20..90);
        let mut next_edit = self.random_instant(15..60);
        let mut lease_turns = self.random_instant(30..200);
        // A source of its own, so that forgery changes nothing else of a life.
        let mut forger = fastrand::Rng::with_seed(self.seed ^ 0x5EED_F0E6);
        let mut next_forgery = in_a_while(&mut forger, 5..40);
        let mut host = fastrand::Rng::with_seed(self.seed ^ 0x0C10_C4B0);
        let mut next_clock_step = in_a_while(&mut host, 10..120);
        let mut audit_turns = in_a_while(&mut host, 20..150);
        while Instant::now() < end {
            self.advance(STEP).await;
            let now = Instant::now();
            if now >= next_restart {
                self.restart_operator();
                next_restart = self.random_instant(40..200);
            }
            if now >= next_outage {
                let env = self.scenario.env();
                let until = env.now().plus(Duration::from_secs(self.rng.u64(5..60)));
                env.faults.outage(self.rng.bool(), until);
                next_outage = self.random_instant(60..200);
            }
            if now >= lease_turns {
                let env = self.scenario.env();
                // Replicas have an election.
                let held = env.lease_record.is_some() || env.lease.toggle();
                env.record(|| format!("lease held: {held}"));
                lease_turns = self.random_instant(if held { 60..200 } else { 3..25 });
            }
            if now >= next_edit {
                let edited = self.scenario.edit(&mut self.rng);
                self.publish(edited);
                next_edit = self.random_instant(15..60);
            }
            if now >= next_ghost {
                self.scenario.env().send_ghost(&mut self.rng);
                next_ghost = self.random_instant(20..90);
            }
            if now >= next_forgery {
                self.scenario.env().send_forged(&mut forger);
                next_forgery = in_a_while(&mut forger, 2..30);
            }
            if now >= next_clock_step {
                self.scenario.env().step_clock(&mut host);
                next_clock_step = in_a_while(&mut host, 10..120);
            }
            if now >= audit_turns && self.scenario.env().faults.are_enabled() {
                let env = self.scenario.env();
                let blocked = env.lease.toggle_audit();
                env.record(|| format!("audit log blocked: {blocked}"));
                if blocked {
                    env.faults.count(SimFault::BlockedLog);
                }
                audit_turns = in_a_while(&mut host, if blocked { 3..25 } else { 60..200 });
            }
            self.scenario.on_busy_step(&mut self.rng);
            if self.scenario.wants_restart() {
                self.restart_operator();
            }
            self.disturb_replicas().await;
        }
    }

    fn random_instant(&mut self, seconds: std::ops::Range<u64>) -> Instant {
        in_a_while(&mut self.rng, seconds)
    }

    async fn advance(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            sleep(if time > STEP { SLOW_STEP } else { STEP }).await;
            self.scenario.step();
            if let Some(operator) = self.acting_operator().map(|running| Arc::clone(&running.operator)) {
                self.scenario.observe(&operator);
            }
        }
    }

    fn publish(&mut self, status: Option<ManifestStatus>) {
        let Some(status) = status else { return };
        self.manifests = Arc::new(status);
        for running in &self.operators {
            running.manifests.send_replace(Arc::clone(&self.manifests));
        }
    }

    pub(super) fn start_operator(&mut self, candidate: Option<RunningCandidate>) {
        let env = Arc::clone(self.scenario.env());
        let running = candidate.as_ref().map(|candidate| Arc::clone(&candidate.running));
        let connect = self.scenario.connect(running.as_ref());
        let started = self.replicas.as_ref().map_or(0, ReplicaFaults::started);
        let (lease, clock): (Arc<dyn Lease>, _) = match &running {
            Some(running) => (Arc::clone(&running.lease), running.replica.clock.clone()),
            None => (Arc::clone(&env.lease) as _, env.clock.clone()),
        };
        let aws = Arc::new(SimAws { env, replica: running.clone() });
        let mut queues: Vec<Arc<dyn EventQueue>> = vec![Arc::clone(&aws) as _];
        let (ecs, iam, accounts): (Arc<dyn Ecs>, Arc<dyn Iam>, Arc<dyn MemberAccounts>) =
            match self.scenario.member() {
                None => (Arc::clone(&aws) as _, Arc::clone(&aws) as _, Arc::new(())),
                Some(access) => {
                    let member = SimAws { env: Arc::clone(&access.env), replica: running };
                    queues.push(Arc::new(member.clone()));
                    let own = (*aws).clone();
                    let all = Arc::new(SimAccounts { own, member, access: Arc::clone(access) });
                    (Arc::clone(&all) as _, Arc::clone(&all) as _, all)
                }
            };
        let operator = Operator::new(OperatorDeps {
            recorder: None,
            previous_id: None,
            id: OperatorId::parse(self.scenario.operator()).unwrap(),
            ecs,
            ec2: aws,
            iam,
            accounts,
            token_stores: crate::fake_token_stores(),
            connect,
            lease,
            replicas: candidate.as_ref().map(|candidate| candidate.replicas.clone()),
            clock,
            metrics: Arc::new(Metrics::default()),
            rates: self.rates,
            // Of its own in each process.
            seed: self.seed.wrapping_add(self.report.restarts + started),
        });
        let (manifests, published) = watch::channel(Arc::clone(&self.manifests));
        let running = Arc::clone(&operator);
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            let options = RunOptions { receivers: 2, ..RunOptions::default() };
            running.run(queues, published, options, stopped).await.unwrap();
        });
        self.operators.push(RunningOperator { operator, manifests, task, stop, candidate });
    }

    /// The tasks that a guard holds.
    fn held(&self) -> BTreeSet<String> {
        let Some(running) = self.acting_operator() else { return BTreeSet::new() };
        let workers = running.operator.workers();
        workers
            .values()
            .flat_map(|plane| plane.tasks_held_by_guard())
            .map(|task| task.id().to_string())
            .collect()
    }

    fn finish(mut self) -> SimReport {
        self.finish_replicas();
        let env = Arc::clone(self.scenario.env());
        self.report.violations.append(&mut env.writes_without_lease.lock().unwrap());
        self.scenario.finish(&mut self.report);
        self.report.faults = env.faults.struck();
        self.report.history = env.take_history();
        self.report
    }
}

/// A random instant in this range of seconds from now.
pub(super) fn in_a_while(rng: &mut fastrand::Rng, seconds: std::ops::Range<u64>) -> Instant {
    Instant::now() + Duration::from_millis(rng.u64(seconds.start * 1_000..seconds.end * 1_000))
}
