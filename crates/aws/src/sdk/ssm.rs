//! SSM Parameter Store: tokens as parameters, and manifests below a path. Six operations in its JSON protocol; the generated
//! client of SSM has 150.
//!
//! Source: <https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_PutParameter.html> and the pages beside it.

use std::fmt;

use async_trait::async_trait;
use aws_config::SdkConfig;
use aws_sdk_ecs::config::http::{HttpRequest, HttpResponse};
use aws_sdk_ecs::error::{BoxError, ErrorMetadata};
use aws_smithy_runtime::client::orchestrator::operation::Operation;
use aws_smithy_runtime_api::client::orchestrator::OrchestratorError;
use aws_smithy_types::body::SdkBody;
use serde_json::{Value, json};

use super::call::CallRunner;
use super::ecs::unreadable;
use super::operation::{self, SignedService};
use crate::aws::{AwsError, AwsErrorKind, ListPage};
use crate::token_store::{EntryDescription, EntryPage, EntryTags, NewEntry, TokenStore};

const SSM: SignedService = SignedService { id: "SSM", name: "ssm" };
/// Parameters in a page, the most that is allowed.
const PAGE: u32 = 50;
const DESCRIPTION: &str = "Data plane token of ecs-mesh-operator";

/// An operation, as permissions name it. The part after the colon is its name.
#[derive(Clone, Copy)]
struct SsmCall(&'static str);

const PUT: SsmCall = SsmCall("ssm:PutParameter");
const ADD_TAGS: SsmCall = SsmCall("ssm:AddTagsToResource");
const LIST_TAGS: SsmCall = SsmCall("ssm:ListTagsForResource");
const DESCRIBE: SsmCall = SsmCall("ssm:DescribeParameters");
const DELETE: SsmCall = SsmCall("ssm:DeleteParameter");
const BY_PATH: SsmCall = SsmCall("ssm:GetParametersByPath");

/// The body of a request, and the operation.
struct SsmRequest {
    call: SsmCall,
    body: String,
}

/// Without the body, which may hold a token.
impl fmt::Debug for SsmRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SsmRequest").field("call", &self.call.0).finish_non_exhaustive()
    }
}

/// A parameter below a path.
#[derive(Clone, PartialEq, Eq)]
pub struct PathParameter {
    /// The name, which starts with the path.
    pub name: String,
    /// The number of the version.
    pub version: i64,
    /// The decrypted value.
    pub value: String,
}

/// Without the value, which may be encrypted in SSM.
impl fmt::Debug for PathParameter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, version, value: _ } = self;
        f.debug_struct("PathParameter").field("name", name).field("version", version).finish_non_exhaustive()
    }
}

/// SSM of one account and Region.
#[derive(Clone)]
pub struct SdkParameterStore {
    /// `None` without credentials provider or HTTP client, which the default chain always has.
    operation: Option<Operation<SsmRequest, Value, ErrorMetadata>>,
    calls: CallRunner,
}

impl SdkParameterStore {
    pub(super) fn new(config: &SdkConfig, calls: CallRunner) -> Self {
        let builder = operation::builder(config, SSM, "Parameters");
        let operation = builder.map(|builder| builder.serializer(request).deserializer(response).build());
        Self { operation, calls }
    }

    /// One page of the parameters below the path, at any depth, decrypted.
    pub async fn page_by_path(
        &self,
        path: &str,
        page: Option<&str>,
    ) -> Result<ListPage<PathParameter>, AwsError> {
        let mut body = json!({"Path": path, "Recursive": true, "WithDecryption": true, "MaxResults": 10});
        if let Some(page) = page {
            body["NextToken"] = page.into();
        }
        let answer = self.call(BY_PATH, path, &body).await?;
        let Some(items) = answer.get("Parameters").and_then(Value::as_array) else {
            return Err(unreadable(BY_PATH.0, path, "the response has no Parameters"));
        };
        let items: Option<Vec<PathParameter>> = items.iter().map(path_parameter).collect();
        let items = items.ok_or_else(|| unreadable(BY_PATH.0, path, "a parameter has no name or value"))?;
        let next = answer.get("NextToken").and_then(Value::as_str).filter(|token| !token.is_empty());
        Ok(ListPage { items, skipped: Vec::new(), next: next.map(str::to_owned) })
    }

    async fn call(&self, call: SsmCall, resource: &str, body: &Value) -> Result<Value, AwsError> {
        let Some(operation) = &self.operation else {
            return Err(unreadable(call.0, resource, "no credentials provider"));
        };
        let sent = operation.invoke(SsmRequest { call, body: body.to_string() });
        Box::pin(self.calls.run(call.0, resource, sent)).await
    }
}

fn path_parameter(found: &Value) -> Option<PathParameter> {
    Some(PathParameter {
        name: found.get("Name")?.as_str()?.to_owned(),
        version: found.get("Version").and_then(Value::as_i64).unwrap_or_default(),
        value: found.get("Value")?.as_str()?.to_owned(),
    })
}

