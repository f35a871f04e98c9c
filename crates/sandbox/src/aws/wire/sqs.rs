//! The operations of SQS, in its JSON protocol.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::request::AwsRequest;
use crate::aws::cloud::{attributes_md5, md5_hex};
use crate::aws::{
    AwsApiError, AwsApiResult, BatchFailure, Cloud, ReceiveMessages, ReceivedMessage, SendMessage,
};
use ecs_mesh_model::Timestamp;

pub(super) fn perform(cloud: &mut Cloud, request: &AwsRequest, now: Timestamp) -> AwsApiResult<Value> {
    let queue = request.text("QueueUrl");
    match request.operation.as_str() {
        "SendMessage" => {
            let sent = cloud.send_message(queue, request.read_as::<SendMessage>()?, now)?;
            return Ok(json!(sent));
        }
        "DeleteMessage" => cloud.delete_message(queue, request.text("ReceiptHandle"))?,
        "DeleteMessageBatch" | "ChangeMessageVisibilityBatch" => return perform_batch(cloud, request, now),
        "SetQueueAttributes" => cloud.set_queue_attributes(queue, map(request, "Attributes"), now)?,
        _ => return answers(cloud, request, now),
    }
    Ok(json!({}))
}

fn answers(cloud: &mut Cloud, request: &AwsRequest, now: Timestamp) -> AwsApiResult<Value> {
    let url = |cloud: &Cloud, name: &str| Ok(format!("{}{}", request.base_url, cloud.queue_path(name)?));
    let queue = request.text("QueueUrl");
    Ok(match request.operation.as_str() {
        "CreateQueue" => {
            let name = cloud.create_queue(request.text("QueueName"), map(request, "Attributes"), now)?;
            json!({"QueueUrl": url(cloud, &name)?})
        }
        "GetQueueUrl" => json!({"QueueUrl": url(cloud, request.text("QueueName"))?}),
        "GetQueueAttributes" => {
            let attributes = cloud.get_queue_attributes(queue, &request.texts("AttributeNames"), now)?;
            if attributes.is_empty() { json!({}) } else { json!({"Attributes": attributes}) }
        }
        _ => return Err(request.unknown_operation()),
    })
}

fn map(request: &AwsRequest, field: &str) -> BTreeMap<String, String> {
    let fields = request.body[field].as_object().into_iter().flatten();
    fields.map(|(name, value)| (name.clone(), value.as_str().unwrap_or_default().to_owned())).collect()
}

fn perform_batch(cloud: &mut Cloud, request: &AwsRequest, now: Timestamp) -> AwsApiResult<Value> {
    let queue = request.text("QueueUrl");
    cloud.queue_path(queue)?;
    let entries = entries(request)?;
    let (mut successful, mut failed) = (Vec::new(), Vec::new());
    for (id, entry) in entries {
        let outcome = match request.operation.as_str() {
            "DeleteMessageBatch" => cloud
                .delete_message(queue, entry["ReceiptHandle"].as_str().unwrap_or_default())
                .map(|()| json!({})),
            _ => {
                let timeout = entry["VisibilityTimeout"].as_u64().unwrap_or(u64::MAX);
                let handle = entry["ReceiptHandle"].as_str().unwrap_or_default();
                cloud.change_message_visibility(queue, handle, timeout, now).map(|()| json!({}))
            }
        };
        match outcome {
            Ok(mut done) => {
                done["Id"] = json!(id);
                successful.push(done);
            }
            Err(error) => failed.push(BatchFailure {
                id,
                code: error.code.to_owned(),
                message: error.message,
                sender_fault: error.status < 500,
            }),
        }
    }
    Ok(json!({"Successful": successful, "Failed": failed}))
}

