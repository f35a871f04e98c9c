//! `RunTask`, `StopTask`, and the creation of tasks. See `life_cycle` for what becomes of them.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};

use super::containers::ContainerState;
use super::history::TaskHistory;
use super::life_cycle::TaskChange;
use super::{DefinitionRecord, DescribeFailure, Network, StopCode, TaskKey, TaskOverrides};
use crate::aws::error::invalid;
use crate::aws::{AwsApiResult, Cloud, CloudTask};
use ecs_mesh_model::{DesiredStatus, LastStatus, Tags, Timestamp};

/// Request of `RunTask`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RunTask {
    /// Name or ARN; empty is `default`.
    pub cluster: String,
    /// Family, `family:revision` or ARN.
    pub task_definition: String,
    /// Number of tasks, 1 to 10.
    pub count: usize,
    /// Default `family:FAMILY`.
    pub group: Option<String>,
    /// Value of `startedBy`.
    pub started_by: Option<String>,
    /// `FARGATE`, `EC2`, `MANAGED_INSTANCES` or `EXTERNAL`; default: by the task definition.
    pub launch_type: Option<String>,
    /// Overrides of the task definition.
    pub overrides: TaskOverrides,
    /// Required for network mode `awsvpc`.
    pub network_configuration: Option<Value>,
    /// The tasks' tags.
    #[serde(deserialize_with = "super::ecs_tags::from_pairs")]
    pub tags: Tags,
}

impl Default for RunTask {
    fn default() -> Self {
        Self {
            cluster: String::new(),
            task_definition: String::new(),
            count: 1,
            group: None,
            started_by: None,
            launch_type: None,
            overrides: TaskOverrides::default(),
            network_configuration: None,
            tags: Tags::new(),
        }
    }
}

impl RunTask {
    /// One task in network mode `awsvpc`, in an arbitrary subnet.
    pub fn awsvpc(cluster: &str, task_definition: &str) -> Self {
        Self {
            cluster: cluster.to_owned(),
            task_definition: task_definition.to_owned(),
            network_configuration: Some(any_network()),
            ..Self::default()
        }
    }
}

pub(super) fn any_network() -> Value {
    json!({"awsvpcConfiguration": {"subnets": ["subnet-0123456789abcdef0"], "assignPublicIp": "DISABLED"}})
}

/// Input of a new task.
pub(super) struct NewTask {
    pub(super) cluster: String,
    pub(super) definition: Arc<DefinitionRecord>,
    pub(super) group: String,
    pub(super) started_by: Option<String>,
    pub(super) launch_type: String,
    pub(super) overrides: TaskOverrides,
    pub(super) network_configuration: Option<Value>,
    pub(super) tags: Tags,
    /// Number of the container instance, from 1; without a meaning on Fargate.
    pub(super) container_instance: usize,
}

impl Cloud {
    /// Starts tasks in PROVISIONING. [`Cloud::step`] advances them.
    pub fn run_task(&mut self, request: &RunTask, now: Timestamp) -> AwsApiResult<Vec<Arc<CloudTask>>> {
        if !(1..=10).contains(&request.count) {
            return Err(invalid(format!("count is {}; 1 to 10 are allowed", request.count)));
        }
        let cluster = self.cluster_name(&request.cluster)?;
        let definition = self.describe_task_definition(&request.task_definition)?;
        needs_network(&definition, request.network_configuration.as_ref())?;
        let mut started = Vec::new();
        for _ in 0..request.count {
            started.push(self.create_task(
                NewTask {
                    cluster: cluster.clone(),
                    definition: definition.clone(),
                    group: request.group.clone().unwrap_or_else(|| format!("family:{}", definition.family)),
                    started_by: request.started_by.clone(),
                    launch_type: launch_type(request.launch_type.as_deref(), &definition),
                    overrides: request.overrides.clone(),
                    network_configuration: request.network_configuration.clone(),
                    tags: request.tags.clone(),
                    container_instance: 1,
                },
                now,
            ));
        }
        Ok(started)
    }

