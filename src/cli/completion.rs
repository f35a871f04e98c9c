//! `ecs-mesh-operator completion`.

use std::process::ExitCode;

use clap_complete::Shell;

use super::output::print;
use super::variables::command;

/// Arguments of `completion`.
#[derive(clap::Args)]
pub(super) struct CompletionArgs {
    /// Shell to print the script for
    #[arg(value_enum, value_name = "SHELL")]
    shell: Shell,
}

impl CompletionArgs {
    pub(super) fn run(&self) -> Result<ExitCode, String> {
        print(&script(self.shell)?)?;
        Ok(ExitCode::SUCCESS)
    }
}

fn script(shell: Shell) -> Result<String, String> {
    let mut command = command();
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, name, &mut script);
    String::from_utf8(script).map_err(|error| format!("writing the script: {error}"))
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::*;

    #[test]
    fn script_completes_commands_and_flags_in_every_shell() {
        for shell in Shell::value_variants() {
            let script = script(*shell).unwrap();
            for word in ["validate", "retry-timeout", "print-iam-policy"] {
                assert!(script.contains(word), "{shell}: {word}");
            }
        }
    }
}
