//! Targeted DescribeTasks, shared by whoever asks at the same time: up to 100 tasks of a cluster a call, below the
//! account's quota. Every answer goes into the [`Store`] before anyone hears it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::aws::{AwsError, AwsErrorKind, Ecs};
use super::store::{Observed, Source, Store};
use ecs_mesh_clock::Clock;
use ecs_mesh_controller::{BatchCall, BatchError, Batcher, TokenBucket};
use ecs_mesh_model::{ClusterArn, TaskArn, TaskId, Why};

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

/// Called when a describe is the first observation that ECS takes a task down, or that it has stopped: no event may ever
/// follow that brings the task back into the queues.
pub type OnLeaving = Arc<dyn Fn(&TaskArn, Observed) + Send + Sync>;

struct Call {
    ecs: Arc<dyn Ecs>,
    store: Arc<Store>,
    clock: Clock,
    bucket: TokenBucket,
    on_leaving: OnLeaving,
}

impl Describer {
    /// Calls take tokens from `bucket`, which all ECS reads share.
    pub fn new(
        ecs: Arc<dyn Ecs>,
        store: Arc<Store>,
        clock: Clock,
        bucket: TokenBucket,
        on_leaving: OnLeaving,
    ) -> Self {
        let call = Call { ecs, store, clock, bucket: bucket.clone(), on_leaving };
        Self { batcher: Batcher::new(call, BATCH, Some(bucket)) }
    }

