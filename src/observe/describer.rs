//! Targeted DescribeTasks, shared by whoever asks at the same time: up to 100 tasks of a cluster a call, below the
//! account's quota. Every answer goes into the [`Store`] before anyone hears it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::aws::{AwsError, AwsErrorKind, Ecs};
use super::store::{Source, Store};
use crate::model::{ClusterArn, TaskArn, TaskId};
use crate::runtime::{BatchCall, BatchError, Batcher, Clock, TokenBucket};

/// Most tasks that one DescribeTasks call takes.
const BATCH: usize = 100;

/// How long nobody calls after AWS throttled us: the bucket is shared with everyone in the account.
const THROTTLED: Duration = Duration::from_secs(1);

/// What ECS said of one task. What it said in full is in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Found.
    Found,
    /// MISSING.
    Missing,
    /// ECS could not say, with its reason.
    Failed(String),
}

/// Describes tasks.
#[derive(Clone)]
pub struct Describer {
    batcher: Batcher<Call>,
}

struct Call {
    ecs: Arc<dyn Ecs>,
    store: Arc<Store>,
    clock: Clock,
    bucket: TokenBucket,
}

impl Describer {
    /// Calls take tokens from `bucket`, which all ECS reads share.
    pub fn new(ecs: Arc<dyn Ecs>, store: Arc<Store>, clock: Clock, bucket: TokenBucket) -> Self {
        let call = Call { ecs, store, clock, bucket: bucket.clone() };
        Self { batcher: Batcher::new(call, BATCH, Some(bucket)) }
    }

    /// Describes a task by a call that starts now or later. `grace`: how long absence must have lasted for MISSING
    /// to count.
    ///
    /// # Errors
    /// In words for a person, when the call failed or ECS could not say. Nothing is known then.
    pub async fn describe(&self, task: &TaskArn, grace: Duration) -> Result<Answer, String> {
        let request = Request { id: task.id().clone(), grace };
        match self.batcher.ask(task.cluster().clone(), request).await {
            Ok(Answer::Failed(reason)) => Err(format!("ecs:DescribeTasks on {task} failed: {reason}")),
            Ok(answer) => Ok(answer),
            Err(BatchError::Call(error)) => Err(error.to_string()),
            Err(error) => Err(format!("ecs:DescribeTasks on {task}: {error}")),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Request {
    id: TaskId,
    grace: Duration,
}

#[async_trait]
impl BatchCall for Call {
    type Group = ClusterArn;
    type Request = Request;
    type Response = Answer;
    type Error = AwsError;

    async fn call(
        &self,
        cluster: &ClusterArn,
        requests: Vec<Request>,
    ) -> Result<BTreeMap<Request, Answer>, AwsError> {
        let ids: BTreeSet<TaskId> = requests.iter().map(|request| request.id.clone()).collect();
        let ids: Vec<TaskId> = ids.into_iter().collect();
        let described = self.ecs.describe_tasks(cluster, &ids).await.inspect_err(|error| {
            if error.kind == AwsErrorKind::Throttled {
                self.bucket.penalize(THROTTLED);
            }
        })?;
        let now = self.clock.now();
        let mut answers: BTreeMap<TaskId, Answer> = BTreeMap::new();
        for task in described.tasks {
            answers.insert(task.arn.id().clone(), Answer::Found);
            self.store.observe(task, Source::Describe, now);
        }
        answers.extend(described.failed.into_iter().map(|(id, reason)| (id, Answer::Failed(reason))));
        answers.extend(described.missing.into_iter().map(|id| (id, Answer::Missing)));
        Ok(requests
            .into_iter()
            .filter_map(|request| {
                let answer = answers.get(&request.id)?.clone();
                if answer == Answer::Missing {
                    self.store.described_missing(&cluster.task(request.id.clone()), request.grace, now);
                }
                Some((request, answer))
            })
            .collect())
    }
}
