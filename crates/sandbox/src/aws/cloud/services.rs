//! ECS services of the API. See `scheduler` for their tasks.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};

use super::{DefinitionRecord, EcsServiceKey, TaskKey, tasks};
use crate::aws::error::invalid;
use crate::aws::{AwsApiError, AwsApiResult, Cloud};
use ecs_mesh_model::{Tags, Timestamp};

/// Request of `CreateService`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CreateService {
    /// Name or ARN; empty is `default`.
    pub cluster: String,
    /// Unique among the cluster's active services.
    pub service_name: String,
    /// Family, `family:revision` or ARN.
    pub task_definition: String,
    /// Desired number of tasks.
    pub desired_count: usize,
    /// `FARGATE` or `EC2`; default: by the task definition.
    pub launch_type: Option<String>,
    /// Required for network mode `awsvpc`.
    pub network_configuration: Option<Value>,
    /// `minimumHealthyPercent` and `maximumPercent` apply; other fields are returned unchanged.
    pub deployment_configuration: Option<Value>,
    /// `SERVICE` or `TASK_DEFINITION`: the source of the tasks' tags.
    pub propagate_tags: Option<String>,
    /// Adds the tags `aws:ecs:clusterName` and `aws:ecs:serviceName` to the tasks.
    #[serde(rename = "enableECSManagedTags")]
    pub managed_tags: bool,
    /// The service's tags.
    #[serde(deserialize_with = "super::ecs_tags::from_pairs")]
    pub tags: Tags,
}

impl CreateService {
    /// A service in network mode `awsvpc`, in an arbitrary subnet.
    pub fn awsvpc(cluster: &str, service_name: &str, task_definition: &str, desired_count: usize) -> Self {
        Self {
            cluster: cluster.to_owned(),
            service_name: service_name.to_owned(),
            task_definition: task_definition.to_owned(),
            desired_count,
            network_configuration: Some(tasks::any_network()),
            ..Self::default()
        }
    }
}

/// Request of `UpdateService`. Absent fields are not changed.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct UpdateService {
    /// Name or ARN; empty is `default`.
    pub cluster: String,
    /// Name or ARN.
    pub service: String,
    /// Desired number of tasks.
    pub desired_count: Option<usize>,
    /// A new task definition starts a deployment.
    pub task_definition: Option<String>,
    /// Starts a deployment without a change.
    pub force_new_deployment: bool,
    /// As in [`CreateService`].
    pub deployment_configuration: Option<Value>,
}

/// A service and its tasks.
#[derive(Clone, Debug)]
pub struct EcsService {
    /// Its ARN.
    pub arn: String,
    /// Its cluster's name.
    pub cluster: String,
    /// Its name.
    pub name: String,
    /// Desired number of tasks.
    pub desired_count: usize,
    /// Its tags.
    pub tags: Tags,
    pub(super) launch_type: String,
    pub(super) network_configuration: Option<Value>,
    pub(super) deployment_configuration: Value,
    pub(super) propagate_tags: Option<String>,
    pub(super) managed_tags: bool,
    pub(super) created_at: Timestamp,
    /// Deployments; the first is the primary.
    pub(super) deployments: Vec<Deployment>,
    /// Stopping tasks.
    pub(super) leaving: BTreeSet<TaskKey>,
    /// Whether a check of the scheduler is pending.
    pub(super) check_scheduled: bool,
}

/// The tasks of one definition within a service.
#[derive(Clone, Debug)]
pub(super) struct Deployment {
    /// `ecs-svc/` and digits, the tasks' `startedBy`.
    pub(super) id: String,
    pub(super) definition: Arc<DefinitionRecord>,
    pub(super) created_at: Timestamp,
    pub(super) updated_at: Timestamp,
    pub(super) pending: BTreeSet<TaskKey>,
    pub(super) running: BTreeSet<TaskKey>,
    pub(super) failed: u32,
    pub(super) completed: bool,
}

