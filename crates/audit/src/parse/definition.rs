//! Reads a task definition in each common form: the input of `register-task-definition`, the output of
//! `describe-task-definition`, and the value of its field `taskDefinition`.

use std::sync::Arc;

use serde_json::Value;

use crate::facts::{AuditedDefinition, DefinitionOrigin};
use crate::line_index::LineIndex;
use ecs_mesh_aws::inspect::FullTaskDefinition;

/// A text that is not a task definition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DefinitionError {
    /// The line, from 1.
    pub(crate) line: Option<u32>,
    /// The field, if the error is about one.
    pub(crate) field: Option<String>,
    /// The value found and the values allowed; never a field's value.
    pub(crate) message: String,
}

/// Reads the text of `file`.
pub(crate) fn read(file: &str, text: &str) -> Result<AuditedDefinition, DefinitionError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let value: Value = serde_json::from_str(text).map_err(|error| DefinitionError {
        line: u32::try_from(error.line()).ok().filter(|line| *line > 0),
        field: None,
        message: format!("not JSON: {}", without_place(&error.to_string())),
    })?;
    let lines = LineIndex::of(text);
    let (prefix, mut inner) = match value.get("taskDefinition") {
        Some(inner) => ("taskDefinition.", inner.clone()),
        None => ("", value.clone()),
    };
    // `describe-task-definition` prints the tags beside the definition.
    if let (false, Some(tags), Some(fields)) = (prefix.is_empty(), value.get("tags"), inner.as_object_mut()) {
        fields.insert("tags".to_owned(), tags.clone());
    }
    let error = |path: String, message: String| DefinitionError {
        line: lines.get(&path),
        field: Some(path).filter(|path| !path.is_empty()),
        message,
    };
    if inner.get("containerDefinitions").is_none() {
        let found = inner.as_object().map_or_else(
            || "not a JSON object".to_owned(),
            |fields| {
                let names: Vec<&str> = fields.keys().map(String::as_str).take(8).collect();
                format!("no containerDefinitions, but: {}", names.join(", "))
            },
        );
        return Err(error(prefix.trim_end_matches('.').to_owned(), found));
    }
    let definition: FullTaskDefinition = serde_path_to_error::deserialize(inner).map_err(|cause| {
        let path = cause.path().to_string();
        let path = if path == "." { String::new() } else { path };
        let kind = without_values(&cause.inner().to_string());
        error(format!("{prefix}{path}").trim_end_matches('.').to_owned(), kind)
    })?;
    Ok(AuditedDefinition {
        origin: DefinitionOrigin::File { path: Arc::from(file), lines, prefix },
        definition,
        uses: Vec::new(),
        control_planes: Vec::new(),
    })
}

fn without_place(message: &str) -> &str {
    message.split(" at line ").next().unwrap_or_default()
}

/// Removes the value from serde's message, since it may be a secret.
fn without_values(message: &str) -> String {
    let message = without_place(message);
    match (message.split_once(": "), message.split_once(", expected ")) {
        (Some((what, found)), Some((_, expected))) => {
            let kind = found.split([' ', '`', '"']).next().unwrap_or_default();
            format!("{what}: {kind}, expected {expected}")
        }
        _ => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ecs_mesh_model::TaskDefinitionArn;

    const CONTAINERS: &str = r#""containerDefinitions": [{"name": "app", "image": "kv:1"}]"#;

    #[test]
    fn definition_is_read_in_each_form() {
        let arn = "arn:aws:ecs:eu-west-1:111122223333:task-definition/kv:3";
        let tags = r#""tags": [{"key": "a", "value": "b"}]"#;
        for (text, arn, prefix) in [
            (format!(r#"{{"family": "kv", {CONTAINERS}, {tags}}}"#), None, ""),
            (
                format!(r#"{{"taskDefinitionArn": "{arn}", "family": "kv", {CONTAINERS}, {tags}}}"#),
                Some(arn),
                "",
            ),
            (
                format!(
                    r#"{{"taskDefinition": {{"taskDefinitionArn": "{arn}", "family": "kv", {CONTAINERS}}}, {tags}}}"#
                ),
                Some(arn),
                "taskDefinition.",
            ),
        ] {
            let read = read("a.json", &text).unwrap();
            assert_eq!(read.definition.arn.as_ref().map(TaskDefinitionArn::as_str), arn);
            assert_eq!((read.definition.family.as_str(), read.definition.containers.len()), ("kv", 1));
            assert_eq!(read.definition.tags.as_ref().unwrap()["a"], "b");
            assert!(matches!(read.origin, DefinitionOrigin::File { prefix: found, .. } if found == prefix));
        }
    }

    #[test]
    fn invalid_definition_error_has_line_and_field_but_no_values() {
        for (text, line, field, words) in [
            ("{\n  \"family\": ,\n}", Some(2), None, "not JSON"),
            ("{\"Family\": \"kv\"}", Some(1), None, "no containerDefinitions, but: Family"),
            ("[1]", Some(1), None, "not a JSON object"),
            (
                "{\"taskDefinition\": {\"containerDefinitions\": [\n{\"name\": \"a\", \"environment\": \"planted\"}]}}",
                Some(2),
                Some("taskDefinition.containerDefinitions[0].environment"),
                "expected a sequence",
            ),
        ] {
            let error = read("a.json", text).unwrap_err();
            assert_eq!((error.line, error.field.as_deref()), (line, field), "{error:?}");
            assert!(error.message.contains(words) && !error.message.contains("planted"), "{error:?}");
        }
    }
}
