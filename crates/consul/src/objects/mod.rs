//! Reads and writes the ACL objects and nodes that logins need. An object is reported as missing (`None`, or `false` for
//! a removal) only while the operator's own token is known to be valid.

mod token_refs;
mod types;

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::json;

pub(super) use types::nullable;
pub use types::{
    AclPolicy, AclRole, AnonymousToken, AuthMethod, BindingRule, ClusterNode, ConsulNamespace, NamespaceAcls,
    ObjectLink,
};

pub use token_refs::TokenRefs;

use types::WireObject;

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

/// The accessor id of the token of requests without a token; equal in every Consul.
pub const ANONYMOUS_TOKEN: &str = "00000000-0000-0000-0000-000000000002";
/// The node metadata that marks a node without an agent.
pub const SYNTHETIC_NODE: &str = "synthetic-node";
/// The node metadata with the id of the operator that owns the node.
pub const NODE_MARK: &str = "ecs-mesh-operator";
/// The node metadata with the process of the operator that wrote the node last.
pub const NODE_WRITER: &str = "ecs-mesh-process";

/// The maximum number of node names in a filter.
const MAX_NAMES_IN_FILTER: usize = 64;

/// The objects of one namespace, or of an edition without namespaces.
pub struct AclObjects<T> {
    api: Arc<ConsulApi<T>>,
    scope: ConsulScope,
    namespace: Option<Arc<str>>,
}

/// The kind of object that tokens refer to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenRefKind {
    /// A role.
    Role,
    /// A policy, directly and not through a role.
    Policy,
}

impl TokenRefKind {
    /// The name in queries and binding rules.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Role => "role",
            Self::Policy => "policy",
        }
    }
}

