//! Caches task definitions. A revision never changes, so each is read once; the number of cached definitions is bounded.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;

use super::aws::{AwsError, Ecs, batch_failure};
use ecs_mesh_controller::{BatchCall, Batcher, TokenBucket};
use ecs_mesh_model::{Reason, TaskDefinition, TaskDefinitionArn};

/// Limit of cached definitions; the oldest is evicted first. At a few hundred bytes each this is a few megabytes.
const MAX_CACHED: usize = 5_000;

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
}

struct DescribeDefinitionCall {
    ecs: Arc<dyn Ecs>,
}

impl TaskDefinitionCache {
    /// Calls take tokens from `bucket`. `DescribeTaskDefinition` has its own quota.
    pub fn new(ecs: Arc<dyn Ecs>, bucket: TokenBucket) -> Self {
        Self { kept: Arc::default(), batcher: Batcher::new(DescribeDefinitionCall { ecs }, 1, Some(bucket)) }
    }

    /// The definition, from the cache or from ECS.
    ///
    /// # Errors
    /// When the call fails.
    pub async fn get(&self, arn: &TaskDefinitionArn) -> Result<Arc<TaskDefinition>, Reason> {
        if let Some(kept) = self.lock().by_arn.get(arn) {
            return Ok(Arc::clone(kept));
        }
        let definition = self.batcher.ask(arn.clone(), ()).await.map_err(batch_failure)?;
        let mut kept = self.lock();
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
    async fn failure_has_a_reason_and_is_not_cached() {
        let ecs = Arc::new(FakeEcs::default());
        let definitions = TaskDefinitionCache::new(ecs.clone(), bucket());
        *ecs.fails.lock().unwrap() = Some(AwsErrorKind::Denied);
        let reason = definitions.get(&definition_arn(1)).await.unwrap_err();
        assert!(reason.message.contains("for a reason"), "{reason}");
        *ecs.fails.lock().unwrap() = None;
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
