//! The operations of Secrets Manager.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use serde_json::{Value, json};

use super::request::AwsRequest;
use super::response::page;
use crate::aws::{AwsApiError, AwsApiResult, Cloud, CreateSecret, StoredSecret};
use ecs_mesh_model::Timestamp;

/// The days in which a deleted secret can be restored.
const RECOVERY_DAYS: RangeInclusive<u64> = 7..=30;
const DEFAULT_RECOVERY_DAYS: u64 = 30;

pub(super) fn perform(cloud: &mut Cloud, request: &AwsRequest, now: Timestamp) -> AwsApiResult<Value> {
    let id = request.text("SecretId");
    cloud.purge_secrets(now);
    Ok(match request.operation.as_str() {
        "CreateSecret" => {
            let new = CreateSecret {
                name: request.text("Name").to_owned(),
                text: request.text("SecretString").to_owned(),
                kms_key: request.optional("KmsKeyId").map(str::to_owned),
                tags: tags(request),
            };
            if new.name.is_empty() {
                return Err(AwsApiError::new("ValidationException", "Name is missing"));
            }
            cloud.create_secret(new, now)?.version_json()
        }
        "DescribeSecret" => cloud.secret(id)?.to_api_json(),
        "GetSecretValue" => cloud.secret_value(id)?.value_json(),
        "PutSecretValue" => {
            let mut shown = cloud.put_secret_value(id, request.text("SecretString"), now)?.version_json();
            shown["VersionStages"] = json!(["AWSCURRENT"]);
            shown
        }
        "TagResource" => {
            cloud.tag_secret(id, tags(request))?;
            json!({})
        }
        "DeleteSecret" => delete(cloud, request, now)?,
        "RestoreSecret" => {
            let restored = cloud.restore_secret(id)?;
            json!({"ARN": restored.arn, "Name": restored.name})
        }
        "ListSecrets" => list(cloud, request),
        _ => return Err(request.unknown_operation()),
    })
}

fn delete(cloud: &mut Cloud, request: &AwsRequest, now: Timestamp) -> AwsApiResult<Value> {
    let (id, forced) = (request.text("SecretId"), request.body["ForceDeleteWithoutRecovery"] == true);
    let window = &request.body["RecoveryWindowInDays"];
    let invalid = |message: &str| AwsApiError::new("InvalidParameterException", message);
    if !forced {
        let days = if window.is_null() { Some(DEFAULT_RECOVERY_DAYS) } else { window.as_u64() };
        let days = days.filter(|days| RECOVERY_DAYS.contains(days));
        let days = days.ok_or_else(|| invalid("RecoveryWindowInDays must be between 7 and 30 days"))?;
        let end = now.plus(Duration::from_hours(24 * days));
        let secret = cloud.schedule_secret_deletion(id, end)?;
        return Ok(json!({"ARN": secret.arn, "Name": secret.name, "DeletionDate": end.as_secs_f64()}));
    }
    if !window.is_null() {
        return Err(invalid("give either ForceDeleteWithoutRecovery or RecoveryWindowInDays"));
    }
    // A forced deletion of a secret that does not exist succeeds.
    let deleted = cloud.delete_secret(id).ok();
    let (arn, name) = deleted.map_or((id.to_owned(), id.to_owned()), |secret| (secret.arn, secret.name));
    Ok(json!({"ARN": arn, "Name": name, "DeletionDate": now.as_secs_f64()}))
}

fn list(cloud: &Cloud, request: &AwsRequest) -> Value {
    let filters = request.body["Filters"].as_array().into_iter().flatten();
    let names = filters.filter(|filter| filter["Key"] == "name");
    let prefixes: Vec<&str> = names
        .flat_map(|filter| filter["Values"].as_array().into_iter().flatten())
        .filter_map(Value::as_str)
        .collect();
    let with_deleted = request.body["IncludePlannedDeletion"] == true;
    let is_listed = |secret: &&StoredSecret| {
        (with_deleted || !secret.is_deleting())
            && (prefixes.is_empty() || prefixes.iter().any(|prefix| secret.name.starts_with(prefix)))
    };
    let limit = request.limit("MaxResults", 100);
    let after = request.text("NextToken").to_owned();
    let mut listed = cloud.secrets().filter(is_listed).filter(|secret| secret.name > after);
    let shown: Vec<&StoredSecret> = listed.by_ref().take(limit).collect();
    let next = listed.next().and(shown.last()).map(|secret| secret.name.clone());
    page(
        "SecretList",
        shown.into_iter().map(StoredSecret::to_list_json).collect::<Vec<_>>(),
        "NextToken",
        next,
    )
}

