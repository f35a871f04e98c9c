//! The rules: every required event reaches the queue unchanged, and undeliverable events are kept.

use crate::catalogue::{EVENTS_DEAD_LETTERS, EVENTS_DEPLOYMENTS, EVENTS_ROLES, EVENTS_TARGET, EVENTS_TASKS};
use crate::event_coverage::{CoverageGap, FieldKnowledge, RequiredEvents, gap};
use crate::event_patterns::{
    DEPLOYMENTS_RULE, ROLES_RULE, TASKS_RULE, need_of_deployments, need_of_tasks, needs_of_roles,
};
use crate::facts::{AwsObservations, DoctorFacts, RuleFacts};
use crate::queue_policy::{self, PolicyVerdict, RuleSender};
use crate::report::{CheckKind, CheckResult};
use crate::scope::{DoctorScope, iam_region};
use ecs_mesh_aws::sdk::{EventRule, EventTarget};
use ecs_mesh_model::docs_url;

use super::queue;

pub(super) fn check(facts: &DoctorFacts) -> Vec<CheckResult> {
    let (Ok(aws), Ok(scope), Some(_)) = (&facts.aws, &facts.scope, &facts.queue_url) else {
        // Reported by `queue.exists`; without a queue no rule is needed.
        return Vec::new();
    };
    let Some(observations) = &aws.observations else {
        return vec![EVENTS_TASKS.unknown(
            "rules",
            "not checked: AWS does not accept the credentials",
            "fix aws.credentials first",
        )];
    };
    let rules = match &observations.rules {
        Some(Ok(rules)) => rules,
        Some(Err(error)) => return vec![super::failed(EVENTS_TASKS, "the default event bus", error)],
        None => return Vec::new(),
    };
    let mut checks: Vec<CheckResult> = scope
        .clusters
        .iter()
        .map(|cluster| tasks(scope, rules, cluster.glob.as_str(), &need_of_tasks(scope, &cluster.glob)))
        .collect();
    checks.extend(deployments(scope, rules));
    checks.extend(roles(scope, observations, rules));
    for rule in rules {
        checks.extend(target(rule, observations, scope));
    }
    checks
}

/// How the rules cover one kind of required events.
enum RuleCoverage<'a> {
    By(&'a EventRule),
    Disabled(&'a EventRule),
    Leaving(&'a EventRule, CoverageGap),
    Unknown(String),
    Nothing,
}

fn coverage<'a>(rules: &'a [RuleFacts], need: &RequiredEvents) -> RuleCoverage<'a> {
    let mut worst = RuleCoverage::Nothing;
    for seen in rules {
        let rule = match &seen.rule {
            Ok(rule) => rule,
            Err(error) => {
                if matches!(worst, RuleCoverage::Nothing) {
                    worst = RuleCoverage::Unknown(error.to_string());
                }
                continue;
            }
        };
        let Some(pattern) = &rule.pattern else { continue };
        match gap(pattern, need) {
            None if rule.enabled => return RuleCoverage::By(rule),
            None => worst = RuleCoverage::Disabled(rule),
            Some(gap) if gap.is_about_others() || matches!(worst, RuleCoverage::Disabled(_)) => {}
            Some(gap) => worst = RuleCoverage::Leaving(rule, gap),
        }
    }
    worst
}

fn tasks(scope: &DoctorScope, rules: &[RuleFacts], cluster: &str, need: &RequiredEvents) -> CheckResult {
    let id = EVENTS_TASKS;
    let put = format!(
        "{}; `aws events put-targets --rule {TASKS_RULE} --targets file://targets.json` (see {})",
        put_rule(TASKS_RULE),
        docs_url("reference/permissions.md#the-rules")
    );
    match coverage(rules, need) {
        RuleCoverage::By(rule) => id.ok(cluster, format!("by the rule {}", rule.name)),
        RuleCoverage::Disabled(rule) => {
            id.error(cluster, format!("the rule {} is disabled", rule.name), enable(rule))
        }
        RuleCoverage::Leaving(rule, gap) => id.error(cluster, missing_events(rule, &gap, need), put),
        RuleCoverage::Unknown(reason) => id.unknown(cluster, reason, "give the caller events:DescribeRule"),
        RuleCoverage::Nothing => {
            let region = scope.region.as_deref().unwrap_or("the Region");
            let found = format!(
                "no rule of the default event bus of {region} sends them: the operator relies on sweeps"
            );
            id.error(cluster, found, put)
        }
    }
}

