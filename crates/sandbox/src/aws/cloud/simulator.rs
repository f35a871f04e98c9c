//! IAM's policy simulator over a role's inline policies: actions, resources, allow and deny. Statements with other
//! elements are rejected.

use serde_json::Value;

use crate::aws::{AwsApiError, AwsApiResult, Cloud};
use ecs_mesh_model::Glob;

/// Supported elements of a statement.
const KNOWN: [&str; 4] = ["Sid", "Effect", "Action", "Resource"];

impl Cloud {
    /// `allowed`, `explicitDeny` or `implicitDeny` for one action of a role on one resource.
    ///
    /// # Errors
    /// `NoSuchEntity` for an unknown role, `PolicyEvaluation` for an unsupported policy.
    pub fn simulate(&self, role_arn: &str, action: &str, resource: &str) -> AwsApiResult<&'static str> {
        let name = role_arn.rsplit('/').next().unwrap_or_default();
        let role = self.get_role(name)?;
        if role.arn != role_arn {
            return Err(AwsApiError::new("NoSuchEntity", format!("there is no role {role_arn}")));
        }
        let mut decision = "implicitDeny";
        for (policy, document) in &role.policies {
            let document: Value = serde_json::from_str(document).unwrap_or_default();
            for statement in one_or_many(&document["Statement"]) {
                check(policy, statement)?;
                // Actions ignore case, resources do not.
                let acts = any(&statement["Action"], |glob| {
                    Glob::new(glob.to_lowercase()).matches(&action.to_lowercase())
                });
                if !acts || !any(&statement["Resource"], |glob| Glob::new(glob).matches(resource)) {
                    continue;
                }
                match statement["Effect"].as_str() {
                    Some("Deny") => return Ok("explicitDeny"),
                    Some("Allow") => decision = "allowed",
                    _ => {}
                }
            }
        }
        Ok(decision)
    }
}

fn check(policy: &str, statement: &Value) -> AwsApiResult<()> {
    let unknown =
        statement.as_object().and_then(|fields| fields.keys().find(|key| !KNOWN.contains(&key.as_str())));
    match unknown {
        None => Ok(()),
        Some(field) => {
            let message = format!("policy {policy}: the sandbox cannot evaluate {field}");
            Err(AwsApiError::new("PolicyEvaluation", message))
        }
    }
}

fn one_or_many(value: &Value) -> impl Iterator<Item = &Value> {
    let many = value.as_array().map(Vec::as_slice);
    many.unwrap_or_else(|| std::slice::from_ref(value)).iter().filter(|item| !item.is_null())
}

fn any(value: &Value, fits: impl Fn(&str) -> bool) -> bool {
    one_or_many(value).filter_map(Value::as_str).any(fits)
}
