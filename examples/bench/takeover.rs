//! The takeover phase: a leader is killed, and its standby registers new tasks.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ecs_mesh_model::Timestamp;
use serde::Serialize;
use serde_json::Value;

use crate::control::{AccountSize, Order};
use crate::phases::{Plan, TIMEOUT};
use crate::process::{ChildProcess, Memory};
use crate::setup::{BenchManifestOptions, BenchSetup, RECEIVERS, of_the_image};
use crate::world::LEASES;

/// The shortest lease duration.
const LEASE_DURATION: Duration = Duration::from_secs(10);
const RETRY_PERIOD: Duration = Duration::from_secs(2);
/// The standby's part of the read rates unless the default is asked for.
const STANDBY_PERCENT: &str = "50";
/// Twice what reading 400 roles takes with the default share.
const WARM_UP_TIMEOUT: Duration = Duration::from_mins(20);
/// Tasks that start while there is no leader.
const NEW_TASKS: usize = 100;

const ACQUIRED: &str = "acquired the lease; this copy leads";
const SWEPT: &str = "swept";

/// Result of a takeover after a crash.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct TakeoverResult {
    pub tasks: usize,
    pub roles: u16,
    /// Time from the crash until the standby held the lease.
    pub leads_after_s: f64,
    /// The longest time that the lease's durations permit.
    pub bound_s: f64,
    /// Time from the crash until all tasks that started in between were registered.
    pub registered_after_s: f64,
    /// Time from the takeover until the new leader's first complete sweep, before which nothing is removed by absence.
    pub swept_after_s: f64,
    /// Calls to AWS between the crash and the last new registration.
    pub calls: std::collections::BTreeMap<String, u64>,
    /// The standby's memory before the takeover.
    pub memory: Memory,
}

/// A replica, whose log is read.
struct Replica {
    process: ChildProcess,
    log: PathBuf,
}

impl Replica {
    fn start(setup: &BenchSetup, plan: &Plan, name: &str) -> Result<Self, String> {
        let manifests = setup.write_manifests(BenchManifestOptions::default())?;
        let log = plan.directory.join(format!("{name}.log"));
        let mut command = Command::new(&plan.operator);
        command.envs(of_the_image()).envs(&setup.sandbox.place.environment);
        command.env("ECS_MESH_METRICS_ADDRESS", "none");
        command.args(["run", "--operator-id", "bench", "--receivers", RECEIVERS, "--log-format", "json"]);
        command.arg("--manifests").arg(manifests).args(["--queue-url", &setup.sandbox.place.queue_url]);
        command.args(["--lease", &format!("dynamodb:{LEASES}")]);
        command.args(["--lease-duration", "10s", "--lease-renew-deadline", "6s"]);
        if !plan.default_shares {
            command.args(["--max-standbys", "1", "--standby-reads-percent", STANDBY_PERCENT]);
        }
        Ok(Self { process: ChildProcess::start(&mut command, &log)?, log })
    }

    /// The times of the log's lines with this message, since the epoch.
    fn times(&self, message: &str) -> Vec<Duration> {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let wanted = lines.filter(|line| line["message"] == message && line["complete"] != false);
        wanted
            .filter_map(|line| Timestamp::parse(line["timestamp"].as_str()?))
            .map(|at| Duration::from_secs_f64(at.as_secs_f64()))
            .collect()
    }

    /// Waits for a line with this message after `since`, and returns its time.
    fn wait_for(&mut self, message: &str, since: Duration) -> Result<Duration, String> {
        let end = now() + TIMEOUT;
        loop {
            if let Some(at) = self.times(message).into_iter().find(|at| *at >= since) {
                return Ok(at);
            }
            self.process.must_run(&self.log)?;
            if now() >= end {
                return Err(format!("{} has no line {message:?} within {TIMEOUT:?}", self.log.display()));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// The wall clock, as the log has it.
fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

impl Plan {
    /// Kills a leader whose standby is warm, while tasks start.
    ///
    /// # Errors
    /// Describes the failure.
    pub(crate) fn takeover(&self) -> Result<TakeoverResult, String> {
        let (tasks, roles) = self.start;
        let mut setup = BenchSetup::new(&self.directory, AccountSize { services: roles, clusters: 1 })?;
        setup.sandbox.order(&Order::CreateTasks(tasks))?;
        let mut leader = Replica::start(&setup, self, "leader")?;
        leader.wait_for(ACQUIRED, Duration::ZERO)?;
        setup.wait(TIMEOUT, "registering all tasks", |seen| seen.dataplanes >= tasks)?;
        setup.sandbox.order(&Order::Mark)?;
        let mut standby = Replica::start(&setup, self, "standby")?;
        standby.wait_for(SWEPT, Duration::ZERO)?;
        setup.wait(WARM_UP_TIMEOUT, "reading all roles and task definitions", |seen| {
            seen.calls_to("iam.GetRole") >= u64::from(roles)
                && seen.calls_to("ecs.DescribeTaskDefinition") >= u64::from(roles)
        })?;
        let memory = standby.process.memory();
        let crash = now();
        drop(leader);
        // Restarts the measurement.
        setup.sandbox.order(&Order::Burst(NEW_TASKS))?;
        let acquired = standby.wait_for(ACQUIRED, crash)?;
        let done =
            setup.wait(TIMEOUT, "registering the new tasks", |seen| seen.dataplanes >= tasks + NEW_TASKS)?;
        let swept = standby.wait_for(SWEPT, acquired)?;
        Ok(TakeoverResult {
            tasks,
            roles,
            leads_after_s: acquired.saturating_sub(crash).as_secs_f64(),
            bound_s: (LEASE_DURATION + RETRY_PERIOD).as_secs_f64(),
            registered_after_s: done.last_written.as_secs_f64(),
            swept_after_s: swept.saturating_sub(acquired).as_secs_f64(),
            calls: done.calls.into_iter().filter(|(_, count)| *count > 0).collect(),
            memory,
        })
    }
}
