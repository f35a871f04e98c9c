//! The common form from which all schemas are generated: no references, one type for each value, no nulls, and descriptions
//! beside enum values.

use std::fmt::Write as _;

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::kinds::SchemaKind;

/// The schema of a kind's `spec`.
pub(super) fn spec(kind: &SchemaKind) -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    });
    let mut schema = (kind.spec)(&mut settings.into_generator()).to_value();
    every_object(&mut schema, &normalize);
    schema
}

/// Changes each schema within the value, inner ones first. Defaults and examples are not schemas.
pub(super) fn every_object(value: &mut Value, change: &dyn Fn(&mut Map<String, Value>)) {
    match value {
        Value::Object(object) => {
            for (key, inner) in object.iter_mut() {
                match key.as_str() {
                    "default" | "enum" | "const" | "x-enum-descriptions" => {}
                    "properties" => {
                        inner
                            .as_object_mut()
                            .into_iter()
                            .flat_map(Map::values_mut)
                            .for_each(|field| every_object(field, change));
                    }
                    _ => every_object(inner, change),
                }
            }
            change(object);
        }
        Value::Array(items) => items.iter_mut().for_each(|item| every_object(item, change)),
        _ => {}
    }
}

fn normalize(schema: &mut Map<String, Value>) {
    schema.remove("title");
    exclude_null(schema);
    flatten_enum(schema);
    limit_integer(schema);
    if let Some(Value::String(text)) = schema.get_mut("description") {
        *text = unwrapped(text);
    }
}

/// Removes `null`: `Option` means that a field may be left out, and a field without a value is an error.
fn exclude_null(schema: &mut Map<String, Value>) {
    if let Some(Value::Array(types)) = schema.get_mut("type") {
        types.retain(|name| name != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            schema.insert("type".to_owned(), only);
        }
    }
    let Some(Value::Array(choices)) = schema.get_mut("anyOf") else { return };
    let before = choices.len();
    choices.retain(|choice| choice.get("type") != Some(&json!("null")));
    if let ([Value::Object(only)], true) = (choices.as_slice(), choices.len() < before) {
        let only = only.clone();
        schema.remove("anyOf");
        for (key, value) in only {
            schema.entry(key).or_insert(value);
        }
    }
}

/// Turns documented enum variants, which schemars gives as alternatives, into an enum with descriptions.
fn flatten_enum(schema: &mut Map<String, Value>) {
    let Some(Value::Array(choices)) = schema.get("oneOf") else { return };
    let word = |choice: &Value| choice.get("const").or_else(|| choice.get("enum")?.get(0)).cloned();
    let Some(words) = choices.iter().map(word).collect::<Option<Vec<_>>>() else { return };
    let meanings: Vec<Value> =
        choices.iter().map(|choice| choice.get("description").cloned().unwrap_or_default()).collect();
    schema.remove("oneOf");
    schema.insert("type".to_owned(), json!("string"));
    schema.insert("enum".to_owned(), words.into());
    schema.insert("x-enum-descriptions".to_owned(), meanings.into());
}

/// Replaces Rust's integer formats by standard ones and limits.
fn limit_integer(schema: &mut Map<String, Value>) {
    let (format, most) = match schema.get("format").and_then(Value::as_str) {
        Some("uint16") => ("int32", u64::from(u16::MAX)),
        Some("uint32") => ("int64", u64::from(u32::MAX)),
        _ => return,
    };
    schema.insert("format".to_owned(), json!(format));
    schema.entry("maximum").or_insert(json!(most));
}

/// Joins the lines of each paragraph of a doc comment.
fn unwrapped(text: &str) -> String {
    let paragraphs = text.split("\n\n").map(|paragraph| paragraph.replace('\n', " "));
    paragraphs.collect::<Vec<_>>().join("\n\n")
}

/// The description with the rule and the enum values, for readers who see no other keywords.
pub(super) fn full_description(schema: &Map<String, Value>) -> Option<String> {
    let text = |key: &str| schema.get(key).and_then(Value::as_str);
    let mut description = text("description")?.to_owned();
    if let Some(allowed) = text("x-allowed") {
        description.push_str("\n\nAllowed: ");
        description.push_str(allowed);
        description.push('.');
    }
    let list = |key: &str| schema.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    for (index, (word, meaning)) in list("enum").iter().zip(list("x-enum-descriptions")).enumerate() {
        let (word, meaning) = (word.as_str().unwrap_or_default(), meaning.as_str().unwrap_or_default());
        let before = if index == 0 { "\n\n" } else { "\n" };
        // Writing to a String cannot fail.
        let _ = write!(description, "{before}- `{word}`: {meaning}");
    }
    Some(description)
}
