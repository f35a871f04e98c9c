//! Policies of IAM, as far as they decide who may set which tags of roles.
//!
//! A principal counts as unrestricted if a policy allows it to tag roles without saying anything about the keys, and neither
//! a Deny nor its permissions boundary does. A statement that names the key restricts it, whoever it makes an exception for:
//! the pipeline that is to set the tags is such an exception.
//!
//! Sources: <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html> and
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/access_tags.html> (`aws:TagKeys`, `aws:RequestTag`).

use std::collections::BTreeSet;

use serde_json::Value;

use ecs_mesh_aws::inspect::{AttachedPolicies, AuthorizationDetails, PrincipalDetails};
use ecs_mesh_model::Glob;

/// The calls that set tags of roles.
const ACTIONS: [&str; 2] = ["iam:tagrole", "iam:createrole"];
/// Service-linked roles are AWS's own, and no policy of the account restricts them.
const SERVICE_LINKED: &str = ":role/aws-service-role/";

/// A principal that may set tags of roles that no statement restricts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TagWriter {
    /// Its ARN.
    pub(crate) principal: String,
    /// The policy that allows it.
    pub(crate) policy: GrantingPolicy,
    /// The keys that are not restricted.
    pub(crate) keys: BTreeSet<&'static str>,
}

/// The policy that allows a call.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum GrantingPolicy {
    /// A managed policy, by its ARN.
    Managed(String),
    /// An inline policy of the principal or of one of its groups, by its name.
    Inline(String),
}

/// The principals that may give a role one of these tags, although nothing restricts that key.
pub(crate) fn tag_writers(details: &AuthorizationDetails, keys: &[&'static str]) -> Vec<TagWriter> {
    let principals = details.principals.iter().filter(|principal| !principal.arn.contains(SERVICE_LINKED));
    principals.filter_map(|principal| tag_writer(details, principal, keys)).collect()
}

fn tag_writer(
    details: &AuthorizationDetails,
    principal: &PrincipalDetails,
    keys: &[&'static str],
) -> Option<TagWriter> {
    let policies = policies(details, principal);
    let boundary = principal.boundary.as_ref().and_then(|arn| details.managed.get(arn));
    let boundary = boundary.map(|document| statements(document));
    let mut granting = None;
    let mut unrestricted = BTreeSet::new();
    for key in keys {
        let policy = ACTIONS.iter().find_map(|action| grant(&policies, boundary.as_deref(), action, key));
        if let Some(policy) = policy {
            unrestricted.insert(*key);
            granting.get_or_insert(policy);
        }
    }
    let policy = granting?.clone();
    Some(TagWriter { principal: principal.arn.clone(), policy, keys: unrestricted })
}

/// The policy that allows the action without a restriction of the key, if nothing else restricts it.
fn grant<'p>(
    policies: &'p [(GrantingPolicy, Vec<PolicyStatement>)],
    boundary: Option<&[PolicyStatement]>,
    action: &str,
    key: &str,
) -> Option<&'p GrantingPolicy> {
    let mut all =
        policies.iter().flat_map(|(_, statements)| statements).chain(boundary.into_iter().flatten());
    if all.any(|statement| statement.denies(action, key)) {
        return None;
    }
    let allows = |statements: &[PolicyStatement]| statements.iter().any(|one| one.allows(action, key));
    if boundary.is_some_and(|boundary| !allows(boundary)) {
        return None;
    }
    policies.iter().find(|(_, statements)| allows(statements)).map(|(policy, _)| policy)
}

/// The identity policies of a principal, those of its groups included.
fn policies(
    details: &AuthorizationDetails,
    principal: &PrincipalDetails,
) -> Vec<(GrantingPolicy, Vec<PolicyStatement>)> {
    let groups = principal.groups.iter().filter_map(|group| details.groups.get(group));
    let mut found = Vec::new();
    for AttachedPolicies { inline, managed } in std::iter::once(&principal.policies).chain(groups) {
        for (name, document) in inline {
            found.push((GrantingPolicy::Inline(name.clone()), statements(document)));
        }
        for arn in managed {
            let document = details.managed.get(arn).map(String::as_str).unwrap_or_default();
            found.push((GrantingPolicy::Managed(arn.clone()), statements(document)));
        }
    }
    found
}

