//! Determines whether an EventBridge rule matches all required events. Sound: a positive answer is always right.
//!
//! Required events are a set of fields whose text, or a pattern over it, is known. A rule's pattern covers them if each field
//! that the pattern tests is known and allowed; an unknown field could have any value.
//! Source: <https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-create-pattern-operators.html>.

use serde_json::Value;

use ecs_mesh_model::Glob;

/// The known value of a field of the required events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum FieldKnowledge {
    /// Exactly this text.
    Text(String),
    /// All texts that the pattern matches.
    Matching(Glob),
    /// Present, with any text.
    Something,
}

/// The required events: fields by their dotted path, such as `detail.clusterArn`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RequiredEvents(pub(super) Vec<(&'static str, FieldKnowledge)>);

impl RequiredEvents {
    fn known(&self, path: &str) -> Option<&FieldKnowledge> {
        self.0.iter().find(|(known, _)| *known == path).map(|(_, known)| known)
    }
}

/// The reason why a pattern does not match all required events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CoverageGap {
    /// The field's path.
    pub(super) field: String,
    /// The values that the pattern allows.
    pub(super) allows: String,
}

impl CoverageGap {
    /// Whether the rule matches other kinds of events.
    pub(super) fn is_about_others(&self) -> bool {
        matches!(self.field.as_str(), "source" | "detail-type" | "detail.eventName" | "detail.eventSource")
    }
}

/// The first gap of the pattern, if any. Gaps in the fields of the event's kind come first.
pub(super) fn gap(pattern: &str, need: &RequiredEvents) -> Option<CoverageGap> {
    let Ok(pattern) = serde_json::from_str::<Value>(pattern) else {
        return Some(CoverageGap { field: "the pattern".to_owned(), allows: "no JSON".to_owned() });
    };
    let mut gaps = Vec::new();
    find_gap(&pattern, "", need, &mut gaps);
    let at = gaps.iter().position(CoverageGap::is_about_others).unwrap_or(0);
    (!gaps.is_empty()).then(|| gaps.swap_remove(at))
}

fn find_gap(pattern: &Value, path: &str, need: &RequiredEvents, gaps: &mut Vec<CoverageGap>) {
    for (field, wanted) in pattern.as_object().into_iter().flatten() {
        let path = if path.is_empty() { field.clone() } else { format!("{path}.{field}") };
        match wanted {
            Value::Array(alternatives) if field == "$or" => {
                check_alternatives(alternatives, &path, need, gaps);
            }
            Value::Object(_) => find_gap(wanted, &path, need, gaps),
            Value::Array(allowed) => {
                let fits =
                    need.known(&path).is_some_and(|known| allowed.iter().any(|one| allows(one, known)));
                if !fits {
                    gaps.push(CoverageGap { field: path, allows: shortened(wanted) });
                }
            }
            other => gaps.push(CoverageGap { field: path, allows: shortened(other) }),
        }
    }
}

/// One alternative that matches all is sufficient.
fn check_alternatives(
    alternatives: &[Value],
    path: &str,
    need: &RequiredEvents,
    gaps: &mut Vec<CoverageGap>,
) {
    let parent = path.strip_suffix("$or").unwrap_or(path).trim_end_matches('.');
    let mut first = None;
    for alternative in alternatives {
        let mut here = Vec::new();
        find_gap(alternative, parent, need, &mut here);
        if here.is_empty() {
            return;
        }
        first = first.or(Some(here));
    }
    gaps.extend(first.into_iter().flatten());
}

