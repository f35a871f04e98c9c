//! The batcher's guarantees, with a paused clock.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// The second in which a call started, its group and its requests.
type RecordedCall = (u64, &'static str, Vec<u32>);

/// A remote that takes a second (an hour for the group `hung`) and responds with the start of the call. It omits 404,
/// fails calls with 500 and panics at 666.
#[derive(Clone)]
struct FakeRemote {
    begun: Instant,
    calls: Arc<Mutex<Vec<RecordedCall>>>,
}

#[async_trait]
impl BatchCall for FakeRemote {
    type Group = &'static str;
    type Request = u32;
    type Response = Duration;
    type Error = &'static str;

    async fn call(
        &self,
        group: &&'static str,
        requests: Vec<u32>,
    ) -> Result<BTreeMap<u32, Duration>, &'static str> {
        let started = self.begun.elapsed();
        lock(&self.calls).push((started.as_secs(), *group, requests.clone()));
        sleep(if *group == "hung" { 3_600 * SECOND } else { SECOND }).await;
        assert!(!requests.contains(&666), "a bug, on purpose");
        if requests.contains(&500) {
            return Err("broken");
        }
        Ok(requests.into_iter().filter(|request| *request != 404).map(|request| (request, started)).collect())
    }
}

struct BatchFixture {
    remote: FakeRemote,
    batcher: Batcher<FakeRemote>,
}

fn fixture(max_requests: usize, bucket: Option<TokenBucket>) -> BatchFixture {
    let remote = FakeRemote { begun: Instant::now(), calls: Arc::default() };
    BatchFixture { batcher: Batcher::new(remote.clone(), max_requests, bucket), remote }
}

impl BatchFixture {
    fn request(&self, group: &'static str, request: u32) -> JoinHandle<BatchResult<FakeRemote>> {
        let batcher = self.batcher.clone();
        tokio::spawn(async move { batcher.ask(group, request).await })
    }

    fn calls(&self) -> Vec<RecordedCall> {
        lock(&self.remote.calls).clone()
    }
}

#[tokio::test(start_paused = true)]
async fn requests_during_a_call_share_the_next_call() {
    let fixture = fixture(100, None);
    let first = fixture.request("a", 1);
    sleep(SECOND / 2).await;
    let others: Vec<_> = [4, 2, 3].map(|request| fixture.request("a", request)).into();
    first.await.unwrap().unwrap();
    for other in others {
        other.await.unwrap().unwrap();
    }
    assert_eq!(fixture.calls(), [(0, "a", vec![1]), (1, "a", vec![4, 2, 3])]);
}

#[tokio::test(start_paused = true)]
async fn response_comes_from_a_call_started_after_the_request() {
    let fixture = fixture(100, None);
    let first = fixture.request("a", 1);
    sleep(SECOND / 2).await;
    let same_again = fixture.request("a", 1);
    assert_eq!(first.await.unwrap(), Ok(Duration::ZERO));
    assert_eq!(same_again.await.unwrap(), Ok(SECOND));
}

#[tokio::test(start_paused = true)]
async fn equal_requests_are_sent_once() {
    let fixture = fixture(100, None);
    let asked: Vec<_> = [1, 2, 1, 1].map(|request| fixture.request("a", request)).into();
    for answer in asked {
        assert!(answer.await.unwrap().is_ok());
    }
    assert_eq!(fixture.calls(), [(0, "a", vec![1, 2])]);
}

#[tokio::test(start_paused = true)]
async fn batch_call_is_limited_and_ordered() {
    let fixture = fixture(3, None);
    let asked: Vec<_> = (0..8).map(|request| fixture.request("a", request)).collect();
    for answer in asked {
        answer.await.unwrap().unwrap();
    }
    assert_eq!(fixture.calls(), [(0, "a", vec![0, 1, 2]), (1, "a", vec![3, 4, 5]), (2, "a", vec![6, 7])]);
}

/// A remote that responds at once.
struct InstantRemote {
    sizes: Arc<Mutex<Vec<usize>>>,
}

