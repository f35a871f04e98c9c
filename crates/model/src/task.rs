//! A task as DescribeTasks shows it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::{
    ContainerInstanceArn, InterfaceAddresses, RoleArn, SidecarDataplane, SidecarOutbounds, TaskArn,
    TaskDefinitionArn, Timestamp, intern,
};

/// Tags or labels by key, in key order.
pub type Tags = BTreeMap<String, String>;

/// The `lastStatus` of a task, in the order of the task lifecycle.
///
/// Source: <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-lifecycle-explanation.html>.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LastStatus {
    /// Resources such as the network interface are being created.
    Provisioning,
    /// Waiting for the container agent.
    Pending,
    /// Registrations before RUNNING.
    Activating,
    /// The containers run.
    Running,
    /// Deregistrations after a stop was requested.
    Deactivating,
    /// The containers are being stopped.
    Stopping,
    /// The network interface is being removed.
    Deprovisioning,
    /// No container of the task runs.
    Stopped,
    /// A transitional state after STOPPED; DescribeTasks does not show it.
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

    /// Parses the API's value.
    pub fn parse(text: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(name, _)| *name == text).map(|(_, status)| *status)
    }

    /// The API's value.
    pub fn as_str(self) -> &'static str {
        Self::NAMES.iter().find(|(_, status)| *status == self).map_or("", |(name, _)| name)
    }

    /// Whether no container of the task runs.
    pub fn is_stopped(self) -> bool {
        self >= Self::Stopped
    }
}

impl fmt::Display for LastStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The `desiredStatus` of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DesiredStatus {
    /// Keep the task running (RUNNING, or PENDING for a task that is not placed yet).
    Running,
    /// Stop the task: it drains.
    Stopped,
}

impl DesiredStatus {
    /// Parses the API's value.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "RUNNING" | "PENDING" => Some(Self::Running),
            "STOPPED" => Some(Self::Stopped),
            _ => None,
        }
    }

    /// The API's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "RUNNING",
            Self::Stopped => "STOPPED",
        }
    }
}

/// The group of a task: `service:NAME`, `family:NAME`, or a name that the caller of `RunTask` chose.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TaskGroup {
    /// An ECS service.
    Service(Arc<str>),
    /// Any other group, as written.
    Other(Arc<str>),
}

impl TaskGroup {
    /// Parses the field `group`.
    pub fn parse(text: &str) -> Self {
        match text.strip_prefix("service:") {
            Some(name) => Self::Service(intern(name)),
            None => Self::Other(intern(text)),
        }
    }

    /// The ECS service's name, if a service started the task.
    pub fn service(&self) -> Option<&str> {
        match self {
            Self::Service(name) => Some(name),
            Self::Other(_) => None,
        }
    }
}

/// The host of a task.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum TaskHost {
    /// Fargate, or no container instance yet.
    #[default]
    None,
    /// A container instance in EC2, also one of ECS Managed Instances.
    ContainerInstance(ContainerInstanceArn),
    /// A server outside of AWS: launch type EXTERNAL (ECS Anywhere).
    External,
}

impl TaskHost {
    /// The host by the fields `launchType` and `containerInstanceArn`.
    pub fn of(launch_type: &str, container_instance: Option<ContainerInstanceArn>) -> Self {
        match container_instance {
            _ if launch_type == "EXTERNAL" => Self::External,
            Some(instance) => Self::ContainerInstance(instance),
            None => Self::None,
        }
    }
}

/// One observation of a task. Of two observations the one with the higher `version` is newer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// The task.
    pub arn: TaskArn,
    /// Grows with every change of the task; the same number in events and in DescribeTasks.
    pub version: u64,
    /// `lastStatus`.
    pub last_status: LastStatus,
    /// `desiredStatus`.
    pub desired_status: DesiredStatus,
    /// `group`: the service or caller that started the task.
    pub group: TaskGroup,
    /// The task definition, which is immutable.
    pub definition: TaskDefinitionArn,
    /// `overrides.taskRoleArn`; `None` where the definition's task role applies.
    pub role_override: Option<RoleArn>,
    /// The addresses of the task's own network interface (awsvpc), once created.
    pub addresses: InterfaceAddresses,
    /// The host of the task.
    pub host: TaskHost,
    /// `startedBy`, where a deployment of a service started the task: `ecs-svc/` and digits.
    pub deployment: Option<Arc<str>>,
    /// `createdAt`.
    pub created_at: Option<Timestamp>,
    /// ECS tags; `None` where they are unknown.
    pub tags: Option<Arc<Tags>>,
    /// The containers with `lastStatus` STOPPED, by name. Most tasks have none.
    pub stopped_containers: Box<[Arc<str>]>,
}

