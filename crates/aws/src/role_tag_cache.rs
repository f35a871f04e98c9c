//! Role tags, read as seldom as safety allows: kept for a while, read again when CloudTrail tells of a change, and
//! believed in what they forbid only when two reads, at least [`ROLE_CONFIRM_INTERVAL`] apart, agree.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

use super::aws::{AwsError, AwsErrorKind, Iam, why};
use ecs_mesh_clock::Clock;
use ecs_mesh_controller::{BatchCall, Batcher, TokenBucket};
use ecs_mesh_core::intent::{Fact, RoleTags};
use ecs_mesh_model::{RoleArn, Tags, Timestamp, Reason};

/// IAM is eventually consistent: two reads must lie this far apart to confirm each other.
pub const ROLE_CONFIRM_INTERVAL: Duration = Duration::from_secs(10);

/// When a role is read again after CloudTrail told of a change: the event may outrun the change, and the second read
/// must be far enough from the end of the first to confirm it.
pub const ROLE_RECHECK_DELAYS: [Duration; 3] = [Duration::ZERO, Duration::from_secs(11), Duration::from_mins(1)];

/// How long a failed read stands for the next ones, so that a thousand tasks of one role ask once.
const FAILURE_TTL: Duration = Duration::from_secs(5);

/// The cache of role tags.
#[derive(Clone)]
pub struct RoleTagCache {
    cache: Arc<CacheInner>,
    batcher: Batcher<GetRoleCall>,
}

struct CacheInner {
    kept: Mutex<BTreeMap<RoleArn, CachedRole>>,
    /// Roles whose tags were found changed, by whichever read.
    changed: Mutex<BTreeSet<RoleArn>>,
    clock: Clock,
}

#[derive(Clone, Debug, Default)]
struct CachedRole {
    reading: Option<RoleReading>,
    failure: Option<(Timestamp, Reason)>,
}

#[derive(Clone, Debug)]
struct RoleReading {
    /// `None`: IAM says that there is no such role.
    tags: Option<Arc<Tags>>,
    /// When just this was first read, with nothing else since: the end of that call.
    first: Timestamp,
    /// When it was last read: the start of that call.
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

    /// Takes in what a call that was made at `asked` said. The second part tells whether that is not what was known.
    fn record(&self, role: &RoleArn, tags: Option<Arc<Tags>>, asked: Timestamp) -> (RoleTags, bool) {
        let answered = self.clock.now();
        let mut all = self.lock();
        let kept = all.entry(role.clone()).or_default();
        kept.failure = None;
        let before = kept.reading.take();
        let was_known = before.is_some();
        let same = before.filter(|reading| reading.tags == tags);
        let differs = same.is_none();
        let reading = match same {
            Some(reading) => RoleReading { last: asked, ..reading },
            None => RoleReading { tags, first: answered, last: asked },
        };
        let fact = kept.reading.insert(reading).fact();
        if differs && was_known {
            self.changed.lock().unwrap_or_else(PoisonError::into_inner).insert(role.clone());
        }
        (fact, differs)
    }

    fn record_failure(&self, role: &RoleArn, why: Reason) {
        self.lock().entry(role.clone()).or_default().failure = Some((self.clock.now(), why));
    }
}

impl RoleTagCache {
    /// Calls take tokens from `bucket`.
    pub fn new(iam: Arc<dyn Iam>, clock: Clock, bucket: TokenBucket) -> Self {
        let cache = Arc::new(CacheInner { kept: Mutex::default(), changed: Mutex::default(), clock });
        let call = GetRoleCall { iam, cache: Arc::clone(&cache) };
        Self { cache, batcher: Batcher::new(call, 1, Some(bucket)) }
    }

    /// The role's tags, not older than `max_age`.
    pub async fn get(&self, role: &RoleArn, max_age: Duration) -> Fact<RoleTags> {
        let now = self.cache.clock.now();
        if let Some(kept) = self.cache.lock().get(role) {
            match (&kept.reading, &kept.failure) {
                (Some(reading), _) if reading.last.age_at(now) < max_age => {
                    return Fact::Known(reading.fact());
                }
                (_, Some((at, why))) if at.age_at(now) < FAILURE_TTL => return Fact::Unknown(why.clone()),
                _ => {}
            }
        }
        self.read(role).await.0
    }

    /// Reads the role now. The second part tells whether its tags differ from what was known before; all who share
    /// the call hear the same.
    pub async fn read(&self, role: &RoleArn) -> (Fact<RoleTags>, bool) {
        match self.batcher.ask(role.clone(), ()).await {
            Ok((fact, differs)) => (Fact::Known(fact), differs),
            Err(error) => {
                let why = why(error);
                self.cache.record_failure(role, why.clone());
                (Fact::Unknown(why), false)
            }
        }
    }

