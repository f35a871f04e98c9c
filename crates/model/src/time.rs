//! Wall-clock instants as plain numbers, so that pure crates compare them without reading a clock.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Milliseconds since the Unix epoch, UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// Parses an RFC 3339 time, the format of ECS events (`2026-11-22T03:24:21.091Z`).
    pub fn parse(text: &str) -> Option<Self> {
        let at = time::OffsetDateTime::parse(text, &time::format_description::well_known::Rfc3339).ok()?;
        i64::try_from(at.unix_timestamp_nanos() / 1_000_000).ok().map(Self)
    }

    /// The age of `self` at `now`; zero if `self` is in the future (clocks differ).
    pub fn age_at(self, now: Self) -> Duration {
        Duration::from_millis(u64::try_from(now.0.saturating_sub(self.0)).unwrap_or(0))
    }

    /// Seconds since the Unix epoch, with the milliseconds as a fraction.
    #[allow(clippy::cast_precision_loss)] // Milliseconds since 1970 fit into 53 bits until the year 287396.
    pub fn as_secs_f64(self) -> f64 {
        self.0 as f64 / 1_000.0
    }

    /// The instant `by` later.
    #[must_use]
    pub fn plus(self, by: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX)))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = i128::from(self.0) * 1_000_000;
        match time::OffsetDateTime::from_unix_timestamp_nanos(nanos)
            .ok()
            .and_then(|at| at.format(&time::format_description::well_known::Rfc3339).ok())
        {
            Some(text) => f.write_str(&text),
            None => write!(f, "{}ms", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamp_round_trips_rfc3339() {
        let at = Timestamp::parse("2026-11-22T03:24:21.091Z").unwrap();
        assert_eq!(at.to_string(), "2026-11-22T03:24:21.091Z");
    }

    #[test]
    fn timestamp_in_seconds_keeps_milliseconds() {
        assert_eq!(Timestamp(1_795_317_861_091).as_secs_f64().to_string(), "1795317861.091");
    }

    #[test]
    fn future_timestamp_has_zero_age() {
        assert_eq!(Timestamp(2_000).age_at(Timestamp(1_000)), Duration::ZERO);
    }
}
