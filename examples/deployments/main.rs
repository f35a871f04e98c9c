//! Deployments with real sidecars: counts the requests that fail while the tasks of a service are replaced, with the
//! operator and without.
//!
//! `cargo run --example deployments`, with kuma-cp, kuma-dp and Envoy named by environment variables. ECS is the sandbox's,
//! in real time; control plane, sidecars and requests are real. `docs/benchmarks.md` describes the measurement.
//!
//! Everything runs in namespaces of its own (network, processes, mounts), so the kernel removes all of it when the program
//! ends, however it ends.
#![allow(unreachable_pub)] // nothing here is a library

mod app;
mod client;
mod ecs;
mod isolation;
#[path = "../bench/machine.rs"]
mod machine;
mod mesh;
mod network;
mod process;
mod programs;
mod report;
mod row;
mod run;
mod tasks;
mod timeline;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use crate::machine::Machine;
use crate::programs::Programs;
use crate::report::{DeploymentReport, RowResult};
use crate::row::{Reaction, Row, RowTimes};
use crate::run::MeshRun;

/// Count the requests that fail while tasks with real sidecars are replaced. Needs root.
///
/// Exit code 2: a program is missing. 3: the operator lost a request (with --targets).
#[derive(Clone, Debug, Parser)]
#[command(name = "deployments", max_term_width = 100)]
struct DeploymentArgs {
    /// Run only these rows
    #[arg(long, value_enum, num_args = 1..)]
    rows: Vec<Row>,

    /// Run only these columns
    #[arg(long, value_enum, num_args = 1..)]
    columns: Vec<Reaction>,

    #[command(flatten)]
    times: RowTimes,

    /// Requests a second through the mesh
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    rate: u32,

    /// Directory for logs, Dataplane states over time and failed requests; created, kept [default: not written]
    #[arg(long)]
    logs: Option<PathBuf>,

    /// Exit with 3 if the operator lost a request
    #[arg(long)]
    targets: bool,

    #[command(subcommand)]
    role: Option<ProcessRole>,
}

/// Roles in which this program starts itself.
#[derive(Clone, Debug, clap::Subcommand)]
enum ProcessRole {
    /// The app of a task.
    #[command(hide = true)]
    App {
        #[arg(long)]
        port: u16,
        /// How long it serves after SIGTERM.
        #[arg(long, value_parser = row::duration)]
        serve: Duration,
    },
    /// The client, which reports each request on standard output.
    #[command(hide = true)]
    Client {
        #[arg(long)]
        url: String,
        #[arg(long)]
        rate: u32,
    },
}

fn main() -> ExitCode {
    let args = DeploymentArgs::parse();
    // An error means that a provider is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let done = match &args.role {
        None => isolation::directory().map_or_else(isolate, |directory| args.measure(&directory)),
        Some(ProcessRole::App { port, serve }) => app::run(*port, *serve).map(|()| ExitCode::SUCCESS),
        Some(ProcessRole::Client { url, rate }) => client::run(url, *rate).map(|()| ExitCode::SUCCESS),
    };
    done.unwrap_or_else(|error| {
        // No further report is possible.
        let _ = writeln!(std::io::stderr(), "error: {error}");
        ExitCode::FAILURE
    })
}

/// Checks the programs, and starts the measurement in namespaces of its own.
fn isolate() -> Result<ExitCode, String> {
    let programs = match Programs::from_environment() {
        Ok(programs) => programs,
        Err(error) => {
            // No further report is possible.
            let _ = writeln!(std::io::stderr(), "error: {error}");
            return Ok(ExitCode::from(2));
        }
    };
    let programs = programs.with_operator(machine::build_operator)?;
    isolation::run(&programs)
}

impl DeploymentArgs {
    /// Runs the table in this process's namespaces, and prints it.
    fn measure(&self, directory: &Path) -> Result<ExitCode, String> {
        isolation::end_with_parent();
        let programs = Programs::from_environment()?.with_operator(machine::build_operator)?;
        let mut report = DeploymentReport {
            machine: Machine::here("deployments"),
            software: programs.versions(),
            times: self.times.clone(),
            rate: self.rate,
            rows: Vec::new(),
        };
        network::create_bridge()?;
        for row in self.selected_rows() {
            let mut result = RowResult { row, with_operator: None, without: None };
            for column in self.selected_columns() {
                progress(&format!("{}, {} …", row.label(&self.times), column.label()));
                let name = format!("{}-{}", row.name(), column.name());
                let run_directory = self.logs.as_deref().unwrap_or(directory).join(name);
                let outcome = MeshRun::start(&programs, column, row, self, &run_directory)?.measure()?;
                progress(&format!("  {}", outcome.summary()));
                match column {
                    Reaction::Operator => result.with_operator = Some(outcome),
                    Reaction::Without => result.without = Some(outcome),
                }
            }
            report.rows.push(result);
        }
        anstream::stdout().write_all(report.text().as_bytes()).map_err(|error| error.to_string())?;
        let lost = report.rows.iter().any(RowResult::has_lost_with_operator);
        Ok(if self.targets && lost { ExitCode::from(3) } else { ExitCode::SUCCESS })
    }

    fn selected_rows(&self) -> Vec<Row> {
        if self.rows.is_empty() { Row::ALL.to_vec() } else { self.rows.clone() }
    }

    fn selected_columns(&self) -> Vec<Reaction> {
        if self.columns.is_empty() {
            vec![Reaction::Operator, Reaction::Without]
        } else {
            self.columns.clone()
        }
    }
}

/// Prints progress for people.
fn progress(what: &str) {
    // The reader may have closed the stream.
    let _ = writeln!(anstream::stderr(), "{what}");
}
