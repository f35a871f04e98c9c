//! Caches role tags for a limited time and reads them again after a CloudTrail event. A revocation is confirmed only when
//! two reads, at least [`ROLE_CONFIRM_INTERVAL`] apart, agree.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

use super::aws::{AwsError, AwsErrorKind, Iam, batch_failure};
use super::read_buckets::ReadBuckets;
use ecs_mesh_clock::Clock;
use ecs_mesh_controller::{BatchCall, Batcher};
use ecs_mesh_core::intent::{Fact, RoleTags};
use ecs_mesh_model::{Reason, RoleArn, Tags, Timestamp};

/// IAM is eventually consistent: two reads must lie this far apart to confirm each other.
pub const ROLE_CONFIRM_INTERVAL: Duration = Duration::from_secs(10);

/// Delays of the reads after a CloudTrail event: the event may be visible before the change, and the second read must be
/// far enough from the end of the first to confirm it.
pub const ROLE_RECHECK_DELAYS: [Duration; 3] =
    [Duration::ZERO, Duration::from_secs(11), Duration::from_mins(1)];

/// How long a failed read is cached, so that a thousand tasks of one role cause one call.
const FAILURE_TTL: Duration = Duration::from_secs(5);

/// The cache of role tags.
#[derive(Clone)]
pub struct RoleTagCache {
    cache: Arc<CacheInner>,
    batcher: Batcher<GetRoleCall>,
    buckets: ReadBuckets,
}

struct CacheInner {
    kept: Mutex<BTreeMap<RoleArn, CachedRole>>,
    /// Roles whose tags changed, found by any read.
    changed: Mutex<BTreeSet<RoleArn>>,
    clock: Clock,
    /// Whether a reading is good for any age.
    keeps_readings: AtomicBool,
    /// One read that can wait is made at a time in each account.
    turns: Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

#[derive(Clone, Debug, Default)]
struct CachedRole {
    reading: Option<RoleReading>,
    failure: Option<(Timestamp, Reason)>,
}

#[derive(Clone, Debug)]
struct RoleReading {
    /// `None`: the role does not exist.
    tags: Option<Arc<Tags>>,
    /// End of the first call with this result, without another result since.
    first: Timestamp,
    /// Start of the last call.
    last: Timestamp,
}

impl RoleReading {
    fn fact(&self) -> RoleTags {
        RoleTags { tags: self.tags.clone(), confirmed: self.first.age_at(self.last) >= ROLE_CONFIRM_INTERVAL }
    }
}

impl CacheInner {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<RoleArn, CachedRole>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records the result of a call that started at `started`. The flag is whether the result differs from the known one.
    fn record(&self, role: &RoleArn, tags: Option<Arc<Tags>>, started: Timestamp) -> (RoleTags, bool) {
        let ended = self.clock.now();
        let mut all = self.lock();
        let kept = all.entry(role.clone()).or_default();
        kept.failure = None;
        let before = kept.reading.take();
        let was_known = before.is_some();
        let same = before.filter(|reading| reading.tags == tags);
        let differs = same.is_none();
        let reading = match same {
            Some(reading) => RoleReading { last: started, ..reading },
            None => RoleReading { tags, first: ended, last: started },
        };
        let fact = kept.reading.insert(reading).fact();
        if differs && was_known {
            self.changed.lock().unwrap_or_else(PoisonError::into_inner).insert(role.clone());
        }
        (fact, differs)
    }

    fn record_failure(&self, role: &RoleArn, reason: Reason) {
        self.lock().entry(role.clone()).or_default().failure = Some((self.clock.now(), reason));
    }
}

impl RoleTagCache {
    /// Calls take tokens from `buckets`.
    pub fn new(iam: Arc<dyn Iam>, clock: Clock, buckets: impl Into<ReadBuckets>) -> Self {
        let buckets = buckets.into();
        let cache = Arc::new(CacheInner {
            kept: Mutex::default(),
            changed: Mutex::default(),
            clock,
            keeps_readings: AtomicBool::new(false),
            turns: Mutex::default(),
        });
        let call = GetRoleCall { iam, cache: Arc::clone(&cache) };
        let of_role = buckets.clone();
        let bucket_of = move |role: &RoleArn| of_role.of_account(role.account());
        Self { cache, batcher: Batcher::with_buckets(call, 1, bucket_of), buckets }
    }

