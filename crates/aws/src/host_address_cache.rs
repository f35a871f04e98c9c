//! Caches the addresses of container instances, for tasks in network mode `host`. One call of `DescribeContainerInstances`
//! answers which EC2 instances up to 100 of them are, and one of `DescribeInstances` which addresses those have.
//!
//! A reading is used until a newer one replaces it: AWS is asked again in the background, so no task waits for it, and tasks
//! keep their address while AWS cannot be read. A newer reading adds what an older one lacks and never takes an address away;
//! another address counts once a second reading has shown it, too.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::{Instant, sleep};

use super::aws::{AwsError, AwsErrorKind, Ec2, Ecs, batch_failure};
use super::fact_cache::{FAILURE_TTL, FactCache};
use super::read_buckets::ReadBuckets;
use ecs_mesh_controller::{BatchCall, BatchError, Batcher, TokenBucket};
use ecs_mesh_model::{AccountRegion, ClusterArn, ContainerInstanceArn, InterfaceAddresses, Reason};

/// Limit of cached instances; the oldest is evicted first. A cluster has at most 5,000 by ECS's default quota, so these are
/// ten full ones, at a few hundred bytes an instance.
///
/// Source: <https://docs.aws.amazon.com/general/latest/gr/ecs-service.html>.
const MAX_CACHED: usize = 50_000;

/// Limit of instances in one call.
///
/// Source: <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_DescribeContainerInstances.html>.
const MAX_PER_CALL: usize = 100;

/// Age of a reading at which AWS is asked again: an instance may get another IPv6 address.
const REFRESH_AFTER: Duration = Duration::from_hours(1);

/// Pause after a failed refresh.
const REFRESH_RETRY: Duration = Duration::from_mins(1);

/// Pause before the second reading that confirms another address.
const CONFIRM_INTERVAL: Duration = Duration::from_secs(10);

/// How long a denied read is cached: only a change of a policy ends it.
const DENIED_TTL: Duration = Duration::from_mins(1);

/// Pause of all calls after a throttling response.
const THROTTLE_PAUSE: Duration = Duration::from_secs(1);

/// The cache of container instances' addresses.
#[derive(Clone)]
pub struct HostAddressCache {
    /// The EC2 instance of each container instance. It never changes.
    ids: Arc<FactCache<ContainerInstanceArn, Arc<str>>>,
    readings: Arc<FactCache<ContainerInstanceArn, HostReading>>,
    id_batcher: Batcher<DescribeContainerInstancesCall>,
    address_batcher: Batcher<DescribeInstancesCall>,
}

#[derive(Clone, Copy)]
struct HostReading {
    addresses: InterfaceAddresses,
    refresh_at: Instant,
}

/// Why an address could not be read, and how long that is the answer.
struct FailedRead {
    reason: Reason,
    ttl: Duration,
}

impl HostAddressCache {
    /// Calls of ECS take tokens from `ecs_buckets`: reads of container instances share the quota of `ListTasks` and
    /// `DescribeTasks`. Calls of EC2 take tokens from `ec2_buckets`, so that failures of EC2 use up no quota of ECS.
    pub fn new(
        ecs: Arc<dyn Ecs>,
        ec2: Arc<dyn Ec2>,
        ecs_buckets: impl Into<ReadBuckets>,
        ec2_buckets: impl Into<ReadBuckets>,
    ) -> Self {
        let (ecs_buckets, ec2_buckets) = (ecs_buckets.into(), ec2_buckets.into());
        let of_ecs = DescribeContainerInstancesCall { ecs, buckets: ecs_buckets.clone() };
        let of_ec2 = DescribeInstancesCall { ec2, buckets: ec2_buckets.clone() };
        Self {
            ids: Arc::new(FactCache::new(MAX_CACHED)),
            readings: Arc::new(FactCache::new(MAX_CACHED)),
            id_batcher: Batcher::with_buckets(of_ecs, MAX_PER_CALL, move |cluster| {
                ecs_buckets.of_cluster(cluster)
            }),
            address_batcher: Batcher::with_buckets(of_ec2, MAX_PER_CALL, move |cluster| {
                ec2_buckets.of_cluster(cluster)
            }),
        }
    }

