//! Compares the flags of the command line with docs/reference/cli.md.

use std::collections::{BTreeMap, BTreeSet};

use clap::{Arg, Command, CommandFactory as _};

use super::Cli;

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
    let cli = Cli::command();
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
