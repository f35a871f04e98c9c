//! Binding rules: each can match, binds existing roles, and has no duplicate.

use std::collections::{BTreeMap, BTreeSet};

use super::consul_path;
use super::login::AWS_IAM;
use crate::facts::{AuditFacts, AuditedAuthMethod, AuditedBindingRule, ConsulFacts};
use crate::parse::config;
use crate::report::{AuditFinding, FindingLocation};
use crate::rules_catalog::{METHOD_TAGS, RULE_DUPLICATE, RULE_NONE, RULE_ROLE, RULE_SELECTOR};
use ecs_mesh_consul::DEFAULT_METHOD;

pub(super) fn check(facts: &AuditFacts, name: &str, response: &ConsulFacts) -> Vec<AuditFinding> {
    let (Ok(methods), Ok(rules)) = (&response.auth_methods, &response.binding_rules) else {
        // The control plane's finding reports missing facts.
        return Vec::new();
    };
    let methods_logged_in_to = methods_logged_in_to(facts, name);
    let mut findings = Vec::new();
    for method in methods.iter().filter(|method| method.kind == AWS_IAM) {
        let mine: Vec<&AuditedBindingRule> =
            rules.iter().filter(|rule| rule.method.eq_ignore_ascii_case(&method.name)).collect();
        findings.extend(none(
            name,
            method,
            &mine,
            methods_logged_in_to.contains(&method.name.to_ascii_lowercase()),
        ));
        findings.extend(tags(name, method, &mine));
        findings.extend(mine.iter().filter_map(|rule| no_role(name, response, rule)));
        findings.extend(duplicate(name, &mine));
    }
    findings
}

/// The auth methods that services of this control plane log in to, in lower case: Consul ignores the case of their names.
fn methods_logged_in_to(facts: &AuditFacts, name: &str) -> BTreeSet<String> {
    let mine = facts
        .definitions
        .iter()
        .filter(|definition| definition.control_planes.iter().any(|plane| **plane == *name));
    let named = mine.filter_map(|definition| Some(config::first(definition)?.method().to_ascii_lowercase()));
    named.chain([DEFAULT_METHOD.to_owned()]).collect()
}

fn none(
    name: &str,
    method: &AuditedAuthMethod,
    rules: &[&AuditedBindingRule],
    binds_services: bool,
) -> Option<AuditFinding> {
    let found = if rules.is_empty() {
        "the auth method has no binding rule"
    } else if binds_services && !rules.iter().any(|rule| rule.bind_type == "service") {
        "the auth method has no binding rule of type service"
    } else {
        return None;
    };
    Some(
        RULE_NONE.violation(FindingLocation::resource(consul_path(name, "auth-method", &method.name)), found),
    )
}

/// Uses of a tag that the method does not list.
#[derive(Default)]
struct TagUsers<'a> {
    namespace: bool,
    names: BTreeSet<&'a str>,
    selectors: BTreeSet<&'a str>,
}

/// One finding for each unlisted tag.
fn tags(name: &str, method: &AuditedAuthMethod, rules: &[&AuditedBindingRule]) -> Vec<AuditFinding> {
    let mut missing: BTreeMap<&str, TagUsers<'_>> = BTreeMap::new();
    let lacks = |tag: &&str| !method.entity_tags.contains(*tag);
    for (selector, bind) in &method.namespace_rules {
        for tag in tags_of(bind).chain(tags_of(selector)).filter(lacks) {
            missing.entry(tag).or_default().namespace = true;
        }
    }
    for rule in rules {
        for tag in tags_of(&rule.bind_name).filter(lacks) {
            missing.entry(tag).or_default().names.insert(&rule.id);
        }
        for tag in tags_of(&rule.selector).filter(lacks) {
            missing.entry(tag).or_default().selectors.insert(&rule.id);
        }
    }
    missing.into_iter().map(|(tag, users)| not_listed(name, method, tag, &users)).collect()
}

