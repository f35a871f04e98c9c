//! The command line: one file a subcommand; parses, wires, exits. Exit code 0: done, all well; 1: it failed, wrong usage
//! included; 2: there is something to look at.

#[cfg(feature = "sandbox")]
mod audience;
mod audit;
mod crds;
mod doctor;
mod healthcheck;
mod output;
mod plan;
#[cfg(test)]
#[cfg(feature = "sandbox")]
mod reference;
mod run;
#[cfg(feature = "sandbox")]
mod sandbox;
mod common;
mod validate;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::telemetry::log::{self, LogFormat};

/// Keeps service meshes on Amazon ECS right: Dataplanes, outbounds and identities follow the tasks.
#[derive(Parser)]
#[command(name = "ecs-mesh-operator", version = crate::VERSION, about, max_term_width = 100)]
struct Cli {
    /// What to log: a level (error, warn, info, debug, trace), or filters such as `info,ecs_mesh=debug`
    /// [default: info; audit, doctor, plan: error; sandbox: warnings without the audit trail].
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
    Run(run::RunArgs),
    /// Show what a run would change, and why; writes nothing.
    Plan(plan::PlanArgs),
    /// Ask a running operator whether it makes progress, for a container's health check: exit code 0 or 1.
    Healthcheck(healthcheck::HealthcheckArgs),
    /// Check a set-up and say what is missing; or print the policy and the rules that it needs.
    Doctor(doctor::DoctorArgs),
    /// List what would fail, be refused or never work for Consul on ECS: in task definitions, roles, manifests and the
    /// control plane; before a deploy from files alone.
    Audit(audit::AuditArgs),
    /// Try it without AWS: an AWS, a Kuma control plane or a Consul, and a living world, in this one process on loopback.
    #[cfg(feature = "sandbox")]
    Sandbox(sandbox::SandboxArgs),
    /// Write the manifests' schemas: definitions for Kubernetes, and a JSON Schema for editors.
    Crds(crds::CrdsArgs),
    /// Check manifests as `run` would read them, and say all that is wrong; for hooks and pipelines.
    Validate(validate::ValidateArgs),
}

/// Runs the program.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Nothing can be done when even that fails.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
        }
    };
    // The SDK and reqwest share this one TLS provider. An error means that one is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let logging = match (&cli.command, cli.log.as_deref()) {
        #[cfg(feature = "sandbox")]
        (Command::Sandbox(_), None) => log::init_for_demo(),
        // What they find is in what they print; a log beside it would say it twice.
        (Command::Plan(_) | Command::Doctor(_) | Command::Audit(_), None) => {
            log::init(cli.log_format, "error,ecs_mesh_manifests=off")
        }
        (_, filter) => log::init(cli.log_format, filter.unwrap_or("info")),
    };
    if let Err(error) = logging {
        return print_error(&error);
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return print_error(&format!("the async runtime cannot start: {error}")),
    };
    let result = runtime.block_on(async {
        match cli.command {
            Command::Run(args) => args.run().await.map(|()| ExitCode::SUCCESS),
            Command::Plan(args) => args.run().await,
            Command::Healthcheck(args) => args.run().await,
            Command::Doctor(args) => args.run().await,
            Command::Audit(args) => args.run().await,
            #[cfg(feature = "sandbox")]
            Command::Sandbox(args) => Box::pin(args.run()).await,
            Command::Crds(args) => args.run(),
            Command::Validate(args) => args.run(),
        }
    });
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    result.unwrap_or_else(|error| print_error(&error))
}

fn print_error(error: &dyn std::fmt::Display) -> ExitCode {
    use std::io::Write as _;
    // Nothing can be done when even that fails.
    let _ = writeln!(std::io::stderr(), "error: {error}");
    ExitCode::FAILURE
}

/// Reads a duration such as `30s` from an argument.
fn duration(text: &str) -> Result<std::time::Duration, String> {
    ecs_mesh_api::HumanDuration::parse(text).map(|duration| duration.0)
}
