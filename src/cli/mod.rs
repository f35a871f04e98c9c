//! The command line: one file for each subcommand.
//!
//! Exit codes: 0: success, nothing to do; 1: failure, wrong usage included; 2: changes or warnings, or stale files for
//! `crds --check`; 141: the reader of standard output closed it.

// Docstrings of arguments are help texts, which a terminal prints as they are.
#![allow(clippy::doc_markdown)]

mod allow;
mod api_args;
mod api_client_args;
mod audit;
mod audit_text;
#[cfg(feature = "sandbox")]
mod broken_pipe;
mod changes;
mod common;
mod completion;
mod crds;
mod describe;
mod doctor;
mod doctor_text;
#[cfg(test)]
#[cfg(feature = "sandbox")]
mod documented_commands;
mod explain;
mod get;
mod healthcheck;
mod import;
mod import_consul;
mod import_text;
mod lease;
mod man;
mod manifest_args;
mod once;
mod output;
mod plan;
#[cfg(test)]
#[cfg(feature = "sandbox")]
mod reference;
mod run;
#[cfg(feature = "sandbox")]
mod sandbox;
mod status;
mod team_events;
mod validate;
mod variables;

use std::io::Write as _;
use std::process::ExitCode;

use clap::{FromArgMatches as _, Parser, Subcommand};

use crate::telemetry::log::{self, LogFormat};
use crate::terminal;

/// Register ECS tasks with Kuma, Kong Mesh or Consul and keep the registrations in sync
#[derive(Parser)]
#[command(name = "ecs-mesh-operator", version = crate::VERSION, about, max_term_width = 100)]
struct Cli {
    /// Log level (error, warn, info, debug, trace) or filters such as `info,ecs_mesh=debug`
    /// [default: info; audit, changes, describe, doctor, explain, get, import, plan, status: error; sandbox: warn]
    #[arg(long, global = true, env = "ECS_MESH_LOG")]
    log: Option<String>,

    /// Log format: `text`, `json`, or `auto` (text on a terminal, else JSON)
    #[arg(long, global = true, env = "ECS_MESH_LOG_FORMAT", default_value = "auto")]
    log_format: LogFormat,

    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the operator: watch ECS task changes and reconcile control planes until SIGTERM or SIGINT
    Run(Box<run::RunArgs>),
    /// Show what a run would change (writes nothing)
    Plan(plan::PlanArgs),
    /// Show the state of a running operator
    Status(status::StatusArgs),
    /// Show objects of a running operator: tasks, services, bindings, identities, outbounds, warnings or changes
    Get(Box<get::GetArgs>),
    /// Show everything about single objects of a running operator, with their changes and warnings as events
    Describe(describe::DescribeArgs),
    /// Show what an operator changed: from a running operator, or from its log
    Changes(Box<changes::ChangesArgs>),
    /// Explain a task or a service, and why it is so: from a running operator, or by a plan (writes nothing)
    Explain(Box<explain::ExplainArgs>),
    /// Check the health of a running operator; for a container health check
    Healthcheck(healthcheck::HealthcheckArgs),
    /// Check permissions, queue, event rules and control planes; or print the required policies
    Doctor(doctor::DoctorArgs),
    /// Find misconfigurations that would make Kuma or Consul on ECS fail
    Audit(audit::AuditArgs),
    /// Run a self-contained demo: emulated AWS, Kuma and Consul with simulated services, in one process
    #[cfg(feature = "sandbox")]
    Sandbox(sandbox::SandboxArgs),
    /// Write CustomResourceDefinitions and a JSON Schema for the manifests
    Crds(crds::CrdsArgs),
    /// Validate manifests
    Validate(validate::ValidateArgs),
    /// Make manifests of what other tools declare, and report what has no counterpart
    Import(import::ImportArgs),
    /// Print a script that completes commands and flags in a shell
    Completion(completion::CompletionArgs),
    /// Print the manual page
    #[command(hide = true)]
    Man(man::ManArgs),
}

impl Command {
    /// The findings of these commands are in their output; a log would repeat them.
    fn reports_itself(&self) -> bool {
        matches!(
            self,
            Self::Plan(_)
                | Self::Explain(_)
                | Self::Doctor(_)
                | Self::Audit(_)
                | Self::Status(_)
                | Self::Get(_)
                | Self::Describe(_)
                | Self::Changes(_)
                | Self::Import(_)
        )
    }
}

