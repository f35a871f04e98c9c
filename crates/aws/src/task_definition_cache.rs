//! Task definitions: a revision never changes, so each is read once and kept, up to a bound.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;

use super::aws::{AwsError, Ecs, why};
use ecs_mesh_controller::{BatchCall, Batcher, TokenBucket};
use ecs_mesh_model::{TaskDefinition, TaskDefinitionArn, Reason};

/// Most definitions kept; the oldest goes first. At a few hundred bytes each this stays below some megabytes.
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
    /// Calls take tokens from `bucket` (`DescribeTaskDefinition` has a quota of its own).
    pub fn new(ecs: Arc<dyn Ecs>, bucket: TokenBucket) -> Self {
        Self { kept: Arc::default(), batcher: Batcher::new(DescribeDefinitionCall { ecs }, 1, Some(bucket)) }
    }

    /// The definition, from memory or from ECS.
    ///
    /// # Errors
    /// When it cannot be had now.
    pub async fn get(&self, arn: &TaskDefinitionArn) -> Result<Arc<TaskDefinition>, Reason> {
        if let Some(kept) = self.lock().by_arn.get(arn) {
            return Ok(Arc::clone(kept));
        }
        let definition = self.batcher.ask(arn.clone(), ()).await.map_err(why)?;
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
    async fn a_definition_is_read_once_however_many_ask() {
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
    async fn a_failure_is_told_in_words_and_not_kept() {
        let ecs = Arc::new(FakeEcs::default());
        let definitions = TaskDefinitionCache::new(ecs.clone(), bucket());
        *ecs.fails.lock().unwrap() = Some(AwsErrorKind::Denied);
        let why = definitions.get(&definition_arn(1)).await.unwrap_err();
        assert!(why.message.contains("for a reason"), "{why}");
        *ecs.fails.lock().unwrap() = None;
        assert!(definitions.get(&definition_arn(1)).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn memory_is_bounded_and_the_oldest_goes_first() {
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
