//! Reads the state of Consul for diagnostics. Each read fails independently, and nothing is written.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::client::ConsulControlPlane;
use super::objects::AuthMethod;
use super::own_token::OwnToken;
use super::permissions::{AclPermission, AclPermissions};
use super::scope::ALL_NAMESPACES;
use super::segments::SegmentResults;
use super::services;
use super::tokens::LoginToken;
use super::version::ConsulVersion;
use ecs_mesh_control_plane::http::StreamTransport;
use ecs_mesh_control_plane::skipped_items::SkippedItems;
use ecs_mesh_control_plane::{MeshError, MeshErrorKind, Refusal, RegistrationSummary};
use ecs_mesh_model::{ClusterArn, TaskArn};

/// The scope of the diagnostics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DiagnosticsRequest {
    /// The clusters whose nodes and services are read.
    pub clusters: BTreeSet<ClusterArn>,
    /// The auth methods that are read, with their binding rules.
    pub methods: BTreeSet<Arc<str>>,
    /// The permissions that are checked. [`AclPermission::Services`] also checks each service that is found.
    pub permissions: BTreeSet<AclPermission>,
}

/// The diagnostics of Consul.
#[derive(Clone, Debug)]
pub struct ConsulDiagnostics {
    /// The version; `None` if the token may not read it.
    pub version: Result<Option<ConsulVersion>, MeshError>,
    /// The reads of reachable servers; `None` if the read of the version showed that there are none.
    pub probes: Option<ConsulProbes>,
}

/// The diagnostics of reachable servers.
#[derive(Clone, Debug)]
pub struct ConsulProbes {
    /// ACLs are disabled, so that all reads of ACL objects fail.
    pub acls_are_off: bool,
    /// The operator's own token. An error of the kind `Forbidden` if the servers do not know it or ACLs are disabled.
    pub own_token: Result<OwnToken, MeshError>,
    /// Whether each configured namespace exists.
    pub namespaces: BTreeMap<String, Result<bool, MeshError>>,
    /// The permissions of the operator's own token.
    pub permissions: Result<AclPermissions, MeshError>,
    /// The login tokens.
    pub tokens: Result<LoginTokenCounts, MeshError>,
    /// The auth methods, by name; `None` if there is none of this name.
    pub methods: BTreeMap<String, Result<Option<AuthMethod>, MeshError>>,
    /// The number of binding rules, by auth method.
    pub rules: BTreeMap<String, Result<usize, MeshError>>,
    /// The number of policies.
    pub policies: Result<usize, MeshError>,
    /// The number of roles.
    pub roles: Result<usize, MeshError>,
    /// The nodes and services of the clusters.
    pub clusters: BTreeMap<ClusterArn, ClusterNodeInfo>,
}

/// The numbers of login tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoginTokenCounts {
    /// Tokens of tasks in the clusters.
    pub of_tasks: usize,
    /// Tokens that name no task.
    pub unattributed: usize,
}

/// The node and services of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterNodeInfo {
    /// Whether the cluster has a node, without which its tasks cannot register.
    pub has_node: Result<bool, MeshError>,
    /// The number of its tasks' services.
    pub services: Result<usize, MeshError>,
}

impl<T: StreamTransport + 'static> ConsulControlPlane<T> {
    /// Reads everything that the setup depends on; writes nothing. Each read takes at most the connection's time limit.
    /// An unreachable server ends the diagnostics after the first read.
    pub async fn diagnose(&self, request: &DiagnosticsRequest) -> ConsulDiagnostics {
        let version = match self.load_version().await {
            Err(error)
                if matches!(error.kind, MeshErrorKind::Unreachable | MeshErrorKind::UnexpectedResponse) =>
            {
                return ConsulDiagnostics { version: Err(error), probes: None };
            }
            version => version,
        };
        let own_token = self.api.own_token().await;
        let mut namespaces = BTreeMap::new();
        for name in self.api.scope.namespaces().into_iter().flatten().filter(|name| **name != *ALL_NAMESPACES)
        {
            let namespace = self.objects().namespace(&name).await;
            namespaces.insert(name.to_string(), namespace.map(|namespace| namespace.is_some()));
        }
        let mut skipped = SkippedItems::default();
        let tokens = self.login_tokens(&request.clusters, &mut skipped).await;
        let objects = self.objects();
        let (mut methods, mut rules) = (BTreeMap::new(), BTreeMap::new());
        for method in &request.methods {
            methods.insert(method.to_string(), objects.auth_method(method).await);
            let of_method = objects.binding_rules(method).await;
            rules.insert(method.to_string(), of_method.map(|rules| rules.len()));
        }
        let policies = objects.policies().await.map(|policies| policies.len());
        let roles = objects.roles().await.map(|roles| roles.len());
        let (mut clusters, mut permissions) = (BTreeMap::new(), request.permissions.clone());
        for cluster in &request.clusters {
            let (info, services) = self.cluster_info(cluster, &mut skipped).await;
            clusters.insert(cluster.clone(), info);
            if request.permissions.contains(&AclPermission::Services) {
                permissions.extend(services.into_iter().map(AclPermission::Service));
            }
        }
        self.context.skipped_items.report(skipped, true);
        let acls_are_off =
            own_token.as_ref().is_err_and(|error| error.refusal == Some(Refusal::AclsDisabled));
        let permissions = match &own_token {
            // An unknown token has no permissions.
            Err(error) => Err(error.clone()),
            Ok(_) if permissions.is_empty() => Ok(AclPermissions::new()),
            Ok(_) => self.api.check_permissions(&permissions).await,
        };
        let probes = ConsulProbes {
            acls_are_off,
            own_token,
            namespaces,
            permissions,
            tokens,
            methods,
            rules,
            policies,
            roles,
            clusters,
        };
        ConsulDiagnostics { version, probes: Some(probes) }
    }

    async fn login_tokens(
        &self,
        clusters: &BTreeSet<ClusterArn>,
        skipped: &mut SkippedItems,
    ) -> Result<LoginTokenCounts, MeshError> {
        let (mut of_tasks, mut segments) = (0, SegmentResults::default());
        let mut sink = |task: Option<&TaskArn>, _: LoginToken| {
            of_tasks += usize::from(task.is_some_and(|task| clusters.contains(task.cluster())));
        };
        let unattributed =
            self.api.tokens(&self.context, "list_owned", skipped, &mut segments, &mut sink).await;
        segments.require_all().map(|()| LoginTokenCounts { of_tasks, unattributed })
    }

    /// Reads a cluster's node and services; also returns the names of the services.
    async fn cluster_info(
        &self,
        cluster: &ClusterArn,
        skipped: &mut SkippedItems,
    ) -> (ClusterNodeInfo, BTreeSet<Arc<str>>) {
        let has_node = self.objects().node(cluster).await.map(|node| node.is_some());
        let mut segments = SegmentResults::default();
        let (mut services, mut names) = (0, BTreeSet::new());
        let mut sink = |summary: RegistrationSummary| {
            services += 1;
            names.extend(summary.service);
        };
        services::of_cluster(&self.api, &self.context, cluster, skipped, &mut segments, &mut sink).await;
        (ClusterNodeInfo { has_node, services: segments.require_all().map(|()| services) }, names)
    }
}
