//! Reads and conditional writes of items.

use super::*;
use crate::aws::{DynamoDb, ItemAttribute, ItemPut, PutCondition, TableItem};

fn item(version: &str) -> TableItem {
    let text = |text: &str| ItemAttribute::Text(text.to_owned());
    [("operatorId".to_owned(), text("op")), ("version".to_owned(), ItemAttribute::Number(version.to_owned()))]
        .into()
}

fn key() -> TableItem {
    [("operatorId".to_owned(), ItemAttribute::Text("op".to_owned()))].into()
}

fn failed(status: u16, code: &str) -> (u16, String) {
    let shape = format!("com.amazonaws.dynamodb.v20120810#{code}");
    (status, json!({"__type": shape, "message": "because"}).to_string())
}

#[tokio::test]
async fn item_is_read_consistently_by_a_signed_request() {
    let found = json!({"operatorId": {"S": "op"}, "version": {"N": "7"}, "note": {"BOOL": true}});
    let world = SdkFixture::answering([ok(&json!({"Item": found})), ok(&json!({}))]).await;
    assert_eq!(world.aws.dynamodb.get_item("leases", &key()).await.unwrap(), Some(item("7")));
    assert_eq!(world.aws.dynamodb.get_item("leases", &key()).await.unwrap(), None);
    let seen = world.script.seen.lock().unwrap();
    assert_eq!(seen[0].target, "DynamoDB_20120810.GetItem");
    assert!(seen[0].authorization.contains("/eu-west-1/dynamodb/aws4_request"), "{}", seen[0].authorization);
    let expected = json!({"TableName": "leases", "Key": {"operatorId": {"S": "op"}}, "ConsistentRead": true});
    assert_eq!(seen[0].json(), expected);
}

#[tokio::test]
async fn put_succeeds_or_finds_another_version() {
    let failed = failed(400, "ConditionalCheckFailedException");
    let world = SdkFixture::answering([ok(&json!({})), failed]).await;
    let item = item("8");
    let version = ItemAttribute::Number("7".to_owned());
    let mut put =
        ItemPut { table: "leases", item: &item, condition: PutCondition::Equals("version", version) };
    assert!(world.aws.dynamodb.put_item(&put).await.unwrap());
    put.condition = PutCondition::Missing("operatorId");
    assert!(!world.aws.dynamodb.put_item(&put).await.unwrap());
    {
        let seen = world.script.seen.lock().unwrap();
        let (first, second) = (seen[0].json(), seen[1].json());
        assert_eq!(first["ConditionExpression"], "#a = :v");
        assert_eq!(first["ExpressionAttributeNames"], json!({"#a": "version"}));
        assert_eq!(first["ExpressionAttributeValues"], json!({":v": {"N": "7"}}));
        assert_eq!(second["ConditionExpression"], "attribute_not_exists(#a)");
        assert_eq!(second["ExpressionAttributeNames"], json!({"#a": "operatorId"}));
    }
    let calls = world.recorded.0.lock().unwrap();
    assert_eq!(*calls, [("dynamodb:PutItem", "success"); 2], "a failed condition is an answer");
}

#[tokio::test]
async fn failures_of_dynamodb_are_told_apart() {
    for (status, code, kind) in [
        (400, "ResourceNotFoundException", AwsErrorKind::NotFound),
        (400, "AccessDeniedException", AwsErrorKind::Denied),
        (400, "ProvisionedThroughputExceededException", AwsErrorKind::Throttled),
        (400, "ThrottlingException", AwsErrorKind::Throttled),
        (400, "ValidationException", AwsErrorKind::Invalid),
        (500, "InternalServerError", AwsErrorKind::Unavailable),
    ] {
        let world = SdkFixture::answering([failed(status, code)]).await;
        let error = world.aws.dynamodb.get_item("leases", &key()).await.unwrap_err();
        assert_eq!((error.kind, error.code.as_str()), (kind, code), "{error}");
        if kind == AwsErrorKind::Denied {
            assert!(error.hint.contains("dynamodb:GetItem on the lease table"), "{error}");
        }
    }
}
