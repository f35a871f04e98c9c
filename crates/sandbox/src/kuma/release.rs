//! The releases that can be emulated. The operator's own table has the features of each.

use std::fmt;
use std::str::FromStr;

use ecs_mesh_api::{KumaFeature, KumaRelease};

/// A release of Kuma that the control plane can emulate. Kong Mesh has the numbers of the Kuma that it contains.
///
/// Releases are ordered by age.
///
/// ```
/// use ecs_mesh_sandbox::kuma::EmulatedRelease;
///
/// let release: EmulatedRelease = "2.13".parse()?;
/// assert!(release < EmulatedRelease::V3_0);
/// assert!("3.1".parse::<EmulatedRelease>().is_err());
/// # Ok::<(), ecs_mesh_sandbox::kuma::EmulatedReleaseError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
pub enum EmulatedRelease {
    V2_7,
    V2_8,
    V2_9,
    V2_10,
    V2_11,
    V2_12,
    V2_13,
    V2_14,
    V3_0,
}

/// A text that names no release that can be emulated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} cannot be emulated: use one of {allowed}", allowed = EmulatedRelease::allowed())]
pub struct EmulatedReleaseError {
    found: String,
}

impl EmulatedRelease {
    /// All of them, oldest first.
    pub const ALL: [Self; 9] = [
        Self::V2_7,
        Self::V2_8,
        Self::V2_9,
        Self::V2_10,
        Self::V2_11,
        Self::V2_12,
        Self::V2_13,
        Self::V2_14,
        Self::V3_0,
    ];

    /// Major and minor version.
    pub const fn text(self) -> &'static str {
        match self {
            Self::V2_7 => "2.7",
            Self::V2_8 => "2.8",
            Self::V2_9 => "2.9",
            Self::V2_10 => "2.10",
            Self::V2_11 => "2.11",
            Self::V2_12 => "2.12",
            Self::V2_13 => "2.13",
            Self::V2_14 => "2.14",
            Self::V3_0 => "3.0",
        }
    }

    /// Whether the release has the feature.
    pub fn has(self, feature: KumaFeature) -> bool {
        let (major, minor) = match self {
            Self::V2_7 => (2, 7),
            Self::V2_8 => (2, 8),
            Self::V2_9 => (2, 9),
            Self::V2_10 => (2, 10),
            Self::V2_11 => (2, 11),
            Self::V2_12 => (2, 12),
            Self::V2_13 => (2, 13),
            Self::V2_14 => (2, 14),
            Self::V3_0 => (3, 0),
        };
        KumaRelease::new(major, minor).has(feature)
    }

    fn allowed() -> String {
        Self::ALL.map(Self::text).join(", ")
    }
}

impl fmt::Display for EmulatedRelease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl FromStr for EmulatedRelease {
    type Err = EmulatedReleaseError;

    fn from_str(text: &str) -> Result<Self, EmulatedReleaseError> {
        let known = Self::ALL.into_iter().find(|release| release.text() == text);
        known.ok_or_else(|| EmulatedReleaseError { found: text.chars().take(80).collect() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_parsed_and_ordered() {
        for pair in EmulatedRelease::ALL.windows(2) {
            assert!(pair[0] < pair[1]);
            assert_eq!(pair[0].to_string().parse(), Ok(pair[0]));
        }
        for unknown in ["2.6", "2", "2.14.3", "3.1", "unknown", ""] {
            let error = unknown.parse::<EmulatedRelease>().unwrap_err().to_string();
            assert!(error.contains("2.14, 3.0"), "{error}");
        }
    }
}
