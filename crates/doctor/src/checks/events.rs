//! The rules: whether every event that is needed comes to the queue, unchanged, and what happens to those that do not.

use crate::catalogue::{EVENTS_DEAD_LETTERS, EVENTS_ROLES, EVENTS_TARGET, EVENTS_TASKS};
use crate::event_coverage::{CoverageGap, FieldKnowledge, RequiredEvents, gap};
use crate::event_patterns::{ROLES_RULE, TASKS_RULE, need_of_tasks, needs_of_roles};
use crate::facts::{DoctorFacts, RuleFacts, AwsObservations};
use crate::scope::{DoctorScope, iam_region};
use crate::report::CheckResult;
use crate::queue_policy::{self, RuleSender, PolicyVerdict};
use ecs_mesh_aws::sdk::{EventRule, EventTarget};

use super::queue;

pub(super) fn check(facts: &DoctorFacts) -> Vec<CheckResult> {
    let (Ok(aws), Ok(place), Some(_)) = (&facts.aws, &facts.scope, &facts.queue_url) else {
        // Said above, by `queue.exists`; without a queue no rule is needed.
        return Vec::new();
    };
    let Some(seen) = &aws.observations else {
        return vec![EVENTS_TASKS.unknown(
            "rules",
            "not looked at: AWS does not know the caller",
            "mend aws.credentials first",
        )];
    };
    let rules = match &seen.rules {
        Some(Ok(rules)) => rules,
        Some(Err(error)) => return vec![super::failed(EVENTS_TASKS, "the default event bus", error)],
        None => return Vec::new(),
    };
    let mut checks: Vec<CheckResult> = place
        .clusters
        .iter()
        .map(|cluster| tasks(place, rules, cluster.glob.as_str(), &need_of_tasks(place, &cluster.glob)))
        .collect();
    checks.extend(roles(place, seen, rules));
    for rule in rules {
        checks.extend(target(rule, seen, place));
    }
    checks
}

/// What the rules together do for one need.
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
        "{}; `aws events put-targets --rule {TASKS_RULE} --targets file://targets.json` (docs/reference/permissions.md, \
         The rules)",
        put_rule(TASKS_RULE)
    );
    match coverage(rules, need) {
        RuleCoverage::By(rule) => id.ok(cluster, format!("by the rule {}", rule.name)),
        RuleCoverage::Disabled(rule) => {
            id.error(cluster, format!("the rule {} is disabled", rule.name), enable(rule))
        }
        RuleCoverage::Leaving(rule, gap) => id.error(cluster, missing_events(rule, &gap, need), put),
        RuleCoverage::Unknown(why) => id.unknown(cluster, why, "give the caller events:DescribeRule"),
        RuleCoverage::Nothing => {
            let region = scope.region.as_deref().unwrap_or("the Region");
            let found = format!(
                "no rule of the default event bus of {region} sends them: changes are found by sweeps alone"
            );
            id.error(cluster, found, put)
        }
    }
}

fn roles(scope: &DoctorScope, observations: &AwsObservations, rules: &[RuleFacts]) -> Vec<CheckResult> {
    let (id, about) = (EVENTS_ROLES, "changes of role tags");
    if !scope.reads_roles {
        return vec![id.info(about, "not needed: no binding looks at role tags")];
    }
    let Some(home) = iam_region(&scope.partition) else {
        let found =
            format!("where IAM of {} tells of its calls is not known here: not looked at", scope.partition);
        return vec![id.info(about, found)];
    };
    let needs = needs_of_roles(scope, home);
    let mut checks = vec![roles_at(
        about,
        rules,
        &needs,
        &format!("{}; give it the queue as target", put_rule(ROLES_RULE)),
    )];
    if let Some(forwarding) = &observations.forwarding {
        let about = format!("{about}, on their way from {home}");
        let bus = scope.arn("events", "event-bus/default");
        let fix = format!(
            "IAM tells of its calls in {home} alone: make the same rule there, {} --region {home}, with the target {bus} and \
             a role that may events:PutEvents on it",
            put_rule(ROLES_RULE).trim_end_matches('`')
        );
        checks.push(match forwarding {
            Ok(rules) => roles_at(&about, rules, &needs, &fix),
            Err(error) => super::failed(id, &about, error),
        });
    }
    checks
}

