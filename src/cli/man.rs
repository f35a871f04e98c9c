//! `ecs-mesh-operator man`.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use clap_mangen::Man;

use super::output::print;
use super::variables::command;

/// Arguments of `man`.
#[derive(clap::Args)]
pub(super) struct ManArgs {
    /// Write a page for each command into this directory instead of printing the program's
    #[arg(long, value_name = "DIR")]
    output_dir: Option<PathBuf>,
}

impl ManArgs {
    pub(super) fn run(&self) -> Result<ExitCode, String> {
        let Some(directory) = &self.output_dir else {
            return print(&page(command())?).map(|()| ExitCode::SUCCESS);
        };
        let failed = |error: std::io::Error| format!("writing pages to {}: {error}", directory.display());
        fs::create_dir_all(directory).map_err(failed)?;
        clap_mangen::generate_to(command().disable_help_subcommand(true), directory).map_err(failed)?;
        Ok(ExitCode::SUCCESS)
    }
}

fn page(command: clap::Command) -> Result<String, String> {
    let mut page = Vec::new();
    Man::new(command).render(&mut page).map_err(|error| format!("writing the page: {error}"))?;
    String::from_utf8(page).map_err(|error| format!("writing the page: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_names_commands_and_flags() {
        let page = page(command()).unwrap();
        assert!(page.contains(".TH ecs-mesh-operator"), "{page}");
        for word in [r"validate", r"\-\-log\-format"] {
            assert!(page.contains(word), "{word}: {page}");
        }
    }

    #[test]
    fn each_command_has_a_page_in_the_directory() {
        let directory = tempfile::tempdir().unwrap();
        ManArgs { output_dir: Some(directory.path().join("man1")) }.run().unwrap();
        for command in command().get_subcommands().filter(|one| !one.is_hide_set()) {
            let file = directory.path().join(format!("man1/ecs-mesh-operator-{}.1", command.get_name()));
            let page =
                fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
            assert!(page.contains(".SH OPTIONS"), "{}", command.get_name());
        }
    }
}
