//! ECS services of the API. See `scheduler` for their tasks.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};

use super::deployments::{Deployment, RolloutState};
use super::{DefinitionRecord, DescribeFailure, EcsServiceKey, StopCode, TaskKey, tasks};
use crate::aws::error::invalid;
use crate::aws::{AwsApiError, AwsApiResult, Cloud};
use ecs_mesh_model::{EcsDeployment, EcsRollout, EcsServiceState, Tags, Timestamp, intern};

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
    /// Desired number of tasks, for the strategy `REPLICA`.
    pub desired_count: usize,
    /// `REPLICA`, the default, or `DAEMON`: a task on each container instance.
    pub scheduling_strategy: Option<String>,
    /// `FARGATE` or `EC2`; default: by the task definition.
    pub launch_type: Option<String>,
    /// Required for network mode `awsvpc`.
    pub network_configuration: Option<Value>,
    /// `minimumHealthyPercent`, `maximumPercent` and `deploymentCircuitBreaker` apply; other fields are returned
    /// unchanged.
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
    /// `status`.
    pub(super) status: ServiceStatus,
    /// Whether the scheduling strategy is `DAEMON`.
    pub(super) is_daemon: bool,
    pub(super) launch_type: String,
    pub(super) network_configuration: Option<Value>,
    pub(super) deployment_configuration: Value,
    pub(super) propagate_tags: Option<String>,
    pub(super) managed_tags: bool,
    pub(super) created_at: Timestamp,
    /// Deployments; the first is the primary.
    pub(super) deployments: Vec<Deployment>,
    /// Id and definition of the deployment that completed last.
    pub(super) last_completed: Option<(String, Arc<DefinitionRecord>)>,
    /// Stopping tasks.
    pub(super) leaving: BTreeSet<TaskKey>,
    /// Tasks that neither scale-ins nor deployments stop.
    pub(super) protected: BTreeSet<TaskKey>,
    /// Whether a check of the scheduler is pending.
    pub(super) check_scheduled: bool,
}

/// `status` of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ServiceStatus {
    Active,
    /// Deleted, with tasks that are not STOPPING yet.
    Draining,
    /// Deleted.
    Inactive,
}

impl ServiceStatus {
    fn as_str(self) -> &'static str {
        match self {
            Self::Active => "ACTIVE",
            Self::Draining => "DRAINING",
            Self::Inactive => "INACTIVE",
        }
    }
}

impl EcsService {
    /// Number of running tasks whose desired status is RUNNING.
    pub fn running_count(&self) -> usize {
        self.deployments.iter().map(Deployment::running).sum()
    }

    /// Number of starting tasks.
    pub fn pending_count(&self) -> usize {
        self.deployments.iter().map(|deployment| deployment.pending.len()).sum()
    }

    /// Number of running tasks that count towards `minimumHealthyPercent`.
    pub fn healthy_count(&self) -> usize {
        self.deployments.iter().map(|deployment| deployment.healthy.len()).sum()
    }

    /// The number of failed tasks at which the circuit breaker fails a deployment, if it is enabled.
    ///
    /// Source: <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/deployment-circuit-breaker.html>.
    pub(super) fn failure_threshold(&self) -> Option<usize> {
        let enabled = self.deployment_configuration["deploymentCircuitBreaker"]["enable"] == true;
        enabled.then(|| self.desired_count.div_ceil(2).clamp(3, 200))
    }

    /// Whether the circuit breaker rolls a failed deployment back.
    pub(super) fn rolls_back(&self) -> bool {
        self.deployment_configuration["deploymentCircuitBreaker"]["rollback"] == true
    }

    /// A limit of the deployment configuration in percent.
    pub(super) fn percent(&self, name: &str) -> usize {
        self.deployment_configuration[name]
            .as_u64()
            .and_then(|value| usize::try_from(value).ok())
            .unwrap_or(100)
    }

    /// Whether a deployment replaces the tasks of another.
    pub fn is_deploying(&self) -> bool {
        self.deployments.len() > 1
    }

    /// The service as the operator's type, as DescribeServices shows it.
    pub fn to_model(&self) -> EcsServiceState {
        let listed = self.deployments.iter().filter(|_| self.status != ServiceStatus::Inactive);
        let deployments = listed.enumerate().map(|(index, deployment)| EcsDeployment {
            id: intern(&deployment.id),
            primary: index == 0,
            rollout: match deployment.rollout {
                RolloutState::InProgress => EcsRollout::InProgress,
                RolloutState::Completed => EcsRollout::Completed,
                RolloutState::Failed => EcsRollout::Failed,
            },
        });
        EcsServiceState {
            active: self.status == ServiceStatus::Active,
            daemon: self.is_daemon,
            rolling: true,
            desired_count: self.desired_count,
            maximum_percent: self.percent("maximumPercent"),
            deployments: deployments.collect(),
        }
    }

