//! The fields of each kind as a table in Markdown, for the reference.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::kinds::KINDS;
use super::source;

/// The table of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReferenceTable {
    /// The kind.
    pub kind: &'static str,
    /// The table, which ends with a line break.
    pub markdown: String,
}

/// A table for each kind, in the order of the reference.
pub fn tables() -> Vec<ReferenceTable> {
    KINDS.iter().map(|kind| ReferenceTable { kind: kind.name, markdown: table(&source::spec(kind)) }).collect()
}

fn table(spec: &Value) -> String {
    let mut text = "| field of `spec` | default | allowed | meaning |\n|---|---|---|---|\n".to_owned();
    rows("", spec, &mut text);
    text
}

/// The rows of an object's fields: those that are required first, each followed by the fields in it.
fn rows(prefix: &str, object: &Value, text: &mut String) {
    let Some(fields) = object.get("properties").and_then(Value::as_object) else { return };
    let required: Vec<&str> = object
        .get("required")
        .and_then(Value::as_array)
        .map(|names| names.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default();
    let optional = fields.keys().map(String::as_str).filter(|name| !required.contains(name));
    for name in required.iter().copied().chain(optional) {
        let Some(Value::Object(field)) = fields.get(name) else { continue };
        let path = format!("{prefix}{name}");
        let default = if required.contains(&name) { "required".to_owned() } else { default(field) };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "| `{path}` | {default} | {} | {} |", allowed(field), meaning(field));
        rows(&format!("{path}."), &Value::Object(field.clone()), text);
        if let Some(items) = field.get("items") {
            rows(&format!("{path}[]."), items, text);
        }
    }
}

fn default(field: &Map<String, Value>) -> String {
    match field.get("default") {
        // What an object is without being written is told by its own fields.
        None | Some(Value::Object(_)) => String::new(),
        Some(Value::Array(items)) if items.is_empty() => String::new(),
        Some(Value::String(text)) => format!("`{text}`"),
        Some(other) => format!("`{other}`"),
    }
}

fn allowed(field: &Map<String, Value>) -> String {
    let text = |key: &str| field.get(key).and_then(Value::as_str);
    if let Some(words) = text("x-allowed") {
        return words.replace('|', "\\|");
    }
    if let Some(Value::Array(words)) = field.get("enum") {
        let words: Vec<String> =
            words.iter().filter_map(Value::as_str).map(|word| format!("`{word}`")).collect();
        return words.join(", ");
    }
    let limit = |key: &str| field.get(key).map(Value::to_string).unwrap_or_default();
    match (text("type"), field.get("items")) {
        (Some("integer" | "number"), _) => {
            let number = |limit: String| limit.strip_suffix(".0").map_or(limit.clone(), str::to_owned);
            format!("{} – {}", number(limit("minimum")), number(limit("maximum")))
        }
        (Some("boolean"), _) => "`true`, `false`".to_owned(),
        (Some("array"), Some(Value::Object(item))) if item.contains_key("properties") => "list".to_owned(),
        (Some("array"), Some(Value::Object(item))) => format!("list: {}", allowed(item)),
        (Some("object"), _) => String::new(),
        _ => "text".to_owned(),
    }
}

fn meaning(field: &Map<String, Value>) -> String {
    let description = field.get("description").and_then(Value::as_str).unwrap_or_default();
    let mut meaning = description.trim_end_matches('.').to_owned();
    let list = |key: &str| field.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    for (word, means) in list("enum").iter().zip(list("x-enum-descriptions")) {
        let (word, means) = (word.as_str().unwrap_or_default(), means.as_str().unwrap_or_default());
        let _ = write!(meaning, ". `{word}`: {}", means.trim_end_matches('.'));
    }
    meaning.replace('|', "\\|")
}