/// A statement of a policy.
#[derive(Clone, Debug)]
struct PolicyStatement {
    value: Value,
}

fn statements(document: &str) -> Vec<PolicyStatement> {
    let document: Value = serde_json::from_str(document).unwrap_or_default();
    one_or_many(&document["Statement"]).map(|value| PolicyStatement { value: value.clone() }).collect()
}

impl PolicyStatement {
    /// Whether the statement allows the action on some role, whatever tags it sets.
    fn allows(&self, action: &str, key: &str) -> bool {
        self.value["Effect"] == "Allow"
            && self.acts(action)
            && self.resources(may_be_role)
            && !self.conditions().any(|condition| condition.restricts(key))
    }

    /// Whether the statement denies the action on every role where it sets the tag, exceptions aside.
    fn denies(&self, action: &str, key: &str) -> bool {
        // The resources that a NotResource exempts stay open.
        let is_every = self.value["NotResource"].is_null() && self.resources(is_every_role);
        if self.value["Effect"] != "Deny" || !self.acts(action) || !is_every {
            return false;
        }
        let (on_tags, others): (Vec<_>, Vec<_>) =
            self.conditions().partition(|condition| condition.tag().is_some());
        if on_tags.is_empty() {
            // Such as all principals but one.
            return others.is_empty()
                || others.iter().any(|one| one.key == "aws:principalarn" && one.is_negated());
        }
        on_tags.iter().all(|condition| condition.names(key))
    }

    fn acts(&self, action: &str) -> bool {
        let any = |field: &str| {
            one_or_many(&self.value[field])
                .filter_map(Value::as_str)
                .any(|pattern| Glob::new(pattern.to_lowercase()).matches(action))
        };
        if self.value["NotAction"].is_null() { any("Action") } else { !any("NotAction") }
    }

    fn resources(&self, fits: fn(&str) -> bool) -> bool {
        !self.value["NotResource"].is_null()
            || one_or_many(&self.value["Resource"]).filter_map(Value::as_str).any(fits)
    }

    fn conditions(&self) -> impl Iterator<Item = TagCondition<'_>> {
        let operators = self.value["Condition"].as_object().into_iter().flatten();
        operators.flat_map(|(operator, keys)| {
            keys.as_object().into_iter().flatten().map(move |(key, values)| TagCondition {
                operator: operator.to_lowercase(),
                key: key.to_lowercase(),
                values,
            })
        })
    }
}

/// One condition of a statement.
struct TagCondition<'p> {
    operator: String,
    key: String,
    values: &'p Value,
}

/// The subject of a condition.
enum TagSubject<'c> {
    /// The keys of all tags in the request.
    Keys,
    /// The value of the tag with this key, in lower case.
    Value(&'c str),
}

