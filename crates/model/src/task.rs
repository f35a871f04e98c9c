//! A task as ECS told us of it, by an event or by DescribeTasks.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use super::{RoleArn, TaskArn, TaskDefinitionArn, Timestamp, intern};

/// Tags or labels by key, in key order.
pub type Tags = BTreeMap<String, String>;

/// Where a task is in its life, in the order in which a task passes through.
///
/// Source: <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-lifecycle-explanation.html>.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LastStatus {
    /// Resources such as the network interface are being made.
    Provisioning,
    /// Waiting for the container agent.
    Pending,
    /// Registrations before RUNNING.
    Activating,
    /// The containers run.
    Running,
    /// Deregistrations after a stop was asked for.
    Deactivating,
    /// The containers are being stopped.
    Stopping,
    /// The network interface is being removed.
    Deprovisioning,
    /// Nothing of the task runs any more.
    Stopped,
    /// Forgotten by ECS.
    Deleted,
}

impl LastStatus {
    const NAMES: [(&'static str, Self); 9] = [
        ("PROVISIONING", Self::Provisioning),
        ("PENDING", Self::Pending),
        ("ACTIVATING", Self::Activating),
        ("RUNNING", Self::Running),
        ("DEACTIVATING", Self::Deactivating),
        ("STOPPING", Self::Stopping),
        ("DEPROVISIONING", Self::Deprovisioning),
        ("STOPPED", Self::Stopped),
        ("DELETED", Self::Deleted),
    ];

    /// Reads the API's spelling.
    pub fn parse(text: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(name, _)| *name == text).map(|(_, status)| *status)
    }

    /// The API's spelling.
    pub fn as_str(self) -> &'static str {
        Self::NAMES.iter().find(|(_, status)| *status == self).map_or("", |(name, _)| name)
    }

    /// Whether nothing of the task runs any more.
    pub fn is_stopped(self) -> bool {
        self >= Self::Stopped
    }
}

impl fmt::Display for LastStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What ECS wants the task to become.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DesiredStatus {
    /// Keep it (the API says RUNNING, or PENDING for tasks yet to be placed).
    Running,
    /// Stop it: the task drains.
    Stopped,
}

impl DesiredStatus {
    /// Reads the API's spelling.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "RUNNING" | "PENDING" => Some(Self::Running),
            "STOPPED" => Some(Self::Stopped),
            _ => None,
        }
    }

    /// The API's spelling.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "RUNNING",
            Self::Stopped => "STOPPED",
        }
    }
}

/// What started the task: `service:NAME`, `family:NAME`, or a name that the caller of `RunTask` chose.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TaskGroup {
    /// An ECS service.
    Service(Arc<str>),
    /// Anything else, as written.
    Other(Arc<str>),
}

impl TaskGroup {
    /// Reads the field `group`.
    pub fn parse(text: &str) -> Self {
        match text.strip_prefix("service:") {
            Some(name) => Self::Service(intern(name)),
            None => Self::Other(intern(text)),
        }
    }

    /// The ECS service's name, where a service started the task.
    pub fn service(&self) -> Option<&str> {
        match self {
            Self::Service(name) => Some(name),
            Self::Other(_) => None,
        }
    }
}

/// One observation of a task. Of two observations the one with the higher `version` is newer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// Which task.
    pub arn: TaskArn,
    /// Grows with every change of the task; the same number in events and in DescribeTasks.
    pub version: u64,
    /// Where it is in its life.
    pub last_status: LastStatus,
    /// What ECS wants it to become.
    pub desired_status: DesiredStatus,
    /// What started it.
    pub group: TaskGroup,
    /// Its immutable definition.
    pub definition: TaskDefinitionArn,
    /// `overrides.taskRoleArn`; without it the definition's task role counts.
    pub role_override: Option<RoleArn>,
    /// The address of its own network interface (awsvpc), once made; IPv4 before IPv6.
    pub address: Option<IpAddr>,
    /// When the task was created.
    pub created_at: Option<Timestamp>,
    /// When the event's state was true; only events say it.
    pub updated_at: Option<Timestamp>,
    /// ECS tags; `None` where they are not known (events never carry them).
    pub tags: Option<Arc<Tags>>,
}

impl Task {
    /// Whether ECS is taking the task down, or has.
    pub fn is_leaving(&self) -> bool {
        self.desired_status == DesiredStatus::Stopped || self.last_status.is_stopped()
    }
}

/// The parts of a task definition that decide something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskDefinition {
    /// Which one.
    pub arn: TaskDefinitionArn,
    /// `taskRoleArn`: the role of the application. The execution role never counts.
    pub task_role: Option<RoleArn>,
    /// `networkMode`; only `awsvpc` gives a task its own address.
    pub network_mode: Option<String>,
    /// Its containers.
    pub containers: Vec<TaskContainer>,
}

/// A container of a task definition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskContainer {
    /// Its name, unique within the definition.
    pub name: String,
    /// `dockerLabels`.
    pub docker_labels: Tags,
    /// `portMappings[].containerPort`.
    pub ports: Vec<u16>,
}
