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

    /// The owner of a Dataplane with this operator's labels, where the manifests name `self`. Unless they let it only be
    /// observed, its last writer owns it: the operator if it carries the writer mark, which a sidecar in template mode
    /// overwrites at its connect. A sidecar that starts by name writes none.
    #[must_use]
    pub fn of_registered(self, has_writer_mark: bool, sidecar: Option<SidecarDataplane>) -> Self {
        match self {
            Self::Observe => Self::Observe,
            _ if has_writer_mark || sidecar == Some(SidecarDataplane::Named) => Self::Operator,
            _ => Self::Sidecar,
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
    fn last_writer_owns_a_dataplane_unless_observed() {
        use DataplaneOwner::{Observe, Operator, Sidecar};
        let (named, template) = (Some(SidecarDataplane::Named), Some(SidecarDataplane::Template));
        for declared in [Operator, Sidecar] {
            for (has_writer_mark, sidecar, expected) in [
                (true, None, Operator),
                (true, named, Operator),
                // It has not connected since the operator wrote.
                (true, template, Operator),
                (false, None, Sidecar),
                (false, named, Operator),
                (false, template, Sidecar),
            ] {
                let found = declared.of_registered(has_writer_mark, sidecar);
                assert_eq!(found, expected, "{declared} {has_writer_mark} {sidecar:?}");
            }
        }
        for (has_writer_mark, sidecar) in [(true, None), (true, named), (false, template)] {
            assert_eq!(Observe.of_registered(has_writer_mark, sidecar), Observe);
        }
    }
}
