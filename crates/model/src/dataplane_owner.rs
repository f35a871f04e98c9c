//! The owner of a task's Dataplane.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::SidecarDataplane;

/// Owner of a task's Dataplane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum DataplaneOwner {
    /// The operator creates, updates, drains and removes it.
    #[default]
    Operator,
    /// The sidecar registers it from a template. The operator checks it, and removes it once the task is gone if it carries
    /// the operator's ownership labels.
    Sidecar,
    /// The operator writes nothing, and reports what it would write.
    Observe,
}

impl DataplaneOwner {
    /// The text in manifests.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Sidecar => "sidecar",
            Self::Observe => "observe",
        }
    }

    /// The owner of a Dataplane with this operator's labels, where the manifests name `self`. After a change of the manifests
    /// the sidecar of a running task shows who has written its Dataplane: a sidecar that starts by name writes none, and one
    /// in template mode overwrites what others write.
    #[must_use]
    pub fn of_registered(self, sidecar: Option<SidecarDataplane>) -> Self {
        match (self, sidecar) {
            (Self::Observe, _) => Self::Observe,
            (_, Some(SidecarDataplane::Template)) => Self::Sidecar,
            (_, Some(SidecarDataplane::Named)) => Self::Operator,
            (declared, None) => declared,
        }
    }
}

impl fmt::Display for DataplaneOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sidecar_of_a_running_task_decides_unless_observed() {
        use DataplaneOwner::{Observe, Operator, Sidecar};
        for (declared, sidecar, expected) in [
            (Operator, None, Operator),
            (Operator, Some(SidecarDataplane::Named), Operator),
            (Operator, Some(SidecarDataplane::Template), Sidecar),
            (Sidecar, None, Sidecar),
            (Sidecar, Some(SidecarDataplane::Template), Sidecar),
            (Sidecar, Some(SidecarDataplane::Named), Operator),
            (Observe, None, Observe),
            (Observe, Some(SidecarDataplane::Named), Observe),
            (Observe, Some(SidecarDataplane::Template), Observe),
        ] {
            assert_eq!(declared.of_registered(sidecar), expected, "{declared} {sidecar:?}");
        }
    }
}