fn allows(one: &Value, known: &FieldKnowledge) -> bool {
    let Value::Object(operator) = one else {
        return matches!((one.as_str(), known), (Some(allowed), FieldKnowledge::Text(text)) if allowed == text);
    };
    let Some((name, wanted)) = operator.iter().next() else { return false };
    if name == "exists" {
        return wanted.as_bool() == Some(true);
    }
    if name == "anything-but" {
        return anything_but(wanted, known);
    }
    let Some(wanted) = wanted.as_str() else { return is_folded(name, wanted, known) };
    match (name.as_str(), known) {
        ("prefix", FieldKnowledge::Text(text)) => text.starts_with(wanted),
        ("suffix", FieldKnowledge::Text(text)) => text.ends_with(wanted),
        ("equals-ignore-case", FieldKnowledge::Text(text)) => text.to_lowercase() == wanted.to_lowercase(),
        ("wildcard", FieldKnowledge::Text(text)) => wildcard(wanted, text),
        ("prefix", FieldKnowledge::Matching(glob)) => fixed_start(glob).starts_with(wanted),
        ("suffix", FieldKnowledge::Matching(glob)) => fixed_end(glob).ends_with(wanted),
        // Only a `*` of the rule matches a `*` of the glob, and then it matches everything that the glob's `*` stands for.
        ("wildcard", FieldKnowledge::Matching(glob)) => wildcard(wanted, glob.as_str()),
        _ => false,
    }
}

/// `{"prefix": {"equals-ignore-case": "x"}}` and the same with `suffix`.
fn is_folded(operator: &str, wanted: &Value, known: &FieldKnowledge) -> bool {
    let folded = wanted.get("equals-ignore-case").and_then(Value::as_str).map(str::to_lowercase);
    let (Some(folded), FieldKnowledge::Text(text)) = (folded, known) else { return false };
    match operator {
        "prefix" => text.to_lowercase().starts_with(&folded),
        "suffix" => text.to_lowercase().ends_with(&folded),
        _ => false,
    }
}

/// Only for a known text it is certain that it differs.
fn anything_but(wanted: &Value, known: &FieldKnowledge) -> bool {
    let FieldKnowledge::Text(text) = known else { return false };
    match wanted {
        Value::String(other) => other != text,
        Value::Array(others) => others.iter().all(|other| other.as_str() != Some(text)),
        Value::Object(operators) => operators.iter().all(|(operator, values)| {
            let values = values.as_array().map_or(std::slice::from_ref(values), Vec::as_slice);
            values.iter().all(|value| {
                let one = serde_json::json!({ operator.as_str(): value });
                value.is_string() && !allows(&one, known)
            })
        }),
        _ => false,
    }
}

/// In a rule only `*` is special.
fn wildcard(pattern: &str, text: &str) -> bool {
    !pattern.contains('?') && Glob::new(pattern).matches(text)
}

fn fixed_start(glob: &Glob) -> &str {
    glob.as_str().split(['*', '?']).next().unwrap_or_default()
}

fn fixed_end(glob: &Glob) -> &str {
    glob.as_str().rsplit(['*', '?']).next().unwrap_or_default()
}

