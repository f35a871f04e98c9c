//! The width of the terminal, and paragraphs that fit it.

use std::collections::BTreeSet;
use std::io::IsTerminal as _;

use terminal_size::{Width, terminal_size_of};
use textwrap::{Options, WordSplitter};

/// The width of output that goes to no terminal, such as a file or a pager.
const DEFAULT_WIDTH: usize = 110;

/// The narrowest width that reports are wrapped to: below it, rows would hold a word or two.
const MIN_WIDTH: usize = 60;

/// Programs of commands in fixes. A command is printed as one line, so that it can be copied.
const PROGRAMS: [&str; 5] = ["aws", "consul", "ecs-mesh-operator", "kumactl", "curl"];

/// The width of standard output: `COLUMNS`, else that of the terminal.
pub(crate) fn width() -> usize {
    let columns = std::env::var("COLUMNS").ok();
    let terminal = terminal_size_of(std::io::stdout()).map(|(Width(width), _)| usize::from(width));
    choose_width(columns.as_deref(), terminal)
}

/// The longest line of a table: the width of the terminal. A pipe has none, since programs need whole values.
pub(crate) fn line_limit() -> Option<usize> {
    std::io::stdout().is_terminal().then(width)
}

fn choose_width(columns: Option<&str>, terminal: Option<usize>) -> usize {
    let columns = columns.and_then(|text| text.trim().parse::<usize>().ok()).filter(|width| *width > 0);
    columns.or(terminal).filter(|width| *width > 0).unwrap_or(DEFAULT_WIDTH).max(MIN_WIDTH)
}

/// The text after a label, wrapped to the width and indented below its own start, with a final newline. Words are never
/// broken, so that ARNs and commands can be copied.
pub(crate) fn paragraph(label: &str, text: &str, width: usize) -> String {
    let first_word = text.split_whitespace().next().unwrap_or_default();
    if PROGRAMS.contains(&first_word) {
        return format!("{label}{text}\n");
    }
    let indent = " ".repeat(textwrap::core::display_width(label));
    let options = Options::new(width)
        .initial_indent(label)
        .subsequent_indent(&indent)
        .break_words(false)
        .word_splitter(WordSplitter::NoHyphenation);
    textwrap::fill(text, options) + "\n"
}

/// Distinct values in the order in which they first occur.
pub(crate) fn distinct<'a, T: Ord + ?Sized>(values: impl IntoIterator<Item = &'a T>) -> Vec<&'a T> {
    let mut seen = BTreeSet::new();
    values.into_iter().filter(|value| seen.insert(*value)).collect()
}

/// `1 error` or `2 errors`.
pub(crate) fn count(number: usize, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_outrank_the_terminal() {
        for (columns, terminal, width) in [
            (Some("132"), Some(80), 132),
            (Some("0"), Some(80), 80),
            (Some("wide"), Some(80), 80),
            (None, Some(200), 200),
            (None, Some(20), MIN_WIDTH),
            (None, None, DEFAULT_WIDTH),
        ] {
            assert_eq!(choose_width(columns, terminal), width, "{columns:?} {terminal:?}");
        }
    }

    #[test]
    fn paragraph_breaks_no_word_and_no_command() {
        let arn = "arn:aws:ecs:eu-west-1:111122223333:task-definition/a-long-name-of-a-family:17";
        let text = paragraph("  at: ", &format!("the task definition {arn} is not readable"), 60);
        assert_eq!(text, format!("  at: the task definition\n      {arn}\n      is not readable\n"));
        let command = format!("aws ecs describe-task-definition --task-definition {arn}");
        assert_eq!(paragraph("fix: ", &command, 60), format!("fix: {command}\n"));
    }
}
