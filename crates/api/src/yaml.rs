//! YAML as text, for readers that keep the line of every value, and for writers.
//!
//! ```
//! use ecs_mesh_api::yaml::{chunks, scalar};
//!
//! assert_eq!(chunks("a: 1\n---\nb: 2\n"), [(0, "a: 1\n"), (1, "---\nb: 2\n")]);
//! assert_eq!((scalar("kv"), scalar("1.10")), ("kv".to_owned(), "\"1.10\"".to_owned()));
//! ```

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Location, Spanned, Tagged};

/// Cuts a text before each line that starts a document, and leaves out those without content. Each part is with the number
/// of lines before it.
///
/// YAML allows no `---` at the start of a line elsewhere, not even within a quoted text, so an invalid document does not
/// hide the others.
pub fn chunks(text: &str) -> Vec<(u32, &str)> {
    let mut found = Vec::new();
    let (mut start, mut start_line, mut offset) = (0, 0, 0);
    for (number, line) in (0..).zip(text.split_inclusive('\n')) {
        let is_mark = line
            .strip_prefix("---")
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace));
        if is_mark && offset > start {
            found.push((start_line, &text[start..offset]));
            (start, start_line) = (offset, number);
        }
        offset += line.len();
    }
    found.push((start_line, &text[start..]));
    found.retain(|(_, chunk)| !is_blank(chunk));
    found
}

fn is_blank(chunk: &str) -> bool {
    chunk.lines().map(str::trim_end).all(|line| {
        matches!(line, "---" | "...")
            || line.starts_with('%')
            || line.is_empty()
            || line.trim_start().starts_with('#')
    })
}

/// A line of the parser as a number from 1.
pub fn line_number(line: u64) -> u32 {
    u32::try_from(line).unwrap_or(u32::MAX).max(1)
}

/// The text of a scalar as it is written in a part of [`chunks`], so that `1.10` stays `1.10`.
pub fn written(chunk: &str, at: Location) -> Option<String> {
    let span = at.span();
    let start = usize::try_from(span.byte_offset()?).ok()?;
    let length = usize::try_from(span.byte_len()?).ok()?;
    chunk.get(start..start.checked_add(length)?).map(|text| text.trim().to_owned())
}

/// A value as the parser returns it, with its place and its tag.
pub type ParsedNode = Spanned<Tagged<ParsedValue>>;

/// A value by YAML's rules.
pub enum ParsedValue {
    /// Empty, or `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number from 0.
    Unsigned(u64),
    /// Any other number.
    Float(f64),
    /// Any other scalar.
    Text(String),
    /// A list.
    List(Vec<ParsedNode>),
    /// A mapping, in the order of the document; keys may recur, by the parser's options.
    Map(Vec<(Spanned<String>, ParsedNode)>),
}

impl<'de> Deserialize<'de> for ParsedValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ParsedVisitor)
    }
}

struct ParsedVisitor;

impl<'de> Visitor<'de> for ParsedVisitor {
    type Value = ParsedValue;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<ParsedValue, E> {
        Ok(ParsedValue::Null)
    }

    fn visit_none<E: de::Error>(self) -> Result<ParsedValue, E> {
        Ok(ParsedValue::Null)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<ParsedValue, E> {
        Ok(ParsedValue::Bool(value))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<ParsedValue, E> {
        Ok(ParsedValue::Unsigned(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<ParsedValue, E> {
        // No field accepts a negative number, so precision does not matter; the text is kept.
        #[allow(clippy::cast_precision_loss)]
        Ok(u64::try_from(value).map_or(ParsedValue::Float(value as f64), ParsedValue::Unsigned))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<ParsedValue, E> {
        Ok(ParsedValue::Float(value))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<ParsedValue, E> {
        Ok(ParsedValue::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<ParsedValue, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(ParsedValue::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<ParsedValue, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            map.push(entry);
        }
        Ok(ParsedValue::Map(map))
    }
}

/// Words that YAML reads as another type, in any case.
const OTHER_TYPES: [&str; 9] = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];

/// The text as a scalar of block style: plain where every reader takes it for this text, or else a JSON string, which YAML
/// reads the same. A plain scalar is ASCII without control characters.
pub fn scalar(text: &str) -> String {
    let is_word =
        |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/' | ':' | ' ' | '(' | ')');
    // `.inf`, `0x1F` and `1e3` do not start with a letter.
    let starts_as_word = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/');
    let ends_as_word =
        text.ends_with(|c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | ')' | '/' | '-' | '_'));
    let is_plain = starts_as_word && ends_as_word && text.chars().all(is_word) && !text.contains(": ");
    if is_plain && !OTHER_TYPES.contains(&text.to_ascii_lowercase().as_str()) {
        return text.to_owned();
    }
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_that_could_be_something_else_is_quoted() {
        for plain in ["kv", "v1.2", "a b (c)", "arn:aws:ecs:eu-west-1:111122223333:cluster/demo", "/v1"] {
            assert_eq!(scalar(plain), plain);
        }
        let odd = [
            "",
            "1.10",
            "true",
            "Off",
            "a: b",
            "a:",
            "*:cluster/*",
            "0x1F",
            ".inf",
            "~",
            "- a",
            "a #b",
            "a\nb",
            "{a}",
            "'a'",
            "\u{1b}[31m",
            "漢字",
            " a",
            "2026-11-30",
            "&a",
            "!a",
            "@a",
            "%a",
            "`a",
            "?a",
            "|",
            ">",
            "1_000",
        ];
        for text in odd {
            let written = scalar(text);
            assert_eq!(serde_json::from_str::<String>(&written).unwrap(), text);
            assert_eq!(serde_saphyr::from_str::<String>(&written).unwrap(), text, "{written}");
        }
    }

    #[test]
    fn document_without_content_is_left_out() {
        assert_eq!(chunks("# c\n---\na: 1\n---\n\n...\n---\nb: 2"), [(1, "---\na: 1\n"), (6, "---\nb: 2")]);
        assert_eq!(chunks(""), []);
    }
}