    /// The roles whose tags were found changed since this was asked last: a read for one task may find what concerns
    /// all tasks of the role.
    pub fn take_changed(&self) -> BTreeSet<RoleArn> {
        std::mem::take(&mut self.cache.changed.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// How old the newest reading is; `None` when there is none.
    pub fn age(&self, role: &RoleArn) -> Option<Duration> {
        let now = self.cache.clock.now();
        self.cache.lock().get(role)?.reading.as_ref().map(|reading| reading.last.age_at(now))
    }

    /// Whether what is known of the role was read twice, far enough apart.
    pub fn is_confirmed(&self, role: &RoleArn) -> bool {
        let all = self.cache.lock();
        all.get(role).and_then(|kept| kept.reading.as_ref()).is_some_and(|reading| reading.fact().confirmed)
    }

    /// The roles of this account and name that anyone asked for: CloudTrail names roles so.
    pub fn roles_by_name(&self, account: &str, name: &str) -> Vec<RoleArn> {
        self.cache.lock().keys().filter(|r| r.account() == account && r.name() == name).cloned().collect()
    }

    /// Forgets all roles but these.
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
        let asked = self.cache.clock.now();
        let tags = match self.iam.role_tags(role).await {
            Ok(tags) => Some(Arc::new(tags)),
            Err(error) if error.kind == AwsErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        // Kept here, once a call and in the order of calls: whoever waits may be late, and one answer told to two is
        // still one reading.
        Ok([((), self.cache.record(role, tags, asked))].into())
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{advance, sleep};

    use super::super::fakes::{CALL, FakeIam, RoleResponse, bucket, clock};
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const RECHECK: Duration = Duration::from_mins(10);

    fn role() -> RoleArn {
        RoleArn::parse("arn:aws:iam::111122223333:role/mesh/kv").unwrap()
    }

    #[allow(clippy::unnecessary_wraps)] // what a role says may also be an error
    fn tagged(value: &str) -> RoleResponse {
        Ok([("kuma.io/mesh".to_owned(), value.to_owned())].into())
    }

    fn roles(response: RoleResponse) -> (RoleTagCache, Arc<FakeIam>) {
        let iam = FakeIam::returning(response);
        (RoleTagCache::new(iam.clone(), clock(), bucket()), iam)
    }

    /// The value of the tag, `none` for no such role, and whether that is confirmed.
    fn known(fact: &Fact<RoleTags>) -> (String, bool) {
        let Fact::Known(RoleTags { tags, confirmed }) = fact else { panic!("{fact:?}") };
        let value = tags.as_ref().map_or("none", |tags| tags["kuma.io/mesh"].as_str());
        (value.to_owned(), *confirmed)
    }

    async fn read(roles: &RoleTagCache) -> (String, bool) {
        known(&roles.read(&role()).await.0)
    }

    #[tokio::test(start_paused = true)]
    async fn tags_are_kept_until_they_are_too_old_for_who_asks() {
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
    async fn many_tasks_of_one_role_ask_once() {
        let (roles, iam) = roles(tagged("a"));
        let asks = (0..100).map(|_| {
            let roles = roles.clone();
            tokio::spawn(async move { roles.get(&role(), RECHECK).await })
        });
        for ask in asks.collect::<Vec<_>>() {
            assert_eq!(
                known(&ask.await.unwrap()),
                ("a".to_owned(), false),
                "one answer told twice is one reading"
            );
        }
        assert!(iam.calls() <= 2, "{} calls", iam.calls());
    }

    #[tokio::test(start_paused = true)]
    async fn two_readings_ten_seconds_apart_confirm_each_other() {
        for response in [tagged("a"), Err(AwsErrorKind::NotFound)] {
            let (roles, _iam) = roles(response);
            assert!(!read(&roles).await.1);
            sleep(ROLE_CONFIRM_INTERVAL.saturating_sub(SECOND)).await;
            assert!(!read(&roles).await.1, "nine seconds are not enough");
            assert!(read(&roles).await.1, "the first and the third are ten seconds apart");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_was_long_on_its_way_is_as_old_as_its_question() {
        let (roles, _iam) = roles(tagged("a"));
        read(&roles).await;
        assert_eq!(roles.age(&role()), Some(CALL));
        sleep(ROLE_CONFIRM_INTERVAL.saturating_sub(CALL)).await;
        // Asked nine seconds after the first was answered, answered ten seconds after.
        assert!(!read(&roles).await.1);
    }

    #[tokio::test(start_paused = true)]
    async fn another_answer_in_between_starts_the_confirmation_anew() {
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
    async fn a_failed_read_in_between_proves_nothing_either_way() {
        let (roles, iam) = roles(Err(AwsErrorKind::NotFound));
        read(&roles).await;
        iam.set_response(Err(AwsErrorKind::Unavailable));
        assert!(matches!(roles.read(&role()).await.0, Fact::Unknown(_)));
        iam.set_response(Err(AwsErrorKind::NotFound));
        sleep(ROLE_CONFIRM_INTERVAL).await;
        assert_eq!(read(&roles).await, ("none".to_owned(), true));
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_stands_for_five_seconds_for_everyone() {
        let (roles, iam) = roles(Err(AwsErrorKind::Throttled));
        let why = roles.get(&role(), RECHECK).await;
        assert!(matches!(&why, Fact::Unknown(why) if why.message.contains("for a reason")), "{why:?}");
        sleep(FAILURE_TTL.saturating_sub(SECOND)).await;
        assert_eq!(roles.get(&role(), RECHECK).await, why);
        assert_eq!(iam.calls(), 1);
        iam.set_response(tagged("a"));
        sleep(SECOND).await;
        assert_eq!(known(&roles.get(&role(), RECHECK).await).0, "a");
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_read_outlives_a_failure_until_it_is_too_old() {
        let (roles, iam) = roles(tagged("a"));
        roles.get(&role(), RECHECK).await;
        iam.set_response(Err(AwsErrorKind::Denied));
        assert!(matches!(roles.read(&role()).await.0, Fact::Unknown(_)));
        assert_eq!(known(&roles.get(&role(), RECHECK).await).0, "a");
        sleep(RECHECK).await;
        assert!(matches!(roles.get(&role(), RECHECK).await, Fact::Unknown(_)));
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_shares_the_call_hears_of_the_change() {
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
    async fn a_change_that_one_task_finds_is_there_for_the_others() {
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
