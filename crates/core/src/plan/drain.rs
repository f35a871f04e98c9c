//! Why registrations are drained.

/// Why a registration is drained. Written on the registration as a label, so that a restarted operator distinguishes its
/// own drains from a user's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DrainReason {
    /// ECS is stopping the task, or has.
    Stopping,
    /// An event reported the stop, and ECS could not be asked.
    Unconfirmed,
    /// The role's tags no longer allow it.
    Revoked,
    /// The manifests no longer declare the registration.
    NotDesired,
}

impl DrainReason {
    const NAMES: [(&'static str, Self); 4] = [
        ("stopping", Self::Stopping),
        ("unconfirmed", Self::Unconfirmed),
        ("revoked", Self::Revoked),
        ("not-desired", Self::NotDesired),
    ];

    /// The value of the ownership label, and of metric labels.
    pub fn as_str(self) -> &'static str {
        Self::NAMES.iter().find(|(_, reason)| *reason == self).map_or("", |(name, _)| name)
    }

    /// Parses the value of the ownership label.
    pub fn parse(text: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(name, _)| *name == text).map(|(_, reason)| *reason)
    }
}
