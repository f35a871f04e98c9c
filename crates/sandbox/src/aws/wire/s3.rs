//! The operations of S3, in its REST protocol, with the bucket in the path.
//!
//! Source: <https://docs.aws.amazon.com/AmazonS3/latest/API/API_Operations_Amazon_Simple_Storage_Service.html>.

use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde_json::{Value, json};

use super::request::AwsRequest;
use super::response::{REQUEST_ID, write_element};
use crate::aws::{AwsApiError, AwsApiResult, Cloud};
use ecs_mesh_model::Timestamp;

/// Characters that a key in a list escapes.
const KEY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'/');

/// The parts of a request that its signature and its path show.
#[derive(Clone, Debug, Default)]
pub(super) struct S3Call {
    pub(super) bucket: String,
    pub(super) key: String,
    /// The Region of the signature.
    region: String,
    if_match: Option<String>,
    body: Vec<u8>,
}

/// Reads a request that is signed for S3; `None` for any other.
pub(super) fn call(
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
    body: &[u8],
) -> Option<(&'static str, S3Call)> {
    let text = |name: &str| headers.get(name)?.to_str().ok();
    let scope = text("authorization")?.split_once("Credential=")?.1.split(',').next()?;
    let mut scope = scope.split('/').skip(2);
    let (region, service) = (scope.next()?, scope.next()?);
    if service != "s3" {
        return None;
    }
    let path = percent_decode_str(uri.path().trim_start_matches('/')).decode_utf8().ok()?.into_owned();
    let (bucket, key) = path.split_once('/').unwrap_or((&path, ""));
    let operation = match (method.as_str(), key.is_empty()) {
        ("GET", true) => "ListObjectsV2",
        ("GET", false) => "GetObject",
        ("PUT", true) => "CreateBucket",
        ("PUT", false) => "PutObject",
        ("DELETE", false) => "DeleteObject",
        _ => "Unknown",
    };
    let call = S3Call {
        bucket: bucket.to_owned(),
        key: key.to_owned(),
        region: region.to_owned(),
        if_match: text("if-match").map(str::to_owned),
        body: body.to_vec(),
    };
    Some((operation, call))
}

pub(super) fn perform(cloud: &mut Cloud, request: &AwsRequest, now: Timestamp) -> AwsApiResult<Value> {
    let S3Call { bucket, key, region, if_match, body } = &request.s3;
    if request.operation == "CreateBucket" {
        let text = String::from_utf8_lossy(body);
        let given = text.split_once("<LocationConstraint>").and_then(|(_, rest)| rest.split('<').next());
        cloud.create_bucket(bucket, given.unwrap_or(region))?;
        return Ok(json!({}));
    }
    if cloud.bucket_region(bucket)? != region.as_str() {
        let message =
            "The bucket you are attempting to access must be addressed using the specified endpoint.";
        return Err(AwsApiError::new("PermanentRedirect", message));
    }
    match request.operation.as_str() {
        "ListObjectsV2" => list(cloud, request),
        "GetObject" => {
            let object = cloud.object(bucket, key, if_match.as_deref())?;
            let body = String::from_utf8_lossy(&object.body);
            Ok(json!({"Body": body, "ETag": object.etag, "VersionId": object.version}))
        }
        "PutObject" => {
            let object = cloud.put_object(bucket, key, body, now)?;
            Ok(json!({"ETag": object.etag, "VersionId": object.version}))
        }
        "DeleteObject" => cloud.delete_object(bucket, key).map(|()| json!({})),
        _ => Err(AwsApiError::new("NotImplemented", "this emulator does not serve the operation")),
    }
}

fn list(cloud: &Cloud, request: &AwsRequest) -> AwsApiResult<Value> {
    let parameter = |name: &str| request.form.get(name).map(String::as_str);
    let prefix = parameter("prefix").unwrap_or_default();
    let limit = parameter("max-keys").and_then(|limit| limit.parse().ok()).unwrap_or(1000).clamp(1, 1000);
    let found = cloud.list_objects(&request.s3.bucket, prefix, parameter("continuation-token"), limit)?;
    let escape = |key: &str| match parameter("encoding-type") {
        Some("url") => utf8_percent_encode(key, KEY).to_string(),
        _ => key.to_owned(),
    };
    let contents = found.objects.iter().map(|(key, object)| {
        json!({
            "Key": escape(key), "LastModified": object.changed.to_string(), "ETag": object.etag,
            "Size": object.body.len(), "StorageClass": "STANDARD",
        })
    });
    let mut answer = json!({
        "Name": request.s3.bucket, "Prefix": escape(prefix), "MaxKeys": limit,
        "Contents": contents.collect::<Vec<_>>(),
    });
    if let Some(encoding) = parameter("encoding-type") {
        answer["EncodingType"] = json!(encoding);
    }
    if let Some(next) = found.next {
        answer["NextContinuationToken"] = json!(next);
    }
    Ok(answer)
}

/// The response, with the bucket's Region if there is such a bucket.
pub(super) fn response(request: &AwsRequest, outcome: AwsApiResult<Value>, region: Option<&str>) -> Response {
    let header = |name: &str, value: &Value| value[name].as_str().unwrap_or_default().to_owned();
    let mut response = match outcome {
        Err(error) => {
            let mut body = String::new();
            let region = region.filter(|_| error.code == "PermanentRedirect");
            let shown = json!({"Code": error.code, "Message": error.message, "Region": region, "RequestId": REQUEST_ID});
            write_element(&mut body, "Error", &shown, "member");
            let status = StatusCode::from_u16(error.status).unwrap_or(StatusCode::BAD_REQUEST);
            (status, document(&body)).into_response()
        }
        Ok(value) if request.operation == "ListObjectsV2" => document(&list_xml(&value)).into_response(),
        Ok(value) if request.operation == "DeleteObject" => {
            debug_assert!(value.is_object());
            StatusCode::NO_CONTENT.into_response()
        }
        Ok(value) => {
            let body = header("Body", &value);
            let headers =
                [("etag", header("ETag", &value)), ("x-amz-version-id", header("VersionId", &value))];
            (headers, body).into_response()
        }
    };
    let headers = response.headers_mut();
    for (name, value) in [("x-amz-request-id", Some(REQUEST_ID)), ("x-amz-bucket-region", region)] {
        if let Some(value) = value.and_then(|value| value.parse().ok()) {
            headers.insert(name, value);
        }
    }
    response
}

fn document(body: &str) -> ([(&'static str, &'static str); 1], String) {
    ([("content-type", "application/xml")], format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n{body}"))
}

/// A list repeats the element of each object, without one around them.
fn list_xml(answer: &Value) -> String {
    let mut fields = String::new();
    let contents = answer["Contents"].as_array();
    for (name, value) in answer.as_object().into_iter().flatten() {
        match value {
            Value::Array(items) => {
                items.iter().for_each(|item| write_element(&mut fields, name, item, "member"));
            }
            value => write_element(&mut fields, name, value, "member"),
        }
    }
    write_element(&mut fields, "KeyCount", &json!(contents.map_or(0, Vec::len)), "member");
    let is_truncated = answer.get("NextContinuationToken").is_some();
    write_element(&mut fields, "IsTruncated", &json!(is_truncated), "member");
    format!("<ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">{fields}</ListBucketResult>")
}