/// Of no interest where no binding holds deployments.
fn deployments(scope: &DoctorScope, rules: &[RuleFacts]) -> Option<CheckResult> {
    let target = ExpectedRule {
        id: EVENTS_DEPLOYMENTS,
        events: vec![need_of_deployments(scope)],
        without: "a deployment is noticed by the events of its first task, later than by its own",
        fix: format!(
            "{}; give it the queue as target, and add it to the queue's policy",
            put_rule(DEPLOYMENTS_RULE)
        ),
    };
    let describe = |by: &str| format!("by the rule {by}");
    scope.holds_deployments.then(|| target.check("deployments", rules, describe))
}

fn roles(scope: &DoctorScope, observations: &AwsObservations, rules: &[RuleFacts]) -> Vec<CheckResult> {
    let (id, subject) = (EVENTS_ROLES, "changes of role tags");
    if !scope.reads_roles {
        return vec![id.info(subject, "not needed: no binding checks role tags")];
    }
    let Some(home) = iam_region(&scope.partition) else {
        let found = format!("not checked: the Region of IAM's events is unknown for {}", scope.partition);
        return vec![id.info(subject, found)];
    };
    let expected = |fix: String| ExpectedRule {
        id,
        events: needs_of_roles(scope, home),
        without: "a removed tag is found by roleTags.recheck, minutes later",
        fix,
    };
    let describe = |by: &str| {
        format!(
            "by the rule {by}; a CloudTrail trail for management events is required, which is not checked"
        )
    };
    let here = expected(format!("{}; give it the queue as target", put_rule(ROLES_RULE)));
    let mut checks = vec![here.check(subject, rules, describe)];
    if let Some(forwarding) = &observations.forwarding {
        let subject = format!("{subject}, forwarded from {home}");
        let bus = scope.arn("events", "event-bus/default");
        let there = expected(format!(
            "IAM's events are in {home} only: create the same rule there, {} --region {home}, with the target {bus} and \
             a role that may events:PutEvents on it",
            put_rule(ROLES_RULE).trim_end_matches('`')
        ));
        checks.push(match forwarding {
            Ok(rules) => there.check(&subject, rules, describe),
            Err(error) => super::failed(id, &subject, error),
        });
    }
    checks
}

/// A rule whose events shorten the time until a change is seen.
struct ExpectedRule {
    id: CheckKind,
    /// Several rules together may cover them.
    events: Vec<RequiredEvents>,
    /// The consequence if the rule is missing.
    without: &'static str,
    fix: String,
}

impl ExpectedRule {
    fn check(&self, subject: &str, rules: &[RuleFacts], describe: impl Fn(&str) -> String) -> CheckResult {
        let mut by = Vec::new();
        for need in &self.events {
            let found = match coverage(rules, need) {
                RuleCoverage::By(rule) => {
                    by.push(rule.name.as_str());
                    continue;
                }
                RuleCoverage::Disabled(rule) => {
                    return self.id.warning(
                        subject,
                        format!("the rule {} is disabled", rule.name),
                        enable(rule),
                    );
                }
                RuleCoverage::Unknown(reason) => {
                    return self.id.unknown(subject, reason, "give the caller events:DescribeRule");
                }
                RuleCoverage::Leaving(rule, gap) => missing_events(rule, &gap, need),
                RuleCoverage::Nothing => {
                    format!("{}: no rule sends them: {}", kind_of(need), self.without)
                }
            };
            return self.id.warning(subject, found, &self.fix);
        }
        by.dedup();
        self.id.ok(subject, describe(&by.join(", ")))
    }
}

/// The call, or else the kind of events.
fn kind_of(need: &RequiredEvents) -> &str {
    let text = |wanted: &str| {
        need.0.iter().find_map(|(field, known)| match known {
            FieldKnowledge::Text(text) if *field == wanted => Some(text.as_str()),
            _ => None,
        })
    };
    text("detail.eventName").or_else(|| text("detail-type")).unwrap_or_default()
}

