//! Clusters, each with an index of its tasks, so that a list does not read all tasks.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::services::ServiceStatus;
use super::{TaskKey, page};
use crate::aws::error::invalid;
use crate::aws::{AwsApiError, AwsApiResult, Cloud, CloudTask, DescribeFailure};
use ecs_mesh_model::{DesiredStatus, LastStatus, Tags};

/// A cluster.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// Its ARN.
    pub arn: String,
    /// Its name.
    pub name: String,
    /// Its tags.
    pub tags: Tags,
    /// Whether it was deleted.
    pub is_deleted: bool,
}

/// A cluster with its index.
#[derive(Debug)]
pub(super) struct ClusterState {
    pub(super) cluster: Cluster,
    pub(super) index: TaskIndex,
}

/// A cluster's tasks by the filters of `ListTasks`.
#[derive(Debug, Default)]
pub(super) struct TaskIndex {
    /// Includes forgotten tasks whose history is kept.
    pub(super) all: BTreeSet<TaskKey>,
    pub(super) desired_running: BTreeSet<TaskKey>,
    pub(super) desired_stopped: BTreeSet<TaskKey>,
    pub(super) by_service: BTreeMap<String, BTreeSet<TaskKey>>,
    pub(super) by_family: BTreeMap<String, BTreeSet<TaskKey>>,
}

impl TaskIndex {
    /// Updates the sets with a task's change. `None` is a task that does not exist yet or no longer.
    pub(super) fn change(&mut self, key: &TaskKey, before: Option<&CloudTask>, after: Option<&CloudTask>) {
        self.desired_running.remove(key);
        self.desired_stopped.remove(key);
        match (before, after) {
            (_, Some(task)) if task.desired_status == DesiredStatus::Running => {
                self.desired_running.insert(key.clone());
            }
            (_, Some(_)) => {
                self.desired_stopped.insert(key.clone());
            }
            (Some(before), None) => {
                remove(&mut self.by_family, &before.family, key);
                if let Some(service) = before.service() {
                    remove(&mut self.by_service, service, key);
                }
            }
            (None, None) => {}
        }
        if let (None, Some(task)) = (before, after) {
            self.all.insert(key.clone());
            self.by_family.entry(task.family.clone()).or_default().insert(key.clone());
            if let Some(service) = task.service() {
                self.by_service.entry(service.to_owned()).or_default().insert(key.clone());
            }
        }
    }
}

fn cluster_not_found(name: &str) -> AwsApiError {
    AwsApiError::new("ClusterNotFoundException", format!("there is no cluster {name}"))
}

fn remove(sets: &mut BTreeMap<String, BTreeSet<TaskKey>>, name: &str, key: &TaskKey) {
    if let Some(set) = sets.get_mut(name) {
        set.remove(key);
        if set.is_empty() {
            sets.remove(name);
        }
    }
}

impl Cloud {
    /// Creates a cluster, or returns the existing one unchanged. A deleted one exists again.
    pub fn create_cluster(&mut self, name: &str, tags: Tags) -> AwsApiResult<Cluster> {
        let allowed = !name.is_empty()
            && name.len() <= 255
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        if !allowed {
            return Err(invalid(format!(
                "{name:?} is not a valid cluster name: letters, digits, '-' and '_', at most 255 characters"
            )));
        }
        let arn = self.arn("ecs", &format!("cluster/{name}"));
        let state = self.clusters.entry(name.to_owned()).or_insert_with(|| ClusterState {
            cluster: Cluster { arn, name: name.to_owned(), tags, is_deleted: false },
            index: TaskIndex::default(),
        });
        state.cluster.is_deleted = false;
        Ok(state.cluster.clone())
    }

    /// Deletes a cluster without services and tasks. ECS shows it as INACTIVE for a while, here until
    /// [`Self::forget_cluster`].
    ///
    /// Source: <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_DeleteCluster.html>.
    pub fn delete_cluster(&mut self, cluster: &str) -> AwsApiResult<Cluster> {
        let name = self.cluster_name(cluster)?;
        if self
            .services
            .iter()
            .any(|((of, _), service)| *of == name && service.status != ServiceStatus::Inactive)
        {
            let message = "The Cluster cannot be deleted while Services are active.";
            return Err(AwsApiError::new("ClusterContainsServicesException", message));
        }
        let index = &self.cluster_state(&name)?.index;
        let is_active =
            |key: &TaskKey| self.known_task(key).is_some_and(|task| !task.last_status.is_stopped());
        if index.all.iter().any(is_active) {
            let message = "The Cluster cannot be deleted while Tasks are active.";
            return Err(AwsApiError::new("ClusterContainsTasksException", message));
        }
        let state = self.clusters.get_mut(&name).ok_or_else(|| cluster_not_found(&name))?;
        state.cluster.is_deleted = true;
        Ok(state.cluster.clone())
    }