impl SdkParameterStore {
    async fn page(
        &self,
        resource: &str,
        filter: &Value,
        next: Option<String>,
    ) -> Result<EntryPage, AwsError> {
        let mut body = json!({"ParameterFilters": [filter], "MaxResults": PAGE});
        if let Some(next) = next {
            body["NextToken"] = next.into();
        }
        let page = self.call(DESCRIBE, resource, &body).await?;
        let Some(items) = page.get("Parameters").and_then(Value::as_array) else {
            return Err(unreadable(DESCRIBE.0, resource, "the response has no Parameters"));
        };
        let names = items.iter().filter_map(|item| item.get("Name")?.as_str());
        let next = page.get("NextToken").and_then(Value::as_str).filter(|token| !token.is_empty());
        Ok(EntryPage { names: names.map(str::to_owned).collect(), next: next.map(str::to_owned) })
    }
}

fn json_tags(tags: &EntryTags) -> Value {
    tags.iter().map(|(key, value)| json!({"Key": key, "Value": value})).collect()
}

/// The fields of a PutParameter that stores `text`.
fn parameter(name: &str, kms_key: Option<&str>, text: &str) -> Value {
    let mut body = json!({"Name": name, "Value": text, "Type": "SecureString", "Description": DESCRIPTION});
    if let Some(key) = kms_key {
        body["KeyId"] = key.into();
    }
    body
}

#[async_trait]
impl TokenStore for SdkParameterStore {
    async fn list(&self, path: &str, next: Option<String>) -> Result<EntryPage, AwsError> {
        let prefix = format!("{path}/");
        let filter = json!({"Key": "Name", "Option": "BeginsWith", "Values": [prefix]});
        let mut page = self.page(path, &filter, next).await?;
        page.names.retain(|name| name.starts_with(&prefix));
        Ok(page)
    }

    async fn list_tagged(&self, key: &str, value: &str, next: Option<String>) -> Result<EntryPage, AwsError> {
        self.page(key, &json!({"Key": format!("tag:{key}"), "Values": [value]}), next).await
    }

    async fn describe(&self, name: &str) -> Result<Option<EntryDescription>, AwsError> {
        let body = json!({"ResourceType": "Parameter", "ResourceId": name});
        let found = match self.call(LIST_TAGS, name, &body).await {
            Err(error) if error.kind == AwsErrorKind::NotFound => return Ok(None),
            found => found?,
        };
        let Some(tags) = found.get("TagList").and_then(Value::as_array) else {
            return Err(unreadable(LIST_TAGS.0, name, "the response has no TagList"));
        };
        let text = |tag: &Value, field: &str| tag.get(field).and_then(Value::as_str).map(str::to_owned);
        let tags = tags.iter().filter_map(|tag| Some((text(tag, "Key")?, text(tag, "Value")?))).collect();
        Ok(Some(EntryDescription { tags, is_deleting: false }))
    }

    async fn create(&self, entry: NewEntry<'_>) -> Result<(), AwsError> {
        let mut body = parameter(entry.name, entry.kms_key, entry.text);
        body["Tags"] = json_tags(entry.tags);
        self.call(PUT, entry.name, &body).await.map(drop)
    }

    async fn put(&self, name: &str, kms_key: Option<&str>, text: &str) -> Result<(), AwsError> {
        let mut body = parameter(name, kms_key, text);
        body["Overwrite"] = true.into();
        self.call(PUT, name, &body).await.map(drop)
    }

    async fn set_tags(&self, name: &str, tags: &EntryTags) -> Result<(), AwsError> {
        let body = json!({"ResourceType": "Parameter", "ResourceId": name, "Tags": json_tags(tags)});
        self.call(ADD_TAGS, name, &body).await.map(drop)
    }

    async fn remove(&self, name: &str) -> Result<(), AwsError> {
        match self.call(DELETE, name, &json!({"Name": name})).await {
            Err(error) if error.kind == AwsErrorKind::NotFound => Ok(()),
            removed => removed.map(drop),
        }
    }
}

fn request(request: SsmRequest) -> Result<HttpRequest, BoxError> {
    let name = request.call.0.rsplit(':').next().unwrap_or_default();
    let mut http = HttpRequest::new(SdkBody::from(request.body));
    http.set_method("POST")?;
    http.set_uri("/")?;
    http.headers_mut().insert("content-type", "application/x-amz-json-1.1");
    http.headers_mut().insert("x-amz-target", format!("AmazonSSM.{name}"));
    Ok(http)
}

fn response(response: &HttpResponse) -> Result<Value, OrchestratorError<ErrorMetadata>> {
    let bytes = response.body().bytes().unwrap_or_default();
    let body: Option<Value> = serde_json::from_slice(bytes).ok();
    if response.status().is_success() {
        // Without the parser's message, which may quote the body.
        return body.ok_or_else(|| OrchestratorError::other("the response is no JSON"));
    }
    let text = |name: &str| body.as_ref()?.get(name)?.as_str().map(str::to_owned);
    let code = text("__type").map(|code| code.rsplit('#').next().unwrap_or_default().to_owned());
    let mut error = ErrorMetadata::builder();
    if let Some(code) = code {
        error = error.code(code);
    }
    if let Some(message) = text("message").or_else(|| text("Message")) {
        error = error.message(message);
    }
    Err(OrchestratorError::operation(error.build()))
}
