//! EventBridge rules of the default bus with queue targets, and `PutEvents`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::delivery::PendingEventBridgeEvent;
use super::{page, pattern};
use crate::aws::{AwsApiError, AwsApiResult, Cloud};
use ecs_mesh_model::Timestamp;

/// A rule.
#[derive(Clone, Debug)]
pub struct EventBridgeRule {
    /// Its name.
    pub name: String,
    /// Its ARN.
    pub arn: String,
    /// Its event pattern as JSON text.
    pub pattern: String,
    /// Whether it is enabled.
    pub enabled: bool,
    /// Description.
    pub description: Option<String>,
    /// Its targets by id.
    pub targets: BTreeMap<String, RuleTarget>,
    parsed: Value,
}

impl EventBridgeRule {
    pub(super) fn accepts(&self, event: &Value) -> bool {
        self.enabled && pattern::matches(&self.parsed, event)
    }

    /// Names of the target queues, with the constant input of each.
    pub(super) fn destinations(&self) -> Vec<(String, Option<String>)> {
        let name = |target: &RuleTarget| target.arn.rsplit(':').next().unwrap_or_default().to_owned();
        let queues = self.targets.values().filter(|target| target.arn.split(':').nth(2) == Some("sqs"));
        queues.map(|target| (name(target), target.input.clone())).collect()
    }
}

/// Target of a rule.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct RuleTarget {
    /// Unique within the rule.
    pub id: String,
    /// ARN of a queue. Other targets are accepted and receive nothing.
    pub arn: String,
    /// Constant input instead of the event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<String>,
    /// All other fields, returned unchanged.
    #[serde(flatten)]
    pub rest: serde_json::Map<String, Value>,
}

/// One event of `PutEvents`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct PutEvent {
    /// Source. The prefix `aws.` is reserved.
    pub source: String,
    /// Detail type.
    pub detail_type: String,
    /// Detail as JSON text.
    pub detail: String,
    /// ARNs.
    pub resources: Vec<String>,
    /// Name of the bus; only the default bus exists.
    pub event_bus_name: Option<String>,
}

/// Result of one event of `PutEvents`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum PutEventOutcome {
    /// Accepted.
    #[serde(rename_all = "PascalCase")]
    Taken {
        /// Its id.
        event_id: String,
    },
    /// Rejected.
    #[serde(rename_all = "PascalCase")]
    Refused {
        /// The error's code.
        error_code: &'static str,
        /// The error's message.
        error_message: String,
    },
}

impl Cloud {
    /// Creates or replaces a rule and returns its ARN.
    pub fn put_rule(
        &mut self,
        name: &str,
        event_pattern: &str,
        enabled: bool,
        description: Option<String>,
    ) -> AwsApiResult<String> {
        let allowed = (1..=64).contains(&name.len())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
        if !allowed {
            return Err(validation(format!(
                "{name:?} is not a valid rule name: letters, digits, '.', '-', '_', at most 64"
            )));
        }
        let parsed = pattern::check(event_pattern)?;
        let arn = self.arn("events", &format!("rule/{name}"));
        let targets = self.rules.remove(name).map(|rule| rule.targets).unwrap_or_default();
        let rule = EventBridgeRule {
            name: name.to_owned(),
            arn: arn.clone(),
            pattern: event_pattern.to_owned(),
            enabled,
            description,
            targets,
            parsed,
        };
        self.rules.insert(name.to_owned(), rule);
        Ok(arn)
    }

    /// Enables or disables a rule.
    pub fn set_rule_enabled(&mut self, name: &str, enabled: bool) -> AwsApiResult<()> {
        self.rule_mut(name)?.enabled = enabled;
        Ok(())
    }

    /// The rule.
    pub fn describe_rule(&self, name: &str) -> AwsApiResult<&EventBridgeRule> {
        self.rules.get(name).ok_or_else(|| no_rule(name))
    }

