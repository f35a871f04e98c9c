//! The environment of a run: account, faults, clock, lease and history.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ecs_mesh_api::manifests::{ManifestFinding, ManifestSet};
use ecs_mesh_clock::Clock;
use ecs_mesh_controller::{Lease, LeaseTerm, WriteObstacle};
use ecs_mesh_manifests::ManifestSources;
use ecs_mesh_model::{ClusterArn, Timestamp};
use ecs_mesh_sandbox::aws::{AddressReuse, Cloud, CloudConfig, CloudTask, Delivery, LifeTimes, SendMessage};
use ecs_mesh_sandbox::oracle::{HoldCounts, InvariantViolation};
use ecs_mesh_sandbox::world::{QUEUE, RoutedEvents, create_queue_and_rules};
use serde::Deserialize;
use serde_json::Value;

use super::faults::{SimFault, SimFaults};
use super::held_deployments::{self, SimHolds};
use super::replicas::{HandoverCounts, SharedLeaseRecord};

/// 2026-11-22T00:00:00Z.
pub(super) const START: Timestamp = Timestamp(1_795_305_600_000);
/// Step of the world in the settle and quiet phases.
pub(super) const SLOW_STEP: Duration = Duration::from_millis(400);
/// Step of the world.
pub(super) const STEP: Duration = Duration::from_millis(100);
/// Length of the settle phase. It covers sweeps, grace age, backoff and circuits.
pub(super) const SETTLE_TIME: Duration = Duration::from_mins(5);
/// Length of the quiet phase.
pub(super) const QUIET_PERIOD: Duration = Duration::from_mins(2);

/// A lease that is lost at times, and whose audit log is blocked at times.
pub(super) struct SimLease {
    held: AtomicBool,
    audit_blocked: AtomicBool,
}

impl SimLease {
    /// Acquires the lease for the rest of the run.
    pub(super) fn acquire(&self) {
        self.held.store(true, Ordering::Relaxed);
        self.audit_blocked.store(false, Ordering::Relaxed);
    }

    /// Blocks the audit log, or lets it take lines again, and returns whether it is blocked.
    pub(super) fn toggle_audit(&self) -> bool {
        !self.audit_blocked.fetch_xor(true, Ordering::Relaxed)
    }

    /// Loses or reacquires the lease, and returns whether it is held.
    pub(super) fn toggle(&self) -> bool {
        !self.held.fetch_xor(true, Ordering::Relaxed)
    }

    /// The obstacle of the audit log.
    pub(super) fn audit_obstacle(&self) -> Option<WriteObstacle> {
        self.audit_blocked.load(Ordering::Relaxed).then_some(WriteObstacle::AuditBacklog)
    }
}

impl Lease for SimLease {
    fn term(&self) -> LeaseTerm {
        LeaseTerm::unlimited(self.held.load(Ordering::Relaxed))
    }

    fn obstacle(&self) -> Option<WriteObstacle> {
        (!self.holds()).then_some(WriteObstacle::NotLeader).or_else(|| self.audit_obstacle())
    }
}

/// The environment shared by operator and world.
pub(super) struct SimEnv {
    pub(super) cloud: Mutex<Cloud>,
    pub(super) faults: SimFaults,
    pub(super) cluster: ClusterArn,
    /// The lease of a single process, and the audit log of all.
    pub(super) lease: Arc<SimLease>,
    /// The lease that replicas share, in lives that have them.
    pub(super) lease_record: Option<Arc<SharedLeaseRecord>>,
    pub(super) writes_without_lease: Mutex<Vec<String>>,
    pub(super) holds: Mutex<SimHolds>,
    pub(super) clock: Clock,
    /// The wall clocks of the operator's machines, where each has its own.
    clocks: Mutex<Vec<Clock>>,
    /// Until when a fault of the replicas may keep them from acting.
    disturbed_until: Mutex<Timestamp>,
    /// The number of the operator's processes so far; of replicas, of the terms.
    process: AtomicU64,
    /// Whether the environment has the additional faults of Consul runs.
    pub(super) consul_checks: bool,
    history: Arc<Mutex<Vec<String>>>,
    calls: Mutex<BTreeMap<&'static str, u64>>,
    stops_delivered: Mutex<Vec<(String, Timestamp)>>,
    list_hook: Mutex<Option<Box<dyn Fn() + Send>>>,
}

