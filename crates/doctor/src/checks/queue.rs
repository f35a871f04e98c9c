//! The queue: readable, with sufficient retention, and without unnoticed loss of messages.

use std::time::Duration;

use crate::catalogue::{
    QUEUE, QUEUE_DEAD_LETTERS, QUEUE_DEPTH, QUEUE_ENCRYPTION, QUEUE_POLICY, QUEUE_RECEIVE, QUEUE_RETENTION,
    QUEUE_SENDERS, QUEUE_VISIBILITY,
};
use crate::facts::{Attributes, AwsObservations, DoctorFacts, QueueFacts};
use crate::queue_policy::{self, DenyVerdict, PolicyVerdict, RuleSender};
use crate::report::CheckResult;
use crate::scope::DoctorScope;
use ecs_mesh_model::docs_url;

/// SQS's own default.
const DEFAULT_RETENTION: u64 = 4 * 24 * 3600;
/// Below this a good message ends as a dead letter when the operator is restarted twice while it works on it.
const FEWEST_RECEIVES: u64 = 3;
/// From here on more comes than is taken.
const MANY_MESSAGES: u64 = 1_000;

pub(super) fn check(facts: &DoctorFacts) -> Vec<CheckResult> {
    let Some(url) = facts.queue_url.as_deref() else {
        return vec![QUEUE.info("no queue", "none is given: changes are found by sweeps alone")];
    };
    let (Ok(aws), Ok(scope)) = (&facts.aws, &facts.scope) else {
        return vec![QUEUE.unknown(url, "not checked: see above", "fix the errors above first")];
    };
    let Some(AwsObservations { queue: Some(queue), .. }) = &aws.observations else {
        return vec![QUEUE.unknown(
            url,
            "not checked: AWS does not accept the credentials",
            "fix aws.credentials first",
        )];
    };
    let attributes = match &queue.attributes {
        Ok(attributes) => attributes,
        Err(error) => return vec![super::failed(QUEUE, url, error)],
    };
    let name = scope.queue.as_ref().map_or("", |queue| queue.name.as_str());
    let mut checks = vec![
        kind(url, name),
        QUEUE_RECEIVE
            .info(url, "not attempted: a message that doctor received would be invisible to the operator"),
    ];
    checks.extend(policy(url, scope, attributes, aws.observations.as_ref()));
    checks.push(senders(url, scope, attributes));
    checks.push(encryption(url, attributes));
    checks.push(visibility(url, attributes));
    checks.push(retention(url, attributes));
    checks.push(dead_letters(url, attributes, queue));
    checks.push(depth(url, name, attributes));
    checks.extend(waiting_dead_letters(queue));
    checks
}

fn kind(url: &str, name: &str) -> CheckResult {
    if name.to_lowercase().ends_with(".fifo") {
        return QUEUE.error(
            url,
            "a FIFO queue: rules need a message group for it, and one poison message blocks the others",
            "create a standard queue: `aws sqs create-queue --queue-name ecs-mesh-events`",
        );
    }
    QUEUE.ok(url, "a readable standard queue")
}

/// Evaluates the queue's policy for each rule that sends to the queue.
fn policy(
    url: &str,
    scope: &DoctorScope,
    attributes: &Attributes,
    observations: Option<&AwsObservations>,
) -> Vec<CheckResult> {
    let policy = text(attributes, "Policy");
    let Some(Ok(rules)) = observations.and_then(|observations| observations.rules.as_ref()) else {
        let found = "the rules cannot be read, so it is unknown whether they may send";
        return vec![QUEUE_POLICY.unknown(url, found, "see events.tasks")];
    };
    let arn = scope.queue_arn().unwrap_or_default();
    let known = rules.iter().filter_map(|rule| rule.rule.as_ref().ok());
    let results: Vec<CheckResult> = known.map(|rule| evaluate(policy, &arn, url, &rule.arn)).collect();
    if results.is_empty() {
        return vec![QUEUE_POLICY.info(url, "no rule sends to the queue, so the policy is not evaluated")];
    }
    results
}

