//! Delivery of events to queues: envelope, rules and injected faults.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::{EcsServiceKey, Timer};
use crate::aws::{Cloud, CloudTask};
use ecs_mesh_model::Timestamp;

/// An event without its envelope.
pub(super) struct PendingEventBridgeEvent {
    /// The name of the bus; `None` of the default bus.
    pub(super) bus: Option<String>,
    pub(super) source: String,
    pub(super) detail_type: String,
    pub(super) region: String,
    pub(super) resources: Vec<String>,
    pub(super) detail: Value,
}

/// An event on its way to another account or Region.
#[derive(Clone, Debug)]
pub(in crate::aws) struct ForwardedEvent {
    /// ARN of a queue or a bus.
    target: String,
    body: Arc<str>,
}

impl Cloud {
    pub(super) fn emit_task_event(&mut self, task: &CloudTask, now: Timestamp) {
        if !self.has_enabled_rules() {
            return;
        }
        let event = PendingEventBridgeEvent {
            bus: None,
            source: "aws.ecs".into(),
            detail_type: "ECS Task State Change".into(),
            region: self.config.region.clone(),
            resources: vec![task.arn.to_string()],
            detail: task.to_event_detail(),
        };
        self.emit(event, now);
    }

    /// Emits a deployment event of ECS. Unlike task events it has no version.
    pub(super) fn emit_deployment(
        &mut self,
        service: &str,
        deployment: &str,
        name: &str,
        reason: &str,
        now: Timestamp,
    ) {
        let detail = json!({
            "eventType": if name == "SERVICE_DEPLOYMENT_FAILED" { "ERROR" } else { "INFO" },
            "eventName": name,
            "deploymentId": deployment,
            "updatedAt": now.to_string(),
            "reason": reason,
        });
        self.emit_of_service("ECS Deployment State Change", service, detail, now);
    }

    /// Emits a service action event of ECS.
    pub(super) fn emit_service_action(
        &mut self,
        key: &EcsServiceKey,
        service: &str,
        name: &str,
        now: Timestamp,
    ) {
        let detail = json!({
            "eventType": "INFO",
            "eventName": name,
            "clusterArn": self.arn("ecs", &format!("cluster/{}", key.0)),
            "createdAt": now.to_string(),
        });
        self.emit_of_service("ECS Service Action", service, detail, now);
    }

    fn emit_of_service(&mut self, detail_type: &str, service: &str, detail: Value, now: Timestamp) {
        if !self.has_enabled_rules() {
            return;
        }
        let event = PendingEventBridgeEvent {
            bus: None,
            source: "aws.ecs".into(),
            detail_type: detail_type.into(),
            region: self.config.region.clone(),
            resources: vec![service.to_owned()],
            detail,
        };
        self.emit(event, now);
    }

    /// Emits a CloudTrail event for an IAM call. CloudTrail delivers these in one Region only.
    pub(super) fn emit_iam_call(&mut self, name: &str, parameters: &Value, now: Timestamp) {
        if !self.has_enabled_rules() {
            return;
        }
        let account = self.config.account.clone();
        let detail = json!({
            "eventVersion": "1.11",
            "userIdentity": {
                "type": "IAMUser",
                "principalId": account,
                "arn": self.global_arn("iam", "user/sandbox"),
                "accountId": account,
                "userName": "sandbox",
            },
            "eventTime": whole_seconds(now),
            "eventSource": "iam.amazonaws.com",
            "eventName": name,
            "awsRegion": self.iam_region(),
            "sourceIPAddress": "127.0.0.1",
            "userAgent": "sandbox",
            "requestParameters": parameters,
            "responseElements": null,
            "requestID": self.uuid(),
            "eventID": self.uuid(),
            "readOnly": false,
            "eventType": "AwsApiCall",
            "managementEvent": true,
            "recipientAccountId": account,
            "eventCategory": "Management",
        });
        let event = PendingEventBridgeEvent {
            bus: None,
            source: "aws.iam".into(),
            detail_type: "AWS API Call via CloudTrail".into(),
            region: self.iam_region().to_owned(),
            resources: Vec::new(),
            detail,
        };
        self.emit(event, now);
    }

