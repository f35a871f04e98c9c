//! Caches task definitions. A revision never changes, so each is read once; the number of cached definitions is bounded.
//! A failure is cached for a short time.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;

use super::aws::{AwsError, Ecs, batch_failure};
use super::fact_cache::{FAILURE_TTL, FactCache};
use super::read_buckets::ReadBuckets;
use ecs_mesh_controller::{BatchCall, Batcher};
use ecs_mesh_model::{AccountRegion, Reason, TaskDefinition, TaskDefinitionArn};

/// Limit of cached definitions; the oldest is evicted first. At a few hundred bytes each this is a few megabytes.
const MAX_CACHED: usize = 5_000;

/// The cache of task definitions.
#[derive(Clone)]
pub struct TaskDefinitionCache {
    definitions: Arc<FactCache<TaskDefinitionArn, Arc<TaskDefinition>>>,
    batcher: Batcher<DescribeDefinitionCall>,
}

struct DescribeDefinitionCall {
    ecs: Arc<dyn Ecs>,
}

impl TaskDefinitionCache {
    /// Calls take tokens from `buckets`. `DescribeTaskDefinition` has its own quota.
    pub fn new(ecs: Arc<dyn Ecs>, buckets: impl Into<ReadBuckets>) -> Self {
        let (call, buckets) = (DescribeDefinitionCall { ecs }, buckets.into());
        let batcher = Batcher::with_buckets(call, 1, move |arn: &TaskDefinitionArn| {
            buckets.of(&AccountRegion::new(arn.account(), arn.region()))
        });
        Self { definitions: Arc::new(FactCache::new(MAX_CACHED)), batcher }
    }

    /// The definition as far as the cache has it, or why it could not be read a moment ago.
    pub fn cached(&self, arn: &TaskDefinitionArn) -> Option<Result<Arc<TaskDefinition>, Reason>> {
        self.definitions.cached(arn)
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
        match &asked {
            Ok(definition) => self.definitions.insert(arn.clone(), Arc::clone(definition)),
            Err(reason) => self.definitions.insert_failure(arn.clone(), reason.clone(), FAILURE_TTL),
        }
        asked
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
    use ecs_mesh_controller::TokenBucket;

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
}
