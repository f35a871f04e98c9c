//! Caches the addresses of container instances, for tasks in network mode `host`. One call of `DescribeContainerInstances`
//! and one of `DescribeInstances` answer for up to 100 instances of a cluster.
//!
//! An instance keeps its primary IPv4 address for life, so a reading that cannot be repeated stays good.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use super::aws::{AwsError, Ec2, Ecs, batch_failure};
use ecs_mesh_controller::{BatchCall, Batcher, TokenBucket};
use ecs_mesh_model::{ClusterArn, ContainerInstanceArn, InterfaceAddresses, Reason};

/// Limit of cached instances; the oldest is evicted first. An account has at most 5,000 container instances a cluster.
const MAX_CACHED: usize = 10_000;

/// Limit of instances in one call.
///
/// Source: <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_DescribeContainerInstances.html>.
const MAX_PER_CALL: usize = 100;

/// How long a reading is used: an instance may get another IPv6 address.
const TTL: Duration = Duration::from_hours(1);

/// How long a failed read is cached, so that a thousand tasks cause one call.
const FAILURE_TTL: Duration = Duration::from_secs(5);

/// The cache of container instances' addresses.
#[derive(Clone)]
pub struct HostAddressCache {
    kept: Arc<Mutex<CachedHosts>>,
    batcher: Batcher<DescribeHostsCall>,
}

#[derive(Default)]
struct CachedHosts {
    by_instance: BTreeMap<ContainerInstanceArn, HostReading>,
    oldest_first: VecDeque<ContainerInstanceArn>,
    failures: BTreeMap<ContainerInstanceArn, (Instant, Reason)>,
}

#[derive(Clone, Copy)]
struct HostReading {
    at: Instant,
    addresses: InterfaceAddresses,
}

struct DescribeHostsCall {
    ecs: Arc<dyn Ecs>,
    ec2: Arc<dyn Ec2>,
}

impl HostAddressCache {
    /// Calls take tokens from `bucket`: reads of container instances share the quota of `ListTasks` and `DescribeTasks`.
    pub fn new(ecs: Arc<dyn Ecs>, ec2: Arc<dyn Ec2>, bucket: TokenBucket) -> Self {
        let call = DescribeHostsCall { ecs, ec2 };
        Self { kept: Arc::default(), batcher: Batcher::new(call, MAX_PER_CALL, Some(bucket)) }
    }

    /// The addresses as far as the cache has them, or why they could not be read a moment ago.
    pub fn cached(&self, instance: &ContainerInstanceArn) -> Option<Result<InterfaceAddresses, Reason>> {
        let kept = self.lock();
        let reading = kept.by_instance.get(instance);
        if let Some(reading) = reading.filter(|reading| reading.at.elapsed() < TTL) {
            return Some(Ok(reading.addresses));
        }
        let (at, reason) = kept.failures.get(instance)?;
        let is_recent = at.elapsed() < FAILURE_TTL;
        is_recent.then(|| reading.map_or_else(|| Err(reason.clone()), |reading| Ok(reading.addresses)))
    }

