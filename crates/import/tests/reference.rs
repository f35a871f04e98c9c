//! The tables of fields in `docs/reference/import.md`. `UPDATE_GOLDEN=1` writes them again.

use std::fmt::Write as _;
use std::path::Path;

use ecs_mesh_import::{FieldFate, FieldRule, resource_rules};

const START: &str = "<!-- fields of imports -->\n";
const END: &str = "<!-- end of fields -->\n";

/// The system that has resources of a kind.
fn source(kind: &str) -> &'static str {
    match kind {
        "Dataplane" | "ZoneIngress" | "ZoneEgress" => "Kuma",
        "AuthMethod" | "BindingRule" | "Role" | "AnonymousPolicy" => "Consul",
        _ => "App Mesh",
    }
}

fn row(rule: &FieldRule) -> String {
    let fate = match (rule.fate, rule.action) {
        (FieldFate::NoCounterpart, true) => "no counterpart, act",
        (fate, _) => fate.title(),
    };
    let targets = rule.target.split(", ").filter(|target| !target.is_empty());
    let target = targets.map(|target| format!("`{target}`")).collect::<Vec<_>>().join(", ");
    format!("| `{}` | {fate} | {target} | {} |\n", rule.path, rule.reason)
}

fn tables() -> String {
    let mut text = String::new();
    for resource in resource_rules() {
        let _ = write!(
            text,
            "\n### {} {}\n\n| field | fate | manifest, or instead | why |\n|---|---|---|---|\n",
            source(resource.kind),
            resource.kind
        );
        resource.rules.iter().for_each(|rule| text.push_str(&row(rule)));
    }
    text + "\n"
}

#[test]
fn import_reference_lists_the_fate_of_each_field() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/import.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(START).unwrap();
    let (_, after) = rest.split_once(END).unwrap();
    let expected = format!("{before}{START}{}{END}{after}", tables());
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &expected).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap(), expected, "UPDATE_GOLDEN=1 renews it");
}

#[test]
fn no_rule_of_a_kind_is_given_twice() {
    for resource in resource_rules() {
        let mut paths: Vec<&str> = resource.rules.iter().map(|rule| rule.path).collect();
        paths.sort_unstable();
        let count = paths.len();
        paths.dedup();
        assert_eq!(paths.len(), count, "{}", resource.kind);
    }
}