    fn has_enabled_rules(&self) -> bool {
        self.rules.values().any(|rule| rule.enabled && !rule.targets.is_empty())
    }

    fn iam_region(&self) -> &'static str {
        match self.config.partition.as_str() {
            "aws-cn" => "cn-north-1",
            "aws-us-gov" => "us-gov-west-1",
            _ => "us-east-1",
        }
    }

    /// Delivers the event to the targets of matching rules and returns its id.
    pub(super) fn emit(&mut self, event: PendingEventBridgeEvent, now: Timestamp) -> String {
        let id = self.uuid();
        let PendingEventBridgeEvent { bus, source, detail_type, region, resources, detail } = event;
        let mut event = json!({
            "version": "0",
            "id": id,
            "detail-type": detail_type,
            "source": source,
            "account": self.config.account,
            "time": whole_seconds(now),
            "region": region,
            "resources": resources,
        });
        // Moved, not copied: the detail is the largest part.
        event["detail"] = detail;
        self.dispatch(bus.as_deref(), &event, now);
        id
    }

    /// Delivers the event to the targets of matching rules of the bus: queues of this account and Region, and what may be in another.
    fn dispatch(&mut self, bus: Option<&str>, event: &Value, now: Timestamp) {
        let matching = self.rules.values().filter(|rule| rule.bus.as_deref() == bus && rule.accepts(event));
        let targets: Vec<(String, Option<String>)> =
            matching.flat_map(super::EventBridgeRule::destinations).collect();
        if targets.is_empty() {
            return;
        }
        let (queues, buses) = (self.arn("sqs", ""), self.arn("events", ""));
        let body: Arc<str> = event.to_string().into();
        for (target, input) in targets {
            let body = input.map_or_else(|| body.clone(), Into::into);
            if let Some(queue) = target.strip_prefix(&queues) {
                self.deliver(queue, &body, now);
            } else if !target.starts_with(&buses) {
                self.leaving_events.push(ForwardedEvent { target, body });
            }
        }
    }

    /// The events for other accounts and Regions since the last call.
    pub(in crate::aws) fn take_leaving_events(&mut self) -> Vec<ForwardedEvent> {
        std::mem::take(&mut self.leaving_events)
    }

    /// Takes an event that another account or Region forwards to a queue or the default bus of this one. One for elsewhere is
    /// dropped.
    pub(in crate::aws) fn take_forwarded(&mut self, event: &ForwardedEvent, now: Timestamp) {
        if let Some(queue) = event.target.strip_prefix(&self.arn("sqs", "")) {
            self.deliver(queue, &event.body, now);
        } else if event.target == self.arn("events", "event-bus/default")
            && let Ok(event) = serde_json::from_str(&event.body)
        {
            self.dispatch(None, &event, now);
        }
    }

    /// Every draw is made whether or not it counts, so that one fault's probability does not shift another's draws.
    fn deliver(&mut self, queue: &str, body: &Arc<str>, now: Timestamp) {
        let faults = self.config.delivery.clone();
        let [lost, twice, replayed] =
            [faults.lose, faults.duplicate, faults.replay].map(|probability| self.rng.f64() < probability);
        let (first, second) = (self.delay(), self.delay());
        if lost || self.events_lost_until.is_some_and(|until| now < until) {
            return;
        }
        self.deliver_at(now.plus(first), queue, body, now);
        if twice {
            self.deliver_at(now.plus(second), queue, body, now);
        }
        if replayed {
            self.deliver_at(now.plus(second + faults.replay_after), queue, body, now);
        }
    }

    fn delay(&mut self) -> Duration {
        let (least, most) = (self.config.delivery.delay_min, self.config.delivery.delay_max);
        let draw = self.rng.f64();
        least + most.saturating_sub(least).mul_f64(draw)
    }

    fn deliver_at(&mut self, at: Timestamp, queue: &str, body: &Arc<str>, now: Timestamp) {
        if at <= now {
            self.enqueue_event(queue, body, now);
        } else {
            self.at(at, Timer::Deliver { queue: queue.to_owned(), body: body.clone() });
        }
    }
}

/// Envelope times have body seconds.
fn whole_seconds(at: Timestamp) -> String {
    Timestamp(at.0 - at.0.rem_euclid(1000)).to_string()
}
