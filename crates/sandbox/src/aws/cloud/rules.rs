//! EventBridge rules with queue targets, and `PutEvents`. A rule of another bus than the default one has the name `BUS/NAME`
//! here, as in its ARN.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::delivery::PendingEventBridgeEvent;
use super::{page, pattern};
use crate::aws::{AwsApiError, AwsApiResult, Cloud};
use ecs_mesh_model::Timestamp;

/// Longest entries of a call, all together.
///
/// Source: <https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-putevent-size.html>.
const MAX_PUT_EVENTS_BYTES: usize = 1024 * 1024;

/// A rule.
#[derive(Clone, Debug)]
pub struct EventBridgeRule {
    /// Its name within its bus.
    pub name: String,
    /// The name of its bus; `None` of the default bus.
    pub bus: Option<String>,
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

    /// ARNs of the target queues and buses, with the constant input of each.
    pub(super) fn destinations(&self) -> Vec<(String, Option<String>)> {
        let is_served = |target: &&RuleTarget| matches!(target.arn.split(':').nth(2), Some("sqs" | "events"));
        let served = self.targets.values().filter(is_served);
        served.map(|target| (target.arn.clone(), target.input.clone())).collect()
    }
}

/// Target of a rule.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct RuleTarget {
    /// Unique within the rule.
    pub id: String,
    /// ARN of a queue, or of the default bus of another account. Other targets are accepted and receive nothing.
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
    /// Name or ARN of the bus; the default bus without one.
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
        let (bus, own_name) = name.rsplit_once('/').map_or((None, name), |(bus, name)| (Some(bus), name));
        if let Some(bus) = bus {
            self.bus_name(Some(bus))?;
        }
        if !is_name(own_name, 64) {
            return Err(validation(format!(
                "{name:?} is not a valid rule name: letters, digits, '.', '-', '_', at most 64"
            )));
        }
        let parsed = pattern::check(event_pattern)?;
        let arn = self.arn("events", &format!("rule/{name}"));
        let targets = self.rules.remove(name).map(|rule| rule.targets).unwrap_or_default();
        let rule = EventBridgeRule {
            name: own_name.to_owned(),
            bus: bus.map(str::to_owned),
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

    /// One page of the names of the bus's rules that have the target.
    pub fn list_rule_names_by_target(
        &self,
        bus: Option<&str>,
        target: &str,
        next_token: Option<&str>,
        limit: usize,
    ) -> (Vec<&str>, Option<String>) {
        let found = self
            .rules
            .values()
            .filter(|rule| rule.bus.as_deref() == bus)
            .filter(|rule| rule.targets.values().any(|one| one.arn == target));
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
        let size: usize = events.iter().map(PutEvent::size).sum();
        if size > MAX_PUT_EVENTS_BYTES {
            return Err(validation("Total size of the entries in the request is over the limit."));
        }
        Ok(events.into_iter().map(|event| self.put_event(event, now)).collect())
    }

    /// Makes `PutEvents` refuse the next entries with these codes, and take those without one.
    pub fn script_put_events(&mut self, codes: impl IntoIterator<Item = Option<&'static str>>) {
        self.scripted_put_events.extend(codes);
    }

    /// Creates an event bus and returns its ARN.
    pub fn create_event_bus(&mut self, name: &str) -> AwsApiResult<String> {
        if !is_name(name, 256) || name == "default" {
            return Err(validation(format!("{name:?} is not a valid name of an event bus")));
        }
        if !self.event_buses.insert(name.to_owned()) {
            return Err(AwsApiError::new(
                "ResourceAlreadyExistsException",
                format!("there is an event bus {name}"),
            ));
        }
        Ok(self.arn("events", &format!("event-bus/{name}")))
    }

    /// The name and ARN of an event bus.
    pub fn describe_event_bus(&self, bus: Option<&str>) -> AwsApiResult<(String, String)> {
        let name = self.bus_name(bus)?.unwrap_or_else(|| "default".to_owned());
        let arn = self.arn("events", &format!("event-bus/{name}"));
        Ok((name, arn))
    }

    fn put_event(&mut self, event: PutEvent, now: Timestamp) -> PutEventOutcome {
        let refused = |error_code, message: &str| PutEventOutcome::Refused {
            error_code,
            error_message: message.to_owned(),
        };
        if let Some(Some(code)) = self.scripted_put_events.pop_front() {
            return refused(code, "refused on purpose");
        }
        if event.source.starts_with("aws.") && !self.config.accept_aws_sources {
            return refused("NotAuthorizedForSourceException", "sources that start with aws. are AWS's own");
        }
        if event.source.is_empty() || event.detail_type.is_empty() {
            return refused("InvalidArgument", "an event needs Source and DetailType");
        }
        let Ok(bus) = self.bus_name(event.event_bus_name.as_deref()) else {
            return refused("InvalidArgument", "the event bus does not exist");
        };
        let Ok(detail @ Value::Object(_)) = serde_json::from_str(&event.detail) else {
            return refused("MalformedDetail", "Detail must be a JSON object as text");
        };
        let PutEvent { source, detail_type, resources, .. } = event;
        let region = self.config.region.clone();
        let event_id =
            self.emit(PendingEventBridgeEvent { bus, source, detail_type, region, resources, detail }, now);
        PutEventOutcome::Taken { event_id }
    }

    /// The name of a bus by its name or ARN; `None` of the default bus.
    pub(crate) fn bus_name(&self, bus: Option<&str>) -> AwsApiResult<Option<String>> {
        let given = bus.unwrap_or_default();
        match given.strip_prefix(&self.arn("events", "event-bus/")).unwrap_or(given) {
            "" | "default" => Ok(None),
            name if self.event_buses.contains(name) => Ok(Some(name.to_owned())),
            _ => Err(AwsApiError::new("ResourceNotFoundException", format!("there is no event bus {given}"))),
        }
    }

    fn rule_mut(&mut self, name: &str) -> AwsApiResult<&mut EventBridgeRule> {
        self.rules.get_mut(name).ok_or_else(|| no_rule(name))
    }
}

fn no_rule(name: &str) -> AwsApiError {
    AwsApiError::new("ResourceNotFoundException", format!("there is no rule {name}"))
}

fn is_name(text: &str, longest: usize) -> bool {
    (1..=longest).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
}

impl PutEvent {
    /// The size as EventBridge counts it, in bytes.
    fn size(&self) -> usize {
        let resources: usize = self.resources.iter().map(String::len).sum();
        self.source.len() + self.detail_type.len() + self.detail.len() + resources
    }
}

pub(crate) fn validation(message: impl Into<String>) -> AwsApiError {
    AwsApiError::new("ValidationException", message)
}
