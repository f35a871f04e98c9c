//! The ACL objects and nodes that logins need: read, made, changed and removed, each in a way that cannot do more than
//! it says. What is missing is `None`, and what was not there to be removed `false`, only while our own token is known
//! good.

mod types;
mod token_refs;

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::json;

pub(super) use types::nullable;
pub use types::{
    AclPolicy, AclRole, AnonymousToken, AuthMethod, BindingRule, ClusterNode, ObjectLink, ConsulNamespace, NamespaceAcls,
};

pub use token_refs::TokenRefs;

use types::WireForm;

use super::api::{ConsulApi, ListLocation};
use super::errors::ConsulCall;
use super::scope::{ALL_NAMESPACES, ConsulScope};
use ecs_mesh_control_plane::MeshError;
use ecs_mesh_control_plane::http::{HttpMethod, StreamTransport, TooLarge, segment};
use ecs_mesh_model::ClusterArn;

const READS_ACLS: &str = "acl = \"read\"";
const WRITES_ACLS: &str = "acl = \"write\"";
const READS_NODES: &str = "node_prefix \"\" { policy = \"read\" }";
const READS_SERVICES: &str =
    "node_prefix \"\" { policy = \"read\" } service_prefix \"\" { policy = \"read\" }";
const WRITES_NODES: &str = "node_prefix \"\" { policy = \"write\" }";
const READS_NAMESPACES: &str = "operator = \"read\"";
const WRITES_NAMESPACES: &str = "operator = \"write\"";

/// The accessor id of the token that counts where a request has none; the same in every Consul.
pub const ANONYMOUS_TOKEN: &str = "00000000-0000-0000-0000-000000000002";
/// The node metadata that says that no agent stands behind the node.
pub const SYNTHETIC_NODE: &str = "synthetic-node";
/// The node metadata with the id of the operator whose the node is.
pub const NODE_MARK: &str = "ecs-mesh-operator";

/// So many nodes are asked for by name.
const MAX_NAMES_IN_FILTER: usize = 64;

/// The objects of one namespace, or of an edition that has none.
pub struct AclObjects<T> {
    api: Arc<ConsulApi<T>>,
    scope: ConsulScope,
    namespace: Option<Arc<str>>,
}

/// What tokens may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenRefKind {
    /// A role.
    Role,
    /// A policy, by itself and not through a role.
    Policy,
}

impl TokenRefKind {
    /// As calls and binding rules say it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Role => "role",
            Self::Policy => "policy",
        }
    }
}

/// What counts of a token.
#[derive(Default, Deserialize)]
#[serde(default)]
struct TokenRef {
    #[serde(rename = "AccessorID", deserialize_with = "nullable")]
    accessor_id: String,
    #[serde(rename = "AuthMethod", deserialize_with = "nullable")]
    auth_method: String,
}

impl<T> Clone for AclObjects<T> {
    fn clone(&self) -> Self {
        Self { api: Arc::clone(&self.api), scope: self.scope.clone(), namespace: self.namespace.clone() }
    }
}

impl<T: StreamTransport> AclObjects<T> {
    pub(super) fn new(api: Arc<ConsulApi<T>>) -> Self {
        let scope = api.scope.clone();
        Self { api, scope, namespace: None }
    }

    /// Those of this namespace. Enterprise only.
    #[must_use]
    pub fn in_namespace(&self, namespace: &str) -> Self {
        Self { namespace: Some(namespace.into()), ..self.clone() }
    }

    /// Those of this partition. Enterprise only.
    #[must_use]
    pub fn in_partition(&self, partition: &str) -> Self {
        Self { scope: self.scope.in_partition(partition), ..self.clone() }
    }

    fn path(&self, path: &str, query: &[(&str, &str)]) -> String {
        self.scope.path_in(self.namespace.as_deref(), path, query)
    }

    async fn one<F: WireForm>(&self, path: &str, needs: &'static str) -> Result<Option<F>, MeshError> {
        let found: Option<F> = self.api.get_optional(&self.path(path, &[]), needs).await?;
        Ok(found.map(WireForm::clean))
    }

