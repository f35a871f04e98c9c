//! Tags of ECS resources. A change of a task's tags neither changes its version nor emits an event.

use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use crate::aws::error::{client, invalid};
use crate::aws::{AwsApiResult, Cloud};
use ecs_mesh_model::{Tags, Timestamp};

/// Deserialises `[{"key": …, "value": …}]`.
pub(crate) fn from_pairs<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Tags, D::Error> {
    #[derive(Deserialize)]
    struct Pair {
        key: String,
        #[serde(default)]
        value: String,
    }
    let pairs: Option<Vec<Pair>> = Option::deserialize(deserializer)?;
    Ok(pairs.into_iter().flatten().map(|pair| (pair.key, pair.value)).collect())
}

/// Reads tags from a value; `null` means no tags.
pub(crate) fn tags_from(value: &Value) -> Result<Tags, serde_json::Error> {
    from_pairs(value)
}

pub(super) fn tags_json(tags: &Tags) -> Value {
    tags.iter().map(|(key, value)| json!({"key": key, "value": value})).collect()
}

/// The resource of a tag call.
enum TaggedResource {
    Task(super::TaskKey),
    Service(super::EcsServiceKey),
    Cluster(String),
    /// Tags of a revision are read-only.
    Definition(Tags),
}

impl Cloud {
    /// Sets tags of a task, a service or a cluster.
    pub fn tag_resource(&mut self, arn: &str, tags: &Tags, now: Timestamp) -> AwsApiResult<()> {
        self.change_tags(arn, now, |all| all.extend(tags.clone()))
    }

    /// Removes tags of a task, a service or a cluster.
    pub fn untag_resource(&mut self, arn: &str, keys: &[String], now: Timestamp) -> AwsApiResult<()> {
        self.change_tags(arn, now, |all| all.retain(|key, _| !keys.contains(key)))
    }

    /// The tags of a task, a service, a cluster or a task definition.
    pub fn list_tags_for_resource(&self, arn: &str) -> AwsApiResult<Tags> {
        Ok(match self.tagged(arn)? {
            TaggedResource::Task(key) => self.tasks[&key].current.tags.clone(),
            TaggedResource::Service(key) => self.services[&key].tags.clone(),
            TaggedResource::Cluster(name) => self.clusters[&name].cluster.tags.clone(),
            TaggedResource::Definition(tags) => tags,
        })
    }

    fn change_tags(&mut self, arn: &str, now: Timestamp, change: impl FnOnce(&mut Tags)) -> AwsApiResult<()> {
        let mut tags = self.list_tags_for_resource(arn)?;
        change(&mut tags);
        if tags.len() > 50 {
            return Err(invalid("a resource has at most 50 tags"));
        }
        match self.tagged(arn)? {
            TaggedResource::Task(key) => self.set_task_tags(&key, tags, now),
            TaggedResource::Service(key) => {
                if let Some(service) = self.services.get_mut(&key) {
                    service.tags = tags;
                }
            }
            TaggedResource::Cluster(name) => {
                if let Some(state) = self.clusters.get_mut(&name) {
                    state.cluster.tags = tags;
                }
            }
            TaggedResource::Definition(_) => {
                return Err(client("the sandbox does not change the tags of task definitions"));
            }
        }
        Ok(())
    }

    /// Finds the resource of an ARN.
    fn tagged(&self, arn: &str) -> AwsApiResult<TaggedResource> {
        let missing = || invalid(format!("there is no resource {arn}"));
        let resource = arn.strip_prefix(self.arn("ecs", "").as_str()).ok_or_else(missing)?;
        let (kind, name) = resource.split_once('/').ok_or_else(missing)?;
        match kind {
            "task" => self
                .tasks
                .get_key_value(arn)
                .filter(|(_, record)| record.gone_at.is_none())
                .map(|(key, _)| TaggedResource::Task(key.clone())),
            "service" => name
                .split_once('/')
                .map(|(cluster, service)| (cluster.to_owned(), service.to_owned()))
                .filter(|key| self.services.contains_key(key))
                .map(TaggedResource::Service),
            "cluster" => Some(name.to_owned())
                .filter(|name| self.clusters.contains_key(name))
                .map(TaggedResource::Cluster),
            "task-definition" => self
                .describe_task_definition(arn)
                .ok()
                .map(|record| TaggedResource::Definition(record.tags.clone())),
            _ => None,
        }
        .ok_or_else(missing)
    }
}
