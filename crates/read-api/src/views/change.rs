//! Changes and warnings.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::labels::labels;
use crate::{PageItem, ReasonView, ResourceView, TimeView};

/// A change that this operator made; on request also a warning about a task, or its end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ChangeView {
    /// Grows with each record of this process; the ids of the stream's events begin with it.
    pub id: u64,
    /// When it was made.
    pub time: TimeView,
    /// The change: `create`, `update`, `adopt`, `drain`, `remove`, `protect`, `unprotect`, or one of tokens; `warning` or
    /// `resolved` for a warning and its end.
    pub kind: Arc<str>,
    /// The kind of object: `registration`, `protection`, `data_plane_token`, or a kind of ACL object.
    pub object: Arc<str>,
    /// The `ControlPlane`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control_plane: Option<Arc<str>>,
    /// The mesh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mesh: Option<Arc<str>>,
    /// The name of the registration or the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Arc<str>>,
    /// The ARN of the task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<Arc<str>>,
    /// The ARN of its cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<Arc<str>>,
    /// The service in ECS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ecs_service: Option<Arc<str>>,
    /// The service in the mesh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<Arc<str>>,
    /// The `Workload`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<Arc<str>>,
    /// The task role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Arc<str>>,
    /// The `MeshBinding`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binding: Option<Arc<str>>,
    /// Why it was made; the reason of a warning.
    pub reason: ReasonView,
    /// The paths of the fields that an update changed, at most 20.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<String>,
    /// How it ended; absent for warnings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<ChangeResultView>,
    /// The error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl ChangeView {
    /// Whether this is a warning, or its end.
    #[must_use]
    pub fn is_warning(&self) -> bool {
        self.result.is_none()
    }
}

impl ResourceView for ChangeView {
    const KIND: &'static str = "Change";
}

impl PageItem for ChangeView {
    /// The newest change first.
    fn key(&self) -> String {
        format!("{:020}", u64::MAX - self.id)
    }
}

/// How a change ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum ChangeResultView {
    /// It took effect.
    Success,
    /// It took effect, and its response was lost.
    SuccessResponseLost,
    /// It failed, or its result is unknown.
    Error,
}

labels!(ChangeResultView {
    Success => "success",
    SuccessResponseLost => "successResponseLost",
    Error => "error",
});

/// An active warning, for all tasks with its cause.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WarningView {
    /// The same for as long as the warning lasts.
    pub id: Arc<str>,
    /// The `ControlPlane`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control_plane: Option<Arc<str>>,
    /// A bounded label.
    pub reason: Arc<str>,
    /// The warning of one of the tasks, for a person.
    pub message: Arc<str>,
    /// The next step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fix: Option<Arc<str>>,
    /// The number of tasks.
    pub tasks: usize,
    /// The ids of some of the tasks, at most 5.
    pub examples: Vec<Arc<str>>,
    /// Their services, at most 20.
    pub services: Vec<Arc<str>>,
    /// Since when, as far as this process knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<TimeView>,
}

impl ResourceView for WarningView {
    const KIND: &'static str = "Warning";
}

impl PageItem for WarningView {
    fn key(&self) -> String {
        self.id.to_string()
    }
}
