//! A look at Consul as a person who sets it up would take it: each question by itself, reads alone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::client::ConsulControlPlane;
use super::errors;
use super::objects::AuthMethod;
use super::own_token::OwnToken;
use super::segments::SegmentResults;
use super::permissions::{AclPermission, AclPermissions};
use super::scope::ALL_NAMESPACES;
use super::services;
use super::tokens::LoginToken;
use super::version::ConsulVersion;
use ecs_mesh_control_plane::http::StreamTransport;
use ecs_mesh_control_plane::skipped_items::SkippedItems;
use ecs_mesh_control_plane::{MeshError, MeshErrorKind, RegistrationSummary};
use ecs_mesh_model::{ClusterArn, TaskArn};

/// What a survey asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DiagnosticsRequest {
    /// What there is of these clusters.
    pub clusters: BTreeSet<ClusterArn>,
    /// Whether there are auth methods of these names, with binding rules.
    pub methods: BTreeSet<Arc<str>>,
    /// Whether our own token has these rights, and for services of any name those of each service that is found.
    pub rights: BTreeSet<AclPermission>,
}

/// What Consul says of itself.
#[derive(Clone, Debug)]
pub struct ConsulDiagnostics {
    /// The version; `None` where there are Consul's servers, and the token may not see which.
    pub version: Result<Option<ConsulVersion>, MeshError>,
    /// What is asked only of servers that answer; `None` where the version already said that there are none.
    pub probes: Option<ConsulProbes>,
}

/// What servers that can be reached say.
#[derive(Clone, Debug)]
pub struct ConsulProbes {
    /// ACLs are off, so that everything about them fails.
    pub acls_are_off: bool,
    /// Our own token. An error of the kind `Forbidden` where it is not known there, or where ACLs are off.
    pub own_token: Result<OwnToken, MeshError>,
    /// Whether there is a namespace of each name that is given.
    pub namespaces: BTreeMap<String, Result<bool, MeshError>>,
    /// Which of the rights our own token has.
    pub rights: Result<AclPermissions, MeshError>,
    /// The tokens of logins.
    pub tokens: Result<LoginTokenCounts, MeshError>,
    /// The auth methods, by name; `None` where there is none of the name.
    pub methods: BTreeMap<String, Result<Option<AuthMethod>, MeshError>>,
    /// How many binding rules those have, by method.
    pub rules: BTreeMap<String, Result<usize, MeshError>>,
    /// How many policies there are.
    pub policies: Result<usize, MeshError>,
    /// How many roles there are.
    pub roles: Result<usize, MeshError>,
    /// What there is of the clusters.
    pub clusters: BTreeMap<ClusterArn, ClusterNodeInfo>,
}

/// How many tokens of logins there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoginTokenCounts {
    /// Of tasks of the clusters.
    pub of_tasks: usize,
    /// Of no task that they would name.
    pub unattributed: usize,
}

/// What there is of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterNodeInfo {
    /// Whether there is a node of its name, without which no task of it can register.
    pub has_node: Result<bool, MeshError>,
    /// How many services its tasks have.
    pub services: Result<usize, MeshError>,
}

impl<T: StreamTransport + 'static> ConsulControlPlane<T> {
    /// Asks everything that a set-up needs; writes nothing. Takes as long as the connection's time limit for each
    /// question, and one question only where nobody answers.
    pub async fn diagnose(&self, asked: &DiagnosticsRequest) -> ConsulDiagnostics {
        let version = match self.load_version().await {
            Err(error) if matches!(error.kind, MeshErrorKind::Unreachable | MeshErrorKind::UnexpectedResponse) => {
                return ConsulDiagnostics { version: Err(error), probes: None };
            }
            said => said,
        };
        let own_token = self.api.own_token().await;
        let mut namespaces = BTreeMap::new();
        for name in self.api.scope.namespaces().into_iter().flatten().filter(|name| **name != *ALL_NAMESPACES)
        {
            let found = self.objects().namespace(&name).await;
            namespaces.insert(name.to_string(), found.map(|found| found.is_some()));
        }
        let mut skipped_items = SkippedItems::default();
        let tokens = self.login_tokens(&asked.clusters, &mut skipped_items).await;
        let objects = self.objects();
        let (mut methods, mut rules) = (BTreeMap::new(), BTreeMap::new());
        for method in &asked.methods {
            methods.insert(method.to_string(), objects.auth_method(method).await);
            let found = objects.binding_rules(method).await;
            rules.insert(method.to_string(), found.map(|rules| rules.len()));
        }
        let policies = objects.policies().await.map(|policies| policies.len());
        let roles = objects.roles().await.map(|roles| roles.len());
        let (mut clusters, mut rights) = (BTreeMap::new(), asked.rights.clone());
        for cluster in &asked.clusters {
            let (found, services) = self.cluster_info(cluster, &mut skipped_items).await;
            clusters.insert(cluster.clone(), found);
            if asked.rights.contains(&AclPermission::Services) {
                rights.extend(services.into_iter().map(AclPermission::Service));
            }
        }
        self.context.skipped_items.report(skipped_items, true);
        let acls_are_off = own_token.as_ref().is_err_and(errors::is_acls_disabled);
        let rights = match &own_token {
            // Who is not known has none.
            Err(error) => Err(error.clone()),
            Ok(_) if rights.is_empty() => Ok(AclPermissions::new()),
            Ok(_) => self.api.rights(&rights).await,
        };
        let answers = ConsulProbes {
            acls_are_off,
            own_token,
            namespaces,
            rights,
            tokens,
            methods,
            rules,
            policies,
            roles,
            clusters,
        };
        ConsulDiagnostics { version, probes: Some(answers) }
    }

    async fn login_tokens(
        &self,
        clusters: &BTreeSet<ClusterArn>,
        skipped_items: &mut SkippedItems,
    ) -> Result<LoginTokenCounts, MeshError> {
        let (mut of_tasks, mut parts) = (0, SegmentResults::default());
        let mut take = |task: Option<&TaskArn>, _: LoginToken| {
            of_tasks += usize::from(task.is_some_and(|task| clusters.contains(task.cluster())));
        };
        let unattributed = self.api.tokens(&self.context, "list_owned", skipped_items, &mut parts, &mut take).await;
        parts.require_all().map(|()| LoginTokenCounts { of_tasks, unattributed })
    }

    /// Also the names of its tasks' services.
    async fn cluster_info(&self, cluster: &ClusterArn, skipped_items: &mut SkippedItems) -> (ClusterNodeInfo, BTreeSet<Arc<str>>) {
        let has_node = self.objects().node(cluster).await.map(|node| node.is_some());
        let mut parts = SegmentResults::default();
        let (mut services, mut names) = (0, BTreeSet::new());
        let mut take = |seen: RegistrationSummary| {
            services += 1;
            names.extend(seen.service);
        };
        services::of_cluster(&self.api, &self.context, cluster, skipped_items, &mut parts, &mut take).await;
        (ClusterNodeInfo { has_node, services: parts.require_all().map(|()| services) }, names)
    }
}
