//! The operations of EventBridge.

use serde::Deserialize;
use serde_json::{Value, json};

use super::request::AwsRequest;
use super::response::page;
use crate::aws::cloud::validation;
use crate::aws::{AwsApiError, AwsApiResult, Cloud, EventBridgeRule, PutEvent, PutEventOutcome, RuleTarget};
use ecs_mesh_model::Timestamp;

pub(super) fn perform(cloud: &mut Cloud, request: &AwsRequest, now: Timestamp) -> AwsApiResult<Value> {
    let bus = cloud.bus_name(request.optional("EventBusName"))?;
    let on_bus = |name: &str| bus.as_ref().map_or_else(|| name.to_owned(), |bus| format!("{bus}/{name}"));
    let (name, rule) = (&on_bus(request.text("Name")), &on_bus(request.text("Rule")));
    match request.operation.as_str() {
        "CreateEventBus" => Ok(json!({"EventBusArn": cloud.create_event_bus(request.text("Name"))?})),
        "DescribeEventBus" => {
            let (name, arn) = cloud.describe_event_bus(request.optional("Name"))?;
            Ok(json!({"Name": name, "Arn": arn}))
        }
        "PutRule" => put_rule(cloud, name, request),
        "DescribeRule" => {
            let mut shown = show(cloud.describe_rule(name)?);
            shown["CreatedBy"] = json!(cloud.config().account);
            Ok(shown)
        }
        "ListRuleNamesByTarget" => {
            let target = request.optional("TargetArn").ok_or_else(|| validation("TargetArn is missing"))?;
            let (names, next) = cloud.list_rule_names_by_target(
                bus.as_deref(),
                target,
                request.optional("NextToken"),
                request.limit("Limit", 100),
            );
            Ok(page("RuleNames", names, "NextToken", next))
        }
        "PutTargets" => {
            cloud.put_targets(rule, read::<Vec<RuleTarget>>(&request.body["Targets"])?)?;
            Ok(json!({"FailedEntryCount": 0, "FailedEntries": []}))
        }
        "ListTargetsByRule" => {
            let targets: Vec<&RuleTarget> = cloud.describe_rule(rule)?.targets.values().collect();
            Ok(page("Targets", targets, "NextToken", None))
        }
        "RemoveTargets" => {
            let missing = cloud.remove_targets(rule, &request.texts("Ids"))?;
            let failed: Vec<Value> = missing
                .iter()
                .map(|id| {
                    json!({"TargetId": id, "ErrorCode": "ResourceNotFoundException", "ErrorMessage": "no such target"})
                })
                .collect();
            Ok(json!({"FailedEntryCount": failed.len(), "FailedEntries": failed}))
        }
        "PutEvents" => {
            let outcomes = cloud.put_events(read::<Vec<PutEvent>>(&request.body["Entries"])?, now)?;
            let failed = outcomes.iter().filter(|one| matches!(one, PutEventOutcome::Refused { .. })).count();
            Ok(json!({"FailedEntryCount": failed, "Entries": outcomes}))
        }
        _ => Err(request.unknown_operation()),
    }
}

fn put_rule(cloud: &mut Cloud, name: &str, request: &AwsRequest) -> AwsApiResult<Value> {
    let Some(pattern) = request.optional("EventPattern") else {
        return Err(validation("a rule needs an EventPattern; schedules are not served"));
    };
    let enabled = request.text("State") != "DISABLED";
    let description = request.optional("Description").map(str::to_owned);
    let arn = cloud.put_rule(name, pattern, enabled, description)?;
    Ok(json!({"RuleArn": arn}))
}

fn read<'a, T: Deserialize<'a>>(value: &'a Value) -> AwsApiResult<T> {
    T::deserialize(value).map_err(|error| AwsApiError::new("SerializationException", error.to_string()))
}

fn show(rule: &EventBridgeRule) -> Value {
    let mut shown = json!({
        "Name": rule.name,
        "Arn": rule.arn,
        "EventPattern": rule.pattern,
        "State": if rule.enabled { "ENABLED" } else { "DISABLED" },
        "EventBusName": rule.bus.as_deref().unwrap_or("default"),
    });
    if let Some(description) = &rule.description {
        shown["Description"] = json!(description);
    }
    shown
}
