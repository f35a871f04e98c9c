//! What logins rest on, as Consul holds it: each question by itself, reads alone, and nothing of what tasks have made.

use std::collections::BTreeSet;

use super::client::ConsulControlPlane;
use super::errors;
use super::objects::{AclPolicy, AclRole, AuthMethod, BindingRule, ObjectLink, AclObjects};
use super::version::ConsulVersion;
use ecs_mesh_control_plane::http::StreamTransport;
use ecs_mesh_control_plane::{MeshError, MeshErrorKind};
use ecs_mesh_model::ClusterArn;

/// The objects that decide who may log in, and as what.
#[derive(Clone, Debug)]
pub struct AuthConfig {
    /// The version; `None` where the token may not see it.
    pub version: Result<Option<ConsulVersion>, MeshError>,
    /// Whether ACLs are on. Where they are off there are none of the next four.
    pub acls: Result<bool, MeshError>,
    /// All auth methods; those of type `aws-iam` with their `config`.
    pub methods: Result<Vec<AuthMethod>, MeshError>,
    /// The binding rules of all of them.
    pub rules: Result<Vec<BindingRule>, MeshError>,
    /// All roles.
    pub roles: Result<Vec<AclRole>, MeshError>,
    /// The policies of the anonymous token, those of its roles included, with their rules.
    pub anonymous: Result<Vec<AclPolicy>, MeshError>,
    /// Which of the clusters have their node.
    pub nodes: Result<BTreeSet<ClusterArn>, MeshError>,
}

impl<T: StreamTransport + 'static> ConsulControlPlane<T> {
    /// Reads it. Takes as long as the connection's time limit for each question.
    ///
    /// # Errors
    /// Where nobody answers, or somebody else than Consul.
    pub async fn read_auth_config(&self, clusters: &BTreeSet<ClusterArn>) -> Result<AuthConfig, MeshError> {
        let version = match self.load_version().await {
            Err(error) if matches!(error.kind, MeshErrorKind::Unreachable | MeshErrorKind::UnexpectedResponse) => {
                return Err(error);
            }
            said => said,
        };
        let objects = self.objects();
        let listed = objects.auth_methods().await;
        let acls = match &listed {
            Ok(_) => Ok(true),
            Err(error) if errors::is_acls_disabled(error) => Ok(false),
            Err(error) if error.kind == MeshErrorKind::Forbidden => Ok(true),
            Err(error) => Err(error.clone()),
        };
        let nodes = objects.nodes_of(clusters).await;
        if acls == Ok(false) {
            let (methods, rules, roles, anonymous) = (Ok(vec![]), Ok(vec![]), Ok(vec![]), Ok(vec![]));
            return Ok(AuthConfig { version, acls, methods, rules, roles, anonymous, nodes });
        }
        let methods = match listed {
            Ok(listed) => objects.whole(listed).await,
            Err(error) => Err(error),
        };
        let rules = objects.all_binding_rules().await;
        let roles = objects.roles().await;
        let anonymous = objects.anonymous_policies(&roles).await;
        Ok(AuthConfig { version, acls, methods, rules, roles, anonymous, nodes })
    }
}

impl<T: StreamTransport> AclObjects<T> {
    /// Those of type `aws-iam` whole: lists leave their configuration out.
    async fn whole(&self, listed: Vec<AuthMethod>) -> Result<Vec<AuthMethod>, MeshError> {
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
            let mine = all.iter().filter(|role| of_token.iter().any(|link| link.id == role.id));
            links.extend(mine.flat_map(|role| role.policies.iter().cloned()));
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
        let found = self.nodes_like(&names).await?;
        let is_there = |cluster: &&ClusterArn| found.iter().any(|node| node.node == cluster.as_str());
        Ok(clusters.iter().filter(is_there).cloned().collect())
    }
}
