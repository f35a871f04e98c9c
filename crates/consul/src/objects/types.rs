//! ACL objects on the wire. Each type keeps unknown fields, so that an update preserves them, and never sends fields
//! that the server computes.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

/// Reads `null` as the default value: Consul writes some empty lists and texts as `null`.
pub(crate) fn nullable<'de, D, R>(from: D) -> Result<R, D::Error>
where
    D: Deserializer<'de>,
    R: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// A reference to a policy or role. The server resolves a name to the id.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ObjectLink {
    /// The id.
    #[serde(rename = "ID", skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// The name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
}

impl ObjectLink {
    /// A reference by name.
    pub fn named(name: impl Into<String>) -> Self {
        Self { id: String::new(), name: name.into() }
    }
}

/// An auth method. Its type is immutable.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct AuthMethod {
    /// The name, which identifies the method.
    pub name: String,
    /// `aws-iam`, `jwt` and others.
    #[serde(rename = "Type")]
    pub kind: String,
    /// The description.
    #[serde(deserialize_with = "nullable")]
    pub description: String,
    /// The configuration of its type; empty in lists.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Map::is_empty")]
    pub config: Map<String, Value>,
    /// The Raft index of the last change.
    #[serde(skip_serializing)]
    pub modify_index: u64,
    /// Other fields, such as `MaxTokenTTL`, `TokenLocality` and `NamespaceRules`.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl AuthMethod {
    /// A setting of `config`. Consul matches the exact name first, then ignores the case.
    pub fn setting(&self, name: &str) -> Option<&Value> {
        let in_any_case = || self.config.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        self.config.get(name).or_else(|| in_any_case().map(|(_, value)| value))
    }
}

/// A binding rule of an auth method, which is immutable: the permissions that a login receives.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct BindingRule {
    /// The id; empty for a new object.
    #[serde(rename = "ID", skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// The description.
    #[serde(deserialize_with = "nullable")]
    pub description: String,
    /// The auth method.
    pub auth_method: String,
    /// The logins that the rule applies to; empty: all.
    #[serde(deserialize_with = "nullable")]
    pub selector: String,
    /// `service`, `role` and others.
    pub bind_type: String,
    /// The name of the service or role.
    pub bind_name: String,
    /// The Raft index of the last change.
    #[serde(skip_serializing)]
    pub modify_index: u64,
    /// Other fields.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// A policy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct AclPolicy {
    /// The id; empty for a new object.
    #[serde(rename = "ID", skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// The name.
    pub name: String,
    /// The description.
    #[serde(deserialize_with = "nullable")]
    pub description: String,
    /// The rules; empty in lists.
    #[serde(deserialize_with = "nullable")]
    pub rules: String,
    /// The datacenters in which the policy is valid; empty: all.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub datacenters: Vec<String>,
    /// The Raft index of the last change.
    #[serde(skip_serializing)]
    pub modify_index: u64,
    /// Other fields.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// A role. An update without policies removes its policies.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct AclRole {
    /// The id; empty for a new object.
    #[serde(rename = "ID", skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// The name.
    pub name: String,
    /// The description.
    #[serde(deserialize_with = "nullable")]
    pub description: String,
    /// The policies. The server removes a deleted policy from the role.
    #[serde(deserialize_with = "nullable")]
    pub policies: Vec<ObjectLink>,
    /// The Raft index of the last change.
    #[serde(skip_serializing)]
    pub modify_index: u64,
    /// Other fields.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// The token of requests without a token.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct AnonymousToken {
    /// The description.
    #[serde(deserialize_with = "nullable")]
    pub description: String,
    /// The policies.
    #[serde(deserialize_with = "nullable")]
    pub policies: Vec<ObjectLink>,
    /// The Raft index of the last change.
    #[serde(skip_serializing)]
    pub modify_index: u64,
    /// Other fields, without the secret.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl AnonymousToken {
    /// The roles, which this operator does not change.
    pub fn roles(&self) -> Vec<ObjectLink> {
        let roles = self.other.get("Roles").cloned().unwrap_or_default();
        serde_json::from_value(roles).unwrap_or_default()
    }
}

