//! Evaluates whether a queue's policy allows EventBridge to send for a rule, and which others it allows.
//!
//! Supports the elements that such policies have in practice; anything else is unclear, never allowed.
//! Source: <https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-use-resource-based.html>.

use serde_json::Value;

use ecs_mesh_model::Glob;

/// Verdict of a policy on a rule's messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PolicyVerdict {
    /// Allowed; `also` names further senders if the policy is too broad.
    Allowed {
        /// Further allowed senders.
        also: Option<&'static str>,
    },
    /// No statement allows them.
    NotAllowed,
    /// A statement forbids them.
    Forbidden,
    /// Depends on elements that are not evaluated.
    Unclear(String),
}

/// A rule that sends to a queue.
#[derive(Clone, Copy, Debug)]
pub(super) struct RuleSender<'a> {
    /// The rule's ARN.
    pub(super) rule: &'a str,
    /// The rule's account.
    pub(super) account: &'a str,
    /// The queue's ARN.
    pub(super) queue: &'a str,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Tristate {
    No,
    Maybe,
    Yes,
}

/// Evaluates the policy's text; an empty policy allows no sender.
pub(super) fn evaluate(policy: &str, sender: RuleSender<'_>) -> PolicyVerdict {
    if policy.trim().is_empty() {
        return PolicyVerdict::NotAllowed;
    }
    let Ok(policy) = serde_json::from_str::<Value>(policy) else {
        return PolicyVerdict::Unclear("the policy is not JSON".to_owned());
    };
    let statements: Vec<&Value> = list(&policy["Statement"]).filter(|s| is_about(s, sender)).collect();
    let of = |effect: &'static str| statements.iter().filter(move |s| s["Effect"] == effect);
    let denied = of("Deny").map(|s| holds(s, sender)).max().unwrap_or(Tristate::No);
    let allowed = of("Allow").map(|s| holds(s, sender)).max().unwrap_or(Tristate::No);
    match (denied, allowed) {
        (Tristate::Yes, _) => PolicyVerdict::Forbidden,
        (_, Tristate::No) => PolicyVerdict::NotAllowed,
        (Tristate::Maybe, _) => {
            PolicyVerdict::Unclear("a Deny statement has conditions of its own".to_owned())
        }
        (Tristate::No, Tristate::Maybe) => {
            PolicyVerdict::Unclear("the statement that allows it has conditions of its own".to_owned())
        }
        (Tristate::No, Tristate::Yes) => {
            PolicyVerdict::Allowed { also: of("Allow").find_map(|s| too_many(s)) }
        }
    }
}

/// Whether a policy keeps senders out that an identity policy of the account lets send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum DenyVerdict {
    /// Denied to all but these sources.
    Denied {
        /// The values of `aws:SourceArn` that may send.
        but: Vec<String>,
    },
    /// No statement denies it.
    NotDenied,
    /// The statement denies other actions, too, the operator's own calls among them.
    DeniesMore,
    /// The policy is not JSON.
    Unreadable,
}

/// Finds the statement that denies `sqs:SendMessage` to every principal but for some sources. A condition with a negated
/// operator also holds where a request has no `aws:SourceArn`, as every direct call of a principal.
///
/// Source: <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_condition_operators.html>.
pub(super) fn denies_others(policy: &str, queue: &str) -> DenyVerdict {
    if policy.trim().is_empty() {
        return DenyVerdict::NotDenied;
    }
    let Ok(policy) = serde_json::from_str::<Value>(policy) else { return DenyVerdict::Unreadable };
    let mut verdict = DenyVerdict::NotDenied;
    for statement in list(&policy["Statement"]) {
        let on_queue = list(&statement["Resource"])
            .any(|name| Glob::new(name.as_str().unwrap_or_default()).matches(queue));
        let Some(but) = excepted_sources(statement) else { continue };
        if statement["Effect"] != "Deny" || !is_anyone(&statement["Principal"]) || !on_queue {
            continue;
        }
        let actions: Vec<String> =
            list(&statement["Action"]).filter_map(Value::as_str).map(str::to_lowercase).collect();
        if actions.iter().all(|action| action == "sqs:sendmessage") && !actions.is_empty() {
            return DenyVerdict::Denied { but };
        }
        if statement.get("NotAction").is_some()
            || actions.iter().any(|action| Glob::new(action).matches("sqs:sendmessage"))
        {
            verdict = DenyVerdict::DeniesMore;
        }
    }
    verdict
}

/// The sources that a statement's only condition excepts; `None` for any other condition.
fn excepted_sources(statement: &Value) -> Option<Vec<String>> {
    let mut found = conditions(statement);
    let (operator, key, values) = found.next()?;
    let negated = ["ArnNotEquals", "ArnNotLike", "StringNotEquals", "StringNotLike"].contains(&operator);
    if found.next().is_some() || !negated || !key.eq_ignore_ascii_case("aws:SourceArn") {
        return None;
    }
    let sources: Vec<String> = list(values).filter_map(Value::as_str).map(str::to_owned).collect();
    (!sources.is_empty() && !sources.iter().any(|source| source.trim_matches('*').is_empty()))
        .then_some(sources)
}

