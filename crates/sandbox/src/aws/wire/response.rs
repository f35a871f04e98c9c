//! Responses and errors in the format of each protocol.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::request::{AwsProtocol, AwsRequest};
use crate::aws::{AwsApiError, AwsApiResult};

/// A constant request id, which SDKs require.
pub(super) const REQUEST_ID: &str = "00000000-0000-4000-a000-000000000000";

/// Content type of the query protocol.
pub(super) const XML: &str = "text/xml";

/// SQS errors with another code in the query protocol, which SDKs still match.
const OLD_SQS_CODES: &[(&str, &str)] = &[
    ("QueueDoesNotExist", "AWS.SimpleQueueService.NonExistentQueue"),
    ("QueueNameExists", "QueueAlreadyExists"),
    ("EmptyBatchRequest", "AWS.SimpleQueueService.EmptyBatchRequest"),
    ("TooManyEntriesInBatchRequest", "AWS.SimpleQueueService.TooManyEntriesInBatchRequest"),
    ("BatchEntryIdsNotDistinct", "AWS.SimpleQueueService.BatchEntryIdsNotDistinct"),
    ("InvalidBatchEntryId", "AWS.SimpleQueueService.InvalidBatchEntryId"),
    ("MessageNotInflight", "AWS.SimpleQueueService.MessageNotInflight"),
    ("UnsupportedOperation", "AWS.SimpleQueueService.UnsupportedOperation"),
];

/// The response to a request.
pub(super) fn of(request: &AwsRequest, outcome: AwsApiResult<Value>) -> Response {
    match (request.protocol, outcome) {
        (AwsProtocol::Json(kind), Ok(value)) => json_response(StatusCode::OK, kind, &value),
        (AwsProtocol::Json(kind), Err(error)) => json_error(request.service, kind, &error),
        (AwsProtocol::Query | AwsProtocol::Rest, outcome) => {
            let (status, body) = xml(request, outcome);
            xml_response(status, &body)
        }
    }
}

/// The response of the query protocol.
pub(super) fn xml(request: &AwsRequest, outcome: AwsApiResult<Value>) -> (StatusCode, String) {
    match outcome {
        Ok(value) => (StatusCode::OK, xml_answer(request, &value)),
        Err(error) => (status(&error), xml_error(request.service, &error)),
    }
}

fn json_response(status: StatusCode, kind: &'static str, value: &Value) -> Response {
    let headers = [(header::CONTENT_TYPE.as_str(), kind), ("x-amzn-requestid", REQUEST_ID)];
    (status, headers, value.to_string()).into_response()
}

fn json_error(service: &str, kind: &'static str, error: &AwsApiError) -> Response {
    let shape = match service {
        "sqs" => format!("com.amazonaws.sqs#{}", error.code),
        "dynamodb" => format!("com.amazonaws.dynamodb.v20120810#{}", error.code),
        _ => error.code.to_owned(),
    };
    // ECS, EventBridge, SQS and DynamoDB use the field in lower case.
    let body = json!({"__type": shape, "message": error.message});
    let mut response = json_response(status(error), kind, &body);
    response.headers_mut().insert("x-amzn-errortype", HeaderValue::from_static(error.code));
    if service == "sqs" {
        let old =
            OLD_SQS_CODES.iter().find(|(code, _)| *code == error.code).map_or(error.code, |(_, old)| *old);
        let fault = if error.status >= 500 { "Receiver" } else { "Sender" };
        if let Ok(value) = HeaderValue::try_from(format!("{old};{fault}")) {
            response.headers_mut().insert("x-amzn-query-error", value);
        }
    }
    response
}

fn status(error: &AwsApiError) -> StatusCode {
    StatusCode::from_u16(error.status).unwrap_or(StatusCode::BAD_REQUEST)
}

fn xml_response(status: StatusCode, body: &str) -> Response {
    let headers = [(header::CONTENT_TYPE.as_str(), XML), ("x-amzn-requestid", REQUEST_ID)];
    (status, headers, format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n{body}")).into_response()
}

fn namespace(service: &str) -> &'static str {
    match service {
        "sts" => "https://sts.amazonaws.com/doc/2011-06-15/",
        "ec2" => "http://ec2.amazonaws.com/doc/2016-11-15/",
        "sqs" => "http://queue.amazonaws.com/doc/2012-11-05/",
        _ => "https://iam.amazonaws.com/doc/2010-05-08/",
    }
}

fn xml_answer(request: &AwsRequest, value: &Value) -> String {
    let (name, namespace) = (&request.operation, namespace(request.service));
    if request.service == "ec2" {
        let mut fields = String::new();
        value.as_object().into_iter().flatten().for_each(|(name, value)| {
            write_element(&mut fields, name, value, "item");
        });
        return format!(
            "<{name}Response xmlns=\"{namespace}\"><requestId>{REQUEST_ID}</requestId>{fields}</{name}Response>"
        );
    }
    let mut result = String::new();
    if value.as_object().is_some_and(|fields| !fields.is_empty()) {
        write_element(&mut result, &format!("{name}Result"), value, "member");
    }
    format!(
        "<{name}Response xmlns=\"{namespace}\">{result}<ResponseMetadata><RequestId>{REQUEST_ID}</RequestId>\
         </ResponseMetadata></{name}Response>"
    )
}

fn xml_error(service: &str, error: &AwsApiError) -> String {
    let fault = if error.status >= 500 { "Receiver" } else { "Sender" };
    let mut inner = String::new();
    if service == "ec2" {
        let error = json!({"Code": error.code, "Message": error.message});
        write_element(&mut inner, "Error", &error, "item");
        return format!("<Response><Errors>{inner}</Errors><RequestID>{REQUEST_ID}</RequestID></Response>");
    }
    let error = json!({"Code": error.code, "Message": error.message, "Type": fault});
    write_element(&mut inner, "Error", &error, "member");
    format!(
        "<ErrorResponse xmlns=\"{}\">{inner}<RequestId>{REQUEST_ID}</RequestId></ErrorResponse>",
        namespace(service)
    )
}

/// A page of a list: the items, and the token of the next page if there is one.
pub(super) fn page(
    items_field: &str,
    items: impl serde::Serialize,
    token_field: &str,
    token: Option<String>,
) -> Value {
    let mut answer = json!({items_field: items});
    if let Some(token) = token {
        answer[token_field] = json!(token);
    }
    answer
}

/// Writes a value as an element: fields as child elements, list items as elements named `item`.
pub(super) fn write_element(xml: &mut String, name: &str, value: &Value, item: &str) {
    if value.is_null() {
        return;
    }
    xml.extend(["<", name, ">"]);
    match value {
        Value::Object(fields) => {
            fields.iter().for_each(|(name, value)| write_element(xml, name, value, item));
        }
        Value::Array(items) => items.iter().for_each(|one| write_element(xml, item, one, item)),
        Value::String(text) => xml.push_str(&quick_xml::escape::escape(text.as_str())),
        other => xml.push_str(&other.to_string()),
    }
    xml.extend(["</", name, ">"]);
}
