//! A task as the sandbox's ECS knows it.

use std::net::Ipv4Addr;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::DefinitionRecord;
use ecs_mesh_model::{
    DesiredStatus, LastStatus, RoleArn, Tags, Task, TaskArn, TaskDefinitionArn, TaskGroup, Timestamp,
};

/// Why a task stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopCode {
    /// It never got to run.
    TaskFailedToStart,
    /// An essential container ended by itself.
    EssentialContainerExited,
    /// `StopTask`.
    UserInitiated,
    /// A deployment or a scale-in.
    ServiceSchedulerInitiated,
    /// Spot capacity was taken back.
    SpotInterruption,
}

impl StopCode {
    /// The API's spelling.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TaskFailedToStart => "TaskFailedToStart",
            Self::EssentialContainerExited => "EssentialContainerExited",
            Self::UserInitiated => "UserInitiated",
            Self::ServiceSchedulerInitiated => "ServiceSchedulerInitiated",
            Self::SpotInterruption => "SpotInterruption",
        }
    }
}

/// What `RunTask` changes of the definition.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TaskOverrides {
    /// Another role for the application.
    pub task_role_arn: Option<String>,
    /// Everything else, as the API takes it.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// A task's network interface.
#[derive(Clone, Debug)]
pub struct Network {
    /// The attachment's id, a UUID.
    pub attachment: String,
    /// `eni-…`.
    pub interface: String,
    /// The subnet it is in.
    pub subnet: String,
    /// The MAC address.
    pub mac: String,
    /// Its address, absent at the very beginning. It stays shown after the interface is gone.
    pub address: Option<Ipv4Addr>,
}

/// One state of a task. A state never changes: each change makes a new one.
#[derive(Clone, Debug)]
pub struct CloudTask {
    /// Its ARN.
    pub arn: Arc<str>,
    /// The cluster's name.
    pub cluster: String,
    /// The cluster's ARN.
    pub cluster_arn: String,
    /// Its definition.
    pub definition: Arc<DefinitionRecord>,
    /// The definition's family.
    pub family: String,
    /// Grows by one with every change that causes an event.
    pub version: u64,
    /// Where it is in its life.
    pub last_status: LastStatus,
    /// What ECS wants it to become.
    pub desired_status: DesiredStatus,
    /// `service:NAME`, `family:NAME` or what `RunTask` was given.
    pub group: String,
    /// `ecs-svc/…` for a service's task, or what `RunTask` was given.
    pub started_by: Option<String>,
    /// `FARGATE` or `EC2`.
    pub launch_type: String,
    /// What was overridden.
    pub overrides: Arc<TaskOverrides>,
    /// Its network interface, in the network mode awsvpc.
    pub network: Option<Network>,
    /// Its tags.
    pub tags: Tags,
    /// Where it runs.
    pub availability_zone: String,
    /// A container's runtime id, per container.
    pub runtime_ids: Arc<Vec<String>>,
    /// Why it stops.
    pub stop_code: Option<StopCode>,
    /// The same in a sentence.
    pub stopped_reason: Option<String>,
    /// The exit code of its containers, once they ended.
    pub exit_code: Option<i32>,
    /// `RunTask`.
    pub created_at: Timestamp,
    /// Its last change of version.
    pub updated_at: Timestamp,
    /// PENDING.
    pub pull_started_at: Option<Timestamp>,
    /// ACTIVATING.
    pub pull_stopped_at: Option<Timestamp>,
    /// RUNNING.
    pub started_at: Option<Timestamp>,
    /// When the stop was asked for.
    pub stopping_at: Option<Timestamp>,
    /// When the containers ended.
    pub execution_stopped_at: Option<Timestamp>,
    /// STOPPED.
    pub stopped_at: Option<Timestamp>,
}

impl CloudTask {
    /// The id: the ARN's last part.
    pub fn id(&self) -> &str {
        self.arn.rsplit('/').next().unwrap_or_default()
    }

    /// The ECS service that it belongs to.
    pub fn service(&self) -> Option<&str> {
        self.group.strip_prefix("service:")
    }

    /// Its IPv4 address, once it has one.
    pub fn address(&self) -> Option<Ipv4Addr> {
        self.network.as_ref().and_then(|network| network.address)
    }

    /// The role of the application: the override's, else the definition's.
    pub fn task_role_arn(&self) -> Option<&str> {
        self.overrides.task_role_arn.as_deref().or(self.definition.task_role_arn.as_deref())
    }

    /// The task in the operator's words, as DescribeTasks with tags tells it (so without `updated_at`).
    /// `None` where the operator would refuse the task's ARN or that of its definition.
    pub fn to_model(&self) -> Option<Task> {
        Some(Task {
            arn: TaskArn::parse(&self.arn).ok()?,
            version: self.version,
            last_status: self.last_status,
            desired_status: self.desired_status,
            group: TaskGroup::parse(&self.group),
            definition: TaskDefinitionArn::parse(&self.definition.arn).ok()?,
            role_override: self.overrides.task_role_arn.as_deref().and_then(|role| RoleArn::parse(role).ok()),
            address: self.address().map(Into::into),
            created_at: Some(self.created_at),
            updated_at: None,
            tags: Some(Arc::new(self.tags.clone())),
        })
    }
}
