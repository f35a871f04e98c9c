//! Targeted DescribeTasks, batched: up to 100 tasks of a cluster per call, below the account's quota. Each answer is in the
//! [`TaskStore`] before a caller gets it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::aws::{AwsError, AwsErrorKind, DescribeTasksOutput, Ecs};
use super::cluster_checker::{ClusterChecker, ClusterExistence};
use super::read_buckets::ReadBuckets;
use super::store::{Observation, TaskStore};
use ecs_mesh_clock::Clock;
use ecs_mesh_controller::{BatchCall, BatchError, Batcher, Urgency};
use ecs_mesh_model::{ClusterArn, Reason, TaskArn, TaskId};

/// Most tasks of one DescribeTasks call.
const BATCH: usize = 100;

/// Pause after a throttling response. The quota is shared by the whole account in the Region.
const THROTTLE_PAUSE: Duration = Duration::from_secs(1);

/// Result for one task. The described task is in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DescribeOutcome {
    /// Found.
    Found,
    /// MISSING.
    Missing,
    /// Another failure, with ECS's reason.
    Failed(String),
}

/// Describes tasks.
#[derive(Clone)]
pub struct TaskDescriber {
    batcher: Batcher<DescribeTasksCall>,
}

/// Called when a describe is the first observation that a task is leaving or has stopped: no event may follow that would
/// enqueue the task.
pub type OnLeaving = Arc<dyn Fn(&TaskArn, Observation) + Send + Sync>;

struct DescribeTasksCall {
    ecs: Arc<dyn Ecs>,
    store: Arc<TaskStore>,
    clock: Clock,
    buckets: ReadBuckets,
    clusters: Arc<ClusterChecker>,
    on_leaving: OnLeaving,
}

impl TaskDescriber {
    /// Calls take tokens from `buckets`, which all ECS reads share. The tasks of a cluster that `clusters` finds deleted are
    /// MISSING.
    pub fn new(
        ecs: Arc<dyn Ecs>,
        store: Arc<TaskStore>,
        clock: Clock,
        buckets: impl Into<ReadBuckets>,
        clusters: Arc<ClusterChecker>,
        on_leaving: OnLeaving,
    ) -> Self {
        let buckets = buckets.into();
        let call = DescribeTasksCall { ecs, store, clock, buckets: buckets.clone(), clusters, on_leaving };
        Self { batcher: Batcher::with_buckets(call, BATCH, move |cluster| buckets.of_cluster(cluster)) }
    }

    /// Describes a task by a call that starts now or later. `grace`: how long absence must have lasted for MISSING
    /// to be evidence.
    ///
    /// # Errors
    /// When the call failed or ECS reported a failure. The task's state is unknown then.
    pub async fn describe(&self, task: &TaskArn, grace: Duration) -> Result<DescribeOutcome, Reason> {
        self.describe_with(task, grace, Urgency::Normal).await
    }

