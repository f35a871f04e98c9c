//! The limits of values, once for the rules of loading and for the schemas.

use std::ops::RangeInclusive;
use std::time::Duration;

/// `ControlPlane`: `writesPerSecond`.
pub const WRITES_PER_SECOND: RangeInclusive<u32> = 1..=10_000;
/// `MeshBinding`: `cleanup.guard.maxFraction`.
pub const MAX_FRACTION: RangeInclusive<f64> = 0.0..=1.0;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_mins(1);
const DAY: Duration = Duration::from_hours(24);

/// `ControlPlane`: `kuma.timeout`.
pub const TIMEOUT: DurationRange =
    DurationRange { min: Duration::from_millis(100), max: MINUTE.saturating_mul(2), description: "100ms to 2m" };
/// `MeshBinding`: `roleTags.recheck`.
pub const RECHECK: DurationRange =
    DurationRange { min: SECOND.saturating_mul(30), max: DAY, description: "30s to 24h" };
/// `MeshBinding`: `cleanup.sweepInterval`.
pub const SWEEP_INTERVAL: DurationRange =
    DurationRange { min: SECOND.saturating_mul(10), max: DAY, description: "10s to 24h" };
/// `MeshBinding`: `cleanup.graceAge`.
pub const GRACE_AGE: DurationRange = DurationRange { min: Duration::ZERO, max: DAY, description: "0s to 24h" };
/// `MeshBinding`: `cleanup.drain`.
pub const DRAIN: DurationRange =
    DurationRange { min: Duration::ZERO, max: MINUTE.saturating_mul(10), description: "0s to 10m" };

/// `ConsulAuth`: `tokenTtl`, where it is not zero; a server may allow less.
pub const TOKEN_TTL: DurationRange =
    DurationRange { min: MINUTE, max: DAY.saturating_mul(365), description: "1m to 365d" };
/// `ConsulAuth`: `tokenTtl` in words.
pub const TOKEN_TTL_OR_NONE: &str = "`0s`, or 1m to 365d";

/// Both ends belong to it.
#[derive(Clone, Copy, Debug)]
pub struct DurationRange {
    /// The shortest.
    pub min: Duration,
    /// The longest.
    pub max: Duration,
    /// As people write it: `30s to 24h`.
    pub description: &'static str,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::HumanDuration;

    #[test]
    fn the_words_of_a_range_say_its_limits() {
        for DurationRange { min, max, description: words } in
            [TIMEOUT, RECHECK, SWEEP_INTERVAL, GRACE_AGE, DRAIN, TOKEN_TTL]
        {
            let said: Vec<_> = words.split(" to ").map(|end| HumanDuration::parse(end).unwrap().0).collect();
            assert_eq!(said, [min, max], "{words}");
        }
        assert!(TOKEN_TTL_OR_NONE.ends_with(TOKEN_TTL.description));
    }
}
