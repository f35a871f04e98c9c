//! Lines of a stream, of bounded length.

use std::io::{self, BufRead, BufReader, Read};

/// A line of the operator has a few hundred bytes; a control plane's answer in one is cut before that. Log services take no
/// longer events than this.
const MAX_LINE_BYTES: usize = 256 * 1024;

/// A line of the input.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line<'a> {
    /// Its text, without the end of the line. Bytes that are no UTF-8 are replaced.
    Text(std::borrow::Cow<'a, str>),
    /// It is longer than the limit, and was skipped.
    TooLong,
}

/// Reads lines.
pub(super) struct Lines<R> {
    input: BufReader<R>,
    line: Vec<u8>,
}

impl<R: Read> Lines<R> {
    pub(super) fn new(input: R) -> Self {
        Self { input: BufReader::with_capacity(256 * 1024, input), line: Vec::new() }
    }

    /// Whether the next line is already there, so that reading it does not wait.
    pub(super) fn has_next(&self) -> bool {
        self.input.buffer().contains(&b'\n')
    }

    /// The next line; `None` at the end.
    pub(super) fn next(&mut self) -> io::Result<Option<Line<'_>>> {
        self.line.clear();
        let mut too_long = false;
        loop {
            let found = match self.input.fill_buf() {
                Ok(found) => found,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if found.is_empty() {
                if self.line.is_empty() && !too_long {
                    return Ok(None);
                }
                break;
            }
            let end = found.iter().position(|byte| *byte == b'\n');
            let part = &found[..end.unwrap_or(found.len())];
            too_long = too_long || self.line.len() + part.len() > MAX_LINE_BYTES;
            if !too_long {
                self.line.extend_from_slice(part);
            }
            let used = end.map_or(found.len(), |end| end + 1);
            self.input.consume(used);
            if end.is_some() {
                break;
            }
        }
        if too_long {
            self.line = Vec::new();
            return Ok(Some(Line::TooLong));
        }
        Ok(Some(Line::Text(String::from_utf8_lossy(&self.line))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(input: &[u8]) -> Vec<Option<String>> {
        let mut lines = Lines::new(input);
        let mut found = Vec::new();
        while let Some(line) = lines.next().unwrap() {
            found.push(match line {
                Line::Text(text) => Some(text.into_owned()),
                Line::TooLong => None,
            });
        }
        found
    }

    #[test]
    fn lines_end_at_line_feeds_and_at_the_end() {
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(all(b""), []);
        assert_eq!(all(b"a\n\nb"), [text("a"), text(""), text("b")]);
        assert_eq!(all(b"\xff\n"), [text("\u{fffd}")]);
    }

    #[test]
    fn endless_line_is_skipped_and_the_next_one_read() {
        let mut input = vec![b'x'; 3 * MAX_LINE_BYTES];
        input.extend_from_slice(b"\nnext");
        assert_eq!(all(&input), [None, Some("next".to_owned())]);
    }
}
