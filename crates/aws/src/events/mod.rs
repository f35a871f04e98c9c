//! Decodes a message's body into what it means, and guarantees three things about any body whatever: it never panics,
//! never needs more stack or memory than the body is long, and never gives back (nor prints) text of a body that it
//! could not read, since task overrides may hold secrets.
//!
//! Which events are known, and where each is read, is the table [`KINDS`].

pub(crate) mod address;
mod cloudtrail;
mod envelope;
mod json;
mod poison;
mod task_state_change;
#[cfg(test)]
mod tests;

use std::fmt;

use envelope::EventEnvelope;

pub use poison::PoisonReason;

use ecs_mesh_model::{Task, Timestamp};
use poison::PoisonMessage;

/// The longest body that is read: SQS's own limit.
pub const MAX_BODY_BYTES: usize = 1024 * 1024;

/// What a message's body says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decoded {
    /// A task's state at one version.
    Task(Box<Task>),
    /// A role's tags changed, or the role went away: what is known of its tags is stale.
    RoleChange {
        /// The role's name without its path, as IAM's API takes it.
        role_name: String,
        /// The account of the role, 12 digits.
        account: String,
        /// What happened.
        event: RoleEvent,
        /// When it happened; it may be told of minutes later.
        at: Option<Timestamp>,
    },
    /// A well-formed event that means nothing to the operator.
    Ignored {
        /// Which one, from a bounded set: fit for a metric's label.
        detail_type: &'static str,
    },
    /// A body that is not what it should be. Reading it again gives the same.
    Poison {
        /// What is wrong, from a bounded set.
        reason: PoisonReason,
        /// Where: a field's path such as `detail.containers[0].name`, or a line and column. Never content.
        where_: String,
    },
}

/// The IAM calls that make known role tags stale.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RoleEvent {
    /// Tags were added or changed.
    TagRole,
    /// Tags were taken away.
    UntagRole,
    /// The role was deleted.
    DeleteRole,
}

impl RoleEvent {
    const NAMES: [(&'static str, Self); 3] =
        [("TagRole", Self::TagRole), ("UntagRole", Self::UntagRole), ("DeleteRole", Self::DeleteRole)];

    /// Reads CloudTrail's `eventName`.
    pub fn parse(text: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(name, _)| *name == text).map(|(_, event)| *event)
    }

    /// CloudTrail's `eventName`.
    pub fn as_str(self) -> &'static str {
        Self::NAMES.iter().find(|(_, event)| *event == self).map_or("", |(name, _)| name)
    }
}

impl fmt::Display for RoleEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A kind of event that is known by its `detail-type`.
struct EventKind {
    detail_type: &'static str,
    /// The only `source` that is believed: EventBridge lets nobody but AWS write `aws.…`.
    source: &'static str,
    reading: EventParser,
}

/// What is done with a kind of event.
enum EventParser {
    /// It is read by this function, from the whole body.
    By(fn(&str, &EventEnvelope<'_>) -> Result<Decoded, PoisonMessage>),
    /// It means nothing to the operator; counted under this label.
    Ignored(&'static str),
}

/// Every kind of event that is known.
///
/// Source: <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/ecs_cwe_events.html>.
const KINDS: &[EventKind] = &[
    EventKind {
        detail_type: "ECS Task State Change",
        source: "aws.ecs",
        reading: EventParser::By(task_state_change::read),
    },
    EventKind {
        detail_type: "AWS API Call via CloudTrail",
        source: "aws.iam",
        reading: EventParser::By(cloudtrail::read),
    },
    // An agent disconnects several times an hour in normal life: this proves nothing of the instance's tasks.
    EventKind {
        detail_type: "ECS Container Instance State Change",
        source: "aws.ecs",
        reading: EventParser::Ignored("container_instance_state_change"),
    },
    EventKind {
        detail_type: "ECS Service Action",
        source: "aws.ecs",
        reading: EventParser::Ignored("service_action"),
    },
    EventKind {
        detail_type: "ECS Deployment State Change",
        source: "aws.ecs",
        reading: EventParser::Ignored("deployment_state_change"),
    },
];

/// Decodes a message's body: an EventBridge envelope, also one that came through an SNS topic.
pub fn decode(body: &str) -> Decoded {
    if body.len() > MAX_BODY_BYTES {
        return PoisonMessage::new(PoisonReason::TooLarge, "the body").into();
    }
    decode_delivered(body, true).unwrap_or_else(Decoded::from)
}

fn decode_delivered(body: &str, may_be_wrapped: bool) -> Result<Decoded, PoisonMessage> {
    let envelope: EventEnvelope<'_> = json::read(body)?;
    if may_be_wrapped && let Some(wrapped) = envelope.sns_message() {
        return decode_delivered(wrapped, false);
    }
    let (detail_type, source) = (envelope.detail_type()?, envelope.source()?);
    let Some(kind) = KINDS.iter().find(|kind| kind.detail_type == detail_type) else {
        return Ok(Decoded::Ignored { detail_type: "unknown" });
    };
    if kind.source != source {
        return Ok(Decoded::Ignored { detail_type: "unexpected_source" });
    }
    match kind.reading {
        EventParser::By(read) => read(body, &envelope),
        EventParser::Ignored(label) => Ok(Decoded::Ignored { detail_type: label }),
    }
}
