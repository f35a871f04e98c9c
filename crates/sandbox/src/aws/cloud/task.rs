//! The state of a task.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::containers::ContainerStatus;
use super::{ContainerState, DefinitionRecord};
use ecs_mesh_model::{
    ContainerInstanceArn, DesiredStatus, InterfaceAddresses, LastStatus, RoleArn, Tags, Task, TaskArn,
    TaskDefinitionArn, TaskGroup, TaskHost, Timestamp,
};

/// `stopCode` of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopCode {
    /// The task did not start.
    TaskFailedToStart,
    /// An essential container exited.
    EssentialContainerExited,
    /// `StopTask`.
    UserInitiated,
    /// A deployment or a scale-in.
    ServiceSchedulerInitiated,
}

impl StopCode {
    /// The API's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TaskFailedToStart => "TaskFailedToStart",
            Self::EssentialContainerExited => "EssentialContainerExited",
            Self::UserInitiated => "UserInitiated",
            Self::ServiceSchedulerInitiated => "ServiceSchedulerInitiated",
        }
    }
}

/// `overrides` of `RunTask`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TaskOverrides {
    /// Another task role.
    pub task_role_arn: Option<String>,
    /// All other overrides.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// A task's network interface.
#[derive(Clone, Debug)]
pub struct Network {
    /// Id of the attachment, a UUID.
    pub attachment: String,
    /// `eni-…`.
    pub interface: String,
    /// The subnet it is in.
    pub subnet: String,
    /// The MAC address.
    pub mac: String,
    /// Its address, absent at first, and kept after the interface is deleted.
    pub address: Option<Ipv4Addr>,
    /// Whether it also has an IPv6 address.
    pub dual_stack: bool,
}

/// The IPv6 address of the interface with this IPv4 address.
pub(super) fn v6_of(address: Ipv4Addr) -> Ipv6Addr {
    let [a, b, c, d] = address.octets().map(u16::from);
    Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, (a << 8) | b, (c << 8) | d)
}

/// One immutable state of a task. Each change creates a new state.
#[derive(Clone, Debug)]
pub struct CloudTask {
    /// Its ARN.
    pub arn: Arc<str>,
    /// The cluster's name.
    pub cluster: String,
    /// The cluster's ARN.
    pub cluster_arn: String,
    /// Its task definition.
    pub definition: Arc<DefinitionRecord>,
    /// The definition's family.
    pub family: String,
    /// Incremented with each change that emits an event: not when its health or its protection changes.
    pub version: u64,
    /// `lastStatus`.
    pub last_status: LastStatus,
    /// `desiredStatus`.
    pub desired_status: DesiredStatus,
    /// `service:NAME`, `family:NAME` or the value of `RunTask`.
    pub group: String,
    /// `ecs-svc/…` for a task of a service, or the value of `RunTask`.
    pub started_by: Option<String>,
    /// `FARGATE`, `EC2`, `MANAGED_INSTANCES` or `EXTERNAL`.
    pub launch_type: String,
    /// Overrides of the task definition.
    pub overrides: Arc<TaskOverrides>,
    /// Its network interface, in network mode `awsvpc`.
    pub network: Option<Network>,
    /// Its tags.
    pub tags: Tags,
    /// Its availability zone.
    pub availability_zone: String,
    /// Runtime id of each container.
    pub runtime_ids: Arc<Vec<String>>,
    /// `stopCode`.
    pub stop_code: Option<StopCode>,
    /// `stoppedReason`.
    pub stopped_reason: Option<String>,
    /// Its containers, in the order of the definition.
    pub containers: Vec<ContainerState>,
    /// Until when scale-ins and deployments do not stop it.
    pub protected_until: Option<Timestamp>,
    /// Time of `RunTask`.
    pub created_at: Timestamp,
    /// Time of the last version change.
    pub updated_at: Timestamp,
    /// Time of PENDING.
    pub pull_started_at: Option<Timestamp>,
    /// Time of ACTIVATING.
    pub pull_stopped_at: Option<Timestamp>,
    /// Time of RUNNING.
    pub started_at: Option<Timestamp>,
    /// Time of the stop request.
    pub stopping_at: Option<Timestamp>,
    /// Time at which the containers stopped.
    pub execution_stopped_at: Option<Timestamp>,
    /// Time of STOPPED.
    pub stopped_at: Option<Timestamp>,
    /// When `last_status` ends, if time ends it.
    pub(super) status_until: Option<Timestamp>,
    /// When it counts as healthy, if none of its essential containers has a check.
    pub(super) counts_from: Option<Timestamp>,
    /// Whether it counts towards `minimumHealthyPercent` of its service.
    pub(super) counts_as_healthy: bool,
    /// Incremented with each change.
    pub(super) change_number: u64,
    /// Number of its container instance, from 1; without a meaning on Fargate.
    pub(super) container_instance: usize,
}

impl CloudTask {
    /// The task id, the last part of the ARN.
    pub fn id(&self) -> &str {
        self.arn.rsplit('/').next().unwrap_or_default()
    }

    /// Its ECS service, if any.
    pub fn service(&self) -> Option<&str> {
        self.group.strip_prefix("service:")
    }

    /// Its IPv4 address, once it has one.
    pub fn address(&self) -> Option<Ipv4Addr> {
        self.network.as_ref().and_then(|network| network.address)
    }

    /// Its IPv6 address, if its interface has one. Attachments do not show it, containers do.
    pub(super) fn v6(&self) -> Option<Ipv6Addr> {
        let network = self.network.as_ref().filter(|network| network.dual_stack)?;
        network.address.map(v6_of)
    }

    /// The task role of the override, or of the definition.
    pub fn task_role_arn(&self) -> Option<&str> {
        self.overrides.task_role_arn.as_deref().or(self.definition.task_role_arn.as_deref())
    }

    /// The names of the containers that have stopped.
    fn stopped_containers(&self) -> Box<[Arc<str>]> {
        let specs = self.definition.specs.iter();
        let stopped =
            specs.zip(&self.containers).filter(|(_, state)| state.status == ContainerStatus::Stopped);
        stopped.map(|(spec, _)| spec.name.as_str().into()).collect()
    }

    /// The task as the operator's type, as DescribeTasks shows it with tags. `None` if the operator
    /// would reject an ARN.
    pub fn to_model(&self) -> Option<Task> {
        let instance = self.container_instance_arn();
        let instance = instance.map(|arn| ContainerInstanceArn::parse(&arn)).transpose().ok()?;
        Some(Task {
            arn: TaskArn::parse(&self.arn).ok()?,
            version: self.version,
            last_status: self.last_status,
            desired_status: self.desired_status,
            group: TaskGroup::parse(&self.group),
            definition: TaskDefinitionArn::parse(&self.definition.arn).ok()?,
            role_override: self.overrides.task_role_arn.as_deref().and_then(|role| RoleArn::parse(role).ok()),
            addresses: InterfaceAddresses::new(self.address(), self.v6()).ok()?,
            host: TaskHost::of(&self.launch_type, instance),
            deployment: self.started_by.as_deref().and_then(Task::parse_deployment),
            created_at: Some(self.created_at),
            tags: Some(Arc::new(self.tags.clone())),
            stopped_containers: self.stopped_containers(),
        })
    }
}