    /// The addresses as far as the cache has them, or why they could not be read a moment ago. Old ones are read again in
    /// the background.
    pub fn cached(
        &self,
        cluster: &ClusterArn,
        instance: &ContainerInstanceArn,
    ) -> Option<Result<InterfaceAddresses, Reason>> {
        let now = Instant::now();
        let is_due = self.readings.update(instance, |reading| {
            let is_due = reading.refresh_at <= now;
            if is_due {
                reading.refresh_at = now + REFRESH_RETRY;
            }
            is_due
        });
        if is_due == Some(true) {
            tokio::spawn(self.clone().refresh(cluster.clone(), instance.clone()));
        }
        Some(self.readings.cached(instance)?.map(|reading| reading.addresses))
    }

    /// The addresses, from the cache or from AWS.
    ///
    /// # Errors
    /// When the calls fail, or have failed within the last 5 s (when AWS denied them, within the last minute).
    pub async fn get(
        &self,
        cluster: &ClusterArn,
        instance: &ContainerInstanceArn,
    ) -> Result<InterfaceAddresses, Reason> {
        if let Some(cached) = self.cached(cluster, instance) {
            return cached;
        }
        let read = self.read(cluster, instance).await;
        if let Some(known) = self.readings.update(instance, |reading| reading.addresses) {
            return Ok(known); // of a concurrent call
        }
        match read {
            Ok(addresses) => {
                self.readings.insert(instance.clone(), HostReading::new(addresses));
                Ok(addresses)
            }
            Err(FailedRead { reason, ttl }) => {
                self.readings.insert_failure(instance.clone(), reason.clone(), ttl);
                Err(reason)
            }
        }
    }

    async fn refresh(self, cluster: ClusterArn, instance: ContainerInstanceArn) {
        let Ok(read) = self.read(&cluster, &instance).await else { return };
        if self.readings.update(&instance, |known| known.contradicts(read)) == Some(true) {
            sleep(CONFIRM_INTERVAL).await;
            if self.read(&cluster, &instance).await.ok() != Some(read) {
                return;
            }
        }
        self.readings.update(&instance, |known| *known = HostReading::new(read.or(known.addresses)));
    }

    async fn read(
        &self,
        cluster: &ClusterArn,
        instance: &ContainerInstanceArn,
    ) -> Result<InterfaceAddresses, FailedRead> {
        let id = if let Some(Ok(id)) = self.ids.cached(instance) {
            id
        } else {
            let id = answer_of(self.id_batcher.ask(cluster.clone(), instance.clone()).await)?;
            self.ids.insert(instance.clone(), Arc::clone(&id));
            id
        };
        answer_of(self.address_batcher.ask(cluster.clone(), id).await)
    }
}

impl HostReading {
    fn new(addresses: InterfaceAddresses) -> Self {
        Self { addresses, refresh_at: Instant::now() + REFRESH_AFTER }
    }

    /// Whether a family has another address in the new reading. One that a reading lacks is no contradiction.
    fn contradicts(&self, read: InterfaceAddresses) -> bool {
        read.or(self.addresses) != self.addresses.or(read)
    }
}

/// The answer for one instance.
fn answer_of<T>(asked: Result<Result<T, Reason>, BatchError<AwsError>>) -> Result<T, FailedRead> {
    let is_denied = matches!(&asked, Err(BatchError::Call(error)) if error.kind == AwsErrorKind::Denied);
    let ttl = if is_denied { DENIED_TTL } else { FAILURE_TTL };
    let answer = asked.map_err(batch_failure).and_then(|answer| answer);
    answer.map_err(|reason| FailedRead { reason, ttl })
}

struct DescribeContainerInstancesCall {
    ecs: Arc<dyn Ecs>,
    buckets: ReadBuckets,
}

#[async_trait]
impl BatchCall for DescribeContainerInstancesCall {
    type Group = ClusterArn;
    type Request = ContainerInstanceArn;
    type Response = Result<Arc<str>, Reason>;
    type Error = AwsError;

    async fn call(
        &self,
        cluster: &ClusterArn,
        instances: Vec<ContainerInstanceArn>,
    ) -> Result<BTreeMap<ContainerInstanceArn, <Self as BatchCall>::Response>, AwsError> {
        let described = self.ecs.describe_container_instances(cluster, &instances).await;
        let described =
            described.inspect_err(|error| pause_if_throttled(error, &self.buckets.of_cluster(cluster)))?;
        let failed = described.failed.into_iter();
        let failed = failed
            .map(|(instance, error)| (instance, Err(failure("ecs:DescribeContainerInstances", &error))));
        let found = described.ec2_ids.into_iter().map(|(instance, id)| (instance, Ok(id.into())));
        Ok(failed.chain(found).collect())
    }
}

struct DescribeInstancesCall {
    ec2: Arc<dyn Ec2>,
    buckets: ReadBuckets,
}

