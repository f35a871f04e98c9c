//! The benchmark: the operator as a process against the sandbox as another process on this machine.
//!
//! `make bench`, or `cargo run --release --locked --example bench`. `docs/benchmarks.md` describes the measurements.
#![allow(unreachable_pub)] // nothing here is a library

mod bare;
mod consul;
mod control;
mod identities;
mod lease_window;
mod machine;
mod phases;
mod process;
mod readers;
mod report;
mod setup;
mod takeover;
mod watch;
mod world;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use crate::control::AccountSize;
use crate::identities::IdentityResults;
use crate::machine::Machine;
use crate::phases::{BenchDirectory, Plan, Stream};
use crate::report::BenchReport;

/// Measure the operator against the sandbox. Exit code 2: a target was missed (with --targets).
#[derive(Parser)]
#[command(name = "bench", max_term_width = 100)]
struct BenchArgs {
    /// Run small and short phases: a functional check without representative figures
    #[arg(long)]
    quick: bool,

    /// Run only these phases
    #[arg(long, value_enum, num_args = 1..)]
    only: Vec<BenchPhase>,

    /// Length of the idle phase. Below 10m, sweeps and role reads happen once in this time instead of every 10 minutes
    #[arg(long, default_value = "60s", value_parser = duration)]
    idle: Duration,

    /// Numbers of tasks in the idle phase
    #[arg(long, value_delimiter = ',', default_values_t = [0, 1_000, 10_000, 100_000])]
    idle_tasks: Vec<usize>,

    /// Numbers of events queued at once
    #[arg(long, value_delimiter = ',', default_values_t = [100, 1_000, 5_000, 15_000])]
    bursts: Vec<usize>,

    /// Consul program (1.8 or later) for the Consul phases
    #[arg(long, env = consul::PROGRAM)]
    consul: Option<PathBuf>,

    /// Takeover with the standby's default share of the read rates, a fifteenth: its caches are warm after some 10 minutes
    #[arg(long, conflicts_with = "quick")]
    default_shares: bool,

    /// Output format
    #[arg(long, value_enum, default_value = "text")]
    output: BenchOutput,

    /// Exit with 2 if a target is missed
    #[arg(long, conflicts_with = "quick")]
    targets: bool,

    /// Operator program to measure [default: built from this repository with this profile]
    #[arg(long)]
    operator: Option<PathBuf>,

    #[command(subcommand)]
    role: Option<ProcessRole>,
}