    async fn all<F: WireForm>(
        &self,
        path: &str,
        query: &[(&str, &str)],
        needs: &'static str,
    ) -> Result<Vec<F>, MeshError> {
        let found: Vec<F> = self.api.get(&self.path(path, query), needs).await?;
        Ok(found.into_iter().map(WireForm::clean).collect())
    }

    async fn write<F: WireForm + Clone>(
        &self,
        path: &str,
        form: &F,
        needs: &'static str,
    ) -> Result<F, MeshError> {
        let stored: F = self.api.put(&self.path(path, &[]), needs, body(&form.clone().clean())).await?;
        Ok(stored.clean())
    }

    async fn remove(&self, path: &str, needs: &'static str) -> Result<bool, MeshError> {
        self.api.delete(&self.path(path, &[]), needs).await
    }

    /// All auth methods, without their `config`.
    pub async fn auth_methods(&self) -> Result<Vec<AuthMethod>, MeshError> {
        self.all("/v1/acl/auth-methods", &[], READS_ACLS).await
    }

    /// The auth method of this name.
    pub async fn auth_method(&self, name: &str) -> Result<Option<AuthMethod>, MeshError> {
        self.one(&format!("/v1/acl/auth-method/{}", segment(name)), READS_ACLS).await
    }

    /// Creates or replaces: there is no other way to write one, so read it right before.
    pub async fn put_auth_method(&self, method: &AuthMethod) -> Result<AuthMethod, MeshError> {
        self.write("/v1/acl/auth-method", method, WRITES_ACLS).await
    }

    /// Removes an auth method, **and all its tokens and binding rules**.
    pub async fn delete_auth_method_with_its_tokens(&self, name: &str) -> Result<bool, MeshError> {
        self.remove(&format!("/v1/acl/auth-method/{}", segment(name)), WRITES_ACLS).await
    }

    /// The binding rules of an auth method; none where there is no such method.
    pub async fn binding_rules(&self, method: &str) -> Result<Vec<BindingRule>, MeshError> {
        self.all("/v1/acl/binding-rules", &[("authmethod", method)], READS_ACLS).await
    }

    /// The binding rules of all auth methods.
    pub async fn all_binding_rules(&self) -> Result<Vec<BindingRule>, MeshError> {
        self.all("/v1/acl/binding-rules", &[], READS_ACLS).await
    }

    /// How many tokens the auth method has given out. None of them is kept.
    pub async fn tokens_of(&self, method: &str) -> Result<u64, MeshError> {
        let namespace = self.namespace.as_ref().map(|_| ALL_NAMESPACES);
        self.count(&self.scope.tokens_path(namespace, method), READS_ACLS, ListLocation::Whole).await
    }

    /// How many services are on a cluster's node. None of them is kept.
    pub async fn services_on(&self, cluster: &ClusterArn) -> Result<u64, MeshError> {
        let path = format!("/v1/catalog/node-services/{}", segment(cluster.as_str()));
        let namespace = self.scope.is_of_enterprise().then_some(ALL_NAMESPACES);
        self.count(&self.scope.path_in(namespace, &path, &[]), READS_SERVICES, ListLocation::Fields).await
    }

    /// The tokens that have the role or policy of this id, in all namespaces. None of them is kept.
    pub async fn holders(&self, of: TokenRefKind, id: &str) -> Result<TokenRefs, MeshError> {
        let query = [(of.word(), id)];
        let namespace = self.namespace.as_ref().map(|_| ALL_NAMESPACES);
        let path = self.scope.path_in(namespace, "/v1/acl/tokens", &query);
        let call = ConsulCall { method: HttpMethod::Get, path: &path, needs: READS_ACLS };
        let mut holders = TokenRefs::default();
        let mut each = |item: Result<&[u8], TooLarge>| {
            // One that cannot be read is somebody's all the same.
            let token =
                item.ok().and_then(|item| serde_json::from_slice::<TokenRef>(item).ok()).unwrap_or_default();
            holders.add(&token.accessor_id, &token.auth_method);
        };
        let _: serde::de::IgnoredAny = self.api.list(&call, ListLocation::Whole, &mut each).await?;
        Ok(holders)
    }