    /// Reads each role once from now on, however old its reading gets: for a process that decides once.
    pub fn keep_readings(&self) {
        self.cache.keeps_readings.store(true, Ordering::Relaxed);
    }

    /// The role's tags as far as the cache has them, not older than `max_age`, or why they could not be read a moment ago.
    pub fn cached(&self, role: &RoleArn, max_age: Duration) -> Option<Fact<RoleTags>> {
        let now = self.cache.clock.now();
        let all = self.cache.lock();
        let kept = all.get(role)?;
        let keeps = self.cache.keeps_readings.load(Ordering::Relaxed);
        match (&kept.reading, &kept.failure) {
            (Some(reading), _) if keeps || reading.last.age_at(now) < max_age => {
                Some(Fact::Known(reading.fact()))
            }
            (_, Some((at, reason))) if at.age_at(now) < FAILURE_TTL => Some(Fact::Unknown(reason.clone())),
            _ => None,
        }
    }

    /// The role's tags, not older than `max_age`.
    pub async fn get(&self, role: &RoleArn, max_age: Duration) -> Fact<RoleTags> {
        match self.cached(role, max_age) {
            Some(fact) => fact,
            None => self.read(role).await.0,
        }
    }

    /// Reads the role now. The flag is whether the tags differ from the known ones; all callers that share the call get
    /// the same result.
    pub async fn read(&self, role: &RoleArn) -> (Fact<RoleTags>, bool) {
        match self.batcher.ask(role.clone(), ()).await {
            Ok((fact, differs)) => (Fact::Known(fact), differs),
            Err(error) => {
                let reason = batch_failure(error);
                self.cache.record_failure(role, reason.clone());
                (Fact::Unknown(reason), false)
            }
        }
    }

    /// As [`Self::read`], once the rate limit has calls to spare: reads for tasks that wait, and after changes, go first.
    pub async fn read_when_spare(&self, role: &RoleArn) -> (Fact<RoleTags>, bool) {
        let turn = {
            let mut turns = self.cache.turns.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(turns.entry(role.account().to_owned()).or_default())
        };
        let _turn = turn.lock().await;
        self.buckets.of_account(role.account()).wait_until_spare().await;
        self.read(role).await
    }

