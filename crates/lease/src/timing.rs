//! The durations of a lease, with client-go's names and defaults.
//!
//! Source: `LeaderElectionConfig` of <https://pkg.go.dev/k8s.io/client-go/tools/leaderelection>.

use std::time::Duration;

/// The rate of one machine's steady clock may differ from another's by 1 part of this many. NTP slews by 500 ppm at most, a
/// fortieth of it.
const DRIFT_PARTS: u32 = 50;

/// A wait between two looks is shorter than the retry period by up to this part of it, so that candidates do not stay in
/// step and each wait keeps to the period.
const JITTER: f64 = 0.2;

/// The durations of a lease, consistent with each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseTiming {
    lease_duration: Duration,
    renew_deadline: Duration,
    retry_period: Duration,
}

/// Durations that contradict each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LeaseTimingError {
    /// The lease is too short or too long.
    #[error("the lease duration is {0:?}; allowed are 10s to 1h")]
    LeaseDuration(Duration),
    /// A leader would step down after its lease has ended.
    #[error(
        "the renew deadline is {deadline:?}; it must be shorter than the lease duration ({lease:?}) by a tenth of that"
    )]
    RenewDeadline {
        /// The given renew deadline.
        deadline: Duration,
        /// The lease duration.
        lease: Duration,
    },
    /// A leader would have one attempt to renew.
    #[error(
        "the retry period is {retry:?}; allowed are 500ms to a third of the renew deadline ({deadline:?})"
    )]
    RetryPeriod {
        /// The given retry period.
        retry: Duration,
        /// The renew deadline.
        deadline: Duration,
    },
}

impl LeaseTiming {
    /// Checks the durations.
    ///
    /// # Errors
    /// Names the duration at fault and what is allowed. Ten seconds is the shortest TTL of a session of Consul.
    pub fn new(
        lease_duration: Duration,
        renew_deadline: Duration,
        retry_period: Duration,
    ) -> Result<Self, LeaseTimingError> {
        if !(Duration::from_secs(10)..=Duration::from_hours(1)).contains(&lease_duration) {
            return Err(LeaseTimingError::LeaseDuration(lease_duration));
        }
        if renew_deadline > lease_duration.saturating_sub(lease_duration / 10) {
            return Err(LeaseTimingError::RenewDeadline { deadline: renew_deadline, lease: lease_duration });
        }
        if retry_period < Duration::from_millis(500) || retry_period > renew_deadline / 3 {
            return Err(LeaseTimingError::RetryPeriod { retry: retry_period, deadline: renew_deadline });
        }
        Ok(Self { lease_duration, renew_deadline, retry_period })
    }

    /// How long other candidates wait before they take a lease whose record has not changed.
    pub fn lease_duration(&self) -> Duration {
        self.lease_duration
    }

    /// How long a leader tries to renew before it steps down.
    pub fn renew_deadline(&self) -> Duration {
        self.renew_deadline
    }

    /// The longest wait between two looks at the record, or two renewals.
    pub fn retry_period(&self) -> Duration {
        self.retry_period
    }

    /// How long a leader may write after the moment before it sent its last renewal: the lease duration, less what the clocks
    /// of two machines may differ by.
    pub fn term(&self) -> Duration {
        self.lease_duration.saturating_sub(self.lease_duration / DRIFT_PARTS)
    }

    /// The longest time-out of a write that always starts while renewals succeed, one lost renewal included.
    pub fn longest_write(&self) -> Duration {
        self.term().saturating_sub(self.retry_period * 2)
    }

    /// The wait before the next look or renewal. `random` is in `0.0..1.0`.
    pub(crate) fn jittered_retry(&self, random: f64) -> Duration {
        self.retry_period.mul_f64(1.0 - JITTER * random.clamp(0.0, 1.0))
    }
}

impl Default for LeaseTiming {
    fn default() -> Self {
        Self {
            lease_duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry_period: Duration::from_secs(2),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(lease: u64, deadline: u64, retry: u64) -> Result<LeaseTiming, LeaseTimingError> {
        let s = Duration::from_secs;
        LeaseTiming::new(s(lease), s(deadline), s(retry))
    }

    #[test]
    fn defaults_are_client_go_and_valid() {
        assert_eq!(seconds(15, 10, 2), Ok(LeaseTiming::default()));
        // The default time-out of a control plane is 10 s.
        assert!(LeaseTiming::default().longest_write() > Duration::from_secs(10));
    }

    #[test]
    fn contradicting_durations_are_rejected() {
        assert!(matches!(seconds(9, 6, 2), Err(LeaseTimingError::LeaseDuration(_))));
        assert!(matches!(seconds(7200, 6, 2), Err(LeaseTimingError::LeaseDuration(_))));
        assert!(matches!(seconds(15, 14, 2), Err(LeaseTimingError::RenewDeadline { .. })));
        assert!(matches!(seconds(15, 10, 4), Err(LeaseTimingError::RetryPeriod { .. })));
        assert!(matches!(seconds(15, 10, 0), Err(LeaseTimingError::RetryPeriod { .. })));
    }

    #[test]
    fn retry_keeps_to_its_period() {
        let timing = LeaseTiming::default();
        assert_eq!(timing.jittered_retry(0.0), Duration::from_secs(2));
        assert_eq!(timing.jittered_retry(1.0), Duration::from_millis(1_600));
    }
}
