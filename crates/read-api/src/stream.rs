//! Events of the stream.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{ChangeView, StatusView, WarningView};

/// An event of the stream: its name is the event's type, and its data the fields of the view as JSON.
#[derive(Clone, Debug, PartialEq)]
pub enum StreamEventView {
    /// A change was made.
    Change(Box<ChangeView>),
    /// A warning began, or its message changed.
    Warning(Box<WarningView>),
    /// A condition is over.
    Resolved(ResolvedView),
    /// The state of the operator changed.
    Status(Box<StatusView>),
    /// Views of these tasks and services changed.
    Tasks(ChangedView),
    /// Events were lost: read again what is shown.
    Reset,
}

impl StreamEventView {
    /// The event's type.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Change(_) => "change",
            Self::Warning(_) => "warning",
            Self::Resolved(_) => "resolved",
            Self::Status(_) => "status",
            Self::Tasks(_) => "tasks",
            Self::Reset => "reset",
        }
    }

    /// The event's data: one line of JSON.
    pub fn data(&self) -> String {
        // These types have string keys alone, so serialising them does not fail.
        let text = match self {
            Self::Change(change) => serde_json::to_string(change),
            Self::Warning(warning) => serde_json::to_string(warning),
            Self::Resolved(resolved) => serde_json::to_string(resolved),
            Self::Status(status) => serde_json::to_string(status),
            Self::Tasks(changed) => serde_json::to_string(changed),
            Self::Reset => Ok("{}".to_owned()),
        };
        text.unwrap_or_default()
    }

    /// Parses an event; `Ok(None)` for a type that this version does not know.
    ///
    /// # Errors
    /// The data does not have the form of its type.
    pub fn parse(name: &str, data: &str) -> Result<Option<Self>, serde_json::Error> {
        Ok(Some(match name {
            "change" => Self::Change(serde_json::from_str(data)?),
            "warning" => Self::Warning(serde_json::from_str(data)?),
            "resolved" => Self::Resolved(serde_json::from_str(data)?),
            "status" => Self::Status(serde_json::from_str(data)?),
            "tasks" => Self::Tasks(serde_json::from_str(data)?),
            "reset" => Self::Reset,
            _ => return Ok(None),
        }))
    }
}

/// A condition that is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResolvedView {
    /// The reason of the warning.
    pub reason: Arc<str>,
    /// The `ControlPlane`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control_plane: Option<Arc<str>>,
    /// The ARN of the task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<Arc<str>>,
    /// The service in the mesh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<Arc<str>>,
}

/// Tasks and services whose views changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ChangedView {
    /// Ids of tasks, at most 1,000.
    pub tasks: Vec<Arc<str>>,
    /// Keys of services: `CONTROL_PLANE/MESH or -/NAME`, at most 1,000. A service is among them when an outbound to it
    /// changed, too.
    pub services: Vec<Arc<str>>,
    /// Whether more changed than is named.
    pub more: bool,
}
