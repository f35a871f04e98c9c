//! The event buses of EventBridge, as flags name them.

use std::fmt;
use std::str::FromStr;

use super::arn::{ArnError, event_bus_parts};

/// An event bus: by its name in the operator's account and Region, or by its ARN in another.
///
/// ```
/// use ecs_mesh_model::EventBusRef;
///
/// let bus: EventBusRef = "team-events".parse()?;
/// assert_eq!((bus.as_str(), bus.region()), ("team-events", None));
/// let bus: EventBusRef = "arn:aws:events:eu-west-1:111122223333:event-bus/team-events".parse()?;
/// assert_eq!((bus.name(), bus.region()), ("team-events", Some("eu-west-1")));
/// # Ok::<(), ecs_mesh_model::ArnError>(())
/// ```
///
/// Source: <https://docs.aws.amazon.com/eventbridge/latest/APIReference/API_PutEventsRequestEntry.html> (`EventBusName`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventBusRef(String);

impl EventBusRef {
    /// The name or ARN, as given.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name of the bus.
    pub fn name(&self) -> &str {
        event_bus_parts(&self.0).map_or(&self.0, |(.., name)| name)
    }

    /// The Region of the ARN; `None` of a name.
    pub fn region(&self) -> Option<&str> {
        event_bus_parts(&self.0).map(|(region, ..)| region)
    }

    /// The account of the ARN; `None` of a name.
    pub fn account(&self) -> Option<&str> {
        event_bus_parts(&self.0).map(|(_, account, _)| account)
    }
}

impl FromStr for EventBusRef {
    type Err = ArnError;

    fn from_str(text: &str) -> Result<Self, ArnError> {
        if is_name(text) || event_bus_parts(text).is_some_and(|(.., name)| is_name(name)) {
            return Ok(Self(text.to_owned()));
        }
        Err(ArnError::Shape {
            kind: "an event bus, or its name",
            found: text.chars().take(120).collect(),
            expected: "a name of letters, digits and ./-_, or arn:PARTITION:events:REGION:ACCOUNT:event-bus/NAME",
        })
    }
}

impl fmt::Display for EventBusRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn is_name(text: &str) -> bool {
    (1..=256).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'.' | b'-' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bus_is_a_name_or_an_arn_of_one() {
        let arn = "arn:aws-cn:events:cn-north-1:111122223333:event-bus/aws.partner/x";
        let bus: EventBusRef = arn.parse().unwrap();
        assert_eq!(
            (bus.name(), bus.region(), bus.account()),
            ("aws.partner/x", Some("cn-north-1"), Some("111122223333"))
        );
        for wrong in [
            "",
            "a b",
            "arn:aws:events:eu-west-1:111122223333:rule/x",
            "arn:aws:sqs:eu-west-1:111122223333:event-bus/x",
            "arn:aws:events:eu-west-1:111122223333:event-bus/",
            "arn:aws:events::111122223333:event-bus/x",
            "https://events.eu-west-1.amazonaws.com",
        ] {
            assert!(wrong.parse::<EventBusRef>().is_err(), "{wrong}");
        }
    }
}
