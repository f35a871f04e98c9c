//! A look at Consul as a person who sets it up would take it: each question by itself, reads alone.

use std::collections::{BTreeMap, BTreeSet};

use super::client::ConsulControlPlane;
use super::own_token::OwnToken;
use super::services;
use super::tokens;
use super::version::ConsulVersion;
use crate::mesh::http::StreamTransport;
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
    /// Our own token. An error of the kind `Forbidden` where it is not known there, or where ACLs are off.
    pub own_token: Result<OwnToken, MeshError>,
    /// How many tokens of logins name a task of these clusters.
    pub tokens: Result<usize, MeshError>,
    /// How many binding rules the auth methods that are looked after have, by method.
    pub rules: BTreeMap<String, Result<usize, MeshError>>,
    /// The clusters: whether each has its node, and how many services its tasks have there.
    pub clusters: BTreeMap<ClusterArn, Result<OfCluster, MeshError>>,
}

/// What there is of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OfCluster {
    /// Whether there is a node of its name, without which no task of it can register.
    pub has_node: bool,
    /// How many services its tasks have.
    pub services: usize,
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
        let tokens = tokens::of_clusters(&self.api, &self.taken, clusters).await.map(|tokens| tokens.len());
        let mut rules = BTreeMap::new();
        for method in self.taken.methods.load().iter() {
            let found = self.objects().binding_rules(method).await;
            rules.insert(method.to_string(), found.map(|rules| rules.len()));
        }
        let mut of_clusters = BTreeMap::new();
        for cluster in clusters {
            of_clusters.insert(cluster.clone(), self.look_at(cluster).await);
        }
        Survey { version, answers: Some(Answers { own_token, tokens, rules, clusters: of_clusters }) }
    }

    async fn look_at(&self, cluster: &ClusterArn) -> Result<OfCluster, MeshError> {
        let has_node = self.objects().node(cluster).await?.is_some();
        let services = services::of_cluster(&self.api, &self.taken, cluster).await?.len();
        Ok(OfCluster { has_node, services })
    }
}
