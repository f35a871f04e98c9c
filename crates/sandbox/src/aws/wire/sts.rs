//! The operations of STS.

use serde_json::{Value, json};

use super::AwsFront;
use super::request::AwsRequest;
use crate::aws::{AssumeRole, AssumedRole, AwsApiResult, Cloud};
use ecs_mesh_model::Timestamp;

pub(super) fn perform(cloud: &mut Cloud, request: &AwsRequest, now: Timestamp) -> AwsApiResult<Value> {
    match request.operation.as_str() {
        "GetCallerIdentity" => {
            let (arn, id) = cloud.caller_identity(&request.access_key_id, now)?;
            Ok(json!({"Arn": arn, "UserId": id, "Account": cloud.config().account}))
        }
        "AssumeRole" => Ok(show(&cloud.assume_role(&read(request)?, now)?)),
        _ => Err(request.unknown_operation()),
    }
}

/// The answer to `AssumeRole` of a role in another account than the caller's; `None` for any other call.
pub(super) fn assume_foreign_role(
    first: &AwsFront,
    caller: &AwsFront,
    request: &AwsRequest,
) -> Option<AwsApiResult<Value>> {
    if (request.service, request.operation.as_str()) != ("sts", "AssumeRole") {
        return None;
    }
    let assumed = first.assume_foreign_role(caller, &request.access_key_id, &read(request).ok()?)?;
    Some(assumed.map(|assumed| show(&assumed)))
}

fn read(request: &AwsRequest) -> AwsApiResult<AssumeRole> {
    Ok(AssumeRole {
        role_arn: request.required("RoleArn")?.to_owned(),
        session_name: request.required("RoleSessionName")?.to_owned(),
        external_id: request.form.get("ExternalId").cloned(),
        duration_seconds: request.form.get("DurationSeconds").and_then(|seconds| seconds.parse().ok()),
    })
}

fn show(assumed: &AssumedRole) -> Value {
    json!({
        "Credentials": {
            "AccessKeyId": assumed.access_key_id,
            "SecretAccessKey": assumed.secret_access_key,
            "SessionToken": assumed.session_token,
            "Expiration": assumed.expiration.to_string(),
        },
        "AssumedRoleUser": {"AssumedRoleId": assumed.id, "Arn": assumed.arn},
    })
}