    async fn count(&self, path: &str, needs: &'static str, listed: ListLocation) -> Result<u64, MeshError> {
        let mut count = 0;
        let call = ConsulCall { method: HttpMethod::Get, path, needs };
        let _: serde::de::IgnoredAny = self.api.list(&call, listed, &mut |_| count += 1).await?;
        Ok(count)
    }

    /// The binding rule of this id.
    pub async fn binding_rule(&self, id: &str) -> Result<Option<BindingRule>, MeshError> {
        self.one(&format!("/v1/acl/binding-rule/{}", segment(id)), READS_ACLS).await
    }

    /// Creates one where `rule.id` is empty, and replaces that one otherwise. **Twice makes two**: after a failure of
    /// which it is not known whether it took effect, look before it is tried again.
    pub async fn put_binding_rule(&self, rule: &BindingRule) -> Result<BindingRule, MeshError> {
        self.write(&by_id("/v1/acl/binding-rule", &rule.id), rule, WRITES_ACLS).await
    }

    /// Removes a binding rule.
    pub async fn delete_binding_rule(&self, id: &str) -> Result<bool, MeshError> {
        self.remove(&format!("/v1/acl/binding-rule/{}", segment(id)), WRITES_ACLS).await
    }

    /// All policies, without their `rules`.
    pub async fn policies(&self) -> Result<Vec<AclPolicy>, MeshError> {
        self.all("/v1/acl/policies", &[], READS_ACLS).await
    }

    /// The policy of this name.
    pub async fn policy(&self, name: &str) -> Result<Option<AclPolicy>, MeshError> {
        self.one(&format!("/v1/acl/policy/name/{}", segment(name)), READS_ACLS).await
    }

    /// Creates one where `policy.id` is empty, and replaces that one otherwise. One that has the name already is an
    /// error of the kind `Invalid`.
    pub async fn put_policy(&self, policy: &AclPolicy) -> Result<AclPolicy, MeshError> {
        self.write(&by_id("/v1/acl/policy", &policy.id), policy, WRITES_ACLS).await
    }

    /// Removes a policy, and so takes it from all roles and tokens that have it.
    pub async fn delete_policy(&self, id: &str) -> Result<bool, MeshError> {
        self.remove(&format!("/v1/acl/policy/{}", segment(id)), WRITES_ACLS).await
    }

    /// All roles.
    pub async fn roles(&self) -> Result<Vec<AclRole>, MeshError> {
        self.all("/v1/acl/roles", &[], READS_ACLS).await
    }

    /// The role of this name.
    pub async fn role(&self, name: &str) -> Result<Option<AclRole>, MeshError> {
        self.one(&format!("/v1/acl/role/name/{}", segment(name)), READS_ACLS).await
    }

    /// Creates one where `role.id` is empty, and replaces that one otherwise. One that has the name already, and a
    /// policy that is missing, are errors of the kind `Invalid`.
    pub async fn put_role(&self, role: &AclRole) -> Result<AclRole, MeshError> {
        self.write(&by_id("/v1/acl/role", &role.id), role, WRITES_ACLS).await
    }

    /// Removes a role.
    pub async fn delete_role(&self, id: &str) -> Result<bool, MeshError> {
        self.remove(&format!("/v1/acl/role/{}", segment(id)), WRITES_ACLS).await
    }

    /// The anonymous token.
    pub async fn anonymous_token(&self) -> Result<Option<AnonymousToken>, MeshError> {
        self.one(&format!("/v1/acl/token/{ANONYMOUS_TOKEN}"), READS_ACLS).await
    }

    /// Replaces the anonymous token's description and policies.
    pub async fn put_anonymous_token(&self, token: &AnonymousToken) -> Result<AnonymousToken, MeshError> {
        self.write(&format!("/v1/acl/token/{ANONYMOUS_TOKEN}"), token, WRITES_ACLS).await
    }

