//! The operations of DynamoDB.

use serde_json::{Value, json};

use super::request::AwsRequest;
use crate::aws::cloud::validation;
use crate::aws::{AwsApiResult, Cloud, ItemCondition, ItemTable, StoredItem};
use ecs_mesh_model::Timestamp;

pub(super) fn perform(cloud: &mut Cloud, request: &AwsRequest, now: Timestamp) -> AwsApiResult<Value> {
    let table = request.text("TableName");
    match request.operation.as_str() {
        "CreateTable" => {
            let key = partition_key(&request.body)?;
            Ok(json!({"TableDescription": show(cloud.create_table(table, &key, now)?)}))
        }
        "DescribeTable" => Ok(json!({"Table": show(cloud.describe_table(table)?)})),
        "DeleteTable" => {
            let mut shown = show(&cloud.delete_table(table)?);
            shown["TableStatus"] = json!("DELETING");
            Ok(json!({"TableDescription": shown}))
        }
        // Reads are always consistent.
        "GetItem" => Ok(match cloud.get_item(table, &object(request, "Key"))? {
            Some(item) => json!({"Item": item}),
            None => json!({}),
        }),
        "PutItem" => {
            let before = cloud.put_item(table, object(request, "Item"), &condition(request))?;
            Ok(attributes(request, before))
        }
        "DeleteItem" => {
            let before = cloud.delete_item(table, &object(request, "Key"), &condition(request))?;
            Ok(attributes(request, before))
        }
        _ => Err(request.unknown_operation()),
    }
}

fn object(request: &AwsRequest, field: &str) -> StoredItem {
    request.body[field].as_object().cloned().unwrap_or_default()
}

fn condition(request: &AwsRequest) -> ItemCondition {
    ItemCondition {
        expression: request.optional("ConditionExpression").map(str::to_owned),
        names: object(request, "ExpressionAttributeNames"),
        values: object(request, "ExpressionAttributeValues"),
    }
}

fn attributes(request: &AwsRequest, before: Option<StoredItem>) -> Value {
    match before.filter(|_| request.optional("ReturnValues") == Some("ALL_OLD")) {
        Some(before) => json!({"Attributes": before}),
        None => json!({}),
    }
}

/// The name of the partition key; other keys are not served.
fn partition_key(body: &Value) -> AwsApiResult<String> {
    let [key] = body["KeySchema"].as_array().map(Vec::as_slice).unwrap_or_default() else {
        return Err(validation("the sandbox serves tables with a partition key alone"));
    };
    let name = key["AttributeName"].as_str().unwrap_or_default();
    let definition = json!([{"AttributeName": name, "AttributeType": "S"}]);
    if key["KeyType"] != "HASH" || body["AttributeDefinitions"] != definition {
        return Err(validation("the sandbox serves tables with a partition key of type S alone"));
    }
    Ok(name.to_owned())
}

fn show(table: &ItemTable) -> Value {
    json!({
        "TableName": table.name,
        "TableArn": table.arn,
        "TableStatus": "ACTIVE",
        "KeySchema": [{"AttributeName": table.key, "KeyType": "HASH"}],
        "AttributeDefinitions": [{"AttributeName": table.key, "AttributeType": "S"}],
        "BillingModeSummary": {"BillingMode": "PAY_PER_REQUEST"},
        "ProvisionedThroughput": {"NumberOfDecreasesToday": 0, "ReadCapacityUnits": 0, "WriteCapacityUnits": 0},
        "CreationDateTime": table.created.as_secs_f64(),
        "DeletionProtectionEnabled": false,
        "ItemCount": table.items.len(),
        "TableSizeBytes": 0,
        "WarmThroughput": {"ReadUnitsPerSecond": 12_000, "WriteUnitsPerSecond": 4_000, "Status": "ACTIVE"},
    })
}