/// The entries by id. An invalid batch has no effect.
fn entries(request: &AwsRequest) -> AwsApiResult<Vec<(String, &Value)>> {
    let entries = request.body["Entries"].as_array().map_or(&[][..], Vec::as_slice);
    if entries.is_empty() {
        return Err(AwsApiError::new("EmptyBatchRequest", "the batch has no entries"));
    }
    if entries.len() > 10 {
        let message = format!("the batch has {} entries; at most 10 are allowed", entries.len());
        return Err(AwsApiError::new("TooManyEntriesInBatchRequest", message));
    }
    let mut seen = BTreeSet::new();
    let mut read = Vec::new();
    for entry in entries {
        let id = entry["Id"].as_str().unwrap_or_default();
        let allowed = (1..=80).contains(&id.len())
            && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        if !allowed {
            let message = format!("the id {id:?}: letters, digits, '-' and '_', at most 80 characters");
            return Err(AwsApiError::new("InvalidBatchEntryId", message));
        }
        if !seen.insert(id) {
            return Err(AwsApiError::new("BatchEntryIdsNotDistinct", format!("the id {id} is there twice")));
        }
        read.push((id.to_owned(), entry));
    }
    Ok(read)
}

/// A `ReceiveMessage`, which is retried during a long poll.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Receive {
    queue_url: String,
    max_number_of_messages: Option<usize>,
    visibility_timeout: Option<u64>,
    wait_time_seconds: Option<u64>,
    attribute_names: Vec<String>,
    message_system_attribute_names: Vec<String>,
    message_attribute_names: Vec<String>,
}

impl Receive {
    pub(super) fn read(request: &AwsRequest) -> AwsApiResult<Self> {
        request.read_as()
    }

    pub(super) fn queue(&self) -> &str {
        &self.queue_url
    }

    /// Wait time; `None` for the queue's default.
    pub(super) fn wait(&self) -> AwsApiResult<Option<Duration>> {
        match self.wait_time_seconds {
            Some(seconds @ 0..=20) => Ok(Some(Duration::from_secs(seconds))),
            Some(other) => {
                let message = format!("WaitTimeSeconds is {other}; 0 to 20 are allowed");
                Err(AwsApiError::new("InvalidParameterValue", message))
            }
            None => Ok(None),
        }
    }

    /// The response, if there are messages.
    pub(super) fn perform(&self, cloud: &mut Cloud, now: Timestamp) -> AwsApiResult<Option<Value>> {
        let request = ReceiveMessages {
            max: self.max_number_of_messages.unwrap_or(1),
            visibility: self.visibility_timeout.map(Duration::from_secs),
        };
        let messages = cloud.receive_message(&self.queue_url, request, now)?;
        let shown: Vec<Value> = messages.iter().map(|message| self.show(message)).collect();
        Ok((!shown.is_empty()).then(|| json!({"Messages": shown})))
    }

    fn show(&self, message: &ReceivedMessage) -> Value {
        let mut shown = json!({
            "MessageId": message.message_id,
            "ReceiptHandle": message.receipt_handle,
            "MD5OfBody": md5_hex(message.body.as_bytes()),
            "Body": message.body,
        });
        let system: Map<String, Value> = message
            .system
            .iter()
            .filter(|(name, _)| {
                names(&self.attribute_names, name) || names(&self.message_system_attribute_names, name)
            })
            .map(|(name, value)| ((*name).to_owned(), json!(value)))
            .collect();
        if !system.is_empty() {
            shown["Attributes"] = Value::Object(system);
        }
        let wanted: BTreeMap<_, _> = message
            .attributes
            .iter()
            .filter(|(name, _)| names(&self.message_attribute_names, name))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        if let Some(md5) = attributes_md5(&wanted) {
            shown["MD5OfMessageAttributes"] = json!(md5);
            shown["MessageAttributes"] = json!(wanted);
        }
        shown
    }
}

/// Whether a list of names contains this one, `All`, or a matching prefix with `.*`.
fn names(list: &[String], name: &str) -> bool {
    list.iter().any(|asked| {
        asked == name
            || asked == "All"
            || asked.strip_suffix(".*").is_some_and(|prefix| name.starts_with(prefix))
    })
}
