//! The operations of IAM.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use super::request::AwsRequest;
use crate::aws::{AwsApiResult, Cloud, CreateRole, IamRole};
use ecs_mesh_model::{Tags, Timestamp};

pub(super) fn perform(cloud: &mut Cloud, request: &AwsRequest, now: Timestamp) -> AwsApiResult<Value> {
    cloud.caller_identity(&request.access_key_id, now)?;
    match request.operation.as_str() {
        "SimulatePrincipalPolicy" => return simulate(cloud, request),
        "GetAccountAuthorizationDetails" => return Ok(authorization_details(cloud)),
        _ => {}
    }
    let name = request.required("RoleName")?;
    match request.operation.as_str() {
        "CreateRole" => return create(cloud, request, now),
        "GetRole" => {
            let role = cloud.get_role(name)?;
            let mut shown = show(role);
            shown["RoleLastUsed"] = json!({});
            return Ok(json!({"Role": shown}));
        }
        "DeleteRole" => cloud.delete_role(name, now)?,
        "TagRole" => cloud.tag_role(name, &given_tags(request), now)?,
        "UntagRole" => cloud.untag_role(name, &request.members("TagKeys", ""), now)?,
        "PutRolePolicy" => {
            cloud.put_role_policy(
                name,
                request.required("PolicyName")?,
                request.required("PolicyDocument")?,
            )?;
        }
        _ => return Err(request.unknown_operation()),
    }
    Ok(json!({}))
}

fn create(cloud: &mut Cloud, request: &AwsRequest, now: Timestamp) -> AwsApiResult<Value> {
    let role = CreateRole {
        name: request.required("RoleName")?.to_owned(),
        path: request.form.get("Path").cloned().unwrap_or_default(),
        assume_role_policy: request.required("AssumeRolePolicyDocument")?.to_owned(),
        description: request.form.get("Description").cloned(),
        max_session_duration: request.form.get("MaxSessionDuration").and_then(|seconds| seconds.parse().ok()),
        tags: given_tags(request),
    };
    Ok(json!({"Role": show(&cloud.create_role(role, now)?)}))
}

fn simulate(cloud: &Cloud, request: &AwsRequest) -> AwsApiResult<Value> {
    let role = request.required("PolicySourceArn")?;
    let actions = request.members("ActionNames", "");
    let mut resources = request.members("ResourceArns", "");
    if resources.is_empty() {
        resources.push("*".to_owned());
    }
    let mut results = Vec::new();
    for (action, resource) in actions.iter().flat_map(|action| resources.iter().map(move |one| (action, one)))
    {
        results.push(json!({
            "EvalActionName": action,
            "EvalResourceName": resource,
            "EvalDecision": cloud.simulate(role, action, resource)?,
            "MatchedStatements": [],
            "MissingContextValues": [],
        }));
    }
    Ok(json!({"EvaluationResults": results, "IsTruncated": false}))
}

/// All roles with their inline policies, in one page. The sandbox has no users, groups and managed policies.
fn authorization_details(cloud: &Cloud) -> Value {
    let details = cloud.all_roles().map(|role| {
        let mut shown = show(role);
        let policies = role
            .policies
            .iter()
            .map(|(name, document)| json!({"PolicyName": name, "PolicyDocument": encoded(document)}));
        shown["RolePolicyList"] = policies.collect();
        shown["AttachedManagedPolicies"] = json!([]);
        shown["InstanceProfileList"] = json!([]);
        shown
    });
    json!({
        "UserDetailList": [],
        "GroupDetailList": [],
        "RoleDetailList": details.collect::<Vec<_>>(),
        "Policies": [],
        "IsTruncated": false,
    })
}

fn show(role: &IamRole) -> Value {
    let mut shown = json!({
        "Path": role.path,
        "RoleName": role.name,
        "RoleId": role.id,
        "Arn": role.arn,
        "CreateDate": role.created_at.to_string(),
        "AssumeRolePolicyDocument": encoded(&role.assume_role_policy),
        "Description": role.description,
        "MaxSessionDuration": role.max_session_duration,
    });
    if !role.tags.is_empty() {
        shown["Tags"] = role.tags.iter().map(|(key, value)| json!({"Key": key, "Value": value})).collect();
    }
    shown
}

/// Policies are returned percent-encoded.
fn encoded(document: &str) -> String {
    utf8_percent_encode(document, NON_ALPHANUMERIC).to_string()
}

fn given_tags(request: &AwsRequest) -> Tags {
    request.members("Tags", ".Key").into_iter().zip(request.members("Tags", ".Value")).collect()
}
