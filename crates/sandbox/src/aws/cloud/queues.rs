//! SQS queues and their attributes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::queue::SqsQueue;
use crate::aws::{AwsApiError, AwsApiResult, Cloud};
use ecs_mesh_model::Timestamp;

/// Number of messages by state. Exact, where AWS gives approximate numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueCounts {
    /// Messages that `ReceiveMessage` can return.
    pub visible: usize,
    /// Received messages that are neither deleted nor visible again.
    pub in_flight: usize,
    /// Messages with a delay that is not over.
    pub delayed: usize,
}

/// A failed entry of a batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct BatchFailure {
    /// The entry's id.
    pub id: String,
    /// The error's code.
    pub code: String,
    /// The error's message.
    pub message: String,
    /// Whether the sender caused the error.
    pub sender_fault: bool,
}

/// Numeric attributes: name, default, minimum, maximum.
const NUMBERS: &[(&str, &str, u64, u64)] = &[
    ("DelaySeconds", "0", 0, 900),
    ("MaximumMessageSize", "1048576", 1024, 1_048_576),
    ("MessageRetentionPeriod", "345600", 60, 1_209_600),
    ("ReceiveMessageWaitTimeSeconds", "0", 0, 20),
    ("VisibilityTimeout", "30", 0, 43_200),
    ("KmsDataKeyReusePeriodSeconds", "300", 60, 86_400),
];

/// Text attributes, returned unchanged.
const TEXTS: &[&str] =
    &["Policy", "RedrivePolicy", "RedriveAllowPolicy", "KmsMasterKeyId", "SqsManagedSseEnabled"];

/// Read-only attributes.
const READ_ONLY: &[&str] = &[
    "QueueArn",
    "ApproximateNumberOfMessages",
    "ApproximateNumberOfMessagesNotVisible",
    "ApproximateNumberOfMessagesDelayed",
    "CreatedTimestamp",
    "LastModifiedTimestamp",
];

pub(super) fn default_of(name: &str) -> Option<&'static str> {
    NUMBERS.iter().find(|(known, ..)| *known == name).map(|(_, default, ..)| *default)
}

impl Cloud {
    /// Creates a queue and returns its name. An existing queue must have the same attributes.
    pub fn create_queue(
        &mut self,
        name: &str,
        attributes: BTreeMap<String, String>,
        now: Timestamp,
    ) -> AwsApiResult<String> {
        let allowed = (1..=80).contains(&name.len())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        if !allowed {
            return Err(bad_value(format!(
                "{name:?} is not a valid queue name: letters, digits, '-' and '_', at most 80; FIFO queues are not supported"
            )));
        }
        check(&attributes)?;
        if let Some(queue) = self.queues.get(name) {
            let same = attributes.iter().all(|(key, value)| {
                queue.attributes.get(key).map(String::as_str).or(default_of(key)) == Some(value.as_str())
            });
            return if same {
                Ok(name.to_owned())
            } else {
                let message = format!("there is a queue {name} already, with other attributes");
                Err(AwsApiError::new("QueueNameExists", message))
            };
        }
        let mut queue = SqsQueue::new(self.arn("sqs", name), self.rng.u64(..), now);
        queue.attributes = attributes;
        self.queues.insert(name.to_owned(), queue);
        Ok(name.to_owned())
    }

    /// The path of the queue's URL, `/ACCOUNT/NAME`.
    pub fn queue_path(&self, queue: &str) -> AwsApiResult<String> {
        let name = self.queue_name(queue)?;
        Ok(format!("/{}/{name}", self.config.account))
    }

    /// The ARN of a queue.
    pub fn queue_arn(&self, queue: &str) -> AwsApiResult<String> {
        Ok(self.queue_of(queue)?.arn.clone())
    }

    /// Deletes a queue with its messages. The name can be reused at once, unlike at AWS.
    pub fn delete_queue(&mut self, queue: &str) -> AwsApiResult<()> {
        let name = self.queue_name(queue)?;
        self.queues.remove(&name);
        Ok(())
    }

    /// Deletes all messages of a queue.
    pub fn purge_queue(&mut self, queue: &str) -> AwsApiResult<()> {
        self.queue_mut(queue)?.purge();
        Ok(())
    }

    /// Sets attributes; an empty text removes a policy.
    pub fn set_queue_attributes(
        &mut self,
        queue: &str,
        attributes: BTreeMap<String, String>,
        now: Timestamp,
    ) -> AwsApiResult<()> {
        check(&attributes)?;
        let queue = self.queue_mut(queue)?;
        for (name, value) in attributes {
            if value.is_empty() {
                queue.attributes.remove(&name);
            } else {
                queue.attributes.insert(name, value);
            }
        }
        queue.modified_at = now;
        Ok(())
    }