/// The calls need not come by one rule.
fn roles_at(subject: &str, rules: &[RuleFacts], expected: &[RequiredEvents], fix: &str) -> CheckResult {
    let id = EVENTS_ROLES;
    let mut by = Vec::new();
    for need in expected {
        match coverage(rules, need) {
            RuleCoverage::By(rule) => by.push(rule.name.as_str()),
            RuleCoverage::Disabled(rule) => {
                return id.warning(subject, format!("the rule {} is disabled", rule.name), enable(rule));
            }
            RuleCoverage::Leaving(rule, gap) => return id.warning(subject, missing_events(rule, &gap, need), fix),
            RuleCoverage::Unknown(why) => return id.unknown(subject, why, "give the caller events:DescribeRule"),
            RuleCoverage::Nothing => {
                let found = "no rule sends them: a tag that is taken away is found by roleTags.recheck, minutes later";
                return id.warning(subject, format!("{}: {found}", call_of(need)), fix);
            }
        }
    }
    by.dedup();
    let trail = "a CloudTrail trail that logs management events must be on, which is not looked at";
    id.ok(subject, format!("by the rule {}; {trail}", by.join(", ")))
}

fn call_of(need: &RequiredEvents) -> &str {
    let name = need.0.iter().find(|(field, _)| *field == "detail.eventName");
    match name {
        Some((_, FieldKnowledge::Text(name))) => name,
        _ => "role changes",
    }
}

fn missing_events(rule: &EventRule, gap: &CoverageGap, need: &RequiredEvents) -> String {
    let wanted = need.0.iter().find(|(field, _)| *field == gap.field);
    let wanted = match wanted {
        Some((_, FieldKnowledge::Text(text))) => format!("{text} is needed"),
        Some((_, FieldKnowledge::Matching(glob))) => format!("all of {glob} are needed"),
        _ => "it must not be looked at".to_owned(),
    };
    format!(
        "the rule {} lets only some through: its pattern has {} {}, and {wanted}",
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

/// What the rule's target does to events, and to those that it cannot deliver.
fn target(observations: &RuleFacts, all: &AwsObservations, scope: &DoctorScope) -> Vec<CheckResult> {
    let targets = match &observations.targets {
        Ok(targets) => targets,
        Err(error) => return vec![super::failed(EVENTS_TARGET, &observations.name, error)],
    };
    let about = |target: &EventTarget| format!("{}, target {}", observations.name, target.id);
    let arn = observations.rule.as_ref().map(|rule| rule.arn.as_str()).unwrap_or_default();
    let both = targets.iter().flat_map(|target| {
        [unmodified_events(&about(target), target), undelivered(&about(target), arn, target, all, scope)]
    });
    both.collect()
}

fn unmodified_events(subject: &str, target: &EventTarget) -> CheckResult {
    let id = EVENTS_TARGET;
    if !target.rewritten_by.is_empty() {
        let by = target.rewritten_by.join(" and ");
        let found = format!("{by} changes the events: the operator cannot read what comes");
        return id.error(subject, found, format!("put the target again without {by}"));
    }
    if target.role.is_some() {
        let found =
            "it has a RoleArn: the queue's policy is what counts within an account, and such a role may fail";
        return id.warning(subject, found, "put the target again without RoleArn");
    }
    match target.retried_for {
        Some(seconds) if seconds < 3600 => id.warning(
            subject,
            format!("delivery is given up after {seconds} s"),
            "put the target again with RetryPolicy.MaximumEventAgeInSeconds 86400",
        ),
        _ => id.ok(subject, "it sends events as they are"),
    }
}

fn undelivered(subject: &str, rule: &str, target: &EventTarget, all: &AwsObservations, scope: &DoctorScope) -> CheckResult {
    let id = EVENTS_DEAD_LETTERS;
    let Some(dead) = &target.dead_letters else {
        let found = "none: what cannot be delivered within a day is dropped unseen, and found by sweeps";
        return id.warning(subject, found, "put the target again with DeadLetterConfig {\"Arn\": \"ARN\"}");
    };
    let fix = format!(
        "let the policy of {dead} allow sqs:SendMessage to events.amazonaws.com with aws:SourceArn {rule}"
    );
    let account = rule.split(':').nth(4).or(scope.account.as_deref()).unwrap_or_default();
    match all.undelivered.get(dead) {
        Some(Ok(attributes)) => {
            let policy = queue::text(attributes, "Policy");
            match queue_policy::evaluate(policy, RuleSender { rule, account, queue: dead }) {
                PolicyVerdict::Allowed { .. } => id.ok(subject, dead),
                PolicyVerdict::Unclear(why) => {
                    id.unknown(subject, format!("whether {dead} takes them is not clear: {why}"), fix)
                }
                PolicyVerdict::NotAllowed | PolicyVerdict::Forbidden => id.warning(
                    subject,
                    format!("{dead} does not let the rule send: what cannot be delivered is lost"),
                    fix,
                ),
            }
        }
        Some(Err(error)) => super::failed(id, subject, error),
        None => id.unknown(subject, format!("{dead} was not looked at"), "run the doctor again"),
    }
}