fn missing_events(rule: &EventRule, gap: &CoverageGap, need: &RequiredEvents) -> String {
    let wanted = need.0.iter().find(|(field, _)| *field == gap.field);
    let wanted = match wanted {
        Some((_, FieldKnowledge::Text(text))) => format!("{text} is needed"),
        Some((_, FieldKnowledge::Matching(glob))) => format!("all of {glob} are needed"),
        _ => "no filter is allowed".to_owned(),
    };
    format!(
        "the rule {} matches only some: its pattern has {} {}, and {wanted}",
        rule.name, gap.field, gap.allows
    )
}

fn put_rule(rule: &str) -> String {
    format!(
        "`aws events put-rule --name {rule} --event-pattern \"$(ecs-mesh-operator doctor --print-event-patterns --manifests PATH \
         | jq -c '.[\"{rule}\"]')\"`"
    )
}

fn enable(rule: &EventRule) -> String {
    format!("`aws events enable-rule --name {}`", rule.name)
}

/// Checks the rule's targets: unmodified events, and a dead-letter queue.
fn target(observations: &RuleFacts, all: &AwsObservations, scope: &DoctorScope) -> Vec<CheckResult> {
    let targets = match &observations.targets {
        Ok(targets) => targets,
        Err(error) => return vec![super::failed(EVENTS_TARGET, &observations.name, error)],
    };
    let subject = |target: &EventTarget| format!("{}, target {}", observations.name, target.id);
    let arn = observations.rule.as_ref().map(|rule| rule.arn.as_str()).unwrap_or_default();
    let both = targets.iter().flat_map(|target| {
        [unmodified_events(&subject(target), target), undelivered(&subject(target), arn, target, all, scope)]
    });
    both.collect()
}

fn unmodified_events(subject: &str, target: &EventTarget) -> CheckResult {
    let id = EVENTS_TARGET;
    if !target.rewritten_by.is_empty() {
        let by = target.rewritten_by.join(" and ");
        let found = format!("{by} changes the events: the operator cannot decode them");
        return id.error(subject, found, format!("put the target again without {by}"));
    }
    if target.role.is_some() {
        let found = "the target has a RoleArn, which is not needed: within an account the queue's policy decides, and the role may fail";
        return id.warning(subject, found, "put the target again without RoleArn");
    }
    match target.retried_for {
        Some(seconds) if seconds < 3600 => id.warning(
            subject,
            format!("delivery stops after {seconds} s"),
            "put the target again with RetryPolicy.MaximumEventAgeInSeconds 86400",
        ),
        _ => id.ok(subject, "events are sent unmodified"),
    }
}

fn undelivered(
    subject: &str,
    rule: &str,
    target: &EventTarget,
    all: &AwsObservations,
    scope: &DoctorScope,
) -> CheckResult {
    let id = EVENTS_DEAD_LETTERS;
    let Some(dead) = &target.dead_letters else {
        let found =
            "none: events that cannot be delivered within a day are dropped, and sweeps find the changes";
        return id.warning(subject, found, "put the target again with DeadLetterConfig {\"Arn\": \"ARN\"}");
    };
    let fix = format!(
        "make the policy of {dead} allow sqs:SendMessage to events.amazonaws.com with aws:SourceArn {rule}"
    );
    let account = rule.split(':').nth(4).or(scope.account.as_deref()).unwrap_or_default();
    match all.undelivered.get(dead) {
        Some(Ok(attributes)) => {
            let policy = queue::text(attributes, "Policy");
            match queue_policy::evaluate(policy, RuleSender { rule, account, queue: dead }) {
                PolicyVerdict::Allowed { .. } => id.ok(subject, dead),
                PolicyVerdict::Unclear(reason) => id.unknown(
                    subject,
                    format!("cannot determine whether {dead} accepts them: {reason}"),
                    fix,
                ),
                PolicyVerdict::NotAllowed | PolicyVerdict::Forbidden => id.warning(
                    subject,
                    format!("{dead} does not allow the rule to send: undeliverable events are lost"),
                    fix,
                ),
            }
        }
        Some(Err(error)) => super::failed(id, subject, error),
        None => id.unknown(subject, format!("{dead} was not checked"), "run the doctor again"),
    }
}
