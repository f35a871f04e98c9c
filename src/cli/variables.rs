//! Gives every flag an environment variable: `ECS_MESH_` and the flag's name, and for a flag that `run` does not have, the
//! command's name between the two, so that a variable of the operator's service means the same for each command.

use clap::{Arg, ArgAction, Command, CommandFactory as _};

use super::Cli;

const PREFIX: &str = "ECS_MESH_";
const OPERATOR: &str = "run";
/// Runs an operator of its own, which the variables of a deployment say nothing about.
const DEMO: &str = "sandbox";

/// The command line with a variable for every flag.
pub(super) fn command() -> Command {
    let cli = Cli::command();
    let of_run: Vec<String> =
        cli.find_subcommand(OPERATOR).into_iter().flat_map(Command::get_arguments).filter_map(long).collect();
    cli.mut_subcommands(|command| {
        let name = command.get_name().to_owned();
        command.mut_args(|arg| with_variable(arg, &name, &of_run))
    })
}

fn with_variable(arg: Arg, command: &str, of_run: &[String]) -> Arg {
    let Some(flag) = long(&arg) else { return arg };
    let is_action = matches!(
        arg.get_action(),
        ArgAction::Help | ArgAction::HelpShort | ArgAction::HelpLong | ArgAction::Version
    );
    if is_action || arg.is_hide_set() || arg.get_env().is_some() {
        return arg;
    }
    let is_shared = command != DEMO && of_run.contains(&flag);
    let scope = if is_shared { String::new() } else { format!("{command}_") };
    let variable = format!("{PREFIX}{scope}{flag}").replace('-', "_").to_ascii_uppercase();
    // A variable is one text, so a list in it needs a delimiter.
    let is_list = arg.get_num_args().is_some_and(|count| count.max_values() > 1);
    let arg = if is_list && arg.get_value_delimiter().is_none() { arg.value_delimiter(',') } else { arg };
    arg.env(variable)
}

fn long(arg: &Arg) -> Option<String> {
    arg.get_long().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use clap::FromArgMatches as _;

    use super::*;

    #[test]
    fn variable_is_that_of_the_operator_or_of_the_command() {
        let cli = command();
        let variable = |name: &str, flag: &str| {
            let command = cli.find_subcommand(name).unwrap();
            let arg = command.get_arguments().find(|arg| arg.get_long() == Some(flag)).unwrap();
            arg.get_env().map(|name| name.to_str().unwrap().to_owned())
        };
        for (name, flag, expected) in [
            ("run", "dry-run", "ECS_MESH_DRY_RUN"),
            ("run", "queue-url", "ECS_MESH_QUEUE_URL"),
            ("run", "region", "ECS_MESH_REGION"),
            ("plan", "role-reads-per-second", "ECS_MESH_ROLE_READS_PER_SECOND"),
            ("plan", "timeout", "ECS_MESH_PLAN_TIMEOUT"),
            ("sandbox", "metrics-address", "ECS_MESH_SANDBOX_METRICS_ADDRESS"),
            ("validate", "deny-warnings", "ECS_MESH_VALIDATE_DENY_WARNINGS"),
        ] {
            assert_eq!(variable(name, flag).as_deref(), Some(expected), "{name} --{flag}");
        }
    }

    #[test]
    fn every_flag_has_a_variable_of_its_own() {
        for command in command().get_subcommands() {
            let mut seen = std::collections::BTreeSet::new();
            for arg in command.get_arguments().filter(|arg| arg.get_long().is_some() && !arg.is_hide_set()) {
                let id = arg.get_id();
                if ["help", "version"].contains(&id.as_str()) {
                    continue;
                }
                let variable = arg.get_env().unwrap_or_else(|| panic!("{} --{id}", command.get_name()));
                assert!(seen.insert(variable.to_owned()), "{} --{id}: {variable:?}", command.get_name());
            }
        }
    }

    #[test]
    fn command_line_still_parses() {
        let found = command().try_get_matches_from(["ecs-mesh-operator", "validate", "a.yaml"]).unwrap();
        assert!(Cli::from_arg_matches(&found).is_ok());
        command().debug_assert();
    }
}