/// Whether the statement concerns EventBridge, sending, and this queue.
fn is_about(statement: &Value, sender: RuleSender<'_>) -> bool {
    let principal = &statement["Principal"];
    let by_service = list(&principal["Service"]).any(|name| name == "events.amazonaws.com");
    let others = statement.get("NotPrincipal").is_some();
    let action = |name: &Value| {
        let name = name.as_str().unwrap_or_default().to_lowercase();
        Glob::new(name).matches("sqs:sendmessage")
    };
    let resource = |name: &Value| Glob::new(name.as_str().unwrap_or_default()).matches(sender.queue);
    (by_service || is_anyone(principal) || others)
        && (list(&statement["Action"]).any(action) || statement.get("NotAction").is_some())
        && (list(&statement["Resource"]).any(resource) || statement.get("NotResource").is_some())
}

fn is_anyone(principal: &Value) -> bool {
    principal == "*" || list(&principal["AWS"]).any(|name| name == "*")
}

fn holds(statement: &Value, sender: RuleSender<'_>) -> Tristate {
    if ["NotPrincipal", "NotAction", "NotResource"].iter().any(|name| statement.get(*name).is_some()) {
        return Tristate::Maybe;
    }
    conditions(statement)
        .map(|(operator, key, values)| condition(operator, key, values, sender))
        .min()
        .unwrap_or(Tristate::Yes)
}

/// Operator, key and values of each condition.
fn conditions(statement: &Value) -> impl Iterator<Item = (&str, &str, &Value)> {
    let operators = statement["Condition"].as_object().into_iter().flatten();
    operators.flat_map(|(operator, keys)| {
        let keys = keys.as_object().into_iter().flatten();
        keys.map(move |(key, values)| (operator.as_str(), key.as_str(), values))
    })
}

fn condition(operator: &str, key: &str, values: &Value, sender: RuleSender<'_>) -> Tristate {
    let operator = operator.strip_suffix("IfExists").unwrap_or(operator);
    let key = key.to_lowercase();
    let actual = match key.as_str() {
        "aws:sourcearn" => sender.rule,
        "aws:sourceaccount" => sender.account,
        // EventBridge sends over TLS.
        "aws:securetransport" => "true",
        _ => return Tristate::Maybe,
    };
    let (equal, wild) = match operator {
        "ArnEquals" | "ArnLike" | "StringLike" => (true, true),
        "ArnNotEquals" | "ArnNotLike" | "StringNotLike" => (false, true),
        "StringEquals" | "Bool" => (true, false),
        "StringNotEquals" => (false, false),
        _ => return Tristate::Maybe,
    };
    let matches = list(values).any(|value| {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        if wild { Glob::new(value).matches(actual) } else { value == actual }
    });
    if matches == equal { Tristate::Yes } else { Tristate::No }
}

/// Other principals that a statement for EventBridge lets send.
fn too_many(statement: &Value) -> Option<&'static str> {
    let bounds = |wanted: &str, is_bound: &dyn Fn(&str) -> bool| {
        conditions(statement).any(|(operator, key, values)| {
            !operator.contains("Not")
                && key.eq_ignore_ascii_case(wanted)
                && list(values).all(|value| value.as_str().is_some_and(is_bound))
        })
    };
    let is_wild = |text: &str| text.contains(['*', '?']);
    let has_account = |arn: &str| {
        !is_wild(arn) || arn.split(':').nth(4).is_some_and(|account| account.len() == 12 && !is_wild(account))
    };
    if bounds("aws:SourceArn", &has_account) || bounds("aws:SourceAccount", &|account| !is_wild(account)) {
        return None;
    }
    Some(if is_anyone(&statement["Principal"]) { "any caller" } else { "the rules of any AWS account" })
}

