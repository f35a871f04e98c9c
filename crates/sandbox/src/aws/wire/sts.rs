//! The operations of STS.

use serde_json::{Value, json};

use super::request::AwsRequest;
use crate::aws::{AssumeRole, AwsApiResult, Cloud};
use ecs_mesh_model::Timestamp;

pub(super) fn perform(cloud: &mut Cloud, request: &AwsRequest, now: Timestamp) -> AwsApiResult<Value> {
    match request.operation.as_str() {
        "GetCallerIdentity" => {
            let (arn, id) = cloud.caller_identity(&request.access_key_id, now)?;
            Ok(json!({"Arn": arn, "UserId": id, "Account": cloud.config().account}))
        }
        "AssumeRole" => {
            let asked = AssumeRole {
                role_arn: request.required("RoleArn")?.to_owned(),
                session_name: request.required("RoleSessionName")?.to_owned(),
                duration_seconds: request
                    .form
                    .get("DurationSeconds")
                    .and_then(|seconds| seconds.parse().ok()),
            };
            let assumed = cloud.assume_role(&asked, now)?;
            Ok(json!({
                "Credentials": {
                    "AccessKeyId": assumed.access_key_id,
                    "SecretAccessKey": assumed.secret_access_key,
                    "SessionToken": assumed.session_token,
                    "Expiration": assumed.expiration.to_string(),
                },
                "AssumedRoleUser": {"AssumedRoleId": assumed.id, "Arn": assumed.arn},
            }))
        }
        _ => Err(request.unknown_operation()),
    }
}