fn shortened(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(160) {
        Some((cut, _)) => format!("{}…", &text[..cut]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use ecs_mesh_sandbox::aws::pattern_matches;

    const PROD: &str = "arn:aws:ecs:eu-west-1:111122223333:cluster/prod";

    fn need(cluster: FieldKnowledge) -> RequiredEvents {
        RequiredEvents(vec![
            ("source", FieldKnowledge::Text("aws.ecs".to_owned())),
            ("detail-type", FieldKnowledge::Text("ECS Task State Change".to_owned())),
            ("detail.clusterArn", cluster),
            ("detail.lastStatus", FieldKnowledge::Something),
        ])
    }

    #[test]
    fn uncovered_events_are_found() {
        let all_prod =
            FieldKnowledge::Matching(Glob::new("arn:aws:ecs:eu-west-1:111122223333:cluster/prod-*"));
        for (pattern, cluster, gap_in) in [
            (json!({"source": ["aws.ecs"]}), FieldKnowledge::Text(PROD.into()), None),
            (json!({"source": ["aws.iam"]}), FieldKnowledge::Text(PROD.into()), Some("source")),
            (
                json!({"source": [{"prefix": "aws."}], "detail-type": ["x", "ECS Task State Change"]}),
                all_prod.clone(),
                None,
            ),
            (
                json!({"detail": {"lastStatus": ["RUNNING"]}}),
                FieldKnowledge::Text(PROD.into()),
                Some("detail.lastStatus"),
            ),
            (json!({"detail": {"lastStatus": [{"exists": true}]}}), FieldKnowledge::Text(PROD.into()), None),
            (
                json!({"detail": {"stoppedReason": [{"exists": true}]}}),
                FieldKnowledge::Text(PROD.into()),
                Some("detail.stoppedReason"),
            ),
            (json!({"detail": {"clusterArn": [PROD]}}), FieldKnowledge::Text(PROD.into()), None),
            (json!({"detail": {"clusterArn": [PROD]}}), all_prod.clone(), Some("detail.clusterArn")),
            (
                json!({"detail": {"clusterArn": [{"prefix": "arn:aws:ecs:eu-west-1:111122223333:cluster/p"}]}}),
                all_prod.clone(),
                None,
            ),
            (
                json!({"detail": {"clusterArn": [{"prefix": "arn:aws:ecs:eu-west-1:111122223333:cluster/prod-a"}]}}),
                all_prod.clone(),
                Some("detail.clusterArn"),
            ),
            (json!({"detail": {"clusterArn": [{"wildcard": "*:cluster/prod-*"}]}}), all_prod.clone(), None),
            (
                json!({"detail": {"clusterArn": [{"wildcard": "*:cluster/prod-*-a"}]}}),
                all_prod.clone(),
                Some("detail.clusterArn"),
            ),
            (
                json!({"detail": {"clusterArn": [{"anything-but": "x"}]}}),
                all_prod.clone(),
                Some("detail.clusterArn"),
            ),
            (
                json!({"$or": [{"source": ["x"]}, {"detail": {"clusterArn": [PROD]}}]}),
                FieldKnowledge::Text(PROD.into()),
                None,
            ),
            (
                json!({"detail": {"$or": [{"clusterArn": ["x"]}, {"lastStatus": ["y"]}]}}),
                FieldKnowledge::Text(PROD.into()),
                Some("detail.clusterArn"),
            ),
        ] {
            let found = gap(&pattern.to_string(), &need(cluster)).map(|gap| gap.field);
            assert_eq!(found.as_deref(), gap_in, "{pattern}");
        }
    }

    #[test]
    fn event_coverage_agrees_with_emulated_eventbridge() {
        let event = json!({"source": "aws.ecs", "detail": {"clusterArn": PROD}});
        let known = RequiredEvents(vec![
            ("source", FieldKnowledge::Text("aws.ecs".to_owned())),
            ("detail.clusterArn", FieldKnowledge::Text(PROD.to_owned())),
        ]);
        let alternatives = [
            json!(PROD),
            json!("x"),
            json!({"prefix": "arn:aws:ecs:"}),
            json!({"prefix": "arn:aws-cn:"}),
            json!({"suffix": "/prod"}),
            json!({"suffix": "/dev"}),
            json!({"wildcard": "*:cluster/p*d"}),
            json!({"wildcard": "*:cluster/p?od"}),
            json!({"equals-ignore-case": PROD.to_uppercase()}),
            json!({"anything-but": PROD}),
            json!({"anything-but": ["x"]}),
            json!({"anything-but": {"prefix": "arn"}}),
            json!({"anything-but": {"suffix": ["/dev", "/test"]}}),
            json!({"anything-but": {"wildcard": "*dev*"}}),
            json!({"exists": true}),
            json!({"exists": false}),
            json!({"prefix": {"equals-ignore-case": "ARN:"}}),
        ];
        for alternative in alternatives {
            let pattern = json!({"source": ["aws.ecs"], "detail": {"clusterArn": [alternative]}});
            // EventBridge has no wildcard `?`, but the sandbox's matcher has.
            let lets_through = pattern_matches(&pattern, &event) && !pattern.to_string().contains('?');
            assert_eq!(gap(&pattern.to_string(), &known).is_none(), lets_through, "{pattern}");
        }
    }
}
