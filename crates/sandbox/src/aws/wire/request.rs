//! Parses service and operation of a request: from `X-Amz-Target` for the JSON protocols; from `Action` and the
//! signature's service for the query protocol.

use std::borrow::Cow;
use std::collections::BTreeMap;

use axum::http::{HeaderMap, Method, Uri};
use axum::response::Response;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::faults::AwsCall;
use super::response;
use super::s3::{self, S3Call};
use crate::aws::{AwsApiError, AwsApiResult};

/// A parsed request.
#[derive(Debug)]
pub(super) struct AwsRequest {
    pub(super) service: &'static str,
    pub(super) operation: String,
    pub(super) protocol: AwsProtocol,
    /// Access key of the signature.
    pub(super) access_key_id: String,
    /// Region of the signature.
    pub(super) region: String,
    /// Base URL of the request, for queue URLs.
    pub(super) base_url: String,
    /// The JSON protocols' body.
    pub(super) body: Value,
    /// The query protocol's parameters, and those of S3.
    pub(super) form: BTreeMap<String, String>,
    /// The parts that a call of S3 has beside them.
    pub(super) s3: S3Call,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AwsProtocol {
    /// JSON 1.0 or 1.1, with its content type.
    Json(&'static str),
    Query,
    /// S3's.
    Rest,
}

const JSON_1_0: &str = "application/x-amz-json-1.0";
const JSON_1_1: &str = "application/x-amz-json-1.1";

/// Target prefix, service, content type.
const TARGETS: &[(&str, &str, &str)] = &[
    ("AmazonEC2ContainerServiceV20141113", "ecs", JSON_1_1),
    ("AmazonSQS", "sqs", JSON_1_0),
    ("AWSEvents", "events", JSON_1_1),
    ("secretsmanager", "secretsmanager", JSON_1_1),
    ("AmazonSSM", "ssm", JSON_1_1),
    ("DynamoDB_20120810", "dynamodb", JSON_1_0),
];

/// Version of the query protocol, service.
const VERSIONS: &[(&str, &str)] =
    &[("2010-05-08", "iam"), ("2011-06-15", "sts"), ("2012-11-05", "sqs"), ("2016-11-15", "ec2")];

impl AwsRequest {
    /// Parses a request, or returns the error response.
    pub(super) fn read(
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<Self, Box<Response>> {
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let mut request = match (header("x-amz-target").split_once('.'), s3::call(method, uri, headers, body))
        {
            (Some((prefix, operation)), _) => Self::json(prefix, operation, body)?,
            (None, Some((operation, call))) => Self::rest(operation, uri, call),
            (None, None) => Self::query(uri, body)?,
        };
        request.base_url = format!("http://{}", header("host"));
        let authorization = header("authorization");
        let credential = authorization
            .split_once("Credential=")
            .map(|(_, rest)| rest)
            .or_else(|| request.form.get("X-Amz-Credential").map(String::as_str))
            .and_then(|rest| rest.split(',').next());
        match credential {
            // KEY/DATE/REGION/SERVICE/aws4_request
            Some(scope) => {
                let mut parts = scope.split('/').map(str::to_owned);
                request.access_key_id = parts.next().unwrap_or_default();
                request.region = parts.nth(1).unwrap_or_default();
            }
            None => return Err(Box::new(response::of(&request, Err(request.unsigned())))),
        }
        Ok(request)
    }

    fn json(prefix: &str, operation: &str, body: &[u8]) -> Result<Self, Box<Response>> {
        let Some((_, service, content_type)) = TARGETS.iter().find(|(known, ..)| *known == prefix) else {
            let refused = Self::blank("unknown", AwsProtocol::Json(JSON_1_1));
            let error =
                AwsApiError::new("UnknownOperationException", format!("no service {prefix} is served"));
            return Err(Box::new(response::of(&refused, Err(error))));
        };
        let mut request = Self::blank(service, AwsProtocol::Json(content_type));
        operation.clone_into(&mut request.operation);
        request.body = serde_json::from_slice(if body.is_empty() { b"{}" } else { body }).unwrap_or_default();
        if request.body.is_object() {
            return Ok(request);
        }
        let error = AwsApiError::new("SerializationException", "the body is not a JSON object");
        Err(Box::new(response::of(&request, Err(error))))
    }

    fn query(uri: &Uri, body: &[u8]) -> Result<Self, Box<Response>> {
        let query = uri.query().unwrap_or_default().as_bytes();
        let form: BTreeMap<String, String> =
            [query, body].into_iter().flat_map(|part| form_urlencoded::parse(part).into_owned()).collect();
        let version = form.get("Version").map_or("", String::as_str);
        let service = VERSIONS.iter().find(|(known, _)| *known == version).map(|(_, service)| *service);
        let mut request = Self::blank(service.unwrap_or("unknown"), AwsProtocol::Query);
        request.operation = form.get("Action").cloned().unwrap_or_default();
        request.form = form;
        let refusal = match service {
            Some("sqs") => "SQS is served by its JSON protocol only; newer SDKs speak it",
            Some(_) if !request.operation.is_empty() => return Ok(request),
            _ => {
                "there is neither an X-Amz-Target of ECS, SQS, EventBridge, DynamoDB, Secrets Manager or SSM nor an Action of EC2, IAM or STS"
            }
        };
        Err(Box::new(response::of(&request, Err(AwsApiError::new("InvalidAction", refusal)))))
    }

    fn rest(operation: &str, uri: &Uri, call: S3Call) -> Self {
        let form = form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()).into_owned().collect();
        let blank = Self::blank("s3", AwsProtocol::Rest);
        Self { operation: operation.to_owned(), form, s3: call, ..blank }
    }

    fn blank(service: &'static str, protocol: AwsProtocol) -> Self {
        Self {
            service,
            operation: String::new(),
            protocol,
            access_key_id: String::new(),
            region: String::new(),
            base_url: String::new(),
            body: Value::Null,
            form: BTreeMap::new(),
            s3: S3Call::default(),
        }
    }

    /// The request, for observers.
    pub(super) fn as_call(&self) -> AwsCall<'_> {
        let parameters = match self.protocol {
            AwsProtocol::Json(_) => Cow::Borrowed(&self.body),
            AwsProtocol::Query => Cow::Owned(json!(self.form)),
            AwsProtocol::Rest => {
                let mut parameters = json!(self.form);
                parameters["Bucket"] = json!(self.s3.bucket);
                parameters["Key"] = json!(self.s3.key);
                Cow::Owned(parameters)
            }
        };
        let (operation, access_key_id) = (&self.operation, &self.access_key_id);
        AwsCall { service: self.service, operation, access_key_id, parameters }
    }

    fn unsigned(&self) -> AwsApiError {
        let code = match self.protocol {
            AwsProtocol::Json(_) => "MissingAuthenticationTokenException",
            AwsProtocol::Query | AwsProtocol::Rest => "MissingAuthenticationToken",
        };
        AwsApiError::new(code, "the request is not signed: it has no Authorization header")
    }

    /// Deserialises the body.
    pub(super) fn read_as<T: DeserializeOwned>(&self) -> AwsApiResult<T> {
        T::deserialize(&self.body)
            .map_err(|error| AwsApiError::new("SerializationException", error.to_string()))
    }

    /// A text field of the JSON body; empty if absent.
    pub(super) fn text(&self, field: &str) -> &str {
        self.body[field].as_str().unwrap_or_default()
    }

    /// A text field of the JSON body, if present.
    pub(super) fn optional(&self, field: &str) -> Option<&str> {
        self.body[field].as_str()
    }

    /// A list of texts of the JSON body.
    pub(super) fn texts(&self, field: &str) -> Vec<String> {
        let items = self.body[field].as_array().into_iter().flatten();
        items.filter_map(|item| item.as_str().map(str::to_owned)).collect()
    }

    /// A page size between 1 and `most`, which is also the default.
    pub(super) fn limit(&self, field: &str, most: usize) -> usize {
        let asked = self.body[field].as_u64().and_then(|asked| usize::try_from(asked).ok());
        asked.unwrap_or(most).clamp(1, most)
    }

    /// A required parameter of the form.
    pub(super) fn required(&self, name: &str) -> AwsApiResult<&str> {
        let missing = || AwsApiError::new("ValidationError", format!("the parameter {name} is missing"));
        self.form.get(name).map(String::as_str).ok_or_else(missing)
    }

    /// The values `NAME.member.1`, `NAME.member.2`, … with `suffix`.
    pub(super) fn members(&self, name: &str, suffix: &str) -> Vec<String> {
        (1..).map_while(|index| self.form.get(&format!("{name}.member.{index}{suffix}")).cloned()).collect()
    }

    pub(super) fn unknown_operation(&self) -> AwsApiError {
        let code = match self.protocol {
            AwsProtocol::Json(_) => "UnknownOperationException",
            AwsProtocol::Query | AwsProtocol::Rest => "InvalidAction",
        };
        AwsApiError::new(code, format!("{}:{} is not served", self.service, self.operation))
    }
}