fn not_listed(name: &str, method: &AuditedAuthMethod, tag: &str, users: &TagUsers<'_>) -> AuditFinding {
    let ids = |ids: &BTreeSet<&str>| ids.iter().copied().collect::<Vec<_>>().join(", ");
    let of_method = || {
        FindingLocation::resource(consul_path(name, "auth-method", &method.name))
            .field("Config.IAMEntityTags")
    };
    let mut uses = Vec::new();
    if users.namespace {
        uses.push(format!("a namespace rule uses entity_tags.{tag}"));
    }
    if !users.names.is_empty() {
        uses.push(format!("names of binding rules contain it ({})", ids(&users.names)));
    }
    if !users.selectors.is_empty() {
        uses.push(format!("binding rules select by it ({})", ids(&users.selectors)));
    }
    let found = format!(
        "entity_tags.{tag} is not listed, and {}; {} lists {}",
        uses.join(", "),
        method.name,
        listed(method)
    );
    if users.namespace || !users.names.is_empty() {
        return METHOD_TAGS.violation(of_method(), found);
    }
    let mut selecting = users.selectors.iter();
    let place = match (selecting.next(), selecting.next()) {
        (Some(only), None) => {
            FindingLocation::resource(consul_path(name, "binding-rule", only)).field("Selector")
        }
        _ => of_method(),
    };
    RULE_SELECTOR.violation(place, found)
}

fn listed(method: &AuditedAuthMethod) -> String {
    let tags: Vec<&str> = method.entity_tags.iter().map(String::as_str).collect();
    if tags.is_empty() { "none".to_owned() } else { tags.join(", ") }
}

/// The tags that an expression names: `entity_tags["TAG"]` in a selector, `${entity_tags.TAG}` in a name.
fn tags_of(expression: &str) -> impl Iterator<Item = &str> {
    expression.split("entity_tags").skip(1).filter_map(|rest| {
        let (rest, ends): (&str, &[char]) = match rest.strip_prefix("[\"") {
            Some(rest) => (rest, &['"']),
            None => (rest.strip_prefix('.')?, &['}', ' ', '=', '!', ')']),
        };
        let end = rest.find(ends).unwrap_or(rest.len());
        Some(&rest[..end]).filter(|tag| !tag.is_empty())
    })
}

fn no_role(name: &str, response: &ConsulFacts, rule: &AuditedBindingRule) -> Option<AuditFinding> {
    let roles = response.roles.as_ref().ok()?;
    let is_missing =
        rule.bind_type == "role" && !rule.bind_name.contains("${") && !roles.contains(&rule.bind_name);
    let place = FindingLocation::resource(consul_path(name, "binding-rule", &rule.id)).field("BindName");
    is_missing.then(|| RULE_ROLE.violation(place, format!("role {:?} does not exist", rule.bind_name)))
}

fn duplicate(name: &str, rules: &[&AuditedBindingRule]) -> Vec<AuditFinding> {
    let mut first: BTreeMap<(&str, &str, &str), &str> = BTreeMap::new();
    let mut findings = Vec::new();
    for rule in rules {
        let key = (rule.bind_type.as_str(), rule.bind_name.as_str(), rule.selector.as_str());
        match first.get(&key) {
            Some(other) => {
                let place = FindingLocation::resource(consul_path(name, "binding-rule", &rule.id));
                findings.push(
                    RULE_DUPLICATE.violation(place, format!("same type, name and selector as {other}")),
                );
            }
            None => {
                first.insert(key, &rule.id);
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::tags_of;

    #[test]
    fn tags_are_found_in_selectors_and_names() {
        for (expression, tags) in [
            ("entity_tags[\"a.b\"] == \"x\" and entity_tags[\"c\"] != \"\"", vec!["a.b", "c"]),
            ("${entity_tags.consul.hashicorp.com.service-name}", vec!["consul.hashicorp.com.service-name"]),
            ("prefix-${entity_tags.a}-${entity_tags.b}", vec!["a", "b"]),
            ("entity_name == \"x\"", vec![]),
            ("", vec![]),
        ] {
            assert_eq!(tags_of(expression).collect::<Vec<_>>(), tags, "{expression}");
        }
    }
}