impl TagCondition<'_> {
    fn tag(&self) -> Option<TagSubject<'_>> {
        if self.key == "aws:tagkeys" {
            return Some(TagSubject::Keys);
        }
        self.key.strip_prefix("aws:requesttag/").map(TagSubject::Value)
    }

    /// Whether the condition, in an Allow, keeps the tag from being set, or is about it on purpose.
    fn restricts(&self, key: &str) -> bool {
        match self.tag() {
            None => false,
            Some(TagSubject::Value(tag)) => tag.eq_ignore_ascii_case(key),
            // The request has no tags at all.
            Some(TagSubject::Keys) if self.operator.starts_with("null") => self.has_value("true"),
            // One allowed key lets all others pass.
            // A list of keys that are not allowed lets all others pass, too.
            Some(TagSubject::Keys) if self.operator.starts_with("foranyvalue:") || self.is_negated() => {
                self.lists(key)
            }
            Some(TagSubject::Keys) => !self.has_value("*"),
        }
    }

    /// Whether the condition, in a Deny, is met by a request that sets the tag.
    fn names(&self, key: &str) -> bool {
        match self.tag() {
            None => false,
            Some(TagSubject::Value(tag)) => tag.eq_ignore_ascii_case(key),
            Some(TagSubject::Keys) if self.operator.starts_with("null") => self.has_value("false"),
            // Another tag in the request suffices to escape it.
            Some(TagSubject::Keys) if self.operator.starts_with("forallvalues:") => false,
            // The listed keys are those that may be set.
            Some(TagSubject::Keys) if self.is_negated() => !self.has_value("*") && !self.lists(key),
            Some(TagSubject::Keys) => self.has_value("*") || self.lists(key),
        }
    }

    fn is_negated(&self) -> bool {
        self.operator.contains("not")
    }

    fn values(&self) -> impl Iterator<Item = &str> {
        one_or_many(self.values).filter_map(Value::as_str)
    }

    fn has_value(&self, wanted: &str) -> bool {
        self.values().any(|value| value.eq_ignore_ascii_case(wanted))
            || one_or_many(self.values)
                .any(|value| value.as_bool().is_some_and(|flag| flag.to_string() == wanted))
    }

    /// Whether a value other than `*` stands for the key.
    fn lists(&self, key: &str) -> bool {
        self.values().any(|value| value != "*" && Glob::new(value).matches(key))
    }
}

/// Whether the pattern may stand for a role's ARN.
fn may_be_role(pattern: &str) -> bool {
    let start = pattern.split(['*', '?']).next().unwrap_or_default();
    let mut parts = start.split(':').skip(2);
    let (service, resource) = (parts.next(), parts.nth(2));
    service.is_none_or(|service| "iam".starts_with(service))
        && resource.is_none_or(|resource| resource.starts_with("role/") || "role/".starts_with(resource))
}

/// Whether the pattern matches all roles of the account.
fn is_every_role(pattern: &str) -> bool {
    pattern == "*" || pattern.ends_with(":role/*") || pattern.ends_with("::*")
}

