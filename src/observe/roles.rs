//! Role tags, read as seldom as safety allows: kept for a while, read again when CloudTrail tells of a change, and
//! believed in what they forbid only when two reads, at least [`APART`] apart, agree.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

use super::aws::{AwsError, AwsErrorKind, Iam};
use crate::intent::{Fact, RoleTags};
use crate::model::{RoleArn, Tags, Timestamp};
use crate::runtime::{BatchCall, Batcher, Clock, TokenBucket};

/// IAM is eventually consistent: two reads must lie this far apart to confirm each other.
pub const APART: Duration = Duration::from_secs(10);

/// When a role is read again after CloudTrail told of a change: the event may outrun the change.
pub const AFTER_CHANGE: [Duration; 3] = [Duration::ZERO, Duration::from_secs(10), Duration::from_mins(1)];

/// How long a failed read stands for the next ones, so that a thousand tasks of one role ask once.
const FAILED: Duration = Duration::from_secs(5);

/// The cache of role tags.
#[derive(Clone)]
pub struct Roles {
    kept: Arc<Mutex<BTreeMap<RoleArn, Kept>>>,
    batcher: Batcher<Call>,
    clock: Clock,
}

#[derive(Clone, Debug, Default)]
struct Kept {
    reading: Option<Reading>,
    failure: Option<(Timestamp, String)>,
}

#[derive(Clone, Debug)]
struct Reading {
    /// `None`: IAM says that there is no such role.
    tags: Option<Arc<Tags>>,
    /// When just this was first read, with nothing else since.
    first: Timestamp,
    last: Timestamp,
}

impl Reading {
    fn fact(&self) -> RoleTags {
        RoleTags { tags: self.tags.clone(), confirmed: self.first.age_at(self.last) >= APART }
    }
}

struct Call {
    iam: Arc<dyn Iam>,
}

impl Roles {
    /// Calls take tokens from `bucket`.
    pub fn new(iam: Arc<dyn Iam>, clock: Clock, bucket: TokenBucket) -> Self {
        Self { kept: Arc::default(), batcher: Batcher::new(Call { iam }, 1, Some(bucket)), clock }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<RoleArn, Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The role's tags, not older than `max_age`.
    pub async fn get(&self, role: &RoleArn, max_age: Duration) -> Fact<RoleTags> {
        let now = self.clock.now();
        if let Some(kept) = self.lock().get(role) {
            match (&kept.reading, &kept.failure) {
                (Some(reading), _) if reading.last.age_at(now) < max_age => {
                    return Fact::Known(reading.fact());
                }
                (_, Some((at, why))) if at.age_at(now) < FAILED => return Fact::Unknown(why.clone()),
                _ => {}
            }
        }
        self.read(role).await.0
    }

    /// Reads the role now. The second part tells whether its tags differ from what was known before.
    pub async fn read(&self, role: &RoleArn) -> (Fact<RoleTags>, bool) {
        let answer = self.batcher.ask(role.clone(), ()).await;
        let now = self.clock.now();
        let mut all = self.lock();
        let kept = all.entry(role.clone()).or_default();
        match answer {
            Ok(tags) => {
                kept.failure = None;
                let same = kept.reading.as_ref().is_some_and(|reading| reading.tags == tags);
                match &mut kept.reading {
                    Some(reading) if same => reading.last = now,
                    reading => *reading = Some(Reading { tags, first: now, last: now }),
                }
                let fact = kept.reading.as_ref().map(Reading::fact).map_or(Fact::NotAsked, Fact::Known);
                (fact, !same)
            }
            Err(error) => {
                let why = error.to_string();
                kept.failure = Some((now, why.clone()));
                (Fact::Unknown(why), false)
            }
        }
    }

    /// How old the newest reading is; `None` when there is none.
    pub fn age(&self, role: &RoleArn) -> Option<Duration> {
        let now = self.clock.now();
        self.lock().get(role)?.reading.as_ref().map(|reading| reading.last.age_at(now))
    }

    /// The roles of this account and name that anyone asked for: CloudTrail names roles so.
    pub fn named(&self, account: &str, name: &str) -> Vec<RoleArn> {
        self.lock().keys().filter(|r| r.account() == account && r.name() == name).cloned().collect()
    }

    /// Forgets all roles but these.
    pub fn keep_only(&self, used: &std::collections::BTreeSet<RoleArn>) {
        self.lock().retain(|role, _| used.contains(role));
    }
}

#[async_trait]
impl BatchCall for Call {
    type Group = RoleArn;
    type Request = ();
    type Response = Option<Arc<Tags>>;
    type Error = AwsError;

    async fn call(
        &self,
        role: &RoleArn,
        _requests: Vec<()>,
    ) -> Result<BTreeMap<(), <Self as BatchCall>::Response>, AwsError> {
        let tags = match self.iam.role_tags(role).await {
            Ok(tags) => Some(Arc::new(tags)),
            Err(error) if error.kind == AwsErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        Ok([((), tags)].into())
    }
}