    /// One page of the names of the rules that have the target.
    pub fn list_rule_names_by_target(
        &self,
        target: &str,
        next_token: Option<&str>,
        limit: usize,
    ) -> (Vec<&str>, Option<String>) {
        let found = self.rules.values().filter(|rule| rule.targets.values().any(|one| one.arn == target));
        page(found.map(|rule| (rule.name.as_str(), rule.name.as_str())), next_token, limit)
    }

    /// Adds targets to a rule or replaces those with the same id; a rule has at most 5.
    pub fn put_targets(&mut self, name: &str, targets: Vec<RuleTarget>) -> AwsApiResult<()> {
        for target in &targets {
            if target.rest.contains_key("InputPath") || target.rest.contains_key("InputTransformer") {
                return Err(validation(
                    "the sandbox sends events whole: InputPath and InputTransformer are not served",
                ));
            }
        }
        let rule = self.rule_mut(name)?;
        let mut all = rule.targets.clone();
        all.extend(targets.into_iter().map(|target| (target.id.clone(), target)));
        if all.len() > 5 {
            return Err(AwsApiError::new("LimitExceededException", "a rule has at most 5 targets"));
        }
        rule.targets = all;
        Ok(())
    }

    /// Removes targets and returns the ids that are unknown.
    pub fn remove_targets(&mut self, name: &str, ids: &[String]) -> AwsApiResult<Vec<String>> {
        let rule = self.rule_mut(name)?;
        Ok(ids.iter().filter(|id| rule.targets.remove(*id).is_none()).cloned().collect())
    }

    /// Sends up to 10 events; each is accepted or rejected on its own.
    pub fn put_events(
        &mut self,
        events: Vec<PutEvent>,
        now: Timestamp,
    ) -> AwsApiResult<Vec<PutEventOutcome>> {
        if !(1..=10).contains(&events.len()) {
            return Err(validation(format!("{} entries were given; 1 to 10 are allowed", events.len())));
        }
        Ok(events.into_iter().map(|event| self.put_event(event, now)).collect())
    }

    fn put_event(&mut self, event: PutEvent, now: Timestamp) -> PutEventOutcome {
        let refused = |error_code, message: &str| PutEventOutcome::Refused {
            error_code,
            error_message: message.to_owned(),
        };
        if event.source.starts_with("aws.") && !self.config.accept_aws_sources {
            return refused("NotAuthorizedForSourceException", "sources that start with aws. are AWS's own");
        }
        if event.source.is_empty() || event.detail_type.is_empty() {
            return refused("InvalidArgument", "an event needs Source and DetailType");
        }
        if self.check_bus(event.event_bus_name.as_deref()).is_err() {
            return refused("InvalidArgument", "the event bus does not exist");
        }
        let Ok(detail @ Value::Object(_)) = serde_json::from_str(&event.detail) else {
            return refused("MalformedDetail", "Detail must be a JSON object as text");
        };
        let PutEvent { source, detail_type, resources, .. } = event;
        let region = self.config.region.clone();
        let event_id =
            self.emit(PendingEventBridgeEvent { source, detail_type, region, resources, detail }, now);
        PutEventOutcome::Taken { event_id }
    }

    /// Rejects all but the default bus.
    pub(crate) fn check_bus(&self, bus: Option<&str>) -> AwsApiResult<()> {
        match bus {
            None | Some("" | "default") => Ok(()),
            Some(arn) if arn == self.arn("events", "event-bus/default") => Ok(()),
            Some(other) => {
                Err(AwsApiError::new("ResourceNotFoundException", format!("there is no event bus {other}")))
            }
        }
    }

    fn rule_mut(&mut self, name: &str) -> AwsApiResult<&mut EventBridgeRule> {
        self.rules.get_mut(name).ok_or_else(|| no_rule(name))
    }
}

fn no_rule(name: &str) -> AwsApiError {
    AwsApiError::new("ResourceNotFoundException", format!("there is no rule {name} on the default bus"))
}

pub(crate) fn validation(message: impl Into<String>) -> AwsApiError {
    AwsApiError::new("ValidationException", message)
}