    /// The requested attributes; `All` means all.
    pub fn get_queue_attributes<S: AsRef<str>>(
        &mut self,
        queue: &str,
        names: &[S],
        now: Timestamp,
    ) -> AwsApiResult<BTreeMap<String, String>> {
        for name in names {
            let name = name.as_ref();
            if name != "All" && !READ_ONLY.contains(&name) && !settable(name) {
                return Err(AwsApiError::new(
                    "InvalidAttributeName",
                    format!("there is no attribute {name}"),
                ));
            }
        }
        let counts = self.queue_counts(queue, now)?;
        let queue = self.queue_of(queue)?;
        let mut all: BTreeMap<String, String> = NUMBERS[..5]
            .iter()
            .map(|(name, default, ..)| ((*name).to_owned(), (*default).to_owned()))
            .chain(queue.attributes.clone())
            .collect();
        all.entry("SqsManagedSseEnabled".into()).or_insert_with(|| "true".into());
        for (name, value) in [
            ("QueueArn", queue.arn.clone()),
            ("ApproximateNumberOfMessages", counts.visible.to_string()),
            ("ApproximateNumberOfMessagesNotVisible", counts.in_flight.to_string()),
            ("ApproximateNumberOfMessagesDelayed", counts.delayed.to_string()),
            ("CreatedTimestamp", (queue.created_at.0 / 1000).to_string()),
            ("LastModifiedTimestamp", (queue.modified_at.0 / 1000).to_string()),
        ] {
            all.insert(name.to_owned(), value);
        }
        if !names.iter().any(|name| name.as_ref() == "All") {
            all.retain(|key, _| names.iter().any(|name| name.as_ref() == key));
        }
        Ok(all)
    }

    /// Number of messages by state.
    pub fn queue_counts(&mut self, queue: &str, now: Timestamp) -> AwsApiResult<QueueCounts> {
        let queue = self.queue_mut(queue)?;
        let released = queue.release_due(now);
        let counts = queue.counts();
        self.message_arrived |= released;
        Ok(counts)
    }

    /// Default wait time of `ReceiveMessage`.
    pub fn receive_wait(&self, queue: &str) -> AwsApiResult<std::time::Duration> {
        Ok(self.queue_of(queue)?.seconds("ReceiveMessageWaitTimeSeconds"))
    }

    /// The queue name for a name, a URL or an ARN.
    pub(super) fn queue_name(&self, queue: &str) -> AwsApiResult<String> {
        let name = queue.rsplit(['/', ':']).next().unwrap_or(queue);
        if self.queues.contains_key(name) {
            return Ok(name.to_owned());
        }
        Err(AwsApiError::new("QueueDoesNotExist", format!("there is no queue {name}")))
    }

    pub(super) fn queue_of(&self, queue: &str) -> AwsApiResult<&SqsQueue> {
        Ok(&self.queues[&self.queue_name(queue)?])
    }

    pub(super) fn queue_mut(&mut self, queue: &str) -> AwsApiResult<&mut SqsQueue> {
        let name = self.queue_name(queue)?;
        self.queues
            .get_mut(&name)
            .ok_or_else(|| AwsApiError::new("QueueDoesNotExist", format!("there is no queue {name}")))
    }
}

fn settable(name: &str) -> bool {
    TEXTS.contains(&name) || default_of(name).is_some()
}

fn check(attributes: &BTreeMap<String, String>) -> AwsApiResult<()> {
    for (name, value) in attributes {
        if let Some((_, _, least, most)) = NUMBERS.iter().find(|(known, ..)| known == name) {
            if value.parse::<u64>().is_ok_and(|number| (*least..=*most).contains(&number)) {
                continue;
            }
            let message = format!("{name} is {value:?}; {least} to {most} are allowed");
            return Err(AwsApiError::new("InvalidAttributeValue", message));
        }
        if !settable(name) {
            return Err(AwsApiError::new("InvalidAttributeName", format!("attribute {name} cannot be set")));
        }
        let json = matches!(name.as_str(), "Policy" | "RedrivePolicy" | "RedriveAllowPolicy");
        if json && !value.is_empty() && serde_json::from_str::<serde_json::Value>(value).is_err() {
            return Err(AwsApiError::new("InvalidAttributeValue", format!("{name} is not JSON")));
        }
    }
    Ok(())
}

pub(super) fn bad_value(message: impl Into<String>) -> AwsApiError {
    AwsApiError::new("InvalidParameterValue", message)
}
