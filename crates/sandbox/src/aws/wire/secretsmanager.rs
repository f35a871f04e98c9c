//! The operations of Secrets Manager.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::request::AwsRequest;
use super::response::page;
use crate::aws::{AwsApiError, AwsApiResult, Cloud, CreateSecret, StoredSecret};
use ecs_mesh_model::Timestamp;

pub(super) fn perform(cloud: &mut Cloud, request: &AwsRequest, now: Timestamp) -> AwsApiResult<Value> {
    let id = request.text("SecretId");
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
        "GetSecretValue" => cloud.secret(id)?.value_json(),
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
        "ListSecrets" => list(cloud, request),
        _ => return Err(request.unknown_operation()),
    })
}

fn delete(cloud: &mut Cloud, request: &AwsRequest, now: Timestamp) -> AwsApiResult<Value> {
    let (id, forced) = (request.text("SecretId"), request.body["ForceDeleteWithoutRecovery"] == true);
    if !forced {
        let message = "only deletions without a recovery window are served";
        return Err(AwsApiError::new("InvalidRequestException", message));
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
    let is_listed = |secret: &&StoredSecret| {
        prefixes.is_empty() || prefixes.iter().any(|prefix| secret.name.starts_with(prefix))
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
