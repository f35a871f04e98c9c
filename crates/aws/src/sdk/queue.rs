//! The event queue with the SDK.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use aws_config::timeout::TimeoutConfig;
use aws_sdk_sqs::Client;
use aws_sdk_sqs::types::{
    BatchResultErrorEntry, ChangeMessageVisibilityBatchRequestEntry, DeleteMessageBatchRequestEntry,
    MessageSystemAttributeName as Attribute, QueueAttributeName,
};

use super::call::CallRunner;
use super::{CONNECT_TIMEOUT, error};
use crate::aws::{AwsError, AwsErrorKind, EventQueue, QueueMessage};
use ecs_mesh_model::Timestamp;

/// SQS's largest batch.
const BATCH: i32 = 10;
/// SQS's longest long poll.
const WAIT_SECONDS: i32 = 20;
/// Time limit of a long poll: the wait, plus the time limit of any other call.
const RECEIVE_TIMEOUT: Duration = Duration::from_secs(25);

/// A queue by its URL.
#[derive(Clone)]
pub struct SdkQueue {
    client: Client,
    calls: CallRunner,
    url: String,
    name: String,
}

/// The settings of a queue that matter to the operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueAttributes {
    /// How long a received message is invisible to other receivers.
    pub visibility_timeout: Duration,
    /// How long a message is kept.
    pub retention: Duration,
    /// Whether a redrive policy moves messages to a dead-letter queue.
    pub has_redrive: bool,
}

impl SdkQueue {
    pub(super) fn new(client: Client, calls: CallRunner, url: &str) -> Self {
        let name = url.rsplit('/').next().unwrap_or_default().to_owned();
        Self { client, calls, url: url.to_owned(), name }
    }

    /// The same queue by another name in metrics, where several queues have the same.
    #[must_use]
    pub fn named(self, name: &str) -> Self {
        Self { name: name.to_owned(), ..self }
    }

    /// The queue's URL.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The queue's settings; `NotFound` if the queue does not exist.
    pub async fn attributes(&self) -> Result<QueueAttributes, AwsError> {
        let call = self
            .client
            .get_queue_attributes()
            .queue_url(&self.url)
            .attribute_names(QueueAttributeName::VisibilityTimeout)
            .attribute_names(QueueAttributeName::MessageRetentionPeriod)
            .attribute_names(QueueAttributeName::RedrivePolicy)
            .send();
        let answer = self.calls.run("sqs:GetQueueAttributes", &self.url, call).await?;
        let text = |name| answer.attributes().and_then(|all| all.get(&name)).map(String::as_str);
        // SQS's defaults, for servers that omit attributes.
        let seconds = |name, default| {
            Duration::from_secs(text(name).and_then(|value| value.parse().ok()).unwrap_or(default))
        };
        Ok(QueueAttributes {
            visibility_timeout: seconds(QueueAttributeName::VisibilityTimeout, 30),
            retention: seconds(QueueAttributeName::MessageRetentionPeriod, 4 * 24 * 3600),
            has_redrive: text(QueueAttributeName::RedrivePolicy).is_some_and(|policy| !policy.is_empty()),
        })
    }

    /// All attributes of the queue by name; `NotFound` if the queue does not exist.
    pub async fn all_attributes(&self) -> Result<BTreeMap<String, String>, AwsError> {
        let call = self.client.get_queue_attributes().queue_url(&self.url);
        let call = call.attribute_names(QueueAttributeName::All).send();
        let answer = Box::pin(self.calls.run("sqs:GetQueueAttributes", &self.url, call)).await?;
        let all = answer.attributes.into_iter().flatten();
        Ok(all.map(|(name, value)| (name.as_str().to_owned(), value)).collect())
    }
}

#[async_trait]
impl EventQueue for SdkQueue {
    fn name(&self) -> &str {
        &self.name
    }