#[async_trait]
impl BatchCall for DescribeInstancesCall {
    /// The instances of each cluster are asked for apart, so that a slow call delays one cluster only.
    type Group = ClusterArn;
    type Request = Arc<str>;
    type Response = Result<InterfaceAddresses, Reason>;
    type Error = AwsError;

    async fn call(
        &self,
        cluster: &ClusterArn,
        ids: Vec<Arc<str>>,
    ) -> Result<BTreeMap<Arc<str>, <Self as BatchCall>::Response>, AwsError> {
        let asked: BTreeSet<String> = ids.iter().map(ToString::to_string).collect();
        let found = self.ec2.instance_addresses_in(&AccountRegion::of(cluster), &asked).await;
        let found =
            found.inspect_err(|error| pause_if_throttled(error, &self.buckets.of_cluster(cluster)))?;
        let answer = |id: Arc<str>| {
            let addresses = found.get(&*id).filter(|addresses| !addresses.is_empty()).copied();
            let without = || failure("ec2:DescribeInstances", &format!("instance {id} has no address"));
            (Arc::clone(&id), addresses.ok_or_else(without))
        };
        Ok(ids.into_iter().map(answer).collect())
    }
}

fn pause_if_throttled(error: &AwsError, bucket: &TokenBucket) {
    if error.kind == AwsErrorKind::Throttled {
        bucket.penalize(THROTTLE_PAUSE);
    }
}

fn failure(operation: &str, error: &str) -> Reason {
    Reason::new(format!("{operation} failed"), format!("{operation}: {error}"))
}

#[cfg(test)]
mod tests {
    use tokio::task::JoinSet;
    use tokio::time::advance;

    use super::super::fakes::{FakeEc2, FakeEcs, bucket, cluster, instance_arn};
    use super::*;

    struct HostFixture {
        ecs: Arc<FakeEcs>,
        ec2: Arc<FakeEc2>,
        hosts: HostAddressCache,
    }

    fn fixture_of(instances: usize) -> HostFixture {
        let (ecs, ec2) = (Arc::new(FakeEcs::default()), Arc::new(FakeEc2::default()));
        for n in 1..=instances {
            ec2.set(n, &format!("10.{}.{}.{}", 1 + n / 65_536, n / 256 % 256, n % 256));
        }
        HostFixture { hosts: HostAddressCache::new(ecs.clone(), ec2.clone(), bucket(), bucket()), ecs, ec2 }
    }

    fn fixture() -> HostFixture {
        fixture_of(3)
    }

    impl HostFixture {
        /// The addresses of an instance, IPv4 first, or the key of the reason.
        async fn address(&self, n: usize) -> Result<String, String> {
            let read = self.hosts.get(&cluster(), &instance_arn(n)).await.map_err(|reason| reason.key)?;
            Ok(read.all().map(|address| address.to_string()).collect::<Vec<_>>().join(" "))
        }

        /// Uses the address when it is due for a refresh, and again after the refresh.
        async fn refreshed(&self, n: usize) -> (String, String) {
            advance(REFRESH_AFTER).await;
            let before = self.address(n).await.unwrap();
            sleep(CONFIRM_INTERVAL * 2).await;
            (before, self.address(n).await.unwrap())
        }

        /// Asks for each of the first instances at once.
        async fn ask_all(&self, instances: usize) {
            let mut asks = JoinSet::new();
            for n in 1..=instances {
                let hosts = self.hosts.clone();
                asks.spawn(async move { hosts.get(&cluster(), &instance_arn(n)).await.is_ok() });
            }
            asks.join_all().await;
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
        assert_eq!((first.unwrap(), second.unwrap()), ("10.1.0.1".to_owned(), "10.1.0.2".to_owned()));
        assert_eq!(third.unwrap(), "10.1.0.3");
        assert_eq!(fixture.ec2.calls(), 2);
        fixture.address(3).await.unwrap();
        assert_eq!(fixture.ec2.calls(), 2, "it is cached");
    }

    #[tokio::test(start_paused = true)]
    async fn unknown_instance_fails_alone() {
        let fixture = fixture();
        fixture.ec2.forget(2);
        let (known, unknown) = tokio::join!(fixture.address(1), fixture.address(2));
        assert_eq!(known.unwrap(), "10.1.0.1");
        assert_eq!(unknown.unwrap_err(), "ec2:DescribeInstances failed");
        fixture.ecs.missing_instances.lock().unwrap().push(instance_arn(3));
        assert_eq!(fixture.address(3).await.unwrap_err(), "ecs:DescribeContainerInstances failed");
    }