/// A catalog node that represents a cluster.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ClusterNode {
    /// The name, which is the cluster's ARN.
    pub node: String,
    /// The address.
    pub address: String,
    /// The metadata, such as `synthetic-node`.
    #[serde(deserialize_with = "nullable")]
    pub meta: BTreeMap<String, String>,
    /// The Raft index of the last change.
    #[serde(skip_serializing)]
    pub modify_index: u64,
    /// Other fields.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// Enterprise: a namespace.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ConsulNamespace {
    /// The name.
    pub name: String,
    /// The description.
    #[serde(deserialize_with = "nullable")]
    pub description: String,
    /// The default permissions of all tokens in the namespace.
    #[serde(rename = "ACLs", deserialize_with = "nullable")]
    pub acls: NamespaceAcls,
    /// The Raft index of the last change.
    #[serde(skip_serializing)]
    pub modify_index: u64,
    /// Other fields.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// The policies and roles that each token in a namespace has in addition to its own.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NamespaceAcls {
    /// The default policies.
    #[serde(deserialize_with = "nullable")]
    pub policy_defaults: Vec<ObjectLink>,
    /// The default roles.
    #[serde(deserialize_with = "nullable")]
    pub role_defaults: Vec<ObjectLink>,
    /// Other fields.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// Fields that the server computes, and secrets: never kept and never sent.
const SERVER_FIELDS: [&str; 7] =
    ["CreateIndex", "Hash", "SecretID", "CreateTime", "AccessorID", "DeletedAt", "ResolvedByAgent"];

/// An object that keeps its unknown fields.
pub(super) trait WireObject: Serialize + serde::de::DeserializeOwned {
    /// The unknown fields.
    fn other(&mut self) -> &mut Map<String, Value>;

    /// The normal form of the object: without computed fields and secrets.
    fn without_server_fields(mut self) -> Self {
        self.other().retain(|name, _| !SERVER_FIELDS.contains(&name.as_str()));
        self
    }
}

macro_rules! wire_objects {
    ($($name:ident),*) => {
        $(impl WireObject for $name {
            fn other(&mut self) -> &mut Map<String, Value> {
                &mut self.other
            }
        })*
    };
}
wire_objects!(AuthMethod, BindingRule, AclPolicy, AclRole, AnonymousToken, ClusterNode, ConsulNamespace);

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn update_keeps_unknown_fields_and_drops_computed_ones() {
        let stored = json!({
            "Name": "m", "Type": "aws-iam", "Description": "d", "Config": {"New": [1]}, "MaxTokenTTL": "1h0m0s",
            "Surprise": {"a": 1}, "CreateIndex": 3, "ModifyIndex": 7,
        });
        let method = serde_json::from_value::<AuthMethod>(stored).unwrap().without_server_fields();
        assert_eq!(method.modify_index, 7);
        let sent = json!({
            "Name": "m", "Type": "aws-iam", "Description": "d", "Config": {"New": [1]}, "MaxTokenTTL": "1h0m0s",
            "Surprise": {"a": 1},
        });
        assert_eq!(serde_json::to_value(method).unwrap(), sent);
    }

    #[test]
    fn token_secret_is_not_kept() {
        let stored = json!({
            "AccessorID": "00000000-0000-0000-0000-000000000002", "SecretID": "hunter2", "Description": "Anonymous Token",
            "Policies": null, "Roles": [{"Name": "r"}], "Local": false, "Hash": "h=",
        });
        let token = serde_json::from_value::<AnonymousToken>(stored).unwrap().without_server_fields();
        assert!(!format!("{token:?}").contains("hunter2"));
        let sent = json!({"Description": "Anonymous Token", "Policies": [], "Roles": [{"Name": "r"}], "Local": false});
        assert_eq!(serde_json::to_value(token).unwrap(), sent);
    }
}