/// Runs the program.
pub fn main() -> ExitCode {
    let parsed = variables::command().try_get_matches();
    let cli = match parsed.and_then(|found| Cli::from_arg_matches(&found)) {
        Ok(cli) => cli,
        Err(error) => {
            // A failure to print cannot be reported.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
        }
    };
    // The SDK and reqwest share this TLS provider. An error means that a provider is already installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
    // A service's log ends in its own format; a person's command ends in plain words, unless a format is asked for.
    let fatal_format = match (&cli.command, cli.log_format) {
        (Command::Run(_), format) => Some(format.resolve()),
        (_, LogFormat::Auto) => None,
        (_, format) => Some(format),
    };
    let logging = match (&cli.command, cli.log.as_deref().filter(|filter| !filter.is_empty())) {
        #[cfg(feature = "sandbox")]
        (Command::Sandbox(_), None) => log::init_for_demo(),
        (command, None) if command.reports_itself() => {
            log::init(cli.log_format, "error,ecs_mesh_manifests=off")
        }
        (_, filter) => log::init(cli.log_format, filter.unwrap_or("info")),
    };
    let log = match logging {
        Ok(log) => log,
        Err(error) => {
            // A failure to print cannot be reported.
            let _ = writeln!(std::io::stderr(), "{}", error_line(&error, fatal_format));
            return ExitCode::FAILURE;
        }
    };
    let fail = |error: String| {
        log.print(&error_line(&error, fatal_format));
        ExitCode::FAILURE
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(format!("starting the async runtime: {error}")),
    };
    let result = runtime.block_on(async {
        match cli.command {
            Command::Run(args) => Box::pin(args.run(log.stats())).await,
            Command::Plan(args) => args.run().await,
            Command::Status(args) => args.run().await,
            Command::Get(args) => args.run().await,
            Command::Describe(args) => args.run().await,
            Command::Changes(args) => args.run().await,
            Command::Explain(args) => Box::pin(args.run()).await,
            Command::Healthcheck(args) => args.run().await,
            Command::Doctor(args) => Box::pin(args.run()).await,
            Command::Audit(args) => Box::pin(args.run()).await,
            #[cfg(feature = "sandbox")]
            Command::Sandbox(args) => Box::pin(args.run(log.stats())).await,
            Command::Crds(args) => args.run(),
            Command::Validate(args) => Box::pin(args.run()).await,
            Command::Import(args) => Box::pin(args.run()).await,
            Command::Completion(args) => args.run(),
            Command::Man(args) => args.run(),
        }
    });
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    result.unwrap_or_else(fail)
}

/// The error that ends the process: as a line of the log, or in plain words.
fn error_line(error: &dyn std::fmt::Display, format: Option<LogFormat>) -> String {
    match format {
        Some(format) => format.fatal_line(&error.to_string()),
        None => format!("error: {error}"),
    }
}

/// Parses a duration such as `30s`.
fn duration(text: &str) -> Result<std::time::Duration, String> {
    ecs_mesh_api::HumanDuration::parse(text).map(|duration| duration.0)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn arguments_refer_to_existing_arguments() {
        Cli::command().debug_assert();
    }

    #[test]
    fn version_names_the_commit() {
        let version = Cli::command().render_version();
        assert_eq!(version, format!("ecs-mesh-operator {} ({})\n", env!("CARGO_PKG_VERSION"), crate::COMMIT));
        assert!(!crate::COMMIT.is_empty());
    }

    #[test]
    fn help_of_audit_names_both_control_planes() {
        let cli = Cli::command();
        let about = cli.find_subcommand("audit").unwrap().get_about().unwrap().to_string();
        assert!(about.contains("Kuma") && about.contains("Consul"), "{about}");
    }

    #[test]
    fn help_texts_are_one_sentence_without_a_full_stop() {
        let cli = Cli::command();
        for command in std::iter::once(&cli).chain(cli.get_subcommands()) {
            let about = command.get_about().map(ToString::to_string);
            let arguments = command.get_arguments().filter_map(clap::Arg::get_help);
            for text in about.into_iter().chain(arguments.map(ToString::to_string)) {
                let is_short = text.len() <= 200 && !text.contains('\n') && !text.contains(". ");
                assert!(is_short && !text.ends_with('.'), "{}: {text}", command.get_name());
            }
        }
    }
}