/// Roles in which this program starts itself.
#[derive(clap::Subcommand)]
enum ProcessRole {
    /// The sandbox.
    #[command(hide = true)]
    Sandbox(AccountSize),
    /// The bare loop.
    #[command(hide = true)]
    Bare {
        #[arg(long)]
        queue_url: String,
        #[arg(long)]
        receivers: usize,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum BenchPhase {
    Burst,
    Steady,
    Start,
    Takeover,
    LeaseWindow,
    Readers,
    Idle,
    Consul,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum BenchOutput {
    Text,
    Json,
}

fn duration(text: &str) -> Result<Duration, String> {
    ecs_mesh_api::HumanDuration::parse(text).map(|duration| duration.0)
}

fn main() -> ExitCode {
    let args = BenchArgs::parse();
    match &args.role {
        Some(role) => run_role(role).map(|()| ExitCode::SUCCESS),
        None => args.measure(),
    }
    .unwrap_or_else(|error| {
        // No further report is possible.
        let _ = writeln!(std::io::stderr(), "error: {error}");
        ExitCode::FAILURE
    })
}

fn run_role(role: &ProcessRole) -> Result<(), String> {
    // An error means that a provider is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Runtime::new().map_err(|error| error.to_string())?;
    let result = runtime.block_on(async {
        match role {
            ProcessRole::Sandbox(size) => world::serve(*size).await,
            ProcessRole::Bare { queue_url, receivers } => bare::run(queue_url, *receivers).await,
        }
    });
    runtime.shutdown_background();
    result
}

impl BenchArgs {
    fn measure(&self) -> Result<ExitCode, String> {
        let machine = Machine::here("bench");
        let operator = self.operator.clone().map_or_else(machine::build_operator, Ok)?;
        let scratch = BenchDirectory::new()?;
        let report = self.run(&self.plan(operator, &scratch), machine)?;
        let text = match self.output {
            BenchOutput::Text => report.text(),
            BenchOutput::Json => serde_json::to_string(&report).map_err(|error| error.to_string())? + "\n",
        };
        anstream::stdout().write_all(text.as_bytes()).map_err(|error| error.to_string())?;
        let missed = report.targets.iter().any(|target| !target.met);
        Ok(if self.targets && missed { ExitCode::from(2) } else { ExitCode::SUCCESS })
    }

    fn plan(&self, operator: PathBuf, scratch: &BenchDirectory) -> Plan {
        let directory = scratch.path().to_owned();
        if self.quick {
            return Plan {
                operator,
                directory,
                consul: self.consul.clone(),
                bursts: vec![100],
                tagged_burst: 100,
                streams: vec![Stream { by_tag: false, clusters: 2, per_second: 100 }],
                steady: Duration::from_secs(3),
                start: (200, 5),
                idle_tasks: vec![0, 100],
                idle: Duration::from_secs(2),
                settle: Duration::from_secs(1),
                default_shares: false,
            };
        }
        Plan {
            operator,
            directory,
            consul: self.consul.clone(),
            bursts: self.bursts.clone(),
            tagged_burst: 1_000,
            streams: vec![
                Stream { by_tag: false, clusters: 1, per_second: 1_000 },
                Stream { by_tag: false, clusters: 10, per_second: 1_000 },
                Stream { by_tag: true, clusters: 1, per_second: 1_000 },
                Stream { by_tag: false, clusters: 1, per_second: 2_000 },
            ],
            steady: Duration::from_secs(30),
            start: (10_000, 400),
            idle_tasks: self.idle_tasks.clone(),
            idle: self.idle,
            settle: Duration::from_secs(10),
            default_shares: self.default_shares,
        }
    }

    fn run(&self, plan: &Plan, machine: Machine) -> Result<BenchReport, String> {
        let wanted = |phase| self.only.is_empty() || self.only.contains(&phase);
        let (mut bursts, mut steady, mut starts, mut idle) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        if wanted(BenchPhase::Burst) {
            for events in &plan.bursts {
                progress(&format!("{events} events at once …"));
                bursts.push(plan.burst(*events, false)?);
            }
            progress(&format!("{} events at once, selected by ECS tag …", plan.tagged_burst));
            bursts.push(plan.burst(plan.tagged_burst, true)?);
        }
        if wanted(BenchPhase::Steady) {
            for stream in &plan.streams {
                let Stream { clusters, per_second, .. } = stream;
                progress(&format!(
                    "{per_second} events a second of {clusters} clusters for {:?} …",
                    plan.steady
                ));
                steady.push(plan.steady(*stream)?);
            }
        }
        if wanted(BenchPhase::Start) {
            progress(&format!("starts with {} tasks and {} roles …", plan.start.0, plan.start.1));
            starts.extend(plan.starts()?);
        }
        let mut takeovers = Vec::new();
        if wanted(BenchPhase::Takeover) {
            progress(&format!("a takeover with {} tasks and {} roles …", plan.start.0, plan.start.1));
            takeovers.push(plan.takeover()?);
        }
        let mut lease_windows = Vec::new();
        if wanted(BenchPhase::LeaseWindow) {
            let writes = if self.quick { 200 } else { 20_000 };
            progress(&format!("{writes} writes of each kind and the lease …"));
            lease_windows = lease_window::measure(writes, 64)?;
        }
        let mut readers = Vec::new();
        if wanted(BenchPhase::Readers) {
            let count = if self.quick { 10 } else { 100 };
            progress(&format!("{count} readers of the API with {} tasks …", plan.start.0));
            readers.push(plan.readers(count)?);
        }
        if wanted(BenchPhase::Idle) {
            for tasks in &plan.idle_tasks {
                progress(&format!("{tasks} idle tasks for {:?} …", plan.idle));
                idle.push(plan.idle(*tasks)?);
            }
        }
        let identities =
            if wanted(BenchPhase::Consul) { self.identities(plan)? } else { IdentityResults::default() };
        let report = BenchReport {
            machine,
            bursts,
            steady,
            starts,
            takeovers,
            lease_windows,
            readers,
            idle,
            identities,
            targets: Vec::new(),
        };
        Ok(if self.quick { report } else { report.judged() })
    }
}

impl BenchArgs {
    fn identities(&self, plan: &Plan) -> Result<IdentityResults, String> {
        if self.consul.is_none() {
            progress("Consul phases skipped: --consul is not set");
            return Ok(IdentityResults::default());
        }
        let (many, half, rate) = if self.quick { (40, 20, 5) } else { (1_000, 1_000, 10) };
        progress(&format!("{many} tasks with Consul, {rate} stopped a second for {:?} …", plan.steady));
        let gradual_stops = Some(plan.gradual_stops(many, rate)?);
        progress(&format!("{} tasks with Consul, {half} stopped at once …", 2 * half));
        let mass_stop = Some(plan.mass_stop(2 * half, half)?);
        let mut idle = Vec::new();
        for tasks in plan.idle_tasks.iter().filter(|tasks| **tasks > 0) {
            progress(&format!("{tasks} idle tasks with Consul for {:?} …", plan.idle));
            idle.push(plan.idle_with_identities(*tasks)?);
        }
        Ok(IdentityResults { gradual_stops, mass_stop, idle })
    }
}

/// Prints progress for people.
fn progress(what: &str) {
    // The reader may have closed the stream.
    let _ = writeln!(anstream::stderr(), "{what}");
}
