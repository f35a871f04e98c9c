//! Limits and rules of values, defined once for loading and for the schemas.

use std::ops::RangeInclusive;
use std::time::Duration;

/// `ControlPlane`: `writesPerSecond`.
pub const WRITES_PER_SECOND: RangeInclusive<u32> = 1..=10_000;
/// `AwsAccount`: `readsPerSecond`.
pub const READS_PER_SECOND: RangeInclusive<u16> = 1..=1_000;
/// `MeshBinding`: `cleanup.guard.maxFraction`.
pub const MAX_FRACTION: RangeInclusive<f64> = 0.0..=1.0;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);

/// `ControlPlane`: `kuma.timeout`.
pub const TIMEOUT: DurationRange = DurationRange {
    min: Duration::from_millis(100),
    max: MINUTE.saturating_mul(2),
    description: "100ms to 2m",
};
/// `MeshBinding`: `roleTags.recheck`.
pub const RECHECK: DurationRange =
    DurationRange { min: SECOND.saturating_mul(30), max: DAY, description: "30s to 24h" };
/// `MeshBinding`: `cleanup.sweepInterval`.
pub const SWEEP_INTERVAL: DurationRange =
    DurationRange { min: SECOND.saturating_mul(10), max: DAY, description: "10s to 24h" };
/// `MeshBinding`: `cleanup.graceAge`.
pub const GRACE_AGE: DurationRange =
    DurationRange { min: Duration::ZERO, max: DAY, description: "0s to 24h" };
/// `MeshBinding`: `cleanup.drain`.
pub const DRAIN: DurationRange =
    DurationRange { min: Duration::ZERO, max: MINUTE.saturating_mul(10), description: "0s to 10m" };
/// `MeshBinding`: `drain.maxHold`.
pub const MAX_HOLD: DurationRange =
    DurationRange { min: Duration::ZERO, max: MINUTE.saturating_mul(15), description: "0s to 15m" };
/// `MeshBinding`: `deployments.maxHold`. ECS protects a task for at most 48 hours.
///
/// Source: <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_UpdateTaskProtection.html>.
pub const DEPLOYMENT_HOLD: DurationRange =
    DurationRange { min: MINUTE, max: DAY.saturating_mul(2), description: "1m to 48h" };
/// `MeshBinding`: `drain.revokedWithin`.
pub const REVOKED_WITHIN: DurationRange =
    DurationRange { min: Duration::ZERO, max: MINUTE.saturating_mul(5), description: "0s to 5m" };

/// `MeshBinding`: `cleanup.settle`.
pub const SETTLE: DurationRange =
    DurationRange { min: Duration::ZERO, max: MINUTE.saturating_mul(60), description: "0s to 1h" };

/// `MeshBinding`: `tokens.validFor`.
pub const TOKEN_VALID_FOR: DurationRange =
    DurationRange { min: DAY, max: DAY.saturating_mul(3_650), description: "1d to 3650d" };
/// `MeshBinding`: `tokens.rotateBefore`.
pub const TOKEN_ROTATE_BEFORE: DurationRange =
    DurationRange { min: HOUR.saturating_mul(6), max: DAY.saturating_mul(1_825), description: "6h to 1825d" };
/// `MeshBinding`: `tokens.overlap`.
pub const TOKEN_OVERLAP: DurationRange = DurationRange {
    min: MINUTE.saturating_mul(10),
    max: DAY.saturating_mul(1_825),
    description: "10m to 1825d",
};

/// `ConsulAuth`: `tokenTtl`, where it is not zero. A server may have a lower maximum.
pub const TOKEN_TTL: DurationRange =
    DurationRange { min: MINUTE, max: DAY.saturating_mul(365), description: "1m to 365d" };
/// `ConsulAuth`: the rule of `tokenTtl`.
pub const TOKEN_TTL_OR_NONE: &str = "`0s`, or 1m to 365d";
/// `ConsulAuth`: the format of `tokenTtl` in the reference.
pub(crate) const TOKEN_TTL_FORMAT: &str = "duration 1m–365d, or `0s`";

/// The rule of DNS-1035 labels.
pub const DNS_LABEL_RULE: &str =
    "lower-case letters, digits and '-', starting with a letter, not ending with '-', at most 63 characters";
/// `MeshBinding`: the rule of `tokens.path`. Parameter Store allows 15 levels, and reserves names that begin with `aws`
/// and `ssm`.
pub const TOKEN_PATH_RULE: &str = "`/` before each of at most 8 parts of letters, digits, '_', '.' and '-', at most 200 \
                                   characters, not beginning with /aws or /ssm";
/// `MeshBinding`: the rule of `tokens.kmsKey`.
pub const KMS_KEY_RULE: &str = "the ARN or id of a key, or alias/NAME";
/// `AwsAccount`: the rule of `externalId`.
pub const EXTERNAL_ID_RULE: &str = "2 to 1224 letters, digits and any of _+=,.@:/-";
/// The rule of names of Consul's ACL objects.
pub(crate) const CONSUL_NAME_RULE: &str = "letters, digits, '-' and '_', at most 128 characters";

/// A range of durations that includes both ends.
#[derive(Clone, Copy, Debug)]
pub struct DurationRange {
    /// The minimum.
    pub min: Duration,
    /// The maximum.
    pub max: Duration,
    /// The range as errors have it: `30s to 24h`.
    pub description: &'static str,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::HumanDuration;

    #[test]
    fn range_descriptions_match_their_limits() {
        for DurationRange { min, max, description } in [
            TIMEOUT,
            RECHECK,
            SWEEP_INTERVAL,
            GRACE_AGE,
            DRAIN,
            MAX_HOLD,
            DEPLOYMENT_HOLD,
            REVOKED_WITHIN,
            SETTLE,
            TOKEN_VALID_FOR,
            TOKEN_ROTATE_BEFORE,
            TOKEN_OVERLAP,
            TOKEN_TTL,
        ] {
            let ends: Vec<_> =
                description.split(" to ").map(|end| HumanDuration::parse(end).unwrap().0).collect();
            assert_eq!(ends, [min, max], "{description}");
        }
        assert!(TOKEN_TTL_OR_NONE.ends_with(TOKEN_TTL.description));
    }
}
