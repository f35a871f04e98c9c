//! Compares the flags of the command line with docs/reference/cli.md, and their variables with docs/reference/environment.md,
//! which `UPDATE_GOLDEN=1 cargo test --lib reference` renews.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use clap::{Arg, Command};

use super::variables::command;

/// The section of the flags that every command has.
const GLOBAL_SECTION: &str = "Everywhere";

type FlagsByCommand = BTreeMap<String, BTreeSet<String>>;

/// `--flag`, or the name of a positional argument.
fn name(arg: &Arg) -> String {
    match arg.get_long() {
        Some(long) => format!("--{long}"),
        None => arg.get_value_names().and_then(|names| names.first()).unwrap().to_string(),
    }
}

fn flags_of(command: &Command) -> BTreeSet<String> {
    command.get_arguments().filter(|arg| !arg.is_hide_set()).map(name).collect()
}

fn actual() -> FlagsByCommand {
    let cli = command();
    let of_commands = cli.get_subcommands().map(|one| (one.get_name().to_owned(), flags_of(one)));
    of_commands.chain([(GLOBAL_SECTION.to_owned(), flags_of(&cli))]).collect()
}

/// The flags in the first columns of the tables, by section. `…` marks repeatable arguments.
fn documented() -> FlagsByCommand {
    let text = include_str!("../../docs/reference/cli.md");
    let mut found = FlagsByCommand::new();
    for section in text.split("\n## ").skip(1) {
        let (title, body) = section.split_once('\n').unwrap();
        let cells = body.lines().filter_map(|line| line.strip_prefix("| ")?.split('|').next());
        let spans = cells.flat_map(|cell| cell.split('`').skip(1).step_by(2));
        let names = spans.filter_map(|span| span.split([' ', '…']).next());
        let is_one = |name: &&str| name.starts_with("--") || name.bytes().all(|b| b.is_ascii_uppercase());
        let names: BTreeSet<String> = names.filter(is_one).map(str::to_owned).collect();
        if actual().contains_key(title) || !names.is_empty() {
            found.insert(title.to_owned(), names);
        }
    }
    found
}

#[test]
fn cli_reference_lists_exactly_all_flags() {
    assert_eq!(documented(), actual(), "docs/reference/cli.md (left) differs from the commands (right)");
}

const ENVIRONMENT_INTRODUCTION: &str = "# Environment variables

Every flag has an environment variable; a flag wins over its variable. The variables of the operator are `ECS_MESH_` and the \
flag's name, and mean the same for every command that has the flag. A flag that `run` does not have, and each flag of `sandbox`, has its \
command's name between the two; those that say where a running operator is are the same for each command. Switches take `true` or `false`; lists are separated by commas. [Command line](cli.md) tells what the flags \
mean.

";

/// The flags of each command with their variables, as Markdown.
fn environment_page() -> String {
    let mut page = ENVIRONMENT_INTRODUCTION.to_owned();
    let cli = command();
    let sections = std::iter::once(("every command", &cli))
        .chain(cli.get_subcommands().map(|one| (one.get_name(), one)));
    page.push_str("| command | flag | variable |\n|---|---|---|\n");
    for (name, command) in sections {
        for arg in command.get_arguments().filter(|arg| !arg.is_hide_set()) {
            if let (Some(flag), Some(variable)) = (arg.get_long(), arg.get_env()) {
                let _ = writeln!(page, "| {name} | `--{flag}` | `{}` |", variable.display());
            }
        }
    }
    page
}

#[test]
fn environment_reference_lists_the_variable_of_each_flag() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reference/environment.md");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, environment_page()).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap(), environment_page(), "UPDATE_GOLDEN=1 renews it");
}