    /// As [`Self::describe`], where `urgency` orders the tasks that share a call.
    ///
    /// # Errors
    /// As [`Self::describe`].
    pub async fn describe_with(
        &self,
        task: &TaskArn,
        grace: Duration,
        urgency: Urgency,
    ) -> Result<DescribeOutcome, Reason> {
        let request = DescribeRequest { id: task.id().clone(), grace };
        match self.batcher.ask_with(task.cluster().clone(), request, urgency).await {
            Ok(DescribeOutcome::Failed(reason)) => {
                let message = format!("ecs:DescribeTasks on {task} failed: {reason}");
                Err(Reason::new(format!("ecs:DescribeTasks {reason}"), message))
            }
            Ok(answer) => Ok(answer),
            Err(BatchError::Call(error)) => Err(error.into()),
            Err(error) => {
                let message = format!("ecs:DescribeTasks on {task}: {error}");
                Err(Reason::new(error.to_string(), message))
            }
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct DescribeRequest {
    id: TaskId,
    grace: Duration,
}

#[async_trait]
impl BatchCall for DescribeTasksCall {
    type Group = ClusterArn;
    type Request = DescribeRequest;
    type Response = DescribeOutcome;
    type Error = AwsError;

    async fn call(
        &self,
        cluster: &ClusterArn,
        requests: Vec<DescribeRequest>,
    ) -> Result<BTreeMap<DescribeRequest, DescribeOutcome>, AwsError> {
        let ids: BTreeSet<TaskId> = requests.iter().map(|request| request.id.clone()).collect();
        let ids: Vec<TaskId> = ids.into_iter().collect();
        let described = match self.ecs.describe_tasks(cluster, &ids).await {
            Ok(described) => described,
            Err(error) if self.clusters.check(cluster, &error).await == ClusterExistence::Deleted => {
                DescribeTasksOutput { missing: ids, ..DescribeTasksOutput::default() }
            }
            Err(error) => {
                if error.kind == AwsErrorKind::Throttled {
                    self.buckets.of_cluster(cluster).penalize(THROTTLE_PAUSE);
                }
                return Err(error);
            }
        };
        let now = self.clock.now();
        let mut answers: BTreeMap<TaskId, DescribeOutcome> = BTreeMap::new();
        for task in described.tasks {
            answers.insert(task.arn.id().clone(), DescribeOutcome::Found);
            let arn = task.arn.clone();
            let observed = self.store.observe(task, now);
            if observed.first_leaving || observed.first_stop {
                (self.on_leaving)(&arn, observed);
            }
        }
        answers
            .extend(described.failed.into_iter().map(|(id, reason)| (id, DescribeOutcome::Failed(reason))));
        answers.extend(described.missing.into_iter().map(|id| (id, DescribeOutcome::Missing)));
        Ok(requests
            .into_iter()
            .filter_map(|request| {
                let answer = answers.get(&request.id)?.clone();
                if answer == DescribeOutcome::Missing {
                    self.store.record_missing(&cluster.task(request.id.clone()), request.grace, now);
                }
                Some((request, answer))
            })
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::time::{Instant, sleep};

    use super::super::fakes::{CALL, FakeEcs, clock, task, task_arn};
    use super::*;
    use ecs_mesh_controller::TokenBucket;
    use ecs_mesh_core::plan::TaskLiveness;
    use ecs_mesh_model::LastStatus;

    const GRACE: Duration = Duration::from_mins(5);

    struct DescriberFixture {
        describer: TaskDescriber,
        ecs: Arc<FakeEcs>,
        store: Arc<TaskStore>,
        clock: Clock,
    }

    /// ECS with the tasks 0 to 999.
    fn scene() -> DescriberFixture {
        let tasks = (0..1_000).map(|n| (task_arn(n).id().clone(), task(n, LastStatus::Running))).collect();
        let ecs = Arc::new(FakeEcs { tasks: Mutex::new(tasks), ..FakeEcs::default() });
        let (store, clock) = (Arc::new(TaskStore::default()), clock());
        let bucket = TokenBucket::new(10.0, 50);
        let nothing: OnLeaving = Arc::new(|_, _| {});
        let clusters = Arc::new(ClusterChecker::new(ecs.clone(), bucket.clone()));
        let describer =
            TaskDescriber::new(ecs.clone(), store.clone(), clock.clone(), bucket, clusters, nothing);
        DescriberFixture { describer, ecs, store, clock }
    }

    impl DescriberFixture {
        async fn describe(&self, n: usize) -> Result<DescribeOutcome, Reason> {
            self.describer.describe(&task_arn(n), GRACE).await
        }

        /// Requests all tasks at once and returns the number of tasks in each call.
        async fn describe_all(&self, tasks: impl IntoIterator<Item = usize>) -> Vec<usize> {
            let asks: Vec<_> = tasks
                .into_iter()
                .map(|n| {
                    let describer = self.describer.clone();
                    tokio::spawn(async move { describer.describe(&task_arn(n), GRACE).await })
                })
                .collect();
            for ask in asks {
                ask.await.unwrap().unwrap();
            }
            self.ecs.described.lock().unwrap().iter().map(Vec::len).collect()
        }

        fn liveness(&self, n: usize) -> TaskLiveness {
            self.store.snapshot(&task_arn(n), GRACE, self.clock.now()).liveness
        }
    }

    #[tokio::test(start_paused = true)]
    async fn simultaneous_requests_share_calls_of_a_hundred() {
        let scene = scene();
        let began = Instant::now();
        let calls = scene.describe_all(0..250).await;
        assert_eq!(calls.iter().sum::<usize>(), 250);
        assert!(calls.iter().all(|size| *size <= BATCH) && calls.len() <= 4, "{calls:?}");
        assert!(began.elapsed() <= 4 * CALL);
    }

    #[tokio::test(start_paused = true)]
    async fn describe_call_names_each_task_once() {
        let scene = scene();
        // The first call is in flight, so the others share the next one.
        let (busy, one) = (scene.describe(9), task_arn(1));
        let (a, b, c) = tokio::join!(
            busy,
            scene.describer.describe(&one, GRACE),
            scene.describer.describe(&one, Duration::MAX),
        );
        assert_eq!(
            (a, b, c),
            (Ok(DescribeOutcome::Found), Ok(DescribeOutcome::Found), Ok(DescribeOutcome::Found))
        );
        let named = scene.ecs.described.lock().unwrap().concat();
        assert_eq!(named.iter().filter(|id| *id == "1").count(), 1, "{named:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn described_task_is_in_the_store_before_callers_resume() {
        let scene = scene();
        assert_eq!(scene.describe(1).await, Ok(DescribeOutcome::Found));
        assert_eq!(scene.liveness(1), TaskLiveness::Live);
    }

    #[tokio::test(start_paused = true)]
    async fn missing_confirms_a_stopped_event_and_nothing_else() {
        let scene = scene();
        let now = scene.clock.now();
        for number in [5_000, 5_001] {
            scene.store.observe(task(number, LastStatus::Running), now);
        }
        scene.store.record_stop_event(&task_arn(5_000), false, now);
        assert_eq!(scene.describe(5_000).await, Ok(DescribeOutcome::Missing));
        assert_eq!(scene.liveness(5_000), TaskLiveness::Live, "one answer may be wrong");
        sleep(Duration::from_secs(10)).await;
        assert_eq!(scene.describe(5_000).await, Ok(DescribeOutcome::Missing));
        assert_eq!(scene.describe(5_001).await, Ok(DescribeOutcome::Missing));
        assert_eq!(scene.describe(5_002).await, Ok(DescribeOutcome::Missing));
        assert_eq!(scene.liveness(5_000), TaskLiveness::StoppedMissing { since: now });
        assert_eq!(scene.liveness(5_001), TaskLiveness::Live, "the task may not be visible yet");
        assert_eq!(scene.liveness(5_002), TaskLiveness::Unknown);
    }

    #[tokio::test(start_paused = true)]
    async fn missing_confirms_absence_only_after_grace() {
        let scene = scene();
        let arn = task_arn(5_000);
        let since = scene.clock.now();
        scene.store.record_absence(&arn, since, since);
        sleep(GRACE).await;
        scene.store.record_absence(&arn, scene.clock.now(), scene.clock.now());
        assert_eq!(scene.describer.describe(&arn, Duration::MAX).await, Ok(DescribeOutcome::Missing));
        assert_eq!(scene.liveness(5_000), TaskLiveness::Missing { due: true });
        assert_eq!(scene.describe(5_000).await, Ok(DescribeOutcome::Missing));
        assert_eq!(scene.liveness(5_000), TaskLiveness::Absent { sweeps: 2, since });
    }

    #[tokio::test(start_paused = true)]
    async fn failed_and_unanswered_tasks_are_unknown_not_missing() {
        let scene = scene();
        let event = scene.clock.now();
        for number in [1, 2] {
            scene.store.observe(task(number, LastStatus::Running), event);
            scene.store.record_stop_event(&task_arn(number), true, event);
        }
        scene.ecs.failing.lock().unwrap().push(task_arn(1).id().clone());
        scene.ecs.unanswered.lock().unwrap().push(task_arn(2).id().clone());
        let why = scene.describe(1).await.unwrap_err();
        assert!(
            why.message.contains("its agent is away") && why.message.contains(&task_arn(1).to_string()),
            "{why}"
        );
        let why = scene.describe(2).await.unwrap_err();
        assert!(why.message.contains(&task_arn(2).to_string()), "{why}");
        assert_eq!(
            (scene.liveness(1), scene.liveness(2)),
            (TaskLiveness::StopUnconfirmed, TaskLiveness::StopUnconfirmed)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn failed_call_changes_nothing() {
        let scene = scene();
        scene.store.observe(task(5_000, LastStatus::Running), scene.clock.now());
        scene.store.record_stop_event(&task_arn(5_000), true, scene.clock.now());
        *scene.ecs.fails.lock().unwrap() = Some(AwsErrorKind::NotFound);
        assert!(scene.describe(5_000).await.unwrap_err().message.contains("for a reason"));
        assert_eq!(
            scene.liveness(5_000),
            TaskLiveness::StopUnconfirmed,
            "not even an unknown cluster proves a stop"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn throttling_keeps_everyone_from_calling_for_a_while() {
        let scene = scene();
        *scene.ecs.fails.lock().unwrap() = Some(AwsErrorKind::Throttled);
        scene.describe(1).await.unwrap_err();
        *scene.ecs.fails.lock().unwrap() = None;
        let began = Instant::now();
        scene.describe(1).await.unwrap();
        assert!(began.elapsed() >= THROTTLE_PAUSE + CALL, "{:?}", began.elapsed());
    }
}
