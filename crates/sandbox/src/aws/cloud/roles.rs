//! IAM roles: path, trust policy, tags and inline policies.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::aws::{AwsApiError, AwsApiResult, Cloud};
use ecs_mesh_model::{Tags, Timestamp};

/// Request of `CreateRole`.
#[derive(Clone, Debug, Default)]
pub struct CreateRole {
    /// Its name, unique within the account for all paths.
    pub name: String,
    /// `/` or `/a/b/`; empty is `/`.
    pub path: String,
    /// The trust policy as JSON text.
    pub assume_role_policy: String,
    /// Description.
    pub description: Option<String>,
    /// Seconds; default 3600.
    pub max_session_duration: Option<u32>,
    /// Its tags.
    pub tags: Tags,
}

/// A role.
#[derive(Clone, Debug)]
pub struct IamRole {
    /// Its name.
    pub name: String,
    /// Its ARN, with the path.
    pub arn: String,
    /// `AROA…`; a role that is created again under the same name gets another id.
    pub id: String,
    /// `/` or `/a/b/`.
    pub path: String,
    /// The trust policy.
    pub assume_role_policy: String,
    /// Description.
    pub description: Option<String>,
    /// Seconds.
    pub max_session_duration: u32,
    /// Time of creation.
    pub created_at: Timestamp,
    /// Its tags.
    pub tags: Tags,
    /// Its inline policies.
    pub policies: BTreeMap<String, String>,
}

/// Trust policy for ECS tasks.
const TRUST_ECS_TASKS: &str = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"ecs-tasks.amazonaws.com"},"Action":"sts:AssumeRole"}]}"#;

impl CreateRole {
    /// A role for tasks.
    pub fn for_tasks(name: &str, tags: Tags) -> Self {
        Self {
            name: name.to_owned(),
            assume_role_policy: TRUST_ECS_TASKS.to_owned(),
            tags,
            ..Self::default()
        }
    }
}

impl Cloud {
    /// Creates a role.
    pub fn create_role(&mut self, request: CreateRole, now: Timestamp) -> AwsApiResult<IamRole> {
        let CreateRole { name, path, assume_role_policy, description, max_session_duration, tags } = request;
        let allowed = (1..=64).contains(&name.len())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"+=,.@_-".contains(&b));
        if !allowed {
            return Err(invalid(format!(
                "{name:?} is not a valid role name: letters, digits and +=,.@_-, at most 64"
            )));
        }
        let path = if path.is_empty() { "/".to_owned() } else { path };
        if !path.starts_with('/') || !path.ends_with('/') {
            return Err(invalid(format!("the path {path:?} must start and end with '/'")));
        }
        if serde_json::from_str::<Value>(&assume_role_policy).is_err() {
            return Err(AwsApiError::new("MalformedPolicyDocument", "the trust policy is not JSON"));
        }
        check_tags(&tags)?;
        if self.roles.contains_key(&name) {
            return Err(AwsApiError::new("EntityAlreadyExists", format!("there is a role {name} already")));
        }
        let role = IamRole {
            arn: self.global_arn("iam", &format!("role{path}{name}")),
            id: self.iam_id("AROA"),
            path,
            assume_role_policy,
            description,
            max_session_duration: max_session_duration.unwrap_or(3600),
            created_at: now,
            tags: tags.clone(),
            policies: BTreeMap::new(),
            name: name.clone(),
        };
        self.roles.insert(name.clone(), role.clone());
        self.remember_role(&name, Some(tags), now);
        Ok(role)
    }

    /// All roles, by name.
    pub fn all_roles(&self) -> impl Iterator<Item = &IamRole> {
        self.roles.values()
    }

    /// The role, with its tags.
    pub fn get_role(&self, name: &str) -> AwsApiResult<&IamRole> {
        self.roles.get(name).ok_or_else(|| no_role(name))
    }

    /// Sets tags of a role and emits a CloudTrail event.
    pub fn tag_role(&mut self, name: &str, tags: &Tags, now: Timestamp) -> AwsApiResult<()> {
        let mut all = self.get_role(name)?.tags.clone();
        all.extend(tags.clone());
        check_tags(&all)?;
        self.set_role_tags(name, all, now);
        let pairs: Value = tags.iter().map(|(key, value)| json!({"key": key, "value": value})).collect();
        self.emit_iam_call("TagRole", &json!({"roleName": name, "tags": pairs}), now);
        Ok(())
    }

    /// Removes tags of a role and emits a CloudTrail event.
    pub fn untag_role(&mut self, name: &str, keys: &[String], now: Timestamp) -> AwsApiResult<()> {
        let mut all = self.get_role(name)?.tags.clone();
        all.retain(|key, _| !keys.contains(key));
        self.set_role_tags(name, all, now);
        self.emit_iam_call("UntagRole", &json!({"roleName": name, "tagKeys": keys}), now);
        Ok(())
    }

    /// Deletes a role without inline policies and emits a CloudTrail event.
    pub fn delete_role(&mut self, name: &str, now: Timestamp) -> AwsApiResult<()> {
        if !self.get_role(name)?.policies.is_empty() {
            return Err(AwsApiError::new("DeleteConflict", format!("role {name} still has inline policies")));
        }
        self.roles.remove(name);
        self.remember_role(name, None, now);
        self.emit_iam_call("DeleteRole", &json!({"roleName": name}), now);
        Ok(())
    }

    /// Sets an inline policy, which is stored and not enforced.
    pub fn put_role_policy(&mut self, name: &str, policy: &str, document: &str) -> AwsApiResult<()> {
        if serde_json::from_str::<Value>(document).is_err() {
            return Err(AwsApiError::new("MalformedPolicyDocument", "the policy is not JSON"));
        }
        let role = self.roles.get_mut(name).ok_or_else(|| no_role(name))?;
        role.policies.insert(policy.to_owned(), document.to_owned());
        Ok(())
    }

    /// Deletes an inline policy.
    pub fn delete_role_policy(&mut self, name: &str, policy: &str) -> AwsApiResult<()> {
        let role = self.roles.get_mut(name).ok_or_else(|| no_role(name))?;
        match role.policies.remove(policy) {
            Some(_) => Ok(()),
            None => {
                Err(AwsApiError::new("NoSuchEntity", format!("role {name} has no inline policy {policy}")))
            }
        }
    }

    fn set_role_tags(&mut self, name: &str, tags: Tags, now: Timestamp) {
        if let Some(role) = self.roles.get_mut(name) {
            role.tags.clone_from(&tags);
        }
        self.remember_role(name, Some(tags), now);
    }
}

fn check_tags(tags: &Tags) -> AwsApiResult<()> {
    if tags.len() > 50 {
        return Err(AwsApiError::new("LimitExceeded", format!("{} tags; a role has at most 50", tags.len())));
    }
    for (key, value) in tags {
        if key.is_empty() || key.chars().count() > 128 || value.chars().count() > 256 {
            return Err(invalid(format!("tag {key:?}: a key has 1 to 128 characters, a value at most 256")));
        }
        if key.to_lowercase().starts_with("aws:") {
            return Err(AwsApiError::new(
                "InvalidInput",
                format!("tag {key:?}: keys that start with aws: are AWS's own"),
            ));
        }
    }
    Ok(())
}

fn no_role(name: &str) -> AwsApiError {
    AwsApiError::new("NoSuchEntity", format!("there is no role with the name {name}"))
}

pub(crate) fn invalid(message: impl Into<String>) -> AwsApiError {
    AwsApiError::new("ValidationError", message)
}
