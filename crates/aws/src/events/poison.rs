//! Why a body cannot be decoded: a bounded reason and a location, never content.

use super::Decoded;

/// Why a body cannot be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PoisonReason {
    /// Longer than [`super::MAX_BODY_BYTES`].
    TooLarge,
    /// Not JSON, or truncated.
    NotJson,
    /// A required field is missing, null or empty.
    MissingField,
    /// A field has the wrong JSON type, or occurs twice.
    WrongType,
    /// An ARN with the wrong form or resource type.
    InvalidArn,
    /// A time that is not ISO 8601.
    InvalidTimestamp,
    /// A name or an account id that AWS does not allow.
    InvalidName,
    /// A version that is negative or not an integer.
    InvalidVersion,
    /// A task status that is unknown to this version.
    UnknownStatus,
    /// The task's ARN and `clusterArn` name different clusters.
    ClusterMismatch,
    /// The envelope's account or Region is not that of the resource, or IAM's events do not come from this Region.
    OriginMismatch,
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
            Self::InvalidName => "invalid_name",
            Self::InvalidVersion => "invalid_version",
            Self::UnknownStatus => "unknown_status",
            Self::ClusterMismatch => "cluster_mismatch",
            Self::OriginMismatch => "origin_mismatch",
        }
    }
}

/// A reason with its location.
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
        Self::Poison { reason: poison.reason, path: poison.path }
    }
}
