//! The command line: one file a subcommand; parses, wires, exits. Exit code 0: done; 1: it failed; 2: wrong usage,
//! or (doctor) something to look at.

mod doctor;
mod run;
mod sandbox;
mod setup;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::telemetry::log::{self, LogFormat};

/// Keeps service meshes on Amazon ECS right: Dataplanes, outbounds and identities follow the tasks.
#[derive(Parser)]
#[command(name = "ecs-mesh-operator", version, about, max_term_width = 100)]
struct Cli {
    /// What to log: a level (error, warn, info, debug, trace), or filters such as `info,ecs_mesh_operator=debug`
    /// [default: info; doctor: error; sandbox: warnings without the audit trail].
    #[arg(long, global = true, env = "ECS_MESH_LOG")]
    log: Option<String>,

    /// How to log: `auto` is text on a terminal and JSON elsewhere.
    #[arg(long, global = true, env = "ECS_MESH_LOG_FORMAT", default_value = "auto")]
    log_format: LogFormat,

    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the operator: hear task changes, keep the control planes right, until SIGTERM or SIGINT.
    Run(run::Args),
    /// Check a set-up and say what is missing; or print the policy and the rules that it needs.
    Doctor(doctor::Args),
    /// Try it without AWS: an AWS, a Kuma control plane and a living world, in this one process on loopback.
    Sandbox(sandbox::Args),
}

/// Runs the program.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    // The SDK and reqwest share this one TLS provider. An error means that one is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let logging = match (&cli.command, cli.log.as_deref()) {
        (Command::Sandbox(_), None) => log::init_beside_a_show(),
        // What it finds is in its report; a log beside it would say it twice.
        (Command::Doctor(_), None) => log::init(cli.log_format, "error"),
        (_, filter) => log::init(cli.log_format, filter.unwrap_or("info")),
    };
    if let Err(error) = logging {
        return failed(&error);
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&format!("the async runtime cannot start: {error}")),
    };
    let result = runtime.block_on(async {
        match cli.command {
            Command::Run(args) => args.run().await.map(|()| ExitCode::SUCCESS),
            Command::Doctor(args) => args.run().await,
            Command::Sandbox(args) => args.run().await,
        }
    });
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    result.unwrap_or_else(|error| failed(&error))
}

fn failed(error: &dyn std::fmt::Display) -> ExitCode {
    use std::io::Write as _;
    // Nothing can be done when even that fails.
    let _ = writeln!(std::io::stderr(), "error: {error}");
    ExitCode::FAILURE
}

/// Reads a duration such as `30s` from an argument.
fn duration(text: &str) -> Result<std::time::Duration, String> {
    crate::api::HumanDuration::parse(text).map(|duration| duration.0)
}
