//! The queries of dashboard and alert rules use metrics, labels and values that `docs/reference/metrics.md` has.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{MetricShape, documented};

const DASHBOARD: &str = include_str!("../../../../deploy/grafana/ecs-mesh-operator.json");
const RULES: &str = include_str!("../../../../deploy/prometheus/rules.yaml");
const PAGE: &str = include_str!("../../../../docs/reference/metrics.md");

/// Labels that the scrape adds.
const TARGET_LABELS: [&str; 2] = ["job", "instance"];

/// Words of `PromQL` that are no metric, where no parenthesis follows directly.
const KEYWORDS: [&str; 10] =
    ["and", "or", "unless", "offset", "bool", "sum", "max", "min", "count", "histogram_quantile"];

/// Keywords that a list of labels follows.
const LABEL_LISTS: [&str; 6] = ["by", "without", "on", "ignoring", "group_left", "group_right"];

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Word(String),
    Text(String),
    Symbol(char),
}

fn tokens(query: &str) -> Vec<Token> {
    let chars: Vec<char> = query.chars().collect();
    let (mut at, mut tokens) = (0, Vec::new());
    let is_word = |char: char| char.is_ascii_alphanumeric() || "_:.$".contains(char);
    while let Some(&char) = chars.get(at) {
        let end = match char {
            '"' | '\'' => (at + 1..chars.len()).find(|&n| chars[n] == char).expect("a closed string") + 1,
            '[' => (at..chars.len()).find(|&n| chars[n] == ']').expect("a closed range") + 1,
            _ if is_word(char) => (at..chars.len()).find(|&n| !is_word(chars[n])).unwrap_or(chars.len()),
            _ => at + 1,
        };
        let text: String = chars[at..end].iter().collect();
        match char {
            '"' | '\'' => tokens.push(Token::Text(text[1..text.len() - 1].to_owned())),
            '[' => {}
            _ if is_word(char) => tokens.push(Token::Word(text)),
            _ if char.is_whitespace() => {}
            _ => tokens.push(Token::Symbol(char)),
        }
        at = end;
    }
    tokens
}

/// The words up to the closing parenthesis, or none where no list opens.
fn label_list(tokens: &[Token]) -> impl Iterator<Item = &str> {
    let opens = tokens.first() == Some(&Token::Symbol('('));
    let list = tokens.iter().skip(1).take_while(move |token| opens && **token != Token::Symbol(')'));
    list.filter_map(|token| if let Token::Word(word) = token { Some(word.as_str()) } else { None })
}

/// The label matchers `{name="text", …}` at the start of `tokens`.
fn matchers(tokens: &[Token]) -> Vec<(&str, &str)> {
    if tokens.first() != Some(&Token::Symbol('{')) {
        return Vec::new();
    }
    let inside: Vec<&Token> =
        tokens.iter().skip(1).take_while(|token| **token != Token::Symbol('}')).collect();
    let mut matchers = Vec::new();
    let mut name = None;
    for token in inside {
        match token {
            Token::Word(word) => name = Some(word.as_str()),
            Token::Text(text) => matchers.push((name.take().expect("a label"), text.as_str())),
            Token::Symbol(_) => {}
        }
    }
    matchers
}

/// The fault of a query.
fn problems(query: &str, known: &BTreeMap<String, MetricShape>, records: &BTreeSet<&str>) -> Vec<String> {
    let tokens = tokens(query);
    let (mut problems, mut labels, mut grouped) = (Vec::new(), BTreeSet::from(TARGET_LABELS), Vec::new());
    let mut in_list = 0;
    for (at, token) in tokens.iter().enumerate() {
        let Token::Word(word) = token else { continue };
        let rest = &tokens[at + 1..];
        if in_list > 0 {
            in_list -= 1;
        } else if LABEL_LISTS.contains(&word.as_str()) {
            let list: Vec<&str> = label_list(rest).collect();
            in_list = list.len();
            grouped.extend(list);
        } else if word.starts_with(|char: char| char.is_ascii_digit() || char == '.')
            || KEYWORDS.contains(&word.as_str())
            || rest.first() == Some(&Token::Symbol('('))
        {
        } else if word == "up" || records.contains(word.as_str()) {
            labels.extend(["le", "control_plane", "operation"]);
            in_list = matchers(rest).len();
        } else {
            let family = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| {
                let base = word.strip_suffix(suffix)?;
                known.get(base).filter(|shape| shape.kind == "histogram")
            });
            let Some(shape) = family.or_else(|| known.get(word)) else {
                problems.push(format!("{word} is not in the reference"));
                in_list = matchers(rest).len();
                continue;
            };
            if shape.kind == "histogram" {
                labels.insert("le");
            }
            labels.extend(shape.labels.iter().map(String::as_str));
            let found = matchers(rest);
            in_list = found.len();
            for (label, value) in found {
                if !shape.labels.contains(label) && !TARGET_LABELS.contains(&label) {
                    problems.push(format!("{word} has no label {label}"));
                    continue;
                }
                let values = value.split('|').filter(|value| !value.is_empty() && !value.contains('$'));
                for value in values.filter(|_| label != "job") {
                    if !PAGE.contains(&format!("`{value}`")) {
                        problems.push(format!("{word}: {label} {value:?} is not in the reference"));
                    }
                }
            }
        }
    }
    let unknown = grouped.into_iter().filter(|label| !labels.contains(label));
    problems.extend(unknown.map(|label| format!("no metric of the query has the label {label}")));
    problems
}