fn evaluate(policy: &str, queue: &str, url: &str, rule: &str) -> CheckResult {
    let account = rule.split(':').nth(4).unwrap_or_default();
    let fix = format!(
        "let its policy allow sqs:SendMessage to events.amazonaws.com with ArnEquals aws:SourceArn {rule} \
         ({}): `aws sqs set-queue-attributes --queue-url {url} --attributes file://queue.json`",
        docs_url("reference/permissions.md#the-queue")
    );
    match queue_policy::evaluate(policy, RuleSender { rule, account, queue }) {
        PolicyVerdict::Allowed { also: None } => {
            QUEUE_POLICY.ok(rule, "this rule may send, and no unrelated sender")
        }
        PolicyVerdict::Allowed { also: Some(others) } => {
            QUEUE_POLICY.warning(rule, format!("this rule may send, but so may {others}"), fix)
        }
        PolicyVerdict::NotAllowed => QUEUE_POLICY.error(
            rule,
            "no statement of the queue's policy allows the rule to send: its events are lost",
            fix,
        ),
        PolicyVerdict::Forbidden => {
            QUEUE_POLICY.error(rule, "a Deny statement of the queue's policy forbids the rule", fix)
        }
        PolicyVerdict::Unclear(reason) => {
            QUEUE_POLICY.unknown(rule, format!("cannot determine whether the rule may send: {reason}"), fix)
        }
    }
}

/// Whether the policy keeps other senders out: within the account, an identity policy is enough to send.
fn senders(url: &str, scope: &DoctorScope, attributes: &Attributes) -> CheckResult {
    let fix = format!(
        "deny sqs:SendMessage to Principal * with ArnNotEquals aws:SourceArn over the rules and topics that send \
         (docs/reference/permissions.md, The queue): `aws sqs set-queue-attributes --queue-url {url} --attributes \
         file://queue.json`"
    );
    match queue_policy::denies_others(text(attributes, "Policy"), &scope.queue_arn().unwrap_or_default()) {
        DenyVerdict::Denied { but } => {
            QUEUE_SENDERS.ok(url, format!("denied to all but {}", but.join(", ")))
        }
        DenyVerdict::NotDenied => QUEUE_SENDERS.error(
            url,
            "the policy denies no sender: any principal of the account with sqs:SendMessage can write events",
            fix,
        ),
        DenyVerdict::DeniesMore => QUEUE_SENDERS.error(
            url,
            "the Deny for other senders covers more than sqs:SendMessage, and with it the operator's own calls",
            fix,
        ),
        DenyVerdict::Unreadable => QUEUE_SENDERS.unknown(url, "the policy is not JSON", fix),
    }
}

/// Source: <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-key-management.html>.
fn encryption(url: &str, attributes: &Attributes) -> CheckResult {
    let key = text(attributes, "KmsMasterKeyId");
    if key.is_empty() {
        let managed = text(attributes, "SqsManagedSseEnabled") == "true";
        return QUEUE_ENCRYPTION.ok(url, if managed { "by SQS's own keys" } else { "none" });
    }
    if key == "alias/aws/sqs" || key.ends_with(":alias/aws/sqs") {
        return QUEUE_ENCRYPTION.error(
            url,
            "by the key alias/aws/sqs, whose policy cannot allow EventBridge: every event is lost",
            format!(
                "`aws sqs set-queue-attributes --queue-url {url} --attributes \
                 KmsMasterKeyId=,SqsManagedSseEnabled=true`, or use a customer key"
            ),
        );
    }
    QUEUE_ENCRYPTION.info(
        url,
        format!(
            "by the key {key}, whose policy is not checked: it must allow events.amazonaws.com \
             kms:GenerateDataKey and kms:Decrypt, and the operator kms:Decrypt"
        ),
    )
}

fn visibility(url: &str, attributes: &Attributes) -> CheckResult {
    let seconds = number(attributes, "VisibilityTimeout").unwrap_or(30);
    let found = format!("{seconds} s");
    let fix = format!("`aws sqs set-queue-attributes --queue-url {url} --attributes VisibilityTimeout=30`");
    match seconds {
        0..10 => QUEUE_VISIBILITY.warning(
            url,
            format!("{found}: messages are redelivered while they are handled"),
            fix,
        ),
        10..=900 => QUEUE_VISIBILITY.ok(url, found),
        _ => QUEUE_VISIBILITY.warning(url, format!("{found}: after a crash, messages wait that long"), fix),
    }
}

fn retention(url: &str, attributes: &Attributes) -> CheckResult {
    let seconds = number(attributes, "MessageRetentionPeriod").unwrap_or(DEFAULT_RETENTION);
    let found = format_duration(seconds);
    if seconds < 3600 {
        let fix = format!(
            "`aws sqs set-queue-attributes --queue-url {url} --attributes MessageRetentionPeriod=345600`"
        );
        return QUEUE_RETENTION.warning(url, format!("{found}: a longer outage loses events"), fix);
    }
    QUEUE_RETENTION.ok(url, found)
}

