//! The fields of each kind as Markdown, for `docs/reference/manifests.md`: one table per object, with short cells, and
//! a list below each table for what a cell does not hold.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::kinds::KINDS;
use super::source;

/// The reference of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReferenceTable {
    /// The kind.
    pub kind: &'static str,
    /// The tables and lists, which end with a line break.
    pub markdown: String,
}

/// The reference of each kind, in the order of the page.
pub fn tables() -> Vec<ReferenceTable> {
    let reference = |kind: &'static str, spec: &Value| {
        let mut markdown = String::new();
        if let Some(spec) = spec.as_object() {
            table(&ObjectPath { kind, steps: Vec::new() }, spec, &mut markdown);
        }
        ReferenceTable { kind, markdown }
    };
    KINDS.iter().map(|kind| reference(kind.name, &source::spec(kind))).collect()
}

/// Longest list of allowed words in a cell; a longer one is below the table.
const MAX_CELL_WORDS: usize = 40;

/// An object or list of objects below `spec`.
struct ObjectPath {
    kind: &'static str,
    /// Field names, `[]` after those of lists.
    steps: Vec<String>,
}

impl ObjectPath {
    fn child(&self, name: &str, field: &Map<String, Value>) -> Self {
        let list = if field.contains_key("items") { "[]" } else { "" };
        let mut steps = self.steps.clone();
        steps.push(format!("{name}{list}"));
        Self { kind: self.kind, steps }
    }

    /// The anchor of the object's table. Explicit, since headings such as `spec.selector` recur between kinds.
    fn anchor(&self) -> String {
        format!("{}-{}", self.kind, self.steps.join("-")).replace("[]", "").to_lowercase()
    }
}

/// A field of a table: its dotted path within the table's object, and its schema.
struct FieldRow<'a> {
    name: String,
    required: bool,
    schema: &'a Map<String, Value>,
    /// The field's own table.
    table: Option<ObjectPath>,
}

/// The table of an object, the list below it, and the tables of the objects in it.
fn table(path: &ObjectPath, object: &Map<String, Value>, text: &mut String) {
    let mut rows = Vec::new();
    collect_rows(path, "", object, &mut rows);
    // Writing to a String cannot fail.
    if !path.steps.is_empty() {
        let _ = write!(text, "\n<a id=\"{}\"></a>\n### `spec.{}`\n\n", path.anchor(), path.steps.join("."));
    }
    text.push_str("| field | type | default | meaning |\n|---|---|---|---|\n");
    for FieldRow { name, required, schema, table } in &rows {
        let field = match table {
            Some(table) => format!("[`{name}`](#{})", table.anchor()),
            None => format!("`{name}`"),
        };
        let default = if *required { "**required**".to_owned() } else { default(schema) };
        let (kind, meaning) = (cell(&value_type(schema)), cell(meaning(schema)));
        let _ = writeln!(text, "| {field} | {kind} | {default} | {meaning} |");
    }
    let notes: Vec<String> = rows.iter().filter_map(note).collect();
    if !notes.is_empty() {
        let _ = writeln!(text, "\n{}", notes.join("\n"));
    }
    for FieldRow { schema, table: below, .. } in rows {
        if let (Some(below), Some(object)) = (below, object_of(schema)) {
            table(&below, object, text);
        }
    }
}

/// The fields of an object, required ones first. A nested object with one field has no table: the field is in this one.
fn collect_rows<'a>(
    path: &ObjectPath,
    prefix: &str,
    object: &'a Map<String, Value>,
    rows: &mut Vec<FieldRow<'a>>,
) {
    let Some(fields) = object.get("properties").and_then(Value::as_object) else { return };
    let required: Vec<&str> = list(object, "required").iter().filter_map(Value::as_str).collect();
    let optional = fields.keys().map(String::as_str).filter(|name| !required.contains(name));
    for name in required.iter().copied().chain(optional) {
        let Some(Value::Object(schema)) = fields.get(name) else { continue };
        let child = path.child(name, schema);
        let below =
            object_of(schema).and_then(|object| Some((object, object.get("properties")?.as_object()?)));
        let own_table = below.is_some_and(|(_, fields)| fields.len() > 1);
        rows.push(FieldRow {
            name: format!("{prefix}{name}"),
            required: required.contains(&name),
            schema,
            table: own_table.then(|| path.child(name, schema)),
        });
        if let (Some((object, _)), false) = (below, own_table) {
            let step = child.steps.last().map(String::as_str).unwrap_or_default();
            collect_rows(&child, &format!("{prefix}{step}."), object, rows);
        }
    }
}

/// The object that a field holds, itself or as entries of a list.
fn object_of(field: &Map<String, Value>) -> Option<&Map<String, Value>> {
    let object = field.get("items").and_then(Value::as_object).unwrap_or(field);
    object.contains_key("properties").then_some(object)
}

