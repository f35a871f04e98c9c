//! Decodes a message's body. For any body, decoding never panics, needs no more stack or memory than the body's length, and
//! returns no text of a body that it cannot decode, since task overrides may contain secrets.
//!
//! The table `KINDS` lists the known events with their parsers. The envelope keeps `detail` as raw JSON, which the event's own
//! parser then reads. Events of tasks, nearly all messages, are read with their `detail` in one pass before.

mod cloudtrail;
mod deployment_state_change;
mod envelope;
mod json;
mod poison;
mod task_state_change;
#[cfg(test)]
mod tests;

use std::fmt;

use envelope::EventEnvelope;

pub use poison::PoisonReason;

use ecs_mesh_model::{EcsServiceArn, TaskArn, Timestamp};
use poison::PoisonMessage;

/// The longest accepted body: SQS's own limit.
pub const MAX_BODY_BYTES: usize = 1024 * 1024;

/// A decoded body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decoded {
    /// A task changed.
    Task(TaskHint),
    /// A deployment of a service has started or ended.
    Deployment(DeploymentHint),
    /// A role's tags changed, or the role was deleted: cached tags are stale.
    RoleChange {
        /// The role's name without its path, as IAM's API takes it.
        role_name: String,
        /// The account of the role, 12 digits.
        account: String,
        /// The IAM call.
        event: RoleEvent,
        /// Time of the call; the event may arrive minutes later.
        at: Option<Timestamp>,
    },
    /// SNS asks to confirm the subscription of the queue. Until a person confirms it, the topic delivers nothing.
    SubscriptionConfirmation,
    /// A well-formed event that the operator ignores.
    Ignored {
        /// The kind, from a bounded set; a metric label.
        detail_type: &'static str,
    },
    /// A body that can never be decoded.
    Poison {
        /// The reason, from a bounded set.
        reason: PoisonReason,
        /// A field's path such as `detail.containers[0].name`, or a line and column; never content.
        path: String,
    },
}

/// The content of an event of a task. A hint: only a describe shows the task's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskHint {
    /// The task.
    pub task: TaskArn,
    /// Grows with every change of the task; the same number in DescribeTasks.
    pub version: u64,
    /// The state, as the event has it.
    pub state: HintedState,
}

/// The content of an event of a deployment. A hint: only a describe shows the service's deployments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeploymentHint {
    /// The service.
    pub service: EcsServiceArn,
    /// The deployment: `ecs-svc/` and digits.
    pub deployment: String,
}

/// A task's state, as an event has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HintedState {
    /// Desired status RUNNING.
    Running,
    /// Desired status STOPPED.
    Stopping,
    /// Last status STOPPED.
    Stopped,
}

impl HintedState {
    /// Whether the event says that ECS is stopping the task or has stopped it.
    pub fn is_stop(self) -> bool {
        self != Self::Running
    }
}

/// The IAM calls that make known role tags stale.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RoleEvent {
    /// Tags were added or changed.
    TagRole,
    /// Tags were removed.
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

/// A known kind of event.
struct EventKind {
    detail_type: &'static str,
    /// The only accepted `source`. EventBridge accepts `aws.…` from AWS alone.
    source: &'static str,
    parser: EventParser,
}

/// Handling of a kind of event.
enum EventParser {
    /// Read by this function.
    By(fn(&EventEnvelope<'_>) -> Result<Decoded, PoisonMessage>),
    /// Ignored and counted with this label.
    Ignored(&'static str),
}

/// All known events.
///
/// Source: <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/ecs_cwe_events.html>.
const KINDS: &[EventKind] = &[
    EventKind {
        detail_type: task_state_change::DETAIL_TYPE,
        source: task_state_change::SOURCE,
        parser: EventParser::By(task_state_change::read),
    },
    EventKind {
        detail_type: "AWS API Call via CloudTrail",
        source: "aws.iam",
        parser: EventParser::By(cloudtrail::read),
    },
    // An agent disconnects several times an hour in normal operation, so this is no evidence about the instance's tasks.
    EventKind {
        detail_type: "ECS Container Instance State Change",
        source: "aws.ecs",
        parser: EventParser::Ignored("container_instance_state_change"),
    },
    EventKind {
        detail_type: "ECS Service Action",
        source: "aws.ecs",
        parser: EventParser::Ignored("service_action"),
    },
    EventKind {
        detail_type: "ECS Deployment State Change",
        source: "aws.ecs",
        parser: EventParser::By(deployment_state_change::read),
    },
];

/// Decodes a message's body: an EventBridge event, directly or through an SNS topic.
pub fn decode(body: &str) -> Decoded {
    if body.len() > MAX_BODY_BYTES {
        return PoisonMessage::new(PoisonReason::TooLarge, "the body").into();
    }
    decode_delivered(body, true).unwrap_or_else(Decoded::from)
}

fn decode_delivered(body: &str, may_be_wrapped: bool) -> Result<Decoded, PoisonMessage> {
    if let Some(decoded) = task_state_change::read_body(body) {
        return Ok(decoded);
    }
    let envelope: EventEnvelope<'_> = json::read(body)?;
    if may_be_wrapped && let Some(wrapped) = envelope.sns_message() {
        return decode_delivered(wrapped, false);
    }
    if envelope.is_subscription_confirmation() {
        return Ok(Decoded::SubscriptionConfirmation);
    }
    let (detail_type, source) = (envelope.detail_type()?, envelope.source()?);
    let Some(kind) = KINDS.iter().find(|kind| kind.detail_type == detail_type) else {
        return Ok(Decoded::Ignored { detail_type: "unknown" });
    };
    if kind.source != source {
        return Ok(Decoded::Ignored { detail_type: "unexpected_source" });
    }
    match kind.parser {
        EventParser::By(read) => read(&envelope),
        EventParser::Ignored(label) => Ok(Decoded::Ignored { detail_type: label }),
    }
}