fn dead_letters(url: &str, attributes: &Attributes, queue: &QueueFacts) -> CheckResult {
    let id = QUEUE_DEAD_LETTERS;
    let set = format!(
        "`aws sqs set-queue-attributes --queue-url {url} --attributes file://redrive.json`, with RedrivePolicy \
         {{\"deadLetterTargetArn\": \"ARN\", \"maxReceiveCount\": \"5\"}}"
    );
    let policy: serde_json::Value =
        serde_json::from_str(text(attributes, "RedrivePolicy")).unwrap_or_default();
    let Some(arn) = policy["deadLetterTargetArn"].as_str() else {
        return id.warning(url, "no redrive policy: poison messages are redelivered until they expire", set);
    };
    let receives = match &policy["maxReceiveCount"] {
        serde_json::Value::String(text) => text.parse().ok(),
        other => other.as_u64(),
    };
    let dead = match &queue.dead_letters {
        Some(Ok(dead)) => dead,
        Some(Err(error)) if error.kind == ecs_mesh_aws::aws::AwsErrorKind::NotFound => {
            return id.error(arn, "the dead-letter queue does not exist: SQS redelivers its messages", set);
        }
        Some(Err(error)) => {
            let found = format!("reading the dead-letter queue: {}: {}", error.code, error.message);
            return id.unknown(arn, found, "give the caller sqs:GetQueueAttributes on the dead-letter queue");
        }
        None => return id.unknown(arn, "not checked", "run the doctor again"),
    };
    if receives.is_some_and(|receives| receives < FEWEST_RECEIVES) {
        let found = format!(
            "maxReceiveCount is {}: a restart can turn valid messages into dead letters",
            receives.unwrap_or(0)
        );
        return id.warning(arn, found, set);
    }
    let of = |attributes| number(attributes, "MessageRetentionPeriod").unwrap_or(DEFAULT_RETENTION);
    let (theirs, ours) = (of(dead), of(attributes));
    // A message's age counts from its first delivery, so an equal retention leaves little time.
    if theirs < ours {
        let found = format!(
            "messages are kept for {} and in the queue for {}, counted from the first delivery",
            format_duration(theirs),
            format_duration(ours)
        );
        let dead_url = url.rsplit_once('/').map_or("", |(base, _)| base);
        let name = arn.rsplit(':').next().unwrap_or_default();
        let fix = format!(
            "`aws sqs set-queue-attributes --queue-url {dead_url}/{name} --attributes MessageRetentionPeriod=1209600`"
        );
        return id.warning(arn, found, fix);
    }
    let receives = receives.map_or_else(|| "some".to_owned(), |receives| receives.to_string());
    id.ok(arn, format!("after {receives} receives, kept for {}", format_duration(theirs)))
}

fn depth(url: &str, name: &str, attributes: &Attributes) -> CheckResult {
    let count = |name| number(attributes, name).unwrap_or(0);
    let (visible, in_flight) =
        (count("ApproximateNumberOfMessages"), count("ApproximateNumberOfMessagesNotVisible"));
    let found =
        format!("about {visible} waiting and {in_flight} in flight; CloudWatch has the age of the oldest");
    if visible < MANY_MESSAGES {
        return QUEUE_DEPTH.ok(url, found);
    }
    let fix = format!(
        "check that an operator runs with this queue; age of the oldest message: `aws cloudwatch get-metric-statistics --namespace AWS/SQS \
         --metric-name ApproximateAgeOfOldestMessage --dimensions Name=QueueName,Value={name} --period 60 \
         --statistics Maximum --start-time START --end-time END`"
    );
    QUEUE_DEPTH.warning(url, found, fix)
}

/// Dead letters are lost events, which need attention.
fn waiting_dead_letters(queue: &QueueFacts) -> Option<CheckResult> {
    let dead = queue.dead_letters.as_ref()?.as_ref().ok()?;
    let waiting = number(dead, "ApproximateNumberOfMessages").filter(|count| *count > 0)?;
    let arn = text(dead, "QueueArn");
    let fix = "inspect them, then `aws sqs start-message-move-task --source-arn ARN` or purge them; sweeps have already \
                applied their effect";
    Some(QUEUE_DEPTH.warning(arn, format!("about {waiting} dead letters"), fix))
}

pub(super) fn text<'a>(attributes: &'a Attributes, name: &str) -> &'a str {
    attributes.get(name).map_or("", String::as_str)
}

fn number(attributes: &Attributes, name: &str) -> Option<u64> {
    attributes.get(name)?.parse().ok()
}

fn format_duration(seconds: u64) -> String {
    let (days, hours) = (seconds / 86_400, seconds / 3_600);
    match seconds {
        86_400.. if seconds.is_multiple_of(86_400) => format!("{days} d"),
        3_600.. if seconds.is_multiple_of(3_600) => format!("{hours} h"),
        _ => format!("{:?}", Duration::from_secs(seconds)),
    }
}