impl SimEnv {
    /// An account with a cluster and a queue; the seed decides the fault rate.
    pub(super) fn new(seed: u64, rng: &mut fastrand::Rng, consul_checks: bool) -> Self {
        Self::of_account(seed, rng, consul_checks, None, |config| config)
    }

    /// The same, of another account, or with another fault rate.
    pub(super) fn of_account(
        seed: u64,
        rng: &mut fastrand::Rng,
        consul_checks: bool,
        level: Option<f64>,
        account: impl FnOnce(CloudConfig) -> CloudConfig,
    ) -> Self {
        // One run in four has no faults, so that deadlines are checked as well.
        let drawn = [0.0, 0.5, 1.0, 2.0][rng.usize(..4)];
        let level = level.unwrap_or(drawn);
        let clock = Clock::simulated(START);
        let delivery = if level > 0.0 { harsh_delivery() } else { Delivery::default() };
        let reuse = [AddressReuse::Immediate, AddressReuse::Lifo, AddressReuse::Fifo][rng.usize(..3)];
        // ECS shows stopped tasks for at least one hour, then reports MISSING.
        let stopped_kept = Duration::from_secs(if rng.bool() { 3_600 } else { 100 });
        let life = LifeTimes { stopped_kept, ..LifeTimes::default() };
        let config =
            account(CloudConfig { seed, life, delivery, reuse_addresses: reuse, ..CloudConfig::default() });
        let mut cloud = Cloud::new(config, START);
        // At Consul nothing is held.
        let holds = !consul_checks && held_deployments::are_in(seed);
        let events = if holds { RoutedEvents::TasksAndDeployments } else { RoutedEvents::Tasks };
        let cluster = create_queue_and_rules(&mut cloud, events, START).unwrap();
        Self {
            cloud: Mutex::new(cloud),
            faults: SimFaults::new(seed, level),
            cluster: ClusterArn::parse(&cluster).unwrap(),
            lease: Arc::new(SimLease { held: AtomicBool::new(true), audit_blocked: AtomicBool::new(false) }),
            lease_record: None,
            clocks: Mutex::default(),
            disturbed_until: Mutex::new(START),
            writes_without_lease: Mutex::default(),
            holds: Mutex::new(SimHolds::new()),
            clock,
            process: AtomicU64::new(0),
            consul_checks,
            history: Arc::default(),
            calls: Mutex::default(),
            stops_delivered: Mutex::default(),
            list_hook: Mutex::default(),
        }
    }

    /// The same environment, for replicas that share a lease, if the seed asks for them.
    pub(super) fn with_replicas(self, lease_record: Option<SharedLeaseRecord>) -> Self {
        Self { lease_record: lease_record.map(Arc::new), ..self }
    }