impl Deployment {
    pub(super) fn live(&self) -> usize {
        self.pending.len() + self.running.len()
    }
}

impl EcsService {
    /// Number of running tasks whose desired status is RUNNING.
    pub fn running_count(&self) -> usize {
        self.deployments.iter().map(|deployment| deployment.running.len()).sum()
    }

    /// Number of starting tasks.
    pub fn pending_count(&self) -> usize {
        self.deployments.iter().map(|deployment| deployment.pending.len()).sum()
    }

    /// A limit of the deployment configuration in percent.
    pub(super) fn percent(&self, name: &str) -> usize {
        self.deployment_configuration[name]
            .as_u64()
            .and_then(|value| usize::try_from(value).ok())
            .unwrap_or(100)
    }

    /// The service in the responses of the API.
    pub fn to_api_json(&self) -> Value {
        let (cluster_arn, _) = self.arn.split_once(":service/").unwrap_or_default();
        let deployments: Vec<Value> = self
            .deployments
            .iter()
            .enumerate()
            .map(|(index, deployment)| self.deployment_json(index, deployment))
            .collect();
        let mut shown = json!({
            "serviceArn": self.arn,
            "serviceName": self.name,
            "clusterArn": format!("{cluster_arn}:cluster/{}", self.cluster),
            "status": "ACTIVE",
            "desiredCount": self.desired_count,
            "runningCount": self.running_count(),
            "pendingCount": self.pending_count(),
            "launchType": self.launch_type,
            "taskDefinition": self.deployments[0].definition.arn,
            "deploymentConfiguration": self.deployment_configuration,
            "deploymentController": {"type": "ECS"},
            "deployments": deployments,
            "events": [],
            "createdAt": self.created_at.as_secs_f64(),
            "loadBalancers": [],
            "serviceRegistries": [],
            "placementConstraints": [],
            "placementStrategy": [],
            "schedulingStrategy": "REPLICA",
            "enableECSManagedTags": self.managed_tags,
            "propagateTags": self.propagate_tags.as_deref().unwrap_or("NONE"),
            "enableExecuteCommand": false,
        });
        if let Some(network) = &self.network_configuration {
            shown["networkConfiguration"] = network.clone();
        }
        shown["tags"] = super::ecs_tags::tags_json(&self.tags);
        shown
    }

    fn deployment_json(&self, index: usize, deployment: &Deployment) -> Value {
        let primary = index == 0;
        let (state, reason) = match (primary, deployment.completed) {
            (true, false) => ("IN_PROGRESS", "the deployment is in progress"),
            _ => ("COMPLETED", "the deployment completed"),
        };
        json!({
            "id": deployment.id,
            "status": if primary { "PRIMARY" } else { "ACTIVE" },
            "taskDefinition": deployment.definition.arn,
            "desiredCount": if primary { self.desired_count } else { deployment.live() },
            "pendingCount": deployment.pending.len(),
            "runningCount": deployment.running.len(),
            "failedTasks": deployment.failed,
            "createdAt": deployment.created_at.as_secs_f64(),
            "updatedAt": deployment.updated_at.as_secs_f64(),
            "launchType": self.launch_type,
            "rolloutState": state,
            "rolloutStateReason": reason,
        })
    }
}

/// The service name for a name or an ARN.
pub(super) fn service_name_of(service: &str) -> &str {
    service.rsplit('/').next().unwrap_or(service)
}

