//! Caches task definitions. A revision never changes, so each is read once; the number of cached definitions is bounded.
//! A failure is cached for a short time.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use super::aws::{AwsError, Ecs, batch_failure};
use ecs_mesh_controller::{BatchCall, Batcher, TokenBucket};
use ecs_mesh_model::{Reason, TaskDefinition, TaskDefinitionArn};

/// Limit of cached definitions; the oldest is evicted first. At a few hundred bytes each this is a few megabytes.
const MAX_CACHED: usize = 5_000;

/// How long a failed read is cached, so that a thousand tasks of one definition cause one call.
const FAILURE_TTL: Duration = Duration::from_secs(5);

/// The cache of task definitions.
#[derive(Clone)]
pub struct TaskDefinitionCache {
    kept: Arc<Mutex<CachedDefinitions>>,
    batcher: Batcher<DescribeDefinitionCall>,
}

#[derive(Default)]
struct CachedDefinitions {
    by_arn: BTreeMap<TaskDefinitionArn, Arc<TaskDefinition>>,
    oldest_first: VecDeque<TaskDefinitionArn>,
    failures: BTreeMap<TaskDefinitionArn, (Instant, Reason)>,
}

struct DescribeDefinitionCall {
    ecs: Arc<dyn Ecs>,
}

impl TaskDefinitionCache {
    /// Calls take tokens from `bucket`. `DescribeTaskDefinition` has its own quota.
    pub fn new(ecs: Arc<dyn Ecs>, bucket: TokenBucket) -> Self {
        Self { kept: Arc::default(), batcher: Batcher::new(DescribeDefinitionCall { ecs }, 1, Some(bucket)) }
    }

    /// The definition as far as the cache has it, or why it could not be read a moment ago.
    pub fn cached(&self, arn: &TaskDefinitionArn) -> Option<Result<Arc<TaskDefinition>, Reason>> {
        let kept = self.lock();
        if let Some(definition) = kept.by_arn.get(arn) {
            return Some(Ok(Arc::clone(definition)));
        }
        let (at, reason) = kept.failures.get(arn)?;
        (at.elapsed() < FAILURE_TTL).then(|| Err(reason.clone()))
    }

    /// The definition, from the cache or from ECS.
    ///
    /// # Errors
    /// When the call fails, or has failed within the last 5 s.
    pub async fn get(&self, arn: &TaskDefinitionArn) -> Result<Arc<TaskDefinition>, Reason> {
        if let Some(cached) = self.cached(arn) {
            return cached;
        }
        let asked = self.batcher.ask(arn.clone(), ()).await.map_err(batch_failure);
        let mut kept = self.lock();
        kept.failures.retain(|failed, (at, _)| failed != arn && at.elapsed() < FAILURE_TTL);
        let definition = match asked {
            Ok(definition) => definition,
            Err(reason) => {
                kept.failures.insert(arn.clone(), (Instant::now(), reason.clone()));
                return Err(reason);
            }
        };
        if kept.by_arn.insert(arn.clone(), Arc::clone(&definition)).is_none() {
            kept.oldest_first.push_back(arn.clone());
        }
        if kept.oldest_first.len() > MAX_CACHED
            && let Some(oldest) = kept.oldest_first.pop_front()
        {
            kept.by_arn.remove(&oldest);
        }
        Ok(definition)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, CachedDefinitions> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl BatchCall for DescribeDefinitionCall {
    type Group = TaskDefinitionArn;
    type Request = ();
    type Response = Arc<TaskDefinition>;
    type Error = AwsError;

    async fn call(
        &self,
        arn: &TaskDefinitionArn,
        _requests: Vec<()>,
    ) -> Result<BTreeMap<(), <Self as BatchCall>::Response>, AwsError> {
        let definition = self.ecs.describe_task_definition(arn).await?;
        Ok([((), Arc::new(definition))].into())
    }
}

#[cfg(test)]
mod tests {
    use super::super::aws::AwsErrorKind;
    use super::super::fakes::{FakeEcs, bucket, definition_arn};
    use super::*;

    fn definitions() -> (TaskDefinitionCache, Arc<FakeEcs>) {
        let ecs = Arc::new(FakeEcs::default());
        (TaskDefinitionCache::new(ecs.clone(), TokenBucket::new(1e6, 1_000_000)), ecs)
    }

    #[tokio::test(start_paused = true)]
    async fn definition_is_read_once_for_many_callers() {
        let (definitions, ecs) = definitions();
        let asks: Vec<_> = (0..50)
            .map(|_| {
                let definitions = definitions.clone();
                tokio::spawn(async move { definitions.get(&definition_arn(1)).await })
            })
            .collect();
        for ask in asks {
            assert_eq!(ask.await.unwrap().unwrap().arn, definition_arn(1));
        }
        definitions.get(&definition_arn(1)).await.unwrap();
        assert!(ecs.definitions_read.lock().unwrap().len() <= 2);
    }

    #[tokio::test(start_paused = true)]
    async fn failure_has_a_reason_and_is_cached_for_five_seconds() {
        let ecs = Arc::new(FakeEcs::default());
        let definitions = TaskDefinitionCache::new(ecs.clone(), bucket());
        *ecs.fails.lock().unwrap() = Some(AwsErrorKind::Denied);
        let reason = definitions.get(&definition_arn(1)).await.unwrap_err();
        assert!(reason.message.contains("for a reason"), "{reason}");
        *ecs.fails.lock().unwrap() = None;
        assert_eq!(definitions.get(&definition_arn(1)).await.unwrap_err(), reason);
        tokio::time::advance(FAILURE_TTL).await;
        assert!(definitions.get(&definition_arn(1)).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn oldest_definition_is_evicted_at_the_limit() {
        let (definitions, ecs) = definitions();
        for revision in 1..=MAX_CACHED + 1 {
            definitions.get(&definition_arn(revision)).await.unwrap();
        }
        assert_eq!(definitions.lock().by_arn.len(), MAX_CACHED);
        assert_eq!(definitions.lock().oldest_first.len(), MAX_CACHED);
        let reads = || ecs.definitions_read.lock().unwrap().len();
        assert_eq!(reads(), MAX_CACHED + 1);
        definitions.get(&definition_arn(MAX_CACHED + 1)).await.unwrap();
        definitions.get(&definition_arn(2)).await.unwrap();
        assert_eq!(reads(), MAX_CACHED + 1, "the newest and the second are kept");
        definitions.get(&definition_arn(1)).await.unwrap();
        assert_eq!(reads(), MAX_CACHED + 2, "the first is read again");
    }
}
