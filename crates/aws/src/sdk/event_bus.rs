//! A bus of EventBridge: `PutEvents`, and for `doctor` whether the bus exists.

use async_trait::async_trait;
use aws_sdk_eventbridge::Client;
use aws_sdk_eventbridge::primitives::DateTime;
use aws_sdk_eventbridge::types::{PutEventsRequestEntry, PutEventsResultEntry};

use super::call::CallRunner;
use super::ecs::unreadable;
use super::error;
use crate::aws::{AwsError, BusEvent, EventBus, RefusedEvent};
use ecs_mesh_model::EventBusRef;

const PUT_EVENTS: &str = "events:PutEvents";

/// A bus in its Region.
#[derive(Clone)]
pub struct SdkEventBus {
    client: Client,
    calls: CallRunner,
    bus: EventBusRef,
}

impl SdkEventBus {
    pub(super) fn new(client: Client, calls: CallRunner, bus: EventBusRef) -> Self {
        Self { client, calls, bus }
    }

    /// The ARN of the bus; `NotFound` if it does not exist. A permission of `doctor`.
    pub async fn describe(&self) -> Result<String, AwsError> {
        let call = self.client.describe_event_bus().name(self.bus.as_str()).send();
        let answer = Box::pin(self.calls.run("events:DescribeEventBus", self.bus.as_str(), call)).await?;
        Ok(answer.arn.unwrap_or_default())
    }
}

#[async_trait]
impl EventBus for SdkEventBus {
    async fn put(&self, events: &[BusEvent]) -> Result<Vec<Result<(), RefusedEvent>>, AwsError> {
        let entries = events.iter().map(|event| {
            PutEventsRequestEntry::builder()
                .event_bus_name(self.bus.as_str())
                .time(DateTime::from_millis(event.at.0))
                .source(event.source)
                .detail_type(event.detail_type)
                .set_resources(Some(event.resources.clone()))
                .detail(&event.detail)
                .build()
        });
        let call = self.client.put_events().set_entries(Some(entries.collect())).send();
        let answer = Box::pin(self.calls.run(PUT_EVENTS, self.bus.as_str(), call)).await?;
        let results: Vec<_> = answer.entries().iter().map(result).collect();
        if results.len() == events.len() {
            Ok(results)
        } else {
            Err(unreadable(PUT_EVENTS, self.bus.as_str(), "the response has another number of entries"))
        }
    }
}

fn result(entry: &PutEventsResultEntry) -> Result<(), RefusedEvent> {
    let Some(code) = entry.error_code() else { return Ok(()) };
    let (kind, message) = error::partial(code, entry.error_message().unwrap_or_default());
    Err(RefusedEvent { kind, code: error::clean_code(code), message })
}