    async fn receive(&self) -> Result<Vec<QueueMessage>, AwsError> {
        let long_poll = TimeoutConfig::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .operation_attempt_timeout(RECEIVE_TIMEOUT)
            .build();
        let call = self
            .client
            .receive_message()
            .queue_url(&self.url)
            .max_number_of_messages(BATCH)
            .wait_time_seconds(WAIT_SECONDS)
            .message_system_attribute_names(Attribute::SentTimestamp)
            .message_system_attribute_names(Attribute::ApproximateReceiveCount)
            .customize()
            .config_override(aws_sdk_sqs::config::Builder::new().timeout_config(long_poll))
            .send();
        let answer = self.calls.run("sqs:ReceiveMessage", &self.url, call).await?;
        Ok(answer.messages.into_iter().flatten().filter_map(message).collect())
    }

    async fn delete(&self, receipts: &[String]) -> Result<Vec<String>, AwsError> {
        if receipts.is_empty() {
            return Ok(Vec::new());
        }
        let operation = "sqs:DeleteMessage";
        let entries = receipts.iter().enumerate().map(|(index, receipt)| {
            DeleteMessageBatchRequestEntry::builder().id(index.to_string()).receipt_handle(receipt).build()
        });
        let entries =
            entries.collect::<Result<Vec<_>, _>>().map_err(|error| self.build_error(operation, &error))?;
        let call = self.client.delete_message_batch().queue_url(&self.url).set_entries(Some(entries)).send();
        let answer = self.calls.run(operation, &self.url, call).await?;
        let failed = answer.failed();
        if let Some(first) = failed.first() {
            tracing::debug!(failed = failed.len(), code = first.code(), "SQS did not delete some messages");
        }
        Ok(failed
            .iter()
            .filter_map(|entry| entry.id().parse::<usize>().ok())
            .filter_map(|index| receipts.get(index).cloned())
            .collect())
    }

    async fn release(&self, receipts: &[String]) -> Result<(), AwsError> {
        if receipts.is_empty() {
            return Ok(());
        }
        let operation = "sqs:ChangeMessageVisibility";
        let entries = receipts.iter().enumerate().map(|(index, receipt)| {
            ChangeMessageVisibilityBatchRequestEntry::builder()
                .id(index.to_string())
                .receipt_handle(receipt)
                .visibility_timeout(0)
                .build()
        });
        let entries =
            entries.collect::<Result<Vec<_>, _>>().map_err(|error| self.build_error(operation, &error))?;
        let call = self
            .client
            .change_message_visibility_batch()
            .queue_url(&self.url)
            .set_entries(Some(entries))
            .send();
        let answer = self.calls.run(operation, &self.url, call).await?;
        match answer.failed() {
            [] => Ok(()),
            [first, ..] => Err(self.partial_failure(operation, first, answer.failed().len(), receipts.len())),
        }
    }
}

impl SdkQueue {
    fn build_error(&self, operation: &'static str, error: &aws_sdk_sqs::error::BuildError) -> AwsError {
        AwsError {
            kind: AwsErrorKind::Invalid,
            operation,
            resource: self.url.clone(),
            code: "request".to_owned(),
            message: error::clean(&error.to_string()),
            hint: "",
        }
    }

    fn partial_failure(
        &self,
        operation: &'static str,
        first: &BatchResultErrorEntry,
        failed: usize,
        of: usize,
    ) -> AwsError {
        let message = first.message().unwrap_or("no reason given");
        AwsError {
            kind: if first.sender_fault() { AwsErrorKind::Invalid } else { AwsErrorKind::Unavailable },
            operation,
            resource: self.url.clone(),
            code: first.code().to_owned(),
            message: error::clean(&format!("{failed} of {of} messages: {message}")),
            hint: "; SQS redelivers them after the visibility time-out",
        }
    }
}

/// Skips a message without a receipt, which could be neither deleted nor released. SQS sends none.
fn message(found: aws_sdk_sqs::types::Message) -> Option<QueueMessage> {
    let attribute = |name| found.attributes.as_ref().and_then(|all| all.get(&name));
    let sent_at = attribute(Attribute::SentTimestamp).and_then(|text| text.parse().ok()).map(Timestamp);
    let receives =
        attribute(Attribute::ApproximateReceiveCount).and_then(|text| text.parse().ok()).unwrap_or(1);
    Some(QueueMessage {
        receipt: found.receipt_handle?,
        body: found.body.unwrap_or_default(),
        sent_at,
        receives,
    })
}
