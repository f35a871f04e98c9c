//! The form of an event to teams. `docs/reference/team-events.schema.json` is generated from these types.
//!
//! Fields are only added. A field that changes its meaning, or is dropped, raises [`TEAM_EVENT_SCHEMA_VERSION`].

use ecs_mesh_model::{RoleArn, TaskArn};
use schemars::JsonSchema;
use serde::Serialize;

/// The version of the detail's form.
pub const TEAM_EVENT_SCHEMA_VERSION: u32 = 1;

/// An event to teams, as a rule of EventBridge sees it beside the fields of the envelope.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct TeamEvent {
    /// Always `ecs-mesh.dev`.
    pub source: TeamEventSource,
    /// The kind of event.
    pub detail_type: TeamEventKind,
    /// The ARNs of the ECS service, where one started the tasks, and of the tasks in `detail.tasks`.
    pub resources: Vec<String>,
    /// The rest.
    pub detail: TeamEventDetail,
}

/// The source of all events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub enum TeamEventSource {
    /// The operator.
    #[serde(rename = "ecs-mesh.dev")]
    EcsMesh,
}

impl TeamEventSource {
    /// The value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::EcsMesh => "ecs-mesh.dev",
        }
    }
}

/// The detail type of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema)]
pub enum TeamEventKind {
    /// The operator has registered a task.
    TaskRegistered,
    /// A task is not registered, or not allowed in the mesh, for a reason that its team can correct.
    TaskRejected,
    /// A registration or token of a live task was drained, removed or revoked: its role or the manifests no longer allow it.
    IdentityWithdrawn,
    /// The guard holds a drain or removal.
    GuardTripped,
    /// A registration that another writer had changed or removed is as declared again.
    DriftRepaired,
    /// The version of a control plane is not supported, so that nothing is written to it.
    ControlPlaneUnsupported,
}

impl TeamEventKind {
    /// All kinds.
    pub const ALL: [Self; 6] = [
        Self::TaskRegistered,
        Self::TaskRejected,
        Self::IdentityWithdrawn,
        Self::GuardTripped,
        Self::DriftRepaired,
        Self::ControlPlaneUnsupported,
    ];

    /// The value of `detail-type`, and of the metric's label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TaskRegistered => "TaskRegistered",
            Self::TaskRejected => "TaskRejected",
            Self::IdentityWithdrawn => "IdentityWithdrawn",
            Self::GuardTripped => "GuardTripped",
            Self::DriftRepaired => "DriftRepaired",
            Self::ControlPlaneUnsupported => "ControlPlaneUnsupported",
        }
    }
}

/// The detail of an event.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct TeamEventDetail {
    /// The sender.
    #[serde(flatten)]
    pub origin: TeamEventOrigin,
    /// The subject.
    #[serde(flatten)]
    pub subject: TeamEventSubject,
    /// The cause.
    #[serde(flatten)]
    pub cause: TeamEventCause,
    /// The tasks.
    #[serde(flatten)]
    pub tasks: TeamEventTasks,
}

/// The sender of an event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TeamEventOrigin {
    /// The version of this form: 1.
    pub schema_version: u32,
    /// The operator's id.
    pub operator: String,
    /// The tasks' account; the operator's where no task is the subject, once it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// The tasks' Region; the operator's where no task is the subject.
    pub region: String,
}

/// The subject of an event, as far as it has the parts and they are known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TeamEventSubject {
    /// The name of the tasks' cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// The name of the ECS service that started the tasks. All tasks of an event have the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ecs_service: Option<String>,
    /// The `Workload` of the first task; the service's name where the task's tags describe it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workload: Option<String>,
    /// The service of the first task in the mesh.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// The `MeshBinding`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub binding: Option<String>,
    /// The `ControlPlane`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub control_plane: Option<String>,
    /// The mesh; none at Consul.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mesh: Option<String>,
    /// The name of the first task's registration, or of the token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registration: Option<String>,
    /// The role of the first task.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub role: Option<RoleArn>,
}

/// The cause of an event. Messages are for people, and may change in any release; the other fields are for rules.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TeamEventCause {
    /// A label: `rejected` or another reason of a warning, or the cause of a change, such as `role_tags`.
    pub reason: String,
    /// Of the first task, for people; at most 1,000 characters.
    pub message: String,
    /// The rules that the first task breaks: the key of a role's tag, or another rule such as `no_task_role`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<&'static str>,
    /// The next step for the first task, where it is known; at most 1,000 characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
    /// The change that was made, or is held: `create`, `update`, `drain`, `remove` or `revoke`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub change: Option<&'static str>,
    /// The paths of the changed fields of the first task's registration, without values; at most 20.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<String>,
}

/// The tasks of an event.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TeamEventTasks {
    /// How many tasks have had this cause since its first event; 0 where no task is the subject.
    pub count: usize,
    /// At most 5 of them, the latest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<String>")]
    pub tasks: Vec<TaskArn>,
}
