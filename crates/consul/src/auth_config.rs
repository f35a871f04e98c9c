//! Reads the configuration that logins depend on. Each read fails independently, and nothing is written.

use std::collections::BTreeSet;

use super::client::ConsulControlPlane;
use super::objects::{AclObjects, AclPolicy, AclRole, AuthMethod, BindingRule, ObjectLink};
use super::version::ConsulVersion;
use ecs_mesh_control_plane::http::StreamTransport;
use ecs_mesh_control_plane::{MeshError, MeshErrorKind, Refusal};
use ecs_mesh_model::ClusterArn;

/// The objects that decide which principals may log in, and their permissions.
#[derive(Clone, Debug)]
pub struct AuthConfig {
    /// The version; `None` if the token may not read it.
    pub version: Result<Option<ConsulVersion>, MeshError>,
    /// Whether ACLs are enabled. If not, the next four are empty.
    pub acls: Result<bool, MeshError>,
    /// All auth methods; those of type `aws-iam` with their `config`.
    pub methods: Result<Vec<AuthMethod>, MeshError>,
    /// The binding rules of all auth methods.
    pub rules: Result<Vec<BindingRule>, MeshError>,
    /// All roles.
    pub roles: Result<Vec<AclRole>, MeshError>,
    /// The policies of the anonymous token, including those of its roles, with their rules.
    pub anonymous: Result<Vec<AclPolicy>, MeshError>,
    /// The clusters that have a node.
    pub nodes: Result<BTreeSet<ClusterArn>, MeshError>,
}

impl<T: StreamTransport + 'static> ConsulControlPlane<T> {
    /// Reads the configuration. Each read takes at most the connection's time limit.
    ///
    /// # Errors
    /// If the servers are unreachable or not Consul's.
    pub async fn read_auth_config(&self, clusters: &BTreeSet<ClusterArn>) -> Result<AuthConfig, MeshError> {
        let version = match self.load_version().await {
            Err(error)
                if matches!(error.kind, MeshErrorKind::Unreachable | MeshErrorKind::UnexpectedResponse) =>
            {
                return Err(error);
            }
            version => version,
        };
        let objects = self.objects();
        let listed = objects.auth_methods().await;
        let acls = match &listed {
            Ok(_) => Ok(true),
            Err(error) if error.refusal == Some(Refusal::AclsDisabled) => Ok(false),
            Err(error) if error.kind == MeshErrorKind::Forbidden => Ok(true),
            Err(error) => Err(error.clone()),
        };
        let nodes = objects.nodes_of(clusters).await;
        if acls == Ok(false) {
            let (methods, rules, roles, anonymous) = (Ok(vec![]), Ok(vec![]), Ok(vec![]), Ok(vec![]));
            return Ok(AuthConfig { version, acls, methods, rules, roles, anonymous, nodes });
        }
        let methods = match listed {
            Ok(listed) => objects.with_config(listed).await,
            Err(error) => Err(error),
        };
        let rules = objects.all_binding_rules().await;
        let roles = objects.roles().await;
        let anonymous = objects.anonymous_policies(&roles).await;
        Ok(AuthConfig { version, acls, methods, rules, roles, anonymous, nodes })
    }
}

impl<T: StreamTransport> AclObjects<T> {
    /// Adds the `config` of methods of type `aws-iam`, which lists omit.
    async fn with_config(&self, listed: Vec<AuthMethod>) -> Result<Vec<AuthMethod>, MeshError> {
        let mut methods = Vec::new();
        for method in listed {
            if method.kind == "aws-iam" {
                methods.extend(self.auth_method(&method.name).await?);
            } else {
                methods.push(method);
            }
        }
        Ok(methods)
    }

    async fn anonymous_policies(
        &self,
        roles: &Result<Vec<AclRole>, MeshError>,
    ) -> Result<Vec<AclPolicy>, MeshError> {
        let Some(token) = self.anonymous_token().await? else { return Ok(Vec::new()) };
        let of_token = token.roles();
        let mut links: BTreeSet<ObjectLink> = token.policies.into_iter().collect();
        if !of_token.is_empty() {
            let all = roles.as_ref().map_err(Clone::clone)?;
            let linked = all.iter().filter(|role| of_token.iter().any(|link| link.id == role.id));
            links.extend(linked.flat_map(|role| role.policies.iter().cloned()));
        }
        let mut policies = Vec::new();
        for link in links {
            policies.extend(self.policy(&link.name).await?);
        }
        Ok(policies)
    }

    async fn nodes_of(&self, clusters: &BTreeSet<ClusterArn>) -> Result<BTreeSet<ClusterArn>, MeshError> {
        if clusters.is_empty() {
            return Ok(BTreeSet::new());
        }
        let names: Vec<&str> = clusters.iter().map(ClusterArn::as_str).collect();
        let nodes = self.nodes_like(&names).await?;
        let has_node = |cluster: &&ClusterArn| nodes.iter().any(|node| node.node == cluster.as_str());
        Ok(clusters.iter().filter(has_node).cloned().collect())
    }
}
