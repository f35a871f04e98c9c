//! Phases with Consul: tasks that stop one by one, half of all tasks at once, and idle.

use std::time::Duration;

use serde::Serialize;

use crate::control::{LatencySummary, Order, WriteKind};
use crate::phases::{IdleResult, Plan};
use crate::process::Memory;
use crate::setup::{BenchManifestOptions, BenchSetup};

/// A token, a service and its sidecar.
const OBJECTS_PER_TASK: usize = 3;
const TIMEOUT: Duration = Duration::from_mins(8);

/// Tasks that stop one by one.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct GradualStopsResult {
    pub tasks: usize,
    pub per_second: u32,
    pub seconds: f64,
    /// Latency from the delivery of the STOPPED event to the removal of the token.
    pub token_removed: LatencySummary,
    pub ecs_reads: u64,
    pub memory: Memory,
    pub operator_cpu_s: f64,
}

/// Tasks that stop at once.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct MassStopResult {
    pub tasks: usize,
    pub stopped: usize,
    /// Time until the last token or service was removed.
    pub removed_after_s: f64,
    pub ecs_reads: u64,
    pub memory: Memory,
    pub operator_cpu_s: f64,
}

/// Results of the Consul phases.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct IdentityResults {
    pub gradual_stops: Option<GradualStopsResult>,
    pub mass_stop: Option<MassStopResult>,
    pub idle: Vec<IdleResult>,
}

impl Plan {
    fn with_identities(&self, tasks: usize, interval: Duration) -> Result<BenchSetup, String> {
        let mut setup = BenchSetup::with_consul(&self.directory, self.consul.as_deref())?;
        setup.sandbox.order(&Order::CreateTasks(tasks))?;
        setup.sandbox.order(&Order::LogIn)?;
        let options = BenchManifestOptions { consul: true, interval, ..BenchManifestOptions::default() };
        setup.start_operator(&self.operator, options)?;
        // The first sweep describes each task, within the rate limit.
        let mut reads = 0;
        loop {
            setup.pass(self.settle)?;
            let now = setup.sandbox.order(&Order::Snapshot)?.calls_of("ecs.");
            if now == reads {
                return Ok(setup);
            }
            reads = now;
        }
    }

    /// # Errors
    /// Describes the failure.
    pub(crate) fn gradual_stops(&self, tasks: usize, per_second: u32) -> Result<GradualStopsResult, String> {
        let mut setup = self.with_identities(tasks, BenchManifestOptions::default().interval)?;
        let cpu = setup.client()?.cpu();
        setup.sandbox.order(&Order::Mark)?;
        setup.sandbox.order(&Order::StopRate(per_second))?;
        setup.pass(self.steady)?;
        setup.sandbox.order(&Order::StopRate(0))?;
        setup.pass(Duration::from_secs(2))?;
        let snapshot = setup.sandbox.order(&Order::Snapshot)?;
        let token_removed = snapshot.latency.get(&WriteKind::Token).copied();
        Ok(GradualStopsResult {
            tasks,
            per_second,
            seconds: self.steady.as_secs_f64(),
            token_removed: token_removed.ok_or_else(|| format!("no token was removed: {snapshot:?}"))?,
            ecs_reads: snapshot.calls_of("ecs."),
            memory: setup.client()?.memory(),
            operator_cpu_s: setup.client()?.cpu().saturating_sub(cpu).as_secs_f64(),
        })
    }

    /// # Errors
    /// Describes the failure.
    pub(crate) fn mass_stop(&self, tasks: usize, stopped: usize) -> Result<MassStopResult, String> {
        let mut setup = self.with_identities(tasks, BenchManifestOptions::default().interval)?;
        let cpu = setup.client()?.cpu();
        setup.sandbox.order(&Order::Stop(stopped))?;
        let left = (tasks - stopped) * OBJECTS_PER_TASK;
        setup.wait(TIMEOUT, "the removal of tokens and services of stopped tasks", |seen| {
            seen.identities <= left
        })?;
        // Excess removals show now.
        setup.pass(Duration::from_secs(2))?;
        let snapshot = setup.sandbox.order(&Order::Snapshot)?;
        if snapshot.identities != left {
            return Err(format!("{} tokens and services are left instead of {left}", snapshot.identities));
        }
        Ok(MassStopResult {
            tasks,
            stopped,
            removed_after_s: snapshot.last_identity_removed.as_secs_f64(),
            ecs_reads: snapshot.calls_of("ecs."),
            memory: setup.client()?.memory(),
            operator_cpu_s: setup.client()?.cpu().saturating_sub(cpu).as_secs_f64(),
        })
    }

    /// # Errors
    /// Describes the failure.
    pub(crate) fn idle_with_identities(&self, tasks: usize) -> Result<IdleResult, String> {
        let interval = self.idle_interval();
        let mut setup = self.with_identities(tasks, interval)?;
        self.measure_idle(&mut setup, tasks, interval)
    }
}
