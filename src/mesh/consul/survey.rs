//! A look at Consul as a person who sets it up would take it: each question by itself, reads alone.

use std::collections::{BTreeMap, BTreeSet};

use super::client::ConsulControlPlane;
use super::errors;
use super::objects::AuthMethod;
use super::own_token::OwnToken;
use super::parts::Parts;
use super::scope::ALL_NAMESPACES;
use super::services;
use super::tokens;
use super::version::ConsulVersion;
use crate::mesh::http::StreamTransport;
use crate::mesh::left_out::Pass;
use crate::mesh::{MeshError, MeshErrorKind};
use crate::model::ClusterArn;

/// What Consul says of itself.
#[derive(Clone, Debug)]
pub struct Survey {
    /// The version; `None` where there are Consul's servers, and the token may not see which.
    pub version: Result<Option<ConsulVersion>, MeshError>,
    /// What is asked only of servers that answer; `None` where the version already said that there are none.
    pub answers: Option<Answers>,
}

/// What servers that can be reached say.
#[derive(Clone, Debug)]
pub struct Answers {
    /// ACLs are off, so that everything about them fails.
    pub acls_are_off: bool,
    /// Our own token. An error of the kind `Forbidden` where it is not known there, or where ACLs are off.
    pub own_token: Result<OwnToken, MeshError>,
    /// Whether there is a namespace of each name that is given.
    pub namespaces: BTreeMap<String, Result<bool, MeshError>>,
    /// How many tokens of logins name a task of these clusters.
    pub tokens: Result<usize, MeshError>,
    /// The auth methods that are looked after, by name; `None` where there is none of the name.
    pub methods: BTreeMap<String, Result<Option<AuthMethod>, MeshError>>,
    /// How many binding rules those have, by method.
    pub rules: BTreeMap<String, Result<usize, MeshError>>,
    /// How many policies there are.
    pub policies: Result<usize, MeshError>,
    /// How many roles there are.
    pub roles: Result<usize, MeshError>,
    /// What there is of the clusters.
    pub clusters: BTreeMap<ClusterArn, OfCluster>,
}

/// What there is of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfCluster {
    /// Whether there is a node of its name, without which no task of it can register.
    pub has_node: Result<bool, MeshError>,
    /// How many services its tasks have.
    pub services: Result<usize, MeshError>,
}

impl<T: StreamTransport + 'static> ConsulControlPlane<T> {
    /// Asks everything that a set-up needs; writes nothing. Takes as long as the connection's time limit for each
    /// question, and one question only where nobody answers.
    pub async fn survey(&self, clusters: &BTreeSet<ClusterArn>) -> Survey {
        let version = self.learn_version().await;
        if let Err(error) = &version
            && matches!(error.kind, MeshErrorKind::Unreachable | MeshErrorKind::Unexpected)
        {
            return Survey { version, answers: None };
        }
        let own_token = self.api.own_token().await;
        let mut namespaces = BTreeMap::new();
        for name in self.api.scope.namespaces().into_iter().flatten().filter(|name| **name != *ALL_NAMESPACES)
        {
            let found = self.objects().namespace(&name).await;
            namespaces.insert(name.to_string(), found.map(|found| found.is_some()));
        }
        let mut left_out = Pass::default();
        let mut parts = Parts::default();
        let mut tokens = 0;
        let mut count = |_| tokens += 1;
        tokens::of_clusters(&self.api, &self.taken, clusters, &mut left_out, &mut parts, &mut count).await;
        let tokens = parts.all().map(|()| tokens);
        let objects = self.objects();
        let (mut methods, mut rules) = (BTreeMap::new(), BTreeMap::new());
        for method in self.taken.methods.load().iter() {
            methods.insert(method.to_string(), objects.auth_method(method).await);
            let found = objects.binding_rules(method).await;
            rules.insert(method.to_string(), found.map(|rules| rules.len()));
        }
        let policies = objects.policies().await.map(|policies| policies.len());
        let roles = objects.roles().await.map(|roles| roles.len());
        let mut of_clusters = BTreeMap::new();
        for cluster in clusters {
            of_clusters.insert(cluster.clone(), self.look_at(cluster, &mut left_out).await);
        }
        self.taken.left_out.tell(left_out, true);
        let acls_are_off = own_token.as_ref().is_err_and(errors::says_acls_are_off);
        let answers = Answers {
            acls_are_off,
            own_token,
            namespaces,
            tokens,
            methods,
            rules,
            policies,
            roles,
            clusters: of_clusters,
        };
        Survey { version, answers: Some(answers) }
    }

    async fn look_at(&self, cluster: &ClusterArn, left_out: &mut Pass) -> OfCluster {
        let has_node = self.objects().node(cluster).await.map(|node| node.is_some());
        let mut parts = Parts::default();
        let mut services = 0;
        let mut count = |_| services += 1;
        services::of_cluster(&self.api, &self.taken, cluster, left_out, &mut parts, &mut count).await;
        OfCluster { has_node, services: parts.all().map(|()| services) }
    }
}
