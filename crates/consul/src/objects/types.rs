//! ACL objects on the wire. Each keeps the fields that are not known here, so that an update drops none of them; and
//! none sends back what the server computes.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

/// Consul prints some empty lists and texts as `null`.
pub(crate) fn nullable<'de, D, R>(from: D) -> Result<R, D::Error>
where
    D: Deserializer<'de>,
    R: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// A policy or role that something else refers to. Given by name, the server finds the id.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ObjectLink {
    /// Its id.
    #[serde(rename = "ID", skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// Its name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
}

impl ObjectLink {
    /// What has this name.
    pub fn named(name: impl Into<String>) -> Self {
        Self { id: String::new(), name: name.into() }
    }
}

/// A way to log in. Its type cannot be changed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct AuthMethod {
    /// Its name, which is its identity.
    pub name: String,
    /// `aws-iam`, `jwt` and others.
    #[serde(rename = "Type")]
    pub kind: String,
    /// What it is for.
    #[serde(deserialize_with = "nullable")]
    pub description: String,
    /// As its type wants it; empty in lists.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Map::is_empty")]
    pub config: Map<String, Value>,
    /// When it was last changed.
    #[serde(skip_serializing)]
    pub modify_index: u64,
    /// What else it has: `MaxTokenTTL`, `TokenLocality`, `NamespaceRules`.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl AuthMethod {
    /// A setting of its `config`. Consul takes it as it is written here, or else whatever the case of its letters.
    pub fn setting(&self, name: &str) -> Option<&Value> {
        let in_any_case = || self.config.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        self.config.get(name).or_else(|| in_any_case().map(|(_, value)| value))
    }
}

/// What a login by an auth method is given. Its auth method cannot be changed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct BindingRule {
    /// Its id; empty in one that is to be made.
    #[serde(rename = "ID", skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// What it is for.
    #[serde(deserialize_with = "nullable")]
    pub description: String,
    /// The auth method.
    pub auth_method: String,
    /// Which logins; empty: all.
    #[serde(deserialize_with = "nullable")]
    pub selector: String,
    /// `service`, `role` and others.
    pub bind_type: String,
    /// Which service or role.
    pub bind_name: String,
    /// When it was last changed.
    #[serde(skip_serializing)]
    pub modify_index: u64,
    /// What else it has.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// A policy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct AclPolicy {
    /// Its id; empty in one that is to be made.
    #[serde(rename = "ID", skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// Its name.
    pub name: String,
    /// What it is for.
    #[serde(deserialize_with = "nullable")]
    pub description: String,
    /// What it allows; empty in lists.
    #[serde(deserialize_with = "nullable")]
    pub rules: String,
    /// Where it counts; empty: everywhere.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub datacenters: Vec<String>,
    /// When it was last changed.
    #[serde(skip_serializing)]
    pub modify_index: u64,
    /// What else it has.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// A role. An update that leaves out its policies takes them away.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct AclRole {
    /// Its id; empty in one that is to be made.
    #[serde(rename = "ID", skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// Its name.
    pub name: String,
    /// What it is for.
    #[serde(deserialize_with = "nullable")]
    pub description: String,
    /// Its policies. One that was deleted is gone from here.
    #[serde(deserialize_with = "nullable")]
    pub policies: Vec<ObjectLink>,
    /// When it was last changed.
    #[serde(skip_serializing)]
    pub modify_index: u64,
    /// What else it has.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// The token that counts where none is given.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct AnonymousToken {
    /// Its description.
    #[serde(deserialize_with = "nullable")]
    pub description: String,
    /// Its policies.
    #[serde(deserialize_with = "nullable")]
    pub policies: Vec<ObjectLink>,
    /// When it was last changed.
    #[serde(skip_serializing)]
    pub modify_index: u64,
    /// What else it has, but no secret.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl AnonymousToken {
    /// Its roles, which are not changed here.
    pub fn roles(&self) -> Vec<ObjectLink> {
        let roles = self.other.get("Roles").cloned().unwrap_or_default();
        serde_json::from_value(roles).unwrap_or_default()
    }
}

/// A node of the catalog that stands for a cluster.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ClusterNode {
    /// Its name, the cluster's ARN.
    pub node: String,
    /// Its address.
    pub address: String,
    /// Its metadata: `synthetic-node`.
    #[serde(deserialize_with = "nullable")]
    pub meta: BTreeMap<String, String>,
    /// When it was last changed.
    #[serde(skip_serializing)]
    pub modify_index: u64,
    /// What else it has.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// Enterprise: a namespace.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ConsulNamespace {
    /// Its name.
    pub name: String,
    /// What it is for.
    #[serde(deserialize_with = "nullable")]
    pub description: String,
    /// What each token in it may do beside.
    #[serde(rename = "ACLs", deserialize_with = "nullable")]
    pub acls: NamespaceAcls,
    /// When it was last changed.
    #[serde(skip_serializing)]
    pub modify_index: u64,
    /// What else it has.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// What each token in a namespace may do beside what it may do by itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NamespaceAcls {
    /// By these policies.
    #[serde(deserialize_with = "nullable")]
    pub policy_defaults: Vec<ObjectLink>,
    /// By these roles.
    #[serde(deserialize_with = "nullable")]
    pub role_defaults: Vec<ObjectLink>,
    /// What else it has.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// What the server computes, or what opens something: never kept, and never sent.
const SERVER_FIELDS: [&str; 7] =
    ["CreateIndex", "Hash", "SecretID", "CreateTime", "AccessorID", "DeletedAt", "ResolvedByAgent"];

/// A form that keeps what is not known of it.
pub(super) trait WireForm: Serialize + serde::de::DeserializeOwned {
    /// What is not known of it.
    fn other(&mut self) -> &mut Map<String, Value>;

    /// Without what is not kept.
    fn clean(mut self) -> Self {
        self.other().retain(|name, _| !SERVER_FIELDS.contains(&name.as_str()));
        self
    }
}

macro_rules! form {
    ($($name:ident),*) => {
        $(impl WireForm for $name {
            fn other(&mut self) -> &mut Map<String, Value> {
                &mut self.other
            }
        })*
    };
}
form!(AuthMethod, BindingRule, AclPolicy, AclRole, AnonymousToken, ClusterNode, ConsulNamespace);

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
        let method = serde_json::from_value::<AuthMethod>(stored).unwrap().clean();
        assert_eq!(method.modify_index, 7);
        let sent = json!({
            "Name": "m", "Type": "aws-iam", "Description": "d", "Config": {"New": [1]}, "MaxTokenTTL": "1h0m0s",
            "Surprise": {"a": 1},
        });
        assert_eq!(serde_json::to_value(method).unwrap(), sent);
    }

    #[test]
    fn a_tokens_secret_is_not_kept() {
        let stored = json!({
            "AccessorID": "00000000-0000-0000-0000-000000000002", "SecretID": "hunter2", "Description": "Anonymous Token",
            "Policies": null, "Roles": [{"Name": "r"}], "Local": false, "Hash": "h=",
        });
        let token = serde_json::from_value::<AnonymousToken>(stored).unwrap().clean();
        assert!(!format!("{token:?}").contains("hunter2"));
        let sent = json!({"Description": "Anonymous Token", "Policies": [], "Roles": [{"Name": "r"}], "Local": false});
        assert_eq!(serde_json::to_value(token).unwrap(), sent);
    }
}