/// The field `Tags` of a request.
pub(super) fn tags(request: &AwsRequest) -> BTreeMap<String, String> {
    let items = request.body["Tags"].as_array().into_iter().flatten();
    let text = |item: &Value, field: &str| item[field].as_str().unwrap_or_default().to_owned();
    items.map(|item| (text(item, "Key"), text(item, "Value"))).collect()
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderMap, HeaderValue, Method, Uri};

    use super::*;
    use crate::aws::CloudConfig;

    const NOW: Timestamp = Timestamp(1_800_000_000_000);

    /// Calls an operation as a client does, and shows the answer or the code of the error.
    fn call(cloud: &mut Cloud, operation: &str, body: &Value, days: u64) -> Result<Value, String> {
        let mut headers = HeaderMap::new();
        let target = HeaderValue::from_str(&format!("secretsmanager.{operation}")).unwrap();
        headers.insert("x-amz-target", target);
        headers.insert("authorization", HeaderValue::from_static("AWS4-HMAC-SHA256 Credential=key/x"));
        let body = body.to_string();
        let request =
            AwsRequest::read(&Method::POST, &Uri::from_static("/"), &headers, body.as_bytes()).unwrap();
        let now = NOW.plus(Duration::from_hours(24 * days));
        perform(cloud, &request, now).map_err(|error| error.code.to_string())
    }

    #[test]
    fn deleted_secret_can_be_restored_within_its_window() {
        let mut cloud = Cloud::new(CloudConfig::default(), NOW);
        let (new, id) = (json!({"Name": "/m/a", "SecretString": "t"}), json!({"SecretId": "/m/a"}));
        let with_window = |days: u64| json!({"SecretId": "/m/a", "RecoveryWindowInDays": days});
        call(&mut cloud, "CreateSecret", &new, 0).unwrap();
        let too_short = call(&mut cloud, "DeleteSecret", &with_window(6), 0);
        assert_eq!(too_short.unwrap_err(), "InvalidParameterException");
        call(&mut cloud, "DeleteSecret", &with_window(7), 0).unwrap();
        let described = call(&mut cloud, "DescribeSecret", &id, 6).unwrap();
        assert_eq!(described["DeletedDate"], json!(1_800_604_800.0));
        for (operation, body) in
            [("GetSecretValue", &id), ("PutSecretValue", &id), ("TagResource", &id), ("CreateSecret", &new)]
        {
            let refused = call(&mut cloud, operation, body, 6);
            assert_eq!(refused.unwrap_err(), "InvalidRequestException", "{operation}");
        }
        let listed = |cloud: &mut Cloud, body: &Value| {
            call(cloud, "ListSecrets", body, 6).unwrap()["SecretList"].as_array().unwrap().len()
        };
        assert_eq!(listed(&mut cloud, &json!({})), 0);
        assert_eq!(listed(&mut cloud, &json!({"IncludePlannedDeletion": true})), 1);
        call(&mut cloud, "RestoreSecret", &id, 6).unwrap();
        assert_eq!(call(&mut cloud, "GetSecretValue", &id, 8).unwrap()["SecretString"], "t");
        call(&mut cloud, "DeleteSecret", &id, 10).unwrap();
        assert!(call(&mut cloud, "DescribeSecret", &id, 39).is_ok());
        assert_eq!(call(&mut cloud, "DescribeSecret", &id, 40).unwrap_err(), "ResourceNotFoundException");
        call(&mut cloud, "CreateSecret", &new, 40).unwrap();
    }
}
