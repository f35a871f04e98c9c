//! Checks the permissions of the operator's own token without trying a write.
//!
//! The call is the one that Consul's own UI uses to decide which buttons to show. Every supported release has it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};

use super::api::ConsulApi;
use super::errors::{self, ConsulCall};
use super::scope::{ALL_NAMESPACES, HOME_NAMESPACE};
use ecs_mesh_control_plane::http::{HttpMethod, StreamTransport};
use ecs_mesh_control_plane::{MeshError, MeshErrorKind};

/// The maximum number of checks in one call.
const MAX_CHECKS_PER_CALL: usize = 64;

/// A write permission. Read permissions are checked by reading.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AclPermission {
    /// Tokens, policies, roles, auth methods and binding rules.
    Acls,
    /// The default permissions of a namespace. (Enterprise.)
    Operator,
    /// Services of any name.
    Services,
    /// Services of this name.
    Service(Arc<str>),
    /// The node of this name.
    Node(Arc<str>),
    /// All nodes with this name prefix.
    Nodes(Arc<str>),
}

/// The checked permissions, and whether the token has each.
pub type AclPermissions = BTreeMap<AclPermission, bool>;

impl AclPermission {
    fn resource(&self) -> &'static str {
        match self {
            Self::Acls => "acl",
            Self::Operator => "operator",
            Self::Services | Self::Service(_) => "service",
            Self::Node(_) | Self::Nodes(_) => "node",
        }
    }

    /// The name to check. Only a rule for all names decides about the empty name.
    fn segment(&self) -> Option<&str> {
        match self {
            Self::Acls | Self::Operator => None,
            Self::Services => Some(""),
            Self::Service(name) | Self::Node(name) | Self::Nodes(name) => Some(name),
        }
    }

    /// Whether Enterprise keeps the resource in namespaces; the others are in partitions.
    fn is_namespaced(&self) -> bool {
        matches!(self, Self::Acls | Self::Services | Self::Service(_))
    }
}

/// Writes the rule that grants the permission, as in a policy. Names are quoted and escaped, since other parties choose
/// them and users paste the rule.
impl fmt::Display for AclPermission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Acls => f.write_str("acl = \"write\""),
            Self::Operator => f.write_str("operator = \"write\""),
            Self::Services => f.write_str("service_prefix \"\" { policy = \"write\" }"),
            Self::Service(name) => write!(f, "service {name:?} {{ policy = \"write\" }}"),
            Self::Node(name) => write!(f, "node {name:?} {{ policy = \"write\" }}"),
            Self::Nodes(prefix) => write!(f, "node_prefix {prefix:?} {{ policy = \"write\" }}"),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct AuthorizeResult {
    resource: String,
    allow: bool,
}

impl<T: StreamTransport> ConsulApi<T> {
    /// Checks which permissions the own token has; in Enterprise, whether it has each in every configured namespace.
    pub(super) async fn check_permissions(
        &self,
        requested: &BTreeSet<AclPermission>,
    ) -> Result<AclPermissions, MeshError> {
        let checks: Vec<(&AclPermission, Value)> = requested
            .iter()
            .flat_map(|permission| self.checks(permission).into_iter().map(move |check| (permission, check)))
            .collect();
        let mut permissions: AclPermissions =
            requested.iter().map(|permission| (permission.clone(), true)).collect();
        for checks in checks.chunks(MAX_CHECKS_PER_CALL) {
            for ((permission, _), allowed) in checks.iter().zip(self.authorize(checks).await?) {
                if !allowed {
                    permissions.insert((*permission).clone(), false);
                }
            }
        }
        Ok(permissions)
    }

    fn checks(&self, permission: &AclPermission) -> Vec<Value> {
        let mut check = json!({"Resource": permission.resource(), "Access": "write"});
        if let Some(segment) = permission.segment() {
            check["Segment"] = segment.into();
        }
        // The open-source edition rejects a check with a partition or a namespace.
        if let Some(partition) = self.scope.partition() {
            check["Partition"] = partition.into();
        }
        let namespaces = if permission.is_namespaced() { self.scope.namespaces() } else { vec![None] };
        let in_namespace = |namespace: Option<Arc<str>>| {
            let mut check = check.clone();
            if let Some(name) = namespace {
                // A check names one namespace; the home namespace stands for all.
                check["Namespace"] = if *name == *ALL_NAMESPACES { HOME_NAMESPACE } else { &*name }.into();
            }
            check
        };
        namespaces.into_iter().map(in_namespace).collect()
    }

    async fn authorize(&self, checks: &[(&AclPermission, Value)]) -> Result<Vec<bool>, MeshError> {
        let path = self.scope.datacenter_path("/v1/internal/acl/authorize");
        let call = ConsulCall { method: HttpMethod::Post, path: &path, needs: "no permission" };
        let body: Value = checks.iter().map(|(_, check)| check.clone()).collect();
        let reply = self.send(&call, Some(body.to_string().into_bytes())).await?;
        let results: Vec<AuthorizeResult> = call.read(&reply)?;
        let match_checks = results.len() == checks.len()
            && results
                .iter()
                .zip(checks)
                .all(|(result, (permission, _))| result.resource == permission.resource());
        if !match_checks {
            let message = format!("{call}: the response does not match the requested checks");
            return Err(errors::error(MeshErrorKind::UnexpectedResponse, message));
        }
        Ok(results.into_iter().map(|result| result.allow).collect())
    }
}
