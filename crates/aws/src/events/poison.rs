//! Why a body cannot be read: a bounded reason and a place, never the content.

use super::Decoded;

/// What is wrong with a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PoisonReason {
    /// Longer than [`super::MAX_BODY_BYTES`].
    TooLarge,
    /// Not JSON, or cut off.
    NotJson,
    /// A field that is needed is missing, null or empty.
    MissingField,
    /// A field has another JSON type than it should, or is there twice.
    WrongType,
    /// An ARN of another shape or kind.
    InvalidArn,
    /// A time that is not ISO 8601.
    InvalidTimestamp,
    /// An address that is neither IPv4 nor IPv6.
    InvalidAddress,
    /// A name or an account number that AWS would not allow.
    InvalidName,
    /// A version that is negative or no whole number.
    InvalidVersion,
    /// A task status that ECS did not have when this was built.
    UnknownStatus,
    /// The task's ARN names another cluster than `clusterArn` does.
    ClusterMismatch,
}

impl PoisonReason {
    /// A bounded label for metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::TooLarge => "too_large",
            Self::NotJson => "not_json",
            Self::MissingField => "missing_field",
            Self::WrongType => "wrong_type",
            Self::InvalidArn => "invalid_arn",
            Self::InvalidTimestamp => "invalid_timestamp",
            Self::InvalidAddress => "invalid_address",
            Self::InvalidName => "invalid_name",
            Self::InvalidVersion => "invalid_version",
            Self::UnknownStatus => "unknown_status",
            Self::ClusterMismatch => "cluster_mismatch",
        }
    }
}

/// A reason with its place.
#[derive(Debug)]
pub(super) struct PoisonMessage {
    reason: PoisonReason,
    path: String,
}

impl PoisonMessage {
    pub(super) fn new(reason: PoisonReason, path: impl Into<String>) -> Self {
        Self { reason, path: path.into() }
    }
}

impl From<PoisonMessage> for Decoded {
    fn from(poison: PoisonMessage) -> Self {
        Self::Poison { reason: poison.reason, where_: poison.path }
    }
}
