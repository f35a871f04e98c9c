//! Guarantees that reads of one account and Region stay below a rate of their own, and delay no reads of another.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ecs_mesh_controller::TokenBucket;
use ecs_mesh_model::{AccountRegion, ClusterArn};

/// Most accounts and Regions with a bucket of their own. Further ones share one: events name accounts and Regions, and a
/// forged one may name any.
const MAX_PLACES: usize = 1_024;

/// The token buckets of one group of reads, by account and Region. Shared by its clones.
#[derive(Clone, Debug)]
pub struct ReadBuckets(Arc<Mutex<Buckets>>);

#[derive(Debug)]
struct Buckets {
    /// The one bucket of all accounts, where there is one.
    shared: Option<TokenBucket>,
    /// Calls per second.
    rate: f64,
    /// The burst is what the rate gains in this time.
    burst_seconds: f64,
    /// The part of the rates that this process may use.
    share: f64,
    /// The rates of accounts that have their own.
    rates: BTreeMap<String, f64>,
    by_place: BTreeMap<AccountRegion, TokenBucket>,
}

impl Buckets {
    fn rate_of(&self, account: &str) -> f64 {
        self.rates.get(account).copied().unwrap_or(self.rate)
    }

    fn apply_rates(&self) {
        for (place, bucket) in &self.by_place {
            bucket.set_rate(self.rate_of(&place.account) * self.share);
        }
    }
}

impl ReadBuckets {
    /// Buckets of `rate` calls per second, with what it gains in `burst_seconds` as burst.
    pub fn new(rate: f64, burst_seconds: f64) -> Self {
        Self(Arc::new(Mutex::new(Buckets {
            shared: None,
            rate,
            burst_seconds,
            share: 1.0,
            rates: BTreeMap::new(),
            by_place: BTreeMap::new(),
        })))
    }

    /// The bucket of an account and Region.
    pub fn of(&self, place: &AccountRegion) -> TokenBucket {
        let mut buckets = self.lock();
        if let Some(bucket) = buckets.shared.as_ref().or_else(|| buckets.by_place.get(place)) {
            return bucket.clone();
        }
        let place =
            if buckets.by_place.len() < MAX_PLACES { place.clone() } else { AccountRegion::new("", "") };
        if let Some(bucket) = buckets.by_place.get(&place) {
            return bucket.clone();
        }
        let rate = buckets.rate_of(&place.account);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // a small positive number
        let burst = (rate * buckets.burst_seconds).clamp(1.0, 1e6) as u32;
        let bucket = TokenBucket::new(rate * buckets.share, burst);
        buckets.by_place.insert(place, bucket.clone());
        bucket
    }

    /// The bucket of the account and Region that a cluster is in.
    pub fn of_cluster(&self, cluster: &ClusterArn) -> TokenBucket {
        self.of(&AccountRegion::of(cluster))
    }

    /// The bucket of an account, for services without Regions.
    pub fn of_account(&self, account: &str) -> TokenBucket {
        self.of(&AccountRegion::new(account, ""))
    }

    /// Sets the part of each rate that this process may use, also for callers that already wait.
    pub fn set_share(&self, share: f64) {
        let mut buckets = self.lock();
        buckets.share = share;
        buckets.apply_rates();
    }

    /// Sets the rates of accounts that have their own, also for callers that already wait. A burst changes for new buckets
    /// only.
    pub fn set_account_rates(&self, rates: BTreeMap<String, f64>) {
        let mut buckets = self.lock();
        buckets.rates = rates;
        buckets.apply_rates();
    }

    fn lock(&self) -> MutexGuard<'_, Buckets> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One bucket for all accounts.
impl From<TokenBucket> for ReadBuckets {
    fn from(bucket: TokenBucket) -> Self {
        let buckets = Self::new(1.0, 1.0);
        buckets.lock().shared = Some(bucket);
        buckets
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::{Instant, timeout};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn empty_bucket_of_one_account_delays_no_other() {
        let buckets = ReadBuckets::new(1.0, 1.0);
        let (own, other) = (AccountRegion::new("1", "eu-west-1"), AccountRegion::new("2", "eu-west-1"));
        buckets.of(&own).penalize(Duration::from_mins(1));
        assert!(timeout(Duration::from_secs(1), buckets.of(&own).acquire(1)).await.is_err());
        let began = Instant::now();
        buckets.of(&other).acquire(1).await;
        buckets.of(&AccountRegion::new("1", "eu-north-1")).acquire(1).await;
        assert_eq!(began.elapsed(), Duration::ZERO);
    }

    #[test]
    fn accounts_of_forged_events_share_a_bucket() {
        let buckets = ReadBuckets::new(1.0, 1.0);
        for account in 0..10 * MAX_PLACES {
            drop(buckets.of(&AccountRegion::new(&account.to_string(), "eu-west-1")));
        }
        assert_eq!(buckets.lock().by_place.len(), MAX_PLACES + 1);
    }

    #[tokio::test(start_paused = true)]
    async fn account_has_its_own_rate_and_the_share_of_it() {
        let buckets = ReadBuckets::new(1.0, 1.0);
        let place = AccountRegion::new("2", "eu-west-1");
        buckets.of(&place).acquire(1).await;
        buckets.set_account_rates([("2".to_owned(), 4.0)].into());
        buckets.set_share(0.5);
        let began = Instant::now();
        buckets.of(&place).acquire(1).await;
        assert_eq!(began.elapsed(), Duration::from_millis(500));
    }
}