/// The queries of a dashboard: those of panels, of annotations and of variables.
fn queries(dashboard: &Value) -> Vec<(String, String)> {
    let mut queries = Vec::new();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            queries.push((text(&panel["title"]), text(&target["expr"])));
        }
    }
    for annotation in dashboard["annotations"]["list"].as_array().unwrap() {
        if annotation["expr"].is_string() {
            queries.push((text(&annotation["name"]), text(&annotation["expr"])));
        }
    }
    for variable in dashboard["templating"]["list"].as_array().unwrap() {
        if let Some(query) = text(&variable["definition"]).strip_prefix("label_values(") {
            let (metric, label) = query.trim_end_matches(')').rsplit_once(", ").unwrap();
            queries.push((text(&variable["name"]), format!("sum by ({label}) ({metric})")));
        }
    }
    queries
}

fn rule_expressions() -> Vec<(String, String)> {
    let lines = RULES.lines().map(str::trim);
    let mut name = String::new();
    let mut found = Vec::new();
    for line in lines {
        if let Some(rest) = line.strip_prefix("- alert: ").or(line.strip_prefix("- record: ")) {
            rest.clone_into(&mut name);
        } else if let Some(rest) = line.strip_prefix("expr: ") {
            let quoted = rest.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\''));
            found.push((name.clone(), quoted.unwrap_or(rest).replace("''", "'")));
        }
    }
    found
}

#[test]
fn dashboard_and_alert_queries_use_documented_metrics() {
    let known = documented();
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let rules = rule_expressions();
    let records: BTreeSet<&str> =
        rules.iter().map(|(name, _)| name.as_str()).filter(|name| name.contains(':')).collect();
    let of_dashboard = queries(&dashboard);
    assert!(of_dashboard.len() > 60 && rules.len() > 25, "{} {}", of_dashboard.len(), rules.len());
    let all = of_dashboard.iter().chain(&rules);
    let broken = all.flat_map(|(title, query)| {
        problems(query, &known, &records).into_iter().map(move |problem| format!("{title}: {problem}"))
    });
    assert_eq!(broken.collect::<Vec<_>>(), Vec::<String>::new());
}

#[test]
fn query_check_finds_unknown_names_labels_and_values() {
    let known = documented();
    for (query, problem) in [
        ("sum(ecs_mesh_gone_total)", "ecs_mesh_gone_total is not in the reference"),
        ("ecs_mesh_ready{cluster=\"x\"}", "ecs_mesh_ready has no label cluster"),
        ("sum by (mesh) (rate(ecs_mesh_changes_total[5m]))", "no metric of the query has the label mesh"),
        (
            "ecs_mesh_changes_total{change=~\"create|gone\"} > 0",
            "ecs_mesh_changes_total: change \"gone\" is not in the reference",
        ),
        ("ecs_mesh_ready_bucket", "ecs_mesh_ready_bucket is not in the reference"),
    ] {
        assert_eq!(problems(query, &known, &BTreeSet::new()), [problem], "{query}");
    }
    let fine = "histogram_quantile(0.99, sum by (operation, le) \
                (rate(ecs_mesh_aws_call_duration_seconds_bucket{job=~\"$job\", operation!=\"iam:GetRole\"}[5m]))) > 1e3";
    assert_eq!(problems(fine, &known, &BTreeSet::new()), Vec::<String>::new());
}

/// Each panel has a data source that the user chooses, a place of its own and a title.
#[test]
fn dashboard_panels_share_no_place_and_no_id() {
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let (mut ids, mut cells, mut titles) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for panel in panels {
        let title = panel["title"].as_str().unwrap();
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}");
        let number = |name: &str| panel["gridPos"][name].as_u64().unwrap();
        assert!(number("x") + number("w") <= 24, "{title}");
        for x in number("x")..number("x") + number("w") {
            for y in number("y")..number("y") + number("h") {
                assert!(cells.insert((x, y)), "{title} is over another panel");
            }
        }
        if panel["type"] == "row" {
            titles.clear();
            continue;
        }
        assert!(titles.insert(title), "{title} is there twice in its row");
        for target in panel["targets"].as_array().unwrap() {
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{title}");
        }
    }
}
