//! EventBridge event patterns.
//!
//! Source: <https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-create-pattern-operators.html>. `cidr` is not
//! supported; `PutRule` rejects a pattern that uses it.

use serde_json::Value;

use crate::aws::{AwsApiError, AwsApiResult};
use ecs_mesh_model::Glob;

/// Whether the event matches the pattern. A pattern that `check` rejects matches nothing.
pub fn matches(pattern: &Value, event: &Value) -> bool {
    let Value::Object(fields) = pattern else { return false };
    fields.iter().all(|(field, wanted)| match wanted {
        Value::Array(ways) if field == "$or" => ways.iter().any(|way| matches(way, event)),
        Value::Array(allowed) => {
            let found = event.get(field);
            allowed.iter().any(|one| allows_field(one, found))
        }
        // One matching object of an array is sufficient.
        Value::Object(_) => match event.get(field) {
            Some(Value::Array(items)) => items.iter().any(|item| matches(wanted, item)),
            Some(inner @ Value::Object(_)) => matches(wanted, inner),
            // Only a nested `exists: false` can match an absent object.
            _ => matches(wanted, &Value::Null),
        },
        _ => false,
    })
}

fn allows_field(one: &Value, found: Option<&Value>) -> bool {
    if let Some(exists) = one.get("exists").and_then(Value::as_bool) {
        return found.is_some_and(|found| !found.is_object()) == exists;
    }
    match found {
        None => false,
        Some(Value::Array(items)) => items.iter().any(|item| allows(one, item)),
        Some(found) => allows(one, found),
    }
}

fn allows(one: &Value, found: &Value) -> bool {
    let Value::Object(operator) = one else { return same(one, found) };
    let Some((name, wanted)) = operator.iter().next() else { return false };
    match name.as_str() {
        "anything-but" => match wanted {
            Value::Array(items) => !items.iter().any(|item| same(item, found)),
            Value::Object(inner) if inner.values().any(Value::is_array) => {
                inner.iter().all(|(operator, values)| {
                    values.as_array().into_iter().flatten().all(|value| !text_matches(operator, value, found))
                })
            }
            Value::Object(_) => !allows(wanted, found),
            other => !same(other, found),
        },
        "numeric" => wanted.as_array().is_some_and(|terms| numeric(terms, found)),
        operator => text_matches(operator, wanted, found),
    }
}

fn text_matches(operator: &str, wanted: &Value, found: &Value) -> bool {
    let Some(found) = found.as_str() else { return false };
    let (wanted, found) = match wanted.get("equals-ignore-case").and_then(Value::as_str) {
        Some(folded) => (folded.to_lowercase(), found.to_lowercase()),
        None => (wanted.as_str().unwrap_or_default().to_owned(), found.to_owned()),
    };
    match operator {
        "prefix" => found.starts_with(&wanted),
        "suffix" => found.ends_with(&wanted),
        "equals-ignore-case" => found.to_lowercase() == wanted.to_lowercase(),
        // EventBridge gives a meaning to `*` only; a `?` would have to match itself.
        "wildcard" => Glob::new(wanted).matches(&found),
        _ => false,
    }
}

fn same(wanted: &Value, found: &Value) -> bool {
    match (wanted.as_f64(), found.as_f64()) {
        (Some(wanted), Some(found)) => (wanted - found).abs() < f64::EPSILON,
        _ => wanted == found,
    }
}

fn numeric(terms: &[Value], found: &Value) -> bool {
    let Some(found) = found.as_f64() else { return false };
    terms.chunks(2).all(|term| {
        let [operator, bound] = term else { return false };
        let Some(bound) = bound.as_f64() else { return false };
        match operator.as_str() {
            Some("<") => found < bound,
            Some("<=") => found <= bound,
            Some(">") => found > bound,
            Some(">=") => found >= bound,
            Some("=") => (found - bound).abs() < f64::EPSILON,
            _ => false,
        }
    })
}

const OPERATORS: &[&str] =
    &["prefix", "suffix", "exists", "anything-but", "numeric", "equals-ignore-case", "wildcard"];

