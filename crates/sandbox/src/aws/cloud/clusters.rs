//! Clusters, each with an index of its tasks, so that a list does not read all tasks.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::{TaskKey, page};
use crate::aws::error::invalid;
use crate::aws::{AwsApiError, AwsApiResult, Cloud, CloudTask};
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

fn remove(sets: &mut BTreeMap<String, BTreeSet<TaskKey>>, name: &str, key: &TaskKey) {
    if let Some(set) = sets.get_mut(name) {
        set.remove(key);
        if set.is_empty() {
            sets.remove(name);
        }
    }
}

impl Cloud {
    /// Creates a cluster, or returns the existing one unchanged.
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
            cluster: Cluster { arn, name: name.to_owned(), tags },
            index: TaskIndex::default(),
        });
        Ok(state.cluster.clone())
    }

    /// One page of the ARNs of all clusters.
    pub fn list_clusters(
        &self,
        next_token: Option<&str>,
        max_results: usize,
    ) -> (Vec<String>, Option<String>) {
        let items =
            self.clusters.values().map(|state| (state.cluster.name.as_str(), state.cluster.arn.clone()));
        page(items, next_token, max_results)
    }

    /// The cluster in the response of `CreateCluster`.
    pub(crate) fn cluster_json(&self, cluster: &str) -> AwsApiResult<Value> {
        let name = self.cluster_name(cluster)?;
        let ClusterState { cluster, index } = self.cluster_state(&name)?;
        let tasks: Vec<LastStatus> =
            index.all.iter().filter_map(|arn| Some(self.known_task(arn)?.last_status)).collect();
        let running = tasks.iter().filter(|status| **status == LastStatus::Running).count();
        let starting = [LastStatus::Provisioning, LastStatus::Pending, LastStatus::Activating];
        Ok(json!({
            "clusterArn": cluster.arn,
            "clusterName": cluster.name,
            "status": "ACTIVE",
            "registeredContainerInstancesCount": 0,
            "runningTasksCount": running,
            "pendingTasksCount": tasks.iter().filter(|status| starting.contains(status)).count(),
            "activeServicesCount": self.services.keys().filter(|(of, _)| *of == name).count(),
            "statistics": [],
            "settings": [{"name": "containerInsights", "value": "disabled"}],
            "capacityProviders": [],
            "defaultCapacityProviderStrategy": [],
            "tags": super::ecs_tags::tags_json(&cluster.tags),
        }))
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
        if self.clusters.contains_key(name) {
            return Ok(name.to_owned());
        }
        Err(AwsApiError::new("ClusterNotFoundException", format!("there is no cluster {name}")))
    }

    pub(super) fn cluster_state(&self, name: &str) -> AwsApiResult<&ClusterState> {
        self.clusters.get(name).ok_or_else(|| {
            AwsApiError::new("ClusterNotFoundException", format!("there is no cluster {name}"))
        })
    }

    /// Updates the cluster's index.
    pub(super) fn reindex(&mut self, key: &TaskKey, before: Option<&CloudTask>, after: Option<&CloudTask>) {
        let Some(task) = after.or(before) else { return };
        if let Some(state) = self.clusters.get_mut(&task.cluster) {
            state.index.change(key, before, after);
        }
    }
}
