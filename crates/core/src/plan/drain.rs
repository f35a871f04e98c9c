//! Why registrations are taken out of service.

/// Why a registration is drained: kept on it as a mark, so that a restarted operator knows its own drains from a
/// person's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DrainReason {
    /// ECS is stopping the task, or has.
    Stopping,
    /// The role's tags no longer allow it.
    Revoked,
    /// The manifests no longer ask for it.
    Unwanted,
}

impl DrainReason {
    const NAMES: [(&'static str, Self); 3] =
        [("stopping", Self::Stopping), ("revoked", Self::Revoked), ("unwanted", Self::Unwanted)];

    /// The mark's text, also a metric's label.
    pub fn as_str(self) -> &'static str {
        Self::NAMES.iter().find(|(_, reason)| *reason == self).map_or("", |(name, _)| name)
    }

    /// Reads the mark.
    pub fn parse(text: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(name, _)| *name == text).map(|(_, reason)| *reason)
    }
}