/// The fields of a token that [`TokenRefs`] uses.
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

    /// The objects of this namespace. Enterprise only.
    #[must_use]
    pub fn in_namespace(&self, namespace: &str) -> Self {
        Self { namespace: Some(namespace.into()), ..self.clone() }
    }

    /// The objects of this partition. Enterprise only.
    #[must_use]
    pub fn in_partition(&self, partition: &str) -> Self {
        Self { scope: self.scope.in_partition(partition), ..self.clone() }
    }

    fn path(&self, path: &str, query: &[(&str, &str)]) -> String {
        self.scope.path_in(self.namespace.as_deref(), path, query)
    }

    async fn get<O: WireObject>(&self, path: &str, needs: &'static str) -> Result<Option<O>, MeshError> {
        let object: Option<O> = self.api.get_optional(&self.path(path, &[]), needs).await?;
        Ok(object.map(WireObject::without_server_fields))
    }

    async fn list<O: WireObject>(
        &self,
        path: &str,
        query: &[(&str, &str)],
        needs: &'static str,
    ) -> Result<Vec<O>, MeshError> {
        let objects: Vec<O> = self.api.get(&self.path(path, query), needs).await?;
        Ok(objects.into_iter().map(WireObject::without_server_fields).collect())
    }

    async fn write<O: WireObject + Clone>(
        &self,
        path: &str,
        object: &O,
        needs: &'static str,
    ) -> Result<O, MeshError> {
        let sent = object.clone().without_server_fields();
        let stored: O = self.api.put(&self.path(path, &[]), needs, body(&sent)).await?;
        Ok(stored.without_server_fields())
    }

    async fn remove(&self, path: &str, needs: &'static str) -> Result<bool, MeshError> {
        self.api.delete(&self.path(path, &[]), needs).await
    }

    /// All auth methods, without their `config`.
    pub async fn auth_methods(&self) -> Result<Vec<AuthMethod>, MeshError> {
        self.list("/v1/acl/auth-methods", &[], READS_ACLS).await
    }

    /// The auth method of this name.
    pub async fn auth_method(&self, name: &str) -> Result<Option<AuthMethod>, MeshError> {
        self.get(&format!("/v1/acl/auth-method/{}", segment(name)), READS_ACLS).await
    }

    /// Creates or replaces an auth method. The API has no conditional write, so read the method right before.
    pub async fn put_auth_method(&self, method: &AuthMethod) -> Result<AuthMethod, MeshError> {
        self.write("/v1/acl/auth-method", method, WRITES_ACLS).await
    }

    /// Removes an auth method **and all its tokens and binding rules**.
    pub async fn delete_auth_method_with_its_tokens(&self, name: &str) -> Result<bool, MeshError> {
        self.remove(&format!("/v1/acl/auth-method/{}", segment(name)), WRITES_ACLS).await
    }

    /// The binding rules of an auth method; empty if there is no such method.
    pub async fn binding_rules(&self, method: &str) -> Result<Vec<BindingRule>, MeshError> {
        self.list("/v1/acl/binding-rules", &[("authmethod", method)], READS_ACLS).await
    }

    /// The binding rules of all auth methods.
    pub async fn all_binding_rules(&self) -> Result<Vec<BindingRule>, MeshError> {
        self.list("/v1/acl/binding-rules", &[], READS_ACLS).await
    }

    /// Counts the tokens of an auth method without keeping them.
    pub async fn tokens_of(&self, method: &str) -> Result<u64, MeshError> {
        let namespace = self.namespace.as_ref().map(|_| ALL_NAMESPACES);
        self.count(&self.scope.tokens_path(namespace, method), READS_ACLS, ListLocation::Root).await
    }

    /// Counts the services on a cluster's node without keeping them.
    pub async fn services_on(&self, cluster: &ClusterArn) -> Result<u64, MeshError> {
        let path = format!("/v1/catalog/node-services/{}", segment(cluster.as_str()));
        let namespace = self.scope.is_of_enterprise().then_some(ALL_NAMESPACES);
        self.count(&self.scope.path_in(namespace, &path, &[]), READS_SERVICES, ListLocation::Fields).await
    }

    /// Counts the tokens that refer to a role or policy, in all namespaces, without keeping them.
    pub async fn token_refs(&self, kind: TokenRefKind, id: &str) -> Result<TokenRefs, MeshError> {
        let query = [(kind.as_str(), id)];
        let namespace = self.namespace.as_ref().map(|_| ALL_NAMESPACES);
        let path = self.scope.path_in(namespace, "/v1/acl/tokens", &query);
        let call = ConsulCall { method: HttpMethod::Get, path: &path, needs: READS_ACLS };
        let mut refs = TokenRefs::default();
        let mut on_item = |item: Result<&[u8], TooLarge>| {
            // An unreadable token counts as one that was created manually.
            let token =
                item.ok().and_then(|item| serde_json::from_slice::<TokenRef>(item).ok()).unwrap_or_default();
            refs.add(&token.accessor_id, &token.auth_method);
        };
        let _: serde::de::IgnoredAny = self.api.list(&call, ListLocation::Root, &mut on_item).await?;
        Ok(refs)
    }

    async fn count(&self, path: &str, needs: &'static str, location: ListLocation) -> Result<u64, MeshError> {
        let mut count = 0;
        let call = ConsulCall { method: HttpMethod::Get, path, needs };
        let _: serde::de::IgnoredAny = self.api.list(&call, location, &mut |_| count += 1).await?;
        Ok(count)
    }

    /// The binding rule of this id.
    pub async fn binding_rule(&self, id: &str) -> Result<Option<BindingRule>, MeshError> {
        self.get(&format!("/v1/acl/binding-rule/{}", segment(id)), READS_ACLS).await
    }

    /// Creates a binding rule if `rule.id` is empty, and replaces the rule of this id otherwise. **A repeated create adds
    /// a second rule**: after a failure with unknown outcome, list the rules before the next attempt.
    pub async fn put_binding_rule(&self, rule: &BindingRule) -> Result<BindingRule, MeshError> {
        self.write(&by_id("/v1/acl/binding-rule", &rule.id), rule, WRITES_ACLS).await
    }

    /// Removes a binding rule.
    pub async fn delete_binding_rule(&self, id: &str) -> Result<bool, MeshError> {
        self.remove(&format!("/v1/acl/binding-rule/{}", segment(id)), WRITES_ACLS).await
    }

    /// All policies, without their `rules`.
    pub async fn policies(&self) -> Result<Vec<AclPolicy>, MeshError> {
        self.list("/v1/acl/policies", &[], READS_ACLS).await
    }

    /// The policy of this name.
    pub async fn policy(&self, name: &str) -> Result<Option<AclPolicy>, MeshError> {
        self.get(&format!("/v1/acl/policy/name/{}", segment(name)), READS_ACLS).await
    }

    /// Creates a policy if `policy.id` is empty, and replaces the policy of this id otherwise.
    ///
    /// # Errors
    /// Of the kind `Invalid` if another policy has the name.
    pub async fn put_policy(&self, policy: &AclPolicy) -> Result<AclPolicy, MeshError> {
        self.write(&by_id("/v1/acl/policy", &policy.id), policy, WRITES_ACLS).await
    }

    /// Removes a policy, which also removes it from all roles and tokens.
    pub async fn delete_policy(&self, id: &str) -> Result<bool, MeshError> {
        self.remove(&format!("/v1/acl/policy/{}", segment(id)), WRITES_ACLS).await
    }

    /// All roles.
    pub async fn roles(&self) -> Result<Vec<AclRole>, MeshError> {
        self.list("/v1/acl/roles", &[], READS_ACLS).await
    }

    /// The role of this name.
    pub async fn role(&self, name: &str) -> Result<Option<AclRole>, MeshError> {
        self.get(&format!("/v1/acl/role/name/{}", segment(name)), READS_ACLS).await
    }

    /// Creates a role if `role.id` is empty, and replaces the role of this id otherwise.
    ///
    /// # Errors
    /// Of the kind `Invalid` if another role has the name or a policy does not exist.
    pub async fn put_role(&self, role: &AclRole) -> Result<AclRole, MeshError> {
        self.write(&by_id("/v1/acl/role", &role.id), role, WRITES_ACLS).await
    }

    /// Removes a role.
    pub async fn delete_role(&self, id: &str) -> Result<bool, MeshError> {
        self.remove(&format!("/v1/acl/role/{}", segment(id)), WRITES_ACLS).await
    }

    /// The anonymous token.
    pub async fn anonymous_token(&self) -> Result<Option<AnonymousToken>, MeshError> {
        self.get(&format!("/v1/acl/token/{ANONYMOUS_TOKEN}"), READS_ACLS).await
    }

    /// Replaces the anonymous token's description and policies.
    pub async fn put_anonymous_token(&self, token: &AnonymousToken) -> Result<AnonymousToken, MeshError> {
        self.write(&format!("/v1/acl/token/{ANONYMOUS_TOKEN}"), token, WRITES_ACLS).await
    }

    /// Lists the nodes without an agent, the nodes with an operator's ownership marker, and the nodes of these names.
    pub async fn nodes_like(&self, names: &[&str]) -> Result<Vec<ClusterNode>, MeshError> {
        let marks = [SYNTHETIC_NODE, NODE_MARK].map(|mark| format!("\"{mark}\" in Meta"));
        let named = names.iter().map(|name| format!("Node == \"{name}\""));
        let filter = marks.into_iter().chain(named).collect::<Vec<_>>().join(" or ");
        let query = [("filter", filter.as_str())];
        // A filter of many names exceeds the URL's limit; listing all nodes is acceptable then.
        let query = if names.len() <= MAX_NAMES_IN_FILTER { &query[..] } else { &[] };
        // Nodes are in no namespace.
        let path = self.scope.path("/v1/catalog/nodes", query);
        let nodes: Vec<ClusterNode> = self.api.get(&path, READS_NODES).await?;
        if nodes.is_empty() {
            // A server that does not know the own token returns an empty list.
            self.api.check_own_token_cached().await?;
        }
        Ok(nodes.into_iter().map(WireObject::without_server_fields).collect())
    }

    /// The node of a cluster, without its services, which may be many.
    pub async fn node(&self, cluster: &ClusterArn) -> Result<Option<ClusterNode>, MeshError> {
        let filter = format!("Node == \"{cluster}\"");
        // Nodes are in no namespace.
        let path = self.scope.path("/v1/catalog/nodes", &[("filter", &filter)]);
        let nodes: Vec<ClusterNode> = self.api.get(&path, READS_NODES).await?;
        let node = nodes.into_iter().find(|node| node.node == cluster.as_str());
        if node.is_none() {
            // A server that does not know the own token returns an empty list.
            self.api.check_own_token_cached().await?;
        }
        Ok(node.map(WireObject::without_server_fields))
    }

    /// Creates a node, or changes its address and metadata. Existing services are kept.
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

    /// Removes a node **and all its services**. The response does not show whether the node existed.
    pub async fn deregister_node_with_its_services(&self, cluster: &ClusterArn) -> Result<(), MeshError> {
        let mut request = json!({"Node": cluster.as_str()});
        if let Some(partition) = self.scope.partition() {
            request["Partition"] = partition.into();
        }
        let path = self.scope.path("/v1/catalog/deregister", &[]);
        self.api.put::<bool>(&path, WRITES_NODES, body(&request)).await.map(|_| ())
    }

    /// Enterprise: all namespaces that the token may read.
    pub async fn namespaces(&self) -> Result<Vec<ConsulNamespace>, MeshError> {
        self.list("/v1/namespaces", &[], READS_NAMESPACES).await
    }

    /// Enterprise: the namespace of this name.
    pub async fn namespace(&self, name: &str) -> Result<Option<ConsulNamespace>, MeshError> {
        self.get(&format!("/v1/namespace/{}", segment(name)), READS_NAMESPACES).await
    }

    /// Enterprise: creates a namespace.
    ///
    /// # Errors
    /// If a namespace has the name.
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

fn body(object: &impl Serialize) -> Vec<u8> {
    // Objects are maps with string keys, which always serialise.
    serde_json::to_vec(object).unwrap_or_default()
}
