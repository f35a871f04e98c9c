//! DynamoDB: `GetItem` and conditional `PutItem` in its JSON protocol.
//!
//! Source: <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Programming.LowLevelAPI.html>.

use async_trait::async_trait;
use aws_config::SdkConfig;
use aws_sdk_ecs::config::http::{HttpRequest, HttpResponse};
use aws_sdk_ecs::error::{BoxError, ErrorMetadata};
use aws_smithy_runtime::client::orchestrator::operation::Operation;
use aws_smithy_runtime_api::client::orchestrator::OrchestratorError;
use aws_smithy_types::body::SdkBody;
use serde::Deserialize;
use serde_json::{Value, json};

use super::call::CallRunner;
use super::ecs::unreadable;
use super::operation::{self, SignedService};
use crate::aws::{AwsError, DynamoDb, ItemAttribute, ItemPut, PutCondition, TableItem};

/// Source: <https://docs.aws.amazon.com/general/latest/gr/ddb.html>.
const DYNAMODB: SignedService = SignedService { id: "DynamoDB", name: "dynamodb" };
const GET_ITEM: &str = "dynamodb:GetItem";
const PUT_ITEM: &str = "dynamodb:PutItem";
const CONDITION_FAILED: &str = "ConditionalCheckFailedException";

type DynamoDbOperation = Operation<Value, DynamoDbAnswer, ErrorMetadata>;

/// DynamoDB of one account and Region.
#[derive(Clone)]
pub struct SdkDynamoDb {
    /// Both `None` without credentials provider or HTTP client, which the default chain always has.
    get: Option<DynamoDbOperation>,
    put: Option<DynamoDbOperation>,
    calls: CallRunner,
}

/// An answer that is no error of the call.
#[derive(Debug, PartialEq)]
enum DynamoDbAnswer {
    Done(Value),
    ConditionFailed,
}

/// The body of an error. Sources differ in the message's case.
#[derive(Default, Deserialize)]
#[serde(default)]
struct ErrorBody {
    #[serde(rename = "__type")]
    shape: String,
    #[serde(alias = "Message")]
    message: String,
}

impl SdkDynamoDb {
    pub(super) fn new(config: &SdkConfig, calls: CallRunner) -> Self {
        let operation = |name: &'static str| {
            let builder = operation::builder(config, DYNAMODB, name)?;
            Some(builder.serializer(move |body| request(name, &body)).deserializer(response).build())
        };
        Self { get: operation("GetItem"), put: operation("PutItem"), calls }
    }

    async fn call(
        &self,
        name: &'static str,
        operation: Option<&DynamoDbOperation>,
        table: &str,
        body: Value,
    ) -> Result<DynamoDbAnswer, AwsError> {
        let Some(operation) = operation else {
            return Err(unreadable(name, table, "no credentials provider"));
        };
        Box::pin(self.calls.run(name, table, operation.invoke(body))).await
    }
}

#[async_trait]
impl DynamoDb for SdkDynamoDb {
    async fn get_item(&self, table: &str, key: &TableItem) -> Result<Option<TableItem>, AwsError> {
        let body = json!({"TableName": table, "Key": key, "ConsistentRead": true});
        let DynamoDbAnswer::Done(mut answer) = self.call(GET_ITEM, self.get.as_ref(), table, body).await?
        else {
            return Err(unreadable(GET_ITEM, table, "a condition that was not sent has failed"));
        };
        let Some(Value::Object(item)) = answer.get_mut("Item").map(Value::take) else { return Ok(None) };
        // Attributes of other types are another's.
        let readable = item
            .into_iter()
            .filter_map(|(name, value)| Some((name, serde_json::from_value::<ItemAttribute>(value).ok()?)));
        Ok(Some(readable.collect()))
    }

    async fn put_item(&self, put: &ItemPut<'_>) -> Result<bool, AwsError> {
        let mut body = json!({"TableName": put.table, "Item": put.item});
        // Names go by a placeholder: DynamoDB reserves hundreds of words.
        match &put.condition {
            PutCondition::Missing(attribute) => {
                body["ConditionExpression"] = json!("attribute_not_exists(#a)");
                body["ExpressionAttributeNames"] = json!({"#a": attribute});
            }
            PutCondition::Equals(attribute, value) => {
                body["ConditionExpression"] = json!("#a = :v");
                body["ExpressionAttributeNames"] = json!({"#a": attribute});
                body["ExpressionAttributeValues"] = json!({":v": value});
            }
        }
        let answer = self.call(PUT_ITEM, self.put.as_ref(), put.table, body).await?;
        Ok(answer != DynamoDbAnswer::ConditionFailed)
    }
}

fn request(operation: &str, body: &Value) -> Result<HttpRequest, BoxError> {
    let mut request = HttpRequest::new(SdkBody::from(body.to_string()));
    request.set_method("POST")?;
    request.set_uri("/")?;
    request.headers_mut().insert("content-type", "application/x-amz-json-1.0");
    request.headers_mut().insert("x-amz-target", format!("DynamoDB_20120810.{operation}"));
    Ok(request)
}

fn response(response: &HttpResponse) -> Result<DynamoDbAnswer, OrchestratorError<ErrorMetadata>> {
    let body = response.body().bytes().unwrap_or_default();
    if response.status().is_success() {
        let answer = serde_json::from_slice(body);
        return answer
            .map(DynamoDbAnswer::Done)
            .map_err(|_| OrchestratorError::other("the response is not JSON"));
    }
    let error: ErrorBody = serde_json::from_slice(body).unwrap_or_default();
    let code = error.shape.rsplit('#').next().unwrap_or_default();
    if code == CONDITION_FAILED {
        return Ok(DynamoDbAnswer::ConditionFailed);
    }
    let mut metadata = ErrorMetadata::builder();
    if !code.is_empty() {
        metadata = metadata.code(code).message(error.message);
    }
    Err(OrchestratorError::operation(metadata.build()))
}