    /// Takes the roles whose tags changed since the last call: a read for one task may find a change that concerns all
    /// tasks of the role.
    pub fn take_changed(&self) -> BTreeSet<RoleArn> {
        std::mem::take(&mut self.cache.changed.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Age of the newest reading.
    pub fn age(&self, role: &RoleArn) -> Option<Duration> {
        let now = self.cache.clock.now();
        self.cache.lock().get(role)?.reading.as_ref().map(|reading| reading.last.age_at(now))
    }

    /// Whether two reads, far enough apart, agree on the role.
    pub fn is_confirmed(&self, role: &RoleArn) -> bool {
        let all = self.cache.lock();
        all.get(role).and_then(|kept| kept.reading.as_ref()).is_some_and(|reading| reading.fact().confirmed)
    }

    /// Cached roles of this account and name, which is how CloudTrail identifies roles.
    pub fn roles_by_name(&self, account: &str, name: &str) -> Vec<RoleArn> {
        self.cache.lock().keys().filter(|r| r.account() == account && r.name() == name).cloned().collect()
    }

    /// Removes all other roles.
    pub fn retain(&self, used: &BTreeSet<RoleArn>) {
        self.cache.lock().retain(|role, _| used.contains(role));
    }
}

struct GetRoleCall {
    iam: Arc<dyn Iam>,
    cache: Arc<CacheInner>,
}

#[async_trait]
impl BatchCall for GetRoleCall {
    type Group = RoleArn;
    type Request = ();
    type Response = (RoleTags, bool);
    type Error = AwsError;

    async fn call(
        &self,
        role: &RoleArn,
        _requests: Vec<()>,
    ) -> Result<BTreeMap<(), <Self as BatchCall>::Response>, AwsError> {
        let started = self.cache.clock.now();
        let tags = match self.iam.role_tags(role).await {
            Ok(tags) => Some(Arc::new(tags)),
            Err(error) if error.kind == AwsErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        // Recorded once per call and in the order of calls: waiting callers may run late, and one answer for two callers
        // is one reading.
        Ok([((), self.cache.record(role, tags, started))].into())
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{advance, sleep};

    use super::super::fakes::{CALL, FakeIam, RoleResponse, bucket, clock};
    use super::*;
    use ecs_mesh_controller::TokenBucket;

    const SECOND: Duration = Duration::from_secs(1);
    const RECHECK: Duration = Duration::from_mins(10);

    fn role() -> RoleArn {
        RoleArn::parse("arn:aws:iam::111122223333:role/mesh/kv").unwrap()
    }

    #[allow(clippy::unnecessary_wraps)] // a response may also be an error
    fn tagged(value: &str) -> RoleResponse {
        Ok([("kuma.io/mesh".to_owned(), value.to_owned())].into())
    }

    fn roles(response: RoleResponse) -> (RoleTagCache, Arc<FakeIam>) {
        let iam = FakeIam::returning(response);
        (RoleTagCache::new(iam.clone(), clock(), bucket()), iam)
    }

    /// The value of the tag (`none` for a missing role), and whether it is confirmed.
    fn known(fact: &Fact<RoleTags>) -> (String, bool) {
        let Fact::Known(RoleTags { tags, confirmed }) = fact else { panic!("{fact:?}") };
        let value = tags.as_ref().map_or("none", |tags| tags["kuma.io/mesh"].as_str());
        (value.to_owned(), *confirmed)
    }

    async fn read(roles: &RoleTagCache) -> (String, bool) {
        known(&roles.read(&role()).await.0)
    }

    #[tokio::test(start_paused = true)]
    async fn tags_are_cached_until_max_age() {
        let (roles, iam) = roles(tagged("a"));
        roles.get(&role(), RECHECK).await;
        iam.set_response(tagged("b"));
        sleep(RECHECK.saturating_sub(CALL + SECOND)).await;
        assert_eq!(known(&roles.get(&role(), RECHECK).await).0, "a");
        sleep(SECOND).await;
        assert_eq!(known(&roles.get(&role(), RECHECK).await).0, "b");
        assert_eq!(iam.calls(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn kept_reading_is_good_for_any_age() {
        let (roles, iam) = roles(tagged("a"));
        roles.keep_readings();
        roles.get(&role(), RECHECK).await;
        sleep(RECHECK * 10).await;
        assert_eq!(known(&roles.get(&role(), RECHECK).await).0, "a");
        assert_eq!(iam.calls(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn tasks_of_one_role_share_a_call() {
        let (roles, iam) = roles(tagged("a"));
        let asks = (0..100).map(|_| {
            let roles = roles.clone();
            tokio::spawn(async move { roles.get(&role(), RECHECK).await })
        });
        for ask in asks.collect::<Vec<_>>() {
            assert_eq!(
                known(&ask.await.unwrap()),
                ("a".to_owned(), false),
                "one answer for two callers is one reading"
            );
        }
        assert!(iam.calls() <= 2, "{} calls", iam.calls());
    }

    #[tokio::test(start_paused = true)]
    async fn two_reads_ten_seconds_apart_confirm_each_other() {
        for response in [tagged("a"), Err(AwsErrorKind::NotFound)] {
            let (roles, _iam) = roles(response);
            assert!(!read(&roles).await.1);
            sleep(ROLE_CONFIRM_INTERVAL.saturating_sub(SECOND)).await;
            assert!(!read(&roles).await.1, "nine seconds are not enough");
            assert!(read(&roles).await.1, "the first and the third are ten seconds apart");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn slow_answer_is_as_old_as_its_request() {
        let (roles, _iam) = roles(tagged("a"));
        read(&roles).await;
        assert_eq!(roles.age(&role()), Some(CALL));
        sleep(ROLE_CONFIRM_INTERVAL.saturating_sub(CALL)).await;
        // Started nine seconds after the end of the first read, ended ten seconds after.
        assert!(!read(&roles).await.1);
    }

    #[tokio::test(start_paused = true)]
    async fn different_answer_restarts_confirmation() {
        let (roles, iam) = roles(tagged("a"));
        read(&roles).await;
        sleep(ROLE_CONFIRM_INTERVAL).await;
        assert_eq!(read(&roles).await, ("a".to_owned(), true));
        iam.set_response(tagged("b"));
        assert_eq!(read(&roles).await, ("b".to_owned(), false));
        iam.set_response(tagged("a"));
        sleep(ROLE_CONFIRM_INTERVAL).await;
        assert_eq!(read(&roles).await, ("a".to_owned(), false));
        sleep(ROLE_CONFIRM_INTERVAL).await;
        assert_eq!(read(&roles).await, ("a".to_owned(), true));
    }

    #[tokio::test(start_paused = true)]
    async fn failed_read_does_not_affect_confirmation() {
        let (roles, iam) = roles(Err(AwsErrorKind::NotFound));
        read(&roles).await;
        iam.set_response(Err(AwsErrorKind::Unavailable));
        assert!(matches!(roles.read(&role()).await.0, Fact::Unknown(_)));
        iam.set_response(Err(AwsErrorKind::NotFound));
        sleep(ROLE_CONFIRM_INTERVAL).await;
        assert_eq!(read(&roles).await, ("none".to_owned(), true));
    }

    #[tokio::test(start_paused = true)]
    async fn failure_is_cached_for_five_seconds() {
        let (roles, iam) = roles(Err(AwsErrorKind::Throttled));
        let failure = roles.get(&role(), RECHECK).await;
        assert!(
            matches!(&failure, Fact::Unknown(reason) if reason.message.contains("for a reason")),
            "{failure:?}"
        );
        sleep(FAILURE_TTL.saturating_sub(SECOND)).await;
        assert_eq!(roles.get(&role(), RECHECK).await, failure);
        assert_eq!(iam.calls(), 1);
        iam.set_response(tagged("a"));
        sleep(SECOND).await;
        assert_eq!(known(&roles.get(&role(), RECHECK).await).0, "a");
    }

    #[tokio::test(start_paused = true)]
    async fn cached_tags_survive_a_failure_until_max_age() {
        let (roles, iam) = roles(tagged("a"));
        roles.get(&role(), RECHECK).await;
        iam.set_response(Err(AwsErrorKind::Denied));
        assert!(matches!(roles.read(&role()).await.0, Fact::Unknown(_)));
        assert_eq!(known(&roles.get(&role(), RECHECK).await).0, "a");
        sleep(RECHECK).await;
        assert!(matches!(roles.get(&role(), RECHECK).await, Fact::Unknown(_)));
    }

    #[tokio::test(start_paused = true)]
    async fn callers_that_share_a_call_all_see_the_change() {
        let (roles, iam) = roles(tagged("a"));
        read(&roles).await;
        assert!(roles.take_changed().is_empty(), "a first reading changes nothing");
        iam.set_response(tagged("b"));
        let (first, second) =
            tokio::join!(async { roles.read(&role()).await.1 }, async { roles.read(&role()).await.1 },);
        assert!(first && second);
        assert_eq!(roles.take_changed(), [role()].into());
        assert!(roles.take_changed().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn new_role_does_not_wait_for_periodic_reads() {
        let iam = FakeIam::returning(tagged("a"));
        let roles = RoleTagCache::new(iam, clock(), TokenBucket::new(2.0, 8));
        let role = |n: usize| RoleArn::parse(&format!("arn:aws:iam::111122223333:role/r{n}")).unwrap();
        for n in 0..400 {
            let (roles, role) = (roles.clone(), role(n));
            tokio::spawn(async move { roles.read_when_spare(&role).await });
        }
        sleep(SECOND * 30).await;
        for n in 400..404 {
            let begun = tokio::time::Instant::now();
            known(&roles.get(&role(n), RECHECK).await);
            assert!(begun.elapsed() <= CALL + SECOND, "role {n} waited {:?}", begun.elapsed());
        }
        sleep(SECOND * 400).await;
        assert!((0..404).all(|n| roles.age(&role(n)).is_some()), "a periodic read starved");
    }

    #[tokio::test(start_paused = true)]
    async fn change_found_for_one_task_is_reported_for_the_role() {
        let (roles, iam) = roles(tagged("a"));
        roles.get(&role(), RECHECK).await;
        iam.set_response(Err(AwsErrorKind::NotFound));
        advance(RECHECK).await;
        roles.get(&role(), RECHECK).await;
        assert_eq!(roles.take_changed(), [role()].into());
    }

    #[tokio::test(start_paused = true)]
    async fn cloudtrail_role_is_matched_by_account_and_name() {
        let (roles, _iam) = roles(tagged("a"));
        read(&roles).await;
        assert_eq!(roles.roles_by_name("111122223333", "kv"), [role()]);
        assert_eq!(roles.roles_by_name("999988887777", "kv"), []);
        assert_eq!(roles.roles_by_name("111122223333", "mesh/kv"), []);
        roles.retain(&BTreeSet::new());
        assert_eq!(roles.roles_by_name("111122223333", "kv"), []);
    }
}
