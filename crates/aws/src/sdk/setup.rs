//! Reads of `doctor`: the caller's identity, and the EventBridge rules that send to a target. Changes nothing.
//!
//! Calls are boxed, since the SDK's futures are large and several run concurrently.

use std::time::SystemTime;

use aws_config::{Region, SdkConfig};
use aws_sdk_eventbridge::types::Target;
use aws_sdk_sts::config::ProvideCredentials as _;

use super::call::CallRunner;
use super::credentials::{CredentialSource, CredentialStep};
use super::error;
use crate::aws::{AwsError, AwsErrorKind};

/// Limit of pages of rules or targets. An account has 300 rules per bus by default, 100 on a page.
const MAX_PAGES: usize = 50;

/// Reads of `doctor`, in any Region.
#[derive(Clone)]
pub struct SdkSetup {
    config: SdkConfig,
    calls: CallRunner,
    used: CredentialSource,
}

/// Credentials as the chain has found them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundCredentials {
    /// Their source.
    pub step: CredentialStep,
    /// Their expiry; `None` for permanent ones.
    pub expiry: Option<SystemTime>,
}

/// The caller's identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallerIdentity {
    /// The user's or the session's ARN.
    pub arn: String,
    /// The account id, 12 digits.
    pub account: String,
}

/// A rule of the default bus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventRule {
    /// The rule's name.
    pub name: String,
    /// The ARN, which a queue's policy names.
    pub arn: String,
    /// Whether the rule is enabled.
    pub enabled: bool,
    /// The event pattern; `None` for a schedule.
    pub pattern: Option<String>,
}

/// A target of a rule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventTarget {
    /// The id within the rule.
    pub id: String,
    /// The ARN of the target.
    pub arn: String,
    /// The settings that change the event, among `Input`, `InputPath` and `InputTransformer`.
    pub rewritten_by: Vec<&'static str>,
    /// The role that EventBridge assumes, if any.
    pub role: Option<String>,
    /// The dead-letter queue for undeliverable events.
    pub dead_letters: Option<String>,
    /// Maximum age of a retried event in seconds; `None`: EventBridge's default of a day.
    pub retried_for: Option<i32>,
}

impl SdkSetup {
    pub(super) fn new(config: SdkConfig, calls: CallRunner, used: CredentialSource) -> Self {
        Self { config, calls, used }
    }

    pub(super) fn source(&self) -> CredentialSource {
        self.used.clone()
    }

    /// Source and expiry of the credentials. Reads the credentials' source.
    pub async fn credentials(&self) -> Result<FoundCredentials, AwsError> {
        let failed = |reason: &str, hint| AwsError {
            kind: AwsErrorKind::Credentials,
            operation: "credentials",
            resource: "the SDK's default chain".to_owned(),
            code: "credentials".to_owned(),
            message: error::clean(reason),
            hint,
        };
        let none = || failed("no credentials provider", error::HINT_NO_CREDENTIALS);
        let provider = self.config.credentials_provider().ok_or_else(none)?;
        let found = provider.provide_credentials().await;
        let found =
            found.map_err(|error| failed(&error::chain(&error), error::hint_of_credentials(&error)))?;
        let step = self.used.get().unwrap_or(CredentialStep::Fixed);
        Ok(FoundCredentials { step, expiry: found.expiry() })
    }

    /// The caller's identity. Needs no permission.
    pub async fn caller(&self) -> Result<CallerIdentity, AwsError> {
        let client = aws_sdk_sts::Client::new(&self.config);
        let call = client.get_caller_identity().send();
        let answer = Box::pin(self.calls.run("sts:GetCallerIdentity", "the caller", call)).await?;
        let text = |found: Option<String>| found.unwrap_or_default();
        let caller = CallerIdentity { arn: text(answer.arn), account: text(answer.account) };
        self.calls.set_account(&caller.account);
        Ok(caller)
    }

    /// Names of the default bus's rules that send to the target, in this Region or the client's.
    pub async fn list_rules_of_target(
        &self,
        region: Option<&str>,
        target: &str,
    ) -> Result<Vec<String>, AwsError> {
        let client = self.events(region);
        let (mut names, mut next) = (Vec::new(), None);
        for _ in 0..MAX_PAGES {
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

    /// The rule with this name.
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
        for _ in 0..MAX_PAGES {
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
