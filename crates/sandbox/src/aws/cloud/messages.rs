//! SQS messages: send, receive, delete, change visibility, redrive.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use md5::{Digest, Md5};
use serde::{Deserialize, Serialize};

use super::queue::{HandleError, StoredMessage};
use super::queues::bad_value;
use crate::aws::{AwsApiError, AwsApiResult, Cloud};
use ecs_mesh_model::Timestamp;

/// Maximum number of in-flight messages of a queue.
const IN_FLIGHT_MAX: usize = 120_000;
/// Maximum size of a message, and of a batch in total.
const SIZE_MAX: usize = 1_048_576;

/// A message attribute. Binary attributes are not supported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct MessageAttribute {
    /// `String` or `Number`, with an optional suffix.
    pub data_type: String,
    /// The value.
    #[serde(default)]
    pub string_value: String,
}

/// Request of `SendMessage`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct SendMessage {
    /// The body.
    pub message_body: String,
    /// Initial delay; default: the queue's.
    pub delay_seconds: Option<u64>,
    /// Attributes.
    pub message_attributes: BTreeMap<String, MessageAttribute>,
}

impl SendMessage {
    /// A message without attributes.
    pub fn of(body: impl Into<String>) -> Self {
        Self { message_body: body.into(), ..Self::default() }
    }
}

/// Response of `SendMessage`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SentMessage {
    /// The message's id.
    #[serde(rename = "MessageId")]
    pub message_id: String,
    /// MD5 of the body, in hex.
    #[serde(rename = "MD5OfMessageBody")]
    pub body_md5: String,
    /// MD5 of the attributes, if any.
    #[serde(rename = "MD5OfMessageAttributes", skip_serializing_if = "Option::is_none")]
    pub attributes_md5: Option<String>,
}

/// Request of `ReceiveMessage`. The caller implements long polling.
#[derive(Clone, Copy, Debug)]
pub struct ReceiveMessages {
    /// 1 to 10.
    pub max: usize,
    /// Visibility timeout; default: the queue's.
    pub visibility: Option<Duration>,
}

/// A received message.
#[derive(Clone, Debug)]
pub struct ReceivedMessage {
    /// Its id.
    pub message_id: String,
    /// Handle for deletion.
    pub receipt_handle: String,
    /// Its body.
    pub body: Arc<str>,
    /// Its attributes.
    pub attributes: Arc<BTreeMap<String, MessageAttribute>>,
    /// System attributes (`SentTimestamp`, `ApproximateReceiveCount`, …).
    pub system: BTreeMap<&'static str, String>,
}

impl Cloud {
    /// Sends a message.
    pub fn send_message(
        &mut self,
        queue: &str,
        request: SendMessage,
        now: Timestamp,
    ) -> AwsApiResult<SentMessage> {
        let SendMessage { message_body, delay_seconds, message_attributes } = request;
        if message_body.is_empty() {
            return Err(AwsApiError::new("MissingParameter", "a message needs a body"));
        }
        if message_body.len() > SIZE_MAX {
            return Err(bad_value(format!("a message has at most {SIZE_MAX} bytes")));
        }
        if message_attributes.values().any(|attribute| attribute.data_type.starts_with("Binary")) {
            return Err(AwsApiError::new("UnsupportedOperation", "binary attributes are not served"));
        }
        let delay = match delay_seconds {
            Some(seconds @ 0..=900) => Duration::from_secs(seconds),
            Some(other) => return Err(bad_value(format!("DelaySeconds is {other}; 0 to 900 are allowed"))),
            None => self.queue_of(queue)?.seconds("DelaySeconds"),
        };
        let sent = SentMessage {
            message_id: self.uuid(),
            body_md5: md5_hex(message_body.as_bytes()),
            attributes_md5: attributes_md5(&message_attributes),
        };
        let message = StoredMessage {
            id: sent.message_id.clone(),
            body: message_body.into(),
            attributes: Arc::new(message_attributes),
            sender: self.config.account.clone(),
            sent_at: now,
            first_received_at: None,
            receives: 0,
            dead_letter_source: None,
        };
        let ready = self.queue_mut(queue)?.put(message, delay, 0, now);
        self.message_arrived |= ready;
        Ok(sent)
    }

    /// Puts an event into a queue; dropped if the queue was deleted.
    pub(super) fn enqueue_event(&mut self, queue: &str, body: &Arc<str>, now: Timestamp) {
        let jitter = if self.config.delivery.shuffle { self.rng.u64(..64) } else { 0 };
        let id = self.uuid();
        let Some(queue) = self.queues.get_mut(queue) else { return };
        let message = StoredMessage {
            id,
            body: body.clone(),
            attributes: Arc::default(),
            sender: "AIDAEVENTBRIDGE0000000".into(),
            sent_at: now,
            first_received_at: None,
            receives: 0,
            dead_letter_source: None,
        };
        let delay = queue.seconds("DelaySeconds");
        self.message_arrived |= queue.put(message, delay, jitter, now);
    }

