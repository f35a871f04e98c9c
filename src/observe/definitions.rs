//! Task definitions: a revision never changes, so each is read once and kept, up to a bound.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;

use super::aws::{AwsError, Ecs};
use crate::model::{TaskDefinition, TaskDefinitionArn};
use crate::runtime::{BatchCall, Batcher, TokenBucket};

/// Most definitions kept; the oldest goes first. At a few hundred bytes each this stays below some megabytes.
const KEPT: usize = 5_000;

/// The cache of task definitions.
#[derive(Clone)]
pub struct Definitions {
    kept: Arc<Mutex<Kept>>,
    batcher: Batcher<Call>,
}

#[derive(Default)]
struct Kept {
    by_arn: BTreeMap<TaskDefinitionArn, Arc<TaskDefinition>>,
    oldest_first: VecDeque<TaskDefinitionArn>,
}

struct Call {
    ecs: Arc<dyn Ecs>,
}

impl Definitions {
    /// Calls take tokens from `bucket` (DescribeTaskDefinition has a quota of its own).
    pub fn new(ecs: Arc<dyn Ecs>, bucket: TokenBucket) -> Self {
        Self { kept: Arc::default(), batcher: Batcher::new(Call { ecs }, 1, Some(bucket)) }
    }

    /// The definition, from memory or from ECS.
    ///
    /// # Errors
    /// In words for a person, when it cannot be had now.
    pub async fn get(&self, arn: &TaskDefinitionArn) -> Result<Arc<TaskDefinition>, String> {
        if let Some(kept) = self.lock().by_arn.get(arn) {
            return Ok(Arc::clone(kept));
        }
        let definition = self.batcher.ask(arn.clone(), ()).await.map_err(|error| error.to_string())?;
        let mut kept = self.lock();
        if kept.by_arn.insert(arn.clone(), Arc::clone(&definition)).is_none() {
            kept.oldest_first.push_back(arn.clone());
        }
        if kept.oldest_first.len() > KEPT
            && let Some(oldest) = kept.oldest_first.pop_front()
        {
            kept.by_arn.remove(&oldest);
        }
        Ok(definition)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl BatchCall for Call {
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
