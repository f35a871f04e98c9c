//! JSON and YAML of objects and lists, written as they come.

use std::fmt::Write as _;
use std::io::{self, Write};

use serde_json::Value;

use crate::text::is_unsafe;

/// The value as indented JSON with a final newline, in ASCII where a terminal could act on a character.
pub fn to_json(value: &Value) -> String {
    escape(&indented(value)) + "\n"
}

/// The value as a YAML document with a final newline.
///
/// The syntax is what `kubectl -o yaml` prints: block style, strings quoted where another type would be read.
pub fn to_yaml(value: &Value) -> String {
    let mut text = String::new();
    write_yaml(&mut text, value, 0);
    text
}

fn indented(value: &Value) -> String {
    // A Value has only keys that are strings, so that it can always be written.
    serde_json::to_string_pretty(value).unwrap_or_default()
}

/// Unsafe characters can only be in strings, where an escape means the same.
fn escape(json: &str) -> String {
    let mut safe = String::with_capacity(json.len());
    for c in json.chars() {
        if c != '\n' && is_unsafe(c) {
            // Writing to a String cannot fail.
            let _ = write!(safe, "\\u{:04x}", u32::from(c));
        } else {
            safe.push(c);
        }
    }
    safe
}

fn write_yaml(text: &mut String, value: &Value, depth: usize) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (index, (key, value)) in fields.iter().enumerate() {
                if index > 0 {
                    text.push_str(&"  ".repeat(depth));
                }
                text.push_str(&scalar(key));
                text.push(':');
                write_below(text, value, depth);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    text.push_str(&"  ".repeat(depth));
                }
                text.push_str("- ");
                write_yaml(text, item, depth + 1);
            }
        }
        Value::Object(_) => text.push_str("{}\n"),
        Value::Array(_) => text.push_str("[]\n"),
        Value::String(string) => {
            text.push_str(&scalar(string));
            text.push('\n');
        }
        other => {
            text.push_str(&other.to_string());
            text.push('\n');
        }
    }
}

fn write_below(text: &mut String, value: &Value, depth: usize) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            text.push('\n');
            text.push_str(&"  ".repeat(depth + 1));
            write_yaml(text, value, depth + 1);
        }
        // A list is not indented below its key, as in kubectl.
        Value::Array(items) if !items.is_empty() => {
            text.push('\n');
            text.push_str(&"  ".repeat(depth));
            write_yaml(text, value, depth);
        }
        _ => {
            text.push(' ');
            write_yaml(text, value, depth);
        }
    }
}

/// The text as a scalar, with escapes for characters that a terminal obeys; those are never plain.
fn scalar(text: &str) -> String {
    escape(&ecs_mesh_api::yaml::scalar(text))
}

/// The syntax of a list of documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Syntax {
    /// JSON.
    Json,
    /// YAML.
    Yaml,
}

/// Writes a list with its items as they come, so that a long one needs no memory.
pub struct ListWriter {
    syntax: Syntax,
    items: usize,
    kind: String,
    api_version: String,
}

impl ListWriter {
    /// A list of this kind, such as `TaskList`.
    pub fn new(syntax: Syntax, api_version: &str, kind: &str) -> Self {
        Self { syntax, items: 0, kind: kind.to_owned(), api_version: api_version.to_owned() }
    }

    /// Writes an item.
    pub fn item(&mut self, item: &Value, out: &mut dyn Write) -> io::Result<()> {
        self.items += 1;
        match self.syntax {
            Syntax::Json => {
                if self.items == 1 {
                    self.json_head(out)?;
                }
                let lead = if self.items == 1 { "\n" } else { ",\n" };
                let text = escape(&indented(item)).replace('\n', "\n    ");
                write!(out, "{lead}    {text}")
            }
            Syntax::Yaml => {
                if self.items == 1 {
                    writeln!(out, "apiVersion: {}\nitems:", scalar(&self.api_version))?;
                }
                let mut text = String::from("- ");
                write_yaml(&mut text, item, 1);
                out.write_all(text.as_bytes())
            }
        }
    }