    /// The same environment, whose history is part of another's.
    pub(super) fn with_history_of(self, other: &Self) -> Self {
        Self { history: Arc::clone(&other.history), ..self }
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(super) fn record(&self, message: impl FnOnce() -> String) {
        let line = format!("{} {}", self.now().0 - START.0, message());
        self.history.lock().unwrap().push(line);
    }

    /// Counts a call.
    pub(super) fn count_call(&self, to: &'static str) {
        *self.calls.lock().unwrap().entry(to).or_default() += 1;
    }

    /// Number of calls with this prefix.
    pub(super) fn calls_to(&self, prefix: &str) -> u64 {
        let calls = self.calls.lock().unwrap();
        calls.iter().filter(|(to, _)| to.starts_with(prefix)).map(|(_, count)| count).sum()
    }

    /// Whether calls are counted for the limit of the quiet phase.
    pub(super) fn counts_calls(&self) -> bool {
        self.consul_checks && !self.faults.are_enabled()
    }

    /// Delivers a message to the operator, and records delivered STOPPED events.
    pub(super) fn record_delivery(&self, message: &str) {
        let DeliveredEvent { detail } = serde_json::from_str(message).unwrap_or_default();
        self.record(|| format!("received: {} {} v{}", detail.task_arn, detail.last_status, detail.version));
        if self.consul_checks
            && detail.last_status == "STOPPED"
            && let Some(id) = detail.task_arn.as_str().and_then(|arn| arn.rsplit('/').next())
        {
            self.stops_delivered.lock().unwrap().push((id.to_owned(), self.now()));
        }
    }

    /// Tasks whose STOPPED event was delivered since the last call, with the time.
    pub(super) fn take_stops_delivered(&self) -> Vec<(String, Timestamp)> {
        std::mem::take(&mut *self.stops_delivered.lock().unwrap())
    }

    /// Sets a hook that runs after each list of the operator, before its next call.
    pub(super) fn after_each_list(&self, what: impl Fn() + Send + 'static) {
        *self.list_hook.lock().unwrap() = Some(Box::new(what));
    }

    /// Runs the hook after a list.
    pub(super) fn between_lists(&self) {
        if let Some(what) = &*self.list_hook.lock().unwrap() {
            what();
        }
    }

    /// Records that another process acts from now on.
    pub(super) fn record_other_process(&self, message: impl FnOnce() -> String) {
        self.process.fetch_add(1, Ordering::Relaxed);
        self.record(message);
    }

    /// The number of the operator's process.
    pub(super) fn process(&self) -> u64 {
        self.process.load(Ordering::Relaxed)
    }

    /// Whether no process may write now, or the one that may is disturbed.
    pub(super) fn is_write_disturbed(&self) -> bool {
        match &self.lease_record {
            None => self.lease.obstacle().is_some(),
            Some(lease_record) => {
                let now = self.now();
                let is_disturbed = now < *self.disturbed_until.lock().unwrap();
                is_disturbed || lease_record.leader(now).is_none() || self.lease.audit_obstacle().is_some()
            }
        }
    }

    /// Records that a fault of the replicas may keep them from acting.
    pub(super) fn disturb_until(&self, until: Timestamp) {
        let mut disturbed_until = self.disturbed_until.lock().unwrap();
        *disturbed_until = (*disturbed_until).max(until);
    }

    /// Sets the machines' clocks.
    pub(super) fn set_clocks(&self, clocks: Vec<Clock>) {
        *self.clocks.lock().unwrap() = clocks;
    }

    /// Records a write without the lease, or while the audit log is blocked.
    pub(super) fn must_hold_the_lease(&self, message: &dyn std::fmt::Display) {
        if let Some(obstacle) = self.lease.obstacle() {
            self.writes_without_lease.lock().unwrap().push(format!("I7: {message}, although {obstacle}"));
        }
    }

    /// Takes the history; an environment variable may write it to a file.
    pub(super) fn take_history(&self) -> Vec<String> {
        let history = std::mem::take(&mut *self.history.lock().unwrap());
        if let Some(file) = std::env::var_os("SIM_HISTORY") {
            std::fs::write(file, history.join("\n")).unwrap();
        }
        history
    }

    /// Sends an event that is days old, of an unknown task, with an address that another task has by now.
    pub(super) fn send_ghost(&self, rng: &mut fastrand::Rng) {
        let days_ago = Timestamp(self.now().0 - 3 * 86_400_000);
        self.send_event(rng, |task, detail, rng| {
            let id = format!("{:032x}", rng.u128(..));
            detail["taskArn"] = task.arn.replace(task.id(), &id).into();
            detail["lastStatus"] = "RUNNING".into();
            detail["desiredStatus"] = "RUNNING".into();
            detail["createdAt"] = days_ago.to_string().into();
            detail["updatedAt"] = days_ago.to_string().into();
        });
    }

    /// Sets the machine's clock by up to two days.
    pub(super) fn step_clock(&self, rng: &mut fastrand::Rng) {
        if self.faults.are_enabled() {
            let millis = rng.i64(-172_800_000..172_800_000);
            let clocks = self.clocks.lock().unwrap();
            let one = if clocks.is_empty() { None } else { clocks.get(rng.usize(..clocks.len())) };
            one.unwrap_or(&self.clock).step_wall(millis);
            drop(clocks);
            self.faults.count(SimFault::ClockStep);
            self.record(|| format!("the wall clock is stepped by {millis} ms"));
        }
    }

    /// Sends an event that ECS did not send.
    pub(super) fn send_forged(&self, rng: &mut fastrand::Rng) {
        if !self.faults.are_enabled() {
            return;
        }
        self.faults.count(SimFault::ForgedEvent);
        self.send_event(rng, |task, detail, rng| {
            let version = [u64::MAX, task.version, task.version + 1, task.version + 3][rng.usize(..4)];
            detail["version"] = version.into();
            detail["desiredStatus"] = ["RUNNING", "STOPPED"][rng.usize(..2)].into();
            detail["lastStatus"] = ["RUNNING", "STOPPED", "DEACTIVATING"][rng.usize(..3)].into();
            if detail["desiredStatus"] == "STOPPED" || detail["lastStatus"] == "STOPPED" {
                self.faults.record_forged_stop(task.id());
            }
            let address = ["127.0.0.1", "169.254.170.2", "8.8.8.8"][rng.usize(..3)];
            detail["containers"] =
                serde_json::json!([{"name": "app", "networkInterfaces": [{"privateIpv4Address": address}]}]);
            detail["attachments"] = serde_json::json!([]);
            if rng.u8(..4) == 0 {
                let id = format!("{:032x}", rng.u128(..));
                detail["taskArn"] = task.arn.replace(task.id(), &id).into();
            }
        });
        self.record(|| "forged event".to_owned());
    }

    /// Sends the event of a random task, after a change.
    fn send_event(
        &self,
        rng: &mut fastrand::Rng,
        change: impl FnOnce(&CloudTask, &mut Value, &mut fastrand::Rng),
    ) {
        let mut cloud = self.cloud.lock().unwrap();
        let with_address: Vec<_> =
            cloud.all_tasks().filter(|task| task.address().is_some()).cloned().collect();
        if with_address.is_empty() {
            return;
        }
        let task = &with_address[rng.usize(..with_address.len())];
        let mut detail = task.to_event_detail();
        change(task, &mut detail, rng);
        let body = serde_json::json!({
            "version": "0", "id": format!("{:032x}", rng.u128(..)), "detail-type": "ECS Task State Change",
            "source": "aws.ecs", "account": "111122223333", "time": self.now().to_string(),
            "region": "eu-west-1", "resources": [], "detail": detail,
        });
        cloud.send_message(QUEUE, SendMessage::of(body.to_string()), self.now()).unwrap();
    }
}

fn harsh_delivery() -> Delivery {
    Delivery {
        duplicate: 0.1,
        lose: 0.04,
        delay_min: Duration::ZERO,
        delay_max: Duration::from_secs(3),
        shuffle: true,
        replay: 0.02,
        replay_after: Duration::from_mins(3),
    }
}

/// The fields of an event that the environment reads.
#[derive(Default, Deserialize)]
struct DeliveredEvent {
    #[serde(default)]
    detail: DeliveredDetail,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct DeliveredDetail {
    task_arn: Value,
    last_status: Value,
    version: Value,
}

/// The result of a run.
#[derive(Debug, Default)]
pub(super) struct SimReport {
    pub(super) violations: Vec<String>,
    pub(super) history: Vec<String>,
    pub(super) tasks: u64,
    /// Registrations created by the operator; at Consul, logins.
    pub(super) created: u64,
    pub(super) removed: u64,
    pub(super) restarts: u64,
    /// Number of injected faults by kind.
    pub(super) faults: BTreeMap<SimFault, u64>,
    /// Number of operator reads while each foreign fixture existed.
    pub(super) fixture_observations: BTreeMap<&'static str, u64>,
    /// Number of task stops with a checked deadline.
    pub(super) timed: u64,
    /// Protections of old tasks.
    pub(super) holds: HoldCounts,
    /// Replicas share a lease.
    pub(super) has_replicas: bool,
    /// Changes of the leader, where they do.
    pub(super) handovers: HandoverCounts,
    /// Most reads of tasks within a minute, of all replicas together.
    pub(super) most_reads: usize,
    /// Checks of the first account while the second one failed.
    pub(super) confined: u64,
    /// Calls to ECS and to the control plane in the quiet phase.
    pub(super) silent_calls: (u64, u64),
}

/// Runs a scenario on one thread with a paused clock.
pub(super) fn under_paused_clock<F: Future<Output = SimReport>>(life: impl FnOnce() -> F) -> SimReport {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    // Everything runs within the runtime, since the paused clock exists only there.
    runtime.block_on(async move { life().await })
}

/// A violation as text.
pub(super) fn violation(found: &InvariantViolation) -> String {
    format!("{} at {}s: {}", found.invariant, (found.at.0 - START.0) / 1_000, found.message)
}

pub(super) fn load_whatever(yaml: &str) -> (Arc<ManifestSet>, Vec<ManifestFinding>) {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("all.yaml"), yaml).unwrap();
    let loaded = ManifestSources::new([directory.path().to_owned()]).load(None).into_loaded().unwrap();
    (loaded.set, loaded.errors)
}
