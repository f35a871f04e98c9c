//! The operations of SSM Parameter Store.

use serde_json::{Value, json};

use super::request::AwsRequest;
use super::response::page;
use super::secretsmanager::tags;
use crate::aws::{AwsApiError, AwsApiResult, Cloud, PutParameter, StoredParameter};
use ecs_mesh_model::Timestamp;

pub(super) fn perform(cloud: &mut Cloud, request: &AwsRequest, now: Timestamp) -> AwsApiResult<Value> {
    let (name, resource) = (request.text("Name"), request.text("ResourceId"));
    Ok(match request.operation.as_str() {
        "PutParameter" => {
            let parameter = StoredParameter {
                name: name.to_owned(),
                kind: request.text("Type").to_owned(),
                value: request.text("Value").to_owned(),
                kms_key: request.optional("KeyId").map(str::to_owned),
                tags: tags(request),
                version: 0,
                changed: now,
            };
            if parameter.value.len() > 4_096 {
                return Err(AwsApiError::new(
                    "ValidationException",
                    "a standard parameter holds 4096 characters",
                ));
            }
            let overwrite = request.body["Overwrite"] == true;
            let version = cloud.put_parameter(PutParameter { parameter, overwrite })?;
            json!({"Version": version, "Tier": "Standard"})
        }
        "GetParameter" => json!({ "Parameter": with_value(cloud, cloud.parameter(name)?, request) }),
        "GetParametersByPath" => by_path(cloud, request),
        "AddTagsToResource" => {
            cloud.tagged_parameter(resource)?.tags.extend(tags(request));
            json!({})
        }
        "ListTagsForResource" => {
            let tags = cloud.tagged_parameter(resource)?.tags.iter();
            json!({"TagList": tags.map(|(key, value)| json!({"Key": key, "Value": value})).collect::<Vec<_>>()})
        }
        "DeleteParameter" => {
            cloud.delete_parameter(name)?;
            json!({})
        }
        "DescribeParameters" => describe(cloud, request),
        _ => return Err(request.unknown_operation()),
    })
}

/// The parameter with its value, decrypted on request.
fn with_value(cloud: &Cloud, parameter: &StoredParameter, request: &AwsRequest) -> Value {
    let is_shown = parameter.kind != "SecureString" || request.body["WithDecryption"] == true;
    let (region, account) = (&cloud.config().region, &cloud.config().account);
    let mut shown = parameter.summary_json();
    shown["ARN"] = json!(format!("arn:aws:ssm:{region}:{account}:parameter{}", parameter.name));
    shown["Value"] = json!(if is_shown { parameter.value.as_str() } else { "(encrypted)" });
    shown
}

/// The parameters below a path: those of its own level, or of all.
fn by_path(cloud: &Cloud, request: &AwsRequest) -> Value {
    let prefix = format!("{}/", request.text("Path").trim_end_matches('/'));
    let is_recursive = request.body["Recursive"] == true;
    let is_below = |parameter: &&StoredParameter| {
        let rest = parameter.name.strip_prefix(&prefix);
        rest.is_some_and(|rest| is_recursive || !rest.contains('/'))
    };
    let limit = request.limit("MaxResults", 10);
    let after = request.text("NextToken").to_owned();
    let mut listed = cloud.parameters().filter(is_below).filter(|parameter| parameter.name > after);
    let shown: Vec<&StoredParameter> = listed.by_ref().take(limit).collect();
    let next = listed.next().and(shown.last()).map(|parameter| parameter.name.clone());
    let shown: Vec<Value> = shown.into_iter().map(|one| with_value(cloud, one, request)).collect();
    page("Parameters", shown, "NextToken", next)
}

/// Whether a parameter is one of those that a filter of its name or of a tag admits. Other filters admit all.
fn admits(filter: &Value, parameter: &StoredParameter) -> bool {
    let key = filter["Key"].as_str().unwrap_or_default();
    let mut values = filter["Values"].as_array().into_iter().flatten().filter_map(Value::as_str);
    match key.strip_prefix("tag:") {
        Some(tag) => parameter.tags.get(tag).is_some_and(|found| values.any(|value| value == found)),
        None if key == "Name" && filter["Option"] == "BeginsWith" => {
            values.any(|prefix| parameter.name.starts_with(prefix))
        }
        None => true,
    }
}

fn describe(cloud: &Cloud, request: &AwsRequest) -> Value {
    let filters = request.body["ParameterFilters"].as_array().map(Vec::as_slice).unwrap_or_default();
    let is_listed = |parameter: &&StoredParameter| filters.iter().all(|filter| admits(filter, parameter));
    let limit = request.limit("MaxResults", 50);
    let after = request.text("NextToken").to_owned();
    let mut listed = cloud.parameters().filter(is_listed).filter(|parameter| parameter.name > after);
    let shown: Vec<&StoredParameter> = listed.by_ref().take(limit).collect();
    let next = listed.next().and(shown.last()).map(|parameter| parameter.name.clone());
    let account = &cloud.config().account;
    let shown: Vec<Value> = shown.into_iter().map(|parameter| parameter.to_api_json(account)).collect();
    page("Parameters", shown, "NextToken", next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameter_is_admitted_by_its_name_or_a_tag() {
        let tags = [("owner".to_owned(), "a".to_owned())].into();
        let parameter = StoredParameter { name: "/m/x".to_owned(), tags, ..StoredParameter::default() };
        for (filter, expected) in [
            (json!({"Key": "Name", "Option": "BeginsWith", "Values": ["/n/", "/m/"]}), true),
            (json!({"Key": "Name", "Option": "BeginsWith", "Values": ["/n/"]}), false),
            (json!({"Key": "tag:owner", "Values": ["b", "a"]}), true),
            (json!({"Key": "tag:owner", "Values": ["b"]}), false),
            (json!({"Key": "tag:other", "Values": ["a"]}), false),
        ] {
            assert_eq!(admits(&filter, &parameter), expected, "{filter}");
        }
    }
}