    /// Receives up to `max` ready messages. Messages above the maximum receive count move to the dead-letter queue.
    pub fn receive_message(
        &mut self,
        queue: &str,
        request: ReceiveMessages,
        now: Timestamp,
    ) -> AwsApiResult<Vec<ReceivedMessage>> {
        if !(1..=10).contains(&request.max) {
            return Err(bad_value(format!("MaxNumberOfMessages is {}; 1 to 10 are allowed", request.max)));
        }
        let name = self.queue_name(queue)?;
        let queue = self.queue_mut(&name)?;
        let visibility = request.visibility.unwrap_or_else(|| queue.seconds("VisibilityTimeout"));
        if visibility > Duration::from_hours(12) {
            return Err(bad_value("VisibilityTimeout is at most 43200 seconds"));
        }
        queue.release_due(now);
        if queue.counts().in_flight >= IN_FLIGHT_MAX {
            return Err(AwsApiError::new(
                "OverLimit",
                format!("{IN_FLIGHT_MAX} messages are in flight already"),
            ));
        }
        if queue.counts().visible == 0 {
            return Ok(Vec::new());
        }
        let redrive = queue.redrive();
        let arn = queue.arn.clone();
        let (mut received, mut dead, mut received_ids) = (Vec::new(), Vec::new(), Vec::new());
        while received_ids.len() < request.max {
            let Some(id) = queue.pop_ready() else { break };
            let exceeded = queue
                .message(id)
                .zip(redrive.as_ref())
                .is_some_and(|(message, (_, most))| message.receives >= *most);
            if exceeded {
                dead.extend(queue.remove(id));
            } else {
                received_ids.push(id);
            }
        }
        for id in received_ids {
            if let Some((message, receipt_handle)) = queue.hand_out(id, now.plus(visibility), now) {
                received.push(shown(message, receipt_handle));
            }
        }
        if let Some((target, _)) = redrive {
            self.move_to_dead_letter_queue(&target, &arn, dead, now);
        }
        Ok(received)
    }

    fn move_to_dead_letter_queue(
        &mut self,
        target: &str,
        source: &str,
        dead: Vec<StoredMessage>,
        now: Timestamp,
    ) {
        let Ok(target) = self.queue_mut(target) else { return };
        let mut visible = false;
        for mut message in dead {
            message.dead_letter_source = Some(source.to_owned());
            visible |= target.put(message, Duration::ZERO, 0, now);
        }
        self.message_arrived |= visible;
    }

    /// Deletes a message by the handle of its latest receive.
    pub fn delete_message(&mut self, queue: &str, receipt_handle: &str) -> AwsApiResult<()> {
        self.queue_mut(queue)?.delete(receipt_handle).map_err(handle_error)
    }

    /// Sets the visibility timeout of an in-flight message; zero makes it visible.
    pub fn change_message_visibility(
        &mut self,
        queue: &str,
        receipt_handle: &str,
        timeout_seconds: u64,
        now: Timestamp,
    ) -> AwsApiResult<()> {
        if timeout_seconds > 43_200 {
            return Err(bad_value("VisibilityTimeout is at most 43200 seconds"));
        }
        let timeout = Duration::from_secs(timeout_seconds);
        let queue = self.queue_mut(queue)?;
        queue.release_due(now);
        let ready = queue.change_visibility(receipt_handle, timeout, now).map_err(handle_error)?;
        self.message_arrived |= ready;
        Ok(())
    }
}

fn shown(message: StoredMessage, receipt_handle: String) -> ReceivedMessage {
    let mut system = BTreeMap::from([
        ("SenderId", message.sender),
        ("SentTimestamp", message.sent_at.0.to_string()),
        ("ApproximateReceiveCount", message.receives.to_string()),
    ]);
    if let Some(at) = message.first_received_at {
        system.insert("ApproximateFirstReceiveTimestamp", at.0.to_string());
    }
    if let Some(source) = message.dead_letter_source {
        system.insert("DeadLetterQueueSourceArn", source);
    }
    ReceivedMessage {
        message_id: message.id,
        receipt_handle,
        body: message.body,
        attributes: message.attributes,
        system,
    }
}

fn handle_error(error: HandleError) -> AwsApiError {
    match error {
        HandleError::Invalid => {
            AwsApiError::new("ReceiptHandleIsInvalid", "the receipt handle is none of this queue's")
        }
        HandleError::Stale => {
            bad_value("the receipt handle has expired: the message is gone or was received again")
        }
        HandleError::NotInFlight => AwsApiError::new("MessageNotInflight", "the message is not in flight"),
    }
}

/// Source: <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-message-metadata.html>.
pub(crate) fn attributes_md5(attributes: &BTreeMap<String, MessageAttribute>) -> Option<String> {
    if attributes.is_empty() {
        return None;
    }
    let mut hash = Md5::new();
    for (name, attribute) in attributes {
        add(&mut hash, name);
        add(&mut hash, &attribute.data_type);
        // Transport type of the value: 1 is text.
        hash.update([1]);
        add(&mut hash, &attribute.string_value);
    }
    Some(hex(&hash.finalize()))
}

fn add(hash: &mut Md5, text: &str) {
    // SQS's limit is far below 4 GiB.
    hash.update(u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes());
    hash.update(text);
}

/// MD5 in hex, SQS's checksum.
pub(crate) fn md5_hex(bytes: &[u8]) -> String {
    hex(&Md5::digest(bytes))
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
