//! Permissions of a token: the rules of its policies and their precedence.
//!
//! An exact rule precedes a prefix, and a longer prefix a shorter one. Of rules for the same name, `deny` precedes
//! all others, then the higher access level.

use std::collections::BTreeMap;

use super::hcl::{self, PolicyBody, PolicyItem};

/// Resource type of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Resource {
    Acl,
    Agent,
    Event,
    Key,
    Keyring,
    Mesh,
    Node,
    Operator,
    Peering,
    Query,
    Service,
    Session,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum AccessLevel {
    Read,
    List,
    Write,
    /// Takes precedence over all other levels.
    Deny,
}

/// Keyword in rules, and whether the rule has a name.
const WORDS: &[(&str, Resource, bool)] = &[
    ("acl", Resource::Acl, false),
    ("keyring", Resource::Keyring, false),
    ("mesh", Resource::Mesh, false),
    ("operator", Resource::Operator, false),
    ("peering", Resource::Peering, false),
    ("agent", Resource::Agent, true),
    ("event", Resource::Event, true),
    ("key", Resource::Key, true),
    ("node", Resource::Node, true),
    ("query", Resource::Query, true),
    ("service", Resource::Service, true),
    ("session", Resource::Session, true),
];

impl Resource {
    pub(super) fn from_name(word: &str) -> Option<Self> {
        WORDS.iter().find(|(known, ..)| *known == word).map(|(_, resource, _)| *resource)
    }

    pub(super) fn word(self) -> &'static str {
        WORDS.iter().find(|(_, resource, _)| *resource == self).map_or("", |(word, ..)| word)
    }
}

impl AccessLevel {
    /// The level with this keyword.
    pub(super) fn from_name(word: &str) -> Option<Self> {
        match word {
            "read" => Some(Self::Read),
            "list" => Some(Self::List),
            "write" => Some(Self::Write),
            _ => None,
        }
    }
}

/// One rule of a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PolicyRule {
    resource: Resource,
    name: String,
    prefix: bool,
    level: AccessLevel,
}

/// Parses a policy's rules. Rules for Enterprise partitions and namespaces are ignored.
pub(super) fn parse(text: &str) -> Result<Vec<PolicyRule>, String> {
    let items = hcl::parse(text).map_err(|what| format!("decoding the rules: {what}"))?;
    let mut rules = Vec::new();
    for item in &items {
        let (word, prefix) = match item.key.strip_suffix("_prefix") {
            Some(word) => (word, true),
            None => (item.key.as_str(), false),
        };
        let Some((_, resource, named)) = WORDS.iter().find(|(known, ..)| *known == word) else { continue };
        if *named {
            rules.push(named_rule(*resource, prefix, item)?);
        } else if !prefix {
            let level = level(*resource, text_of(&item.body))?;
            rules.push(PolicyRule { resource: *resource, name: String::new(), prefix: true, level });
        }
    }
    Ok(rules)
}

fn named_rule(resource: Resource, prefix: bool, item: &PolicyItem) -> Result<PolicyRule, String> {
    let (PolicyBody::Block(inner), [name]) = (&item.body, item.labels.as_slice()) else {
        return Err(format!("{} needs one name and a block with its policy", item.key));
    };
    let policy = inner.iter().find(|inner| inner.key == "policy").and_then(|inner| text_of(&inner.body));
    Ok(PolicyRule { resource, name: name.clone(), prefix, level: level(resource, policy)? })
}

fn text_of(body: &PolicyBody) -> Option<&str> {
    match body {
        PolicyBody::Value(value) => value.as_str(),
        PolicyBody::Block(_) => None,
    }
}

fn level(resource: Resource, text: Option<&str>) -> Result<AccessLevel, String> {
    match text {
        Some("read") => Ok(AccessLevel::Read),
        Some("write") => Ok(AccessLevel::Write),
        Some("deny") => Ok(AccessLevel::Deny),
        Some("list") if resource == Resource::Key => Ok(AccessLevel::List),
        other => {
            let (word, found) = (resource.word(), other.unwrap_or_default());
            Err(format!("the policy of {word} is {found:?}; read, write and deny are allowed"))
        }
    }
}

/// The merged policies of a token. Without a matching rule, access is denied.
#[derive(Clone, Debug, Default)]
pub(super) struct Permissions {
    exact: BTreeMap<(Resource, String), AccessLevel>,
    prefixes: BTreeMap<(Resource, String), AccessLevel>,
}

impl Permissions {
    pub(super) fn add(&mut self, rules: &[PolicyRule]) {
        for rule in rules {
            let known = if rule.prefix { &mut self.prefixes } else { &mut self.exact };
            let level = known.entry((rule.resource, rule.name.clone())).or_insert(rule.level);
            *level = rule.level.max(*level);
        }
    }

    pub(super) fn allow(&self, resource: Resource, name: &str, wanted: AccessLevel) -> bool {
        match self.level(resource, name) {
            Some(AccessLevel::Deny) => false,
            Some(found) => found >= wanted,
            None => match resource {
                // Without rules of their own, these follow `operator`.
                Resource::Mesh | Resource::Peering => self.allow(Resource::Operator, "", wanted),
                _ => false,
            },
        }
    }

    fn level(&self, resource: Resource, name: &str) -> Option<AccessLevel> {
        if let Some(level) = self.exact.get(&(resource, name.to_owned())) {
            return Some(*level);
        }
        let longest = (0..=name.len()).rev().filter_map(|end| name.get(..end));
        longest.into_iter().find_map(|prefix| self.prefixes.get(&(resource, prefix.to_owned()))).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permissions(texts: &[&str]) -> Permissions {
        let mut permissions = Permissions::default();
        for text in texts {
            permissions.add(&parse(text).unwrap());
        }
        permissions
    }

    #[test]
    fn most_specific_acl_rule_wins() {
        let permissions = permissions(&[
            "service_prefix \"\" { policy = \"read\" } service_prefix \"web\" { policy = \"write\" }
             service \"web-admin\" { policy = \"deny\" }",
        ]);
        assert!(permissions.allow(Resource::Service, "db", AccessLevel::Read));
        assert!(!permissions.allow(Resource::Service, "db", AccessLevel::Write));
        assert!(permissions.allow(Resource::Service, "web-2", AccessLevel::Write));
        assert!(!permissions.allow(Resource::Service, "web-admin", AccessLevel::Read));
        assert!(!permissions.allow(Resource::Node, "web", AccessLevel::Read));
    }

    #[test]
    fn deny_in_any_policy_takes_precedence() {
        let permissions = permissions(&["acl = \"write\"", "acl = \"deny\"", "operator = \"read\""]);
        assert!(!permissions.allow(Resource::Acl, "", AccessLevel::Read));
        assert!(permissions.allow(Resource::Mesh, "", AccessLevel::Read));
        assert!(!permissions.allow(Resource::Mesh, "", AccessLevel::Write));
    }

    #[test]
    fn unknown_level_is_rejected_enterprise_rule_ignored() {
        assert!(parse("mesh = \"maybe\"").is_err());
        assert!(parse("node \"a\" { policy = \"list\" }").is_err());
        assert!(parse("node \"a\" { }").is_err());
        assert_eq!(parse("partition_prefix \"\" { peering = \"read\" }"), Ok(Vec::new()));
    }
}