    /// The nodes that stand for something else than an agent, bear an operator's mark, or have one of these names.
    pub async fn nodes_like(&self, names: &[&str]) -> Result<Vec<ClusterNode>, MeshError> {
        let marks = [SYNTHETIC_NODE, NODE_MARK].map(|mark| format!("\"{mark}\" in Meta"));
        let named = names.iter().map(|name| format!("Node == \"{name}\""));
        let filter = marks.into_iter().chain(named).collect::<Vec<_>>().join(" or ");
        let query = [("filter", filter.as_str())];
        // A URL has an end, and so many clusters are a part of the nodes that is worth it.
        let query = if names.len() <= MAX_NAMES_IN_FILTER { &query[..] } else { &[] };
        // Nodes are in no namespace.
        let path = self.scope.path("/v1/catalog/nodes", query);
        let found: Vec<ClusterNode> = self.api.get(&path, READS_NODES).await?;
        if found.is_empty() {
            // A token that may see nothing sees nothing.
            self.api.check_own_token_cached().await?;
        }
        Ok(found.into_iter().map(WireForm::clean).collect())
    }

    /// The node of a cluster. Its services are not asked for, which may be many.
    pub async fn node(&self, cluster: &ClusterArn) -> Result<Option<ClusterNode>, MeshError> {
        let filter = format!("Node == \"{cluster}\"");
        // Nodes are in no namespace.
        let path = self.scope.path("/v1/catalog/nodes", &[("filter", &filter)]);
        let found: Vec<ClusterNode> = self.api.get(&path, READS_NODES).await?;
        let found = found.into_iter().find(|node| node.node == cluster.as_str()).map(WireForm::clean);
        if found.is_none() {
            // A token that may see nothing sees nothing.
            self.api.check_own_token_cached().await?;
        }
        Ok(found)
    }

    /// Creates a node, or changes its address and metadata. Its services stay.
    pub async fn register_node(&self, node: &ClusterNode) -> Result<(), MeshError> {
        let mut request = json!({"Node": node.node, "Address": node.address, "NodeMeta": node.meta});
        for (name, value) in
            [("ID", node.other.get("ID")), ("TaggedAddresses", node.other.get("TaggedAddresses"))]
        {
            if let Some(value) = value.filter(|value| !value.is_null() && **value != "") {
                request[name] = value.clone();
            }
        }
        if let Some(partition) = self.scope.partition() {
            request["Partition"] = partition.into();
        }
        let path = self.scope.path("/v1/catalog/register", &[]);
        self.api.put::<bool>(&path, WRITES_NODES, body(&request)).await.map(|_| ())
    }

    /// Removes a node, **and all its services**. The servers do not say whether it was there.
    pub async fn deregister_node_with_its_services(&self, cluster: &ClusterArn) -> Result<(), MeshError> {
        let mut request = json!({"Node": cluster.as_str()});
        if let Some(partition) = self.scope.partition() {
            request["Partition"] = partition.into();
        }
        let path = self.scope.path("/v1/catalog/deregister", &[]);
        self.api.put::<bool>(&path, WRITES_NODES, body(&request)).await.map(|_| ())
    }

    /// Enterprise: all namespaces that the token may see.
    pub async fn namespaces(&self) -> Result<Vec<ConsulNamespace>, MeshError> {
        self.all("/v1/namespaces", &[], READS_NAMESPACES).await
    }

    /// Enterprise: the namespace of this name.
    pub async fn namespace(&self, name: &str) -> Result<Option<ConsulNamespace>, MeshError> {
        self.one(&format!("/v1/namespace/{}", segment(name)), READS_NAMESPACES).await
    }

    /// Enterprise: creates a namespace. One that has the name already is an error.
    pub async fn create_namespace(&self, namespace: &ConsulNamespace) -> Result<ConsulNamespace, MeshError> {
        self.write("/v1/namespace", namespace, WRITES_NAMESPACES).await
    }

    /// Enterprise: replaces a namespace's description, metadata and defaults.
    pub async fn update_namespace(&self, namespace: &ConsulNamespace) -> Result<ConsulNamespace, MeshError> {
        self.write(&format!("/v1/namespace/{}", segment(&namespace.name)), namespace, WRITES_NAMESPACES).await
    }
}

fn by_id(path: &str, id: &str) -> String {
    if id.is_empty() { path.to_owned() } else { format!("{path}/{}", segment(id)) }
}

fn body(form: &impl Serialize) -> Vec<u8> {
    // Forms are maps with texts for keys, which JSON can say.
    serde_json::to_vec(form).unwrap_or_default()
}