fn one_or_many(value: &Value) -> impl Iterator<Item = &Value> {
    let many = value.as_array().map(Vec::as_slice);
    many.unwrap_or_else(|| std::slice::from_ref(value)).iter().filter(|item| !item.is_null())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const KEYS: [&str; 2] = ["kuma.io/mesh", "kuma.io/service"];

    /// The keys that a role with these statements may set without a restriction.
    fn writes(statements: &Value, boundary: Option<&Value>) -> Vec<&'static str> {
        let document = |statements: &Value| json!({"Statement": statements}).to_string();
        let arn = "arn:aws:iam::111122223333:policy/boundary";
        let principal = PrincipalDetails {
            arn: "arn:aws:iam::111122223333:role/deployer".to_owned(),
            policies: AttachedPolicies {
                inline: [("p".to_owned(), document(statements))].into(),
                managed: Vec::new(),
            },
            boundary: boundary.map(|_| arn.to_owned()),
            ..PrincipalDetails::default()
        };
        let details = AuthorizationDetails {
            principals: vec![principal],
            managed: boundary.map(|statements| (arn.to_owned(), document(statements))).into_iter().collect(),
            ..AuthorizationDetails::default()
        };
        tag_writers(&details, &KEYS).into_iter().flat_map(|writer| writer.keys).collect()
    }

    fn allow(changes: &Value) -> Value {
        let mut statement = json!({"Effect": "Allow", "Action": "iam:TagRole", "Resource": "*"});
        statement.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        statement
    }

    #[test]
    fn allowed_call_is_unrestricted_without_a_tag_condition() {
        for changes in [
            json!({}),
            json!({"Action": ["iam:Tag*"]}),
            json!({"Action": "IAM:CREATEROLE"}),
            json!({"Action": null, "NotAction": ["ec2:*"]}),
            json!({"Resource": "arn:aws:iam::111122223333:role/team-a/*"}),
            json!({"Condition": {"Bool": {"aws:MultiFactorAuthPresent": "true"}}}),
            json!({"Condition": {"StringEquals": {"aws:RequestTag/team": "a"}}}),
            json!({"Condition": {"ForAnyValue:StringEquals": {"aws:TagKeys": ["team"]}}}),
        ] {
            assert_eq!(writes(&json!([allow(&changes)]), None), KEYS, "{changes}");
        }
    }

    #[test]
    fn tag_condition_or_other_call_restricts_an_allow() {
        for changes in [
            json!({"Action": "iam:GetRole"}),
            json!({"Action": null, "NotAction": ["iam:*"]}),
            json!({"Resource": "arn:aws:iam::111122223333:user/*"}),
            json!({"Resource": "arn:aws:s3:::*"}),
            json!({"Condition": {"ForAllValues:StringEquals": {"aws:TagKeys": ["team"]}}}),
            json!({"Condition": {"ForAllValues:StringLike": {"aws:TagKeys": ["kuma.io/*"]}}}),
            json!({"Condition": {"Null": {"aws:TagKeys": true}}}),
        ] {
            assert_eq!(writes(&json!([allow(&changes)]), None), Vec::<&str>::new(), "{changes}");
        }
    }

    #[test]
    fn deny_restricts_the_keys_that_it_names() {
        let deny = |changes: Value| {
            let mut statement = allow(&changes);
            statement["Effect"] = json!("Deny");
            statement
        };
        let none: &[&str] = &[];
        for (statement, unrestricted) in [
            (deny(json!({})), none),
            (
                deny(json!({"Condition": {"ForAnyValue:StringLike": {"aws:TagKeys": ["kuma.io/*"]},
                "ArnNotLike": {"aws:PrincipalArn": "arn:*:iam::*:role/mesh-deployer"}}})),
                none,
            ),
            (deny(json!({"Condition": {"ArnNotLike": {"aws:PrincipalArn": "arn:*:role/x"}}})), none),
            (
                deny(
                    json!({"Condition": {"ForAnyValue:StringEqualsIgnoreCase": {"aws:TagKeys": ["kuma.io/mesh"]}}}),
                ),
                &KEYS[1..],
            ),
            (deny(json!({"Condition": {"Bool": {"aws:MultiFactorAuthPresent": "false"}}})), &KEYS),
            (deny(json!({"Resource": "arn:aws:iam::111122223333:role/a"})), &KEYS),
            (deny(json!({"Resource": null, "NotResource": "arn:aws:iam::111122223333:role/a"})), &KEYS),
            (deny(json!({"Condition": {"ArnEquals": {"aws:PrincipalArn": "arn:*:role/x"}}})), &KEYS),
            (deny(json!({"Condition": {"ForAnyValue:StringNotEquals": {"aws:TagKeys": ["team"]}}})), none),
            (
                deny(
                    json!({"Condition": {"ForAnyValue:StringNotEquals": {"aws:TagKeys": ["kuma.io/mesh"]}}}),
                ),
                &KEYS[..1],
            ),
            (deny(json!({"Condition": {"ForAllValues:StringLike": {"aws:TagKeys": ["kuma.io/*"]}}})), &KEYS),
        ] {
            assert_eq!(writes(&json!([allow(&json!({})), statement]), None), unrestricted, "{statement}");
        }
    }

    #[test]
    fn boundary_restricts_what_it_does_not_allow() {
        let everything = json!([{"Effect": "Allow", "Action": "*", "Resource": "*"}]);
        let nothing = json!([{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]);
        assert_eq!(writes(&everything, Some(&everything)), KEYS);
        assert_eq!(writes(&everything, Some(&nothing)), Vec::<&str>::new());
    }

    #[test]
    fn service_linked_roles_are_left_out() {
        let principal = PrincipalDetails {
            arn: "arn:aws:iam::111122223333:role/aws-service-role/x.amazonaws.com/X".to_owned(),
            policies: AttachedPolicies {
                inline: [("p".to_owned(), json!({"Statement": allow(&json!({}))}).to_string())].into(),
                managed: Vec::new(),
            },
            ..PrincipalDetails::default()
        };
        let details = AuthorizationDetails { principals: vec![principal], ..AuthorizationDetails::default() };
        assert_eq!(tag_writers(&details, &KEYS), []);
    }
}
