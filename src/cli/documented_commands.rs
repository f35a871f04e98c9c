//! Parses each command line of the program in the Markdown files: a reader copies it, so its command, flags and values exist.

use std::path::{Path, PathBuf};

use clap::error::ErrorKind;

use super::variables::command;

/// A command line of a page.
struct DocumentedCommand {
    page: PathBuf,
    line: usize,
    words: Vec<String>,
    /// Whether it is all that a reader types; a code span in prose, or a line with `…`, may lack required arguments.
    complete: bool,
}

/// The program as pages call it.
const PROGRAMS: [&str; 3] =
    ["ecs-mesh-operator", "target/release/ecs-mesh-operator", "cargo run --locked --"];

/// The words of a command line up to its end: an operator of the shell, a comment, or the line's. Quotes are removed.
fn words(text: &str) -> Vec<String> {
    let (mut words, mut word, mut started, mut quote) = (Vec::new(), String::new(), false, None);
    for char in text.chars() {
        match quote {
            Some(end) if char == end => quote = None,
            Some(_) => word.push(char),
            None if matches!(char, '\'' | '"') => (quote, started) = (Some(char), true),
            None if matches!(char, '|' | '>' | '<' | ';' | '&' | ')') => break,
            None if char == '#' && word.is_empty() => break,
            None if char.is_whitespace() => {
                if started || !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                started = false;
            }
            None => word.push(char),
        }
    }
    if started || !word.is_empty() {
        words.push(word);
    }
    words
}

/// The command lines in a text of the shell: where a command begins, since others take the program's name as a value.
fn in_text(text: &str, complete: bool) -> impl Iterator<Item = (Vec<String>, bool)> {
    PROGRAMS.into_iter().flat_map(move |program| {
        text.match_indices(program).filter_map(move |(at, _)| {
            let rest = text[at + program.len()..].strip_prefix(' ')?;
            let begins =
                text[..at].trim_end().chars().next_back().is_none_or(|before| "$|;&(".contains(before));
            let found = words(rest);
            let named = found
                .first()
                .is_some_and(|word| word.starts_with(|c: char| c.is_ascii_lowercase() || c == '-'));
            let given: Vec<String> = found.iter().filter(|word| !word.contains('…')).cloned().collect();
            (begins && named).then(|| (given.clone(), complete && given.len() == found.len()))
        })
    })
}

/// All command lines of a page: those of its blocks, with their continuations, and those of its code spans.
fn in_page(page: &Path, text: &str) -> Vec<DocumentedCommand> {
    let mut found = Vec::new();
    let mut add = |line: usize, text: &str, complete: bool| {
        let of = |(words, complete)| DocumentedCommand { page: page.to_owned(), line, words, complete };
        found.extend(in_text(text, complete).map(of));
    };
    let (mut block, mut continued): (Option<bool>, String) = (None, String::new());
    for (index, line) in text.lines().enumerate() {
        if let Some(language) = line.trim_start().strip_prefix("```") {
            block = if block.is_some() {
                None
            } else {
                Some(["sh", "bash", "console", "text"].contains(&language))
            };
            continue;
        }
        match block {
            Some(true) => {
                continued.push_str(line.trim_end().trim_end_matches('\\'));
                if !line.trim_end().ends_with('\\') {
                    add(index + 1, &std::mem::take(&mut continued), true);
                }
            }
            Some(false) => {}
            None => line.split('`').skip(1).step_by(2).for_each(|span| add(index + 1, span, false)),
        }
    }
    found
}

fn pages() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut directories: Vec<PathBuf> = ["docs", "deploy", "examples"].map(|name| root.join(name)).into();
    let mut pages: Vec<PathBuf> =
        ["README.md", "CONTRIBUTING.md", "SECURITY.md"].map(|name| root.join(name)).into();
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_dir() {
                directories.push(entry.path());
            } else if entry.path().extension().is_some_and(|extension| extension == "md") {
                pages.push(entry.path());
            }
        }
    }
    pages.sort();
    pages
}

/// Clap's refusal of a command line, if any.
fn refusal(documented: &DocumentedCommand) -> Option<String> {
    // A reader puts a value of their own where the page has a variable.
    let words = documented.words.iter().map(|word| word.replace('$', ""));
    let error =
        command().try_get_matches_from(std::iter::once("ecs-mesh-operator".to_owned()).chain(words)).err()?;
    let is_shown = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    let is_partial = !documented.complete && error.kind() == ErrorKind::MissingRequiredArgument;
    (!is_shown && !is_partial).then(|| error.to_string().lines().next().unwrap_or_default().to_owned())
}

#[test]
fn every_documented_command_line_parses() {
    let found: Vec<DocumentedCommand> =
        pages().iter().flat_map(|page| in_page(page, &std::fs::read_to_string(page).unwrap())).collect();
    assert!(
        found.iter().filter(|one| one.complete).count() > 40,
        "the search finds the command lines of the pages"
    );
    let refused: Vec<String> = found
        .iter()
        .filter_map(|one| {
            let place = format!("{}:{}", one.page.display(), one.line);
            Some(format!("{place}: {}: {}", one.words.join(" "), refusal(one)?))
        })
        .collect();
    assert!(refused.is_empty(), "{}", refused.join("\n"));
}

#[test]
fn documented_command_lines_are_found_and_judged() {
    let page = "Run `ecs-mesh-operator plan`, or `ecs-mesh-operator plann`; `ecs-mesh-operator: no command`.\n\
        ```sh\nx | ecs-mesh-operator validate - 'a b' # why\nx ecs-mesh-operator --y\n$ target/release/ecs-mesh-operator healthcheck \\\n    --redy > y\n\
        ecs-mesh-operator run …\necs-mesh-operator run\ncargo run --locked -- sandbox\n```\n\
        ```yaml\necs-mesh-operator nothing\n```\n";
    let judged: Vec<(usize, String, bool)> = in_page(Path::new("x"), page)
        .iter()
        .map(|one| (one.line, one.words.join(" "), refusal(one).is_none()))
        .collect();
    let expected = [
        (1, "plan", true),
        (1, "plann", false),
        (3, "validate - a b", true),
        (6, "healthcheck --redy", false),
        (7, "run", true),
        (8, "run", false),
        (9, "sandbox", true),
    ];
    assert_eq!(judged, expected.map(|(line, words, good)| (line, words.to_owned(), good)));
}
