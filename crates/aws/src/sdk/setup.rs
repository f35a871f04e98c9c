//! What only a look at the set-up asks: who calls, and which rules send events to a target. Reads alone.
//!
//! Calls are boxed: the SDK's futures are large, and several of these run side by side.

use std::time::SystemTime;

use aws_config::{Region, SdkConfig};
use aws_sdk_eventbridge::types::Target;
use aws_sdk_sts::config::ProvideCredentials as _;

use super::call::CallRunner;
use super::error;
use crate::aws::{AwsError, AwsErrorKind};

/// Most pages of rules or targets that are read; an account has 300 rules a bus by default, 100 on a page.
const MOST_PAGES: usize = 50;

/// Reads of the set-up, in any Region.
#[derive(Clone)]
pub struct SdkSetup {
    config: SdkConfig,
    calls: CallRunner,
}

/// Who AWS says the caller is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallerIdentity {
    /// The user's or the session's ARN.
    pub arn: String,
    /// 12 digits.
    pub account: String,
}

/// A rule of the default bus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventRule {
    /// Its name.
    pub name: String,
    /// Its ARN: what a queue's policy names.
    pub arn: String,
    /// Whether it lets anything through (`DISABLED` does not).
    pub enabled: bool,
    /// The pattern's text; `None` for a schedule.
    pub pattern: Option<String>,
}

/// What a rule does to what it lets through.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventTarget {
    /// The id within the rule.
    pub id: String,
    /// Where it sends to.
    pub arn: String,
    /// The settings that change the event: of `Input`, `InputPath`, `InputTransformer`.
    pub rewritten_by: Vec<&'static str>,
    /// A role that sends, if one is given.
    pub role: Option<String>,
    /// Where what could not be delivered goes.
    pub dead_letters: Option<String>,
    /// How long delivery is tried, in seconds, where it is not EventBridge's own day.
    pub retried_for: Option<i32>,
}

impl SdkSetup {
    pub(super) fn new(config: SdkConfig, calls: CallRunner) -> Self {
        Self { config, calls }
    }

    /// When the credentials end; `None` for those that do not. The source is asked, AWS need not be.
    pub async fn credentials_end(&self) -> Result<Option<SystemTime>, AwsError> {
        let failed = |why: &str| AwsError {
            kind: AwsErrorKind::Credentials,
            operation: "credentials",
            resource: "the SDK's default chain".to_owned(),
            code: "credentials".to_owned(),
            message: error::clean(why),
            hint: error::HINT_NO_CREDENTIALS,
        };
        let provider = self.config.credentials_provider().ok_or_else(|| failed("there is no provider"))?;
        let found = provider.provide_credentials().await;
        Ok(found.map_err(|error| failed(&error::chain(&error)))?.expiry())
    }

    /// Who calls. Needs no permission.
    pub async fn caller(&self) -> Result<CallerIdentity, AwsError> {
        let client = aws_sdk_sts::Client::new(&self.config);
        let call = client.get_caller_identity().send();
        let answer = Box::pin(self.calls.run("sts:GetCallerIdentity", "the caller", call)).await?;
        let text = |found: Option<String>| found.unwrap_or_default();
        let caller = CallerIdentity { arn: text(answer.arn), account: text(answer.account) };
        self.calls.learn_account(&caller.account);
        Ok(caller)
    }

    /// The names of the default bus's rules that send to the target, in this Region or the client's own.
    pub async fn rules_that_send_to(
        &self,
        region: Option<&str>,
        target: &str,
    ) -> Result<Vec<String>, AwsError> {
        let client = self.events(region);
        let (mut names, mut next) = (Vec::new(), None);
        for _ in 0..MOST_PAGES {
            let call = client.list_rule_names_by_target().target_arn(target).set_next_token(next).send();
            let answer = Box::pin(self.calls.run("events:ListRuleNamesByTarget", target, call)).await?;
            names.extend(answer.rule_names.unwrap_or_default());
            next = answer.next_token.filter(|token| !token.is_empty());
            if next.is_none() {
                break;
            }
        }
        Ok(names)
    }

    /// The rule of this name.
    pub async fn rule(&self, region: Option<&str>, name: &str) -> Result<EventRule, AwsError> {
        let call = self.events(region).describe_rule().name(name).send();
        let answer = Box::pin(self.calls.run("events:DescribeRule", name, call)).await?;
        Ok(EventRule {
            name: name.to_owned(),
            enabled: answer.state().is_some_and(|state| state.as_str() != "DISABLED"),
            arn: answer.arn.unwrap_or_default(),
            pattern: answer.event_pattern.filter(|pattern| !pattern.is_empty()),
        })
    }

    /// The rule's targets.
    pub async fn targets(&self, region: Option<&str>, rule: &str) -> Result<Vec<EventTarget>, AwsError> {
        let client = self.events(region);
        let (mut targets, mut next) = (Vec::new(), None);
        for _ in 0..MOST_PAGES {
            let call = client.list_targets_by_rule().rule(rule).set_next_token(next).send();
            let answer = Box::pin(self.calls.run("events:ListTargetsByRule", rule, call)).await?;
            targets.extend(answer.targets.unwrap_or_default().iter().map(target));
            next = answer.next_token.filter(|token| !token.is_empty());
            if next.is_none() {
                break;
            }
        }
        Ok(targets)
    }

    fn events(&self, region: Option<&str>) -> aws_sdk_eventbridge::Client {
        let mut config = aws_sdk_eventbridge::Config::new(&self.config).to_builder();
        if let Some(region) = region {
            config.set_region(Some(Region::new(region.to_owned())));
        }
        aws_sdk_eventbridge::Client::from_conf(config.build())
    }
}

fn target(found: &Target) -> EventTarget {
    let rewriting = [
        ("Input", found.input().is_some()),
        ("InputPath", found.input_path().is_some_and(|path| path != "$")),
        ("InputTransformer", found.input_transformer().is_some()),
    ];
    EventTarget {
        id: found.id().to_owned(),
        arn: found.arn().to_owned(),
        rewritten_by: rewriting.iter().filter(|(_, given)| *given).map(|(name, _)| *name).collect(),
        role: found.role_arn().map(str::to_owned),
        dead_letters: found
            .dead_letter_config()
            .and_then(aws_sdk_eventbridge::types::DeadLetterConfig::arn)
            .map(str::to_owned),
        retried_for: found
            .retry_policy()
            .and_then(aws_sdk_eventbridge::types::RetryPolicy::maximum_event_age_in_seconds),
    }
}
