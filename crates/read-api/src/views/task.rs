//! Tasks.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::labels::labels;
use crate::{ChangeView, IdentityKindView, PageItem, ResourceView, TaskStateView, TimeView};

/// A task, as ECS and the control planes show it and as the operator evaluates it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TaskView {
    /// The task's id.
    pub name: Arc<str>,
    /// The task's ARN.
    pub arn: Arc<str>,
    /// The ARN of its cluster.
    pub cluster: Arc<str>,
    /// The AWS account.
    pub account: Arc<str>,
    /// The AWS region.
    pub region: Arc<str>,
    /// The ECS service that started it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ecs_service: Option<Arc<str>>,
    /// The task definition; absent where ECS does not show the task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub definition: Option<Arc<str>>,
    /// ECS's `lastStatus`; absent where ECS does not show the task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_status: Option<Arc<str>>,
    /// ECS's `desiredStatus`; absent where ECS does not show the task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub desired_status: Option<Arc<str>>,
    /// The task's first address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// The task role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Arc<str>>,
    /// When ECS created the task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<TimeView>,
    /// The state.
    pub state: TaskStateView,
    /// Why the task is in its state, where that is not as declared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<ReasonView>,
    /// The `Workload`s that select the task.
    pub workloads: Vec<Arc<str>>,
    /// The `MeshBinding` that selects the task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binding: Option<Arc<str>>,
    /// The `ControlPlane` of the binding.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control_plane: Option<Arc<str>>,
    /// The mesh service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<Arc<str>>,
    /// The registrations of the task.
    pub registrations: Vec<RegistrationView>,
    /// Active warnings.
    pub warnings: Vec<TaskWarningView>,
}

impl ResourceView for TaskView {
    const KIND: &'static str = "Task";
}

impl PageItem for TaskView {
    fn key(&self) -> String {
        self.arn.to_string()
    }
}

/// A reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReasonView {
    /// A bounded label: that of a warning, of a hold, of a verdict, or of a change's cause.
    pub key: Arc<str>,
    /// The reason for a person.
    pub message: String,
}

/// A registration of a task, as last listed or written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RegistrationView {
    /// The `ControlPlane`.
    pub control_plane: Arc<str>,
    /// The mesh; absent at Consul and for a zone's proxies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mesh: Option<Arc<str>>,
    /// The name: of a Dataplane or zone proxy, the id of a catalog service, the accessor of a token.
    pub name: Arc<str>,
    /// The mesh service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<Arc<str>>,
    /// The kind.
    pub kind: IdentityKindView,
    /// Whether it serves, as far as known: clients are routed to it, and its sidecar is connected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready: Option<bool>,
    /// When the readiness was read; absent where it is not known, or follows from the drain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub readiness_observed_at: Option<TimeView>,
    /// Why this operator took it out of load balancing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drained: Option<DrainedView>,
}

/// Why a registration is drained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DrainedView {
    /// ECS stops the task.
    #[serde(rename = "stopping")]
    Stopping,
    /// An event reported the stop, and ECS could not be asked.
    #[serde(rename = "unconfirmed")]
    Unconfirmed,
    /// The role does not allow the task.
    #[serde(rename = "revoked")]
    Revoked,
    /// The manifests no longer ask for it.
    #[serde(rename = "not-desired")]
    NotDesired,
}

labels!(DrainedView {
    Stopping => "stopping",
    Unconfirmed => "unconfirmed",
    Revoked => "revoked",
    NotDesired => "not-desired",
});

/// An active warning of a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TaskWarningView {
    /// A bounded label.
    pub reason: Arc<str>,
    /// The warning for a person.
    pub message: Arc<str>,
    /// The next step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fix: Option<Arc<str>>,
}

/// A task with what its state rests on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TaskDetailView {
    /// The task.
    #[serde(flatten)]
    pub task: TaskView,
    /// ECS's answer; absent where ECS does not show the task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<EvidenceView>,
    /// The tags of the role that its rules are about; empty while they are not known.
    pub role_tags: Vec<RoleTagView>,
    /// The verdict at each control plane, as `explain` prints it.
    pub verdict: Vec<VerdictView>,
    /// The newest changes, at most 100, the newest first.
    pub history: Vec<ChangeView>,
}

impl ResourceView for TaskDetailView {
    const KIND: &'static str = "Task";
}

/// ECS's answer on a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EvidenceView {
    /// ECS's `lastStatus`.
    pub last_status: Arc<str>,
    /// ECS's `desiredStatus`.
    pub desired_status: Arc<str>,
    /// The version of the task.
    pub version: i64,
    /// When ECS last showed the task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen_at: Option<TimeView>,
    /// By which call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen_by: Option<SeenByView>,
}

/// The call that showed a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum SeenByView {
    /// An event.
    Event,
    /// `DescribeTasks`.
    Describe,
    /// `ListTasks`.
    List,
}

labels!(SeenByView { Event => "event", Describe => "describe", List => "list", });

/// A tag of a role, against its rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RoleTagView {
    /// The tag's key.
    pub key: Arc<str>,
    /// Its value; absent where the role lacks the tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Arc<str>>,
    /// The value that the rule asks for, where it is one value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<Arc<str>>,
    /// Whether the rule is kept.
    pub ok: bool,
}

/// The verdict on a task at one control plane.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VerdictView {
    /// The `ControlPlane`.
    pub control_plane: Arc<str>,
    /// The verdict as `explain` prints it of a plan: a line for each part.
    pub text: String,
    /// The change that is due, or that something is in the way of, as in a plan; absent where none is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<Arc<str>>,
    /// Why the change is withheld, as in a plan; absent where it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocked_by: Option<Arc<str>>,
}

/// The registrations of a task as their control planes have them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TaskRegistrationsView {
    /// The task's id.
    pub name: Arc<str>,
    /// The registrations.
    pub registrations: Vec<RegistrationBodyView>,
}

impl ResourceView for TaskRegistrationsView {
    const KIND: &'static str = "TaskRegistrations";
}

/// A registration as its control plane has it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RegistrationBodyView {
    /// The `ControlPlane`.
    pub control_plane: Arc<str>,
    /// The mesh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mesh: Option<Arc<str>>,
    /// The registration's name.
    pub name: Arc<str>,
    /// The answer of the control plane; absent for tokens and catalog services, and where it does not find one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<Value>,
    /// Why there is no body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}