/// Parses a pattern and rejects those that EventBridge rejects.
pub(super) fn check(text: &str) -> AwsApiResult<Value> {
    let refuse = |message: String| AwsApiError::new("InvalidEventPatternException", message);
    let pattern: Value = serde_json::from_str(text)
        .map_err(|error| refuse(format!("the event pattern is not JSON: {error}")))?;
    if pattern.as_object().is_none_or(serde_json::Map::is_empty) {
        return Err(refuse("an event pattern is an object with at least one field".into()));
    }
    check_fields(&pattern, "").map_err(refuse)?;
    Ok(pattern)
}

fn check_fields(pattern: &Value, path: &str) -> Result<(), String> {
    for (field, wanted) in pattern.as_object().into_iter().flatten() {
        let path = if path.is_empty() { field.clone() } else { format!("{path}.{field}") };
        match wanted {
            Value::Object(_) => check_fields(wanted, &path)?,
            Value::Array(ways) if field == "$or" => {
                ways.iter().try_for_each(|way| check_fields(way, &path))?;
            }
            Value::Array(allowed) if allowed.is_empty() => return Err(format!("{path} allows nothing")),
            Value::Array(allowed) => {
                for name in allowed.iter().filter_map(Value::as_object).flat_map(serde_json::Map::keys) {
                    if !OPERATORS.contains(&name.as_str()) {
                        return Err(format!("{path} has the operator {name:?}; {OPERATORS:?} are served"));
                    }
                }
            }
            _ => return Err(format!("{path} must be an object or an array")),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn pattern_matches_events_that_match_every_field() {
        let event = json!({
            "source": "aws.ecs",
            "detail-type": "ECS Task State Change",
            "detail": {
                "clusterArn": "arn:aws:ecs:eu-west-1:111122223333:cluster/prod",
                "lastStatus": "RUNNING", "version": 3,
                "attachments": [{"type": "eni", "status": "ATTACHED"}],
                "list": ["a", "b"],
            }
        });
        for (pattern, expected) in [
            (json!({"source": ["aws.ecs"]}), true),
            (json!({"source": ["aws.iam"]}), false),
            (json!({"source": ["aws.iam", "aws.ecs"], "detail": {"lastStatus": ["RUNNING"]}}), true),
            (json!({"source": ["aws.ecs"], "detail": {"lastStatus": ["STOPPED"]}}), false),
            (json!({"detail": {"clusterArn": [{"prefix": "arn:aws:ecs:"}]}}), true),
            (json!({"detail": {"clusterArn": [{"suffix": "/dev"}]}}), false),
            (json!({"detail": {"clusterArn": [{"wildcard": "*:cluster/p*d"}]}}), true),
            (json!({"detail": {"stoppedReason": [{"exists": false}]}}), true),
            (json!({"detail": {"stoppedReason": [{"exists": true}]}}), false),
            (json!({"missing": {"deep": [{"exists": false}]}}), true),
            (json!({"detail": {"lastStatus": [{"anything-but": "STOPPED"}]}}), true),
            (json!({"detail": {"lastStatus": [{"anything-but": ["RUNNING", "X"]}]}}), false),
            (json!({"detail": {"lastStatus": [{"anything-but": {"prefix": "RUN"}}]}}), false),
            (json!({"detail": {"stopCode": [{"anything-but": "x"}]}}), false),
            (json!({"detail": {"version": [3]}}), true),
            (json!({"detail": {"version": [{"numeric": [">", 2, "<=", 3]}]}}), true),
            (json!({"detail": {"lastStatus": [{"equals-ignore-case": "running"}]}}), true),
            (json!({"detail": {"attachments": {"type": ["eni"]}}}), true),
            (json!({"detail": {"list": ["b"]}}), true),
            (json!({"$or": [{"source": ["x"]}, {"detail": {"lastStatus": ["RUNNING"]}}]}), true),
        ] {
            assert!(check(&pattern.to_string()).is_ok(), "{pattern} was refused");
            assert_eq!(matches(&pattern, &event), expected, "{pattern}");
        }
    }

    #[test]
    fn invalid_pattern_is_rejected_with_its_path() {
        for (bad, expected) in [
            ("[]", "object"),
            ("{", "not JSON"),
            (r#"{"source": "aws.ecs"}"#, "source"),
            (r#"{"detail": {"a": []}}"#, "detail.a"),
            (r#"{"detail": {"a": [{"cidr": "10.0.0.0/8"}]}}"#, "cidr"),
        ] {
            let error = check(bad).unwrap_err();
            assert_eq!(error.code, "InvalidEventPatternException");
            assert!(error.message.contains(expected), "{error}");
        }
    }
}