    /// Makes ECS forget a deleted cluster.
    pub fn forget_cluster(&mut self, name: &str) {
        self.clusters.retain(|of, state| of != name || !state.cluster.is_deleted);
    }

    /// The clusters in the response of `DescribeClusters`, and the failures. Deleted ones are INACTIVE.
    pub fn describe_clusters(&self, clusters: &[String]) -> (Vec<Value>, Vec<DescribeFailure>) {
        let (mut found, mut failures) = (Vec::new(), Vec::new());
        for cluster in clusters {
            let name = cluster.rsplit('/').next().unwrap_or_default();
            match self
                .clusters
                .get(name)
                .filter(|state| !cluster.contains(':') || state.cluster.arn == *cluster)
            {
                Some(state) => found.push(self.state_json(state)),
                None => failures.push(DescribeFailure { arn: cluster.clone(), reason: "MISSING" }),
            }
        }
        (found, failures)
    }

    /// One page of the ARNs of all clusters that are not deleted.
    pub fn list_clusters(
        &self,
        next_token: Option<&str>,
        max_results: usize,
    ) -> (Vec<String>, Option<String>) {
        let items = self
            .clusters
            .values()
            .filter(|state| !state.cluster.is_deleted)
            .map(|state| (state.cluster.name.as_str(), state.cluster.arn.clone()));
        page(items, next_token, max_results)
    }

    /// The cluster in the response of `CreateCluster`.
    pub(crate) fn cluster_json(&self, cluster: &str) -> AwsApiResult<Value> {
        let name = self.cluster_name(cluster)?;
        Ok(self.state_json(self.cluster_state(&name)?))
    }

    fn state_json(&self, ClusterState { cluster, index }: &ClusterState) -> Value {
        let name = &cluster.name;
        let tasks: Vec<LastStatus> =
            index.all.iter().filter_map(|arn| Some(self.known_task(arn)?.last_status)).collect();
        let running = tasks.iter().filter(|status| **status == LastStatus::Running).count();
        let starting = [LastStatus::Provisioning, LastStatus::Pending, LastStatus::Activating];
        json!({
            "clusterArn": cluster.arn,
            "clusterName": cluster.name,
            "status": if cluster.is_deleted { "INACTIVE" } else { "ACTIVE" },
            "registeredContainerInstancesCount": 0,
            "runningTasksCount": running,
            "pendingTasksCount": tasks.iter().filter(|status| starting.contains(status)).count(),
            "activeServicesCount": self.services.keys().filter(|(of, _)| of == name).count(),
            "statistics": [],
            "settings": [{"name": "containerInsights", "value": "disabled"}],
            "capacityProviders": [],
            "defaultCapacityProviderStrategy": [],
            "tags": super::ecs_tags::tags_json(&cluster.tags),
        })
    }

    /// The cluster name for a name, an ARN or an empty text (`default`).
    pub(super) fn cluster_name(&self, cluster: &str) -> AwsApiResult<String> {
        let name = match cluster {
            "" => "default",
            arn if arn.starts_with("arn:") => arn
                .strip_prefix(self.arn("ecs", "cluster/").as_str())
                .ok_or_else(|| invalid(format!("{arn} is not a cluster of this account and Region")))?,
            name => name,
        };
        match self.clusters.get(name) {
            Some(state) if state.cluster.is_deleted => {
                Err(invalid("The specified cluster is inactive. Specify an active cluster and try again."))
            }
            Some(_) => Ok(name.to_owned()),
            None => Err(cluster_not_found(name)),
        }
    }

    pub(super) fn cluster_state(&self, name: &str) -> AwsApiResult<&ClusterState> {
        self.clusters.get(name).ok_or_else(|| cluster_not_found(name))
    }

    /// Updates the cluster's index.
    pub(super) fn reindex(&mut self, key: &TaskKey, before: Option<&CloudTask>, after: Option<&CloudTask>) {
        let Some(task) = after.or(before) else { return };
        if let Some(state) = self.clusters.get_mut(&task.cluster) {
            state.index.change(key, before, after);
        }
    }
}