impl Task {
    /// The deployment that a `startedBy` names.
    pub fn parse_deployment(started_by: &str) -> Option<Arc<str>> {
        started_by.starts_with("ecs-svc/").then(|| intern(started_by))
    }

    /// Whether no later change of the live task shows more about its address: its interface has one, or the task runs on a
    /// container instance without an interface of its own. (A container instance is known before a pending interface.)
    pub fn is_located(&self) -> bool {
        !self.addresses.is_empty() || (self.host != TaskHost::None && self.last_status >= LastStatus::Running)
    }

    /// Whether ECS is stopping the task or has stopped it.
    pub fn is_leaving(&self) -> bool {
        self.desired_status == DesiredStatus::Stopped || self.last_status.is_stopped()
    }
}

/// The parts of a task definition that decisions depend on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskDefinition {
    /// The task definition, with its revision.
    pub arn: TaskDefinitionArn,
    /// `taskRoleArn`: the role of the application. The execution role is never used.
    pub task_role: Option<RoleArn>,
    /// `networkMode`: `awsvpc` gives a task its own address, `host` that of its container instance.
    pub network_mode: Option<String>,
    /// `containerDefinitions`.
    pub containers: Vec<TaskContainer>,
}

/// The time between SIGTERM and SIGKILL where a container has no `stopTimeout`.
///
/// Source: <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_ContainerDefinition.html>.
const DEFAULT_STOP_TIMEOUT: Duration = Duration::from_secs(30);

impl TaskDefinition {
    /// The longest time that an essential container may take to stop.
    pub fn stop_timeout(&self) -> Duration {
        let essential = self.containers.iter().filter(|container| container.essential);
        let timeouts = essential.map(|container| container.stop_timeout.unwrap_or(DEFAULT_STOP_TIMEOUT));
        timeouts.max().unwrap_or(DEFAULT_STOP_TIMEOUT)
    }

    /// Whether an essential container of the task has stopped, so that the task can't serve any more.
    pub fn has_stopped_essential(&self, task: &Task) -> bool {
        let is_stopped = |name: &str| task.stopped_containers.iter().any(|stopped| **stopped == *name);
        self.containers.iter().any(|container| container.essential && is_stopped(&container.name))
    }

    /// The name of the Kuma sidecar, and how it gets its outbounds; `None` where not exactly one container is a sidecar.
    pub fn kuma_sidecar(&self) -> Option<(&str, SidecarOutbounds)> {
        let mut sidecars =
            self.containers.iter().filter_map(|one| Some((one.name.as_str(), one.sidecar_outbounds?)));
        sidecars.next().filter(|_| sidecars.next().is_none())
    }

    /// The name of the Kuma sidecar, and how it gets its Dataplane; `None` where not exactly one container shows that.
    pub fn sidecar_dataplane(&self) -> Option<(&str, SidecarDataplane)> {
        let mut sidecars =
            self.containers.iter().filter_map(|one| Some((one.name.as_str(), one.sidecar_dataplane?)));
        sidecars.next().filter(|_| sidecars.next().is_none())
    }
}

/// A container of a task definition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskContainer {
    /// `name`, unique within the definition.
    pub name: String,
    /// `dockerLabels`.
    pub docker_labels: Tags,
    /// `portMappings[].containerPort` of TCP.
    pub ports: Vec<u16>,
    /// `essential`: the task stops when the container does.
    pub essential: bool,
    /// `stopTimeout`: how long the container may take to stop after SIGTERM; `None` where the default applies.
    pub stop_timeout: Option<Duration>,
    /// How the container gets its outbounds, if it is a Kuma sidecar.
    pub sidecar_outbounds: Option<SidecarOutbounds>,
    /// How the container gets its Dataplane, if it is a Kuma sidecar whose definition shows that.
    pub sidecar_dataplane: Option<SidecarDataplane>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sidecar_behind_a_wrapper_is_a_second_one() {
        let container = |name: &str, sidecar_outbounds| TaskContainer {
            name: name.to_owned(),
            sidecar_outbounds,
            ..TaskContainer::default()
        };
        let definition = |containers| TaskDefinition {
            arn: TaskDefinitionArn::parse("arn:aws:ecs:eu-west-1:111122223333:task-definition/a:1").unwrap(),
            task_role: None,
            network_mode: None,
            containers,
        };
        let (app, bound) = (container("app", None), container("sidecar", Some(SidecarOutbounds::Bound)));
        let one = definition(vec![app.clone(), bound.clone()]);
        assert_eq!(one.kuma_sidecar(), Some(("sidecar", SidecarOutbounds::Bound)));
        let two = definition(vec![app, bound, container("gateway", Some(SidecarOutbounds::Hidden))]);
        assert_eq!(two.kuma_sidecar(), None);
    }
}