    /// Requests a stop. A running task drains; a starting task stops at once; a stopped task is not changed.
    pub fn stop_task(
        &mut self,
        cluster: &str,
        task: &str,
        reason: &str,
        now: Timestamp,
    ) -> AwsApiResult<Arc<CloudTask>> {
        let cluster = self.cluster_name(cluster)?;
        let key = self
            .find_task(&cluster, task)
            .ok_or_else(|| invalid(format!("there is no task {task} in cluster {cluster}")))?;
        let reason = if reason.is_empty() { "stopped at a user's request" } else { reason };
        self.begin_stop(&key, StopCode::UserInitiated, reason, now);
        Ok(self.tasks[&key].current.clone())
    }

    pub(super) fn create_task(&mut self, task: NewTask, now: Timestamp) -> Arc<CloudTask> {
        let NewTask {
            cluster,
            definition,
            group,
            started_by,
            launch_type,
            overrides,
            network_configuration,
            tags,
            container_instance,
        } = task;
        let id = self.hex(32);
        let arn: TaskKey = self.arn("ecs", &format!("task/{cluster}/{id}")).into();
        let network = (definition.network_mode == "awsvpc").then(|| {
            let subnet = network_configuration
                .as_ref()
                .and_then(|network| network["awsvpcConfiguration"]["subnets"][0].as_str().map(str::to_owned));
            Network {
                attachment: self.uuid(),
                interface: format!("eni-0{}", self.hex(16)),
                subnet: subnet.unwrap_or_else(|| "subnet-0123456789abcdef0".into()),
                mac: self.mac(),
                address: None,
                dual_stack: self.config.dual_stack,
            }
        });
        let task = CloudTask {
            arn: arn.clone(),
            cluster_arn: self.arn("ecs", &format!("cluster/{cluster}")),
            cluster,
            family: definition.family.clone(),
            version: 1,
            last_status: LastStatus::Provisioning,
            desired_status: DesiredStatus::Running,
            group,
            started_by,
            launch_type,
            overrides: Arc::new(overrides),
            network,
            tags,
            availability_zone: format!("{}a", self.config.region),
            runtime_ids: Arc::new(definition.containers.iter().map(|_| self.uuid()).collect()),
            containers: definition.specs.iter().map(|_| ContainerState::new(now)).collect(),
            container_instance,
            definition,
            stop_code: None,
            stopped_reason: None,
            status_until: Some(now.plus(self.config.life.provisioning / 2)),
            counts_from: None,
            counts_as_healthy: false,
            protected_until: None,
            change_number: 0,
            created_at: now,
            updated_at: now,
            pull_started_at: None,
            pull_stopped_at: None,
            started_at: None,
            stopping_at: None,
            execution_stopped_at: None,
            stopped_at: None,
        };
        let record = TaskHistory::new(task, now);
        let task = record.current.clone();
        self.tasks.insert(arn, record);
        self.task_changed(None, &task, TaskChange::WithEvent, now);
        task
    }

    fn mac(&mut self) -> String {
        let hex = self.hex(10);
        format!("0a:{}:{}:{}:{}:{}", &hex[..2], &hex[2..4], &hex[4..6], &hex[6..8], &hex[8..])
    }
}

pub(super) fn launch_type(asked: Option<&str>, definition: &DefinitionRecord) -> String {
    asked.unwrap_or(if definition.requires("FARGATE") { "FARGATE" } else { "EC2" }).to_owned()
}

pub(super) fn needs_network(definition: &DefinitionRecord, network: Option<&Value>) -> AwsApiResult<()> {
    if definition.network_mode == "awsvpc" && network.is_none() {
        return Err(invalid("the network mode awsvpc needs a networkConfiguration with subnets"));
    }
    Ok(())
}

impl DescribeFailure {
    pub(super) fn new(arn: &str, reason: &'static str) -> Self {
        Self { arn: arn.to_owned(), reason }
    }

    pub(super) fn missing(arn: String) -> Self {
        Self { arn, reason: "MISSING" }
    }
}