impl Cloud {
    /// Creates a service; the scheduler starts its tasks.
    pub fn create_service(&mut self, request: CreateService, now: Timestamp) -> AwsApiResult<EcsService> {
        let cluster = self.cluster_name(&request.cluster)?;
        let definition = self.describe_task_definition(&request.task_definition)?;
        tasks::needs_network(&definition, request.network_configuration.as_ref())?;
        let name = request.service_name;
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_') {
            return Err(invalid(format!(
                "{name:?} is not a valid service name: letters, digits, '-' and '_'"
            )));
        }
        let key = (cluster.clone(), name.clone());
        if self.services.contains_key(&key) {
            return Err(invalid(format!("there is a service {name} in cluster {cluster} already")));
        }
        let service = EcsService {
            arn: self.arn("ecs", &format!("service/{cluster}/{name}")),
            cluster,
            name,
            desired_count: request.desired_count,
            tags: request.tags,
            launch_type: tasks::launch_type(request.launch_type.as_deref(), &definition),
            network_configuration: request.network_configuration,
            deployment_configuration: limits(request.deployment_configuration),
            propagate_tags: request.propagate_tags,
            managed_tags: request.managed_tags,
            created_at: now,
            deployments: vec![self.new_deployment(definition, now)],
            leaving: BTreeSet::new(),
            check_scheduled: false,
        };
        self.services.insert(key.clone(), service);
        self.emit_new_deployment(&key, now);
        self.schedule_check(&key, now);
        Ok(self.services[&key].clone())
    }

    /// Updates a service; the scheduler updates its tasks.
    pub fn update_service(&mut self, request: &UpdateService, now: Timestamp) -> AwsApiResult<EcsService> {
        let key = self.service_key(&request.cluster, &request.service)?;
        let current = self.services[&key].deployments[0].definition.clone();
        let wanted = match &request.task_definition {
            Some(definition) => self.describe_task_definition(definition)?,
            None => current.clone(),
        };
        tasks::needs_network(&wanted, self.services[&key].network_configuration.as_ref())?;
        let deployment = (request.force_new_deployment || wanted.arn != current.arn)
            .then(|| self.new_deployment(wanted, now));
        let new = deployment.is_some();
        if let Some(service) = self.services.get_mut(&key) {
            if let Some(deployment) = deployment {
                service.deployments.insert(0, deployment);
            }
            if let Some(count) = request.desired_count {
                service.desired_count = count;
            }
            if request.deployment_configuration.is_some() {
                service.deployment_configuration = limits(request.deployment_configuration.clone());
            }
        }
        if new {
            self.emit_new_deployment(&key, now);
        }
        self.schedule_check(&key, now);
        Ok(self.services[&key].clone())
    }

    fn service_key(&self, cluster: &str, service: &str) -> AwsApiResult<EcsServiceKey> {
        let key = (self.cluster_name(cluster)?, service_name_of(service).to_owned());
        if self.services.contains_key(&key) {
            return Ok(key);
        }
        Err(AwsApiError::new("ServiceNotFoundException", format!("there is no service {service}")))
    }

    fn emit_new_deployment(&mut self, key: &EcsServiceKey, now: Timestamp) {
        let Some(service) = self.services.get(key) else { return };
        let (arn, id) = (service.arn.clone(), service.deployments[0].id.clone());
        self.emit_deployment(&arn, &id, "SERVICE_DEPLOYMENT_IN_PROGRESS", now);
    }

    fn new_deployment(&mut self, definition: Arc<DefinitionRecord>, now: Timestamp) -> Deployment {
        let number = self.rng.u64(1_000_000_000_000_000_000..9_999_999_999_999_999_999);
        Deployment {
            id: format!("ecs-svc/{number}"),
            definition,
            created_at: now,
            updated_at: now,
            pending: BTreeSet::new(),
            running: BTreeSet::new(),
            failed: 0,
            completed: false,
        }
    }
}

/// The deployment configuration with ECS's defaults.
fn limits(given: Option<Value>) -> Value {
    let mut limits = given.filter(Value::is_object).unwrap_or_else(|| json!({}));
    for (name, default) in [("maximumPercent", 200), ("minimumHealthyPercent", 100)] {
        if limits[name].as_u64().is_none() {
            limits[name] = json!(default);
        }
    }
    limits
}
