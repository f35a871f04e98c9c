//! The batcher's guarantees, seen with a stopped clock.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// In which second a call started, of which group, and what it asked for.
type RecordedCall = (u64, &'static str, Vec<u32>);

/// A remote that takes a second (an hour for the group `hung`) and answers with the start of the call. It knows
/// nothing of 404, fails a call that asks for 500, and panics at 666.
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

fn scene(most: usize, bucket: Option<TokenBucket>) -> BatchFixture {
    let remote = FakeRemote { begun: Instant::now(), calls: Arc::default() };
    BatchFixture { batcher: Batcher::new(remote.clone(), most, bucket), remote }
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
    let scene = scene(100, None);
    let first = scene.request("a", 1);
    sleep(SECOND / 2).await;
    let others: Vec<_> = [4, 2, 3].map(|request| scene.request("a", request)).into();
    first.await.unwrap().unwrap();
    for other in others {
        other.await.unwrap().unwrap();
    }
    assert_eq!(scene.calls(), [(0, "a", vec![1]), (1, "a", vec![4, 2, 3])]);
}

#[tokio::test(start_paused = true)]
async fn response_comes_from_a_call_started_after_the_request() {
    let scene = scene(100, None);
    let first = scene.request("a", 1);
    sleep(SECOND / 2).await;
    let same_again = scene.request("a", 1);
    assert_eq!(first.await.unwrap(), Ok(Duration::ZERO));
    assert_eq!(same_again.await.unwrap(), Ok(SECOND));
}

#[tokio::test(start_paused = true)]
async fn a_request_made_by_several_is_sent_once_and_answered_to_each() {
    let scene = scene(100, None);
    let asked: Vec<_> = [1, 2, 1, 1].map(|request| scene.request("a", request)).into();
    for answer in asked {
        assert!(answer.await.unwrap().is_ok());
    }
    assert_eq!(scene.calls(), [(0, "a", vec![1, 2])]);
}

#[tokio::test(start_paused = true)]
async fn batch_call_is_limited_and_ordered() {
    let scene = scene(3, None);
    let asked: Vec<_> = (0..8).map(|request| scene.request("a", request)).collect();
    for answer in asked {
        answer.await.unwrap().unwrap();
    }
    assert_eq!(scene.calls(), [(0, "a", vec![0, 1, 2]), (1, "a", vec![3, 4, 5]), (2, "a", vec![6, 7])]);
}

#[tokio::test(start_paused = true)]
async fn requests_gather_while_the_bucket_is_empty() {
    let bucket = TokenBucket::new(0.1, 1);
    bucket.acquire(1).await;
    let scene = scene(100, Some(bucket));
    let first = scene.request("a", 1);
    sleep(9 * SECOND).await;
    let second = scene.request("a", 2);
    first.await.unwrap().unwrap();
    second.await.unwrap().unwrap();
    assert_eq!(scene.calls(), [(10, "a", vec![1, 2])]);
}

#[tokio::test(start_paused = true)]
async fn a_group_that_hangs_holds_up_no_other() {
    let scene = scene(100, None);
    let hung = scene.request("hung", 1);
    sleep(SECOND).await;
    scene.request("a", 1).await.unwrap().unwrap();
    assert_eq!(scene.calls(), [(0, "hung", vec![1]), (1, "a", vec![1])]);
    assert!(!hung.is_finished());
}

#[tokio::test(start_paused = true)]
async fn error_reaches_only_requests_of_its_call() {
    let scene = scene(100, None);
    let failing = [scene.request("a", 1), scene.request("a", 500)];
    sleep(SECOND / 2).await;
    let next = scene.request("a", 2);
    for answer in failing {
        assert_eq!(answer.await.unwrap(), Err(BatchError::Call("broken")));
    }
    assert!(next.await.unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_request_that_the_answer_leaves_out_is_told_so() {
    let scene = scene(100, None);
    let (left_out, answered) = (scene.request("a", 404), scene.request("a", 1));
    assert_eq!(left_out.await.unwrap(), Err(BatchError::Missing));
    assert!(answered.await.unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_call_that_panics_loses_its_own_requests_only() {
    let scene = scene(100, None);
    let lost = scene.request("a", 666);
    sleep(SECOND / 2).await;
    let next = scene.request("a", 1);
    assert_eq!(lost.await.unwrap(), Err(BatchError::Lost));
    assert!(next.await.unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn whoever_stops_waiting_harms_nobody() {
    let scene = scene(100, None);
    let (impatient, patient) = (scene.request("a", 1), scene.request("a", 2));
    sleep(SECOND / 2).await;
    impatient.abort();
    assert_eq!(patient.await.unwrap(), Ok(Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn what_nobody_waits_for_any_more_is_not_sent() {
    let scene = scene(100, None);
    let first = scene.request("a", 1);
    sleep(SECOND / 4).await;
    let (impatient, patient) = (scene.request("a", 2), scene.request("a", 3));
    sleep(SECOND / 4).await;
    impatient.abort();
    first.await.unwrap().unwrap();
    sleep(SECOND / 4).await;
    assert!(timeout(SECOND / 4, scene.batcher.ask("a", 4)).await.is_err());
    patient.await.unwrap().unwrap();
    sleep(60 * SECOND).await;
    assert_eq!(scene.calls(), [(0, "a", vec![1]), (1, "a", vec![3])]);
    assert!(lock(&scene.batcher.inner.groups).is_empty());
}
