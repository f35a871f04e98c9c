//! Why a registration may be drained or removed (invariant I2).

use std::fmt;
use std::time::Duration;

use super::KnownRegistration;
use crate::intent::RoleRule;
use crate::plan::{DrainReason, RemovalBasis};
use ecs_mesh_model::Timestamp;

/// Why a registration may be drained or removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// ECS wants the task to stop. Enough for a drain, not for a removal.
    Stopping,
    /// DescribeTasks reports STOPPED.
    Stopped,
    /// An event reported the stop, and ECS could not be asked. Enough for a drain, through the guard.
    StopEvent,
    /// After an event of the stop, DescribeTasks reported MISSING twice.
    StoppedMissing {
        /// ECS shows stopped tasks for at least an hour, so a task that is missing within an hour of its event is doubtful:
        /// the removal goes through the guard. Not so if this operator drained the registration after a describe had
        /// shown the stop.
        doubtful: bool,
    },
    /// Missing from complete sweeps for at least the grace age, and MISSING in a targeted describe.
    Absent {
        /// Complete sweeps of the cluster, by this process, that missed the task.
        sweeps: u32,
        /// End of the first of these sweeps.
        since: Timestamp,
        /// This operator drained the registration because ECS was stopping the task. ECS does not revoke a stop, and
        /// traffic left the registration at the drain, so the removal needs no guard.
        after_stop: bool,
    },
    /// The role's tags, read twice, do not allow the registration.
    RoleTags,
    /// The manifests, all valid, no longer declare the registration.
    Manifests,
    /// The manifests, all valid, do not allow the task role.
    RoleNotAllowed {
        /// The rules that the role breaks.
        rules: Vec<RoleRule>,
        /// An edit of the manifests is the cause. Otherwise the role's tags may be.
        by_edit: bool,
    },
}

impl Evidence {
    /// Whether the task's own stop is the evidence. All other evidence counts towards the guard.
    pub fn is_confirmed_stop(&self) -> bool {
        matches!(
            self,
            Self::Stopping
                | Self::Stopped
                | Self::StoppedMissing { doubtful: false }
                | Self::Absent { after_stop: true, .. }
        )
    }

    /// Whether the manifests are the evidence.
    pub(super) fn is_by_manifests(&self) -> bool {
        matches!(self, Self::Manifests | Self::RoleNotAllowed { .. })
    }

    /// Whether the role of the task is the evidence.
    pub fn is_by_role(&self) -> bool {
        matches!(self, Self::RoleTags | Self::RoleNotAllowed { .. })
    }

    /// The basis of a removal by this evidence, for the guard. The manifests have asked for it for `asked_for`.
    pub(super) fn removal_basis(&self, asked_for: Duration) -> RemovalBasis {
        match self {
            Self::Manifests | Self::RoleNotAllowed { by_edit: true, .. } => {
                RemovalBasis::Manifests { asked_for }
            }
            Self::RoleNotAllowed { by_edit: false, .. } | Self::RoleTags => RemovalBasis::RoleTags,
            Self::Stopping
            | Self::Stopped
            | Self::StopEvent
            | Self::StoppedMissing { .. }
            | Self::Absent { .. } => RemovalBasis::Unconfirmed,
        }
    }

    /// The task's evidence, applied to one of its registrations.
    pub(super) fn of(&self, registration: &KnownRegistration) -> Self {
        let after_stop = matches!(registration.drained, Some((DrainReason::Stopping, _)));
        match self {
            Self::Absent { sweeps, since, .. } => Self::Absent { sweeps: *sweeps, since: *since, after_stop },
            Self::StoppedMissing { doubtful } => Self::StoppedMissing { doubtful: *doubtful && !after_stop },
            other => other.clone(),
        }
    }

    /// A bounded label for metrics.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::StopEvent => "unconfirmed",
            Self::StoppedMissing { .. } => "stopped_missing",
            Self::Absent { .. } => "absent",
            Self::RoleTags => "role_tags",
            Self::Manifests | Self::RoleNotAllowed { .. } => "manifests",
        }
    }
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stopping => f.write_str("ECS is stopping the task"),
            Self::Stopped => f.write_str("ECS reports that the task has stopped"),
            Self::StopEvent => f.write_str("an event reports the task's stop, and ECS cannot be asked"),
            Self::StoppedMissing { .. } => {
                f.write_str("an event reported the task's stop, and ECS no longer finds the task")
            }
            Self::Absent { sweeps, since, .. } => {
                write!(
                    f,
                    "the task is missing from {sweeps} complete sweeps since {since}, and from a describe"
                )
            }
            Self::RoleTags => f.write_str("the role's tags, read twice, do not allow the registration"),
            Self::Manifests => f.write_str("the manifests no longer declare the registration"),
            Self::RoleNotAllowed { rules, .. } => {
                let rules: Vec<&str> = rules.iter().map(|rule| rule.label()).collect();
                write!(f, "the task role is not allowed by the manifests: {}", rules.join(", "))
            }
        }
    }
}