    /// Describes a task by a call that starts now or later. `grace`: how long absence must have lasted for MISSING
    /// to count.
    ///
    /// # Errors
    /// When the call failed or ECS could not say. Nothing is known then.
    pub async fn describe(&self, task: &TaskArn, grace: Duration) -> Result<Answer, Why> {
        let request = Request { id: task.id().clone(), grace };
        match self.batcher.ask(task.cluster().clone(), request).await {
            Ok(Answer::Failed(reason)) => {
                let words = format!("ecs:DescribeTasks on {task} failed: {reason}");
                Err(Why::new(format!("ecs:DescribeTasks {reason}"), words))
            }
            Ok(answer) => Ok(answer),
            Err(BatchError::Call(error)) => Err(error.into()),
            Err(error) => {
                let words = format!("ecs:DescribeTasks on {task}: {error}");
                Err(Why::new(error.to_string(), words))
            }
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
            let arn = task.arn.clone();
            let observed = self.store.observe(task, Source::Describe, now);
            if observed.first_leaving || observed.first_stop {
                (self.on_leaving)(&arn, observed);
            }
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

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::time::{Instant, sleep};

    use super::super::fakes::{CALL, FakeEcs, clock, task, task_arn};
    use super::super::store::Life;
    use super::*;
    use ecs_mesh_model::LastStatus;

    const GRACE: Duration = Duration::from_mins(5);

    struct Scene {
        describer: Describer,
        ecs: Arc<FakeEcs>,
        store: Arc<Store>,
        clock: Clock,
    }

    /// An ECS that knows the tasks below 1000.
    fn scene() -> Scene {
        let tasks = (0..1_000).map(|n| (task_arn(n).id().clone(), task(n, LastStatus::Running))).collect();
        let ecs = Arc::new(FakeEcs { tasks: Mutex::new(tasks), ..FakeEcs::default() });
        let (store, clock) = (Arc::new(Store::default()), clock());
        let bucket = TokenBucket::new(10.0, 50);
        let nothing: OnLeaving = Arc::new(|_, _| {});
        let describer = Describer::new(ecs.clone(), store.clone(), clock.clone(), bucket, nothing);
        Scene { describer, ecs, store, clock }
    }

    impl Scene {
        async fn describe(&self, n: usize) -> Result<Answer, Why> {
            self.describer.describe(&task_arn(n), GRACE).await
        }

        /// Asks at once, and gives the number of tasks in each call.
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

        fn life(&self, n: usize) -> Life {
            self.store.snapshot(&task_arn(n), GRACE, self.clock.now()).life
        }
    }

    #[tokio::test(start_paused = true)]
    async fn questions_that_arrive_together_share_calls_of_a_hundred() {
        let scene = scene();
        let began = Instant::now();
        let calls = scene.describe_all(0..250).await;
        assert_eq!(calls.iter().sum::<usize>(), 250);
        assert!(calls.iter().all(|size| *size <= BATCH) && calls.len() <= 4, "{calls:?}");
        assert!(began.elapsed() <= 4 * CALL);
    }

    #[tokio::test(start_paused = true)]
    async fn one_task_is_named_once_in_a_call_whatever_grace_its_askers_have() {
        let scene = scene();
        // Keeps the line busy, so that the others share the next call.
        let (busy, one) = (scene.describe(9), task_arn(1));
        let (a, b, c) = tokio::join!(
            busy,
            scene.describer.describe(&one, GRACE),
            scene.describer.describe(&one, Duration::MAX),
        );
        assert_eq!((a, b, c), (Ok(Answer::Found), Ok(Answer::Found), Ok(Answer::Found)));
        let named = scene.ecs.described.lock().unwrap().concat();
        assert_eq!(named.iter().filter(|id| *id == "1").count(), 1, "{named:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_found_is_in_the_store_before_anyone_hears_of_it() {
        let scene = scene();
        assert_eq!(scene.describe(1).await, Ok(Answer::Found));
        assert_eq!(scene.life(1), Life::Live);
    }

    #[tokio::test(start_paused = true)]
    async fn missing_confirms_a_stopped_event_and_nothing_else() {
        let scene = scene();
        let now = scene.clock.now();
        scene.store.observe(task(5_000, LastStatus::Stopped), Source::Event, now);
        scene.store.observe(task(5_001, LastStatus::Running), Source::Event, now);
        assert_eq!(scene.describe(5_000).await, Ok(Answer::Missing));
        assert_eq!(scene.describe(5_001).await, Ok(Answer::Missing));
        assert_eq!(scene.describe(5_002).await, Ok(Answer::Missing));
        assert_eq!(scene.life(5_000), Life::Stopped);
        assert_eq!(scene.life(5_001), Life::Live, "it may not be visible yet");
        assert_eq!(scene.life(5_002), Life::Unknown);
    }

    #[tokio::test(start_paused = true)]
    async fn missing_confirms_an_absence_only_for_an_asker_whose_grace_is_over() {
        let scene = scene();
        let arn = task_arn(5_000);
        let since = scene.clock.now();
        scene.store.missed_by_sweep(&arn, since, since);
        sleep(GRACE).await;
        scene.store.missed_by_sweep(&arn, scene.clock.now(), scene.clock.now());
        assert_eq!(scene.describer.describe(&arn, Duration::MAX).await, Ok(Answer::Missing));
        assert_eq!(scene.life(5_000), Life::Missing { due: true });
        assert_eq!(scene.describe(5_000).await, Ok(Answer::Missing));
        assert_eq!(scene.life(5_000), Life::Absent { sweeps: 2, since });
    }

    #[tokio::test(start_paused = true)]
    async fn what_ecs_cannot_say_or_leaves_out_is_unknown_not_missing() {
        let scene = scene();
        scene.store.observe(task(1, LastStatus::Stopped), Source::Event, scene.clock.now());
        scene.store.observe(task(2, LastStatus::Stopped), Source::Event, scene.clock.now());
        scene.ecs.unsure.lock().unwrap().push(task_arn(1).id().clone());
        scene.ecs.silent.lock().unwrap().push(task_arn(2).id().clone());
        let why = scene.describe(1).await.unwrap_err();
        assert!(
            why.words.contains("its agent is away") && why.words.contains(&task_arn(1).to_string()),
            "{why}"
        );
        let why = scene.describe(2).await.unwrap_err();
        assert!(why.words.contains(&task_arn(2).to_string()), "{why}");
        assert_eq!((scene.life(1), scene.life(2)), (Life::SaidStopped, Life::SaidStopped));
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_fails_changes_nothing() {
        let scene = scene();
        scene.store.observe(task(5_000, LastStatus::Stopped), Source::Event, scene.clock.now());
        *scene.ecs.fails.lock().unwrap() = Some(AwsErrorKind::NotFound);
        assert!(scene.describe(5_000).await.unwrap_err().words.contains("for a reason"));
        assert_eq!(scene.life(5_000), Life::SaidStopped, "not even an unknown cluster proves a stop");
    }

    #[tokio::test(start_paused = true)]
    async fn throttling_keeps_everyone_from_calling_for_a_while() {
        let scene = scene();
        *scene.ecs.fails.lock().unwrap() = Some(AwsErrorKind::Throttled);
        scene.describe(1).await.unwrap_err();
        *scene.ecs.fails.lock().unwrap() = None;
        let began = Instant::now();
        scene.describe(1).await.unwrap();
        assert!(began.elapsed() >= THROTTLED + CALL, "{:?}", began.elapsed());
    }
}