fn text<'a>(schema: &'a Map<String, Value>, key: &str) -> Option<&'a str> {
    schema.get(key).and_then(Value::as_str)
}

fn list<'a>(schema: &'a Map<String, Value>, key: &str) -> &'a [Value] {
    schema.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

fn default(field: &Map<String, Value>) -> String {
    match field.get("default") {
        // An object's defaults are those of its fields.
        None | Some(Value::Object(_)) => String::new(),
        Some(Value::Array(items)) if items.is_empty() => String::new(),
        Some(Value::String(text)) => format!("`{text}`"),
        Some(other) => format!("`{other}`"),
    }
}

fn value_type(field: &Map<String, Value>) -> String {
    // The limits of a duration are its rule, unless the field has a format of its own.
    match (text(field, "x-format"), text(field, "x-allowed")) {
        (Some("duration"), Some(limits)) if limits != "duration" => {
            return format!("duration {}", limits.replace(" to ", "–"));
        }
        (Some(format), _) => return format.to_owned(),
        (None, _) => {}
    }
    let words: Vec<String> =
        list(field, "enum").iter().filter_map(Value::as_str).map(|word| format!("`{word}`")).collect();
    if !words.is_empty() {
        let words = words.join(", ");
        return if words.len() <= MAX_CELL_WORDS { words } else { "one of the list below".to_owned() };
    }
    let limit = |key: &str| {
        let limit = field.get(key).map(Value::to_string).unwrap_or_default();
        limit.strip_suffix(".0").map_or(limit.clone(), str::to_owned)
    };
    match (text(field, "type"), field.get("items")) {
        (Some("integer" | "number"), _) => format!("{}–{}", limit("minimum"), limit("maximum")),
        (Some("boolean"), _) => "`true`, `false`".to_owned(),
        (Some("array"), Some(Value::Object(item))) if item.contains_key("properties") => "list".to_owned(),
        (Some("array"), Some(Value::Object(item))) => format!("list of {}", items_type(item)),
        (Some("object"), _) => "object".to_owned(),
        _ => "text".to_owned(),
    }
}

/// The type of a list's entries, in the plural where it has one.
fn items_type(item: &Map<String, Value>) -> String {
    match value_type(item).as_str() {
        "*pattern*" => "*patterns*".to_owned(),
        "one of the list below" => "the words below".to_owned(),
        other => other.to_owned(),
    }
}

/// The first paragraph of the description, without its full stop.
fn meaning(field: &Map<String, Value>) -> &str {
    let description = text(field, "description").unwrap_or_default();
    description.split("\n\n").next().unwrap_or_default().trim_end_matches('.')
}

/// The further paragraphs of the description, and the meaning of each allowed word.
fn note(row: &FieldRow<'_>) -> Option<String> {
    let description = text(row.schema, "description").unwrap_or_default();
    let mut parts: Vec<String> = description.split("\n\n").skip(1).map(str::to_owned).collect();
    let choice = row.schema.get("items").and_then(Value::as_object).unwrap_or(row.schema);
    let words: Vec<String> = list(choice, "enum")
        .iter()
        .zip(list(choice, "x-enum-descriptions"))
        .filter_map(|(word, meaning)| Some((word.as_str()?, meaning.as_str()?)))
        .map(|(word, meaning)| format!("`{word}`: {}", lower_first(meaning.trim_end_matches('.'))))
        .collect();
    parts.extend((!words.is_empty()).then(|| words.join("; ")));
    (!parts.is_empty()).then(|| format!("- **`{}`**: {}", row.name, parts.join(" ")))
}

/// Names that stay capitalised within a sentence. Acronyms do, too.
const NAMES: [&str; 3] = ["Kuma", "Consul", "Kafka"];

fn lower_first(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next();
    let is_acronym = letters.clone().next().is_some_and(char::is_uppercase);
    match first {
        Some(first) if !is_acronym && !NAMES.iter().any(|name| text.starts_with(name)) => {
            first.to_lowercase().chain(letters).collect()
        }
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_of_the_reference_are_short() {
        for ReferenceTable { kind, markdown } in tables() {
            for row in markdown.lines().filter(|line| line.starts_with("| ")) {
                for cell in row.split(" | ") {
                    assert!(cell.chars().count() <= 100, "{kind}: {cell}");
                }
            }
        }
    }

    #[test]
    fn links_of_the_reference_have_anchors() {
        for ReferenceTable { kind, markdown } in tables() {
            for link in markdown.split("](#").skip(1).filter_map(|rest| rest.split(')').next()) {
                assert!(markdown.contains(&format!("<a id=\"{link}\"></a>")), "{kind}: {link}");
            }
        }
    }
}
