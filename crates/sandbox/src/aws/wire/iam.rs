//! The operations of IAM. As at AWS, `ListRoles` returns no tags.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use super::request::AwsRequest;
use super::response::page;
use crate::aws::{AwsApiError, AwsApiResult, Cloud, CreateRole, IamRole};
use ecs_mesh_model::{Tags, Timestamp};

pub(super) fn perform(cloud: &mut Cloud, request: &AwsRequest, now: Timestamp) -> AwsApiResult<Value> {
    cloud.caller_identity(&request.access_key_id, now)?;
    if request.operation == "ListRoles" {
        let prefix = request.form.get("PathPrefix").map_or("/", String::as_str);
        let (roles, marker) = cloud.list_roles(prefix, marker(request), max_items(request)?);
        return Ok(paged("Roles", roles.into_iter().map(show).collect::<Vec<_>>(), marker));
    }
    if request.operation == "SimulatePrincipalPolicy" {
        return simulate(cloud, request);
    }
    let name = request.required("RoleName")?;
    match request.operation.as_str() {
        "CreateRole" => return create(cloud, request, now),
        "GetRole" => {
            let role = cloud.get_role(name)?;
            let mut shown = show_with_tags(role);
            shown["RoleLastUsed"] = json!({});
            return Ok(json!({"Role": shown}));
        }
        "DeleteRole" => cloud.delete_role(name, now)?,
        "TagRole" => cloud.tag_role(name, &given_tags(request), now)?,
        "UntagRole" => cloud.untag_role(name, &request.members("TagKeys", ""), now)?,
        "ListRoleTags" => {
            let (tags, marker) = cloud.list_role_tags(name, marker(request), max_items(request)?)?;
            return Ok(paged("Tags", pairs(tags.iter().map(|(key, value)| (key, value))), marker));
        }
        "PutRolePolicy" => {
            cloud.put_role_policy(
                name,
                request.required("PolicyName")?,
                request.required("PolicyDocument")?,
            )?;
        }
        "DeleteRolePolicy" => cloud.delete_role_policy(name, request.required("PolicyName")?)?,
        "GetRolePolicy" => {
            let policy = request.required("PolicyName")?;
            let document = cloud.get_role(name)?.policies.get(policy).ok_or_else(|| {
                AwsApiError::new("NoSuchEntity", format!("role {name} has no inline policy {policy}"))
            })?;
            return Ok(json!({"RoleName": name, "PolicyName": policy, "PolicyDocument": encoded(document)}));
        }
        "ListRolePolicies" => {
            let names: Vec<&String> = cloud.get_role(name)?.policies.keys().collect();
            return Ok(paged("PolicyNames", names, None));
        }
        "ListAttachedRolePolicies" => {
            cloud.get_role(name)?;
            return Ok(paged("AttachedPolicies", json!([]), None));
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
    Ok(json!({"Role": show_with_tags(&cloud.create_role(role, now)?)}))
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
    Ok(paged("EvaluationResults", results, None))
}

fn show(role: &IamRole) -> Value {
    json!({
        "Path": role.path,
        "RoleName": role.name,
        "RoleId": role.id,
        "Arn": role.arn,
        "CreateDate": role.created_at.to_string(),
        "AssumeRolePolicyDocument": encoded(&role.assume_role_policy),
        "Description": role.description,
        "MaxSessionDuration": role.max_session_duration,
    })
}

fn show_with_tags(role: &IamRole) -> Value {
    let mut shown = show(role);
    if !role.tags.is_empty() {
        shown["Tags"] = pairs(role.tags.iter());
    }
    shown
}

/// Policies are returned percent-encoded.
fn encoded(document: &str) -> String {
    utf8_percent_encode(document, NON_ALPHANUMERIC).to_string()
}

fn pairs<'a>(tags: impl Iterator<Item = (&'a String, &'a String)>) -> Value {
    tags.map(|(key, value)| json!({"Key": key, "Value": value})).collect()
}

fn given_tags(request: &AwsRequest) -> Tags {
    request.members("Tags", ".Key").into_iter().zip(request.members("Tags", ".Value")).collect()
}

fn marker(request: &AwsRequest) -> Option<&str> {
    request.form.get("Marker").map(String::as_str)
}

fn max_items(request: &AwsRequest) -> AwsApiResult<usize> {
    let Some(text) = request.form.get("MaxItems") else { return Ok(100) };
    text.parse().ok().filter(|items| (1..=1000).contains(items)).ok_or_else(|| {
        AwsApiError::new("ValidationError", format!("MaxItems is {text:?}; 1 to 1000 are allowed"))
    })
}

fn paged(name: &str, items: impl serde::Serialize, marker: Option<String>) -> Value {
    let truncated = marker.is_some();
    let mut answer = page(name, items, "Marker", marker);
    answer["IsTruncated"] = json!(truncated);
    answer
}
