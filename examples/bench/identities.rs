//! Phases with Consul: tasks that stop one by one, half of all tasks at once, and idle.

use std::time::Duration;

use serde::Serialize;

use crate::control::{LatencySummary, Order, WriteKind};
use crate::phases::{IdleResult, Plan};
use crate::process::Memory;
use crate::setup::{BenchManifestOptions, BenchSetup};

/// A token, a service and its sidecar.
const OF_A_TASK: usize = 3;
const PATIENCE: Duration = Duration::from_mins(8);

/// Tasks that stop one by one.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct GradualDeathsResult {
    pub tasks: usize,
    pub per_second: u32,
    pub seconds: f64,
    /// Latency from the delivery of the STOPPED event to the removal of the token.
    pub token_gone: LatencySummary,
    pub ecs_reads: u64,
    pub memory: Memory,
    pub operator_cpu_s: f64,
}

/// Tasks that stop at once.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct MassDeathResult {
    pub tasks: usize,
    pub die: usize,
    /// Time until the last token or service was removed.
    pub clean_after_s: f64,
    pub ecs_reads: u64,
    pub memory: Memory,
    pub operator_cpu_s: f64,
}

/// Results of the Consul phases.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct IdentityResults {
    pub deaths: Option<GradualDeathsResult>,
    pub mass: Option<MassDeathResult>,
    pub rest: Vec<IdleResult>,
}

impl Plan {
    fn with_identities(&self, tasks: usize, interval: Duration) -> Result<BenchSetup, String> {
        let mut setup = BenchSetup::beside(&self.directory, self.consul.as_deref())?;
        setup.sandbox.order(&Order::Standing(tasks))?;
        setup.sandbox.order(&Order::LogIn)?;
        let care = BenchManifestOptions { consul: true, interval, ..BenchManifestOptions::default() };
        setup.start_operator(&self.operator, care)?;
        // The first sweep describes each task, within the rate limit.
        let mut reads = 0;
        loop {
            setup.pass(self.settle)?;
            let now = setup.sandbox.order(&Order::Look)?.calls_of("ecs.");
            if now == reads {
                return Ok(setup);
            }
            reads = now;
        }
    }

    /// # Errors
    /// Describes the failure.
    pub(crate) fn deaths(&self, tasks: usize, per_second: u32) -> Result<GradualDeathsResult, String> {
        let mut setup = self.with_identities(tasks, BenchManifestOptions::default().interval)?;
        let cpu = setup.client()?.cpu();
        setup.sandbox.order(&Order::Mark)?;
        setup.sandbox.order(&Order::Deaths(per_second))?;
        setup.pass(self.steady)?;
        setup.sandbox.order(&Order::Deaths(0))?;
        setup.pass(Duration::from_secs(2))?;
        let picture = setup.sandbox.order(&Order::Look)?;
        let token_gone = picture.latency.get(&WriteKind::Token).copied();
        Ok(GradualDeathsResult {
            tasks,
            per_second,
            seconds: self.steady.as_secs_f64(),
            token_gone: token_gone.ok_or_else(|| format!("no token went: {picture:?}"))?,
            ecs_reads: picture.calls_of("ecs."),
            memory: setup.client()?.memory(),
            operator_cpu_s: setup.client()?.cpu().saturating_sub(cpu).as_secs_f64(),
        })
    }

    /// # Errors
    /// Describes the failure.
    pub(crate) fn mass(&self, tasks: usize, die: usize) -> Result<MassDeathResult, String> {
        let mut setup = self.with_identities(tasks, BenchManifestOptions::default().interval)?;
        let cpu = setup.client()?.cpu();
        setup.sandbox.order(&Order::Kill(die))?;
        let left = (tasks - die) * OF_A_TASK;
        setup.wait(PATIENCE, "the removal of what the dead left", |seen| seen.identities <= left)?;
        // Excess removals show now.
        setup.pass(Duration::from_secs(2))?;
        let picture = setup.sandbox.order(&Order::Look)?;
        if picture.identities != left {
            return Err(format!("{} tokens and services are left instead of {left}", picture.identities));
        }
        Ok(MassDeathResult {
            tasks,
            die,
            clean_after_s: picture.last_identity_gone.as_secs_f64(),
            ecs_reads: picture.calls_of("ecs."),
            memory: setup.client()?.memory(),
            operator_cpu_s: setup.client()?.cpu().saturating_sub(cpu).as_secs_f64(),
        })
    }

    /// # Errors
    /// Describes the failure.
    pub(crate) fn rest_with_identities(&self, tasks: usize) -> Result<IdleResult, String> {
        let interval = self.rest_interval();
        let mut setup = self.with_identities(tasks, interval)?;
        self.look_at_rest(&mut setup, tasks, interval)
    }
}