/// The items of a list, or the one thing that stands for a list of one.
fn list(value: &Value) -> impl Iterator<Item = &Value> {
    let items = match value {
        Value::Array(items) => items.as_slice(),
        Value::Null => &[],
        one => std::slice::from_ref(one),
    };
    items.iter()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const RULE: &str = "arn:aws:events:eu-west-1:111122223333:rule/tasks";
    const QUEUE: &str = "arn:aws:sqs:eu-west-1:111122223333:q";

    fn allow(condition: &Value) -> Value {
        json!({
            "Effect": "Allow", "Principal": {"Service": "events.amazonaws.com"},
            "Action": "sqs:SendMessage", "Resource": QUEUE, "Condition": condition,
        })
    }

    fn verdict(statements: &Value) -> PolicyVerdict {
        let sender = RuleSender { rule: RULE, account: "111122223333", queue: QUEUE };
        evaluate(&json!({"Statement": statements}).to_string(), sender)
    }

    #[test]
    fn queue_policy_allows_rule_by_source_arn_or_account() {
        let fine = PolicyVerdict::Allowed { also: None };
        for condition in [
            json!({"ArnEquals": {"aws:SourceArn": RULE}}),
            json!({"ArnLike": {"AWS:SourceArn": ["x", "arn:aws:events:*:111122223333:rule/*"]}}),
            json!({"StringEquals": {"aws:SourceAccount": "111122223333"}}),
        ] {
            assert_eq!(verdict(&allow(&condition)), fine, "{condition}");
        }
    }

    #[test]
    fn permissive_statements_are_described() {
        let strangers = PolicyVerdict::Allowed { also: Some("the rules of any AWS account") };
        assert_eq!(verdict(&json!([allow(&json!({}))])), strangers);
        let loose = json!({"ArnLike": {"aws:SourceArn": "arn:aws:events:*:*:rule/tasks"}});
        assert_eq!(verdict(&json!([allow(&loose)])), strangers);
        let mut open = allow(&json!({}));
        open["Principal"] = json!("*");
        open["Action"] = json!(["SQS:*"]);
        assert_eq!(verdict(&json!([open])), PolicyVerdict::Allowed { also: Some("any caller") });
    }

    #[test]
    fn deny_of_other_senders_is_found() {
        let deny = |condition: &Value| {
            json!({
                "Effect": "Deny", "Principal": "*", "Action": "sqs:SendMessage", "Resource": QUEUE,
                "Condition": condition,
            })
        };
        let verdict =
            |statements: &Value| denies_others(&json!({"Statement": statements}).to_string(), QUEUE);
        let mine = deny(&json!({"ArnNotEquals": {"aws:SourceArn": RULE}}));
        let denied = DenyVerdict::Denied { but: vec![RULE.to_owned()] };
        assert_eq!(verdict(&json!([mine])), denied);
        assert_eq!(verdict(&mine), denied);
        assert_eq!(denies_others("", QUEUE), DenyVerdict::NotDenied);
        assert_eq!(denies_others("x", QUEUE), DenyVerdict::Unreadable);
        let with = |field: &str, value: Value| {
            let mut changed = mine.clone();
            changed[field] = value;
            changed
        };
        for changed in [
            with("Effect", json!("Allow")),
            with("Principal", json!({"AWS": "111122223333"})),
            with("Resource", json!("arn:aws:sqs:eu-west-1:111122223333:other")),
            with("Action", json!("sqs:ReceiveMessage")),
            deny(&json!({"ArnEquals": {"aws:SourceArn": RULE}})),
            deny(&json!({"ArnNotLike": {"aws:SourceArn": "*"}})),
            deny(&json!({"ArnNotEquals": {"aws:SourceArn": RULE}, "Bool": {"aws:SecureTransport": "false"}})),
            deny(&json!({"ArnNotEqualsIfExists": {"aws:SourceArn": RULE}})),
        ] {
            assert_eq!(verdict(&json!([changed])), DenyVerdict::NotDenied, "{changed}");
        }
        for actions in [json!("sqs:*"), json!(["sqs:SendMessage", "sqs:ReceiveMessage"])] {
            assert_eq!(
                verdict(&json!([with("Action", actions.clone())])),
                DenyVerdict::DeniesMore,
                "{actions}"
            );
        }
    }

    #[test]
    fn blocking_statements_are_described() {
        let mine = allow(&json!({"ArnEquals": {"aws:SourceArn": RULE}}));
        let other =
            allow(&json!({"ArnEquals": {"aws:SourceArn": "arn:aws:events:eu-west-1:111122223333:rule/x"}}));
        assert_eq!(verdict(&json!([other])), PolicyVerdict::NotAllowed);
        assert_eq!(verdict(&json!([])), PolicyVerdict::NotAllowed);
        let mut elsewhere = mine.clone();
        elsewhere["Resource"] = json!("arn:aws:sqs:eu-west-1:111122223333:other");
        assert_eq!(verdict(&json!([elsewhere])), PolicyVerdict::NotAllowed);
        let deny = json!({"Effect": "Deny", "Principal": "*", "Action": "sqs:*", "Resource": "*"});
        assert_eq!(verdict(&json!([mine, deny])), PolicyVerdict::Forbidden);
        let mut plain_http = deny.clone();
        plain_http["Condition"] = json!({"Bool": {"aws:SecureTransport": "false"}});
        assert_eq!(verdict(&json!([mine, plain_http])), PolicyVerdict::Allowed { also: None });
        let mut by_network = deny;
        by_network["Condition"] = json!({"StringNotEquals": {"aws:SourceVpc": "vpc-1"}});
        assert!(matches!(verdict(&json!([mine, by_network])), PolicyVerdict::Unclear(_)));
    }
}