#[async_trait]
impl BatchCall for InstantRemote {
    type Group = ();
    type Request = u32;
    type Response = ();
    type Error = &'static str;

    async fn call(&self, (): &(), requests: Vec<u32>) -> Result<BTreeMap<u32, ()>, &'static str> {
        lock(&self.sizes).push(requests.len());
        Ok(requests.into_iter().map(|request| (request, ())).collect())
    }
}

/// A worker runs what a task starts before other tasks, so the driver would call for its first caller alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn requests_of_ready_tasks_share_the_first_call() {
    let sizes = Arc::default();
    let batcher = Batcher::new(InstantRemote { sizes: Arc::clone(&sizes) }, 100, None);
    let callers = async move {
        let mut asked = tokio::task::JoinSet::new();
        for request in 0..100 {
            let batcher = batcher.clone();
            asked.spawn(async move { batcher.ask((), request).await });
        }
        asked.join_all().await
    };
    let answers = tokio::spawn(callers).await.unwrap();
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!(*lock(&sizes), [100]);
}

#[tokio::test(start_paused = true)]
async fn requests_gather_while_the_bucket_is_empty() {
    let bucket = TokenBucket::new(0.1, 1);
    bucket.acquire(1).await;
    let fixture = fixture(100, Some(bucket));
    let first = fixture.request("a", 1);
    sleep(9 * SECOND).await;
    let second = fixture.request("a", 2);
    first.await.unwrap().unwrap();
    second.await.unwrap().unwrap();
    assert_eq!(fixture.calls(), [(10, "a", vec![1, 2])]);
}

#[tokio::test(start_paused = true)]
async fn hung_group_does_not_block_other_groups() {
    let fixture = fixture(100, None);
    let hung = fixture.request("hung", 1);
    sleep(SECOND).await;
    fixture.request("a", 1).await.unwrap().unwrap();
    assert_eq!(fixture.calls(), [(0, "hung", vec![1]), (1, "a", vec![1])]);
    assert!(!hung.is_finished());
}

#[tokio::test(start_paused = true)]
async fn error_reaches_only_requests_of_its_call() {
    let fixture = fixture(100, None);
    let failing = [fixture.request("a", 1), fixture.request("a", 500)];
    sleep(SECOND / 2).await;
    let next = fixture.request("a", 2);
    for answer in failing {
        assert_eq!(answer.await.unwrap(), Err(BatchError::Call("broken")));
    }
    assert!(next.await.unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn request_is_missing_when_response_omits_it() {
    let fixture = fixture(100, None);
    let (left_out, answered) = (fixture.request("a", 404), fixture.request("a", 1));
    assert_eq!(left_out.await.unwrap(), Err(BatchError::Missing));
    assert!(answered.await.unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn panicked_call_loses_its_own_requests_only() {
    let fixture = fixture(100, None);
    let lost = fixture.request("a", 666);
    sleep(SECOND / 2).await;
    let next = fixture.request("a", 1);
    assert_eq!(lost.await.unwrap(), Err(BatchError::Lost));
    assert!(next.await.unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn cancelled_caller_does_not_affect_others() {
    let fixture = fixture(100, None);
    let (impatient, patient) = (fixture.request("a", 1), fixture.request("a", 2));
    sleep(SECOND / 2).await;
    impatient.abort();
    assert_eq!(patient.await.unwrap(), Ok(Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn request_is_not_sent_when_all_callers_cancelled() {
    let fixture = fixture(100, None);
    let first = fixture.request("a", 1);
    sleep(SECOND / 4).await;
    let (impatient, patient) = (fixture.request("a", 2), fixture.request("a", 3));
    sleep(SECOND / 4).await;
    impatient.abort();
    first.await.unwrap().unwrap();
    sleep(SECOND / 4).await;
    assert!(timeout(SECOND / 4, fixture.batcher.ask("a", 4)).await.is_err());
    patient.await.unwrap().unwrap();
    sleep(60 * SECOND).await;
    assert_eq!(fixture.calls(), [(0, "a", vec![1]), (1, "a", vec![3])]);
    assert!(lock(&fixture.batcher.inner.groups).is_empty());
}