    fn json_head(&self, out: &mut dyn Write) -> io::Result<()> {
        let text = |text: &str| escape(&Value::from(text).to_string());
        let (version, kind) = (text(&self.api_version), text(&self.kind));
        write!(out, "{{\n  \"apiVersion\": {version},\n  \"kind\": {kind},\n  \"items\": [")
    }

    /// Writes the end; the complete list where it has no items.
    pub fn finish(self, out: &mut dyn Write) -> io::Result<()> {
        match (self.syntax, self.items) {
            (Syntax::Json, 0) => {
                self.json_head(out)?;
                writeln!(out, "]\n}}")
            }
            (Syntax::Json, _) => writeln!(out, "\n  ]\n}}"),
            (Syntax::Yaml, 0) => {
                writeln!(
                    out,
                    "apiVersion: {}\nitems: []\nkind: {}",
                    scalar(&self.api_version),
                    scalar(&self.kind)
                )
            }
            (Syntax::Yaml, _) => writeln!(out, "kind: {}", scalar(&self.kind)),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn hard() -> Value {
        json!({
            "name": "0123456789", "address": "10.0.0.1:80", "state": "yes", "empty": "", "space": " a ", "n": 7, "t": true,
            "hash": "a # b", "colon": "a: b", "escape": "\u{1b}[31m\u{9b}2J\u{202e}\u{7f}\u{85}\u{2028}", "line": "a\nb",
            "nothing": null, "list": [], "object": {}, "float": "1e3", "octal": "0o7", "tilde": "~", "star": "*a",
            "date": "2026-11-30", "time": "2026-11-30T01:02:03Z", "unicode": "漢字 Ä", "dash": "- a", "key: odd": ["- x"],
            "nested": [{"a": 1, "b": [{"c": "d"}, ["e", ["f"]]]}, "g", {}, []], "deep": {"a": {"b": {"c": [1, 2]}}},
            "colonEnd": "a:", "null": "null", "inf": ".inf", "arn": "arn:aws:ecs:eu-west-1:1:task/demo/0a",
        })
    }

    #[test]
    fn json_and_yaml_read_back_as_the_value() {
        let value = hard();
        assert_eq!(serde_json::from_str::<Value>(&to_json(&value)).unwrap(), value);
        let yaml = to_yaml(&value);
        let read: Value = serde_saphyr::from_str(&yaml).unwrap_or_else(|error| panic!("{error}\n{yaml}"));
        assert_eq!(read, value, "{yaml}");
    }

    #[test]
    fn lists_read_back_with_any_number_of_items() {
        for count in 0..3 {
            let items: Vec<Value> = (0..count).map(|_| hard()).collect();
            let expected = json!({"apiVersion": "ecs-mesh.dev/v1", "kind": "TaskList", "items": items});
            for syntax in [Syntax::Json, Syntax::Yaml] {
                let mut list = ListWriter::new(syntax, "ecs-mesh.dev/v1", "TaskList");
                let mut out = Vec::new();
                for item in &items {
                    list.item(item, &mut out).unwrap();
                }
                list.finish(&mut out).unwrap();
                let text = String::from_utf8(out).unwrap();
                let read: Value = match syntax {
                    Syntax::Json => serde_json::from_str(&text).unwrap(),
                    Syntax::Yaml => serde_saphyr::from_str(&text).unwrap(),
                };
                assert_eq!(read, expected, "{text}");
            }
        }
    }

    #[test]
    fn head_of_a_list_has_no_character_that_a_terminal_obeys() {
        for syntax in [Syntax::Json, Syntax::Yaml] {
            let mut out = Vec::new();
            ListWriter::new(syntax, "v\u{9b}2J", "List\u{202e}").finish(&mut out).unwrap();
            let text = String::from_utf8(out).unwrap();
            assert!(!text.contains(|c| c != '\n' && is_unsafe(c)), "{text:?}");
        }
    }

    #[test]
    fn documents_have_no_character_that_a_terminal_obeys() {
        for text in [to_json(&hard()), to_yaml(&hard())] {
            assert!(!text.contains(|c| c != '\n' && is_unsafe(c)), "{text:?}");
        }
    }
}