    /// The addresses, from the cache or from AWS.
    ///
    /// # Errors
    /// When the calls fail, or have failed within the last 5 s, and no earlier ones succeeded.
    pub async fn get(
        &self,
        cluster: &ClusterArn,
        instance: &ContainerInstanceArn,
    ) -> Result<InterfaceAddresses, Reason> {
        if let Some(cached) = self.cached(instance) {
            return cached;
        }
        let asked = self.batcher.ask(cluster.clone(), instance.clone()).await;
        let asked = asked.map_err(batch_failure).and_then(|answer| answer);
        let mut kept = self.lock();
        kept.failures.retain(|failed, (at, _)| failed != instance && at.elapsed() < FAILURE_TTL);
        match asked {
            Ok(addresses) => {
                kept.insert(instance, addresses);
                Ok(addresses)
            }
            Err(reason) => {
                kept.failures.insert(instance.clone(), (Instant::now(), reason.clone()));
                kept.by_instance.get(instance).map(|reading| reading.addresses).ok_or(reason)
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, CachedHosts> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CachedHosts {
    fn insert(&mut self, instance: &ContainerInstanceArn, addresses: InterfaceAddresses) {
        let reading = HostReading { at: Instant::now(), addresses };
        if self.by_instance.insert(instance.clone(), reading).is_none() {
            self.oldest_first.push_back(instance.clone());
        }
        if self.oldest_first.len() > MAX_CACHED
            && let Some(oldest) = self.oldest_first.pop_front()
        {
            self.by_instance.remove(&oldest);
        }
    }
}

#[async_trait]
impl BatchCall for DescribeHostsCall {
    type Group = ClusterArn;
    type Request = ContainerInstanceArn;
    type Response = Result<InterfaceAddresses, Reason>;
    type Error = AwsError;

    async fn call(
        &self,
        cluster: &ClusterArn,
        instances: Vec<ContainerInstanceArn>,
    ) -> Result<BTreeMap<ContainerInstanceArn, <Self as BatchCall>::Response>, AwsError> {
        let described = self.ecs.describe_container_instances(cluster, &instances).await?;
        let ids: BTreeSet<String> = described.ec2_ids.values().cloned().collect();
        let found = if ids.is_empty() { BTreeMap::new() } else { self.ec2.instance_addresses(&ids).await? };
        let mut answers: BTreeMap<_, _> = described
            .failed
            .into_iter()
            .map(|(instance, error)| (instance, Err(failure("ecs:DescribeContainerInstances", &error))))
            .collect();
        for (instance, id) in described.ec2_ids {
            let addresses = found.get(&id).filter(|addresses| !addresses.is_empty()).copied();
            let without = || failure("ec2:DescribeInstances", &format!("instance {id} has no address"));
            answers.insert(instance, addresses.ok_or_else(without));
        }
        Ok(answers)
    }
}

fn failure(operation: &str, error: &str) -> Reason {
    Reason::new(format!("{operation} failed"), format!("{operation}: {error}"))
}

#[cfg(test)]
mod tests {
    use tokio::time::{advance, sleep};

    use super::super::aws::AwsErrorKind;
    use super::super::fakes::{FakeEc2, FakeEcs, bucket, cluster, instance_arn};
    use super::*;

    struct HostFixture {
        ecs: Arc<FakeEcs>,
        ec2: Arc<FakeEc2>,
        hosts: HostAddressCache,
    }

    fn fixture() -> HostFixture {
        let (ecs, ec2) = (Arc::new(FakeEcs::default()), Arc::new(FakeEc2::default()));
        for n in 1..=3 {
            ec2.set(n, &format!("10.0.2.{n}"));
        }
        HostFixture { hosts: HostAddressCache::new(ecs.clone(), ec2.clone(), bucket()), ecs, ec2 }
    }

    impl HostFixture {
        /// The IPv4 address of an instance, or the key of the reason.
        async fn address(&self, n: usize) -> Result<String, String> {
            let read = self.hosts.get(&cluster(), &instance_arn(n)).await;
            read.map(|addresses| addresses.v4().unwrap().to_string()).map_err(|reason| reason.key)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn instances_of_a_cluster_share_calls() {
        let fixture = fixture();
        let first = fixture.address(1);
        let others = async {
            sleep(Duration::from_millis(10)).await;
            tokio::join!(fixture.address(2), fixture.address(3), fixture.address(2))
        };
        let (first, (second, third, _)) = tokio::join!(first, others);
        assert_eq!((first.unwrap(), second.unwrap()), ("10.0.2.1".to_owned(), "10.0.2.2".to_owned()));
        assert_eq!(third.unwrap(), "10.0.2.3");
        assert_eq!(fixture.ec2.calls(), 2);
        fixture.address(3).await.unwrap();
        assert_eq!(fixture.ec2.calls(), 2, "it is cached");
    }

    #[tokio::test(start_paused = true)]
    async fn unknown_instance_fails_alone() {
        let fixture = fixture();
        fixture.ec2.forget(2);
        let (known, unknown) = tokio::join!(fixture.address(1), fixture.address(2));
        assert_eq!(known.unwrap(), "10.0.2.1");
        assert_eq!(unknown.unwrap_err(), "ec2:DescribeInstances failed");
        fixture.ecs.missing_instances.lock().unwrap().push(instance_arn(3));
        assert_eq!(fixture.address(3).await.unwrap_err(), "ecs:DescribeContainerInstances failed");
    }

    #[tokio::test(start_paused = true)]
    async fn failure_is_cached_for_five_seconds() {
        let fixture = fixture();
        *fixture.ec2.fails.lock().unwrap() = Some(AwsErrorKind::Denied);
        assert!(fixture.address(1).await.is_err());
        *fixture.ec2.fails.lock().unwrap() = None;
        assert!(fixture.address(1).await.is_err());
        assert_eq!(fixture.ec2.calls(), 1);
        advance(FAILURE_TTL).await;
        assert_eq!(fixture.address(1).await.unwrap(), "10.0.2.1");
    }

    #[tokio::test(start_paused = true)]
    async fn reading_is_repeated_after_an_hour_and_survives_failures() {
        let fixture = fixture();
        fixture.address(1).await.unwrap();
        fixture.ec2.set(1, "10.0.2.9");
        advance(TTL).await;
        *fixture.ec2.fails.lock().unwrap() = Some(AwsErrorKind::Throttled);
        for _ in 0..2 {
            assert_eq!(fixture.address(1).await.unwrap(), "10.0.2.1");
        }
        assert_eq!(fixture.ec2.calls(), 2);
        *fixture.ec2.fails.lock().unwrap() = None;
        advance(FAILURE_TTL).await;
        assert_eq!(fixture.address(1).await.unwrap(), "10.0.2.9");
    }
}
