//! Which accounts and Regions can be read, by the last sweep. One that cannot keeps its registrations, and delays no other.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tracing::{info, warn};

use crate::telemetry::metrics::Metrics;
use ecs_mesh_aws::aws::{AwsError, AwsErrorKind};
use ecs_mesh_controller::ActiveWarnings;
use ecs_mesh_model::AccountRegion;

/// The accounts and Regions of the last sweep.
#[derive(Default)]
pub(super) struct AccountReads {
    /// The error with which all reads of the last sweep failed; `None` where one succeeded.
    last: Mutex<BTreeMap<AccountRegion, Option<AwsError>>>,
    warnings: ActiveWarnings<AccountRegion, (&'static str, String)>,
}

impl AccountReads {
    /// Records that a read succeeded.
    pub(super) fn record_success(&self, place: &AccountRegion) {
        self.lock().insert(place.clone(), None);
        if self.warnings.clear(place) {
            info!(account = %place.account, region = %place.region, "the account can be read again");
        }
    }

    /// Records that all reads of a sweep failed.
    pub(super) fn record_failure(&self, place: &AccountRegion, error: &AwsError, metrics: &Metrics) {
        self.lock().insert(place.clone(), Some(error.clone()));
        metrics.record_warning("account_unreadable");
        if self.warnings.raise(place.clone(), (error.operation, error.code.clone())) {
            warn!(
                account = %place.account, region = %place.region, step = error.operation, %error,
                "cannot read the account; keeping its registrations"
            );
        }
    }

    /// Forgets all other accounts and Regions.
    pub(super) fn retain(&self, is_swept: impl Fn(&AccountRegion) -> bool) {
        self.lock().retain(|place, _| is_swept(place));
        self.warnings.retain(is_swept);
    }

    /// Whether each account and Region could be read, with the error where not.
    pub(super) fn all(&self) -> BTreeMap<AccountRegion, Option<AwsError>> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<AccountRegion, Option<AwsError>>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads of one account and Region in one sweep.
#[derive(Default)]
pub(super) struct AccountSweep {
    succeeded: bool,
    first_error: Option<AwsError>,
    /// Failures in a row that are no answer of the account.
    unanswered: usize,
}

impl AccountSweep {
    /// Clusters in a row without an answer after which the rest of the account waits for the next sweep: each costs the time
    /// limits of its calls, and another account's sweep waits for the end of this one.
    const MAX_UNANSWERED: usize = 2;

    /// Records the result of the lists of a cluster, or of the list of clusters.
    pub(super) fn record(&mut self, result: Result<(), AwsError>) {
        match result {
            Ok(()) => (self.succeeded, self.unanswered) = (true, 0),
            Err(error) => {
                let is_unanswered =
                    matches!(error.kind, AwsErrorKind::Unavailable | AwsErrorKind::Credentials)
                        || is_of_account(&error);
                self.unanswered = if is_unanswered { self.unanswered + 1 } else { 0 };
                self.first_error.get_or_insert(error);
            }
        }
    }

    /// Whether the rest of the account waits for the next sweep.
    pub(super) fn gives_up(&self) -> bool {
        self.unanswered >= Self::MAX_UNANSWERED
    }

    /// The error, where nothing could be read.
    pub(super) fn failure(&self) -> Option<&AwsError> {
        self.first_error.as_ref().filter(|_| !self.succeeded)
    }
}

/// Whether a failed read shows that the account cannot be read at all, whatever the cluster.
pub(super) fn is_of_account(error: &AwsError) -> bool {
    error.operation == "sts:AssumeRole" || matches!(&*error.code, "UndeclaredAccount" | "UnlistedRegion")
}

#[cfg(test)]
mod tests {
    use super::*;
    use ecs_mesh_aws::fakes;

    #[test]
    fn account_gives_up_after_two_clusters_without_an_answer() {
        let error = |kind| Err(fakes::error(kind));
        let mut sweep = AccountSweep::default();
        sweep.record(error(AwsErrorKind::Unavailable));
        sweep.record(error(AwsErrorKind::Denied));
        sweep.record(error(AwsErrorKind::Unavailable));
        assert!(!sweep.gives_up(), "a refusal is an answer");
        assert_eq!(sweep.failure().map(|error| error.kind), Some(AwsErrorKind::Unavailable));
        sweep.record(error(AwsErrorKind::Credentials));
        assert!(sweep.gives_up());
        sweep.record(Ok(()));
        assert!(!sweep.gives_up() && sweep.failure().is_none());
    }

    #[test]
    fn account_that_left_the_manifests_is_forgotten() {
        let (reads, metrics) = (AccountReads::default(), Metrics::default());
        let place = AccountRegion::new("444455556666", "eu-west-1");
        reads.record_failure(&place, &fakes::error(AwsErrorKind::Denied), &metrics);
        assert!(reads.all()[&place].is_some());
        reads.retain(|_| false);
        assert!(reads.all().is_empty());
    }
}
