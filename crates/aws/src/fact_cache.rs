//! A bounded cache of facts from AWS, which also remembers for a short time why others could not be read.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use ecs_mesh_model::Reason;

/// How long a failed read is cached, so that a thousand tasks that need one fact cause one call.
pub(crate) const FAILURE_TTL: Duration = Duration::from_secs(5);

/// Facts by key. At the limit the oldest is evicted.
pub(crate) struct FactCache<K, V> {
    kept: Mutex<CachedFacts<K, V>>,
    max: usize,
}

struct CachedFacts<K, V> {
    facts: BTreeMap<K, V>,
    oldest_first: VecDeque<K>,
    failures: BTreeMap<K, CachedFailure>,
    /// When expired failures are dropped next.
    next_cleanup: Instant,
}

struct CachedFailure {
    until: Instant,
    reason: Reason,
}

impl<K: Ord + Clone, V: Clone> FactCache<K, V> {
    /// An empty cache of at most `max` facts.
    pub(crate) fn new(max: usize) -> Self {
        let next_cleanup = Instant::now();
        let (facts, oldest_first, failures) = (BTreeMap::new(), VecDeque::new(), BTreeMap::new());
        Self { kept: Mutex::new(CachedFacts { facts, oldest_first, failures, next_cleanup }), max }
    }

    /// The fact as far as the cache has it, or why it could not be read a moment ago.
    pub(crate) fn cached(&self, key: &K) -> Option<Result<V, Reason>> {
        let kept = self.lock();
        if let Some(fact) = kept.facts.get(key) {
            return Some(Ok(fact.clone()));
        }
        let failure = kept.failures.get(key).filter(|failure| failure.until > Instant::now())?;
        Some(Err(failure.reason.clone()))
    }

    /// Records a fact.
    pub(crate) fn insert(&self, key: K, fact: V) {
        let mut kept = self.lock();
        kept.failures.remove(&key);
        if kept.facts.insert(key.clone(), fact).is_none() {
            kept.oldest_first.push_back(key);
        }
        if kept.oldest_first.len() > self.max
            && let Some(oldest) = kept.oldest_first.pop_front()
        {
            kept.facts.remove(&oldest);
        }
    }

    /// Changes a fact in place, if the cache has it.
    pub(crate) fn update<R>(&self, key: &K, change: impl FnOnce(&mut V) -> R) -> Option<R> {
        self.lock().facts.get_mut(key).map(change)
    }

    /// Records that the fact could not be read: until `ttl` has passed, that is the answer.
    pub(crate) fn insert_failure(&self, key: K, reason: Reason, ttl: Duration) {
        let (mut kept, now) = (self.lock(), Instant::now());
        if kept.next_cleanup <= now {
            kept.failures.retain(|_, failure| failure.until > now);
            kept.next_cleanup = now + FAILURE_TTL;
        }
        kept.failures.insert(key, CachedFailure { until: now + ttl, reason });
    }

    fn lock(&self) -> MutexGuard<'_, CachedFacts<K, V>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason() -> Reason {
        Reason::constant("denied")
    }

    #[tokio::test(start_paused = true)]
    async fn oldest_fact_is_evicted_at_the_limit() {
        let cache = FactCache::new(3);
        for n in [1, 2, 3, 1, 4] {
            cache.insert(n, n * 10);
        }
        let kept: Vec<_> = (1..=4).map(|n| cache.cached(&n)).collect();
        assert_eq!(kept, [None, Some(Ok(20)), Some(Ok(30)), Some(Ok(40))]);
        cache.insert(1, 11);
        assert_eq!((cache.cached(&1), cache.cached(&2)), (Some(Ok(11)), None));
        assert_eq!(cache.lock().oldest_first, [3, 4, 1]);
    }

    #[tokio::test(start_paused = true)]
    async fn failure_lasts_until_its_ttl_or_the_fact() {
        let cache = FactCache::new(3);
        cache.insert_failure(1, reason(), Duration::from_secs(5));
        cache.insert_failure(2, reason(), Duration::from_mins(1));
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!((cache.cached(&1), cache.cached(&2)), (None, Some(Err(reason()))));
        cache.insert_failure(3, reason(), Duration::from_secs(5));
        assert_eq!(cache.lock().failures.keys().collect::<Vec<_>>(), [&2, &3], "expired ones are dropped");
        cache.insert(2, 20);
        assert_eq!(cache.cached(&2), Some(Ok(20)));
    }

    #[tokio::test(start_paused = true)]
    async fn fact_survives_a_failure() {
        let cache = FactCache::new(3);
        cache.insert(1, 10);
        cache.insert_failure(1, reason(), FAILURE_TTL);
        assert_eq!(cache.cached(&1), Some(Ok(10)));
        assert_eq!(cache.update(&1, |fact| std::mem::replace(fact, 11)), Some(10));
        assert_eq!((cache.cached(&1), cache.update(&2, |_| ())), (Some(Ok(11)), None));
    }
}
