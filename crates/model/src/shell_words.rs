//! The words of a shell's command line.

use std::iter::Peekable;
use std::str::Chars;

/// A command substitution in a word: its output is not known.
const SUBSTITUTION: &str = "$()";

/// A part of a command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ShellToken {
    /// A word without its quotes. Command substitutions are replaced by `$()`.
    Word(String),
    /// The end of a command: `;`, `|`, `&`, a newline or a parenthesis outside quotes.
    End,
}

/// Splits a command line as a shell does. A word that `is_line` takes for a command line of its own, such as that of an inner
/// `sh -c`, is split, too.
///
/// Source: <https://pubs.opengroup.org/onlinepubs/9799919799/utilities/V3_chap02.html#tag_19_03>.
pub(crate) fn split(line: &str, is_line: fn(&str) -> bool) -> Vec<ShellToken> {
    let mut splitter = Splitter { rest: line.chars().peekable(), word: None, tokens: Vec::new(), is_line };
    splitter.run();
    splitter.tokens
}

struct Splitter<'a> {
    rest: Peekable<Chars<'a>>,
    word: Option<String>,
    tokens: Vec<ShellToken>,
    is_line: fn(&str) -> bool,
}

impl Splitter<'_> {
    fn run(&mut self) {
        while let Some(next) = self.rest.next() {
            match next {
                '\'' => self.single_quoted(),
                '"' => self.double_quoted(),
                '\\' => self.escaped(),
                '`' => self.backquoted(),
                '$' if self.rest.peek() == Some(&'(') => self.substitution(),
                // `2>&1`.
                '&' if self.word.as_ref().is_some_and(|word| word.ends_with('>')) => self.push('&'),
                ';' | '|' | '&' | '(' | ')' | '\n' => {
                    self.end_word();
                    self.tokens.push(ShellToken::End);
                }
                _ if next.is_whitespace() => self.end_word(),
                _ => self.push(next),
            }
        }
        self.end_word();
    }

    fn single_quoted(&mut self) {
        let text: String = self.rest.by_ref().take_while(|next| *next != '\'').collect();
        self.push_text(&text);
    }

    fn double_quoted(&mut self) {
        self.push_text("");
        while let Some(next) = self.rest.next() {
            match next {
                '"' => return,
                '\\' => self.escaped(),
                '`' => self.backquoted(),
                '$' if self.rest.peek() == Some(&'(') => self.substitution(),
                _ => self.push(next),
            }
        }
    }

    /// A newline after a backslash continues the line.
    fn escaped(&mut self) {
        if let Some(next) = self.rest.next().filter(|next| *next != '\n') {
            self.push(next);
        }
    }

    fn backquoted(&mut self) {
        self.rest.by_ref().take_while(|next| *next != '`').for_each(drop);
        self.push_text(SUBSTITUTION);
    }

    /// Skips a command substitution. Parentheses in its quotes count as well.
    fn substitution(&mut self) {
        let mut depth = 0_usize;
        for next in self.rest.by_ref() {
            match next {
                '(' => depth += 1,
                ')' => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                break;
            }
        }
        self.push_text(SUBSTITUTION);
    }

    fn push(&mut self, next: char) {
        self.word.get_or_insert_default().push(next);
    }

    fn push_text(&mut self, text: &str) {
        self.word.get_or_insert_default().push_str(text);
    }

    fn end_word(&mut self) {
        let Some(word) = self.word.take().filter(|word| !word.is_empty()) else { return };
        // Shorter than the line, since its quotes are gone.
        if word.contains(char::is_whitespace) && (self.is_line)(&word) {
            self.tokens.extend(split(&word, self.is_line));
        } else {
            self.tokens.push(ShellToken::Word(word));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_is_split_as_a_shell_does() {
        for (line, expected) in [
            ("a 'b c' \"d e\"f", &["a", "b c", "d ef"][..]),
            ("a; b && c | d\ne", &["a", ";", "b", ";", ";", "c", ";", "d", ";", "e"]),
            ("a \"; b\" '| c'", &["a", "; b", "| c"]),
            ("a \"$(b | c -d)\" e", &["a", "$()", "e"]),
            ("a=$(b $(c) -d) e", &["a=$()", "e"]),
            ("a `b -d` c", &["a", "$()", "c"]),
            ("a \\\n b\\ c \"d\\\"e\"", &["a", "b c", "d\"e"]),
            ("a 2>&1 b", &["a", "2>&1", "b"]),
            ("sh -c 'line \"a b\" -d'", &["sh", "-c", "line", "a b", "-d"]),
            ("a '' \"", &["a"]),
        ] {
            let found: Vec<String> = split(line, |word| word.starts_with("line"))
                .into_iter()
                .map(|token| match token {
                    ShellToken::Word(word) => word,
                    ShellToken::End => ";".to_owned(),
                })
                .collect();
            assert_eq!(found, expected, "{line}");
        }
    }
}