    /// The service in the responses of the API.
    pub fn to_api_json(&self) -> Value {
        let (cluster_arn, _) = self.arn.split_once(":service/").unwrap_or_default();
        let is_listed = self.status != ServiceStatus::Inactive;
        let deployments: Vec<Value> = self
            .deployments
            .iter()
            .filter(|_| is_listed)
            .enumerate()
            .map(|(index, deployment)| deployment.to_api_json(self, index == 0))
            .collect();
        let mut shown = json!({
            "serviceArn": self.arn,
            "serviceName": self.name,
            "clusterArn": format!("{cluster_arn}:cluster/{}", self.cluster),
            "status": self.status.as_str(),
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
            "schedulingStrategy": if self.is_daemon { "DAEMON" } else { "REPLICA" },
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
        if self.services.get(&key).is_some_and(|service| service.status != ServiceStatus::Inactive) {
            return Err(invalid(format!("there is a service {name} in cluster {cluster} already")));
        }
        let launch_type = tasks::launch_type(request.launch_type.as_deref(), &definition);
        let is_daemon = is_daemon(request.scheduling_strategy.as_deref())?;
        if is_daemon && launch_type == "FARGATE" {
            return Err(invalid("the scheduling strategy DAEMON is not supported on Fargate"));
        }
        let limits = limits(request.deployment_configuration, is_daemon)?;
        let service = EcsService {
            arn: self.arn("ecs", &format!("service/{cluster}/{name}")),
            cluster,
            name,
            desired_count: if is_daemon { self.config.container_instances } else { request.desired_count },
            tags: request.tags,
            status: ServiceStatus::Active,
            is_daemon,
            launch_type,
            network_configuration: request.network_configuration,
            deployment_configuration: limits,
            propagate_tags: request.propagate_tags,
            managed_tags: request.managed_tags,
            created_at: now,
            deployments: vec![self.new_deployment(definition, now)],
            last_completed: None,
            leaving: BTreeSet::new(),
            protected: BTreeSet::new(),
            check_scheduled: false,
        };
        self.services.insert(key.clone(), service);
        self.emit_new_deployment(&key, None, now);
        self.schedule_check(&key, now);
        Ok(self.services[&key].clone())
    }

    /// Updates a service; the scheduler updates its tasks.
    pub fn update_service(&mut self, request: &UpdateService, now: Timestamp) -> AwsApiResult<EcsService> {
        let key = self.service_key(&request.cluster, &request.service)?;
        let service = &self.services[&key];
        if service.status != ServiceStatus::Active {
            return Err(AwsApiError::new(
                "ServiceNotActiveException",
                format!("{} is not active", service.name),
            ));
        }
        if service.is_daemon && request.desired_count.is_some() {
            return Err(invalid("a service with the scheduling strategy DAEMON has no desired count"));
        }
        let limits = match &request.deployment_configuration {
            Some(given) => limits(Some(given.clone()), service.is_daemon)?,
            None => service.deployment_configuration.clone(),
        };
        let current = service.deployments[0].definition.clone();
        let wanted = match &request.task_definition {
            Some(definition) => self.describe_task_definition(definition)?,
            None => current.clone(),
        };
        tasks::needs_network(&wanted, service.network_configuration.as_ref())?;
        let deployment = (request.force_new_deployment || wanted.arn != current.arn)
            .then(|| self.new_deployment(wanted, now));
        let new = deployment.is_some();
        if let Some(service) = self.services.get_mut(&key) {
            if let Some(deployment) = deployment {
                service.deployments.insert(0, deployment);
            }
            service.desired_count = request.desired_count.unwrap_or(service.desired_count);
            service.deployment_configuration = limits;
        }
        if new {
            self.emit_new_deployment(&key, None, now);
        }
        self.schedule_check(&key, now);
        Ok(self.services[&key].clone())
    }

    /// Deletes a service: it is DRAINING until its tasks are STOPPING, then INACTIVE. Protected tasks are stopped, too.
    ///
    /// # Errors
    /// Without `force`, a service of the strategy `REPLICA` must be scaled to zero.
    pub fn delete_service(
        &mut self,
        cluster: &str,
        service: &str,
        force: bool,
        now: Timestamp,
    ) -> AwsApiResult<EcsService> {
        let key = self.service_key(cluster, service)?;
        let service = self.services.get_mut(&key).ok_or_else(|| not_found(service))?;
        if !force && !service.is_daemon && service.desired_count > 0 {
            return Err(invalid("The service cannot be stopped while it is scaled above 0."));
        }
        service.desired_count = 0;
        if service.status == ServiceStatus::Active {
            service.status = ServiceStatus::Draining;
        }
        let tasks: Vec<TaskKey> = service
            .deployments
            .iter()
            .flat_map(|deployment| deployment.pending.iter().chain(deployment.running_tasks()))
            .cloned()
            .collect();
        let reason = format!("service {} was deleted", key.1);
        for task in &tasks {
            self.begin_stop(task, StopCode::ServiceSchedulerInitiated, &reason, now);
        }
        self.schedule_check(&key, now);
        Ok(self.services[&key].clone())
    }

    /// A page of the ARNs of a cluster's active services, and the token of the next page. The token is the last name.
    ///
    /// # Errors
    /// An unknown cluster.
    pub fn list_services(
        &self,
        cluster: &str,
        after: Option<&str>,
        limit: usize,
    ) -> AwsApiResult<(Vec<String>, Option<String>)> {
        let cluster = self.cluster_name(cluster)?;
        let active = self.services.iter().filter(|((in_cluster, name), service)| {
            *in_cluster == cluster
                && service.status != ServiceStatus::Inactive
                && after.is_none_or(|after| name.as_str() > after)
        });
        let mut names: Vec<&String> = active.map(|((_, name), _)| name).take(limit + 1).collect();
        let has_more = names.len() > limit;
        names.truncate(limit);
        let next = names.last().filter(|_| has_more).map(|name| (*name).clone());
        let arns = names.into_iter().map(|name| self.arn("ecs", &format!("service/{cluster}/{name}")));
        Ok((arns.collect(), next))
    }

    /// Describes up to ten services by name or ARN.
    ///
    /// # Errors
    /// An unknown cluster, or none or more than ten services.
    pub fn describe_services<S: AsRef<str>>(
        &self,
        cluster: &str,
        services: &[S],
    ) -> AwsApiResult<(Vec<&EcsService>, Vec<DescribeFailure>)> {
        let cluster = self.cluster_name(cluster)?;
        if !(1..=10).contains(&services.len()) {
            return Err(invalid(format!("{} services were named; 1 to 10 are allowed", services.len())));
        }
        let (mut found, mut failures) = (Vec::new(), Vec::new());
        for service in services {
            let name = service_name_of(service.as_ref());
            match self.services.get(&(cluster.clone(), name.to_owned())) {
                Some(service) => found.push(service),
                None => {
                    let arn = self.arn("ecs", &format!("service/{cluster}/{name}"));
                    failures.push(DescribeFailure::missing(arn));
                }
            }
        }
        Ok((found, failures))
    }

    fn service_key(&self, cluster: &str, service: &str) -> AwsApiResult<EcsServiceKey> {
        let key = (self.cluster_name(cluster)?, service_name_of(service).to_owned());
        if self.services.contains_key(&key) {
            return Ok(key);
        }
        Err(not_found(service))
    }
}

fn not_found(service: &str) -> AwsApiError {
    AwsApiError::new("ServiceNotFoundException", format!("there is no service {service}"))
}

fn is_daemon(strategy: Option<&str>) -> AwsApiResult<bool> {
    match strategy {
        None | Some("REPLICA") => Ok(false),
        Some("DAEMON") => Ok(true),
        Some(other) => {
            Err(invalid(format!("schedulingStrategy is {other:?}; REPLICA and DAEMON are allowed")))
        }
    }
}

/// The deployment configuration with ECS's defaults.
///
/// Source: <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_DeploymentConfiguration.html>.
fn limits(given: Option<Value>, is_daemon: bool) -> AwsApiResult<Value> {
    let mut limits = given.filter(Value::is_object).unwrap_or_else(|| json!({}));
    let (most, least) = if is_daemon { (100, 0) } else { (200, 100) };
    for (name, default) in [("maximumPercent", most), ("minimumHealthyPercent", least)] {
        if limits[name].as_u64().is_none() {
            limits[name] = json!(default);
        }
    }
    if is_daemon && limits["maximumPercent"] != 100 {
        return Err(invalid("maximumPercent must be 100 for the scheduling strategy DAEMON"));
    }
    Ok(limits)
}
