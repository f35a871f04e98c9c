//! The reference of the command line has every flag that there is, under its command, and no other.

use std::collections::{BTreeMap, BTreeSet};

use clap::{Arg, Command, CommandFactory as _};

use super::Cli;

/// The section for flags of every command.
const GLOBAL_SECTION: &str = "Everywhere";

type FlagsByCommand = BTreeMap<String, BTreeSet<String>>;

/// As it is written: `--flag`, or the name of what stands without one.
fn name(arg: &Arg) -> String {
    match arg.get_long() {
        Some(long) => format!("--{long}"),
        None => arg.get_value_names().and_then(|names| names.first()).unwrap().to_string(),
    }
}

fn flags_of(command: &Command) -> BTreeSet<String> {
    command.get_arguments().filter(|arg| !arg.is_hide_set()).map(name).collect()
}

fn known() -> FlagsByCommand {
    let cli = Cli::command();
    let of_commands = cli.get_subcommands().map(|one| (one.get_name().to_owned(), flags_of(one)));
    of_commands.chain([(GLOBAL_SECTION.to_owned(), flags_of(&cli))]).collect()
}

/// What the first columns of the tables name, by section. `…` says that several may follow.
fn written() -> FlagsByCommand {
    let text = include_str!("../../docs/reference/cli.md");
    let mut found = FlagsByCommand::new();
    for section in text.split("\n## ").skip(1) {
        let (title, body) = section.split_once('\n').unwrap();
        let cells = body.lines().filter_map(|line| line.strip_prefix("| ")?.split('|').next());
        let spans = cells.flat_map(|cell| cell.split('`').skip(1).step_by(2));
        let names = spans.filter_map(|span| span.split([' ', '…']).next());
        let is_one = |name: &&str| name.starts_with("--") || name.bytes().all(|b| b.is_ascii_uppercase());
        let names: BTreeSet<String> = names.filter(is_one).map(str::to_owned).collect();
        if known().contains_key(title) || !names.is_empty() {
            found.insert(title.to_owned(), names);
        }
    }
    found
}

#[test]
fn cli_reference_lists_exactly_all_flags() {
    assert_eq!(written(), known(), "docs/reference/cli.md (left) is not what the commands take (right)");
}