    #[tokio::test(start_paused = true)]
    async fn failure_is_cached_for_five_seconds_and_denial_for_a_minute() {
        for (kind, ttl) in [(AwsErrorKind::Unavailable, FAILURE_TTL), (AwsErrorKind::Denied, DENIED_TTL)] {
            let fixture = fixture();
            *fixture.ec2.fails.lock().unwrap() = Some(kind);
            assert!(fixture.address(1).await.is_err());
            *fixture.ec2.fails.lock().unwrap() = None;
            advance(ttl.saturating_sub(Duration::from_millis(1))).await;
            assert!(fixture.address(1).await.is_err());
            assert_eq!(fixture.ec2.calls(), 1);
            advance(Duration::from_millis(1)).await;
            assert_eq!(fixture.address(1).await.unwrap(), "10.1.0.1");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn denied_ec2_costs_no_calls_of_ecs() {
        const INSTANCES: usize = 10_000;
        let fixture = fixture_of(INSTANCES);
        *fixture.ec2.fails.lock().unwrap() = Some(AwsErrorKind::Denied);
        let began = Instant::now();
        while began.elapsed() < Duration::from_mins(10) {
            fixture.ask_all(INSTANCES).await;
            sleep(DENIED_TTL).await;
        }
        let per_round = INSTANCES / MAX_PER_CALL;
        assert_eq!(*fixture.ecs.instance_reads.lock().unwrap(), per_round, "each instance is read once");
        assert!(fixture.ec2.calls() <= 10 * per_round, "{} calls of EC2", fixture.ec2.calls());
        *fixture.ec2.fails.lock().unwrap() = None;
        sleep(DENIED_TTL).await;
        assert_eq!(fixture.address(INSTANCES).await.unwrap(), "10.1.39.16");
    }

    #[tokio::test(start_paused = true)]
    async fn instances_of_three_large_clusters_are_kept() {
        let fixture = fixture_of(15_000);
        for _ in 0..2 {
            fixture.ask_all(15_000).await;
        }
        assert_eq!((*fixture.ecs.instance_reads.lock().unwrap(), fixture.ec2.calls()), (150, 150));
    }

    #[tokio::test(start_paused = true)]
    async fn old_reading_is_used_at_once_and_survives_failures() {
        let fixture = fixture();
        fixture.address(1).await.unwrap();
        *fixture.ec2.fails.lock().unwrap() = Some(AwsErrorKind::Throttled);
        advance(REFRESH_AFTER).await;
        let before = Instant::now();
        assert_eq!(fixture.address(1).await.unwrap(), "10.1.0.1");
        assert_eq!(before.elapsed(), Duration::ZERO, "no caller waits for AWS");
        for _ in 0..10 {
            sleep(Duration::from_secs(5)).await;
            assert_eq!(fixture.address(1).await.unwrap(), "10.1.0.1");
        }
        assert_eq!(fixture.ec2.calls(), 2, "one try a minute");
        assert_eq!(*fixture.ecs.instance_reads.lock().unwrap(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn new_reading_adds_a_family_and_takes_none_away() {
        let fixture = fixture();
        assert_eq!(fixture.address(1).await.unwrap(), "10.1.0.1");
        fixture.ec2.set_dual_stack(1, "10.1.0.1", "2001:db8::1");
        assert_eq!(fixture.refreshed(1).await.1, "10.1.0.1 2001:db8::1");
        fixture.ec2.set(1, "10.1.0.1");
        assert_eq!(fixture.refreshed(1).await.1, "10.1.0.1 2001:db8::1");
        fixture.ec2.forget(1);
        assert_eq!(fixture.refreshed(1).await.1, "10.1.0.1 2001:db8::1");
    }

    #[tokio::test(start_paused = true)]
    async fn another_address_needs_a_second_reading() {
        let fixture = fixture();
        fixture.address(1).await.unwrap();
        fixture.ec2.set(1, "10.9.9.9");
        advance(REFRESH_AFTER).await;
        fixture.address(1).await.unwrap();
        sleep(CONFIRM_INTERVAL / 2).await;
        fixture.ec2.set(1, "10.1.0.1");
        sleep(CONFIRM_INTERVAL * 2).await;
        assert_eq!(fixture.address(1).await.unwrap(), "10.1.0.1", "the second reading disagrees");
        fixture.ec2.set(1, "10.9.9.9");
        let expected = ("10.1.0.1".to_owned(), "10.9.9.9".to_owned());
        assert_eq!(fixture.refreshed(1).await, expected);
    }
}
